"""Batches with positives: who is in them, how often, and where a run stands in them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from talkforge.core.errors import ConfigError
from talkforge.datasets.batches import Cut
from talkforge.datasets.pairs import GroupPairs, paired_groups

GROUPS = ["a"] * 5 + ["b"] * 2 + [None, "alone"] + ["c"] * 3 + ["d"] * 4


def sampler(groups_per_batch: int = 3, clips_per_group: int = 2, **how: Any) -> GroupPairs:
    return GroupPairs(GROUPS, groups_per_batch, clips_per_group, **how)


def epochs(given: GroupPairs, count: int) -> list[list[Any]]:
    found = []
    for epoch in range(count):
        given.set_epoch(epoch)
        found += list(given)
    return found


def test_each_batch_has_the_groups_and_different_clips_of_them() -> None:
    for batch in epochs(sampler(), 20):
        counts = Counter(GROUPS[clip] for clip in batch)
        assert len(counts) == 3 and set(counts.values()) == {2} and len(set(batch)) == 6
        assert not {None, "alone"} & set(counts)


def test_a_small_group_gives_what_it_has_and_few_groups_all_come() -> None:
    for batch in epochs(sampler(9, 3), 10):
        assert Counter(GROUPS[clip] for clip in batch) == {"a": 3, "b": 2, "c": 3, "d": 3}
        assert len(set(batch)) == len(batch)


def test_a_group_s_clips_come_once_before_any_comes_again() -> None:
    groups = ["a"] * 6 + ["b"] * 6
    batches = list(GroupPairs(groups, 2, 2, seed=5))
    assert len(batches) == 3  # as many as it takes for all clips
    assert sorted(clip for batch in batches for clip in batch) == list(range(12))


def test_groups_come_equally_often() -> None:
    given = GroupPairs(["a"] * 40 + ["b"] * 2 + ["c"] * 2 + ["d"] * 2, 2, 2)
    batches = list(given)
    assert len(batches) == 12  # (20 + 1 + 1 + 1) draws, two a batch
    assert Counter("abcd"[max(0, (clip - 38) // 2)] for batch in batches for clip in batch) == dict.fromkeys("abcd", 12)


def test_epochs_and_seeds_differ_and_are_the_same_again() -> None:
    assert epochs(sampler(seed=1), 2) == epochs(sampler(seed=1), 2) != epochs(sampler(seed=2), 2)
    first, second = sampler(), sampler()
    second.set_epoch(1)
    assert list(first) != list(second)


def test_ranks_share_the_plan() -> None:
    whole = list(sampler(2, 2, world_size=1))
    parts = [list(sampler(2, 2, rank=rank, world_size=3)) for rank in range(3)]
    assert {len(part) for part in parts} == {-(-len(whole) // 3)}
    together = [batch for row in zip(*parts, strict=True) for batch in row]
    assert together[: len(whole)] == whole


def test_a_state_goes_on_in_the_middle() -> None:
    given = sampler(2, seed=3)
    given.set_epoch(4)
    whole = list(given)
    again = sampler(2, seed=3)
    again.load_state_dict(given.state_dict(2))
    again.set_epoch(4)
    assert list(again) == whole[2:]
    for other in (sampler(3, seed=3), sampler(2, 3, seed=3), GroupPairs([*GROUPS, "d"], 2, seed=3)):
        with pytest.raises(ConfigError, match="other clips or settings"):
            other.load_state_dict(given.state_dict(2))


def test_windows_are_within_the_clips() -> None:
    lengths = [10 + clip for clip in range(len(GROUPS))]
    cuts = [cut for batch in epochs(sampler(lengths=lengths, window=15), 20) for cut in batch]
    assert all(isinstance(cut, Cut) and cut.start + cut.frames <= lengths[cut.clip] for cut in cuts)
    assert {(cut.clip, cut.start, cut.frames) for cut in cuts if cut.clip == 4} == {(4, 0, 14)}
    assert {cut.start for cut in cuts if cut.clip == 6} == {0, 1}


def test_what_cannot_be_paired_is_refused() -> None:
    assert paired_groups(GROUPS) == [[0, 1, 2, 3, 4], [5, 6], [9, 10, 11], [12, 13, 14, 15]]
    for groups in ([], ["a", "b"], ["a", "a", "b", None, None]):
        with pytest.raises(ConfigError, match="two such groups"):
            GroupPairs(groups, 2)
    for sizes in ((1, 2), (2, 1)):
        with pytest.raises(ConfigError, match="at least 2 of each"):
            sampler(*sizes)
    with pytest.raises(ConfigError, match="needs the clips' lengths"):
        sampler(window=5)
