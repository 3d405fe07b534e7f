"""A helper process that answers, and all the ways in which one can fail to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from talkforge.core.errors import WeightsError
from talkforge.tasks.npy_worker import BadMessage, Worker, WorkerFailed, receive, send

START = """
import os, sys, time
import numpy as np
from talkforge.tasks.npy_worker import LENGTH, receive, send
requests, answers = sys.stdin.buffer, sys.stdout.buffer
send(answers, np.array(["hello", str(os.getpid())]))
"""
DOUBLE = """
while (array := receive(requests)) is not None:
    send(answers, 2 * array)
"""


def worker(script: str, *, start_s: float = 60, answer_s: float = 60, **environment: str) -> Worker:
    return Worker("helper", [sys.executable, "-c", script], environment, start_s=start_s, answer_s=answer_s)


def ask(one: Worker, value: float = 1) -> tuple[int, float]:
    """The number of the process, and its answer."""
    greeting, answer = one.ask([np.array([value])])
    assert greeting[0] == "hello"
    return int(greeting[1]), float(answer[0])


def test_arrays_come_through_as_they_are(tmp_path: Path) -> None:
    arrays = [np.arange(12, dtype=np.uint8).reshape(3, 4), np.array([np.nan, 1], np.float32), np.array(["a", "bcd"])]
    path = tmp_path / "messages"
    with path.open("wb") as stream:
        for array in arrays:
            send(stream, array)
    with path.open("rb") as stream:
        found = [receive(stream) for _ in range(4)]
    for array, back in zip(arrays, found, strict=False):
        assert back is not None
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)
    assert found[3] is None


def test_one_process_serves_all_threads() -> None:
    one = worker(START + DOUBLE)
    try:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda value: ask(one, value), range(40)))
    finally:
        one.close()
    assert [answer for _, answer in answers] == [2 * value for value in range(40)]
    assert len({process for process, _ in answers}) == 1


@pytest.fixture
def ours() -> Callable[[], list[psutil.Process]]:
    """The processes that were started since the test began; other tests may have left theirs."""
    before = set(psutil.Process().children())
    return lambda: [process for process in psutil.Process().children() if process not in before]


def test_it_is_started_late_and_has_its_own_environment(ours: Callable[[], list[psutil.Process]]) -> None:
    one = worker(START + "receive(requests); send(answers, np.array([float(os.environ['THREADS'])]))", THREADS="7")
    assert ours() == []
    process, answer = ask(one)
    assert answer == 7
    assert "THREADS" not in os.environ
    one.close()
    assert not psutil.pid_exists(process)


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("receive(requests); raise ValueError('the picture is too blue')", "the picture is too blue"),
        ("receive(requests); os.kill(os.getpid(), 9)", "exit status -9"),
        ("receive(requests)", "it ended"),
        ("print('what a day'); sys.stdout.flush(); receive(requests)", "what a d"),
        ("answers.write(LENGTH.pack(1 << 40)); answers.flush(); requests.read()", "a message starts with"),
        ("answers.write(LENGTH.pack(100) + b'x' * 50); answers.flush()", "ends after 50"),
        ("answers.write(LENGTH.pack(4) + b'junk'); answers.flush(); requests.read()", "is no array"),
    ],
)
def test_what_goes_wrong_is_told_and_the_next_question_gets_a_new_process(
    end: str, told: str, tmp_path: Path, ours: Callable[[], list[psutil.Process]]
) -> None:
    once = tmp_path / "once"
    script = START + f"if not os.path.exists({str(once)!r}):\n    open({str(once)!r}, 'w').close()\n    {end}\n"
    one = worker(script + "else:\n" + "".join(f"    {line}\n" for line in DOUBLE.strip().splitlines()))
    with pytest.raises(WorkerFailed) as failure:
        ask(one)
    assert told in str(failure.value)
    assert failure.value.reason == "worker_failed"
    assert ours() == []
    assert ask(one, 21)[1] == 42
    one.close()


@pytest.mark.parametrize(
    ("script", "limits"),
    [
        (START + "receive(requests); time.sleep(600)", {"answer_s": 0.5}),
        (START + "time.sleep(600)", {"answer_s": 0.5}),  # it does not even take the question
        ("import time; time.sleep(600)", {"start_s": 0.5}),
    ],
)
def test_one_that_hangs_is_killed(
    script: str, limits: dict[str, float], ours: Callable[[], list[psutil.Process]]
) -> None:
    one = worker(script, **limits)
    with pytest.raises(WorkerFailed, match=r"no answer within 0\.5 s"):
        one.ask([np.zeros(1 << 20)])
    assert ours() == []


def test_status_three_is_a_weight_file_that_cannot_be_used() -> None:
    with pytest.raises(WeightsError, match=r"^model\.bin is a cake recipe$"):
        ask(worker("import sys; print('model.bin is a cake recipe', file=sys.stderr); sys.exit(3)"))


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(WorkerFailed, match="cannot be started"):
        Worker("helper", [str(tmp_path / "nothing")], {}).ask([])


def test_pickles_are_never_read(tmp_path: Path) -> None:
    touched, path = tmp_path / "touched", tmp_path / "message"

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(touched),)

    content = tmp_path / "trap.npy"
    np.save(content, np.array([Trap()], dtype=object), allow_pickle=True)
    path.write_bytes(content.stat().st_size.to_bytes(8, "little") + content.read_bytes())
    with path.open("rb") as stream, pytest.raises(BadMessage):
        receive(stream)
    assert not touched.exists()


@pytest.mark.parametrize("death", ["normal", "killed"])
def test_it_ends_with_the_process_that_started_it(death: str) -> None:
    script = f"""
import atexit, os, sys
import numpy as np
from talkforge.tasks.npy_worker import Worker
one = Worker("helper", [sys.executable, "-c", {START + DOUBLE!r}], {{}})
atexit.register(one.close)
greeting, _ = one.ask([np.zeros(1)])
print(greeting[1], flush=True)
sys.stdin.read()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        helper = psutil.Process(int(parent.stdout.readline()))
        assert helper.is_running()
        if death == "killed":
            parent.send_signal(signal.SIGKILL)
        parent.stdin.close()
    with suppress(psutil.NoSuchProcess):
        helper.wait(timeout=30)  # raises TimeoutExpired where it lives on
