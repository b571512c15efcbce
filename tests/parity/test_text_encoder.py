"""Prompts to context: official cleaning, tokens and numbers; weights; the cache."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from deforum_helpers.errors import ModelError
from deforum_helpers.model_files import PartInfo, inspect_model
from deforum_helpers.wan.prompt_text import WeightedSpan, clean_prompt, split_weights
from deforum_helpers.wan.text_cache import EmbeddingCache, encoder_fingerprint
from deforum_helpers.wan.text_encoder import TextEncoder
from deforum_helpers.wan.tokenizer import load_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

HERE = Path(__file__).resolve().parent
BUNDLED = HERE.parents[1] / "models" / "demo"
CPU = torch.device("cpu")
PROMPT = "a red ball bouncing in the desert at noon"

sys.path.insert(0, str(HERE))


@pytest.fixture(scope="module")
def parts() -> dict[str, PartInfo]:
    return dict(inspect_model(BUNDLED).require().parts)


def make_encoder(parts: dict[str, PartInfo], cache: EmbeddingCache | None = None, text_len: int = 64) -> TextEncoder:
    return TextEncoder(parts["text_encoder"], parts["tokenizer"], text_len, CPU, torch.float32, cache)


@pytest.fixture(scope="module")
def encoder(parts: dict[str, PartInfo]) -> TextEncoder:
    return make_encoder(parts)


@pytest.mark.parametrize(
    ("raw", "clean"), json.loads((HERE / "golden" / "rules.json").read_text("utf-8"))["text_clean"]
)
def test_cleaning_is_the_official_one(raw: str, clean: str) -> None:
    assert clean_prompt(raw) == clean


@pytest.mark.parametrize(
    ("text", "plain", "spans"),
    [
        ("a (red:1.3) car", "a red car", [(2, 5, 1.3)]),
        ("(whole thing:0.5)", "whole thing", [(0, 11, 0.5)]),
        ("(a:2)(b: 3 )", "ab", [(0, 1, 2.0), (1, 2, 3.0)]),
        ("x (deep (red:2) car:1.5) y", "x deep red car y", [(7, 10, 2.0), (2, 14, 1.5)]),
        ("((red:2):3)", "red", [(0, 3, 2.0), (0, 3, 3.0)]),
        ("a (red) car", "a (red) car", []),
        ("at 12:30 (or so)", "at 12:30 (or so)", []),
        ("(red:) (:1.2) (x:y)", "(red:) (:1.2) (x:y)", []),
        (r"a \(red:1.3\) car", "a (red:1.3) car", []),
        ("((red:1.3)", "(red", [(1, 4, 1.3)]),
        ("red:1.3) car", "red:1.3) car", []),
        ("(red:.5)(blue:-1)(sky:1.)", "redbluesky", [(0, 3, 0.5), (3, 7, -1.0), (7, 10, 1.0)]),
        ("(red:999)", "red", [(0, 3, 10.0)]),
        ("", "", []),
    ],
)
def test_weights_are_taken_out(text: str, plain: str, spans: list[tuple[int, int, float]]) -> None:
    assert split_weights(text) == (plain, [WeightedSpan(*span) for span in spans])


@settings(max_examples=200)
@given(st.text(alphabet="ab():.12\\ ", max_size=40))
def test_spans_lie_in_the_plain_text(text: str) -> None:
    plain, spans = split_weights(text)
    assert all(0 <= span.start < span.end <= len(plain) and abs(span.weight) <= 10 for span in spans)


def test_context_is_transformers_own(encoder: TextEncoder) -> None:
    """The whole path beside transformers' own loading, tokenizer and masked, padded batch."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BUNDLED / "tokenizer", local_files_only=True)
    texts = [PROMPT, "", "one two three " * 40]
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=64, return_tensors="pt")
    context = encoder.encode(texts)
    assert context.shape == (3, 64, 96)
    with torch.no_grad():
        hidden = encoder._model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    for row, mask in enumerate(batch.attention_mask.bool()):
        assert torch.allclose(context[row, mask], hidden[row, mask], atol=5e-5, rtol=0)
        assert context[row, ~mask].abs().max().item() == 0 if (~mask).any() else True
        assert encoder._tokenize(clean_prompt(texts[row])).ids == batch.input_ids[row][mask].tolist()
    assert batch.attention_mask.sum(1).tolist()[1:] == [1, 64]


