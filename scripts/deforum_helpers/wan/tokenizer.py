"""UMT5's tokenizer: text -> ids and the characters each came from.

Three forms of the same thing are read: a tokenizer.json (the official folder, diffusers, the demo), a
sentencepiece model (a folder without the json, or the `spiece_model` tensor of a single-file encoder), and
the vocabulary in a GGUF's metadata.  Nothing is fetched, and no code of a model folder is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import ModelError
from ..model_files import PartInfo

__all__ = ["Tokenized", "Tokenizer", "load_tokenizer"]

EOS = 1  # of every UMT5 vocabulary; 0 is the padding


@dataclass(frozen=True)
class Tokenized:
    """ids end with EOS.  spans: for each id the characters [start, end) it stands for, (0, 0) for EOS."""

    ids: list[int]
    spans: list[tuple[int, int]]


class Tokenizer(Protocol):
    def __call__(self, text: str, longest: int) -> Tokenized:
        """Tokenize; at most `longest` ids, the last one EOS."""
        ...


def load_tokenizer(part: PartInfo) -> Tokenizer:
    """Raises ModelError if it is damaged."""
    try:
        if part.layout == "folder" and (Path(part.files[0]) / "tokenizer.json").is_file():
            return _from_json(Path(part.files[0]) / "tokenizer.json")
        if part.layout == "folder":
            return _from_sentencepiece((Path(part.files[0]) / "spiece.model").read_bytes())
        if part.layout == "spiece_model":
            return _from_sentencepiece(_embedded_model(part))
        return _from_gguf(part.files[0])
    except ModelError:
        raise
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"the tokenizer can't be read ({error})", where=part.files[0]) from error


def _from_json(path: Path) -> Tokenizer:
    import tokenizers

    return _fast(tokenizers.Tokenizer.from_file(str(path)))


def _fast(engine: object) -> Tokenizer:
    engine.no_padding()  # type: ignore[attr-defined]
    engine.no_truncation()  # type: ignore[attr-defined]

    def tokenize(text: str, longest: int) -> Tokenized:
        encoding = engine.encode(text, add_special_tokens=False)  # type: ignore[attr-defined]
        ids, spans = encoding.ids[: longest - 1], encoding.offsets[: longest - 1]
        return Tokenized([*ids, EOS], [*spans, (0, 0)])

    return tokenize


def _embedded_model(part: PartInfo) -> bytes:
    """The sentencepiece file that single-file encoders carry as a tensor of bytes."""
    from safetensors import safe_open

    with safe_open(part.files[0], framework="np") as file:
        return file.get_tensor(part.prefix + "spiece_model").tobytes()


def _from_sentencepiece(model: bytes) -> Tokenizer:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def tokenize(text: str, longest: int) -> Tokenized:
        found = processor.encode(text, return_type="offset_mapping")
        ids, spans = found["ids"][: longest - 1], found["offsets"][: longest - 1]
        return Tokenized([*ids, EOS], [*spans, (0, 0)])

    return tokenize


def _from_gguf(file: str) -> Tokenizer:
    """A unigram tokenizer from the metadata that llama.cpp's converter writes."""
    import gguf
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers

    fields = gguf.GGUFReader(file).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    scores = fields["tokenizer.ggml.scores"].contents()
    unknown = fields["tokenizer.ggml.unknown_token_id"].contents() if "tokenizer.ggml.unknown_token_id" in fields else 2
    engine = tokenizers.Tokenizer(models.Unigram(list(zip(tokens, scores, strict=True)), unknown, byte_fallback=False))
    steps = [normalizers.Strip(), normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    if "tokenizer.ggml.precompiled_charsmap" in fields:
        charsmap = bytes(n & 255 for n in fields["tokenizer.ggml.precompiled_charsmap"].contents())
        steps.insert(0, normalizers.Precompiled(charsmap))
    engine.normalizer = normalizers.Sequence(steps)
    engine.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    return _fast(engine)
