"""Metrics of movement through the command, on clips of a real man: a perfect method and one that does nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from talkforge.tasks.methods import TestItem, still

CLIPS = ("jwp-intro-0", "jwp-intro-2", "test-movie-3")  # each with a silence
PAIRED = ("lmd:mouth-mp68", "lmd:face-mp68-scaled", "akd:mp68", "aed:arkit52", "apd:arkit52-rotation")
PAIRED = (*PAIRED, "apd:arkit52-translation", "e_fid:arkit52", "blink_rate_gap:eyeblink-hysteresis")
ALONE = ("lip_dynamics:mp-tasks", "eyebrow_dynamics:mp-tasks", "head_motion_dynamics:mp-tasks")
ALONE = (*ALONE, "silent_lip_stability:mp-tasks", "lip_sync:mp-tasks", "head_diversity", "beat_align", "blink_rate")
SCORE = "theval_score:mp-tasks-5of8"


@pytest.fixture(scope="module")
def runs(sample_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """results.json's metrics of both methods; `out` of the second is kept under "folder"."""
    base = tmp_path_factory.mktemp("motion")
    for side in ("real", "still"):
        (base / side).mkdir()
    for name in CLIPS:
        clip = base / "real" / f"{name}.mp4"
        shutil.copy(sample_clips / clip.name, clip)
        still(TestItem(name, clip, clip, clip), base / "still" / clip.name)
    return {method: evaluated(base, method) for method in ("real", "still")} | {"folder": {"out": base / "out-still"}}


def evaluated(base: Path, method: str) -> dict[str, Any]:
    """`talkforge eval` of one folder against the real clips."""
    command = [sys.executable, "-m", "talkforge.cli", "eval", "--real", "real", "--generated", method, "--no-prefect"]
    command += ["--metrics", ",".join((*PAIRED, *ALONE, "theval_score")), "--out", f"out-{method}", "--cache", "cache"]
    done = subprocess.run([*command, "--set", "frechet_bootstrap=50"], cwd=base, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((base / f"out-{method}" / "results.json").read_text())["results"]


def test_a_perfect_method_has_no_distance_and_a_score_of_one(runs: dict[str, dict[str, Any]]) -> None:
    perfect = runs["real"]
    for name in PAIRED:
        assert perfect[name]["value"] == pytest.approx(0, abs=1e-4), name
        assert (perfect[name]["n_scored"], perfect[name]["reason"]) == (3, None)
    assert perfect[SCORE]["value"] == 1 and perfect[SCORE]["ci95"] == [1, 1]
    for name, entry in perfect.items():
        if ":mp-tasks" in name and name != SCORE and not name.startswith("theval_score"):
            assert entry["value"] == entry["real_vs_real"], name


def test_a_still_face_is_far_off_and_does_not_move(runs: dict[str, dict[str, Any]]) -> None:
    frozen = runs["still"]
    for name in PAIRED:
        assert frozen[name]["value"] > 1e-3, name
    for name in ALONE[:4]:
        assert 0 <= frozen[name]["value"] < 0.05 * frozen[name]["real_vs_real"], name
    assert frozen[SCORE]["value"] < 0.4
    assert frozen["theval_score:mp-tasks-5of8-paper-gt"]["value"] < 0.4
    beats = frozen["beat_align:arkit52-onset"]
    assert (beats["value"], beats["reason"], beats["rejects"]) == (None, "undetermined", {"undetermined": 3})
    assert frozen["blink_rate:eyeblink-hysteresis"]["value"] == 0
    assert frozen["blink_rate:eyeblink-hysteresis"]["real_vs_real"] > 10


def test_intervals_and_details_are_written(runs: dict[str, dict[str, Any]]) -> None:
    for name, entry in runs["still"].items():
        if entry["value"] is not None:
            low, high = entry["ci95"]
            assert low <= entry["value"] <= high, name
    details = pq.read_table(runs["folder"]["out"] / "details" / "lmd.parquet").to_pylist()
    assert {row["variant"] for row in details} == {"mouth-mp68", "face-mp68-scaled"}
    assert [row["samples"] for row in details] == [48] * 6, "the frames that were compared"
