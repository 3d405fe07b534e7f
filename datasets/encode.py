"""Writing videos: H.264 and AAC in MP4, at a constant rate, sound and picture starting together.

A file appears under its name only when it is whole. The same frames and sound give the same bytes.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation, VideoReformatter

from ..core.counters import Counters
from ..core.errors import ConfigError, InputError, NoAudioTrack, TooShort
from ..core.shards import atomic_path
from .audio import SAMPLE_RATE, SAMPLES_PER_FRAME, find_audio, read_audio
from .containers import printable
from .video import FPS, open_video, resample

_BT709 = 1


def _x264_parameters() -> str:
    """What makes the encoder's bytes depend on the pictures alone.

    Threads change how it cuts pictures up. Its AVX-512 code gave other bytes from run to run for the same pictures
    (preset medium, 15 runs: 6 results at 96x256, 3 at 352x288); its AVX2 code gave one, as other machines give it.
    """
    cpu = Path("/proc/cpuinfo")
    has_avx2 = cpu.is_file() and " avx2 " in cpu.read_text(encoding="ascii", errors="replace")
    return "threads=1:asm=avx2" if has_avx2 else "threads=1"


_X264 = _x264_parameters()


class VideoWriter:
    """H.264 (yuv420p, BT.709, limited range) and optionally AAC (16 kHz mono) in an MP4 with its index in front.

        with VideoWriter("out.mp4", 256, 256, audio=samples) as out:
            for frame in frames:
                out.write(frame)

    The file is written under a temporary name in the same folder, synced, and renamed on leaving the block; after an
    error nothing is left. Sound is cut, or padded with silence, to the length of the picture.

    Args:
        path: the file; its folder must exist.
        width, height: pixels, both even (a chroma sample covers 2 x 2 pixels).
        fps: frames per second.
        audio: float (S,) in [-1, 1], 16 kHz mono, sample 0 belongs to frame 0; None for no sound track.
        crf: quality of x264, 0 (lossless) to 51; 18 is visually clean.
        preset: speed of x264.
        audio_bitrate: bits per second.

    Raises:
        ConfigError: odd or empty size, wrong fps.
        InputError: the folder does not exist.
        TooShort: no frame was written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        *,
        fps: int | Fraction = FPS,
        audio: np.ndarray | None = None,
        crf: int = 18,
        preset: str = "medium",
        audio_bitrate: int = 64_000,
    ) -> None:
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise ConfigError(f"H.264 needs even sides, not {width}x{height}")
        if fps <= 0:
            raise ConfigError(f"fps must be positive, not {fps}")
        self.path = Path(path)
        self.frames_written = 0
        self._shape = (height, width, 3)
        self._fps = Fraction(fps)
        self._audio = audio
        self._samples_sent = 0
        self._to_yuv = VideoReformatter()
        if not self.path.parent.is_dir():
            raise InputError(f"the folder of {printable(self.path)} does not exist")
        # Absolute, so that no folder name is taken for a protocol; by name, because moving the index to the front
        # makes the muxer open its own output a second time.
        self._target = ExitStack()
        temporary = self._target.enter_context(atomic_path(self.path.absolute()))
        try:
            self._open(str(temporary), crf, preset, audio_bitrate)
        except BaseException:
            self._target.__exit__(*sys.exc_info())
            raise

    def _open(self, name: str, crf: int, preset: str, audio_bitrate: int) -> None:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self._open_container = True
        self._container = av.open(name, "w", format="mp4", options=options)
        self._video = self._container.add_stream("libx264", rate=self._fps)
        self._video.width, self._video.height = self._shape[1], self._shape[0]
        self._video.pix_fmt = "yuv420p"
        self._video.options = {"crf": str(crf), "preset": preset, "x264-params": _X264}
        self._video.codec_context.colorspace = _BT709
        self._video.codec_context.color_primaries = _BT709
        self._video.codec_context.color_trc = _BT709
        self._video.codec_context.color_range = ColorRange.MPEG
        self._sound = None
        if self._audio is not None:
            self._sound = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            self._sound.bit_rate = audio_bitrate

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame, uint8 RGB (H, W, 3) of the size given at the start."""
        if frame.shape != self._shape or frame.dtype != np.uint8:
            raise ConfigError(f"frame {frame.dtype} {frame.shape}, but the video takes uint8 {self._shape}")
        rgb = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        yuv = self._to_yuv.reformat(
            rgb,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            dst_color_trc=ColorTrc.BT709,
            dst_color_primaries=ColorPrimaries.BT709,
            interpolation=Interpolation.AREA,
            threads=1,
        )
        yuv.pts, yuv.time_base = self.frames_written, 1 / self._fps
        self._container.mux(self._video.encode(yuv))
        self.frames_written += 1
        self._send_sound()

    def close(self) -> None:
        """Finishes the file and gives it its name. Harmless when repeated."""
        try:
            if self._open_container:
                self._finish()
        except BaseException:
            self._discard(*sys.exc_info())
            raise
        self._target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self._discard(exc_type, error, traceback)

    def _finish(self) -> None:
        if not self.frames_written:
            raise TooShort(f"no frame for {printable(self.path)}")
        self._container.mux(self._video.encode(None))
        if self._sound is not None:
            self._container.mux(self._sound.encode(None))
        self._open_container = False
        self._container.close()

    def _discard(
        self, exc_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes without a result; what went wrong first is what counts."""
        if self._open_container:
            self._open_container = False
            with suppress(av.error.FFmpegError, OSError, ValueError):
                self._container.close()
        self._target.__exit__(exc_type, error, traceback)

    def _send_sound(self) -> None:
        """Sound up to the end of the last frame, so that both tracks stay interleaved."""
        if self._sound is None or self._audio is None:
            return
        until = round(self.frames_written * SAMPLE_RATE / self._fps)
        piece = np.zeros((1, until - self._samples_sent), np.float32)
        have = np.asarray(self._audio[self._samples_sent : until], np.float32)
        piece[0, : len(have)] = np.clip(have, -1, 1)
        frame = AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self._samples_sent, Fraction(1, SAMPLE_RATE)
        self._container.mux(self._sound.encode(frame))
        self._samples_sent = until


