"""The crop of a clip as a video of its own, encoded in the same pass that finds the faces.

H.264 at 25 fps with the clip's sound, cut to n_frames = min(frames of the picture, samples // 640). What is cut out of
each frame is said by the named crop (see `crops`); where it says nothing, as before a scene's first face, the picture
is black and its transform is null. A transform is the 2x3 matrix M, row by row, with (u, v) = M (x, y, 1): the source
pixel whose centre is (x, y) lies at (u, v) of the crop, whole numbers being centres of pixels in both.
"""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import NoFace
from ..datasets.audio import SAMPLES_PER_FRAME
from ..datasets.encode import VideoWriter
from .crops import Window, crops
from .extractor import Batch, Context, ExtractorSpec, vectors
from .scratch import scratch_folder

CROP_VIDEO_ID = "crop-video"
NO_TRANSFORM = (np.nan,) * 6


def crop_video(size: int, crf: int, preset: str, crop: str, window: Window | None = None) -> ExtractorSpec:
    """The extractor for crops of size x size pixels at an x264 quality and speed.

    Args:
        crop: name of the crop.
        window: the clip's annotated window; only part of the identity where the crop takes it.
    """
    named = crops.get(crop)
    window = window if named.window else None
    return ExtractorSpec(
        id=CROP_VIDEO_ID,
        version=3,
        target="talkforge.tasks.crop_video:CropVideo",
        columns={
            "mp4": pa.large_binary(),
            "transform": vectors(6),
            "n_frames": pa.int32(),
            "has_sound": pa.bool_(),
            "source_fps": pa.float64(),
            "source_duration_s": pa.float64(),
            "source_width": pa.int32(),
            "source_height": pa.int32(),
        },
        what="the crop as MP4; per frame the 2x3 matrix from source to crop pixels",
        faces=True,
        audio=True,
        track=named.track and window is None,
        params={
            **{"name": crop, "rule": named.rule, "interpolation": named.interpolation, "border": named.border},
            **{"size": size, "crf": crf, "preset": preset},
            **({} if window is None else {"window": list(window)}),
        },
    )


class CropVideo:
    """The crop video of one clip."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._params, self._context = spec.params, context
        self._sound = context.audio if isinstance(context.audio, np.ndarray) else None
        self._cutter = crops.get(spec.params["name"]).cutter(context.track, spec.params.get("window"))
        self._transforms: list[Any] = []
        self._seen = False
        self._remove: weakref.finalize | None = None
        self._writer: VideoWriter | None = None
        self._path = Path()

    def push(self, batch: Batch) -> None:
        """Encodes the next frames, as long as there is sound for them."""
        writer = self._writer or self._open()
        size = self._params["size"]
        self._seen |= any(face is not None for face in batch.faces)
        for frame, cut in zip(batch.frames, self._cutter(batch), strict=True):
            if self._sound is not None and (len(self._transforms) + 1) * SAMPLES_PER_FRAME > len(self._sound):
                return
            picture = cut.picture(frame, size) if cut else np.zeros((size, size, 3), np.uint8)
            with self._context.clock.stage("encode"):
                writer.write(picture)
            self._transforms.append(cut.matrix(size).ravel() if cut else NO_TRANSFORM)

    def _open(self) -> VideoWriter:
        # A folder of its own, because the muxer needs a file by name; it goes with this object at the latest, and after
        # a kill with the next folder that is made there.
        self._path = scratch_folder(self._context.scratch) / "crop.mp4"
        self._remove = weakref.finalize(self, shutil.rmtree, self._path.parent, True)
        size, crf, preset = (self._params[name] for name in ("size", "crf", "preset"))
        self._writer = VideoWriter(self._path, size, size, audio=self._sound, crf=crf, preset=preset)
        return self._writer

    def finish(self) -> dict[str, Any]:
        """The row. Raises TooShort without a frame, NoFace when no frame shows a face."""
        writer = self._writer or self._open()
        with self._context.clock.stage("encode"):
            writer.close()
        data = self._path.read_bytes()
        if self._remove is not None:
            self._remove()
        self._context.counters.temp_bytes += len(data)
        transforms = np.array(self._transforms, dtype=np.float32)
        if not self._seen or np.isnan(transforms).all():
            raise NoFace(f"no face in any of {len(transforms)} frames")
        info = self._context.info
        assert info is not None, "frames were pushed, so the video was open"
        return {
            "mp4": data,
            "transform": transforms,
            "n_frames": len(transforms),
            "has_sound": self._sound is not None,
            "source_fps": info.fps,
            "source_duration_s": info.duration_s,
            "source_width": info.width,
            "source_height": info.height,
        }
