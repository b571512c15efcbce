"""Golden cases of the backbone, the autoencoder, the solvers and their primitives."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from deforum_helpers.wan.dit import DitConfig, WanFlowMatchingModel, sinusoid
from deforum_helpers.wan.image_condition import given_frames_mask
from deforum_helpers.wan.rope import rotary_tables, rotate
from deforum_helpers.wan.sampling import Prompts, guided_model
from deforum_helpers.wan.solvers import SOLVERS, noise_schedule
from deforum_helpers.wan.vae import StreamState, VaeConfig, WanVae
from golden_format import (
    DECODE,
    DIT,
    ENCODE,
    GOLDEN,
    SOLVER,
    Difference,
    Fixture,
    difference,
    load_fixture,
)
from torch import Tensor

SOLVER_NAMES = {"unipc": "unipc", "dpmpp": "dpm++", "euler": "euler"}


def build_dit(config: dict[str, Any], image_dim: int, weights: dict[str, Tensor]) -> WanFlowMatchingModel:
    """A backbone from the official constructor arguments.  Only 2.1's image models have an image branch."""
    first_last = config["model_type"] == "flf2v"
    names = ("dim", "ffn_dim", "num_heads", "num_layers", "in_dim", "out_dim", "freq_dim", "text_dim", "text_len")
    dit = WanFlowMatchingModel(
        DitConfig(
            **{name: config[name] for name in names},
            image_dim=image_dim,
            first_last=first_last,
            vace_layers=tuple(config.get("vace_layers", ())),
            vace_in_dim=config.get("vace_in_dim", 96),
        )
    )
    dit.load_state_dict(weights, strict=True)
    return dit.eval()


def build_vae(fixture: Fixture) -> WanVae:
    config, second = fixture.config["config"], "2.2" in fixture.config["model_class"]
    vae = WanVae(
        VaeConfig(
            dim=config["dim"],
            dec_dim=config.get("dec_dim", config["dim"]),
            z_dim=config["z_dim"],
            shortcuts=second,
            pixel_patch=2 if second else 1,
        ),
        tuple(fixture.config["latents_mean"]),
        tuple(fixture.config["latents_std"]),
    )
    vae.load_state_dict(fixture.part("w."), strict=True)
    return vae.eval()


def load_vae_fixture(fixture: Fixture, name: str) -> Fixture:
    """End-to-end cases keep their autoencoder in the fixture beside them; ours serves where it is missing."""
    beside = fixture.path.with_name(f"{name}.safetensors")
    return load_fixture(beside if beside.exists() else GOLDEN / beside.name)


def contexts(fixture: Fixture) -> Tensor:
    """in.context_0, in.context_1 ... as one zero-padded batch."""
    rows = [value for name, value in sorted(fixture.tensors.items()) if name.startswith("in.context_")]
    longest = max(len(row) for row in rows)
    return torch.stack([F.pad(row, (0, 0, 0, longest - len(row))) for row in rows])


def run_dit(fixture: Fixture) -> list[Difference]:
    """Every backbone case: text, image, first/last, VACE, per-token timesteps."""
    dit = build_dit(fixture.config["config"], fixture.config.get("image_dim", 0), fixture.part("w."))
    tensors = fixture.tensors
    conditioning = dit.condition(contexts(fixture), tensors.get("in.clip_fea"))
    latents = fixture["in.x"]
    if "in.y" in tensors:
        latents = torch.cat((latents, fixture["in.y"]), dim=1)
    vace = tensors.get("in.vace_context")
    timesteps = tensors.get("in.t_tokens", tensors.get("in.t"))
    out = [difference("out.y", dit(latents, timesteps, conditioning, vace_context=vace), fixture, DIT)]
    if "out.y_scale_b" in tensors:
        scaled = dit(latents, timesteps, conditioning, vace_context=vace, vace_scale=float(fixture["in.scale_b"]))
        out.append(difference("out.y_scale_b", scaled, fixture, DIT))
    if "out.y_scalar_t" in tensors:
        out.append(difference("out.y_scalar_t", dit(latents, fixture["in.t_scalar"], conditioning), fixture, DIT))
    return out


def run_dit_varlen(fixture: Fixture) -> list[Difference]:
    """Two clips of different size; officially padded into one batch, here one by one."""
    dit = build_dit(fixture.config["config"], 0, fixture.part("w."))
    out = []
    for index in range(2):
        conditioning = dit.condition(fixture[f"in.context_{index}"][None])
        got = dit(fixture[f"in.x_{index}"][None], fixture["in.t"][index : index + 1], conditioning)
        out.append(difference(f"out.y_{index}", got[0], fixture, DIT))
    return out


