"""The system dice-talk: its size and settings by the command; it learns, goes on, and says what does not fit."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from talkforge.commands.training import train
from talkforge.core.errors import ConfigError, InputError, TalkForgeError
from talkforge.core.registry import resolve
from talkforge.datasets.synthetic import SyntheticConfig, SyntheticCorpus
from talkforge.datasets.synthetic_build import write_synthetic
from talkforge.flows.train import describe, systems
from talkforge.flows.train import train as run_train
from talkforge.models.dice_talk.denoiser_config import DiceTalkConfig
from talkforge.models.training.log import read_log
from talkforge.models.training.state import checkpoints_in, read_checkpoint
from talkforge.models.training.system import TrainParts
from talkforge.tasks.clip_prior import ClipPriors
from talkforge.tasks.dice_priors import embedder_run
from talkforge.tasks.talking_batches import TalkingWindows
from talkforge.tasks.talking_training import pinned_by
from talkforge.tasks.trained import weights_of
from talkforge.tests.models.dice_talk_cases import needs_diffusers, one_thread
from talkforge.tests.tasks.talking_build import clip_row, losses_of, write_talking_build


def dry(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(train, ["dice-talk", "--dry-run", "--json", *arguments], catch_exceptions=False)
    return json.loads(done.stdout)


@needs_diffusers
def test_the_full_system_is_counted_without_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = dry("--preset", "full")
    counts = found["parameters"]
    assert counts["unet_base"] == 1_524_623_082  # the published UNet's
    assert counts["vae"] == 97_742_847 and counts["image_encoder"] == 632_076_800  # theirs likewise
    # All of it would be 10 GB; the libraries that are imported here take a part of this.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000_000
    assert found["settings"]["model"]["unet"]["channels"] == [320, 640, 1280, 1280]


@needs_diffusers
def test_settings_change_what_is_counted() -> None:
    tiny = dry("--preset", "tiny")["parameters"]
    wider = dry("--preset", "tiny", "--set", "model.audio.hidden=65", "--set", "steps=7")
    # Two linear maps with biases from the hidden layers, and the input's: 19200 + 1, then 64 + 65 + 1, then 4 x 64.
    assert wider["parameters"]["audio_tokens"] - tiny["audio_tokens"] == 19200 + 1 + (64 + 65 + 1) + 4 * 64
    assert wider["settings"]["steps"] == 7
    assert {name: count for name, count in wider["parameters"].items() if name != "audio_tokens"} == {
        name: count for name, count in tiny.items() if name != "audio_tokens"
    }
    without = describe("dice-talk", "tiny", ["model.head.weight=0"])
    assert without["parameters"]["emotion_head"] == 0 < tiny["emotion_head"]


def test_presets_are_the_model_s_own() -> None:
    for preset in ("tiny", "full"):
        config: Any = systems.get("dice-talk").settings(preset)
        own = DiceTalkConfig.preset(preset)
        assert replace(config.model, vae=own.vae) == own
        assert type(config).model_validate(json.loads(config.model_dump_json())) == config


def test_unknown_settings_are_refused_at_every_depth() -> None:
    for text, message in (
        ("model.unett={}", r"unknown key 'unett' of DiceTalkConfig \(did you mean unet"),
        ("model.unet.frame=3", r"unknown key 'unet\.frame' of UNetConfig \(did you mean frames"),
        ("model.vae.kind=big", r"model\.vae\.kind"),
        ("model.size=65", "size 65 does not divide by 4"),
    ):
        with pytest.raises(ConfigError, match=message):
            systems.get("dice-talk").settings("tiny", [text])


EMOTIONS = ("angry", "happy", "sad")
CORPUS = SyntheticConfig(identities=2, takes=2, emotions=EMOTIONS, min_frames=12, max_frames=14)
MODEL = (
    *("model.size=32", "model.unet.channels=[32,32]", "model.unet.heads=[2,2]", "model.audio.hidden=8"),
    *(
        "model.bank.prior_width=16",
        "model.vae.channels=8",
        "model.bank.hidden=16",
        "model.diffusion.steps=3",
        "model.vae.alone_steps=0",
        "model.vae.joint=true",
    ),
)
RUN = ("frames=3", "batch_size=2", "steps=6", "checkpoint_every=3", "sample_every=0", "tensorboard=false", "device=cpu")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of a small embedder on synthetic clips."""
    folder = tmp_path_factory.mktemp("embedder")
    write_synthetic(folder / "data", SyntheticCorpus(CORPUS), {"train": [0, 1]})
    small = ("model.width=16", "model.layers=1", "model.feedforward=16", "window=12", "groups_per_batch=2", "steps=2")
    run_train("dice-embedder", folder / "data", folder / "out", "tiny", [*small, "tensorboard=false", "device=cpu"])
    return folder / "out"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [clip_row(0, 16), clip_row(1, 14, emotion="happy"), clip_row(2, 12, emotion="neutral")]
    rows.append(clip_row(3, 12, split="val", emotion="sad"))
    return write_talking_build(tmp_path_factory.mktemp("build") / "out", rows)


