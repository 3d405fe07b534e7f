"""FID, the kernel distance and extrapolation as metrics: published implementations on the same rows, and intervals."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from talkforge.core.errors import InputError
from talkforge.metrics.base import Metric, Pair, Settings, metrics
from talkforge.metrics.companions import BlockSums, ExtrapolatedMetric, KernelMetric, joined, thinned
from talkforge.metrics.fid import FIDS, KIDS, METRICS
from talkforge.metrics.frechet import frechet_distance
from talkforge.metrics.intervals import frechet_bootstrap
from talkforge.metrics.kid import Extrapolation, extrapolate_frechet, full_kernel_distance
from talkforge.tasks.extractor import extractors
from talkforge.tests.metrics.rows import HeldRow
from talkforge.tests.models.reference import run_beside_torchvision

QUICK = Settings(bootstrap=100, frechet_bootstrap=50)
MOBILENET_KID = KIDS[-1]
FVD_INF = next(metric for metric in METRICS if metric.spec.id == "fvd_inf:i3d-k400-16f")

REFERENCES = """
from cleanfid.fid import frechet_distance, kernel_distance
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

arrays, answers = sys.argv[1:]
x, y = (np.load(arrays)[name] for name in "xy")

class AsItIs(torch.nn.Module):
    num_features = x.shape[1]
    def forward(self, rows):
        return rows

fid = FrechetInceptionDistance(AsItIs(), input_img_size=(x.shape[1],))
kid = KernelInceptionDistance(AsItIs(), subsets=1, subset_size=len(x))
for metric in (fid, kid):
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(y), real=True)
    metric.update(torch.from_numpy(x), real=False)
moments = [value for rows in (x, y) for value in (rows.mean(axis=0), np.cov(rows, rowvar=False))]
np.savez(
    answers,
    clean_fid=frechet_distance(*moments),
    clean_kid=kernel_distance(x, y, num_subsets=1, max_subset_size=len(x)),
    torchmetrics_fid=float(fid.compute()),
    torchmetrics_kid=float(kid.compute()[0]),
)
"""


def clips(seed: int, count: int, frames: int = 5, dim: int = 6, *, shift: float = 0.0) -> list[np.ndarray]:
    """Rows of clips whose frames are more alike than those of different clips."""
    rng = np.random.default_rng(seed)
    return [rng.normal(shift, 1, dim) + 0.5 * rng.normal(size=(frames, dim)) for _ in range(count)]


def pairs_of(metric: Metric, generated: list[np.ndarray], real: list[np.ndarray]) -> list[Pair]:
    name, column = metric.spec.generated[0], metric.column  # type: ignore[attr-defined]
    rows = [[{name: HeldRow({column: one})} for one in side] for side in (generated, real)]
    return [Pair(f"clip{k}", *both) for k, both in enumerate(zip(*rows, strict=True))]


# --- beside published implementations --------------------------------------------------------------------------------


def test_values_equal_clean_fids_and_torchmetrics(tmp_path: Path) -> None:
    for package in ("cleanfid", "torchmetrics"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    generated, real = clips(1, 30, shift=0.4), clips(2, 30)
    np.savez(tmp_path / "in.npz", x=np.concatenate(generated), y=np.concatenate(real))
    run_beside_torchvision(REFERENCES, tmp_path / "in.npz", tmp_path / "out.npz")
    wanted = np.load(tmp_path / "out.npz")
    fid = FIDS[0].score(pairs_of(FIDS[0], generated, real), QUICK).value
    kid = MOBILENET_KID.score(pairs_of(MOBILENET_KID, generated, real), QUICK).value
    assert fid == pytest.approx(float(wanted["clean_fid"]), rel=1e-9)
    assert fid == pytest.approx(float(wanted["torchmetrics_fid"]), rel=1e-6)
    assert kid == pytest.approx(float(wanted["clean_kid"]), rel=1e-9)
    assert kid == pytest.approx(float(wanted["torchmetrics_kid"]), rel=1e-6)


# --- the kernel distance over clips ----------------------------------------------------------------------------------


def test_block_sums_make_the_distance_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the rows of a block belong to several clips, and of clips of unequal length."""
    monkeypatch.setattr("talkforge.metrics.companions.ROWS_AT_ONCE", 7)
    rng = np.random.default_rng(3)
    generated, real = ([rng.normal(s, 1, (n, 4)) for n in lengths] for s, lengths in ((0.3, (1, 9, 4)), (0, (6, 2, 5))))
    found = BlockSums.of(generated, real).distance(np.ones(3))
    assert found == pytest.approx(full_kernel_distance(np.concatenate(generated), np.concatenate(real)), rel=1e-11)


