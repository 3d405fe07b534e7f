"""Runs another program under limits of time, memory and output, and leaves nothing of it running.

A program gets a session of its own, no input, and of the environment what is allowed. The memory that counts is the
resident memory of everything it started, added up a few times a second: a limit of address space would stop every
program that uses CUDA, which reserves far more than it takes. What is left of it after its end, or at a limit, is
killed: its session, its descendants, and whatever carries the mark of the run in its environment.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Any, NamedTuple

from ..core.children import kept
from .external_errors import CannotStart, Crashed, OutOfMemory, ProgramFailed, TimedOut, TooMuchOutput

MARK = "TALKFORGE_JOB"
PROC = Path("/proc")  # where there is none, as on macOS, memory is not limited
POLL_S = 0.2
MEMORY_EVERY_S = 0.4  # reading the process table costs some milliseconds
DISK_EVERY_S = 1.0
GRACE_S = 3.0  # between asking a program to end and killing it
TAIL = 20  # last lines that are kept
CHUNK = 65536
PAGE = os.sysconf("SC_PAGE_SIZE")

ALLOWED = frozenset(
    """
    PATH HOME USER LOGNAME SHELL LANG LANGUAGE LC_ALL LC_CTYPE TZ TERM LD_LIBRARY_PATH OMP_NUM_THREADS
    CUDA_HOME CUDA_PATH CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER
    HF_HOME HF_HUB_CACHE HF_HUB_OFFLINE HUGGINGFACE_HUB_CACHE TRANSFORMERS_CACHE TORCH_HOME MODELSCOPE_CACHE
    XDG_CACHE_HOME XDG_RUNTIME_DIR CONDA_EXE MAMBA_EXE MAMBA_ROOT_PREFIX DOCKER_HOST
    SSL_CERT_FILE REQUESTS_CA_BUNDLE HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy
    """.split()  # noqa: SIM905 (forty lines else)
)
_GPU_MEMORY = re.compile(r"CUDA(?: error:)? out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)


class Bounds(NamedTuple):
    """Limits in seconds and bytes."""

    seconds: float
    memory: float
    room: float
    log: float


class Process(NamedTuple):
    """A line of the process table."""

    pid: int
    parent: int
    session: int
    resident: int  # bytes


@dataclass(frozen=True)
class Ran:
    """A program that has ended.

    Attributes:
        seconds: it took.
        peak_memory: most resident bytes that were seen; None where it was over before any were, or is not known.
        tail: last lines of what it said.
    """

    seconds: float
    peak_memory: int | None
    tail: list[str]

    @property
    def facts(self) -> dict[str, Any]:
        """Of the run, JSON-ready."""
        peak = None if self.peak_memory is None else round(self.peak_memory / 1e6)
        return {"took_s": round(self.seconds, 3), "peak_memory_mb": peak}


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """What a program gets of this process's environment, and `given` beside it."""
    return {name: value for name, value in os.environ.items() if name in ALLOWED} | dict(given)


def run_program(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    bounds: Bounds,
    room: Path,
    stop: Sequence[str] = (),
    spent: float = 0,
) -> Ran:
    """Runs a command to its end.

    Args:
        command: program and arguments; no shell reads them.
        cwd: folder that it starts in.
        env: its whole environment.
        log: file that gets what it says on both outputs, appended.
        bounds: see there.
        room: folder whose files count as its output.
        stop: command that ends what the program has started elsewhere (a container), called before it is killed.
        spent: seconds of the limit that steps before it have taken.

    Raises:
        CannotStart, Crashed, TimedOut, OutOfMemory, TooMuchOutput: with the last lines of what it said.
    """
    mark = secrets.token_hex(16)
    started = time.monotonic() - spent
    with kept(lambda: _begun(command, cwd, env, mark, stop), _Job.end) as job:
        process = job.process
        assert process.stdout is not None, "it was asked for"
        said = _Log(process.stdout, log, bounds.log)
        try:
            broken = _watch(job, said, bounds, room, started)
        finally:
            job.end()
            said.close()
    seconds = time.monotonic() - started - spent
    return _judged(process, broken, said, Ran(seconds, job.peak, list(said.tail)))


def _begun(command: Sequence[str], cwd: Path, env: Mapping[str, str], mark: str, stop: Sequence[str]) -> _Job:
    try:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**env, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise CannotStart(f"{command[0]} cannot be started: {error}") from error
    return _Job(process, mark, tuple(stop), dict(env))


def _judged(process: subprocess.Popen[bytes], broken: ProgramFailed | None, said: _Log, ran: Ran) -> Ran:
    """The run, or what was wrong with it and the last of what it said."""
    status = process.returncode
    facts = {**ran.facts, "exit_status": status}
    failure = broken
    if failure is None and said.full:
        failure = TooMuchOutput(f"it said more than {said.most / 1e6:g} MB")
    if failure is None and status != 0 and _GPU_MEMORY.search("\n".join(ran.tail)):
        failure = OutOfMemory("the GPU's memory was not enough")
    if failure is None and status != 0:
        failure = Crashed(_ended(status))
    if failure is None:
        return ran
    raise type(failure)(failure.message + quoted(ran.tail), facts=facts)


def _ended(status: int) -> str:
    if status >= 0:
        return f"it ended with exit status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
    why = ", as the system does when memory runs out" if -status == signal.SIGKILL else ""
    return f"it was ended by {name}{why}"


