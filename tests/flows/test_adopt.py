"""One more clip, and the shards that it is not in stay what they are under their new names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from talkforge.flows.build_dataset import BuildConfig, build
from talkforge.tests.flows.conftest import LIGHT


def settings(clips: Path, out: Path, **values: Any) -> BuildConfig:
    given = {"dataset": "folder", "extractors": LIGHT, "size": 128, "shard_clips": 1, "workers": 1, "prefect": False}
    return BuildConfig.model_validate({"root": clips, "out": out, "cache": out.parent / "cache"} | given | values)


def inodes(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in sorted(out.glob("data/train/*"))}


def content(out: Path) -> dict[str, bytes]:
    kept = ("data/*/*.parquet", "rejects/*.parquet", "videos/**/*.mp4", "meta/stats.json", "meta/splits.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for kind in kept for path in sorted(out.glob(kind))}


def test_shards_without_the_new_clip_are_renamed(clips: Path, sample_clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert build(settings(clips, out)).fresh == 2
    first, second = inodes(out).values()
    shutil.copy(sample_clips / "jwp-intro-1.mp4", clips)  # between the two
    again = build(settings(clips, out))
    assert (again.fresh, again.counters.decodes) == (1, 1)
    now = inodes(out)
    assert now["part-00000-of-00003.parquet"] == first and now["part-00002-of-00003.parquet"] == second
    assert content(out) == content(build(settings(clips, tmp_path / "new")).out), "as if built at once"
    (clips / "jwp-intro-0.mp4").unlink()
    less = build(settings(clips, out))
    assert (less.fresh, list(inodes(out).values())[1]) == (0, second)
    assert content(out) == content(build(settings(clips, tmp_path / "less")).out)


def test_a_marker_without_its_shard_is_not_believed(clips: Path, sample_clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(settings(clips, out))
    (out / "data/train/part-00000-of-00002.parquet").unlink()
    marker = out / "_done/build-train/part-00001-of-00002.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"digest": "of another recipe"}))
    shutil.copy(sample_clips / "test-movie-1.mp4", clips)
    assert build(settings(clips, out)).fresh == 3
    assert content(out) == content(build(settings(clips, tmp_path / "new")).out)
