"""DICE-Talk's emotion bank: a prior to the emotion tokens E_s that the UNet attends to.

W. Tan et al., 2025, section 3.2 and eq. 17. With a bank C of K codes and the prior s:

    (9)   s* = C_k,  k = argmin_i ||s - C_i||^2
    (10)  Q = W_Q(s);  K = W_K(s*);  V = W_V(s*)                                   in training
    (11)  E_s = CA(Q, K, V)
    (12)  K_all = W_K(C);  V_all = W_V(C)                                          in inference
    (13)  E_s = CA(Q, K_all, V_all)
    (17)  L_vq = ||sg[s] - C_k||^2 + beta ||s - sg[C_k]||^2

As released, a linear map first takes s to the codes' width (z below), and MLPs unfold prior and codes to several tokens
each before W_Q, W_K and W_V. Gradients pass the retrieval straight through (A. van den Oord et al., 2017): E_s's slope
at s* is handed to z, and the codes learn from L_vq alone. What the paper leaves open is in `BankConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ...core.errors import ConfigError, InputError
from .config import BankConfig


class TokenMLP(nn.Module):
    """A vector to several tokens: two hidden layers with ReLU, and a norm on each token."""

    def __init__(self, inputs: int, config: BankConfig) -> None:
        super().__init__()
        self.shape = (config.tokens, config.token_width)
        self.linear1 = nn.Linear(inputs, config.hidden)
        self.linear2 = nn.Linear(config.hidden, config.hidden)
        self.linear3 = nn.Linear(config.hidden, config.tokens * config.token_width)
        self.norm = nn.LayerNorm(config.token_width) if config.normalise_tokens else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., inputs) to (..., tokens, token_width)."""
        hidden = self.linear2(self.linear1(x).relu()).relu()
        return self.norm(self.linear3(hidden).unflatten(-1, self.shape))


