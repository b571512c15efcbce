"""Teach the text encoder to read captions before it meets any video.  `python demo/train_text.py` (2-4 minutes)

Linear heads on the mean token name each attribute; they are thrown away afterwards. The encoder is then trained on,
slowly, with the DiT.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from captions import caption
from common import MODEL, TEXT_DIM, WORK
from safetensors.torch import load_file, save_file
from text_model import embed, load_official, load_tokenizer, make_text_encoder, official_state, tokenize
from torch import nn
from world import ATTRIBUTES, SPEEDS, Look, sample_look

HEADS = {**ATTRIBUTES, "speed": SPEEDS}


def targets(looks: list[Look]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([values.index(getattr(look, name)) for look in looks]) for name, values in HEADS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--tokenizer", type=Path, default=MODEL / "tokenizer")
    parser.add_argument("--init", type=Path, help="text encoder weights (official names) to start from")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rng = np.random.default_rng(11)
    tokenizer, model = load_tokenizer(args.tokenizer), make_text_encoder()
    model.shared.weight.data.mul_(0.3)
    if args.init:
        load_official(model, load_file(args.init))
    heads = nn.ModuleDict({name: nn.Linear(TEXT_DIM, len(values)) for name, values in HEADS.items()})
    parameters = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, 2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    begin, right = time.monotonic(), []
    for step in range(args.steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 40) * (1 - step / args.steps) + 1e-5
        looks = [sample_look(rng) for _ in range(64)]
        ids, mask = tokenize(tokenizer, [caption(look, rng, drop=0) for look in looks])
        mean = embed(model, ids, mask).sum(1) / mask.sum(1, keepdim=True)
        wanted = targets(looks)
        guesses = {name: head(mean) for name, head in heads.items()}
        loss = sum(F.cross_entropy(guesses[name], wanted[name]) for name in HEADS)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        right.append([(guesses[name].argmax(1) == wanted[name]).float().mean().item() for name in HEADS])
        if step % 250 == 249:
            rates = dict(zip(HEADS, np.mean(right[-100:], 0).round(3).tolist(), strict=True))
            print(f"step {step + 1} loss {loss.item():.3f} {rates} {time.monotonic() - begin:.0f} s", flush=True)
    args.work.mkdir(parents=True, exist_ok=True)
    save_file(official_state(model), args.work / "text_start.safetensors")
    save_file({k: v.contiguous() for k, v in heads.state_dict().items()}, args.work / "text_heads.safetensors")


if __name__ == "__main__":
    main()
