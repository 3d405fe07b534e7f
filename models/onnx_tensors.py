"""What an ONNX file computes, step by step, with its constant tensors: no runtime, no package.

ONNX is protobuf; the few fields that matter here are read by their numbers (onnx.proto, IR version 3 and later). The
file is data all the way: nothing in it can run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

# Field numbers.
MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_INPUT, NODE_OPERATOR = 1, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_NAME, TENSOR_RAW = 1, 2, 4, 8, 9
FLOAT32 = 1


@dataclass(frozen=True)
class Step:
    """One node of the graph.

    Attributes:
        operator: "Conv", "PRelu"...
        constants: its inputs that are stored float32 tensors, by place among its inputs; read-only.
    """

    operator: str
    constants: dict[int, np.ndarray]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field: an int, or the bytes of anything longer."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}[kind]
        if at + size > len(data):
            raise ValueError("a field reaches past the end")
        yield key >> 3, data[at : at + size]
        at += size


def _numbers(value: int | memoryview) -> list[int]:
    """A repeated whole number, packed or not."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number stands where a text or message belongs")
    return value


def _tensor(data: memoryview) -> tuple[str, np.ndarray | None]:
    """Name and values of a tensor; None for one that is not of float32."""
    name, dims, kind, raw = "", [], 0, memoryview(b"")
    for number, value in _fields(data):
        if number == TENSOR_DIMS:
            dims += _numbers(value)
        elif number == TENSOR_TYPE:
            kind = value
        elif number == TENSOR_NAME:
            name = bytes(_bytes(value)).decode()
        elif number in (TENSOR_FLOATS, TENSOR_RAW):
            raw = _bytes(value)
    if kind != FLOAT32:
        return name, None
    if len(raw) != 4 * math.prod(dims):
        raise ValueError(f"tensor {name} of shape {tuple(dims)} has {len(raw)} bytes")
    return name, np.frombuffer(raw, "<f4").reshape(dims)


def _steps(data: memoryview) -> Iterator[Step]:
    graphs = [_bytes(value) for number, value in _fields(data) if number == MODEL_GRAPH]
    if len(graphs) != 1:
        raise ValueError("it holds no graph")
    graph = graphs[0]
    parts = [(number, _bytes(value)) for number, value in _fields(graph) if number in (GRAPH_NODE, GRAPH_INITIALIZER)]
    tensors = dict(_tensor(value) for number, value in parts if number == GRAPH_INITIALIZER)
    for number, node in parts:
        if number != GRAPH_NODE:
            continue
        inputs, operator = [], ""
        for field, value in _fields(node):
            if field == NODE_INPUT:
                inputs.append(bytes(_bytes(value)).decode())
            elif field == NODE_OPERATOR:
                operator = bytes(_bytes(value)).decode()
        found = {place: tensors.get(name) for place, name in enumerate(inputs)}
        yield Step(operator, {place: array for place, array in found.items() if array is not None})


def read_onnx(path: Path) -> list[Step]:
    """The nodes of an ONNX file in the order in which they run.

    Raises:
        WeightsError: no readable ONNX file.
    """
    try:
        return list(_steps(memoryview(path.read_bytes())))
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, IndexError, KeyError) as error:
        raise WeightsError(f"{path.name} is no readable ONNX file: {error}") from error
