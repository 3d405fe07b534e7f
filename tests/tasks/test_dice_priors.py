"""Mean priors over a small synthetic build, against the embedder called by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from talkforge.core.errors import InputError
from talkforge.datasets.synthetic import SyntheticConfig, SyntheticCorpus
from talkforge.datasets.synthetic_build import STATES, write_synthetic
from talkforge.flows.priors import make_priors
from talkforge.models.dice_talk.config import EmbedderConfig
from talkforge.models.dice_talk.embedder import EmotionEmbedder
from talkforge.models.dice_talk.priors import read_priors
from talkforge.tasks.dice_priors import build_priors, maker_of, open_priors
from talkforge.tests.dice_runs import dice_config, write_embedder, write_run

CORPUS = SyntheticConfig(
    identities=2, takes=2, emotions=("happy", "neutral", "sad"), min_frames=9, max_frames=20, states=2, width=8
)
SIZES = {"audio_states": 2, "audio_width": 8, "width": 16, "layers": 1, "feedforward": 16, "max_frames": 12}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "build"
    write_synthetic(folder, SyntheticCorpus(CORPUS), {"train": [0], "test": [1]})
    return folder


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    # A window below the embedder's own limit: the training's default would not fit it.
    folder = write_embedder(tmp_path_factory.mktemp("runs") / "emb", data=data, column=STATES, **SIZES)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("settings:\n", "settings:\n  window: 12\n"))
    return folder


def by_hand(run: Path, person: int) -> dict[str, np.ndarray]:
    """mu of each clip of a person: its middle 12 frames through the averaged weights."""
    model = EmotionEmbedder(EmbedderConfig.tiny(**SIZES))
    model.load_state_dict(load_file(run / "checkpoints" / "step-00000001" / "ema.safetensors"))
    model.eval()
    found = {}
    for clip in (one for one in SyntheticCorpus(CORPUS) if one["identity"] == f"P{person:03d}"):
        frames = len(clip["expression"])
        first = max(0, min(frames // 2 - 6, frames - 12))
        face = torch.from_numpy(clip["expression"][first : first + 12]).float()[None]
        sound = torch.from_numpy(clip["audio"][2 * first : 2 * (first + 12)]).float()[None]
        with torch.no_grad():
            found[clip["clip_id"]] = model(face, sound).mu[0].numpy()
    return found


def test_an_emotions_prior_is_the_mean_of_its_clips(data: Path, embedder: Path, tmp_path: Path) -> None:
    wanted = defaultdict(list)
    for name, mu in by_hand(embedder, 0).items():
        wanted[name.split("/")[2]].append(mu)
    made = make_priors(embedder, out=tmp_path / "new" / "p.npz")
    assert made["clips"] == {"happy": 6, "neutral": 2, "sad": 6}, "two takes of three intensities, neutral has one"
    found = read_priors(tmp_path / "new" / "p.npz", width=16)
    assert list(found) == ["happy", "neutral", "sad"]
    for name, mu in found.items():
        np.testing.assert_allclose(mu[0], np.mean(wanted[name], axis=0), atol=1e-5)


def test_each_clips_own_prior_of_another_split(data: Path, embedder: Path, tmp_path: Path) -> None:
    make_priors(embedder, data, tmp_path / "p.npz", split="test", by="clip")
    found, wanted = read_priors(tmp_path / "p.npz", width=16), by_hand(embedder, 1)
    assert set(found) == set(wanted)
    for name, mu in wanted.items():
        np.testing.assert_allclose(found[name][0], mu, atol=1e-5)


def test_a_diffusion_runs_priors_lie_in_it(data: Path, embedder: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "dice", embedder=embedder, data=data)
    made = make_priors(run)
    assert made["out"] == str(run / "priors.npz")
    ours, theirs = read_priors(run / "priors.npz", width=16), build_priors(open_priors(embedder), data)[0]
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_a_run_keeps_only_named_emotions(data: Path, embedder: Path, tmp_path: Path) -> None:
    """Clips' priors would replace them, and nothing reads those of an embedder's run."""
    run = write_run(tmp_path / "dice", embedder=embedder, data=data)
    make_priors(run)
    before = (run / "priors.npz").read_bytes()
    way = r"\(give --out FILE\.npz, then generate --priors FILE\.npz"
    with pytest.raises(InputError, match=rf"would replace those of emotions .*{way}"):
        make_priors(run, by="clip")
    with pytest.raises(InputError, match=rf"emb is a training of dice-embedder, .*{way}"):
        make_priors(embedder)
    assert (run / "priors.npz").read_bytes() == before and not (embedder / "priors.npz").exists()
    assert len(make_priors(run, out=tmp_path / "clips.npz", by="clip")["clips"]) == 14


def test_clips_without_labels(data: Path, embedder: Path, tmp_path: Path) -> None:
    write_synthetic(tmp_path / "plain", SyntheticCorpus(CORPUS), {"train": [0]})
    info = json.loads((tmp_path / "plain" / "meta" / "info.json").read_text())
    del info["columns"]["emotion"]
    (tmp_path / "plain" / "meta" / "info.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match=r"says its emotion \(--by clip"):
        make_priors(embedder, tmp_path / "plain", tmp_path / "p.npz")
    assert not (tmp_path / "p.npz").exists()
    assert len(make_priors(embedder, tmp_path / "plain", tmp_path / "p.npz", by="clip")["clips"]) == 14


def test_an_embedder_that_is_not_here(data: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "dice", embedder=tmp_path / "gone", data=data, config=dice_config())
    with pytest.raises(InputError, match=r"gone, the embedder of .*dice, is not here"):
        make_priors(run)
    with pytest.raises(InputError, match="trained without an embedder"):
        make_priors(write_run(tmp_path / "without", data=data))
    with pytest.raises(InputError, match="is no training"):
        make_priors(tmp_path / "nowhere")
    assert not (tmp_path / ".nowhere.lock").exists(), "a lock beside what is not there"


def test_a_columns_extractor() -> None:
    spec, name = maker_of("whisper_tiny_en_states")
    assert (spec.id, name) == ("whisper-tiny-en", "states")
    spec, name = maker_of("arkit52_blendshapes")
    assert (spec.id, name) == ("arkit52", "blendshapes")
