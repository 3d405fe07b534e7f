"""Every free choice of DICE-Talk's diffusion part, as a named value with its source.

Sources are worded as in `config` (paper, released, inferred, ours), and one more: `base` is Stable Video Diffusion
img2vid-xt-1-1, A. Blattmann et al., 2023, as its public configuration files and diffusers' pipeline have it. `sonic` in
a released value is X. Ji et al., 2024, whose code the released system builds on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from ...core.emotions import MEAD_EMOTIONS
from ...core.errors import ConfigError
from ..diffusion.config import (
    AudioTokensConfig,
    Drops,
    GuidanceConfig,
    PoseGuiderConfig,
    VaeConfig,
    WindowsConfig,
)
from ..diffusion.sources import chosen, fail, not_negative, positive
from .config import BankConfig

PRESETS = ("tiny", "full")
# Table 4: w/o emotion bank, w/o L_cls, learnable CA, w/o emotion prior (mu instead of a sample).
ABLATIONS = ("without_bank", "without_cls", "learnable_ca", "without_prior")
NORM_GROUPS = 32  # diffusers' SVD blocks normalise in this many groups of channels


@dataclass(frozen=True)
class UNetConfig:
    """The spatio-temporal UNet and what is added to its cross-attention (paper eq. 14)."""

    in_channels: int = chosen(8, "base", "noisy latents and the reference's, side by side")
    out_channels: int = chosen(4, "base", "channels of a latent")
    channels: tuple[int, ...] = chosen((320, 640, 1280, 1280), "base", "width of each level; each halves the grid")
    heads: tuple[int, ...] = chosen((5, 10, 20, 20), "base", "attention heads of each level")
    layers_per_block: int = chosen(2, "base", "residual blocks a level")
    cross_attention_dim: int = chosen(1024, "base", "width of tokens that cross-attention reads")
    time_id_dim: int = chosen(256, "base", "sinusoid width of each of the three time ids")
    frames: int = chosen(25, "base", "frames that the base was trained on at once")
    start: Literal["copy", "random"] = chosen("copy", "released", "how the added keys and values start")
    extra_scale: float = chosen(1.0, "paper eq. 14: a plain sum", "weight of the added attention outputs")
    mask_spatial: bool = chosen(True, "released", "multiply added outputs of spatial blocks by the face mask")
    mask_resize: Literal["area", "nearest", "bilinear"] = chosen(
        "area", "ours: a token's share of the face; the released code resizes too, the paper is silent", "mask to grid"
    )
    trained: Literal["all", "new"] = chosen(
        "all",
        "paper section 4.1: one stage from the base's spatial and temporal modules; `new` is section 3.3's wording",
        "which parameters learn: all, or only what is added to the base",
    )

    def __post_init__(self) -> None:
        positive(
            self, "in_channels", "out_channels", "layers_per_block", "cross_attention_dim", "time_id_dim", "frames"
        )
        if self.in_channels != 2 * self.out_channels:
            fail(self, "in_channels", "not twice out_channels: the reference's latent is concatenated")
        if len(self.heads) != len(self.channels) or len(self.channels) < 2:
            fail(self, "heads", "of another length than channels, or fewer than two levels")
        for width, heads in zip(self.channels, self.heads, strict=True):
            if width % NORM_GROUPS or width % heads:
                fail(self, "channels", f"not multiples of {NORM_GROUPS} and of the heads")


@dataclass(frozen=True)
class DiffusionConfig:
    """Preconditioning, noise levels of training and of sampling, loss weight.

    The default is that of the base, whose UNet cannot be read otherwise; `edm` is T. Karras et al., 2022, table 1.
    """

    parametrisation: Literal["svd", "edm"] = chosen("svd", "base", "see `edm.Preconditioning`")
    sigma_data: float = chosen(1.0, "base; 0.5 in EDM", "standard deviation that data is taken to have")
    log_mean: float = chosen(0.7, "base, its image-to-video training; -1.2 in EDM", "mean of ln sigma in training")
    log_std: float = chosen(1.6, "base, its image-to-video training; 1.2 in EDM", "its standard deviation")
    weight: Literal["edm", "epsilon"] = chosen(
        "edm", "EDM table 1, the framework that the paper names; `epsilon` is eq. 1 to the letter", "of the loss"
    )
    sigma_min: float = chosen(0.002, "base and EDM", "lowest noise level of sampling")
    sigma_max: float = chosen(700.0, "base; 80 in EDM", "highest noise level of sampling")
    rho: float = chosen(7.0, "base and EDM", "exponent of the schedule")
    temperature: float = chosen(
        1.0, "base and EDM: the noise as it was drawn", "on the starting noise; less is nearer to a mean video"
    )
    steps: int = chosen(25, "paper section 4.1", "denoising steps")

    def __post_init__(self) -> None:
        positive(self, "sigma_data", "log_std", "sigma_min", "rho", "steps")
        not_negative(self, "temperature")
        if self.sigma_max <= self.sigma_min:
            fail(self, "sigma_max", "not above sigma_min")
        if self.parametrisation == "svd" and self.sigma_data != 1:
            fail(self, "sigma_data", "but svd means 1")

    @classmethod
    def edm(cls, **changes: Any) -> Self:
        """EDM's own numbers."""
        values = {"parametrisation": "edm", "sigma_data": 0.5, "log_mean": -1.2, "log_std": 1.2, "sigma_max": 80.0}
        return replace(cls(**values), **changes)


