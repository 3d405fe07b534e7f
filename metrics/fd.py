"""Fréchet distance over image features of every frame, under the name of the network that made them.

`fd:mobilenet-v2` follows FID's formula (Heusel et al. 2017) with another network, so it ranks methods on one data set
and cannot be compared with any published FID.
"""

from __future__ import annotations

from .base import FrechetMetric, MetricSpec

FD_MOBILENET = FrechetMetric(
    spec=MetricSpec(
        id="fd:mobilenet-v2",
        title="FD (MobileNetV2)",
        unit="",
        higher_is_better=False,
        what="How far the generated frames' look is from the real frames', in ImageNet features of MobileNetV2.",
        formula="|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) over 1280 pooled features of every frame",
        source="Heusel et al. 2017 for the distance; network: Sandler et al. 2018, ImageNet weights",
        generated=("mobilenet-v2",),
        real=("mobilenet-v2",),
        comparable_with_papers=False,
        measures=("picture", "identity"),
        why="papers use Inception features; this is another network under its own name",
        clip_title="gap of mean features",
        protocol={"network": "mobilenet-v2-imagenet", "features": 1280, "frames": "every frame at 25 fps"},
    ),
    column="features",
)
METRICS = (FD_MOBILENET,)
