"""MF-ETalk's loss on the tiny preset: rows of the ablation, stages, drops, gradients, batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from talkforge.core.errors import ConfigError, InputError, WeightsError
from talkforge.models.mf_etalk.batch import prepare
from talkforge.models.mf_etalk.config import MfEtalkConfig
from talkforge.models.mf_etalk.diffusion import VPrediction
from talkforge.models.mf_etalk.emotion_loss import ExpressionJudge
from talkforge.models.mf_etalk.model import MfEtalk
from talkforge.models.mf_etalk.official import sd_unet
from talkforge.models.mini_xception import MiniXception
from talkforge.tests.models.dice_talk_cases import needs_diffusers, one_thread
from talkforge.tests.models.reference import random_state
from talkforge.tests.models.test_mf_cases import a_batch, awake, build, seeded, shared_model, small

pytestmark = needs_diffusers
CONFIG = small()


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model() -> MfEtalk:
    return shared_model()


def a_judge() -> ExpressionJudge:
    network = MiniXception()
    network.load_state_dict(random_state(network, 1))
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.mul_(0.02)  # random logits are far apart, and a saturated softmax has no slope
    return ExpressionJudge(network)


def with_loss(**changes: Any) -> MfEtalkConfig:
    """Row c, with every step counted as one of little noise."""
    return small(emotion=replace(CONFIG.emotion, weight=0.5, low_noise=1000, frames=1), **changes)


@torch.no_grad()
def denoising(network: MfEtalk, batch: dict[str, torch.Tensor], seed: int = 1) -> float:
    return float(network(batch, seeded(seed))[1]["denoise"])


# Rows of Table 3.


@torch.no_grad()
def test_the_system_starts_as_hallo_unmodified() -> None:
    """Row b or c with row a's weights, whose audio modules do something, gives row a's output bit by bit."""
    assert MfEtalkConfig.full().fusion.gate_start == 0
    closed = replace(CONFIG, fusion=replace(CONFIG.fusion, gate_start=0.0))
    row_a = build(closed.ablated("a"))
    fresh = MfEtalk(closed).eval()
    missing, unexpected = fresh.load_state_dict(row_a.state_dict(), strict=False)
    assert unexpected == [] and {name.split(".")[0] for name in missing} == {"aus", "denoiser"}
    assert all("fusion" in name for name in missing if not name.startswith("aus."))
    batch = a_batch(CONFIG)
    assert denoising(fresh, batch) == denoising(row_a, batch)
    assert denoising(fresh, batch | {"aus": batch["aus"] + 1}) == denoising(row_a, batch)
    opened = awake(copy.deepcopy(fresh))
    assert denoising(opened, batch) != denoising(row_a, batch)
    assert denoising(opened, batch | {"aus": batch["aus"] + 1}) != denoising(opened, batch)


def test_open_gates_add_nothing_before_the_first_step() -> None:
    """Preset tiny's gates are open: what closes the branches of a new system is their zero convolution."""
    assert CONFIG.fusion.gate_start == 1
    fresh, batch = MfEtalk(CONFIG).eval(), a_batch(CONFIG)
    assert denoising(fresh, batch | {"aus": batch["aus"] + 1}) == denoising(fresh, batch)


def test_row_a_has_nothing_of_mf_etalk() -> None:
    row_a = MfEtalk(CONFIG.ablated("a"))
    assert row_a.aus is None
    assert [name for name in row_a.state_dict() if "fusion" in name or name.startswith("aus.")] == []
    batch = {name: value for name, value in a_batch(CONFIG).items() if not name.startswith("au_") and name != "aus"}
    assert torch.isfinite(row_a(batch, seeded())[0])


@torch.no_grad()
def test_fresh_modules_leave_the_base_alone_but_for_audio_modules() -> None:
    """In the image stage a fresh model without a portrait is Stable Diffusion's UNet on identity tokens."""
    torch.manual_seed(0)
    config = small(stage="image")
    network = MfEtalk(config).eval()
    base = sd_unet(config.unet).eval()
    base.load_state_dict(network.denoiser.unet.state_dict())
    given, keep = prepare(a_batch(config), network.encoders), torch.tensor([[True, False, True]]).expand(2, -1)
    inputs = network._inputs(given, None, keep)
    latents, step = torch.randn(2, 3, 4, 8, 8, generator=seeded()), torch.tensor([10, 700])
    found = network.denoiser(latents, step, inputs, temporal=False)
    text = inputs.identity.repeat_interleave(3, 0)
    wanted = base(latents.flatten(0, 1), step.repeat_interleave(3), text).sample
    torch.testing.assert_close(found.flatten(0, 1), wanted, rtol=1e-4, atol=1e-5)


