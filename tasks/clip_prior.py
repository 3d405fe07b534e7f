"""Emotion priors of a build's clips from a trained embedder (system dice-embedder), frozen, on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from ..core.errors import InputError
from .train_dice_embedder import EXPRESSIONS, DiceEmbedderConfig
from .trained import settings_of, weights_of

if TYPE_CHECKING:
    from ..models.dice_talk.embedder import EmotionEmbedder

Source = Literal["both", "video", "audio"]


@dataclass(frozen=True)
class ClipPriors:
    """Windows of clips to priors.

    Attributes:
        network: in eval mode.
        settings: of its training.
        source: what it reads; what it does not read it gets as zeros, as in training.
        sha256: of its weights.
    """

    network: EmotionEmbedder
    settings: DiceEmbedderConfig
    source: Source
    sha256: str

    @classmethod
    def load(cls, run: Path, source: Source = "both") -> Self:
        """The averaged weights of a training's last checkpoint. Raises what `trained` raises."""
        from ..models.dice_talk.embedder import EmotionEmbedder
        from ..models.training.weights import load_for_use

        settings, found = settings_of(run, "dice-embedder", DiceEmbedderConfig), weights_of(run)
        network = load_for_use(lambda: EmotionEmbedder(settings.model), found.weights)
        return cls(network, settings, source, found.sha256)

    @property
    def width(self) -> int:
        """Numbers of a prior."""
        return self.settings.model.width

    @property
    def expression(self) -> str | None:
        """The column of coefficients that is read, if any."""
        return None if self.source == "audio" else self.settings.expression

    @property
    def audio(self) -> str | None:
        """The column of Whisper's states that is read, if any."""
        return None if self.source == "video" else self.settings.audio_column

    def __call__(self, expression: np.ndarray | None, audio: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
        """The prior of one window.

        Args:
            expression: (T, C), the column as stored; NaN rows do not count. Not looked at for source "audio".
            audio: (steps x T, states x D) likewise. Not looked at for "video".

        Returns:
            mu and sigma, float32 (d,); None where no frame counts.
        """
        import torch

        mask = self.readable(expression, audio)
        if not mask.any():
            return None
        faces, sound = self._read(expression, audio)
        given = [None if part is None else torch.from_numpy(part)[None] for part in (faces, sound)]
        with torch.inference_mode():
            prior = self.network(*given, torch.from_numpy(mask)[None])
        return prior.mu[0].numpy().copy(), prior.sigma[0].numpy().copy()

    def readable(self, expression: np.ndarray | None, audio: np.ndarray | None) -> np.ndarray:
        """bool (T,), frames that count, for the same arguments."""
        faces, sound = self._read(expression, audio)
        parts = [part for part in (faces, None if sound is None else self._by_frame(sound)) if part is not None]
        if not parts:
            raise InputError(f"a prior from {self.source} needs the clip's columns")
        return np.logical_and.reduce([np.isfinite(part).all(1) for part in parts])

    def _read(
        self, expression: np.ndarray | None, audio: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What the embedder is given of both."""
        faces = None if expression is None or self.source == "audio" else self._faces(expression)
        return faces, None if audio is None or self.source == "video" else self._sound(audio)

    def _faces(self, column: np.ndarray) -> np.ndarray:
        """(T, 52 or 64)."""
        _, _, part = EXPRESSIONS[self.settings.model.expression]
        return column[:, part].astype(np.float32)

    def _sound(self, column: np.ndarray) -> np.ndarray:
        """(steps x T, states, D)."""
        return column.reshape(len(column), self.settings.model.audio_states, -1).astype(np.float32)

    def _by_frame(self, sound: np.ndarray) -> np.ndarray:
        steps = self.settings.model.steps_per_frame
        return sound.reshape(len(sound) // steps, -1)


def nearby(start: int, frames: int, length: int, most: int) -> slice:
    """At most `most` frames of a clip of `length`, the window `start` to `start + frames` as near the middle as can be.

    `frames` is not above `most`.
    """
    first = start + frames // 2 - most // 2
    first = max(0, min(first, length - most))
    return slice(first, min(length, first + most))
