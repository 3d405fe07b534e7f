"""The denoiser against the base UNet that it is built on, and what each condition may and may not touch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from talkforge.core.errors import InputError, WeightsError
from talkforge.models.dice_talk.cross_attention import ContextProcessor, ExtraContexts
from talkforge.models.dice_talk.denoiser import Denoiser, DenoiserInputs, time_ids
from talkforge.models.dice_talk.denoiser_config import ConditionsConfig, DiceTalkConfig, UNetConfig
from talkforge.models.dice_talk.official import svd_unet
from talkforge.models.diffusers_import import import_extra
from talkforge.models.diffusion.contexts import Contexts, ContextSlot
from talkforge.models.diffusion.pose_guider import PoseGuider
from talkforge.tests.models.dice_talk_cases import conditions, needs_diffusers, one_thread, small

CONFIG = small()
pytestmark = needs_diffusers


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(CONFIG).eval()


def noisy(clips: int = 2, frames: int = 2) -> torch.Tensor:
    shape = (clips, frames, 4, CONFIG.latent_size, CONFIG.latent_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


LEVEL = torch.tensor([0.3, -0.8])


@torch.no_grad()
def output(network: Denoiser, inputs: DenoiserInputs, frames: int = 2) -> torch.Tensor:
    return network(noisy(frames=frames), LEVEL, inputs)[0]


@torch.no_grad()
def base_output(network: Denoiser, inputs: DenoiserInputs) -> torch.Tensor:
    """A fresh UNet of diffusers with its own attention, given the base's weights and nothing of DICE-Talk."""
    base = svd_unet(CONFIG.unet).eval()
    base.load_state_dict(network.unet.state_dict())
    read = torch.cat([noisy(), inputs.reference[:, None].expand(-1, 2, -1, -1, -1)], 2)
    ids = torch.tensor([[12.5, 8.0, 16.0]]).expand(2, -1)
    return base(read, LEVEL, inputs.image[:, None], ids).sample


def changed(inputs: DenoiserInputs, name: str, seed: int = 9) -> DenoiserInputs:
    value = getattr(inputs, name)
    return replace(inputs, **{name: torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))})


def test_without_tokens_it_is_the_base(denoiser: Denoiser) -> None:
    inputs = conditions(CONFIG)
    silent = replace(inputs, audio=torch.zeros_like(inputs.audio), emotion=torch.zeros_like(inputs.emotion))
    torch.testing.assert_close(output(denoiser, silent), base_output(denoiser, silent), rtol=1e-4, atol=1e-5)
    assert (output(denoiser, inputs) - base_output(denoiser, inputs)).abs().max() > 1e-3


def test_the_mask_silences_spatial_blocks_and_only_those(denoiser: Denoiser) -> None:
    inputs = conditions(CONFIG)
    masked = replace(inputs, mask=torch.zeros_like(inputs.mask))
    wanted = base_output(denoiser, inputs)
    assert (output(denoiser, masked) - wanted).abs().max() > 1e-4  # temporal blocks have no mask
    quiet = copy.deepcopy(denoiser)
    for name, extra in quiet.extras.items():
        assert isinstance(extra, ExtraContexts)
        if "temporal" in name:
            extra.requires_grad_(False)
            for linear in extra.to_v.values():
                linear.weight.zero_()
    torch.testing.assert_close(output(quiet, masked), wanted, rtol=1e-4, atol=1e-5)
    assert (output(quiet, inputs) - wanted).abs().max() > 1e-3


def test_every_cross_attention_got_its_own_keys_and_values(denoiser: Denoiser) -> None:
    attentions = {name.replace(".", "_"): m for name, m in denoiser.unet.named_modules() if name.endswith(".attn2")}
    assert attentions.keys() == dict(denoiser.extras.items()).keys()
    temporal = [name for name in attentions if "temporal" in name]
    assert len(temporal) == len(attentions) / 2 > 0
    for name, attention in attentions.items():
        state = denoiser.extras[name].state_dict()
        for key, value in state.items():
            base = getattr(attention, key.split(".")[0]).weight
            torch.testing.assert_close(value, base, rtol=0, atol=0)
            assert value.data_ptr() != base.data_ptr()


