"""Golden case of the text encoder."""

from __future__ import annotations

import torch
from deforum_helpers.model_files.tensors import umt5_sizes
from deforum_helpers.wan.text_encoder import build_umt5, relative_buckets, transformers_name
from deforum_helpers.wan.weights import load_into
from golden_format import TEXT, Difference, Fixture, difference


def run_umt5(fixture: Fixture) -> list[Difference]:
    """Only rows inside the mask count: what lies behind it is computed, but nobody uses it."""
    weights = fixture.part("w.")
    with torch.device("meta"):
        model = build_umt5(umt5_sizes({name: tuple(value.shape) for name, value in weights.items()}))
    load_into(model, {transformers_name(name): value for name, value in weights.items()})
    model.encoder.embed_tokens = model.shared
    model.eval()
    results = []
    for k, length in enumerate(fixture.config["lens"]):
        rows = model(input_ids=fixture["in.ids"][k : k + 1, :length]).last_hidden_state[0]
        results.append(difference(f"out.context_{k}", rows, fixture, TEXT))
    ids, mask = fixture["in.ids_long"], fixture["in.mask_long"]
    length = int(mask.sum())
    long = model(input_ids=ids[:, :length]).last_hidden_state
    wanted = fixture["out.hidden_long"][:, :length]
    results.append(Difference("out.hidden_long", (long - wanted).abs().max().item(), TEXT))
    buckets = relative_buckets(model, fixture["in.rel_pos"])
    results.append(difference("out.rel_bucket", buckets, fixture, 0.0))
    return results


CASES = {"umt5": run_umt5}
