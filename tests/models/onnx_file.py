"""Small ONNX files written by hand, for tests."""

from __future__ import annotations

import numpy as np


def varint(value: int) -> bytes:
    """A protobuf whole number."""
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    """A field that is a whole number, or text, a message or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, shape: tuple[int, ...], values: np.ndarray | None = None, *, kind: int = 1) -> bytes:
    """An initializer of the graph, float32 zeros unless told."""
    data = np.zeros(shape, "<f4") if values is None else values
    dims = b"".join(field(1, n) for n in shape)
    return field(5, dims + field(2, kind) + field(8, name.encode()) + field(9, data.tobytes()))


def node(operator: str, *inputs: str) -> bytes:
    """A node of the graph with one output, a name and an attribute."""
    names = b"".join(field(1, name.encode()) for name in inputs)
    return field(
        1, names + field(2, b"out") + field(3, b"name") + field(4, operator.encode()) + field(5, field(1, b"axis"))
    )


def model(*parts: bytes) -> bytes:
    """A whole file: version, producer and a graph of these parts."""
    return field(1, 7) + field(2, b"by hand") + field(7, b"".join(parts)) + field(8, field(2, 11))
