"""The process in which py-feat runs: `python -m talkforge.tasks.pyfeat_worker CLASSIFIERS LANDMARKS THREADS`.

py-feat takes seconds to import, sets the number of threads of whatever imports it, and brings two libraries that may
not load. So it has a process of its own, spoken to as `npy_worker` describes. Its greeting is the package's version and
the names of the action units (text); a request is boxes float32 (K, 4) and then K pictures, an answer float32 (K, 20).

What is computed for a box is what py-feat's own detector computes for it: its cut of 1.2 times the box at 112x112, its
MobileFaceNet's 68 landmarks on that, its aligned and masked face with histograms of gradients, its classifiers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from ..core.errors import WeightsError
from ..core.torchvision_guard import forget, make_torchvision_importable
from .npy_worker import EXIT_WEIGHTS, BadMessage, receive, send

SIZE = 112  # pixels of a cut face

# A skops file names the classes that it is made of. scikit-learn's and NumPy's are known to skops as harmless; of the
# others py-feat itself lets any pass, which would let a file run anything.
ALLOWED = frozenset(
    {
        "feat.au_detectors.StatLearning.SL_test.XGBClassifier",
        "xgboost.core.Booster",
        "xgboost.sklearn.XGBClassifier",
    }
)


def import_beside_missing_libraries() -> None:
    """Makes py-feat importable where compiled parts that it does not need here fail to load.

    Beside torchvision's operators that is torchcodec, which wants the system's FFmpeg: no video is read here.
    """
    make_torchvision_importable()
    try:
        import_module("torchcodec")
    except (ImportError, RuntimeError, OSError):
        forget("torchcodec")
        package, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
        vars(package)["decoders"], vars(decoders)["VideoDecoder"] = decoders, None
        sys.modules |= {"torchcodec": package, "torchcodec.decoders": decoders}


class Model:
    """py-feat's landmark network and action-unit classifiers, loaded from files, without network.

    Args:
        classifiers: py-feat's xgb_au_classifier_v2.skops.
        landmarks: py-feat's mobilefacenet_model_best.pth.tar.
        threads: for PyTorch and for XGBoost.

    Raises:
        WeightsError: a file holds something else.
    """

    def __init__(self, classifiers: Path, landmarks: Path, threads: int) -> None:
        _check_names(classifiers)
        import torch

        torch.set_num_threads(threads)
        import_beside_missing_libraries()
        from feat.pretrained import AU_LANDMARK_MAP  # pyright: ignore[reportMissingImports]
        from feat.utils.image_operations import HOGLayer  # pyright: ignore[reportMissingImports]
        from feat.version import __version__  # pyright: ignore[reportMissingImports]

        self.version: str = __version__
        self.units: list[str] = list(AU_LANDMARK_MAP["Feat"])
        self._network = _landmark_network(landmarks)
        self._classifiers = _classifiers(classifiers, threads)
        # py-feat's detector makes its histograms with these numbers.
        self._histograms = HOGLayer(orientations=8, block_normalization="L2-Hys", device="cpu")

    def rows(self, boxes: np.ndarray, pictures: Iterator[np.ndarray]) -> np.ndarray:
        """Action units, float32 (K, 20), NaN where the landmarks span no area.

        Args:
            boxes: (K, 4) left, top, right, bottom in pixels.
            pictures: K pictures uint8 (H, W, 3) RGB, taken one after the other.
        """
        seen = [self._face(picture, box) for picture, box in zip(pictures, boxes, strict=True)]
        out = np.full((len(boxes), len(self.units)), np.nan, dtype=np.float32)
        known = [k for k, face in enumerate(seen) if face is not None]
        faces = [face for face in seen if face is not None]
        if faces:
            histograms = np.concatenate([histogram for histogram, _ in faces])
            out[known] = self._classifiers.detect_au(histograms, [[points for _, points in faces]])
        return out

    def _face(self, picture: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Histograms (1, 5408) and the aligned face's landmarks (68, 2)."""
        import torch
        from feat.utils.face_mask import extract_hog_features_batched  # pyright: ignore[reportMissingImports]
        from feat.utils.image_operations import extract_face_from_bbox_torch  # pyright: ignore[reportMissingImports]
        from scipy.spatial import QhullError

        frame = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            face, _ = extract_face_from_bbox_torch(frame, torch.from_numpy(box)[None].float(), face_size=SIZE)
            landmarks = self._network(face)[0]
        try:
            histograms, points = extract_hog_features_batched(face, landmarks, hog_layer=self._histograms)
        except (QhullError, torch.linalg.LinAlgError):  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]
            return None
        return histograms, points[0]


def _landmark_network(path: Path) -> Any:
    import torch
    from feat.landmark_detectors.mobilefacenet_test import MobileFaceNet  # pyright: ignore[reportMissingImports]

    from ..models.loading import load_strict

    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise WeightsError(f"{path.name}: the checkpoint has no state_dict")
    return load_strict(MobileFaceNet([SIZE, SIZE], 136), state, source=path.name)


def _check_names(path: Path) -> None:
    """Before anything is loaded. Raises WeightsError when the file is made of more than what is allowed."""
    from skops.io import get_untrusted_types  # pyright: ignore[reportMissingImports]

    if foreign := sorted(set(get_untrusted_types(file=path)) - ALLOWED):
        raise WeightsError(f"{path.name} names {', '.join(foreign)}, which is not on the allow-list")


def _classifiers(path: Path, threads: int) -> Any:
    from feat.au_detectors.StatLearning.SL_test import XGBClassifier  # pyright: ignore[reportMissingImports]
    from skops.io import load  # pyright: ignore[reportMissingImports]

    loaded = load(path, trusted=sorted(ALLOWED))
    classifiers: Any = getattr(loaded, "classifiers", None)
    if not isinstance(loaded, XGBClassifier) or set(classifiers or ()) != set(loaded.au_keys):
        raise WeightsError(f"{path.name} does not hold py-feat's classifiers of 20 action units")
    for classifier in classifiers.values():
        classifier.get_booster().set_param({"nthread": threads})
    return loaded


def own_output() -> BinaryIO:
    """Standard output for messages alone; what libraries print goes to standard error from now on."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


def _picture(stream: BinaryIO) -> np.ndarray:
    picture = receive(stream)
    if picture is None:
        raise BadMessage("the input ends within a request")
    return picture


def serve(model: Model, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answers requests until there are no more."""
    send(answers, np.array([model.version, *model.units]))
    while (boxes := receive(requests)) is not None:
        send(answers, model.rows(boxes, (_picture(requests) for _ in boxes)))


def main(classifiers: str, landmarks: str, threads: str) -> int:
    """The process. Returns its exit status."""
    answers = own_output()
    try:
        model = Model(Path(classifiers), Path(landmarks), int(threads))
    except WeightsError as error:
        print(error, file=sys.stderr)
        return EXIT_WEIGHTS
    serve(model, sys.stdin.buffer, answers)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
