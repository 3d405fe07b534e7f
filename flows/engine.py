"""How stages run: directly on threads, or as Prefect tasks on threads, Dask or Ray. Stages are plain functions.

A stage function takes one shard of work (minutes, not frames) and gives paths, digests and counts, never arrays.
Workers of a cluster import it by its name, so they need this package, and the folders under the same paths.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from ..core.errors import ConfigError, MissingPackage, extra_hint
from ..core.progress import track
from .artifacts import Artifacts

A = TypeVar("A")
R = TypeVar("R")

RunnerName = Literal["local", "dask", "ray"]
LOOPBACK = "127.0.0.1"
CARRIED = ("TALKFORGE_", "OMP_NUM_THREADS")  # variables that workers of a cluster get, by how they begin
RAY_STORE_BYTES = 128 * 2**20  # only paths and counts pass through it


class Engine(Protocol):
    """Runs a stage's function over items and keeps their order."""

    def map(self, stage: str, function: Callable[[A], R], items: Sequence[A]) -> list[R]: ...

    def publish(self, made: Callable[[], Artifacts]) -> None:
        """Shows what was made where the engine has a place for it; elsewhere nothing is even drawn."""
        ...


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

    def publish(self, made: Callable[[], Artifacts]) -> None:
        """Nothing: there is no server to show it."""


@dataclass(frozen=True)
class Carried(Generic[A, R]):
    """A stage function with the variables it shall see: a cluster's workers were started with their own."""

    function: Callable[[A], R]
    variables: dict[str, str]

    def __call__(self, item: A) -> R:
        os.environ.update(self.variables)
        return self.function(item)


class PrefectEngine:
    """Tasks of the Prefect flow that is running."""

    def __init__(self, runner: RunnerName = "local") -> None:
        self.runner = runner

    def map(self, stage: str, function: Callable[[A], R], items: Sequence[A]) -> list[R]:
        """One task run an item, on the flow's task runner."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        work = function if self.runner == "local" else Carried(function, carried_variables())
        # Our own content-addressed rows are the truth about what is done, so Prefect's cache stays out.
        one: Any = task(name=stage, cache_policy=NO_CACHE, persist_result=False)(work)
        futures = [one.submit(item) for item in items]
        return [future.result() for future in track(futures, stage)]

    def publish(self, made: Callable[[], Artifacts]) -> None:
        """Artifacts of the flow run. A server that refuses them does not undo the work that they are about."""
        from httpx import HTTPError
        from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
        from prefect.exceptions import PrefectException

        shown = made()
        key, about = shown.key, shown.description
        try:
            create_table_artifact(shown.table, key=f"{key}-shards", description=about)
            create_markdown_artifact(shown.markdown, key=f"{key}-summary", description=about)
            create_image_artifact(shown.picture, key=f"{key}-picture", description=about)
        except (HTTPError, PrefectException) as error:
            print(f"note: Prefect took no artifacts: {type(error).__name__}", file=sys.stderr)


def carried_variables() -> dict[str, str]:
    """This process's variables that decide about weights, caches and threads."""
    return {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}


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


def run(
    name: str,
    body: Callable[[Engine], R],
    *,
    workers: int,
    use_prefect: bool,
    runner: RunnerName = "local",
    address: str | None = None,
) -> R:
    """Runs `body` with an engine: inside a Prefect flow called `name`, or directly.

    Args:
        name: of the flow.
        body: orders the stages.
        workers: threads ("local"), or processes of a cluster on this machine; a cluster at `address` has its own.
        use_prefect: else threads of this process alone.
        runner: where tasks run.
        address: of a cluster that is there already: a Dask scheduler ("tcp://host:8786") or Ray ("host:6379",
            "ray://host:10001"; its token in RAY_AUTH_TOKEN). Its workers need a Prefect server: PREFECT_API_URL.

    Raises:
        ConfigError: Dask or Ray without Prefect, or an address without either.
        MissingPackage: the runner's packages are not installed.
    """
    check_runner(runner, address, use_prefect=use_prefect)
    if not use_prefect:
        return body(DirectEngine(workers))
    prefect_environment()
    from prefect import flow

    whole: Any = flow(name=name, task_runner=_task_runner(runner, workers, address), persist_result=False)(_whole)
    signals = _signals()

    def started() -> R:
        _restore(signals)
        return body(PrefectEngine(runner))

    token = _BODY.set(started)
    try:
        with _server():
            return whole()
    finally:
        _BODY.reset(token)


# What the flow that is running does. Prefect sends the flow's function along with each task to a cluster: a closure
# would carry the whole plan to every worker, a function of a module is sent by its name.
_BODY: ContextVar[Callable[[], Any]] = ContextVar("body")


def _whole() -> Any:
    return _BODY.get()()


def _signals() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


def _restore(handlers: dict[int, Any]) -> None:
    """Sets signal handlers again: Ray puts its own in their place, and dies of SIGTERM with a report of a crash."""
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


def check_runner(runner: RunnerName, address: str | None, *, use_prefect: bool) -> None:
    """Refuses combinations that cannot be meant.

    Raises:
        ConfigError: Dask or Ray without Prefect, or an address without either.
    """
    if runner != "local" and not use_prefect:
        raise ConfigError(f"--runner {runner} works through Prefect", hint="leave --no-prefect out")
    if runner == "local" and address is not None:
        raise ConfigError("--address is of a cluster", hint="give --runner dask or --runner ray with it")


def _task_runner(runner: RunnerName, workers: int, address: str | None) -> Any:
    if runner == "local":
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=workers)
    try:
        return _dask(workers, address) if runner == "dask" else _ray(workers, address)
    except ImportError as error:
        text = f"--runner {runner} needs the package {error.name}"
        raise MissingPackage(text, hint=extra_hint(runner)) from error


def _dask(workers: int, address: str | None) -> Any:
    from prefect_dask.task_runners import DaskTaskRunner  # pyright: ignore[reportMissingImports]

    logging.getLogger("distributed").setLevel(logging.WARNING)  # Prefect lets the whole talk of its processes through
    if address is not None:
        return DaskTaskRunner(address=address)
    # Processes with one thread each, reachable from this machine alone.
    local = {"n_workers": workers, "threads_per_worker": 1, "processes": True, "silence_logs": logging.ERROR}
    return DaskTaskRunner(cluster_kwargs={**local, "host": LOOPBACK, "dashboard_address": None})


def _ray(workers: int, address: str | None) -> Any:
    # Ray reads these when it is imported: it takes GPUs away from tasks that do not count them, and reports usage.
    settings = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    if address is None:
        # Its processes listen on all addresses of the machine, whatever it is told: who asks must know a secret.
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    import ray  # noqa: F401  (prefect_ray imports it only when the flow starts)  # pyright: ignore[reportMissingImports]
    from prefect_ray import RayTaskRunner  # pyright: ignore[reportMissingImports]

    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is not None:
        return RayTaskRunner(address=address, init_kwargs=quiet)
    local = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": RAY_STORE_BYTES}
    return RayTaskRunner(init_kwargs={**quiet, **local})


@contextmanager
def _server() -> Iterator[None]:
    """The user's server, else one for this process and its workers: each worker would start its own without it.

    The end of the process ends it. An interrupted one may leave without its exit handlers, so it goes at once.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if PREFECT_API_URL.value():
        yield
        return
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    server.start()
    try:
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            yield
    except BaseException:
        server.stop()
        raise


def default_workers() -> int:
    """One worker a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
