"""All random number generators that a training may draw from, as tensors and JSON."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seeds Python, numpy and torch on all devices. Ranks draw apart."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)


def rng_state(device: torch.device) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """States of torch's generators as uint8 tensors, and those of Python and numpy JSON-ready."""
    tensors = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    version, words, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state(legacy=True)
    data = {"python": [version, list(words), gauss], "numpy": [kind, np.asarray(keys).tolist(), *rest]}
    return tensors, data


def set_rng_state(tensors: Mapping[str, torch.Tensor], data: Mapping[str, Any], device: torch.device) -> None:
    """Inverse of `rng_state`. A state from a machine without GPU leaves the GPU's generator as it is."""
    torch.set_rng_state(tensors["torch"].cpu())
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"].cpu(), device)
    version, words, gauss = data["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = data["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))


@contextmanager
def untouched(device: torch.device) -> Iterator[None]:
    """Draws within the block leave no trace: a training with samples goes as the one without."""
    state = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(*state, device)
