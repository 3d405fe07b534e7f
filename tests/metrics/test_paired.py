"""Paired differences: against plain loops and Student's t, and how often chance is taken for a difference."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from talkforge.core.errors import InputError
from talkforge.metrics import intervals
from talkforge.metrics.frechet import frechet_distance
from talkforge.metrics.paired import (
    PairedDifference,
    paired_frechet,
    paired_mean,
    paired_statistic,
    stretch,
    summarised,
)
from talkforge.tests.metrics.test_intervals import clips

Rows = list[np.ndarray]


class TestMean:
    def test_equals_a_plain_loop(self) -> None:
        a, b = np.random.default_rng(1).gamma(2.0, size=(2, 9))
        rng, gaps = np.random.default_rng(4), []
        for _ in range(300):
            drawn = rng.integers(0, 9, 9)
            gaps.append(a[drawn].mean() - b[drawn].mean())
        value = a.mean() - b.mean()
        moved = value + stats.t.ppf(0.975, 8) / stats.norm.ppf(0.975) * np.sqrt(9 / 8) * (np.array(gaps) - value)
        found = paired_mean(a, b, 300, seed=4)
        assert found.value == pytest.approx(value, abs=1e-15)
        assert found.ci95 == pytest.approx(np.quantile(moved, [0.025, 0.975]), abs=1e-6)
        beyond = min((moved <= 0).sum(), (moved >= 0).sum())
        assert found.p_value == pytest.approx(2 * (beyond + 1) / 301)

    @pytest.mark.parametrize("count", [5, 12, 60])
    def test_the_interval_of_even_differences_is_students(self, count: int) -> None:
        """Normal scores as differences: nothing is skewed, so the t interval is what should come out."""
        gaps = stats.norm.ppf((np.arange(count) + 0.5) / count) + 0.3
        found = paired_mean(gaps, np.zeros(count), 20_000)
        wanted = stats.t.interval(0.95, count - 1, gaps.mean(), stats.sem(gaps))
        assert found.ci95 == pytest.approx(wanted, abs=0.04 * (wanted[1] - wanted[0]))

    def test_what_both_find_hard_cancels(self) -> None:
        """Two methods that differ by the same on every clip: no doubt, however much the clips differ."""
        hard = np.random.default_rng(0).normal(0, 50, 12)
        found = paired_mean(hard + 1, hard)
        assert found.ci95 == pytest.approx((1.0, 1.0))
        assert found.p_value == pytest.approx(2 / 1001)
        assert found.established

    def test_the_same_run_differs_by_nothing(self) -> None:
        values = np.random.default_rng(0).normal(size=20)
        assert paired_mean(values, values) == PairedDifference(0.0, (0.0, 0.0), 1.0, 20)

    def test_swapped_sides_swap_the_sign_alone(self) -> None:
        a, b = np.random.default_rng(5).normal(size=(2, 15))
        one, other = paired_mean(a, b + 0.3), paired_mean(b + 0.3, a)
        assert (one.value, one.p_value) == (-other.value, other.p_value)
        assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]))

    @pytest.mark.parametrize("count", [2, 3, 4, 5])
    def test_five_clips_establish_nothing(self, count: int) -> None:
        found = paired_mean(np.ones(count), np.zeros(count))
        assert found.p_value == 2.0 ** (1 - count)
        assert not found.established

    def test_one_clip_has_a_difference_and_no_more(self) -> None:
        found = paired_mean([3.0], [1.0])
        assert found == PairedDifference(2.0, None, None, 1)
        assert not found.established

    def test_drawing_in_blocks_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        a, b = np.random.default_rng(1).normal(size=(2, 30))
        whole = paired_mean(a, b, 100)
        monkeypatch.setattr("talkforge.metrics.paired.DRAWN_AT_ONCE", 70)
        assert paired_mean(a, b, 100) == whole

    @pytest.mark.parametrize("sides", [([1.0], [1.0, 2.0]), ([], []), ([np.nan], [1.0]), ([[1.0]], [[1.0]])])
    def test_what_is_no_pair_is_refused(self, sides: tuple[list, list]) -> None:
        with pytest.raises(InputError):
            paired_mean(*sides)

    @staticmethod
    def without_a_difference(count: int, trials: int) -> list[PairedDifference]:
        rng = np.random.default_rng(2026)
        return [paired_mean(*rng.normal(size=(2, count)), 200, seed) for seed in range(trials)]

    def test_p_is_even_where_there_is_no_difference(self) -> None:
        """A share x of trials has p up to x; three standard errors are 0.02 at 0.05 and 0.05 at 0.5."""
        p = np.array([one.p_value for one in self.without_a_difference(40, 1000)])
        assert [(p <= x).mean() for x in (0.25, 0.5, 0.75)] == pytest.approx([0.25, 0.5, 0.75], abs=0.05)
        assert (p <= 0.05).mean() == pytest.approx(0.05, abs=0.02)

    def test_seven_clips_keep_the_level(self) -> None:
        """Plain percentiles would take chance for a difference in 12% of such trials, as t with 6 degrees tells."""
        found = self.without_a_difference(7, 1000)
        assert np.mean([one.ci95[0] <= 0 <= one.ci95[1] for one in found]) == pytest.approx(0.95, abs=0.02)
        assert np.mean([one.established for one in found]) < 0.07
        assert np.mean([one.p_value <= 0.5 for one in found]) < 0.5


def methods(count: int, dim: int, seed: int, *, shift: float = 0.0) -> tuple[Rows, Rows, Rows]:
    """Real clips and two methods': each clip's centre is the real one's with noise."""
    rng = np.random.default_rng(seed)
    real = clips(count, 4, dim, seed)
    a, b = ([rows + rng.normal(0, 0.5, dim) for rows in real] for _ in range(2))
    return real, [rows + shift for rows in a], b


