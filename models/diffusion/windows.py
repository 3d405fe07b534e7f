"""Videos longer than the network sees at once, chunked decoding, and the step from 12.5 to 25 frames a second.

At every denoising step the video, taken as a ring, is cut into windows; from step to step the cuts move on, so that no
frame stays at a border. Where windows overlap their predictions are averaged. This is Sonic's time-aware position shift
(X. Ji et al., 2024), which the released DICE-Talk uses: 25 frames, moved by 7.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...core.errors import InputError
from .config import WindowsConfig


def window_indices(length: int, step: int, config: WindowsConfig) -> list[torch.Tensor]:
    """Which frames are denoised together at a step: int64 index tensors that cover 0..length-1, all equally long.

    A video not longer than a window is one window in its own order, at every step. Else windows start `frames -
    overlap` apart, from `step x shift` on, modulo length; the last one reaches into the first if it has to.

    Raises:
        InputError: length below 1.
    """
    if length < 1:
        raise InputError("a video of no frames has no windows")
    if length <= config.frames:
        return [torch.arange(length)]
    stride = config.frames - config.overlap
    starts = range(step * config.shift, step * config.shift + length, stride)
    return [torch.arange(start, start + config.frames) % length for start in starts]


def over_windows(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, step: int, config: WindowsConfig
) -> torch.Tensor:
    """Mean of the windows' predictions at each frame.

    Args:
        predict: (frames of x (B, f, ...), their indices (f,)) -> prediction of the same shape.
        x: (B, T, ...).
        step: which denoising step, 0-based.
    """
    total, count = torch.zeros_like(x), x.new_zeros(x.shape[1])
    for index in window_indices(x.shape[1], step, config):
        index = index.to(x.device)
        total.index_add_(1, index, predict(x[:, index], index))
        count.index_add_(0, index, count.new_ones(len(index)))
    return total / count.reshape(1, -1, *[1] * (x.ndim - 2))


def decode_chunks(
    decode: Callable[[torch.Tensor], torch.Tensor], latents: torch.Tensor, config: WindowsConfig
) -> torch.Tensor:
    """Latents (T, C, h, w) of one video to pictures, `decode_chunk` at a time."""
    return torch.cat([decode(chunk) for chunk in latents.split(config.decode_chunk)])


def double_rate(frames: torch.Tensor, config: WindowsConfig) -> torch.Tensor:
    """Twice the frames a second: between two frames their mean, (T, ...) to (2T - 1, ...); `none` returns them as are.

    A linear blend: where things move it shows both places faintly. The released system runs a learned interpolator
    instead, so numbers of temporal quality are not comparable with it.
    """
    if config.interpolation == "none" or len(frames) < 2:
        return frames
    between = (frames[:-1] + frames[1:]) / 2
    pairs = torch.stack([frames[:-1], between], 1).flatten(0, 1)
    return torch.cat([pairs, frames[-1:]])
