"""Rows read clip by clip: the values are those of arrays in memory, and few rows are in memory at a time."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from talkforge.core.errors import InputError
from talkforge.core.shards import write_table
from talkforge.metrics import clip_rows, intervals
from talkforge.metrics.base import FrechetMetric, MetricSpec, Pair, Settings
from talkforge.metrics.clip_rows import ClipRows, FirstReading
from talkforge.metrics.companions import ExtrapolatedMetric, KernelMetric
from talkforge.metrics.compare import compare
from talkforge.tasks.features import FeatureRow, to_arrow
from talkforge.tests.metrics.rows import HeldRow

SPEC = MetricSpec(
    id="test:set",
    title="",
    unit="",
    higher_is_better=False,
    what="",
    formula="",
    source="",
    generated=("look",),
    real=("look",),
    comparable_with_papers=False,
    why="",
)
QUICK = Settings(bootstrap=50, frechet_bootstrap=12)
METRICS = [kind(SPEC, "v") for kind in (FrechetMetric, KernelMetric, ExtrapolatedMetric)]


def clips(count: int, dim: int, seed: int, rows: int = 12) -> list[np.ndarray]:
    """Clips of 1 to `rows` frames, in half precision as stores hold them."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, rows + 1, count)
    return [(rng.normal(size=(n, dim)) + rng.normal(size=dim)).astype(np.float16) for n in sizes]


@dataclass
class Counted:
    """Makes rows when asked for and knows how many are alive."""

    alive: int = 0
    most: int = 0

    def row(self, rows: np.ndarray) -> HeldRow:
        return MadeAnew({"v": rows}, counted=self)

    def hand_out(self, rows: np.ndarray) -> np.ndarray:
        fresh = rows.copy()
        self.alive += len(rows)
        self.most = max(self.most, self.alive)
        weakref.finalize(fresh, self._gone, len(rows))
        return fresh

    def _gone(self, count: int) -> None:
        self.alive -= count


@dataclass(frozen=True)
class MadeAnew(HeldRow):
    counted: Counted | None = None

    def array(self, column: str) -> np.ndarray:
        assert self.counted is not None
        return self.counted.hand_out(super().array(column))


def stored(path: Path, rows: np.ndarray) -> FeatureRow:
    none = pa.array([None], pa.string())
    kind = pa.list_(pa.list_(pa.float16(), rows.shape[1]))
    write_table(path, pa.table({"reason": none, "message": none, "v": to_arrow(rows, kind)}))
    return FeatureRow(path)


def pairs_of(generated: list, real: list) -> list[Pair]:
    return [Pair(str(k), {"look": a}, {"look": b}) for k, (a, b) in enumerate(zip(generated, real, strict=True))]


