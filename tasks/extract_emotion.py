"""Extractors `emotion-*`: how probable each emotion is, for every frame with a face, by four published networks.

A column `probabilities` (softmax) has the classes that `params["classes"]` names, in the network's own order and by the
names of `datasets.labels`; orders and sets differ between the networks. A frame without a face is null, never neutral.
`box` is where the face was cut (left, top, right, bottom, pixels).

Each network gets its face as its authors' code cuts it, around MediaPipe's landmarks:

`emotion-fer2013` - mini-Xception as the package `fer` runs it (its exact Keras network, not the quantised copy that is
its default): grey square, 10 pixels wider on each side, outside the picture the mean grey of the two lowest rows,
resized to 64x64 (bilinear). The package's square is its Haar detector's. Ours has the height of the mesh's box as its
side and sits a tenth of it higher: over seven clips that detector's side was 0.94 to 1.08 of the height and its centre
0.04 to 0.14 sides above the box's.

`emotion-hsemotion-b0`, `-b2` - the mesh's box, within the picture, resized to 224x224 or 260x260 without keeping its
shape (bilinear with antialiasing, as torchvision's `Resize` of a picture).

`emotion-emoaffectnet` - the same box, 224x224 by the nearest pixel.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

from ..core.emotions import ORDERS
from .extractor import Context, ExtractorSpec, vectors
from .face_network import FaceNetwork
from .faces import LANDMARKER, Face

if TYPE_CHECKING:
    import torch

FER_OFFSET = 10  # pixels, the package's default
FER_PADDING = 40  # pixels around the picture, the package's constant; the crop ends there
FER_RISE = 0.1  # of the square's side
FER_SIZE = 64
MESH_BOX = "box of the face mesh within the picture, resized to a square"
MODULE = "talkforge.tasks.extract_emotion"


def _spec(name: str, target: str, what: str, weights: str, params: dict[str, Any]) -> ExtractorSpec:
    return ExtractorSpec(
        id=f"emotion-{name}",
        version=1,
        target=f"{MODULE}:{target}",
        columns={
            "probabilities": vectors(len(params["classes"])),
            "box": vectors(4),
            "n_frames": pa.int32(),
            "n_missing": pa.int32(),
        },
        what=what,
        faces=True,
        weights=(LANDMARKER, weights),
        params=params,
    )


FER = _spec(
    "fer2013",
    "MiniXception",
    "mini-Xception (FER2013): probabilities of 7 emotions",
    "fer-mini-xception",
    {
        "classes": ORDERS["fer2013"],
        "crop": f"grey square of the face mesh's height, {FER_RISE} of it higher, {FER_OFFSET} px wider on each side",
        "size": FER_SIZE,
        "resize": "bilinear",
    },
)
HSEMOTION_B0 = _spec(
    "hsemotion-b0",
    "HSEmotionB0",
    "HSEmotion EfficientNet-B0 (AffectNet): probabilities of 8 emotions",
    "hsemotion-enet-b0-8-best-vgaf",
    {"classes": ORDERS["hsemotion-8"], "crop": MESH_BOX, "size": 224, "resize": "bilinear, antialiased"},
)
HSEMOTION_B2 = _spec(
    "hsemotion-b2",
    "HSEmotionB2",
    "HSEmotion EfficientNet-B2 (AffectNet): probabilities of 8 emotions",
    "hsemotion-enet-b2-8",
    {"classes": ORDERS["hsemotion-8"], "crop": MESH_BOX, "size": 260, "resize": "bilinear, antialiased"},
)
EMOAFFECTNET = _spec(
    "emoaffectnet",
    "EmoAffectNet",
    "EmoAffectNet ResNet-50 (AffectNet): probabilities of 7 emotions",
    "emoaffectnet-resnet50",
    {"classes": ORDERS["emoaffectnet"], "crop": MESH_BOX, "size": 224, "resize": "nearest"},
)
EXTRACTORS = (FER, HSEMOTION_B0, HSEMOTION_B2, EMOAFFECTNET)


def fer_square(face_box: tuple[float, float, float, float]) -> np.ndarray:
    """The square that is cut for `emotion-fer2013`, int (4,): left, top, right, bottom; may reach outside the picture.

    Args:
        face_box: left, top, right, bottom of the face mesh, pixels.
    """
    left, top, right, bottom = face_box
    side = bottom - top
    x, y = (left + right) / 2, (top + bottom) / 2 - FER_RISE * side
    low = np.floor([x - side / 2, y - side / 2]).astype(int)
    width = round(side)
    return np.array([*(low - FER_OFFSET), *(low + width + FER_OFFSET)])


def cut_grey(frame: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The box out of a picture, grey, at 64x64; None where nothing of it lies in the padded picture.

    Args:
        frame: uint8 (H, W, 3) RGB.
        box: int (4,): left, top, right, bottom.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    edge, fill = FER_PADDING, cv2.mean(grey[-2:])[0]
    padded = cv2.copyMakeBorder(grey, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=[fill, fill, fill])
    left, top, right, bottom = (max(0, int(side) + edge) for side in box)
    part = padded[top:bottom, left:right]
    return cv2.resize(part, (FER_SIZE, FER_SIZE)) if part.size else None


def mesh_box(frame: np.ndarray, face: Face) -> np.ndarray | None:
    """The mesh's box in whole pixels within the picture, int (4,): left, top, right, bottom; None where it is empty."""
    height, width = frame.shape[:2]
    left, top, right, bottom = (math.floor(side) for side in face.box)
    box = np.array([max(0, left), max(0, top), min(width - 1, right), min(height - 1, bottom)])
    return box if box[0] < box[2] and box[1] < box[3] else None


