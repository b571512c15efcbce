"""A prompt's text before it is tokenized: cleaned as officially, and with its weights taken out.

`(text:1.2)` weighs a stretch of a prompt.  The model never sees the syntax: the plain text is tokenized,
and the context rows of the weighted words are scaled afterwards.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

__all__ = ["WeightedSpan", "clean_prompt", "split_weights"]

_WEIGHT = re.compile(r":\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*$")
_HEAVIEST = 10.0


@dataclass(frozen=True)
class WeightedSpan:
    """Characters [start, end) of the plain text, and the factor for their context rows."""

    start: int
    end: int
    weight: float


def clean_prompt(text: str) -> str:
    """Mend the encoding, resolve HTML entities, make every run of white space one space.

    Full-width punctuation becomes ASCII on the way, which changes the tokens of Chinese prompts; the
    model was trained that way.  Source: Wan 2.1, text cleaning "whitespace".
    """
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text.strip()).strip()


def split_weights(text: str) -> tuple[str, list[WeightedSpan]]:
    """Take the weights out of a prompt.

    "a (red:1.3) car" -> ("a red car", [WeightedSpan(2, 5, 1.3)]).  Brackets may be nested, their weights
    multiply.  Brackets without a number stay as they are; a backslash keeps a bracket from counting.
    """
    plain: list[str] = []
    opened: list[int] = []
    spans: list[WeightedSpan] = []
    at = 0
    while at < len(text):
        if text[at] == "\\" and text[at + 1 : at + 2] in ("(", ")"):
            plain.append(text[at + 1])
            at += 2
            continue
        plain.append(text[at])
        if text[at] == "(":
            opened.append(len(plain) - 1)
        elif text[at] == ")" and opened:
            _close(plain, opened.pop(), spans)
        at += 1
    return "".join(plain), spans


def _close(plain: list[str], start: int, spans: list[WeightedSpan]) -> None:
    """A bracket ends: if it ends in a weight, drop the syntax and note the span."""
    content = "".join(plain[start + 1 : -1])
    match = _WEIGHT.search(content)
    if match is None or not content[: match.start()].strip():
        return
    plain[start:] = content[: match.start()]
    spans[:] = [WeightedSpan(s.start - 1, s.end - 1, s.weight) if s.start > start else s for s in spans]
    spans.append(WeightedSpan(start, len(plain), max(-_HEAVIEST, min(_HEAVIEST, float(match[1])))))
