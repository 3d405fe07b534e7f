"""Extractors of Whisper's hidden states, 50 steps a second: what the audio branches of talking-head networks listen to.

The sound is cut into blocks of 30 s, each filled up with zeros and encoded on its own. A row holds 2 steps for each
whole 25 fps frame of sound, T2 = 2 (S // 640); who pairs it with the picture cuts both to the shorter one. Step t has
L + 1 states of D numbers one after the other, so `states` reshapes to (T2, L + 1, D): state 0 is the stem (convolutions
and positional embedding), state k the output of block k, and the last has gone through the final normalisation as well.
That is what Sonic and DICE-Talk read out of Hugging Face's port.

Digital silence is encoded like any other sound: it is a fact about the clip, and training data needs its features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from ..datasets.audio import SAMPLES_PER_FRAME
from .extractor import ExtractorSpec, vectors
from .sound_only import SoundOnly

BLOCKS_PER_FORWARD = 2


def _spec(name: str, loader: str, weights: str, layers: int, width: int, what: str) -> ExtractorSpec:
    return ExtractorSpec(
        id=name,
        version=1,
        target="talkforge.tasks.extract_whisper:WhisperStates",
        columns={"states": vectors((layers + 1) * width, pa.float16()), "n_frames": pa.int32()},
        what=f"{what}: {layers + 1} hidden states x {width} at 50 Hz, float16",
        audio=True,
        weights=(weights,),
        params={
            "network": f"talkforge.models.whisper_encoder:{loader}",
            "model": name,
            "states": layers + 1,
            "width": width,
            "last_state": "ln_post",
            "block_seconds": 30,
        },
        steps={"states": 2},
    )


EXTRACTORS = (
    _spec("whisper-tiny-en", "load_tiny_en", "whisper-tiny-en-ct2", 4, 384, "Whisper tiny.en"),
    _spec("whisper-tiny", "load_tiny", "whisper-tiny", 4, 384, "Whisper tiny (multilingual, official file)"),
    _spec("whisper-base", "load_base", "whisper-base-ct2", 6, 512, "Whisper base (multilingual)"),
)


class WhisperStates(SoundOnly):
    """Hidden states of one clip's sound."""

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoAudioTrack (or what else the sound has) or TooShort (less than one frame of it)."""
        audio = self.samples()
        n_frames = len(audio) // SAMPLES_PER_FRAME
        return {"states": self._encode(audio, 2 * n_frames), "n_frames": n_frames}

    def _encode(self, audio: np.ndarray, steps: int) -> np.ndarray:
        """float16 (steps, (L + 1) D)."""
        import torch

        from ..models.whisper_encoder import BLOCK_STEPS, blocks_of, log_mel

        network = self._context.network(self._spec.params["network"])
        blocks = torch.from_numpy(blocks_of(audio, steps))
        states = np.empty((len(blocks) * BLOCK_STEPS, network.width * (network.layers + 1)), dtype=np.float16)
        with torch.inference_mode():
            for k in range(0, len(blocks), BLOCKS_PER_FORWARD):
                part = blocks[k : k + BLOCKS_PER_FORWARD].to(self._context.device)
                # A mel of one block at a time: the floor under the spectrum is the block's own.
                answer = network(log_mel(part)).flatten(2).flatten(0, 1).half().cpu().numpy()
                states[k * BLOCK_STEPS : k * BLOCK_STEPS + len(answer)] = answer
        self._context.counters.forwards[self._spec.id] += len(blocks)
        return states[:steps]
