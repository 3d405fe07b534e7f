"""Stable Diffusion v1.5's published weights, from the weights store, into the networks of preset `full`."""

from __future__ import annotations

import torch

from ..diffusion.base import read_base
from ..loading import load_strict
from .model import MfEtalk
from .official import FrozenEncoders

UNET, VAE = "sd15-unet", "sd15-vae"
# The VAE's file has its one attention layer of each half under names that diffusers has given up.
OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def load_encoders() -> FrozenEncoders:
    """The base's VAE, frozen; it stands outside of what is trained.

    Raises:
        WeightsMissing: its file is not in the weights store.
        WeightsError: the file cannot be read, or its names or shapes are not the network's.
    """
    state = renamed(read_base(VAE))
    encoders = FrozenEncoders()
    load_strict(encoders.vae, state, source=VAE)
    return encoders.eval().requires_grad_(False)


def fill(model: MfEtalk) -> None:
    """The base's UNet into denoiser and ReferenceNet. Errors as for `load_encoders`."""
    state = read_base(UNET)
    model.denoiser.load_base(state, source=UNET)
    model.reference.load_base(state, source=UNET)


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The VAE's tensors under today's names."""
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        for old, new in OLD_NAMES.items():
            name = name.replace(old, new) if ".attentions." in name else name
        found[name] = value
    return found
