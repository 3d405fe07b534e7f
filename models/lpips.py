"""LPIPS: distance of two pictures in AlexNet's features, weighed as people judge.

R. Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, version 0.1, the
variant "alex" that papers report. Two official files: torchvision's AlexNet (`alexnet-owt-7be5be79.pth`) and the five
1 x 1 weightings that the package lpips carries (`weights/v0.1/alex.pth`); each loads strictly under its own names.

    d(x, y) = sum over 5 layers of mean over places of sum_c w_c (f_c(x) - f_c(y))^2,   f of length 1 at each place

with features after each ReLU. The length has 1e-10 added as in the official package; torchmetrics adds 1e-8 to its
square instead, which moves the fifth digit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..core.errors import InputError
from ..core.weights import weights_store
from .checkpoints import read_state_dict

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.asset_store import AssetStore

BACKBONE, HEADS = "alexnet-imagenet", "lpips-alex"
WIDTHS = (64, 192, 384, 256, 256)
# Places of the five ReLUs among AlexNet's layers; what comes after the last is not used.
TAPS = (1, 4, 7, 9, 11)
MIN_SIDE = 31  # pixels that leave one place after two pools
EPS = 1e-10
# Pictures in [-1, 1], minus these, over those: ImageNet's statistics on that scale.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class AlexNet(nn.Module):
    """torchvision's AlexNet with its names, classifier included, so that the file loads to the last tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Linear(4096, 1000),
        )


class Weighting(nn.Module):
    """One layer's weights: (B, C, H, W) squared differences to (B, 1, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(), nn.Conv2d(width, 1, 1, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class Weightings(nn.Module):
    """The five layers' weights, in the official file's names."""

    def __init__(self) -> None:
        super().__init__()
        for layer, width in enumerate(WIDTHS):
            self.add_module(f"lin{layer}", Weighting(width))


class LPIPS(nn.Module):
    """Two batches of pictures (B, 3, H, W), RGB in [-1, 1], to (B,) distances, 0 where they are equal.

    Args:
        backbone: of which the convolutions are used.
        weightings: of the five layers.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, backbone: AlexNet, weightings: Weightings) -> None:
        super().__init__()
        self.layers = nn.ModuleList(backbone.features[place] for place in range(TAPS[-1] + 1))
        self.weightings = nn.ModuleList(weightings.children())
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Distances (B,).

        Raises:
            InputError: other shapes, or a side under 31 pixels.
        """
        if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < MIN_SIDE:
            raise InputError(f"LPIPS takes two (B, 3, H, W) of at least 31 pixels, not {(*x.shape,)}, {(*y.shape,)}")
        both = zip(self._features(x), self._features(y), self.weightings, strict=True)
        return torch.stack([weigh((a - b) ** 2).mean(dim=(1, 2, 3)) for a, b, weigh in both]).sum(dim=0)

    def _features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Features after each ReLU, of length 1 at each place."""
        x, found = (x - self.shift) / self.scale, []
        for place, layer in enumerate(self.layers):
            x = layer(x)
            if place in TAPS:
                found.append(x / (x.norm(dim=1, keepdim=True) + EPS))
        return found

    def distances(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distances float32 (B,) of two uint8 (B, H, W, 3) RGB."""
        pictures = [torch.from_numpy(np.ascontiguousarray(one)).permute(0, 3, 1, 2) for one in (x, y)]
        with torch.inference_mode():
            a, b = (one.to(self.shift.device).float() / 127.5 - 1 for one in pictures)
            return self(a, b).cpu().numpy()


def read_lpips(backbone: Path, weightings: Path) -> LPIPS:
    """The network of both official files, in eval mode, frozen.

    Raises:
        WeightsError: a file is no state dict, or its names or shapes are not exactly those of its part.
    """
    parts = (
        read_state_dict(AlexNet(), backbone, source=BACKBONE),
        read_state_dict(Weightings(), weightings, source=HEADS),
    )
    return LPIPS(*parts).eval()


def load_lpips(store: AssetStore | None = None) -> LPIPS:
    """The network on the CPU.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: not in the store, or another file under that name.
        WeightsError: see `read_lpips`.
    """
    store = store or weights_store()
    return read_lpips(store.path(BACKBONE), store.path(HEADS))
