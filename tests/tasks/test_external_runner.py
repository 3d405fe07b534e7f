"""Items made by a program of another interpreter: what becomes of its video, and of everything that it does wrong."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from talkforge.core.children import end_all
from talkforge.core.errors import ConfigError, InputError, TalkForgeError
from talkforge.datasets.audio import read_audio
from talkforge.datasets.video import open_video, probe
from talkforge.flows.generate import generate, is_current, method_of
from talkforge.tasks import external_run
from talkforge.tasks.external import leased
from talkforge.tasks.external_errors import MethodNotReady, TimedOut
from talkforge.tasks.methods import TestItem
from talkforge.tests.media_factory import write_clip
from talkforge.tests.tasks.foreign import (
    FRAMES,
    PROGRAM,
    RUN,
    SECONDS,
    adapter_of,
    answer,
    home_of,
    install,
    item_in,
    left_over,
    made,
    other_python,
    running,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return home_of(tmp_path, monkeypatch)


@pytest.fixture
def item(tmp_path: Path) -> TestItem:
    return item_in(tmp_path)


def brightness(path: Path) -> list[float]:
    with open_video(path) as stream:
        return [float(frame.mean()) for _, frame in stream]


def test_a_video_of_another_program(home: Path, item: TestItem, tmp_path: Path) -> None:
    row = made(install(home, "good"), item, tmp_path / "out")
    assert row["reason"] is None and row["frames"] == FRAMES
    assert row["original"] == {
        "fps": 25.0, "width": 96, "height": 64, "frames": FRAMES, "seconds": SECONDS, "sound": False
    }  # fmt: skip
    assert row["took_s"] > 0 and row["took_s_per_second"] == pytest.approx(row["took_s"] / SECONDS, abs=2e-3)
    video = tmp_path / "out" / "a.mp4"
    assert (probe(video).fps, probe(video).codec) == (25, "h264")
    # Frame k is as bright as 40 + 4 k: none is lost, doubled or out of order.
    assert np.allclose(brightness(video), 40 + 4 * np.arange(FRAMES), atol=3)
    given, heard = read_audio(item.audio), read_audio(video)
    assert np.corrcoef(given, heard[: len(given)])[0, 1] > 0.99, "the item's sound, though the program wrote none"
    log = (tmp_path / "out" / row["log"]).read_text()
    assert row["log"] == "logs/a.log" and f"seconds {SECONDS} rate 16000" in log and "step 1 of 1" in log
    assert left_over(tmp_path) == [], "nothing is left of the item's folder"
    assert sorted(path.name for path in (home / "talker").iterdir()) == ["talker.py"], "nor written into the checkout"


def test_thirty_frames_a_second_become_twenty_five(home: Path, item: TestItem, tmp_path: Path) -> None:
    """Slot k shows the last frame whose time rounds to it: at 30 frames a second, frame floor(1.2 k + 0.6)."""
    row = made(install(home, "thirty", output={"glob": "result/*.mp4", "fps": 25}), item, tmp_path / "out")
    assert row["frames"] == FRAMES and row["original"]["fps"] == 30 and row["original"]["frames"] == 24
    assert row["note"] == "25 frames a second were declared"
    shown = 40 + 4 * np.floor(1.2 * np.arange(FRAMES) + 0.6 - 1e-9)
    assert np.allclose(brightness(tmp_path / "out" / "a.mp4"), shown, atol=3)


def test_another_interpreter_without_our_packages(home: Path, item: TestItem, tmp_path: Path) -> None:
    adapter = install(home, "copied", python=other_python())
    answer(home)
    row = made(adapter, item, tmp_path / "out")
    head = json.loads((tmp_path / "out" / "generation.json").read_text())
    assert row["frames"] == FRAMES and head["made_with"]["command"] == [other_python()]
    assert head["made_with"]["version"].startswith("sources ") and head["made_with"]["licence"] == "MIT"


@pytest.mark.parametrize(
    ("way", "reason", "said"),
    [
        ("crash", "crashed", "exit status 7; it said last: .*loading | Traceback: KeyError: 'state_dict'"),
        ("killed", "crashed", "ended by SIGKILL, as the system does when memory runs out"),
        ("gpu", "out_of_memory", "the GPU's memory was not enough.*Tried to allocate 2 GiB"),
        ("nothing", "no_output", r"no video appeared as result/\*\.mp4, nor any other.*it said last: .*face not found"),
        ("elsewhere", "no_output", r"it wrote \{checkout\}/results/out\.mp4: set output\.glob"),
        ("beside", "no_output", r"it wrote tmp/video\.avi"),
        ("short", "wrong_length", r"is 0\.40 s long, and the item 0\.80 s \(allowed: 0\.2 s less, 0\.2 s more\)"),
        ("long", "wrong_length", r"is 1\.60 s long, and the item 0\.80 s"),
        ("two", "ambiguous_output", r"2 videos appeared as result/\*\.mp4: result/video\.mp4, result/video_raw\.mp4"),
        ("text", "bad_video", "video.mp4: not_a_video"),
        ("talks", "too_much_output", r"it said more than 1 MB"),
    ],
)
def test_what_a_program_does_wrong(
    home: Path, item: TestItem, tmp_path: Path, way: str, reason: str, said: str
) -> None:
    adapter = install(home, way)
    answer(home)
    row = made(adapter, item, tmp_path / "out")
    assert row["reason"] == reason
    assert re.search(said, row["message"]), row["message"]
    assert row["message"].endswith("(log: logs/a.log)") and (tmp_path / "out/logs/a.log").stat().st_size <= 1.1e6
    assert row["version"].startswith("sources ") and not (tmp_path / "out" / "a.mp4").exists()
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("way", "limits", "reason"),
    [
        ("slow", {"seconds": 1}, "timeout"),
        ("hog", {"memory_gb": 0.2}, "out_of_memory"),
        ("writes", {"scratch_gb": 0.05}, "too_much_output"),
    ],
)
def test_limits_end_the_program_and_all_that_it_started(
    home: Path, item: TestItem, tmp_path: Path, way: str, limits: dict[str, float], reason: str
) -> None:
    """A grandchild in a session of its own would outlive its parents: it carries the mark of the run."""
    adapter = install(home, way, limits={"seconds": 300, "memory_gb": 4, "scratch_gb": 1, "log_mb": 1, **limits})
    row = made(adapter, item, tmp_path / "out")
    assert row["reason"] == reason, row["message"]
    assert running(str(tmp_path / "temp")) == []


def test_the_time_limit_is_of_all_steps_together(
    home: Path, item: TestItem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: list[float] = []

    def watched(*given: Any, **named: Any) -> external_run.Ran:
        spent.append(named["spent"])
        return external_run.run_program(*given, **named)

    monkeypatch.setattr("talkforge.tasks.external.run_program", watched)
    nap = {"run": ["{python}", "-c", "import time; time.sleep(0.2)"]}
    adapter = install(home, "good", steps=[nap, nap, {"run": [*RUN, "--way", "copied"]}])
    answer(home)
    row = made(adapter, item, tmp_path / "out")
    assert spent[0] == 0 and 0.2 < spent[1] < spent[2] - 0.2 and row["took_s"] > spent[2]
    bounds = external_run.Bounds(seconds=1000, memory=1e9, room=1e9, log=1e6)
    places = {"cwd": tmp_path, "env": {}, "log": tmp_path / "log", "room": tmp_path / "temp"}
    with pytest.raises(TimedOut, match="after 1000 s"):
        external_run.run_program(["/bin/sleep", "600"], bounds=bounds, spent=999.9, **places)


def test_what_a_program_leaves_behind_is_ended(home: Path, item: TestItem, tmp_path: Path) -> None:
    adapter = install(home, "leaves")
    answer(home)
    assert made(adapter, item, tmp_path / "out")["reason"] is None
    assert running(str(tmp_path / "temp")) == []


def test_an_interruption_ends_the_programs(home: Path, item: TestItem, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    adapter = install(home, "slow")
    work = Thread(target=lambda: rows.append(made(adapter, item, tmp_path / "out")))
    work.start()
    while not running(str(tmp_path / "temp")):
        work.join(0.05)
    end_all()
    work.join(30)
    assert rows[0]["reason"] == "crashed" and "SIGTERM" in rows[0]["message"]
    assert running(str(tmp_path / "temp")) == []


def test_a_finished_item_is_not_made_again_and_a_changed_adapter_makes_it(
    home: Path, item: TestItem, tmp_path: Path
) -> None:
    adapter, out = install(home, "good"), tmp_path / "out"
    made(adapter, item, out)
    first = (out / "a.mp4").stat().st_mtime_ns
    again = generate(str(adapter), [item], out, workers=1, use_prefect=False)
    assert not again[0].fresh and (out / "a.mp4").stat().st_mtime_ns == first
    assert is_current(method_of(str(adapter)), out, item)
    install(home, "good", notes=["said otherwise"], limits={"seconds": 7}, what="another line")
    assert is_current(method_of(str(adapter)), out, item), "remarks and limits change no video"
    install(home, "good", steps=[{"run": [*RUN, "--way", "good", "--emotion", "sad"]}])
    assert not is_current(method_of(str(adapter)), out, item)
    install(home, "good")
    (home / "talker" / "talker.py").write_text(PROGRAM + "# another version\n")
    assert not is_current(method_of(str(adapter)), out, item)
    install(home, "good")
    assert not is_current(method_of(str(adapter)), out, item, method_of(str(adapter)).open(["seed=1"]))
    assert is_current(method_of(str(adapter)), out, item, method_of(str(adapter)).open(["seconds=9"]))


def test_a_failure_leaves_no_video_of_another_version(home: Path, item: TestItem, tmp_path: Path) -> None:
    """It would be scored as this version's. An input that is missing is only reported: its disk may come back."""
    out = tmp_path / "out"
    made(install(home, "good"), item, out)
    item.portrait.rename(tmp_path / "away.png")
    assert made(install(home, "good"), item, out)["reason"] == "input" and (out / "a.mp4").is_file()
    (tmp_path / "away.png").rename(item.portrait)
    assert made(install(home, "crash"), item, out)["reason"] == "crashed"
    assert not (out / "a.mp4").exists() and not (out / "_done" / "a.json").exists()
    assert made(install(home, "good"), item, out)["reason"] is None and (out / "a.mp4").is_file()


