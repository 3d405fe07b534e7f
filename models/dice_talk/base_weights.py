"""Stable Video Diffusion's published weights, from the weights store, into the networks of preset `full`."""

from __future__ import annotations

from ...core.weights import weights_store
from ..diffusion.base import read_base
from ..loading import load_strict
from .denoiser import Denoiser
from .denoiser_config import DiceTalkConfig
from .official import FrozenEncoders

UNET, VAE, IMAGE_ENCODER = "svd-xt-1-1-unet", "svd-xt-1-1-vae", "svd-xt-1-1-image-encoder"
POSITIONS = "vision_model.embeddings.position_ids"  # older files carry the numbers 0, 1, 2, ...


def check_files() -> None:
    """Raises WeightsMissing if one of the three files is not there, before any network is made."""
    store = weights_store()
    for name in (UNET, VAE, IMAGE_ENCODER):
        store.path(name)


def load_encoders(config: DiceTalkConfig) -> FrozenEncoders:
    """The base's VAE and image encoder, frozen; they stand outside of what is trained.

    Raises:
        WeightsMissing: a file is not in the weights store.
        WeightsError: a file cannot be read, or its names or shapes are not the network's.
    """
    check_files()
    encoders = FrozenEncoders(config)
    load_strict(encoders.vae, read_base(VAE), source=VAE)
    seen = {name: value for name, value in read_base(IMAGE_ENCODER).items() if name != POSITIONS}
    load_strict(encoders.clip, seen, source=IMAGE_ENCODER)
    return encoders.eval().requires_grad_(False)


def fill_denoiser(denoiser: Denoiser) -> None:
    """The base's UNet into a denoiser of its size. Errors as for `load_encoders`."""
    denoiser.load_base(read_base(UNET), source=UNET)
