"""Six behaviours, one seed per clip, everything decided by the resolved seed."""

import pytest
from deforum_helpers.planning.seeds import MAX_SEED, clip_seed, derived_seed, resolve_seed
from hypothesis import given
from hypothesis import strategies as st


def seeds(behavior, count=8, seed=100, **more):
    return [clip_seed(behavior, seed, index, **more) for index in range(count)]


@pytest.mark.parametrize(
    ("behavior", "more", "offsets"),
    [
        ("iter", {}, [0, 1, 2, 3, 4, 5, 6, 7]), ("iter", {"iter_n": 3}, [0, 0, 0, 1, 1, 1, 2, 2]),
        ("fixed", {}, [0] * 8), ("ladder", {}, [0, 2, 1, 3, 2, 4, 3, 5]), ("alternate", {}, [0, 1, 0, 1, 0, 1, 0, 1]),
        ("schedule", {"scheduled": 107.9}, [7] * 8),
    ],
)  # fmt: skip
def test_sequences(behavior, more, offsets):
    assert seeds(behavior, **more) == [100 + offset for offset in offsets]


def test_random_is_decided_by_the_seed():
    first = seeds("random", 50)
    assert first == seeds("random", 50)
    assert len(set(first)) == 50
    assert not set(first) & set(seeds("random", 50, seed=101))


def test_a_scheduled_minus_one_is_random_but_repeatable():
    assert seeds("schedule", scheduled=-1) == seeds("random")
    assert derived_seed(100, 3) == clip_seed("schedule", 100, 3, scheduled=-1)


def test_minus_one_is_resolved_afresh():
    assert resolve_seed(42) == 42 and resolve_seed(0) == 0
    drawn = {resolve_seed(-1) for _ in range(20)}
    assert len(drawn) > 15 and all(0 <= seed <= MAX_SEED for seed in drawn)


@given(st.sampled_from(["iter", "ladder", "alternate", "random"]), st.integers(0, MAX_SEED), st.integers(0, 10_000))
def test_neighbours_never_share_a_seed(behavior, seed, index):
    here, there = clip_seed(behavior, seed, index), clip_seed(behavior, seed, index + 1)
    assert here != there
    assert 0 <= here <= MAX_SEED and 0 <= there <= MAX_SEED
