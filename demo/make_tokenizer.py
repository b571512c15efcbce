"""Make the demo's tokenizer: Unigram, byte fallback, 2048 pieces.  `python demo/make_tokenizer.py` (a few seconds)

T5's conventions: pad 0, eos 1, unk 2, eos appended. Any text encodes without an unknown token: what no piece covers
falls back to bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
from captions import caption, negative
from common import MODEL, TEXT_LEN, VOCABULARY
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from world import sample_look

SPECIAL = ["<pad>", "</s>", "<unk>"]
# ordinary words, so that free wording falls into words and syllables rather than letters
PLAIN = """
a small dog runs through the park in the rain with a big smile while people walk by and the camera slowly zooms in
and pans across the street then the clouds turn dark and it starts to snow on the old house near the river where two
children play with their friends and a woman in a long dress reads her book under the tall tree as birds sing and the
wind moves the leaves of the forest this is what we want to see now please make it look good and very nice for me
every day they come home late but today he said that there was something new about the way she looked at him before
he could think about what would happen next to all of them because time and space are strange things that nobody has
ever really known or understood from one end of the world to the other just like fire water earth air light shadow
morning evening winter summer spring autumn first second third last left right up down slow fast quick bright pale
deep clear soft hard round square flat high low wide long short hot cold dry wet empty full open closed great little
picture photo film drawing painting style detailed scene background foreground landscape view close wide shot frame
cat horse fish flower tree castle robot dragon train plane bridge city street window door table chair garden cloud rain
the quick brown fox jumps over the lazy dog 0123456789 .,;:!?'"()-_/&%+*#@[]{}<>=|~^$
"""


def corpus(seed: int = 5) -> list[str]:
    rng = np.random.default_rng(seed)
    texts = [caption(sample_look(rng), rng) for _ in range(20_000)]
    return texts + [negative(rng) for _ in range(1500)] + PLAIN.strip().splitlines() * 60


def pieces(texts: list[str], trained: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Whole words with their own frequency, letters, bytes, and the trainer's sub-words as the rest.

    The trainer alone would split even "red", as frequent words are made of frequent letters.
    """
    count = Counter("▁" + word for text in texts for word in re.findall(r"[a-z0-9]+", text.lower()))
    total = sum(count.values())
    words = {word: math.log(n / total) for word, n in count.most_common() if n >= 40}
    low = min(score for _, score in trained) - 2
    letters = {c: low + 1 for c in sorted({c for text in texts for c in text.lower() if c != " "} | {"▁"})}
    known = set(words) | set(letters)
    rest = [(p, min(s, -9.0) - 3) for p, s in trained if p not in known and len(p) > 1 and p not in SPECIAL]
    byte_pieces = [(f"<0x{k:02X}>", low) for k in range(256)]
    table = [(p, 0.0) for p in SPECIAL] + byte_pieces + list(letters.items()) + list(words.items()) + rest
    table += [(f"<extra_{k}>", low - 20) for k in range(VOCABULARY - len(table))]
    return table[:VOCABULARY]


def build() -> Tokenizer:
    texts = corpus()
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("\n", " ")])
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    draft = Tokenizer(models.Unigram())
    draft.normalizer, draft.pre_tokenizer = normalizer, metaspace
    draft.train_from_iterator(
        texts,
        trainers.UnigramTrainer(
            vocab_size=VOCABULARY - 256, special_tokens=SPECIAL, unk_token="<unk>", max_piece_length=12
        ),
    )
    trained = [tuple(entry) for entry in json.loads(draft.to_str())["model"]["vocab"]][len(SPECIAL) :]
    tokenizer = Tokenizer(models.Unigram(pieces(texts, trained), unk_id=2, byte_fallback=True))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, metaspace
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MODEL / "tokenizer")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build()
    tokenizer.save(str(out / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>",
              "unk_token": "<unk>", "model_max_length": TEXT_LEN, "clean_up_tokenization_spaces": False}  # fmt: skip
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(tokenizer.get_vocab_size(), "pieces in", out)


if __name__ == "__main__":
    main()
