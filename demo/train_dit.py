"""Train the demo's DiT, and its text encoder slowly with it.  `python demo/train_dit.py --minutes 90`

One checkpoint serves text-to-video, image-to-video and continuation without extra channels: the first latents of a
window may be given, clean, at timestep 0, while the others carry noise. Goes on from its last checkpoint when run
again; about 10,000 steps of 24 windows make sharp shapes (two quiet CPU cores: 80 minutes; a GPU: minutes).

On a CPU each core is a process of its own with its share of the batch; they meet once a step to average gradients.
Threads that meet at every operation lose far more when the machine has other work.

`--shipped` goes on from the weights in models/demo (make_latents.py --shipped).

`--plain --init models/demo/diffusion_pytorch_model.safetensors` trains it as plain text-to-video weights are: all
latents of a window stand at one timestep, none is given, and windows are cut from anywhere (make_latents.py --plain).
The text encoder is the one in models/demo, and stays as it is.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from common import MODEL, PLAIN_WORK, WINDOW, WORK, Ema, Muon, has_halves, load_weights, make_dit, save_atomically
from dit_data import CONTINUED, FRESH, FROM_FRAME, MIXED, Batch, Sampler, Windows
from safetensors.torch import load_file, save_file
from text_model import embed, load_official, load_tokenizer, make_text_encoder, official_state, tokenize
from torch import Tensor, nn

ATTENTION = ("self_attn", "cross_attn")
SHIFT = 2.5  # of the noise levels trained on; sampling uses 3


class Trainer:
    """The two models, their optimisers and averages."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device = torch.device(args.device)
        self.tokenizer = load_tokenizer(args.tokenizer)
        self.dit, self.text = make_dit(), make_text_encoder()
        if args.init or args.shipped:
            load_weights(self.dit, args.init or MODEL / "diffusion_pytorch_model.safetensors")
        else:
            with torch.no_grad():  # a quiet start: the official initialisation has no small output
                self.dit.head.head.weight.mul_(0.1)
                self.dit.head.head.bias.zero_()
        shipped = args.plain or args.shipped
        text = MODEL / "text_encoder.safetensors" if shipped else args.work / "text_start.safetensors"
        load_official(self.text, load_file(text))
        self.text.requires_grad_(not args.plain)
        if self.device.type == "cpu":
            for block in self.dit.blocks:
                for name in ATTENTION:
                    getattr(block, name).attend = plain_attention
        self.dit.to(self.device)
        self.text.to(self.device)
        matrices = [p for name, p in self.dit.named_parameters() if p.ndim == 2 and "blocks" in name]
        chosen = {id(p) for p in matrices}
        others = [p for p in self.dit.parameters() if id(p) not in chosen]
        groups = [{"params": others, "share": 1.0}, {"params": list(self.text.parameters()), "share": 0.2}]
        self.optimisers = [
            Muon(matrices, args.lr),
            torch.optim.AdamW(groups, args.lr, betas=(0.9, 0.98), weight_decay=0),
        ]
        self.parameters = [*self.dit.parameters(), *self.text.parameters()]
        self.ema = Ema(self.parameters, 0.998)
        self.minutes, self.plain = 0.0, args.plain

    def set_rate(self, rate: float) -> None:
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("share", 1.0)

    def halves(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=has_halves(self.device))

    def velocity(self, x: Tensor, sigma: Tensor, pinned: Tensor, context: Tensor) -> Tensor:
        """x [B, 16, 5, 10, 16], sigma [B] -> velocity; pinned latents stand at timestep 0."""
        frame = torch.arange(WINDOW, device=x.device)
        timesteps = torch.where(frame[None] < pinned[:, None], 0.0, sigma[:, None] * 1000)
        with self.halves():
            return self.dit(x, timesteps, self.dit.condition(context)).float()

    def context(self, captions: list[str]) -> Tensor:
        ids, mask = tokenize(self.tokenizer, captions)
        with self.halves():
            return embed(self.text, ids.to(self.device), mask.to(self.device)).float()

    def loss(self, batch: Batch, sigma: Tensor, soiled: bool, noise: Tensor | None = None) -> Tensor:
        """Weighted squared error of the velocity, per clip.

        soiled: give the pinned latents as the model itself would have made them (one step from a light noise), and
        with a little noise, since chains feed the model its own output.
        """
        clean, pinned = batch.clean.to(self.device), batch.pinned.to(self.device)
        context = self.context(batch.captions)
        noise = torch.randn_like(clean) if noise is None else noise
        level = sigma.view(-1, 1, 1, 1, 1)
        given = (torch.arange(WINDOW, device=self.device) < pinned[:, None])[:, None, :, None, None]
        prefix = clean
        if soiled:
            with torch.no_grad():
                light = 0.1 + 0.4 * torch.rand_like(sigma)
                s = light.view(-1, 1, 1, 1, 1)
                x = (1 - s) * clean + s * torch.randn_like(clean)
                prefix = x - s * self.velocity(x, light, torch.zeros_like(pinned), context)
                # Its faults of shape are to be mended, its colours to be kept.
                off = ((prefix - clean) * given).sum((2, 3, 4), keepdim=True)
                prefix = prefix - off / given.expand_as(prefix).sum((2, 3, 4), keepdim=True).clamp_min(1)
        spoil = 0.08 * torch.rand_like(level) * torch.randn_like(clean)
        x = torch.where(given, prefix + spoil, (1 - level) * clean + level * noise)
        error = (self.velocity(x, sigma, pinned, context) - (noise - clean)).square()
        weight = (~given) * batch.weight.to(self.device).expand_as(error)
        return (error * weight).sum((1, 2, 3, 4)) / weight.sum((1, 2, 3, 4))

    def step(self, loss: Tensor) -> None:
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.average_gradients()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.ema.update()

    def average_gradients(self) -> None:
        """Over all processes, and let every process go by the first one's clock."""
        if not dist.is_initialized():
            return
        grads = [p.grad for p in self.parameters if p.grad is not None]
        clock = torch.tensor([self.minutes if dist.get_rank() == 0 else 0.0])
        flat = torch.cat([grad.flatten() for grad in grads] + [clock])
        dist.all_reduce(flat)
        self.minutes = flat[-1].item()
        for grad, mean in zip(
            grads, flat[:-1].div_(dist.get_world_size()).split([g.numel() for g in grads]), strict=True
        ):
            grad.copy_(mean.view_as(grad))

    def save(self, work: Path) -> None:
        """The state to go on from, and the averaged weights to use."""
        state = {
            "parameters": [p.detach() for p in self.parameters],
            "average": self.ema.average,
            "steps": self.ema.steps,
            "minutes": self.minutes,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }
        save_atomically(state, work / "dit_state.pt")
        self.ema.swap()
        for name, tensors in (("dit", self.dit.state_dict()), ("text", official_state(self.text))):
            part = work / f"{name}.safetensors.part"
            save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, part)
            part.replace(work / f"{name}.safetensors")
        self.ema.swap()

    def restore(self, file: Path) -> None:
        state = torch.load(file, weights_only=True, map_location=self.device)
        for p, value in zip(self.parameters, state["parameters"], strict=True):
            p.data.copy_(value)
        self.ema.average, self.ema.steps, self.minutes = state["average"], state["steps"], state["minutes"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[B, L, H, D] each.  On a CPU, for these sizes, training through torch's fused kernel takes two to four times as
    long as through plain products."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return (scores.float().softmax(-1).to(v.dtype) @ v).transpose(1, 2)


def draw_sigma(count: int) -> Tensor:
    """Noise levels: mostly the middle ones (logit-normal), a fifth spread evenly, all shifted upward."""
    u = torch.sigmoid(torch.randn(count))
    u = torch.where(torch.rand(count) < 0.2, torch.rand(count), u)
    return SHIFT * u / (1 + (SHIFT - 1) * u)


@torch.no_grad()
def validate(trainer: Trainer, windows: Windows, size: int) -> dict[str, float]:
    """Plain loss on held-out stories at fixed noise, by kind of window; comparable between runs."""
    trainer.ema.swap()
    out = {}
    kinds = {"fresh": FRESH} if trainer.plain else {"fresh": FRESH, "continued": CONTINUED, "from_frame": FROM_FRAME}
    for kind, shares in kinds.items():
        sampler, generator = Sampler(windows, windows.test, 9, shares), torch.Generator().manual_seed(9)
        batch = sampler.batch(size, drop=0.0)
        sigma = torch.linspace(0.04, 0.98, size, device=trainer.device)
        noise = torch.randn(batch.clean.shape, generator=generator).to(trainer.device)
        out[kind] = round(trainer.loss(batch, sigma, False, noise).mean().item(), 4)
    trainer.ema.swap()
    return out


def train(args: argparse.Namespace, rank: int = 0, count: int = 1) -> None:
    """The loop of one process; the first one also keeps time, validates, saves and reports."""
    torch.set_num_threads(args.threads if count == 1 else 1)
    torch.manual_seed(3)
    windows, trainer = Windows(args.work / "latents.pt", plain=args.plain), Trainer(args)
    if (args.work / "dit_state.pt").exists():
        trainer.restore(args.work / "dit_state.pt")
    if args.compile:
        for block in trainer.dit.blocks:
            block.compile()
    torch.manual_seed(4 + rank + trainer.ema.steps)
    shares = FRESH if args.plain else MIXED
    sampler = Sampler(windows, windows.train, 3 + 7919 * rank + trainer.ema.steps, shares)
    size, first = args.batch // count, rank == 0
    if first:
        print(f"{len(windows.train)} stories, from step {trainer.ema.steps}", flush=True)
    begin, losses = time.monotonic() - trainer.minutes * 60, []
    saved_at = shown_at = trainer.minutes
    while trainer.minutes < args.minutes:
        progress, steps = trainer.minutes / args.minutes, trainer.ema.steps
        fall = 1.0 if progress < 0.5 else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (progress - 0.5) / 0.5))
        trainer.set_rate(args.lr * fall * min(1.0, (steps + 1) / 150))
        soiled = not args.plain and progress > 0.25 and steps % 5 == 0
        sigma = draw_sigma(size).to(trainer.device)
        loss = trainer.loss(sampler.batch(size), sigma, soiled).mean()
        if first:
            trainer.minutes = (time.monotonic() - begin) / 60
        trainer.step(loss)
        losses.append(loss.item())
        if not first:
            continue
        if trainer.ema.steps % 100 == 0 or trainer.ema.steps in (1, 10, 30):
            print(
                f"step {trainer.ema.steps} minute {trainer.minutes:.2f} loss {sum(losses) / len(losses):.4f}",
                flush=True,
            )
            losses = []
        if trainer.minutes - shown_at > 5:
            shown_at = trainer.minutes
            print("  held-out", validate(trainer, windows, args.batch), flush=True)
        if trainer.minutes - saved_at > 3:
            saved_at = trainer.minutes
            trainer.save(args.work)
    if first:
        trainer.save(args.work)
        print(f"final: {trainer.ema.steps} steps, held-out {validate(trainer, windows, args.batch)}", flush=True)


def one_of_many(rank: int, args: argparse.Namespace, meeting: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.processes)
    try:
        train(args, rank, args.processes)
    finally:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=MODEL / "tokenizer")
    parser.add_argument("--init", type=Path, help="DiT weights to start from")
    parser.add_argument("--shipped", action="store_true", help="start from the weights in models/demo")
    parser.add_argument("--plain", action="store_true", help="train as plain text-to-video weights are")
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, help="default: 2 on a CPU, 1 on a GPU")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    args.work = args.work or (PLAIN_WORK if args.plain else WORK)
    args.processes = args.processes or (2 if args.device == "cpu" else 1)
    if args.processes == 1:
        train(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        processes.spawn(one_of_many, (args, str(Path(folder) / "meeting")), nprocs=args.processes)


if __name__ == "__main__":
    main()
