"""The emotion discrimination objective: which emotion is in the UNet's deepest features of a noisy clip?

W. Tan et al., 2025, eq. 16: features f_t are pooled to v_t, p_t = softmax(psi(v_t)), and L_cls is the cross entropy of
p_t with the clip's emotion, averaged over the sampled timesteps (one for each clip of a batch). Clips of data sets
without emotion labels do not count.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from .denoiser_config import HeadConfig

UNLABELLED = -1


class EmotionHead(nn.Module):
    """Features (B, F, C, h, w) to logits (B, classes): mean over frames and sites, then an MLP with ReLU."""

    def __init__(self, config: HeadConfig, inputs: int) -> None:
        super().__init__()
        widths = (inputs, *config.hidden)
        layers: list[nn.Module] = []
        for width, after in pairwise(widths):
            layers += [nn.Linear(width, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], config.classes))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features.mean((1, 3, 4)))


def discrimination_loss(logits: torch.Tensor, emotion: torch.Tensor) -> tuple[torch.Tensor, float | None]:
    """Eq. 16.

    Args:
        logits: (B, classes).
        emotion: int64 (B,), `UNLABELLED` where it is not known.

    Returns:
        The mean over labelled clips, and the share of them that is told right. Without any labelled clip the loss is a
        0 that leads back to `logits`, so that distributed training finds every gradient, and the share is None.
    """
    known = emotion != UNLABELLED
    if not bool(known.any()):
        return logits.sum() * 0, None
    right = (logits[known].argmax(1) == emotion[known]).float().mean()
    return F.cross_entropy(logits[known], emotion[known]), float(right)
