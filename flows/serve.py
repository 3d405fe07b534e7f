"""`talkforge serve`: scheduled builds and evaluations on one machine, with a Prefect server of its own.

Two processes: this one waits for signals, and a group below it holds the server, Prefect's runner and the runs that it
starts. Whatever happens, the group goes as a whole, so nothing is left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

from pydantic import Field, model_validator

from ..core.config import Config, read_yaml, validate
from ..core.errors import ConfigError, InputError, TalkForgeError
from ..core.weights import CONFIGS
from .engine import LOOPBACK, prefect_environment

DEFAULT_FILE = Path("deployments.yaml")
EXAMPLE = CONFIGS / "deployments" / "example.yaml"
USUAL_PORT = 4200
SERVER_SECONDS = 180.0
END_SECONDS = 20.0  # for the orderly end of runs that are under way; shards are whole or absent in any case
SHOWN_TIMES = 3
FLOWS = {"build": "build_dataset", "eval": "evaluate", "benchmark": "benchmark"}


class Deployment(Config):
    """One entry of the file: which flow runs when, with which parameters."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]*$")
    flow: Literal["build", "eval", "benchmark"]
    parameters: dict[str, Any]
    cron: str | None = None
    timezone: str = "UTC"
    paused: bool = False

    @model_validator(mode="after")
    def _schedulable(self) -> Self:
        self.schedule()
        return self

    def schedule(self) -> Any:
        """Prefect's schedule, or None. Raises ValueError for what is no cron line or no time zone."""
        from prefect.server.schemas.schedules import CronSchedule

        return CronSchedule(cron=self.cron, timezone=self.timezone) if self.cron else None

    def next_times(self, start: datetime | None = None) -> list[datetime]:
        """The next times at which it runs by itself, after `start` (now when left out)."""
        schedule = self.schedule()
        return [] if schedule is None or self.paused else asyncio.run(schedule.get_dates(SHOWN_TIMES, start))


class DeploymentFile(Config):
    """The whole file."""

    deployments: list[Deployment] = Field(min_length=1)


def read_deployments(path: Path | None = None) -> list[Deployment]:
    """The entries of a YAML file, checked as far as that goes before their time comes.

    Args:
        path: the file; `deployments.yaml` of the present folder when left out. Relative paths in it are below its own
            folder.

    Raises:
        InputError: there is no such file.
        ConfigError: a key, a cron line, a time zone or a parameter that cannot be used.
    """
    path = path or DEFAULT_FILE
    if not path.is_file():
        raise InputError(f"there is no {path}", hint=f"name a file of deployments; an example: {EXAMPLE}")
    found = validate(DeploymentFile, read_yaml(path), where=str(path)).deployments
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: two deployments are called '{twice[0]}'")
    return [one.model_copy(update={"parameters": _parameters(one, path)}) for one in found]


def _parameters(one: Deployment, path: Path) -> dict[str, Any]:
    """Parameters with absolute paths, JSON-ready, after the flow's own check."""
    from prefect.exceptions import ParameterBindError, ParameterTypeError

    from . import deployments

    folder = path.resolve().parent
    values = _below(folder, one.parameters)
    try:
        checked = _flow(one).validate_parameters(values)
        if isinstance(config := checked.get("config"), Path | Config):
            kind = deployments.BuildConfig if one.flow == "build" else deployments.EvalConfig
            deployments.settled(kind, config)
    except (ParameterTypeError, ParameterBindError) as error:
        raise ConfigError(f"{path}: {one.name}: {' '.join(str(error).split())}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {one.name}: {error.message}", hint=error.hint) from error
    return values


