"""Fréchet distance against 50-digit arithmetic, closed forms, its invariances, and the established implementation."""

import ast
import tracemalloc
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import scipy
import scipy.linalg
from talkforge.core.errors import InputError
from talkforge.metrics.frechet import FrechetState, distance, frechet_distance, split_half
from talkforge.metrics.scatter_root import (
    RunningRoot,
    root_of_scatter,
    summarise,
    summary_distance,
    without_round_off,
)


def normal(n: int, dim: int, seed: int, *, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)) + shift


def flat(n: int, dim: int, rank: int, seed: int) -> np.ndarray:
    """Rows in a subspace."""
    return normal(n, rank, seed) @ normal(rank, dim, seed + 1)


class TestFiftyDigits:
    """The formula as it stands, S1^(1/2) S2 S1^(1/2) and its eigenvalues, in 50-digit arithmetic."""

    @staticmethod
    def moments(mp, x: np.ndarray):
        rows = mp.matrix(x.tolist())
        n, dim = x.shape
        mean = [mp.fsum(rows[:, j]) / n for j in range(dim)]
        centred = mp.matrix([[rows[i, j] - mean[j] for j in range(dim)] for i in range(n)])
        return mean, (centred.T * centred) / (n - 1)

    def reference(self, x: np.ndarray, y: np.ndarray) -> float:
        mp = pytest.importorskip("mpmath").mp.clone()
        mp.dps = 50
        (m1, s1), (m2, s2) = self.moments(mp, x), self.moments(mp, y)
        values, vectors = mp.eigsy(s1)
        root = vectors * mp.diag([mp.sqrt(max(value, 0)) for value in values]) * vectors.T
        inner = mp.eigsy(root * s2 * root, eigvals_only=True)
        trace = mp.fsum(s1[i, i] + s2[i, i] for i in range(len(m1)))
        product = mp.fsum(mp.sqrt(max(value, 0)) for value in inner)
        return float(mp.fsum((a - b) ** 2 for a, b in zip(m1, m2, strict=True)) + trace - 2 * product)

    def test_fewer_rows_than_dimensions(self) -> None:
        x, y = normal(20, 48, 1), normal(31, 48, 2, shift=0.1)
        assert abs(frechet_distance(x, y) - self.reference(x, y)) < 1e-9

    def test_rows_in_a_subspace(self) -> None:
        """More rows than dimensions, yet singular: where a square root of covariances loses half the digits."""
        x, y = flat(60, 48, 20, 3), flat(70, 48, 30, 5)
        assert abs(frechet_distance(x, y) - self.reference(x, y)) < 1e-9


