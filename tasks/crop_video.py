"""The crop of a clip as a video of its own, encoded in the same pass that finds the faces.

H.264 at 25 fps with the clip's sound, cut to n_frames = min(frames of the picture, samples // 640). Every picture is
the scene's settled square of the crop "face" (see `crop`), also where the subject is away for a while; before a scene's
first face there is no square: those pictures are black and their box is null. A source pixel (x, y) lies at
((x - left) size / side, (y - top) size / side) of the crop.
"""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import NoFace
from ..datasets.audio import SAMPLES_PER_FRAME
from ..datasets.encode import VideoWriter
from .crop import crop_square, pixel_box
from .extractor import Batch, Context, ExtractorSpec, vectors

CROP_VIDEO_ID = "crop-video"


def crop_video(size: int, crf: int, preset: str) -> ExtractorSpec:
    """The extractor for crops of size x size pixels at an x264 quality and speed."""
    return ExtractorSpec(
        id=CROP_VIDEO_ID,
        version=1,
        target="talkforge.tasks.crop_video:CropVideo",
        columns={
            "mp4": pa.large_binary(),
            "box": vectors(3),
            "n_frames": pa.int32(),
            "has_sound": pa.bool_(),
            "source_fps": pa.float64(),
            "source_duration_s": pa.float64(),
            "source_width": pa.int32(),
            "source_height": pa.int32(),
        },
        what="the crop as MP4; per frame left, top and side of its square in source pixels",
        picture=True,
        faces=True,
        audio=True,
        params={"size": size, "crf": crf, "preset": preset, "scaling": "area, bilinear where it enlarges"},
    )


class CropVideo:
    """The crop video of one clip."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._params, self._context = spec.params, context
        self._sound = context.audio if isinstance(context.audio, np.ndarray) else None
        self._boxes: list[tuple[float, ...]] = []
        self._remove: weakref.finalize | None = None
        self._writer: VideoWriter | None = None
        self._path = Path()

    def push(self, batch: Batch) -> None:
        """Encodes the next frames, as long as there is sound for them."""
        writer = self._writer or self._open()
        size = self._params["size"]
        for frame, square in zip(batch.frames, batch.squares, strict=True):
            if self._sound is not None and (len(self._boxes) + 1) * SAMPLES_PER_FRAME > len(self._sound):
                return
            known = square is not None
            writer.write(crop_square(frame, square, size) if known else np.zeros((size, size, 3), np.uint8))
            self._boxes.append(pixel_box(square) if known else (np.nan,) * 3)

    def _open(self) -> VideoWriter:
        # A folder of its own, because the muxer needs a file by name; it goes with this object at the latest.
        self._path = Path(mkdtemp(prefix="talkforge-crop-")) / "crop.mp4"
        self._remove = weakref.finalize(self, shutil.rmtree, self._path.parent, True)
        size, crf, preset = (self._params[name] for name in ("size", "crf", "preset"))
        self._writer = VideoWriter(self._path, size, size, audio=self._sound, crf=crf, preset=preset)
        return self._writer

    def finish(self) -> dict[str, Any]:
        """The row. Raises TooShort without a frame, NoFace when no frame shows a face."""
        writer = self._writer or self._open()
        writer.close()
        data = self._path.read_bytes()
        if self._remove is not None:
            self._remove()
        self._context.counters.temp_bytes += len(data)
        boxes = np.array(self._boxes, dtype=np.float32)
        if np.isnan(boxes).all():
            raise NoFace(f"no face in any of {len(boxes)} frames")
        info = self._context.info
        assert info is not None, "frames were pushed, so the video was open"
        return {
            "mp4": data,
            "box": boxes,
            "n_frames": len(boxes),
            "has_sound": self._sound is not None,
            "source_fps": info.fps,
            "source_duration_s": info.duration_s,
            "source_width": info.width,
            "source_height": info.height,
        }