def settings(embedder: Path, *overrides: str) -> list[str]:
    return [*MODEL, *RUN, f"embedder={embedder}", *overrides]


def parts_of(data: Path, embedder: Path, *overrides: str) -> TrainParts:
    spec = systems.get("dice-talk")
    return resolve(spec.build)(spec.settings("tiny", settings(embedder, *overrides)), data, 0, 1)


def learned(out: Path) -> list[tuple[Any, ...]]:
    return [(row["step"], row["loss"], row["grad_norm"], row["parts"]) for row in read_log(out / "log.jsonl")]


@needs_diffusers
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_goes_on_as_if_it_had_not_stopped(data: Path, embedder: Path, tmp_path: Path, precision: str) -> None:
    given = settings(embedder, "model.vae.alone_steps=1", "sample_every=3", f"precision={precision}")
    run_train("dice-talk", data, tmp_path / "whole", "tiny", given)
    rows = learned(tmp_path / "whole")
    assert [set(parts) for _, _, _, parts in rows[:1]] == [{"reconstruction", "kl"}]
    assert {"denoise", "vq", "cls", "emotion_accuracy", "codes_used", "code_perplexity"} <= rows[1][3].keys()
    scores = [read_checkpoint(path).facts["score"] for path in checkpoints_in(tmp_path / "whole" / "checkpoints")]
    assert len(set(scores)) == 2 and all(np.isfinite(score) for score in scores)
    run_train("dice-talk", data, tmp_path / "out", "tiny", [*given, "steps=4"])
    run_train("dice-talk", data, tmp_path / "out", "tiny", given, resume=True)
    assert learned(tmp_path / "out") == rows
    shapes = {Image.open(path).size for path in sorted((tmp_path / "out" / "samples").glob("*.png"))}
    assert shapes == {(4 * 32, 4 * 32)}  # portrait and three frames; filmed and made, of two clips


@needs_diffusers
def test_batches_hold_the_sound_and_the_prior_of_their_window(data: Path, embedder: Path) -> None:
    parts = parts_of(data, embedder, "prior_from=video")
    batch = next(iter(parts.batches))
    loader: Any = parts.batches
    shot = next(iter(TalkingWindows.__iter__(loader.sampler)))[0]
    assert batch["pictures"].shape == (2, 3, 3, 32, 32) and batch["mask"].shape == (2, 1, 1, 32, 32)
    steps = batch["audio"][0, :, :, 2, 7]  # a state of step t is t, and 0 outside of the clip
    frames = int(loader.rows.shards.lengths[shot.clip])
    wanted = [
        [t if 0 <= t < 2 * frames else 0 for t in range(2 * f - 4, 2 * f + 6)]
        for f in range(shot.start, shot.start + 5, 2)
    ]
    assert steps.tolist() == wanted
    priors = ClipPriors.load(embedder, "video")
    row = loader.rows.shards.window(shot.clip, shot.start, 5)
    found = priors(row["arkit52_blendshapes"], None)
    assert (
        found is not None and np.array_equal(batch["mu"][0], found[0]) and np.array_equal(batch["sigma"][0], found[1])
    )
    whole = next(iter(parts_of(data, embedder, "prior_from=video", "prior_of=clip").batches))
    row = loader.rows.shards[shot.clip]
    found = priors(row["arkit52_blendshapes"], None)
    assert found is not None and np.array_equal(whole["mu"][0], found[0])
    assert not np.array_equal(whole["mu"][0], batch["mu"][0])


@needs_diffusers
def test_a_few_clips_are_learned(data: Path, embedder: Path) -> None:
    torch.manual_seed(0)
    parts = parts_of(data, embedder, "model.vae.channels=16")
    losses = losses_of(parts, 40)
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


