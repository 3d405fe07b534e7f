"""Lip-sync scores against a plain loop, against the published arithmetic in PyTorch, and on planted offsets."""

from statistics import median

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError, TooShort
from talkforge.metrics.lse import at_edge, frame_distances, sync_scores, valid_sync_scores


def vectors(seed: int, n: int, dim: int = 1024) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def planted(offset: int, n: int, seed: int = 0, dim: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and sound whose true offset is known: sound of frame k fits the picture of frame k + offset."""
    rng = np.random.default_rng(seed)
    world = rng.normal(size=(n + 40, dim)) + 3
    video, audio = world[20 : 20 + n], world[20 + offset : 20 + offset + n]
    return video, audio + 0.05 * rng.normal(size=audio.shape)


def by_loops(video: np.ndarray, audio: np.ndarray, vshift: int, *, valid: bool = False) -> tuple[int, float, float]:
    """The definition, one number at a time."""
    means = []
    for j in range(2 * vshift + 1):
        values = []
        for i in range(len(video)):
            k = i + j - vshift
            inside = 0 <= k < len(audio)
            if valid and not inside:
                continue
            total = 0.0
            for d in range(video.shape[1]):
                total += (float(video[i, d]) - (float(audio[k, d]) if inside else 0.0) + 1e-6) ** 2
            values.append(total**0.5)
        means.append(sum(values) / len(values))
    best = means.index(min(means))
    return vshift - best, means[best], median(means) - means[best]


def by_pytorch(video: np.ndarray, audio: np.ndarray, vshift: int) -> tuple[int, float, float]:
    """The published arithmetic: pad, `pairwise_distance` of each look with a slice, mean, minimum, median."""
    v, a = torch.from_numpy(video), torch.nn.functional.pad(torch.from_numpy(audio), (0, 0, vshift, vshift))
    rows = [torch.nn.functional.pairwise_distance(v[[i]], a[i : i + 2 * vshift + 1]) for i in range(len(v))]
    means = torch.stack(rows, 1).mean(1)
    least, at = means.min(0)
    return vshift - int(at), float(least), float(means.median() - least)


@pytest.mark.parametrize(("n", "m", "vshift"), [(9, 9, 3), (1, 1, 2), (5, 12, 4), (12, 5, 4), (3, 2, 15)])
def test_equals_the_definition_written_as_loops(n: int, m: int, vshift: int) -> None:
    video, audio = vectors(1, n, 7) + 1, vectors(2, m, 7) + 1
    assert sync_scores(video, audio, vshift=vshift) == pytest.approx(by_loops(video, audio, vshift), rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(9, 9), (9, 13), (13, 9)])
def test_valid_variant_equals_the_definition_written_as_loops(n: int, m: int) -> None:
    video, audio = vectors(3, n, 7), vectors(4, m, 7)
    wanted = by_loops(video, audio, 5, valid=True)
    assert valid_sync_scores(video, audio, vshift=5) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("offset", [-9, 0, 4])
@pytest.mark.parametrize("n", [40, 120])
def test_equals_the_published_arithmetic(offset: int, n: int) -> None:
    video, audio = (side.astype(np.float32) for side in planted(offset, n, dim=1024))
    found, wanted = sync_scores(video, audio), by_pytorch(video, audio, 15)
    assert found.offset == wanted[0]
    assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("offset", [-15, -3, 0, 1, 7, 15])
def test_a_planted_offset_is_found(offset: int) -> None:
    video, audio = planted(offset, 80)
    assert valid_sync_scores(video, audio).offset == offset
    if abs(offset) < 8:
        assert sync_scores(video, audio).offset == offset


def test_the_variants_agree_where_nothing_lies_outside() -> None:
    """Sound of 15 frames before and after would be needed; where the best shift is 0, LSE-D is the same number."""
    video, audio = planted(0, 60)
    assert sync_scores(video, audio).distance == pytest.approx(valid_sync_scores(video, audio).distance, rel=1e-12)
    assert sync_scores(video, audio).confidence > valid_sync_scores(video, audio).confidence


def test_equal_vectors_are_at_the_distance_that_epsilon_makes() -> None:
    video = vectors(5, 30)
    offset, distance, confidence = sync_scores(video, video)
    assert offset == 0
    assert distance == pytest.approx(1e-6 * 1024**0.5, rel=1e-9)
    assert confidence > 10


def test_silence_is_as_far_as_the_vectors_are_long() -> None:
    """No shift stands out, so the confidence is 0 and the offset is the first shift's."""
    video = np.full((20, 4), 2.0)
    scores = sync_scores(video, np.zeros((20, 4)))
    assert scores == pytest.approx((15, 4.000002, 0.0), abs=1e-9)
    assert at_edge(scores.offset)


def test_distance_scales_with_the_vectors() -> None:
    video, audio = planted(2, 50)
    once, twice = sync_scores(video, audio), sync_scores(2 * video, 2 * audio)
    assert twice.offset == once.offset
    assert twice[1:] == pytest.approx((2 * once.distance, 2 * once.confidence), rel=1e-5)


def test_frame_distances_average_to_the_distance() -> None:
    video, audio = planted(-4, 50)
    scores = sync_scores(video, audio)
    frames = frame_distances(video, audio, scores.offset)
    assert frames.shape == (50,)
    assert frames.mean() == pytest.approx(scores.distance, rel=1e-12)
    # Sound of frame k fits the picture of frame k - 4, so the last 4 pictures have none.
    assert frames[-4:].min() > 3 * frames[:-4].max()


@pytest.mark.parametrize(
    ("offset", "edge"), [(0, False), (13, False), (-13, False), (14, True), (-14, True), (15, True)]
)
def test_edge(offset: int, edge: bool) -> None:
    assert at_edge(offset) is edge


def test_edge_of_another_range() -> None:
    assert at_edge(-9, vshift=10)
    assert not at_edge(8, vshift=10)


@pytest.mark.parametrize("score", [sync_scores, valid_sync_scores, frame_distances])
def test_nothing_to_compare_is_too_short(score) -> None:
    with pytest.raises(TooShort, match="0 windows of pictures and 5 of sound"):
        score(np.zeros((0, 8)), np.zeros((5, 8)))


def test_the_valid_variant_needs_a_pair_at_every_shift() -> None:
    video = vectors(6, 16, 8)
    assert valid_sync_scores(video, video).offset == 0
    with pytest.raises(TooShort, match="more than 15 windows, not 15"):
        valid_sync_scores(video, video[:15])


@pytest.mark.parametrize("score", [sync_scores, valid_sync_scores])
def test_bad_vectors_are_refused(score) -> None:
    good = vectors(7, 20, 8)
    with pytest.raises(InputError, match="8 and 7 dimensions"):
        score(good, good[:, :7])
    with pytest.raises(InputError, match="1 of 20 rows"):
        score(good, np.where(np.arange(20)[:, None] == 3, np.nan, good))
    with pytest.raises(InputError, match=r"\(N, D\)"):
        score(good[0], good)
    with pytest.raises(InputError, match="vshift is at least 1"):
        score(good, good, vshift=0)
