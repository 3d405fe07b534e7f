"""Whisper's hidden states around each video frame, to the audio tokens of the UNet.

Frame f of 25 a second sees the Whisper steps [2f - 4, 2f + 6) of 50 a second, zeros beyond the clip: 10 steps of 5
hidden states of 384 numbers, 19200 in all, -> 1024 -> 1024 -> 32 tokens of 1024, ReLU between, LayerNorm on each token.
Numbers: released DICE-Talk, whose paper follows Sonic here (X. Ji et al., 2024); they stand in `AudioTokensConfig`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ...core.errors import InputError
from .config import AudioTokensConfig


def whisper_windows(
    states: torch.Tensor, frames: Sequence[int] | torch.Tensor, config: AudioTokensConfig
) -> torch.Tensor:
    """The states that each frame sees.

    Args:
        states: (S, 5, 384) of one clip, from its first frame on.
        frames: numbers of frames at 25 a second, say 0, 2, 4 for 12.5 a second.

    Returns:
        (len(frames), 10, 5, 384), zero outside of the clip.

    Raises:
        InputError: states of another shape, or a negative frame.
    """
    if states.ndim != 3 or tuple(states.shape[1:]) != (config.states, config.state_width):
        raise InputError(f"Whisper states are {tuple(states.shape)}, not (S, {config.states}, {config.state_width})")
    first = torch.as_tensor(frames, device=states.device) * config.steps_per_frame
    if len(first) and int(first.min()) < 0:
        raise InputError("frames are counted from 0")
    steps = first[:, None] + torch.arange(-config.before, config.after, device=states.device)
    inside = (steps >= 0) & (steps < len(states))
    padded = F.pad(states, (0, 0, 0, 0, 0, 1))
    return padded[torch.where(inside, steps, len(states))]


class WhisperTokens(nn.Module):
    """Windows (..., 10, 5, 384) to tokens (..., 32, 1024)."""

    def __init__(self, config: AudioTokensConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Linear(config.inputs, config.hidden)
        self.second = nn.Linear(config.hidden, config.hidden)
        self.third = nn.Linear(config.hidden, config.tokens * config.width)
        self.norm = nn.LayerNorm(config.width) if config.normalise else nn.Identity()

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        hidden = self.second(self.first(windows.flatten(-3)).relu()).relu()
        return self.norm(self.third(hidden).unflatten(-1, (self.config.tokens, self.config.width)))
