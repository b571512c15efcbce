"""Retiming keeps native frames as they are, and follows motion between them better than a mix does."""

from fractions import Fraction

import numpy as np
import pytest
from deforum_helpers.errors import SettingsError
from deforum_helpers.video.retiming import METHODS, blend, crossfade, retime

HEIGHT, WIDTH = 80, 128


def texture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth colour patches, float [height, width, 3] in 0..255, defined by waves: any place can be asked for."""
    return waves(seed, *np.meshgrid(np.arange(width), np.arange(height)))


def waves(seed: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(seed)
    out = np.full((*x.shape, 3), 127.0)
    for _ in range(12):
        fx, fy = random.normal(0, 0.15, 2)
        out += random.uniform(5, 20, 3) * np.sin(x * fx + y * fy + random.uniform(0, 6.28))[..., None]
    return np.clip(out, 0, 255)


def disc_at(t: float, step: tuple[float, float] = (9.0, -4.0), radius: float = 11.0) -> np.ndarray:
    """A patterned disc that moves over a patterned ground: the true frame at any time."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    dx, dy = x - (WIDTH / 2 + step[0] * (t - 0.5)), y - (HEIGHT / 2 + step[1] * (t - 0.5))
    alpha = np.clip(radius - np.hypot(dx, dy) + 0.5, 0, 1)[..., None]
    disc = waves(7, dx, dy) * 0.4 + np.array([150, 20, 20])
    return np.rint(texture(3) * (1 - alpha) + disc * alpha).astype(np.uint8)


def pan_at(t: float, step: float = 6.0) -> np.ndarray:
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return np.rint(waves(5, x + step * t, y)).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-3, np.mean((a.astype(float) - b) ** 2))))


def at(first: np.ndarray, second: np.ndarray, t: float, method: str = "flow") -> np.ndarray:
    return next(retime(np.stack([first, second]), [(0, t)], method))


@pytest.fixture(scope="module")
def shot() -> np.ndarray:
    return np.stack([disc_at(t) for t in (0, 0.5, 1.0)])


@pytest.mark.parametrize("method", METHODS)
def test_native_frames_pass_bit_by_bit(shot, method):
    out = list(retime(shot, [(0, 0), (1, Fraction(0)), (2, 0.0), (1, 0)], method))
    assert [np.array_equal(a, shot[k]) for a, k in zip(out, (0, 1, 2, 1), strict=True)] == [True] * 4


def test_sixty_frames_a_second_from_sixteen(shot):
    positions = [divmod(Fraction(16 * j, 60), 1) for j in range(8)]
    out = list(retime(shot, positions, "flow"))
    assert len(out) == 8 and all(frame.shape == shot[0].shape and frame.dtype == np.uint8 for frame in out)
    assert np.array_equal(out[0], shot[0])
    assert len({frame.tobytes() for frame in out}) == 8  # no frame comes twice


@pytest.mark.parametrize("t", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("scene", [disc_at, pan_at])
def test_flow_is_nearer_to_the_true_frame_than_the_mix(scene, t):
    first, second, truth = scene(0), scene(1), scene(t)
    assert psnr(at(first, second, t), truth) > psnr(blend(first, second, t), truth) + 3


@pytest.mark.parametrize("step", [(-8, 3), (3, 8), (-2, -9), (1.5, 0.5)])
def test_flow_follows_every_direction(step):
    first, second, truth = disc_at(0, step), disc_at(1, step), disc_at(0.5, step)
    assert psnr(at(first, second, 0.5), truth) > psnr(blend(first, second, 0.5), truth) + 1.5


def test_a_pan_is_followed_up_to_the_edges():
    first, second, truth = pan_at(0), pan_at(1), pan_at(0.5)
    moved, mixed = at(first, second, 0.5), blend(first, second, 0.5)
    for edge in (np.s_[:, :8], np.s_[:, -8:]):
        assert psnr(moved[edge], truth[edge]) > psnr(mixed[edge], truth[edge])


def test_the_disc_moves_on_from_frame_to_frame():
    ground = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))

    def disc(cx: float) -> np.ndarray:
        alpha = np.clip(12.5 - np.hypot(x - cx, y - 40), 0, 1)[..., None]
        return np.rint(ground * (1 - alpha) + np.array([230, 80, 40]) * alpha).astype(np.uint8)

    times = np.linspace(0, 0.95, 20)
    centres = []
    for frame in retime(np.stack([disc(50), disc(60)]), [(0, float(t)) for t in times]):
        red = frame[..., 0].astype(float) - 60
        centres.append((red * x).sum() / red.sum())
    assert np.all(np.diff(centres) > 0)
    assert np.allclose(centres, 50 + 10 * times, atol=0.6)


