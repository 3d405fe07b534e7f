"""The ICT-FaceKit basis: what the file must hold, names, and shapes that do what they are called."""

from pathlib import Path

import numpy as np
import pytest
from talkforge.core.errors import WeightsError
from talkforge.core.landmarks import JAW, MIRRORED_68
from talkforge.models.ict_facekit import FaceBasis, _check, load_landmark_basis, shapes_of
from talkforge.tasks.extract_arkit import BLENDSHAPE_NAMES
from talkforge.tests.tasks.one_row import need


@pytest.fixture(scope="module")
def basis() -> FaceBasis:
    need("ict-facekit-mesh")
    need("ict-facekit-indices")
    return load_landmark_basis()


def moved(basis: FaceBasis, name: str) -> np.ndarray:
    """How the 68 landmarks move when one ARKit blendshape goes from 0 to 1."""
    coefficients = np.zeros(len(BLENDSHAPE_NAMES))
    coefficients[BLENDSHAPE_NAMES.index(name)] = 1
    return basis.shape(np.zeros(100), basis.from_blendshapes(coefficients, BLENDSHAPE_NAMES)) - basis.neutral


def test_every_arkit_blendshape_but_neutral_has_shapes(basis: FaceBasis) -> None:
    used = [shape for name in BLENDSHAPE_NAMES[1:] for shape in shapes_of(name)]
    assert len(used) == len(set(used)) == 53
    assert set(basis.names) - set(used) == {"PupilDilate_L", "PupilDilate_R", "cheekRaiser_L", "cheekRaiser_R"}


def test_the_neutral_face_is_its_own_mirror_image(basis: FaceBasis) -> None:
    """So the file's landmark order is the scheme's: right side first, x to the person's left."""
    assert np.abs(basis.neutral[MIRRORED_68] * (-1, 1, 1) - basis.neutral).max() < 0.001
    assert basis.neutral[0, 0] < -5 < 5 < basis.neutral[16, 0]
    assert basis.neutral[8, 1] < basis.neutral[57, 1] < basis.neutral[33, 1] < basis.neutral[27, 1]
    assert basis.neutral[30, 2] == basis.neutral[:, 2].max()


def test_shapes_do_what_they_are_called(basis: FaceBasis) -> None:
    assert moved(basis, "jawOpen")[8, 1] < -1
    assert moved(basis, "mouthSmileLeft")[54, 1] > 0.3
    assert np.abs(moved(basis, "mouthSmileLeft")[48]).max() < 0.1
    assert moved(basis, "eyeBlinkRight")[[37, 38], 1].max() < -0.2
    assert moved(basis, "browInnerUp")[[21, 22], 1].min() > 0.2
    assert moved(basis, "mouthLeft")[51, 0] > 0.5
    assert np.abs(moved(basis, "eyeBlinkLeft")[JAW]).max() < 0.05


def test_shape_is_linear_and_broadcasts(basis: FaceBasis) -> None:
    rng = np.random.default_rng(0)
    identity, expression = rng.standard_normal(100), rng.random((4, 57))
    points = basis.shape(identity, expression)
    by_hand = basis.neutral + sum(identity[j] * basis.identity[j] for j in range(100))
    by_hand = by_hand + sum(expression[2, j] * basis.expression[j] for j in range(57))
    assert points.shape == (4, 68, 3)
    assert np.abs(points[2] - by_hand).max() < 1e-12


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("browInnerUp", ("browInnerUp_L", "browInnerUp_R")),
        ("mouthLeft", ("mouthLeft",)),
        ("mouthPressRight", ("mouthPress_R",)),
        ("jawOpen", ("jawOpen",)),
    ],
)
def test_names(name: str, shapes: tuple[str, ...]) -> None:
    assert shapes_of(name) == shapes


def test_an_unknown_name_is_refused(basis: FaceBasis) -> None:
    with pytest.raises(WeightsError, match="tongueOut"):
        basis.from_blendshapes(np.zeros(1), ["tongueOut"])


def test_another_file_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", neutral=np.zeros((10, 3)))
    with np.load(tmp_path / "x.npz") as arrays, pytest.raises(WeightsError, match="neutral"):
        _check(arrays)
