"""Method mf-etalk with random weights: what a video has to be, which action units it is made of, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from talkforge.core.errors import ConfigError, InputError, NoFace, WeightsError
from talkforge.core.weights import weights_store
from talkforge.datasets.audio import read_audio, write_wav
from talkforge.datasets.video import open_video, probe
from talkforge.flows.generate import generate_one, open_method
from talkforge.models.arcface import ArcFace
from talkforge.models.mf_etalk.config import MfEtalkConfig, au_columns
from talkforge.models.mf_etalk.model import MfEtalk
from talkforge.models.mf_etalk.pipeline import Portrayed, evaluations, latents_of, pictures
from talkforge.tasks import generate_mf_etalk
from talkforge.tasks.extract_identity import ArcFaceIdentity
from talkforge.tasks.faces import LANDMARKER
from talkforge.tasks.generate_mf_etalk import MfEtalkMaker, forth_and_back
from talkforge.tasks.methods import Opened, TestItem
from talkforge.tests.media_factory import tone, write_clip
from talkforge.tests.mf_runs import write_mf_run
from talkforge.tests.models.dice_talk_cases import needs_diffusers
from talkforge.tests.models.test_mf_cases import awake, small
from talkforge.tests.tasks.mf_build import mf_row, track_of, write_mf_build

FAST = ("steps=2", "guidance.reference=1", "guidance.conditions=1", "crop=dice-square", "device=cpu", "neutral=zero")
UNITS = au_columns()
SMILE = UNITS.index("AU12")
pytestmark = needs_diffusers


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
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mf_run(tmp_path_factory.mktemp("mf"), small())


@pytest.fixture(scope="module")
def sound(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speech, 14 frames and half a frame's samples."""
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    write_wav(path, read_audio(clip)[4000 : 4000 + 14 * 640 + 320])
    return path


def opened(run: Path, *overrides: str, **values: Any) -> Opened:
    return open_method("mf-etalk", [*FAST, *overrides], run=run, **values)


def maker(run: Path, *overrides: str) -> MfEtalkMaker:
    found = opened(run, *overrides).make
    assert isinstance(found, MfEtalkMaker)
    return found


def test_a_video_is_as_long_as_its_sound_and_has_it(run: Path, portrait: Path, sound: Path, tmp_path: Path) -> None:
    """14 frames in clips of 4 are three whole ones and a short one."""
    made = generate_one("mf-etalk", tmp_path / "a.mp4", portrait, sound, None, opened=opened(run))
    facts = dict(made.facts)
    assert facts.pop("took_s") > 0 and facts == {"frames": 14, "action_units": "neutral", "faces_in_portrait": 1}
    with open_video(tmp_path / "a.mp4") as stream:
        assert np.stack([frame for _, frame in stream]).shape == (14, 256, 256, 3)
    assert probe(tmp_path / "a.mp4").fps == 25
    played, given = read_audio(tmp_path / "a.mp4"), read_audio(sound)[: 14 * 640]
    assert len(played) >= len(given) and np.corrcoef(played[: len(given)], given)[0, 1] > 0.99


def test_seed_and_units_count(run: Path, portrait: Path, sound: Path, clip: Path, tmp_path: Path) -> None:
    cases: dict[str, tuple[tuple[str, ...], dict[str, Any], Path | None]] = {
        "a": ((), {}, None),
        "same": ((), {}, None),
        "seed": ((), {"seed": 1}, None),
        "smile": (("au.AU12=+0.5",), {}, None),
        "clip": ((), {}, clip),
    }
    for name, (overrides, values, other) in cases.items():
        ready = opened(run, *overrides, **values)
        generate_one("mf-etalk", tmp_path / f"{name}.mp4", portrait, sound, None, other, opened=ready)
    made = {name: (tmp_path / f"{name}.mp4").read_bytes() for name in cases}
    assert made["same"] == made["a"] and len(set(made.values())) == len(cases) - 1
    identities = [str(opened(run, *overrides, **values).identity) for overrides, values, _ in cases.values()]
    assert len(set(identities)) == 3, "what the clip does is the item's"


