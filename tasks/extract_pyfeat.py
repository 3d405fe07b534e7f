"""Extractor `pyfeat`: 20 action units by py-feat's gradient-boosted classifiers, probabilities in [0, 1].

The network and the classifiers run in one worker process for all clips (see `pyfeat_worker`), which is started when
the first face comes. Each frame stands for itself. The face's box is that of the tracker's landmarks; py-feat's own
detector would draw a slightly different one, and everything after the box is py-feat's own.

A frame is null in every column where there is no face, or where py-feat's landmarks span no area.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import MissingPackage, NoFace, extra_hint
from ..core.weights import weights_store
from .extractor import Batch, Context, ExtractorSpec, series
from .faces import LANDMARKER
from .npy_worker import Worker, WorkerFailed
from .pyfeat_worker import SIZE

CLASSIFIERS, LANDMARKS = "pyfeat-xgb-au", "pyfeat-mobilefacenet"
NUMBERS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)
UNITS = tuple(f"AU{number:02d}" for number in NUMBERS)
THREADS = 1  # of the worker: clips run side by side
# The worker's own thread setting; and no look at the network, because weights come by path.
ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS)),
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "Agg",
}

PYFEAT = ExtractorSpec(
    id="pyfeat",
    version=1,
    target="talkforge.tasks.extract_pyfeat:ActionUnits",
    columns={name: series() for name in UNITS}
    | {"model": pa.string(), "n_frames": pa.int32(), "n_missing": pa.int32()},
    what="20 action units by py-feat (xgb_au on MobileFaceNet landmarks), probabilities 0..1",
    faces=True,
    weights=(LANDMARKER, CLASSIFIERS, LANDMARKS),
    params={"model": "py-feat xgb_au", "landmarks": "mobilefacenet", "box": "478 points x 1.2", "size": SIZE},
)
EXTRACTORS = (PYFEAT,)


@cache
def _worker(owner: int, classifiers: Path, landmarks: Path) -> Worker:
    """The worker of process `owner`: a forked child must not talk into its parent's."""
    if find_spec("feat") is None:
        raise MissingPackage("py-feat is not installed", hint=extra_hint("au"))
    # -P: the folder that it is started from must not shadow any package.
    module = [sys.executable, "-P", "-m", "talkforge.tasks.pyfeat_worker"]
    worker = Worker("py-feat's process", [*module, str(classifiers), str(landmarks), str(THREADS)], ENVIRONMENT)
    atexit.register(worker.close)
    return worker


_MAKING = Lock()


def shared_worker() -> Worker:
    """The worker of this process and of the weights in the store.

    Raises:
        MissingPackage: py-feat is not installed.
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
    """
    store = weights_store()
    with _MAKING:
        return _worker(os.getpid(), store.path(CLASSIFIERS), store.path(LANDMARKS))


def action_units(
    worker: Worker, boxes: Sequence[Sequence[float]], pictures: Sequence[np.ndarray]
) -> tuple[str, np.ndarray]:
    """Action units of K faces.

    Args:
        worker: speaks as `pyfeat_worker` does.
        boxes: K times left, top, right, bottom in pixels.
        pictures: K pictures uint8 (H, W, 3) RGB.

    Returns:
        The version of py-feat, and float32 (K, 20) in the order of `UNITS`, NaN where it sees no face.

    Raises:
        WeightsError, WorkerFailed: see `Worker.ask`; also when it answers with other action units.
    """
    greeting, rows = worker.ask([np.asarray(boxes, dtype=np.float32), *pictures])
    version, *names = map(str, greeting.ravel()) if greeting.size else ("",)
    if tuple(names) != UNITS or rows.dtype != np.float32 or rows.shape != (len(boxes), len(UNITS)):
        raise WorkerFailed(f"{worker.name} answered {rows.dtype} {rows.shape} as {', '.join(names) or 'nothing'}")
    return version, rows


class ActionUnits:
    """The action units of one clip."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self.context = context
        self._rows: list[np.ndarray] = []
        self._version = ""

    def push(self, batch: Batch) -> None:
        """Takes the next frames."""
        rows = np.full((len(batch.faces), len(UNITS)), np.nan, dtype=np.float32)
        seen = {k: face.box for k, face in enumerate(batch.faces) if face is not None}
        if seen:
            pictures = [batch.frames[k] for k in seen]
            self._version, rows[list(seen)] = action_units(shared_worker(), list(seen.values()), pictures)
            self.context.counters.forwards["pyfeat"] += len(seen)
        self._rows.append(rows)

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame has a usable face."""
        rows = np.concatenate(self._rows)
        missing = np.asarray(np.isnan(rows).all(axis=1))
        if missing.all():
            raise NoFace(f"no face in any of {len(rows)} frames")
        columns: dict[str, Any] = {
            name: [None if gone else float(value) for value, gone in zip(rows[:, k], missing, strict=True)]
            for k, name in enumerate(UNITS)
        }
        counts = {"n_frames": len(rows), "n_missing": int(missing.sum())}
        return columns | {"model": self._model()} | counts

    def _model(self) -> str:
        """What the numbers are from: package and files."""
        files = [f"{name} {weights_store().sha256(name)[:12]}" for name in (CLASSIFIERS, LANDMARKS)]
        return ", ".join([f"py-feat {self._version}", *files])
