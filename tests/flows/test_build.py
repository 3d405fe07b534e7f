"""Dataset builds as a whole, with real clips and real networks in trees under the datasets' public names."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from talkforge.core.errors import InputError, OutputBusy, WeightsError
from talkforge.core.lock import owned
from talkforge.core.weights import CONFIGS, weights_store
from talkforge.datasets.audio import read_audio
from talkforge.datasets.video import open_video
from talkforge.flows.build_dataset import BuildConfig, BuildOutcome, build, describe_build
from talkforge.flows.status import build_status
from talkforge.tasks.extractor import extractors
from talkforge.tests.media_factory import tone, write_clip

LENGTH = 48  # frames of a sample clip
LIGHT = ["arkit52", "speech-envelope"]
PLACES = {
    "M003/video/front/happy/level_1/001.mp4": "jwp-intro-0",
    "M003/video/front/sad/level_2/004.mp4": "jwp-intro-1",
    "W009/video/front/angry/level_3/002.mp4": "test-movie-0",
    "W009/video/left_30/neutral/level_1/001.mp4": "test-movie-1",
    "W015/video/front/fear/level_1/001.mp4": "test-movie-2",
}
NO_FACE = "mead/W015/front/happy/level_1/002"
GOOD = 5
READ = GOOD + 2  # with the faceless one and the one cut off


@pytest.fixture(scope="module", autouse=True)
def weights() -> None:
    try:
        for weight in {weight for name in LIGHT for weight in extractors.get(name).weights}:
            weights_store().path(weight)
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def tree(sample_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five good clips of three actors; a clip without a face, one cut off, one that is text, one of no emotion."""
    root = tmp_path_factory.mktemp("trees") / "MEAD tree"  # with a space
    for place, name in PLACES.items():
        _lay(root / place, sample_clips / f"{name}.mp4")
    faceless = _lay(root / "W015/video/front/happy/level_1/002.mp4", None)
    write_clip(faceless, 10, audio=tone(0.4))
    whole = (sample_clips / "jwp-intro-2.mp4").read_bytes()
    _lay(root / "M003/video/front/happy/level_1/002.mp4", None).write_bytes(whole[: len(whole) // 2])
    _lay(root / "M003/video/front/happy/level_1/003.mp4", None).write_text("no video")
    _lay(root / "M003/video/front/puzzled/level_1/001.mp4", sample_clips / "jwp-intro-2.mp4")
    return root


def _lay(path: Path, source: Path | None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if source is not None:
        shutil.copyfile(source, path)
    return path


def settings(root: Path, out: Path, cache: Path, **values: Any) -> BuildConfig:
    given = {"dataset": "mead", "extractors": LIGHT, "size": 128, "shard_clips": 2, "workers": 1, "prefect": False}
    return BuildConfig.model_validate({"root": root, "out": out, "cache": cache, **given, **values})


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildOutcome:
    """The tree built by one worker without Prefect. Read only."""
    folder = tmp_path_factory.mktemp("built")
    return build(settings(tree, folder / "out", folder / "cache"))


def cache_of(outcome: BuildOutcome) -> Path:
    return outcome.out.parent / "cache"


def content(out: Path) -> dict[str, bytes]:
    """What must be the same however it was made."""
    kept = ("data/*/*.parquet", "rejects/*.parquet", "videos/**/*.mp4", "meta/stats.json", "meta/splits.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for kind in kept for path in sorted(out.glob(kind))}


def rows_of(out: Path) -> list[dict[str, Any]]:
    return ds.dataset(out / "data", format="parquet").to_table().to_pylist()


def test_every_clip_is_a_row_or_a_reject(built: BuildOutcome, tree: Path) -> None:
    rejects = {row["clip_id"]: row for row in pq.read_table(built.out / "rejects").to_pylist()}
    clip_ids = [row["clip_id"] for row in rows_of(built.out)]
    assert len(clip_ids) + len(rejects) == len(list(tree.rglob("*.mp4"))) == built.info["counts"]["clips"] == 9
    assert len(clip_ids) == len(set(clip_ids)) == GOOD
    assert {key: (row["stage"], row["reason"]) for key, row in rejects.items()} == {
        NO_FACE: ("track", "no_face"),
        "mead/M003/front/happy/level_1/002": ("decode", "truncated"),
        "mead/M003/front/happy/level_1/003": ("read", "not_a_video"),
        "mead/M003/video/front/puzzled/level_1/001.mp4": ("read", "unknown_emotion"),
    }


def test_one_decode_a_clip_and_one_detection_a_frame(built: BuildOutcome) -> None:
    work = built.counters
    assert work.clips == work.decodes == READ
    # Where a file breaks off, its last frame was decoded and is not known to be shown.
    assert work.frames_decoded - work.face_detections == 1
    assert GOOD * LENGTH + 10 < work.face_detections < (GOOD + 1) * LENGTH + 10


def test_a_row_has_labels_and_series_of_one_length(built: BuildOutcome) -> None:
    row = next(row for row in rows_of(built.out) if row["clip_id"] == "mead/M003/front/sad/level_2/004")
    labels = {"dataset": "mead", "identity": "M003", "emotion": "sad", "intensity": 2, "view": "front"}
    assert labels.items() <= row.items()
    assert row["source"] == "M003/video/front/sad/level_2/004.mp4"
    assert (row["n_frames"], row["duration_s"], row["source_fps"]) == (LENGTH, LENGTH / 25, 25)
    series = ("crop_transform", "arkit52_blendshapes", "faces_mediapipe_points", "speech_envelope_level_db")
    assert [len(row[name]) for name in series] == [LENGTH] * 4
    assert len(row["faces_mediapipe_points"][0]) == 478 * 3
    assert row["arkit52_reason"] is None


def test_no_speaker_is_on_two_sides(built: BuildOutcome) -> None:
    sides: dict[str, set[str]] = {}
    for row in rows_of(built.out):
        sides.setdefault(row["identity"], set()).add(row["split"])
    assert all(len(split) == 1 for split in sides.values())
    splits = json.loads((built.out / "meta/splits.json").read_text())
    assert {name: {s} for s, names in splits["identities"].items() for name in names} == sides
    assert (splits["name"], splits["seed"]) == ("identity-ratio", 0)


@pytest.mark.parametrize(("workers", "prefect"), [(2, False), (2, True)])
def test_the_bytes_do_not_depend_on_workers_or_engine(
    built: BuildOutcome, tree: Path, tmp_path: Path, workers: int, prefect: bool
) -> None:
    config = settings(tree, tmp_path / "out", tmp_path / "cache", workers=workers, prefect=prefect)
    assert content(build(config).out) == content(built.out)


def test_killed_at_random_moments_and_resumed(built: BuildOutcome, tree: Path, tmp_path: Path) -> None:
    config = tmp_path / "build.yaml"
    settings(tree, tmp_path / "out", tmp_path / "cache").write(config)
    command = [sys.executable, "-m", "talkforge.cli", "build", "--dataset", "mead", "--config", str(config)]
    command += ["--root", str(tree), "--out", str(tmp_path / "out")]
    chance = random.Random(5)
    for goal in sorted(chance.sample(range(1, 20), 3)):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        _wait(process, lambda goal=goal: len(list((tmp_path / "cache").rglob("*.parquet"))) >= goal)
        time.sleep(chance.random() / 5)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for shard in (tmp_path / "out").glob("data/*/part-*.parquet"):
            pq.read_table(shard)  # what is visible is whole
        assert not (tmp_path / "out/meta/info.json").exists()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert content(tmp_path / "out") == content(built.out)


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, "the build ended before it was killed"
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_second_run_does_nothing(built: BuildOutcome, tree: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.out.rglob("*") if path.is_file()}
    again = build(settings(tree, built.out, cache_of(built), workers=2))
    assert again.done
    assert (again.fresh, again.counters.as_dict()["decodes"]) == (0, 0)
    assert {path: path.stat().st_mtime_ns for path in built.out.rglob("*") if path.is_file()} == before


def copy_of(built: BuildOutcome, folder: Path) -> Path:
    return Path(shutil.copytree(built.out, folder / "out"))


def test_another_extractor_runs_alone(built: BuildOutcome, tree: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path)
    more = build(settings(tree, out, cache_of(built), extractors=[*LIGHT, "au-blendshape-proxy"]))
    assert more.counters.face_detections == 0
    assert more.counters.temp_bytes == 0  # no crop video is encoded again
    row = rows_of(out)[0]
    assert len(row["au_blendshape_proxy_AU12"]) == LENGTH
    before = rows_of(built.out)[0]
    assert {name: row[name] for name in before} == before


def test_only_shards_with_new_or_changed_clips_are_built(
    built: BuildOutcome, tree: Path, sample_clips: Path, tmp_path: Path
) -> None:
    out, root = copy_of(built, tmp_path), Path(shutil.copytree(tree, tmp_path / "tree"))
    assert build(settings(root, out, cache_of(built))).done  # copied files have the same bytes
    changed = root / "W015/video/front/fear/level_1/001.mp4"
    shutil.copyfile(sample_clips / "test-movie-3.mp4", changed)
    again = build(settings(root, out, cache_of(built)))
    assert again.fresh == 1
    assert again.counters.decodes == 1
    changed.unlink()
    less = build(settings(root, out, cache_of(built)))
    assert less.info["counts"]["rows"] == GOOD - 1
    assert not (out / "videos/mead/W015/front/fear/level_1/001.mp4").exists()
    assert less.counters.decodes == 0


def test_a_lost_crop_video_is_written_again(built: BuildOutcome, tree: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path)
    (out / "videos/mead/M003/front/happy/level_1/001.mp4").unlink()
    again = build(settings(tree, out, cache_of(built)))
    assert (again.fresh, again.counters.decodes) == (1, 0)
    assert content(out) == content(built.out)


def test_a_silent_clip_keeps_its_row(sample_clips: Path, tmp_path: Path) -> None:
    """What an optional extractor cannot say is null with its reason."""
    frames = []
    with open_video(sample_clips / "jwp-intro-0.mp4") as stream:
        frames = [frame for _, frame in stream][:30]
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips/mute.mp4", frames, audio=0 * tone(1.0))
    write_clip(tmp_path / "clips/bare.mp4", frames)
    options = {"missing_audio": "keep"}
    build(settings(tmp_path / "clips", tmp_path / "out", tmp_path / "cache", dataset="folder", options=options))
    bare, mute = sorted(rows_of(tmp_path / "out"), key=lambda row: row["clip_id"])
    assert (mute["speech_envelope_level_db"], mute["speech_envelope_reason"]) == (None, "silent_audio")
    assert (mute["n_frames"], mute["has_sound"], mute["split"]) == (25, True, "train")  # the sound is the shorter one
    assert [len(mute[name]) for name in ("crop_transform", "arkit52_rotation")] == [25, 25]
    assert (bare["speech_envelope_reason"], bare["has_sound"], bare["n_frames"]) == ("no_audio", False, 30)


def test_a_part_of_a_video_is_that_part(sample_clips: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_clips, tmp_path / "clips", ignore=lambda _, names: set(names) - {"jwp-intro-0.mp4"})
    (tmp_path / "labels.csv").write_text("clip,start_s,end_s,emotion,split\njwp-intro-0,0.4,1.2,joy,test\n")
    places = {"dataset": "folder", "annotations": tmp_path / "labels.csv"}
    outcome = build(settings(tmp_path / "clips", tmp_path / "out", tmp_path / "cache", **places))
    (row,) = rows_of(tmp_path / "out")
    assert (row["n_frames"], row["start_s"], row["split"], row["emotion"]) == (20, 0.4, "test", "happy")
    assert outcome.counters.face_detections == 20
    sound = read_audio(sample_clips / "jwp-intro-0.mp4")[10 * 640 : 30 * 640]
    assert row["speech_envelope_peak"] == pytest.approx(float(abs(sound).max()))


def test_statistics_are_those_of_the_columns(built: BuildOutcome) -> None:
    stats = json.loads((built.out / "meta/stats.json").read_text())
    levels = [value for row in rows_of(built.out) for value in row["speech_envelope_level_db"]]
    expected = pa.array(levels, pa.float64())
    found = stats["speech_envelope_level_db"]
    assert found["count"] == len(levels) == GOOD * LENGTH
    assert found["mean"] == pytest.approx(pc.mean(expected).as_py(), rel=1e-5)
    assert found["std"] == pytest.approx(pc.stddev(expected).as_py(), rel=1e-5)
    assert (found["min"], found["max"]) == pytest.approx((min(levels), max(levels)), rel=1e-5)
    assert found["quantiles"]["0.01"] <= found["quantiles"]["0.5"] <= found["quantiles"]["0.99"]
    assert len(stats["arkit52_rotation"]["mean"]) == 3


def test_info_tells_paths_columns_and_weights(built: BuildOutcome) -> None:
    info = json.loads((built.out / "meta/info.json").read_text())
    assert list(info["columns"]) == ds.dataset(built.out / "data").schema.names
    assert info["columns"]["arkit52_rotation"] == "list<item: fixed_size_list<item: float>[3]>"
    for split, total in info["shards"].items():
        for index in range(total):
            shard = pq.ParquetFile(built.out / info["paths"]["data"].format(split=split, index=index, total=total))
            assert shard.num_row_groups == shard.metadata.num_rows  # a clip is read without its neighbours
    assert all(len(sha) == 64 for sha in info["weights"].values())
    assert {"faces-mediapipe", "crop-video", *LIGHT} == {one["id"] for one in info["extractors"]}
    for text in ("README.md", "croissant.json", "meta/info.json"):
        assert str(built.out) not in (built.out / text).read_text()
    card = (built.out / "README.md").read_text()
    assert "| no_face | 1 |" in card
    assert json.loads((built.out / "croissant.json").read_text())["recordSet"][0]["field"]


def test_shards_hold_no_place_of_this_machine(built: BuildOutcome, tree: Path) -> None:
    for name, data in content(built.out).items():
        assert str(tree).encode() not in data, name


def test_other_libraries_read_it(built: BuildOutcome) -> None:
    pattern = str(built.out / "data/*/*.parquet")
    polars = pytest.importorskip("polars")
    assert polars.scan_parquet(pattern).select("clip_id", "arkit52_rotation").collect().height == GOOD
    duckdb = pytest.importorskip("duckdb")
    assert duckdb.sql(f"select count(*), sum(len(crop_transform)) from '{pattern}'").fetchall() == [
        (GOOD, GOOD * LENGTH)
    ]


def test_the_hub_library_reads_it(built: BuildOutcome, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "load_dataset"):  # from the project's root, its own room of that name is what is found
        pytest.skip("the extra 'hf' is not installed")
    files = {"every": str(built.out / "data/*/*.parquet")}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))["every"]
    assert loaded.num_rows == GOOD
    assert len(loaded[0]["arkit52_rotation"]) == LENGTH
    by_card = datasets.load_dataset(str(built.out), cache_dir=str(tmp_path))  # the splits that the card's header tells
    assert sum(part.num_rows for part in by_card.values()) == GOOD


def test_status_counts_shards_rejects_and_seconds(built: BuildOutcome, tmp_path: Path) -> None:
    state = build_status(built.out)
    assert state["complete"]
    assert (state["shards_done"], state["rows"], state["clips"]) == (state["shards"], GOOD, READ)
    assert state["rejects"] == {"no_face": 1, "not_a_video": 1, "truncated": 1, "unknown_emotion": 1}
    assert state["seconds"] > 0
    out = copy_of(built, tmp_path)
    (out / "meta/info.json").unlink()
    next((out / "_done").glob("build-*/*.json")).unlink()
    state = build_status(out)
    assert (state["complete"], state["shards_done"]) == (False, state["shards"] - 1)
    with pytest.raises(InputError, match="no build"):
        build_status(tmp_path)


def test_a_dry_run_tells_and_writes_nothing(built: BuildOutcome, tree: Path, tmp_path: Path) -> None:
    text = describe_build(settings(tree, tmp_path / "out", tmp_path / "cache"))
    assert "clips: 7, rejected before reading: 2" in text
    assert "  unknown_emotion: 1" in text
    assert "of them finished: 0" in text
    assert list(tmp_path.iterdir()) == []
    text = describe_build(settings(tree, built.out, cache_of(built)))
    assert (
        f"shards: {len(list(built.out.glob('data/*/*')))}, of them finished: {len(list(built.out.glob('data/*/*')))}"
        in text
    )


def test_missing_weights_are_named_before_any_work(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path / "empty"))
    config = settings(tree, tmp_path / "out", tmp_path / "cache")
    assert "weights_missing: get them with: talkforge weights pull mediapipe-face-landmarker" in describe_build(config)
    with pytest.raises(WeightsError, match="weights pull"):
        build(config)
    assert not (tmp_path / "out").exists()


def test_two_builds_into_one_folder(tree: Path, tmp_path: Path) -> None:
    with owned(tmp_path / "out"), pytest.raises(OutputBusy, match=f"process {os.getpid()}"):
        build(settings(tree, tmp_path / "out", tmp_path / "cache"))


def test_a_foreign_tree_or_folder_is_one_line(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep me")
    for arguments, part in (
        (["--dataset", "hdtf", "--root", tree, "--out", tmp_path / "o"], "this looks like mead"),
        (["--dataset", "meed", "--root", tree, "--out", tmp_path / "o"], "did you mean mead"),
        (["--dataset", "mead", "--root", tmp_path / "no", "--out", tmp_path / "o"], "is not a folder"),
        (["--dataset", "mead", "--root", tree, "--out", tmp_path / "mine"], "holds files that are no build"),
    ):
        command = [sys.executable, "-m", "talkforge.cli", "build", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert part in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("preset", sorted(path.name for path in (CONFIGS / "builds").glob("*.yaml")))
def test_presets_are_valid(preset: str, tmp_path: Path) -> None:
    config = BuildConfig.load(CONFIGS / "builds" / preset, root=tmp_path, out=tmp_path)
    assert config.dataset == preset.removesuffix(".yaml")
