"""The ICT-FaceKit face model, as points: neutral mesh, identity and expression shapes.

R. Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020; data of ICT-VGL/ICT-FaceKit (MIT).
A face is neutral + sum_j a_j identity_j + sum_j c_j expression_j over 9,409 vertices of the front of the head, in
centimetres; x to the person's left, y up, z out of the face. Identity coefficients have unit variance over people,
expression coefficients lie in 0..1 and carry ARKit's names, paired shapes with _L and _R.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import WeightsError
from ..core.weights import weights_store

if TYPE_CHECKING:
    from ..core.asset_store import AssetStore

MESH, INDICES = "ict-facekit-mesh", "ict-facekit-indices"
VERTICES, EXPRESSIONS, IDENTITIES = 9409, 57, 100
# Shapes that ARKit has in one piece and this model in two halves.
HALVED = ("browInnerUp", "cheekPuff")


@dataclass(frozen=True)
class FaceBasis:
    """Some vertices of the model.

    Attributes:
        neutral: float64 (V, 3).
        expression: float64 (57, V, 3), offsets.
        identity: float64 (100, V, 3), offsets.
        names: the 57 expressions' names.
    """

    neutral: np.ndarray
    expression: np.ndarray
    identity: np.ndarray
    names: tuple[str, ...]

    def take(self, vertices: Sequence[int]) -> FaceBasis:
        """The same model over fewer vertices."""
        chosen = np.asarray(vertices)
        return FaceBasis(self.neutral[chosen], self.expression[:, chosen], self.identity[:, chosen], self.names)

    def shape(self, identity: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """Points of faces.

        Args:
            identity: (..., 100).
            expression: (..., 57); leading axes broadcast against the identity's.

        Returns:
            float64 (..., V, 3), centimetres.
        """
        return (
            self.neutral + np.tensordot(identity, self.identity, axes=1) + np.tensordot(expression, self.expression, 1)
        )

    def from_blendshapes(self, coefficients: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """The model's expression coefficients for ARKit blendshapes.

        Args:
            coefficients: (..., len(names)).
            names: ARKit names; "_neutral" has no shape and is left out.

        Returns:
            float64 (..., 57); pupils and cheek raisers, which ARKit has not, stay 0.

        Raises:
            WeightsError: the model has no shape for one of the names.
        """
        out = np.zeros((*np.shape(coefficients)[:-1], len(self.names)))
        for k, name in enumerate(names):
            for shape in () if name == "_neutral" else shapes_of(name):
                if shape not in self.names:
                    raise WeightsError(f"{MESH} has no expression {shape}")
                out[..., self.names.index(shape)] = coefficients[..., k]
        return out


def shapes_of(blendshape: str) -> tuple[str, ...]:
    """Names of the model's shapes that one ARKit blendshape moves."""
    if blendshape in HALVED:
        return f"{blendshape}_L", f"{blendshape}_R"
    if blendshape in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
        return (blendshape,)
    for side in ("Left", "Right"):
        if blendshape.endswith(side):
            return (f"{blendshape.removesuffix(side)}_{side[0]}",)
    return (blendshape,)


def load_basis(store: AssetStore | None = None) -> FaceBasis:
    """The whole model.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
        WeightsError: the file has other arrays.
    """
    with np.load((store or weights_store()).path(MESH), allow_pickle=False) as arrays:
        _check(arrays)
        names = tuple(str(name) for name in arrays["expression_names"])
        parts = [arrays[name].astype(np.float64) for name in ("neutral", "expression", "identity")]
        return FaceBasis(parts[0], parts[1], parts[2], names)


def _check(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises WeightsError unless all arrays are there in their shapes."""
    wanted = {
        "neutral": (VERTICES, 3),
        "expression": (EXPRESSIONS, VERTICES, 3),
        "identity": (IDENTITIES, VERTICES, 3),
        "expression_names": (EXPRESSIONS,),
    }
    for name, shape in wanted.items():
        if name not in arrays or arrays[name].shape != shape:
            raise WeightsError(f"{MESH}: {name} is not an array of shape {shape}")


def landmark_vertices(store: AssetStore | None = None) -> list[int]:
    """The 68 landmarks' vertices. Errors as for `load_basis`."""
    text = (store or weights_store()).path(INDICES).read_text(encoding="utf-8")
    vertices = json.loads(text).get("idx_to_landmark_verts", [])
    if len(vertices) != 68 or not all(isinstance(v, int) and 0 <= v < VERTICES for v in vertices):
        raise WeightsError(f"{INDICES}: idx_to_landmark_verts is no list of 68 vertices")
    return vertices


def load_landmark_basis() -> FaceBasis:
    """The model over its 68 landmarks. Errors as for `load_basis`."""
    return load_basis().take(landmark_vertices())
