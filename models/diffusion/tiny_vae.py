"""A small VAE and image encoder for preset `tiny`, trained in the same run as the denoiser.

Ours: they stand where a full system has the base's VAE and an image encoder, so that the whole system can be
trained and run on a CPU without any downloaded weights. Pictures of 64 to 128 pixels, 4 latent channels.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from .batch import Batch, Parts
from .config import VaeConfig
from .tensors import randn

GROUPS = 8


class Residual(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), the width kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(GROUPS, width), nn.GroupNorm(GROUPS, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class TinyVae(nn.Module):
    """Pictures (N, 3, H, W) in [-1, 1] to a Gaussian over latents (N, 4, H / 2^k, W / 2^k) and back.

    The denoiser wants latents of a known spread, and while the VAE learns theirs changes: `spread` follows it.
    """

    spread: torch.Tensor
    steps: torch.Tensor

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
            nn.Conv2d(width, 2 * latent_channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, width, 1),
            Residual(width),
            *up,
            nn.SiLU(),
            nn.Conv2d(width, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.register_buffer("spread", torch.ones(()))
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
        """The factor that gives latents the standard deviation `target`."""
        return self.target / self.spread

    def moments(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the unscaled latents."""
        mean, log_variance = self.encoder(pictures).chunk(2, 1)
        return mean, log_variance.clamp(-20, 10)

    def encode(self, pictures: torch.Tensor, *, scaled: bool = True) -> torch.Tensor:
        """The latents' mean."""
        mean, _ = self.moments(pictures)
        return mean * self.scale if scaled else mean

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents to pictures, not clamped."""
        return self.decoder(latents / self.scale)

    @torch.no_grad()
    def follow(self, latents: torch.Tensor) -> None:
        """Moves `spread` towards the standard deviation of unscaled latents, and counts the batch."""
        self.steps += 1
        self.spread.lerp_(latents.std().clamp_min(1e-3), self.config.momentum)


def vae_loss(
    vae: TinyVae, pictures: torch.Tensor, generator: torch.Generator | None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Mean absolute error of the reconstruction from a sampled latent, and the divergence from a standard normal.

    Args:
        pictures: (N, 3, H, W) in [-1, 1].

    Returns:
        reconstruction + kl_weight x kl, and both of them.
    """
    mean, log_variance = vae.moments(pictures)
    latents = mean + (log_variance / 2).exp() * randn(mean, generator)
    reconstruction = (vae.decoder(latents) - pictures).abs().mean()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    if vae.training:
        vae.follow(mean.detach())
    return reconstruction + vae.config.kl_weight * kl, {"reconstruction": reconstruction.detach(), "kl": kl.detach()}


class TinyEncoders(nn.Module):
    """`batch.Encoders`. `embed` learns with the denoiser, the VAE from `vae_loss` alone.

    Args:
        latent_channels: of a latent, 4 for the bases here.
        target: standard deviation of scaled latents.
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
        """(N, 3, H, W) in [-1, 1] to latents (N, 4, h, w)."""
        return self.vae.encode(pictures, scaled=scaled)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents (T, 4, h, w) to pictures (T, 3, H, W)."""
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
    loss_vae, numbers = vae_loss(encoders.vae, given["pictures"].flatten(0, 1), generator)
    return total + loss_vae, parts | numbers
