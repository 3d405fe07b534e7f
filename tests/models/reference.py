"""What the parity tests of networks share: weights that anyone can draw again, and imports of reference packages."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

# Prefix of scripts that import torchvision, each in a process of its own, because operators once defined stay defined.
TORCHVISION = """
import sys
from pathlib import Path
import numpy as np, torch
from talkforge.core.torchvision_guard import make_torchvision_importable

make_torchvision_importable()
"""


def run_beside_torchvision(script: str, *arguments: object) -> None:
    """Runs a script in which torchvision can be imported, and shows its complaint if it fails."""
    command = [sys.executable, "-c", TORCHVISION + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def random_state(network: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Uniform weights under which signals neither die out nor blow up; every normalisation off its neutral state.

    NumPy keeps the numbers of `RandomState` the same for ever, so golden values can be told of them.
    """
    draw, state = np.random.RandomState(seed), {}
    for name, tensor in network.state_dict().items():
        shape = tuple(tensor.shape)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            state[name] = torch.from_numpy(draw.uniform(0.5, 1.5, shape).astype(np.float32))
        else:
            bound = (5 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.3
            state[name] = torch.from_numpy(draw.uniform(-bound, bound, shape).astype(np.float32))
    return state


def random_array(seed: int, *shape: int) -> np.ndarray:
    """float32 in [0, 1), the same on every machine."""
    return np.random.RandomState(seed).random_sample(shape).astype(np.float32)
