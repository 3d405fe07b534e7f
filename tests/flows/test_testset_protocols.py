"""The sets hdtf and out-of-domain from real clips: made, generated from, and scored."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from talkforge.core.errors import InputError, WeightsError
from talkforge.core.provenance import PACKAGE_ROOT
from talkforge.core.weights import weights_store
from talkforge.datasets.audio import read_audio, write_wav
from talkforge.datasets.synthetic import SyntheticConfig, SyntheticCorpus
from talkforge.datasets.synthetic_build import write_synthetic
from talkforge.flows.build_dataset import BuildConfig, build
from talkforge.flows.evaluate import EvalConfig, evaluate
from talkforge.flows.generate import TestSet, generate
from talkforge.flows.testsets import PROTOCOLS, make_testset
from talkforge.tasks.extractor import extractors
from talkforge.tasks.methods import TestItem, read_portrait

CLIPS = {
    "WDA_AnnaOne_000": "test-movie-0",
    "WDA_AnnaOne_001": "test-movie-1",
    "WRA_BertTwo_000": "test-movie-2",
    "WRA_CleoThree_000": "test-movie-3",
    "WRA_DoraFour_000": "jwp-intro-1",
    "WDA_EveFive_000": "jwp-intro-2",
    "RD_Radio7_000": "jwp-intro-0",
}
TRAIN = "hdtf/BertTwo/WRA_BertTwo"  # drawn by the build's seed
VIDEOS = [
    "hdtf/AnnaOne/WDA_AnnaOne",
    "hdtf/CleoThree/WRA_CleoThree",
    "hdtf/DoraFour/WRA_DoraFour",
    "hdtf/EveFive/WDA_EveFive",
    "hdtf/Radio/RD_Radio7",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def hdtf(sample_clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of real clips under HDTF's public names, split by people. Read only."""
    try:
        for weight in extractors.get("arkit52").weights:
            weights_store().path(weight)
    except WeightsError as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("trees") / "hdtf"
    root.mkdir()
    for name, source in CLIPS.items():
        shutil.copyfile(sample_clips / f"{source}.mp4", root / f"{name}.mp4")
    out = root.parent / "built"
    given = {"dataset": "hdtf", "extractors": ["arkit52"], "size": 128, "workers": 1, "prefect": False, "cache": cache}
    build(BuildConfig.model_validate({"root": root, "out": out, "split": "random-identities", **given}))
    return out


