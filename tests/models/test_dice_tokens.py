"""Whisper windows and audio tokens against loops in numpy; the emotion head and its loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError
from talkforge.models.dice_talk.audio_tokens import WhisperTokens, whisper_windows
from talkforge.models.dice_talk.denoiser_config import AudioTokensConfig, HeadConfig
from talkforge.models.dice_talk.emotion_head import EmotionHead, discrimination_loss
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


def test_the_head_pools_frames_and_sites() -> None:
    """Where features of a clip are shuffled among frames and sites, logits stay."""
    torch.manual_seed(0)
    head, features = EmotionHead(HeadConfig(hidden=(6,)), 5), torch.randn(2, 3, 5, 4, 4)
    order = torch.randperm(48)
    shuffled = features.movedim(2, 1).flatten(2)[..., order].unflatten(2, (3, 4, 4)).movedim(1, 2)
    torch.testing.assert_close(head(shuffled), head(features))
    assert head(features).shape == (2, 8)


def test_undecided_logits_cost_the_log_of_the_classes() -> None:
    loss, right = discrimination_loss(torch.zeros(3, 8), torch.tensor([0, 5, 7]))
    assert float(loss) == pytest.approx(math.log(8))
    assert right == pytest.approx(1 / 3)


def test_only_labelled_clips_count() -> None:
    logits = torch.tensor([[0.0, 2.0], [9.0, -9.0], [3.0, 0.0]], requires_grad=True)
    loss, right = discrimination_loss(logits, torch.tensor([1, -1, 1]))
    assert float(loss.detach()) == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(3))) / 2)
    assert right == 0.5
    loss.backward()
    assert logits.grad is not None and logits.grad[1].tolist() == [0, 0]


def test_a_batch_without_labels_has_no_share_and_still_a_gradient() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss, right = discrimination_loss(logits, torch.tensor([-1, -1]))
    loss.backward()
    assert float(loss.detach()) == 0 and right is None
    assert logits.grad is not None and not logits.grad.any()
