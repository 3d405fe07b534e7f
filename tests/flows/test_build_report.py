"""The report of a real build: what its pictures and curves show, and that the snippet on it runs."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from talkforge.core.errors import InputError, WeightsError
from talkforge.core.weights import weights_store
from talkforge.datasets.audio import read_audio
from talkforge.datasets.video import open_video
from talkforge.flows.build_dataset import BuildConfig, build
from talkforge.flows.build_report import build_view, built_clips, write_report
from talkforge.flows.build_samples import TILE, TILES, BuiltClip, pick
from talkforge.reports.dataset_view import DatasetView
from talkforge.tasks.extractor import extractors
from talkforge.tests.media_factory import tone, write_clip
from talkforge.tests.reports.page import Page

EXTRACTORS = ["arkit52", "au-blendshape-proxy", "speech-envelope"]
LENGTH = 24  # frames of each clip
BLANK = range(15, 20)  # frames of "gap" without a face


@pytest.fixture(scope="module")
def built(sample_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips, one of them with a grey gap, and one without a face. Read only."""
    try:
        for weight in {weight for name in EXTRACTORS for weight in extractors.get(name).weights}:
            weights_store().path(weight)
    except WeightsError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("report")
    clips = root / "clips"
    clips.mkdir()
    for name in ("jwp-intro-0", "test-movie-1"):
        shutil.copyfile(sample_clips / f"{name}.mp4", clips / f"{name}.mp4")
    with open_video(sample_clips / "jwp-intro-1.mp4") as stream:
        frames = [frame for _, frame in stream]
    for k in BLANK:
        frames[k] = np.full_like(frames[k], 128)
    write_clip(clips / "gap.mp4", frames, audio=read_audio(sample_clips / "jwp-intro-1.mp4"))
    write_clip(clips / "nobody.mp4", 10, audio=tone(0.4))
    people = {"jwp-intro-0": "jw,joy,train", "test-movie-1": "tm,sad,val", "gap": "jw,joy,train"}
    labels = ["clip,identity,emotion,split,end_s", *(f"{name},{who},{LENGTH / 25}" for name, who in people.items())]
    (root / "labels.csv").write_text("\n".join(labels) + "\n")
    places = {"root": clips, "out": root / "out", "cache": root / "cache", "annotations": root / "labels.csv"}
    given = {"dataset": "folder", "extractors": EXTRACTORS, "size": 128, "shard_clips": 2, "workers": 1}
    build(BuildConfig.model_validate({**places, **given, "prefect": False}))
    return root / "out"


@pytest.fixture(scope="module")
def view(built: Path) -> DatasetView:
    return build_view(built, samples=6, seed=0)


def copy_of(built: Path, folder: Path) -> Path:
    return Path(shutil.copytree(built, folder / "out"))


def rewrite(out: Path, change: Any) -> None:
    """Puts every shard through `change`."""
    for path in out.glob("data/*/part-*.parquet"):
        pq.write_table(change(pq.read_table(path)), path, row_group_size=1)


def picture(strip: bytes | None) -> np.ndarray:
    assert strip
    return np.asarray(Image.open(io.BytesIO(strip))).astype(np.float64)


def test_the_page_tells_counts_rejects_and_curves(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path)
    path = write_report(out)
    assert path == out / "report.html"
    page = Page(path.read_text())
    assert page.all("dl", class_="summary")[0].text.split()[:6] == [
        "clips",
        "listed4",
        "rows3",
        "rejected1",
        "of",
        "video2.9",
    ]
    text = " ".join(page.all("main")[0].text.split())
    for words in ("no_face", "folder/nobody", "folder/gap", "AU12 lip corner puller", "jawOpen", "yaw", "waveform"):
        assert words in text
    assert len(page.all("img")) == 3
    assert str(tmp_path) not in path.read_text()
    assert "| `no_face` | track | 1 |" in (out / "report.md").read_text()


def test_the_same_folder_gives_the_same_page(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path)
    first = write_report(out).read_bytes()
    assert write_report(out).read_bytes() == first


def test_frames_without_a_face_are_gaps_and_spans(view: DatasetView) -> None:
    clip = next(one for one in view.samples if one.clip_id == "folder/gap")
    (span,) = clip.faceless
    assert span == (BLANK.start / 25, BLANK.stop / 25)
    curves = [curve for panel in clip.panels for curve in panel.curves]
    assert len(curves) == 4 + 4 + 3
    for curve in curves:
        assert [k for k, value in enumerate(curve.values) if value is None] == list(BLANK)
    assert clip.level is not None and None not in clip.level.values
    assert ("frames with a face", f"{LENGTH - len(BLANK)} of {LENGTH}") in clip.facts


