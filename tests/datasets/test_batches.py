"""Batches of an epoch: what is in them, who gets them, and where a stopped run goes on."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from talkforge.core.errors import ConfigError
from talkforge.datasets.batches import POOL, BalancedGroups, Cut, LengthBuckets

LENGTHS = np.random.default_rng(7).integers(20, 400, 1000)


def clips_of(sampler: Any) -> list[int]:
    return [clip for batch in sampler for clip in batch]


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("size", [{"batch_size": 16}, {"frames_per_batch": 3000}, {"batch_size": 7, "shuffle": False}])
def test_each_clip_once_an_epoch_and_as_many_batches_a_rank(size: dict[str, Any], world_size: int) -> None:
    ranks = [LengthBuckets(LENGTHS, **size, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1
    assert [len(rank) for rank in ranks] == [len(list(rank)) for rank in ranks]
    assert sorted(clip for rank in ranks for clip in clips_of(rank)) == list(range(len(LENGTHS)))


def test_batches_stay_within_their_frames() -> None:
    batches = list(LengthBuckets([*LENGTHS, 5000], frames_per_batch=3000))
    lengths = np.array([*LENGTHS, 5000])
    padded = [len(batch) * lengths[batch].max() for batch in batches]
    assert [1000] in batches  # longer than a batch: alone
    assert sorted(padded)[-2] <= 3000
    assert np.mean(padded) > 2500


def test_clips_of_about_one_length_go_together() -> None:
    """Padding, against batches drawn at random."""
    batches = list(LengthBuckets(LENGTHS, 10))
    shuffled = np.random.default_rng(0).permutation(len(LENGTHS)).reshape(-1, 10)
    padding = sum(len(batch) * LENGTHS[batch].max() for batch in batches) / LENGTHS.sum() - 1
    at_random = sum(len(batch) * LENGTHS[batch].max() for batch in shuffled) / LENGTHS.sum() - 1
    assert padding < at_random / 10
    assert len(LENGTHS) > POOL * 10  # more than one pool


def test_an_epoch_follows_from_seed_and_number() -> None:
    one, other = LengthBuckets(LENGTHS, 8, seed=4), LengthBuckets(LENGTHS, 8, seed=4)
    first = list(one)
    assert first == list(one) == list(other)
    one.set_epoch(1)
    assert first != list(one)
    other.set_epoch(1)
    assert list(one) == list(other)
    assert list(LengthBuckets(LENGTHS, 8, seed=5)) != first
    assert [LENGTHS[b].max() for b in first] != sorted(LENGTHS[b].max() for b in first)
    by_length = clips_of(LengthBuckets(LENGTHS, 8, shuffle=False))
    assert by_length == sorted(range(len(LENGTHS)), key=lambda clip: LENGTHS[clip])  # equal ones in their order


def test_what_is_not_full_may_be_left_out() -> None:
    assert Counter(len(batch) for batch in LengthBuckets(LENGTHS, 64, drop_last=True)) == {64: 15}
    ranks = [LengthBuckets(LENGTHS, 64, drop_last=True, rank=rank, world_size=2) for rank in range(2)]
    assert [len(list(rank)) for rank in ranks] == [7, 7]


def test_windows_are_drawn_with_the_plan() -> None:
    sampler = LengthBuckets([5, 30, 100], 2, window=25, seed=1)
    cuts = sorted(clips_of(sampler))
    assert [(cut.clip, cut.frames) for cut in cuts] == [(0, 5), (1, 25), (2, 25)]
    assert all(isinstance(cut, Cut) and isinstance(cut.start, int) for cut in cuts)
    assert sorted(clips_of(sampler)) == cuts
    starts: set[int] = set()
    for epoch in range(60):
        sampler.set_epoch(epoch)
        starts |= {cut.start for cut in clips_of(sampler) if cut.clip == 1}
    assert starts == set(range(6))  # every place, the last one too


@pytest.mark.parametrize("kind", ["buckets", "groups"])
def test_a_stopped_run_goes_on_where_it_was(kind: str) -> None:
    def fresh() -> LengthBuckets | BalancedGroups:
        if kind == "buckets":
            return LengthBuckets(LENGTHS, 8, window=20, seed=2)
        return BalancedGroups([k % 3 == 0 for k in range(200)], 4, lengths=LENGTHS[:200], window=20, seed=2)

    sampler = fresh()
    sampler.set_epoch(3)
    whole = list(sampler)
    state = json.loads(json.dumps(sampler.state_dict(5)))
    resumed = fresh()
    resumed.load_state_dict(state)
    resumed.set_epoch(3)  # as a loop over epochs does
    assert len(resumed) == len(whole) - 5
    assert list(resumed) == whole[5:]
    resumed.set_epoch(4)
    sampler.set_epoch(4)
    assert list(resumed) == list(sampler)
    with pytest.raises(ConfigError, match="other clips or settings"):
        LengthBuckets(LENGTHS[:-1], 8, window=20, seed=2).load_state_dict(state)


def test_groups_come_in_their_shares() -> None:
    groups = ["emotion"] * 30 + ["ordinary"] * 100 + [None] * 5
    sampler = BalancedGroups(groups, 8, seed=1)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 25  # 100 ordinary ones, 4 a batch
    assert all(Counter(groups[clip] for clip in batch) == {"emotion": 4, "ordinary": 4} for batch in batches)
    seen = Counter(clips_of(sampler))
    assert {seen[clip] for clip in range(30)} == {3, 4}
    assert {seen[clip] for clip in range(30, 130)} == {1}
    assert not any(seen[clip] for clip in range(130, 135))
    three = list(BalancedGroups(groups, 8, {"ordinary": 3, "emotion": 1}))
    assert all(Counter(groups[clip] for clip in batch) == {"emotion": 2, "ordinary": 6} for batch in three)


def test_ranks_share_the_groups_batches() -> None:
    groups = [k % 2 for k in range(50)]
    ranks = [BalancedGroups(groups, 4, rank=rank, world_size=2) for rank in range(2)]
    assert [len(rank) for rank in ranks] == [7, 7]  # 13 batches, and one more
    whole = list(BalancedGroups(groups, 4))
    assert [batch for pair in zip(*ranks, strict=True) for batch in pair][:13] == whole


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: LengthBuckets([1, 2]), "either batch_size or frames_per_batch"),
        (lambda: LengthBuckets([1, 2], 2, 3), "either batch_size or frames_per_batch"),
        (lambda: LengthBuckets([1, 2], 0), "either batch_size or frames_per_batch"),
        (lambda: LengthBuckets([1, 2], 1, rank=2, world_size=2), "rank 2 is not below"),
        (lambda: LengthBuckets([1, 2], 1, window=0), "a window of 0 frames"),
        (lambda: list(LengthBuckets([1, 2, 3], 1, world_size=2)), "use drop_last"),
        (lambda: BalancedGroups(["a", "b"], 3), "a multiple of 2"),
        (lambda: BalancedGroups(["a", "b"], 2, {"a": 1, "c": 1}), "no clip is of group c"),
        (lambda: BalancedGroups(["a", "b"], 2, window=5), "a window needs"),
    ],
)
def test_settings_that_cannot_be_used(make: Any, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        make()
