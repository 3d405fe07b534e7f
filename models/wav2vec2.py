"""wav2vec2's base network: hidden states of speech, 50 a second or as many as there are video frames.

Architecture: A. Baevski et al., "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations",
2020; names of parameters follow Hugging Face's `Wav2Vec2Model`. Between convolutions and transformer the steps may be
brought to a number of frames by linear interpolation with both ends kept, as M. Xu et al., "Hallo", 2024, do in their
code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..core.errors import InputError
from .diffusion.base import read_base
from .loading import load_strict

BASE_960H = "wav2vec2-base-960h"
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
STRIDE, REACH = 320, 400  # samples between two steps, and samples that one step hears
HEAD_WIDTH = 64
POSITION_KERNEL, POSITION_GROUPS = 128, 16
PIECE = 160_000  # samples whose convolutions are in memory at once: 10 s
# Of the published file: the head for letters, and what stands for masked steps in training.
UNUSED = ("lm_head.", "masked_spec_embed")
_POSITIONS = "encoder.pos_conv_embed.conv."
RENAMED = {  # weight normalisation, as newer versions of torch name it
    f"{_POSITIONS}parametrizations.weight.original0": f"{_POSITIONS}weight_g",
    f"{_POSITIONS}parametrizations.weight.original1": f"{_POSITIONS}weight_v",
}


def normalised(samples: np.ndarray) -> np.ndarray:
    """Sound (S,) with zero mean and unit variance, float32, as the published preprocessing has it; silence is zero."""
    exact = samples.astype(np.float64)
    return ((exact - exact.mean()) / np.sqrt(exact.var() + 1e-7)).astype(np.float32)


class Convolution(nn.Module):
    """One of the seven convolutions, GELU after it."""

    def __init__(self, given: int, made: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(given, made, kernel, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.conv(x))


class FirstConvolution(Convolution):
    """The first, which normalises each channel over the whole sound, see `FeatureExtractor`."""

    def __init__(self, given: int, made: int, kernel: int, stride: int) -> None:
        super().__init__(given, made, kernel, stride)
        self.layer_norm = nn.GroupNorm(made, made)


class FeatureExtractor(nn.Module):
    """Samples (B, S) to steps (B, (S - 400) // 320 + 1, C).

    The convolutions run on pieces of 10 s, of which each begins where the one before has made its last step; statistics
    of the first layer's normalisation are those of the whole. So memory does not grow with the sound, and results are
    those of one run.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (1, *[channels] * len(KERNELS))
        self.conv_layers = nn.ModuleList(
            (Convolution if k else FirstConvolution)(given, made, KERNELS[k], STRIDES[k])
            for k, (given, made) in enumerate(pairwise(widths))
        )

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        if samples.ndim != 2 or samples.shape[1] < REACH:
            raise InputError(f"the network takes (B, S) samples, S at least {REACH}, not {tuple(samples.shape)}")
        first, *rest = self.conv_layers
        assert isinstance(first, FirstConvolution)
        scale, shift = _scaling(first, samples)
        found = []
        for piece in _pieces(samples, STRIDE, REACH):
            x = F.gelu(first.conv(piece) * scale + shift)
            for layer in rest:
                x = layer(x)
            found.append(x)
        return torch.cat(found, 2).transpose(1, 2)


def _scaling(first: FirstConvolution, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What each channel of the first convolution is multiplied with, and what is added, (B, C, 1)."""
    norm, count = first.layer_norm, 0
    total = squares = torch.zeros((), dtype=torch.float64, device=samples.device)
    for piece in _pieces(samples, STRIDES[0], KERNELS[0]):
        x = first.conv(piece)
        count += x.shape[2]
        total = total + x.sum(2, dtype=torch.float64)
        squares = squares + x.square().sum(2, dtype=torch.float64)
    mean = total / count
    scale = norm.weight / ((squares / count - mean.square()).clamp(min=0) + norm.eps).sqrt()
    shift = norm.bias - mean * scale
    return scale[..., None].to(samples.dtype), shift[..., None].to(samples.dtype)


def _pieces(samples: torch.Tensor, stride: int, reach: int) -> Iterator[torch.Tensor]:
    """Parts (B, 1, P) of the sound that together make each step once, for convolutions of this stride and reach."""
    steps, each = (samples.shape[1] - reach) // stride + 1, PIECE // stride
    for k in range(0, steps, each):
        yield samples[:, None, k * stride : (min(k + each, steps) - 1) * stride + reach]


class FeatureProjection(nn.Module):
    """Steps (B, N, C) to the transformer's width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.projection(self.layer_norm(x))


class NormedConvolution(nn.Module):
    """Convolution over 128 steps whose weight is a direction and, for each place in the kernel, a length."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(1, 1, POSITION_KERNEL))
        self.weight_v = nn.Parameter(torch.randn(width, width // POSITION_GROUPS, POSITION_KERNEL))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, D, N) to the same shape: an even kernel makes one step more, of which the last is dropped."""
        weight = self.weight_g * self.weight_v / self.weight_v.norm(dim=(0, 1), keepdim=True)
        return F.conv1d(x, weight, self.bias, padding=POSITION_KERNEL // 2, groups=POSITION_GROUPS)[..., :-1]


class PositionEmbedding(nn.Module):
    """Where a step stands, from the steps around it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = NormedConvolution(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.conv(x.transpose(1, 2))).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention with heads of 64."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Four times as wide within."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(width, 4 * width)
        self.output_dense = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output_dense(F.gelu(self.intermediate_dense(x)))


class Layer(nn.Module):
    """Post-norm transformer layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Attention(width)
        self.layer_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer_norm(x + self.attention(x))
        return self.final_layer_norm(x + self.feed_forward(x))


class Encoder(nn.Module):
    """The transformer."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.pos_conv_embed = PositionEmbedding(width)
        self.layer_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.layer_norm(x + self.pos_conv_embed(x))
        states = []
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        return states


class Wav2Vec2(nn.Module):
    """The network without its head.

    Args:
        layers: of the transformer, L (12 in base).
        width: of the transformer, D, a multiple of 64 (768 in base).
        channels: of the convolutions, C (512 in base).
    """

    def __init__(self, layers: int = 12, width: int = 768, channels: int = 512) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor(channels)
        self.feature_projection = FeatureProjection(channels, width)
        self.encoder = Encoder(layers, width)

    def forward(self, samples: torch.Tensor, frames: int | None = None) -> torch.Tensor:
        """The outputs of all layers; each step attends to the whole sound.

        Args:
            samples: (B, S) at 16 kHz, see `normalised`.
            frames: steps that the transformer gets; None leaves them as they are, (S - 400) // 320 + 1.

        Returns:
            (B, frames, L, D): `hidden_states[1:]` of Hugging Face's port, stacked.

        Raises:
            InputError: another shape, or less sound than one step hears.
        """
        steps = self.feature_extractor(samples)
        if frames is not None:
            steps = resampled(steps, frames)
        return torch.stack(self.encoder(self.feature_projection(steps)), dim=2)


def resampled(steps: torch.Tensor, frames: int) -> torch.Tensor:
    """Steps (B, N, C) at evenly spaced places from the first to the last, (B, frames, C).

    Sound of F whole frames at 25 a second has 2 F - 1 steps: brought to F, these are every second one.
    """
    return F.interpolate(steps.transpose(1, 2), size=frames, mode="linear", align_corners=True).transpose(1, 2)


def state_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of a published file under this network's names: with or without its head, either form of weight norm."""
    short = {name.removeprefix("wav2vec2."): value for name, value in tensors.items()}
    return {RENAMED.get(name, name): value for name, value in short.items() if not name.startswith(UNUSED)}


def load_base_960h() -> Wav2Vec2:
    """The base network, trained on 960 hours of LibriSpeech, in eval mode, frozen, on the CPU.

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
        WeightsError: names or shapes are not exactly those of the network.
    """
    state = state_of(read_base(BASE_960H))
    return load_strict(Wav2Vec2(), state, source=BASE_960H)
