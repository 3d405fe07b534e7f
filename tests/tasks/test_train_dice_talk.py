"""The system dice-talk: its size and settings by the command, and what it says when it is to be trained."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from talkforge.commands.training import train
from talkforge.core.errors import ConfigError
from talkforge.flows.train import describe, systems
from talkforge.flows.train import train as run_train
from talkforge.models.dice_talk.denoiser_config import DiceTalkConfig
from talkforge.tests.models.dice_talk_cases import needs_diffusers


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
        assert config.model == DiceTalkConfig.preset(preset)
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


def test_training_it_says_that_it_cannot_be_trained_yet(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match=r"cannot be trained on a build yet.*--dry-run"):
        run_train("dice-talk", tmp_path / "data", tmp_path / "out", "tiny", ["tensorboard=false", "device=cpu"])
