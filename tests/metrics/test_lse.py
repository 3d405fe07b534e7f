"""Lip-sync scores against a plain loop, against the published arithmetic in PyTorch, and planted offsets; metrics."""

from statistics import median

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError, TooShort
from talkforge.metrics import lse
from talkforge.metrics.base import ClipScore, Pair, Score, Settings, metrics
from talkforge.metrics.lse import METRICS, at_edge, clip_scores, frame_distances, sync_scores, valid_sync_scores
from talkforge.tests.metrics.rows import HeldRow


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


def row(*tracks: tuple[np.ndarray, np.ndarray]) -> HeldRow:
    """A SyncNet row of these tracks' looks and sounds."""
    numbers = [np.full(len(video), k, np.int16) for k, (video, _) in enumerate(tracks)]
    video, audio = (np.concatenate(side).astype(np.float32) for side in zip(*tracks, strict=True))
    return HeldRow({"video": video, "audio": audio, "track": np.concatenate(numbers)})


def pair(name: str, generated: HeldRow | None, real: HeldRow, extractor: str = "syncnet-v2-direct") -> Pair:
    return Pair(name, None if generated is None else {extractor: generated}, {extractor: real})


def scored(metric: str, pairs: list[Pair]) -> Score:
    return metrics.get(metric).score(pairs, Settings(bootstrap=50))


class TestMetrics:
    """From rows to a set's number."""

    def test_tracks_are_scored_apart_and_averaged(self) -> None:
        """One row of two tracks; the offset is the longer one's."""
        short, long = planted(2, 40, 1), planted(-5, 70, 2)
        one, two = (
            sync_scores(*(side.astype(np.float32) for side in short)),
            sync_scores(*(side.astype(np.float32) for side in long)),
        )
        found = clip_scores(row(short, long))
        assert found.offset == two.offset == -5
        assert found.distance == pytest.approx((one.distance + two.distance) / 2)
        assert found.confidence == pytest.approx((one.confidence + two.confidence) / 2)
        together = sync_scores(*(np.concatenate(sides) for sides in zip(short, long, strict=True)))
        assert abs(together.distance - found.distance) > 0.1, "tracks scored as one would be another number"

    def test_the_set_is_the_mean_over_clips(self) -> None:
        clips = [planted(offset, 60, seed) for seed, offset in enumerate((3, -4, 0))]
        pairs = [pair(str(k), row(clip), row(planted(1, 60, 9))) for k, clip in enumerate(clips)]
        single = [clip_scores(row(clip)) for clip in clips]
        for name, wanted in (
            ("lse_c", [one.confidence for one in single]),
            ("lse_d", [one.distance for one in single]),
            ("sync_offset", [3, 4, 0]),
        ):
            score = scored(f"{name}:syncnet-v2-direct", pairs)
            assert score.value == pytest.approx(np.mean(wanted))
            assert score.ci95 is not None and score.ci95[0] <= score.value <= score.ci95[1]
            assert score.notes == ()
        assert score.real_vs_real == 1
        assert [clip.value for clip in score.clips] == [3, -4, 0], "a clip keeps its sign"

    def test_a_clip_without_a_track_has_a_reason_and_no_part_in_the_mean(self) -> None:
        good, real = row(planted(0, 60)), row(planted(0, 60))
        reasons = ["no_face", "no_track", "too_short", "silent_audio"]
        pairs = [pair("good", good, real), *(pair(why, HeldRow({}, why, "why"), real) for why in reasons)]
        score = scored("lse_d:syncnet-v2-direct", [*pairs, pair("absent", None, real)])
        assert score.value == pytest.approx(clip_scores(good).distance)
        assert score.rejects == dict.fromkeys(sorted([*reasons, "no_features"]), 1)
        assert score.clips[1] == ClipScore("no_face", None, "no_face", "generated: why")
        none = scored("lse_d:syncnet-v2-direct", pairs[1:2])
        assert (none.value, none.reason) == (None, "no_face")

    def test_an_offset_at_the_edge_is_told(self) -> None:
        pairs = [
            pair("edge", row(planted(14, 90)), row(planted(0, 90))),
            pair("in", row(planted(13, 90)), row(planted(0, 90))),
        ]
        score = scored("sync_offset:syncnet-v2-direct-valid", pairs)
        assert [clip.value for clip in score.clips] == [14, 13]
        assert "at the edge" in score.clips[0].message and not score.clips[1].message
        assert score.notes[0].startswith("1 of 2 clips")

    def test_valid_pairs_are_another_number_and_need_longer_tracks(self) -> None:
        clip, real = planted(6, 60), row(planted(0, 60))
        published, valid = (
            scored(f"lse_d:syncnet-v2-direct{suffix}", [pair("a", row(clip), real)]) for suffix in ("", "-valid")
        )
        assert published.value is not None and valid.value is not None
        assert published.value > valid.value * 1.2
        short = row(planted(0, 15))
        assert scored("lse_d:syncnet-v2-direct", [pair("a", short, real)]).value is not None
        assert scored("lse_d:syncnet-v2-direct-valid", [pair("a", short, real)]).reason == "too_short"

    def test_scores_are_made_once_a_row_and_forgotten_with_it(self) -> None:
        class Counted(HeldRow):
            def array(self, column: str) -> np.ndarray:
                reads.append(column)
                return super().array(column)

        reads: list[str] = []
        for seed in (0, 1):
            held = Counted(row(planted(0, 60, seed)).columns)
            values = [scored(f"{name}:syncnet-v2-direct", [pair("a", held, held)]).value for name in ("lse_c", "lse_d")]
            assert values == [clip_scores(held).confidence, clip_scores(held).distance]
            del held
        assert reads.count("video") == 2 * 3, "once a row for the metrics, twice here"
        assert not lse._KNOWN

    def test_declarations(self) -> None:
        ids = [metric.spec.id for metric in METRICS]
        assert len(set(ids)) == len(ids) == 15
        comparable = {metric.spec.id for metric in METRICS if metric.spec.comparable_with_papers}
        assert comparable == {
            f"{name}:syncnet-v2-compat{suffix}" for name in ("lse_c", "lse_d") for suffix in ("", "-min50")
        }
        for metric in METRICS:
            assert metric.spec.higher_is_better == metric.spec.id.startswith("lse_c")
            assert metric.spec.protocol["beyond the ends"] == ("left out" if metric.valid else "zero vectors")
