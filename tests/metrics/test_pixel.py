"""PSNR and SSIM: closed forms, scikit-image and torchmetrics, and which frames count."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from talkforge.core.counters import Counters
from talkforge.core.errors import Undetermined
from talkforge.metrics.base import Pair, Settings
from talkforge.metrics.intervals import bootstrap_mean
from talkforge.metrics.pixel import LPIPS, LPIPS_ROWS, PICTURES, PSNR, SSIM, psnr, ssim
from talkforge.tasks.extract_lossless import LOSSLESS, LosslessPictures
from talkforge.tasks.extractor import Batch, Context
from talkforge.tests.metrics.rows import HeldRow
from talkforge.tests.models.reference import run_beside_torchvision

QUICK = Settings(bootstrap=100)
TORCHMETRICS = """
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
arrays, answers = sys.argv[1:]
x, y = (torch.from_numpy(np.load(arrays)[name]).permute(2, 0, 1)[None].double() for name in "xy")
_, index = structural_similarity_index_measure(x, y, data_range=255.0, return_full_image=True)
np.savez(
    answers,
    psnr=float(peak_signal_noise_ratio(x, y, data_range=255.0)),
    ssim=float(index[..., 5:-5, 5:-5].mean()),
    ssim_with_border=float(structural_similarity_index_measure(x, y, data_range=255.0)),
)
"""


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def alike(seed: int, height: int = 60, width: int = 44) -> tuple[np.ndarray, np.ndarray]:
    """A smooth coloured picture, and the same with noise and another brightness."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 9.0
    base = 128 + 90 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=2)
    other = 0.8 * base + 12 * rng.normal(size=base.shape) + 10
    return base.astype(np.uint8), other.clip(0, 255).astype(np.uint8)


def clip(pictures: list[np.ndarray | None]) -> dict[str, HeldRow]:
    """A row as the extractor makes it."""
    extractor = LosslessPictures(LOSSLESS, Context("cpu", Counters()))
    extractor.push(Batch(np.arange(len(pictures)), [], [], [], pictures))
    return {PICTURES: HeldRow(extractor.finish())}


# --- two pictures ----------------------------------------------------------------------------------------------------


def test_psnr_of_a_known_error() -> None:
    """One level everywhere: 20 log10(255); the largest error: 0; one sample of 300 off by 10: 100 / 300."""
    flat = np.full((10, 10, 3), 100, np.uint8)
    assert psnr(flat, flat + 1) == pytest.approx(20 * math.log10(255))
    assert psnr(flat - 100, flat + 155) == pytest.approx(0.0)
    one = flat.copy()
    one[3, 4, 1] = 90
    assert psnr(flat, one) == pytest.approx(10 * math.log10(255**2 * 3))
    assert psnr(one, flat) == psnr(flat, one)
    assert psnr(flat, flat) is None


def test_ssim_of_flat_pictures_is_that_of_their_means() -> None:
    """Without structure only (2 a b + C1) / (a^2 + b^2 + C1) is left."""
    c1 = (0.01 * 255) ** 2
    wanted = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    flats = [np.full((20, 30, 3), level, np.uint8) for level in (100, 150)]
    assert ssim(*flats) == pytest.approx(wanted, rel=1e-9)


def test_ssim_of_equal_pictures_is_1_and_of_a_negative_below_0() -> None:
    x = noise(1, 40, 40, 3)
    assert ssim(x, x) == pytest.approx(1.0)
    assert ssim(x, 255 - x) < -0.8


