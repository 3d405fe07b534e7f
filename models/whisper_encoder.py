"""Whisper's audio encoder and its log-mel front end; all hidden states, 50 a second.

Architecture and constants: A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022.
Names of parameters follow the `encoder.` part of openai-whisper's checkpoints, which loads strictly. Weights come from
an official `.pt` file or from CTranslate2's `model.bin`; both hold the same half-precision numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..core.errors import InputError, WeightsError
from ..core.weights import weights_store
from .ctranslate2 import read_ctranslate2
from .loading import load_strict

if TYPE_CHECKING:
    from ..core.asset_store import AssetStore

SAMPLE_RATE = 16000
N_FFT, HOP, N_MELS = 400, 160, 80
BLOCK_SAMPLES = 30 * SAMPLE_RATE
BLOCK_MELS = BLOCK_SAMPLES // HOP  # 3000
BLOCK_STEPS = BLOCK_MELS // 2  # 1500, the second convolution has stride 2
STEPS_PER_FRAME = 2  # 50 steps a second under 25 frames a second
HEAD_WIDTH = 64  # of every published size


@cache
def mel_filters() -> torch.Tensor:
    """Slaney's mel filter bank, float32 (80, 201): triangles of equal area from 0 to 8 kHz over the bins of the FFT.

    The scale is linear up to 1 kHz (200/3 Hz a mel) and logarithmic above (27 mels for a factor of 6.4), as in
    M. Slaney's Auditory Toolbox (1998).
    """
    edges = _from_mel(np.linspace(0.0, _to_mel(SAMPLE_RATE / 2), N_MELS + 2))
    bins = np.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT
    widths = np.diff(edges)
    rising = (bins - edges[:-2, None]) / widths[:-1, None]
    falling = (edges[2:, None] - bins) / widths[1:, None]
    triangles = np.clip(np.minimum(rising, falling), 0.0, None)
    return torch.from_numpy((triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32))


def _to_mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)


def _from_mel(mels: np.ndarray) -> np.ndarray:
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))


def log_mel(samples: torch.Tensor) -> torch.Tensor:
    """Log-mel spectrogram as Whisper takes it.

    Power of a centred STFT (Hann window of 400, hop 160, reflected ends, last frame dropped), mel filters, log10
    floored at 1e-10 and at 8 below the loudest value of each block, then (x + 4) / 4.

    Args:
        samples: float32 (B, S) at 16 kHz in [-1, 1]; each row is a block of its own.

    Returns:
        float32 (B, 80, S // 160).
    """
    window = torch.hann_window(N_FFT, device=samples.device)
    spectrum = torch.stft(samples, N_FFT, HOP, window=window, return_complex=True)[..., :-1]
    levels = (mel_filters().to(samples.device) @ spectrum.abs() ** 2).clamp(min=1e-10).log10()
    floor = levels.amax(dim=(1, 2), keepdim=True) - 8.0
    return (torch.maximum(levels, floor) + 4.0) / 4.0


class Attention(nn.Module):
    """Self-attention with heads of 64; keys have no bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = Attention(width)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.attn_ln(x))
        return x + self.mlp(self.mlp_ln(x))


