"""FID and its companions: the kernel distance, and both Fréchet distances extrapolated to infinitely many samples.

FID: Fréchet distance between 2048 pooled Inception features of all generated and all real frames (M. Heusel et al.
2017). The variant says by which chain a picture gets onto the network, see `tasks.extract_inception`; the chains differ
by more than methods do, so they are never mixed. Features of other networks keep the name `fd`, their kernel distance
is `kid:<network>`.

Kernel distance and extrapolation: `kid`, `companions`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from .base import FrechetMetric, MetricSpec
from .companions import MOST_ROWS, POINTS, REPEATS, ExtrapolatedMetric, KernelMetric
from .fd import FD_MOBILENET
from .fvd import FVD_16F

EVERY_FRAME = "every frame at 25 fps that has a picture under the crop"
FRECHET = "|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))"
KERNEL = "mean_(i != j) k(x_i, x_j) + mean_(i != j) k(y_i, y_j) - 2 mean k(x_i, y_j), k(a, b) = (a . b / D + 1)^3"
PICTURES = "frames, frame rate and crop are this toolkit's, which few papers state: compare only where they are equal"


class Chain(NamedTuple):
    """A way from frames to features: the variant's name, its extractor, and the facts that define it."""

    variant: str
    extractor: str
    title: str
    network: str
    features: int
    resize: str
    comparable: bool
    why: str
    source: str

    def facts(self) -> dict[str, Any]:
        """What a protocol says of it."""
        return {"network": self.network, "features": self.features, "resize": self.resize, "frames": EVERY_FRAME}


def _inception(variant: str, extractor: str, title: str, resize: str, source: str) -> Chain:
    why = f"network, features and resize of the published chain; {PICTURES}"
    return Chain(variant, extractor, title, "inception-2015-12-05", 2048, resize, True, why, source)


ORIGINAL = _inception(
    "inception-2015",
    "inception-2015",
    "TensorFlow 1",
    "299, TensorFlow 1's bilinear (no half pixel, no antialiasing); (x - 128) / 128",
    "Heusel et al. 2017",
)
PYTORCH_FID = _inception(
    "pytorch-fid",
    "inception-2015-pytorch-fid",
    "pytorch-fid",
    "299, bilinear with pixel centres at half, no antialiasing; x / 127.5 - 1",
    "Heusel et al. 2017; chain of pytorch-fid (Seitzer 2020)",
)
CLEAN = _inception(
    "clean",
    "inception-2015-clean",
    "clean-fid",
    "299, Pillow's antialiased bicubic in float, not rounded; (x - 128) / 128",
    "Heusel et al. 2017; chain of clean-fid (Parmar et al. 2022)",
)
MOBILENET = Chain(
    "mobilenet-v2",
    "mobilenet-v2",
    "MobileNetV2",
    "mobilenet-v2-imagenet",
    1280,
    "224, antialiased bilinear",
    False,
    "papers use Inception features; this is another network under its own name",
    "network: Sandler et al. 2018, ImageNet weights",
)


def _fid(chain: Chain) -> FrechetMetric:
    return FrechetMetric(_spec(f"fid:{chain.variant}", f"FID ({chain.title})", chain), "features")


def _spec(name: str, title: str, chain: Chain) -> MetricSpec:
    return MetricSpec(
        id=name,
        title=title,
        unit="",
        higher_is_better=False,
        what=f"How far the generated frames' look is from the real frames', in features of {chain.network}.",
        formula=f"{FRECHET} over {chain.features} pooled features of every frame",
        source=chain.source,
        generated=(chain.extractor,),
        real=(chain.extractor,),
        comparable_with_papers=chain.comparable,
        measures=("picture", "identity"),
        why=chain.why,
        clip_title="gap of mean features",
        protocol=chain.facts(),
        default=False,
    )


def _kid(chain: Chain, *, default: bool = False) -> KernelMetric:
    spec = replace(
        _spec(f"kid:{chain.variant}", f"KID ({chain.title})", chain),
        formula=KERNEL,
        source=f"Binkowski et al. 2018; {chain.source}",
        default=default,
        protocol={
            **chain.facts(),
            "samples": f"all pairs of frames, as subsets of 1000 estimate it; beyond {MOST_ROWS} a side evenly spaced",
            "scale": "as the formula gives it; papers often print it times 100 or 1000",
            "bias": "none for independent frames; those of a clip are alike, so read it beside real against real",
            "interval": "recentred bootstrap over clips; may reach below 0, as the estimate may",
        },
    )
    return KernelMetric(spec, "features")


def _infinite(metric: FrechetMetric) -> ExtrapolatedMetric:
    """The same distance at infinitely many clips, on request only: it costs many distances."""
    family, _, variant = metric.spec.id.partition(":")
    spec = replace(
        metric.spec,
        id=f"{family}_inf:{variant}",
        title=f"{metric.spec.title}, N to infinity",
        what=f"{metric.spec.what} Extrapolated to infinitely many clips, which takes most of the sample's bias away.",
        formula=f"intercept of a line through the distances of random parts of the clips against 1 / N; {FRECHET}",
        source=f"Chong & Forsyth 2020; {metric.spec.source}",
        comparable_with_papers=False,
        why="papers report the distance at their own number of samples",
        protocol={
            **metric.spec.protocol,
            "line": f"least squares through {POINTS} shares of the clips from a quarter to all, {REPEATS} draws each",
            "interval": "bootstrap over clips of the distance at full size, joined in squares with the line's error",
        },
        default=False,
    )
    return ExtrapolatedMetric(spec, metric.column)


FIDS = tuple(_fid(chain) for chain in (ORIGINAL, PYTORCH_FID, CLEAN))
KIDS = (*(_kid(chain) for chain in (ORIGINAL, PYTORCH_FID, CLEAN)), _kid(MOBILENET, default=True))
METRICS = (*FIDS, *KIDS, *(_infinite(metric) for metric in (*FIDS, FVD_16F, FD_MOBILENET)))
