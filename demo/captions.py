"""Captions of the demo world: many ways to say the same look, with filler and words the model has never met.

What counts: every attribute has synonyms, any order of the parts occurs, and misleading words (green hills, an orange
sky) stand beside the object's own colour. What a caption leaves out may be anything.
"""

from __future__ import annotations

import numpy as np
from wordings import (
    AFTER,
    BEFORE,
    COLOUR_WORDS,
    HOUR_ADJECTIVES,
    HOUR_TAGS,
    HOURS,
    NEGATIVES,
    NOUNS,
    PLACES,
    PREPOSITIONS,
    SIDEWAYS,
    SIZES,
    SPEED_WORDS,
    STILL,
    STRANGE,
    VERBS,
    VERTICAL,
)
from world import Look


def _options(words: str | tuple[str, ...]) -> list[str]:
    """'a*3 b_c' -> ['a', 'a', 'a', 'b c']."""
    out: list[str] = []
    for item in words.split() if isinstance(words, str) else words:
        word, _, times = item.partition("*")
        out += [word.replace("_", " ")] * int(times or 1)
    return out


class Wording:
    """One caption's choices: the parts of the sentence, drawn once."""

    def __init__(self, look: Look, rng: np.random.Generator, drop: float) -> None:
        self.rng = rng
        self.kind = "boat" if look.object == "boat" else "car" if look.object == "car" else "air"
        self.noun = self.pick(NOUNS[look.object])
        self.colour = "" if self.chance(drop) else self.pick(COLOUR_WORDS[look.colour])
        self.verb, self.participle = ("", "") if self.chance(drop) else self.motion(look)
        self.place_noun = self.pick(PLACES[look.scenery])
        self.place = "" if self.chance(drop) else self.where(look)
        self.hour = "" if self.chance(drop) else self.pick(HOURS[look.time])
        self.hour_tag = self.pick(HOUR_TAGS[look.time]) if self.hour else ""
        if self.hour and self.place and self.chance(0.06):  # "over the moonlit sea"
            self.place = self.place.replace(
                self.place_noun, f"{self.pick(HOUR_ADJECTIVES[look.time])} {self.place_noun}"
            )
            self.hour = ""

    def pick(self, words: str | tuple[str, ...]) -> str:
        options = _options(words)
        return options[self.rng.integers(len(options))]

    def chance(self, p: float) -> bool:
        return self.rng.uniform() < p

    def motion(self, look: Look) -> tuple[str, str]:
        """Finite form and participle, each with direction and pace."""
        if look.motion in VERTICAL:
            forms, way = self.pick(VERTICAL[look.motion]).split("/"), ""
            if self.chance(0.3):
                forms = self.pick(VERBS[look.object]).split("/")
                way = self.pick(
                    "up*2 upwards upward higher" if look.motion == "up" else "down*2 downwards downward lower"
                )
        elif look.motion == "still":
            forms, way = self.pick(STILL["air" if self.kind == "air" else "ground"]).split("/"), ""
        else:
            other = "left" if look.motion == "right" else "right"
            forms, way = self.pick(VERBS[look.object]).split("/"), self.pick(SIDEWAYS).format(look.motion, other=other)
        pace = self.pick(SPEED_WORDS[look.speed]) if look.speed != "normal" and look.motion != "still" else ""
        tail = [way, pace] if self.chance(0.7) else [pace, way]
        return tuple(" ".join(x for x in (form, *tail) if x) for form in forms)

    def where(self, look: Look) -> str:
        article = "a " if self.place_noun.endswith(("valley", "landscape", "bay", "lake")) else "the "
        if self.place_noun.endswith(("s", "snow", "sand", "water")) and self.chance(0.4):
            article = ""
        if look.scenery == "mountains" and self.kind != "car" and self.chance(0.3):
            return f"in front of {article}{self.place_noun}"
        return f"{self.pick(PREPOSITIONS[self.kind])} {article}{self.place_noun}"

    def head(self) -> str:
        size = self.pick(SIZES) if self.chance(0.15) else ""
        if self.colour and self.chance(0.08):
            body = f"{size} {self.noun} " + self.pick("in_{} of_{}_colour that_is_{} painted_{} which_is_{}").format(
                self.colour
            )
        else:
            body = f"{size} {self.colour} {self.noun}"
        body = " ".join(body.split())
        roll = self.rng.uniform()
        article = (
            ""
            if roll < 0.15
            else "the"
            if roll < 0.3
            else "one"
            if roll < 0.33
            else "an"
            if body[0] in "aeiou"
            else "a"
        )
        return f"{article} {body}".strip()


