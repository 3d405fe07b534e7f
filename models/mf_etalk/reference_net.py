"""The ReferenceNet, and the self-attention that reads its features (Hallo; L. Hu et al., "Animate Anyone", 2024).

A second UNet of the base's build reads the portrait and the motion frames without noise, at step 0, with the face
identity for text. What enters each of its self-attentions, after the layer's own norm, is handed on:

    N_r = norm1(z_r)           of the portrait,   to the denoiser's self-attention of the same place
    N_m = norm1(z_m)           of motion frames,  to the motion module of the same place (`motion_module`)

and a frame x of the denoiser attends to itself and the portrait, with the weights that it has:

    z_x <- z_x + W_o Attn(W_q N_x, W_k [N_x; N_r], W_v [N_x; N_r])

As published the ReferenceNet has no last norm and no last convolution. What comes after its last self-attention's norm
reaches nothing and never learns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..diffusion.base import load_base
from ..diffusion.contexts import ContextSlot
from .config import UNetConfig
from .contexts import current
from .official import sd_unet

SELF_ATTENTION = ".transformer_blocks.0.attn1"
# Of the base's UNet, which the ReferenceNet is without.
LEFT_OUT = ("conv_norm_out.", "conv_out.")
UNREAD = ("attn1.", "norm2.", "attn2.", "norm3.", "ff.")


def self_attentions(unet: nn.Module) -> dict[str, Any]:
    """The UNet's self-attention layers by their place, say "down_blocks.0.attentions.1"."""
    named = {name: module for name, module in unet.named_modules() if name.endswith(SELF_ATTENTION)}
    return {name.removesuffix(SELF_ATTENTION): module for name, module in named.items()}


class _Keep:
    """Keeps what enters a self-attention. An object, so that a copied network keeps into its own store."""

    def __init__(self, store: dict[str, torch.Tensor], place: str) -> None:
        self.store, self.place = store, place

    def __call__(self, module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self.store[self.place] = given[0]


class ReferenceNet(nn.Module):
    """Latents of portrait and motion frames to features by place. Raises MissingPackage without diffusers."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.unet = sd_unet(config)
        self.unet.conv_norm_out = self.unet.conv_act = self.unet.conv_out = nn.Identity()
        self.kept: dict[str, torch.Tensor] = {}
        for place, attention in self_attentions(self.unet).items():
            attention.register_forward_pre_hook(_Keep(self.kept, place))
        for parameter in self.unread():
            parameter.requires_grad_(False)

    def unread(self) -> Iterator[nn.Parameter]:
        """Parameters after the last features that are handed on."""
        last = self.unet.up_blocks[-1].attentions[-1]
        yield from last.proj_out.parameters()
        for name, parameter in last.transformer_blocks[0].named_parameters():
            if name.startswith(UNREAD):
                yield parameter

    def load_base(self, state: Mapping[str, torch.Tensor], *, source: str) -> None:
        """Fills it from the base's published UNet. Raises WeightsError if that is not its names and shapes."""
        used = {name: value for name, value in state.items() if not name.startswith(LEFT_OUT)}
        load_base(self.unet, used, source=source)

    def forward(self, latents: torch.Tensor, identity: torch.Tensor) -> dict[str, torch.Tensor]:
        """One pass.

        Args:
            latents: (B, 1 + m, 4, h, w), the portrait first.
            identity: face identity tokens (B, N, D).

        Returns:
            Features by place, (B, 1 + m, sites, C).
        """
        count = latents.shape[1]
        text = identity.repeat_interleave(count, 0)
        step = torch.zeros(len(text), dtype=torch.int64, device=latents.device)
        try:
            self.unet(latents.flatten(0, 1), step, text, return_dict=False)
            return {place: value.unflatten(0, (-1, count)) for place, value in self.kept.items()}
        finally:
            self.kept.clear()


class ReferenceProcessor:
    """Stands in for diffusers' attention processor of a denoiser's self-attention. It owns no parameters."""

    def __init__(self, place: str, slot: ContextSlot) -> None:
        self.place, self.slot = place, slot

    def __call__(self, attn: Any, hidden_states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        """Hidden states (B x F, sites, C), the same comes back."""
        given = current(self.slot)
        keys, values = attn.to_k(hidden_states), attn.to_v(hidden_states)
        mask = None
        if self.place in given.references:
            portrait = given.references[self.place][:, 0]
            # Mapped before it is repeated over frames.
            repeated = [to(portrait).repeat_interleave(given.frames, 0) for to in (attn.to_k, attn.to_v)]
            keys, values = torch.cat([keys, repeated[0]], 1), torch.cat([values, repeated[1]], 1)
            mask = self._mask(given.seen, given.frames, hidden_states.shape[1], portrait.shape[1])
        query = attn.to_q(hidden_states)
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, keys, values))
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](found))

    def _mask(self, seen: torch.Tensor | None, frames: int, own: int, others: int) -> torch.Tensor | None:
        """Which keys a clip may attend to, bool (B x F, 1, 1, own + others); None: all."""
        if seen is None:
            return None
        open_ = seen.bool()[:, None].expand(-1, others)
        allowed = torch.cat([torch.ones(len(seen), own, dtype=torch.bool, device=seen.device), open_], 1)
        return allowed.repeat_interleave(frames, 0)[:, None, None]
