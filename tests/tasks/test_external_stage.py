"""What another program is given: staged inputs under plain names, few variables, a tree of its own."""

from __future__ import annotations

import json
import sys
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from talkforge.datasets.audio import read_audio
from talkforge.datasets.video import probe
from talkforge.tasks.faces import LANDMARKER
from talkforge.tasks.methods import TestItem, read_portrait
from talkforge.tasks.portrait import cut_of, face_in
from talkforge.tests.media_factory import tone, write_clip
from talkforge.tests.tasks.foreign import (
    RUN,
    SECONDS,
    answer,
    home_of,
    install,
    item_in,
    made,
)
from talkforge.tests.tasks.one_row import need


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return home_of(tmp_path, monkeypatch)


@pytest.fixture
def item(tmp_path: Path) -> TestItem:
    return item_in(tmp_path)


def test_names_are_never_read_by_a_shell(home: Path, item: TestItem, tmp_path: Path) -> None:
    """Names of the user's files stay out of the command: what is staged has plain ones."""
    ugly = tmp_path / 'it\'s a "face"; touch pwned $(touch pwned) `touch pwned` ü 漢.png'
    item.portrait.rename(ugly)
    sound = ugly.with_suffix(".wav")
    item.audio.rename(sound)
    adapter = install(home, "says", steps=[{"run": [*RUN, "--way", "says", "--seed", "$(touch pwned); {seed}"]}])
    answer(home)
    row = made(adapter, TestItem("it's; $(x)", ugly, sound), tmp_path / "out dir", "seed=3")
    assert row["reason"] is None and (tmp_path / "out dir" / "it's; $(x).mp4").is_file()
    told = json.loads((home / "talker" / "told.json").read_text())
    assert told["argv"][-1] == "$(touch pwned); 3"
    staged = [word for word in told["argv"] if word.startswith("/")]
    assert len(staged) == 3 and all(word.isascii() and " " not in word and "'" not in word for word in staged)
    assert not [*tmp_path.rglob("pwned")] and not Path("pwned").exists()