class TestClosedForms:
    def test_a_set_against_itself_is_zero(self) -> None:
        for n in (5, 40, 400):
            x = normal(n, 40, n)
            assert 0 <= frechet_distance(x, x) < 1e-10

    @pytest.mark.parametrize("n", [6, 300])
    def test_a_shift_of_one_axis_is_its_square(self, n: int) -> None:
        x = normal(n, 24, 7)
        y = x.copy()
        y[:, 3] += 2.5
        assert frechet_distance(x, y) == pytest.approx(6.25, abs=1e-10)

    def test_one_dimension_is_the_difference_of_deviations(self) -> None:
        x = normal(50, 1, 8)
        x = (x - x.mean()) / x.std(ddof=1)
        assert frechet_distance(3.0 * x, 0.5 * x) == pytest.approx(2.5**2, abs=1e-10)

    def test_two_points_a_side_by_hand(self) -> None:
        """Unbiased variances 2 and 8, means 1 and 6: 25 + 2 + 8 - 2 sqrt(16)."""
        assert frechet_distance(np.array([[0.0], [2.0]]), np.array([[4.0], [8.0]])) == pytest.approx(27.0, abs=1e-12)

    def test_commuting_covariances(self) -> None:
        """Whitened rows, scaled along axes: the sum of squared differences of deviations."""
        x = normal(200, 6, 9)
        x = (x - x.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
        left, right = np.arange(1.0, 7.0), np.array([2.0, 2.0, 0.5, 8.0, 0.0, 1.0])
        assert frechet_distance(x * left, x * right) == pytest.approx(np.sum((left - right) ** 2), abs=1e-9)


class TestInvariances:
    x, y = normal(30, 48, 11), normal(90, 48, 12, shift=0.3)

    def test_order_of_rows(self) -> None:
        mixed = np.random.default_rng(0).permutation(self.y)
        assert frechet_distance(self.x, mixed) == pytest.approx(frechet_distance(self.x, self.y), abs=1e-11)

    def test_order_of_sides(self) -> None:
        assert frechet_distance(self.y, self.x) == pytest.approx(frechet_distance(self.x, self.y), abs=1e-11)

    def test_rotation_and_common_shift(self) -> None:
        rotation, _ = np.linalg.qr(normal(48, 48, 13))
        moved = frechet_distance(self.x @ rotation + 5, self.y @ rotation + 5)
        assert moved == pytest.approx(frechet_distance(self.x, self.y), abs=1e-10)

    def test_scale_enters_squared(self) -> None:
        scaled = frechet_distance(3 * self.x, 3 * self.y)
        assert scaled == pytest.approx(9 * frechet_distance(self.x, self.y), rel=1e-12)


class TestAgainstEstablishedCode:
    x, y = normal(600, 64, 14), normal(500, 64, 15, shift=0.2) * 1.5

    @staticmethod
    def pytorch_fid():
        """The package's own function, taken out of its file: importing the file needs a torchvision that loads."""
        spec = find_spec("pytorch_fid")
        if spec is None or spec.origin is None:
            pytest.skip("pytorch-fid is not installed")
        tree = ast.parse(Path(spec.origin).with_name("fid_score.py").read_text(encoding="utf-8"))
        name = "calculate_frechet_distance"
        tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        names = {"np": np, "linalg": scipy.linalg}
        exec(compile(tree, spec.origin, "exec"), names)
        return names[name]

    def test_pytorch_fid_at_full_rank(self) -> None:
        moments = [part for z in (self.x, self.y) for part in (z.mean(axis=0), np.cov(z, rowvar=False))]
        try:
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                wanted = self.pytorch_fid()(*moments)
        except (TypeError, ValueError) as error:
            pytest.skip(f"pytorch-fid does not run with scipy {scipy.__version__}: {error}")
        assert frechet_distance(self.x, self.y) == pytest.approx(wanted, rel=1e-10)

    def test_square_root_of_the_product_at_full_rank(self) -> None:
        s1, s2 = np.cov(self.x, rowvar=False), np.cov(self.y, rowvar=False)
        gap = self.x.mean(axis=0) - self.y.mean(axis=0)
        wanted = gap @ gap + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2)).real
        assert frechet_distance(self.x, self.y) == pytest.approx(wanted, rel=1e-10)

    @pytest.mark.parametrize(
        ("dim", "n", "bias"),
        [(64, 50, 44), (64, 200, 11.3), (64, 1000, 2.2), (64, 5000, 0.44), (400, 50, 585), (400, 200, 349)],
    )
    def test_known_bias_of_equal_sources(self, dim: int, n: int, bias: float) -> None:
        """Two samples of n from one standard normal: the truth is 0, the estimate is not."""
        found = np.mean([frechet_distance(normal(n, dim, 2 * k), normal(n, dim, 2 * k + 1)) for k in range(3)])
        assert found == pytest.approx(bias, rel=0.05)


