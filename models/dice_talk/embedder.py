"""DICE-Talk's disentangled emotion embedder: a clip's expression and voice to a Gaussian over emotion priors.

W. Tan et al., 2025, section 3.1. With s_a (N, d) the audio tokens of a clip and s_b (N, d) its video tokens, in each
layer:

    (2)  Q_a = W_Q s_a;  K_b = W_K s_b;  V_b = W_V s_b
    (3)  s_a <- s_a + lambda CA(Q_a, K_b, V_b)

after the last one, with the N weights softmax(W_s s_a):

    (4)  mu      = softmax(W_s s_a) . s_a
    (5)  sigma^2 = softmax(W_s s_a) . (s_a - mu)^2
    (6)  s       = mu + sigma eps,   eps ~ N(0, I)

and training pulls priors of one identity and emotion (s, s^p) together, away from all others S^n:

    (7)  w(u) = exp(cos(s, u) / tau)
    (8)  L    = -log( w(s^p) / (w(s^p) + sum over S^n of w(s^n)) )

The video branch is StyleTalk's encoder (Y. Ma et al., AAAI 2023): linear map, sinusoidal positions, transformer layers
with the norm after each residual sum. The audio branch mixes Whisper's hidden states by learned weights, joins the
steps of a video frame to one token, and has as many such layers of its own. What the paper leaves open is in
`EmbedderConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ...core.errors import InputError
from ..diffusion.tensors import randn
from .config import EmbedderConfig


def sinusoid_table(length: int, width: int) -> torch.Tensor:
    """Positions of the transformer paper (Vaswani et al., 2017), float32 (length, width): sine at even places."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    place = torch.arange(width)
    angle = position / 10000 ** (2 * (place // 2).double() / width)
    return torch.where(place % 2 == 0, angle.sin(), angle.cos()).float()


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual sum and the norm after it."""

    def __init__(self, config: EmbedderConfig) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(config.width, config.heads, config.dropout, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.linear1 = nn.Linear(config.width, config.feedforward)
        self.linear2 = nn.Linear(config.feedforward, config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x (B, T, d), mask bool (B, T), True where there is a frame."""
        found, _ = self.attention(x, x, x, key_padding_mask=~mask, need_weights=False)
        x = self.norm1(x + self.dropout(found))
        return self.norm2(x + self.dropout(self.linear2(self.dropout(self.linear1(x).relu()))))


class CrossLayer(nn.Module):
    """Eq. 2-3: x + lambda CA(x, other); lambda is `weight`."""

    def __init__(self, config: EmbedderConfig) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(config.width, config.heads, config.dropout, batch_first=True)
        weight = config.cross_weight
        self.weight = nn.Parameter(torch.tensor(weight)) if config.learn_cross_weight else weight

    def forward(self, x: torch.Tensor, other: torch.Tensor, other_mask: torch.Tensor) -> torch.Tensor:
        """x (B, T, d), other (B, S, d), other_mask bool (B, S)."""
        found, _ = self.attention(x, other, other, key_padding_mask=~other_mask, need_weights=False)
        return x + self.weight * found


class AudioTokens(nn.Module):
    """Whisper's hidden states to one token a video frame."""

    def __init__(self, config: EmbedderConfig) -> None:
        super().__init__()
        self.normalise, self.steps = config.normalise_states, config.steps_per_frame
        self.layer_logits = nn.Parameter(torch.zeros(config.audio_states))
        self.linear = nn.Linear(config.steps_per_frame * config.audio_width, config.width)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """States (B, steps x T, L + 1, D) to (B, T, d)."""
        if self.normalise:
            states = F.layer_norm(states, states.shape[-1:])
        mixed = torch.einsum("l,btld->btd", self.layer_logits.softmax(0), states)
        return self.linear(mixed.unflatten(1, (-1, self.steps)).flatten(2))


class GaussianPool(nn.Module):
    """Eq. 4-5: attention-weighted mean and standard deviation over the frames of a clip."""

    def __init__(self, config: EmbedderConfig) -> None:
        super().__init__()
        self.mask_logit, self.floor = config.mask_logit, config.variance_floor
        # W_s is 1 x d in the paper; a bias would cancel in the softmax.
        self.score = nn.Linear(config.width, 1, bias=False)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B, T, d), mask bool (B, T) to mu and sigma, each (B, d)."""
        weights = self.score(x).squeeze(-1).masked_fill(~mask, self.mask_logit).softmax(1)
        mu = torch.einsum("bt,btd->bd", weights, x)
        variance = torch.einsum("bt,btd->bd", weights, (x - mu[:, None]).square())
        return mu, variance.clamp_min(self.floor).sqrt()


@dataclass(frozen=True)
class Prior:
    """A clip's distribution of emotion priors: `mu` and `sigma`, each (B, d)."""

    mu: torch.Tensor
    sigma: torch.Tensor

    def sample(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """Eq. 6: s (B, d), with gradients to both."""
        return self.mu + self.sigma * randn(self.mu, generator)


class EmotionEmbedder(nn.Module):
    """Expression coefficients and Whisper states of clips to their distributions of priors."""

    positions: torch.Tensor

    def __init__(self, config: EmbedderConfig) -> None:
        super().__init__()
        self.config = config
        self.video_tokens = nn.Linear(config.coefficients, config.width)
        self.audio_tokens = AudioTokens(config)
        self.video_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.audio_layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.cross_layers = nn.ModuleList(CrossLayer(config) for _ in range(config.layers))
        self.pool = GaussianPool(config)
        self.register_buffer("positions", sinusoid_table(config.max_frames, config.width), persistent=False)

    def forward(
        self,
        expression: torch.Tensor | None,
        audio: torch.Tensor | None,
        mask: torch.Tensor | None = None,
        *,
        keep: torch.Tensor | None = None,
    ) -> Prior:
        """The distributions of a batch.

        Args:
            expression: (B, T, 64 or 52) coefficients; None leaves the modality out of all clips, as zeros.
            audio: (B, steps_per_frame x T, L + 1, D) hidden states; None likewise.
            mask: bool (B, T), False on padding and on frames without a face, whose values are not looked at (NaN will
                do) in either modality. None: all frames count.
            keep: bool (B, 2) from `draw_keep`, which of (video, audio) a clip has; None: both.

        Raises:
            InputError: shapes do not fit, both modalities are missing, or a clip has no frame.
        """
        expression, audio, mask, keep = self._checked(expression, audio, mask, keep)
        asks, answers = self._tokens(expression, audio, keep)
        asking, answering = self.video_layers, self.audio_layers
        if self.config.direction == "audio_from_video":
            asks, answers, asking, answering = answers, asks, answering, asking
        for own, others, cross in zip(asking, answering, self.cross_layers, strict=True):
            answers = others(answers, mask)
            if self.config.fusion == "before_layer":
                asks = own(cross(asks, answers, mask), mask)
            else:
                asks = cross(own(asks, mask), answers, mask)
        return Prior(*self.pool(asks, mask))

    def draw(self, prior: Prior, generator: torch.Generator | None = None) -> torch.Tensor:
        """Priors s (B, d): a sample of eq. 6, or mu where the configuration says deterministic."""
        return prior.mu if self.config.deterministic else prior.sample(generator)

    def _tokens(
        self, expression: torch.Tensor, audio: torch.Tensor, keep: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of the video and the audio branch with their positions, dropped modalities as zeros."""
        at_inputs = self.config.drop_at == "inputs"
        if at_inputs:
            expression = expression * keep[:, 0, None, None]
            audio = audio * keep[:, 1, None, None, None]
        video, sound = self.video_tokens(expression), self.audio_tokens(audio)
        if not at_inputs:
            video, sound = video * keep[:, 0, None, None], sound * keep[:, 1, None, None]
        positions = self.positions[: video.shape[1]]
        return video + positions, sound + positions

    def _checked(
        self,
        expression: torch.Tensor | None,
        audio: torch.Tensor | None,
        mask: torch.Tensor | None,
        keep: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs in the network's type, zero where masked, with the defaults filled in."""
        steps = self.config.steps_per_frame
        given = expression if expression is not None else audio
        if given is None:
            raise InputError("the embedder needs expression coefficients or audio states")
        batch, frames = given.shape[0], given.shape[1] // (1 if expression is not None else steps)
        place = self.video_tokens.weight
        missing = [m for m, value in enumerate((expression, audio)) if value is None]
        mask = torch.ones(batch, frames, dtype=torch.bool, device=given.device) if mask is None else mask
        keep = torch.ones(batch, 2, dtype=torch.bool, device=given.device) if keep is None else keep.clone()
        keep[:, missing] = False
        expression = expression if expression is not None else place.new_zeros(batch, frames, self.config.coefficients)
        if audio is None:
            audio = place.new_zeros(batch, steps * frames, self.config.audio_states, self.config.audio_width)
        self._check(expression, audio, mask, keep)
        heard = mask.repeat_interleave(steps, 1)[..., None, None]
        expression = torch.where(mask[..., None], expression.to(place), 0.0)
        return expression, torch.where(heard, audio.to(place), 0.0), mask, keep

    def _check(self, expression: torch.Tensor, audio: torch.Tensor, mask: torch.Tensor, keep: torch.Tensor) -> None:
        batch, frames = mask.shape
        wanted = {
            "expression": (expression, (batch, frames, self.config.coefficients)),
            "audio": (
                audio,
                (batch, self.config.steps_per_frame * frames, self.config.audio_states, self.config.audio_width),
            ),
            "keep": (keep, (batch, 2)),
        }
        for name, (value, shape) in wanted.items():
            if tuple(value.shape) != shape:
                raise InputError(f"{name} is {tuple(value.shape)}, not {shape}")
        if frames > self.config.max_frames:
            raise InputError(f"{frames} frames, and the embedder takes {self.config.max_frames}", hint="cut the clip")
        if not bool(mask.any(1).all()):
            raise InputError("a clip of the batch has no frame that counts")
        if not bool(keep.any(1).all()):
            raise InputError("a clip of the batch has neither video nor audio")


def draw_keep(batch: int, probability: float, generator: torch.Generator | None = None) -> torch.Tensor:
    """Modality dropout: bool (batch, 2) on the CPU, which of (video, audio) each clip keeps; never neither.

    With `probability` a clip loses one modality, either with even chance.
    """
    dropped = torch.rand(batch, generator=generator, device="cpu") < probability
    which = torch.rand(batch, generator=generator, device="cpu") < 0.5
    return torch.stack((~(dropped & which), ~(dropped & ~which)), dim=1)


@dataclass(frozen=True)
class Contrast:
    """InfoNCE of a batch: the loss, and what it was made of (all without batch dimension)."""

    loss: torch.Tensor
    anchors: int  # priors that have another one of their group
    pairs: int
    positive: torch.Tensor  # mean cosine of pairs
    negative: torch.Tensor  # mean cosine of the others; NaN where there is only one group
    nearest: torch.Tensor  # part of anchors whose nearest other prior is of their group


def info_nce(priors: torch.Tensor, group: torch.Tensor, *, temperature: float = 0.1, constant: float = 0.0) -> Contrast:
    """Eq. 7-8 over a batch: each prior with each other one of its group, against all priors of other groups.

    The mean is over the pairs of an anchor, then over anchors, so that large groups do not weigh more. All is done in
    logarithms. `constant`, which the paper adds to the similarity, cancels: it changes rounding only.

    Args:
        priors: (B, d).
        group: int (B,), equal for priors that belong together: identity and emotion, or one video.

    Raises:
        InputError: no two priors share a group.
    """
    same = group[:, None] == group[None]
    positive = same & ~torch.eye(len(group), dtype=torch.bool, device=group.device)
    counts = positive.sum(1)
    if not bool(counts.any()):
        raise InputError("no two clips of the batch have the same identity and emotion", hint="batch clips in groups")
    unit = F.normalize(priors, dim=1)
    cosine = unit @ unit.T
    logits = cosine / temperature + constant
    lowest = torch.finfo(logits.dtype).min
    others = logits.masked_fill(same, lowest).logsumexp(1, keepdim=True)
    # -log(w / (w + others)) = log(1 + others / w)
    losses = torch.where(positive, F.softplus(others - logits), 0.0)
    anchors = counts > 0
    return Contrast(
        loss=(losses.sum(1)[anchors] / counts[anchors]).mean(),
        anchors=int(anchors.sum()),
        pairs=int(counts.sum()),
        positive=cosine.detach()[positive].mean(),
        negative=cosine.detach()[~same].mean(),
        nearest=_nearest(cosine.detach(), positive)[anchors].float().mean(),
    )


def _nearest(cosine: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Per prior, whether the nearest other one is of its group; bool (B,)."""
    itself = torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
    best = cosine.masked_fill(itself, -2.0).argmax(1, keepdim=True)
    return positive.gather(1, best).squeeze(1)