def run_vae(fixture: Fixture) -> list[Difference]:
    """Encode and decode, each whole, in chunks and frame by frame: all must be the official numbers."""
    vae, out = build_vae(fixture), []
    mean, std = vae.statistics(torch.device("cpu"))
    for frames in fixture.config["frames"]:
        video, latent = fixture[f"in.video_{frames}"], fixture[f"in.latent_{frames}"]
        raw, _ = vae.moments(video, StreamState())
        out.append(difference(f"out.mu_raw_{frames}", raw, fixture, ENCODE))
        for per_chunk in (4, 16):
            z = vae.encode(video, per_chunk)
            out.append(difference(f"out.z_{frames}", z, fixture, ENCODE))
            out.append(difference(f"out.mu_raw_{frames}", z * std + mean, fixture, ENCODE))
        for per_chunk in (1, 2, latent.shape[2]):
            state = StreamState()
            decoded = [vae.decode_chunk(part, state) for part in latent.split(per_chunk, dim=2)]
            out.append(difference(f"out.dec_{frames}", torch.cat(decoded, dim=2), fixture, DECODE))
    return out


def run_schedulers(fixture: Fixture) -> list[Difference]:
    """Sigmas, timesteps and whole trajectories on the analytic velocity of the fixture's config."""
    out, c = [], fixture["in.c"]
    for official, ours in SOLVER_NAMES.items():
        for steps, shift in fixture.config["pairs"]:
            tag = f"{steps}_{shift:g}"
            schedule = noise_schedule(ours, steps, shift)
            out.append(difference(f"out.{official}.sigmas.{tag}", torch.tensor(schedule.sigmas), fixture, SOLVER))
            times = torch.tensor(schedule.timesteps)
            out.append(difference(f"out.{official}.timesteps.{tag}", times, fixture, SOLVER))
            if f"out.{official}.x.{tag}" not in fixture.tensors:
                continue
            path = [fixture["in.x"]]

            def velocity(x: Tensor, step: int, times: tuple[float, ...] = schedule.timesteps) -> Tensor:
                s = times[step] / 1000
                return (0.5 * s - 0.2) * x + c * math.cos(2 * s) - 0.3 * torch.sin(x)

            SOLVERS[ours].sample(velocity, path[0], schedule, lambda _, x, __, path=path: path.append(x))
            out.append(difference(f"out.{official}.x.{tag}", torch.stack(path), fixture, SOLVER))
    return out


def run_primitives(fixture: Fixture) -> list[Difference]:
    """Time sinusoid, rotary embedding for several head widths, guidance, masks of given frames."""
    out = [
        difference(f"out.sinusoid_{width}", sinusoid(fixture["in.t"], width), fixture, SOLVER) for width in (64, 256)
    ]
    grid = tuple(fixture["in.grid"].tolist())
    tokens = math.prod(grid)
    for width in (16, 24, 128):
        q = fixture[f"in.q_{width}"]
        turned = rotate(q[:, :tokens], rotary_tables(grid, width, q.device))
        out.append(difference(f"out.rope_{width}", torch.cat((turned, q[:, tokens:]), dim=1), fixture, SOLVER))
    for name in ("1.0", "5.0", "7.5"):
        out.append(difference(f"out.cfg_{name}", guide(fixture, float(name)), fixture, SOLVER))
    for frames in (5, 9):
        wanted = f"out.i2v_mask_{frames}"
        out.append(difference(wanted, given_frames_mask(frames, *fixture[wanted].shape[2:], (0,)), fixture, 0))
    wanted = "out.flf2v_mask_81"
    out.append(difference(wanted, given_frames_mask(81, *fixture[wanted].shape[2:], (0, -1)), fixture, 0))
    return out


def guide(fixture: Fixture, scale: float) -> Tensor:
    """Guidance through the code that renders, with a stand-in for the model that returns the given outputs."""

    class Given:
        def __call__(self, x: Tensor, t: Tensor, conditioning: Any) -> Tensor:
            both = torch.cat((fixture["in.cond"], fixture["in.uncond"]))
            return both if len(x) == 2 else both[:1]

    class Embedded:
        context, image, runs = torch.zeros(1, 1, 1), None, ()

    noise = torch.zeros_like(fixture["in.cond"])
    model = guided_model(Given(), Prompts(Embedded(), Embedded()), (scale,), noise)  # type: ignore[arg-type]
    return model(noise, torch.zeros(1))


CASES = {
    "primitives": run_primitives,
    "dit_t2v": run_dit,
    "dit_t2v_varlen": run_dit_varlen,
    "dit_t2v_hd128": run_dit,
    "dit_i2v": run_dit,
    "dit_flf2v": run_dit,
    "dit_vace": run_dit,
    "dit22_i2v": run_dit,
    "dit22_ti2v": run_dit,
    "vae21": run_vae,
    "vae22": run_vae,
    "schedulers": run_schedulers,
}
