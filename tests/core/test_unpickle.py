"""The allow-listed pickle reader against pickle itself, real files, and pickles made to do harm."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from talkforge.core.unpickle import (
    BadPickle,
    UnsafePickle,
    convert_flat_pickle,
    flatten,
    load_pickle,
    read_numpy_pickle,
)

MEDIA = os.environ.get("TALKFORGE_MEDIA")
DTYPES = ["<f2", "<f4", "<f8", ">f4", ">i2", "i1", "u1", "<i8", "<u4", "?", "<c8"]


BAD = {
    "empty": b"",
    "text": b"no pickle at all",
    "cut": pickle.dumps({"w": np.arange(9)}, 4)[:-20],
    "structured": pickle.dumps(np.zeros(3, dtype=[("a", "f4")]), 4),
    "strings": pickle.dumps(np.array(["text"]), 4),
    "dates": pickle.dumps(np.array(["2020-01-01"], dtype="M8[D]"), 4),
    "set": pickle.dumps({1, 2}, 4),
    "tuple key": pickle.dumps({(1, 2): 3}, 4),
    "marks": b"\x80\x03(((((.",
    "extension": b"\x80\x02\x82\x01.",
    "huge": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
    "cycle": b"\x80\x03]q\x00h\x00a.",
}


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_trees_of_arrays_read_as_pickle_reads_them(protocol: int, dtype: str) -> None:
    array = (np.random.default_rng(7).standard_normal((3, 2, 5)) * 50).astype(dtype)
    tree = {
        "params": {"c": array, "f": np.asfortranarray(array[0]), "cut": array[:, ::2], 3: array[:0]},
        "more": [array[0, 0, 0:1], (1, 2.5, None, True, "text", b"bytes"), {}],
        "twice": [array, array],
    }
    data = pickle.dumps(tree, protocol)

    assert same(load_pickle(data), pickle.loads(data))


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_spellings_of_numpys_module_are_read(module: bytes) -> None:
    data = pickle.dumps({"w": np.arange(6.0)}, 3)
    old = b"numpy._core.multiarray"
    assert old in data

    assert same(load_pickle(data.replace(old, module)), {"w": np.arange(6.0)})


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {}",), f"{os.system.__module__}.system"),
        (eval, ("__import__('os').system('touch {}')",), "builtins.eval"),
        (np.load, ("{}",), "numpy.load"),
        (np.fromfile, ("{}",), "fromfile"),
        (io.open, ("{}", "w"), "open"),
        (getattr, ("{}", "format"), "builtins.getattr"),
    ],
)
def test_a_pickle_that_calls_something_is_refused_before_it_runs(
    tmp_path: Path, function: Any, arguments: tuple[str, ...], name: str
) -> None:
    trace = tmp_path / "trace"
    call = Calls(function, *(argument.format(trace) for argument in arguments))
    path = tmp_path / "weights.ckpt"
    path.write_bytes(pickle.dumps({"params": np.zeros(2), "x": call}))

    with pytest.raises(UnsafePickle, match=name) as caught:
        read_numpy_pickle(path)

    assert caught.value.reason == "unsafe_pickle"
    assert str(path) in caught.value.message
    assert not trace.exists()


def test_numpy_itself_cannot_be_called_with_made_up_memory() -> None:
    # ndarray((1,), object, buffer) would read eight attacker-chosen bytes as a pointer.
    call = Calls(np.ndarray, (1,), np.dtype("O"), b"\x41" * 8)

    with pytest.raises(UnsafePickle, match=r"numpy\.ndarray"):
        load_pickle(pickle.dumps(call))


def test_arrays_of_another_type_are_refused() -> None:
    data = pickle.dumps(np.zeros(2), 3)
    subclass = data.replace(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", 1)
    assert subclass != data

    with pytest.raises(UnsafePickle, match="foreign type"):
        load_pickle(subclass)


def test_an_object_array_with_raw_bytes_is_refused() -> None:
    good = pickle.dumps(np.array([None, None], dtype=object), 3)
    raw = b"C\x10" + b"\x41" * 16
    evil = good.replace(b"]q\r(NNe", raw)
    assert raw in evil

    with pytest.raises(BadPickle, match="does not match its data"):
        load_pickle(evil)


def test_what_is_named_cannot_be_changed() -> None:
    # BUILD on the named thing itself: setattr through a pickle.
    evil = b"\x80\x03cnumpy\nndarray\nN}X\x04\x00\x00\x00makeK\x01s\x86b."

    with pytest.raises(UnsafePickle, match="changes what it names"):
        load_pickle(evil)


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_no_plain_tree_of_arrays_is_refused(data: bytes) -> None:
    with pytest.raises(BadPickle) as caught:
        load_pickle(data)

    assert caught.value.reason == "bad_pickle"


def test_references_to_outside_objects_are_refused() -> None:
    with pytest.raises(UnsafePickle, match="outside itself"):
        load_pickle(b"\x80\x03X\x01\x00\x00\x00aQ.")


def test_a_small_pickle_cannot_unfold_into_a_huge_tree() -> None:
    tree: list[Any] = ["x"] * 10
    for _ in range(40):
        tree = [tree] * 10

    assert len(load_pickle(pickle.dumps(tree))) == 10


def test_an_array_whose_shape_lies_is_refused() -> None:
    data = pickle.dumps(np.zeros((2, 3)), 3).replace(b"K\x02K\x03\x86", b"K\x02K\x04\x86")

    with pytest.raises(BadPickle, match=r"shape \(2, 4\)"):
        load_pickle(data)


def test_object_npy_files_read_as_numpy_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "prior.npy"
    prior = {"mu": np.arange(256, dtype=np.float32).reshape(1, 256)}
    np.save(path, np.array(prior, dtype=object), allow_pickle=True)

    assert same(read_numpy_pickle(path), np.load(path, allow_pickle=True).item())


@pytest.mark.parametrize("array", [np.arange(12, dtype=np.float32).reshape(3, 4), np.asfortranarray(np.eye(3))])
def test_plain_npy_files_need_no_pickle(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "plain.npy"
    np.save(path, array)

    assert same(read_numpy_pickle(path), np.load(path))


def test_object_npy_with_dimensions_stays_an_array(tmp_path: Path) -> None:
    path = tmp_path / "list.npy"
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)

    assert read_numpy_pickle(path).tolist() == [{"a": 1}, None]


def test_an_npy_file_with_a_call_inside_is_refused(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.npy", tmp_path / "trace"
    np.save(path, np.array(Calls(os.system, f"touch {trace}"), dtype=object), allow_pickle=True)

    with pytest.raises(UnsafePickle, match="system"):
        read_numpy_pickle(path)
    assert not trace.exists()


def test_an_npy_header_that_promises_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lie.npy"
    np.save(path, np.array([None], dtype=object), allow_pickle=True)
    path.write_bytes(path.read_bytes().replace(b"'shape': (1,)", b"'shape': (2,)"))

    with pytest.raises(BadPickle, match="promises"):
        read_numpy_pickle(path)


@pytest.mark.skipif(not MEDIA, reason="TALKFORGE_MEDIA does not name a folder with the emotion priors")
def test_released_emotion_priors_are_read() -> None:
    paths = sorted(Path(str(MEDIA), "dicetalk").glob("*.npy"))
    priors = {path.stem: read_numpy_pickle(path) for path in paths}

    assert len(priors) == 8
    for path in paths:
        assert same(priors[path.stem], np.load(path, allow_pickle=True).item())
        assert priors[path.stem]["mu"].shape == (1, 256)
        assert priors[path.stem]["mu"].dtype == np.float32


def test_flatten_joins_keys_and_refuses_collisions() -> None:
    tree = {"a": {"b": np.ones(2), 0: [np.zeros(1), 3.5]}, "n": True}

    flat = flatten(tree)

    assert list(flat) == ["a/b", "a/0/0", "a/0/1", "n"]
    assert flat["a/0/1"].shape == () and flat["a/0/1"] == 3.5
    with pytest.raises(BadPickle, match="'a/b'"):
        flatten({"a": {"b": np.ones(1)}, "a/b": np.ones(1)})
    with pytest.raises(BadPickle, match="'a' is a str"):
        flatten({"a": "text"})


def test_conversion_keeps_every_value(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    tree = {
        "params": {"kernel": rng.standard_normal((3, 1, 4)).astype(">f4"), "t": rng.standard_normal((5, 2)).T},
        "step": np.array(3),
    }
    source, target = tmp_path / "w.ckpt", tmp_path / "w.safetensors"
    source.write_bytes(pickle.dumps(tree, 4))

    convert_flat_pickle(source, target, {"source_sha256": "00"})

    loaded = load_file(target)
    assert sorted(loaded) == ["params/kernel", "params/t", "step"]
    np.testing.assert_array_equal(loaded["params/kernel"], tree["params"]["kernel"])
    np.testing.assert_array_equal(loaded["params/t"], tree["params"]["t"])
    assert loaded["step"] == 3
