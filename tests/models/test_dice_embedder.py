"""DICE-Talk's embedder: each equation against its own transcription to NumPy, and what must not depend on what."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from talkforge.core.errors import ConfigError, InputError
from talkforge.models.dice_talk.config import SOURCES, BankConfig, EmbedderConfig
from talkforge.models.dice_talk.embedder import (
    AudioTokens,
    CrossLayer,
    EmotionEmbedder,
    EncoderLayer,
    GaussianPool,
    Prior,
    draw_keep,
    sinusoid_table,
)
from talkforge.models.diffusion.sources import sources

SMALL = EmbedderConfig.tiny(width=16, heads=2, feedforward=24, audio_states=3, audio_width=6, max_frames=32)


def network(**changes: Any) -> EmotionEmbedder:
    torch.manual_seed(5)
    return EmotionEmbedder(replace(SMALL, **changes)).double().eval()


def inputs(batch: int = 2, frames: int = 5, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    expression = torch.rand(batch, frames, 52, generator=g, dtype=torch.float64)
    return expression, torch.randn(batch, 2 * frames, 3, 6, generator=g, dtype=torch.float64)


# --- the transcription ---


def weights_of(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(w: dict[str, np.ndarray], name: str, x: np.ndarray, y: np.ndarray, heads: int) -> np.ndarray:
    """Multi-head attention of tokens x (N, d) to y (M, d), head by head."""
    d, part = x.shape[1], x.shape[1] // heads
    matrices = np.split(w[f"{name}.in_proj_weight"], 3)
    q, k, v = (t @ m.T + b for t, m, b in zip((x, y, y), matrices, np.split(w[f"{name}.in_proj_bias"], 3), strict=True))
    joined = np.empty((len(x), d))
    for h in range(heads):
        s = slice(h * part, (h + 1) * part)
        joined[:, s] = softmax(q[:, s] @ k[:, s].T / math.sqrt(part)) @ v[:, s]
    return joined @ w[f"{name}.out_proj.weight"].T + w[f"{name}.out_proj.bias"]


def norm(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    z = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    return z * w[f"{name}.weight"] + w[f"{name}.bias"]


def layer(w: dict[str, np.ndarray], name: str, x: np.ndarray, heads: int) -> np.ndarray:
    x = norm(w, f"{name}norm1", x + attention(w, f"{name}attention", x, x, heads))
    hidden = np.maximum(x @ w[f"{name}linear1.weight"].T + w[f"{name}linear1.bias"], 0)
    return norm(w, f"{name}norm2", x + hidden @ w[f"{name}linear2.weight"].T + w[f"{name}linear2.bias"])


def audio_tokens(w: dict[str, np.ndarray], name: str, states: np.ndarray) -> np.ndarray:
    """States (2T, L, D) to (T, d)."""
    z = (states - states.mean(-1, keepdims=True)) / np.sqrt(states.var(-1, keepdims=True) + 1e-5)
    mixed = np.einsum("l,tld->td", softmax(w[f"{name}layer_logits"]), z)
    return np.concatenate((mixed[0::2], mixed[1::2]), axis=1) @ w[f"{name}linear.weight"].T + w[f"{name}linear.bias"]


def pooled(w: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a = softmax((x @ w.T)[:, 0])
    mu = a @ x
    return mu, np.sqrt(a @ (x - mu) ** 2)


def positions(n: int, d: int) -> np.ndarray:
    table = np.empty((n, d))
    for pos in range(n):
        for i in range(0, d, 2):
            table[pos, i] = math.sin(pos / 10000 ** (i / d))
            table[pos, i + 1] = math.cos(pos / 10000 ** (i / d))
    return table


def transcribed(net: EmotionEmbedder, expression: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mu and sigma of one clip without padding; audio asks, fusion before the layer."""
    w, c = weights_of(net), net.config
    p = positions(len(expression), c.width)
    b = expression @ w["video_tokens.weight"].T + w["video_tokens.bias"] + p
    a = audio_tokens(w, "audio_tokens.", states) + p
    for k in range(c.layers):
        b = layer(w, f"video_layers.{k}.", b, c.heads)
        a = a + c.cross_weight * attention(w, f"cross_layers.{k}.attention", a, b, c.heads)
        a = layer(w, f"audio_layers.{k}.", a, c.heads)
    return pooled(w["pool.score.weight"], a)


# --- equations ---


def test_positions_are_the_transformer_papers() -> None:
    np.testing.assert_allclose(sinusoid_table(7, 10).numpy(), positions(7, 10), atol=1e-6)


def test_whole_network_equals_its_transcription() -> None:
    net, (expression, audio) = network(cross_weight=0.7), inputs()
    # The table is kept in single precision; here it shall be exact.
    net.positions = torch.from_numpy(positions(32, 16))
    found = net(expression, audio)
    for k in range(2):
        mu, sigma = transcribed(net, expression[k].numpy(), audio[k].numpy())
        np.testing.assert_allclose(found.mu[k].detach(), mu, atol=1e-10)
        np.testing.assert_allclose(found.sigma[k].detach(), sigma, atol=1e-10)