def test_the_track_is_that_of_the_clip_and_units_are_raised(run: Path, clip: Path) -> None:
    plain, neutral = maker(run)._track(clip, 300)
    assert plain.shape == (300, 17) and np.isfinite(plain).all() and plain.std(0).max() > 0 and not neutral.any()
    raised, _ = maker(run, "au.AU12=0.3", "au.AU45=-2")._track(clip, 300)
    np.testing.assert_allclose(raised[:, SMILE], np.minimum(plain[:, SMILE] + 0.3, 1), rtol=1e-5)
    assert not raised[:, UNITS.index("AU45")].any()
    others = [k for k, unit in enumerate(UNITS) if unit not in {"AU12", "AU45"}]
    np.testing.assert_array_equal(raised[:, others], plain[:, others])
    track, neutral = maker(run, "au.AU12=0.3")._track(None, 5)
    assert track.shape == (5, 17) and not neutral.any()
    assert np.flatnonzero(track[0]).tolist() == [SMILE] and (track == track[0]).all()


def test_units_are_raised_to_the_most_and_not_to_the_scale(tmp_path: Path) -> None:
    """The scale is what counts as 1 in the network; what an edit may ask for is the range of the columns."""
    run = write_mf_run(tmp_path / "run", small(au=replace(small().au, scale=0.25, most=0.75)))
    assert maker(run, "au.AU12=0.5")._track(None, 2)[0][0, SMILE] == 0.5
    assert maker(run, "au.AU12=0.9")._track(None, 2)[0][0, SMILE] == 0.75


def test_without_a_clip_edits_start_from_the_build_s_neutral_face(tmp_path: Path) -> None:
    """So that a unit can be lowered too: from zeros it could not."""
    data = write_mf_build(tmp_path / "build", [mf_row(0, 12, identity="one", emotion="neutral")])
    run = write_mf_run(tmp_path / "run", small(), data)
    track, neutral = maker(run, "au.AU12=-0.01", "neutral=build")._track(None, 2)
    at_rest = track_of(0, 12).mean(0)
    np.testing.assert_allclose(neutral, at_rest, rtol=1e-5)
    change = np.zeros(len(UNITS))
    change[SMILE] = -0.01
    np.testing.assert_allclose(track, np.maximum(at_rest + change, 0)[None].repeat(2, 0), rtol=1e-5, atol=1e-6)
    assert track[0, SMILE] < neutral[SMILE]
    alone = write_mf_run(tmp_path / "alone", small())
    assert not np.any(maker(alone, "neutral=build")._track(None, 2)[0]), "without edits nobody asks what neutral is"
    with pytest.raises(InputError, match="not here to say what its neutral faces"):
        maker(alone, "au.AU12=-0.01", "neutral=build")._track(None, 2)


def test_a_model_of_plain_intensities_needs_no_neutral_face_but_without_a_clip(clip: Path, tmp_path: Path) -> None:
    data = write_mf_build(tmp_path / "build", [mf_row(0, 12, identity="one", emotion="neutral")])
    plain = small(au=replace(small().au, neutral="none"))
    here, alone = write_mf_run(tmp_path / "here", plain, data), write_mf_run(tmp_path / "alone", plain)
    assert maker(alone, "neutral=build")._track(clip, 5)[0].shape == (5, 17)
    at_rest = track_of(0, 12).mean(0)
    np.testing.assert_allclose(maker(here, "neutral=build")._track(None, 1)[0][0], at_rest, rtol=1e-5)
    with pytest.raises(InputError, match="not here to say what its neutral faces"):
        maker(alone, "neutral=build")._track(None, 5)


