"""What one forward pass of a denoiser leaves for the hooks and attention layers within its UNet.

The UNets are public ones, unchanged: what a system adds to them hangs on their hooks and attention processors, which
find masks, tokens and features of the pass under way in a `ContextSlot`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ...core.errors import InputError


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
            raise InputError("a denoiser's UNet is called through its denoiser")
        return self.current


# Hooks are objects, not closures: copying a denoiser (for averaged weights) copies what they point to along.
class AddPose:
    """Adds the pose features to what the first convolution gives."""

    def __init__(self, slot: ContextSlot) -> None:
        self.slot = slot

    def __call__(self, module: nn.Module, given: Any, output: torch.Tensor) -> torch.Tensor:
        return output + self.slot.get().pose


class Recompute:
    """Activation checkpointing that finds the forward pass's contexts again in the backward pass."""

    def __init__(self, slot: ContextSlot) -> None:
        self.slot = slot

    def __call__(self, function: Callable[..., Any], *given: Any) -> Any:
        contexts = self.slot.get()

        def again(*values: Any) -> Any:
            with self.slot.filled(contexts):
                return function(*values)

        return checkpoint(again, *given, use_reentrant=False)
