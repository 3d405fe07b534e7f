"""Image quality networks with weights that anyone can draw again, for the tests of networks, rows and stores."""

from __future__ import annotations

import numpy as np
import torch
from talkforge.models.musiq import Musiq
from talkforge.models.topiq import topiq
from talkforge.tests.models.reference import random_state

CONSTANTS = ("relative_position_index", "attn_mask")  # of the windows: given by geometry, kept in checkpoints


def blank(name: str) -> torch.nn.Module:
    """The network "musiq", "face" or "iaa", without weights."""
    return Musiq() if name == "musiq" else topiq(name)


def drawn_state(name: str, seed: int = 3) -> dict[str, torch.Tensor]:
    """Weights under which answers differ well between pictures."""
    network = blank(name)
    fixed = {key: value for key, value in network.state_dict().items() if key.endswith(CONSTANTS)}
    return random_state(network, seed) | fixed


def drawn(name: str, seed: int = 3) -> torch.nn.Module:
    """The network with these weights, in eval mode."""
    network = blank(name)
    network.load_state_dict(drawn_state(name, seed))
    return network.eval().requires_grad_(False)


def scene(seed: int, height: int, width: int) -> np.ndarray:
    """A picture of waves and noise, uint8 (height, width, 3)."""
    draw = np.random.RandomState(seed)
    y, x = np.mgrid[:height, :width] / draw.uniform(5, 30, (2, 1, 1))
    waves = 128 + 60 * np.sin(x + y) + 40 * np.cos(y)
    return np.clip(waves[..., None] + draw.normal(0, 20, (height, width, 3)) + (10, 0, -20), 0, 255).astype(np.uint8)
