"""Cross-attention with further contexts: what DICE-Talk adds to each `attn2` of Stable Video Diffusion's UNet.

Paper eq. 14, z_s = z_a + CA(Q(z_a), K(E_s), V(E_s)), as released: base, audio and emotion share one query, and their
outputs are summed before the output projection (as in IP-Adapter, H. Ye et al., 2023):

    out = W_o ( A(q, k_base, v_base) + m [ A(q, k_audio, v_audio) + A(q, k_emotion, v_emotion) ] )

In spatial blocks each frame attends to its own tokens and m is the face mask on the block's grid. In temporal blocks
all sites attend to the mean of the tokens over frames, and m is 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ...core.errors import InputError
from .denoiser_config import UNetConfig

SLOTS = ("audio", "emotion")


@dataclass
class Contexts:
    """What one forward pass adds.

    Attributes:
        tokens: by slot, (B, F or 1, N, D); 1 means the same for all frames.
        mask: face masks (B, F or 1, 1, H, W) in 0..1; None: 1 everywhere.
        frames: F.
        size: (h, w) of the latents.
        pose: what is added after the first convolution, (B x F, C, h, w).
        features: filled in by the pass: the deepest features, (B x F, C, h', w').
    """

    tokens: dict[str, torch.Tensor]
    mask: torch.Tensor | None
    frames: int
    size: tuple[int, int]
    resize: str
    pose: torch.Tensor
    features: torch.Tensor | None = None
    _masks: dict[int, torch.Tensor] = field(default_factory=dict)

    def site_mask(self, sites: int) -> torch.Tensor | None:
        """The mask over the sites of a block with that many, (B x F, sites, 1)."""
        if self.mask is None:
            return None
        if sites not in self._masks:
            batch, frames = self.mask.shape[:2]
            kind = {"align_corners": False, "antialias": True} if self.resize == "bilinear" else {}
            grid = grid_of(sites, self.size)
            small = F.interpolate(self.mask.flatten(0, 1), grid, mode=self.resize, **kind)
            small = small.reshape(batch, frames, sites, 1).expand(-1, self.frames, -1, -1)
            self._masks[sites] = small.flatten(0, 1)
        return self._masks[sites]


def grid_of(sites: int, size: tuple[int, int]) -> tuple[int, int]:
    """The grid with that many sites, reached from `size` by halvings that round up.

    Raises:
        InputError: there is none.
    """
    height, width = size
    while height * width > sites:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != sites:
        raise InputError(f"no level of a {size[0]} x {size[1]} latent has {sites} sites")
    return height, width


class ContextSlot:
    """Where a forward pass leaves its contexts for the attention layers within the UNet."""

    def __init__(self) -> None:
        self.current: Contexts | None = None

    @contextmanager
    def filled(self, contexts: Contexts) -> Iterator[None]:
        """Contexts are there within the block, and those from before it after it."""
        before, self.current = self.current, contexts
        try:
            yield
        finally:
            self.current = before

    def get(self) -> Contexts:
        """The current pass's contexts."""
        if self.current is None:
            raise InputError("the UNet of DICE-Talk is called through its denoiser")
        return self.current


class ExtraContexts(nn.Module):
    """Keys and values of the added contexts of one attention layer."""

    def __init__(self, attention: Any, config: UNetConfig) -> None:
        super().__init__()
        width, inner = config.cross_attention_dim, attention.to_k.out_features
        self.to_k = nn.ModuleDict({slot: nn.Linear(width, inner, bias=False) for slot in SLOTS})
        self.to_v = nn.ModuleDict({slot: nn.Linear(width, inner, bias=False) for slot in SLOTS})

    @torch.no_grad()
    def copy_from(self, attention: Any) -> None:
        """Starts as the layer's own keys and values."""
        for own, base in ((self.to_k, attention.to_k), (self.to_v, attention.to_v)):
            for linear in own.values():
                linear.load_state_dict(base.state_dict())


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """Multi-head attention (B, N, C) x (B, M, C) -> (B, N, C), logits scaled by 1/sqrt(C / heads)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class ContextProcessor:
    """Stands in for diffusers' attention processor of one `attn2`. It owns no parameters: the denoiser does."""

    def __init__(self, extra: ExtraContexts, slot: ContextSlot, config: UNetConfig, *, temporal: bool) -> None:
        self.extra, self.slot, self.temporal = extra, slot, temporal
        self.scale, self.masked = config.extra_scale, config.mask_spatial and not temporal

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Spatial: hidden states (B x F, sites, C); temporal: (B x sites, F, C); the same comes back."""
        if encoder_hidden_states is None or attention_mask is not None:
            raise InputError("cross-attention of DICE-Talk needs a context and takes no attention mask")
        contexts, query = self.slot.get(), attn.to_q(hidden_states)
        base = _attend(query, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states), attn.heads)
        outputs = [self._added(attn.heads, query, slot, contexts) for slot in SLOTS]
        added = torch.stack(outputs).sum(0) * self.scale
        if self.masked and (mask := contexts.site_mask(query.shape[1])) is not None:
            added = added * mask.to(added.dtype)
        return attn.to_out[1](attn.to_out[0](base + added))

    def _added(self, heads: int, query: torch.Tensor, slot: str, contexts: Contexts) -> torch.Tensor:
        tokens = contexts.tokens[slot]
        if self.temporal:
            tokens = tokens.mean(1)
            key, value = self.extra.to_k[slot](tokens), self.extra.to_v[slot](tokens)
            # All sites of a clip share their context: as one long row of queries, it is mapped once, not once a site.
            rows = query.reshape(len(tokens), -1, query.shape[-1])
            return _attend(rows, key, value, heads).reshape(query.shape)
        # Mapped before it is repeated over frames.
        key, value = (
            x.expand(-1, contexts.frames, -1, -1).flatten(0, 1)
            for x in (self.extra.to_k[slot](tokens), self.extra.to_v[slot](tokens))
        )
        return _attend(query, key, value, heads)