class AudioEncoder(nn.Module):
    """Whisper's encoder.

    Args:
        layers: transformer blocks, L (4 in tiny, 6 in base).
        width: channels, D (384 in tiny, 512 in base).
    """

    positional_embedding: torch.Tensor

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.layers, self.width = layers, width
        self.conv1 = nn.Conv1d(N_MELS, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.register_buffer("positional_embedding", torch.zeros(BLOCK_STEPS, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.ln_post = nn.LayerNorm(width)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """All L + 1 hidden states of whole blocks.

        State 0 is the stem (two convolutions and the positional embedding), state k the output of block k, and the
        last one has in addition gone through the final layer normalisation (`ln_post`), as `hidden_states` of Hugging
        Face's port has it. So the last state is openai-whisper's own output.

        Args:
            mel: float32 (B, 80, 3000) from `log_mel`.

        Returns:
            float32 (B, 1500, L + 1, D).
        """
        if mel.ndim != 3 or mel.shape[1:] != (N_MELS, BLOCK_MELS):
            raise InputError(f"the encoder takes (B, {N_MELS}, {BLOCK_MELS}), not {tuple(mel.shape)}")
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2) + self.positional_embedding
        states = [x]
        for block in self.blocks:
            x = block(x)
            states.append(x)
        states[-1] = self.ln_post(x)
        return torch.stack(states, dim=2)


def blocks_of(samples: np.ndarray, steps: int) -> np.ndarray:
    """Sound cut into blocks of 30 s, as many as `steps` need, the last filled up with zeros.

    Args:
        samples: float32 (S,) at 16 kHz.
        steps: encoder steps wanted (50 a second), at least 1.

    Returns:
        float32 (ceil(steps / 1500), 480000).
    """
    count = -(-steps // BLOCK_STEPS)
    padded = np.zeros(count * BLOCK_SAMPLES, dtype=np.float32)
    kept = samples[: len(padded)]
    padded[: len(kept)] = kept
    return padded.reshape(count, BLOCK_SAMPLES)


# openai-whisper's name of a module in a block, and CTranslate2's.
_BLOCK_NAMES = {
    "attn_ln": "self_attention/layer_norm",
    "attn.out": "self_attention/linear_1",
    "mlp_ln": "ffn/layer_norm",
    "mlp.0": "ffn/linear_0",
    "mlp.2": "ffn/linear_1",
}


def state_of_ctranslate2(variables: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """CTranslate2's encoder variables under openai-whisper's names, float32.

    Args:
        variables: arrays by name below "encoder/".

    Raises:
        WeightsError: a variable is absent or quantised, or keys have a bias, which Whisper's have not.
    """
    layers = sum(name.endswith("/ffn/layer_norm/gamma") for name in variables)
    names = {"conv1": "conv1", "conv2": "conv2", "ln_post": "layer_norm"}
    for i in range(layers):
        names |= {f"blocks.{i}.{ours}": f"layer_{i}/{theirs}" for ours, theirs in _BLOCK_NAMES.items()}
    state = {"positional_embedding": _floats(variables, "position_encodings/encodings")}
    for ours, theirs in names.items():
        norm = theirs.endswith("layer_norm")
        state[f"{ours}.weight"] = _floats(variables, f"{theirs}/{'gamma' if norm else 'weight'}")
        state[f"{ours}.bias"] = _floats(variables, f"{theirs}/{'beta' if norm else 'bias'}")
    for i in range(layers):
        state |= _split_projection(variables, f"layer_{i}/self_attention/linear_0", f"blocks.{i}.attn")
    return state


def _split_projection(variables: Mapping[str, np.ndarray], theirs: str, ours: str) -> dict[str, torch.Tensor]:
    """Query, key and value, which lie stacked in one layer."""
    weight, bias = _floats(variables, f"{theirs}/weight").chunk(3), _floats(variables, f"{theirs}/bias").chunk(3)
    if len(weight) != 3 or len(bias) != 3 or bias[1].any():
        raise WeightsError(f"{theirs} is no stack of query, key without bias, and value")
    return {f"{ours}.{part}.weight": weight[k] for k, part in enumerate(("query", "key", "value"))} | {
        f"{ours}.query.bias": bias[0],
        f"{ours}.value.bias": bias[2],
    }


def _floats(variables: Mapping[str, np.ndarray], name: str) -> torch.Tensor:
    if name not in variables:
        raise WeightsError(f"the encoder has no {name}")
    if variables[name].dtype.kind != "f":
        raise WeightsError(f"{name} is quantised ({variables[name].dtype}); a float16 or float32 model is needed")
    return torch.from_numpy(variables[name].astype(np.float32))


def state_of_checkpoint(checkpoint: object) -> dict[str, torch.Tensor]:
    """The encoder's tensors of an official checkpoint, float32.

    Raises:
        WeightsError: it is not of the form {"model_state_dict": {name: tensor}}.
    """
    whole = checkpoint.get("model_state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(whole, dict):
        raise WeightsError("no checkpoint of openai-whisper: it has no model_state_dict")
    return {name[8:]: value.float() for name, value in whole.items() if name.startswith("encoder.")}


def read_encoder(path: Path) -> AudioEncoder:
    """The encoder of a CTranslate2 `model.bin` or of an official `.pt` file; its size follows from the tensors.

    Raises:
        WeightsError: neither of the two, or names or shapes are not exactly those of the network.
    """
    if path.suffix == ".pt":
        state = state_of_checkpoint(torch.load(path, map_location="cpu", weights_only=True))
    else:
        state = state_of_ctranslate2(read_ctranslate2(path, "encoder/")[1])
    layers = sum(name.endswith(".mlp_ln.weight") for name in state)
    width = state["positional_embedding"].shape[-1] if "positional_embedding" in state else HEAD_WIDTH
    return load_strict(AudioEncoder(layers, width), state, source=path.name)


def load_encoder(weights: str, store: AssetStore | None = None) -> AudioEncoder:
    """An encoder of the weights store in eval mode, frozen, on the CPU.

    Args:
        weights: name in the store, CTranslate2's ("whisper-tiny-en-ct2") or an official checkpoint ("whisper-tiny").
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt, WeightsError: see `AssetStore.path` and `read_encoder`.
    """
    return read_encoder((store or weights_store()).path(weights))


load_tiny_en: Callable[[], AudioEncoder] = partial(load_encoder, "whisper-tiny-en-ct2")
load_base: Callable[[], AudioEncoder] = partial(load_encoder, "whisper-base-ct2")
load_tiny: Callable[[], AudioEncoder] = partial(load_encoder, "whisper-tiny")