@pytest.fixture
def folders(sample_clips: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Portraits: two pictures and a clip; sounds: a sound file and that clip."""
    faces, speech = tmp_path / "faces", tmp_path / "speech"
    (faces / "more").mkdir(parents=True)
    speech.mkdir()
    for k, place in enumerate(("Ann é.png", "more/bob.jpg")):
        Image.fromarray(read_portrait(sample_clips / f"test-movie-{k}.mp4")).save(faces / place)
    (faces / "clip.mp4").symlink_to(sample_clips / "jwp-intro-0.mp4")
    (faces / ".hidden.png").write_text("no picture")
    (faces / "notes.txt").write_text("no picture")
    write_wav(speech / "words.wav", read_audio(sample_clips / "test-movie-2.mp4"))
    (speech / "clip.mp4").symlink_to(sample_clips / "jwp-intro-0.mp4")
    return faces, speech


def made(protocol: str, data: Path | None, out: Path, **options: Any) -> tuple[list[TestItem], dict[str, Any]]:
    count = make_testset(protocol, data, out, **options)
    items = TestSet.read(out)
    assert len(items) == count
    return items, yaml.safe_load(out.read_text())


def test_each_hdtf_clip_drives_its_own_first_picture(hdtf: Path, tmp_path: Path) -> None:
    items, data = made("hdtf", hdtf, tmp_path / "sets" / "hdtf.yaml")
    assert len(items) == 6
    for item in items:
        path = hdtf / "videos" / f"{item.id}.mp4"
        assert all(one.samefile(path) for one in (item.portrait, item.audio, item.video, item.emotion_video) if one)
        assert item.emotion is None and item.video is not None
    about = data["protocol"]
    assert about["videos"] == VIDEOS and about["identities"] == ["AnnaOne", "CleoThree", "DoraFour", "EveFive", "Radio"]
    assert about["paper"]["videos"] == 20 and about["paper"]["names"] is about["paper"]["seconds"] is None
    assert made("hdtf", hdtf, tmp_path / "train.yaml", split="train")[1]["protocol"]["videos"] == [TRAIN]
    digests = {hashlib.sha256((hdtf / "videos" / f"{item.id}.mp4").read_bytes()).hexdigest() for item in items}
    assert set(data["sha256"].values()) == digests


def test_hdtf_videos_are_drawn_by_the_seed(hdtf: Path, tmp_path: Path) -> None:
    def drawn(seed: int, count: int = 2) -> list[str]:
        out = tmp_path / "a.yaml"
        return made("hdtf", hdtf, out, count=count, seed=seed)[1]["protocol"]["videos"]

    assert drawn(0) == drawn(0) and len(drawn(0)) == 2
    assert len({tuple(drawn(seed)) for seed in range(8)}) > 1
    assert set(drawn(3, 2)) <= set(drawn(3, 3)), "a larger set holds the smaller one"
    items, _ = made("hdtf", hdtf, tmp_path / "a.yaml", limit=1)
    assert [item.id for item in items if "Anna" in item.id] == ["hdtf/AnnaOne/WDA_AnnaOne_000"]


def test_hdtf_videos_have_their_real_clips_names(hdtf: Path, cache: Path, tmp_path: Path) -> None:
    """What is made from the set is matched with the build's videos by `talkforge eval`."""
    items, _ = made("hdtf", hdtf, tmp_path / "a.yaml", count=2, limit=1)
    assert all(one.reason is None for one in generate("still", items, tmp_path / "g", workers=1, use_prefect=False))
    given = {"real": hdtf / "videos", "generated": tmp_path / "g", "out": tmp_path / "r", "cache": cache}
    config = EvalConfig.model_validate({**given, "metrics": ["av_sync"], "workers": 1, "prefect": False})
    assert evaluate(config).results["clips"]["matched"] == 2


def test_portraits_are_crossed_with_sounds(folders: tuple[Path, Path], tmp_path: Path) -> None:
    faces, speech = folders
    items, data = made("out-of-domain", None, tmp_path / "ood.yaml", portraits=faces, sounds=speech)
    ann = next(item.id.split("/")[0] for item in items if item.id.startswith("Ann"))
    assert ann.isascii()
    # The clip does not drive its own first picture: of that there would be a real clip.
    expected = {f"{ann}/clip", f"{ann}/words", "more/bob/clip", "more/bob/words", "clip/words"}
    assert {item.id for item in items} == expected
    assert all(item.video is item.emotion is item.emotion_video is None for item in items)
    about = data["protocol"]
    assert about["real_clips"] is False and about["identities_in_training"] is None and about["build"] is None
    assert (about["portraits"], about["sounds"], about["paper"]["portraits"]) == (3, 2, 10)
    assert len(data["sha256"]) == 4, "the clip is one file, as portrait and as sound"


def test_a_crossing_is_limited_by_the_seed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    faces, speech = folders

    def ids(**options: Any) -> list[str]:
        given = {"portraits": faces, "sounds": speech, **options}
        return [item.id for item in made("out-of-domain", None, tmp_path / "a.yaml", **given)[0]]

    assert len(ids(limit=1)) == 3 and ids(limit=1) == ids(limit=1)
    assert len({tuple(ids(limit=1, seed=seed)) for seed in range(8)}) > 1
    assert len({tuple(ids(count=1, seed=seed)) for seed in range(8)}) > 1
    alike = [len({name.split("/")[-1] for name in ids(limit=1, seed=s) if name[:5] != "clip/"}) for s in range(8)]
    assert set(alike) == {1, 2}, "each of the two portraits draws its own sound"
    both = ids(limit=1, emotions=("happy", "Sadness"))
    assert len(both) == 6 and {name.split("/")[-2] for name in both} == {"happy", "sad"}


@pytest.mark.parametrize(("number", "name", "what"), [(0, "broken.png", "portrait"), (1, "broken.mp4", "sound")])
def test_what_is_no_media_is_not_frozen_into_a_set(
    folders: tuple[Path, Path], tmp_path: Path, number: int, name: str, what: str
) -> None:
    copies = [Path(shutil.copytree(folder, tmp_path / f"copy {k}")) for k, folder in enumerate(folders)]
    (copies[number] / name).write_text("not what its name says")
    with pytest.raises(InputError, match=rf"{name} is no {what} that can be read.*take it out"):
        make_testset("out-of-domain", None, tmp_path / "a.yaml", portraits=copies[0], sounds=copies[1])
    assert not (tmp_path / "a.yaml").exists()


def test_references_show_the_emotion(folders: tuple[Path, Path], tmp_path: Path) -> None:
    corpus = SyntheticCorpus(
        SyntheticConfig(identities=2, takes=3, emotions=("happy", "sad"), min_frames=4, max_frames=6, states=1, width=2)
    )
    write_synthetic(tmp_path / "build", corpus, {"train": [0], "test": [1]})
    for clip in corpus:
        path = tmp_path / "build" / "videos" / f"{clip['clip_id']}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(clip["clip_id"])
    given = {"portraits": folders[0], "sounds": folders[1], "emotions": ("happy", "sad")}
    items, data = made("out-of-domain", tmp_path / "build", tmp_path / "a.yaml", **given)
    shown = [(item.emotion, item.emotion_video.read_text().split("/")) for item in items if item.emotion_video]
    assert len(shown) == len(items) == 10
    assert all(parts[1] == "P001" and parts[2] == emotion for emotion, parts in shown)
    assert len({"/".join(parts) for _, parts in shown}) > 2, "each item draws its own"
    assert data["protocol"]["split"] == "test" and data["protocol"]["build"]
    with pytest.raises(InputError, match=r"no clip of the split shows 'angry' \(it has happy, sad\)"):
        make_testset("out-of-domain", tmp_path / "build", tmp_path / "a.yaml", **given | {"emotions": ("angry",)})
    with pytest.raises(InputError, match="none are named"):
        make_testset("out-of-domain", tmp_path / "build", tmp_path / "a.yaml", **given | {"emotions": ()})


def test_what_is_made_out_of_domain_is_scored_without_real_clips(
    folders: tuple[Path, Path], cache: Path, tmp_path: Path
) -> None:
    items, _ = made("out-of-domain", None, tmp_path / "a.yaml", portraits=folders[0], sounds=folders[1], limit=1)
    assert all(one.reason is None for one in generate("warp", items, tmp_path / "g", workers=1, use_prefect=False))
    given = {
        "generated": tmp_path / "g",
        "out": tmp_path / "r",
        "metrics": ["av_sync"],
        "cache": cache,
        "reference": False,
    }
    done = evaluate(EvalConfig.model_validate({**given, "workers": 1, "prefect": False}))
    one = done.results["results"]["av_sync:mouth-envelope"]
    assert (one["n_attempted"], one["n_scored"], one["real_vs_real"]) == (3, 3, None) and one["value"] > 0.1


@pytest.mark.parametrize(
    ("protocol", "options", "part"),
    [
        ("hdtf", {}, "protocol hdtf needs --data"),
        ("mead-dice", {"count": 2, "data": True}, "protocol mead-dice takes no --count"),
        ("hdtf", {"data": True, "sounds": Path("x")}, "protocol hdtf takes no --sounds"),
        ("hdtf", {"data": True, "count": 6}, "there are 5 videos in the split, not 6"),
        ("hdtf", {"data": True, "split": "val"}, "the split has no clip"),
        ("out-of-domain", {"sounds": Path("x")}, "needs --portraits"),
        ("out-of-domain", {"portraits": Path("x"), "sounds": Path("x")}, "x is not a folder"),
    ],
)
def test_what_no_set_can_be_made_of(
    protocol: str, options: dict[str, Any], part: str, hdtf: Path, tmp_path: Path
) -> None:
    given = dict(options)
    with pytest.raises(InputError, match=part):
        make_testset(protocol, hdtf if given.pop("data", False) else None, tmp_path / "a.yaml", **given)
    assert not (tmp_path / "a.yaml").exists()


def test_folders_that_do_not_do(folders: tuple[Path, Path], tmp_path: Path) -> None:
    faces, speech = folders
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no sound in "):
        make_testset("out-of-domain", None, tmp_path / "a.yaml", portraits=faces, sounds=tmp_path / "empty")
    shutil.copyfile(faces / "more" / "bob.jpg", faces / "more" / "bob.png")
    with pytest.raises(InputError, match=r"bob\.jpg and bob\.png .* would be one portrait, more/bob"):
        make_testset("out-of-domain", None, tmp_path / "a.yaml", portraits=faces, sounds=speech)
    with pytest.raises(InputError, match="did you mean happy"):
        make_testset("out-of-domain", None, tmp_path / "a.yaml", portraits=faces, sounds=speech, emotions=("hapy",))


@pytest.mark.parametrize("name", ["mead_dice", "hdtf", "out_of_domain"])
def test_the_templates_can_be_read_and_say_what_the_protocol_says(name: str) -> None:
    path = PACKAGE_ROOT / "configs" / "testsets" / f"{name}.yaml"
    (item,) = TestSet.read(path)
    data = yaml.safe_load(path.read_text())["protocol"]
    assert data["id"] in PROTOCOLS and (item.video is None) == (data["id"] == "out-of-domain")
    assert data.get("paper") in (None, PROTOCOLS[data["id"]].paper)
