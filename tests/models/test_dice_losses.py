"""InfoNCE word by word and in closed form; batches of clips; a step of the embedder's training."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError
from talkforge.datasets.synthetic import SyntheticConfig, SyntheticCorpus
from talkforge.models.dice_talk.config import EmbedderConfig
from talkforge.models.dice_talk.embedder import EmotionEmbedder, info_nce
from talkforge.models.dice_talk.losses import embedder_batch, embedder_loss, group_of

SMALL = EmbedderConfig.tiny(width=16, heads=2, feedforward=24, audio_states=3, audio_width=6, max_frames=32)


def network(**changes: Any) -> EmotionEmbedder:
    torch.manual_seed(5)
    return EmotionEmbedder(replace(SMALL, **changes)).eval()


def naive_info_nce(s: np.ndarray, group: list[int], tau: float, constant: float) -> float:
    """Eq. 7-8 word by word."""

    def omega(u: np.ndarray, v: np.ndarray) -> float:
        return math.exp(u @ v / np.linalg.norm(u) / np.linalg.norm(v) / tau + constant)

    anchors = []
    for i in range(len(s)):
        away = sum(omega(s[i], s[n]) for n in range(len(s)) if group[n] != group[i])
        near = [omega(s[i], s[p]) for p in range(len(s)) if group[p] == group[i] and p != i]
        if near:
            anchors.append(np.mean([-math.log(w / (w + away)) for w in near]))
    return float(np.mean(anchors))


@pytest.mark.parametrize(("tau", "constant"), [(1.0, 0.0), (0.1, 0.0), (0.5, 2.0)])
def test_eq_7_and_8_word_by_word(tau: float, constant: float) -> None:
    s, group = np.random.default_rng(0).normal(size=(8, 5)), [0, 1, 0, 2, 1, 0, 3, 2]
    found = info_nce(torch.from_numpy(s), torch.tensor(group), temperature=tau, constant=constant)
    assert float(found.loss) == pytest.approx(naive_info_nce(s, group, tau, constant), rel=1e-12)
    assert (found.anchors, found.pairs) == (7, 10)


def test_info_nce_closed_forms() -> None:
    e = torch.eye(4)
    # Positives coincide, negatives are orthogonal: log(1 + 2 exp(-1 / tau)).
    perfect = info_nce(e[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1]), temperature=0.5)
    assert float(perfect.loss) == pytest.approx(math.log1p(2 * math.exp(-2)), rel=1e-6)
    assert (float(perfect.positive), float(perfect.negative), float(perfect.nearest)) == (1.0, 0.0, 1.0)
    # Everything alike: one positive among three.
    alike = info_nce(e[[0, 0, 0, 0]], torch.tensor([0, 0, 1, 1]), temperature=0.01)
    assert float(alike.loss) == pytest.approx(math.log(3), rel=1e-6)
    # The worst: positives opposite, negatives coincide.
    worst = info_nce(torch.stack([e[0], -e[0], e[0], -e[0]]), torch.tensor([0, 0, 1, 1]), temperature=0.5)
    assert float(worst.loss) == pytest.approx(-math.log(math.exp(-2) / (2 * math.exp(-2) + math.exp(2))), rel=1e-6)
    assert float(worst.nearest) == 0.0


def test_info_nce_constant_cancels_and_small_tau_stays_finite() -> None:
    s, group = torch.randn(6, 4, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 0, 1, 1, 2, 2])
    plain, shifted = (float(info_nce(s, group, temperature=0.2, constant=c).loss) for c in (0.0, 7.0))
    assert shifted == pytest.approx(plain, rel=1e-4)
    s.requires_grad_(True)
    steep = info_nce(s, group, temperature=1e-4).loss  # exp(1 / tau) itself would overflow
    steep.backward()
    assert bool(steep.isfinite()) and s.grad is not None and bool(s.grad.isfinite().all())


def test_info_nce_without_other_groups_is_zero_and_without_pairs_an_error() -> None:
    s = torch.randn(3, 4, requires_grad=True)
    found = info_nce(s, torch.zeros(3, dtype=torch.int64))
    found.loss.backward()
    assert float(found.loss.detach()) == 0.0 and bool(found.negative.isnan())
    assert s.grad is not None and bool((s.grad == 0).all())
    with pytest.raises(InputError, match="same identity and emotion"):
        info_nce(s, torch.arange(3))


# --- the training step ---


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    corpus = SyntheticCorpus(SyntheticConfig(states=3, width=6, min_frames=8, max_frames=16))
    return embedder_batch([corpus.clip(i, e, 3, k) for i in (0, 1) for e in ("happy", "sad") for k in (0, 1)])


def test_batch_is_padded_and_grouped(batch: dict[str, torch.Tensor]) -> None:
    assert batch["group"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    frames = batch["mask"].shape[1]
    assert batch["audio"].shape == (8, 2 * frames, 3, 6) and batch["expression"].shape == (8, frames, 52)
    assert not bool(batch["expression"][~batch["mask"]].any()) and 8 <= int(batch["mask"].sum(1).min()) < frames


def test_frames_without_a_face_are_masked() -> None:
    face = np.zeros((4, 52), np.float32)
    face[2] = np.nan
    made = embedder_batch([{"expression": face, "audio": np.zeros((8, 3, 6)), "video": "a"}])
    assert made["mask"].tolist() == [[True, True, False, True]]


def test_audio_goes_by_its_own_steps() -> None:
    """Four steps to a frame here, as of faster features; a clip that has another number is refused."""
    clips = [{"expression": np.ones((n, 52)), "audio": np.full((4 * n, 3, 6), n), "video": "a"} for n in (2, 3)]
    audio = embedder_batch(clips)["audio"]
    assert audio.shape == (2, 12, 3, 6) and bool((audio[0, :8] == 2).all()) and not bool(audio[0, 8:].any())
    with pytest.raises(InputError, match="11 audio steps to 3 frames"):
        embedder_batch([clips[0], {**clips[1], "audio": clips[1]["audio"][:11]}])


def test_positives_share_identity_and_emotion_or_the_video() -> None:
    assert group_of({"identity": "a", "emotion": "sad"}) != group_of({"identity": "b", "emotion": "sad"})
    assert group_of({"identity": "a", "emotion": "sad"}) != group_of({"identity": "a", "emotion": "happy"})
    assert group_of({"identity": "a", "emotion": None, "video": "v"}) == group_of({"identity": "b", "video": "v"})
    with pytest.raises(InputError, match="identity and emotion"):
        group_of({"identity": "a"})


def test_loss_is_reproducible_and_reaches_every_parameter(batch: dict[str, torch.Tensor]) -> None:
    net = network()
    loss, numbers = embedder_loss(net, batch, torch.Generator().manual_seed(4))
    again, _ = embedder_loss(net, batch, torch.Generator().manual_seed(4))
    other, _ = embedder_loss(net, batch, torch.Generator().manual_seed(5))
    assert float(loss.detach()) == float(again.detach()) == numbers["loss"] != float(other.detach())
    loss.backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert still == []
    assert numbers["anchors"] == 8 and numbers["pairs"] == 8 and numbers["video_kept"] == 1.0


def test_training_mode_drops_modalities(batch: dict[str, torch.Tensor]) -> None:
    net = network(drop_probability=1.0).train()
    _, numbers = embedder_loss(net, batch, torch.Generator().manual_seed(0))
    assert numbers["video_kept"] + numbers["audio_kept"] == 1.0


def test_a_few_steps_bring_positives_together(batch: dict[str, torch.Tensor]) -> None:
    net = network(dropout=0.0, drop_probability=0.0).train()
    optimiser, generator = torch.optim.Adam(net.parameters(), 3e-3), torch.Generator().manual_seed(0)
    history = []
    for _ in range(25):
        loss, numbers = embedder_loss(net, batch, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(numbers)
    first, last = history[0], history[-1]
    assert last["loss"] < 0.5 * first["loss"]
    assert last["positive_cosine"] - last["negative_cosine"] > 0.5
