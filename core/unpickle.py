"""Pickles that hold nothing but NumPy arrays in dicts and lists, read without running anything that they name.

A pickle is a program. This reader lets it name three things (numpy's `ndarray`, `dtype` and `_reconstruct`), and even
these are inert stand-ins defined here: they note what the pickle says, and the arrays are then built from the noted
bytes. Any other name is refused before it is looked up.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import WeightsError

NPY_MAGIC = b"\x93NUMPY"
NUMERIC_KINDS = "biufc"


class UnsafePickle(WeightsError):
    """The pickle names something that is not on the allow-list."""

    reason = "unsafe_pickle"


class BadPickle(WeightsError):
    """The pickle is damaged, or does not hold plain arrays."""

    reason = "bad_pickle"


class _Dtype:
    """Stand-in for `numpy.dtype`: remembers the code and the byte order."""

    def __init__(self, code: Any = None, align: Any = False, copy: Any = False) -> None:
        self.code = code
        self.order = "|"

    def __setstate__(self, state: Any) -> None:
        """State is (version, byte order, subarray, names, fields, size, alignment, flags...)."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise BadPickle("the pickle holds structured arrays, which are not expected")
        self.order = state[1]

    def resolve(self) -> np.dtype | None:
        """The numeric dtype, or None for objects."""
        code = self.code.decode("ascii", "replace") if isinstance(self.code, bytes) else self.code
        if code in ("O", "O8", "O4"):
            return None
        if not isinstance(code, str) or code[:1] not in NUMERIC_KINDS or not code[1:].isdigit():
            raise BadPickle(f"the pickle holds arrays of type {code!r}; only numbers are expected")
        order = self.order if self.order in ("<", ">") else "="
        try:
            return np.dtype(order + code)
        except TypeError as error:
            raise BadPickle(f"the pickle holds arrays of the unknown type {code!r}") from error


class _Array:
    """Stand-in for an array under reconstruction: remembers shape, type and bytes."""

    def __init__(self) -> None:
        self.state: tuple[Any, ...] | None = None

    def __setstate__(self, state: Any) -> None:
        """State is (version, shape, dtype, Fortran order, data)."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise BadPickle("an array's state has an unknown form")
        self.state = state[1:]

    def build(self, builder: _Builder) -> np.ndarray:
        """The array; one of objects becomes an object array of built values."""
        if self.state is None:
            raise BadPickle("an array has no content")
        shape, dtype, fortran, data = self.state
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise BadPickle(f"an array has the impossible shape {shape!r}")
        kind, order = dtype.resolve(), "F" if fortran else "C"
        size = math.prod(shape) * (kind.itemsize if kind else 1)
        if not isinstance(data, bytes if kind else list) or len(data) != size:
            raise BadPickle(f"an array of shape {shape} does not match its data")
        if kind is not None and isinstance(data, bytes):
            # In the machine's byte order, as NumPy itself reads it.
            return np.frombuffer(data, kind).reshape(shape, order=order).astype(kind.newbyteorder("="), copy=False)
        flat = np.empty(size, dtype=object)
        for place, value in enumerate(data):
            flat[place] = builder.build(value)
        return flat.reshape(shape, order=order)


class _Named:
    """Stand-in for a thing that the pickle may name: it can be called where that makes sense, and never changed."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickle("the pickle changes what it names")


def _call_ndarray(*args: Any) -> Any:
    raise UnsafePickle("the pickle calls numpy.ndarray itself, which saved arrays never do")


def _reconstruct(subtype: Any, shape: Any, code: Any) -> _Array:
    """Stand-in for numpy's function of that name: an empty array, which its state fills."""
    if subtype is not NDARRAY:
        raise UnsafePickle("the pickle builds an array of a foreign type")
    return _Array()


NDARRAY = _Named(_call_ndarray)
RECONSTRUCT = _Named(_reconstruct)
ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): _Named(_Dtype),
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
}


class _Reader(pickle.Unpickler):
    """An unpickler that knows the names in ALLOWED and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Called for every name in the pickle."""
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise UnsafePickle(f"the pickle names {module}.{name}, which is not on the allow-list") from None

    def persistent_load(self, pid: Any) -> Any:
        """Called for references to things outside the pickle."""
        raise UnsafePickle("the pickle refers to objects outside itself")


