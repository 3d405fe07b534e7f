"""MF-ETalk's denoiser: Stable Diffusion v1.5's UNet with Hallo's modules and what MF-ETalk adds to them.

    x -> conv_in (+ face locator) -> levels of [ residual block, spatial transformer, audio module, motion module ] -> v

- spatial transformer: the base's; its self-attention also reads the portrait (`reference_net`), its cross-attention the
  face identity tokens in place of text;
- audio module: `hierarchical_attention`, after each spatial transformer, in it the streams of `fusion`;
- motion module: `motion_module`, after each audio module, with the motion frames' features before the frames; at the
  deepest level, which has no transformers, after each residual block and without motion frames. (Hallo's code has
  these last ones, and passes them by where it recomputes activations.)

The base is diffusers' `UNet2DConditionModel`, unchanged, with frames for a batch: what is added hangs on its hooks and
processors, so that `denoiser.unet` loads the base's state dict as it is. In the image stage neither audio nor motion
modules run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...core.errors import InputError
from ..diffusion.base import load_base
from ..diffusion.contexts import AddPose, ContextSlot, Recompute
from ..diffusion.pose_guider import PoseGuider
from .au_guidance import AuTokens
from .config import MfEtalkConfig
from .contexts import Pass, current, region_contexts
from .hierarchical_attention import HierarchicalAttention
from .motion_module import MotionModule
from .official import sd_unet
from .reference_net import ReferenceProcessor, self_attentions


@dataclass(frozen=True)
class MfInputs:
    """The conditions of a forward pass, for B clips of F frames.

    Attributes:
        references: what `ReferenceNet` gave for portrait and motion frames.
        seen: (B,), 1 where a clip has its portrait and face mask, 0 where not.
        identity: face identity tokens, (B, N, D).
        mask: face masks in 0..1, (B, F or 1, 1, H, W), H = h x 2^k for a locator of k halvings.
        audio: audio tokens, (B, F, N, D); None in the image stage.
        aus: AU tokens; None without fusion.
        regions: masks of pose, face and lip in 0..1, (B, F or 1, 3, g, g); None in the image stage.
        weights: of the audio branches, 1 where not given.
    """

    references: dict[str, torch.Tensor]
    seen: torch.Tensor
    identity: torch.Tensor
    mask: torch.Tensor
    audio: torch.Tensor | None = None
    aus: AuTokens | None = None
    regions: torch.Tensor | None = None
    weights: dict[str, float] = field(default_factory=dict)


# An object, as `diffusion.contexts.AddPose` is.
class _AfterBlock:
    """Runs audio and motion module on what a spatial transformer or a residual block gives."""

    def __init__(
        self, slot: ContextSlot, place: str, audio: HierarchicalAttention | None, motion: MotionModule
    ) -> None:
        self.slot, self.place, self.audio, self.motion = slot, place, audio, motion
        self.recompute: Recompute | None = None

    def __call__(self, module: nn.Module, given: Any, output: Any) -> Any:
        if not current(self.slot).temporal:
            return output
        x = output[0] if isinstance(output, tuple) else output
        x = self._run(x) if self.recompute is None else self.recompute(self._run, x)
        return (x, *output[1:]) if isinstance(output, tuple) else x

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        given = current(self.slot)
        if self.audio is None:
            return self.motion(x, given.frames)
        return self.motion(self.audio(x, given), given.frames, given.motion(self.place, x.shape[-2:]))


def block_places(unet: Any) -> dict[str, tuple[nn.Module, bool]]:
    """Where modules go: by name the submodule that they follow, and whether it is a spatial transformer."""
    found: dict[str, tuple[nn.Module, bool]] = {}
    blocks = {f"down_blocks.{i}": block for i, block in enumerate(unet.down_blocks)}
    blocks |= {"mid_block": unet.mid_block}
    blocks |= {f"up_blocks.{i}": block for i, block in enumerate(unet.up_blocks)}
    for name, block in blocks.items():
        attends = hasattr(block, "attentions")
        kind = "attentions" if attends else "resnets"
        found |= {f"{name}.{kind}.{i}": (module, attends) for i, module in enumerate(getattr(block, kind))}
    return found


class Denoiser(nn.Module):
    """x_t and the conditions to the velocity. Raises MissingPackage without diffusers."""

    def __init__(self, config: MfEtalkConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = sd_unet(config.unet)
        self.locator = PoseGuider(config.locator, config.unet.channels[0])
        self.audio_modules, self.motion_modules = nn.ModuleDict(), nn.ModuleDict()
        self.slot = ContextSlot()
        self.after: list[_AfterBlock] = []
        for place, attention in self_attentions(self.unet).items():
            attention.set_processor(ReferenceProcessor(place, self.slot))
        for place, (module, attends) in block_places(self.unet).items():
            self._hang(place, module, attends=attends)
        self.unet.conv_in.register_forward_hook(AddPose(self.slot))

    def _hang(self, place: str, module: Any, *, attends: bool) -> None:
        channels = module.config.in_channels if attends else module.out_channels
        key = place.replace(".", "_")
        motion, audio = MotionModule(channels, self.config.motion), None
        self.motion_modules[key] = motion
        if attends:
            audio = HierarchicalAttention(place, channels, self.config)
            self.audio_modules[key] = audio
        hook = _AfterBlock(self.slot, place, audio, motion)
        self.after.append(hook)
        module.register_forward_hook(hook)

    def load_base(self, state: Mapping[str, torch.Tensor], *, source: str) -> None:
        """Fills the base from its published state dict. Raises WeightsError if names or shapes are not exactly its."""
        load_base(self.unet, state, source=source)

    def checkpoint_activations(self) -> None:
        """Trades time for memory: activations are computed again in the backward pass."""
        recompute = Recompute(self.slot)
        self.unet.enable_gradient_checkpointing(recompute)
        for hook in self.after:
            hook.recompute = recompute

    def forward(self, latents: torch.Tensor, step: torch.Tensor, inputs: MfInputs, *, temporal: bool) -> torch.Tensor:
        """One pass.

        Args:
            latents: x_t, (B, F, 4, h, w).
            step: t, int64 (B,).
            inputs: the conditions.
            temporal: run audio and motion modules.

        Returns:
            The velocity, (B, F, 4, h, w).

        Raises:
            InputError: shapes do not fit, or a condition is missing.
        """
        frames = latents.shape[1]
        given = self._pass(latents, inputs, temporal=temporal)
        text, steps = (value.repeat_interleave(frames, 0) for value in (inputs.identity, step))
        with self.slot.filled(given):
            (output,) = self.unet(latents.flatten(0, 1), steps, text, return_dict=False)
        return output.unflatten(0, (-1, frames))

    def _pass(self, latents: torch.Tensor, inputs: MfInputs, *, temporal: bool) -> Pass:
        batch, frames, _, *size = latents.shape
        place = self.locator(inputs.mask.flatten(0, 1)).unflatten(0, (batch, -1))
        if list(place.shape[-2:]) != size or place.shape[1] not in {1, frames}:
            raise InputError(f"masks {tuple(inputs.mask.shape)} do not fit latents {tuple(latents.shape)}")
        place = place * inputs.seen.to(place.dtype).reshape(-1, 1, 1, 1, 1)
        grid = (size[0], size[1])
        return Pass(
            tokens=self._tokens(inputs, frames) if temporal else {},
            mask=None,
            frames=frames,
            size=grid,
            resize=self.config.face.mask_resize,
            pose=place.expand(-1, frames, -1, -1, -1).flatten(0, 1),
            references=inputs.references,
            seen=inputs.seen,
            regions=self._regions(inputs, frames, grid) if temporal else {},
            temporal=temporal,
            weights=inputs.weights,
        )

    def _tokens(self, inputs: MfInputs, frames: int) -> dict[str, torch.Tensor]:
        tokens = {"audio": inputs.audio}
        if self.config.fusion.on:
            tokens |= {"upper": inputs.aus and inputs.aus.upper, "lower": inputs.aus and inputs.aus.lower}
        found: dict[str, torch.Tensor] = {}
        for name, value in tokens.items():
            if value is None or value.shape[1] != frames:
                have = "no" if value is None else f"{value.shape[1]} frames of"
                raise InputError(f"{have} {name} tokens for latents of {frames} frames")
            found[name] = value
        return found

    def _regions(self, inputs: MfInputs, frames: int, size: tuple[int, int]) -> dict[str, Any]:
        if inputs.regions is None or inputs.regions.shape[1] not in {1, frames}:
            raise InputError(f"no region masks for latents of {frames} frames")
        return region_contexts(inputs.regions, frames, size, self.config.face.mask_resize)
