"""Every free choice of DICE-Talk's embedder and emotion bank, as a named value with its source.

W. Tan et al., "Disentangle Identity, Cooperate Emotion: Correlation-Aware Emotional Talking Portrait Generation", 2025.
A source is one of

- `paper ...`: stated there, with equation or section;
- `released ...`: a constant of the published code or files, of DICE-Talk or of StyleTalk, whose encoder it follows;
- `inferred ...`: taken over from a neighbouring module of the published system;
- `ours ...`: neither says anything; with the reason.

`diffusion.sources` lists them, so that a run can write down beside its values where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from ...core.errors import ConfigError
from ..diffusion.sources import HasFields, chosen, positive, within

EXPRESSION_SIZES = {"deep3d": 64, "arkit52": 52}  # coefficients a frame
SOURCES = ("paper", "released", "inferred", "ours")


def _one_of(config: HasFields, **allowed: tuple[str, ...]) -> None:
    for name, values in allowed.items():
        if getattr(config, name) not in values:
            hint = f"one of: {', '.join(values)}"
            raise ConfigError(f"{type(config).__name__}.{name}: {getattr(config, name)!r}", hint=hint)


def _multiple(config: HasFields, width: str, heads: str) -> None:
    if getattr(config, width) % getattr(config, heads):
        text = f"{getattr(config, width)} is not a multiple of {heads} {getattr(config, heads)}"
        raise ConfigError(f"{type(config).__name__}.{width} {text}")


@dataclass(frozen=True)
class EmbedderConfig:
    """The disentangled emotion embedder and its training objective (paper, section 3.1)."""

    expression: Literal["deep3d", "arkit52"] = chosen(
        "deep3d",
        "released, StyleTalk: 64 coefficients of Deep3D; arkit52 is ours, 52 blendshapes in MediaPipe's order",
        "which expression coefficients the video branch reads",
    )
    audio_states: int = chosen(5, "released: Whisper-tiny's embedding output and four layers", "hidden states L + 1")
    audio_width: int = chosen(384, "released: Whisper-tiny", "width D of a hidden state")
    steps_per_frame: int = chosen(2, "released: Whisper's 50 steps a second under 25 frames", "audio steps a frame")
    width: int = chosen(256, "released: the stored priors are (1, 256)", "d_s, of tokens and of the prior")
    layers: int = chosen(3, "released, StyleTalk's encoder; the audio branch as deep, ours", "layers of each branch")
    heads: int = chosen(8, "released, StyleTalk", "attention heads")
    feedforward: int = chosen(1024, "released, StyleTalk", "hidden width of a layer's feed-forward part")
    dropout: float = chosen(0.1, "released, StyleTalk", "of attention weights, feed-forward and residual branches")
    max_frames: int = chosen(256, "released, StyleTalk's position table", "longest clip; longer ones are cut before")
    mask_logit: float = chosen(-1e5, "released, StyleTalk", "pooling logit of a padded frame")
    normalise_states: bool = chosen(
        True, "ours: Whisper's states differ in scale by layer", "LayerNorm without parameters before they are mixed"
    )
    direction: Literal["audio_from_video", "video_from_audio"] = chosen(
        "audio_from_video",
        "paper eq. 2-3; the sentence before them says that audio is merged into the visual features, the other way",
        "which branch asks (and is pooled), and which one answers",
    )
    fusion: Literal["before_layer", "after_layer"] = chosen(
        "before_layer",
        "inferred: pooled tokens then come out of a LayerNorm, which gives them the norm 16, and the released priors' "
        "norms of 13.3 to 14.0 are what means of such tokens have; eq. 3 by itself says neither",
        "whether cross attention precedes the asking branch's own layer or follows it",
    )
    cross_weight: float = chosen(1.0, "ours: lambda of eq. 3 is not stated", "weight of cross attention")
    learn_cross_weight: bool = chosen(False, "paper eq. 3 has a fixed lambda", "make lambda a parameter of each layer")
    deterministic: bool = chosen(False, "paper eq. 6; True is Table 4, w/o emotion prior", "take mu for the prior")
    variance_floor: float = chosen(
        1e-8, "ours: the root of eq. 5 has no slope at 0", "below it sigma is constant and passes no gradient"
    )
    drop_probability: float = chosen(
        0.3, "ours: the paper drops modalities at random at a rate it does not state", "clips that lose one modality"
    )
    drop_at: Literal["inputs", "features"] = chosen(
        "inputs",
        "paper section 4.1: coefficients or audio are dropped; section 3.1 says features, the other value",
        "what is set to zero: branch inputs, or tokens before the first layer",
    )
    temperature: float = chosen(0.1, "ours: tau of eq. 7 is not stated; SimCLR's value", "tau")
    similarity_constant: float = chosen(
        0.0,
        "paper section 3.1 adds one and does not state it; it cancels in eq. 8, so that the loss is the same with any",
        "added to cos / tau",
    )

    def __post_init__(self) -> None:
        _one_of(self, expression=tuple(EXPRESSION_SIZES), drop_at=("inputs", "features"))
        _one_of(self, direction=("audio_from_video", "video_from_audio"), fusion=("before_layer", "after_layer"))
        positive(self, "audio_states", "audio_width", "steps_per_frame", "width", "layers", "heads", "feedforward")
        positive(self, "max_frames", "variance_floor", "temperature")
        _multiple(self, "width", "heads")
        within(self, "dropout", "drop_probability")

    @property
    def coefficients(self) -> int:
        """Expression coefficients a frame."""
        return EXPRESSION_SIZES[self.expression]

    @classmethod
    def full(cls, **changes: Any) -> Self:
        """The size of the released system."""
        return replace(cls(), **changes)

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """Small enough to train on a CPU in a minute; reads the same data as `full`."""
        return replace(cls(width=64, layers=2, heads=4, feedforward=128, expression="arkit52"), **changes)


@dataclass(frozen=True)
class BankConfig:
    """The emotion bank and the tokens it gives (paper, section 3.2 and eq. 17)."""

    prior_width: int = chosen(256, "released: the stored priors are (1, 256)", "width of the prior s")
    mode: Literal["bank", "learnable_ca", "none"] = chosen(
        "bank",
        "paper eq. 9-13; learnable_ca and none are Table 4's ablations (the latter: w/o emotion bank)",
        "bank: retrieve in training, attend to all codes in inference; learnable_ca: the codes are embeddings that are "
        "always all attended to and never quantised to; none: the prior's own tokens",
    )
    codes: int = chosen(64, "released", "K")
    code_width: int = chosen(1024, "released: W maps the prior to it; eq. 9 compares s itself", "width of a code")
    init_scale: float = chosen(1 / 64, "released", "codes start uniform in +-init_scale")
    commitment: float = chosen(0.25, "released: beta of eq. 17", "weight of the prior's pull towards its code")
    reduction: Literal["mean", "sum"] = chosen(
        "mean", "released; eq. 17 writes squared norms, which is sum", "over a code's components, in the loss"
    )
    tokens: int = chosen(32, "released", "tokens of the prior, and of each code")
    token_width: int = chosen(1024, "released: the UNet's cross-attention width", "width of a token")
    hidden: int = chosen(1024, "inferred from the released audio tokens' MLP", "width of an MLP's two hidden layers")
    normalise_tokens: bool = chosen(True, "inferred from the released audio tokens' MLP", "LayerNorm on each token")
    heads: int = chosen(8, "released: logits are scaled by 1/sqrt(128)", "heads of eq. 11 and 13")
    project_out: bool = chosen(True, "ours: usual in multi-head attention", "a linear map after the heads are joined")
    dead_codes: Literal["off", "reseed"] = chosen(
        "off", "paper: none; reseed is ours", "what `EmotionBank.reseed` does with codes that are never the nearest"
    )
    dead_after: int = chosen(100, "ours", "batches without use after which a code is dead")
    retrieval: Literal["all", "nearest"] = chosen(
        "all",
        "paper eq. 12-13; nearest is ours: attention that has only seen one code at a time in training weighs all of "
        "them nearly alike, and what is left of the emotion is their mean",
        "what mode bank attends to in inference: the whole bank, or the nearest code as in training",
    )

    def __post_init__(self) -> None:
        _one_of(self, mode=("bank", "learnable_ca", "none"), reduction=("mean", "sum"), dead_codes=("off", "reseed"))
        _one_of(self, retrieval=("all", "nearest"))
        positive(self, "prior_width", "codes", "code_width", "init_scale", "tokens", "token_width", "hidden", "heads")
        positive(self, "dead_after")
        _multiple(self, "token_width", "heads")
        if self.commitment < 0:
            raise ConfigError(f"BankConfig.commitment is {self.commitment}, below 0")

    @classmethod
    def full(cls, **changes: Any) -> Self:
        """The size of the released system."""
        return replace(cls(), **changes)

    @classmethod
    def tiny(cls, **changes: Any) -> Self:
        """For `EmbedderConfig.tiny`: narrow codes and four tokens."""
        small = cls(prior_width=64, code_width=32, tokens=4, token_width=64, hidden=64, heads=4)
        return replace(small, **changes)
