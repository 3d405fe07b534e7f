"""Bootstrap intervals against plain recomputation, and how often they hold the truth."""

import numpy as np
import pytest
from talkforge.core.errors import InputError
from talkforge.metrics import intervals
from talkforge.metrics.frechet import frechet_distance
from talkforge.metrics.intervals import bootstrap_mean, bootstrap_statistic, frechet_bootstrap


def clips(count: int, rows: int, dim: int, seed: int, *, shift: float = 0.0) -> list[np.ndarray]:
    """Clips whose rows share a centre of their own, between one row and twice `rows`."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 2 * rows, count) if rows > 1 else np.ones(count, int)
    return [rng.normal(size=(n, dim)) + rng.normal(size=dim) + shift for n in sizes]


class TestMean:
    def test_is_the_percentile_interval_of_resampled_means(self) -> None:
        values = np.random.default_rng(3).gamma(2.0, size=25)
        rng = np.random.default_rng(7)
        means = values[rng.integers(0, 25, (400, 25))].mean(axis=1)
        assert bootstrap_mean(values, n=400, seed=7) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-14)

    def test_width_is_that_of_the_standard_error(self) -> None:
        values = np.random.default_rng(0).normal(size=400)
        low, high = bootstrap_mean(values, n=4000)
        assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
        assert low < values.mean() < high

    @pytest.mark.parametrize(("n", "least", "most"), [(10, 0.86, 0.95), (30, 0.90, 0.97)])
    def test_coverage(self, n: int, least: float, most: float) -> None:
        """The percentile interval of few clips is known to be a little short: about 90% for 10 clips, 94% for 30."""
        rng, held = np.random.default_rng(2026), 0
        for trial in range(800):
            low, high = bootstrap_mean(rng.normal(3.0, 2.0, n), n=400, seed=trial)
            held += low <= 3.0 <= high
        assert least < held / 800 < most

    def test_seed_decides(self) -> None:
        values = list(range(20))
        assert bootstrap_mean(values, seed=5) == bootstrap_mean(values, seed=5)
        assert bootstrap_mean(values, seed=5) != bootstrap_mean(values, seed=6)

    def test_drawing_in_blocks_changes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(1).normal(size=30)
        whole = bootstrap_mean(values, n=100)
        monkeypatch.setattr(intervals, "DRAWN_AT_ONCE", 70)
        assert bootstrap_mean(values, n=100) == pytest.approx(whole, abs=1e-15)

    def test_equal_values_have_no_width(self) -> None:
        assert bootstrap_mean([2.5] * 6) == (2.5, 2.5)

    def test_one_clip_has_no_interval(self) -> None:
        assert bootstrap_mean([1.0]) is None
        assert bootstrap_mean([]) is None

    @pytest.mark.parametrize("values", [[1.0, np.nan], [1.0, np.inf], [[1.0], [2.0]]])
    def test_bad_values_are_refused(self, values: list) -> None:
        with pytest.raises(InputError):
            bootstrap_mean(values)


class TestStatistic:
    def test_of_a_mean_is_the_interval_of_the_mean(self) -> None:
        values = np.random.default_rng(3).normal(size=12)
        rng = np.random.default_rng(0)
        means = [values[rng.integers(0, 12, 12)].mean() for _ in range(300)]
        found = bootstrap_statistic(list(values), lambda drawn: float(np.mean(drawn)), 300)
        assert found == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-14)

    def test_recentred_moves_the_interval_about_the_estimate(self) -> None:
        """A largest value cannot grow by drawing again: its percentiles lie at or below the estimate."""
        values = list(np.random.default_rng(3).normal(size=12) + 5)
        plain = bootstrap_statistic(values, max, 500)
        moved = bootstrap_statistic(values, max, 500, recentred=True)
        assert plain[1] == max(values)
        assert moved[1] - moved[0] == pytest.approx(plain[1] - plain[0])
        assert moved[0] <= max(values) <= moved[1]

    def test_recentred_does_not_go_below_zero(self) -> None:
        assert (
            bootstrap_statistic([0.0, 0.1, 3.0, 4.0], lambda drawn: abs(np.mean(drawn) - 1.7), recentred=True)[0] == 0.0
        )

    def test_one_clip_has_no_interval(self) -> None:
        assert bootstrap_statistic([1.0], max) is None


class TestFrechet:
    """All ways of making replicates, against `frechet_distance` over the drawn clips' rows."""

    CASES = (
        pytest.param(12, 3, 60, "gram", id="fewer rows than dimensions"),
        pytest.param(40, 1, 60, "gram", id="one row a clip"),
        pytest.param(60, 6, 20, "moments", id="many rows"),
    )

    @staticmethod
    def naive(real: list[np.ndarray], generated: list[np.ndarray], n: int, seed: int) -> tuple[float, float]:
        def statistic(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
            return frechet_distance(np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]))

        return bootstrap_statistic(list(zip(real, generated, strict=True)), statistic, n, seed, recentred=True)

    @pytest.mark.parametrize(("count", "rows", "dim", "way"), CASES)
    def test_equals_plain_recomputation(self, count: int, rows: int, dim: int, way: str) -> None:
        real, generated = clips(count, rows, dim, 1), clips(count, rows, dim, 2, shift=0.4)
        assert intervals._uses_gram(*intervals._sides(real, generated)) == (way == "gram")
        wanted = self.naive(real, generated, 40, 9)
        assert frechet_bootstrap(real, generated, n=40, seed=9) == pytest.approx(wanted, abs=1e-8)

    @pytest.mark.parametrize("rank", [20, 3])
    def test_moments_that_do_not_fit_give_way_to_roots(self, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which lose no digits where the covariance is singular."""
        widen = np.random.default_rng(0).normal(size=(rank, 20))
        real, generated = ([rows @ widen for rows in clips(60, 6, rank, seed)] for seed in (1, 2))
        monkeypatch.setattr(intervals, "MOMENTS_BYTES", 0)
        wanted = self.naive(real, generated, 30, 0)
        assert frechet_bootstrap(real, generated, n=30) == pytest.approx(wanted, rel=1e-10)

    def test_both_engines_agree_where_they_meet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real, generated = clips(40, 2, 70, 1), clips(40, 2, 70, 2)
        assert intervals._uses_gram(*intervals._sides(real, generated))
        by_products = frechet_bootstrap(real, generated, n=30)
        monkeypatch.setattr(intervals, "GRAM_ROWS_PER_DIM", 0)
        monkeypatch.setattr(intervals, "MOMENTS_BYTES", 0)
        assert frechet_bootstrap(real, generated, n=30) == pytest.approx(by_products, rel=1e-10)

    def test_draws_of_fewer_rows_than_dimensions_keep_their_digits(self) -> None:
        """Just above what inner products are for: second moments would be singular, and 1e-9 off."""
        real, generated = clips(40, 2, 60, 1), clips(40, 2, 60, 2)
        assert not intervals._uses_gram(*intervals._sides(real, generated))
        wanted = self.naive(real, generated, 30, 0)
        assert frechet_bootstrap(real, generated, n=30) == pytest.approx(wanted, rel=1e-12)

    def test_products_are_formed_in_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real, generated = clips(12, 3, 60, 1), clips(12, 3, 60, 2)
        wanted = frechet_bootstrap(real, generated, n=30)
        monkeypatch.setattr(intervals, "COLUMNS", 7)
        monkeypatch.setattr(intervals, "BLOCK", 5)
        assert frechet_bootstrap(real, generated, n=30) == pytest.approx(wanted, rel=1e-10)

    def test_singular_moments(self) -> None:
        """Three varying dimensions of twenty: the square root is taken where the covariance is singular."""
        widen = np.random.default_rng(0).normal(size=(3, 20))
        real, generated = ([rows @ widen for rows in clips(60, 6, 3, seed)] for seed in (1, 2))
        wanted = self.naive(real, generated, 30, 0)
        assert frechet_bootstrap(real, generated, n=30) == pytest.approx(wanted, abs=1e-5)

    def test_far_from_the_origin(self) -> None:
        real, generated = clips(12, 3, 60, 1, shift=1e5), clips(12, 3, 60, 2, shift=1e5)
        assert frechet_bootstrap(real, generated, n=20) == pytest.approx(self.naive(real, generated, 20, 0), abs=1e-6)

    def test_holds_an_estimate_that_plain_percentiles_miss(self) -> None:
        real, generated = clips(30, 1, 60, 1), clips(30, 1, 60, 2)
        estimate = frechet_distance(np.concatenate(real), np.concatenate(generated))
        pairs = list(zip(real, generated, strict=True))
        plain = bootstrap_statistic(
            pairs, lambda drawn: frechet_distance(*(np.concatenate(side) for side in zip(*drawn, strict=True))), 100
        )
        low, high = frechet_bootstrap(real, generated, n=100)
        assert plain[0] > estimate
        assert low < estimate < high

    def test_pairs_are_drawn_together(self) -> None:
        """Generated = real + shift: every replicate of pairs has the same distance, so the interval has no width."""
        real = clips(15, 2, 50, 1)
        low, high = frechet_bootstrap(real, [rows + 0.5 for rows in real])
        assert high - low < 1e-9
        assert low == pytest.approx(0.25 * 50)

    def test_identical_sides(self) -> None:
        for count, rows, dim in ((2, 1, 5), (30, 8, 10)):
            real = clips(count, rows, dim, 1)
            low, high = frechet_bootstrap(real, real)
            assert low == 0.0
            assert high < 1e-10

    def test_constant_features(self) -> None:
        low, high = frechet_bootstrap([np.zeros((1, 4))] * 5, [np.full((1, 4), 3.0)] * 5)
        assert (low, high) == pytest.approx((36.0, 36.0))

    def test_seed_decides(self) -> None:
        real, generated = clips(10, 2, 30, 1), clips(10, 2, 30, 2)
        assert frechet_bootstrap(real, generated, seed=5) == frechet_bootstrap(real, generated, seed=5)
        assert frechet_bootstrap(real, generated, seed=5) != frechet_bootstrap(real, generated, seed=6)

    def test_long_work_is_cut_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real, generated = clips(10, 2, 30, 1), clips(10, 2, 30, 2)
        monkeypatch.setattr(intervals, "WORK", 0.0)
        assert frechet_bootstrap(real, generated, n=200) == frechet_bootstrap(real, generated, n=50)
        assert frechet_bootstrap(real, generated, n=20) != frechet_bootstrap(real, generated, n=50)

    def test_one_pair_has_no_interval(self) -> None:
        assert frechet_bootstrap(clips(1, 9, 3, 1), clips(1, 9, 3, 2)) is None

    def test_refusals(self) -> None:
        real = clips(4, 2, 5, 1)
        with pytest.raises(InputError, match="4 real clips for 3"):
            frechet_bootstrap(real, real[:3])
        with pytest.raises(InputError, match="without features"):
            frechet_bootstrap(real, [*real[:3], np.empty((0, 5))])
        with pytest.raises(InputError, match="different dimensions"):
            frechet_bootstrap(real, [*real[:3], np.ones((2, 6))])
        with pytest.raises(InputError, match="NaN"):
            frechet_bootstrap(real, [*real[:3], np.full((2, 5), np.nan)])
