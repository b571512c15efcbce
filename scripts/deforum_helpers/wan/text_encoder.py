"""Prompts to context: cleaning, tokenizing, UMT5, weights.

UMT5 itself is transformers' module under the official weights; it is built from the checkpoint's sizes and
loaded only when a prompt isn't in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..model_files import PartInfo
from ..model_files.layouts import layout_of
from .offload import stream_blocks
from .prompt_text import WeightedSpan, clean_prompt, split_weights
from .text_cache import EmbeddingCache, encoder_fingerprint
from .tokenizer import Tokenized, Tokenizer, load_tokenizer
from .weights import load_module

__all__ = ["TextEncoder", "build_umt5", "load_umt5"]


def build_umt5(sizes: Mapping[str, int]) -> nn.Module:
    """transformers' UMT5EncoderModel of a checkpoint's sizes; build it on the meta device."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=sizes["vocab_size"],
        d_model=sizes["dim"],
        d_kv=sizes["dim_attn"] // sizes["num_heads"],
        d_ff=sizes["dim_ffn"],
        num_layers=sizes["num_layers"],
        num_heads=sizes["num_heads"],
        relative_attention_num_buckets=sizes["num_buckets"],
        relative_attention_max_distance=128,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    config._attn_implementation = "eager"  # the position bias is an addend, and prompts are short
    model = UMT5EncoderModel(config)
    # One embedding under two names; left out of the second, it is loaded once and can't come apart.
    model.encoder.embed_tokens = None
    return model


def transformers_name(official: str) -> str:
    """An official tensor's name in transformers' module."""
    return layout_of("text_encoder", "transformers").names_of(official)[0]


def load_umt5(part: PartInfo, device: torch.device, dtype: torch.dtype, *, stream: bool = False) -> nn.Module:
    """The encoder with a checkpoint's weights.

    stream: keep its blocks in host memory and bring them to the device one at a time.  Raises ModelError.
    """
    home = torch.device("cpu") if stream else device
    model = load_module(lambda: build_umt5(part.sizes), part, home, dtype, rename=transformers_name)
    model.encoder.embed_tokens = model.shared
    if stream:
        stream_blocks(model, model.encoder.block, device)
    return model


class TextEncoder:
    """Embeds prompts as the official pipeline does.

    stream: see load_umt5.
    text_len: rows of the context.  dtype: of the encoder and the context; float16 becomes bfloat16, whose range
    UMT5 needs.  cache: where embedded prompts are kept, None = nowhere.
    """

    def __init__(
        self,
        encoder: PartInfo,
        tokenizer: PartInfo,
        text_len: int,
        device: torch.device,
        dtype: torch.dtype,
        cache: EmbeddingCache | None = None,
        stream: bool = False,
    ) -> None:
        self.part, self.tokenizer_part, self.text_len, self.device = encoder, tokenizer, text_len, device
        self.dtype = torch.bfloat16 if dtype == torch.float16 else dtype
        self.cache, self.stream = cache, stream
        self._fingerprint = encoder_fingerprint(encoder, tokenizer) if cache else ""
        self._tokenizer: Tokenizer | None = None
        self._model: nn.Module | None = None

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Context of each prompt [B, text_len, text_dim]: rows of real tokens, then zeros."""
        context = torch.zeros(len(prompts), self.text_len, self.part.sizes["dim"], dtype=self.dtype, device=self.device)
        for row, prompt in enumerate(prompts):
            plain, spans = split_weights(clean_prompt(prompt))
            spans = [span for span in spans if span.weight != 1]  # a factor of 1 is no syntax at all
            rows = self._rows(plain).to(self.device)
            if spans:
                rows = rows * self._factors(plain, spans).to(rows)[:, None]
            context[row, : len(rows)] = rows
        return context

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def load(self) -> None:
        """Bring the encoder to the device now, rather than with the first prompt."""
        if self._model is None:
            self._model = load_umt5(self.part, self.device, self.dtype, stream=self.stream)

    def unload(self) -> None:
        """Give its memory back; it comes again when it is needed."""
        self._model = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _rows(self, plain: str) -> Tensor:
        """Context rows of the real tokens of a text without weights, [n, text_dim]."""
        key = (self._fingerprint, str(self.dtype), self.device.type, str(self.text_len), plain)
        rows = self.cache.get(*key) if self.cache else None
        if rows is None:
            ids = torch.tensor([self._tokenize(plain).ids], device=self.device)
            self.load()
            rows = self._model(input_ids=ids).last_hidden_state[0]  # type: ignore[misc]
            if self.cache:
                self.cache.put(rows, *key)
        return rows

    def _tokenize(self, plain: str) -> Tokenized:
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.tokenizer_part)
        tokens = self._tokenizer(plain, self.text_len)
        if max(tokens.ids) >= self.part.sizes["vocab_size"]:
            raise ModelError(
                "the tokenizer is of another model",
                got=f"token {max(tokens.ids)} of a vocabulary of {self.part.sizes['vocab_size']}",
                where=self.tokenizer_part.files[0],
            )
        return tokens

    def _factors(self, plain: str, spans: Sequence[WeightedSpan]) -> Tensor:
        """One factor per token: the product of the weights of the spans it touches."""
        tokens = self._tokenize(plain)
        factors = torch.ones(len(tokens.ids), dtype=torch.float32)
        for at, (start, end) in enumerate(tokens.spans):
            for span in spans:
                if start < span.end and end > span.start:
                    factors[at] *= span.weight
        return factors


def relative_buckets(model: nn.Module, distances: Tensor) -> Tensor:
    """The bucket of each key-minus-query distance, as the encoder's layers compute it."""
    attention: Any = model.encoder.block[0].layer[0].SelfAttention  # type: ignore[union-attr]
    return attention._relative_position_bucket(distances)
