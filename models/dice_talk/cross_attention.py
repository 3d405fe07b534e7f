"""Cross-attention with further contexts: what DICE-Talk adds to each `attn2` of Stable Video Diffusion's UNet.

Paper eq. 14, z_s = z_a + CA(Q(z_a), K(E_s), V(E_s)), as released: base, audio and emotion share one query, and their
outputs are summed before the output projection (as in IP-Adapter, H. Ye et al., 2023):

    out = W_o ( A(q, k_base, v_base) + m [ A(q, k_audio, v_audio) + A(q, k_emotion, v_emotion) ] )

In spatial blocks each frame attends to its own tokens and m is the face mask on the block's grid. In temporal blocks
all sites attend to the mean of the tokens over frames, and m is 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ...core.errors import InputError
from ..diffusion.contexts import Contexts, ContextSlot
from .denoiser_config import UNetConfig

SLOTS = ("audio", "emotion")


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
