"""Extractors of Inflated 3D ConvNet logits (Kinetics-400), the features of FVD.

`i3d-k400-16f`: every non-overlapping window of 16 frames that lies inside the clip is one sample; frames that do not
fill a last window are left out, and a window with a frame that has no picture under the crop is not a sample.
`i3d-k400-full`: the whole clip is one sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import InputError, NoFace, TooShort
from .extractor import Batch, Context, ExtractorSpec, vectors

CLASSES = 400
WINDOW = 16
WINDOWS_PER_FORWARD = 1
MIN_FULL, MAX_FULL = 9, 512  # frames; the network needs the first, memory sets the second
NETWORK = "talkforge.models.i3d:load_i3d"

_COLUMNS = {
    "logits": vectors(CLASSES),
    "n_frames": pa.int32(),
    "n_without_picture": pa.int32(),
    "n_dropped": pa.int32(),
}
WINDOWS = ExtractorSpec(
    id="i3d-k400-16f",
    version=1,
    target="talkforge.tasks.extract_i3d:WindowLogits",
    columns=_COLUMNS,
    what="I3D Kinetics-400 logits of each non-overlapping window of 16 frames",
    picture=True,
    weights=("i3d-k400",),
    params={"window": WINDOW, "stride": WINDOW},
)
FULL = ExtractorSpec(
    id="i3d-k400-full",
    version=1,
    target="talkforge.tasks.extract_i3d:ClipLogits",
    columns=_COLUMNS,
    what="I3D Kinetics-400 logits of the whole clip",
    picture=True,
    weights=("i3d-k400",),
    params={"min_frames": MIN_FULL, "max_frames": MAX_FULL},
)
EXTRACTORS = (WINDOWS, FULL)


class _Logits:
    """What both share: shrinking pictures to network input, forwards, and the row."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._context = context
        self._rows: list[np.ndarray] = []
        self._n_frames = 0
        self._n_without = 0
        self._n_dropped = 0

    def _forward(self, windows: list[np.ndarray]) -> None:
        """Logits of B windows of prepared frames, each float32 (T, 3, 224, 224) in [-1, 1]."""
        import torch

        network = self._context.network(NETWORK)
        clips = torch.from_numpy(np.stack(windows)).transpose(1, 2)
        with torch.inference_mode():
            logits = network(clips.to(self._context.device))
        self._rows.extend(logits.float().cpu().numpy())
        self._context.counters.forwards["i3d-k400"] += len(windows)

    def _row(self) -> dict[str, Any]:
        if not self._rows:
            if self._n_without:
                raise NoFace(f"{self._n_without} of {self._n_frames} frames show no face to crop; no window is whole")
            raise TooShort(f"{self._n_frames} frames, a window needs {WINDOW}")
        return {
            "logits": np.stack(self._rows).astype(np.float32),
            "n_frames": self._n_frames,
            "n_without_picture": self._n_without,
            "n_dropped": self._n_dropped,
        }


def prepare(picture: np.ndarray) -> np.ndarray:
    """One uint8 (H, W, 3) picture as float32 (3, 224, 224) in [-1, 1], by FVD's own resize."""
    from ..models.i3d import prepare_frames

    return prepare_frames(picture[None])[0].numpy()


class WindowLogits(_Logits):
    """Non-overlapping windows of 16 frames."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        super().__init__(spec, context)
        self._window: list[np.ndarray | None] = []
        self._ready: list[np.ndarray] = []

    def push(self, batch: Batch) -> None:
        """Cuts the stream into windows; forwards them when a few are ready."""
        for picture in batch.subject:
            self._n_frames += 1
            self._n_without += picture is None
            self._window.append(None if picture is None else prepare(picture))
            if len(self._window) == WINDOW:
                self._close_window()

    def _close_window(self) -> None:
        whole = [frame for frame in self._window if frame is not None]
        if len(whole) == WINDOW:
            self._ready.append(np.stack(whole))
        else:
            self._n_dropped += 1
        self._window = []
        if len(self._ready) == WINDOWS_PER_FORWARD:
            self._drain()

    def _drain(self) -> None:
        if self._ready:
            self._forward(self._ready)
            self._ready = []

    def finish(self) -> dict[str, Any]:
        """The row. Raises TooShort or NoFace when no window is whole."""
        self._drain()
        return self._row()


class ClipLogits(_Logits):
    """The whole clip as one window."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        super().__init__(spec, context)
        self._frames: list[np.ndarray] = []

    def push(self, batch: Batch) -> None:
        """Keeps prepared frames until the clip ends."""
        for picture in batch.subject:
            self._n_frames += 1
            self._n_without += picture is None
            if picture is not None and len(self._frames) <= MAX_FULL:
                self._frames.append(prepare(picture))

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace (a frame lacks its picture), TooShort or InputError (too long for one forward)."""
        if self._n_without:
            raise NoFace(f"{self._n_without} of {self._n_frames} frames show no face to crop; the clip is not whole")
        if self._n_frames < MIN_FULL:
            raise TooShort(f"{self._n_frames} frames, the network needs {MIN_FULL}")
        if self._n_frames > MAX_FULL:
            raise InputError(f"{self._n_frames} frames; a whole clip may have {MAX_FULL}, use the 16-frame variant")
        self._forward([np.stack(self._frames)])
        return self._row()
