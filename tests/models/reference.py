"""What the parity tests of networks share: weights that anyone can draw again, and imports of reference packages."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

# Prefix of scripts that import torchvision. Its library of compiled operators does not load beside every build of
# torch, and then its Python files fail to import because the operators have no schema. The networks here use none of
# them, so empty schemas are enough. In a process of its own, because operators once defined stay defined.
TORCHVISION = """
import re, sys
from importlib.util import find_spec
from pathlib import Path
import numpy as np, torch

try:
    import torchvision
except RuntimeError:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    text = Path(find_spec("torchvision").origin).with_name("_meta_registrations.py").read_text()
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in re.findall(r'register_(?:meta|fake)[(]"(?:torchvision::)?([a-z0-9_]+)"', text):
        library.define(name + "() -> ()")
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
