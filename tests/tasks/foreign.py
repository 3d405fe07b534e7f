"""A method of somebody else's: a program in a folder of its own, which another interpreter runs, and its adapter.

The program imports nothing of this package and is told how to behave. Some of its ways need PyAV and run with this
interpreter's executable, isolated; the others need the standard library alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from talkforge.datasets.audio import write_wav
from talkforge.flows.generate import generate, method_of
from talkforge.tasks.methods import TestItem
from talkforge.tests.media_factory import numbered, tone, write_clip

SECONDS = 0.8  # of an item
FRAMES = 20

PROGRAM = '''
import argparse, os, shutil, subprocess, sys, time, wave

parser = argparse.ArgumentParser()
for name in ("portrait", "audio", "out", "way", "emotion", "clip", "seed"):
    parser.add_argument("--" + name)
given = parser.parse_args()
with wave.open(given.audio) as sound:
    seconds = sound.getnframes() / sound.getframerate()
print("portrait", given.portrait, "seconds", seconds, "rate", sound.getframerate(), flush=True)
here = os.path.dirname(os.path.realpath(__file__))


def film(path, seconds, fps, sound=False, width=96):
    """Frame k of the film is as bright as k, from 40 on."""
    import av
    import numpy

    with av.open(path, "w") as out:
        video = out.add_stream("libx264", rate=fps)
        video.width, video.height, video.pix_fmt = width, 64, "yuv420p"
        track = out.add_stream("aac", rate=16000, layout="mono") if sound else None
        for k in range(round(seconds * fps)):
            picture = numpy.full((64, width, 3), min(255, 40 + 4 * k), numpy.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode(None))
        if track:
            silence = numpy.zeros((1, round(seconds * 16000)), numpy.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.sample_rate = 16000
            out.mux(track.encode(frame))
            out.mux(track.encode(None))


if given.way == "good":
    film(given.out, seconds, 25)
elif given.way == "sound":
    film(given.out, seconds, 25, sound=True)
elif given.way == "thirty":
    film(given.out, seconds, 30)
elif given.way == "short":
    film(given.out, seconds / 2, 25)
elif given.way == "long":
    film(given.out, seconds * 2, 25)
elif given.way == "two":
    film(given.out, seconds, 25)
    film(given.out[:-4] + "_raw.mp4", seconds, 25)
elif given.way == "copied":  # needs no package: what the "network" gives lies in the checkout
    shutil.copyfile("answer.mp4", given.out)
elif given.way == "slow":
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], "
    child += "start_new_session=True); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", child])
    time.sleep(600)
elif given.way == "leaves":  # goes, and leaves a child behind
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    shutil.copyfile("answer.mp4", given.out)
elif given.way == "crash":
    sys.stderr.write("loading\\nTraceback: KeyError: 'state_dict'\\n")
    sys.exit(7)
elif given.way == "gpu":
    sys.stderr.write("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\\n")
    sys.exit(1)
elif given.way == "killed":
    os.kill(os.getpid(), 9)
elif given.way == "nothing":
    print("face not found")
elif given.way == "elsewhere":
    os.makedirs(os.path.join(here, "results"), exist_ok=True)
    shutil.copyfile("answer.mp4", os.path.join(here, "results", "out.mp4"))
elif given.way == "beside":
    shutil.copyfile("answer.mp4", os.path.join(os.path.dirname(given.out), "..", "tmp", "video.avi"))
elif given.way == "talks":
    while True:
        print("x" * 1000)
elif given.way == "writes":
    with open("large.bin", "wb") as out:
        while True:
            out.write(bytes(1 << 20))
elif given.way == "hog":
    held = []
    while True:
        held.append(bytearray(b"x") * (16 << 20))
        time.sleep(0.01)
elif given.way == "text":
    open(given.out, "w").write("no video at all")
elif given.way == "says":
    import json
    told = {"env": dict(os.environ), "argv": sys.argv, "cwd": os.getcwd(), "clip": given.clip, "emotion": given.emotion}
    open(os.path.join(here, "told.json"), "w").write(json.dumps(told))
    shutil.copyfile("answer.mp4", given.out)
'''

RUN = ["{python}", "talker.py", "--portrait", "{portrait}", "--audio", "{audio}", "--out", "{result}/video.mp4"]


def other_python() -> str:
    """Another interpreter of this machine, with nothing of ours; this one where there is none."""
    base = Path(getattr(sys, "_base_executable", sys.executable))
    for found in ("/usr/bin/python3", str(base)):
        if shutil.which(found) and Path(found).resolve() != Path(sys.executable):
            return found
    return sys.executable


def adapter_of(way: str, **changes: Any) -> dict[str, Any]:
    """The adapter's content; `changes` replace its entries."""
    return {
        "name": "Talker",
        "what": "a program for tests",
        "condition": "audio",
        "paper": {"title": "None", "venue": None, "url": None},
        "repository": "https://example.org/talker",
        "commit": None,
        "read_from": "written here",
        "licence": {"code": "MIT", "weights": None, "source": "written here"},
        "steps": [{"run": [*RUN, "--way", way]}],
        "output": {"glob": "result/*.mp4"},
        "needs": {"gpu": "none", "weights": []},
        "limits": {"seconds": 300, "memory_gb": 4, "scratch_gb": 1, "log_mb": 1},
        "runtime": {"seconds_per_second": None, "source": None},
        **changes,
    }


def install(folder: Path, way: str, name: str = "talker", python: str | None = None, **changes: Any) -> Path:
    """Puts program, settings and adapter into `folder` (what TALKFORGE_METHODS names); the adapter's file."""
    checkout = folder / name
    checkout.mkdir(parents=True, exist_ok=True)
    (checkout / "talker.py").write_text(PROGRAM)
    settings = {name: {"python": python or sys.executable}}
    (folder / "methods.yaml").write_text(yaml.safe_dump(settings))
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(adapter_of(way, **changes)))
    return path


def home_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of methods of a test, which has a place for items at work that is its own, and no GPU."""
    monkeypatch.setenv("TALKFORGE_METHODS", str(folder / "methods"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (folder / "temp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder / "temp"))
    return folder / "methods"


def item_in(folder: Path) -> TestItem:
    """A portrait and 0.8 s of sound."""
    Image.fromarray(numbered(0b101100111000)).save(folder / "face.png")
    write_wav(folder / "speech.wav", tone(SECONDS))
    return TestItem("a", folder / "face.png", folder / "speech.wav")


def made(adapter: Path, item: TestItem, out: Path, *overrides: str) -> dict[str, Any]:
    """Generates one item as the command does; its row of generation.json."""
    method = method_of(str(adapter))
    generate(str(adapter), [item], out, workers=1, use_prefect=False, opened=method.open(overrides))
    (row,) = json.loads((out / "generation.json").read_text())["items"]
    return row


def answer(home: Path) -> None:
    """What the program's "network" gives: a film of the item's length."""
    write_clip(home / "talker" / "answer.mp4", FRAMES)


def left_over(folder: Path) -> list[Path]:
    """What is left of items' folders in the test's place for temporary files."""
    return list((folder / "temp" / f"talkforge-{os.getuid()}" / "items").iterdir())


def running(word: str) -> list[str]:
    """Command lines of this machine's processes that have `word` in their environment or arguments."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            text = (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if word.encode() in text and state != "Z":
            found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def commit(checkout: Path) -> str:
    """Makes the folder a repository with one commit; its name."""
    git = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
