"""Stable Diffusion v1.5's networks from their public package, by configuration: UNet and VAE.

Shapes are those of the published configuration files, so that the published files load name by name. Nothing is
downloaded here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from ...core.errors import InputError
from ..diffusers_import import import_extra
from ..diffusion.batch import Encoders
from ..diffusion.tiny_vae import TinyEncoders
from .config import UNetConfig

VAE_CHANNELS = (128, 256, 512, 512)
LATENT_SCALE = 0.18215


def sd_unet(config: UNetConfig) -> Any:
    """`UNet2DConditionModel`; all levels but the deepest attend. Raises MissingPackage."""
    levels = len(config.channels)
    return import_extra("diffusers").UNet2DConditionModel(
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        block_out_channels=config.channels,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.cross_attention_dim,
        attention_head_dim=config.heads,  # the base's file gives the number of heads under this name
    )


def sd_vae() -> Any:
    """`AutoencoderKL` of the base. Raises MissingPackage."""
    return import_extra("diffusers").AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(VAE_CHANNELS),
        up_block_types=("UpDecoderBlock2D",) * len(VAE_CHANNELS),
        block_out_channels=VAE_CHANNELS,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


class FrozenEncoders(nn.Module):
    """What `full` needs around the trained part: pictures to latents and back."""

    def __init__(self) -> None:
        super().__init__()
        self.vae = sd_vae()
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, pictures: torch.Tensor, *, scaled: bool = True) -> torch.Tensor:
        """(N, 3, H, W) in [-1, 1] to the mode of their latents (N, 4, H/8, W/8)."""
        latents = self.vae.encode(pictures).latent_dist.mode().to(pictures)  # not bfloat16, which noise would inherit
        return latents * (LATENT_SCALE if scaled else 1.0)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents (N, 4, h, w) to pictures (N, 3, 8h, 8w)."""
        return self.vae.decode(latents / LATENT_SCALE).sample

    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        """Raises InputError: identity embeddings of `full` come with the batch."""
        raise InputError("a batch of MF-ETalk needs 'identity'", hint="ArcFace embeddings of the portraits")


def decode_through(encoders: Encoders, latents: torch.Tensor) -> torch.Tensor:
    """As `decode`, with gradients to the latents and none to the decoder.

    Raises:
        InputError: encoders of another kind.
    """
    if isinstance(encoders, FrozenEncoders):
        return encoders.vae.decode(latents / LATENT_SCALE).sample
    if isinstance(encoders, TinyEncoders):
        vae = encoders.vae
        fixed = {name: value.detach() for name, value in vae.decoder.named_parameters()}
        return vae.pictures(latents / vae.scale, lambda given: functional_call(vae.decoder, fixed, (given,)))
    raise InputError(f"{type(encoders).__name__} does not pass gradients")
