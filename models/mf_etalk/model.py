"""MF-ETalk: its loss in two stages and its sampling.

X. Wang et al., 2025, on top of Hallo (M. Xu et al., 2024). What is known of either, and what is inferred, stands in
`config` and in each module. With v' the predicted velocity, w_t the min-SNR weight and L_emo `emotion_loss`:

    L = mean over clips of w_t |v' - v_t|^2 + lambda L_emo

image stage     frames by themselves, no audio and no motion modules: both UNets, face locator and identity tokens learn
temporal stage  clips with their motion frames: motion modules, audio modules, audio and AU tokens learn; L_emo counts

Both stages have the same tensors, so that one's checkpoint starts the other. Ablations of Table 3 are configuration
(`MfEtalkConfig.ablated`). Batches: see `batch`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ...core.errors import ConfigError, InputError
from ..diffusion.audio_tokens import WhisperTokens
from ..diffusion.batch import Batch, Encoders, Parts, render
from ..diffusion.conditions import branch_conditions, draw_conditions
from ..diffusion.config import GuidanceConfig, WindowsConfig
from ..diffusion.guidance import Branch, branch_weights, guided
from ..diffusion.tensors import randn
from ..diffusion.tiny_vae import TinyEncoders, add_vae_loss, arrival, as_seen, departure, vae_alone
from .au_guidance import AuGuidance, AuTokens
from .batch import conditions_of, need, prepare
from .chaining import clip_bounds, first_motion, next_motion
from .config import MfEtalkConfig, UNetConfig
from .denoiser import Denoiser, MfInputs
from .diffusion import VPrediction, draw_noise
from .emotion_loss import ExpressionJudge, consistency, crop_by_mask, looked_at
from .official import decode_through
from .reference_net import ReferenceNet

AS_DECODED = WindowsConfig(interpolation="none")  # frames come at 25 a second


class IdentityTokens(nn.Module):
    """An identity embedding (B, D) to tokens (B, N, width): a linear map, and a norm of each token (Hallo)."""

    def __init__(self, embedding: int, tokens: int, unet: UNetConfig) -> None:
        super().__init__()
        self.shape = (tokens, unet.cross_attention_dim)
        self.linear = nn.Linear(embedding, tokens * unet.cross_attention_dim)
        self.norm = nn.LayerNorm(unet.cross_attention_dim)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(embedding).unflatten(-1, self.shape))


def tiny_encoders(config: MfEtalkConfig) -> TinyEncoders:
    """A small VAE, whose latents have unit spread, and the small encoder of identities."""
    return TinyEncoders(config.tiny_vae, config.unet.latent_channels, 1.0, config.face.embedding)


@dataclass(frozen=True)
class Noised:
    """A training step's draw: x_t, t, and the true x_0 and v_t."""

    x: torch.Tensor
    step: torch.Tensor
    clean: torch.Tensor
    velocity: torch.Tensor


