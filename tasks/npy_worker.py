"""A helper process that is spoken to in arrays, for packages that must not run in ours.

Each message is one array, as an .npy file behind its length, on the process's standard input and output. It greets with
one message at its start, then answers each request with one, and ends when its input does. What it writes to standard
error is shown when it fails.
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Lock, Timer
from typing import IO

import numpy as np

from ..core.errors import TalkForgeError, WeightsError

LENGTH = struct.Struct("<Q")
LONGEST = 1 << 30  # bytes of a message
EXIT_WEIGHTS = 3  # status of a process that cannot use a weight file; standard error says which and why
START_S, ANSWER_S = 300.0, 300.0  # far beyond what a slow machine needs: they only end a process that hangs
SHOWN = 2000  # characters of what it said


class WorkerFailed(TalkForgeError):
    """A helper process ended, did not answer in time, or answered nonsense."""

    reason = "worker_failed"


class BadMessage(Exception):
    """What came through the pipe is no message."""


def send(stream: IO[bytes], array: np.ndarray) -> None:
    """Writes one message."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    stream.write(LENGTH.pack(buffer.tell()))
    stream.write(buffer.getbuffer())
    stream.flush()


def receive(stream: IO[bytes]) -> np.ndarray | None:
    """Reads one message; None at the end of the stream.

    Raises:
        BadMessage: it is cut short, longer than `LONGEST`, or holds no array of numbers or text.
    """
    head = stream.read(LENGTH.size)
    if not head:
        return None
    size = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
    if not 0 < size <= LONGEST:
        raise BadMessage(f"a message starts with {head!r}")
    body = stream.read(size)
    if len(body) != size:
        raise BadMessage(f"a message of {size} bytes ends after {len(body)}")
    try:
        return np.load(io.BytesIO(body), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BadMessage(f"a message is no array: {error}") from error


@dataclass(frozen=True)
class _Child:
    """A running process and its three streams."""

    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    answers: IO[bytes]
    complaint: IO[bytes]

    @classmethod
    def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> _Child:
        # Not a pipe, because nobody would empty it; `end` closes it.
        complaint = tempfile.TemporaryFile()  # noqa: SIM115
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=complaint, env={**os.environ, **environment}
        )
        assert process.stdin is not None and process.stdout is not None, "both were asked for"
        return cls(process, process.stdin, process.stdout, complaint)

    def next_message(self) -> np.ndarray:
        """The next message. Raises BadMessage when there is none."""
        message = receive(self.answers)
        if message is None:
            raise BadMessage("it ended")
        return message

    def end(self) -> tuple[int, str]:
        """Ends the process; its exit status, and the last of what it said."""
        for stream in (self.requests, self.answers):
            with suppress(OSError):  # what was still to be written has no reader
                stream.close()
        try:
            # With its input at an end it goes by itself, with a status that tells something.
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        with self.complaint:
            self.complaint.seek(0)
            return status, self.complaint.read().decode("utf-8", "replace").strip()[-SHOWN:]


class Worker:
    """One helper process: started at the first question, asked by one thread at a time, new after each failure.

    Args:
        name: for messages.
        command: what to run.
        environment: variables that it gets beside ours.
        start_s, answer_s: seconds after which it is given up and killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        start_s: float = START_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        self.name = name
        self._command, self._environment = list(command), dict(environment)
        self._start_s, self._answer_s = start_s, answer_s
        self._asking = Lock()
        self._running: tuple[_Child, np.ndarray] | None = None  # and its greeting
        self._owner = os.getpid()

    def ask(self, request: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Sends the arrays of a request; returns the greeting of the process that answered, and its answer.

        Raises:
            WeightsError: the process cannot use a weight file.
            WorkerFailed: see there.
        """
        with self._asking:
            if self._running is None:
                self._running = self._start()
            child, greeting = self._running
            with self._watched(child, self._answer_s):
                for array in request:
                    send(child.requests, array)
                return greeting, child.next_message()

    def close(self) -> None:
        """Kills the process, if there is one and it is a child of this one (a fork of ours is not its parent)."""
        running = self._running
        if running is not None and os.getpid() == self._owner:
            self._running = None
            running[0].process.kill()
            running[0].process.wait()

    def _start(self) -> tuple[_Child, np.ndarray]:
        try:
            child = _Child.start(self._command, self._environment)
        except OSError as error:
            raise WorkerFailed(f"{self.name} cannot be started: {error}") from error
        with self._watched(child, self._start_s):
            return child, child.next_message()

    @contextmanager
    def _watched(self, child: _Child, seconds: float) -> Iterator[None]:
        """Kills the process when the block takes longer. After a failure of any kind there is no process.

        A dead process ends reads and writes that wait for it, which nothing else does on every system.
        """
        late = Event()

        def give_up() -> None:
            late.set()
            child.process.kill()

        clock = Timer(seconds, give_up)
        clock.daemon = True
        clock.start()
        try:
            yield
        except (OSError, BadMessage) as error:
            what = f"no answer within {seconds:g} s" if late.is_set() else str(error)
            raise self._failure(child, what) from error
        except BaseException:  # an exchange that was broken off leaves the two out of step
            self._drop(child)
            raise
        finally:
            clock.cancel()

    def _drop(self, child: _Child) -> tuple[int, str]:
        self._running = None
        return child.end()

    def _failure(self, child: _Child, what: str) -> TalkForgeError:
        status, said = self._drop(child)
        if status == EXIT_WEIGHTS:
            return WeightsError(said)
        hint = f"it said: {said}" if said else None
        return WorkerFailed(f"{self.name}: {what} (exit status {status})", hint=hint)
