"""Which conditions a clip keeps: drawn in training, fixed by the branch of guidance in sampling.

Both systems know three: the audio, the image (the reference portrait), and a third one, which is the emotion prior in
DICE-Talk and the AUs in MF-ETalk. Masks are bool (B, 3) in this order.
"""

from __future__ import annotations

import torch

from .config import Drops
from .guidance import Branch

KEPT: dict[Branch, tuple[bool, bool, bool]] = {
    "none": (False, False, False),
    "reference": (False, True, False),
    "full": (True, True, True),
}


def draw_conditions(batch: int, drops: Drops, generator: torch.Generator | None) -> torch.Tensor:
    """Which of the three each clip keeps, bool (B, 3). One draw a clip: the drops exclude each other."""
    edges = torch.tensor([drops.audio, drops.image, drops.third, drops.everything, drops.driving]).cumsum(0)
    place = generator.device if generator is not None else "cpu"
    kind = torch.bucketize(torch.rand(batch, generator=generator, device=place), edges.to(place), right=True)
    alone = [[False, True, True], [True, False, True], [True, True, False]]
    table = [*alone, *(list(KEPT[branch]) for branch in ("none", "reference", "full"))]
    return torch.tensor(table, device=place)[kind]


def branch_conditions(branch: Branch, like: torch.Tensor) -> torch.Tensor:
    """What each clip of a batch keeps in a branch of guidance, bool (B, 3), on the device of `like` (B, ...)."""
    return torch.tensor([KEPT[branch]], device=like.device).expand(len(like), -1)
