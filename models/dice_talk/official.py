"""Stable Video Diffusion's networks from their public packages, by configuration: UNet, VAE and image encoder.

Shapes are those of stable-video-diffusion-img2vid-xt-1-1 as its configuration files publish them, so that its files
load name by name. Nothing is downloaded here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..diffusers_import import import_extra
from .denoiser_config import DiceTalkConfig, UNetConfig

# CLIP's own normalisation of RGB in 0..1 (A. Radford et al., 2021).
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP_SIZE = 224
VAE_CHANNELS = (128, 256, 512, 512)
# ViT-H/14 with its projection, laid down in the image encoder's config.json.
CLIP_VIT_H: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1024,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": CLIP_SIZE,
    "patch_size": 14,
    "hidden_act": "gelu",
}


def svd_unet(config: UNetConfig) -> Any:
    """`UNetSpatioTemporalConditionModel`; all levels but the deepest attend. Raises MissingPackage."""
    levels = len(config.channels)
    return import_extra("diffusers").UNetSpatioTemporalConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * (levels - 1) + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (levels - 1),
        block_out_channels=config.channels,
        addition_time_embed_dim=config.time_id_dim,
        projection_class_embeddings_input_dim=3 * config.time_id_dim,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.cross_attention_dim,
        transformer_layers_per_block=1,
        num_attention_heads=config.heads,
        num_frames=config.frames,
    )


def svd_vae() -> Any:
    """`AutoencoderKLTemporalDecoder` of the base. Raises MissingPackage."""
    return import_extra("diffusers").AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * len(VAE_CHANNELS),
        block_out_channels=VAE_CHANNELS,
        layers_per_block=2,
        latent_channels=4,
        sample_size=768,
    )


def clip_image_encoder() -> Any:
    """`CLIPVisionModelWithProjection`, ViT-H/14. Raises MissingPackage."""
    transformers = import_extra("transformers")
    return transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**CLIP_VIT_H))


class FrozenEncoders(nn.Module):
    """What `full` needs around the trained part: pictures to latents and back, and the portrait to CLIP's embedding.

    Kept out of the trained model so that checkpoints do not carry 730 million frozen numbers.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: DiceTalkConfig) -> None:
        super().__init__()
        self.config = config.vae
        self.vae, self.clip = svd_vae(), clip_image_encoder()
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).reshape(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, pictures: torch.Tensor, *, scaled: bool = True) -> torch.Tensor:
        """(N, 3, H, W) in [-1, 1] to the mode of their latents (N, 4, H/8, W/8)."""
        latents = self.vae.encode(pictures).latent_dist.mode().to(pictures)  # not bfloat16, which noise would inherit
        return latents * (self.config.scale if scaled else 1.0)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents (T, 4, h, w), consecutive frames of one video, to pictures (T, 3, 8h, 8w)."""
        return self.vae.decode(latents / self.config.scale, num_frames=len(latents)).sample

    @torch.no_grad()
    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        """Portraits (B, 3, H, W) in [-1, 1] to (B, 1024); a plain resize to 224 (released)."""
        small = F.interpolate(pictures, (CLIP_SIZE, CLIP_SIZE), mode="bicubic", antialias=True, align_corners=False)
        return self.clip(((small + 1) / 2 - self.mean) / self.std).image_embeds