def test_eq_3_adds_lambda_times_cross_attention() -> None:
    x, y = torch.randn(1, 4, 16, dtype=torch.float64), torch.randn(1, 6, 16, dtype=torch.float64)
    cross = CrossLayer(replace(SMALL, cross_weight=0.25)).double().eval()
    found = cross(x, y, torch.ones(1, 6, dtype=torch.bool))[0].detach()
    wanted = x[0].numpy() + 0.25 * attention(weights_of(cross), "attention", x[0].numpy(), y[0].numpy(), 2)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_lambda_is_fixed_unless_it_shall_be_learned() -> None:
    assert not [name for name, _ in network().named_parameters() if name.endswith("weight") and _.ndim == 0]
    learned = [name for name, p in network(learn_cross_weight=True).named_parameters() if p.ndim == 0]
    assert learned == ["cross_layers.0.weight", "cross_layers.1.weight"]


def test_eq_4_and_5_against_closed_forms() -> None:
    pool = GaussianPool(replace(SMALL, width=2, heads=1))
    x = torch.tensor([[[1.0, 10.0], [3.0, 10.0]]])
    with torch.no_grad():
        pool.score.weight.zero_()  # equal weights: the plain mean and the population's variance
        mu, sigma = pool(x, torch.ones(1, 2, dtype=torch.bool))
        torch.testing.assert_close(mu, torch.tensor([[2.0, 10.0]]))
        torch.testing.assert_close(sigma, torch.tensor([[1.0, 1e-4]]))
        pool.score.weight[0, 0] = math.log(3) / 2  # weights 1/4 and 3/4
        mu, sigma = pool(x, torch.ones(1, 2, dtype=torch.bool))
        torch.testing.assert_close(mu[0, 0], torch.tensor(2.5))
        torch.testing.assert_close(sigma[0, 0], torch.tensor(math.sqrt(0.75)))


def test_one_frame_has_no_spread_and_finite_gradients() -> None:
    net, (expression, audio) = network(), inputs(frames=1)
    prior = net(expression, audio)
    assert float(prior.sigma.detach().max()) == pytest.approx(1e-4)
    prior.sample(torch.Generator().manual_seed(0)).sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in net.parameters())


def test_eq_6_has_the_mean_and_the_spread_it_says() -> None:
    mu, sigma = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 3.0]])
    n = 40_000
    drawn = Prior(mu.expand(n, 2), sigma.expand(n, 2)).sample(torch.Generator().manual_seed(3))
    error = 4 * sigma[0] / math.sqrt(n)
    assert bool(((drawn.mean(0) - mu[0]).abs() < error).all())
    assert bool(((drawn.std(0) - sigma[0]).abs() < error).all())
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 4 / math.sqrt(n)


def test_eq_6_hands_gradients_to_both_parts() -> None:
    mu, sigma = torch.zeros(1, 3, requires_grad=True), torch.ones(1, 3, requires_grad=True)
    s = Prior(mu, sigma).sample(torch.Generator().manual_seed(0))
    s.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones(1, 3))
    torch.testing.assert_close(sigma.grad, s.detach())  # eps itself, as mu is 0 and sigma 1


def test_deterministic_prior_is_mu() -> None:
    prior = Prior(torch.randn(2, 16), torch.ones(2, 16))
    assert network(deterministic=True).draw(prior) is prior.mu
    one, two = (network().draw(prior, torch.Generator().manual_seed(k)) for k in (1, 2))
    assert not torch.equal(one, two)


# --- branches ---


def test_encoder_layer_is_post_norm() -> None:
    x, part = torch.randn(1, 4, 16, dtype=torch.float64), EncoderLayer(SMALL).double().eval()
    found = part(x, torch.ones(1, 4, dtype=torch.bool))[0].detach()
    np.testing.assert_allclose(found, layer(weights_of(part), "", x[0].numpy(), 2), atol=1e-12)


def test_audio_states_are_mixed_by_learned_weights() -> None:
    tokens = AudioTokens(SMALL).double()
    with torch.no_grad():
        tokens.layer_logits.copy_(torch.tensor([0.0, 1.0, -0.5]))
    states = torch.randn(1, 10, 3, 6, dtype=torch.float64)
    found = tokens(states)
    np.testing.assert_allclose(found[0].detach(), audio_tokens(weights_of(tokens), "", states[0].numpy()), atol=1e-12)
    found.square().sum().backward()
    assert tokens.layer_logits.grad is not None and float(tokens.layer_logits.grad.abs().min()) > 0