def quoted(lines: Iterable[str], most: int = 5, characters: int = 800) -> str:
    """The last lines that say anything, to put behind a message; empty when there are none."""
    told = [line for line in lines if line.strip()][-most:]
    return f"; it said last: {' | '.join(told)[-characters:]}" if told else ""


def _watch(job: _Job, said: _Log, bounds: Bounds, room: Path, started: float) -> ProgramFailed | None:
    """Waits for the end; the first limit that is passed."""
    seen = measured = time.monotonic()
    while True:
        with suppress(subprocess.TimeoutExpired):
            job.process.wait(POLL_S)
            return _too_large(room, bounds.room)
        now = time.monotonic()
        if now - started > bounds.seconds:
            return TimedOut(f"it was still at work after {bounds.seconds:g} s")
        if said.full:
            return TooMuchOutput(f"it said more than {bounds.log / 1e6:g} MB")
        if now - seen > MEMORY_EVERY_S or job.peak is None:
            if job.memory() > bounds.memory:
                return OutOfMemory(f"it took more than {bounds.memory / 1e9:g} GB of memory")
            seen = now
        if now - measured > DISK_EVERY_S:
            if failure := _too_large(room, bounds.room):
                return failure
            measured = time.monotonic()


def _too_large(room: Path, most: float) -> ProgramFailed | None:
    size = size_of(room)
    return TooMuchOutput(f"it wrote {size / 1e9:.3g} GB, more than {most / 1e9:g} GB") if size > most else None


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; links are not followed."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # gone in the meantime
                status = os.lstat(os.path.join(place, name))  # noqa: PTH118 (a path object for each is slow)
                total += status.st_size
    return total


@dataclass
class _Job:
    """A program and everything that it started."""

    process: subprocess.Popen[bytes]
    mark: str
    stop: tuple[str, ...]
    env: dict[str, str]
    peak: int | None = None
    ended: bool = False
    ending: Lock = field(default_factory=Lock)

    def memory(self) -> int:
        """Resident bytes of all of it; pages that several share count for each."""
        now = sum(one.resident for one in self._members())
        if now:
            self.peak = max(self.peak or 0, now)
        return now

    def end(self) -> None:
        """Asks what is still there to end, and kills what does not. Harmless when repeated."""
        with self.ending:
            if not self.ended:
                self.ended = True
                self._end()

    def _end(self) -> None:
        if self.process.poll() is None and self.stop:
            with suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(self.stop, env=self.env, timeout=30, check=False, capture_output=True)
        if self.process.poll() is None:
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE_S)
        for _ in range(3):  # what is started while others are killed
            if not self._signal(signal.SIGKILL):
                break
        self.process.wait()

    def _signal(self, number: signal.Signals) -> int:
        """Sends it to the group and to everything that carries the mark; how many were there."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)
        pids = {one.pid for one in self._members()} | set(_marked(self.mark))
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        return len(pids)

    def _members(self) -> list[Process]:
        """Those of its session, and descendants that have left it."""
        found = list(processes())
        own = {one.pid for one in found if one.session == self.process.pid or one.pid == self.process.pid}
        grown = True
        while grown:
            more = {one.pid for one in found if one.parent in own} - own
            own |= more
            grown = bool(more)
        return [one for one in found if one.pid in own]


def processes() -> Iterator[Process]:
    """The process table of Linux, zombies left out; empty elsewhere."""
    for place in PROC.glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):  # it ended while it was read
            # The name may hold blanks and brackets; what follows the last bracket is numbers.
            fields = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] != "Z":
                yield Process(int(place.name), int(fields[1]), int(fields[3]), int(fields[21]) * PAGE)


def _marked(mark: str) -> Iterator[int]:
    wanted = f"{MARK}={mark}".encode()
    for place in PROC.glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                yield int(place.name)


class _Log:
    """Writes what a program says to a file, up to a number of bytes, and keeps the last lines."""

    def __init__(self, stream: IO[bytes], path: Path, most: float) -> None:
        self.most = most
        self.full = False
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._stream, self._path = stream, path
        self._rest = b""
        self._thread = Thread(target=self._copy, name="log of a program", daemon=True)
        self._thread.start()

    def _copy(self) -> None:
        written = 0
        with self._path.open("ab") as out:
            while chunk := os.read(self._stream.fileno(), CHUNK):
                kept_bytes = chunk[: max(0, int(self.most) - written)]
                written += len(kept_bytes)
                out.write(kept_bytes)
                out.flush()
                self._remember(kept_bytes)
                # What comes after is read and dropped, so that the program gets on until it is ended.
                self.full = self.full or len(kept_bytes) < len(chunk)

    def _remember(self, chunk: bytes) -> None:
        # A progress bar returns to the line's begin again and again.
        *lines, self._rest = (self._rest + chunk).replace(b"\r", b"\n").split(b"\n")
        self._rest = self._rest[-2000:]
        self.tail.extend(line.decode("utf-8", "replace")[:500] for line in lines if line.strip())

    def close(self) -> None:
        """Waits for the last of it."""
        self._thread.join(GRACE_S)
        if self._thread.is_alive():  # somebody whom we may not kill holds the other end
            return
        self._stream.close()
        if self._rest.strip():
            self.tail.append(self._rest.decode("utf-8", "replace")[:500])