def test_weights_scale_the_rows_of_their_words(encoder: TextEncoder) -> None:
    plain, one, heavy, nested = encoder.encode(
        [PROMPT, PROMPT.replace("red", "(red:1.0)"), PROMPT.replace("red", "(red:1.5)"), f"({PROMPT}:0.5)"]
    )
    assert torch.equal(one, plain)
    changed = (heavy != plain).any(dim=1)
    assert changed.sum() == 1
    assert torch.equal(heavy[changed], plain[changed] * 1.5)
    real = plain.abs().sum(1) > 0
    assert torch.equal(nested[real][:-1], plain[real][:-1] * 0.5)
    assert torch.equal(nested[real][-1], plain[real][-1])  # the end mark belongs to no word


def test_the_cache_gives_the_same_bits_without_the_encoder(parts: dict[str, PartInfo], tmp_path: Path) -> None:
    first = make_encoder(parts, EmbeddingCache(tmp_path))
    wanted = first.encode([PROMPT, "(a:2) boat"])
    second = make_encoder(parts, EmbeddingCache(tmp_path))
    assert torch.equal(second.encode([PROMPT, "(a:2) boat"]), wanted)
    assert torch.equal(second.encode(["(a:1) boat"])[0, 1:], second.encode(["a boat"])[0, 1:])
    assert not second.loaded
    for file in tmp_path.iterdir():
        file.write_bytes(b"broken")
    third = make_encoder(parts, EmbeddingCache(tmp_path))
    assert torch.equal(third.encode([PROMPT, "(a:2) boat"]), wanted)
    assert third.loaded


def test_the_cache_keeps_to_its_size(tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path / "new", most_bytes=5000)
    for n in range(10):
        cache.put(torch.full((10, 20), float(n)), "key", str(n))
    kept = [n for n in range(10) if cache.get("key", str(n)) is not None]
    assert kept and kept == list(range(10 - len(kept), 10))
    assert sum(file.stat().st_size for file in (tmp_path / "new").iterdir()) <= 5000
    assert cache.get("other") is None


def test_a_cache_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = EmbeddingCache(tmp_path / "file" / "folder")
    cache.put(torch.zeros(2, 2), "a")
    assert cache.get("a") is None


def test_fingerprint_follows_content_not_place(parts: dict[str, PartInfo], tmp_path: Path) -> None:
    shutil.copytree(BUNDLED, tmp_path / "copy")
    copied = inspect_model(tmp_path / "copy").parts
    before = encoder_fingerprint(parts["text_encoder"], parts["tokenizer"])
    assert encoder_fingerprint(copied["text_encoder"], copied["tokenizer"]) == before
    path = Path(copied["text_encoder"].files[0])
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    assert encoder_fingerprint(copied["text_encoder"], copied["tokenizer"]) != before


def test_sixteen_bit_floats_become_bfloat16(parts: dict[str, PartInfo]) -> None:
    half = TextEncoder(parts["text_encoder"], parts["tokenizer"], 64, CPU, torch.float16)
    assert half.encode([PROMPT]).dtype == torch.bfloat16


def test_unload_and_load_again(parts: dict[str, PartInfo]) -> None:
    encoder = make_encoder(parts)
    wanted = encoder.encode([PROMPT])
    encoder.unload()
    assert not encoder.loaded
    assert torch.equal(encoder.encode([PROMPT]), wanted)


# Tokenizers in their other forms, from a small model trained here


