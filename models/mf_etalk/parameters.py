"""How large MF-ETalk is, counted on torch's meta device: shapes without memory."""

from __future__ import annotations

import torch
from torch import nn

from ..diffusion.base import parameter_count
from .config import MfEtalkConfig
from .model import MfEtalk
from .official import FrozenEncoders


def on_meta(config: MfEtalkConfig) -> tuple[MfEtalk, nn.Module]:
    """Model and encoders with shapes and no memory. Raises MissingPackage without diffusers."""
    with torch.device("meta"):
        model = MfEtalk(config)
        encoders = model.encoders if model.encoders is not None else FrozenEncoders()
    # diffusers makes a few single numbers in a way that does not ask for the default device.
    return model.to("meta"), encoders.to("meta")


def count_parameters(config: MfEtalkConfig) -> dict[str, int]:
    """Parameters of each module: Hallo's first, then what MF-ETalk adds, then the VAE.

    Features come from networks outside: wav2vec2 or Whisper, ArcFace, an AU extractor, and in training the recogniser.
    """
    model, encoders = on_meta(config)
    fusion = [module for name, module in model.denoiser.named_modules() if name.endswith(".fusion")]
    added, vae = parameter_count(*fusion), parameter_count(encoders.get_submodule("vae"))
    return {
        "denoising_unet": parameter_count(model.denoiser.unet),
        "reference_net": parameter_count(model.reference),
        "motion_modules": parameter_count(model.denoiser.motion_modules),
        "audio_modules": parameter_count(model.denoiser.audio_modules) - added,
        "audio_tokens": parameter_count(model.audio),
        "identity_tokens": parameter_count(model.identity),
        "face_locator": parameter_count(model.denoiser.locator),
        "au_guidance": parameter_count(model.aus),
        "fusion": added,
        "vae": vae,
        "image_encoder": parameter_count(encoders) - vae,
    }