def test_a_program_sees_little_of_our_environment(
    home: Path, item: TestItem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("HF_HOME", "/models")
    adapter = install(home, "says", env={"FFMPEG_PATH": "{checkout}/ffmpeg"})
    answer(home)
    assert made(adapter, item, tmp_path / "out")["reason"] is None
    env = json.loads((home / "talker" / "told.json").read_text())["env"]
    assert env["HF_HOME"] == "/models" and env["FFMPEG_PATH"] == f"{home}/talker/ffmpeg"
    assert not {"AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "TALKFORGE_METHODS"} & set(env)
    assert env["TMPDIR"].startswith(str(tmp_path / "temp")) and env["PATH"].startswith(str(Path(sys.executable).parent))


def test_what_is_staged(home: Path, item: TestItem, tmp_path: Path) -> None:
    """A clip at 25 frames a second with the item's sound, a word for the emotion, numbers, a configuration."""
    clip = write_clip(tmp_path / "happy.mp4", 60, rate=50, audio=tone(1.2, hertz=900))
    changes = {
        "inputs": {
            "portrait": {"file": "work/faces/p.jpg", "size": 32},
            "audio": {"rate": 22050},
            "clip": {"of": "emotion_video", "sound": "item", "size": [48, 32]},
        },
        "emotions": {"happy": "hap", "sad": "sad"},
        "files": {"pose": {"what": "poses", "suffix": ".npy", "default": "poses/{emotion}.npy"}},
        "configs": {"run": {"base": "base.yaml", "set": {"cases": {"{portrait}": ["{audio}"]}, "out": "{result}"}}},
        "work": {"own": ["faces"]},
    }
    more = ["--emotion", "{emotion}", "--clip", "{clip}", "--seed", "{config.run}|{file.pose}|{frames}|{seconds}"]
    adapter = install(home, "says", steps=[{"run": [*RUN, "--way", "says", *more]}], **changes)
    answer(home)
    (home / "talker" / "base.yaml").write_text("steps: 25\nout: elsewhere\n")
    (home / "talker" / "poses").mkdir()
    (home / "talker" / "poses" / "hap.npy").write_bytes(b"pose")
    (home / "talker" / "faces").mkdir()
    (home / "talker" / "faces" / "theirs.jpg").write_bytes(b"")
    one = TestItem("x/a", item.portrait, item.audio, None, "happy", clip)
    row = made(adapter, one, tmp_path / "out", "keep=true")
    room = Path(row["scratch"])
    assert row["reason"] is None and row["log"] == "logs/x/a.log" and (tmp_path / "out/logs/x/a.log").is_file()
    told = json.loads((home / "talker" / "told.json").read_text())
    assert told["emotion"] == "hap" and told["cwd"] == str(room / "work")
    config, pose, frames, seconds = told["argv"][-1].split("|")
    assert (frames, seconds) == ("20", "0.8") and Path(pose).read_bytes() == b"pose"
    wanted = {"steps": 25, "out": str(room / "result"), "cases": {str(room / "work/faces/p.jpg"): [told["argv"][4]]}}
    assert yaml.safe_load(Path(config).read_text()) == wanted
    assert room.name.startswith("kept-"), "no later run clears it away"
    assert [path.name for path in (room / "work" / "faces").iterdir()] == ["p.jpg"], "begins without the checkout's"
    assert (room / "work" / "poses").is_dir() and not (room / "work" / "poses").is_symlink()
    with Image.open(room / "work" / "faces" / "p.jpg") as staged:
        assert staged.size == (48, 32) and staged.format == "JPEG"
    info = probe(told["clip"])
    assert (info.width, info.height, info.fps, round(info.duration_s or 0, 2)) == (48, 32, 25, SECONDS)
    given, heard = read_audio(item.audio), read_audio(told["clip"])
    assert np.corrcoef(given, heard[: len(given)])[0, 1] > 0.99
    with wave.open(told["argv"][4]) as sound:
        assert (sound.getframerate(), sound.getnframes(), sound.getnchannels()) == (22050, round(0.8 * 22050), 1)


@pytest.mark.parametrize(
    ("changes", "item_changes", "message"),
    [
        ({"inputs": {"clip": {}}}, {}, "the method needs an emotion_video or a real clip"),
        ({"emotions": {"happy": "h"}, "env": {"E": "{emotion}"}}, {}, "no emotion is given"),
        ({"emotions": {"happy": "h"}, "env": {"E": "{emotion}"}}, {"emotion": "hapy"}, "unknown emotion 'hapy'"),
        ({"files": {"pose": {"what": "p", "suffix": ".npy", "default": "no/such.npy"}}}, {}, "such.npy is not there"),
    ],
)
def test_items_that_lack_something_start_no_program(
    home: Path, item: TestItem, tmp_path: Path, changes: dict[str, Any], item_changes: dict[str, Any], message: str
) -> None:
    row = made(install(home, "good", **changes), replace(item, **item_changes), tmp_path / "out")
    assert row["reason"] == "input" and message in row["message"]
    assert not (tmp_path / "out" / "logs").exists()


def test_a_step_starts_where_it_says(home: Path, item: TestItem, tmp_path: Path) -> None:
    """`..` leads to the item's own tree and not to the checkout, so that what is written there is the item's."""
    (home / "talker" / "prepare").mkdir(parents=True)
    (home / "talker" / "prepare" / "p.py").write_text("open('../made.txt', 'w').write('x')\n")
    steps = [{"run": ["{python}", "p.py"], "cwd": "prepare"}, {"run": [*RUN, "--way", "copied"]}]
    adapter = install(home, "copied", steps=steps)
    answer(home)
    row = made(adapter, item, tmp_path / "out", "keep=true")
    assert row["reason"] is None and (Path(row["scratch"]) / "work" / "made.txt").read_text() == "x"
    assert not (home / "talker" / "made.txt").exists()
    assert "step 2 of 2" in (tmp_path / "out" / "logs" / "a.log").read_text()


def test_staging_never_writes_through_a_link(home: Path, item: TestItem, tmp_path: Path) -> None:
    """A file of the checkout that has a staged file's name stays as it is."""
    inputs = {"portrait": {"file": "work/face.png"}, "audio": {"file": "work/speech.wav"}}
    adapter = install(home, "copied", inputs=inputs)
    answer(home)
    for name in ("face.png", "speech.wav"):
        (home / "talker" / name).write_bytes(b"theirs")
    assert made(adapter, item, tmp_path / "out")["reason"] is None
    assert {(home / "talker" / name).read_bytes() for name in ("face.png", "speech.wav")} == {b"theirs"}


def test_a_portrait_is_cropped_as_builds_crop(home: Path, item: TestItem, sample_clips: Path, tmp_path: Path) -> None:
    """By the landmarks of its largest face; a picture without any is refused before a program starts."""
    need(LANDMARKER)
    adapter = install(home, "copied", inputs={"portrait": {"crop": "ffhq", "size": 64}})
    answer(home)
    clip = sample_clips / "test-movie-1.mp4"
    row = made(adapter, TestItem("a", clip, item.audio), tmp_path / "out", "keep=true")
    frame = read_portrait(clip)
    wanted = cut_of(frame, face_in(frame, clip.name)[0], "ffhq").picture(frame, 64)
    with Image.open(Path(row["scratch"]) / "inputs" / "portrait.png") as staged:
        assert np.array_equal(np.asarray(staged), wanted)
    assert made(adapter, item, tmp_path / "none")["reason"] == "no_face"
