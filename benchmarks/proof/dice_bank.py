"""The emotion bank on one seed's priors: question (e) of `dice_embedder.py` beside this file.

In DICE-Talk the bank is trained with the denoiser. Here is none, and eq. 17 alone teaches nothing: it is least where
the map before the codes gives one point for all priors. So a *proxy* stands where the denoiser is: from the mean of the
tokens E_s a linear head says the clip's mean expression coefficients (what a denoiser has to draw), and another one its
emotion (as L_cls does). Loss: squared error of standardised coefficients + cross entropy + L_vq. Priors are those of
eq. 6, drawn anew at each step from stored mu and sigma; the embedder does not learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from dice_priors import Priors
from talkforge.core.emotions import MEAD_EMOTIONS
from talkforge.datasets.synthetic import PROSODY, archetype
from talkforge.metrics.code_usage import agreement, class_similarity, code_shares, perplexity, shared_codes
from talkforge.metrics.probe import Scaler
from talkforge.models.dice_talk.config import BankConfig
from talkforge.models.dice_talk.emotion_bank import EmotionBank
from torch import nn
from torch.nn import functional as F

STEPS, BATCH, RATE = 600, 64, 1e-3
OPEN = tuple(name for name in MEAD_EMOTIONS if name != "neutral")
# Name -> how the bank differs from the released one, and whether there is a proxy.
VARIANTS: dict[str, tuple[dict[str, Any], bool]] = {
    "bank": ({}, True),
    "bank, reseeded": ({"dead_codes": "reseed", "dead_after": 50}, True),
    "no bank": ({"mode": "none"}, True),
    "learnable CA": ({"mode": "learnable_ca"}, True),
    "L_vq alone": ({}, False),
}


@dataclass(frozen=True)
class Rows:
    """Priors as tensors: `mu`, `sigma` (N, d), `face` standardised (N, 52), `emotion` int (N,); and their names."""

    mu: torch.Tensor
    sigma: torch.Tensor
    face: torch.Tensor
    emotion: torch.Tensor
    names: np.ndarray

    @classmethod
    def of(cls, priors: Priors, scaler: Scaler, modality: str = "both") -> Rows:
        """Of a split."""
        numbers = [MEAD_EMOTIONS.index(name) for name in priors.emotion]
        values = (priors.mu[modality], priors.sigma[modality], scaler(priors.face))
        mu, sigma, face = (torch.from_numpy(value.astype(np.float32)) for value in values)
        return cls(mu, sigma, face, torch.tensor(numbers), priors.emotion)


class Proxy(nn.Module):
    """A bank with the two heads that stand for the denoiser."""

    def __init__(self, config: BankConfig, coefficients: int) -> None:
        super().__init__()
        self.bank = EmotionBank(config)
        self.face = nn.Linear(config.token_width, coefficients)
        self.emotion = nn.Linear(config.token_width, len(MEAD_EMOTIONS))

    def loss(self, priors: torch.Tensor, rows: Rows, chosen: torch.Tensor, *, heads: bool) -> torch.Tensor:
        """Of a batch; counts its codes."""
        found = self.bank(priors)
        if found.indices is not None:
            self.bank.usage.update(found.indices)
        if not heads:
            return found.loss
        pooled = found.tokens.mean(dim=1)
        wrong = F.mse_loss(self.face(pooled), rows.face[chosen])
        return wrong + F.cross_entropy(self.emotion(pooled), rows.emotion[chosen]) + found.loss


def trained(rows: Rows, changes: Mapping[str, Any], seed: int, *, heads: bool, steps: int) -> Proxy:
    """A bank after its training, in eval mode."""
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    model = Proxy(BankConfig.tiny(prior_width=rows.mu.shape[1], **changes), rows.face.shape[1]).train()
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    # Clips of all emotions come equally often: neutral has one level where the others have three.
    weight = 1.0 / torch.bincount(rows.emotion).float()[rows.emotion]
    for _ in range(steps):
        chosen = torch.multinomial(weight, BATCH, replacement=True, generator=draws)
        priors = rows.mu[chosen] + rows.sigma[chosen] * torch.randn(rows.mu[chosen].shape, generator=draws)
        optimiser.zero_grad()
        model.loss(priors, rows, chosen, heads=heads).backward()
        optimiser.step()
        if model.bank.config.mode == "bank":
            model.bank.reseed(priors, draws)
    return model.eval()


def truth() -> dict[str, np.ndarray]:
    """How alike the corpus makes its emotions, neutral left out: in faces, in voices, and the mean of both; (7, 7)."""
    face = class_similarity(np.stack([archetype(name) for name in OPEN]), OPEN)[1]
    voice = class_similarity(np.array([PROSODY[name] for name in OPEN]), OPEN)[1]
    return {"face": face, "voice": voice, "mean": (face + voice) / 2}


@torch.inference_mode()
def measured(model: Proxy, train: Rows, test: Rows, *, heads: bool) -> dict[str, Any]:
    """Of held-out people's mu: codes, what the proxy's heads make of the tokens, and which emotions are alike."""
    bank, found = model.bank, {}
    apart = np.isin(test.names, OPEN)
    if bank.config.mode == "bank":
        indices = bank(test.mu).indices.numpy()
        found |= _codes(indices, test.names, bank.config.codes)
        z = bank.project(test.mu).numpy()
        found["spread"] = float(z.std(axis=0).mean())
        shares = code_shares(indices[apart], test.names[apart], bank.config.codes)[1]
        found |= _alike("codes", shared_codes(shares)) | _alike("z", class_similarity(z[apart], test.names[apart])[1])
        found["used, fitted"] = len(np.unique(bank(train.mu).indices.numpy()))
    if heads:
        for name, retrieve in (("all codes", False), ("nearest code", True)):
            pooled = bank(test.mu, retrieve=retrieve).tokens.mean(dim=1)
            found |= _heads(model, pooled, test, name)
            if bank.config.mode != "bank":
                break
        pooled = bank(test.mu).tokens.mean(dim=1).numpy()
        found |= _alike("tokens", class_similarity(pooled[apart], test.names[apart])[1])
    return found


def _heads(model: Proxy, pooled: torch.Tensor, test: Rows, name: str) -> dict[str, float]:
    said, drawn = model.emotion(pooled).argmax(1), model.face(pooled)
    wrong = (drawn - test.face).square().sum() / (test.face - test.face.mean(0)).square().sum()
    right = [float((said == test.emotion)[test.emotion == k].float().mean()) for k in test.emotion.unique()]
    return {f"{name}/emotion": float(np.mean(right)), f"{name}/face": float(1 - wrong)}


def _codes(indices: np.ndarray, names: np.ndarray, codes: int) -> dict[str, Any]:
    """Over emotions alike: a code's share is the mean of its shares of the emotions."""
    classes, shares = code_shares(indices, names, codes)
    overlap = shared_codes(shares)
    np.fill_diagonal(overlap, -1.0)
    nearest = {
        name: classes[int(row.argmax())] if row.max() > 0 else None for name, row in zip(classes, overlap, strict=True)
    }
    np.fill_diagonal(overlap, 1.0)
    used = int((shares.sum(axis=0) > 0).sum())
    return {
        "used": used,
        "perplexity": perplexity(shares.mean(axis=0)),
        "alone": float((np.sort(shares, axis=0)[:-1].sum(axis=0) == 0)[shares.sum(axis=0) > 0].mean()),
        "overlap": overlap.tolist(),
        "nearest": nearest,
    }


def _alike(name: str, found: np.ndarray) -> dict[str, float | None]:
    return {f"{name} as {kind}": agreement(found, known) for kind, known in truth().items()}


def measure_bank(train: Priors, test: Priors, seed: int) -> dict[str, Any]:
    """(e) of a seed: variant -> numbers; "priors" and "faces" are what goes in, without any bank."""
    scaler = Scaler.of(train.face)
    own, held = Rows.of(train, scaler), Rows.of(test, scaler)
    apart = np.isin(test.emotion, OPEN)
    found: dict[str, Any] = {
        "priors": _alike("mu", class_similarity(test.mu["both"][apart], test.emotion[apart])[1]),
        "faces": _alike("mean face", class_similarity(test.face[apart], test.emotion[apart])[1]),
    }
    for name, (changes, heads) in VARIANTS.items():
        model = trained(own, changes, seed, heads=heads, steps=STEPS)
        found[name] = measured(model, own, held, heads=heads)
    return found
