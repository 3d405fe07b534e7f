"""Every free choice of MF-ETalk, as a named value with its source.

X. Wang et al., "Multimodal Feature-Guided Audio-Driven Emotional Talking Face Generation", Electronics 14, 2025. Only
its outline, contributions and tables are known here; the text of its method is not. A source is one of

- `paper ...`: stated there;
- `hallo ...`: M. Xu et al., "Hallo", 2024, and its published code and configuration files: row a of the ablation;
- `base ...`: Stable Diffusion v1.5 (R. Rombach et al., 2022), as its public configuration files have it;
- `inferred ...`: the paper names the part and we had to work out what it is, or what follows from that;
- `ours ...`: nobody says anything; with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from ...core.errors import ConfigError
from ..diffusion.config import AudioTokensConfig, Drops, GuidanceConfig, PoseGuiderConfig, VaeConfig
from ..diffusion.sources import chosen, fail, not_negative, positive, within

PRESETS = ("tiny", "full")
# Table 3: a is Hallo as it is, b adds multimodal features (MFDF), c also the emotion consistency loss.
ABLATIONS = ("a", "b", "c")
NORM_GROUPS = 32  # Stable Diffusion's blocks normalise in this many groups of channels
Stage = Literal["image", "temporal"]
# Action units of the upper and the lower face, in the order of the AU tensors: upper ones first.
UPPER_AUS = (1, 2, 4, 5, 6, 7, 9, 45)
LOWER_AUS = (10, 12, 14, 15, 17, 20, 23, 25, 26)
# Lips part, jaw drop: what speech moves first of all.
SPEECH_AUS = (25, 26)
# What the columns of au-blendshape-proxy hardly tell from another unit: AU06 goes with AU12, AU10 with AU25.
FOLLOWING_AUS = (6, 10)


def au_columns() -> tuple[str, ...]:
    """Names of the AU columns in the order of a batch's `aus`: "AU01" ... "AU45", then "AU10" ... "AU26"."""
    return tuple(map(au_column, (*UPPER_AUS, *LOWER_AUS)))


def au_column(number: int) -> str:
    """Name of a unit's column: "AU06"."""
    return f"AU{number:02d}"


@dataclass(frozen=True)
class UNetConfig:
    """The denoising UNet and the ReferenceNet, which is built the same."""

    channels: tuple[int, ...] = chosen((320, 640, 1280, 1280), "base", "width of each level; each halves the grid")
    heads: int = chosen(8, "base", "attention heads of every level")
    layers_per_block: int = chosen(2, "base", "residual blocks a level")
    latent_channels: int = chosen(4, "base", "channels of a latent")
    cross_attention_dim: int = chosen(768, "base", "width of the tokens that stand where text stood")

    def __post_init__(self) -> None:
        positive(self, "heads", "layers_per_block", "latent_channels", "cross_attention_dim")
        if len(self.channels) < 2:
            fail(self, "channels", "fewer than two levels")
        for width in self.channels:
            if width % NORM_GROUPS or width % self.heads:
                fail(self, "channels", f"not multiples of {NORM_GROUPS} and of the heads")


@dataclass(frozen=True)
class MotionConfig:
    """The motion modules: attention over time at each site, as in AnimateDiff (Y. Guo et al., 2023)."""

    heads: int = chosen(8, "hallo, AnimateDiff", "attention heads")
    blocks: int = chosen(1, "hallo, AnimateDiff", "transformer blocks of a module; each attends twice")
    max_frames: int = chosen(32, "hallo, AnimateDiff", "sinusoidal positions: frames and motion frames together")
    frames: int = chosen(14, "hallo, training; its sampling takes 16", "frames that are denoised at once")
    motion_frames: int = chosen(2, "hallo", "frames from before the clip, which the ReferenceNet reads too")
    start_probability: float = chosen(0.05, "hallo", "training clips that get no motion frames, as if at a start")
    first: Literal["reference", "zeros"] = chosen(
        "reference",
        "hallo, sampling",
        "a first clip's motion frames: the portrait, or zero latents",
    )

    def __post_init__(self) -> None:
        positive(self, "heads", "blocks", "frames")
        within(self, "start_probability")
        if not 0 <= self.motion_frames <= self.frames:
            fail(self, "motion_frames", "not within 0..frames")
        if self.frames + self.motion_frames > self.max_frames:
            fail(self, "max_frames", "too few positions")


