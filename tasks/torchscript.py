"""Loading networks that were published in TorchScript."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any


def load_script(path: Path) -> Any:
    """The script module, on the CPU."""
    import torch

    with warnings.catch_warnings():
        # PyTorch would rather have models exported in its newer format; these were published in this one.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(path), map_location="cpu")