# Training.


@pytest.mark.parametrize("stage", ["image", "temporal"])
@pytest.mark.parametrize("trains", ["new", "all"])
def test_a_step_reaches_all_that_learns_and_nothing_else(stage: str, trains: str) -> None:
    changes: dict[str, Any] = {"stage": stage, "temporal_trains": trains}
    trained = build(with_loss(**changes)).train()
    loss, _ = trained(a_batch(CONFIG), seeded(), judge=a_judge())
    loss.backward()
    learns = {name for name, value in trained.named_parameters() if value.requires_grad}
    reached = {name for name, value in trained.named_parameters() if value.grad is not None and value.grad.any()}
    assert learns == reached
    assert all(torch.isfinite(value.grad).all() for value in trained.parameters() if value.grad is not None)
    heads = {".".join(name.split(".")[:2]) for name in learns if not name.startswith("encoders")}
    new = {"denoiser.audio_modules", "denoiser.motion_modules"}
    assert (new <= heads) == (stage == "temporal")
    assert ("denoiser.unet" in heads) == (stage == "image" or trains == "all")


def test_the_loss_is_the_stated_sum() -> None:
    config = with_loss()
    trained = build(config).train()
    loss, parts = trained(a_batch(config), seeded(), judge=a_judge())
    kl_weight = config.tiny_vae.kl_weight
    wanted = parts["denoise"] + 0.5 * parts["emotion_mini-xception"] + parts["reconstruction"] + kl_weight * parts["kl"]
    assert float(loss.detach()) == pytest.approx(float(wanted), rel=1e-5)
    assert float(parts["emotion_mini-xception"]) > 0


def test_clips_are_weighted_by_min_snr(model: MfEtalk) -> None:
    """Of one clip the loss is the weight of the step that its seed draws times the error."""
    weighted, batch, seen = copy.deepcopy(model), a_batch(CONFIG, clips=1), []
    weighted.training_noise = VPrediction(replace(CONFIG.diffusion, snr_gamma=0.5), "scaled_linear")
    for seed in (2, 3, 4):
        with torch.no_grad():
            parts = weighted(batch, seeded(seed))[1]
        seen.append(float(parts["denoise"]) / float(parts["velocity_error"]))
    possible = 0.5 * (1 - model.training_noise.products)
    assert len(set(seen)) == 3
    assert all(float((possible - weight).abs().min()) < 1e-6 for weight in seen)


def test_a_few_steps_on_one_batch_lower_the_loss() -> None:
    trained, batch = build(CONFIG).train(), a_batch(CONFIG, clips=1)
    optimiser = torch.optim.Adam([value for value in trained.parameters() if value.requires_grad], 2e-3)
    losses = []
    for _ in range(6):
        optimiser.zero_grad()
        loss, parts = trained(batch, seeded())
        loss.backward()
        optimiser.step()
        losses.append(float(parts["denoise"]))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("drop", "free"),
    [("audio", {"audio"}), ("image", {"portrait"}), ("au", {"aus"}), ("everything", {"audio", "portrait", "aus"})],
)
def test_a_dropped_condition_is_not_seen(model: MfEtalk, drop: str, free: set[str]) -> None:
    blind = copy.deepcopy(model)
    blind.config = replace(CONFIG, drops=replace(CONFIG.drops, **{drop: 1.0}))
    batch, other = a_batch(CONFIG), a_batch(CONFIG, seed=1)
    for key in ("audio", "portrait", "aus", "motion"):
        same = denoising(blind, batch | {key: other[key]}) == denoising(blind, batch)
        assert same == (key in free), key


