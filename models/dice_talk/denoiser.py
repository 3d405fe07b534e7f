"""DICE-Talk's denoiser: Stable Video Diffusion's UNet with audio, emotion, face mask and reference portrait.

W. Tan et al., 2025, sections 3.2 and 3.3; what the paper leaves to the code is in `denoiser_config`. The base is the
public `UNetSpatioTemporalConditionModel`, unchanged: what is added hangs on its hooks and attention processors, so that
`denoiser.unet` loads the base's state dict as it is, and all that is new is in `extras` and `pose`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ...core.errors import InputError
from ..diffusion.base import load_base
from ..diffusion.contexts import AddPose, Contexts, ContextSlot, Recompute
from ..diffusion.pose_guider import PoseGuider
from .cross_attention import ContextProcessor, ExtraContexts
from .denoiser_config import ConditionsConfig, DiceTalkConfig
from .official import svd_unet


@dataclass(frozen=True)
class DenoiserInputs:
    """The conditions of a forward pass, for B clips of F frames.

    Attributes:
        reference: latent of the portrait, (B, 4, h, w); zeros: none.
        image: the portrait's embedding, (B, D); zeros: none.
        audio: audio tokens, (B, F, N, D).
        emotion: emotion tokens, (B, N, D).
        mask: face masks in 0..1, (B, F or 1, 1, H, W), H = h x 2^k for a pose guider of k halvings.
    """

    reference: torch.Tensor
    image: torch.Tensor
    audio: torch.Tensor
    emotion: torch.Tensor
    mask: torch.Tensor


def time_ids(config: ConditionsConfig, batch: int, like: torch.Tensor) -> torch.Tensor:
    """(B, 3): frame rate, motion bucket, second bucket."""
    values = (config.fps, config.motion_bucket, config.second_bucket)
    return torch.tensor([values], dtype=like.dtype, device=like.device).expand(batch, -1)


# An object, as `diffusion.contexts.AddPose` is.
class _KeepFeatures:
    """Keeps what the deepest block gives."""

    def __init__(self, slot: ContextSlot) -> None:
        self.slot = slot

    def __call__(self, module: nn.Module, given: Any, output: torch.Tensor) -> None:
        self.slot.get().features = output


class Denoiser(nn.Module):
    """c_in x and the conditions to F and the deepest features. Raises MissingPackage without diffusers."""

    def __init__(self, config: DiceTalkConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = svd_unet(config.unet)
        self.pose = PoseGuider(config.pose, config.unet.channels[0])
        self.extras = nn.ModuleDict()
        self.slot = ContextSlot()
        for name, attention in self._attentions().items():
            extra = ExtraContexts(attention, config.unet)
            self.extras[name.replace(".", "_")] = extra
            temporal = "temporal_transformer_blocks" in name
            attention.set_processor(ContextProcessor(extra, self.slot, config.unet, temporal=temporal))
        self.unet.conv_in.register_forward_hook(AddPose(self.slot))
        self.unet.mid_block.register_forward_hook(_KeepFeatures(self.slot))
        if config.unet.start == "copy":
            self.copy_base_projections()
        if config.unet.trained == "new":
            self.unet.requires_grad_(False)

    def _attentions(self) -> dict[str, Any]:
        """Every cross-attention layer of the base, by name."""
        return {name: module for name, module in self.unet.named_modules() if name.endswith(".attn2")}

    def copy_base_projections(self) -> None:
        """Sets the added keys and values to the base's; to be called again when the base was filled."""
        for name, attention in self._attentions().items():
            extra = self.extras[name.replace(".", "_")]
            assert isinstance(extra, ExtraContexts)
            extra.copy_from(attention)

    def load_base(self, state: Mapping[str, torch.Tensor], *, source: str) -> None:
        """Fills the base from its published state dict, and the added keys and values where they start as copies.

        Raises:
            WeightsError: names or shapes are not exactly those of the UNet.
        """
        load_base(self.unet, state, source=source)
        if self.config.unet.start == "copy":
            self.copy_base_projections()

    def checkpoint_activations(self) -> None:
        """Trades time for memory: activations are computed again in the backward pass."""
        self.unet.enable_gradient_checkpointing(Recompute(self.slot))

    def forward(
        self, latents: torch.Tensor, noise_level: torch.Tensor, inputs: DenoiserInputs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One pass.

        Args:
            latents: c_in x, (B, F, 4, h, w).
            noise_level: c_noise, (B,).
            inputs: the conditions.

        Returns:
            The network's output F (B, F, 4, h, w), and the deepest features (B, F, C, h', w').

        Raises:
            InputError: shapes do not fit.
        """
        contexts = self._contexts(latents, inputs)
        frames = latents.shape[1]
        read = torch.cat([latents, inputs.reference[:, None].expand(-1, frames, -1, -1, -1)], 2)
        ids = time_ids(self.config.conditions, len(latents), latents)
        with self.slot.filled(contexts):
            (output,) = self.unet(read, noise_level, inputs.image[:, None], ids, return_dict=False)
        if contexts.features is None:
            raise RuntimeError("the UNet's deepest block was not run")
        return output, contexts.features.unflatten(0, (-1, frames))

    def _contexts(self, latents: torch.Tensor, inputs: DenoiserInputs) -> Contexts:
        batch, frames, _, *size = latents.shape
        for name, length in (("audio", frames), ("mask", 1)):
            if getattr(inputs, name).shape[1] not in {length, frames}:
                raise InputError(f"{name} has {getattr(inputs, name).shape[1]} frames, the latents have {frames}")
        pose = self.pose(inputs.mask.flatten(0, 1)).unflatten(0, (batch, -1))
        if list(pose.shape[-2:]) != size:
            raise InputError(f"masks of {tuple(inputs.mask.shape[-2:])} do not fit latents of {tuple(size)}")
        return Contexts(
            tokens={"audio": inputs.audio, "emotion": inputs.emotion[:, None]},
            mask=inputs.mask,
            frames=frames,
            size=(size[0], size[1]),
            resize=self.config.unet.mask_resize,
            pose=pose.expand(-1, frames, -1, -1, -1).flatten(0, 1),
        )