class TestFrechet:
    @pytest.mark.parametrize(("count", "dim", "gram"), [(12, 60, True), (60, 12, False)])
    def test_equals_a_plain_loop(self, count: int, dim: int, gram: bool) -> None:
        real, a, b = methods(count, dim, 1, shift=0.1)
        assert intervals._uses_gram(*intervals._sides(real, a)) == gram

        def distance(side: Rows, drawn: np.ndarray) -> float:
            return frechet_distance(np.concatenate([side[i] for i in drawn]), np.concatenate([real[i] for i in drawn]))

        rng, everything = np.random.default_rng(3), np.arange(count)
        value = distance(a, everything) - distance(b, everything)
        draws = [rng.integers(0, count, count) for _ in range(60)]
        replicates = np.array([distance(a, drawn) - distance(b, drawn) for drawn in draws])
        wanted = summarised(value, replicates, [count], recentred=True)
        found = paired_frechet(real, a, b, 60, seed=3)
        assert (found.value, found.p_value) == (pytest.approx(value), pytest.approx(wanted.p_value))
        assert found.ci95 == pytest.approx(wanted.ci95, abs=1e-7)

    def test_the_same_run_differs_by_nothing(self) -> None:
        real, a, _ = methods(10, 30, 2)
        assert paired_frechet(real, a, a, 50) == PairedDifference(0.0, (0.0, 0.0), 1.0, 10)

    def test_swapped_sides_swap_the_sign_alone(self) -> None:
        real, a, b = methods(10, 30, 2, shift=0.05)
        one, other = paired_frechet(real, a, b, 60), paired_frechet(real, b, a, 60)
        assert (one.value, one.p_value) == (-other.value, other.p_value)
        assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]))

    def test_a_farther_method_is_farther(self) -> None:
        real, a, b = methods(30, 10, 7, shift=0.5)
        found = paired_frechet(real, a, b, 100)
        assert found.value > 0
        assert found.established

    def test_one_clip_has_a_difference_and_no_more(self) -> None:
        real, a, b = methods(4, 3, 0)
        sides = [[np.concatenate(side)] for side in (real, a, b)]
        assert paired_frechet(*sides).ci95 is None
        with pytest.raises(InputError):
            paired_frechet(real, a, b[:-1])

    def test_like_methods_are_seldom_told_apart(self) -> None:
        """Twelve clips of four dimensions, no difference by construction: 1% of 200 such trials, 5% is promised."""
        found = [paired_frechet(*methods(12, 4, seed), 60, seed) for seed in range(80)]
        assert sum(one.established for one in found) <= 4
        assert np.mean([one.value > 0 for one in found]) == pytest.approx(0.5, abs=0.17)


