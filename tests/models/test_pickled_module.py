"""Networks saved whole: every tensor comes out, and nothing of the pickle runs."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from talkforge.core.errors import WeightsError
from talkforge.models.pickled_module import read_pickled_module
from torch import nn


class Strange(nn.Module):
    """Things that pickled networks hold beside their layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU())
        self.shared = self.conv[0]
        self.act = torch.nn.functional.silu
        self.shape, self.names, self.tags = torch.Size([1, 2]), ["a", {"b": 1}], {"x", "y"}
        self.register_buffer("turned", torch.arange(6.0).half().reshape(2, 3).T)  # strides out of order
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_parameter("nothing", None)
        self.missing: nn.Module | None = None
        self.tail = nn.Linear(4, 2)


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def archive(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
    return path


def test_the_tensors_are_those_of_the_state_dict(tmp_path: Path) -> None:
    network = Strange()
    torch.save(network, tmp_path / "w.pt")
    found, wanted = read_pickled_module(tmp_path / "w.pt"), network.state_dict()
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_what_a_pickle_calls_is_not_called(tmp_path: Path) -> None:
    """PyTorch's own unrestricted reader would make the file; this one finds no network and runs nothing."""
    trace = tmp_path / "trace"
    for function, *arguments in (
        (os.system, f"touch {trace}"),
        (Path.touch, trace),
        (eval, f"open({str(trace)!r},'w')"),
    ):
        path = archive(tmp_path / "w.pt", pickle.dumps(Calls(function, *arguments), 2))
        with pytest.raises(WeightsError, match="is no network"):
            read_pickled_module(path)
        assert not trace.exists()


def test_a_call_beside_the_tensors_does_not_run_either(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    network.extra = Calls(os.mkdir, str(tmp_path / "trace"))  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    torch.save(network, tmp_path / "w.pt")
    assert sorted(read_pickled_module(tmp_path / "w.pt")) == ["bias", "weight"]
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        pickle.dumps({"a": 1}),
        pickle.dumps(Calls(torch._utils._rebuild_tensor_v2, [], 0, (2,), (1,)), 2),
        b"\x80\x02X\x01\x00\x00\x00aQ.",  # a reference that is no storage
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(WeightsError):
        read_pickled_module(archive(tmp_path / "w.pt", data))


def test_a_tensor_outside_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(300, 2), tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as old, zipfile.ZipFile(tmp_path / "cut.pt", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[:-4] if "/data/" in name else data)
    with pytest.raises(WeightsError, match="outside its storage"):
        read_pickled_module(tmp_path / "cut.pt")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"text")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_pickled_module(tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as file:
        file.writestr("a", "b")
    with pytest.raises(WeightsError, match=r"no file of torch\.save"):
        read_pickled_module(tmp_path / "w.pt")
