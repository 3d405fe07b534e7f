"""Extractor `mobilenet-v2`: 1280 pooled features of an ImageNet network for every frame with a picture.

They stand in for Inception features where those weights cannot be had. The distance made from them carries this
network's name, never "FID".
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from .extractor import ExtractorSpec, series, vectors
from .frame_network import FrameNetwork

WIDTH = 1280
FRAMES_PER_FORWARD = 16
NETWORK = "talkforge.models.mobilenet_v2:load_mobilenet_v2"

MOBILENET = ExtractorSpec(
    id="mobilenet-v2",
    version=1,
    target="talkforge.tasks.extract_mobilenet:FrameFeatures",
    columns={"features": vectors(WIDTH), "frame": series(pa.int32()), "n_frames": pa.int32()},
    what="MobileNetV2 (ImageNet) pooled features of every frame",
    picture=True,
    weights=("mobilenet-v2-imagenet",),
    params={"frames": "all"},
)
EXTRACTORS = (MOBILENET,)


class FrameFeatures(FrameNetwork):
    """Features of one clip's frames."""

    at_once = FRAMES_PER_FORWARD
    counted_as = "mobilenet-v2"

    def forward(self, pictures: np.ndarray) -> np.ndarray:
        """float32 (B, 1280)."""
        import torch

        from ..models.mobilenet_v2 import prepare_frames

        network = self.context.network(NETWORK)
        with torch.inference_mode():
            return network.features_1280(prepare_frames(pictures).to(self.context.device)).float().cpu().numpy()
