"""Files that stand where weights should: each is one clear error, however PyTorch's reader takes it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
import torch
from talkforge.core.errors import WeightsError
from talkforge.models.checkpoints import read_tensors


def saved(value: object) -> bytes:
    stream = BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>not here</html>", b"hello", saved({"a": torch.ones(3)})[:200], b"PK\x03\x04abc"],
    ids=["empty", "page", "text", "cut", "zip"],
)
def test_other_bytes_are_one_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"net: w\.pth cannot be read as tensors alone"):
        read_tensors(path, source="net")


def test_tensors_and_plain_values_are_read(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(saved({"net": {"a": torch.arange(3)}, "epoch": 7}))
    found = read_tensors(path, source="net")
    assert found["epoch"] == 7 and found["net"]["a"].tolist() == [0, 1, 2]