class MfEtalk(nn.Module):
    """The trained part. `model(batch)` is `model.training_loss(batch)`, so that wrappers see every forward pass.

    With `vae` tiny it holds its own encoders; else frozen ones stand outside. The expression recogniser always does.
    """

    def __init__(self, config: MfEtalkConfig) -> None:
        super().__init__()
        self.config = config
        self.reference = ReferenceNet(config.unet)
        self.denoiser = Denoiser(config)
        self.identity = IdentityTokens(config.face.embedding, config.face.tokens, config.unet)
        self.audio = WhisperTokens(config.audio.layers)
        self.aus = AuGuidance(config.au) if config.fusion.on else None
        self.encoders = tiny_encoders(config) if config.vae == "tiny" else None
        self.training_noise = VPrediction(config.diffusion, config.diffusion.train_schedule)
        self.sampling_noise = VPrediction(config.diffusion, config.diffusion.sample_schedule)
        self._freeze()

    def _freeze(self) -> None:
        """Only what this stage trains learns."""
        frozen = [self.denoiser.audio_modules, self.denoiser.motion_modules, self.audio, self.aus]
        early = [self.reference, self.denoiser.unet, self.denoiser.locator, self.identity]
        if self.encoders is not None:
            early += [self.encoders.image, self.encoders.embedding]
        if self.config.stage == "temporal":
            frozen = early if self.config.temporal_trains == "new" else []
        for module in frozen:
            if module is not None:
                module.requires_grad_(False)

    def forward(self, batch: Batch, generator: torch.Generator | None = None, **outside: Any) -> tuple[Any, Parts]:
        """See `training_loss`."""
        return self.training_loss(batch, generator, **outside)

    def enable_gradient_checkpointing(self) -> None:
        """Trades time for memory, see `Denoiser.checkpoint_activations`."""
        self.denoiser.checkpoint_activations()

    def training_loss(
        self,
        batch: Batch,
        generator: torch.Generator | None = None,
        *,
        judge: ExpressionJudge | None = None,
        encoders: Encoders | None = None,
    ) -> tuple[torch.Tensor, Parts]:
        """The loss of this stage for a batch, and the VAE's own loss where it is trained along.

        Args:
            batch: see `batch`.
            generator: of every draw: drops, starts, step, noise.
            judge: the recogniser, where the emotion loss counts.
            encoders: of `full`, whose decoder that loss goes through.

        Returns:
            The loss, and parts of it for the log; None: does not apply to this batch or configuration.

        Raises:
            InputError: a part of the batch is missing, or shapes do not fit.
            ConfigError: the emotion loss counts, and there is no judge or no decoder.
        """
        if vae_alone(self.encoders, training=self.training):
            need(batch, "pictures")
            return add_vae_loss(batch["pictures"].new_zeros(()), {}, self.encoders, batch, generator)
        given = prepare(batch, encoders or self.encoders)
        need(given, "latents", *conditions_of(self.config))
        clean = departure(self.encoders, given["latents"], given["reference"])
        keep = draw_conditions(len(clean), self.config.drops.of(self.config.stage), generator).to(clean.device)
        given = given | self._training_units(given, generator)
        inputs = self._inputs(given, self._training_motion(given, generator), keep)
        noised = self._noised(clean, generator)
        velocity = self.denoiser(noised.x, noised.step, inputs, temporal=self._temporal)
        errors = as_seen(self.encoders, velocity - noised.velocity).square().flatten(1).mean(1)
        denoise = (self.training_noise.weight(noised.step).to(errors) * errors).mean()
        total, parts = self._add_emotion(denoise, noised, velocity, given, judge, encoders or self.encoders)
        parts |= {"denoise": denoise.detach(), "velocity_error": errors.detach().mean()}
        return add_vae_loss(total, parts, self.encoders, given, generator)

    @property
    def _temporal(self) -> bool:
        return self.config.stage == "temporal"

    def _noised(self, clean: torch.Tensor, generator: torch.Generator | None) -> Noised:
        algebra = self.training_noise
        step = algebra.draw(len(clean), generator, clean.device)
        noise = draw_noise(clean, self.config.diffusion, generator)
        return Noised(algebra.noisy(clean, noise, step), step, clean, algebra.velocity(clean, noise, step))

    def _training_units(self, given: Batch, generator: torch.Generator | None) -> dict[str, torch.Tensor]:
        """Intensities of a training batch with noise that is the same in all frames of a clip."""
        noise = self.config.au.noise
        if not noise or self.aus is None or not self._temporal:
            return {}
        aus: torch.Tensor = given["aus"]
        return {"aus": aus + noise * randn(torch.zeros_like(aus[:, :1]), generator)}

    def _training_motion(self, given: Batch, generator: torch.Generator | None) -> torch.Tensor | None:
        """Motion latents of a training batch, zeros for clips that are drawn as starts; None: none are read."""
        if not self._temporal or not self.config.motion.motion_frames:
            return None
        need(given, "motion_latents")
        motion: torch.Tensor = given["motion_latents"]
        wanted = self.config.motion.motion_frames
        if motion.shape[1] != wanted:
            raise InputError(f"a batch has {motion.shape[1]} motion frames, not {wanted}")
        place = generator.device if generator is not None else "cpu"
        draws = torch.rand(len(motion), generator=generator, device=place)
        held = (draws >= self.config.motion.start_probability).to(motion)
        return motion * held.reshape(-1, 1, 1, 1, 1)

    def _add_emotion(
        self,
        total: torch.Tensor,
        noised: Noised,
        velocity: torch.Tensor,
        given: Batch,
        judge: ExpressionJudge | None,
        encoders: Encoders | None,
    ) -> tuple[torch.Tensor, Parts]:
        """The emotion consistency loss of the clips with little noise."""
        settings = self.config.emotion
        if not settings.weight or not self._temporal:
            return total, {}
        if judge is None or encoders is None:
            raise ConfigError("the emotion loss needs a judge and encoders", hint="emotion_loss.load_judge")
        name, low = f"emotion_{judge.name}", noised.step < settings.low_noise
        if not bool(low.any()):
            return total, {name: None}
        frames = torch.tensor(looked_at(noised.clean.shape[1], settings), device=low.device)
        estimate = self.training_noise.clean(noised.x, velocity, noised.step)
        mask = given["mask"].expand(-1, noised.clean.shape[1], -1, -1, -1)[low][:, frames].flatten(0, 1)

        def whole(latents: torch.Tensor) -> torch.Tensor:
            return arrival(self.encoders, latents[low][:, frames], given["reference"][low])

        with torch.no_grad():
            true = encoders.decode(whole(noised.clean).flatten(0, 1))
            target = judge(crop_by_mask(true, mask, judge.size))
        made = decode_through(encoders, whole(estimate).flatten(0, 1))
        # The mean over all clips: a batch in which few are low counts for less.
        losses = consistency(judge(crop_by_mask(made, mask, judge.size)), target, settings)
        share = low.float().mean()
        return total + settings.weight * share * losses.mean(), {name: losses.detach().mean()}

    @torch.no_grad()
    def sample(
        self,
        batch: Batch,
        generator: torch.Generator | None = None,
        *,
        steps: int | None = None,
        guidance: GuidanceConfig | None = None,
        weights: dict[str, float] | None = None,
    ) -> torch.Tensor:
        """Latents of talking heads, as long as the audio; of one frame in the image stage.

        Args:
            batch: conditions of the whole video, without pictures and motion frames.
            generator: of the noise.
            steps, guidance: other than configured.
            weights: of the audio branches pose, face and lip; 1 where not given.

        Returns:
            Scaled latents (B, F, 4, h, w).
        """
        given = prepare(batch, self.encoders)
        need(given, *conditions_of(self.config))
        guidance, count = guidance or self.config.guidance, steps or self.config.diffusion.sample_steps
        motion = first_motion(given["reference"], self.config.motion)
        made: list[torch.Tensor] = []
        for start, end in clip_bounds(given["audio"].shape[1] if self._temporal else 1, self.config.motion.frames):
            part = at_frames(given, start, end)
            known = motion if self._temporal and motion.shape[1] else None
            inputs: dict[Branch, MfInputs] = {
                branch: self._branch(part, known, branch, weights or {}) for branch in branch_weights(guidance)
            }
            shape = given["reference"][:, None].expand(-1, end - start, -1, -1, -1)
            noise = self.config.diffusion.temperature * randn(shape, generator)
            found = self._denoised(noise, inputs, guidance, count)
            made.append(arrival(self.encoders, found, given["reference"]))
            motion = next_motion(motion, made[-1])
        return torch.cat(made, 1)

    def _denoised(
        self, noise: torch.Tensor, inputs: dict[Branch, MfInputs], guidance: GuidanceConfig, count: int
    ) -> torch.Tensor:
        def predict(x: torch.Tensor, step: int) -> torch.Tensor:
            level = torch.full((len(x),), step, dtype=torch.int64, device=x.device)
            return guided(lambda branch: self.denoiser(x, level, inputs[branch], temporal=self._temporal), guidance)

        return self.sampling_noise.ddim(predict, noise, count)

    def render(self, latents: torch.Tensor, encoders: Encoders | None = None) -> torch.Tensor:
        """Latents (B, F, 4, h, w) to uint8 RGB (B, F, H, W, 3) at 25 frames a second.

        Raises:
            InputError: neither this model nor the caller has encoders.
        """
        return render(latents, encoders or self.encoders, AS_DECODED)

    def _branch(self, given: Batch, motion: torch.Tensor | None, branch: Branch, weights: dict[str, float]) -> MfInputs:
        """Conditions of one branch of guidance: none, the portrait alone, or all."""
        keep = branch_conditions(branch, given["reference"])
        return replace(self._inputs(given, motion, keep), weights=weights)

    def _inputs(self, given: Batch, motion: torch.Tensor | None, keep: torch.Tensor) -> MfInputs:
        """Conditions with those left out that `keep` (B, 3: audio, image, AUs) says.

        Without its portrait a clip has no identity (zeros before the linear map), no face mask, and attends to itself
        alone; dropped audio and AUs are tokens of zeros. Motion frames stay, as in Hallo's sampling.
        """
        heard, seen, felt = keep.to(given["reference"].dtype).unbind(1)
        identity = self.identity(given["identity"] * seen[:, None])
        latents = given["reference"][:, None]
        if motion is not None:
            latents = torch.cat([latents, motion], 1)
        inputs = MfInputs(self.reference(latents, identity), seen, identity, given["mask"])
        if not self._temporal:
            return inputs
        audio = self.audio(given["audio"]) * heard[:, None, None, None]
        return replace(inputs, audio=audio, aus=self._au_tokens(given, felt), regions=given["regions"])

    def _au_tokens(self, given: Batch, felt: torch.Tensor) -> AuTokens | None:
        if self.aus is None:
            return None
        tokens, kept = self.aus(given["aus"], given.get("au_neutral")), felt[:, None, None, None]
        return AuTokens(tokens.upper * kept, tokens.lower * kept)


def at_frames(given: Batch, start: int, end: int) -> dict[str, Any]:
    """A prepared batch's conditions from `start` to before `end`."""
    part = dict(given)
    for key in ("audio", "aus", "mask", "regions"):
        if key in part and part[key].shape[1] > 1:
            part[key] = part[key][:, start:end]
    return part
