"""Method dice-talk with random weights: what a video has to be, whatever it shows, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from talkforge.core.errors import ConfigError, InputError, NoFace, SilentAudio, TooShort, WeightsError, WeightsMissing
from talkforge.core.weights import weights_store
from talkforge.datasets.audio import read_audio, write_wav
from talkforge.datasets.video import open_video, probe
from talkforge.flows.generate import generate, generate_one, open_method
from talkforge.models.dice_talk.config import BankConfig
from talkforge.models.dice_talk.model import DiceTalk
from talkforge.models.dice_talk.priors import write_priors
from talkforge.models.diffusion.config import WindowsConfig
from talkforge.tasks.extractor import _loaded
from talkforge.tasks.faces import LANDMARKER
from talkforge.tasks.generate_dice_talk import DiceTalkMaker
from talkforge.tasks.methods import Opened, TestItem, methods
from talkforge.tasks.portrait import enlarged, face_in, shot_of
from talkforge.tasks.trained import weights_of
from talkforge.tests.dice_runs import dice_config, write_embedder, write_run
from talkforge.tests.media_factory import numbered, tone, write_clip

FAST = ("steps=2", "guidance.reference=1", "guidance.conditions=1", "crop=dice-square", "device=cpu")
EMOTIONS = ("happy", "neutral", "sad")


@pytest.fixture(scope="module", autouse=True)
def weights() -> None:
    try:
        for name in (LANDMARKER, "whisper-tiny-en-ct2"):
            weights_store().path(name)
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALKFORGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedder(tmp_path_factory.mktemp("embedder"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, embedder: Path) -> Path:
    folder = write_run(tmp_path_factory.mktemp("dice"), embedder=embedder)
    rng = np.random.default_rng(0)
    write_priors(folder / "priors.npz", {name: rng.normal(size=64).astype(np.float32) for name in EMOTIONS}, width=64)
    return folder


@pytest.fixture(scope="module")
def sound(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech, 15 frames and half a frame's samples."""
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    write_wav(path, read_audio(clip)[4000 : 4000 + 15 * 640 + 320])
    return path


def opened(run: Path, *overrides: str, **values: Any) -> Opened:
    return open_method("dice-talk", [*FAST, *overrides], run=run, **values)


def frames_of(path: Path) -> np.ndarray:
    with open_video(path) as stream:
        return np.stack([frame for _, frame in stream]).astype(int)


def test_a_video_is_as_long_as_its_sound_and_has_it(run: Path, portrait: Path, sound: Path, tmp_path: Path) -> None:
    made = generate_one("dice-talk", tmp_path / "a.mp4", portrait, sound, "happy", opened=opened(run))
    facts = dict(made.facts)
    assert facts.pop("took_s") > 0 and facts == {"frames": 15, "prior": "mean of happy", "faces_in_portrait": 1}
    assert frames_of(tmp_path / "a.mp4").shape == (15, 256, 256, 3), "32 pixels, eight times as large"
    assert probe(tmp_path / "a.mp4").fps == 25
    played, given = read_audio(tmp_path / "a.mp4"), read_audio(sound)[: 15 * 640]
    assert len(played) >= len(given) and np.corrcoef(played[: len(given)], given)[0, 1] > 0.99


def test_without_blends_a_video_has_half_the_frames(portrait: Path, sound: Path, tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run", config=dice_config(windows=WindowsConfig(frames=8, shift=3, interpolation="none"))
    )
    write_priors(run / "priors.npz", {"sad": np.ones(64, np.float32)}, width=64)
    ready = opened(run)
    generate_one("dice-talk", tmp_path / "a.mp4", portrait, sound, "sad", opened=ready)
    assert len(frames_of(tmp_path / "a.mp4")) == 8 and probe(tmp_path / "a.mp4").fps == 12.5
    assert ready.facts["frames_between"] == "none, 12.5 a second"


def test_seed_emotion_and_checkpoint_count(
    run: Path, portrait: Path, sound: Path, embedder: Path, tmp_path: Path
) -> None:
    other = write_run(tmp_path / "other", embedder=embedder, seed=9)
    shutil.copy(run / "priors.npz", other)
    cases = {
        "a": (run, {}, "happy"),
        "same": (run, {}, "happy"),
        "seed": (run, {"seed": 1}, "happy"),
        "emotion": (run, {}, "sad"),
        "weights": (other, {}, "happy"),
    }
    for name, (folder, values, emotion) in cases.items():
        ready = opened(folder, **values)
        generate_one("dice-talk", tmp_path / f"{name}.mp4", portrait, sound, emotion, opened=ready)
    made = {name: (tmp_path / f"{name}.mp4").read_bytes() for name in cases}
    assert made["same"] == made["a"] and len(set(made.values())) == len(cases) - 1


