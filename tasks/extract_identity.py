"""Extractors `identity-*`: an embedding of who the face is, for every fifth frame, by published networks.

A person changes slowly and these networks are dear, so not every frame is embedded: the first with a face is, and then
each frame with a face that comes at least `EVERY` frames after the last embedded one. All others are null, as are
frames without a face; `n_missing` counts only the latter.

`identity-dlib-128`: dlib's network. The face is turned and scaled to dlib's 150x150 chip (padding 0.25) by dlib's own
rule from 68 landmarks, which are MediaPipe's by place and rounded to pixels as dlib's are. Compared by Euclidean
distance: below 0.6 is taken for one person.

`identity-arcface-r50`, `-ms1mv3`: ArcFace's IResNet-50 in two published trainings, on WebFace600K (InsightFace's
buffalo_l) and on MS1MV3, whose embeddings cannot be compared with each other. Eye centres, nose tip and mouth corners
are brought onto InsightFace's five points in 112x112 by the least-squares similarity (bilinear, black outside the
picture). Compared by the cosine of the angle; embeddings are stored as the network gives them, not normalised.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from ..core.errors import MissingPackage, extra_hint
from ..core.landmarks import landmarks_68
from .crop import key_points, similarity
from .extractor import Batch, Context, ExtractorSpec, vectors
from .face_network import FaceNetwork
from .faces import LANDMARKER, MOUTH_CORNERS, Face

EVERY = 5  # frames of 25 fps
CHIP, PADDING = 150, 0.25
FACE_112 = 112
NOSE_TIP = 4
FRAMES_PER_FORWARD = 4
MODULE = "talkforge.tasks.extract_identity"
ARCFACE_PARAMS = {"crop": f"similarity of 5 points onto InsightFace's template, {FACE_112} px", "distance": "cosine"}

# Right eye, left eye, nose tip, right and left mouth corner in InsightFace's 112x112 pictures (the person's right).
TEMPLATE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def _spec(name: str, target: str, width: int, what: str, weights: str, params: dict[str, Any]) -> ExtractorSpec:
    counts = {"n_frames": pa.int32(), "n_missing": pa.int32(), "n_embedded": pa.int32()}
    return ExtractorSpec(
        id=f"identity-{name}",
        version=1,
        target=f"{MODULE}:{target}",
        columns={"embedding": vectors(width), **counts},
        what=f"{what}, every {EVERY}th frame",
        faces=True,
        weights=(LANDMARKER, weights),
        params={"frames": f"every {EVERY}th with a face, null between", "width": width, **params},
    )


DLIB = _spec(
    "dlib-128",
    "DlibIdentity",
    128,
    "dlib face identity: 128 numbers",
    "dlib-face-resnet",
    {"crop": f"dlib's face chip of 68 landmarks, {CHIP} px, padding {PADDING}", "distance": "Euclidean"},
)
ARCFACE = _spec(
    "arcface-r50",
    "ArcFaceIdentity",
    512,
    "ArcFace IResNet-50 (WebFace600K) identity: 512 numbers",
    "arcface-r50",
    ARCFACE_PARAMS,
)
ARCFACE_MS1MV3 = _spec(
    "arcface-r50-ms1mv3",
    "ArcFaceMs1mv3Identity",
    512,
    "ArcFace IResNet-50 (MS1MV3) identity: 512 numbers",
    "arcface-r50-ms1mv3",
    ARCFACE_PARAMS,
)
EXTRACTORS = (DLIB, ARCFACE, ARCFACE_MS1MV3)


def face_chip(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
    """dlib's chip of one face, uint8 (150, 150, 3).

    Args:
        frame: uint8 (H, W, 3) RGB.
        points: (68, 2) pixels.

    Raises:
        MissingPackage: dlib is not installed.
    """
    try:
        import dlib
    except ImportError as error:
        raise MissingPackage("dlib is not installed", hint=extra_hint("identity")) from error
    dl: Any = dlib  # the package describes no types for its compiled part
    low, high = (dl.point(*map(int, corner)) for corner in (points.min(axis=0), points.max(axis=0)))
    parts = [dl.point(int(x), int(y)) for x, y in np.rint(points)]
    shape = dl.full_object_detection(dl.rectangle(low.x, low.y, high.x, high.y), parts)
    return dl.get_face_chip(np.ascontiguousarray(frame), shape, CHIP, PADDING)


def five_points(face: Face) -> np.ndarray:
    """Right eye, left eye, nose tip, right and left mouth corner, float64 (5, 2) pixels (the person's right)."""
    right, left, _ = key_points(face)
    return np.stack([right, left, *face.points[[NOSE_TIP, *MOUTH_CORNERS], :2].astype(np.float64)])


def aligned_112(frame: np.ndarray, face: Face) -> np.ndarray:
    """The face on InsightFace's template, uint8 (112, 112, 3)."""
    matrix = similarity(five_points(face), TEMPLATE_112)
    return cv2.warpAffine(frame, matrix, (FACE_112, FACE_112), flags=cv2.INTER_LINEAR, borderValue=0.0)


class IdentityNetwork(FaceNetwork):
    """Embeddings of one clip; a subclass says how the face is cut and which network sees it."""

    place_width = 0
    network: str

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        super().__init__(spec, context)
        self.name, self.width = spec.id, int(spec.params["width"])
        self._missing = 0
        self._last: int | None = None

    def push(self, batch: Batch) -> None:
        """Takes the next frames and passes on the faces whose turn it is."""
        self._missing += sum(face is None for face in batch.faces)
        due = [self._due(int(index), face) for index, face in zip(batch.index, batch.faces, strict=True)]
        super().push(replace(batch, faces=due))

    def _due(self, index: int, face: Face | None) -> Face | None:
        if face is None or (self._last is not None and index - self._last < EVERY):
            return None
        self._last = index
        return face

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame shows a face."""
        rows, _, counts = self.collected()
        embedded = counts["n_frames"] - counts["n_missing"]
        return {"embedding": rows, **counts, "n_missing": self._missing, "n_embedded": embedded}


class DlibIdentity(IdentityNetwork):
    """`identity-dlib-128`."""

    network = "talkforge.models.dlib_face:load_dlib_face"

    def cut_face(self, frame: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray]:
        """dlib's chip."""
        return face_chip(frame, landmarks_68(face.points)[:, :2]), np.empty(0)

    def forward(self, pictures: np.ndarray) -> np.ndarray:
        """(K, 128) embeddings."""
        import torch

        return self.context.network(self.network)(torch.from_numpy(pictures)).numpy()


class ArcFaceIdentity(IdentityNetwork):
    """`identity-arcface-r50`."""

    network = "talkforge.models.arcface:load_arcface"

    def cut_face(self, frame: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray]:
        """The face on the template."""
        return aligned_112(frame, face), np.empty(0)

    def forward(self, pictures: np.ndarray) -> np.ndarray:
        """(K, 512) embeddings."""
        import torch

        from ..models.arcface import prepare

        network = self.context.network(self.network)
        with torch.inference_mode():
            parts = prepare(pictures).split(FRAMES_PER_FORWARD)
            return np.concatenate([network(part.to(self.context.device)).float().cpu().numpy() for part in parts])


class ArcFaceMs1mv3Identity(ArcFaceIdentity):
    """`identity-arcface-r50-ms1mv3`."""

    network = "talkforge.models.arcface:load_arcface_ms1mv3"
