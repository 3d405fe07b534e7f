"""A small VAE and image encoder for preset `tiny`, trained in the same run as the denoiser.

Ours: they stand where a full system has the base's VAE and an image encoder, so that the whole system can be
trained and run on a CPU without any downloaded weights. Pictures of 64 to 128 pixels.

The VAE is a block cosine transform, cut off at the latent's channels, and networks that learn what to add to it. A
handful of minutes on a CPU teaches a network alone no sharp picture (7 clips, 600 steps: FVD 628 of its pictures
against the filmed ones), and the transform is one before the first step (16 channels for 4 x 4 pixels: 64).

Each channel has a standard deviation of its own, fine patterns a small one. All are brought to the denoiser's, or what
it leaves of the noise would be as strong in fine patterns as in coarse ones. With `residual` it does not make pictures
but what changes of the portrait (`departure`), which is little and has a spread of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from ...core.errors import ConfigError
from .batch import Batch, Parts
from .config import VaeConfig
from .tensors import randn

GROUPS = 8
CHROMA_LATER = 2.0  # a colour difference counts as so many cycles a block finer than brightness, when channels are few
LOG_VARIANCE = -6.0  # of a latent before training


def block_cosines(block: int, channels: int) -> torch.Tensor:
    """The `channels` coarsest patterns of a block: cosines across and down, of brightness and two colour differences.

    Returns:
        Orthonormal rows as a convolution's weight, (channels, 3, block, block).

    Raises:
        ConfigError: a block has fewer patterns.
    """
    if channels > 3 * block**2:
        raise ConfigError(f"{channels} latent channels for blocks of {block} x {block} pixels of three colours")
    place, waves = torch.arange(block) + 0.5, torch.arange(block)
    cosines = (waves[:, None] * place * math.pi / block).cos() * (2 / block) ** 0.5
    cosines[0] /= 2**0.5
    colours = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 2.0, -1.0]])
    colours /= colours.norm(dim=1, keepdim=True)
    order = sorted(
        (math.hypot(down, across) + (CHROMA_LATER if colour else 0), colour, down, across)
        for colour in range(3)
        for down in range(block)
        for across in range(block)
    )
    parts = [(colours[c], cosines[down], cosines[across]) for _, c, down, across in order[:channels]]
    return torch.stack([torch.einsum("c,h,w->chw", *part) for part in parts])


def whole_precision(like: torch.Tensor) -> AbstractContextManager[object]:
    """No bfloat16 within: its 8 bits would be the steps of a picture's brightness."""
    if like.is_meta:
        return nullcontext()  # that device has no autocast
    return torch.autocast(like.device.type, enabled=False)


