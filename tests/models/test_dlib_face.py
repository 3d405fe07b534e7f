"""dlib's identity network behind the form of a torch module."""

from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError, WeightsError
from talkforge.models.dlib_face import DlibFace, load_dlib_face, read_dlib_face
from talkforge.tests.tasks.one_row import need

dlib = pytest.importorskip("dlib", reason="dlib is not installed")


@pytest.fixture(scope="module")
def network() -> DlibFace:
    need("dlib-face-resnet")
    return load_dlib_face()


def test_it_is_dlibs_own_answer(network: DlibFace) -> None:
    chips = np.random.default_rng(0).integers(0, 256, (3, 150, 150, 3), dtype=np.uint8)
    plain = dlib.face_recognition_model_v1(str(need("dlib-face-resnet")))
    wanted = np.array([plain.compute_face_descriptor(chip) for chip in chips])
    found = network(torch.from_numpy(chips)).numpy()
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() < 1e-6
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-3


@pytest.mark.parametrize("chips", [torch.zeros(1, 150, 150, 3), torch.zeros(1, 112, 112, 3, dtype=torch.uint8)])
def test_other_pictures_are_refused(network: DlibFace, chips: torch.Tensor) -> None:
    with pytest.raises(InputError, match="uint8"):
        network(chips)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_bytes(b"text")
    with pytest.raises(WeightsError, match="no face identity network"):
        read_dlib_face(tmp_path / "x.dat")