def _below(folder: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the places in them taken from the file's folder, also those of a group of settings."""
    from .deployments import PLACES

    placed: dict[str, Any] = {}
    for name, value in parameters.items():
        if name == "config" and isinstance(value, dict):
            placed[name] = _below(folder, value)
        elif name in (*PLACES, "config") and isinstance(value, str):
            placed[name] = str(folder / Path(value).expanduser())
        else:
            placed[name] = value
    return placed


def _flow(one: Deployment) -> Any:
    from . import deployments

    return getattr(deployments, FLOWS[one.flow])


def describe(found: list[Deployment], start: datetime | None = None) -> str:
    """What would be served and when it runs next, as text."""
    lines = []
    for one in found:
        when = f"{one.cron} ({one.timezone})" if one.cron else "when asked for"
        lines.append(f"{one.name}: {one.flow}, {when}{', paused' if one.paused else ''}")
        lines.append(f"  {json.dumps(one.parameters)}")
        lines += [f"  next: {moment.isoformat(timespec='minutes')}" for moment in one.next_times(start)]
    return "\n".join(lines)


def serve(deployments: Path | None = None, *, limit: int = 1) -> None:
    """Serves until it is interrupted.

    Args:
        deployments: see `read_deployments`.
        limit: runs at one time; of one deployment there is never more than one, and a run whose time comes while the
            one before it is at work is left out.

    Raises:
        KeyboardInterrupt: by SIGINT or SIGTERM, once all processes below have ended.
        TalkForgeError: the file cannot be used, or the processes below ended by themselves.
    """
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")  # here people want to see what runs
    prefect_environment()
    read_deployments(deployments)  # what is wrong with the file is said at once
    path = (deployments or DEFAULT_FILE).resolve()
    command = [sys.executable, "-m", "talkforge.flows.serve", str(path), str(limit)]
    # A session of its own: Ctrl-C reaches this process alone, and the end comes in order.
    below = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        code = below.wait()
    except KeyboardInterrupt:
        below.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            below.wait(END_SECONDS)
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(below.pid, signal.SIGKILL)
        below.wait()
    raise TalkForgeError(f"the server or the runner ended by itself with code {code}", hint="its messages are above")


def _attend(path: Path, limit: int) -> None:
    """The process below: server, then runner, until SIGINT."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    found = read_deployments(path)
    with _server():
        from prefect import serve as serve_deployments

        serve_deployments(*map(_served, found), limit=limit, print_starting_message=False)


def _end_with_parent() -> None:
    """The pipe ends when the process above has gone, however it went."""
    sys.stdin.read()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _served(one: Deployment) -> Any:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    return _flow(one).to_deployment(
        name=one.name,
        schedules=[Cron(one.cron, timezone=one.timezone)] if one.cron else None,
        paused=one.paused,
        parameters=one.parameters,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


@contextmanager
def _server() -> Iterator[None]:
    """The user's Prefect server, else one on this machine's own address whose database is in PREFECT_HOME.

    Prefect's temporary server would not do: it starts no scheduled run.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if PREFECT_API_URL.value():
        _say(f"deployments go to {PREFECT_API_URL.value()}")
        yield
        return
    port = _free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)]
    command += ["--log-level", "ERROR"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://{LOOPBACK}:{port}/api"
    try:
        _wait(server, url)
        _say(f"Prefect's page: http://{LOOPBACK}:{port}")
        with temporary_settings({PREFECT_API_URL: url}):
            yield
    finally:
        server.terminate()
        server.wait()


def _free_port() -> int:
    """Prefect's usual port, else any."""
    for port in (USUAL_PORT, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: an ended one left it so
            probe.bind((LOOPBACK, port))
            return int(probe.getsockname()[1])
    raise TalkForgeError(f"no free port on {LOOPBACK}")


def _wait(server: subprocess.Popen[bytes], url: str) -> None:
    import httpx

    until = time.monotonic() + SERVER_SECONDS
    while time.monotonic() < until and server.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    raise TalkForgeError("Prefect's server did not start", hint="its messages are above")


def _say(text: str) -> None:
    print(f"talkforge: {text}", file=sys.stderr, flush=True)


def _main() -> NoReturn:
    try:
        _attend(Path(sys.argv[1]), int(sys.argv[2]))
    except TalkForgeError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        pass
    sys.exit(0)


if __name__ == "__main__":
    _main()