def a_layer(temporal: bool) -> tuple[Any, ContextProcessor, ContextSlot]:
    torch.manual_seed(1)
    config = UNetConfig(channels=(32, 64), heads=(2, 4), cross_attention_dim=16)
    attention = import_extra("diffusers.models.attention_processor").Attention(32, 16, heads=2, dim_head=16)
    slot, extra = ContextSlot(), ExtraContexts(attention, config)
    return attention, ContextProcessor(extra, slot, config, temporal=temporal), slot


def contexts(mask: torch.Tensor | None, clips: int = 2, frames: int = 3) -> Contexts:
    draw = torch.Generator().manual_seed(2)
    tokens = {
        "audio": torch.randn(clips, frames, 5, 16, generator=draw),
        "emotion": torch.randn(clips, 1, 4, 16, generator=draw),
    }
    return Contexts(tokens, mask, frames, (4, 4), "area", pose=torch.zeros(()))


def plain(attention: Any, query: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention of two heads written out, for one row: query (N, 32), keys and values (M, 32)."""
    parts = []
    for head in range(2):
        lanes = slice(16 * head, 16 * head + 16)
        weights = (query[:, lanes] @ k[:, lanes].T / 4).softmax(1)
        parts.append(weights @ v[:, lanes])
    return torch.cat(parts, 1)


@pytest.mark.parametrize("temporal", [False, True], ids=["spatial", "temporal"])
@torch.no_grad()
def test_the_layer_is_the_stated_sum(temporal: bool) -> None:
    """Row by row: a spatial row is a frame with its own audio, a temporal row a site with the mean over frames."""
    attention, processor, slot = a_layer(temporal)
    given, extra = contexts(None), processor.extra
    rows, queries = (2 * 16, 3) if temporal else (2 * 3, 16)
    x, text = torch.randn(rows, queries, 32), torch.randn(rows, 1, 16)
    with slot.filled(given):
        found = processor(attention, x, text)
    for row in range(rows):
        clip, frame = (row // 16, None) if temporal else (row // 3, row % 3)
        query = attention.to_q(x[row])
        total = plain(attention, query, attention.to_k(text[row]), attention.to_v(text[row]))
        for name in ("audio", "emotion"):
            tokens = given.tokens[name][clip]
            tokens = tokens.mean(0) if frame is None else tokens[min(frame, len(tokens) - 1)]
            total = total + plain(attention, query, extra.to_k[name](tokens), extra.to_v[name](tokens))
        torch.testing.assert_close(found[row], attention.to_out[0](total), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_copied_keys_and_values_repeat_the_base_on_its_own_context() -> None:
    attention, processor, slot = a_layer(temporal=False)
    processor.extra.copy_from(attention)
    x, text = torch.randn(6, 16, 32), torch.randn(2, 1, 1, 16)
    given = replace(contexts(None), tokens={"audio": text.expand(-1, 3, 5, -1), "emotion": text})
    with slot.filled(given):
        found = processor(attention, x, text.repeat_interleave(3, 0)[:, 0])
    value = attention.to_v(text.repeat_interleave(3, 0)[:, 0])
    torch.testing.assert_close(found, attention.to_out[0](3 * value).expand(-1, 16, -1))


@torch.no_grad()
def test_sites_outside_of_the_face_see_the_base_alone() -> None:
    attention, processor, slot = a_layer(temporal=False)
    mask = torch.zeros(2, 1, 1, 8, 8)
    mask[..., :4, :3] = 1  # of 4 x 4 sites: the upper two rows, the first column whole and half of the second
    x, text = torch.randn(6, 16, 32), torch.randn(6, 1, 16)
    results = []
    for each in (mask, torch.zeros_like(mask), None):
        with slot.filled(contexts(each)):
            results.append(processor(attention, x, text).unflatten(1, (4, 4)))
    part, none, whole = results
    assert torch.equal(part[:, 2:], none[:, 2:]) and torch.equal(part[:, :, 2:], none[:, :, 2:])
    torch.testing.assert_close(part[:, :2, 0], whole[:, :2, 0])
    torch.testing.assert_close(part[:, :2, 1], (whole[:, :2, 1] + none[:, :2, 1]) / 2)
    assert (whole - none).abs().min(-1).values.max() > 1e-3


@pytest.mark.parametrize("name", ["audio", "emotion", "reference", "image"])
def test_each_condition_reaches_the_output(denoiser: Denoiser, name: str) -> None:
    inputs = conditions(CONFIG)
    assert (output(denoiser, changed(inputs, name)) - output(denoiser, inputs)).abs().max() > 1e-4


def test_clips_of_a_batch_do_not_mix(denoiser: Denoiser) -> None:
    inputs = conditions(CONFIG)
    both = output(denoiser, inputs)
    alone = type(inputs)(**{item.name: getattr(inputs, item.name)[1:] for item in fields(inputs)})
    with torch.no_grad():
        second, features = denoiser(noisy()[1:], LEVEL[1:], alone)
    torch.testing.assert_close(second, both[1:], rtol=1e-4, atol=1e-5)
    assert features.shape == (1, 2, denoiser.config.unet.channels[-1], 4, 4)


def test_time_ids_are_frame_rate_and_two_buckets() -> None:
    assert time_ids(ConditionsConfig(), 2, torch.zeros(1)).tolist() == [[12.5, 8, 16]] * 2


def test_the_pose_guider_starts_silent_and_then_acts_where_the_mask_changes(denoiser: Denoiser) -> None:
    inputs = conditions(CONFIG)
    assert not denoiser.pose(inputs.mask[:, 0]).any()
    torch.manual_seed(0)
    guider = PoseGuider(CONFIG.pose, 32)
    torch.nn.init.normal_(guider.last.weight)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :8] = 1
    moved = (guider(mask) - guider(torch.zeros_like(mask))).abs().amax((0, 1, 2))
    assert guider(mask).shape == (1, 32, 8, 8)
    assert moved[0] > 1e-4 and moved[-1] == 0


def test_recomputed_activations_give_the_same_gradients() -> None:
    torch.manual_seed(0)
    first = Denoiser(CONFIG)
    second = copy.deepcopy(first)
    second.checkpoint_activations()
    grads = []
    for network in (first, second):
        # Another pass in between: the backward pass has to find the contexts of its own.
        result = network(noisy(), LEVEL, conditions(CONFIG))[0]
        network(noisy(), LEVEL, conditions(CONFIG, seed=3))
        result.square().mean().backward()
        grads.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-6, msg=name)


def test_a_copy_shares_nothing() -> None:
    torch.manual_seed(0)
    first = Denoiser(CONFIG).eval()
    second = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    inputs = conditions(CONFIG)
    before = output(first, inputs)
    assert before.abs().max() > 0
    assert not output(second, inputs).any()
    assert torch.equal(output(first, inputs), before)


def test_published_weights_fill_the_base_and_start_the_copies() -> None:
    torch.manual_seed(0)
    network, other = Denoiser(CONFIG), svd_unet(CONFIG.unet)
    network.load_base(other.state_dict(), source="svd")
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
    wanted = other.state_dict()[f"{key}.to_v.weight"]
    assert torch.equal(network.extras[key.replace(".", "_")].state_dict()["to_v.audio.weight"], wanted)
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(WeightsError, match=r"svd: no conv_in\.bias"):
        network.load_base({k: v for k, v in other.state_dict().items() if k != "conv_in.bias"}, source="svd")


def test_only_what_is_new_learns_where_asked() -> None:
    config = small(unet=replace(CONFIG.unet, trained="new", start="random"))
    torch.manual_seed(0)
    network = Denoiser(config)
    learns = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert learns == {"extras", "pose"}
    name, attention = next((n, m) for n, m in network.unet.named_modules() if n.endswith(".attn2"))
    started = network.extras[name.replace(".", "_")].state_dict()["to_k.audio.weight"]
    assert not torch.equal(started, attention.to_k.weight)


def test_shapes_that_do_not_fit_are_refused(denoiser: Denoiser) -> None:
    inputs = conditions(CONFIG)
    with pytest.raises(InputError, match="audio has 3 frames"):
        output(denoiser, conditions(CONFIG, frames=3))
    with pytest.raises(InputError, match="do not fit latents"):
        output(denoiser, replace(inputs, mask=torch.ones(2, 1, 1, 16, 16)))
    with pytest.raises(InputError, match="through its denoiser"):
        denoiser.unet(torch.cat([noisy()] * 2, 2), LEVEL, inputs.image[:, None], time_ids(ConditionsConfig(), 2, LEVEL))


def test_the_full_preset_has_the_bases_levels() -> None:
    unet = DiceTalkConfig.full().unet
    assert (unet.channels, unet.heads, unet.layers_per_block) == ((320, 640, 1280, 1280), (5, 10, 20, 20), 2)
