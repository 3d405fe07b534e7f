"""Pictures stored to the last bit: one lossless WebP file after the other, and where each ends.

Kept by `tasks.extract_lossless`, read by metrics of pixels and by comparisons of pairs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol

import numpy as np
from PIL import Image

from .errors import InputError


class Row(Protocol):
    """A stored row with the columns pictures, ends and frame."""

    def array(self, column: str) -> np.ndarray: ...

    def value(self, column: str) -> Any: ...


class SizeMismatch(InputError):
    """The two sides' pictures have different sizes, so that no pixel belongs to another."""

    reason: ClassVar[str] = "size_mismatch"


def append_picture(stream: io.BytesIO, picture: np.ndarray) -> int:
    """Adds one uint8 (H, W, 3); returns where it ends.

    The fastest setting: on crops of real clips it came out smaller than slower formats did, see the extractor.
    """
    Image.fromarray(picture).save(stream, "WEBP", lossless=True, quality=0, method=0)
    return stream.tell()


def picture_reader(row: Row) -> Callable[[int], np.ndarray]:
    """From a place in the row to its picture, uint8 (H, W, 3)."""
    data = memoryview(row.value("pictures"))
    ends = row.array("ends").tolist()
    starts = [0, *ends[:-1]]

    def read(place: int) -> np.ndarray:
        with Image.open(io.BytesIO(data[starts[place] : ends[place]])) as picture:
            return np.asarray(picture.convert("RGB"))

    return read


def paired_pictures(generated: Row, real: Row) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Number and pictures of each frame that both sides have one of, two in memory at a time.

    Raises:
        SizeMismatch: they differ in size.
    """
    frames, places, others = np.intersect1d(generated.array("frame"), real.array("frame"), return_indices=True)
    read, read_other = picture_reader(generated), picture_reader(real)
    for frame, place, other in zip(frames.tolist(), places.tolist(), others.tolist(), strict=True):
        x, y = read(place), read_other(other)
        if x.shape != y.shape:
            sizes = " and ".join(f"{one.shape[1]}x{one.shape[0]}" for one in (x, y))
            raise SizeMismatch(f"pictures of {sizes} have no pixels in common", hint="use --crop face")
        yield frame, x, y
