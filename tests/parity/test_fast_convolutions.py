"""The CPU's convolutions with fewer multiplications give what the plain ones give, within rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from deforum_helpers.wan import vae_layers, winograd
from deforum_helpers.wan.doubling import conv_doubled, doubling_kernel
from deforum_helpers.wan.vae_layers import CausalConv3d, StreamState, Upsample
from torch import Tensor

WIDE = winograd.LEAST_CHANNELS


def causal_layer(channels: int, out: int) -> CausalConv3d:
    torch.manual_seed(1)
    return CausalConv3d(channels, out, (3, 3, 3)).requires_grad_(False)


def plainly(layer: CausalConv3d, x: Tensor) -> Tensor:
    """The whole stream at once in float64."""
    weight, bias = layer.weight.double(), layer.bias.double()
    return F.conv3d(F.pad(x.double(), (0, 0, 0, 0, 2, 0)), weight, bias, padding=(0, 1, 1))


def streamed(layer: CausalConv3d, x: Tensor, cuts: tuple[int, ...]) -> Tensor:
    state = StreamState()
    with torch.inference_mode():
        return torch.cat([layer(chunk, state) for chunk in x.split(cuts, dim=2)], dim=2)


@pytest.mark.parametrize("cuts", [(1, 4, 4), (1, 1, 7), (2, 1, 6), (9,)])
@pytest.mark.parametrize("size", [(13, 10), (8, 6), (3, 5), (1, 1)])  # rows that fill tiles, that don't, that are few
def test_rows_are_the_plain_convolution(cuts, size):
    layer = causal_layer(WIDE, 20)
    x = torch.randn(2, WIDE, 9, *size)
    assert (streamed(layer, x, cuts) - plainly(layer, x)).abs().max() < 1e-5


def test_groups_of_tiles_meet_without_a_seam(monkeypatch):
    layer, x = causal_layer(WIDE, 24), torch.randn(1, WIDE, 5, 22, 7)
    whole = streamed(layer, x, (1, 4))
    monkeypatch.setattr(winograd, "GROUP_ELEMENTS", 1)  # a tile a group
    assert torch.allclose(streamed(layer, x, (1, 4)), whole, atol=1e-5, rtol=0)


def test_rounding_stays_near_what_it_replaces(monkeypatch):
    """2.5 times the error of torch's 2-D convolution here; with the usual points of evaluation it is 3.6 times."""
    layer, x = causal_layer(384, 64), torch.randn(1, 384, 3, 12, 16)
    exact = plainly(layer, x)
    rows = (streamed(layer, x, (3,)) - exact).square().mean().sqrt()
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 385)
    assert rows < 3 * (streamed(layer, x, (3,)) - exact).square().mean().sqrt()


def test_a_layer_given_another_weight_forgets_the_old_sums():
    layer, x = causal_layer(WIDE, 16), torch.randn(1, WIDE, 1, 5, 6)
    before = streamed(layer, x, (1,))
    layer.weight = torch.nn.Parameter(2 * layer.weight, requires_grad=False)
    layer.bias = torch.nn.Parameter(2 * layer.bias, requires_grad=False)
    assert torch.allclose(streamed(layer, x, (1,)), 2 * before, atol=1e-5)
    layer.double().float()  # the same parameters with other data
    layer.weight.data.mul_(1.5)
    layer.bias.data.mul_(1.5)
    assert torch.allclose(streamed(layer, x, (1,)), 3 * before, atol=1e-5)


@pytest.mark.parametrize("change", ["loaded", "trained"])
def test_a_layer_whose_weight_is_changed_in_place_forgets_the_old_sums(change):
    layer, x = causal_layer(WIDE, 16), torch.randn(1, WIDE, 1, 5, 6)
    before, bias = streamed(layer, x, (1,)), layer.bias.view(1, -1, 1, 1, 1)
    if change == "loaded":
        layer.load_state_dict({"weight": 2 * layer.weight, "bias": layer.bias})
    else:
        with torch.no_grad():
            layer.weight.mul_(2)
    assert torch.allclose(streamed(layer, x, (1,)) - bias, 2 * (before - bias), atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "dtype", "training", "expected"),
    [
        (WIDE, torch.float32, False, True),
        (WIDE - 1, torch.float32, False, False),
        (WIDE, torch.bfloat16, False, False),
        (WIDE, torch.float32, True, False),
    ],
)
def test_which_layers_go_by_rows(channels, dtype, training, expected):
    x = torch.zeros(1, channels, 1, 4, 4, dtype=dtype)
    with torch.set_grad_enabled(training):
        assert winograd.suits_rows(x, causal_layer(channels, 8)) is expected


def test_doubling_is_repeating_and_convolving():
    torch.manual_seed(2)
    x, weight, bias = torch.randn(3, 7, 5, 6), torch.randn(4, 7, 3, 3), torch.randn(4)
    doubled = F.interpolate(x.double(), scale_factor=2.0, mode="nearest-exact")
    wanted = F.conv2d(doubled, weight.double(), bias.double(), padding=1)
    assert (conv_doubled(x, doubling_kernel(weight), bias) - wanted).abs().max() < 1e-4


def test_an_upsampling_layer_gives_the_same_either_way(monkeypatch):
    torch.manual_seed(3)
    layer, x = Upsample(6, 3, temporal=True).requires_grad_(False), torch.randn(1, 6, 4, 3, 5)
    trained = layer(x, StreamState())  # gradients are on: the plain way
    called: list[int] = []
    real = vae_layers.conv_doubled
    monkeypatch.setattr(vae_layers, "conv_doubled", lambda *given: called.append(1) or real(*given))
    with torch.inference_mode():
        assert torch.allclose(layer(x, StreamState()), trained, atol=1e-5)
    assert called