def test_a_dropped_portrait_takes_the_face_mask_along(model: MfEtalk) -> None:
    blind = copy.deepcopy(model)
    blind.config = replace(CONFIG, drops=replace(CONFIG.drops, image=1.0))
    batch = a_batch(CONFIG)
    masks = {"mask": 1 - batch["mask"]}
    assert denoising(blind, batch | masks) == denoising(blind, batch)
    assert denoising(model, batch | masks) != denoising(model, batch)


def test_a_start_has_no_motion_frames(model: MfEtalk) -> None:
    start = copy.deepcopy(model)
    start.config = replace(CONFIG, motion=replace(CONFIG.motion, start_probability=1.0))
    batch, other = a_batch(CONFIG), a_batch(CONFIG, seed=1)
    assert denoising(start, batch | {"motion": other["motion"]}) == denoising(start, batch)


def test_the_image_stage_reads_pictures_alone() -> None:
    config = small(stage="image")
    network, batch, other = build(config), a_batch(config), a_batch(config, seed=1)
    for key in ("audio", "aus", "regions", "motion"):
        assert denoising(network, {name: value for name, value in batch.items() if name != key}) == denoising(
            network, batch
        )
    for key in ("portrait", "pictures", "mask"):
        assert denoising(network, batch | {key: other[key].flip(-1) * 0.5}) != denoising(network, batch)


def test_frames_of_the_image_stage_do_not_see_each_other() -> None:
    config = small(stage="image")
    network = build(config)
    given = prepare(a_batch(config), network.encoders)
    inputs = network._inputs(given, None, torch.ones(2, 3, dtype=torch.bool))
    latents, step = torch.randn(2, 3, 4, 8, 8, generator=seeded()), torch.tensor([10, 700])
    with torch.no_grad():
        together = network.denoiser(latents, step, inputs, temporal=False)
        alone = network.denoiser(latents[:, 1:2], step, inputs, temporal=False)
    torch.testing.assert_close(together[:, 1:2], alone, rtol=1e-4, atol=1e-5)


def test_one_stage_starts_the_other(model: MfEtalk) -> None:
    image = build(small(stage="image"))
    assert image.state_dict().keys() == model.state_dict().keys()


def test_the_emotion_loss_counts_clips_with_little_noise_alone() -> None:
    config = small(emotion=replace(CONFIG.emotion, weight=0.5, low_noise=1))
    _, parts = build(config)(a_batch(config), seeded(), judge=a_judge())
    assert parts["emotion_mini-xception"] is None
    with pytest.raises(ConfigError, match="needs a judge"):
        build(config)(a_batch(config), seeded())


def test_a_batch_with_few_clips_of_little_noise_counts_for_less() -> None:
    trained, judge, batch = build(with_loss()), a_judge(), a_batch(CONFIG)
    with torch.no_grad():
        steps = trained.training_noise.draw(2, after_the_drops(), torch.device("cpu"))
        found = {}
        for low in (int(steps.min()) + 1, int(steps.max()) + 1):
            trained.config = small(emotion=replace(CONFIG.emotion, weight=0.5, low_noise=low, frames=1))
            loss, parts = trained(batch, seeded(), judge=judge)
            rest = parts["denoise"] + parts["reconstruction"] + trained.config.tiny_vae.kl_weight * parts["kl"]
            found[low] = float(loss - rest) / float(parts["emotion_mini-xception"])
    assert len(set(steps.tolist())) == 2
    assert list(found.values()) == pytest.approx([0.25, 0.5], rel=1e-2)


def after_the_drops() -> torch.Generator:
    """`seeded()` as it stands when the steps are drawn: after one number a clip for drops, and one for starts."""
    draw = seeded()
    torch.rand(2, generator=draw), torch.rand(2, generator=draw)
    return draw


def test_the_emotion_loss_changes_the_denoiser_and_not_the_decoder() -> None:
    judge, grads = a_judge(), []
    for weight in (0.0, 0.5):
        config = with_loss()
        trained = build(replace(config, emotion=replace(config.emotion, weight=weight))).train()
        trained(a_batch(config), seeded(), judge=judge)[0].backward()
        grads.append({name: value.grad for name, value in trained.named_parameters() if value.grad is not None})
    for name, grad in grads[0].items():
        assert torch.equal(grad, grads[1][name]) == name.startswith("encoders.vae"), name
    assert all(value.grad is None for value in judge.parameters())