def test_edits_that_the_model_cannot_follow_are_refused(run: Path, tmp_path: Path) -> None:
    deaf = write_mf_run(tmp_path / "deaf", small(au=replace(small().au, unread=(6, 26))))
    with pytest.raises(InputError, match=r"leave AU06, AU26 unread \(it reads AU01, .*AU05, AU07"):
        opened(deaf, "au.AU26=0.3", "au.AU12=0.3", "au.AU06=0.1")
    for value in (".nan", ".inf"):
        with pytest.raises(ConfigError, match="finite"):
            opened(run, f"au.AU12={value}")
    for option in ("temperature", "guidance.reference", "guidance.conditions"):
        with pytest.raises(ConfigError, match="finite"):
            opened(run, f"{option}=.inf")
    with pytest.raises(ConfigError, match=r"steps: 1500 of sampling, and the model knows 1000"):
        opened(run, "steps=1500")


def test_a_clip_is_compared_with_the_build_s_neutral_face(run: Path, clip: Path, tmp_path: Path) -> None:
    rows = [mf_row(0, 12, identity="one", emotion="neutral"), mf_row(1, 12, identity="two")]
    data = write_mf_build(tmp_path / "build", rows)
    there = write_mf_run(tmp_path / "run", small(), data)
    wanted = (track_of(0, 12).mean(0) + np.median(track_of(1, 12), 0)) / 2
    np.testing.assert_allclose(maker(there, "neutral=build")._track(clip, 5)[1], wanted, rtol=1e-5)
    track, neutral = maker(run, "neutral=clip")._track(clip, 400)
    assert np.abs(np.median(track, 0) - neutral).max() < 0.05  # the track comes twice, its ends not
    with pytest.raises(InputError, match=r"not here to say what its neutral faces.*neutral=clip"):
        maker(run, "neutral=build")._track(clip, 5)


@pytest.mark.parametrize(
    ("length", "frames", "places"), [(4, 3, [0, 1, 2]), (3, 8, [0, 1, 2, 1, 0, 1, 2, 1]), (1, 3, [0, 0, 0])]
)
def test_short_tracks_are_played_forth_and_back(length: int, frames: int, places: list[int]) -> None:
    assert forth_and_back(np.arange(length), frames).tolist() == places


def test_masks_are_the_portrait_s(run: Path, portrait: Path) -> None:
    from talkforge.tasks.portrait import shot_of

    made = maker(run)
    shot = shot_of(portrait, made.crop, made.crop_size, 32, 1.2)
    pose, face, lip = made._regions(shot)[0]
    assert lip.max() == 1 and pose[0, 0] > 0.9 and face.max() > 0.3
    rows = np.flatnonzero(lip.max(1) > 0.5)
    assert rows.mean() > len(lip) / 2, "lips are in the lower half of a face that fills the crop"
    left, top, right, bottom = shot.box()
    assert 0 < left < right < made.crop_size and 0 < top < bottom < made.crop_size


def test_full_models_get_an_embedding_of_the_portrait(run: Path, portrait: Path, sample_clips: Path) -> None:
    made = maker(run)
    assert made._who(portrait) is None
    made.settings = made.settings.model_copy(update={"model": replace(small(), vae="sd", face=MfEtalkConfig().face)})
    torch.manual_seed(0)
    made.__dict__["_loaded_arcface"] = ArcFace().eval()
    found = made._who(portrait)
    assert found is not None and found.shape == (512,) and np.isfinite(found).all()


def test_latents_are_those_of_the_model_in_chained_clips() -> None:
    torch.manual_seed(0)
    model, draw = awake(MfEtalk(small())).eval(), np.random.default_rng(0)
    given = Portrayed(
        portrait=draw.integers(0, 255, (32, 32, 3), dtype=np.uint8),
        mask=np.ones((1, 1, 32, 32), np.float32),
        regions=draw.random((1, 3, 16, 16), dtype=np.float32),
        states=draw.random((10, 5, 384), dtype=np.float32),
        aus=draw.random((5, 17), dtype=np.float32),
        neutral=np.zeros(17, np.float32),
    )
    calls: list[int] = []
    handle = model.denoiser.register_forward_hook(lambda *_: calls.append(0))
    latents = latents_of(model, given, seed=3, steps=2)
    handle.remove()
    assert latents.shape == (5, 4, 8, 8) and len(calls) == evaluations(5, model.config, 2, None) == 2 * 2 * 2
    whole = model.sample(given.batch(model.config), torch.Generator().manual_seed(3), steps=2)
    torch.testing.assert_close(latents, whole[0])
    shown = np.concatenate(list(pictures(model, latents)))
    assert np.array_equal(shown, model.render(whole)[0].numpy())
    with pytest.raises(InputError, match="pictures are 32 x 32"):
        replace(given, portrait=np.zeros((8, 8, 3), np.uint8)).batch(model.config)
    with pytest.raises(InputError, match=r"is \(frames, 17\)"):
        replace(given, aus=np.zeros((5, 16), np.float32)).batch(model.config)