def _load(stream: BinaryIO) -> Any:
    try:
        return _Builder().build(_Reader(stream).load())
    except WeightsError:
        raise
    except (pickle.UnpicklingError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise BadPickle(f"not a readable pickle: {error}") from error
    except (EOFError, MemoryError, OverflowError, RecursionError) as error:
        raise BadPickle(f"not a readable pickle: {error or type(error).__name__}") from error


class _Builder:
    """Replaces stand-ins by arrays, through dicts, lists and tuples.

    Shared containers are built once, so that a small pickle cannot unfold into a huge tree, and ones that contain
    themselves are refused.
    """

    def __init__(self) -> None:
        self._built: dict[int, Any] = {}
        self._open: set[int] = set()

    def build(self, value: Any) -> Any:
        """The value with arrays in place of their stand-ins."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return value
        if not isinstance(value, _Array | dict | list | tuple):
            raise BadPickle(f"the pickle holds a {type(value).__name__.strip('_')}, not arrays in dicts and lists")
        if id(value) in self._open:
            raise BadPickle("the pickle's tree contains itself")
        if id(value) not in self._built:
            self._open.add(id(value))
            self._built[id(value)] = self._container(value)
            self._open.remove(id(value))
        return self._built[id(value)]

    def _container(self, value: Any) -> Any:
        if isinstance(value, _Array):
            return value.build(self)
        if isinstance(value, dict):
            if not all(isinstance(key, str | int) for key in value):
                raise BadPickle("a dict in the pickle has keys that are neither text nor whole numbers")
            return {key: self.build(entry) for key, entry in value.items()}
        return type(value)(self.build(entry) for entry in value)


def load_pickle(data: bytes) -> Any:
    """The tree in a pickle of NumPy arrays: dicts, lists, tuples, plain numbers and text, read-only arrays.

    Raises:
        UnsafePickle: it names anything but numpy's ndarray, dtype and _reconstruct; the message says what.
        BadPickle: damaged, or holding something else than plain arrays.
    """
    return _load(io.BytesIO(data))


def _read_npy(stream: BinaryIO) -> Any:
    """An .npy file; an object array without dimensions gives its only item."""
    try:
        version = np.lib.format.read_magic(stream)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = header(stream)
        if not dtype.hasobject:
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, KeyError, EOFError) as error:
        raise BadPickle(f"not a readable .npy file: {error}") from error
    array = _load(stream)
    if not isinstance(array, np.ndarray) or array.dtype != object or array.shape != shape:
        raise BadPickle(f"the header promises objects of shape {shape} and the content is something else")
    return array.item() if array.ndim == 0 else array


def read_numpy_pickle(path: Path) -> Any:
    """Reads a pickle of NumPy arrays, or an .npy file that holds objects, without running it.

    Args:
        path: a pickle (any protocol) or an .npy file (its object array is a pickle inside).

    Returns:
        The tree; for an .npy with an object array of no dimensions, the one item. Arrays may be read-only.

    Raises:
        UnsafePickle: it names something that is not on the allow-list.
        BadPickle: missing, damaged or of another form.
    """
    try:
        with path.open("rb") as stream:
            is_npy = stream.read(len(NPY_MAGIC)) == NPY_MAGIC
            stream.seek(0)
            return _read_npy(stream) if is_npy else _load(stream)
    except WeightsError as error:
        error.message = f"{path}: {error.message}"
        raise
    except OSError as error:
        raise BadPickle(f"cannot read {path}: {error.strerror or error}") from error


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Nested dicts and lists of arrays as one dict with keys like "a/b/0"; numbers become arrays of no dimensions.

    Raises:
        BadPickle: a leaf is no array or number, or two leaves get the same key.
    """
    flat: dict[str, np.ndarray] = {}
    for key, value in _leaves(tree, ()):
        if key in flat:
            raise BadPickle(f"two arrays would be called '{key}'")
        flat[key] = value
    return flat


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, dict | list | tuple):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(tree, np.ndarray) and tree.dtype != object:
        yield "/".join(path), tree
    elif isinstance(tree, bool | int | float):
        yield "/".join(path), np.asarray(tree)
    else:
        raise BadPickle(f"'{'/'.join(path)}' is a {type(tree).__name__}, not an array")


def convert_flat_pickle(source: Path, target: Path, metadata: Mapping[str, str]) -> None:
    """Writes a pickled tree of arrays as safetensors, keys joined with "/".

    Args:
        source: the pickle.
        target: file to write; the caller makes it atomic.
        metadata: text pairs for the file's header.

    Raises:
        UnsafePickle, BadPickle: see `read_numpy_pickle` and `flatten`.
    """
    from safetensors.numpy import save

    arrays = flatten(read_numpy_pickle(source))
    rows_first = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    # Not `save_file`: that makes the file readable for its owner only, and a store may be shared.
    target.write_bytes(save(rows_first, metadata=dict(metadata)))
