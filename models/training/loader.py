"""Rows of a dataset as batches, in the order of a sampler whose place can be stored.

The sampler plans where the training lives; worker processes only read what it names. So a training gives the same
batches with any number of workers. Random windows belong into the sampler's plan for the same reason: what a worker
draws by itself is not taken up again when a training goes on in the middle of an epoch.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader


class Rows(Protocol):
    """A map-style dataset, such as `datasets.shards.ClipShards`."""

    def __getitem__(self, key: Any) -> Any: ...


class Sampler(Protocol):
    """Batches of keys, such as `datasets.batches.LengthBuckets`."""

    def __iter__(self) -> Iterator[list[Any]]: ...

    def set_epoch(self, epoch: int) -> None: ...

    def state_dict(self, batches_done: int) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Loader:
    """Collated batches of an epoch; see `system.Batches`.

    Args:
        rows: where a key becomes a row; pickled for workers.
        sampler: gives lists of keys.
        collate: rows -> batch, such as `datasets.shards.stack`.
        workers: processes that read; 0 reads in this one.
        seed: of the workers' own generators.
        pin: page-locked memory, for a faster way to a GPU.
    """

    def __init__(
        self,
        rows: Rows,
        sampler: Sampler,
        collate: Callable[[Sequence[Any]], Any],
        *,
        workers: int = 0,
        seed: int = 0,
        pin: bool = False,
    ) -> None:
        self.rows, self.sampler, self.collate = rows, sampler, collate
        self.workers, self.seed, self.pin = workers, seed, pin
        self._epoch = 0

    def __iter__(self) -> Iterator[Any]:
        """The batches that are left of the epoch."""
        # Without a generator of its own a loader draws from the training's, once for each time it begins.
        generator = torch.Generator().manual_seed(hash((self.seed, self._epoch)) % 2**63)
        loader = DataLoader(
            self.rows,  # pyright: ignore[reportArgumentType]  (any map-style dataset will do)
            batch_sampler=list(self.sampler),  # torch begins it twice with workers; its place is good for once
            collate_fn=self.collate,  # pyright: ignore[reportArgumentType]
            num_workers=self.workers,
            generator=generator,
            pin_memory=self.pin,
            worker_init_fn=_leave_signals,
            # A fork copies the locks that other threads of this process hold; workers of a clean server have none.
            multiprocessing_context="forkserver" if self.workers else None,
        )
        return iter(loader)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next iteration."""
        self._epoch = epoch
        self.sampler.set_epoch(epoch)

    def state_dict(self, batches_done: int) -> dict[str, Any]:
        """The sampler's place."""
        return self.sampler.state_dict(batches_done)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken. Raises what the sampler raises for another dataset."""
        self.sampler.load_state_dict(state)


def _leave_signals(worker: int) -> None:
    """Ctrl-C reaches workers too, and is the training's business. SIGTERM is torch's, and ends a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