def _sentence(w: Wording) -> str:
    """Put the parts together in one of many shapes; empty parts leave no trace."""
    head, join = w.head(), lambda *parts: " ".join(p for p in parts if p)
    shape = w.rng.integers(14)
    if shape <= 3:
        return join(head, w.verb, w.place, w.hour)
    if shape == 4:
        return join(w.hour + "," if w.hour else "", head, w.verb, w.place)
    if shape == 5:
        return join(w.place + "," if w.place else "", head, w.verb, w.hour)
    if shape == 6:
        return join(head, w.participle, w.place, w.hour)
    if shape == 7:
        return join(w.pick("there_is we_see look_at you_can_see watch"), head, w.participle, w.place, w.hour)
    if shape == 8:
        tags = [
            t for t in (f"{w.colour} {w.noun}".strip(), w.participle, w.place_noun if w.place else "", w.hour_tag) if t
        ]
        return ", ".join(tags[i] for i in w.rng.permutation(len(tags)))
    if shape == 9:
        it = [f"it {w.verb}" if w.verb else "", f"it is {w.hour_tag}" if w.hour else "", w.place]
        return ". ".join(p for p in (head, *(it[i] for i in w.rng.permutation(3))) if p)
    if shape == 10:
        return join(w.hour, w.place + ":" if w.place else "", head, w.verb)
    if shape == 11:
        return join(w.place_noun if w.place else "", w.hour, "with", head, w.participle)
    if shape == 12:
        tail = [w.verb, w.place, w.hour]
        return join(head, *(tail[i] for i in w.rng.permutation(3)))
    parts = [head, w.participle, w.place, w.hour]
    return ", ".join(parts[i] for i in w.rng.permutation(4) if parts[i])


def _strange(rng: np.random.Generator) -> str:
    words = STRANGE.split()
    if rng.uniform() < 0.6:
        return words[rng.integers(len(words))]
    return "".join(chr(97 + int(k)) for k in rng.integers(0, 26, int(rng.integers(3, 9))))


def caption(look: Look, rng: np.random.Generator, drop: float = 0.03, plain: bool = False) -> str:
    """One wording of a look.  drop: chance of leaving each attribute out.  plain: no filler, no strange words."""
    text = _sentence(Wording(look, rng, drop))
    if not plain:
        if rng.uniform() < 0.18:
            words = text.split(" ")
            for _ in range(int(rng.integers(1, 4))):
                words.insert(int(rng.integers(len(words) + 1)), _strange(rng))
            text = " ".join(words)
        if rng.uniform() < 0.2:
            text = f"{BEFORE[rng.integers(len(BEFORE))]} {text}"
        if rng.uniform() < 0.2:
            text = f"{text}, {AFTER[rng.integers(len(AFTER))]}"
    if rng.uniform() < 0.3:
        text = text[:1].upper() + text[1:]
    return text + "." * (rng.uniform() < 0.3)


def negative(rng: np.random.Generator) -> str:
    """Words as they stand in negative prompts; trained as a caption of anything, so that they do no harm there."""
    return ", ".join(str(word) for word in rng.permutation(NEGATIVES)[: rng.integers(1, 9)])