@dataclass(frozen=True)
class AudioConfig:
    """Speech features around a frame to audio tokens (`diffusion.audio_tokens.WhisperTokens`).

    Beyond a clip's ends features are zeros, as in DICE-Talk (ours; Hallo's sampling repeats the outermost ones).
    """

    kind: Literal["wav2vec2", "whisper"] = chosen(
        "wav2vec2", "hallo: 12 layers of wav2vec2-base at the frame rate; whisper is ours", "which features"
    )
    hidden: int = chosen(512, "hallo", "width of the two hidden layers")
    tokens: int = chosen(32, "hallo", "tokens a frame")
    width: int = chosen(768, "hallo", "width of a token")

    @property
    def layers(self) -> AudioTokensConfig:
        """Window and sizes: 5 frames of 12 x 768, or 10 Whisper steps of 5 x 384 as in DICE-Talk."""
        sizes: dict[str, Any] = {"hidden": self.hidden, "tokens": self.tokens, "width": self.width}
        if self.kind == "whisper":
            return AudioTokensConfig(**sizes)
        return AudioTokensConfig(before=2, after=3, steps_per_frame=1, states=12, state_width=768, **sizes)


@dataclass(frozen=True)
class FaceConfig:
    """Face identity tokens, the face locator, and the region masks."""

    embedding: int = chosen(512, "hallo: InsightFace's ArcFace embedding", "width of an identity embedding")
    tokens: int = chosen(4, "hallo", "identity tokens")
    locator: tuple[int, ...] = chosen((16, 32, 64, 128), "hallo", "widths of the network that reads the face mask")
    face_scale: float = chosen(1.2, "hallo, training", "growth of the face box")
    lip_scale: float = chosen(2.0, "hallo", "growth of the lip box")
    mask_grid: int = chosen(64, "hallo", "side of region masks before they are brought to each level's grid")
    face_blur: int = chosen(51, "hallo", "Gaussian kernel on the face mask")
    lip_blur: int = chosen(31, "hallo", "Gaussian kernel on the lip mask")
    mask_resize: Literal["area", "nearest", "bilinear"] = chosen(
        "bilinear", "hallo: its picture library's resize, which smooths when it shrinks", "masks to a level's grid"
    )

    def __post_init__(self) -> None:
        positive(self, "embedding", "tokens", "face_scale", "lip_scale", "mask_grid")
        positive(self, "face_blur", "lip_blur")
        for name in ("face_blur", "lip_blur"):
            if getattr(self, name) % 2 == 0 or getattr(self, name) // 2 >= self.mask_grid:
                fail(self, name, "not odd, or too wide for mask_grid")


@dataclass(frozen=True)
class AuConfig:
    """AU-guided expression decoupling: AU intensities to expression tokens."""

    hidden: int = chosen(256, "inferred: an MLP of the size of DICE-Talk's embedder", "width of the residual encoder")
    blocks: int = chosen(2, "inferred: residual encoding", "residual blocks of each encoder")
    tokens: int = chosen(4, "inferred: as many as identity tokens", "tokens a frame of each half of the face")
    width: int = chosen(768, "inferred: width of audio tokens", "width of a token")
    scale: float = chosen(1.0, "ours: the AU columns here lie in 0..1; 5 for OpenFace's", "intensity that counts as 1")
    most: float = chosen(1.0, "ours: the AU columns here lie in 0..1; 5 for OpenFace's", "the most an edit asks for")
    neutral: Literal["identity", "none"] = chosen(
        "identity", "inferred: residual to the same person's neutral face", "what is subtracted from intensities"
    )
    lower: Literal["face", "face_and_lip"] = chosen(
        "face",
        "inferred: expression acts on the face branch, lips follow the audio alone",
        "which branches read the lower face's tokens",
    )
    unread: tuple[int, ...] = chosen(
        (), "inferred: all units of the columns are read", "units held at neutral, or at 0 where none is read"
    )
    noise: float = chosen(0.0, "ours", "in training, standard deviation of what is added to each unit of a clip")

    def __post_init__(self) -> None:
        positive(self, "hidden", "blocks", "tokens", "width", "scale", "most")
        if unknown := set(self.unread) - {*UPPER_AUS, *LOWER_AUS}:
            known = ", ".join(map(str, sorted({*UPPER_AUS, *LOWER_AUS})))
            fail(self, "unread", f"and {', '.join(map(str, sorted(unknown)))} is no unit of: {known}")
        not_negative(self, "noise")


@dataclass(frozen=True)
class FusionConfig:
    """Multimodal hierarchical fusion: what the branches of the audio attention read beside the audio."""

    on: bool = chosen(True, "paper Table 3, MFDF; False is row a, Hallo as it is", "AU guidance and fusion")
    motion_grid: int = chosen(
        4, "ours: pooled, or a clip's motion frames alone would be 8192 keys", "side of pooled motion features"
    )
    gate_start: float = chosen(
        0.0, "ours: the system then starts as Hallo, which its weights come from", "gates before tanh, at the start"
    )

    def __post_init__(self) -> None:
        positive(self, "motion_grid")


