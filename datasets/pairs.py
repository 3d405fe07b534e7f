"""Batches in which clips have positives: a few clips of each of a few groups, for contrastive training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .batches import BatchSampler


class GroupPairs(BatchSampler):
    """Batches of `clips_per_group` different clips of each of `groups_per_batch` different groups.

    Groups come equally often, however many clips they have: in each round all come once, in a new order. The clips of a
    group come in rounds of their own. An epoch has as many batches as it takes for all clips, were groups of one size.
    Clips without a partner are left out. A group of fewer clips gives those that it has; where there are fewer groups,
    each batch has all of them. A batch has its groups one after the other.

    Args:
        groups: each clip's group; None leaves the clip out.
        groups_per_batch, clips_per_group: at least 2 of each: contrast needs other groups, and pairs.
        lengths, window, seed, rank, world_size: see `BatchSampler`; lengths are only needed for a window.

    Raises:
        ConfigError: smaller batches than that, a window without lengths, or fewer than two groups that have two clips.
    """

    def __init__(
        self,
        groups: Sequence[Hashable],
        groups_per_batch: int,
        clips_per_group: int = 2,
        *,
        lengths: Sequence[int] | np.ndarray | None = None,
        window: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if window is not None and lengths is None:
            raise ConfigError("a window needs the clips' lengths")
        if min(groups_per_batch, clips_per_group) < 2:
            raise ConfigError(f"{groups_per_batch} groups of {clips_per_group} clips", hint="give at least 2 of each")
        super().__init__([0] * len(groups) if lengths is None else lengths, window, seed, rank, world_size)
        self.groups = list(groups)
        self.groups_per_batch, self.clips_per_group = groups_per_batch, clips_per_group
        self._members = [np.array(clips) for clips in paired_groups(groups)]
        if len(self._members) < 2:
            raise ConfigError(f"{len(self._members)} groups have two clips or more; contrast needs two such groups")

    def _settings(self) -> dict[str, Any]:
        sizes = {"groups_per_batch": self.groups_per_batch, "clips_per_group": self.clips_per_group}
        return {"groups": [str(group) for group in self.groups], **sizes}

    def _plan(self, rng: np.random.Generator) -> list[list[int]]:
        turns = _rounds(np.arange(len(self._members)), self.groups_per_batch, rng)
        clips = [_rounds(members, self.clips_per_group, rng) for members in self._members]
        draws = sum(-(-len(members) // self.clips_per_group) for members in self._members)
        count = -(-draws // min(self.groups_per_batch, len(self._members)))
        count += -count % self.world_size
        return [[clip for group in next(turns) for clip in next(clips[group])] for _ in range(count)]


def paired_groups(groups: Sequence[Hashable]) -> list[list[int]]:
    """Indices of the clips of each group that has two or more, in the order of first appearance; None is no group."""
    counts = Counter(group for group in groups if group is not None)
    members: dict[Hashable, list[int]] = {group: [] for group, count in counts.items() if count > 1}
    for index, group in enumerate(groups):
        if group in members:
            members[group].append(index)
    return list(members.values())


def _rounds(items: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """Without end: `size` different items (all where there are fewer), each item once before any comes again.

    The last part of a round is filled up from its beginning, so that no item stands twice in one part.
    """
    size = min(size, len(items))
    while True:
        order = rng.permutation(items)
        for at in range(0, len(order), size):
            yield order.take(range(at, at + size), mode="wrap").tolist()
