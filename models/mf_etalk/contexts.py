"""What one forward pass hands to the modules that hang on the UNet's hooks and attention processors."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..diffusion.contexts import Contexts, ContextSlot

BRANCHES = ("pose", "face", "lip")


@dataclass(kw_only=True)
class Pass(Contexts):
    """The shared contexts (`tokens` by stream, `frames`, `size`, `pose`), and Hallo's.

    Attributes:
        references: by place, the ReferenceNet's features of portrait and motion frames, (B, 1 + m, sites, C). Empty:
            plain self-attention, no motion frames.
        seen: (B,), whether a clip attends to its portrait; None: all do.
        regions: by branch, the mask as contexts, whose `site_mask` brings it to a level's grid.
        temporal: run audio and motion modules.
        weights: w_r of the audio branches, 1 where not given.
    """

    references: dict[str, torch.Tensor]
    seen: torch.Tensor | None
    regions: dict[str, Contexts]
    temporal: bool
    weights: dict[str, float] = field(default_factory=dict)

    def motion(self, place: str, size: torch.Size) -> torch.Tensor | None:
        """Features of the motion frames at a place with that grid, (B, m, C, h, w); None: there are none."""
        if place not in self.references or self.references[place].shape[1] == 1:
            return None
        return self.references[place][:, 1:].transpose(2, 3).unflatten(3, tuple(size))


def region_contexts(masks: torch.Tensor, frames: int, size: tuple[int, int], resize: str) -> dict[str, Contexts]:
    """Region masks (B, F or 1, 3, H, W) as one `Contexts` a branch."""
    parts = zip(BRANCHES, masks.split(1, 2), strict=True)
    return {branch: Contexts({}, part, frames, size, resize, pose=part) for branch, part in parts}


def current(slot: ContextSlot) -> Pass:
    """The pass under way. Raises InputError outside of one."""
    given = slot.get()
    assert isinstance(given, Pass)
    return given
