"""Pictures that come back to the last bit."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from talkforge.core.counters import Counters
from talkforge.core.errors import InputError, NoFace
from talkforge.datasets.video import open_video, resample
from talkforge.tasks.extract_lossless import LOSSLESS, LosslessPictures
from talkforge.tasks.extractor import Batch, Context
from talkforge.tasks.features import FeatureRow, FeatureStore
from talkforge.tests.tasks.one_row import extract


def fed(pictures: list[np.ndarray | None]) -> LosslessPictures:
    extractor = LosslessPictures(LOSSLESS, Context("cpu", Counters()))
    for start in range(0, len(pictures), 4):
        part = pictures[start : start + 4]
        extractor.push(Batch(np.arange(start, start + len(part)), [], [], [], part))
    return extractor


def decoded(data: bytes, ends: np.ndarray) -> list[np.ndarray]:
    starts = [0, *ends[:-1].tolist()]
    files = [data[start:end] for start, end in zip(starts, ends.tolist(), strict=True)]
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_pictures_come_back_from_the_store_to_the_last_bit(tmp_path: Path) -> None:
    """Noise, flat colours, a ramp, sizes of one pixel and odd ones; frames without a picture have no entry."""
    ramp = np.indices((224, 224)).sum(axis=0)[..., None].repeat(3, axis=2).astype(np.uint8)
    grey = np.full((31, 17, 3), 200, np.uint8)
    pictures = [noise(1, 224, 224, 3), None, ramp, ramp[::-1, ::2], grey, None, noise(2, 1, 1, 3)]
    store = FeatureStore(tmp_path, "none")
    store.save(LOSSLESS, "a" * 64, fed(pictures).finish())
    row = store.find(LOSSLESS, "a" * 64)
    assert isinstance(row, FeatureRow)
    found = decoded(row.value("pictures"), row.array("ends"))
    assert row.array("frame").tolist() == [0, 2, 3, 4, 6] and row.value("n_frames") == 7
    wanted = [picture for picture in pictures if picture is not None]
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_real_clips_frames_come_back_to_the_last_bit() -> None:
    folder = os.environ.get("TALKFORGE_MEDIA")
    if not folder:
        pytest.skip("TALKFORGE_MEDIA names no folder of real clips")
    clips = sorted(Path(folder).glob("edtalk_generated/*.mp4"))
    if not clips:
        pytest.skip("the folder of real clips has no edtalk_generated")
    row = extract("pictures-lossless", clips[0])
    found = decoded(row.value("pictures"), row.array("ends"))
    with open_video(clips[0]) as stream:
        wanted = [frame for _, _, frame in resample(stream)]
    assert len(found) == len(wanted) == row.value("n_frames") > 20
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert len(row.value("pictures")) < 0.5 * sum(frame.nbytes for frame in wanted)


def test_no_picture_no_row() -> None:
    with pytest.raises(NoFace, match="none of 3 frames"):
        fed([None] * 3).finish()


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="16384x1"):
        fed([np.zeros((1, 16384, 3), np.uint8)])
    monkeypatch.setattr("talkforge.tasks.extract_lossless.MOST_BYTES", 2**20)
    with pytest.raises(InputError, match="more than 1 MiB without loss"):
        fed([noise(3, 224, 224, 3)] * 10)