def test_the_strip_shows_the_crop_in_the_middle_of_each_part(built: Path, view: DatasetView) -> None:
    clip = next(one for one in view.samples if one.clip_id == "folder/test-movie-1")
    assert [tile.seconds for tile in clip.tiles] == [(2 + 4 * k) / 25 for k in range(TILES)]
    strip = picture(clip.strip)
    assert strip.shape == (TILE, TILES * TILE, 3)
    with open_video(built / "videos/folder/test-movie-1.mp4") as stream:
        frames = [frame for _, frame in stream]
    for k in range(TILES):
        tile = strip[:, k * TILE : (k + 1) * TILE]
        near = [abs(tile - _enlarged(frames[index])).mean() for index in (2 + 4 * k, (2 + 4 * (k + 3)) % LENGTH)]
        assert near[0] < near[1]


def _enlarged(frame: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((TILE, TILE), Image.Resampling.LANCZOS)).astype(np.float64)


def test_landmarks_are_drawn_where_the_transform_takes_them(built: Path, view: DatasetView, tmp_path: Path) -> None:
    """Where the strip with landmarks differs from the one without, there are landmarks, and the other way round."""
    out = copy_of(built, tmp_path)
    rewrite(out, lambda table: table.drop_columns(["faces_mediapipe_points"]))
    bare = next(one for one in build_view(out, samples=6, seed=0).samples if one.clip_id == "folder/jwp-intro-0")
    drawn = next(one for one in view.samples if one.clip_id == bare.clip_id)
    assert bare.notes == ["No landmarks are drawn: this clip has no faces_mediapipe_points."]
    changed = abs(picture(drawn.strip) - picture(bare.strip)).max(axis=2)[:, :TILE] > 60
    row = pq.read_table(built / "data/train").filter(pa.compute.field("clip_id") == bare.clip_id).to_pylist()[0]
    points = np.array(row["faces_mediapipe_points"][2]).reshape(478, 3)
    a, b, c, d, e, f = row["crop_transform"][2]
    scale = TILE / row["crop_size"]
    for index in (61, 291, 33, 263, 4):  # corners of mouth and eyes, tip of the nose
        x, y = points[index, :2] - 0.5
        u, v = scale * (a * x + b * y + c + 0.5), scale * (d * x + e * y + f + 0.5)
        assert changed[round(v) - 3 : round(v) + 3, round(u) - 3 : round(u) + 3].any(), index
    ys, xs = np.nonzero(changed)
    inside = [scale * (a * p[0] + c) for p in points], [scale * (e * p[1] + f) for p in points]
    for found, expected in ((xs, inside[0]), (ys, inside[1])):
        assert found.min() > min(expected) - 6 and found.max() < max(expected) + 6


def test_sound_and_figures_are_those_of_the_rows(built: Path, view: DatasetView) -> None:
    rows = {clip.clip_id: clip for clip in built_clips(built)}
    clip = view.samples[0]
    samples = read_audio(built / f"videos/{clip.clip_id}.mp4")[: LENGTH * 640]
    assert clip.sound is not None
    assert max(clip.sound.high) == pytest.approx(float(samples.max()), abs=1e-4)
    assert min(clip.sound.low) == pytest.approx(float(samples.min()), abs=1e-4)
    assert len(clip.sound.high) * clip.sound.step_s == pytest.approx(len(samples) / 16000, abs=clip.sound.step_s)
    assert view.seconds == len(rows) * LENGTH / 25
    sides = {row.crop_side for row in rows.values()}
    assert all(side and 100 < side < 400 for side in sides)
    (units, *_, level) = view.spreads
    stats = json.loads((built / "meta/stats.json").read_text())
    assert units.rows[0].quantiles == tuple(stats["au_blendshape_proxy_AU01"]["quantiles"].values())
    assert (units.rows[0].missing, level.rows[0].missing) == (len(BLANK), 0)


def test_filter_columns_are_shown_and_counted(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path)

    def add(table: pa.Table) -> pa.Table:
        gap = [name == "folder/gap" for name in table["clip_id"].to_pylist()]
        table = table.drop_columns([n for n in table.column_names if n == "keep" or n.startswith("filter_")])
        table = table.append_column("filter_face_size", pa.array([None if g else 90.0 for g in gap], pa.float32()))
        table = table.append_column("filter_face_size_keep", pa.array([None if g else False for g in gap], pa.bool_()))
        table = table.append_column("filter_face_size_reason", pa.array(["no_face" if g else None for g in gap]))
        table = table.append_column("filter_duration", pa.array([2.0] * len(gap), pa.float32()))
        table = table.append_column("filter_duration_keep", pa.array(gap, pa.bool_()))
        return table.append_column("keep", pa.array(gap, pa.bool_()))

    rewrite(out, add)
    view = build_view(out, samples=6, seed=0)
    size, length = view.filters
    assert (size.name, size.unit, size.keeps.count(False), size.only) == ("face_size", "pixels", 2, 0)
    assert (length.name, length.values, view.kept) == ("duration", [2.0] * 3, 1)
    shown = {one.clip_id: [(f.name, f.decision) for f in one.filters] for one in view.samples}
    assert shown["folder/gap"] == [("face_size", "no_face"), ("duration", "keep")]
    assert shown["folder/jwp-intro-0"] == [("face_size", "drop"), ("duration", "drop")]
    assert "All together would keep 1 of 3 rows." in write_report(out).read_text()


