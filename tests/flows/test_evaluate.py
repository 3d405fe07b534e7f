"""The evaluation as a whole, with real clips and real networks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from talkforge.core.errors import ConfigError, InputError, OutputBusy
from talkforge.core.lock import owned
from talkforge.core.weights import weights_store
from talkforge.datasets.encode import VideoWriter
from talkforge.flows.benchmark import Benchmark, benchmark
from talkforge.flows.evaluate import EvalConfig, describe_plan, evaluate, missing_weights, plan
from talkforge.tasks.extractor import extractors

FVD, FD, SYNC = "fvd:i3d-k400-16f", "fd:mobilenet-v2", "av_sync:mouth-envelope"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def bounds(sample_clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Benchmark]:
    out = tmp_path_factory.mktemp("bounds") / "eval"
    return out, benchmark(config(sample_clips, out, out, cache), ["copy", "warp", "still"])


def config(real: Path, generated: Path, out: Path, cache: Path, **settings: object) -> EvalConfig:
    values = {"method": "m", "cache": cache, "prefect": False, "workers": 2, "frechet_bootstrap": 50} | settings
    return EvalConfig.model_validate({"real": real, "generated": generated, "out": out, **values})


def value(result: Benchmark, method: str, metric: str) -> float:
    return result.outcomes[method].results["results"][metric]["value"]


def test_look_and_movement_order_the_bounds(bounds: tuple[Path, Benchmark]) -> None:
    """The re-encoded clip is nearer to the clip than a moving mouth, and that nearer than a still picture."""
    _, result = bounds
    for metric in (FVD, FD):
        assert value(result, "copy", metric) < value(result, "warp", metric) < value(result, "still", metric)


def test_the_sync_proxy_knows_a_frozen_mouth(bounds: tuple[Path, Benchmark]) -> None:
    """It does not order copy and warp: warp opens its mouth by the very loudness that the proxy hears."""
    _, result = bounds
    assert value(result, "still", SYNC) < 0.1
    assert value(result, "copy", SYNC) > 0.4
    assert value(result, "warp", SYNC) > 0.4


def test_each_clip_is_decoded_once_and_each_frame_searched_once(bounds: tuple[Path, Benchmark]) -> None:
    counters = bounds[1].outcomes["copy"].results["counters"]
    assert counters["clips"] == counters["decodes"] == 14
    assert counters["face_detections"] == counters["frames_decoded"] == 14 * 48
    forwards = counters["forwards"]
    assert (forwards.pop("i3d-k400"), forwards.pop("mobilenet-v2")) == (14 * 3, 14 * 48)
    assert forwards.pop("vad-silero") == 14 * 60, "windows of 512 samples in 48 frames"
    assert all(0 < count <= 14 * 48 for count in forwards.values()), "any other network sees a frame once at most"


def test_the_real_side_is_shared_between_methods(bounds: tuple[Path, Benchmark]) -> None:
    out, result = bounds
    counters = result.outcomes["warp"].results["counters"]
    wanted = plan(config(out, out, out, out)).extractors
    assert counters["decodes"] == 7
    assert counters["cache_hits"] == 7 * len(wanted) and len(wanted) >= 5


def test_results_keep_the_contract(bounds: tuple[Path, Benchmark]) -> None:
    out, _ = bounds
    results = json.loads((out / "still" / "results.json").read_text())
    assert results["schema_version"] == 1
    assert {"method", "created", "talkforge_version", "environment", "config_digest", "counters"} <= set(results)
    for one in results["results"].values():
        assert {"value", "ci95", "higher_is_better", "unit", "n_attempted", "n_scored", "rejects"} <= set(one)
        assert {"weights", "comparable_with_papers", "protocol", "real_vs_real", "reason"} <= set(one)
        assert all(len(sha) == 64 for sha in one["weights"].values())
    frozen = results["results"].pop("av_offset:mouth-envelope")
    assert (frozen["value"], frozen["reason"], frozen["rejects"]) == (None, "undetermined", {"undetermined": 7})
    for one in results["results"].values():
        assert (one["n_attempted"], one["n_scored"] + sum(one["rejects"].values())) == (7, 7)
        if one["value"] is None:
            assert one["reason"] and one["ci95"] is None
        elif one["n_scored"] > 1:
            assert one["ci95"][0] <= one["value"] <= one["ci95"][1] and one["reason"] is None
    for name in (FVD, FD, SYNC):
        one = results["results"][name]
        assert (one["n_attempted"], one["n_scored"], one["rejects"], one["reason"]) == (7, 7, {}, None)
    assert results["results"][FVD]["protocol"]["fps"] == 25
    rows = pq.read_table(out / "still" / "details" / "fvd.parquet").to_pylist()
    assert [row["variant"] for row in rows] == ["i3d-k400-16f"] * 7
    assert [row["samples"] for row in rows] == [3] * 7


def test_pages_are_written_and_link_to_each_other(bounds: tuple[Path, Benchmark]) -> None:
    out, _ = bounds
    page = (out / "index.html").read_text()
    for method in ("copy", "warp", "still"):
        clips = f"_clips/method-{method}/index.html"
        assert f'href="{clips}"' in page
        assert f'href="../../{method}/report.html"' in (out / clips).read_text()
        assert (out / method / "report.html").stat().st_size > 50_000  # frames are inside
    assert "jwp-intro-0" in (out / "warp" / "report.md").read_text()


def test_a_second_run_does_no_work(bounds: tuple[Path, Benchmark], sample_clips: Path, cache: Path) -> None:
    out, _ = bounds
    before = {path: path.stat().st_mtime_ns for path in (out / "warp").rglob("*")}
    again = benchmark(config(sample_clips, out, out, cache), ["copy", "warp", "still"])
    assert not again.fresh
    assert {path: path.stat().st_mtime_ns for path in (out / "warp").rglob("*")} == before


def test_a_second_report_elsewhere_costs_no_decode(
    bounds: tuple[Path, Benchmark], sample_clips: Path, cache: Path, tmp_path: Path
) -> None:
    out, first = bounds
    videos = out / "_videos" / "warp"
    second = evaluate(config(sample_clips, videos, tmp_path / "again", cache, method="warp"))
    counters = second.results["counters"]
    assert (counters["decodes"], counters["face_detections"], counters["forwards"]) == (0, 0, {})
    assert second.results["results"] == first.outcomes["warp"].results["results"]


@pytest.mark.slow
def test_prefect_and_plain_runs_give_the_same_results(
    bounds: tuple[Path, Benchmark], sample_clips: Path, cache: Path, tmp_path: Path
) -> None:
    """The real command with an embedded server of its own, in another process."""
    out, first = bounds
    command = [sys.executable, "-m", "talkforge.cli", "eval", "--real", str(sample_clips), "--method", "warp"]
    command += ["--generated", str(out / "_videos" / "warp"), "--out", str(tmp_path / "run"), "--cache", str(cache)]
    command += ["--set", "frechet_bootstrap=50", "--workers", "2"]
    done = subprocess.run(command, env=os.environ | {"PREFECT_HOME": str(tmp_path / "prefect")}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["results"] == first.outcomes["warp"].results["results"]
    assert results["config_digest"] == first.outcomes["warp"].results["config_digest"]


def flat_clip(path: Path, level: int, frames: int = 30) -> None:
    with VideoWriter(path, 64, 64) as out:
        for _ in range(frames):
            out.write(np.full((64, 64, 3), level, np.uint8))


def test_black_against_white_through_the_command(tmp_path: Path, cache: Path) -> None:
    """151.3925 is what the original TensorFlow implementation gives for 8 whole clips of 30 frames."""
    for side, level in (("real", 0), ("generated", 255)):
        (tmp_path / side).mkdir()
        for k in range(8):
            flat_clip(tmp_path / side / f"{k}.mp4", level)
    settings = {"metrics": ["fvd:i3d-k400-full"], "crop": "none"}
    outcome = evaluate(config(tmp_path / "real", tmp_path / "generated", tmp_path / "out", cache, **settings))
    assert outcome.results["results"]["fvd:i3d-k400-full"]["value"] == pytest.approx(151.3925, abs=0.5)
    assert outcome.results["counters"]["face_detections"] == 0


def test_missing_weights_are_null_with_the_way_out(
    sample_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path / "empty"))
    run = config(sample_clips, sample_clips, tmp_path / "out", tmp_path / "cache", metrics=["fvd", "fd"])
    outcome = evaluate(run)
    for one in outcome.results["results"].values():
        assert (one["value"], one["reason"], one["n_scored"]) == (None, "weights_missing", 0)
        assert "talkforge weights pull" in one["hint"]
    assert "weights_missing" in describe_plan(run)


def test_weights_that_nobody_can_pull_are_placed_by_hand() -> None:
    """A command that cannot work is no way out."""
    store = weights_store()
    absent = {name for name in store.names() if not store.spec(name).remote and not store.status(name).ok}
    users = [spec for spec in map(extractors.get, extractors.names()) if absent & {*spec.weights}]
    user, by_hand = users[0], next(name for name in users[0].weights if name in absent)
    way = missing_weights([user.id], "none")
    assert way is not None and f"place by hand: {by_hand}" in way and f"pull {by_hand}" not in way


def test_a_dry_run_refuses_the_folder_that_a_run_would(sample_clips: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which is replaced"):
        describe_plan(config(sample_clips, sample_clips, sample_clips, tmp_path / "cache"))


def test_a_manifest_of_other_stems_is_named(sample_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("clip\nfoo.mp4\n")
    run = config(sample_clips, sample_clips, tmp_path / "out", tmp_path / "cache", manifest=tmp_path / "m.csv")
    with pytest.raises(InputError, match=r"m\.csv names no clip .*it names foo\.mp4; there are .*without suffix"):
        describe_plan(run)


def test_a_crop_needs_the_landmarker(sample_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of the network alone do not make a number when the face cannot be found."""
    store = weights_store()
    for name in ("i3d-k400", "mobilenet-v2-imagenet"):
        target = tmp_path / "some" / store.spec(name).file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(store.path(name))
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path / "some"))
    outcome = evaluate(config(sample_clips, sample_clips, tmp_path / "out", tmp_path / "cache", metrics=["fvd"]))
    one = outcome.results["results"][FVD]
    assert (one["value"], one["reason"]) == (None, "weights_missing")
    assert "mediapipe-face-landmarker" in one["hint"]


def test_inputs_are_never_inside_what_is_replaced(sample_clips: Path, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    shutil.copytree(sample_clips, tmp_path / "mine")
    with pytest.raises(InputError, match="inside"):
        evaluate(config(sample_clips, tmp_path / "mine", tmp_path, cache))
    assert len(list((tmp_path / "mine").glob("*.mp4"))) == 7


def test_wrong_input_is_one_clear_error(sample_clips: Path, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="no video in"):
        evaluate(config(sample_clips, tmp_path / "empty", tmp_path / "out", cache))
    with pytest.raises(InputError, match="no evaluation"):
        evaluate(config(sample_clips, sample_clips, tmp_path / "full", cache))
    with pytest.raises(ConfigError, match=r"fvd:i3d-k400-16f"):
        evaluate(config(sample_clips, sample_clips, tmp_path / "out", cache, metrics=["fvd:i3d-k400-16"]))
    with owned(tmp_path / "out"), pytest.raises(OutputBusy, match=str(os.getpid())):
        evaluate(config(sample_clips, sample_clips, tmp_path / "out", cache))
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    assert not (tmp_path / "out").exists()