@pytest.mark.parametrize("direction", ["audio_from_video", "video_from_audio"])
@pytest.mark.parametrize("fusion", ["before_layer", "after_layer"])
@pytest.mark.parametrize("drop_at", ["inputs", "features"])
def test_padding_changes_nothing(direction: str, fusion: str, drop_at: str) -> None:
    net, (expression, audio) = network(direction=direction, fusion=fusion, drop_at=drop_at), inputs()
    keep = torch.tensor([[True, True], [True, False]])
    alone = net(expression, audio, keep=keep)
    wide, wide_audio = torch.full((2, 9, 52), math.nan).double(), torch.full((2, 18, 3, 6), math.nan).double()
    wide[:, :5], wide_audio[:, :10] = expression, audio
    mask = torch.arange(9) < torch.tensor([[5], [5]])
    padded = net(wide, wide_audio, mask, keep=keep)
    torch.testing.assert_close(padded.mu, alone.mu)
    torch.testing.assert_close(padded.sigma, alone.sigma)


def test_unmasked_frames_do_count() -> None:
    net, (expression, audio) = network(), inputs()
    changed = expression.clone()
    changed[0, 4] += 1
    found, other = net(expression, audio).mu.detach(), net(changed, audio).mu.detach()
    assert float((found[0] - other[0]).abs().max()) > 1e-3 and torch.equal(found[1], other[1])


@pytest.mark.parametrize("drop_at", ["inputs", "features"])
def test_a_dropped_modality_is_not_looked_at(drop_at: str) -> None:
    net, (expression, audio), (faces, sounds) = network(drop_at=drop_at), inputs(), inputs(seed=9)
    for side, (other_face, other_sound) in enumerate([(faces, audio), (expression, sounds)]):
        keep = torch.ones(2, 2, dtype=torch.bool)
        keep[:, side] = False
        one, two = net(expression, audio, keep=keep), net(other_face, other_sound, keep=keep)
        torch.testing.assert_close(one.mu, two.mu, rtol=0, atol=0)
        without = net(None if side == 0 else expression, None if side == 1 else audio)
        torch.testing.assert_close(without.mu, one.mu, rtol=0, atol=0)


def test_dropout_takes_either_modality_and_never_both() -> None:
    n = 20_000
    keep = draw_keep(n, 0.4, torch.Generator().manual_seed(1))
    assert bool(keep.any(1).all())
    for side in range(2):
        assert float((~keep[:, side]).double().mean()) == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / n))
    assert bool(draw_keep(50, 0.0).all()) and bool((draw_keep(50, 1.0).sum(1) == 1).all())


def test_who_asks_is_pooled() -> None:
    """With lambda 0 the answering branch is without influence, in either direction."""
    (expression, audio), (faces, sounds) = inputs(), inputs(seed=9)
    for direction, same in (("audio_from_video", (faces, audio)), ("video_from_audio", (expression, sounds))):
        net = network(direction=direction, cross_weight=0.0)
        assert torch.equal(net(expression, audio).mu, net(*same).mu)
        assert not torch.equal(net(expression, audio).mu, net(faces, sounds).mu)


@pytest.mark.parametrize(
    ("shape", "audio_shape", "text"),
    [
        ((2, 5, 64), (2, 10, 3, 6), "expression is"),
        ((2, 5, 52), (2, 9, 3, 6), "audio is"),
        ((2, 33, 52), (2, 66, 3, 6), "takes 32"),
    ],
)
def test_unfit_inputs_are_refused(shape: tuple[int, ...], audio_shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(InputError, match=text):
        network()(torch.zeros(shape), torch.zeros(audio_shape))


def test_clips_without_anything_are_refused() -> None:
    net, (expression, audio) = network(), inputs()
    with pytest.raises(InputError, match="no frame"):
        net(expression, audio, torch.tensor([[True] * 5, [False] * 5]))
    with pytest.raises(InputError, match="neither"):
        net(expression, audio, keep=torch.tensor([[True, True], [False, False]]))
    with pytest.raises(InputError, match="needs"):
        net(None, None)


# --- configuration ---


@pytest.mark.parametrize("config", [EmbedderConfig.full(), EmbedderConfig.tiny(), BankConfig.full(), BankConfig.tiny()])
def test_every_choice_names_its_source(config: EmbedderConfig | BankConfig) -> None:
    listed = sources(config)
    assert set(listed) == set(vars(config))
    assert [name for name, entry in listed.items() if not entry["source"].startswith(SOURCES)] == []
    assert all(entry["what"] for entry in listed.values())


@pytest.mark.parametrize(
    "changes", [{"direction": "both"}, {"heads": 7}, {"temperature": 0.0}, {"drop_probability": 1.5}, {"layers": 0}]
)
def test_impossible_choices_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        EmbedderConfig.full(**changes)


def test_full_size_has_the_published_prior() -> None:
    with torch.device("meta"):
        net = EmotionEmbedder(EmbedderConfig.full())
    assert net.config.coefficients == 64 and net.pool.score.weight.shape == (1, 256)
    # Three layers of width 256 and hidden width 1024, twice, and three cross attentions.
    attention_size, layer_size = 4 * 256 * 257, 2 * 2 * 256 + 2 * 256 * 1024 + 1024 + 256
    tokens = 65 * 256 + 769 * 256 + 5
    assert sum(p.numel() for p in net.parameters()) == 9 * attention_size + 6 * layer_size + tokens + 256
