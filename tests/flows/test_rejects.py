"""Every kind of bad input ends as a row with its reason, and the good clips beside it are still scored."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from talkforge.core.weights import samples_store
from talkforge.datasets.encode import reencode_clip
from talkforge.datasets.video import open_video

ODD_NAMES = ["-dash first", " blank, comma; ünï 名", "<img src=x onerror=alert(1)>", "100%'\"$(touch x)`"]
EXPECTED = {
    "cut": "truncated",
    "text": "not_a_video",
    "playlist": "playlist_refused",
    "cartoon": "no_face",
    "mute": "no_audio",
    "lonely real": "unmatched_real",
    "lonely generated": "unmatched_generated",
}


@pytest.fixture(scope="module")
def run(sample_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("bad input")
    real, generated = folder / "real clips", folder / "generated clips"
    for side in (real, generated):
        side.mkdir()
        for name in ODD_NAMES:
            shutil.copy(sample_clips / "jwp-intro-0.mp4", side / f"{name}.mp4")
    for name in EXPECTED:
        if name != "lonely generated":
            shutil.copy(sample_clips / "jwp-intro-0.mp4", real / f"{name}.mp4")
    shutil.copy(sample_clips / "jwp-intro-0.mp4", generated / "lonely generated.mp4")
    whole = (sample_clips / "jwp-intro-0.mp4").read_bytes()
    (generated / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    (generated / "text.mp4").write_text("this is not a video")
    (generated / "playlist.mp4").write_text(f"#EXTM3U\n#EXTINF:2,\n{sample_clips / 'jwp-intro-1.mp4'}\n")
    shutil.copy(samples_store().path("no-face-video"), generated / "cartoon.mp4")
    _without_sound(sample_clips / "jwp-intro-0.mp4", generated / "mute.mp4")
    command = [sys.executable, "-m", "talkforge.cli", "eval", "--real", str(real), "--generated", str(generated)]
    command += ["--out", str(folder / "out"), "--cache", str(folder / "cache"), "--no-prefect", "--strict"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    return folder / "out", done


def _without_sound(source: Path, target: Path) -> None:
    from talkforge.datasets.encode import VideoWriter

    with open_video(source) as frames, VideoWriter(target, frames.info.width, frames.info.height) as out:
        for _, frame in frames:
            out.write(frame)


def test_exit_code_and_quiet_stderr(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = run
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    noise = [line for line in done.stderr.splitlines() if not line.startswith(("report: ", "extract: "))]
    assert noise == []
    assert out.is_dir()


def test_each_reason_is_counted_and_named(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = run
    sync = json.loads((out / "results.json").read_text())["results"]["av_sync:mouth-envelope"]
    assert sync["rejects"] == dict.fromkeys(sorted(EXPECTED.values()), 1)
    assert (sync["n_attempted"], sync["n_scored"]) == (len(EXPECTED) + len(ODD_NAMES), len(ODD_NAMES))
    rows = pq.read_table(out / "details" / "av_sync.parquet").to_pylist()
    assert {row["clip_id"]: row["reason"] for row in rows if row["reason"]} == EXPECTED
    assert {row["clip_id"] for row in rows if row["value"] is not None} == set(ODD_NAMES)
    assert all(row["message"] for row in rows if row["reason"])


def test_a_clip_without_sound_still_has_a_look(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = run
    fvd = json.loads((out / "results.json").read_text())["results"]["fvd:i3d-k400-16f"]
    assert "no_audio" not in fvd["rejects"]
    assert fvd["n_scored"] == len(ODD_NAMES) + 1


def test_names_stay_text_on_the_page_and_reach_no_shell(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = run
    page = (out / "report.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert not list(out.parent.rglob("x"))


def test_stored_failures_name_no_folder(run: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = run
    for row in pq.read_table(out / "details" / "rejects.parquet").to_pylist():
        assert str(out.parent) not in row["message"]


def test_a_short_clip_says_so(sample_clips: Path, tmp_path: Path) -> None:
    from talkforge.flows.evaluate import EvalConfig, evaluate

    for side in ("real", "generated"):
        (tmp_path / side).mkdir()
        reencode_clip(sample_clips / "test-movie-1.mp4", tmp_path / side / "blink.mp4", end_s=0.4)
    settings = {"real": tmp_path / "real", "generated": tmp_path / "generated", "out": tmp_path / "out", "method": "m"}
    outcome = evaluate(EvalConfig.model_validate(settings | {"cache": tmp_path / "cache", "prefect": False}))
    found = outcome.results["results"]
    reasons = {name: one["reason"] for name, one in found.items() if one["reason"]}
    short = ("fvd:i3d-k400-16f", "av_sync:mouth-envelope", "av_offset:mouth-envelope")
    # Ten frames hold no silence of 300 ms, so no score of five measures either; all else has a look and a movement.
    silent = ("silent_lip_stability:mp-tasks", "theval_score:mp-tasks-5of8")
    assert reasons == dict.fromkeys(short, "too_short") | dict.fromkeys(silent, "undetermined")
    assert all((one["value"] is None) == (name in reasons) for name, one in found.items())
