"""I3D logits: which frames make a sample, and that they are the network's own."""

from __future__ import annotations

import numpy as np
import pytest
from talkforge.core.counters import Counters
from talkforge.core.errors import InputError, NoFace, TooShort, WeightsError
from talkforge.core.weights import weights_store
from talkforge.metrics.fvd import preprocess
from talkforge.models.i3d import load_i3d
from talkforge.tasks import extract_i3d
from talkforge.tasks.extract_i3d import FULL, WINDOWS, ClipLogits, WindowLogits
from talkforge.tasks.extractor import Batch, Context

Pictures = list[np.ndarray | None]


@pytest.fixture(scope="module", autouse=True)
def network():
    try:
        weights_store().path("i3d-k400")
    except WeightsError as error:
        pytest.skip(str(error))
    return load_i3d()


@pytest.fixture(scope="module")
def movie() -> np.ndarray:
    """uint8 (42, 96, 128, 3): a bright square on noise that moves to the right."""
    frames = np.random.default_rng(2).integers(0, 120, (1, 96, 128, 3), dtype=np.uint8).repeat(42, axis=0)
    for k, frame in enumerate(frames):
        frame[30:60, 2 * k : 2 * k + 30] = 250 - 3 * k
    return frames


def run(kind: type, pictures: Pictures, size: int = 16) -> tuple[dict, Counters]:
    spec, counters = (WINDOWS, Counters()) if kind is WindowLogits else (FULL, Counters())
    extractor = kind(spec, Context("cpu", counters))
    for start in range(0, len(pictures), size):
        part = pictures[start : start + size]
        index = np.arange(start, start + len(part))
        extractor.push(Batch(index, [np.zeros((2, 2, 3), np.uint8)] * len(part), [None] * len(part), [0], part))
    return extractor.finish(), counters


def with_gaps(movie: np.ndarray, *missing: int) -> Pictures:
    return [None if k in missing else frame for k, frame in enumerate(movie)]


def test_windows_follow_each_other_and_the_rest_is_left_out(network, movie: np.ndarray) -> None:
    """Against the network's own forward on windows cut by hand; 42 frames are two windows and ten frames."""
    row, counters = run(WindowLogits, list(movie), size=5)
    wanted = network.window_logits(preprocess(np.stack([movie[:16], movie[16:32]])))
    np.testing.assert_allclose(row["logits"], wanted, atol=2e-4)
    assert row["logits"].dtype == np.float32
    assert (row["n_frames"], row["n_without_picture"], row["n_dropped"]) == (42, 0, 0)
    assert counters.forwards == {"i3d-k400": 2}


def test_a_window_with_a_missing_picture_is_dropped_and_counted(network, movie: np.ndarray) -> None:
    """Its other frames are not joined to the next ones: the samples stay where they are in the clip."""
    row, counters = run(WindowLogits, with_gaps(movie, 3, 4, 35))
    np.testing.assert_allclose(row["logits"], network.window_logits(preprocess(movie[None, 16:32])), atol=2e-4)
    assert (row["n_without_picture"], row["n_dropped"]) == (3, 1), "frame 35 is in no window"
    assert counters.forwards == {"i3d-k400": 1}


def test_no_whole_window_says_why(movie: np.ndarray) -> None:
    with pytest.raises(NoFace, match="2 of 42 frames"):
        run(WindowLogits, with_gaps(movie, 15, 16))
    with pytest.raises(TooShort, match="15 frames, a window needs 16"):
        run(WindowLogits, list(movie[:15]))
    with pytest.raises(TooShort):
        run(WindowLogits, [])


def test_a_whole_clip_is_one_sample(network, movie: np.ndarray) -> None:
    row, counters = run(ClipLogits, list(movie[:20]), size=7)
    np.testing.assert_allclose(row["logits"], network.window_logits(preprocess(movie[None, :20])), atol=2e-4)
    assert row["logits"].shape == (1, 400) and counters.forwards == {"i3d-k400": 1}


def test_a_whole_clip_has_every_frame_and_a_length_within_bounds(
    movie: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoFace, match="1 of 12 frames"):
        run(ClipLogits, with_gaps(movie[:12], 11))
    with pytest.raises(TooShort, match="8 frames, the network needs 9"):
        run(ClipLogits, list(movie[:8]))
    monkeypatch.setattr(extract_i3d, "MAX_FULL", 12)
    with pytest.raises(InputError, match="13 frames; a whole clip may have 12"):
        run(ClipLogits, list(movie[:13]))
