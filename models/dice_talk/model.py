"""DICE-Talk's diffusion model: tokens, emotion bank, denoiser and discrimination head; its loss and its sampling.

W. Tan et al., "Disentangle Identity, Cooperate Emotion: Correlation-Aware Emotional Talking Portrait Generation", 2025:

    (15)  L = L_denoising + lambda L_cls + L_vq

Ablations of its Table 4 are configuration: `bank.mode` none or learnable_ca, `head.weight` 0, `deterministic_prior`.

A batch is a mapping of tensors, for B clips of F frames at 12.5 a second:

    pictures  (B, F, 3, H, W)       RGB in [-1, 1]; or `latents` (B, F, 4, h, w), scaled, already encoded
    portrait  (B, 3, H, W)          the reference; or `reference` (B, 4, h, w) and `image` (B, D), already encoded
    audio     (B, F, 10, 5, 384)    Whisper's states around each frame (`diffusion.audio_tokens.whisper_windows`)
    mu, sigma (B, 256)              the embedder's prior of the emotion clip; sampling reads `mu` alone
    emotion   (B,)                  int64 class, -1 where it is not known
    mask      (B, F or 1, 1, H, W)  face mask in 0..1

Keys that training does not read (`clip_id`, say) may be there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..diffusion import batch as shared
from ..diffusion.audio_tokens import WhisperTokens
from ..diffusion.batch import Batch, Encoders, Parts
from ..diffusion.conditions import branch_conditions, draw_conditions
from ..diffusion.config import GuidanceConfig
from ..diffusion.guidance import Branch, branch_weights, guided
from ..diffusion.tensors import randn
from ..diffusion.tiny_vae import TinyEncoders, add_vae_loss, arrival, as_seen, departure, vae_alone
from ..diffusion.windows import over_windows
from .denoiser import Denoiser, DenoiserInputs
from .denoiser_config import DiceTalkConfig
from .edm import Preconditioning, add_noise, draw_sigma, euler, schedule
from .embedder import Prior
from .emotion_bank import Emotion, EmotionBank
from .emotion_head import EmotionHead, discrimination_loss

SYSTEM = "DICE-Talk"
CONDITIONS = ("audio", "image", "emotion")
USAGE_BATCHES = 100  # after so many the bank's count of retrievals begins anew


def prepare(batch: Batch, encoders: Encoders | None, config: DiceTalkConfig) -> dict[str, Any]:
    """The batch with `latents`, `reference` and `image`; see `diffusion.batch.prepare`."""
    scaled = config.vae.scaled_reference
    return shared.prepare(batch, encoders, system=SYSTEM, embedding="image", scaled_reference=scaled)


def need(batch: Batch, *keys: str) -> None:
    """Raises InputError if a key is missing."""
    shared.need(SYSTEM, batch, *keys)


def tiny_encoders(config: DiceTalkConfig) -> TinyEncoders:
    """The small VAE and image encoder of preset `tiny`."""
    unet = config.unet
    return TinyEncoders(config.vae, unet.out_channels, config.diffusion.sigma_data, unet.cross_attention_dim)


class DiceTalk(nn.Module):
    """The trained part. `model(batch)` is `model.training_loss(batch)`, so that wrappers see every forward pass.

    With `vae.kind` tiny it holds its own encoders; else frozen ones stand outside and batches come prepared.
    """

    def __init__(self, config: DiceTalkConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = WhisperTokens(config.audio)
        self.bank = EmotionBank(config.bank)
        self.denoiser = Denoiser(config)
        # The discriminator is no part of the loss without its weight, and would never see a gradient.
        self.head = EmotionHead(config.head, config.unet.channels[-1]) if config.head.weight else None
        self.encoders = tiny_encoders(config) if config.vae.kind == "tiny" else None
        self.preconditioning = Preconditioning(config.diffusion)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[torch.Tensor, Parts]:
        """See `training_loss`."""
        return self.training_loss(batch, generator)

    def enable_gradient_checkpointing(self) -> None:
        """Trades time for memory, see `Denoiser.checkpoint_activations`."""
        self.denoiser.checkpoint_activations()

    def training_loss(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[torch.Tensor, Parts]:
        """Eq. 15 for a batch, and the VAE's own loss where it is trained along.

        Args:
            batch: see the module; `mu`, `sigma`, `emotion` and pictures or latents included.
            generator: of every draw: drops, prior, noise level, noise.

        Returns:
            The loss, and parts of it for the log; None: does not apply to this batch or configuration.

        Raises:
            InputError: a part of the batch is missing, or shapes do not fit.
        """
        if vae_alone(self.encoders, training=self.training):
            need(batch, "pictures")
            zero = batch["pictures"].new_zeros(())
            return add_vae_loss(zero, {}, self.encoders, batch, generator)
        given = prepare(batch, self.encoders, self.config)
        need(given, "latents", "audio", "mu", "mask", *(["emotion"] if self.head is not None else []))
        latents = departure(self.encoders, given["latents"], given["reference"])
        prior = self._draw_prior(given, generator)
        if self.training and self.config.bank.mode == "bank":
            self.bank.reseed(prior)  # before the codes are part of this step's graph
        keep = draw_conditions(len(latents), self.config.conditions.drops, generator).to(latents.device)
        inputs, emotion = self._inputs(given, prior, keep, retrieve=None)
        sigma = draw_sigma(latents[:, 0, 0, 0, 0], self.config.diffusion, generator)
        noisy = add_noise(latents, sigma, generator)
        denoised, features = self._predict(noisy, sigma, inputs)
        made, wanted = (as_seen(self.encoders, one) for one in (denoised, latents))
        loss_denoise = self.preconditioning.loss(made, wanted, sigma).mean()
        parts: Parts = {"denoise": loss_denoise.detach(), "vq": emotion.loss.detach(), **self._usage(emotion)}
        return self._add_rest(loss_denoise + emotion.loss, parts, given, features, generator)

    def _usage(self, emotion: Emotion) -> Parts:
        """Counts a training batch's retrievals; what the last ones were like."""
        if not self.training or emotion.indices is None:
            return {}
        usage = self.bank.usage
        if int(usage.counts.sum()) >= USAGE_BATCHES * len(emotion.indices):
            usage.restart()
        usage.update(emotion.indices)
        return {"codes_used": usage.used(), "code_perplexity": usage.perplexity()}

    def _add_rest(
        self,
        total: torch.Tensor,
        parts: Parts,
        given: dict[str, Any],
        features: torch.Tensor,
        generator: torch.Generator | None,
    ) -> tuple[torch.Tensor, Parts]:
        """The terms that a configuration may lack: discrimination, and the VAE."""
        parts |= {"cls": None, "emotion_accuracy": None}
        if self.head is not None:
            loss_cls, right = discrimination_loss(self.head(features), given["emotion"])
            total = total + self.config.head.weight * loss_cls
            parts |= {"cls": None if right is None else loss_cls.detach(), "emotion_accuracy": right}
        return add_vae_loss(total, parts, self.encoders, given, generator)

    @torch.no_grad()
    def sample(
        self,
        batch: Batch,
        generator: torch.Generator | None = None,
        *,
        steps: int | None = None,
        guidance: GuidanceConfig | None = None,
    ) -> torch.Tensor:
        """Latents of talking heads, as long as the audio.

        Args:
            batch: `audio`, `mu`, `mask` and the portrait; see the module. Frames beyond a window's are denoised in
                windows.
            generator: of the starting noise.
            steps, guidance: other than configured.

        Returns:
            Scaled latents (B, F, 4, h, w); `render` makes pictures of them.
        """
        given = prepare(batch, self.encoders, self.config)
        need(given, "audio", "mu", "mask")
        guidance = guidance or self.config.guidance
        inputs = {branch: self._branch_inputs(given, branch) for branch in branch_weights(guidance)}
        reference, audio = given["reference"], given["audio"]
        noise = randn(reference[:, None].expand(-1, audio.shape[1], -1, -1, -1), generator)
        noise = noise * self.config.diffusion.temperature

        def denoise(x: torch.Tensor, sigma: torch.Tensor, step: int) -> torch.Tensor:
            def window(part: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
                return guided(lambda branch: self._predict(part, sigma, at_frames(inputs[branch], index))[0], guidance)

            return over_windows(window, x, step, self.config.windows)

        return arrival(self.encoders, euler(denoise, noise, schedule(self.config.diffusion, steps)), reference)

    def render(self, latents: torch.Tensor, encoders: Encoders | None = None) -> torch.Tensor:
        """Latents (B, F, 4, h, w) to uint8 RGB (B, 2F - 1, H, W, 3) at 25 frames a second.

        See `diffusion.windows.double_rate`.

        Raises:
            InputError: neither this model nor the caller has encoders.
        """
        return shared.render(latents, encoders or self.encoders, self.config.windows)

    def _draw_prior(self, given: Batch, generator: torch.Generator | None) -> torch.Tensor:
        """Eq. 6, or its ablation."""
        if self.config.deterministic_prior:
            return given["mu"]
        need(given, "sigma")
        return Prior(given["mu"], given["sigma"]).sample(generator)

    def _branch_inputs(self, given: Batch, branch: Branch) -> DenoiserInputs:
        """Conditions of one branch of guidance."""
        return self._inputs(
            given, given["mu"], branch_conditions(branch, given["mu"]), retrieve=self.config.bank.retrieval == "nearest"
        )[0]

    def _inputs(
        self, given: Batch, prior: torch.Tensor, keep: torch.Tensor, *, retrieve: bool | None
    ) -> tuple[DenoiserInputs, Emotion]:
        """Conditions with those left out that `keep` (B, 3) says, and what the bank gave."""
        kept = dict(zip(CONDITIONS, keep.to(prior.dtype).unbind(1), strict=True))
        at_inputs = self.config.conditions.absent == "zero_inputs"
        heard, felt = kept["audio"][:, None, None, None], kept["emotion"][:, None]
        emotion = self.bank(prior * felt if at_inputs else prior, retrieve=retrieve)
        audio = self.audio(given["audio"] * heard[..., None] if at_inputs else given["audio"])
        seen = kept["image"][:, None]
        inputs = DenoiserInputs(
            reference=given["reference"] * seen[..., None, None],
            image=given["image"] * seen,
            audio=audio if at_inputs else audio * heard,
            emotion=emotion.tokens if at_inputs else emotion.tokens * felt[..., None],
            mask=given["mask"],
        )
        return inputs, emotion

    def _predict(
        self, x: torch.Tensor, sigma: torch.Tensor, inputs: DenoiserInputs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """D(x; sigma) and the deepest features; sigma (B,) or a scalar."""
        scale = self.preconditioning
        level = scale.c_noise(sigma).expand(len(x))
        output, features = self.denoiser(scale.scaled(x, sigma), level, inputs)
        return scale.denoised(output, x, sigma), features


def at_frames(inputs: DenoiserInputs, index: torch.Tensor) -> DenoiserInputs:
    """The conditions of some frames."""
    mask = inputs.mask if inputs.mask.shape[1] == 1 else inputs.mask[:, index]
    return replace(inputs, audio=inputs.audio[:, index], mask=mask)
