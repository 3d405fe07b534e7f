"""How stages run: directly on threads, or as Prefect tasks. Stages are plain functions, so both give the same results.

A stage function takes one shard of work (minutes, not frames) and gives paths, digests and counts, never arrays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from ..core.progress import track

A = TypeVar("A")
R = TypeVar("R")


class Engine(Protocol):
    """Runs a stage's function over items and keeps their order."""

    def map(self, stage: str, function: Callable[[A], R], items: Sequence[A]) -> list[R]: ...


class DirectEngine:
    """Threads of this process."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def map(self, stage: str, function: Callable[[A], R], items: Sequence[A]) -> list[R]:
        """Results in the items' order; the first exception ends the stage."""
        pool = ThreadPoolExecutor(self.workers)
        try:
            futures = [pool.submit(function, item) for item in items]
            return [future.result() for future in track(futures, stage)]
        finally:
            # After an error nobody waits for shards that are under way: what they finish is stored whole.
            pool.shutdown(wait=False, cancel_futures=True)


class PrefectEngine:
    """Tasks of the Prefect flow that is running."""

    def map(self, stage: str, function: Callable[[A], R], items: Sequence[A]) -> list[R]:
        """One task run an item, on the flow's task runner."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        # Our own content-addressed rows are the truth about what is done, so Prefect's cache stays out.
        one: Any = task(name=stage, cache_policy=NO_CACHE, persist_result=False)(function)
        futures = [one.submit(item) for item in items]
        return [future.result() for future in track(futures, stage)]


def prefect_environment() -> None:
    """Defaults for a run without a server of its own; what the user has set stays."""
    defaults = {
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def run(name: str, body: Callable[[Engine], R], *, workers: int, use_prefect: bool) -> R:
    """Runs `body` with an engine: inside a Prefect flow called `name`, or directly."""
    if not use_prefect:
        return body(DirectEngine(workers))
    prefect_environment()
    from prefect import flow
    from prefect.task_runners import ThreadPoolTaskRunner

    threads: Any = ThreadPoolTaskRunner(max_workers=workers)

    @flow(name=name, task_runner=threads, persist_result=False)
    def whole() -> Any:
        return body(PrefectEngine())

    return whole()


def default_workers() -> int:
    """One worker a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
