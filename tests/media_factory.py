"""Small synthetic clips for tests, written with PyAV: numbered frames, exact times, sound, turned pictures.

Each frame carries its number as a 12-bit pattern of black and white stripes over its whole height, so the number can be
read back after any codec, scaling or quarter turn undone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 12
RATE = 16000


def numbered(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """uint8 RGB (H, W, 3): the number in 12 vertical stripes, most significant bit left, white is 1."""
    bits = [(number >> (BITS - 1 - i)) & 1 for i in range(BITS)]
    columns = np.array(bits, np.uint8)[np.arange(width) * BITS // width] * 255
    return np.ascontiguousarray(np.broadcast_to(columns[None, :, None], (height, width, 3)))


def read_number(frame: np.ndarray) -> int:
    """Inverse of `numbered`, tolerant to lossy coding."""
    width = frame.shape[1]
    means = [frame[:, (2 * i + 1) * width // (2 * BITS)].mean() for i in range(BITS)]
    return sum(int(mean > 127) << (BITS - 1 - i) for i, mean in enumerate(means))


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    """float32 (S,), a sine."""
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def click(seconds: float, at: float, rate: int = RATE) -> np.ndarray:
    """float32 (S,): silence with a 2 ms burst of 3 kHz that begins at `at` seconds."""
    samples = np.zeros(round(seconds * rate), np.float32)
    start, length = round(at * rate), rate // 500
    samples[start : start + length] = 0.9 * np.sin(2 * np.pi * 3000 * (np.arange(length) + 0.5) / rate)
    return samples


def write_clip(
    path: Path,
    frames: Iterable[np.ndarray] | int = 25,
    *,
    rate: Fraction | int = 25,
    ticks: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    format: str | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int | None = None,
    hflip: bool = False,
    audio: np.ndarray | None = None,
    audio_rate: int = RATE,
    audio_codec: str = "aac",
    audio_start: float = 0.0,
) -> Path:
    """Writes a clip and returns its path.

    Args:
        frames: RGB frames, or how many numbered ones.
        ticks: presentation time of each frame in `time_base` (default: the frame's number in 1 / rate).
        rotation: counter-clockwise turn written into the display matrix, degrees.
        audio: float32 (S,) mono or (C, S).
    """
    frames = (numbered(i) for i in range(frames)) if isinstance(frames, int) else iter(frames)
    first = next(frames)
    with av.open(str(path), "w", format=format, container_options=container_options or {}) as out:
        video = out.add_stream(codec, rate=Fraction(rate))
        video.height, video.width = first.shape[:2]
        video.pix_fmt = pix_fmt
        video.codec_context.thread_count = 1
        if time_base is not None:
            video.codec_context.time_base = time_base
        video.options = options if options is not None else ({"crf": "12"} if codec == "libx264" else {})
        if rotation is not None or hflip:
            video.set_display_rotation(rotation or 0, hflip=hflip)
        sound = _add_sound(out, audio, audio_codec, audio_rate)
        for index, picture in enumerate(itertools.chain([first], frames)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = ticks[index] if ticks is not None else index
            frame.time_base = time_base or 1 / Fraction(rate)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None and audio is not None:
            _write_sound(out, sound, np.atleast_2d(audio), audio_rate, audio_start)
    return path


def write_sound(
    path: Path, audio: np.ndarray, *, rate: int = RATE, codec: str = "aac", format: str | None = None
) -> Path:
    """Writes a sound file, float32 (S,) or (C, S)."""
    with av.open(str(path), "w", format=format) as out:
        _write_sound(out, _add_sound(out, audio, codec, rate), np.atleast_2d(audio), rate, 0.0)
    return path


def _add_sound(out, audio: np.ndarray | None, codec: str, rate: int):
    if audio is None:
        return None
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[np.atleast_2d(audio).shape[0]]
    return out.add_stream(codec, rate=rate, layout=layout)


def _write_sound(out, sound, audio: np.ndarray, rate: int, start: float) -> None:
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[audio.shape[0]]
    for at in range(0, audio.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio[:, at : at + 1024]), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, at + round(start * rate), Fraction(1, rate)
        out.mux(sound.encode(frame))
    out.mux(sound.encode(None))