@pytest.fixture
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All rows are too many to be kept, and all moments as well."""
    monkeypatch.setattr(clip_rows, "KEPT_BYTES", 0)
    monkeypatch.setattr(intervals, "MOMENTS_BYTES", 0)
    yield


class TestClipRows:
    def test_is_a_sequence_of_arrays(self) -> None:
        groups = clips(5, 3, 0)
        rows = ClipRows.of(groups)
        assert len(rows) == 5 and rows.dim == 3 and rows.total == sum(map(len, groups))
        assert all(a is b for a, b in zip(rows, groups, strict=True))
        assert rows[-1] is groups[4] and [len(one) for one in rows[1:3]] == [len(one) for one in groups[1:3]]
        assert ClipRows.of(rows) is rows
        with pytest.raises(IndexError):
            rows[5]

    def test_selections_follow_the_numbers(self) -> None:
        groups = clips(5, 3, 0)
        chosen = ClipRows.of(groups).select([3, 3, 0])
        assert [id(one) for one in chosen] == [id(groups[k]) for k in (3, 3, 0)]
        assert chosen.sizes.tolist() == [len(groups[k]) for k in (3, 3, 0)]
        assert len(chosen.select([])) == 0 and chosen.select([]).total == 0

    @pytest.mark.parametrize("step", [1, 3, 20])
    def test_thinning_keeps_each_clips_first_row(self, step: int) -> None:
        groups = clips(6, 3, 1)
        few = ClipRows.of(groups).every(step)
        assert all(np.array_equal(a, b[::step]) for a, b in zip(few, groups, strict=True))
        assert few.sizes.tolist() == [len(rows) for rows in few]

    @pytest.mark.parametrize("most", [1, 5, 12, 1000])
    @pytest.mark.parametrize("counts", [None, np.array([0, 2, 0, 1, 1, 0, 3])])
    def test_pieces_are_all_rows_in_order(self, most: int, counts: np.ndarray | None) -> None:
        groups = clips(7, 3, 2)
        kept = [k for k in range(7) if counts is None or counts[k]]
        found = [(rows.copy(), clip.copy()) for rows, clip in ClipRows.of(groups).pieces(most, counts)]
        assert all(len(rows) == most for rows, _ in found[:-1]) and 0 < len(found[-1][0]) <= most
        assert np.array_equal(np.concatenate([rows for rows, _ in found]), np.concatenate([groups[k] for k in kept]))
        assert (
            np.concatenate([clip for _, clip in found]).tolist()
            == np.repeat(kept, [len(groups[k]) for k in kept]).tolist()
        )

    def test_refusals(self) -> None:
        with pytest.raises(InputError, match=r"different dimensions: \[3, 4\]"):
            ClipRows.of([np.ones((2, 3)), np.ones((2, 4))])
        with pytest.raises(InputError, match="not of shape"):
            ClipRows.of([np.ones(3)])
        assert len(ClipRows.of([])) == 0

    @pytest.mark.parametrize(("bound", "reads"), [(10**6, 5), (200, 10), (0, 10)])
    def test_few_rows_are_read_once_and_many_again(
        self, monkeypatch: pytest.MonkeyPatch, bound: int, reads: int
    ) -> None:
        monkeypatch.setattr(clip_rows, "KEPT_BYTES", bound)
        groups, numbers = [np.full((4, 3), float(k)) for k in range(5)], []

        def read(k: int) -> np.ndarray:
            numbers.append(k)
            return groups[k]

        reading = FirstReading(read)
        assert [reading.next()[0, 0] for _ in groups] == [0, 1, 2, 3, 4]
        assert [rows[0, 0] for rows in reading.clips()] == [0, 1, 2, 3, 4]
        assert len(numbers) == reads and reading.clips().sizes.tolist() == [4] * 5


class TestMetrics:
    """Scores over stored rows are those over arrays in memory, at both sides of where engines change."""

    @pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
    @pytest.mark.parametrize("dim", [6, 300])
    def test_stored_rows_score_as_arrays(self, metric: FrechetMetric, dim: int, tmp_path: Path, nothing_kept) -> None:
        sides = clips(20, dim, 1), clips(20, dim, 2)
        held = pairs_of(*([HeldRow({"v": rows.astype(np.float64)}) for rows in side] for side in sides))
        read = pairs_of(
            *(
                [stored(tmp_path / f"{n}-{k}.parquet", rows) for k, rows in enumerate(side)]
                for n, side in enumerate(sides)
            )
        )
        wanted, found = metric.score(held, QUICK), metric.score(read, QUICK)
        assert found.value == pytest.approx(wanted.value, rel=1e-12)
        assert found.ci95 == pytest.approx(wanted.ci95, rel=1e-9)
        assert found.real_vs_real == pytest.approx(wanted.real_vs_real, rel=1e-12)
        assert found.notes == wanted.notes
        assert [clip.value for clip in found.clips] == pytest.approx([clip.value for clip in wanted.clips], rel=1e-6)

    @pytest.mark.parametrize("metric", METRICS, ids=lambda metric: type(metric).__name__)
    @pytest.mark.parametrize("dim", [6, 300])
    def test_few_rows_are_alive_at_a_time(self, metric: FrechetMetric, dim: int, nothing_kept) -> None:
        """Of some 200 rows a side no more than those of three clips."""
        counted = Counted()
        sides = [[counted.row(rows) for rows in clips(30, dim, seed)] for seed in (1, 2)]
        assert metric.score(pairs_of(*sides), QUICK).ci95 is not None
        assert 12 < counted.most <= 3 * 12 and counted.alive == 0

    def test_a_row_forgets_what_it_has_read(self, tmp_path: Path) -> None:
        row = stored(tmp_path / "row.parquet", np.ones((3, 2), np.float16))
        assert row.reason is None and row.message == ""
        one = weakref.ref(array := row.array("v"))
        assert array.tolist() == [[1, 1]] * 3 and array.dtype == np.float16
        del array
        assert one() is None

    def test_few_rows_are_compared_as_well(self, nothing_kept) -> None:
        a, b = (pairs_of(*([HeldRow({"v": rows}) for rows in clips(20, 6, s)] for s in (k, 2))) for k in (1, 3))
        metric = METRICS[0]
        score, other = metric.score(a, QUICK), metric.score(b, QUICK)
        found = compare(metric, a, b, replace(QUICK, frechet_bootstrap=60), score)
        assert found.difference == pytest.approx(score.value - other.value, rel=1e-9) and found.ci95 is not None


def peak(frames: int, dim: int = 128) -> int:
    """Bytes that a Fréchet distance with interval and halves has at most, over clips of 50 frames."""

    source, counted = np.random.default_rng(0).normal(size=(2, 120, dim)).astype(np.float16), Counted()
    sides = [[counted.row(side[k % 70 : k % 70 + 50]) for k in range(frames // 50)] for side in source]
    pairs = pairs_of(*sides)
    METRICS[0].score(pairs[:8], Settings(frechet_bootstrap=1))  # what only the first call needs
    tracemalloc.start()
    try:
        METRICS[0].score(pairs, Settings(frechet_bootstrap=2))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_frames(nothing_kept) -> None:
    """From 1,000 to 8,000 frames, the number of clips with them."""
    few, many = peak(1_000), peak(8_000)
    assert many == pytest.approx(few, rel=0.1)
