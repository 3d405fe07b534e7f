"""Sound as 16 kHz mono on the picture's clock: sample 0 is heard when the first video frame is seen."""

from __future__ import annotations

import os
import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av.error
import numpy as np
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream as AvAudioStream
from av.packet import Packet
from av.video.stream import VideoStream as AvVideoStream

from ..core.errors import CorruptMedia, NoAudioTrack, NotMedia, NoVideoStream, TruncatedMedia
from ..core.shards import atomic_path
from .containers import AUDIO_SUFFIXES, STILL_IMAGES, printable
from .demux import OpenMedia, error_text, open_media, seconds, video_track
from .integrity import missing_wave_bytes

SAMPLE_RATE = 16000
SAMPLES_PER_FRAME, _REST = divmod(SAMPLE_RATE, 25)
if _REST:
    raise AssertionError("a frame at 25 fps must hold a whole number of samples")

# Time stamps of Matroska or FLV are rounded to 1 ms; only a step of more than one video frame is a gap or an overlap.
_GAP = Fraction(1, 25)
# A sound track may be this much shorter than its header says (last packet, rounding) before it counts as cut off.
_SHORT = Fraction(1, 10)
_SILENCE_WINDOW = SAMPLE_RATE // 10


def read_audio(path: str | os.PathLike[str], *, align_to_video: bool = True) -> np.ndarray:
    """The sound of a video or sound file.

    Channels are averaged, then the sample rate is converted by soxr at its high quality. Encoder delay that the
    container declares (edit list, codec delay) is taken off. A hole in the time stamps is filled with silence.

    Args:
        path: file with a sound track.
        align_to_video: put time zero at the first video frame, where the file has a picture: sound before it is cut
            off, a later start is padded with silence. Else, and without a picture, the first sample is the first sound.

    Returns:
        float32 (S,) in [-1, 1] at 16 kHz. As long as the sound is, whatever the picture's length.

    Raises:
        MediaNotFound, NotMedia, PlaylistRefused: see `containers.sniff`.
        NoAudioTrack: there is no sound track, or one without a single sample.
        CorruptMedia, TruncatedMedia: it cannot be decoded, or ends before its header says.
    """
    with open_media(path) as media:
        track = _sound_track(media)
        reader = _SoundReader(media, track)
        chunks = list(reader.chunks(watch_picture=align_to_video))
        if not chunks:
            raise NoAudioTrack(f"{printable(path)} has a sound track without a sample")
        reader.check_length(chunks)
        zero = reader.first_picture if reader.first_picture is not None else chunks[0].start
        samples = _on_clock(chunks, zero or Fraction(0), reader.rate)
    return _to_rate(samples, reader.rate)


def has_audio(path: str | os.PathLike[str]) -> bool:
    """Whether there is a sound track, be it silent. Header only. Errors as for `containers.sniff`."""
    with open_media(path) as media:
        return bool(media.container.streams.audio)


def find_audio(video_path: str | os.PathLike[str]) -> Path | None:
    """The sound file beside a video (same stem; .wav first, then .flac, .m4a, ...), or None."""
    video = Path(video_path)
    beside = {p.suffix.lower(): p for p in sorted(video.parent.iterdir()) if p.stem == video.stem and p.is_file()}
    return next((beside[suffix] for suffix in AUDIO_SUFFIXES if suffix in beside), None)


def is_silent(samples: np.ndarray, threshold_db: float = -60.0) -> bool:
    """Whether no tenth of a second is louder than the threshold.

    The loudness is the root mean square over consecutive windows of 0.1 s, in dB relative to full scale (a sine at full
    scale has -3 dB). So a click alone is no speech, and one word in a long pause is.

    Args:
        samples: (S,) in [-1, 1] at 16 kHz; empty is silent.
    """
    if not samples.size:
        return True
    squares = np.square(samples, dtype=np.float64)
    starts = np.arange(0, len(squares), _SILENCE_WINDOW)
    sums = np.add.reduceat(squares, starts)
    lengths = np.diff(np.append(starts, len(squares)))
    # A short last window counts as if it were filled up with silence, or a lone sample could outweigh a whole one.
    loudest = np.max(sums / np.maximum(lengths, min(_SILENCE_WINDOW, len(squares))))
    return bool(loudest <= 10 ** (threshold_db / 10))


def write_wav(path: str | os.PathLike[str], samples: np.ndarray) -> None:
    """Writes (S,) in [-1, 1] as 16 kHz mono 16-bit PCM; the file appears whole or not at all."""
    pcm = np.clip(np.round(np.asarray(samples, np.float64) * 32768), -32768, 32767).astype("<i2")
    with atomic_path(Path(path)) as temporary, wave.open(str(temporary), "wb") as out:
        out.setparams((1, 2, SAMPLE_RATE, len(pcm), "NONE", ""))
        out.writeframes(pcm.tobytes())


