"""The tensors of a whole network that was saved as a pickled object, read without running anything of the pickle.

Some authors publish `torch.save(network)`, which is a program that imports their classes. This reader takes the tree of
parameters and buffers out of it: tensors are built from the file's raw storages, and every other name in the pickle
becomes an inert object that accepts what is done to it and does nothing. No name is ever imported.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch

from ..core.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

DEEPEST = 50  # modules inside modules
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _Inert:
    """Stand-in for anything that the pickle names and that holds no tensor of its own: it only keeps its state."""

    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Arguments are dropped."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Items are dropped."""

    def __hash__(self) -> int:
        return id(self)

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return _Inert()

    def append(self, value: Any) -> None:
        """Items are dropped."""

    def extend(self, values: Any) -> None:
        """Items are dropped."""


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


class _Reader(pickle.Unpickler):
    """Builds tensors, and inert objects for the rest."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}/data.pkl")))
        self._archive, self._root = archive, root
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Called for every name in the pickle."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self._tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return _rebuild_parameter
        return type(name, (_Inert,), {})

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """A storage as a flat tensor: ("storage", type, key, device, count)."""
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], torch.dtype):
            raise WeightsError("the pickle refers to something that is no storage")
        key = str(pid[2])
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}/data/{key}"))
            # `frombuffer` refuses to view nothing.
            self._storages[key] = torch.frombuffer(data, dtype=pid[1]) if data else torch.empty(0, dtype=pid[1])
        return self._storages[key]

    @staticmethod
    def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
        numbers = (offset, *size, *stride)
        if not isinstance(storage, torch.Tensor) or not all(type(n) is int and n >= 0 for n in numbers):
            raise WeightsError("a tensor in the pickle has an impossible shape")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) and last >= storage.numel():
            raise WeightsError("a tensor in the pickle reaches outside its storage")
        return storage.as_strided(size, stride, offset).clone()


def _collect(module: Any, prefix: str, found: dict[str, torch.Tensor], depth: int = 0) -> None:
    state = module.state if isinstance(module, _Inert) else None
    if not isinstance(state, dict) or not isinstance(state.get("_modules"), dict) or depth > DEEPEST:
        raise WeightsError(f"'{prefix or 'the pickle'}' is no network")
    for kind in ("_parameters", "_buffers"):
        for name, tensor in state.get(kind, {}).items():
            if isinstance(tensor, torch.Tensor):
                found[f"{prefix}{name}"] = tensor
    for name, child in state["_modules"].items():
        if child is not None:
            _collect(child, f"{prefix}{name}.", found, depth + 1)


def read_pickled_module(path: Path) -> dict[str, torch.Tensor]:
    """Parameters and buffers of a network saved whole, by the names that its state dict has.

    Args:
        path: a zip file of `torch.save` (PyTorch 1.6 and later).

    Raises:
        WeightsError: it is no such file, is damaged, or holds no network; or a tensor does not fit its storage.
    """
    found: dict[str, torch.Tensor] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise WeightsError(f"{path.name} is no file of torch.save")
            _collect(_Reader(archive, pickles[0].removesuffix("/data.pkl")).load(), "", found)
    except (OSError, zipfile.BadZipFile, pickle.UnpicklingError, EOFError, RecursionError) as error:
        raise WeightsError(f"{path.name} cannot be read as a pickled network: {error}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{path.name} is a damaged pickle: {error}") from error
    return found
