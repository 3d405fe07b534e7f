"""Which clips go together in a batch: by length, or by shares of groups. For data loaders, as a batch sampler.

An epoch's plan follows from seed, epoch and settings alone, and is made where the sampler lives and never in a worker.
So it is the same with any number of workers, the ranks of a run share it without talking, and it can be taken up again
in the middle. Random windows are drawn with the plan, for the same reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from ..core.config import digest
from ..core.errors import ConfigError

# Batches whose clips are shuffled together before they are sorted by length: more pad less, fewer mix better.
POOL = 64


class Cut(NamedTuple):
    """A part of a clip: `frames` frames of clip number `clip`, from frame `start` on."""

    clip: int
    start: int
    frames: int


class BatchSampler(ABC):
    """Batches of an epoch for one rank; see the subclasses.

    Args:
        lengths: frames of each clip.
        window: frames of the random part that is taken of a clip, which is then a `Cut`; a shorter clip is taken
            whole. None: whole clips, as indices.
        seed: of every draw, together with the epoch.
        rank, world_size: which of how many processes this is. All get the same number of batches.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, window: int | None, seed: int, rank: int, world_size: int):
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} is not below world_size {world_size}")
        if window is not None and window < 1:
            raise ConfigError(f"a window of {window} frames")
        self.lengths = np.asarray(lengths, np.int64)
        self.window, self.seed, self.rank, self.world_size = window, seed, rank, world_size
        self.epoch = 0
        self._start = 0
        self._planned: tuple[int, list[list[Any]]] | None = None

    @abstractmethod
    def _plan(self, rng: np.random.Generator) -> list[list[int]]:
        """Batches of all ranks; their number is a multiple of `world_size`."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """What the plan depends on beside lengths, window, seed and epoch; JSON-ready."""

    def __len__(self) -> int:
        """Batches that the next iteration gives to this rank."""
        return len(self._mine()) - self._start

    def __iter__(self) -> Iterator[list[Any]]:
        """Lists of indices, or of `Cut` where there is a window."""
        batches, self._start = self._mine()[self._start :], 0
        return iter(batches)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next iteration. The epoch of a loaded state keeps the place reached in it."""
        if epoch != self.epoch:
            self.epoch, self._start = epoch, 0

    def state_dict(self, batches_done: int) -> dict[str, Any]:
        """Where a run stands, JSON-ready.

        Args:
            batches_done: batches of this epoch that the run has finished with. A loader asks for batches ahead of
                time, so only the run knows.
        """
        return {"epoch": self.epoch, "batches_done": batches_done, "digest": self._digest()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken.

        Raises:
            ConfigError: the state is of other clips or settings, so its place means nothing here.
        """
        if state["digest"] != self._digest():
            raise ConfigError("the sampler's state is of other clips or settings", hint="start the epoch anew")
        self.epoch = int(state["epoch"])
        self._start = min(int(state["batches_done"]), len(self._mine()))

    def _digest(self) -> str:
        same = {"lengths": self.lengths.tolist(), "window": self.window, "seed": self.seed, "ranks": self.world_size}
        return digest({"kind": type(self).__name__, **same, **self._settings()})

    def _mine(self) -> list[list[Any]]:
        if self._planned is None or self._planned[0] != self.epoch:
            rng = np.random.default_rng([self.seed, self.epoch])
            batches = self._plan(rng)
            cut = batches if self.window is None else self._cut(batches, self.window, rng)
            self._planned = self.epoch, cut[self.rank :: self.world_size]
        return self._planned[1]

    def _cut(self, batches: list[list[int]], window: int, rng: np.random.Generator) -> list[list[Cut]]:
        found = []
        for batch in batches:
            frames = np.minimum(self.lengths[batch], window)
            starts = rng.integers(0, self.lengths[batch] - frames, endpoint=True)
            found.append([Cut(*map(int, part)) for part in zip(batch, starts, frames, strict=True)])
        return found


class LengthBuckets(BatchSampler):
    """Batches of clips of about one length; each clip once an epoch, over all ranks.

    Clips are shuffled, sorted by length in pools of `POOL` batches, cut into batches, and the batches are shuffled.

    Args:
        batch_size: clips of a batch; or
        frames_per_batch: most frames of a batch with its padding. A clip that is longer goes alone.
        shuffle: False goes by length, clips of one length in their order.
        drop_last: leaves out a batch that is not full, and batches that not every rank gets one of. Else batches are
            split so that every rank gets as many.
        lengths, window, seed, rank, world_size: see `BatchSampler`.

    Raises:
        ConfigError: settings that cannot be used; on iteration, too few clips for every rank without `drop_last`.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int | None = None,
        frames_per_batch: int | None = None,
        *,
        window: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if (batch_size is None) == (frames_per_batch is None) or (batch_size or frames_per_batch or 0) < 1:
            raise ConfigError("a batch needs its size", hint="give either batch_size or frames_per_batch, at least 1")
        super().__init__(lengths, window, seed, rank, world_size)
        self.batch_size, self.frames_per_batch = batch_size, frames_per_batch
        self.shuffle, self.drop_last = shuffle, drop_last

    def _settings(self) -> dict[str, Any]:
        names = ("batch_size", "frames_per_batch", "shuffle", "drop_last")
        return {name: getattr(self, name) for name in names}

    def _plan(self, rng: np.random.Generator) -> list[list[int]]:
        taken = self.lengths if self.window is None else np.minimum(self.lengths, self.window)
        order = rng.permutation(len(taken)) if self.shuffle else np.arange(len(taken))
        size = self._pool_size(taken) if self.shuffle else max(1, len(taken))
        batches: list[list[int]] = []
        for at in range(0, len(order), size):
            pool = order[at : at + size]
            batches += self._batches(pool[np.argsort(taken[pool], kind="stable")].tolist(), taken)
        if self.shuffle:
            batches = [batches[k] for k in rng.permutation(len(batches))]
        return self._for_ranks(batches)

    def _pool_size(self, taken: np.ndarray) -> int:
        if self.batch_size:
            return POOL * self.batch_size
        mean = float(taken.mean()) if len(taken) else 1.0
        return POOL * max(1, int((self.frames_per_batch or 1) / max(mean, 1.0)))

    def _batches(self, clips: list[int], taken: np.ndarray) -> list[list[int]]:
        """Cuts clips that are sorted by length."""
        if self.batch_size:
            cut = [clips[k : k + self.batch_size] for k in range(0, len(clips), self.batch_size)]
            return [batch for batch in cut if len(batch) == self.batch_size or not self.drop_last]
        batches: list[list[int]] = []
        for clip in clips:
            if batches and (len(batches[-1]) + 1) * taken[clip] <= (self.frames_per_batch or 0):
                batches[-1].append(clip)
            else:
                batches.append([clip])
        return batches

    def _for_ranks(self, batches: list[list[int]]) -> list[list[int]]:
        over = len(batches) % self.world_size
        if self.drop_last:
            return batches[: len(batches) - over]
        for _ in range(self.world_size - over if over else 0):
            most = max(range(len(batches)), key=lambda k: len(batches[k]))
            batch = batches[most]
            if len(batch) == 1:
                raise ConfigError(
                    f"{len(batches)} batches of one clip do not make as many for each of {self.world_size} ranks",
                    hint="use drop_last",
                )
            batches[most : most + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        return batches


class BalancedGroups(BatchSampler):
    """Batches with fixed shares of groups, such as one emotional clip to one ordinary one.

    The group with most clips for its share goes once through an epoch; the others come again, in a new order each
    time, so that clips of one group never differ by more than one in how often they come (save for the batches that
    make the ranks equal). A batch has its groups one after the other.

    Args:
        groups: each clip's group; None leaves the clip out.
        batch_size: clips of a batch, a multiple of the shares' sum.
        shares: group -> its part of a batch as a small integer; every group 1 when None.
        lengths: frames of each clip; only needed for a window.
        window, seed, rank, world_size: see `BatchSampler`.

    Raises:
        ConfigError: a batch that cannot be shared out, a group without a clip.
    """

    def __init__(
        self,
        groups: Sequence[Hashable],
        batch_size: int,
        shares: Mapping[Any, int] | None = None,
        *,
        lengths: Sequence[int] | np.ndarray | None = None,
        window: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if window is not None and lengths is None:
            raise ConfigError("a window needs the clips' lengths")
        super().__init__([0] * len(groups) if lengths is None else lengths, window, seed, rank, world_size)
        counts = Counter(group for group in groups if group is not None)
        self.groups = list(groups)
        self.shares = dict(shares) if shares is not None else dict.fromkeys(sorted(counts, key=str), 1)
        self.batch_size = batch_size
        empty = [str(group) for group in self.shares if not counts[group]]
        if empty or not self.shares:
            raise ConfigError(f"no clip is of group {', '.join(empty) or 'any name'}")
        whole = sum(self.shares.values())
        if min(self.shares.values()) < 1 or batch_size < 1 or batch_size % whole:
            raise ConfigError(f"{batch_size} clips cannot be shared out", hint=f"give a multiple of {whole}")

    def _settings(self) -> dict[str, Any]:
        shares = {str(group): share for group, share in self.shares.items()}
        return {"groups": [str(group) for group in self.groups], "batch_size": self.batch_size, "shares": shares}

    def _plan(self, rng: np.random.Generator) -> list[list[int]]:
        members = {g: np.array([k for k, other in enumerate(self.groups) if other == g]) for g in self.shares}
        each = {g: self.batch_size // sum(self.shares.values()) * share for g, share in self.shares.items()}
        count = max(-(-len(members[g]) // each[g]) for g in self.shares)
        count += -count % self.world_size
        drawn = {g: list(islice(_again_and_again(members[g], rng), count * each[g])) for g in self.shares}
        return [[k for g in self.shares for k in drawn[g][b * each[g] : (b + 1) * each[g]]] for b in range(count)]


def _again_and_again(members: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    return chain.from_iterable(rng.permutation(members).tolist() for _ in iter(int, 1))
