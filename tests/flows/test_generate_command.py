"""The commands generate, priors and testset as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from talkforge.cli import cli
from talkforge.core.errors import InputError, WeightsError
from talkforge.core.weights import weights_store
from talkforge.datasets.audio import read_audio, write_wav
from talkforge.datasets.synthetic import SyntheticConfig, SyntheticCorpus
from talkforge.datasets.synthetic_build import STATES, write_synthetic
from talkforge.datasets.video import probe
from talkforge.models.dice_talk.priors import write_priors
from talkforge.tasks.faces import LANDMARKER
from talkforge.tests.dice_runs import write_embedder, write_run

FAST = ("--set", "steps=2", "--set", "guidance.reference=1", "--set", "guidance.conditions=1", "--set", "crop=ffhq")


def talkforge(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "talkforge.cli", *map(str, arguments)]
    variables = os.environ | {"TALKFORGE_CACHE": str(cwd / "cache")}
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300)


def called(*arguments: str | Path) -> Result:
    """In this process, which is quicker."""
    return CliRunner().invoke(cli, [str(one) for one in arguments], standalone_mode=False)


@pytest.fixture
def work(tmp_path: Path, sample_clips: Path) -> Path:
    """A folder with a run, a face and half a second of speech."""
    try:
        for name in (LANDMARKER, "whisper-tiny-en-ct2"):
            weights_store().path(name)
    except WeightsError as error:
        pytest.skip(str(error))
    run = write_run(tmp_path / "run")
    priors = {"happy": np.ones(64, np.float32), "sad": np.zeros(64, np.float32)}
    write_priors(run / "priors.npz", priors, width=64)
    (tmp_path / "face.mp4").symlink_to(sample_clips / "test-movie-1.mp4")
    write_wav(tmp_path / "speech.wav", read_audio(tmp_path / "face.mp4")[4000:12640])
    return tmp_path


def test_one_video(work: Path) -> None:
    given = ("generate", "dice-talk", "--run", "run", "--portrait", "face.mp4", "--audio", "speech.wav", *FAST)
    before = sorted(work.rglob("*"))
    dry = talkforge(*given, "--emotion", "happy", "--out", "a.mp4", "--dry-run", "--json", cwd=work)
    planned = json.loads(dry.stdout)
    row = {"id": "a", "video": "a.mp4", "emotion": "happy", "seconds": 0.52, "state": "to be made"}
    assert planned["items"] == [row] and planned["made_with"]["checkpoint"] == "step-00000003"
    assert sorted(work.rglob("*")) == before, "nothing is written"
    done = talkforge(*given, "--emotion", "happy", "--out", "a.mp4", "--json", cwd=work)
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == "video: a.mp4", done.stderr
    assert json.loads(done.stdout)["frames"] == 13 and probe(work / "a.mp4").width == 256
    wrong = talkforge(*given, "--emotion", "hapy", "--out", "b.mp4", cwd=work)
    assert (wrong.returncode, wrong.stderr) == (2, "talkforge: unknown emotion 'hapy' (did you mean happy?)\n")
    assert not (work / "b.mp4").exists()


def test_a_test_set_with_prefect(work: Path) -> None:
    """Its tasks are threads of the same process, which load what they share one after the other."""
    row = {"portrait": "face.mp4", "audio": "speech.wav"}
    items = [row | {"id": f"x/{name}", "emotion": name} for name in ("happy", "sad", "sat")]
    (work / "set.yaml").write_text(yaml.safe_dump({"name": "three", "items": items}))
    given = ("generate", "dice-talk", "--run", "run", "--testset", "set.yaml", "--out", "videos", *FAST)
    done = talkforge(*given, "--workers", "2", "--strict", cwd=work)
    assert done.returncode == 1 and "2 of 3 videos in videos, 2 made now" in done.stderr, done.stderr
    assert "no video for x/sat: input: unknown emotion 'sat'" in done.stderr
    made = json.loads((work / "videos" / "generation.json").read_text())
    assert [row["id"] for row in made["items"]] == ["x/happy", "x/sad", "x/sat"]
    assert made["items"][0]["frames"] == 13 and made["made_with"]["video_pixels"] == 256


def test_the_plan_for_people(work: Path) -> None:
    arguments = ["generate", "dice-talk", "--run", work / "run", "--portrait", work / "face.mp4", *FAST]
    arguments += ["--audio", work / "speech.wav", "--out", work / "a.mp4"]
    shown = called(*arguments, "--dry-run")
    assert "enlarged: Lanczos, 8 times" in shown.output and "input: a: no emotion is given" in shown.output
    both = called(*arguments, "--emotion", "sad", "--emotion-video", work / "face.mp4")
    assert isinstance(both.exception, click.UsageError) and "not both" in str(both.exception)


@pytest.mark.parametrize("many", ["--real", "--testset"])
@pytest.mark.parametrize(
    ("option", "value"), [("--portrait", "a.png"), ("--audio", "a.wav"), ("--emotion", "sad"), ("--emotion-video", "b")]
)
def test_options_of_one_video_are_refused_for_many(tmp_path: Path, many: str, option: str, value: str) -> None:
    (tmp_path / "set.yaml").touch()
    place = tmp_path if many == "--real" else tmp_path / "set.yaml"
    done = called("generate", "still", many, place, option, value, "--out", tmp_path / "videos")
    assert isinstance(done.exception, click.UsageError), done.output
    assert str(done.exception).startswith(f"{option} is for one video")


def test_a_single_video_is_made_once(sample_clips: Path, tmp_path: Path) -> None:
    face, out = sample_clips / "test-movie-1.mp4", tmp_path / "a.mp4"
    given = ("generate", "still", "--portrait", face, "--out", out)
    first = called(*given)
    assert f"video: {out}" in first.output, first.exception
    made = out.stat().st_mtime_ns
    again = called(*given, "--json")
    assert f"nothing to do: {out} is up to date" in again.output and out.stat().st_mtime_ns == made
    (planned,) = json.loads(called(*given, "--dry-run", "--json").output)["items"]
    assert planned["state"] == "there" and planned["video"] == str(out)
    write_wav(tmp_path / "speech.wav", read_audio(face)[:8000])
    assert f"video: {out}" in called(*given, "--audio", tmp_path / "speech.wav").output, "other inputs, another video"
    assert out.stat().st_mtime_ns != made


def test_a_single_video_leaves_a_file_that_it_did_not_make(sample_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"mine")
    given = ("generate", "still", "--portrait", sample_clips / "test-movie-1.mp4", "--out", tmp_path / "a.mp4")
    done = called(*given)
    assert isinstance(done.exception, InputError) and "was not made by this command" in str(done.exception)
    assert (tmp_path / "a.mp4").read_bytes() == b"mine" and not (tmp_path / "_done").exists()


def test_priors_and_test_sets_of_a_build(tmp_path: Path) -> None:
    corpus = SyntheticCorpus(
        SyntheticConfig(
            identities=2, takes=1, emotions=("neutral", "sad"), min_frames=4, max_frames=5, states=2, width=8
        )
    )
    write_synthetic(tmp_path / "build", corpus, {"train": [0], "test": [1]})
    sizes = {"audio_states": 2, "audio_width": 8, "width": 16, "layers": 1, "feedforward": 16}
    write_embedder(tmp_path / "emb", data=tmp_path / "build", column=STATES, **sizes)
    refused = talkforge("priors", "--run", "emb", cwd=tmp_path)
    assert refused.returncode == 2 and "give --out FILE.npz, then generate --priors" in refused.stderr
    done = talkforge("priors", "--run", "emb", "--out", "p.npz", cwd=tmp_path)
    assert done.stdout.split() == ["prior", "clips", "neutral", "1", "sad", "3"], done.stderr
    assert done.stderr == "priors: p.npz\n" and (tmp_path / "p.npz").is_file()
    videos = tmp_path / "build" / "videos"
    for clip in corpus:
        path = videos / f"{clip['clip_id']}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    given = ("testset", "make", "--data", tmp_path / "build", "--out", tmp_path / "a.yaml", "--protocol")
    assert "3 items" in called(*given, "mead-dice").output and (tmp_path / "a.yaml").is_file()
    assert "did you mean mead-dice" in str(called(*given, "mead-dise").exception)