def cut_resized(frame: np.ndarray, box: np.ndarray, size: int, method: Image.Resampling) -> np.ndarray:
    """The box out of a picture, uint8 (size, size, 3), its shape not kept."""
    left, top, right, bottom = box
    part = Image.fromarray(np.ascontiguousarray(frame[top:bottom, left:right]))
    return np.asarray(part.resize((size, size), method))


class EmotionNetwork(FaceNetwork):
    """Probabilities of one clip; a subclass says how the face is cut and which network sees it."""

    place_width = 4
    network: str
    at_once: int  # pictures in one pass; more leave the processor's cache

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        super().__init__(spec, context)
        self.name, self.width, self.size = spec.id, len(spec.params["classes"]), int(spec.params["size"])

    @abstractmethod
    def prepare(self, pictures: np.ndarray) -> torch.Tensor:
        """What the network takes for these pictures."""

    def forward(self, pictures: np.ndarray) -> np.ndarray:
        """(K, classes) probabilities of K pictures."""
        import torch

        network = self.context.network(self.network)
        with torch.inference_mode():
            parts = self.prepare(pictures).split(self.at_once)
            rows = [network(part.to(self.context.device)).float().softmax(dim=1).cpu().numpy() for part in parts]
        return np.concatenate(rows)

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame shows a face."""
        rows, boxes, counts = self.collected()
        return {"probabilities": rows, "box": boxes, **counts}


class MiniXception(EmotionNetwork):
    """`emotion-fer2013`."""

    network, at_once = "talkforge.models.mini_xception:load_mini_xception", 16

    def cut_face(self, frame: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray] | None:
        """The grey face and its square."""
        box = fer_square(face.box)
        picture = cut_grey(frame, box)
        return None if picture is None else (picture, box)

    def prepare(self, pictures: np.ndarray) -> torch.Tensor:
        """Grey to [-1, 1]."""
        from ..models.mini_xception import prepare

        return prepare(pictures)


class _MeshBoxNetwork(EmotionNetwork):
    at_once = 4
    method: Image.Resampling

    def cut_face(self, frame: np.ndarray, face: Face) -> tuple[np.ndarray, np.ndarray] | None:
        """The face in its box, and the box."""
        box = mesh_box(frame, face)
        return None if box is None else (cut_resized(frame, box, self.size, self.method), box)


class HSEmotionB0(_MeshBoxNetwork):
    """`emotion-hsemotion-b0`."""

    network, method = "talkforge.models.hsemotion:load_hsemotion_b0", Image.Resampling.BILINEAR

    def prepare(self, pictures: np.ndarray) -> torch.Tensor:
        """ImageNet's normalisation."""
        from ..models.hsemotion import prepare

        return prepare(pictures)


class HSEmotionB2(HSEmotionB0):
    """`emotion-hsemotion-b2`."""

    network = "talkforge.models.hsemotion:load_hsemotion_b2"


class EmoAffectNet(_MeshBoxNetwork):
    """`emotion-emoaffectnet`."""

    network, method = "talkforge.models.emoaffectnet:load_emoaffectnet", Image.Resampling.NEAREST

    def prepare(self, pictures: np.ndarray) -> torch.Tensor:
        """BGR minus the means."""
        from ..models.emoaffectnet import prepare

        return prepare(pictures)
