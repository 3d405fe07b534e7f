"""PSNR, SSIM and LPIPS between each generated frame and the real frame of the same number.

All take 8-bit RGB as it was decoded, under the run's crop. With the crop "face" each side is cut by its own face, so
a head that moves otherwise than the real one is followed and its place does not count; with `--crop none` whole frames
are compared pixel by pixel, which is what reconstruction papers do, and both sides must be of one size.

    PSNR = 10 log10(255^2 / mean over pixels and channels of (x - y)^2)
    SSIM = mean over pixels and channels of
           (2 m_x m_y + C1)(2 s_xy + C2) / ((m_x^2 + m_y^2 + C1)(s_x^2 + s_y^2 + C2))

with moments under a Gaussian of deviation 1.5 cut off at 11 x 11, C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2, and the 5
pixels along the border left out (Z. Wang et al., "Image Quality Assessment: From Error Visibility to Structural
Similarity", IEEE Transactions on Image Processing, 2004). It equals scikit-image's `structural_similarity` with
`gaussian_weights=True, use_sample_covariance=False`. torchmetrics has the same map, and takes its mean with the border,
over mirrored pixels: 0.591 where this is 0.613 on a picture of 60 x 44, less apart on larger ones.

LPIPS is made by a network beforehand (`models.lpips` has the formula) and only averaged here. A clip's value is the
mean over its frames. Frames that are equal to the last bit have no finite PSNR: they are left out
and counted, and a clip that holds no others is rejected as `identical`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.ndimage import gaussian_filter

from ..core.errors import NoFace, TalkForgeError, Undetermined
from ..core.lossless import paired_pictures
from .base import ClipScore, MetricSpec, Pair, Row, Score, Settings, main_reason, usable
from .frame_pairs import Compared, left_out
from .intervals import bootstrap_mean

PICTURES = "pictures-lossless"
TOP = 255.0
DEVIATION, REACH = 1.5, 5  # pixels: the window is 11 x 11
C1, C2 = (0.01 * TOP) ** 2, (0.03 * TOP) ** 2

LPIPS_ROWS = "lpips-alex"
# With a reference frame at hand, every change of the picture shows.
WHOLE_PICTURE = ("picture", "flow", "lips", "head", "eyes", "brows", "expression", "identity")

Compare = Callable[[np.ndarray, np.ndarray], float | None]


class Identical(Undetermined):
    """All pictures are the same on both sides, which a ratio to the error cannot express."""

    reason: ClassVar[str] = "identical"


def psnr(x: np.ndarray, y: np.ndarray) -> float | None:
    """Peak signal-to-noise ratio in dB of two uint8 pictures of one shape, None where they are equal."""
    error = float(np.mean((x.astype(np.float64) - y) ** 2))
    return 10 * float(np.log10(TOP**2 / error)) if error else None


def ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Mean structural similarity of two uint8 pictures (H, W, C) of one shape, -1 to 1.

    Raises:
        Undetermined: a side has fewer than 11 pixels.
    """
    if min(x.shape[:2]) <= 2 * REACH:
        raise Undetermined(f"a window of {2 * REACH + 1} pixels does not fit pictures of {x.shape[1]}x{x.shape[0]}")
    a, b = x.astype(np.float64), y.astype(np.float64)
    mean_a, mean_b = _blurred(a), _blurred(b)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance, variances = _blurred(a * b) - product, _blurred(a * a + b * b) - squares
    index = (2 * product + C1) * (2 * covariance + C2) / ((squares + C1) * (variances + C2))
    return float(index[REACH:-REACH, REACH:-REACH].mean())


def _blurred(x: np.ndarray) -> np.ndarray:
    return gaussian_filter(x, (DEVIATION, DEVIATION, 0), radius=(REACH, REACH, 0))


@dataclass(frozen=True)
class PixelMetric:
    """Mean over clips of the mean over paired frames of a similarity of pictures.

    Attributes:
        spec: the declaration; wants `pictures-lossless` on both sides.
        compared: what became of a pair's frames, and how many were left out because they are equal on both sides.
    """

    spec: MetricSpec
    compared: Callable[[Pair], tuple[Compared, int]]

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """Mean over clips, percentile bootstrap over clips; a clip's samples are its compared frames."""
        clips, found, equal = [], [], 0
        for pair in pairs:
            outcome = self._clip(pair)
            if isinstance(outcome, ClipScore):
                clips.append(outcome)
                continue
            compared, skipped = outcome
            clips.append(ClipScore(pair.clip_id, compared.value, samples=compared.frames))
            found.append(compared)
            equal += skipped
        if not found:
            return Score(None, None, None, clips, reason=main_reason(clips))
        values = np.array([one.value for one in found])
        interval = bootstrap_mean(values, n=settings.bootstrap, seed=settings.seed)
        return Score(float(values.mean()), interval, None, clips, notes=(*left_out(found), *_equal_note(equal)))

    def _clip(self, pair: Pair) -> tuple[Compared, int] | ClipScore:
        rejected = usable(pair, self.spec)
        if rejected:
            return rejected
        try:
            return self.compared(pair)
        except TalkForgeError as error:
            return ClipScore(pair.clip_id, None, error.reason, error.message)


