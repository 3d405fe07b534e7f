"""The emotion discrimination head and its loss, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from talkforge.models.dice_talk.denoiser_config import HeadConfig
from talkforge.models.dice_talk.emotion_head import EmotionHead, discrimination_loss


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