def test_a_clip_that_is_not_drawn_is_as_if_it_were_not_there() -> None:
    generated, real = clips(4, 5, shift=0.5), clips(5, 5)
    found = BlockSums.of(generated, real).distance(np.array([1.0, 0, 1, 1, 0]))
    few = [np.concatenate([side[k] for k in (0, 2, 3)]) for side in (generated, real)]
    assert found == pytest.approx(full_kernel_distance(*few), rel=1e-11)


def test_a_clip_drawn_twice_never_meets_itself() -> None:
    """By hand: two frames a side, weights 2 and 1; the only pair within a side is that of different frames."""
    x, y = [np.array([[1.0]]), np.array([[2.0]])], [np.array([[0.0]]), np.array([[3.0]])]
    found = BlockSums.of(x, y).distance(np.array([2.0, 1.0]))
    cross = (4 * 1 + 2 * 4**3 + 2 * 1 + 7**3) / 9
    assert found == pytest.approx(3**3 + 1 - 2 * cross)


def test_the_interval_over_clips_holds_the_value_and_covers_the_truth() -> None:
    """Single-frame clips of one source: the truth is 0, and of 60 intervals nearly all hold it, some of them reaching
    below it."""
    held, below = 0, 0
    for seed in range(60):
        sums = BlockSums.of(clips(2 * seed, 40, 1), clips(2 * seed + 1, 40, 1))
        interval = sums.bootstrap(200, seed)
        assert interval is not None
        assert interval[0] <= sums.distance(np.ones(40)) <= interval[1]
        held += interval[0] <= 0 <= interval[1]
        below += interval[0] < 0
    assert held >= 50 and below >= 40


def test_halves_of_the_real_clips_are_about_0_apart() -> None:
    """And a value apart from them says that the sides differ."""
    sums = BlockSums.of(clips(6, 60, 1, shift=1.0), clips(7, 60, 1))
    half = sums.split_half(0)
    assert half is not None
    assert abs(half) < 0.05 * sums.distance(np.ones(60))
    assert BlockSums.of(clips(8, 3), clips(9, 3)).split_half(0) is None


def test_split_halves_are_distances_of_the_rows() -> None:
    real = clips(10, 4, 2)
    sums = BlockSums.of(clips(11, 4, 2), real)
    halves = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    values = [full_kernel_distance(*(np.concatenate([real[k] for k in half]) for half in both)) for both in halves]
    assert min(abs(sums.split_half(0, repeats=1) - value) for value in values) < 1e-10  # type: ignore[operator]


def test_many_frames_are_thinned_evenly_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [len(rows) for rows in thinned(clips(12, 4, 10), 40)] == [10] * 4
    assert [rows[:, 0].tolist() for rows in thinned([np.arange(10.0)[:, None]] * 4, 16)] == [[0, 3, 6, 9]] * 4
    monkeypatch.setattr("talkforge.metrics.companions.thinned", lambda clips: clips.every(5))
    generated, real = clips(13, 6, shift=0.5), clips(14, 6)
    score = MOBILENET_KID.score(pairs_of(MOBILENET_KID, generated, real), QUICK)
    firsts = [np.concatenate([rows[:1] for rows in side]) for side in (generated, real)]
    assert score.value == pytest.approx(full_kernel_distance(*firsts), rel=1e-11)
    assert score.notes == ("6 of 30 generated frames, evenly spaced", "6 of 30 real frames, evenly spaced")


def test_equal_sides_may_be_below_0_and_one_pair_has_no_interval() -> None:
    one = clips(15, 8)
    score = MOBILENET_KID.score(pairs_of(MOBILENET_KID, one, one), QUICK)
    assert score.value is not None and score.value < 0
    alone = MOBILENET_KID.score(pairs_of(MOBILENET_KID, one[:1], one[1:2]), QUICK)
    assert alone.value is not None and alone.ci95 is None and alone.real_vs_real is None


def test_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="finite"):
        BlockSums.of([np.full((2, 3), np.nan)], [np.ones((2, 3))])
    with pytest.raises(InputError, match="need features"):
        BlockSums.of([np.ones((0, 3))], [np.ones((2, 3))])


# --- extrapolation ---------------------------------------------------------------------------------------------------


