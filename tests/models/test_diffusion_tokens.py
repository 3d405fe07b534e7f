"""Whisper windows and audio tokens against loops in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError
from talkforge.models.diffusion.audio_tokens import WhisperTokens, whisper_windows
from talkforge.models.diffusion.config import AudioTokensConfig
from talkforge.tests.models.reference import random_array

SMALL = AudioTokensConfig(states=2, state_width=3, hidden=7, tokens=4, width=8)


def test_windows_are_steps_around_each_frame_with_zeros_beyond() -> None:
    states, frames = random_array(0, 20, 2, 3), [0, 2, 4, 9, 12]
    found = whisper_windows(torch.from_numpy(states), frames, SMALL).numpy()
    assert found.shape == (5, 10, 2, 3)
    for row, frame in enumerate(frames):
        for place, step in enumerate(range(2 * frame - 4, 2 * frame + 6)):
            wanted = states[step] if 0 <= step < 20 else np.zeros((2, 3))
            np.testing.assert_array_equal(found[row, place], wanted)


def test_the_released_window_has_19200_numbers() -> None:
    assert AudioTokensConfig().inputs == 19200


def test_tokens_are_the_stated_network() -> None:
    torch.manual_seed(0)
    network, windows = WhisperTokens(SMALL).double(), random_array(1, 2, 3, 10, 2, 3).astype(np.float64)
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    x = windows.reshape(2, 3, 60)
    for layer in ("first", "second"):
        x = np.maximum(x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"], 0)
    x = (x @ weights["third.weight"].T + weights["third.bias"]).reshape(2, 3, 4, 8)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(network(torch.from_numpy(windows)).detach().numpy(), x, atol=1e-10)


@pytest.mark.parametrize("shape", [(20, 3, 3), (20, 6), (1, 20, 2, 3)])
def test_states_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="Whisper states"):
        whisper_windows(torch.zeros(shape), [0], SMALL)


def test_frames_before_the_clip_are_refused() -> None:
    with pytest.raises(InputError, match="from 0"):
        whisper_windows(torch.zeros(20, 2, 3), [-1], SMALL)
