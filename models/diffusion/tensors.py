"""Two things every diffusion step does to tensors: draw noise in their form, and multiply them clip by clip."""

from __future__ import annotations

import torch


def randn(like: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Standard normal numbers in the form of `like`, drawn where the generator lives: same numbers on any device."""
    device = generator.device if generator is not None else like.device
    return torch.randn(like.shape, generator=generator, device=device).to(like)


def along(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(B,) or () with axes of size one behind, so that it multiplies x (B, ...)."""
    return values.reshape((*values.shape, *[1] * (x.ndim - values.ndim))).to(x.dtype)