def test_recomputed_activations_give_the_same_gradients() -> None:
    first = build(CONFIG).train()
    second = copy.deepcopy(first)
    second.denoiser.checkpoint_activations()
    grads = []
    for network in (first, second):
        loss, _ = network(a_batch(CONFIG), seeded())
        network(a_batch(CONFIG, seed=3), seeded())  # another pass in between
        loss.backward()
        grads.append({name: value.grad for name, value in network.named_parameters() if value.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-3, atol=1e-5, msg=name)


@torch.no_grad()
def test_a_copy_shares_nothing(model: MfEtalk) -> None:
    batch = a_batch(CONFIG)
    before, second = denoising(model, batch), copy.deepcopy(model)
    for parameter in second.parameters():
        parameter.zero_()
    assert denoising(second, batch) != before
    assert denoising(model, batch) == before


def test_bases_files_fill_both_unets() -> None:
    torch.manual_seed(0)
    network, base = MfEtalk(CONFIG), sd_unet(CONFIG.unet)
    network.denoiser.load_base(base.state_dict(), source="sd")
    network.reference.load_base(base.state_dict(), source="sd")
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.weight"
    for unet in (network.denoiser.unet, network.reference.unet):
        assert torch.equal(unet.state_dict()[key], base.state_dict()[key])
    assert network.denoiser.training and all(value.requires_grad for value in network.denoiser.unet.parameters())
    with pytest.raises(WeightsError, match="no conv_out"):
        state = {name: value for name, value in base.state_dict().items() if name != "conv_out.weight"}
        network.denoiser.load_base(state, source="sd")


def test_half_precision_gives_nearly_the_same_loss(model: MfEtalk) -> None:
    batch = a_batch(CONFIG)
    with torch.autocast("cpu", torch.bfloat16):
        found = denoising(model, batch)
    assert found == pytest.approx(denoising(model, batch), rel=0.05)


@torch.no_grad()
def test_masks_act_at_four_resolutions() -> None:
    """Four levels on latents of 16: audio modules see 16, 8, 4 and 2 sites a side, as 64 ... 8 of the full preset."""
    deep = replace(CONFIG.unet, channels=(32, 32, 32, 32))
    config = small(unet=deep, size=64)
    network, sides = build(config), []
    for module in network.denoiser.audio_modules.values():
        module.register_forward_pre_hook(lambda module, given: sides.append(given[0].shape[-1]))
    batch = a_batch(config, clips=1)
    before = denoising(network, batch)
    assert sides == [16, 8, 4, 2, 4, 4, 8, 8, 16, 16]
    closed = batch | {"regions": torch.zeros_like(batch["regions"])}
    louder = {"audio": batch["audio"] + 1}
    assert denoising(network, closed | louder) == denoising(network, closed) != before
    assert denoising(network, batch | louder) != before


# Batches.


def test_parts_can_come_encoded(model: MfEtalk) -> None:
    batch = a_batch(CONFIG)
    encoded = prepare(batch, model.encoders)
    for key in ("pictures", "portrait", "motion"):
        del encoded[key]
    assert denoising(model, encoded) == pytest.approx(denoising(model, batch), rel=1e-5)


def test_missing_parts_of_a_batch_are_named(model: MfEtalk) -> None:
    batch = a_batch(CONFIG)
    with pytest.raises(InputError, match="lacks audio, aus"):
        model({key: value for key, value in batch.items() if key not in {"audio", "aus"}})
    with pytest.raises(InputError, match="lacks motion_latents"):
        model({key: value for key, value in batch.items() if key != "motion"})
    with pytest.raises(InputError, match="'reference', or 'portrait' and encoders"):
        prepare({key: value for key, value in batch.items() if key in {"mask", "audio"}}, None)
    with pytest.raises(InputError, match="1 motion frames, not 2"):
        model(batch | {"motion": batch["motion"][:, 1:]})
    with pytest.raises(InputError, match="2 frames of audio tokens"):
        model(batch | {"audio": batch["audio"][:, 1:]})
    with pytest.raises(InputError, match="do not fit latents"):
        model(batch | {"mask": batch["mask"][..., 8:]})
