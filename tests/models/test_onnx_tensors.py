"""ONNX files: steps and tensors come out as they were put in, and damage is told."""

from pathlib import Path

import numpy as np
import pytest
from talkforge.core.errors import WeightsError
from talkforge.models.onnx_tensors import read_onnx
from talkforge.tests.models.onnx_file import field, model, node, tensor, varint

VALUES = np.arange(24, dtype="<f4").reshape(2, 3, 4)


def read(path: Path, data: bytes) -> list:
    path.write_bytes(data)
    return read_onnx(path)


def test_steps_come_in_order_with_their_tensors(tmp_path: Path) -> None:
    """Tensors may stand before or after the nodes, and whole numbers may be of another type."""
    steps = read(
        tmp_path / "w.onnx",
        model(
            node("Conv", "x", "long-name" * 20, "b"),
            tensor("b", (300,), np.ones(300, "<f4")),
            node("Reshape", "y", "shape"),
            tensor("shape", (1,), np.ones(1, "<i8"), kind=7),
            tensor("long-name" * 20, (2, 3, 4), VALUES),
            node("Add", "y", "x"),
        ),
    )
    assert [step.operator for step in steps] == ["Conv", "Reshape", "Add"]
    assert list(steps[0].constants) == [1, 2]
    assert np.array_equal(steps[0].constants[1], VALUES)
    assert steps[0].constants[2].shape == (300,)
    assert steps[1].constants == steps[2].constants == {}


@pytest.mark.parametrize("packed", [False, True])
def test_both_forms_of_shapes_and_values_are_read(tmp_path: Path, packed: bool) -> None:
    dims = field(1, varint(2) + varint(12)) if packed else field(1, 2) + field(1, 12)
    body = dims + field(2, 1) + field(8, b"w") + field(4 if packed else 9, VALUES.tobytes())
    (step,) = read(tmp_path / "w.onnx", model(node("Gemm", "w"), field(5, body)))
    assert np.array_equal(step.constants[0], VALUES.reshape(2, 12))


def test_it_agrees_with_onnx_itself(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), helper.make_node("Relu", ["y"], ["z"])],
        "graph",
        [helper.make_tensor_value_info("x", 1, [1, 12])],
        [helper.make_tensor_value_info("z", 1, [1, 2])],
        [onnx.numpy_helper.from_array(VALUES.reshape(2, 12), "w")],
    )
    onnx.save(helper.make_model(graph), tmp_path / "w.onnx")
    gemm, relu = read_onnx(tmp_path / "w.onnx")
    assert (gemm.operator, relu.operator) == ("Gemm", "Relu")
    assert np.array_equal(gemm.constants[1], VALUES.reshape(2, 12))


GOOD = model(node("Conv", "w"), tensor("w", (2, 3, 4), VALUES))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no model",
        GOOD[:-20],
        b"\xff" * 40,
        model(node("Conv", "w"), tensor("w", (2, 3, 5), VALUES)),
        field(7, 3),
        field(7, field(1, field(4, 5))),
        GOOD + GOOD,
    ],
)
def test_damage_is_told(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(WeightsError, match="no readable ONNX file"):
        read(tmp_path / "w.onnx", data)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot read"):
        read_onnx(tmp_path / "w.onnx")
