"""Golden cases of whole runs: the official generate() functions with tiny models plugged in."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from deforum_helpers.wan.dit import WanFlowMatchingModel
from deforum_helpers.wan.image_condition import image_channels, size_for_area, size_for_area_5b, stretch, vace_context
from deforum_helpers.wan.image_encoder import ImageEncoder, ImageEncoderConfig
from deforum_helpers.wan.pictures import cover
from deforum_helpers.wan.pinning import Pin
from deforum_helpers.wan.sampling import Prompts, guided_model, sample, switch_experts
from deforum_helpers.wan.solvers import noise_schedule
from deforum_helpers.wan.vae import WanVae
from golden_format import DIT, ENCODE, LATENTS, SOLVER, TEXT, VIDEO, Difference, Fixture, difference
from golden_model import SOLVER_NAMES, build_dit, build_vae, load_vae_fixture
from torch import Tensor


class Run:
    """One official generate(): gathers the differences of its steps, latents and video."""

    def __init__(self, fixture: Fixture, vae: str = "vae21") -> None:
        self.fixture, self.config = fixture, fixture.config
        self.vae = build_vae(load_vae_fixture(fixture, vae))
        self.out: list[Difference] = []

    def dit(self, prefix: str = "w.dit.") -> WanFlowMatchingModel:
        image_dim = self.config.get("image_dim", 0)
        return build_dit(self.config["dit"], image_dim, self.fixture.part(prefix))

    def noise(self, name: str, seed: int) -> Tensor:
        """Noise from the seed must be the recorded one."""
        noise = torch.randn(self.fixture[name].shape, generator=torch.Generator().manual_seed(seed))
        self.check(name, noise, 0)
        return noise[None]

    def prompts(self, dit: WanFlowMatchingModel, image_tokens: Tensor | None = None) -> Prompts:
        contexts = (self.fixture["in.context"][None], self.fixture["in.context_null"][None])
        return Prompts(*(dit.condition(context, image_tokens) for context in contexts))

    def check(self, name: str, got: Tensor, limit: float) -> None:
        if name in self.fixture.tensors:
            self.out.append(difference(name, got, self.fixture, limit))

    def go(
        self, model: Any, noise: Tensor, steps: int, *, tag: str = "", solver: str = "unipc", **given: Any
    ) -> Tensor:
        """Sample, compare timesteps and the path of the latents; returns the final ones."""
        schedule = noise_schedule(SOLVER_NAMES[solver], steps, self.config["shift"])
        self.check(f"out.{tag}timesteps", torch.tensor(schedule.timesteps), SOLVER)
        path, pin = [noise[0]], given.get("pin")
        latents = sample(
            model, noise, SOLVER_NAMES[solver], schedule, callback=lambda _, x, __: path.append(x[0]), **given
        )
        if pin is not None:  # the official loop shows the pinned latents as they are
            path = [torch.cat((pin.clean[0], x[:, pin.clean.shape[2] :]), dim=1) for x in path]
        wanted = self.fixture[f"out.{tag}latents"]
        self.check(f"out.{tag}latents", torch.stack(path[: len(wanted)]), LATENTS)
        return latents

    def first_outputs(self, dit: Any, prompts: Prompts, x: Tensor, t: Tensor, tag: str = "") -> None:
        for name, conditioning in (("cond_0", prompts.positive), ("uncond_0", prompts.negative)):
            self.check(f"out.{tag}{name}", dit(x, t, conditioning)[0], DIT)

    def decode(self, name: str, latents: Tensor) -> None:
        self.check(name, decoded(self.vae, latents)[:, -self.fixture[name].shape[1] :], VIDEO)


def decoded(vae: WanVae, latents: Tensor) -> Tensor:
    return torch.cat(list(vae.decode(latents)), dim=2)[0]


def picture(fixture: Fixture, name: str) -> Tensor:
    """A recorded uint8 picture [H, W, 3] -> [3, H, W] in [-1, 1], as officially."""
    return fixture[name].permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)


def image_encoder(config: dict[str, Any], weights: dict[str, Tensor]) -> ImageEncoder:
    names = ("image_size", "patch_size", "dim", "mlp_ratio", "num_heads", "num_layers")
    encoder = ImageEncoder(ImageEncoderConfig(**{name: config[name] for name in names}, eps=config["norm_eps"]))
    used = {name: value for name, value in weights.items() if name != "head" and not name.startswith("post_norm.")}
    encoder.load_state_dict(used, strict=True)
    return encoder.eval()


def run_image_encoder(fixture: Fixture) -> list[Difference]:
    encoder = image_encoder(fixture.config["config"], fixture.part("w.visual."))
    pictures = [fixture[f"in.image_{i}"].transpose(0, 1) for i in range(2)]
    prepared = torch.cat([encoder.prepare(p) for p in pictures])
    features = torch.cat([encoder(p) for p in pictures])
    last = torch.cat([encoder(p, encoder.config.num_layers) for p in pictures])
    return [
        difference("mid.pixel_values", prepared, fixture, ENCODE),
        difference("out.features", features, fixture, TEXT),
        difference("out.last_block", last, fixture, TEXT),
    ]


def run_t2v(fixture: Fixture) -> list[Difference]:
    run = Run(fixture)
    dit = run.dit()
    prompts, noise = run.prompts(dit), run.noise("in.noise", run.config["seed"])
    for solver, steps in run.config["steps"].items():
        model = guided_model(dit, prompts, (run.config["guide_scale"],), noise)
        latents = run.go(model, noise, steps, tag=f"{solver}.", solver=solver)
        first = fixture[f"out.{solver}.timesteps"][:1]
        run.first_outputs(dit, prompts, noise, first, f"{solver}.")
        run.decode(f"out.{solver}.video", latents)
    return run.out


def run_images(fixture: Fixture) -> list[Difference]:
    """First frame, or first and last frame, given (2.1)."""
    run = Run(fixture)
    dit, config = run.dit(), run.config
    encoder = image_encoder(config["clip"], fixture.part("w.clip.visual."))
    names = [name for name in ("in.image_u8", "in.first_u8", "in.last_u8") if name in fixture.tensors]
    pictures = [picture(fixture, name) for name in names]
    size = size_for_area(*pictures[0].shape[1:], config["max_area"])
    tokens = torch.cat([encoder(p[None]) for p in pictures])
    run.check("mid.clip_fea", tokens, TEXT)
    channels = image_channels(run.vae, config["frame_num"], *(stretch(p, *size) for p in pictures))
    run.check("mid.y", channels[0], ENCODE)
    prompts, noise = run.prompts(dit, tokens), run.noise("in.noise", config["seed"])
    model = guided_model(dit, prompts, (config["guide_scale"],), noise)
    run.first_outputs(dit, prompts, torch.cat((noise, channels), 1), fixture["out.timesteps"][:1])
    latents = run.go(model, noise, config["steps"], channels=channels)
    run.decode("out.video" if "out.video" in fixture.tensors else "out.video_last4", latents)
    return run.out


def run_vace(fixture: Fixture) -> list[Difference]:
    run = Run(fixture)
    dit, config = run.dit(), run.config
    references = tuple(fixture[f"in.ref_{i}"][:, 0] for i in range(config["n_ref"]))
    frames, mask = fixture["in.frames"], fixture["in.mask"]
    run.check("out.vace_context_noref", vace_context(run.vae, frames, mask)[0], ENCODE)
    context = vace_context(run.vae, frames, mask, references)
    run.check("mid.vace_context", context[0], ENCODE)
    guided = partial(dit, vace_context=context, vace_scale=config["context_scale"])
    prompts, noise = run.prompts(dit), run.noise("in.noise", config["seed"])
    run.first_outputs(guided, prompts, noise, fixture["out.timesteps"][:1])
    latents = run.go(guided_model(guided, prompts, (config["guide_scale"],), noise), noise, config["steps"])
    latents = latents[:, :, len(references) :]
    run.check("out.latents_final_trimmed", latents[0], LATENTS)
    run.decode("out.video", latents)
    return run.out


def run_experts(fixture: Fixture) -> list[Difference]:
    """Wan 2.2 A14B: two experts, a guidance scale each, with or without a given picture."""
    run = Run(fixture)
    config, channels = run.config, None
    experts = {level: run.dit(f"w.{level}.") for level in ("low", "high")}
    if "in.image_u8" in fixture.tensors:
        given = picture(fixture, "in.image_u8")
        given = stretch(given, *size_for_area(*given.shape[1:], config["max_area"]))
        channels = image_channels(run.vae, config["frame_num"], given)
    noise, models, all_prompts = run.noise("in.noise", config["seed"]), {}, {}
    for (level, dit), scale in zip(experts.items(), config["guide_scale_low_high"], strict=True):
        all_prompts[level] = run.prompts(dit)
        models[level] = guided_model(dit, all_prompts[level], (scale,), noise)
    first = noise if channels is None else torch.cat((noise, channels), 1)
    run.first_outputs(experts["high"], all_prompts["high"], first, fixture["out.timesteps"][:1])
    used: list[int] = []

    def noted(level: str, x: Tensor, t: Tensor) -> Tensor:
        used.append(int(level == "high"))
        return models[level](x, t)

    model = switch_experts(partial(noted, "high"), partial(noted, "low"), config["boundary"])
    latents = run.go(model, noise, config["steps"], channels=channels)
    run.check("out.used_high", torch.tensor(used), 0)
    run.decode("out.video", latents)
    return run.out


def run_ti2v(fixture: Fixture) -> list[Difference]:
    """Wan 2.2 5B: from text, and with the first latent frame held."""
    run = Run(fixture, "vae22")
    dit, config = run.dit(), run.config
    prompts = run.prompts(dit)
    scale = (config["guide_scale"],)
    noise = run.noise("in.noise_t2v", config["seed_t2v"])
    run.first_outputs(dit, prompts, noise, fixture["out.t2v.timesteps"][:1], "t2v.")
    latents = run.go(guided_model(dit, prompts, scale, noise), noise, config["steps"], tag="t2v.")
    run.decode("out.t2v.video", latents)

    raw = fixture["in.image_u8"].numpy()
    height, width = size_for_area_5b(*raw.shape[:2], config["max_area"])
    image = cover(raw, width, height)
    run.check("mid.img", image[0], ENCODE)
    clean = run.vae.encode(image)
    run.check("mid.z", clean[0], ENCODE)
    noise, pin = run.noise("in.noise_i2v", config["seed_i2v"]), Pin(clean, noise_share=None)
    latents = run.go(guided_model(dit, prompts, scale, noise), noise, config["steps"], tag="i2v.", pin=pin)
    t = fixture["mid.t_tokens_0"]
    run.first_outputs(dit, prompts, torch.cat((clean, noise[:, :, 1:]), dim=2), t, "i2v.")
    run.decode("out.i2v.video", latents)
    return run.out


CASES = {
    "clip_visual": run_image_encoder,
    "e2e_t2v": run_t2v,
    "e2e_i2v": run_images,
    "e2e_flf2v": run_images,
    "e2e_vace": run_vace,
    "e2e22_t2v": run_experts,
    "e2e22_i2v": run_experts,
    "e2e22_ti2v": run_ti2v,
}
