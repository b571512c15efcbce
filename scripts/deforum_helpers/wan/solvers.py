"""Solvers of the flow ODE and the noise schedules they run on.

A solver is a plain function of (velocity, latents, schedule, callback); it knows neither guidance nor prompts
nor devices.  Latents at noise level sigma are (1 - sigma) * clean + sigma * noise, and the velocity is
noise - clean, so clean = latents - sigma * velocity.

    sigmas      steps + 1 numbers, from about 1 down to 0
    timesteps   steps numbers, sigma * 1000, what the model is told; whole numbers for unipc and dpm++
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

Velocity = Callable[[Tensor, int], Tensor]
Callback = Callable[[int, Tensor, Tensor], None]

NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class NoiseSchedule:
    """sigmas: steps + 1 floats (float32 values).  timesteps: steps floats."""

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def shift_sigmas(sigmas: np.ndarray, shift: float) -> np.ndarray:
    """Bend a linear noise schedule toward high noise; the ends 0 and 1 stay.

    sigmas: float64 in [0, 1].  shift: > 0, 1 is identity.
    Source: Wan 2.1, flow-matching schedule shift.
    """
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def noise_schedule(solver: str, steps: int, shift: float) -> NoiseSchedule:
    """The official schedule of a solver.

    unipc starts at the shifted 0.999, dpm++ and euler at exactly 1.  unipc and dpm++ tell the model whole
    timesteps (truncated), euler the exact ones.  Raises KeyError for a solver that isn't in SOLVERS.
    """
    row = SOLVERS[solver]
    linear = np.linspace(row.sigma_max, 0.0, steps + 1)[:-1]
    sigmas = shift_sigmas(linear, shift)
    times = (sigmas * NUM_TRAIN_TIMESTEPS).astype(np.int64 if row.whole_timesteps else np.float32)
    return NoiseSchedule((*map(float, sigmas.astype(np.float32)), 0.0), tuple(map(float, times)))


def sample_euler(
    velocity: Velocity, latents: Tensor, schedule: NoiseSchedule, callback: Callback | None = None
) -> Tensor:
    """First-order steps along the velocity.  callback(step, latents, clean) after each."""
    for step, (sigma, sigma_next) in enumerate(zip(schedule.sigmas, schedule.sigmas[1:], strict=False)):
        v = velocity(latents, step)
        clean = latents - sigma * v
        latents = latents + (sigma_next - sigma) * v
        if callback:
            callback(step, latents, clean)
    return latents


def sample_dpmpp_2m(
    velocity: Velocity, latents: Tensor, schedule: NoiseSchedule, callback: Callback | None = None
) -> Tensor:
    """DPM-Solver++(2M), midpoint, first order at both ends.  Source: Lu et al., arXiv 2211.01095."""
    lambdas, clean_before = [_log_snr(s) for s in schedule.sigmas], None
    for step, (sigma, sigma_next) in enumerate(zip(schedule.sigmas, schedule.sigmas[1:], strict=False)):
        clean = latents - sigma * velocity(latents, step)
        h = lambdas[step + 1] - lambdas[step]
        weight = -(1 - sigma_next) * math.expm1(-h)
        latents = (sigma_next / sigma) * latents + weight * clean
        if clean_before is not None and step + 1 < schedule.steps:
            ratio = (lambdas[step] - lambdas[step - 1]) / h  # infinite after the start at sigma 1: no correction
            latents = latents + (0.5 * weight / ratio) * (clean - clean_before)
        clean_before = clean
        if callback:
            callback(step, latents, clean)
    return latents


def sample_unipc(
    velocity: Velocity, latents: Tensor, schedule: NoiseSchedule, callback: Callback | None = None
) -> Tensor:
    """UniPC of order 2 with B(h) = e^h - 1, predicting clean latents.  Source: Zhao et al., arXiv 2302.04867.

    Each step first corrects the latents it arrived at with the fresh model output, then predicts the next.
    """
    sigmas, lambdas = schedule.sigmas, [_log_snr(s) for s in schedule.sigmas]
    history: list[Tensor] = []  # clean latents of the two steps before, newest last
    start = latents
    for step in range(schedule.steps):
        clean = latents - sigmas[step] * velocity(latents, step)
        if step > 0:
            latents = _unipc_correct(start, clean, history, sigmas, lambdas, step)
        history = [*history[-1:], clean]
        start = latents
        order = 1 if step in (0, schedule.steps - 1) else 2
        latents = _unipc_predict(start, history, sigmas, lambdas, step, order)
        if callback:
            callback(step, latents, clean)
    return latents


def _unipc_predict(
    x: Tensor, history: list[Tensor], sigmas: tuple[float, ...], lambdas: list[float], step: int, order: int
) -> Tensor:
    """From step to step + 1; order 2 uses the change of the clean latents over the last step."""
    h = lambdas[step + 1] - lambdas[step]
    weight = -(1 - sigmas[step + 1]) * math.expm1(-h)
    out = (sigmas[step + 1] / sigmas[step]) * x + weight * history[-1]
    if order == 2:
        ratio = (lambdas[step - 1] - lambdas[step]) / h
        out = out + (0.5 * weight / ratio) * (history[-2] - history[-1])
    return out


def _unipc_correct(
    x: Tensor, clean: Tensor, history: list[Tensor], sigmas: tuple[float, ...], lambdas: list[float], step: int
) -> Tensor:
    """Redo the step from step - 1 to step now that the clean latents at its end are known.

    The order is the one the predictor used: 1 for the first step, else 2.
    """
    h = lambdas[step] - lambdas[step - 1]
    weight = -(1 - sigmas[step]) * math.expm1(-h)
    out = (sigmas[step] / sigmas[step - 1]) * x + weight * history[-1]
    if len(history) == 1:
        return out + 0.5 * weight * (clean - history[-1])
    ratio = (lambdas[step - 2] - lambdas[step - 1]) / h
    # Two equations: rho_old + rho_new = b1 and ratio * rho_old + rho_new = b2, with b from the phi functions of -h.
    phi_1 = math.expm1(-h)
    phi_2 = phi_1 / -h - 1
    phi_3 = phi_2 / -h - 0.5
    b1, b2 = phi_2 / phi_1, 2 * phi_3 / phi_1
    rho_old = (b1 - b2) / (1 - ratio)
    rho_new = b1 - rho_old
    return out + weight * (rho_old / ratio * (history[-2] - history[-1]) + rho_new * (clean - history[-1]))


def _log_snr(sigma: float) -> float:
    """lambda = log(alpha / sigma) with alpha = 1 - sigma; infinite at both ends, which the updates survive."""
    if sigma >= 1:
        return -math.inf
    return math.inf if sigma <= 0 else math.log1p(-sigma) - math.log(sigma)


@dataclass(frozen=True)
class Solver:
    """sample: the function.  sigma_max: where its unshifted schedule starts."""

    sample: Callable[[Velocity, Tensor, NoiseSchedule, Callback | None], Tensor]
    sigma_max: float
    whole_timesteps: bool


SOLVERS: dict[str, Solver] = {
    "unipc": Solver(sample_unipc, float(np.float32(1) - np.float32(1 / NUM_TRAIN_TIMESTEPS)), True),
    "dpm++": Solver(sample_dpmpp_2m, 1.0, True),
    "euler": Solver(sample_euler, 1.0, False),
}
