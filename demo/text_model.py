"""The demo's text encoder: UMT5 of width 96 and three layers, and how prompts go through it."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from common import TEXT_DIM, TEXT_LEN, VOCABULARY
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

# official name -> transformers' name, within a block and outside of it
BLOCK = {
    "norm1.weight": "layer.0.layer_norm.weight",
    "attn.q.weight": "layer.0.SelfAttention.q.weight",
    "attn.k.weight": "layer.0.SelfAttention.k.weight",
    "attn.v.weight": "layer.0.SelfAttention.v.weight",
    "attn.o.weight": "layer.0.SelfAttention.o.weight",
    "pos_embedding.embedding.weight": "layer.0.SelfAttention.relative_attention_bias.weight",
    "norm2.weight": "layer.1.layer_norm.weight",
    "ffn.gate.0.weight": "layer.1.DenseReluDense.wi_0.weight",
    "ffn.fc1.weight": "layer.1.DenseReluDense.wi_1.weight",
    "ffn.fc2.weight": "layer.1.DenseReluDense.wo.weight",
}
OUTSIDE = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
LAYERS = 3
NAMES = OUTSIDE | {f"blocks.{i}.{a}": f"encoder.block.{i}.{b}" for i in range(LAYERS) for a, b in BLOCK.items()}


def make_text_encoder() -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=VOCABULARY, d_model=TEXT_DIM, d_kv=TEXT_DIM // 4, num_heads=4, d_ff=2 * TEXT_DIM, num_layers=LAYERS,
        dropout_rate=0.0, feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1, is_encoder_decoder=False,
    )  # fmt: skip
    return UMT5EncoderModel(config)


def official_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors under Wan's official names."""
    state = model.state_dict()
    return {official: state[name].detach().clone().contiguous() for official, name in NAMES.items()}


def load_official(model: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    state = {name: tensors[official].float() for official, name in NAMES.items()}
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    model.load_state_dict(state, strict=True)
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def tokenize(tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """ids and mask, [B, 64]."""
    out = tokenizer(prompts, padding="max_length", truncation=True, max_length=TEXT_LEN, return_tensors="pt")
    return out.input_ids, out.attention_mask


def embed(model: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:
    """ids and mask [B, 64] -> context [B, 64, 96], zeros behind each prompt, as Wan pads.

    Only the columns that any prompt uses are computed.
    """
    used = min(ids.shape[1], (int(mask.sum(1).max()) + 7) // 8 * 8)
    out = model(input_ids=ids[:, :used], attention_mask=mask[:, :used]).last_hidden_state
    out = out * mask[:, :used, None].to(out.dtype)
    return F.pad(out, (0, 0, 0, ids.shape[1] - used))


@torch.no_grad()
def context_of(model: nn.Module, tokenizer: PreTrainedTokenizerFast, prompts: list[str]) -> Tensor:
    return embed(model, *tokenize(tokenizer, prompts))