@pytest.mark.parametrize("pictures", [alike(1), alike(2, 11, 90), (noise(3, 32, 32, 3), noise(4, 32, 32, 3))])
def test_values_equal_scikit_images(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    x, y = pictures
    assert psnr(x, y) == pytest.approx(metrics.peak_signal_noise_ratio(x, y, data_range=255), rel=1e-12)
    wanted = metrics.structural_similarity(
        x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
    )
    assert ssim(x, y) == pytest.approx(wanted, abs=1e-10)


def test_values_equal_torchmetrics(tmp_path: Path) -> None:
    """SSIM by its map without the border, which its mean takes in."""
    if find_spec("torchmetrics") is None:
        pytest.skip("torchmetrics is not installed")
    x, y = alike(5)
    np.savez(tmp_path / "in.npz", x=x, y=y)
    run_beside_torchvision(TORCHMETRICS, tmp_path / "in.npz", tmp_path / "out.npz")
    wanted = np.load(tmp_path / "out.npz")
    assert 0.3 < ssim(x, y) < 0.9
    assert ssim(x, y) == pytest.approx(float(wanted["ssim"]), abs=1e-6)
    assert abs(ssim(x, y) - float(wanted["ssim_with_border"])) > 0.01
    assert psnr(x, y) == pytest.approx(float(wanted["psnr"]), abs=1e-5)


def test_a_picture_smaller_than_the_window_has_no_ssim() -> None:
    with pytest.raises(Undetermined, match="window of 11 pixels does not fit pictures of 40x10"):
        ssim(noise(6, 10, 40, 3), noise(7, 10, 40, 3))


# --- clips -----------------------------------------------------------------------------------------------------------


def test_frames_are_paired_by_number_and_clips_weigh_the_same() -> None:
    """A frame without a picture on one side is left out with its partner; so is what lies beyond the shorter clip."""
    flat = np.full((16, 16, 3), 100, np.uint8)
    first = Pair("a", clip([flat, None, flat, flat]), clip([flat + 1, flat + 9, flat + 2, None, flat, flat]))
    second = Pair("b", clip([flat]), clip([flat + 10]))
    score = PSNR.score([first, second], QUICK)
    of_first = np.mean([20 * math.log10(255 / error) for error in (1, 2)])
    of_second = 20 * math.log10(255 / 10)
    assert [one.value for one in score.clips] == pytest.approx([of_first, of_second])
    assert [one.samples for one in score.clips] == [2, 1]
    assert score.value == pytest.approx((of_first + of_second) / 2)
    assert score.ci95 == bootstrap_mean([of_first, of_second], n=100, seed=0)
    assert score.notes == (
        "left out: 2 of 5 paired frames, of which a side shows no face",
        "left out: 2 frames without a partner, in 1 pairs of unequal length",
    )


def test_equal_frames_have_no_psnr_and_are_counted() -> None:
    flat = np.full((16, 16, 3), 100, np.uint8)
    score = PSNR.score([Pair("a", clip([flat, flat]), clip([flat, flat + 1]))], QUICK)
    assert score.value == pytest.approx(20 * math.log10(255))
    assert score.clips[0].samples == 1
    assert score.notes == (
        "left out: 1 frames that are equal to the last bit on both sides, whose ratio has no finite value",
    )


def test_equal_clips_have_no_psnr_and_an_ssim_of_1() -> None:
    same = clip([noise(8, 16, 16, 3)] * 2)
    score = PSNR.score([Pair("a", same, same)], QUICK)
    assert (score.value, score.ci95, score.reason) == (None, None, "identical")
    assert score.clips[0].message == "all 2 paired frames are equal to the last bit"
    assert SSIM.score([Pair("a", same, same)], QUICK).value == pytest.approx(1.0)


def test_sizes_that_differ_are_a_reason() -> None:
    pair = Pair("a", clip([noise(9, 16, 20, 3)]), clip([noise(10, 16, 16, 3)]))
    for metric in (PSNR, SSIM):
        score = metric.score([pair], QUICK)
        assert (score.value, score.reason) == (None, "size_mismatch")
        assert score.clips[0].message == "pictures of 20x16 and 16x16 have no pixels in common"


def test_no_common_frame_and_no_row_are_reasons() -> None:
    flat = np.full((16, 16, 3), 100, np.uint8)
    apart = Pair("apart", clip([flat, None]), clip([None, flat]))
    failed = Pair("failed", {PICTURES: HeldRow(reason="truncated", message="cut")}, clip([flat]))
    score = SSIM.score([apart, failed, Pair("ok", clip([flat]), clip([flat + 5]))], QUICK)
    assert score.rejects == {"no_face": 1, "truncated": 1}
    assert score.n_scored == 1


def test_lpips_is_the_mean_of_the_stored_distances() -> None:
    flat = np.full((16, 16, 3), 100, np.uint8)
    sides = clip([flat] * 5), clip([flat] * 4)
    row = HeldRow({"distance": np.array([0.1, 0.2, 0.6], np.float32), "n_generated": 5, "n_real": 4})
    failed = HeldRow(reason="size_mismatch", message="pictures of 2x1 and 1x2")
    pairs = [Pair(name, *sides, compared={LPIPS_ROWS: one}) for name, one in (("a", row), ("b", failed))]
    score = LPIPS.score([*pairs, Pair("c", *sides), Pair("d", None, None, "unmatched")], QUICK)
    assert score.value == pytest.approx(0.3)
    assert score.rejects == {"size_mismatch": 1, "no_features": 1, "unmatched": 1}
    assert score.clips[0].samples == 3 and not LPIPS.spec.higher_is_better
    assert score.notes == (
        "left out: 1 of 4 paired frames, of which a side shows no face",
        "left out: 1 frames without a partner, in 1 pairs of unequal length",
    )


def test_declarations_say_how_the_sides_lie_on_each_other() -> None:
    for metric in (PSNR, SSIM, LPIPS):
        assert "own face" in metric.spec.protocol["alignment"]
        assert not metric.spec.comparable_with_papers and not metric.spec.default
        assert metric.spec.generated == metric.spec.real == (LOSSLESS.id,)