def test_what_does_not_fit_is_said(run: Path, portrait: Path, sound: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mf-etalk needs --run DIR"):
        open_method("mf-etalk")
    with pytest.raises(ConfigError, match=r"unknown action unit 'AU13' \(one of: AU01, AU02"):
        opened(run, "au.AU13=1")
    for short in ("AU6", "au6", "6"):
        with pytest.raises(ConfigError, match=rf"unknown action unit '{short}' \(did you mean AU06\?\)"):
            opened(run, f"au.{short}=1")
    with pytest.raises(InputError, match="stage image, and makes no videos"):
        opened(write_mf_run(tmp_path / "image", small(), stage="image"))
    with pytest.raises(InputError, match="reads no action units"):
        opened(write_mf_run(tmp_path / "a", small().ablated("a")), "au.AU12=1")
    with pytest.raises(InputError, match="no emotions by name"):
        generate_one("mf-etalk", tmp_path / "a.mp4", portrait, sound, "happy", opened=opened(run))
    write_clip(tmp_path / "cartoon.mp4", 5, audio=tone(0.2))
    with pytest.raises(NoFace, match=r"action units, cartoon\.mp4: no face in any of 5 frames"):
        generate_one(
            "mf-etalk", tmp_path / "a.mp4", portrait, sound, None, tmp_path / "cartoon.mp4", opened=opened(run)
        )
    assert not (tmp_path / "a.mp4").exists()
    check = opened(run).check
    assert check is not None and check(TestItem("x", portrait, sound)) == 14


def test_ablation_a_makes_videos_without_units(portrait: Path, sound: Path, clip: Path, tmp_path: Path) -> None:
    run = write_mf_run(tmp_path / "a", small().ablated("a"))
    ready = open_method("mf-etalk", FAST[:-1], run=run)
    named = TestItem("a", portrait, sound, emotion_video=clip)
    with pytest.raises(InputError, match=r"a: the model of .* reads no action units .*leave out --emotion-video"):
        ready.make(named, tmp_path / "a.mp4")
    assert ready.check is not None and not (tmp_path / "a.mp4").exists()
    with pytest.raises(InputError, match="reads no action units"):
        ready.check(named)
    facts = ready.make(TestItem("a", portrait, sound, clip), tmp_path / "a.mp4")
    assert facts is not None and facts["action_units"] is None and ready.facts["action_units"] is None
    assert (tmp_path / "a.mp4").is_file()


def test_units_are_said_only_where_some_are_raised(run: Path) -> None:
    assert "au" not in opened(run).facts
    assert opened(run, "au.AU12=0.5").facts["au"] == {"AU12": 0.5}


def test_threads_load_one_after_the_other(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read for neutral faces and for identity imports packages that networks import too."""
    made = maker(write_mf_run(tmp_path / "run", small(), write_mf_build(tmp_path / "build", [mf_row(0, 12)])))
    held: list[bool] = []

    def watched(name: str) -> None:
        real = getattr(generate_mf_etalk, name)

        def call(*given: Any) -> Any:
            held.append(made.loading.locked())
            return ArcFace if given[0] == ArcFaceIdentity.network else real(*given)

        monkeypatch.setattr(generate_mf_etalk, name, call)

    watched("neutral_faces")
    watched("resolve")
    np.testing.assert_allclose(made._average, np.median(track_of(0, 12), 0), rtol=1e-5)
    assert isinstance(made._arcface, ArcFace)
    assert len(held) == 3 and all(held) and not made.loading.locked()
