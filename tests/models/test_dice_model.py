"""DICE-Talk's loss and sampling on the tiny preset: sums, gradients, drops, ablations, long videos."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from talkforge.core.errors import InputError
from talkforge.models.dice_talk.model import DiceTalk, at_frames, prepare
from talkforge.models.diffusion.config import GuidanceConfig, WindowsConfig
from talkforge.tests.models.dice_talk_cases import (
    a_batch,
    build,
    conditions,
    needs_diffusers,
    one_thread,
    small,
    without_drops,
)

CONFIG = without_drops(small())
pytestmark = needs_diffusers


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    with one_thread():
        yield


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model() -> DiceTalk:
    return build(CONFIG).eval()


def test_a_step_reaches_every_tensor_with_finite_gradients() -> None:
    trained = build(CONFIG)
    loss, parts = trained(a_batch(CONFIG), seeded())
    loss.backward()
    assert torch.isfinite(loss)
    assert {name: value for name, value in parts.items() if value is None} == {}
    missed = [name for name, p in trained.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missed == []
    assert all(torch.isfinite(p.grad).all() for p in trained.parameters() if p.grad is not None)


def test_the_loss_is_the_stated_sum(model: DiceTalk) -> None:
    trained = copy.deepcopy(model).train()
    loss, parts = trained.training_loss(a_batch(CONFIG), seeded())
    lamda, kl_weight = CONFIG.head.weight, CONFIG.vae.kl_weight
    own = parts["denoise"] + lamda * parts["cls"] + parts["vq"]  # eq. 15
    assert float(loss.detach()) == pytest.approx(
        float(own + parts["reconstruction"] + kl_weight * parts["kl"]), rel=1e-5
    )
    assert float(parts["vq"]) > 0


def test_the_same_generator_gives_the_same_loss(model: DiceTalk) -> None:
    batch = a_batch(CONFIG)
    with torch.no_grad():
        first, again, other = (model(batch, seeded(seed))[0] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_few_steps_on_one_batch_lower_the_loss() -> None:
    trained, batch = build(CONFIG), a_batch(CONFIG)
    optimiser = torch.optim.Adam(trained.parameters(), 2e-3)
    losses = []
    for _ in range(8):
        optimiser.zero_grad()
        loss, parts = trained(batch, seeded())
        loss.backward()
        optimiser.step()
        losses.append(float(parts["denoise"]) + CONFIG.head.weight * float(parts["cls"]))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("drop", "free"),
    [
        ("drop_audio", {"audio"}),
        ("drop_image", {"portrait"}),
        ("drop_emotion", {"mu", "sigma"}),
        ("drop_all", {"audio", "portrait", "mu", "sigma"}),
    ],
)
@pytest.mark.parametrize("absent", ["zero_inputs", "zero_tokens"])
def test_a_dropped_condition_is_not_seen(model: DiceTalk, drop: str, free: set[str], absent: str) -> None:
    settings = replace(CONFIG.conditions, absent=absent, **{drop: 1.0})
    blind = copy.deepcopy(model)
    blind.config = replace(CONFIG, conditions=settings)
    batch, other = a_batch(CONFIG), a_batch(CONFIG, seed=1)

    def denoising(given: dict[str, torch.Tensor]) -> float:
        with torch.no_grad():
            return float(blind(given, seeded())[1]["denoise"])

    for key in ("audio", "portrait", "mu", "sigma"):
        same = denoising(batch | {key: other[key]}) == denoising(batch)
        assert same == (key in free), key


def test_without_a_prior_distribution_sigma_is_not_asked_for(model: DiceTalk) -> None:
    config = CONFIG.ablated("without_prior")
    plain = copy.deepcopy(model)
    plain.config = config
    batch = a_batch(CONFIG)
    only_mu = {key: value for key, value in batch.items() if key != "sigma"}
    assert torch.isfinite(plain(only_mu, seeded())[0])
    with pytest.raises(InputError, match="lacks sigma"):
        model(only_mu, seeded())


@pytest.mark.parametrize("name", ["without_bank", "without_cls", "learnable_ca"])
def test_ablations_train_every_tensor_that_they_have(name: str) -> None:
    config = CONFIG.ablated(name)
    trained = build(config)
    loss, parts = trained(a_batch(config), seeded())
    loss.backward()
    assert [key for key, p in trained.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert (parts["cls"] is None) == (trained.head is None) == (name == "without_cls")
    assert (float(parts["vq"]) == 0) == (name != "without_cls")


def test_unlabelled_batches_have_no_accuracy(model: DiceTalk) -> None:
    batch = a_batch(CONFIG) | {"emotion": torch.tensor([-1, -1])}
    _, parts = model(batch, seeded())
    assert parts["cls"] is None and parts["emotion_accuracy"] is None


def test_latents_can_come_encoded(model: DiceTalk) -> None:
    batch = a_batch(CONFIG)
    encoded = prepare(batch, model.encoders, CONFIG)
    assert encoded["latents"].shape == (2, 2, 4, 8, 8) and encoded["reference"].shape == (2, 4, 8, 8)
    del encoded["pictures"], encoded["portrait"]
    wanted, found = (model(given, seeded())[1] for given in (batch, encoded))
    torch.testing.assert_close(found["denoise"], wanted["denoise"])
    assert "reconstruction" not in found


def test_the_vae_learns_from_its_own_loss_alone(model: DiceTalk) -> None:
    encoded = prepare(a_batch(CONFIG), model.encoders, CONFIG)
    learns = {key: encoded[key].requires_grad for key in ("latents", "reference", "image")}
    assert learns == {"latents": False, "reference": False, "image": True}


def test_missing_parts_of_a_batch_are_named(model: DiceTalk) -> None:
    batch = a_batch(CONFIG)
    with pytest.raises(InputError, match="lacks audio, mask"):
        model({key: value for key, value in batch.items() if key not in {"audio", "mask"}})
    with pytest.raises(InputError, match="lacks latents"):
        model({key: value for key, value in batch.items() if key != "pictures"})
    with pytest.raises(InputError, match="'latents', or 'pictures' and encoders"):
        prepare(batch, None, CONFIG)


def test_samples_follow_the_generator_and_the_prior(model: DiceTalk) -> None:
    batch = {key: value for key, value in a_batch(CONFIG, clips=1).items() if key not in {"pictures", "sigma"}}
    first, again = (model.sample(batch, seeded(), steps=2) for _ in range(2))
    assert first.shape == (1, 2, 4, 8, 8) and torch.isfinite(first).all()
    assert torch.equal(first, again)
    moved = model.sample(batch | {"mu": batch["mu"] + 1}, seeded(), steps=2)
    assert not torch.allclose(first, moved, atol=1e-5)


@pytest.mark.parametrize("retrieval", ["all", "nearest"])
def test_sampling_attends_to_the_bank_as_configured(model: DiceTalk, retrieval: str) -> None:
    asked = copy.deepcopy(model)
    asked.config = replace(CONFIG, bank=replace(CONFIG.bank, retrieval=retrieval))
    given = prepare(a_batch(CONFIG, clips=1), model.encoders, CONFIG)
    with torch.no_grad():
        found = asked._branch_inputs(given, "full").emotion
        wanted = model.bank(given["mu"], retrieve=retrieval == "nearest").tokens
        other = model.bank(given["mu"], retrieve=retrieval == "all").tokens
    assert torch.equal(found, wanted) and not torch.allclose(found, other, atol=1e-6)


def test_guidance_of_one_is_the_full_condition_alone(model: DiceTalk) -> None:
    """One step from the highest level lands on D itself: x + (x - D) / sigma (0 - sigma) = D."""
    batch = a_batch(CONFIG, clips=1)
    found = model.sample(batch, seeded(), steps=1, guidance=GuidanceConfig(1.0, 1.0))
    given = prepare(batch, model.encoders, CONFIG)
    sigma = torch.tensor(CONFIG.diffusion.sigma_max)
    noise = CONFIG.diffusion.temperature * torch.randn(found.shape, generator=seeded())
    with torch.no_grad():
        denoised, _ = model._predict(noise * sigma, sigma, model._branch_inputs(given, "full"))
    torch.testing.assert_close(found, denoised, rtol=1e-3, atol=1e-3)


def test_long_videos_are_denoised_in_windows(model: DiceTalk) -> None:
    """5 frames in windows of 2 that move by 1: at each step 3 windows of 2."""
    windowed = copy.deepcopy(model)
    windowed.config = replace(CONFIG, windows=WindowsConfig(frames=2, shift=1))
    seen: list[int] = []
    windowed.denoiser.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    batch = a_batch(CONFIG, clips=1, frames=5)
    latents = windowed.sample(batch, seeded(), steps=2, guidance=GuidanceConfig(1.0, 1.0))
    assert latents.shape == (1, 5, 4, 8, 8)
    assert seen == [2] * 6
    pictures = windowed.render(latents)
    assert pictures.shape == (1, 9, 32, 32, 3) and pictures.dtype == torch.uint8


@pytest.mark.parametrize("masks", [1, 5])
def test_windows_take_their_own_frames_conditions(masks: int) -> None:
    index, side = torch.tensor([4, 0]), CONFIG.size
    inputs = replace(conditions(CONFIG, frames=5), mask=torch.rand(2, masks, 1, side, side))
    found = at_frames(inputs, index)
    assert torch.equal(found.audio, torch.stack([inputs.audio[:, 4], inputs.audio[:, 0]], 1))
    wanted = inputs.mask if masks == 1 else torch.stack([inputs.mask[:, 4], inputs.mask[:, 0]], 1)
    assert torch.equal(found.mask, wanted)
    assert found.emotion is inputs.emotion


def test_a_small_vae_may_have_only_differences_denoised() -> None:
    """A denoiser that says "no difference" gives the portrait, whatever the noise; the loss is that of the change."""
    config = replace(CONFIG, vae=replace(CONFIG.vae, residual=True))
    model, batch = build(config).eval(), a_batch(config)
    model._predict = lambda x, sigma, inputs: (torch.zeros_like(x), x)  # type: ignore[method-assign]
    found = model.sample(batch, seeded(), steps=2)
    reference = prepare(batch, model.encoders, config)["reference"]
    torch.testing.assert_close(found, reference[:, None].expand_as(found))
    still = batch | {"pictures": batch["portrait"][:, None].expand_as(batch["pictures"])}
    model.head = None
    assert float(model.training_loss(still, seeded())[1]["denoise"]) == 0
    assert float(model.training_loss(batch, seeded())[1]["denoise"]) > 0
