"""The synthetic corpus: the same whenever it is made, and with the properties that it is made for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from talkforge.core.emotions import MEAD_EMOTIONS
from talkforge.core.errors import ConfigError, InputError
from talkforge.datasets.shards import ClipShards
from talkforge.datasets.synthetic import (
    COEFFICIENTS,
    LEVELS,
    PLACE,
    PROSODY,
    PROTOTYPES,
    SyntheticConfig,
    SyntheticCorpus,
    archetype,
)
from talkforge.datasets.synthetic_build import EXPRESSION, ROTATION, STATES, write_synthetic
from talkforge.models.dice_talk.losses import shard_clip
from talkforge.tasks.extract_arkit import BLENDSHAPE_NAMES

SMALL = SyntheticConfig(identities=3, takes=2, states=3, width=16)
OPEN = tuple(emotion for emotion in MEAD_EMOTIONS if emotion != "neutral")


def mean_face(corpus: SyntheticCorpus, person: int, emotion: str, takes: range, level: int = 3) -> np.ndarray:
    return np.mean([corpus.clip(person, emotion, level, take)["expression"].mean(0) for take in takes], axis=0)


def test_coefficients_are_the_extractors() -> None:
    assert COEFFICIENTS == BLENDSHAPE_NAMES


def test_every_emotion_is_described() -> None:
    assert set(PROTOTYPES) == set(PROSODY) == set(MEAD_EMOTIONS)
    assert not archetype("neutral").any() and all(archetype(emotion).any() for emotion in OPEN)
    happy, contempt = archetype("happy"), archetype("contempt")
    assert happy[PLACE["mouthSmileLeft"]] == happy[PLACE["mouthSmileRight"]] == 0.8
    assert contempt[PLACE["mouthSmileLeft"]] == 0.0 < contempt[PLACE["mouthSmileRight"]]  # one side only


def test_shape_of_a_clip_and_of_the_corpus() -> None:
    corpus = SyntheticCorpus(replace(SMALL, identities=1, takes=1))
    items = list(corpus)
    assert len(items) == len(corpus) == 22  # seven emotions of three levels, and neutral
    assert Counter(item["emotion"] for item in items) == {e: 1 if e == "neutral" else 3 for e in MEAD_EMOTIONS}
    for item in items:
        frames = len(item["expression"])
        assert 40 <= frames <= 80 and item["expression"].shape == (frames, 52) and item["rotation"].shape == (frames, 3)
        assert item["audio"].shape == (2 * frames, 3, 16) and item["audio"].dtype == np.float16
        assert item["expression"].min() >= 0 and item["expression"].max() <= 1
        assert not item["expression"][:, 0].any() and np.isfinite(item["audio"]).all()
    assert len({item["clip_id"] for item in items}) == 22


def test_a_clip_is_the_same_whatever_was_made_before() -> None:
    first = SyntheticCorpus(SMALL)
    items = {item["clip_id"]: item for item in first}
    alone = SyntheticCorpus(SMALL).clip(2, "sad", 2, 1)
    for name in ("expression", "audio", "rotation"):
        assert np.array_equal(alone[name], items["synthetic/P002/sad/level_2/001"][name])
    other = SyntheticCorpus(replace(SMALL, seed=1)).clip(2, "sad", 2, 1)
    assert other["expression"].shape != alone["expression"].shape or (other["expression"] != alone["expression"]).any()
    # A person is the same in a corpus of more people.
    more = SyntheticCorpus(replace(SMALL, identities=9)).clip(2, "sad", 2, 1)
    assert np.array_equal(more["expression"], alone["expression"])


def test_manner_is_the_sine_of_the_angle_to_the_archetype() -> None:
    for manner in (0.0, 0.3, 0.8):
        person = SyntheticCorpus(replace(SMALL, manner=manner)).person(1)
        for emotion in OPEN:
            own, shared = person.manners[emotion], archetype(emotion)
            assert np.linalg.norm(own) == pytest.approx(np.linalg.norm(shared))
            cosine = own @ shared / (shared @ shared)
            assert cosine == pytest.approx(np.sqrt(1 - manner**2))
    assert not person.manners["neutral"].any()


def test_manner_can_be_measured_and_is_the_persons_own() -> None:
    """Of an emotion's displacement from neutral in new takes, the nearest one in old takes is the same person's."""
    corpus = SyntheticCorpus(replace(SMALL, identities=4, manner=0.7, blend=0.2))
    old, new = range(6), range(6, 9)
    rest = [mean_face(corpus, person, "neutral", old, 1) for person in range(4)]
    right = 0
    for emotion in ("angry", "fear", "happy", "surprised"):
        known = np.stack([mean_face(corpus, p, emotion, old) - rest[p] for p in range(4)])
        found = np.stack([mean_face(corpus, p, emotion, new) - rest[p] for p in range(4)])
        unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (found, known)]
        right += int(((unit[0] @ unit[1].T).argmax(1) == np.arange(4)).sum())
    assert right >= 14  # of 16; chance is 4


def test_levels_grade_face_and_voice() -> None:
    plain = replace(SMALL, blend=0.0, slip=0.0, voice_slip=0.0, content=0.0, voice=0.0, voice_noise=0.0)
    corpus, takes = SyntheticCorpus(plain), range(6)
    rest = mean_face(corpus, 0, "neutral", takes, 1)
    sizes = [np.linalg.norm(mean_face(corpus, 0, "happy", takes, level) - rest) for level in LEVELS]
    # Without speech a state is its place on the three axes of prosody.
    axes = corpus.phones.axes.reshape(3, -1)
    sounds = [[corpus.clip(0, "angry", level, k)["audio"].astype(float).mean(0) for k in takes] for level in LEVELS]
    points = [np.linalg.lstsq(axes.T, np.mean(sound, axis=0).reshape(-1), rcond=None)[0] for sound in sounds]
    loudness = np.array([point / (corpus.person(0).expressiveness * PROSODY["angry"]) for point in points])
    np.testing.assert_allclose(loudness, np.array([[0.45], [0.7], [1.0]]) * np.ones(3), atol=0.1)
    # Faces are cut off at 0 and 1, so they follow less exactly.
    np.testing.assert_allclose(np.array(sizes) / sizes[2], [0.45, 0.7, 1.0], atol=0.12)


def test_speech_moves_the_mouth_and_the_sound_together() -> None:
    """The mouth's opening is a linear function of the phones heard at that moment, and not of those 0.4 s later."""
    quiet = replace(SMALL, noise=0.0, voice_noise=0.0, min_frames=200, max_frames=200, width=32)
    clip = SyntheticCorpus(quiet).clip(0, "neutral", 1, 0)
    jaw = clip["expression"][:, PLACE["jawOpen"]]
    sound = clip["audio"][::2].astype(float).reshape(200, -1)[:, :20]

    def explained(x: np.ndarray, y: np.ndarray) -> float:
        design = np.c_[x, np.ones(len(x))]
        return 1 - np.var(y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) / np.var(y)

    assert explained(sound, jaw) > 0.9 > 0.5 > explained(sound[10:], jaw[:-10])