class BankAttention(nn.Module):
    """Multi-head cross attention of eq. 11 and 13; maps without bias, logits scaled by 1/sqrt(head width)."""

    def __init__(self, config: BankConfig) -> None:
        super().__init__()
        width, self.heads = config.token_width, config.heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.Linear(width, width) if config.project_out else nn.Identity()

    def forward(self, query: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Query (B, N, d), context (B, M, d), or (1, M, d) for one that all share, to (B, N, d)."""
        # The shared context is mapped once, and only then repeated (without copying).
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.to_q(query), self.to_k(context), self.to_v(context))
        )
        k, v = (x.expand(len(q), -1, -1, -1) for x in (k, v))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@dataclass(frozen=True)
class Emotion:
    """What the bank makes of priors.

    Attributes:
        tokens: E_s (B, tokens, token_width).
        loss: L_vq, a number; 0 where nothing is quantised.
        indices: int64 (B,), the nearest code; None in the modes that have no codes to retrieve.
    """

    tokens: torch.Tensor
    loss: torch.Tensor
    indices: torch.Tensor | None


class CodeUsage(nn.Module):
    """How often each code was the nearest; saved with the network, so that a resumed run goes on counting.

    The caller updates it, once a batch: forward passes may be repeated (gradient checkpoints) and must not count twice.
    """

    counts: torch.Tensor
    idle: torch.Tensor

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(codes, dtype=torch.int64))
        self.register_buffer("idle", torch.zeros(codes, dtype=torch.int64))

    @torch.no_grad()
    def update(self, indices: torch.Tensor) -> None:
        """Counts a batch's retrievals, int (B,)."""
        found = torch.bincount(indices, minlength=len(self.counts))
        self.counts += found
        self.idle += 1
        self.idle[found > 0] = 0

    def restart(self) -> None:
        """Begins a new count; how long codes have been idle stays."""
        self.counts.zero_()

    def used(self) -> float:
        """Part of the codes that were retrieved, 0..1."""
        return float((self.counts > 0).double().mean())

    def perplexity(self) -> float | None:
        """exp of the entropy of the codes' shares, 1 (one code) to K (all alike); None before any retrieval."""
        total = int(self.counts.sum())
        if not total:
            return None
        share = self.counts[self.counts > 0].double() / total
        return float((-(share * share.log()).sum()).exp())


class EmotionBank(nn.Module):
    """Priors to emotion tokens, in one of the three modes of `BankConfig`."""

    def __init__(self, config: BankConfig) -> None:
        super().__init__()
        self.config = config
        self.query_tokens = TokenMLP(config.prior_width, config)
        if config.mode != "none":
            self.codes = nn.Parameter(torch.empty(config.codes, config.code_width))
            nn.init.uniform_(self.codes, -config.init_scale, config.init_scale)
            self.code_tokens = TokenMLP(config.code_width, config)
            self.attention = BankAttention(config)
        if config.mode == "bank":
            self.project = nn.Linear(config.prior_width, config.code_width)
            self.usage = CodeUsage(config.codes)

    def forward(self, priors: torch.Tensor, *, retrieve: bool | None = None) -> Emotion:
        """The tokens of a batch.

        Args:
            priors: s, (B, prior_width).
            retrieve: attend to the nearest code (eq. 10) or to all of them (eq. 12); None: retrieve in training mode,
                else what `BankConfig.retrieval` says. Only the mode "bank" retrieves.

        Raises:
            InputError: priors of another width.
        """
        if priors.ndim != 2 or priors.shape[1] != self.config.prior_width:
            raise InputError(f"priors are {tuple(priors.shape)}, not (batch, {self.config.prior_width})")
        query, nothing = self.query_tokens(priors), priors.new_zeros(())
        if self.config.mode == "none":
            return Emotion(query, nothing, None)
        if self.config.mode == "learnable_ca":
            return Emotion(self.attention(query, self.all_tokens()), nothing, None)
        z = self.project(priors)
        indices = nearest_code(z, self.codes)
        if retrieve is None:
            retrieve = self.training or self.config.retrieval == "nearest"
        if not retrieve:
            return Emotion(self.attention(query, self.all_tokens()), nothing, indices)
        chosen, loss = quantise(z, self.codes, indices, self.config)
        return Emotion(self.attention(query, self.code_tokens(chosen)), loss, indices)

    def all_tokens(self) -> torch.Tensor:
        """The whole bank as context, (1, codes x tokens, token_width)."""
        return self.code_tokens(self.codes).flatten(0, 1)[None]

    @torch.no_grad()
    def reseed(self, priors: torch.Tensor, generator: torch.Generator | None = None) -> int:
        """Moves dead codes onto mapped priors drawn at random; how many. Does nothing unless configured.

        Args:
            priors: s, (B, prior_width), a batch of training.
            generator: on the CPU.

        Raises:
            ConfigError: this mode has no codes to retrieve.
        """
        if self.config.mode != "bank":
            raise ConfigError(f"an emotion bank of mode '{self.config.mode}' has no dead codes")
        if self.config.dead_codes == "off":
            return 0
        dead = (self.usage.idle >= self.config.dead_after).nonzero().squeeze(1)
        drawn = torch.randint(len(priors), (len(dead),), generator=generator)
        self.codes[dead] = self.project(priors[drawn.to(priors.device)]).to(self.codes)
        self.usage.idle[dead] = 0
        return len(dead)


def nearest_code(z: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Eq. 9: index of the nearest code, int64 (B,); the first of several. z (B, d), codes (K, d)."""
    # Differences themselves, not |z|^2 - 2zc + |c|^2: with 64 codes that costs little, and nothing cancels.
    return (z.detach()[:, None] - codes.detach()).square().sum(-1).argmin(1)


def quantise(
    z: torch.Tensor, codes: torch.Tensor, indices: torch.Tensor, config: BankConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """The chosen codes (B, d), with z's gradient, and L_vq of eq. 17, the mean over the batch."""
    chosen = codes[indices]
    pull = _distance(z.detach(), chosen, config) + config.commitment * _distance(z, chosen.detach(), config)
    return z + (chosen - z).detach(), pull


def _distance(a: torch.Tensor, b: torch.Tensor, config: BankConfig) -> torch.Tensor:
    squares = (a - b).square()
    return squares.mean() if config.reduction == "mean" else squares.sum(-1).mean()