def test_a_video_from_before_is_not_taken(home: Path, item: TestItem, tmp_path: Path) -> None:
    """Neither one that lies in the checkout, nor one that another item's program writes there meanwhile."""
    adapter = install(home, "nothing", output={"glob": "work/results/*.mp4"}, work={"link": ["results"]})
    (home / "talker" / "results").mkdir()
    write_clip(home / "talker" / "results" / "old.mp4", FRAMES)
    assert made(adapter, item, tmp_path / "out")["reason"] == "no_output"
    adapter = install(home, "elsewhere", output={"glob": "work/results/*.mp4"}, work={"link": ["results"]})
    answer(home)
    row = made(adapter, item, tmp_path / "out")
    assert row["reason"] == "no_output" and "{checkout}/results/out.mp4" in row["message"]
    inside = install(home, "elsewhere", output={"glob": "results/out.mp4", "root": "checkout"})
    assert made(inside, item, tmp_path / "out")["reason"] is None
    first = (home / "talker" / "results" / "out.mp4").stat()
    still = install(home, "nothing", output={"glob": "results/*.mp4", "root": "checkout"})
    assert made(still, item, tmp_path / "out2")["reason"] == "no_output"
    assert (home / "talker" / "results" / "out.mp4").stat() == first


def test_the_newest_of_several_where_the_adapter_says_so(home: Path, item: TestItem, tmp_path: Path) -> None:
    row = made(install(home, "two", output={"glob": "result/*.mp4", "choose": "newest"}), item, tmp_path / "out")
    assert row["reason"] is None