def reencode_clip(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    crf: int = 18,
    start_s: float | None = None,
    end_s: float | None = None,
    size: tuple[int, int] | None = None,
    counters: Counters | None = None,
) -> int:
    """Writes `src` anew at 25 fps with 16 kHz mono sound: the baseline "copy", and the way to cut a piece of a clip.

    The sound is the video's own, or else that of the file beside it. One frame at a time is held. A side with an odd
    number of pixels loses its last one.

    Args:
        start_s, end_s: piece to take, in seconds since the first frame, rounded to whole frames at 25 fps.
        size: (width, height) to scale to (area average), both even; the source's own if None.

    Returns:
        Number of frames written.

    Raises:
        TooShort: the piece holds no frame. All of `open_video`, `read_audio` and `VideoWriter`.
    """
    first, last = _slots(start_s, end_s)
    audio = _sound_of(src)
    audio = None if audio is None else audio[first * SAMPLES_PER_FRAME :]
    with open_video(src, counters=counters) as stream:
        width, height = size or (stream.info.width // 2 * 2, stream.info.height // 2 * 2)
        fit = Scaler(width, height) if size else None
        with VideoWriter(dst, width, height, audio=audio, crf=crf) as out:
            for index, _, frame in resample(stream):
                if last is not None and index >= last:
                    break
                if index >= first:
                    out.write(fit(frame) if fit else frame[:height, :width])
        return out.frames_written


class Scaler:
    """Scales uint8 RGB (H, W, 3) to (height, width, 3) by area averaging; one scaler is kept between calls."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._scaler = VideoReformatter()

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        source = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        scaled = self._scaler.reformat(source, *self._size, interpolation=Interpolation.AREA, threads=1)
        return np.ascontiguousarray(scaled.to_ndarray())


def _slots(start_s: float | None, end_s: float | None) -> tuple[int, int | None]:
    first, last = round((start_s or 0) * FPS), None if end_s is None else round(end_s * FPS)
    if first < 0 or (last is not None and last <= first):
        raise ConfigError(f"no frame from {start_s} s to {end_s} s")
    return first, last


def _sound_of(src: str | os.PathLike[str]) -> np.ndarray | None:
    try:
        return read_audio(src)
    except NoAudioTrack:
        beside = find_audio(src)
        return read_audio(beside) if beside else None
