"""Builds under named crops: what they say about themselves, and that faces are found once for all of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.dataset as ds
import pytest
from talkforge.core.errors import ConfigError
from talkforge.datasets.audio import read_audio
from talkforge.datasets.video import open_video
from talkforge.flows.build_dataset import BuildConfig, BuildOutcome, build
from talkforge.tasks.faces import LANDMARKER
from talkforge.tests.tasks.one_row import need

LENGTH = 48  # frames of a sample clip


def settings(folder: Path, crop: str, **values: Any) -> BuildConfig:
    given = {"dataset": "folder", "root": folder / "clips", "out": folder / "out", "cache": folder / "cache"}
    rest = {"extractors": [], "size": 64, "workers": 1, "prefect": False, "crop": crop}
    return BuildConfig.model_validate(given | rest | values)


def work(outcome: BuildOutcome) -> tuple[bool, int, int]:
    """Whether there was nothing to do, decodes, detections."""
    return outcome.done, outcome.counters.decodes, outcome.counters.face_detections


def test_another_crop_is_another_build_and_shares_the_faces(sample_clips: Path, tmp_path: Path) -> None:
    need(LANDMARKER)
    (tmp_path / "clips").mkdir()
    shutil.copy(sample_clips / "jwp-intro-0.mp4", tmp_path / "clips")
    outcome = build(settings(tmp_path, "syncnet-square"))
    assert work(outcome) == (False, 2, LENGTH), "faces first, then a crop around their whole path"
    (row,) = ds.dataset(tmp_path / "out/data").to_table().to_pylist()
    assert [len(matrix) for matrix in row["crop_transform"]] == [6] * LENGTH
    assert len(row["faces_mediapipe_points"]) == LENGTH
    crop = outcome.info["crop"]
    assert (crop["name"], crop["interpolation"], crop["border"]) == ("syncnet-square", "bilinear", "grey 110")
    assert crop["rule"] in (tmp_path / "out/README.md").read_text()
    assert work(build(settings(tmp_path, "syncnet-square"))) == (True, 0, 0)
    assert work(build(settings(tmp_path, "hdtf-union"))) == (False, 1, 0)
    assert work(build(settings(tmp_path, "ffhq"))) == (False, 1, 0)
    (other,) = ds.dataset(tmp_path / "out/data").to_table().to_pylist()
    assert other["faces_mediapipe_points"] == row["faces_mediapipe_points"]
    assert other["crop_transform"] != row["crop_transform"]


@pytest.mark.parametrize("crop", ["ffhq", "align-224"])
def test_the_crop_video_shows_what_the_transform_of_its_row_says(crop: str, sample_clips: Path, tmp_path: Path) -> None:
    """Each picture is the source under its matrix, made here from another decode, up to blur and coding."""
    need(LANDMARKER)
    (tmp_path / "clips").mkdir()
    shutil.copy(sample_clips / "test-movie-2.mp4", tmp_path / "clips")
    build(settings(tmp_path, crop, size=256))
    (row,) = ds.dataset(tmp_path / "out/data").to_table().to_pylist()
    with open_video(tmp_path / "out" / row["video"]) as shown, open_video(sample_clips / "test-movie-2.mp4") as source:
        pairs = [(crops, frame) for (_, crops), (_, frame) in zip(shown, source, strict=True)]
    assert len(pairs) == row["n_frames"] and len(read_audio(tmp_path / "out" / row["video"])) >= LENGTH * 640
    for k in (0, 20, 47):
        matrix = np.reshape(row["crop_transform"][k], (2, 3))
        wanted = cv2.warpAffine(pairs[k][1], matrix, (256, 256), borderMode=cv2.BORDER_REFLECT_101)
        assert np.abs(pairs[k][0].astype(float) - wanted).mean() < 4, "of 255; two pixels aside it is more"
        aside = np.abs(np.roll(pairs[k][0], 2, axis=1).astype(float) - wanted).mean()
        assert aside > 1.5 * np.abs(pairs[k][0].astype(float) - wanted).mean()


def test_without_an_annotated_window_it_is_the_union(sample_clips: Path, tmp_path: Path) -> None:
    """The reader of plain folders knows no windows."""
    need(LANDMARKER)
    (tmp_path / "clips").mkdir()
    shutil.copy(sample_clips / "test-movie-0.mp4", tmp_path / "clips")
    build(settings(tmp_path, "annotated"))
    (row,) = ds.dataset(tmp_path / "out/data").to_table().to_pylist()
    build(settings(tmp_path, "hdtf-union"))
    (union,) = ds.dataset(tmp_path / "out/data").to_table().to_pylist()
    assert row["window"] is None and row["crop_transform"] == union["crop_transform"]


def test_an_unknown_crop_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown crop 'face'"):
        settings(tmp_path, "face")
