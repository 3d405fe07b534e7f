"""How large DICE-Talk is, counted on torch's meta device: shapes without memory."""

from __future__ import annotations

import torch
from torch import nn

from ..diffusion.base import parameter_count
from .denoiser_config import DiceTalkConfig
from .model import DiceTalk
from .official import FrozenEncoders


def on_meta(config: DiceTalkConfig) -> tuple[DiceTalk, nn.Module]:
    """Model and encoders with shapes and no memory. Raises MissingPackage without diffusers (and transformers)."""
    with torch.device("meta"):
        model = DiceTalk(config)
        encoders = model.encoders if model.encoders is not None else FrozenEncoders(config)
    # diffusers makes a few single numbers in a way that does not ask for the default device.
    return model.to("meta"), encoders.to("meta")


def count_parameters(config: DiceTalkConfig) -> dict[str, int]:
    """Parameters of each module: `unet_base` first, then what DICE-Talk adds, then the encoders around it.

    The disentangled embedder is a system of its own (`dice-embedder`) and not among them.
    """
    model, encoders = on_meta(config)
    added = {
        slot: sum(value.numel() for name, value in model.denoiser.extras.named_parameters() if f".{slot}." in name)
        for slot in ("audio", "emotion")
    }
    vae = encoders.get_submodule("vae")
    return {
        "unet_base": parameter_count(model.denoiser.unet),
        "cross_attention_audio": added["audio"],
        "cross_attention_emotion": added["emotion"],
        "pose_guider": parameter_count(model.denoiser.pose),
        "audio_tokens": parameter_count(model.audio),
        "emotion_bank": parameter_count(model.bank),
        "emotion_head": parameter_count(model.head),
        "vae": parameter_count(vae),
        "image_encoder": parameter_count(encoders) - parameter_count(vae),
    }


def tensor_shapes(config: DiceTalkConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the model's state dict, by name."""
    model, _ = on_meta(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
