"""Pictures and sound through a lossy codec and back, in memory: what a chain that writes files does to them.

Some published numbers are made of frames that were written to MPEG-4 and JPEG files on the way. To be comparable, ours
have to suffer the same, and no file is needed for that.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from ..core.errors import CorruptMedia
from .audio import SAMPLE_RATE
from .video import FPS

MP3_BIT_RATE = 128_000
# Samples by which an MP3 encoder and decoder delay the sound, where no container declares them.
MP3_DELAY = 1105
MP3_CHUNK = 1152
PIXELS = {"mpeg4": "yuv420p", "mjpeg": "yuvj420p"}


class LossyPicture:
    """Frames of one size through an encoder and a decoder that stay open, so that both remember the frames before.

    Args:
        codec: "mpeg4" or "mjpeg".
        height, width: of the frames, pixels.
        quantiser: constant quantiser, 2 (best) to 31; None follows `bit_rate`.
        bit_rate: bits a second that the rate control aims at; FFmpeg's own 200 kbit/s where nothing is said.
        options: of FFmpeg's encoder.
    """

    def __init__(
        self,
        codec: str,
        height: int,
        width: int,
        *,
        quantiser: int | None = None,
        bit_rate: int = 200_000,
        options: dict[str, str] | None = None,
    ) -> None:
        quality = {} if quantiser is None else {"qmin": str(quantiser), "qmax": str(quantiser)}
        encoder, decoder = (av.CodecContext.create(codec, mode) for mode in ("w", "r"))
        assert isinstance(encoder, VideoCodecContext) and isinstance(decoder, VideoCodecContext)
        encoder.width, encoder.height, encoder.pix_fmt = width, height, PIXELS[codec]
        encoder.framerate, encoder.time_base = Fraction(FPS), Fraction(1, FPS)
        encoder.bit_rate = bit_rate
        encoder.thread_count = decoder.thread_count = 1  # more would hold frames back
        encoder.options = {**quality, **(options or {})}
        self.bytes = 0
        self._encoder, self._decoder, self._count = encoder, decoder, 0

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """The next frame, uint8 RGB (H, W, 3), as a reader of the file would see it.

        Raises:
            CorruptMedia: the codec gave no frame for it.
        """
        given = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        given = given.reformat(format=self._encoder.pix_fmt, interpolation=Interpolation.BICUBIC)
        given.pts, given.time_base, self._count = self._count, Fraction(1, FPS), self._count + 1
        for packet in self._encoder.encode(given):
            self.bytes += packet.size
            for decoded in self._decoder.decode(packet):
                return decoded.reformat(format="rgb24", interpolation=Interpolation.BICUBIC).to_ndarray()
        raise CorruptMedia(f"{self._encoder.name} gave no frame back")


def lossy_sound(samples: np.ndarray) -> np.ndarray:
    """Sound through MP3 and back, as from a container that declares no delay: it comes `MP3_DELAY` samples late.

    Args:
        samples: float32 (S,) in [-1, 1] at 16 kHz.

    Returns:
        float32 (S + `MP3_DELAY`,) at 16 kHz, or somewhat longer: the encoder fills its last frame.
    """
    encoder, decoder = av.CodecContext.create("libmp3lame", "w"), av.CodecContext.create("mp3float", "r")
    assert isinstance(encoder, AudioCodecContext) and isinstance(decoder, AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "mono", "fltp"
    encoder.bit_rate, encoder.time_base = MP3_BIT_RATE, Fraction(1, SAMPLE_RATE)
    encoder.open()
    fit = AudioResampler("fltp", "mono", SAMPLE_RATE, frame_size=encoder.frame_size)
    packets = [packet for frame in _frames(samples) for part in fit.resample(frame) for packet in encoder.encode(part)]
    packets += [packet for part in fit.resample(None) if part is not None for packet in encoder.encode(part)]
    packets += encoder.encode(None)
    # Bare packets: the encoder's note of its delay is what a container without a field for it loses.
    bare = [Packet(bytes(packet)) for packet in packets if packet.size]
    decoded = [frame.to_ndarray()[0] for packet in [*bare, None] for frame in decoder.decode(packet)]
    return np.concatenate(decoded) if decoded else np.zeros(0, np.float32)


def _frames(samples: np.ndarray) -> list[AudioFrame]:
    frames = []
    for at in range(0, len(samples), MP3_CHUNK):
        piece = np.ascontiguousarray(samples[None, at : at + MP3_CHUNK], np.float32)
        frame = AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, at, Fraction(1, SAMPLE_RATE)
        frames.append(frame)
    return frames
