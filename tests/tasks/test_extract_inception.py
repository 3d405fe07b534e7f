"""Inception features of frames: the resize of TensorFlow 1, and which chain each extractor takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.counters import Counters
from talkforge.core.errors import NoFace, WeightsMissing
from talkforge.core.registry import resolve
from talkforge.models.inception import FIDInception, resize_clean_fid, resize_pytorch_fid
from talkforge.models.loading import load_strict
from talkforge.tasks.extract_inception import (
    CLEAN,
    CLEAN_NETWORK,
    NETWORK,
    ORIGINAL,
    PYTORCH_FID,
    original_input,
    resize_tf1,
)
from talkforge.tasks.extractor import Batch, Context, ExtractorSpec
from talkforge.tasks.features import FeatureStore
from talkforge.tests.models.reference import random_array, random_state

RESIZES = {NETWORK: "pytorch-fid", CLEAN_NETWORK: "clean-fid"}


def levels(seed: int, *shape: int) -> np.ndarray:
    return (random_array(seed, *shape) * 256).astype(np.uint8)


def resize_bilinear_of_tf1(picture: np.ndarray, size: int) -> np.ndarray:
    """What TensorFlow 1.x computes on the CPU, pixel by pixel (core/kernels/image/resize_bilinear_op.cc, with
    `align_corners` and `half_pixel_centers` false), on a float32 (H, W, C)."""
    height, width, channels = picture.shape
    result = np.zeros((size, size, channels), np.float32)
    one = np.float32(1)
    for i in range(size):
        y = np.float32(i) * (np.float32(height) / np.float32(size))
        top, bottom = int(y), min(int(y) + 1, height - 1)
        for j in range(size):
            x = np.float32(j) * (np.float32(width) / np.float32(size))
            left, right = int(x), min(int(x) + 1, width - 1)
            above = picture[top, left] + (picture[top, right] - picture[top, left]) * ((x - left) * one)
            below = picture[bottom, left] + (picture[bottom, right] - picture[bottom, left]) * ((x - left) * one)
            result[i, j] = above + (below - above) * ((y - top) * one)
    return result


@pytest.mark.parametrize("shape", [(224, 224, 3), (350, 97, 3), (1, 2, 3)])
def test_the_resize_is_tensorflow_1s(shape: tuple[int, int, int]) -> None:
    picture = levels(1, *shape)
    wanted = resize_bilinear_of_tf1(picture.astype(np.float32), 299)
    np.testing.assert_allclose(resize_tf1(picture[None])[0], wanted, atol=2e-4)


def test_the_resize_has_no_half_pixel() -> None:
    """At twice the size every second pixel is taken as it is; centres upon centres would take the mean of two."""
    picture = levels(2, 598, 598, 3)
    assert np.array_equal(resize_tf1(picture[None])[0], picture[::2, ::2].astype(np.float32))
    same = levels(3, 2, 299, 299, 3)
    assert np.array_equal(resize_tf1(same), same.astype(np.float32))


def test_the_networks_own_scale_makes_it_the_originals_to_the_last_bit() -> None:
    pictures = levels(4, 2, 224, 224, 3)
    wanted = (torch.from_numpy(resize_tf1(pictures)).permute(0, 3, 1, 2) - 128) / 128
    assert torch.equal(resize_pytorch_fid(torch.from_numpy(original_input(pictures))), wanted)


class Held(Context):
    """A context whose networks have random weights, since the real ones are not everywhere."""

    def network(self, target: str) -> FIDInception:
        return held(RESIZES[target])


@cache
def held(resize: str) -> FIDInception:
    network = FIDInception(resize)  # type: ignore[arg-type]
    return load_strict(network, random_state(network, 1), source="random")


def of_original(pictures: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(resize_tf1(pictures)).permute(0, 3, 1, 2) - 128) / 128


def of_pytorch_fid(pictures: np.ndarray) -> torch.Tensor:
    return resize_pytorch_fid(torch.from_numpy(pictures).permute(0, 3, 1, 2))


def of_clean(pictures: np.ndarray) -> torch.Tensor:
    return resize_clean_fid(torch.from_numpy(pictures).permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("spec", "chain"), [(ORIGINAL, of_original), (PYTORCH_FID, of_pytorch_fid), (CLEAN, of_clean)], ids=lambda x: ""
)
def test_features_are_those_of_the_chain(
    spec: ExtractorSpec, chain: Callable[[np.ndarray], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 8 pixels, so that the chains do not meet by chance; a gap, and a frame of another size."""
    monkeypatch.setattr("talkforge.tasks.extract_inception.PICTURES_PER_FORWARD", 2)
    movie = levels(5, 4, 25, 20, 3).repeat(8, axis=1).repeat(8, axis=2)
    pictures: list[np.ndarray | None] = [None, *movie[:3], movie[3, :100, :120]]
    counters = Counters()
    extractor = resolve(spec.target)(spec, Held("cpu", counters))
    for start in range(0, 5, 4):
        part = pictures[start : start + 4]
        extractor.push(Batch(np.arange(start, start + len(part)), [], [], [], part))
    row = extractor.finish()
    assert row["frame"].tolist() == [1, 2, 3, 4] and row["n_frames"] == 5
    assert row["features"].shape == (4, 2048) and row["features"].dtype == np.float16
    assert counters.forwards == {"inception-2015": 4}
    with torch.inference_mode():
        wanted = [held("pytorch-fid")._features(chain(one)).numpy()[0] for one in (movie[1:2], movie[3:, :100, :120])]
    np.testing.assert_allclose(row["features"][[1, 3]].astype(np.float32), wanted, rtol=1e-3, atol=1e-4)


def test_the_chains_differ() -> None:
    picture = levels(6, 1, 25, 20, 3).repeat(8, axis=1).repeat(8, axis=2)
    inputs = [of(picture) for of in (of_original, of_pytorch_fid, of_clean)]
    gaps = [float((inputs[i] - inputs[j]).abs().mean()) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) > 0.01


def test_no_picture_no_features() -> None:
    extractor = resolve(ORIGINAL.target)(ORIGINAL, Held("cpu", Counters()))
    extractor.push(Batch(np.arange(9), [], [], [], [None] * 9))
    with pytest.raises(NoFace, match="none of 9 frames"):
        extractor.finish()


@pytest.mark.parametrize("target", [NETWORK, CLEAN_NETWORK])
def test_without_weights_the_way_to_them_is_told(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing, match="inception-2015-12-05"):
        resolve(target)()


def test_a_row_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    """float16 goes through Parquet unharmed."""
    store = FeatureStore(tmp_path, "none")
    features = random_array(7, 3, 2048).astype(np.float16)
    store.save(CLEAN, "a" * 64, {"features": features, "frame": np.arange(3, dtype=np.int32), "n_frames": 3})
    row = store.find(CLEAN, "a" * 64)
    assert row is not None
    assert np.array_equal(row.array("features"), features)