def test_sound_is_asked_for_where_the_adapter_says_so(home: Path, item: TestItem, tmp_path: Path) -> None:
    wanted = {"glob": "result/*.mp4", "sound": "required"}
    assert made(install(home, "good", output=wanted), item, tmp_path / "out")["reason"] == "no_sound"
    row = made(install(home, "sound", output=wanted), item, tmp_path / "out")
    assert row["reason"] is None and row["original"]["sound"] is True
    assert np.abs(read_audio(tmp_path / "out" / "a.mp4")).max() > 0.3, "the item's sound, not the program's silence"


def test_tolerances_are_settings(home: Path, item: TestItem, tmp_path: Path) -> None:
    """A video that is too short stays so; one that is too long is cut."""
    short = made(install(home, "short"), item, tmp_path / "short", "shorter_s=0.5")
    assert short["frames"] == 10 and len(brightness(tmp_path / "short" / "a.mp4")) == 10
    long = made(install(home, "long"), item, tmp_path / "long", "longer_s=1")
    assert long["frames"] == FRAMES and long["original"]["frames"] == 2 * FRAMES


def test_part_of_the_picture(home: Path, item: TestItem, tmp_path: Path) -> None:
    adapter = install(home, "copied", output={"glob": "result/*.mp4", "crop": [32, 0, 32, 64]})
    write_clip(home / "talker" / "answer.mp4", [np.repeat(np.repeat(np.array([[[20]*3, [120]*3, [220]*3]], np.uint8), 32, 1), 64, 0)] * FRAMES)  # fmt: skip  # noqa: E501
    made(adapter, item, tmp_path / "out")
    info = probe(tmp_path / "out" / "a.mp4")
    assert (info.width, info.height) == (32, 64)
    assert np.allclose(brightness(tmp_path / "out" / "a.mp4"), 120, atol=6)
    larger = install(home, "copied", output={"glob": "result/*.mp4", "crop": [32, 0, 96, 64]})
    assert made(larger, item, tmp_path / "out")["reason"] == "bad_video"


