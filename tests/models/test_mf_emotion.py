"""The emotion consistency loss: measures against numpy, preparation against the recognisers' own, crops, stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.asset_store import AssetStore
from talkforge.core.errors import InputError, WeightsMissing
from talkforge.core.weights import CONFIGS
from talkforge.models import hsemotion, mini_xception
from talkforge.models.diffusion.tiny_vae import TinyEncoders
from talkforge.models.hsemotion import HSEmotion
from talkforge.models.mf_etalk import emotion_loss
from talkforge.models.mf_etalk.config import EmotionLossConfig, MfEtalkConfig
from talkforge.models.mf_etalk.emotion_loss import (
    Expression,
    ExpressionJudge,
    consistency,
    crop_by_mask,
    load_judge,
    looked_at,
)
from talkforge.models.mf_etalk.official import decode_through
from talkforge.models.mini_xception import MiniXception
from talkforge.tests.models.dice_talk_cases import one_thread, unzero
from talkforge.tests.models.reference import random_state
from talkforge.tests.models.test_mf_cases import seeded

LOSS = EmotionLossConfig()


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    with one_thread():
        yield


def judge_of(network: HSEmotion | MiniXception) -> ExpressionJudge:
    network.load_state_dict(random_state(network, 3))
    return ExpressionJudge(network)


@pytest.fixture(scope="module")
def hse() -> ExpressionJudge:
    return judge_of(HSEmotion("b0"))


def pictures(count: int, size: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, size, size, 3), np.uint8)


def as_faces(rgb: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rgb).movedim(-1, 1).float() / 127.5 - 1


def test_hsemotion_sees_what_its_own_preparation_gives(hse: ExpressionJudge) -> None:
    rgb = pictures(2, 224)
    with torch.inference_mode():
        found, wanted = hse(as_faces(rgb)), hse.network(hsemotion.prepare(rgb))
    torch.testing.assert_close(found.logits, wanted, rtol=1e-4, atol=1e-4)
    assert hse.name == "hsemotion" and hse.size == 224 and found.features.shape == (2, 1280)
    weights = hse.network.get_submodule("classifier")
    torch.testing.assert_close(found.logits, found.features @ weights.weight.T + weights.bias)


def test_the_stand_in_sees_grey_faces_and_has_its_own_name() -> None:
    judge, rgb = judge_of(MiniXception()), pictures(2, 64)
    grey = (rgb @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
    with torch.inference_mode():
        found, wanted = judge(as_faces(rgb)), judge.network(mini_xception.prepare(grey))
    assert (judge.name, judge.size, found.features.shape) == ("mini-xception", 64, (2, 128))
    assert float((found.logits - wanted).abs().max()) < 0.02 * float(wanted.abs().max())  # grey was rounded there


def test_measures_are_the_stated_ones() -> None:
    draw = seeded()
    one, other = (Expression(torch.randn(4, 8, generator=draw), torch.randn(4, 16, generator=draw)) for _ in range(2))
    p, q = (np.exp(x.logits.double().numpy()) for x in (one, other))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    np.testing.assert_allclose(consistency(one, other, LOSS).numpy(), (q * np.log(q / p)).sum(1), rtol=1e-4)
    a, b = one.features.numpy(), other.features.numpy()
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(consistency(one, other, replace(LOSS, measure="cosine")).numpy(), 1 - cosine, rtol=1e-4)


@pytest.mark.parametrize("measure", ["kl", "cosine"])
def test_the_same_face_costs_nothing_and_another_one_something(measure: str) -> None:
    config, judge = replace(LOSS, measure=measure), judge_of(MiniXception())
    with torch.inference_mode():
        first, second = judge(as_faces(pictures(2, 64))), judge(-as_faces(pictures(2, 64)))
    assert consistency(first, first, config).abs().max() < 1e-5
    assert consistency(second, first, config).min() > 1e-4


def test_slopes_reach_the_face_and_nothing_outside_of_it(hse: ExpressionJudge) -> None:
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., 20:80, 30:70] = 1
    faces = (torch.rand(1, 3, 96, 96, generator=seeded()) - 0.5).requires_grad_(True)
    with torch.no_grad():
        target = hse(crop_by_mask(-faces, mask, hse.size))
    consistency(hse(crop_by_mask(faces, mask, hse.size)), target, replace(LOSS, measure="cosine")).sum().backward()
    assert faces.grad is not None
    moved = faces.grad.abs().amax((0, 1)) > 0
    assert moved[20:80, 30:70].float().mean() > 0.95 and int(moved.sum()) == int(moved[20:80, 30:70].sum())


def test_a_descent_on_the_loss_brings_the_expression_over() -> None:
    judge = judge_of(MiniXception())
    faces = (as_faces(pictures(1, 64)) / 3).requires_grad_(True)
    with torch.no_grad():
        target = judge(as_faces(pictures(2, 64))[1:])
    optimiser, config, losses = torch.optim.Adam([faces], 0.02), replace(LOSS, measure="cosine"), []
    for _ in range(10):
        optimiser.zero_grad()
        loss = consistency(judge(faces), target, config).sum()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_crops_are_the_masks_boxes() -> None:
    picture = torch.arange(36.0).reshape(1, 1, 6, 6).expand(1, 3, 6, 6)
    mask = torch.zeros(1, 1, 6, 6)
    mask[..., 1, 2] = mask[..., 4, 3] = 1  # the box of rows 1-4, columns 2-3
    found = crop_by_mask(picture, mask, 2)
    assert found.shape == (1, 3, 2, 2)
    whole = torch.nn.functional.interpolate(picture[..., 1:5, 2:4], (2, 2), mode="bilinear", antialias=True)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(crop_by_mask(picture, torch.ones(1, 1, 6, 6), 6), picture)
    half = crop_by_mask(picture.bfloat16(), mask, 2)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, rtol=1e-2, atol=1e-2)


def test_masks_that_show_no_face_are_refused() -> None:
    with pytest.raises(InputError, match="is empty"):
        crop_by_mask(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8), 4)
    with pytest.raises(InputError, match="do not fit"):
        crop_by_mask(torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 4, 4), 4)


@pytest.mark.parametrize(
    ("frames", "count", "wanted"), [(14, 2, [3, 10]), (14, 1, [7]), (1, 2, [0]), (3, 9, [0, 1, 2])]
)
def test_frames_that_are_looked_at_are_spread(frames: int, count: int, wanted: list[int]) -> None:
    assert looked_at(frames, replace(LOSS, frames=count)) == wanted


def test_the_judge_stays_as_it_is() -> None:
    judge = judge_of(MiniXception()).train()
    assert not judge.network.training and not any(value.requires_grad for value in judge.parameters())


def test_without_weights_the_stand_in_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No store has both files here: which one is missed tells which network was wanted."""
    store = AssetStore.open(tmp_path, CONFIGS / "weights.yaml")
    with pytest.raises(WeightsMissing, match=hsemotion.WEIGHTS["b0"]):
        load_judge(replace(LOSS, network="hsemotion"), store)
    for network in ("auto", "mini-xception"):
        with pytest.raises(WeightsMissing, match=mini_xception.WEIGHTS):
            load_judge(replace(LOSS, network=network), store)
    monkeypatch.setattr(emotion_loss, "load_mini_xception", lambda given: MiniXception())
    assert load_judge(LOSS, store).name == "mini-xception"


def test_a_file_of_hsemotion_comes_first(tmp_path: Path) -> None:
    store = AssetStore.open(tmp_path, CONFIGS / "weights.yaml")
    path = store.where(hsemotion.WEIGHTS["b0"])
    path.parent.mkdir(parents=True)
    torch.save(HSEmotion("b0").state_dict(), path)
    assert load_judge(LOSS, store).name == "hsemotion"


def test_a_small_vae_passes_gradients_and_does_not_learn() -> None:
    """The same pictures as `decode`, its transform and its networks."""
    torch.manual_seed(0)
    encoders = TinyEncoders(MfEtalkConfig.tiny().tiny_vae, 4, 1.0, 8)
    unzero(encoders.vae)
    encoders.vae.spread.fill_(3.0)
    latents = torch.randn(2, 4, 8, 8, generator=seeded(), requires_grad=True)
    made = decode_through(encoders, latents)
    torch.testing.assert_close(made, encoders.decode(latents.detach()))
    made.sum().backward()
    assert latents.grad is not None and bool(latents.grad.any())
    assert all(parameter.grad is None for parameter in encoders.parameters())