@needs_diffusers
def test_what_does_not_fit_is_said(data: Path, embedder: Path) -> None:
    for overrides, message in (
        (["embedder=null"], "needs emotion priors"),
        (["model.bank.prior_width=64"], "makes priors of 16 numbers, the model reads 64"),
        (["audio_column=whisper_tiny_en_states"], "trained on whisper_tiny_states, and the model hears"),
        (["audio_column=whisper_tiny_en_states", "prior_from=video"], "no column 'whisper_tiny_en_states'"),
        (["model.audio.states=2"], "has 2 x 1920 numbers a frame .*, the model reads 2 x 768"),
        (["batch_size=3"], "3 clips cannot be shared out"),
        ([f"embedder={data}"], "is no training"),
        (["frames=30"], "none of 3 clips can be used"),
    ):
        with pytest.raises(TalkForgeError, match=message):
            parts_of(data, embedder, *overrides)


@needs_diffusers
def test_a_missing_column_names_its_extractor(data: Path, embedder: Path) -> None:
    with pytest.raises(InputError, match="no column") as caught:
        parts_of(data, embedder, "audio_column=whisper_tiny_en_states", "prior_from=video")
    assert "extractor whisper-tiny-en" in str(caught.value.hint)
    assert "audio_column=whisper_tiny_states" in str(caught.value.hint)


def nulls(row: dict[str, Any], *kept: int) -> dict[str, Any]:
    """The clip with coefficients of these frames only."""
    faces = [value if frame in kept else None for frame, value in enumerate(row["arkit52_blendshapes"])]
    return row | {"arkit52_blendshapes": faces}


@needs_diffusers
def test_a_prior_is_of_what_can_be_read_of_the_clip(embedder: Path, tmp_path: Path) -> None:
    """The embedder takes 20 frames; frame 70 alone can be read."""
    folder = write_talking_build(tmp_path / "out", [nulls(clip_row(0, 80), 70, 71), nulls(clip_row(1, 14))])
    parts = parts_of(folder, embedder, "prior_from=video", "batch_size=1")
    loader: Any = parts.batches
    assert {shot.clip for batch in TalkingWindows.__iter__(loader.sampler) for shot in batch} == {0}
    extras = loader.rows.extras
    model = replace(extras.priors.settings.model, max_frames=20)
    priors = replace(extras.priors, settings=extras.priors.settings.model_copy(update={"model": model}))
    clip, wanted = loader.rows.clip(0), priors(loader.rows.clip(0).columns["arkit52_blendshapes"][60:80], None)
    assert wanted is not None
    for start in (0, 30, 72):
        found = replace(extras, priors=priors)(clip, start)
        assert np.array_equal(found["mu"], wanted[0]) and np.array_equal(found["sigma"], wanted[1])
    with pytest.raises(InputError, match="no clip that is long enough has a frame that the embedder can read"):
        none = write_talking_build(tmp_path / "none", [nulls(clip_row(1, 14))])
        parts_of(none, embedder, "prior_from=video", "batch_size=1")


@needs_diffusers
def test_several_processes_do_not_reseed(data: Path, embedder: Path) -> None:
    spec = systems.get("dice-talk")

    def built(*overrides: str) -> TrainParts:
        return resolve(spec.build)(spec.settings("tiny", settings(embedder, *overrides)), data, 1, 2)

    with pytest.raises(ConfigError, match="reseed dead codes") as caught:
        built()
    hint = str(caught.value.hint)
    assert "--set model.bank.dead_codes=off" in hint
    assert built("model.bank.dead_codes=off").model.config.bank.dead_codes == "off"


@needs_diffusers
def test_paths_are_those_of_where_the_command_was_given(
    data: Path, embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(embedder.parent)
    given = settings(Path(embedder.name), "steps=1", "model.vae.alone_steps=1")
    run_train("dice-talk", data, tmp_path / "out", "tiny", [*given, "steps=1"])
    monkeypatch.chdir(tmp_path)
    assert embedder_run(tmp_path / "out") == embedder.resolve()
    assert systems.get("mf-etalk").settings("tiny", ["init=image"]).model_dump()["init"] == tmp_path.resolve() / "image"


@needs_diffusers
def test_a_training_goes_on_with_its_own_embedder_only(data: Path, embedder: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(embedder, tmp_path / "embedder"))
    given = settings(mine, "model.vae.alone_steps=9", "validation_batches=0", "checkpoint_every=1")
    run_train("dice-talk", data, tmp_path / "out", "tiny", [*given, "steps=1"])
    weights = weights_of(mine)
    assert pinned_by(weights_of(tmp_path / "out").checkpoint) == {"embedder": weights.sha256}
    save_file({name: value + 1 for name, value in load_file(weights.weights).items()}, weights.weights)
    with pytest.raises(ConfigError, match="begun with another embedder: sha256 " + weights.sha256[:12]):
        run_train("dice-talk", data, tmp_path / "out", "tiny", [*given, "steps=2"], resume=True)