@dataclass(frozen=True)
class ConditionsConfig:
    """Time ids, and how often a training clip goes without a condition. The drops exclude each other."""

    fps: float = chosen(12.5, "released", "first time id: every second frame of 25 fps")
    motion_bucket: float = chosen(8.0, "released", "second time id")
    second_bucket: float = chosen(16.0, "released: in the slot of the base's noise augmentation", "third time id")
    drop_audio: float = chosen(0.05, "paper section 4.1", "clips without audio")
    drop_image: float = chosen(0.05, "paper section 4.1", "clips without reference portrait")
    drop_emotion: float = chosen(0.05, "paper section 4.1", "clips without emotion prior")
    drop_all: float = chosen(0.05, "paper section 4.1", "clips without all three")
    drop_driving: float = chosen(
        0.0, "paper section 4.1 has none, though its guidance asks for such clips", "clips with the portrait alone"
    )
    absent: Literal["zero_inputs", "zero_tokens"] = chosen(
        "zero_inputs",
        "released: networks see zero Whisper states and a zero prior",
        "what stands for a condition that is not there; zero_tokens silences the added attention instead",
    )

    def __post_init__(self) -> None:
        _ = self.drops  # refuses what is no probability

    @property
    def drops(self) -> Drops:
        """For `diffusion.conditions.draw_conditions`, whose third condition is the emotion prior here."""
        return Drops(self.drop_audio, self.drop_image, self.drop_emotion, self.drop_all, self.drop_driving)


@dataclass(frozen=True)
class HeadConfig:
    """The emotion discrimination head (paper eq. 16)."""

    hidden: tuple[int, ...] = chosen((512, 256), "released", "widths between pooled features and classes")
    classes: int = chosen(
        len(MEAD_EMOTIONS),
        "paper: emotion categories, so MEAD's 8; the released head has 22, inferred: 7 in 3 intensities and neutral",
        "emotions told apart",
    )
    weight: float = chosen(0.1, "ours: lambda of eq. 15 is not stated", "lambda; 0 is Table 4, w/o L_cls")


