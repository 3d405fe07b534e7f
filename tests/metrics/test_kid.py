"""Kernel distance against torchmetrics and its definition; extrapolation on Gaussians of known distance."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from talkforge.core.errors import InputError
from talkforge.metrics.frechet import frechet_distance
from talkforge.metrics.kid import extrapolate_frechet, full_kernel_distance, kernel_distance
from talkforge.tests.models.reference import run_beside_torchvision

TORCHMETRICS = """
from torchmetrics.image.kid import KernelInceptionDistance
arrays, answers = sys.argv[1:]
sides = [torch.from_numpy(np.load(arrays)[name]) for name in "xy"]
found = []
for subsets, size in ((1, len(sides[0])), (400, 50)):
    torch.manual_seed(0)
    metric = KernelInceptionDistance(torch.nn.Identity(), subsets=subsets, subset_size=size)
    metric.set_dtype(torch.float64)
    metric.update(sides[0], real=True)
    metric.update(sides[1], real=False)
    found.append([float(value) for value in metric.compute()])
np.save(answers, found)
"""


def gaussian(seed: int, n: int, dim: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, scale, (n, dim))


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


class TestKernelDistance:
    """The unbiased squared maximum mean discrepancy."""

    def test_equals_torchmetrics(self, tmp_path: Path) -> None:
        """Over all rows to rounding; over subsets, which each draws in its own way, within the error of the means."""
        if find_spec("torchmetrics") is None:
            pytest.skip("torchmetrics is not installed")
        x, y = gaussian(1, 200, 16), gaussian(2, 200, 16, shift=0.3, scale=1.2)
        np.savez(tmp_path / "xy.npz", x=x, y=y)
        run_beside_torchvision(TORCHMETRICS, tmp_path / "xy.npz", tmp_path / "answers.npy")
        (whole, _), (mean, std) = np.load(tmp_path / "answers.npy")
        assert full_kernel_distance(x, y) == pytest.approx(whole, rel=1e-10)
        assert kernel_distance(x, y, subsets=1, subset_size=200) == pytest.approx((whole, 0.0), rel=1e-10)
        ours = kernel_distance(x, y, subsets=400, subset_size=50)
        assert abs(ours[0] - mean) < 4 * std * (2 / 400) ** 0.5
        assert ours[1] == pytest.approx(std, rel=0.15)

    @pytest.mark.parametrize(("n", "m"), [(2, 2), (7, 4), (3, 9)])
    def test_equals_the_definition_written_as_loops(self, n: int, m: int) -> None:
        x, y = gaussian(3, n, 5), gaussian(4, m, 5, shift=1)
        assert full_kernel_distance(x, y) == pytest.approx(by_definition(x, y), rel=1e-12)

    def test_closed_form(self) -> None:
        """Rows of one value a against rows of another b, in one dimension."""
        a, b = 2.0, -1.0
        wanted = (a * a + 1) ** 3 + (b * b + 1) ** 3 - 2 * (a * b + 1) ** 3
        assert full_kernel_distance(np.full((5, 1), a), np.full((8, 1), b)) == pytest.approx(wanted)

    def test_does_not_depend_on_the_blocks_in_which_it_is_summed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, y = gaussian(5, 50, 6), gaussian(6, 41, 6, shift=0.5)
        whole = full_kernel_distance(x, y)
        monkeypatch.setattr("talkforge.metrics.kid.ROWS_AT_ONCE", 7)
        assert full_kernel_distance(x, y) == pytest.approx(whole, rel=1e-12)

    def test_small_samples_do_not_bias_it(self) -> None:
        """Over many small samples of one source it averages to 0, on both sides of which it comes out."""
        values = np.array(
            [full_kernel_distance(gaussian(2 * i, 20, 8), gaussian(2 * i + 1, 20, 8)) for i in range(400)]
        )
        assert abs(values.mean()) < 3 * values.std() / 400**0.5
        assert 0.3 < (values < 0).mean() < 0.8

    def test_it_is_symmetric_and_ignores_order(self) -> None:
        x, y = gaussian(7, 30, 6), gaussian(8, 20, 6, shift=0.2)
        assert full_kernel_distance(x, y) == pytest.approx(full_kernel_distance(y[::-1], x), rel=1e-10)

    def test_it_grows_with_the_shift(self) -> None:
        values = [full_kernel_distance(gaussian(9, 300, 6), gaussian(10, 300, 6, shift=s)) for s in (0.0, 0.5, 1.0, 2)]
        assert values == sorted(values)

    def test_the_seed_decides(self) -> None:
        x, y = gaussian(11, 60, 6), gaussian(12, 50, 6)
        same = [kernel_distance(x, y, subsets=5, subset_size=20, seed=s) for s in (1, 1, 2)]
        assert same[0] == same[1] != same[2]

    def test_what_cannot_be_drawn_is_refused(self) -> None:
        x, y = gaussian(13, 30, 6), gaussian(14, 20, 6)
        for subsets, size in ((1, 21), (1, 1), (0, 5)):
            with pytest.raises(InputError, match="cannot be drawn from 30 and 20"):
                kernel_distance(x, y, subsets=subsets, subset_size=size)
        with pytest.raises(InputError, match="6 and 5 dimensions"):
            full_kernel_distance(x, y[:, :5])
        with pytest.raises(InputError, match="at least 2 rows"):
            full_kernel_distance(x[:1], y)
        with pytest.raises(InputError, match="1 of 20 rows"):
            full_kernel_distance(x, np.where(np.arange(20)[:, None] == 3, np.nan, y))


class TestExtrapolation:
    """To infinitely many samples."""

    def test_gaussians_of_known_distance(self) -> None:
        """d = 8: a shift of 0.5 in each axis and deviations 1 and 1.5 make 8 (0.25 + 0.25) = 4. Over 30 samples the
        plain distance is too large on average, and the extrapolated one is not."""
        plain, extrapolated = [], []
        for i in range(30):
            x, y = gaussian(2 * i, 120, 8), gaussian(2 * i + 1, 120, 8, shift=0.5, scale=1.5)
            plain.append(frechet_distance(x, y))
            found = extrapolate_frechet(x[:, None], y[:, None], points=6, seed=i)
            assert found is not None
            extrapolated.append(found.value)
        bias = np.mean(plain) - 4
        error = np.std(extrapolated) / 30**0.5
        assert bias > 0.15
        assert abs(np.mean(extrapolated) - 4) < 2.5 * error
        assert error < bias / 2

    def test_the_slope_is_the_bias_at_full_size(self) -> None:
        x, y = gaussian(1, 150, 8), gaussian(2, 150, 8)
        found = extrapolate_frechet(x[:, None], y[:, None])
        assert found is not None
        assert found.distances[-1] == pytest.approx(frechet_distance(x, y), rel=1e-9)
        assert found.value + found.slope == pytest.approx(found.distances[-1], abs=5 * found.error + 0.01)
        assert found.shares[[0, -1]] == pytest.approx([0.25, 1.0], abs=0.01)
        assert (np.diff(found.distances[[0, 7, 14]]) < 0).all()

    def test_value_and_error_are_those_of_the_least_squares_line(self) -> None:
        x, y = gaussian(3, 100, 4), gaussian(4, 100, 4, shift=1)
        found = extrapolate_frechet(x[:, None], y[:, None], points=8)
        assert found is not None
        from scipy.stats import linregress

        wanted = linregress(1 / found.shares, found.distances)
        assert found.value == pytest.approx(wanted.intercept, rel=1e-10)
        assert found.slope == pytest.approx(wanted.slope, rel=1e-10)
        assert found.error == pytest.approx(wanted.intercept_stderr, rel=1e-8)

    def test_clips_are_never_split(self) -> None:
        """Frames of a clip are all alike, so parts of clips could not raise the distance; fewer clips do."""
        x, y = (gaussian(seed, 40, 3).repeat(10, axis=0).reshape(40, 10, 3) for seed in (5, 6))
        found = extrapolate_frechet(list(x), list(y), points=5)
        assert found is not None
        assert found.slope > 0.02
        assert found.value < found.distances[-1]

    def test_sides_may_differ_in_clips(self) -> None:
        x, y = gaussian(7, 200, 4), gaussian(8, 100, 4, shift=1)
        found = extrapolate_frechet(x[:, None], y[:, None])
        assert found is not None
        assert found.value == pytest.approx(4, rel=0.35)

    def test_the_seed_decides(self) -> None:
        x, y = gaussian(9, 40, 3)[:, None], gaussian(10, 40, 3)[:, None]
        values = [extrapolate_frechet(x, y, points=4, seed=seed).value for seed in (1, 1, 2)]  # type: ignore[union-attr]
        assert values[0] == values[1] != values[2]

    def test_few_clips_give_no_line(self) -> None:
        groups = list(gaussian(11, 7, 3)[:, None])
        assert extrapolate_frechet(groups, groups) is None
        assert extrapolate_frechet([*groups, np.zeros((0, 3))], [*groups, *groups]) is None

    @pytest.mark.parametrize("wrong", [{"points": 2}, {"smallest": 0.0}, {"smallest": 1.0}, {"repeats": 0}])
    def test_no_line_through_too_little(self, wrong: dict) -> None:
        groups = list(gaussian(12, 20, 3)[:, None])
        with pytest.raises(InputError, match="no line"):
            extrapolate_frechet(groups, groups, **wrong)
