"""Test sets: which clips a protocol takes, and that a frozen set stays what it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from talkforge.core.errors import ConfigError, InputError
from talkforge.core.provenance import PACKAGE_ROOT
from talkforge.datasets.synthetic import SyntheticConfig, SyntheticCorpus
from talkforge.datasets.synthetic_build import write_synthetic
from talkforge.flows.generate import TestSet
from talkforge.flows.testsets import make_testset

CORPUS = SyntheticConfig(
    identities=3, takes=2, emotions=("happy", "neutral", "sad"), min_frames=4, max_frames=6, states=1, width=2
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A build whose videos are other than videos; the set only counts on their bytes."""
    folder = tmp_path / "build"
    write_synthetic(folder, SyntheticCorpus(CORPUS), {"train": [0], "test": [1, 2]})
    for clip in SyntheticCorpus(CORPUS):
        path = folder / "videos" / f"{clip['clip_id']}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(clip["clip_id"])
    return folder


def test_each_emotional_clip_has_a_neutral_portrait_of_its_person(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "sets" / "test.yaml"
    assert make_testset("mead-dice", data, out) == 24, "two people, two emotions of three levels, two takes"
    items = TestSet.read(out)
    assert {item.id.split("/")[1] for item in items} == {"P001", "P002"}
    for item in items:
        _, person, emotion, *_ = item.id.split("/")
        assert emotion != "neutral" and item.emotion == emotion
        assert item.portrait.read_text() == f"synthetic/{person}/neutral/level_1/000"
        assert [path.read_text() for path in (item.audio, item.video, item.emotion_video) if path] == [item.id] * 3
    made = yaml.safe_load(out.read_text())
    assert made["protocol"]["identities"] == ["P001", "P002"] and made["protocol"]["left_out"] == []
    assert len(made["sha256"]) == 24 + 2
    assert all(not Path(name).is_absolute() for name in made["sha256"])


def test_a_limit_is_of_each_person_and_emotion(data: Path, tmp_path: Path) -> None:
    assert make_testset("mead-dice", data, tmp_path / "a.yaml", limit=2) == 8
    assert make_testset("mead-dice", data, tmp_path / "b.yaml", split="train", limit=1) == 2


def test_a_frozen_set_refuses_other_files(data: Path, tmp_path: Path) -> None:
    make_testset("mead-dice", data, tmp_path / "a.yaml", limit=1)
    item = TestSet.read(tmp_path / "a.yaml")[0]
    item.audio.write_text("another one")
    with pytest.raises(InputError, match=r"is not the file that the set was made with \(make the set anew\)"):
        TestSet.read(tmp_path / "a.yaml")
    item.audio.unlink()
    with pytest.raises(InputError, match="there is no file build/videos/"):
        TestSet.read(tmp_path / "a.yaml")


def test_what_no_set_can_be_made_of(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"unknown protocol 'mead_dice' \(did you mean mead-dice"):
        make_testset("mead_dice", data, tmp_path / "a.yaml")
    with pytest.raises(InputError, match=r"no \.yaml file"):
        make_testset("mead-dice", data, tmp_path / "a.json")
    with pytest.raises(ConfigError, match="no split 'tset'"):
        make_testset("mead-dice", data, tmp_path / "a.yaml", split="tset")
    with pytest.raises(InputError, match="both neutral and emotional"):
        make_testset("mead-dice", data, tmp_path / "a.yaml", split="val")
    assert not (tmp_path / "a.yaml").exists()


@pytest.mark.parametrize("name", ["../a", "/a", "a//b", "a/./b", "a/..", "..", "a\\b", ""])
def test_ids_stay_below_the_output(name: str, tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text(
        yaml.safe_dump({"name": "x", "items": [{"id": name, "portrait": "p", "audio": "a"}]})
    )
    with pytest.raises(InputError, match="no file name, nor a path below a folder"):
        TestSet.read(tmp_path / "set.yaml")


def test_the_template_can_be_read() -> None:
    path = PACKAGE_ROOT / "configs" / "testsets" / "mead_dice.yaml"
    item = TestSet.read(path)[0]
    assert item.emotion == "happy" and item.emotion_video == item.audio
    assert item.portrait == path.parent / "videos/mead/M003/front/neutral/level_1/001.mp4"