def by_pictures(compare: Compare) -> Callable[[Pair], tuple[Compared, int]]:
    """`PixelMetric.compared` for a similarity of two pictures."""
    return lambda pair: compare_clip((pair.generated or {})[PICTURES], (pair.real or {})[PICTURES], compare)


def by_lpips(pair: Pair) -> tuple[Compared, int]:
    """`PixelMetric.compared` of the stored distances."""
    row = pair.compared[LPIPS_ROWS]
    distances = row.array("distance").astype(np.float64)
    return _compared(distances, len(distances), [int(row.value(name)) for name in ("n_generated", "n_real")]), 0


def compare_clip(generated: Row, real: Row, compare: Compare) -> tuple[Compared, int]:
    """Mean over the frames that both sides show, and how many were left out because they are equal.

    Raises:
        NoFace: no frame has a picture on both sides.
        SizeMismatch, Identical, Undetermined.
    """
    values = [compare(x, y) for _, x, y in paired_pictures(generated, real)]
    lengths = [int(row.value("n_frames")) for row in (generated, real)]
    if not values:
        raise NoFace(f"none of {min(lengths)} paired frames shows a face on both sides")
    finite = [value for value in values if value is not None]
    if not finite:
        raise Identical(f"all {len(values)} paired frames are equal to the last bit")
    return _compared(finite, len(values), lengths), len(values) - len(finite)


def _compared(values: Sequence[float] | np.ndarray, shown: int, lengths: Sequence[int]) -> Compared:
    """Mean of the values, of `shown` frames with a picture on both sides, of clips with so many frames."""
    return Compared(float(np.mean(values)), len(values), min(lengths) - shown, max(lengths) - min(lengths))


def _equal_note(frames: int) -> tuple[str, ...]:
    note = f"left out: {frames} frames that are equal to the last bit on both sides, whose ratio has no finite value"
    return (note,) if frames else ()


def _declare(name: str, *, higher_is_better: bool = True, **facts: Any) -> MetricSpec:
    return MetricSpec(
        id=name,
        higher_is_better=higher_is_better,
        generated=(PICTURES,),
        real=(PICTURES,),
        comparable_with_papers=False,
        measures=WHOLE_PICTURE,
        why="papers compare frames that are cut and scaled alike, each in its own way and seldom stated",
        default=False,
        **facts,
    )


_PROTOCOL = {
    "pictures": "8-bit RGB as decoded, never scaled for this metric; sides of different size are rejected",
    "alignment": "crop face: each side by its own face's square; crop none: pixel by pixel",
    "frames": "paired by number at 25 fps, to the end of the shorter clip; mean over frames, then over clips",
}
PSNR = PixelMetric(
    _declare(
        "psnr:rgb",
        title="PSNR",
        unit="dB",
        what="How close the generated pixels are to the real ones, frame by frame.",
        formula="10 log10(255^2 / mean squared error over pixels and RGB), mean over frames, then over clips",
        source="the usual definition; equal to scikit-image and torchmetrics",
        protocol={**_PROTOCOL, "equal frames": "left out and counted; a clip of nothing else is rejected: identical"},
    ),
    by_pictures(psnr),
)
SSIM = PixelMetric(
    _declare(
        "ssim:rgb-gaussian11",
        title="SSIM",
        unit="",
        what="How alike the generated and the real pictures are in local structure, frame by frame.",
        formula="mean over pixels, RGB of (2 m_x m_y + C1)(2 s_xy + C2) / ((m_x^2 + m_y^2 + C1)(s_x^2 + s_y^2 + C2))",
        source="Wang et al. 2004; equal to scikit-image, and to torchmetrics but for the border",
        protocol={**_PROTOCOL, "window": "Gaussian of deviation 1.5, 11 x 11; 5 pixels at the border left out"},
    ),
    by_pictures(ssim),
)
LPIPS = PixelMetric(
    _declare(
        "lpips:alex",
        title="LPIPS (AlexNet)",
        unit="",
        higher_is_better=False,
        what="How far the generated pictures are from the real ones in a network's features, frame by frame.",
        formula="sum over 5 layers of mean over places of sum_c w_c (f_c(x) - f_c(y))^2, mean over frames, then clips",
        source="Zhang et al. 2018, version 0.1",
        compared=(LPIPS_ROWS,),
        protocol={**_PROTOCOL, "network": "alexnet-imagenet, lpips v0.1", "scale": "x / 127.5 - 1, not resized"},
    ),
    by_lpips,
)
METRICS = (PSNR, SSIM, LPIPS)
