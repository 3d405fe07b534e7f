"""Stable Video Diffusion's published weights, from the weights store, into the networks of preset `full`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...core.errors import WeightsError
from ...core.weights import weights_store
from ..loading import load_strict
from .denoiser import Denoiser
from .denoiser_config import DiceTalkConfig
from .official import FrozenEncoders

UNET, VAE, IMAGE_ENCODER = "svd-xt-1-1-unet", "svd-xt-1-1-vae", "svd-xt-1-1-image-encoder"
POSITIONS = "vision_model.embeddings.position_ids"  # older files carry the numbers 0, 1, 2, ...


def base_files() -> dict[str, Path]:
    """The three files, before any network is made. Raises WeightsMissing, InputError: one of them is not there."""
    store = weights_store()
    return {name: store.path(name) for name in (UNET, VAE, IMAGE_ENCODER)}


def load_encoders(config: DiceTalkConfig) -> FrozenEncoders:
    """The base's VAE and image encoder, frozen; they stand outside of what is trained.

    Raises:
        WeightsMissing: a file is not in the weights store.
        WeightsError: a file cannot be read, or its names or shapes are not the network's.
    """
    files = base_files()
    encoders = FrozenEncoders(config)
    load_strict(encoders.vae, _read(files[VAE]), source=VAE)
    seen = {name: value for name, value in _read(files[IMAGE_ENCODER]).items() if name != POSITIONS}
    load_strict(encoders.clip, seen, source=IMAGE_ENCODER)
    return encoders.eval().requires_grad_(False)


def fill_denoiser(denoiser: Denoiser) -> None:
    """The base's UNet into a denoiser of its size. Errors as for `load_encoders`."""
    denoiser.load_base(_read(base_files()[UNET]), source=UNET)


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Tensors as float32; the published files are float16."""
    try:
        return {name: value.float() for name, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