@dataclass(frozen=True)
class EmotionLossConfig:
    """The emotion consistency loss."""

    weight: float = chosen(0.1, "inferred: the paper has such a loss; 0 is rows a and b of Table 3", "of the loss")
    network: Literal["auto", "hsemotion", "mini-xception"] = chosen(
        "auto",
        "paper: HSEmotionRecognizer; mini-xception is ours and stands in under its own name where weights are absent",
        "which network tells expressions apart; auto: the first of these that is there",
    )
    measure: Literal["kl", "cosine"] = chosen(
        "kl", "inferred: divergence of the recognised emotions; cosine compares features", "how two faces are compared"
    )
    low_noise: int = chosen(250, "inferred: later estimates of the picture are too blurred", "steps t below this count")
    frames: int = chosen(2, "ours: decoding is dear", "frames of a clip that are looked at, evenly spread")

    def __post_init__(self) -> None:
        positive(self, "low_noise", "frames")
        not_negative(self, "weight")


Schedule = Literal["linear", "scaled_linear"]


@dataclass(frozen=True)
class DiffusionConfig:
    """Noise schedule, loss weight and sampler."""

    steps: int = chosen(1000, "base", "training steps T of the schedule")
    beta_start: float = chosen(0.00085, "base", "first beta")
    beta_end: float = chosen(0.012, "base", "last beta, before rescaling")
    train_schedule: Literal["linear", "scaled_linear"] = chosen(
        "scaled_linear", "base; hallo's training code too", "betas in training"
    )
    sample_schedule: Literal["linear", "scaled_linear"] = chosen(
        "linear", "hallo: its sampler, other than its training", "betas in sampling; the same t means another noise"
    )
    zero_snr: bool = chosen(True, "hallo; S. Lin et al., 2024", "rescale so that the last step is pure noise")
    snr_gamma: float = chosen(5.0, "hallo; T. Hang et al., 2023", "gamma of min-SNR; 0 weighs all steps the same")
    snr_weight: Literal["released", "paper"] = chosen(
        "released",
        "hallo: min(SNR + 1, gamma) / (SNR + 1), which still trains the step of pure noise; paper is Hang et al.'s "
        "min(SNR, gamma) / (SNR + 1)",
        "weight of a step for v-prediction",
    )
    draws: int = chosen(1, "hallo: uniform", "a training step is the largest of so many; more see more noise")
    noise_offset: float = chosen(0.05, "hallo", "noise that is the same over a clip's channel")
    sample_steps: int = chosen(40, "hallo", "DDIM steps")
    temperature: float = chosen(1.0, "hallo: the noise as it was drawn", "on the starting noise, see DICE-Talk's")

    def __post_init__(self) -> None:
        positive(self, "beta_start", "sample_steps", "draws")
        not_negative(self, "snr_gamma", "noise_offset", "temperature")
        if self.steps < 2:
            fail(self, "steps", "fewer than two")
        if not self.beta_start <= self.beta_end < 1:
            fail(self, "beta_end", "not within beta_start..1")
        if self.sample_steps > self.steps:
            fail(self, "sample_steps", "more than the schedule has")


@dataclass(frozen=True)
class DropsConfig:
    """How often a training clip goes without a condition. Those of the temporal stage exclude each other."""

    image_stage: float = chosen(0.1, "hallo, first stage", "clips without portrait, in the image stage")
    image: float = chosen(0.05, "hallo", "clips without portrait")
    audio: float = chosen(0.05, "hallo", "clips without audio")
    au: float = chosen(0.05, "inferred: as often as the other conditions", "clips without AUs")
    everything: float = chosen(0.05, "hallo, its configuration; its code does not read it", "clips without all")
    driving: float = chosen(0.0, "ours: what guidance with two weights asks for", "clips with the portrait alone")

    def __post_init__(self) -> None:
        for stage in ("temporal", "image"):
            self.of(stage)  # refuses what is no probability

    def of(self, stage: Stage) -> Drops:
        """For `diffusion.conditions.draw_conditions`, whose third condition are the AUs here."""
        if stage == "image":
            return Drops(audio=0, image=self.image_stage, third=0, everything=0)
        return Drops(self.audio, self.image, self.au, self.everything, self.driving)


def _tiny_vae() -> VaeConfig:
    return VaeConfig(kind="tiny", downsamples=2, channels=32, scaled_reference=True, residual=True)


