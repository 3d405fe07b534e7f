"""DICE-Talk's emotion bank: equations 9 to 13 and 17 in NumPy, and who learns from what."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from talkforge.core.errors import ConfigError, InputError
from talkforge.models.dice_talk.config import BankConfig
from talkforge.models.dice_talk.emotion_bank import CodeUsage, EmotionBank, nearest_code, quantise

SMALL = BankConfig.tiny(prior_width=6, codes=5, code_width=4, tokens=3, token_width=8, hidden=7, heads=2)


def bank_of(**changes: Any) -> EmotionBank:
    torch.manual_seed(8)
    bank = EmotionBank(replace(SMALL, **changes)).double()
    if bank.config.mode != "none":
        with torch.no_grad():  # apart from each other, as a trained bank's
            bank.codes.normal_()
    return bank


def priors(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


# --- the transcription ---


def linear(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def mlp(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    """A vector to tokens (3, 8)."""
    hidden = np.maximum(linear(w, f"{name}.linear1", x), 0)
    hidden = np.maximum(linear(w, f"{name}.linear2", hidden), 0)
    tokens = linear(w, f"{name}.linear3", hidden).reshape(3, 8)
    z = (tokens - tokens.mean(1, keepdims=True)) / np.sqrt(tokens.var(1, keepdims=True) + 1e-5)
    return z * w[f"{name}.norm.weight"] + w[f"{name}.norm.bias"]


def attended(w: dict[str, np.ndarray], query: np.ndarray, context: np.ndarray) -> np.ndarray:
    q, k, v = (linear(w, f"attention.to_{n}", x) for n, x in (("q", query), ("k", context), ("v", context)))
    joined = np.empty_like(q)
    for s in (slice(0, 4), slice(4, 8)):
        logits = np.exp(q[:, s] @ k[:, s].T / math.sqrt(4))
        joined[:, s] = logits / logits.sum(1, keepdims=True) @ v[:, s]
    return linear(w, "attention.to_out", joined)


def weights_of(bank: EmotionBank) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in bank.state_dict().items()}


def test_retrieval_equals_its_transcription() -> None:
    """Eq. 9 to 11 and 17 in training."""
    bank, s = bank_of().train(), priors()
    found, w = bank(s), weights_of(bank)
    losses = []
    for n, prior in enumerate(s.numpy()):
        z = linear(w, "project", prior)
        k = int(np.argmin([np.sum((z - code) ** 2) for code in w["codes"]]))
        code = w["codes"][k]
        assert int(found.indices[n]) == k
        wanted = attended(w, mlp(w, "query_tokens", prior), mlp(w, "code_tokens", code))
        np.testing.assert_allclose(found.tokens[n].detach(), wanted, atol=1e-12)
        losses.append(np.mean((z - code) ** 2) + 0.25 * np.mean((z - code) ** 2))
    assert float(found.loss.detach()) == pytest.approx(np.mean(losses), rel=1e-12)
    assert len(set(found.indices.tolist())) > 1


def test_whole_bank_equals_its_transcription() -> None:
    """Eq. 12 and 13 in inference."""
    bank, s = bank_of().eval(), priors()
    found, w = bank(s), weights_of(bank)
    everything = np.concatenate([mlp(w, "code_tokens", code) for code in w["codes"]])
    assert everything.shape == (15, 8)
    for n, prior in enumerate(s.numpy()):
        wanted = attended(w, mlp(w, "query_tokens", prior), everything)
        np.testing.assert_allclose(found.tokens[n].detach(), wanted, atol=1e-12)
    assert float(found.loss) == 0.0


def test_retrieval_can_be_asked_for() -> None:
    bank, s = bank_of(), priors()
    assert torch.equal(bank.eval()(s, retrieve=True).tokens, bank.train()(s).tokens)
    assert torch.equal(bank.train()(s, retrieve=False).tokens, bank.eval()(s).tokens)
    assert not torch.allclose(bank(s, retrieve=True).tokens, bank(s, retrieve=False).tokens)
    bank.config = replace(bank.config, retrieval="nearest")
    assert torch.equal(bank.eval()(s).tokens, bank(s, retrieve=True).tokens)


def test_sum_is_the_papers_norm() -> None:
    s = priors()
    mean, norm = (float(bank_of(reduction=r).train()(s).loss.detach()) for r in ("mean", "sum"))
    assert norm == pytest.approx(4 * mean)  # codes have four components


def test_nearest_code_takes_the_first_of_equals() -> None:
    codes = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    assert nearest_code(torch.tensor([[0.9, 0.0], [1.0, 0.0], [1.1, 0.0]]), codes).tolist() == [0, 0, 1]


# --- who learns from what ---


def test_straight_through_hands_the_slope_at_the_code_to_the_prior() -> None:
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    codes = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    chosen, _ = quantise(z, codes, torch.tensor([4, 0, 4]), SMALL)
    torch.testing.assert_close(chosen.detach(), codes.detach()[[4, 0, 4]])
    slope = torch.randn(3, 4, dtype=torch.float64)
    (chosen * slope).sum().backward()
    torch.testing.assert_close(z.grad, slope)
    assert codes.grad is None


@pytest.mark.parametrize("beta", [0.0, 0.25, 2.0])
def test_eq_17_stops_gradients_on_either_side(beta: float) -> None:
    z = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    codes = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    indices = torch.tensor([4, 0, 4])
    _, loss = quantise(z, codes, indices, replace(SMALL, commitment=beta))
    loss.backward()
    gap = (z - codes[indices]).detach()
    torch.testing.assert_close(z.grad, beta * 2 * gap / gap.numel())
    wanted = torch.zeros(5, 4, dtype=torch.float64).index_add_(0, indices, -2 * gap / gap.numel())
    torch.testing.assert_close(codes.grad, wanted)
    assert codes.grad is not None and not bool(codes.grad[[1, 2, 3]].any())


def test_denoising_teaches_the_prior_and_not_the_codes() -> None:
    """Only L_vq moves codes: the tokens' own gradient passes them by."""
    bank, s = bank_of().train(), priors().requires_grad_(True)
    found = bank(s)
    found.tokens.square().sum().backward(retain_graph=True)
    assert bank.codes.grad is None
    assert bank.project.weight.grad is not None and bool(bank.project.weight.grad.any())
    assert s.grad is not None and bool(s.grad.any())
    found.loss.backward()
    assert bank.codes.grad is not None and bool(bank.codes.grad.any())


