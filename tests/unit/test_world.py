"""The demo's procedural world: what captions and renders promise to the training."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))
import captions
import world
from world import Look, Story


def story(**changes: str) -> Story:
    look = {"colour": "red", "object": "ball", "motion": "right", "scenery": "sea", "time": "day"} | changes
    return Story((Look(**look),), world.sample_start(Look(**look), np.random.default_rng(0)))


def test_every_look_is_possible_and_kinds_are_balanced():
    rng = np.random.default_rng(1)
    looks = [world.sample_look(rng) for _ in range(3000)]
    assert all(world.possible(look) for look in looks)
    counts = Counter(look.object for look in looks)
    assert set(counts) == set(world.OBJECTS)
    assert max(counts.values()) < 1.25 * min(counts.values())


def test_render_is_deterministic_and_has_the_renderers_lengths():
    rng = np.random.default_rng(2)
    three = world.sample_story(rng, clips=3)
    frames = world.render(three)
    assert frames.shape == (41, 80, 128, 3) and frames.dtype == np.uint8
    assert np.array_equal(frames, world.render(three))
    assert [world.join_frame(clip) for clip in (1, 2)] == [17, 29]


@pytest.mark.parametrize("motion", ["right", "left", "up", "down", "still"])
def test_the_object_moves_as_asked(motion: str):
    path = world.trajectory(story(motion=motion))
    dx, dy = path[-1] - path[0]
    assert np.sign(round(float(dx))) == {"right": 1, "left": -1}.get(motion, 0)
    assert np.sign(round(float(dy))) == {"down": 1, "up": -1}.get(motion, 0)


def test_objects_stay_inside_the_picture():
    rng = np.random.default_rng(3)
    for _ in range(60):
        path = world.centres(world.sample_story(rng, clips=4, anywhere=True))
        assert path[:, 0].min() >= world.X_RANGE[0] - 4 and path[:, 0].max() <= world.X_RANGE[1] + 4
        assert path[:, 1].min() >= 12 and path[:, 1].max() <= 68


def test_a_new_look_takes_over_within_its_clip():
    first, second = Look("red", "ball", "still", "sea", "day"), Look("blue", "ball", "still", "sea", "night")
    changed = world.render(Story((first, second), (64.0, 40.0)))
    alone = world.render(Story((second, second), (64.0, 40.0)))
    before = world.render(Story((first, first), (64.0, 40.0)))
    assert np.array_equal(changed[:17], before[:17])
    assert np.abs(changed[25:].astype(int) - alone[25:]).max() <= 1


@pytest.mark.parametrize("kind", world.OBJECTS)
def test_each_object_is_big_and_of_its_colour(kind: str):
    scenery = "hills" if kind == "car" else "sea"
    red, blue = (world.render(story(object=kind, scenery=scenery, colour=c))[0].astype(int) for c in ("red", "blue"))
    differs = np.abs(red - blue).max(axis=-1) > 60
    assert differs.mean() > 0.03
    assert (red - blue)[differs][:, 0].mean() > 60 > -60 > (red - blue)[differs][:, 2].mean()


def test_captions_vary_and_say_what_they_must():
    rng = np.random.default_rng(4)
    look = Look("purple", "boat", "left", "sea", "night", "fast")
    texts = [captions.caption(look, rng, drop=0, plain=True) for _ in range(300)]
    assert len(set(texts)) > 280
    nouns = [noun.split("*")[0].replace("_", " ") for noun in captions.NOUNS["boat"].split()]
    for text in texts:
        assert any(noun in text.lower() for noun in nouns)
        assert "left" in text.lower() and "_" not in text and "*" not in text and "  " not in text
    assert all(captions.negative(rng) for _ in range(20))