@dataclass(frozen=True)
class DiceTalkConfig:
    """All of the diffusion part, and the bank that feeds it."""

    unet: UNetConfig = UNetConfig()
    pose: PoseGuiderConfig = field(default_factory=PoseGuiderConfig)
    audio: AudioTokensConfig = field(default_factory=AudioTokensConfig)
    diffusion: DiffusionConfig = DiffusionConfig()
    conditions: ConditionsConfig = ConditionsConfig()
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    windows: WindowsConfig = field(default_factory=WindowsConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    head: HeadConfig = HeadConfig()
    bank: BankConfig = field(default_factory=BankConfig)
    image_encoder: Literal["clip", "tiny"] = chosen("clip", "base: CLIP ViT-H/14, frozen", "portrait to one token")
    size: int = chosen(512, "released", "side of a picture, pixels")
    deterministic_prior: bool = chosen(
        False, "paper eq. 6; True is Table 4, w/o emotion prior", "train on mu instead of samples"
    )

    def __post_init__(self) -> None:
        width = self.unet.cross_attention_dim
        if self.audio.width != width or self.bank.token_width != width:
            raise ConfigError(f"tokens have to be {width} wide: audio {self.audio.width}, bank {self.bank.token_width}")
        if len(self.pose.channels) - 1 != self.vae.downsamples:
            raise ConfigError("the pose guider has to halve the grid as often as the VAE")
        if self.size % 2**self.vae.downsamples:
            raise ConfigError(f"size {self.size} does not divide by {2**self.vae.downsamples}")

    @property
    def latent_size(self) -> int:
        """Side of a latent."""
        return self.size // 2**self.vae.downsamples

    @classmethod
    def full(cls, **changes: Any) -> Self:
        """The size of the released system."""
        return replace(cls(), **changes)

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """For a CPU: 64-pixel pictures, a VAE that is trained along; reads the same data as `full`.

        Latents have 16 channels, a third of what 4 x 4 pixels have, and what is denoised is their difference from the
        portrait's. Noise and guidance are ours: small pictures are drowned by less noise, but motion is learnt
        where noise hides it; a denoiser that has seen a few clips cannot take all of it away again, so it starts at 0.1
        of it, and is not guided. Who guides it all the same asks for the portrait alone, which training therefore
        shows.
        """
        values: dict[str, Any] = {
            "unet": UNetConfig(
                in_channels=32,
                out_channels=16,
                channels=(32, 96),
                heads=(2, 6),
                layers_per_block=1,
                cross_attention_dim=64,
                time_id_dim=32,
                frames=8,
            ),
            "pose": PoseGuiderConfig(channels=(8, 16, 32)),
            "audio": AudioTokensConfig(hidden=64, tokens=4, width=64),
            "diffusion": DiffusionConfig.edm(log_mean=0.3, log_std=1.3, sigma_max=4.0, temperature=0.1, steps=8),
            "conditions": ConditionsConfig(drop_driving=0.05),
            "guidance": GuidanceConfig(reference=1.0, conditions=1.0),
            "windows": WindowsConfig(frames=8, shift=3),
            "vae": VaeConfig(kind="tiny", downsamples=2, channels=32, scaled_reference=True, residual=True),
            "head": HeadConfig(hidden=(32,)),
            "bank": BankConfig.tiny(dead_codes="reseed", retrieval="nearest"),
            "image_encoder": "tiny",
            "size": 64,
        }
        return replace(cls(**values), **changes)

    def ablated(self, name: str) -> Self:
        """A row of the paper's Table 4. Raises ConfigError for a name that is not in `ABLATIONS`."""
        if name not in ABLATIONS:
            raise ConfigError(f"no ablation {name!r} of DICE-Talk", hint=f"one of: {', '.join(ABLATIONS)}")
        if name == "without_cls":
            return replace(self, head=replace(self.head, weight=0.0))
        if name == "without_prior":
            return replace(self, deterministic_prior=True)
        return replace(self, bank=replace(self.bank, mode="none" if name == "without_bank" else "learnable_ca"))

    @classmethod
    def preset(cls, name: str) -> Self:
        """`tiny` or `full`. Raises ConfigError for another name."""
        if name not in PRESETS:
            raise ConfigError(f"no preset {name!r} of DICE-Talk", hint=f"one of: {', '.join(PRESETS)}")
        return cls.tiny() if name == "tiny" else cls.full()