def test_averaged_weights_are_taken(run: Path) -> None:
    maker = opened(run).make
    assert isinstance(maker, DiceTalkMaker)
    averages = load_file(run / "checkpoints" / "step-00000003" / "ema.safetensors")
    with maker.networks() as (model, _):
        assert all(torch.equal(value, averages[name]) for name, value in model.state_dict().items())
        assert any(value.any() for value in averages.values()) and not model.training


def test_a_test_set_is_made_again_only_where_something_changed(
    run: Path, portrait: Path, sound: Path, clip: Path, embedder: Path, tmp_path: Path
) -> None:
    items = [
        TestItem("a/named", portrait, sound, emotion="happy"),
        TestItem("b", portrait, sound, None, "sad", clip),
        TestItem("real", clip, sound, clip),
        TestItem("gone", portrait, sound, emotion="hapy"),
    ]
    out = tmp_path / "videos"

    def made(ready: Opened) -> dict[str, tuple[bool, Any]]:
        done = generate("dice-talk", items, out, workers=2, use_prefect=False, opened=ready)
        return {one.id: (one.fresh, one.reason or one.facts["prior"]) for one in done}

    sources = {"a/named": "mean of happy", "b": f"clip {clip.name}", "real": f"clip {clip.name}", "gone": "input"}
    assert made(opened(run)) == {name: (name != "gone", source) for name, source in sources.items()}
    assert made(opened(run)) == {name: (False, source) for name, source in sources.items()}
    moved = shutil.copytree(run, tmp_path / "moved")
    assert not any(fresh for fresh, _ in made(opened(moved)).values()), "the place of a run is no part of its videos"
    other = write_run(tmp_path / "other", embedder=embedder, seed=9)
    shutil.copy(run / "priors.npz", other)
    assert [fresh for fresh, _ in made(opened(other)).values()] == [True, True, True, False]
    assert made(opened(other, "prior=mean"))["b"] == (True, "mean of sad")


