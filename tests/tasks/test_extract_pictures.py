"""Features and thumbnails of single pictures: which frames they come from."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from talkforge.core.counters import Counters
from talkforge.core.errors import EmptyVideo, NoFace, WeightsError
from talkforge.core.weights import weights_store
from talkforge.models.mobilenet_v2 import load_mobilenet_v2, prepare_frames
from talkforge.tasks.extract_mobilenet import MOBILENET, FrameFeatures
from talkforge.tasks.extract_strip import COUNT, HEIGHT, KEEP, STRIP, Strip
from talkforge.tasks.extractor import Batch, ClipExtractor, Context

Pictures = list[np.ndarray | None]


def fed(extractor: ClipExtractor, pictures: Pictures, frames: list[np.ndarray] | None = None) -> dict:
    for start in range(0, len(pictures), 7):
        part = pictures[start : start + 7]
        whole = frames[start : start + 7] if frames else [np.zeros((2, 2, 3), np.uint8)] * len(part)
        nothing = [None] * len(part)
        extractor.push(Batch(np.arange(start, start + len(part)), whole, nothing, [0] * len(part), part))
    return extractor.finish()


def grey(level: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_features_are_those_of_the_frames_with_a_picture() -> None:
    try:
        weights_store().path("mobilenet-v2-imagenet")
    except WeightsError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(0)
    movie = rng.integers(0, 256, (19, 60, 80, 3), dtype=np.uint8)
    pictures: Pictures = [None if k in (0, 5, 18) else frame for k, frame in enumerate(movie)]
    counters = Counters()
    row = fed(FrameFeatures(MOBILENET, Context("cpu", counters)), pictures)
    kept = [k for k, picture in enumerate(pictures) if picture is not None]
    assert row["frame"].tolist() == kept and row["n_frames"] == 19
    assert counters.forwards == {"mobilenet-v2": 16}
    wanted = load_mobilenet_v2().features_1280(prepare_frames(movie[[1, 17]])).detach().numpy()
    np.testing.assert_allclose(row["features"][[kept.index(1), kept.index(17)]], wanted, atol=1e-4)


def test_no_picture_no_features() -> None:
    with pytest.raises(NoFace, match="none of 9 frames"):
        fed(FrameFeatures(MOBILENET, Context("cpu", Counters())), [None] * 9)


def strip(pictures: Pictures, frames: list[np.ndarray] | None = None) -> tuple[np.ndarray, list[float]]:
    row = fed(Strip(STRIP, Context("cpu", Counters())), pictures, frames)
    return np.asarray(Image.open(io.BytesIO(row["jpeg"]))), row["seconds"]


@pytest.mark.parametrize("count", [1, 3, COUNT, KEEP, KEEP + 1, 100, 777])
def test_thumbnails_are_spread_evenly_over_the_clip(count: int) -> None:
    """The grey level of each frame tells its number."""
    image, seconds = strip([grey(20 + 200 * k // count) for k in range(count)])
    shown = min(count, COUNT)
    width = 64 * HEIGHT // 48
    assert image.shape == (HEIGHT, shown * width, 3) and len(seconds) == shown
    numbers = [round(second * 25) for second in seconds]
    assert numbers[0] == 0 and numbers[-1] >= 0.85 * (count - 1)
    levels = image.reshape(HEIGHT, shown, width, 3)[HEIGHT // 2, :, width // 2, 0]
    np.testing.assert_allclose(levels, [20 + 200 * k // count for k in numbers], atol=3)
    steps = np.diff(numbers)
    assert not len(steps) or steps.max() <= 2.5 * max(1, (count - 1) / COUNT)


def test_a_frame_without_a_face_shows_the_full_frame_in_the_same_width() -> None:
    image, _ = strip([grey(200, 50, 50), None, grey(200, 50, 50)], [grey(60, 50, 100)] * 3)
    assert image.shape == (HEIGHT, 3 * HEIGHT, 3)
    assert abs(int(image[48, HEIGHT + 48, 0]) - 60) < 5 and abs(int(image[48, 48, 0]) - 200) < 5


def test_no_frames_no_strip() -> None:
    with pytest.raises(EmptyVideo):
        strip([])
