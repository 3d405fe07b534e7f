"""THEval's picture quality through an evaluation: without weights, and with networks that only see brightness."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from talkforge.core.weights import weights_store
from talkforge.flows.evaluate import EvalConfig, describe_plan, evaluate
from talkforge.models.musiq import Patches
from talkforge.tasks.corruptions import Source, rewrite
from talkforge.tasks.faces import LANDMARKER
from talkforge.tests.flows.test_unscorable import stand_ins, use
from talkforge.tests.tasks.one_row import need

MOUTH, FACE, PICTURE = "mouth_quality:musiq-koniq", "face_quality:topiq-face", "global_aesthetic:topiq-iaa"
QUALITY = (MOUTH, FACE, PICTURE)
EIGHT = ("theval_score:mp-tasks-8", "theval_score:mp-tasks-8-paper-gt")
CLIP = "jwp-intro-0.mp4"  # has a silence


def brightness(x: torch.Tensor) -> torch.Tensor:
    return x.mean(dim=(1, 2, 3))


def brightness_of_patches(patches: Patches) -> torch.Tensor:
    """0 for black; without the grey that fills patches up."""
    return torch.stack([part[part != 0].mean() for part in patches.pixels.split(patches.lengths)]) + 1


NETWORKS = {
    "talkforge.models.musiq:load_musiq": brightness_of_patches,
    "talkforge.models.topiq:load_topiq_face": brightness,
    "talkforge.models.topiq:load_topiq_iaa": brightness,
}


def evaluated(folder: Path, real: Path, generated: Path) -> dict[str, Any]:
    sides = {"real": real, "generated": generated, "out": folder / "out", "cache": folder / "cache"}
    how = {"method": "m", "metrics": [*QUALITY, "theval_score"], "workers": 1, "bootstrap": 100}
    config = EvalConfig.model_validate(sides | how | {"prefect": False})
    return evaluate(config).results | {"plan": describe_plan(config)}


def test_without_weights_they_are_null_with_the_way_out(
    sample_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path / "empty"))
    found = evaluated(tmp_path, sample_clips, sample_clips)
    results = found["results"]
    for name in (*QUALITY, *EIGHT):
        assert (results[name]["value"], results[name]["reason"]) == (None, "weights_missing"), name
    for name, weights in zip(QUALITY, ("musiq-koniq", "topiq-face-cgfiqa", "topiq-iaa-ava"), strict=True):
        way = "weights pull" if weights_store().spec(weights).remote else "place by hand:"
        assert weights in results[name]["hint"].partition(way)[2]
        assert weights in results[EIGHT[0]]["hint"] and weights in found["plan"]


def test_clips_at_half_the_brightness(sample_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each measure of the picture halves, up to the codec, and the score of eight is made of these and of the five."""
    need(LANDMARKER)
    stand_ins(tmp_path / "store", monkeypatch)
    use(monkeypatch, NETWORKS)
    real, dark = tmp_path / "real", tmp_path / "dark"
    for side in (real, dark):
        side.mkdir()
    clip = Path(shutil.copy(sample_clips / CLIP, real))
    rewrite(Source(clip, clip), dark / CLIP, lambda index, frame: frame // 2)
    same, halved = evaluated(tmp_path, real, real)["results"], evaluated(tmp_path, real, dark)["results"]
    assert same[EIGHT[0]]["value"] == 1
    closeness = []
    for name in QUALITY:
        value, level = halved[name]["value"], halved[name]["real_vs_real"]
        assert same[name]["value"] == same[name]["real_vs_real"] == level > 0.05
        assert value == pytest.approx(level / 2, rel=0.05), name
        closeness.append(value / level)
    five = halved["theval_score:mp-tasks-5of8"]["value"]
    assert halved[EIGHT[0]]["value"] == pytest.approx((5 * five + sum(closeness)) / 8)
    assert halved[EIGHT[1]]["value"] is not None
