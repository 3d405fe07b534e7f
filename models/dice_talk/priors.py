"""Emotion priors as files: one vector mu for an emotion, to be used as a prompt.

The published priors are `.npy` files, one an emotion and named after it, that hold a pickled dict {"mu": float32
(1, 256)}. A pickle is a program, so they are parsed without running one (`core.unpickle`). Ours are plain `.npz` files,
one array an emotion, that `numpy.load` opens with its defaults.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.emotions import MEAD_EMOTIONS
from ...core.errors import InputError
from ...core.shards import atomic_path
from ...core.unpickle import read_numpy_pickle

WIDTH = 256


def checked(mu: object, where: str, width: int = WIDTH) -> np.ndarray:
    """A prior as float32 (1, width), a copy.

    Raises:
        InputError: no floats of that shape, or not finite.
    """
    if not isinstance(mu, np.ndarray) or mu.dtype.kind != "f" or mu.shape not in {(1, width), (width,)}:
        form = f"{mu.dtype} {mu.shape}" if isinstance(mu, np.ndarray) else type(mu).__name__
        raise InputError(f"{where}: a prior is float32 (1, {width}), not {form}")
    if not np.isfinite(mu).all():
        raise InputError(f"{where}: the prior holds values that are not finite")
    return np.array(mu, dtype=np.float32).reshape(1, width)


def read_published_prior(path: Path) -> np.ndarray:
    """The vector of a published `.npy` prior, float32 (1, 256), without running its pickle.

    Raises:
        UnsafePickle, BadPickle: see `core.unpickle.read_numpy_pickle`.
        InputError: it holds something else.
    """
    tree = read_numpy_pickle(path)
    if not isinstance(tree, Mapping) or "mu" not in tree:
        raise InputError(f"{path}: not a published prior, which holds an array called 'mu'")
    return checked(tree["mu"], str(path))


def read_published_priors(folder: Path) -> dict[str, np.ndarray]:
    """The published priors of a folder by emotion, (1, 256) each; files of other names are not looked at.

    Raises:
        InputError: there is none, or one holds something else.
        UnsafePickle, BadPickle: one cannot be read.
    """
    found = {name: folder / f"{name}.npy" for name in MEAD_EMOTIONS if (folder / f"{name}.npy").is_file()}
    if not found:
        raise InputError(f"{folder} holds no prior", hint=f"expected {', '.join(f'{n}.npy' for n in MEAD_EMOTIONS)}")
    return {name: read_published_prior(path) for name, path in found.items()}


def write_priors(path: Path, priors: Mapping[str, np.ndarray], *, width: int = WIDTH) -> None:
    """Writes priors by name as plain `.npz`, never half-written.

    Args:
        priors: name of an emotion (or of a person and an emotion) -> (1, width) or (width,).

    Raises:
        InputError: a prior of another form, or none at all.
    """
    if not priors:
        raise InputError(f"{path}: there are no priors to write")
    arrays: dict[str, Any] = {name: checked(mu, f"prior '{name}'", width) for name, mu in priors.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        # A stream: given a name that does not end in .npz, NumPy would write to another one.
        np.savez(stream, **arrays)


def read_priors(path: Path, *, width: int = WIDTH) -> dict[str, np.ndarray]:
    """Priors by name from a file of `write_priors`, float32 (1, width) each.

    Raises:
        InputError: no such file, or it holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{path} is one array, not an .npz of priors")
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read the priors of {path}: {error}") from error
    if not arrays:
        raise InputError(f"{path} holds no prior")
    return {name: checked(mu, f"{path}, prior '{name}'", width) for name, mu in arrays.items()}


def mean_prior(priors: Sequence[np.ndarray]) -> np.ndarray:
    """The prompt of an emotion: the mean of the priors of many clips of it (paper, section 4.1), float32 (1, d).

    Args:
        priors: mu of each clip, (1, d) or (d,).

    Raises:
        InputError: none, or of several widths.
    """
    rows = [np.asarray(mu, dtype=np.float64).reshape(-1) for mu in priors]
    if len({len(row) for row in rows}) != 1:
        raise InputError(f"the mean of {len(rows)} priors of widths {sorted({len(row) for row in rows})}")
    return np.stack(rows).mean(axis=0, keepdims=True).astype(np.float32)