@pytest.fixture(scope="module")
def spiece(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece model with UMT5's special tokens and rules, in a folder as the official one."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("umt5-xxl")
    words = ["a red ball bouncing in the desert at noon", "一只猫, 在跑步。", "Two boats; don't sink (yet): café!"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_prefix=str(folder / "spiece"), vocab_size=120, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
        character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.vocab").unlink()
    return folder


TEXTS = [PROMPT, "", "一只猫, 在跑步。", "café (x:1.2) don't; unseen ẞ words", "  two  spaces "]


def expected_ids(folder: Path) -> list[list[int]]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    return [[*processor.encode(text), 1] for text in TEXTS]


def test_a_folder_with_only_the_sentencepiece_model(spiece: Path) -> None:
    tokenize = load_tokenizer(PartInfo("tokenizer", "folder", "spiece.model", (str(spiece),), "", 0))
    assert [tokenize(text, 64).ids for text in TEXTS] == expected_ids(spiece)
    tokens = tokenize("a red ball", 64)
    assert "".join("a red ball"[start:end] for start, end in tokens.spans[:-1]) == "a red ball"
    assert len(tokenize(PROMPT, 4).ids) == 4 and tokenize(PROMPT, 4).ids[-1] == 1


def test_the_tokenizer_inside_a_single_file_encoder(spiece: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = torch.frombuffer(bytearray((spiece / "spiece.model").read_bytes()), dtype=torch.uint8)
    save_file({"spiece_model": model}, tmp_path / "x.safetensors")
    tokenize = load_tokenizer(
        PartInfo("tokenizer", "spiece_model", "safetensors", (str(tmp_path / "x.safetensors"),), "", 0)
    )
    assert [tokenize(text, 64).ids for text in TEXTS] == expected_ids(spiece)


def _field(message: bytes, wanted: int) -> bytes:
    """The bytes of one length-delimited field of a protobuf message."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 2:
            length = varint()
            at += length
            if key >> 3 == wanted:
                return message[at - length : at]
        elif key & 7 == 0:
            varint()
        else:
            at += 4 if key & 7 == 5 else 8
    raise AssertionError(f"no field {wanted}")


def test_the_tokenizer_in_a_ggufs_metadata(spiece: Path, tmp_path: Path) -> None:
    """With the fields that llama.cpp's converter writes for a T5 encoder."""
    import gguf
    import sentencepiece

    charsmap = _field(_field((spiece / "spiece.model").read_bytes(), 3), 2)  # normalizer_spec.precompiled_charsmap
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spiece / "spiece.model"))
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "t5encoder")
    writer.add_tokenizer_model("t5")
    writer.add_token_list([processor.id_to_piece(i) for i in range(len(processor))])
    writer.add_token_scores([processor.get_score(i) for i in range(len(processor))])
    writer.add_unk_token_id(2)
    writer.add_precompiled_charsmap(charsmap)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    tokenize = load_tokenizer(PartInfo("tokenizer", "gguf", "gguf", (str(tmp_path / "x.gguf"),), "", 0))
    assert [tokenize(text, 64).ids for text in TEXTS] == expected_ids(spiece)


def test_a_broken_tokenizer_and_one_of_another_model(parts: dict[str, PartInfo], spiece: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer can't be read"):
        load_tokenizer(PartInfo("tokenizer", "folder", "tokenizer.json", (str(tmp_path),), "", 0))
    encoder = make_encoder(parts)
    encoder.part = dataclasses.replace(encoder.part, sizes={**encoder.part.sizes, "vocab_size": 20})
    with pytest.raises(ModelError, match="tokenizer is of another model"):
        encoder.encode([PROMPT])


def test_golden_umt5() -> None:
    from golden_format import GOLDEN, load_fixture
    from golden_text import run_umt5

    with torch.inference_mode():
        differences = run_umt5(load_fixture(GOLDEN / "umt5.safetensors"))
    assert len(differences) == 5
    assert all(d.passed for d in differences), differences
    assert max(d.value for d in differences) < 1e-5


def test_rows_are_real_tokens_then_zeros(encoder: TextEncoder) -> None:
    context: Tensor = encoder.encode(["", PROMPT])
    used = (context.abs().sum(-1) > 0).long()
    assert torch.equal(used, used.sort(dim=1, descending=True).values)
    assert used.sum(1)[0] == 1