class TestStreaming:
    """Sizes lie on both sides of the 512 rows that a 40-dimensional state keeps unreduced."""

    SIZES = ((7, 11), (300, 212), (300, 213), (513, 1), (1, 600), (700, 900, 3), (100,) * 13)

    @staticmethod
    def state(*pieces: np.ndarray, dim: int = 40) -> FrechetState:
        state = FrechetState(dim)
        for piece in pieces:
            state.update(piece)
        return state

    @pytest.mark.parametrize("sizes", SIZES)
    @pytest.mark.parametrize("rank", [40, 12])
    def test_shards_equal_one_pass(self, sizes: tuple[int, ...], rank: int) -> None:
        """Also with singular covariances, to 1e-12 of the distance's own scale."""
        shards = [flat(n, 40, rank, 20 + i) + i for i, n in enumerate(sizes)]
        other = flat(700, 40, rank, 99)
        merged = FrechetState(40)
        for shard in shards:
            merged.merge(self.state(shard))
        wanted = frechet_distance(np.concatenate(shards), other)
        assert merged.n == sum(sizes)
        assert distance(merged, self.state(other)) == pytest.approx(wanted, rel=1e-12)
        assert distance(self.state(*shards), self.state(other)) == pytest.approx(wanted, rel=1e-12)

    @pytest.mark.parametrize("seed", range(6))
    def test_any_pieces_equal_one_pass(self, seed: int) -> None:
        """Fewer rows than dimensions, a few hundred or many; dead dimensions in front, which shift a root's rows."""
        rng = np.random.default_rng(seed)
        dim, dead = 700, int(rng.integers(0, 150))
        sides = [
            normal(int(n), dim, seed + k) * rng.gamma(1.0, size=dim) for k, n in enumerate(rng.integers(2, 1500, 2))
        ]
        states = []
        for side in sides:
            side[:, :dead] = 3.0
            cuts = np.sort(rng.integers(0, len(side), 5))
            states.append(self.state(*np.split(side, cuts), dim=dim))
        assert distance(*states) == pytest.approx(frechet_distance(*sides), rel=1e-12)

    def test_weights_are_repetitions(self) -> None:
        x, weights = normal(90, 40, 1), np.random.default_rng(2).integers(1, 5, 90)
        roots = [RunningRoot(40) for _ in range(2)]
        for part in (slice(0, 30), slice(30, 31), slice(31, 90)):
            roots[0].add(x[part].copy(), weights[part].astype(np.float64))
        roots[1].add(np.repeat(x, weights, axis=0))
        other = summarise(normal(50, 40, 3))
        assert roots[0].n == weights.sum()
        found, wanted = (summary_distance(root.summary(), other) for root in roots)
        assert found == pytest.approx(wanted, rel=1e-12)

    def test_distances_leave_states_as_they_are(self) -> None:
        a, b = (self.state(normal(1300, 40, seed)) for seed in (1, 2))
        first = distance(a, b)
        assert distance(a, b) == first == pytest.approx(distance(b, a), rel=1e-12)
        a.update(normal(300, 40, 3))
        wanted = frechet_distance(np.concatenate([normal(1300, 40, 1), normal(300, 40, 3)]), normal(1300, 40, 2))
        assert distance(a, b) == pytest.approx(wanted, rel=1e-12)

    def test_memory_does_not_grow_with_the_rows(self) -> None:
        """Both states and their distance, from 1,000 to 10,000 rows."""
        rows, peaks = normal(500, 128, 0), []
        for pieces in (2, 20):
            tracemalloc.start()
            try:
                distance(*(self.state(*[rows] * pieces, dim=128) for _ in range(2)))
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
        assert peaks[1] == pytest.approx(peaks[0], rel=0.1)

    def test_order_of_merging_does_not_matter(self) -> None:
        shards = [normal(n, 40, n) * n for n in (3, 40, 511, 600, 2000)]
        other = self.state(normal(50, 40, 0))
        found = []
        for order in ((0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 4, 1, 3)):
            merged = FrechetState(40)
            for i in order:
                merged.merge(self.state(shards[i]))
            found.append(FrechetState.distance(merged, other))
        assert found == pytest.approx([found[0]] * 3, rel=1e-12)

    def test_merging_leaves_the_other_state_alone(self) -> None:
        a, b = self.state(normal(600, 40, 1)), self.state(normal(600, 40, 2), normal(9, 40, 3))
        before = b.to_arrays()
        a.merge(b)
        a.update(normal(700, 40, 4))
        assert all(np.array_equal(before[name], array) for name, array in b.to_arrays().items())

    def test_a_state_may_be_merged_with_itself(self) -> None:
        x = normal(600, 40, 1)
        twice = self.state(x)
        twice.merge(twice)
        wanted = frechet_distance(np.concatenate([x, x]), x)
        assert distance(twice, self.state(x)) == pytest.approx(wanted, abs=1e-11)

    def test_later_changes_of_the_array_do_not_matter(self) -> None:
        x = normal(20, 40, 5)
        state = self.state(x)
        x[:] = 0
        assert distance(state, self.state(normal(20, 40, 5))) < 1e-10

    def test_memory_is_bounded(self) -> None:
        state = self.state(*(normal(900, 8, i) for i in range(20)), dim=8)
        arrays = state.to_arrays()
        assert state.n == 18000
        assert arrays["root"].shape == (8, 8)
        assert len(arrays["rows"]) <= state.capacity

    def test_a_large_update_is_not_kept_alive(self) -> None:
        state, rows = FrechetState(8), normal(100_513, 8, 0)
        tracemalloc.start()
        try:
            state.update(rows)
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert state.n == 100_513
        assert kept < 2 * 8 * state.capacity * 8

    @pytest.mark.parametrize("n", [0, 5, 600, 1500])
    def test_storage_keeps_the_state(self, n: int, tmp_path) -> None:
        state = self.state(normal(n, 40, 3))
        np.savez(tmp_path / "state.npz", **state.to_arrays())
        with np.load(tmp_path / "state.npz") as stored:
            again = FrechetState.from_arrays(stored)
        more = normal(30, 40, 4)
        state.update(more)
        again.update(more)
        assert again.n == n + 30
        assert all(np.array_equal(array, again.to_arrays()[name]) for name, array in state.to_arrays().items())

    def test_stored_arrays_are_checked(self) -> None:
        arrays = self.state(normal(600, 40, 3)).to_arrays()
        with pytest.raises(InputError, match="no array 'mean'"):
            FrechetState.from_arrays({name: array for name, array in arrays.items() if name != "mean"})
        with pytest.raises(InputError, match="not a Fréchet state"):
            FrechetState.from_arrays({**arrays, "mean": arrays["mean"][:-1]})
        with pytest.raises(InputError, match="no triangle"):
            FrechetState.from_arrays({**arrays, "root": arrays["root"].T})

    def test_other_dimensions_are_refused(self) -> None:
        with pytest.raises(InputError, match="7 dimensions, not 40"):
            self.state(normal(5, 7, 0))
        with pytest.raises(InputError, match="7 dimensions, not 40"):
            FrechetState(40).merge(FrechetState(7))
        with pytest.raises(InputError, match="at least one dimension"):
            FrechetState(0)

    def test_a_refused_update_changes_nothing(self) -> None:
        state, bad = self.state(normal(600, 40, 1)), normal(700, 40, 2)
        bad[650, 3] = np.nan
        with pytest.raises(InputError, match="1 of 700 rows"):
            state.update(bad)
        assert state.n == 600

    def test_an_empty_or_single_state_has_no_distance(self) -> None:
        with pytest.raises(InputError, match="no features"):
            distance(FrechetState(40), self.state(normal(5, 40, 0)))
        with pytest.raises(InputError, match="at least 2 rows"):
            distance(self.state(normal(1, 40, 0)), self.state(normal(5, 40, 0)))


