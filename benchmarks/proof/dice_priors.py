"""What `dice_embedder.py` beside this file measures on: a corpus a seed, two trainings, and the priors of its clips."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from talkforge.core.shards import atomic_folder, atomic_path
from talkforge.datasets.shards import ClipShards
from talkforge.datasets.synthetic import SyntheticConfig, SyntheticCorpus
from talkforge.datasets.synthetic_build import EXPRESSION, STATES, write_synthetic
from talkforge.flows.train import train
from talkforge.models.dice_talk.embedder import EmotionEmbedder
from talkforge.models.training.state import checkpoints_in, read_checkpoint
from talkforge.tasks.train_dice_embedder import EXPRESSIONS, Collate, DiceEmbedderConfig

# What an embedder is given of each clip: which of (video, audio) it keeps.
MODALITIES = {"audio": (False, True), "video": (True, False), "both": (True, True)}
# Trainings: with samples of eq. 6, with mu alone (Table 4's ablation), and the first one gone on with.
KINDS = ("gaussian", "deterministic", "longer")
LABELS = ("identity", "emotion", "level", "take", "face")
BATCH = 32


@dataclass(frozen=True)
class Plan:
    """Sizes of a seed's corpus and training.

    Attributes:
        train, val, test: people of each split; no one is in two.
        states, width: of the made-up audio states: narrower than Whisper-tiny's 5 x 384, for speed alone.
        takes: clips of each person, emotion and level.
        steps, longer: of both trainings, and of the first where it goes on.
        sets: further settings of the training, as key=value.
    """

    train: int = 14
    val: int = 2
    test: int = 8
    states: int = 3
    width: int = 96
    takes: int = 4
    steps: int = 400
    longer: int = 800
    sets: tuple[str, ...] = ()

    def corpus(self, seed: int) -> SyntheticConfig:
        """Other people, voices and phones with each seed."""
        people = self.train + self.val + self.test
        return SyntheticConfig(identities=people, takes=self.takes, states=self.states, width=self.width, seed=seed)

    def splits(self) -> dict[str, range]:
        """Numbers of people."""
        ends = np.cumsum([self.train, self.val, self.test]).tolist()
        return {
            name: range(end - count, end)
            for name, end, count in zip(("train", "val", "test"), ends, (self.train, self.val, self.test), strict=True)
        }

    def overrides(self, seed: int, kind: str) -> list[str]:
        """Of the preset tiny."""
        audio = [f"model.audio_states={self.states}", f"model.audio_width={self.width}"]
        steps = self.longer if kind == "longer" else self.steps
        run = [f"steps={steps}", f"seed={seed}", "device=cpu", "tensorboard=false", "keep=1"]
        return [*audio, *run, f"model.deterministic={str(kind == 'deterministic').lower()}", *self.sets]


@dataclass(frozen=True)
class Priors:
    """Priors of a split's clips, in one order.

    Attributes:
        mu, sigma: modality -> (N, d).
        identity, emotion, level, take: (N,).
        face: mean over frames of the coefficients, (N, 52).
    """

    mu: Mapping[str, np.ndarray]
    sigma: Mapping[str, np.ndarray]
    identity: np.ndarray
    emotion: np.ndarray
    level: np.ndarray
    take: np.ndarray
    face: np.ndarray

    def drawn(self, modality: str, seed: int) -> np.ndarray:
        """One sample of eq. 6 for each clip, (N, d)."""
        eps = np.random.default_rng(seed).normal(size=self.mu[modality].shape)
        return self.mu[modality] + self.sigma[modality] * eps

    def drawn_round(self, modality: str, seed: int) -> np.ndarray:
        """As `drawn`, with noise of the same power in each clip and the same size in all directions."""
        eps = np.random.default_rng(seed).normal(size=self.mu[modality].shape)
        return self.mu[modality] + np.sqrt((self.sigma[modality] ** 2).mean(axis=1, keepdims=True)) * eps

    def save(self, path: Path) -> None:
        """Writes them, never half."""
        arrays: dict[str, Any] = {f"mu_{name}": value for name, value in self.mu.items()}
        arrays |= {f"sigma_{name}": value for name, value in self.sigma.items()}
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays, **{name: getattr(self, name) for name in LABELS})

    @classmethod
    def load(cls, path: Path) -> Priors:
        """Reads what `save` wrote."""
        with np.load(path) as archive:
            mu, sigma = ({name: archive[f"{part}_{name}"] for name in MODALITIES} for part in ("mu", "sigma"))
            identity, emotion, level, take, face = (archive[name] for name in LABELS)
            return cls(mu, sigma, identity, emotion, level, take, face)


def priors_of_seed(plan: Plan, seed: int, folder: Path) -> dict[str, dict[str, Priors]]:
    """Kind of training -> split -> priors: made where they are not there yet, in steps that are never done twice."""
    wanted = {kind: {split: folder / f"{kind}-{split}.npz" for split in ("train", "test")} for kind in KINDS}
    if not all(path.is_file() for paths in wanted.values() for path in paths.values()):
        build = folder / "corpus"
        if not (build / "meta" / "info.json").is_file():
            say(f"seed {seed}: corpus")
            write_synthetic(build, SyntheticCorpus(plan.corpus(seed)), plan.splits())
        for kind, paths in wanted.items():
            _train_and_embed(plan, seed, kind, build, folder / kind, paths)
    return {kind: {split: Priors.load(path) for split, path in paths.items()} for kind, paths in wanted.items()}


def _train_and_embed(plan: Plan, seed: int, kind: str, build: Path, run: Path, wanted: Mapping[str, Path]) -> None:
    begun = time.process_time()
    say(f"seed {seed}: {kind}")
    if kind == "longer" and not run.is_dir():
        with atomic_folder(run) as copy:
            # Same draws as if it had never stopped: a training that goes on is the training that it would have been.
            shutil.copytree(run.with_name("gaussian"), copy, dirs_exist_ok=True)
    made = train("dice-embedder", build, run, "tiny", plan.overrides(seed, kind), resume=True)
    if made.fresh:
        (run / "cpu_seconds").write_text(f"{time.process_time() - begun:.1f}\n", encoding="utf-8")
    settings = DiceEmbedderConfig.model_validate(yaml.safe_load((run / "config.yaml").read_text())["settings"])
    model = _averaged(settings, run)
    for split, path in wanted.items():
        if not path.is_file():
            embed(model, settings, ClipShards(build, split)).save(path)


def _averaged(settings: DiceEmbedderConfig, run: Path) -> EmotionEmbedder:
    """The embedder with the averaged weights of the last checkpoint."""
    found = read_checkpoint(checkpoints_in(run / "checkpoints")[-1])
    model = EmotionEmbedder(settings.model)
    model.load_state_dict(found.ema if found.ema is not None else found.model)
    return model.eval()


def embed(model: EmotionEmbedder, settings: DiceEmbedderConfig, shards: ClipShards) -> Priors:
    """Priors of all clips, over as many frames in their middle as the training took at once."""
    collate = Collate(EXPRESSION, STATES, settings.model.audio_states, EXPRESSIONS["arkit52"][2])
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(shards), BATCH):
        chosen = [_middle(shards, k, settings.window) for k in range(start, min(start + BATCH, len(shards)))]
        parts.append(_priors(model, collate(chosen)))
        rows += [_labels(row) for row in chosen]
    identity, emotion, level, take, face = (np.array([row[name] for row in rows]) for name in LABELS)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    mu, sigma = ({name: arrays[f"{part}_{name}"] for name in MODALITIES} for part in ("mu", "sigma"))
    return Priors(mu, sigma, identity, emotion, level, take, face)


def _middle(shards: ClipShards, k: int, window: int) -> dict[str, Any]:
    frames = int(shards.lengths[k])
    return shards.window(k, max(0, (frames - window) // 2), min(frames, window))


def _labels(row: Mapping[str, Any]) -> dict[str, Any]:
    place = {name: row[name] for name in ("identity", "emotion")}
    take = int(row["clip_id"].rpartition("/")[2])
    return {**place, "level": row["intensity"], "take": take, "face": row[EXPRESSION].mean(axis=0)}


def _priors(model: EmotionEmbedder, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    found = {}
    for name, kept in MODALITIES.items():
        keep = torch.tensor([kept] * len(batch["mask"]))
        with torch.inference_mode():
            prior = model(batch["expression"], batch["audio"], batch["mask"], keep=keep)
        found |= {f"mu_{name}": prior.mu.numpy(), f"sigma_{name}": prior.sigma.numpy()}
    return found


def described(plan: Plan, seeds: Sequence[int]) -> dict[str, Any]:
    """What was measured on, JSON-ready."""
    corpus = asdict(plan.corpus(0)) | {"emotions": list(plan.corpus(0).emotions)}
    return {"plan": asdict(plan), "corpus": {k: v for k, v in corpus.items() if k != "seed"}, "seeds": list(seeds)}


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
