"""dlib's face identity network: an aligned 150x150 face to 128 numbers; closer than 0.6 is taken for one person.

D. E. King, "High Quality Face Recognition with Deep Metric Learning", 2017: a ResNet with 29 convolutions, trained on
about three million faces. dlib itself runs it (package `dlib-bin`), on the CPU; it stands here in a torch module so
that it is loaded and shared as the other networks are.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..core.errors import InputError, MissingPackage, WeightsError, extra_hint
from ..core.weights import weights_store

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.asset_store import AssetStore

WEIGHTS = "dlib-face-resnet"
SIZE = 150
WIDTH = 128


class DlibFace(nn.Module):
    """uint8 (B, 150, 150, 3) RGB tensors, cut as `dlib.get_face_chip` does, to float32 (B, 128) on the CPU."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self._network = network
        self._lock = Lock()  # dlib keeps a pass's activations in the network object

    def forward(self, chips: torch.Tensor) -> torch.Tensor:
        if chips.dtype != torch.uint8 or chips.ndim != 4 or chips.shape[1:] != (SIZE, SIZE, 3):
            raise InputError(f"chips are uint8 (B, {SIZE}, {SIZE}, 3), not {chips.dtype} {tuple(chips.shape)}")
        with self._lock:
            rows = self._network.compute_face_descriptor([np.ascontiguousarray(chip) for chip in chips.cpu().numpy()])
        return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(len(chips), WIDTH))


def read_dlib_face(path: Path) -> DlibFace:
    """The network of dlib's own file.

    Raises:
        MissingPackage: dlib is not installed.
        WeightsError: no file of this network.
    """
    try:
        import dlib
    except ImportError as error:
        raise MissingPackage("dlib is not installed", hint=extra_hint("identity")) from error
    try:
        compiled: Any = dlib  # the package describes no types for its compiled part
        return DlibFace(compiled.face_recognition_model_v1(str(path))).eval()
    except RuntimeError as error:
        raise WeightsError(f"{WEIGHTS}: {path.name} is no face identity network of dlib") from error


def load_dlib_face(store: AssetStore | None = None) -> DlibFace:
    """The network.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
        MissingPackage, WeightsError: see `read_dlib_face`.
    """
    return read_dlib_face((store or weights_store()).path(WEIGHTS))