def test_what_a_training_or_an_option_lacks(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dice-talk needs --run DIR"):
        open_method("dice-talk")
    with pytest.raises(InputError, match="is a training of dice-embedder, and one of dice-talk is needed"):
        opened(write_embedder(tmp_path / "emb"))
    with pytest.raises(InputError, match=r"nowhere, which .* is not here to say its crop \(--set crop=NAME"):
        open_method("dice-talk", run=run)
    with pytest.raises(ConfigError, match=r"unknown crop 'dice-squar' \(did you mean dice-square"):
        opened(run, "crop=dice-squar")
    with pytest.raises(ConfigError, match=r"unknown key 'guidance\.conditons' \(did you mean conditions"):
        opened(run, "guidance.conditons=2")
    with pytest.raises(InputError, match=r"no checkpoint '7': it has step-00000003"):
        opened(run, "checkpoint=7")
    with pytest.raises(InputError, match="'best': nothing was validated"):
        opened(run, "checkpoint=best")
    with pytest.raises(ConfigError, match=r"method still takes no --seed"):
        methods.get("still").open(seed=1)
    empty = shutil.copytree(run, tmp_path / "empty", ignore=shutil.ignore_patterns("step-*"))
    with pytest.raises(InputError, match="empty has no checkpoint"):
        opened(empty)


def test_a_checkpoint_of_other_sizes_than_its_settings(tmp_path: Path, portrait: Path, sound: Path) -> None:
    run = write_run(tmp_path / "run", weights=DiceTalk(dice_config(bank=BankConfig.tiny(codes=7))))
    write_priors(run / "priors.npz", {"sad": np.ones(64, np.float32)}, width=64)
    text = r"\(7, 32\) in the checkpoint and \(64, 32\) in the model.*\(the checkpoint is of a model of other sizes\)"
    with pytest.raises(WeightsError, match=text):
        generate_one("dice-talk", tmp_path / "a.mp4", portrait, sound, "sad", opened=opened(run))
    assert not (tmp_path / "a.mp4").exists()


def test_another_embedder_than_the_training_had_is_refused(run: Path, embedder: Path, tmp_path: Path) -> None:
    made = shutil.copytree(run, tmp_path / "run")
    state = made / "checkpoints" / "step-00000003" / "state.json"

    def pin(sha256: str) -> None:
        facts = json.loads(state.read_text()) | {"feed": {"sampler": {"pinned": {"embedder": sha256}}}}
        state.write_text(json.dumps(facts))

    pin(weights_of(embedder).sha256)
    assert opened(made).facts["embedder_sha256"] == weights_of(embedder).sha256
    pin("f" * 64)
    with pytest.raises(ConfigError, match=r"begun with another embedder: sha256 ffffffffffff, .*\(bring that embedder"):
        opened(made)


def test_inputs_that_cannot_be_used(run: Path, portrait: Path, sound: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", tone(0.3))
    write_wav(tmp_path / "silent.wav", np.zeros(16000, np.float32))
    Image.fromarray(numbered(5)).save(tmp_path / "none.png")
    ready = opened(run)

    def refused(kind: type[Exception], text: str, **changes: Any) -> None:
        given = {"portrait": portrait, "audio": sound, "emotion": "happy"} | changes
        with pytest.raises(kind, match=text):
            generate_one("dice-talk", tmp_path / "a.mp4", **given, opened=ready)

    refused(TooShort, r"short\.wav has 0\.30 s \(give at least 0\.5 s", audio=tmp_path / "short.wav")
    refused(SilentAudio, r"silent\.wav is silent \(give", audio=tmp_path / "silent.wav")
    refused(NoFace, r"no face in the portrait none\.png \(give", portrait=tmp_path / "none.png")
    refused(InputError, r"unknown emotion 'hapy' \(did you mean happy\?\)", emotion="hapy")
    refused(InputError, r"no emotion is given \(--emotion NAME \(happy, neutral, sad\)", emotion=None)
    faceless = {"emotion": None, "emotion_video": tmp_path / "cartoon.mp4"}
    write_clip(tmp_path / "cartoon.mp4", 5, audio=tone(0.2))
    refused(NoFace, r"emotional clip cartoon\.mp4: no face in any of 5 frames \(give", **faceless)
    bare = shutil.copytree(run, tmp_path / "bare", ignore=shutil.ignore_patterns("priors.npz"))
    ready = opened(bare)
    refused(InputError, r"bare has no priors\.npz.*talkforge priors --run")
    assert not (tmp_path / "a.mp4").exists()


def test_weights_that_are_not_here(
    run: Path, portrait: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: Path
) -> None:
    """Whisper's alone: the landmarker is linked to where it is."""
    source, target = weights_store().path(LANDMARKER), tmp_path / "weights" / "mediapipe" / "face_landmarker.task"
    target.parent.mkdir(parents=True)
    target.symlink_to(source)
    write_wav(tmp_path / "other.wav", read_audio(sound)[::-1].copy())  # not in the cache
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path / "weights"))
    _loaded.cache_clear()  # another test may have loaded it
    with pytest.raises(WeightsMissing, match=r"talkforge weights pull whisper-tiny-en-ct2"):
        item = TestItem("a", portrait, tmp_path / "other.wav", emotion="happy")
        generate("dice-talk", [item], tmp_path / "videos", workers=1, use_prefect=False, opened=opened(run))


def test_the_largest_of_two_faces_is_taken(portrait: Path, tmp_path: Path) -> None:
    one = np.asarray(Image.open(portrait))
    small = np.asarray(Image.fromarray(one).resize((one.shape[1] // 2, one.shape[0] // 2)))
    wide = np.zeros((one.shape[0], one.shape[1] + small.shape[1], 3), np.uint8)
    wide[: small.shape[0], : small.shape[1]], wide[:, small.shape[1] :] = small, one
    Image.fromarray(wide).save(tmp_path / "two.png")
    face, seen = face_in(np.ascontiguousarray(wide), "two.png")
    assert seen == 2 and face.box[0] > small.shape[1], "the one on the right"
    shot = shot_of(tmp_path / "two.png", "dice-square", 64, 32, 1.1)
    assert shot.faces == 2 and shot.picture.shape == (32, 32, 3)


def test_a_portrait_is_cut_around_its_face_and_the_mask_lies_on_it(portrait: Path) -> None:
    """dice-square: half the face's box on each side, so the box, 1.1 times as large, has sides of about 0.55."""
    for crop in ("dice-square", "ffhq"):
        mask = shot_of(portrait, crop, 128, 32, 1.1).mask[0, 0]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.shape == (32, 32) and set(np.unique(mask)) == {0.0, 1.0}
        assert 0.3 < len(rows) / 32 < 0.85 and 0.3 < len(columns) / 32 < 0.85, crop
        assert mask[16, 16] == 1 and mask[0, 0] == 0


def test_enlarging_keeps_places() -> None:
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[2:4, 5:7] = 200
    large = enlarged(frame, 4)
    assert large.shape == (32, 32, 3) and np.array_equal(enlarged(frame, 1), frame)
    rows, columns, _ = np.nonzero(large > 100)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (8, 16, 20, 28)
