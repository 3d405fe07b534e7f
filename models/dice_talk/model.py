"""DICE-Talk's diffusion model: tokens, emotion bank, denoiser and discrimination head; its loss and its sampling.

W. Tan et al., "Disentangle Identity, Cooperate Emotion: Correlation-Aware Emotional Talking Portrait Generation", 2025:

    (15)  L = L_denoising + lambda L_cls + L_vq

Ablations of its Table 4 are configuration: `bank.mode` none or learnable_ca, `head.weight` 0, `deterministic_prior`.

A batch is a mapping of tensors, for B clips of F frames at 12.5 a second:

    pictures  (B, F, 3, H, W)       RGB in [-1, 1]; or `latents` (B, F, 4, h, w), scaled, already encoded
    portrait  (B, 3, H, W)          the reference; or `reference` (B, 4, h, w) and `image` (B, D), already encoded
    audio     (B, F, 10, 5, 384)    Whisper's states around each frame (`audio_tokens.whisper_windows`)
    mu, sigma (B, 256)              the embedder's prior of the emotion clip; sampling reads `mu` alone
    emotion   (B,)                  int64 class, -1 where it is not known
    mask      (B, F or 1, 1, H, W)  face mask in 0..1

Keys that training does not read (`clip_id`, say) may be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import nn

from ...core.errors import InputError
from .audio_tokens import WhisperTokens
from .denoiser import Denoiser, DenoiserInputs
from .denoiser_config import ConditionsConfig, DiceTalkConfig, GuidanceConfig
from .edm import Preconditioning, add_noise, draw_sigma, euler, schedule
from .embedder import Prior, randn
from .emotion_bank import Emotion, EmotionBank
from .emotion_head import EmotionHead, discrimination_loss
from .guidance import Branch, branch_weights, guided
from .tiny_vae import TinyEncoders, vae_loss
from .windows import decode_chunks, double_rate, over_windows

Batch = Mapping[str, Any]
Parts = dict[str, torch.Tensor | float | None]
CONDITIONS = ("audio", "image", "emotion")
USAGE_STEPS = 100  # after so many the bank's count of retrievals begins anew


class Encoders(Protocol):
    """Pictures to latents and back: `official.FrozenEncoders` or `tiny_vae.TinyEncoders`."""

    def encode(self, pictures: torch.Tensor, *, scaled: bool = True) -> torch.Tensor: ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor: ...

    def embed(self, pictures: torch.Tensor) -> torch.Tensor: ...


def prepare(batch: Batch, encoders: Encoders | None, config: DiceTalkConfig) -> dict[str, Any]:
    """The batch with `latents`, `reference` and `image`; what is there already stays.

    Raises:
        InputError: something has to be encoded and there are no encoders, or its source is missing.
    """
    done = dict(batch)
    sources = {"latents": "pictures", "reference": "portrait", "image": "portrait"}
    for key in [key for key in sources if key not in done and (key != "latents" or "pictures" in done)]:
        if encoders is None or sources[key] not in done:
            raise InputError(f"a batch of DICE-Talk needs '{key}', or '{sources[key]}' and encoders")
        if key == "latents":
            done[key] = encoders.encode(done["pictures"].flatten(0, 1)).unflatten(0, done["pictures"].shape[:2])
        elif key == "reference":
            done[key] = encoders.encode(done["portrait"], scaled=config.vae.scaled_reference)
        else:
            done[key] = encoders.embed(done["portrait"])
    return done


def need(batch: Batch, *keys: str) -> None:
    """Raises InputError if a key is missing."""
    if missing := [key for key in keys if key not in batch]:
        raise InputError(f"a batch of DICE-Talk lacks {', '.join(missing)}")


def draw_conditions(batch: int, config: ConditionsConfig, generator: torch.Generator | None) -> torch.Tensor:
    """Which of (audio, image, emotion) each clip keeps, bool (B, 3). One draw a clip: the drops exclude each other."""
    edges = torch.tensor([config.drop_audio, config.drop_image, config.drop_emotion, config.drop_all]).cumsum(0)
    place = generator.device if generator is not None else "cpu"
    kind = torch.bucketize(torch.rand(batch, generator=generator, device=place), edges.to(place), right=True)
    table = [[False, True, True], [True, False, True], [True, True, False], [False] * 3, [True] * 3]
    return torch.tensor(table, device=place)[kind]


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
        self.encoders = TinyEncoders(config) if config.vae.kind == "tiny" else None
        self.preconditioning = Preconditioning(config.diffusion)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> tuple[torch.Tensor, Parts]:
        """See `training_loss`."""
        return self.training_loss(batch, generator)

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
        if self._vae_alone():
            need(batch, "pictures")
            zero = batch["pictures"].new_zeros(())
            return self._add_vae(zero, {}, batch, generator)
        given = prepare(batch, self.encoders, self.config)
        need(given, "latents", "audio", "mu", "mask", *(["emotion"] if self.head is not None else []))
        latents: torch.Tensor = given["latents"]
        prior = self._draw_prior(given, generator)
        if self.training and self.config.bank.mode == "bank":
            self.bank.reseed(prior)  # before the codes are part of this step's graph
        keep = draw_conditions(len(latents), self.config.conditions, generator).to(latents.device)
        inputs, emotion = self._inputs(given, prior, keep, retrieve=None)
        sigma = draw_sigma(latents[:, 0, 0, 0, 0], self.config.diffusion, generator)
        noisy = add_noise(latents, sigma, generator)
        denoised, features = self._predict(noisy, sigma, inputs)
        loss_denoise = self.preconditioning.loss(denoised, latents, sigma).mean()
        parts: Parts = {"denoise": loss_denoise.detach(), "vq": emotion.loss.detach(), **self._usage(emotion)}
        return self._add_rest(loss_denoise + emotion.loss, parts, given, features, generator)

    def _vae_alone(self) -> bool:
        """Whether this step is one of the first, which train the VAE only."""
        return self.training and self.encoders is not None and self.encoders.vae.young

    def _usage(self, emotion: Emotion) -> Parts:
        """Counts a training step's retrievals; what the last ones were like."""
        if not self.training or emotion.indices is None:
            return {}
        usage = self.bank.usage
        if int(usage.counts.sum()) >= USAGE_STEPS * len(emotion.indices):
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
        return self._add_vae(total, parts, given, generator)

    def _add_vae(
        self, total: torch.Tensor, parts: Parts, given: Batch, generator: torch.Generator | None
    ) -> tuple[torch.Tensor, Parts]:
        """The VAE's own loss, while it is trained."""
        if self.encoders is not None and "pictures" in given and not self.encoders.vae.done:
            loss_vae, numbers = vae_loss(self.encoders.vae, given["pictures"].flatten(0, 1), generator)
            total = total + loss_vae
            parts |= numbers
        return total, parts

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

        def denoise(x: torch.Tensor, sigma: torch.Tensor, step: int) -> torch.Tensor:
            def window(part: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
                return guided(lambda branch: self._predict(part, sigma, at_frames(inputs[branch], index))[0], guidance)

            return over_windows(window, x, step, self.config.windows)

        return euler(denoise, noise, schedule(self.config.diffusion, steps))

    @torch.no_grad()
    def render(self, latents: torch.Tensor, encoders: Encoders | None = None) -> torch.Tensor:
        """Latents (B, F, 4, h, w) to uint8 RGB (B, 2F - 1, H, W, 3) at 25 frames a second (see `windows.double_rate`).

        Raises:
            InputError: neither this model nor the caller has encoders.
        """
        chosen = encoders or self.encoders
        if chosen is None:
            raise InputError("decoding needs encoders", hint="official.FrozenEncoders, filled with the base's weights")
        windows = self.config.windows
        videos = [double_rate(decode_chunks(chosen.decode, clip, windows), windows) for clip in latents]
        pixels = (torch.stack(videos).clamp(-1, 1) + 1) * 127.5
        return pixels.round().to(torch.uint8).movedim(2, -1)

    def _draw_prior(self, given: Batch, generator: torch.Generator | None) -> torch.Tensor:
        """Eq. 6, or its ablation."""
        if self.config.deterministic_prior:
            return given["mu"]
        need(given, "sigma")
        return Prior(given["mu"], given["sigma"]).sample(generator)

    def _branch_inputs(self, given: Batch, branch: Branch) -> DenoiserInputs:
        """Conditions of one branch of guidance."""
        held = {"none": [False] * 3, "reference": [False, True, False], "full": [True] * 3}[branch]
        keep = torch.tensor([held], device=given["mu"].device).expand(len(given["mu"]), -1)
        return self._inputs(given, given["mu"], keep, retrieve=False)[0]

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
