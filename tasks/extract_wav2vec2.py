"""Extractor of wav2vec2's hidden states, one row for each 25 fps frame: what Hallo and MF-ETalk listen to.

The sound is cut to its N = S // 640 whole frames, brought to zero mean and unit variance, and encoded as one; between
convolutions and transformer the steps are brought to N by linear interpolation, ends kept. A row holds the outputs of
the 12 layers, 768 numbers each, one after the other, so `states` reshapes to (N, 12, 768). That is what Hallo's code
does to sound of whole frames; it separates the voice from other sounds before, which is not done here.

Digital silence is encoded like any other sound: it is a fact about the clip, and training data needs its features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..datasets.audio import SAMPLES_PER_FRAME
from .extractor import ExtractorSpec, vectors
from .sound_only import SoundOnly

NAME = "wav2vec2-base-960h"
STATES, WIDTH = 12, 768

EXTRACTORS = (
    ExtractorSpec(
        id=NAME,
        version=1,
        target="talkforge.tasks.extract_wav2vec2:Wav2Vec2States",
        columns={"states": vectors(STATES * WIDTH, pa.float16()), "n_frames": pa.int32()},
        what=f"wav2vec2 base (960 h, English), as Hallo hears: {STATES} hidden states x {WIDTH} at 25 Hz, float16",
        audio=True,
        weights=(NAME,),
        params={
            "network": "talkforge.models.wav2vec2:load_base_960h",
            "model": NAME,
            "states": STATES,
            "width": WIDTH,
            "sound": "whole frames, zero mean, unit variance",
            "steps": "linear, ends kept, before the transformer",
        },
    ),
)


class Wav2Vec2States(SoundOnly):
    """Hidden states of one clip's sound."""

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoAudioTrack (or what else the sound has) or TooShort (less than one frame of it)."""
        audio = self.samples()
        n_frames = len(audio) // SAMPLES_PER_FRAME
        return {"states": self._encode(audio[: n_frames * SAMPLES_PER_FRAME], n_frames), "n_frames": n_frames}

    def _encode(self, audio: np.ndarray, frames: int) -> np.ndarray:
        """float16 (frames, L D)."""
        import torch

        from ..models.wav2vec2 import normalised

        network = self._context.network(self._spec.params["network"])
        samples = torch.from_numpy(normalised(audio))[None].to(self._context.device)
        with torch.inference_mode():
            states = network(samples, frames)[0].flatten(1).half().cpu().numpy()
        self._context.counters.forwards[self._spec.id] += 1
        return states