def test_stage_times_are_summed_over_the_shards_that_have_them(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path)
    markers = sorted(out.glob("_done/build-*/*.json"))
    assert len(markers) == 3
    for path, stages in zip(markers, ({"faces": 2.0}, {"faces": 3.0, "write": 1.0}, None), strict=True):
        data = json.loads(path.read_text())
        data.pop("stages", None)
        if stages:
            data["stages"] = {name: {"wall_s": wall, "cpu_s": wall / 2} for name, wall in stages.items()}
        path.write_text(json.dumps(data))
    work = build_view(out, samples=0, seed=0).work
    assert {(s.name, s.wall_s, s.cpu_s) for s in work.stages} == {("faces", 5.0, 2.5), ("write", 1.0, 0.5)}
    rows = {clip.path.parent.name + "/" + clip.path.stem: 0 for clip in built_clips(out)}
    for clip in built_clips(out):
        rows[clip.path.parent.name + "/" + clip.path.stem] += 1
    timed = sum(rows.get(f"{p.parent.name.removeprefix('build-')}/{p.stem}", 0) for p in markers[:2])
    assert (work.timed, work.shards, work.video_s) == (2, 3, timed * LENGTH / 25)


def test_a_lost_or_damaged_crop_video_is_named(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path)
    (out / "videos/folder/gap.mp4").unlink()
    (out / "videos/folder/jwp-intro-0.mp4").write_bytes(b"")
    samples = {one.clip_id: one for one in build_view(out, samples=6, seed=0).samples}
    for name in ("folder/gap", "folder/jwp-intro-0"):
        assert samples[name].strip is None and samples[name].sound is None
        assert samples[name].notes[0].startswith("The crop video cannot be shown: ")
    assert samples["folder/gap"].sound_reason == "missing_file"
    assert samples["folder/test-movie-1"].strip


def test_the_snippets_run_in_the_folder(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path)
    write_report(out, samples=0)
    codes = re.findall(r"```python\n(.*?)```", (out / "report.md").read_text(), re.S)
    printed = [
        subprocess.run([sys.executable, "-c", code], cwd=out, capture_output=True, text=True, check=True).stdout.split()
        for code in codes
    ]
    assert printed == [["2"], ["2", "folder/gap"]]


def test_only_a_finished_build_has_a_report(built: Path, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path)
    (out / "meta/info.json").unlink()
    (out / "report.html").unlink()
    with pytest.raises(InputError, match="no finished build"):
        write_report(out)
    assert not (out / "report.html").exists()


def clip_of(name: str, split: str, emotion: str | None, identity: str | None) -> BuiltClip:
    return BuiltClip(Path(), 0, {"clip_id": name, "split": split, "emotion": emotion, "identity": identity})


def test_samples_are_spread_over_splits_emotions_and_speakers() -> None:
    clips = [clip_of(f"a{k:03d}", "train", "happy", "s1") for k in range(100)]
    clips += [
        clip_of("b", "train", "sad", "s1"),
        clip_of("c", "val", "happy", "s1"),
        clip_of("d", "train", "happy", "s2"),
    ]
    chosen = pick(clips, 4, seed=3)
    assert {"b", "c", "d"} <= {clip.clip_id for clip in chosen}
    assert [c.clip_id for c in pick(clips, 4, seed=3)] == [c.clip_id for c in chosen]
    assert {tuple(c.clip_id for c in pick(clips, 4, seed=seed)) for seed in range(8)} != {
        tuple(c.clip_id for c in chosen)
    }
    assert len(pick(clips[:2], 6, seed=0)) == 2 and pick([], 6, seed=0) == []


def test_the_picture_on_the_page_is_a_jpeg_of_the_strip(built: Path, view: DatasetView, tmp_path: Path) -> None:
    out = copy_of(built, tmp_path)
    first = Page(write_report(out).read_text()).all("img")[0]
    data = base64.b64decode((first.attributes["src"] or "").removeprefix("data:image/jpeg;base64,"))
    assert data == view.samples[0].strip
