"""AU-guided expression decoupling: action unit intensities to expression tokens. Inferred from the paper's outline.

"AU-guided local expression disentanglement with residual encoding" is all that the paper's text tells. Here, for the
intensities a (17 units a frame) of a person whose neutral face has n:

    r   = (a - n) / scale                       what differs from the person's own neutral face; 0 for unread units
    h   = W_in r_g                              for each half g of the face by itself
    h  <- h + W_2 silu(W_1 N(h))                residual blocks
    t_g = N( W_out N(h) )                       tokens of the frame

Upper-face units (1, 2, 4, 5, 6, 7, 9, 45) and lower-face units (10, 12, 14, 15, 17, 20, 23, 25, 26) never meet here, so
that an edit of the one half leaves the other's tokens as they were. Which branch reads them is `fusion`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...core.errors import InputError
from .config import LOWER_AUS, UPPER_AUS, AuConfig, au_columns


@dataclass(frozen=True)
class AuTokens:
    """Tokens of each half of the face, (B, F, n, D)."""

    upper: torch.Tensor
    lower: torch.Tensor


def identity_neutral(intensities: np.ndarray, neutral: np.ndarray | None = None) -> np.ndarray:
    """A person's neutral intensities.

    Args:
        intensities: (T, 17), all frames that there are of the person; NaN where there was no face.
        neutral: bool (T,), frames of clips that are labelled neutral.

    Returns:
        float32 (17,): the mean over neutral frames. Without any, each unit's median (ours: most units rest most of the
        time).

    Raises:
        InputError: another number of units, or one without a single value.
    """
    names = au_columns()
    if intensities.ndim != 2 or intensities.shape[1] != len(names):
        raise InputError(f"AU intensities are {intensities.shape}, not (T, {len(names)})", hint=", ".join(names))
    seen = np.isfinite(intensities)
    known = np.where(seen, intensities, np.nan)
    if missing := [name for place, name in enumerate(names) if not seen[:, place].any()]:
        raise InputError(f"no value of {', '.join(missing)} in {len(intensities)} frames")
    if neutral is not None and seen[neutral].any(0).all():
        return np.asarray(np.nanmean(known[neutral], axis=0, dtype=np.float64), np.float32)
    return np.asarray(np.nanmedian(known, axis=0), np.float32)


class ResidualBlock(nn.Module):
    """h + W_2 silu(W_1 N(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.second(F.silu(self.first(self.norm(h))))


class ResidualEncoder(nn.Module):
    """Residual intensities (..., units) of one half of the face to tokens (..., n, D)."""

    def __init__(self, units: int, config: AuConfig) -> None:
        super().__init__()
        self.shape = (config.tokens, config.width)
        self.first = nn.Linear(units, config.hidden)
        self.blocks = nn.Sequential(*(ResidualBlock(config.hidden) for _ in range(config.blocks)))
        self.norm, self.last = nn.LayerNorm(config.hidden), nn.Linear(config.hidden, config.tokens * config.width)
        self.token_norm = nn.LayerNorm(config.width)

    def forward(self, residual: torch.Tensor) -> torch.Tensor:
        h = self.blocks(self.first(residual))
        return self.token_norm(self.last(self.norm(h)).unflatten(-1, self.shape))


class AuGuidance(nn.Module):
    """Intensities to the tokens of both halves."""

    def __init__(self, config: AuConfig) -> None:
        super().__init__()
        self.config = config
        self.upper = ResidualEncoder(len(UPPER_AUS), config)
        self.lower = ResidualEncoder(len(LOWER_AUS), config)

    def forward(self, aus: torch.Tensor, neutral: torch.Tensor | None) -> AuTokens:
        """One pass.

        Args:
            aus: (B, F, 17), in the order of `config.au_columns`.
            neutral: (B, 17), see `identity_neutral`; not read where the configuration says none.

        Raises:
            InputError: another number of units, a value that is not finite, or no neutral face where one is needed.
        """
        units = len(UPPER_AUS) + len(LOWER_AUS)
        if aus.shape[-1] != units:
            raise InputError(f"a batch has {aus.shape[-1]} AUs, not {units}", hint=", ".join(au_columns()))
        residual = aus
        if self.config.neutral == "identity":
            if neutral is None:
                raise InputError("a batch of MF-ETalk lacks au_neutral", hint="au_guidance.identity_neutral")
            residual = aus - neutral[:, None]
        if not bool(torch.isfinite(residual).all()):
            raise InputError("AU intensities are not finite", hint="leave out frames without a face")
        read = residual.new_tensor([number not in self.config.unread for number in (*UPPER_AUS, *LOWER_AUS)])
        upper, lower = (residual * read / self.config.scale).split([len(UPPER_AUS), len(LOWER_AUS)], -1)
        return AuTokens(self.upper(upper), self.lower(lower))