def test_face_and_voice_slip_independently() -> None:
    """What a clip's face has too little of its emotion says nothing about its voice."""
    corpus = SyntheticCorpus(replace(SMALL, voice_noise=0.1))
    clips = [corpus.clip(0, "angry", 3, take) for take in range(80)]
    direction, axes = corpus.person(0).manners["angry"], corpus.phones.axes.reshape(3, -1)
    face = [clip["expression"].mean(0) @ direction for clip in clips]
    voice = [np.linalg.lstsq(axes.T, c["audio"].astype(float).mean(0).reshape(-1), rcond=None)[0][0] for c in clips]
    assert abs(np.corrcoef(face, voice)[0, 1]) < 3.5 / np.sqrt(80)
    assert np.std(face) > 0.05 and np.std(voice) > 0.05


def test_impossible_sizes_are_refused() -> None:
    for changes in ({"manner": 1.5}, {"emotions": ("joy",)}, {"min_frames": 9, "max_frames": 8}, {"takes": 0}):
        with pytest.raises(ConfigError):
            replace(SMALL, **changes)


def test_a_written_corpus_is_read_as_a_build(tmp_path: Path) -> None:
    corpus = SyntheticCorpus(replace(SMALL, takes=1))
    write_synthetic(tmp_path / "build", corpus, {"train": [0, 2], "test": [1]})
    train, test = (ClipShards(tmp_path / "build", split) for split in ("train", "test"))
    assert (len(train), len(test), len(ClipShards(tmp_path / "build", "val"))) == (44, 22, 0)
    assert set(test.values("identity")) == {"P001"}
    place = train.clip_ids.index("synthetic/P002/fear/level_3/000")
    row, clip = train[place], corpus.clip(2, "fear", 3, 0)
    assert (row["emotion"], row["intensity"], row["n_frames"]) == ("fear", 3, len(clip["expression"]))
    assert np.array_equal(row[EXPRESSION], clip["expression"]) and np.array_equal(row[ROTATION], clip["rotation"])
    assert len(row[STATES]) == 2 * row["n_frames"]
    item = shard_clip(row, states=3)
    assert np.array_equal(item["audio"], clip["audio"]) and item["identity"] == "P002"
    with pytest.raises(InputError, match="different people"):
        write_synthetic(tmp_path / "other", corpus, {"train": [0], "test": [0]})
    assert not (tmp_path / "other").exists()