@dataclass(frozen=True)
class MfEtalkConfig:
    """All of MF-ETalk."""

    unet: UNetConfig = UNetConfig()
    motion: MotionConfig = MotionConfig()
    audio: AudioConfig = AudioConfig()
    face: FaceConfig = FaceConfig()
    au: AuConfig = AuConfig()
    fusion: FusionConfig = FusionConfig()
    emotion: EmotionLossConfig = EmotionLossConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    drops: DropsConfig = DropsConfig()
    # Hallo guides with one weight for all conditions.
    guidance: GuidanceConfig = field(default_factory=lambda: GuidanceConfig(3.5, 3.5))
    vae: Literal["sd", "tiny"] = chosen("sd", "hallo: the base's VAE, frozen", "tiny: a small one, trained along")
    tiny_vae: VaeConfig = field(default_factory=_tiny_vae)
    size: int = chosen(512, "hallo", "side of a picture, pixels")
    stage: Literal["image", "temporal"] = chosen(
        "temporal", "hallo: image first, temporal on top of it", "which stage of training this is"
    )
    temporal_trains: Literal["new", "all"] = chosen(
        "new", "hallo: motion modules, audio modules and audio tokens", "what learns in the temporal stage"
    )

    def __post_init__(self) -> None:
        if self.size % 2**self.downsamples:
            raise ConfigError(f"size {self.size} does not divide by {2**self.downsamples}")
        if len(self.face.locator) - 1 != self.downsamples:
            raise ConfigError("the face locator has to halve the grid as often as the VAE")
        if self.au.width != self.audio.width:
            raise ConfigError(f"AU tokens are {self.au.width} wide, audio tokens {self.audio.width}")

    @property
    def downsamples(self) -> int:
        """Halvings of the grid between picture and latent."""
        return 3 if self.vae == "sd" else self.tiny_vae.downsamples

    @property
    def latent_size(self) -> int:
        """Side of a latent."""
        return self.size // 2**self.downsamples

    @property
    def locator(self) -> PoseGuiderConfig:
        """Sizes of the face locator, which is built as DICE-Talk's pose guider."""
        return PoseGuiderConfig(channels=self.face.locator, box_scale=self.face.face_scale)

    @classmethod
    def full(cls, **changes: Any) -> Self:
        """The size of Hallo as published, and what MF-ETalk adds."""
        return replace(cls(), **changes)

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """For a CPU: 64-pixel pictures, a VAE that is trained along, Whisper-tiny's states."""
        values: dict[str, Any] = {
            # One head: attention over 1,024 sites is half of a step's time on a CPU, and grows with the heads.
            "unet": UNetConfig(
                latent_channels=16, channels=(32, 64), heads=1, layers_per_block=1, cross_attention_dim=64
            ),
            # Half of its clips begin without motion frames, or those alone would tell what comes next; and sampling
            # begins as these do, for a portrait in their place is what training never showed.
            "motion": MotionConfig(heads=1, frames=8, start_probability=0.5, first="zeros"),
            "audio": AudioConfig(kind="whisper", hidden=64, tokens=4, width=64),
            "face": FaceConfig(embedding=64, tokens=2, locator=(8, 16, 32)),
            # A quarter is much for a unit of these columns, and the mouth's units show within the lip mask alone, where
            # what is said shall stay the sound's.
            "au": AuConfig(
                hidden=64,
                tokens=2,
                width=64,
                scale=0.25,
                lower="face_and_lip",
                unread=(*FOLLOWING_AUS, *SPEECH_AUS),
                # Lest each frame is known by units that hardly move, and an edited one means nothing.
                noise=0.1,
            ),
            # A zero convolution closes each branch at the start; a gate at zero before it would have to open first.
            "fusion": FusionConfig(motion_grid=2, gate_start=1.0),
            # What conditions tell is learnt where noise hides the picture. Noise that sampling begins with stays as
            # grain, so it begins with none; then the seed changes nothing.
            "diffusion": DiffusionConfig(sample_schedule="scaled_linear", sample_steps=6, temperature=0.0, draws=2),
            "guidance": GuidanceConfig(1.0, 1.0),
            "vae": "tiny",
            "size": 64,
            "temporal_trains": "all",
            # A few clips are known by their sound alone: only without it the action units are needed. And who guides
            # with two weights asks for the portrait alone.
            "drops": DropsConfig(audio=0.5, driving=0.05),
        }
        return replace(cls(**values), **changes)

    def ablated(self, name: str) -> Self:
        """A row of the paper's Table 3. Raises ConfigError for a name that is not in `ABLATIONS`."""
        if name not in ABLATIONS:
            raise ConfigError(f"no ablation {name!r} of MF-ETalk", hint=f"one of: {', '.join(ABLATIONS)}")
        weight = self.emotion.weight or EmotionLossConfig().weight
        return replace(
            self,
            fusion=replace(self.fusion, on=name != "a"),
            emotion=replace(self.emotion, weight=weight if name == "c" else 0.0),
        )

    @classmethod
    def preset(cls, name: str) -> Self:
        """`tiny` or `full`. Raises ConfigError for another name."""
        if name not in PRESETS:
            raise ConfigError(f"no preset {name!r} of MF-ETalk", hint=f"one of: {', '.join(PRESETS)}")
        return cls.tiny() if name == "tiny" else cls.full()