class Chunk(NamedTuple):
    """Mono samples (S,) at the source rate and their time on the container's clock, None where it has none."""

    start: Fraction | None
    samples: np.ndarray


class _SoundReader:
    """One pass over the sound track."""

    def __init__(self, media: OpenMedia, track: AvAudioStream) -> None:
        self.media = media
        self.rate = 0
        self.first_picture: Fraction | None = None
        self._track = track
        self._name = printable(media.path)

    def chunks(self, *, watch_picture: bool) -> Iterator[Chunk]:
        """The whole track; sets `first_picture` on the way."""
        picture = _picture_track(self.media) if watch_picture else None
        tracks = [self._track] if picture is None else [self._track, picture]
        try:
            for packet in self.media.container.demux(tracks):
                if packet.stream.index == self._track.index:
                    yield from map(self._chunk, self._track.decode(packet))
                elif picture is not None and self.first_picture is None:
                    self.first_picture = _picture_time(picture, packet)
        except (av.error.FFmpegError, ValueError) as error:
            raise CorruptMedia(f"{self._name}: the sound is damaged: {error_text(error)}") from error

    def check_length(self, chunks: list[Chunk]) -> None:
        """Raises `TruncatedMedia` where the track is shorter than the length in its header."""
        if self.media.kind == "wav" and self._track.bit_rate:
            missing = Fraction(8 * missing_wave_bytes(self.media.handle), self._track.bit_rate)
            if missing > _SHORT:
                raise TruncatedMedia(f"{self._name}: the last {float(missing):.2f} s of the sound are missing")
        if self.media.kind not in ("mov", "flac") or not self._track.duration:
            return
        declared = seconds(self._track.duration, self._track.time_base)
        first, last = chunks[0].start, chunks[-1].start
        if first is None or last is None:
            return
        length = last - first + Fraction(len(chunks[-1].samples), self.rate)
        if declared - length > _SHORT:
            raise TruncatedMedia(
                f"{self._name}: {float(length):.2f} s of sound, its header says {float(declared):.2f} s"
            )

    def _chunk(self, frame: AudioFrame) -> Chunk:
        if frame.sample_rate != (self.rate or frame.sample_rate):
            raise CorruptMedia(f"{self._name}: the sample rate changes midway")
        self.rate = frame.sample_rate
        start = seconds(frame.pts, frame.time_base) if frame.pts is not None else None
        return Chunk(start, _mono(frame))


def _picture_time(track: AvVideoStream, packet: Packet) -> Fraction | None:
    """Time of the first picture that this packet brings out."""
    try:
        frames = track.decode(packet)
    except (av.error.FFmpegError, ValueError):
        # The picture's damage is reported by who reads the picture; its time is on the next packet that decodes.
        return None
    return next((seconds(frame.pts, frame.time_base) for frame in frames if frame.pts is not None), None)


def _sound_track(media: OpenMedia) -> AvAudioStream:
    if media.kind in STILL_IMAGES:
        raise NotMedia(f"{printable(media.path)} is a still image")
    if not media.container.streams.audio:
        raise NoAudioTrack(f"{printable(media.path)} has no sound track")
    track = media.container.streams.audio[0]
    if track.codec_context is None:
        raise CorruptMedia(f"{printable(media.path)}: no decoder for its sound track")
    return track


def _picture_track(media: OpenMedia) -> AvVideoStream | None:
    try:
        track = video_track(media)
    except (NoVideoStream, CorruptMedia):
        return None
    track.codec_context.thread_count = 1
    return track


def _mono(frame: AudioFrame) -> np.ndarray:
    """Mean of the channels, float32 in [-1, 1]."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif data.dtype.kind == "i":
        data = data.astype(np.float64) / 2.0 ** (8 * data.itemsize - 1)
    return data.mean(axis=0, dtype=np.float64).astype(np.float32)


def _on_clock(chunks: list[Chunk], zero: Fraction, rate: int) -> np.ndarray:
    """The chunks in one array whose first sample is heard at `zero`; a chunk without a time follows the one before."""
    first = chunks[0].start if chunks[0].start is not None else zero
    origin = at = round((first - zero) * rate)
    pieces: list[np.ndarray] = []
    for start, samples in chunks:
        place = at if start is None else round((start - zero) * rate)
        if abs(place - at) > _GAP * rate:
            pieces.append(np.zeros(max(0, place - at), np.float32))
            samples = samples[max(0, at - place) :]
            at = max(at, place)
        pieces.append(samples)
        at += len(samples)
    sound = np.concatenate(pieces)
    return sound[-origin:] if origin < 0 else np.concatenate([np.zeros(origin, np.float32), sound])


def _to_rate(samples: np.ndarray, rate: int) -> np.ndarray:
    if rate != SAMPLE_RATE and samples.size:
        samples = soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ")
    return np.clip(samples, -1.0, 1.0).astype(np.float32, copy=False)
