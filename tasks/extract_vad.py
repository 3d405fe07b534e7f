"""Extractor `vad-silero`: where somebody speaks, by Silero VAD.

The network hears windows of 512 samples (32 ms) in order, each with the 64 samples before it, and carries its state
from one to the next; the last window is filled up with zeros. It comes with the package `silero-vad`, of which only the
TorchScript file is used, known by its sha256: nothing of the package is imported, and it needs no torchaudio.

A 25 fps frame covers 40 ms. Its probability is the mean over these 40 ms of the probability that stands in each
instant's window, so windows count by the time that they share with the frame.

Segments follow the package's rule with its usual constants: speech begins with the first window at 0.5 or above. It
ends where a window falls below 0.35, unless one at 0.5 or above follows within 100 ms. What lasts 250 ms or less is
dropped, and each segment grows by 30 ms on both sides, within the sound.

Source: Silero Team, "Silero VAD: pre-trained enterprise-grade Voice Activity Detector", MIT.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.errors import MissingPackage, WeightsCorrupt
from ..core.hashing import file_sha256
from ..datasets.audio import SAMPLE_RATE, SAMPLES_PER_FRAME
from .extractor import ExtractorSpec, series
from .sound_only import SoundOnly
from .torchscript import load_script

WINDOW, CONTEXT, STATE = 512, 64, 128
BLOCK = 128  # samples; both a window and a frame are whole numbers of them
PACKAGE = "silero-vad==6.2.3"
MODEL_SHA256 = "e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720"
NETWORK = "talkforge.tasks.extract_vad:load_silero"

SPEECH_FROM, SPEECH_TO = 0.5, 0.35
MIN_SILENCE = SAMPLE_RATE * 100 // 1000
MIN_SPEECH = SAMPLE_RATE * 250 // 1000
PAD = SAMPLE_RATE * 30 // 1000

VAD = ExtractorSpec(
    id="vad-silero",
    version=1,
    target="talkforge.tasks.extract_vad:VoiceActivity",
    columns={
        "probability": series(),
        "start_s": series(pa.float64()),
        "end_s": series(pa.float64()),
        "n_samples": pa.int64(),
    },
    what="probability of speech per 25 fps frame, and segments of speech in seconds (Silero VAD)",
    audio=True,
    params={
        "package": PACKAGE,
        "sha256": MODEL_SHA256,
        "thresholds": [SPEECH_FROM, SPEECH_TO],
        "silence_speech_pad_samples": [MIN_SILENCE, MIN_SPEECH, PAD],
    },
    steps={"start_s": 0, "end_s": 0},
)
EXTRACTORS = (VAD,)


def load_silero() -> Any:
    """The package's TorchScript network for 16 kHz.

    It takes float32 (1, 576) samples and the state (2, 1, 128), and gives the probability (1, 1) and the next state. It
    keeps nothing itself, so that clips on several threads can share it.

    Raises:
        MissingPackage: silero-vad is not installed.
        WeightsCorrupt: its model is another one than this extractor's rows are made with.
    """
    spec = find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise MissingPackage("silero-vad is not installed", hint=f"pip install {PACKAGE}")
    path = Path(spec.origin).parent / "data" / "silero_vad.jit"
    if not path.is_file() or file_sha256(path) != MODEL_SHA256:
        raise WeightsCorrupt("silero-vad carries another model than the known one", hint=f"pip install {PACKAGE}")
    return load_script(path)._model


def window_probabilities(network: Any, samples: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Probability of speech in each window.

    Args:
        network: of `load_silero`.
        samples: float32 (S,) at 16 kHz, S at least 1.

    Returns:
        float32 (ceil(S / 512),).
    """
    import torch

    count = -(-len(samples) // WINDOW)
    padded = np.zeros(CONTEXT + count * WINDOW, dtype=np.float32)
    padded[CONTEXT : CONTEXT + len(samples)] = samples
    windows = torch.from_numpy(padded).to(device).unfold(0, CONTEXT + WINDOW, WINDOW)
    state, found = torch.zeros(2, 1, STATE, device=device), []
    with torch.inference_mode():
        for window in windows.split(1):
            probability, state = network(window, state)
            found.append(probability[0, 0])
        return torch.stack(found).cpu().numpy()


def frame_probabilities(windows: np.ndarray, n_samples: int) -> np.ndarray:
    """Mean probability over each whole 40 ms frame of the sound.

    Args:
        windows: (ceil(n_samples / 512),) probabilities.

    Returns:
        float32 (n_samples // 640,).
    """
    n_frames, blocks = n_samples // SAMPLES_PER_FRAME, SAMPLES_PER_FRAME // BLOCK
    at_blocks = np.repeat(windows.astype(np.float64), WINDOW // BLOCK)[: n_frames * blocks]
    return at_blocks.reshape(n_frames, blocks).mean(axis=1).astype(np.float32)


def speech_segments(windows: np.ndarray, n_samples: int) -> np.ndarray:
    """Begin and end of each stretch of speech, samples, int64 (K, 2), by the module's rule.

    Args:
        windows: (ceil(n_samples / 512),) probabilities.
    """
    kept = [pair for pair in _stretches(windows, n_samples) if pair[1] - pair[0] > MIN_SPEECH]
    # Pauses are longer than two pads, so that grown segments stay apart.
    grown = np.array(kept, dtype=np.int64).reshape(-1, 2) + (-PAD, PAD)
    return np.clip(grown, 0, n_samples)


def _stretches(windows: np.ndarray, n_samples: int) -> list[list[int]]:
    """Speech of any length, ends where it first fell silent."""
    found: list[list[int]] = []
    start = silent = None
    for k, probability in enumerate(windows.tolist()):
        at = k * WINDOW
        if probability >= SPEECH_FROM:
            start, silent = at if start is None else start, None
        elif probability < SPEECH_TO and start is not None:
            silent = at if silent is None else silent
            if at - silent >= MIN_SILENCE:
                found.append([start, silent])
                start = silent = None
    return found if start is None else [*found, [start, n_samples]]


class VoiceActivity(SoundOnly):
    """Speech in one clip's sound."""

    def finish(self) -> dict[str, Any]:
        """The row; a silent track is one without speech. Raises NoAudioTrack (or what else the sound has), TooShort."""
        audio = self.samples()
        windows = window_probabilities(self._context.network(NETWORK), audio, self._context.device)
        self._context.counters.forwards[self._spec.id] += len(windows)
        segments = speech_segments(windows, len(audio)) / SAMPLE_RATE
        return {
            "probability": frame_probabilities(windows, len(audio)),
            "start_s": segments[:, 0],
            "end_s": segments[:, 1],
            "n_samples": len(audio),
        }
