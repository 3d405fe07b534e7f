"""For extractors that look at a clip's sound alone."""

from __future__ import annotations

import numpy as np

from ..core.errors import MediaError, TooShort
from ..datasets.audio import SAMPLES_PER_FRAME
from .extractor import Batch, Context, ExtractorSpec


class SoundOnly:
    """Holds the declaration and the pass's context; a subclass makes the row from `samples` in `finish`."""

    def __init__(self, spec: ExtractorSpec, context: Context) -> None:
        self._spec, self._context = spec, context

    def push(self, batch: Batch) -> None:
        """Pictures are not looked at."""

    def samples(self) -> np.ndarray:
        """float32 (S,) at 16 kHz. Raises NoAudioTrack (or what else the sound has), TooShort (less than one frame)."""
        audio = self._context.audio
        if isinstance(audio, MediaError):
            raise audio
        assert audio is not None, "the pass reads the sound for extractors that declare audio=True"
        if len(audio) < SAMPLES_PER_FRAME:
            raise TooShort(f"the sound has {len(audio)} samples, less than one frame")
        return audio