def test_commitment_brings_priors_and_codes_together() -> None:
    bank, s = bank_of().train(), priors(16)
    optimiser = torch.optim.Adam(bank.parameters(), 0.05)
    history = []
    for _ in range(60):
        loss = bank(s).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(float(loss.detach()))
    assert history[-1] < 0.05 * history[0]


# --- ablations ---


def test_without_bank_the_prior_speaks_for_itself() -> None:
    bank, s = bank_of(mode="none"), priors()
    found = bank.train()(s)
    np.testing.assert_allclose(
        found.tokens[1].detach(), mlp(weights_of(bank), "query_tokens", s[1].numpy()), atol=1e-12
    )
    assert found.indices is None and float(found.loss) == 0.0
    assert not [name for name, _ in bank.named_parameters() if not name.startswith("query_tokens")]


def test_learnable_ca_attends_to_all_and_teaches_the_embeddings_directly() -> None:
    bank, s = bank_of(mode="learnable_ca"), priors()
    found = bank.train()(s)
    assert torch.equal(found.tokens, bank.eval()(s).tokens) and found.indices is None and float(found.loss) == 0.0
    found.tokens.square().sum().backward()
    assert bank.codes.grad is not None and bool((bank.codes.grad != 0).any(1).all())


# --- how the codes are used ---


def test_usage_and_perplexity() -> None:
    usage = CodeUsage(4)
    assert usage.perplexity() is None and usage.used() == 0.0
    usage.update(torch.tensor([1, 1, 1, 1]))
    assert usage.perplexity() == pytest.approx(1.0)
    usage.update(torch.tensor([0, 2, 3, 0, 2, 3, 0, 2, 3, 0, 2, 3]))
    assert usage.counts.tolist() == [4, 4, 4, 4] and usage.perplexity() == pytest.approx(4.0)
    assert usage.idle.tolist() == [0, 1, 0, 0] and usage.used() == 1.0
    usage.restart()
    usage.update(torch.tensor([0, 0, 0, 1]))
    assert usage.perplexity() == pytest.approx(4 / 27**0.25) and usage.used() == 0.5


def test_a_forward_pass_counts_nothing_and_a_saved_bank_keeps_its_counts() -> None:
    bank = bank_of().train()
    found = bank(priors())
    assert int(bank.usage.counts.sum()) == 0
    bank.usage.update(found.indices)
    other = EmotionBank(SMALL)
    other.load_state_dict(bank.state_dict())
    assert other.usage.counts.tolist() == bank.usage.counts.tolist() and int(other.usage.counts.sum()) == 4


def test_dead_codes_are_moved_only_when_asked() -> None:
    s, generator = priors(), torch.Generator().manual_seed(0)
    for option in ("off", "reseed"):
        bank = bank_of(dead_codes=option, dead_after=2)
        before = bank.codes.detach().clone()
        for _ in range(2):
            bank.usage.update(torch.tensor([0, 3]))
        moved = bank.reseed(s, generator)
        changed = (bank.codes != before).any(1).tolist()
        assert (moved, changed) == ((0, [False] * 5) if option == "off" else (3, [False, True, True, False, True]))
    mapped = bank.project(s).detach()
    assert all(bool((code == mapped).all(1).any()) for code in bank.codes.detach()[[1, 2, 4]])
    assert bank.usage.idle.tolist() == [0] * 5
    with pytest.raises(ConfigError, match="learnable_ca"):
        bank_of(mode="learnable_ca").reseed(s)


# --- size ---


def test_full_size_is_the_released_one() -> None:
    config = BankConfig.full()
    with torch.device("meta"):
        bank = EmotionBank(config)
        assert bank.all_tokens().shape == (1, 2048, 1024)
        assert bank.train()(torch.empty(2, 256), retrieve=True).tokens.shape == (2, 32, 1024)
    assert bank.codes.shape == (64, 1024) and bank.project.weight.shape == (1024, 256)
    assert 1 / math.sqrt(config.token_width / config.heads) == 1 / math.sqrt(128)


def test_codes_start_within_the_released_bounds() -> None:
    codes = EmotionBank(BankConfig.tiny()).codes.detach()
    assert float(codes.abs().max()) <= 1 / 64 < 1.05 * float(codes.abs().max())


def test_priors_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match="not \\(batch, 6\\)"):
        bank_of()(torch.zeros(2, 7))
    with pytest.raises(ConfigError, match="mode"):
        BankConfig.full(mode="bankk")