def zero(counts: np.ndarray) -> float:
    return 0.0


class TestStatistic:
    def test_of_means_is_the_paired_mean(self) -> None:
        a, b = np.random.default_rng(3).normal(size=(2, 12))
        engines = [lambda counts, side=side: float(counts @ side / counts.sum()) for side in (a, b)]
        found = paired_statistic(a.mean() - b.mean(), engines[0], engines[1], 12, 200, 8)
        wanted = paired_mean(a, b, 200, 8)
        assert found.ci95 == pytest.approx(wanted.ci95, abs=1e-12)
        assert found.p_value == wanted.p_value

    def test_the_middle_of_biased_replicates_is_moved_onto_the_difference(self) -> None:
        replicates = np.random.default_rng(0).normal(5.0, 1.0, 999)
        found = summarised(1.0, replicates, [200], recentred=True)
        assert sum(found.ci95) / 2 == pytest.approx(1.0, abs=0.1)
        assert found.ci95[1] - found.ci95[0] == pytest.approx(2 * 1.96 * stretch([200]), rel=0.1)

    def test_groups_are_drawn_among_themselves(self) -> None:
        """Clips that differ between groups alone leave no doubt about a mean of group means."""
        labels = ["a"] * 4 + ["b"] * 8
        values = np.array([1.0] * 4 + [5.0] * 8)

        def mean(counts: np.ndarray) -> float:
            assert (counts[:4].sum(), counts[4:].sum()) == (4, 8)
            return float(counts @ values / 12)

        found = paired_statistic(values.mean(), mean, lambda counts: 0.0, 12, 60, strata=labels)
        assert found.ci95 == pytest.approx((values.mean(), values.mean()))

    def test_a_draw_of_a_group_holds_so_many_different_clips(self) -> None:
        """Of three clips one draw in nine would be one of them alone; how likely others are stays as it is."""
        seen: list[tuple[int, ...]] = []
        paired_statistic(0.0, lambda n: seen.append(tuple(n[:3])) or 0.0, zero, 5, 900, strata=[*"aaabb"], distinct=2)
        assert max(max(counts) for counts in seen) == 2 and len(set(seen)) == 7
        assert seen.count((1, 1, 1)) / len(seen) == pytest.approx(6 / 24, abs=0.05)
        with pytest.raises(InputError, match="1 clips holds no 2 different"):
            paired_statistic(0.0, zero, zero, 3, 60, strata=[*"aab"], distinct=2)

    def test_groups_keep_the_level(self) -> None:
        """Five clips of each of three emotions, no difference: the mean of their means."""
        labels, rng, held = np.repeat(["a", "b", "c"], 5).tolist(), np.random.default_rng(1), []
        for seed in range(300):
            gaps = rng.normal(size=15)
            found = paired_statistic(
                gaps.mean(), lambda n, gaps=gaps: n @ gaps / 15, zero, 15, 150, seed, strata=labels
            )
            held.append(found.ci95[0] <= 0 <= found.ci95[1])
        assert np.mean(held) == pytest.approx(0.95, abs=0.04)

    def test_a_group_of_one_clip_has_no_interval(self) -> None:
        found = paired_statistic(1.0, lambda counts: 1.0, zero, 4, 60, strata=["a", "a", "a", "b"])
        assert (found.ci95, found.clips) == (None, 4)

    def test_draws_without_a_value_do_not_count(self) -> None:
        a = np.array([np.nan] + [1.0] * 9)

        def mean(counts: np.ndarray) -> float:
            return float(counts @ a)

        found = paired_statistic(0.5, mean, lambda counts: 0.0, 10, 200)
        assert found.ci95 is None  # every product with the unknown value is unknown
        assert found.value == 0.5