def test_the_value_is_the_lines_and_the_interval_holds_both_parts() -> None:
    generated, real = clips(16, 40, shift=0.5), clips(17, 40)
    score = FVD_INF.score(pairs_of(FVD_INF, generated, real), QUICK)
    line = extrapolate_frechet(real, generated, points=10, repeats=2, seed=0)
    drawn = frechet_bootstrap(real, generated, n=50, seed=0)
    assert line is not None and drawn is not None and score.ci95 is not None
    plain = frechet_distance(np.concatenate(generated), np.concatenate(real))
    assert score.value == line.value < plain
    assert score.ci95[1] - line.value == pytest.approx(np.hypot(1.959964 * line.error, drawn[1] - plain), rel=1e-6)
    assert score.ci95[0] < line.value < score.ci95[1]
    assert f"{plain:.6g} at full size" in score.notes[0] and f"{line.error:.3g}" in score.notes[0]
    assert len(score.notes) == 1 and score.n_scored == 40
    assert score.real_vs_real is not None and abs(score.real_vs_real) < plain


def test_an_interval_without_scatter_is_that_of_the_draw() -> None:
    line = Extrapolation(2.0, 0.0, 1.0, np.array([0.5, 1.0]), np.array([4.0, 3.0]))
    assert joined(line, 3.0, (2.5, 4.0)) == (1.5, 3.0)
    assert joined(replace_error(line, 1.0), 3.0, (3.0, 3.0)) == pytest.approx((2 - 1.959964, 2 + 1.959964))


def replace_error(line: Extrapolation, error: float) -> Extrapolation:
    return line._replace(error=error)


def test_few_samples_for_many_dimensions_are_told() -> None:
    generated, real = clips(18, 9, 2, dim=7), clips(19, 9, 2, dim=7)
    notes = FVD_INF.score(pairs_of(FVD_INF, generated, real), QUICK).notes
    assert "samples for 7 dimensions" in notes[-1]


def test_few_clips_have_no_extrapolated_distance() -> None:
    score = FVD_INF.score(pairs_of(FVD_INF, clips(20, 7), clips(21, 7)), QUICK)
    assert (score.value, score.ci95, score.reason, score.n_scored) == (None, None, "too_few_clips", 7)
    eight = FVD_INF.score(pairs_of(FVD_INF, clips(20, 8), clips(21, 8)), QUICK)
    assert eight.value is not None and eight.real_vs_real is None


# --- what all share --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [MOBILENET_KID, FVD_INF], ids=lambda metric: metric.spec.id)
def test_pairs_without_features_are_left_out_with_their_reason(metric: KernelMetric | ExtrapolatedMetric) -> None:
    generated, real = clips(22, 10), clips(23, 10)
    pairs = pairs_of(metric, generated, real)
    failed = {metric.spec.generated[0]: HeldRow(reason="no_face", message="none")}
    score = metric.score([Pair("bad", failed, pairs[0].real), *pairs, Pair("alone", None, None, "unmatched")], QUICK)
    whole = metric.score(pairs, QUICK)
    assert (score.value, score.ci95) == (whole.value, whole.ci95)
    assert score.rejects == {"no_face": 1, "unmatched": 1} and score.n_scored == 10
    assert [clip.clip_id for clip in score.clips][:2] == ["bad", "clip0"]
    assert metric.score([Pair("bad", failed, pairs[0].real)], QUICK).reason == "no_face"
    assert metric.score([], QUICK).reason == "too_few_samples"


def test_seeds_decide() -> None:
    pairs = pairs_of(MOBILENET_KID, clips(24, 12, shift=0.3), clips(25, 12))
    scores = [MOBILENET_KID.score(pairs, replace(QUICK, seed=seed)) for seed in (1, 1, 2)]
    assert scores[0].ci95 == scores[1].ci95 != scores[2].ci95
    assert scores[0].value == scores[2].value


def test_declarations_tell_chain_network_and_claim() -> None:
    known = {metric.spec.id: metric.spec for metric in metrics.all()}
    for variant, resize in (("inception-2015", "TensorFlow 1"), ("pytorch-fid", "at half"), ("clean", "antialiased")):
        for family in ("fid", "kid"):
            spec = known[f"{family}:{variant}"]
            assert resize in spec.protocol["resize"] and spec.comparable_with_papers and not spec.default
            assert extractors.get(spec.generated[0]).weights == ("inception-2015-12-05",)
        assert not known[f"fid_inf:{variant}"].comparable_with_papers
    assert [spec.id for spec in known.values() if spec.id.startswith("kid:") and spec.default] == ["kid:mobilenet-v2"]
    assert not known["kid:mobilenet-v2"].comparable_with_papers
    assert known["fvd_inf:i3d-k400-16f"].generated == known["fvd:i3d-k400-16f"].generated
    assert known["fd_inf:mobilenet-v2"].protocol["network"] == known["fd:mobilenet-v2"].protocol["network"]
