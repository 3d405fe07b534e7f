"""The emotion consistency loss: does the face that is being denoised look as the true one feels? Inferred.

The paper: "an emotion consistency loss ... utilizes the HSEmotionRecognizer algorithm to recognize emotions in the
generated face". Equation, crop and noise levels are not public. Here, for clips at steps t < `low_noise`, with D the
VAE's decoder, c the crop by the face mask, p the recogniser's softmax and phi the features before its last layer:

    x_0' = sqrt(a_t) x_t - sqrt(1 - a_t) v'
    kl       L = KL( p(c(D x_0)) || p(c(D x_0')) )
    cosine   L = 1 - cos( phi(c(D x_0)), phi(c(D x_0')) )

Both pictures go through the same decoder, so that what the VAE loses counts for nothing. Gradients go through crop,
decoder and estimate to v'; recogniser and decoder stay as they are.

The recogniser is HSEmotion's EfficientNet-B0. Where its weights are not there a small network (mini-Xception, FER2013)
stands in, under its own name: its losses are not those of the paper's network and are logged apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from ...core.errors import InputError, WeightsMissing
from ..hsemotion import MEAN, STD, HSEmotion, load_hsemotion_b0
from ..hsemotion import WEIGHTS as HSEMOTION_WEIGHTS
from ..mini_xception import SIZE, MiniXception, load_mini_xception
from ..mini_xception import WEIGHTS as XCEPTION_WEIGHTS
from .config import EmotionLossConfig

if TYPE_CHECKING:
    from ...core.asset_store import AssetStore

LUMA = (0.299, 0.587, 0.114)  # red, green, blue to grey, BT.601


class _KeepInput:
    """Keeps what enters a layer."""

    def __init__(self) -> None:
        self.value: torch.Tensor | None = None

    def __call__(self, module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self.value = given[0]


@dataclass(frozen=True)
class Expression:
    """Logits (N, classes) and features (N, D) of N faces."""

    logits: torch.Tensor
    features: torch.Tensor


class ExpressionJudge(nn.Module):
    """A frozen network that tells expressions apart, differentiable with respect to pictures.

    Args:
        network: in eval mode.

    Attributes:
        name: "hsemotion" or "mini-xception".
        weights: name of its weights in the store.
    """

    def __init__(self, network: HSEmotion | MiniXception) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        is_hsemotion = isinstance(network, HSEmotion)
        self.name = "hsemotion" if is_hsemotion else "mini-xception"
        self.weights = HSEMOTION_WEIGHTS["b0"] if is_hsemotion else XCEPTION_WEIGHTS
        self._kept = _KeepInput()
        last = network.classifier if isinstance(network, HSEmotion) else network.head
        last.register_forward_pre_hook(self._kept)

    @property
    def size(self) -> int:
        """Side of the pictures that the network reads."""
        return self.network.size if isinstance(self.network, HSEmotion) else SIZE

    def forward(self, faces: torch.Tensor) -> Expression:
        """RGB faces (N, 3, size, size) in [-1, 1]."""
        pixels = (faces.clamp(-1, 1) + 1) / 2
        if isinstance(self.network, HSEmotion):
            x = (pixels - pixels.new_tensor(MEAN).view(3, 1, 1)) / pixels.new_tensor(STD).view(3, 1, 1)
        else:
            x = torch.einsum("c,nchw->nhw", pixels.new_tensor(LUMA), pixels)[:, None] * 2 - 1
        logits, features = self.network(x), self._kept.value
        assert features is not None
        self._kept.value = None
        return Expression(logits, features.flatten(2).mean(2) if features.ndim == 4 else features)

    def train(self, mode: bool = True) -> ExpressionJudge:
        """Stays in eval mode: its norms are fixed."""
        return super().train(False)


def load_judge(config: EmotionLossConfig, store: AssetStore | None = None) -> ExpressionJudge:
    """The recogniser that the configuration asks for, on the CPU.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing: its weights, or with "auto" those of both networks, are not there.
    """
    if config.network != "mini-xception":
        try:
            return ExpressionJudge(load_hsemotion_b0(store))
        except WeightsMissing:
            if config.network == "hsemotion":
                raise
    return ExpressionJudge(load_mini_xception(store))


def crop_by_mask(pictures: torch.Tensor, mask: torch.Tensor, size: int) -> torch.Tensor:
    """What lies within each mask's bounding box, resized.

    Args:
        pictures: (N, 3, H, W).
        mask: (N, 1, H, W); above one half is face.

    Returns:
        (N, 3, size, size).

    Raises:
        InputError: a mask without a face, or of another size than the pictures.
    """
    if mask.shape[-2:] != pictures.shape[-2:]:
        raise InputError(f"masks {tuple(mask.shape)} do not fit pictures {tuple(pictures.shape)}")
    faces = []
    for picture, inside in zip(pictures, mask[:, 0] > 0.5, strict=True):
        rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
        if not len(rows):
            raise InputError("a face mask is empty, and the emotion loss has no face to look at")
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        face = picture[None, :, top:bottom, left:right].float()  # a CPU resizes no bfloat16
        faces.append(F.interpolate(face, (size, size), mode="bilinear", antialias=True, align_corners=False))
    return torch.cat(faces)


def consistency(estimate: Expression, target: Expression, config: EmotionLossConfig) -> torch.Tensor:
    """The loss of each face, (N,)."""
    if config.measure == "cosine":
        return 1 - F.cosine_similarity(estimate.features, target.features, dim=1)
    wanted, found = target.logits.log_softmax(1), estimate.logits.log_softmax(1)
    return (wanted.exp() * (wanted - found)).sum(1)


def looked_at(frames: int, config: EmotionLossConfig) -> list[int]:
    """Numbers of the frames that are decoded, evenly spread, of a clip of so many."""
    count = min(frames, config.frames)
    return [(2 * i + 1) * frames // (2 * count) for i in range(count)]
