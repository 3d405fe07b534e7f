"""Extractor `speech-envelope`: loudness of the clip's sound at 25 fps, no network.

Frame k covers the 640 samples that are heard while video frame k is on screen. Level is the RMS of the samples
relative to full scale, in dB, floored at -80 dB so that digital silence stays finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import SilentAudio
from ..datasets.audio import SAMPLES_PER_FRAME, is_silent
from .extractor import ExtractorSpec, series
from .sound_only import SoundOnly

FLOOR_DB = -80.0

SPEECH = ExtractorSpec(
    id="speech-envelope",
    version=1,
    target="talkforge.tasks.extract_speech:SpeechEnvelope",
    columns={"level_db": series(), "peak": pa.float32(), "n_samples": pa.int64()},
    what="RMS level of the sound per 25 fps frame, dB relative to full scale",
    audio=True,
    params={"floor_db": FLOOR_DB, "samples_per_frame": SAMPLES_PER_FRAME},
)
EXTRACTORS = (SPEECH,)


def frame_levels(samples: np.ndarray) -> np.ndarray:
    """RMS level of each whole 640-sample frame.

    Args:
        samples: float32 (S,) at 16 kHz in [-1, 1].

    Returns:
        float32 (S // 640,), dB relative to full scale, at least `FLOOR_DB`.
    """
    count = len(samples) // SAMPLES_PER_FRAME
    frames = samples[: count * SAMPLES_PER_FRAME].reshape(count, SAMPLES_PER_FRAME).astype(np.float64)
    rms = np.sqrt((frames**2).mean(axis=1))
    return np.maximum(20 * np.log10(np.maximum(rms, 1e-12)), FLOOR_DB).astype(np.float32)


class SpeechEnvelope(SoundOnly):
    """The envelope of one clip."""

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoAudioTrack, SilentAudio or TooShort where there is no speech to follow."""
        audio = self.samples()
        if is_silent(audio):
            raise SilentAudio("the sound track is silent")
        levels = frame_levels(audio)
        return {"level_db": levels, "peak": float(np.abs(audio).max()), "n_samples": len(audio)}
