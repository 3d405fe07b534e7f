"""Choices that DICE-Talk and MF-ETalk share the form of, as named values with their sources.

The defaults are DICE-Talk's, and sources are worded as there (paper, released, inferred, ours): see
`dice_talk.denoiser_config`; MF-ETalk's own values stand in `mf_etalk.config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...core.errors import ConfigError
from .sources import chosen, fail, finite, positive, within


@dataclass(frozen=True)
class PoseGuiderConfig:
    """The network from the face mask to what is added after the UNet's first convolution."""

    channels: tuple[int, ...] = chosen((16, 32, 96, 256), "released", "widths; each step between two halves the grid")
    in_channels: int = chosen(3, "inferred: sonic's mask is a white box in an RGB picture", "mask repeated to these")
    box_scale: float = chosen(1.1, "released", "the mask is the face box grown by this, white")


@dataclass(frozen=True)
class AudioTokensConfig:
    """Whisper's hidden states around a frame to tokens."""

    before: int = chosen(4, "released", "Whisper steps before the frame's own first one")
    after: int = chosen(6, "released", "Whisper steps from the frame's own first one on")
    steps_per_frame: int = chosen(2, "released: Whisper's 50 steps a second under 25 frames", "steps a frame")
    states: int = chosen(5, "released: Whisper-tiny's embedding output and four layers", "hidden states")
    state_width: int = chosen(384, "released: Whisper-tiny", "width of a hidden state")
    hidden: int = chosen(1024, "released", "width of the two hidden layers")
    tokens: int = chosen(32, "released", "tokens a frame")
    width: int = chosen(1024, "released: the UNet's cross-attention width", "width of a token")
    normalise: bool = chosen(True, "released", "LayerNorm on each token")

    @property
    def window(self) -> int:
        """Whisper steps that one frame sees."""
        return self.before + self.after

    @property
    def inputs(self) -> int:
        """Numbers in a frame's window: 10 x 5 x 384 = 19200 in the released system."""
        return self.window * self.states * self.state_width


@dataclass(frozen=True)
class GuidanceConfig:
    """u + reference (r - u) + conditions (f - r), see `guidance`."""

    reference: float = chosen(3.0, "released; sonic 2.0", "weight of the reference portrait")
    conditions: float = chosen(6.0, "released; sonic 7.5", "weight of audio and emotion on top of it")

    def __post_init__(self) -> None:
        finite(self, "reference", "conditions")


@dataclass(frozen=True)
class WindowsConfig:
    """Long videos."""

    frames: int = chosen(25, "released", "frames that are denoised at once")
    shift: int = chosen(7, "released", "frames by which windows move from step to step")
    overlap: int = chosen(0, "ours: not known from the released code; the shift already joins windows", "frames")
    decode_chunk: int = chosen(14, "released", "latents that are decoded at once")
    interpolation: Literal["linear", "none"] = chosen(
        "linear", "ours: the released system runs a learned interpolator (RIFE) from 12.5 to 25 fps", "between frames"
    )

    def __post_init__(self) -> None:
        positive(self, "frames", "decode_chunk")
        if not 0 <= self.overlap < self.frames:
            fail(self, "overlap", "not within 0..frames-1")


@dataclass(frozen=True)
class VaeConfig:
    """What turns pictures into latents: the base's frozen VAE, or a small one that is trained along."""

    kind: Literal["svd", "tiny"] = chosen("svd", "base", "svd: AutoencoderKLTemporalDecoder, frozen")
    downsamples: int = chosen(3, "base", "halvings of the grid between picture and latent")
    channels: int = chosen(128, "base", "width of the first level; tiny: of all")
    scale: float = chosen(0.18215, "base", "factor on latents that are denoised; tiny measures its own")
    scaled_reference: bool = chosen(False, "base: its pipeline concatenates unscaled latents", "scale the reference's")
    residual: bool = chosen(
        False,
        "ours, tiny only: a denoiser that has seen little learns what moves sooner than what stays",
        "denoise what differs from the portrait's latent; guidance then knows the portrait in every branch",
    )
    kl_weight: float = chosen(1e-4, "ours, tiny only", "of the divergence from a standard normal")
    momentum: float = chosen(0.05, "ours, tiny only", "of the running standard deviation of latents")
    alone_steps: int = chosen(0, "ours, tiny only", "first batches of training, which train the VAE alone")
    joint: bool = chosen(True, "ours, tiny only", "train the VAE along after these; False keeps it as it is then")

    def __post_init__(self) -> None:
        if self.alone_steps < 0 or not (self.joint or self.alone_steps):
            fail(self, "alone_steps", "and a VAE that is never trained is of no use")


@dataclass(frozen=True)
class Drops:
    """Shares of training clips that go without a condition. The five exclude each other.

    Raises:
        ConfigError: one is no probability, or their sum is none.
    """

    audio: float
    image: float
    third: float  # emotion prior or AUs
    everything: float
    driving: float = 0.0  # audio and the third: the portrait alone, as in guidance's middle branch

    def __post_init__(self) -> None:
        within(self, "audio", "image", "third", "everything", "driving")
        if self.audio + self.image + self.third + self.everything + self.driving > 1:
            raise ConfigError("the drops exclude each other and sum to more than 1")