def test_frames_in_between_are_as_sharp_as_native_ones():
    """Else the picture would pulse: every few frames a native one passes unchanged."""
    random = np.random.default_rng(0)
    fine = random.uniform(60, 200, (HEIGHT, WIDTH, 3))
    for axis in (0, 1):
        fine = (np.roll(fine, 1, axis) + 2 * fine + np.roll(fine, -1, axis)) / 4
    first = np.rint(fine).astype(np.uint8)
    moved = at(first, np.roll(first, 1, axis=1), 0.5)  # half a pixel: where a bilinear reading blurs most
    inner = np.s_[8:-8, 8:-8]
    assert np.diff(moved[inner].astype(float), axis=1).std() > 0.93 * np.diff(first[inner].astype(float), axis=1).std()


def test_what_stands_still_stays_as_it_is(shot):
    assert np.array_equal(at(shot[0], shot[0], 0.5), shot[0])


def test_frames_that_have_nothing_in_common_are_mixed():
    first, second = (np.random.default_rng(k).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for k in (1, 2))
    assert psnr(at(first, second, 0.5), blend(first, second, 0.5)) > 35


def test_a_flash_of_light_is_mixed():
    dark = (texture(3) * 0.3).astype(np.uint8)
    bright = np.clip(texture(3) * 0.3 + 120, 0, 255).astype(np.uint8)
    assert psnr(at(dark, bright, 0.5), blend(dark, bright, 0.5)) > 30


def test_the_same_again_and_in_any_order(shot):
    positions = [(0, 0.3), (1, 0.3), (0, 0.7), (1, 0.7)]
    forward = list(retime(shot, positions))
    backward = list(retime(shot, positions[::-1]))[::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (8, 8), (500, 620)])
def test_any_size_of_frame(size):
    first = np.rint(texture(1, *size)).astype(np.uint8)
    second = np.roll(first, 2, axis=1)
    early, late = retime(np.stack([first, second]), [(0, 0.01), (0, 0.99)])
    assert psnr(early, first) > 25 and psnr(late, second) > 25


@pytest.mark.parametrize("position", [(2, 0.5), (3, 0), (-1, 0), (0, 1.0), (1, -0.5), (0, 1.5)])
def test_nothing_outside_the_shot_is_made_up(shot, position):
    with pytest.raises(IndexError):
        list(retime(shot, [position]))


def test_a_frame_that_is_not_needed_is_not_read(shot):
    class Watched(list):
        def __getitem__(self, index):
            assert index != 2, "frame 2 is not between 0 and 1"
            return super().__getitem__(index)

    assert len(list(retime(Watched(shot), [(0, 0.5), (1, 0)]))) == 2


def test_nearest_takes_the_nearer_frame(shot):
    out = list(retime(shot, [(0, 0.4), (0, Fraction(1, 2)), (0, 0.6), (1, 0.9)], "nearest"))
    assert [np.array_equal(a, shot[k]) for a, k in zip(out, (0, 1, 1, 2), strict=True)] == [True] * 4


def test_blend_rounds_the_exact_mix():
    first, second = np.full((4, 4, 3), 10, np.uint8), np.full((4, 4, 3), 21, np.uint8)
    assert blend(first, second, 0.5)[0, 0, 0] == 16 and blend(second, first, 0.25)[0, 0, 0] == 18


def test_an_unknown_method_is_named(shot):
    with pytest.raises(SettingsError, match=r"warp.*allowed: flow, blend, nearest"):
        list(retime(shot, [(0, 0)], "warp"))


def test_a_crossfade_adds_no_frame_and_repeats_none():
    old, new = np.full((3, 4, 4, 3), 0, np.uint8), np.full((3, 4, 4, 3), 200, np.uint8)
    assert crossfade(old, new)[:, 0, 0, 0].tolist() == [50, 100, 150]
    assert crossfade(old[:0], new[:0]).shape == (0, 4, 4, 3)
    with pytest.raises(ValueError):
        crossfade(old, new[:2])