def zeroed(last: nn.Conv2d, second_half: float = 0.0) -> nn.Conv2d:
    """A layer that adds nothing yet; the second half of its channels is a constant."""
    assert last.bias is not None, "it is built with one"
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    nn.init.constant_(last.bias[len(last.bias) // 2 :], second_half)
    return last


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), the width kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, width), nn.GroupNorm(GROUPS, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class TinyVae(nn.Module):
    """Pictures (N, 3, H, W) in [-1, 1] to a Gaussian over latents (N, C, H / 2^k, W / 2^k) and back.

    The denoiser wants latents of a known spread, and while the VAE learns theirs changes: `spread` (C,) follows it, and
    `change` (C,) that of differences from the portrait; both are roots of mean squares.
    """

    spread: torch.Tensor
    change: torch.Tensor
    steps: torch.Tensor
    cosines: torch.Tensor

    def __init__(self, config: VaeConfig, latent_channels: int, target: float) -> None:
        super().__init__()
        self.config, self.target, width = config, target, config.channels
        # Blocks of 2 x 2 pixels are channels on both ends: convolutions at full size would cost more than all others.
        halvings = config.downsamples - 1
        down = [nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), Residual(width)) for _ in range(halvings)]
        up = [
            nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1), Residual(width))
            for _ in range(halvings)
        ]
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, width, 3, padding=1),
            Residual(width),
            *down,
            nn.SiLU(),
            zeroed(nn.Conv2d(width, 2 * latent_channels, 1), LOG_VARIANCE),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, width, 1),
            Residual(width),
            *up,
            nn.SiLU(),
            zeroed(nn.Conv2d(width, 12, 3, padding=1)),
            nn.PixelShuffle(2),
        )
        self.register_buffer("cosines", block_cosines(2**config.downsamples, latent_channels), persistent=False)
        self.register_buffer("spread", torch.ones(latent_channels))
        self.register_buffer("change", torch.ones(latent_channels))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # batches of training, a part of checkpoints

    @property
    def young(self) -> bool:
        """Whether it is trained alone still."""
        return int(self.steps) < self.config.alone_steps

    @property
    def done(self) -> bool:
        """Whether it is trained no more."""
        return not self.config.joint and not self.young

    @property
    def scale(self) -> torch.Tensor:
        """The factors (C, 1, 1) that give each channel the standard deviation `target`."""
        return (self.target / self.spread)[:, None, None]

    @property
    def magnified(self) -> torch.Tensor:
        """How much further the differences from the portrait have to be scaled, (C, 1, 1)."""
        return (self.spread / self.change)[:, None, None]

    @property
    def importance(self) -> torch.Tensor:
        """How much an error of each channel of what is denoised shows in pictures, (C, 1, 1); its mean square is 1."""
        shown = self.change if self.config.residual else self.spread
        return (shown / shown.square().mean().sqrt())[:, None, None]

    def departure(self, latents: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """What is denoised, of scaled latents (B, F, C, h, w) and the portrait's (B, C, h, w)."""
        return (latents - reference[:, None]) * self.magnified if self.config.residual else latents

    def arrival(self, departure: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """Scaled latents from what was denoised, see `departure`."""
        return departure / self.magnified + reference[:, None] if self.config.residual else departure

    def moments(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the unscaled latents."""
        with whole_precision(pictures):
            pictures = pictures.to(self.cosines)
            more, log_variance = self.encoder(pictures).chunk(2, 1)
            mean = F.conv2d(pictures, self.cosines, stride=self.cosines.shape[-1]) + more
            return mean, log_variance.clamp(-20, 10)

    def encode(self, pictures: torch.Tensor, *, scaled: bool = True) -> torch.Tensor:
        """The latents' mean."""
        mean, _ = self.moments(pictures)
        return mean * self.scale if scaled else mean

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents to pictures, not clamped."""
        return self.pictures(latents / self.scale)

    def pictures(
        self, latents: torch.Tensor, decoder: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Unscaled latents to pictures, not clamped; `decoder` in the own one's place, say one that does not learn."""
        with whole_precision(latents):
            latents = latents.to(self.cosines)
            plain = F.conv_transpose2d(latents, self.cosines, stride=self.cosines.shape[-1])
            return plain + (decoder or self.decoder)(latents)

    @torch.no_grad()
    def follow(self, latents: torch.Tensor, portrait: torch.Tensor) -> None:
        """Moves `spread` and `change` towards those of unscaled latents (B, F, C, h, w), and counts the batch.

        Args:
            portrait: unscaled latents of the portraits, (B, C, h, w).
        """
        self.steps += 1
        for kept, values in ((self.spread, latents), (self.change, latents - portrait[:, None])):
            now = values.square().mean((0, 1, 3, 4)).sqrt().clamp_min(1e-3)
            kept.lerp_(now, max(self.config.momentum, 1 / float(self.steps)))


def vae_loss(
    vae: TinyVae, pictures: torch.Tensor, portrait: torch.Tensor, generator: torch.Generator | None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Mean absolute error of the reconstruction from a sampled latent, and the divergence from a standard normal.

    Args:
        pictures: (B, F, 3, H, W) in [-1, 1].
        portrait: (B, 3, H, W), which the latents' spread is taken from too.

    Returns:
        reconstruction + kl_weight x kl, and both of them.
    """
    mean, log_variance = vae.moments(pictures.flatten(0, 1))
    latents = mean + (log_variance / 2).exp() * randn(mean, generator)
    reconstruction = (vae.pictures(latents) - pictures.flatten(0, 1)).abs().mean()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    if vae.training:
        vae.follow(mean.detach().unflatten(0, pictures.shape[:2]), vae.encode(portrait, scaled=False).detach())
    return reconstruction + vae.config.kl_weight * kl, {"reconstruction": reconstruction.detach(), "kl": kl.detach()}


class TinyEncoders(nn.Module):
    """`batch.Encoders`. `embed` learns with the denoiser, the VAE from `vae_loss` alone.

    Args:
        latent_channels: of a latent.
        target: standard deviation of each channel of scaled latents.
        width: of the portrait's embedding.
    """

    def __init__(self, vae: VaeConfig, latent_channels: int, target: float, width: int) -> None:
        super().__init__()
        channels = vae.channels
        self.vae = TinyVae(vae, latent_channels, target)
        self.image = nn.Sequential(
            nn.Conv2d(3, channels, 5, 4, 2),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 5, 4, 2),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.embedding = nn.Linear(4 * channels, width)

    @torch.no_grad()
    def encode(self, pictures: torch.Tensor, *, scaled: bool = True) -> torch.Tensor:
        """(N, 3, H, W) in [-1, 1] to latents (N, C, h, w)."""
        return self.vae.encode(pictures, scaled=scaled)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents (T, C, h, w) to pictures (T, 3, H, W)."""
        return self.vae.decode(latents)

    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        """Portraits (B, 3, H, W) in [-1, 1] to (B, width)."""
        return self.embedding(self.image(pictures).flatten(1))


def vae_alone(encoders: TinyEncoders | None, *, training: bool) -> bool:
    """Whether a batch is one of the first of training, which train the VAE and nothing else."""
    return training and encoders is not None and encoders.vae.young


def add_vae_loss(
    total: torch.Tensor,
    parts: Parts,
    encoders: TinyEncoders | None,
    given: Batch,
    generator: torch.Generator | None,
) -> tuple[torch.Tensor, Parts]:
    """A step's loss and its parts with the VAE's own loss, where there is one that is trained still."""
    if encoders is None or "pictures" not in given or encoders.vae.done:
        return total, parts
    loss_vae, numbers = vae_loss(encoders.vae, given["pictures"], given["portrait"], generator)
    return total + loss_vae, parts | numbers


def departure(encoders: TinyEncoders | None, latents: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """What is denoised: the latents themselves but for a small VAE that says otherwise."""
    return latents if encoders is None else encoders.vae.departure(latents, reference)


def arrival(encoders: TinyEncoders | None, found: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Latents from what was denoised, see `departure`."""
    return found if encoders is None else encoders.vae.arrival(found, reference)


def as_seen(encoders: TinyEncoders | None, denoised: torch.Tensor) -> torch.Tensor:
    """What was or should be denoised (..., C, h, w), for the loss: errors count as they do in pictures."""
    return denoised if encoders is None else denoised * encoders.vae.importance