class TestRefusals:
    good = normal(5, 4, 0)

    @pytest.mark.parametrize(
        "bad", [np.zeros(4), np.zeros((1, 4)), np.zeros((5, 3)), np.zeros((5, 0)), np.zeros((0, 4))]
    )
    def test_shapes(self, bad: np.ndarray) -> None:
        with pytest.raises(InputError):
            frechet_distance(bad, self.good)
        with pytest.raises(InputError):
            frechet_distance(self.good, bad)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, value: float) -> None:
        bad = self.good.copy()
        bad[2, 1] = value
        with pytest.raises(InputError, match="y: 1 of 5 rows"):
            frechet_distance(self.good, bad)

    @pytest.mark.parametrize("dtype", [complex, object, bool])
    def test_what_is_no_real_number(self, dtype: type) -> None:
        with pytest.raises(InputError, match="real numbers"):
            frechet_distance(self.good.astype(dtype), self.good)

    def test_overflow(self) -> None:
        with pytest.raises(InputError, match="overflow"):
            frechet_distance(self.good * 1e200, self.good)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
    def test_other_real_types_are_taken_as_they_are(self, dtype: type) -> None:
        x, y = (normal(9, 4, seed) * 10 for seed in (1, 2))
        wanted = frechet_distance(x.astype(dtype).astype(np.float64), y.astype(dtype).astype(np.float64))
        assert frechet_distance(x.astype(dtype), y.astype(dtype)) == wanted


class TestRounding:
    def test_only_rounding_becomes_zero(self) -> None:
        assert without_round_off(-1e-12, 1.0) == 0.0
        assert without_round_off(1e-12, 1.0) == 1e-12
        with pytest.raises(ArithmeticError):
            without_round_off(-1e-6, 1.0)

    def test_never_negative(self) -> None:
        """Copies whose rows are in another order: the true distance is 0 and rounding takes either sign."""
        found = []
        for seed in range(60):
            x = flat(30, 20, 1 + seed % 20, seed) * 100
            found.append(frechet_distance(x, x[::-1]))
        assert min(found) >= 0
        assert max(found) < 1e-7

    def test_root_of_a_singular_scatter(self) -> None:
        rows = flat(30, 12, 5, 1)
        for scatter in (rows.T @ rows, np.zeros((12, 12)), np.eye(12)):
            root = root_of_scatter(scatter)
            assert np.allclose(root.T @ root, scatter, atol=1e-10)


class TestSplitHalf:
    groups = tuple(normal(9, 10, seed, shift=0.1 * seed) for seed in range(9))

    def test_is_the_mean_over_random_halves_of_whole_groups(self) -> None:
        rng = np.random.default_rng(4)
        wanted = []
        for _ in range(3):
            order = rng.permutation(9)
            first = np.concatenate([self.groups[i] for i in order[:4]])
            wanted.append(frechet_distance(first, np.concatenate([self.groups[i] for i in order[4:]])))
        assert split_half(self.groups, seed=4, repeats=3) == pytest.approx(np.mean(wanted), rel=1e-12)

    def test_same_seed_same_number(self) -> None:
        assert split_half(self.groups, seed=1) == split_half(self.groups, seed=1)
        assert split_half(self.groups, seed=1) != split_half(self.groups, seed=2)

    def test_empty_groups_do_not_count(self) -> None:
        nothing = np.empty((0, 10))
        assert split_half([*self.groups[:3], nothing]) is None
        assert split_half(self.groups[:4]) == split_half([nothing, *self.groups[:4]])
