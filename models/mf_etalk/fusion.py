"""Multimodal hierarchical fusion: what each branch of the audio attention reads beside the audio. Inferred.

The paper names the module and not its equations. Row a of its Table 3 is Hallo, whose branch r of {pose, face, lip}
attends to audio tokens t alone, y_r = A_r(x, t). Here, with the streams S_r of a branch

    pose: motion frames        face: upper-face and lower-face AU tokens        lip: none (or lower-face AU tokens)

    a_s = A_rs(x, t_s)                             attention of the visual features x to the stream's tokens
    g_s = tanh(gamma_rs) sigma(W_rs [x; a_s])      a gate that visual features and stream decide on at each site
    y_r = A_r(x, t) + sum over s in S_r of g_s a_s

so that all four streams meet: audio, visual (queries and gates), AU and motion. gamma (one number a channel) starts at
0, and the system as Hallo. The added attentions have no biases: tokens of zeros, as for a condition that is dropped,
add exactly nothing.
"""

from __future__ import annotations

import torch
from torch import nn

from ..diffusers_import import import_extra
from .config import AuConfig, FusionConfig


def streams_of(branch: str, au: AuConfig, *, motion: bool) -> tuple[str, ...]:
    """Names of the streams that a branch reads beside the audio."""
    if branch == "pose":
        return ("motion",) if motion else ()
    if branch == "face":
        return ("upper", "lower")
    return ("lower",) if au.lower == "face_and_lip" else ()


class GatedStream(nn.Module):
    """g_s a_s for one stream. Raises MissingPackage without diffusers."""

    def __init__(self, width: int, heads: int, context: int, config: FusionConfig) -> None:
        super().__init__()
        attention = import_extra("diffusers.models.attention_processor").Attention
        self.attention = attention(width, context, heads=heads, dim_head=width // heads, out_bias=False)
        self.select = nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), config.gate_start))

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """x (N, sites, C) and tokens (N, n, D) to (N, sites, C)."""
        found = self.attention(x, encoder_hidden_states=tokens)
        return self.gamma.tanh() * self.select(torch.cat([x, found], -1)).sigmoid() * found


class BranchFusion(nn.Module):
    """y_r from A_r(x, t) and the branch's streams."""

    def __init__(self, width: int, heads: int, contexts: dict[str, int], config: FusionConfig) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(
            {name: GatedStream(width, heads, context, config) for name, context in contexts.items()}
        )

    def forward(self, heard: torch.Tensor, x: torch.Tensor, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """heard, x (N, sites, C), tokens by stream (N, n, D); a stream without tokens is left out."""
        for name, stream in self.streams.items():
            if name in tokens:
                heard = heard + stream(x, tokens[name])
        return heard