def test_options_and_readiness(home: Path, item: TestItem, tmp_path: Path) -> None:
    adapter = install(home, "good")
    method = method_of(str(adapter))
    with pytest.raises(ConfigError, match=r"method talker takes no --run"):
        method.open(run=tmp_path)
    with pytest.raises(ConfigError, match=r"unknown key 'secnds' \(did you mean seconds"):
        method.open(["secnds=3"])
    (home / "methods.yaml").write_text("talker: {pyton: x}\n")
    with pytest.raises(ConfigError, match=r"did you mean python"):
        method.open()
    (home / "methods.yaml").unlink()
    with pytest.raises(MethodNotReady, match="interpreter: none is named"):
        method.open()
    with pytest.raises(ConfigError, match="there is no adapter file"):
        method_of(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="would be called as the built-in method still"):
        method_of(str(adapter.rename(home / "still.yaml")))
    install(home, "good", python=str(tmp_path / "no" / "python"))
    with pytest.raises(MethodNotReady, match="there is no program"):
        method.open()


def test_a_maker_can_be_sent_to_another_machine(home: Path, item: TestItem, tmp_path: Path) -> None:
    opened = pickle.loads(pickle.dumps(method_of(str(install(home, "good"))).open()))
    assert opened.make(item, tmp_path / "a.mp4")["frames"] == FRAMES


def test_items_take_turns_on_a_gpu(home: Path, item: TestItem, tmp_path: Path) -> None:
    """Two GPUs, three items at once: each sees one of them, and no two the same one, for then the folder is there."""
    steps = [{"run": ["{python}", "turns.py", "{result}", "{gpu}"]}]
    adapter = install(home, "copied", steps=steps, needs={"gpu": "needed", "weights": []})
    answer(home)
    (home / "methods.yaml").write_text(f"talker: {{python: {sys.executable}, gpus: [0, 5]}}\n")
    busy = tmp_path / "busy"
    busy.mkdir()
    (home / "talker" / "turns.py").write_text(
        "import os, shutil, sys, time\n"
        f"mine = os.path.join({str(busy)!r}, os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "assert mine.endswith('/' + sys.argv[2])\n"
        "os.mkdir(mine)\ntime.sleep(0.3)\nos.rmdir(mine)\n"
        "shutil.copyfile('answer.mp4', sys.argv[1] + '/video.mp4')\n"
    )
    items = [TestItem(name, item.portrait, item.audio) for name in "abc"]
    generate(str(adapter), items, tmp_path / "out", workers=3, use_prefect=False)
    rows = json.loads((tmp_path / "out" / "generation.json").read_text())["items"]
    assert [row["reason"] for row in rows] == [None] * 3 and {row["gpu"] for row in rows} <= {"0", "5"}
    with leased("gpu", ["0"]):
        assert made(adapter, item, tmp_path / "other")["gpu"] == "5", "another process has the first one"


def test_the_process_table_knows_this_process() -> None:
    own = {one.pid: one for one in external_run.processes()}.get(os.getpid())
    assert own is not None and own.parent == os.getppid() and own.session == os.getsid(0)
    assert own.resident > 10_000_000


def test_the_helper_is_an_adapter() -> None:
    from talkforge.core.config import validate
    from talkforge.tasks.adapters import Adapter

    assert validate(Adapter, adapter_of("good"), where="here").name == "Talker"
    assert issubclass(MethodNotReady, TalkForgeError) and issubclass(InputError, TalkForgeError)
