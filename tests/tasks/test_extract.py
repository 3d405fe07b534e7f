"""The pass over real clips: how often it decodes and detects, what it stores, and how many frames it holds."""

from __future__ import annotations

import shutil
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from talkforge.core.counters import Counters
from talkforge.core.errors import WeightsError, WeightsMissing
from talkforge.core.weights import samples_store, weights_store
from talkforge.datasets.audio import read_audio, write_wav
from talkforge.datasets.encode import reencode_clip
from talkforge.datasets.video import VideoStream, open_video
from talkforge.tasks import extract
from talkforge.tasks.crop import ANCHOR_FRAMES
from talkforge.tasks.crop_video import crop_video
from talkforge.tasks.extract import BATCH, ClipFile, ExtractRequest, extract_clip, extract_shard, stored
from talkforge.tasks.extract_faces import FACES
from talkforge.tasks.extractor import ExtractorSpec, extractors
from talkforge.tasks.features import FeatureRow, FeatureStore
from talkforge.tests.media_factory import tone, write_clip
from talkforge.tests.tasks.hand_made import SEEN_FACES, cut_off, face_box, faces_row

FACE, I3D, LOOK, SPEECH, STRIP = "faces-mediapipe", "i3d-k400-16f", "mobilenet-v2", "speech-envelope", "strip"
EVERYTHING = (FACE, I3D, LOOK, SPEECH, STRIP)
PICTURES = (FACE, I3D, LOOK, STRIP)
LENGTH = 36  # frames of the clip: two windows of 16, and four left over


@pytest.fixture(scope="module", autouse=True)
def weights() -> None:
    try:
        for weight in {weight for name in EVERYTHING for weight in extractors.get(name).weights}:
            weights_store().path(weight)
    except WeightsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def man(sample_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    clip = tmp_path_factory.mktemp("man") / "man.mp4"
    reencode_clip(sample_clips / "jwp-intro-0.mp4", clip, end_s=LENGTH / 25)
    return clip


@pytest.fixture(scope="module")
def fresh(man: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counters]:
    """Everything from the clip at once: the cache, and the work done."""
    cache = tmp_path_factory.mktemp("fresh")
    return cache, run(cache, man)


def run(cache: Path, *videos: Path, names: tuple[str, ...] = EVERYTHING, crop: str = "face") -> Counters:
    clips = tuple(ClipFile(video, video) for video in videos)
    return extract_shard(ExtractRequest(clips, names, crop, cache)).counters


def rows_of(cache: Path, clip: ClipFile, *, crop: str = "face") -> dict[str, FeatureRow]:
    return stored(FeatureStore(cache, crop), clip.content(), EVERYTHING)


def reasons(cache: Path, clip: ClipFile, *, crop: str = "face") -> dict[str, str | None]:
    return {name: row.reason for name, row in rows_of(cache, clip, crop=crop).items()}


def files(cache: Path) -> dict[str, bytes]:
    return {path.relative_to(cache).as_posix(): path.read_bytes() for path in sorted(cache.rglob("*.parquet"))}


def same(video: Path) -> ClipFile:
    return ClipFile(video, video)


def test_one_decode_a_clip_and_one_detection_a_frame(fresh: tuple[Path, Counters], man: Path) -> None:
    cache, counters = fresh
    forwards = Counter({"i3d-k400": LENGTH // 16, "mobilenet-v2": LENGTH})
    assert counters == Counters(1, 1, LENGTH, LENGTH, forwards, temp_bytes=0, cache_hits=0)
    rows = rows_of(cache, same(man))
    assert {name: row.reason for name, row in rows.items()} == dict.fromkeys(EVERYTHING)
    assert rows[FACE].array("points").shape == (LENGTH, 478 * 3) and rows[FACE].value("n_missing") == 0
    assert rows[I3D].array("logits").shape == (LENGTH // 16, 400) and rows[I3D].value("n_dropped") == 0
    assert rows[LOOK].array("features").shape == (LENGTH, 1280)
    np.testing.assert_array_equal(rows[LOOK].array("frame"), np.arange(LENGTH))
    assert rows[SPEECH].array("level_db").shape == (LENGTH,)
    assert (rows[FACE].value("height"), rows[FACE].value("width")) == (480, 640)


def test_a_shards_work_adds_up(sample_clips: Path, man: Path, tmp_path: Path) -> None:
    """Three clips, of which one is there twice under two names."""
    shutil.copy(man, tmp_path / "twin.mp4")
    counters = run(tmp_path, man, sample_clips / "test-movie-1.mp4", tmp_path / "twin.mp4", names=(FACE, STRIP))
    frames = LENGTH + 48
    assert counters == Counters(3, decodes=2, frames_decoded=frames, face_detections=frames, cache_hits=2)


def test_a_second_pass_does_no_work(fresh: tuple[Path, Counters], man: Path) -> None:
    cache, _ = fresh
    before = files(cache)
    again = run(cache, man)
    assert again == Counters(clips=1, cache_hits=len(EVERYTHING))
    assert files(cache) == before


def test_a_copy_under_another_name_does_no_work(fresh: tuple[Path, Counters], man: Path, tmp_path: Path) -> None:
    shutil.copy(man, tmp_path / "another name.mov")
    assert run(fresh[0], tmp_path / "another name.mov") == Counters(clips=1, cache_hits=len(EVERYTHING))


def test_what_is_asked_later_costs_one_decode_and_gives_the_same_rows(
    fresh: tuple[Path, Counters], man: Path, tmp_path: Path
) -> None:
    first = run(tmp_path, man, names=(FACE, SPEECH))
    assert (first.decodes, first.face_detections, first.forwards) == (1, LENGTH, {})
    later = run(tmp_path, man)
    assert (later.decodes, later.face_detections, later.cache_hits) == (1, 0, 2), "faces are replayed, not found again"
    made, wanted = files(tmp_path), files(fresh[0])
    assert len(made) == len(EVERYTHING)
    assert {name: data == wanted[name] for name, data in made.items()} == dict.fromkeys(made, True)


def test_the_size_of_batches_does_not_show_in_the_rows(
    fresh: tuple[Path, Counters], man: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "BATCH", 5)
    run(tmp_path, man)
    made, wanted = files(tmp_path), files(fresh[0])
    assert len(made) == len(EVERYTHING)
    assert {name: data == wanted[name] for name, data in made.items()} == dict.fromkeys(made, True)


def test_the_face_crop_brings_the_faces_along(man: Path, tmp_path: Path) -> None:
    counters = run(tmp_path, man, names=(STRIP,))
    assert (counters.decodes, counters.face_detections, counters.cache_hits) == (1, LENGTH, 0)
    assert run(tmp_path, man, names=(FACE,)) == Counters(clips=1, cache_hits=1)


def test_the_full_frame_needs_no_faces(man: Path, tmp_path: Path) -> None:
    counters = run(tmp_path, man, names=(I3D,), crop="none")
    assert (counters.decodes, counters.face_detections, counters.forwards) == (1, 0, {"i3d-k400": 2})
    row = rows_of(tmp_path, same(man), crop="none")[I3D]
    assert row.array("logits").shape == (2, 400)
    assert rows_of(tmp_path, same(man)) == {}, "a row of the full frame is not one of the face"


def test_sound_alone_needs_no_decode(man: Path, tmp_path: Path) -> None:
    assert run(tmp_path, man, names=(SPEECH,)) == Counters(clips=1)


def test_who_wants_faces_is_given_them_under_any_crop(man: Path, tmp_path: Path) -> None:
    for crop, detections in (("none", LENGTH), ("face", 0)):
        store, counters = FeatureStore(tmp_path, crop), Counters()
        extract_clip(same(man), same(man).content(), [SEEN_FACES], store, counters)
        row = store.find(SEEN_FACES, same(man).content())
        assert row is not None and row.array("seen").tolist() == [1] * LENGTH
        assert counters.face_detections == detections, "the row is the same under both crops and stored once"


def test_a_cut_off_file_has_no_picture_rows_and_says_why(man: Path, tmp_path: Path) -> None:
    """The sound lies beside it and is whole, so its row is as good as ever."""
    write_wav(tmp_path / "cut.wav", read_audio(man))
    clip = ClipFile(cut_off(man, tmp_path / "cut.mp4"), tmp_path / "cut.wav")
    request = ExtractRequest((clip,), EVERYTHING, "face", tmp_path / "cache")
    extract_shard(request)
    assert reasons(tmp_path / "cache", clip) == dict.fromkeys(PICTURES, "truncated") | {SPEECH: None}
    rows = rows_of(tmp_path / "cache", clip)
    assert all("cut.mp4" in rows[name].message and str(tmp_path) not in rows[name].message for name in PICTURES)
    assert extract_shard(request).counters == Counters(clips=1, cache_hits=5), "a failure is a result, not a retry"


def test_a_cut_off_file_with_the_sound_inside_has_no_sound_row(man: Path, tmp_path: Path) -> None:
    clip = same(cut_off(man, tmp_path / "cut.mp4"))
    run(tmp_path / "cache", clip.video, names=(SPEECH, STRIP))
    found = reasons(tmp_path / "cache", clip)
    assert found[STRIP] == "truncated" and found[SPEECH] in ("truncated", "corrupt")


def test_a_clip_without_a_face(tmp_path: Path) -> None:
    try:
        cartoon = samples_store().path("no-face-video")
    except WeightsError as error:
        pytest.skip(str(error))
    first = run(tmp_path, cartoon, names=(FACE, SPEECH, STRIP))
    assert first.face_detections > 0
    later = run(tmp_path, cartoon)
    assert (later.face_detections, later.forwards, later.cache_hits) == (0, {}, 3), "that there is none is remembered"
    wanted = dict.fromkeys((FACE, I3D, LOOK), "no_face") | dict.fromkeys((SPEECH, STRIP))
    assert reasons(tmp_path, same(cartoon)) == wanted


def test_a_clip_without_sound_has_all_its_pictures(man: Path, tmp_path: Path) -> None:
    with open_video(man) as stream:
        frames = [frame for _, frame in stream][:20]
    mute = write_clip(tmp_path / "mute.mp4", frames)
    run(tmp_path, mute, names=(FACE, SPEECH, STRIP))
    assert reasons(tmp_path, same(mute)) == {FACE: None, SPEECH: "no_audio", STRIP: None}


def test_a_silent_clip_is_not_one_without_sound(tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.mp4", 25, audio=tone(1, level=0))
    run(tmp_path, silent, names=(SPEECH,))
    assert reasons(tmp_path, same(silent)) == {SPEECH: "silent_audio"}


def test_missing_weights_are_not_the_clips_fault(man: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored as the clip's failure, they would be missing for good: the key knows only the declared sha256."""
    with monkeypatch.context() as patch:
        patch.setenv("TALKFORGE_WEIGHTS", str(tmp_path / "empty"))
        with pytest.raises(WeightsMissing, match="mediapipe-face-landmarker"):
            run(tmp_path / "cache", man, names=(STRIP,))
    assert files(tmp_path / "cache") == {}
    run(tmp_path / "cache", man, names=(STRIP,))
    assert reasons(tmp_path / "cache", same(man)) == {FACE: None, STRIP: None}


def test_the_sound_beside_a_clip_is_part_of_it(man: Path, tmp_path: Path) -> None:
    write_wav(tmp_path / "loud.wav", tone(2))
    write_wav(tmp_path / "soft.wav", tone(2, level=0.05))
    clips = [ClipFile(man, tmp_path / "loud.wav"), ClipFile(man, tmp_path / "soft.wav"), same(man)]
    assert len({clip.content() for clip in clips}) == 3
    extract_shard(ExtractRequest(tuple(clips), (SPEECH,), "face", tmp_path))
    loud, soft, _ = (rows_of(tmp_path, clip)[SPEECH].array("level_db") for clip in clips)
    np.testing.assert_allclose(loud - soft, 20.0, atol=0.1)


def test_a_part_is_decoded_from_a_key_frame_on(tmp_path: Path) -> None:
    """Two seconds out of sixteen, with a key frame each second; the rows are those of the part."""
    video = write_clip(tmp_path / "long.mp4", 400, options={"g": "25", "x264-params": "scenecut=0"})
    part = ClipFile(video, video, 10.0, 12.0)
    store, counters = FeatureStore(tmp_path, "face"), Counters()
    faces = [face_box(48 + k / 10, 32, 30) for k in range(50)]
    store.save(FACES, part.content(), faces_row(list(faces), 64, 96))
    extract_clip(part, part.content(), [extractors.get(STRIP), SEEN_FACES], store, counters)
    row = store.find(SEEN_FACES, part.content())
    assert row is not None and row.array("seen").tolist() == [1] * 50
    assert counters.decodes == 1 and 50 < counters.frames_decoded <= 50 + 13 + 25 + 8
    assert counters.face_detections == 0


def most_frames_alive(
    folder: Path, frames: int, monkeypatch: pytest.MonkeyPatch, crop: ExtractorSpec | None = None
) -> int:
    """The most decoded frames that were alive at once in a pass with the face crop, faces given beforehand."""
    clip = same(write_clip(folder / f"{frames}.mp4", frames))
    store = FeatureStore(folder, "face")
    store.save(FACES, clip.content(), faces_row([face_box(48, 32, 30)] * frames, 64, 96))
    alive: set[int] = set()
    most = 0
    decode = VideoStream.__next__

    def watched(stream: VideoStream) -> tuple[float, np.ndarray]:
        nonlocal most
        seconds, frame = decode(stream)
        number = stream.frames_decoded
        alive.add(number)
        weakref.finalize(frame, alive.discard, number)
        most = max(most, len(alive))
        return seconds, frame

    with monkeypatch.context() as patch:
        patch.setattr(VideoStream, "__next__", watched)
        counters = Counters()
        specs = [extractors.get(STRIP), SEEN_FACES, *([] if crop is None else [crop])]
        extract_clip(clip, clip.content(), specs, store, counters)
    assert (counters.frames_decoded, counters.face_detections) == (frames, 0)
    return most


def test_memory_does_not_grow_with_the_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = most_frames_alive(tmp_path, 125, monkeypatch)
    long = most_frames_alive(tmp_path, 500, monkeypatch)
    assert short == long <= ANCHOR_FRAMES + BATCH + 3, "waiting for the anchor, one batch, and what is in hand"
    assert long >= ANCHOR_FRAMES, "the count counts"


@pytest.mark.parametrize("crop", ["dice-square", "hdtf-union", "syncnet-square"])
def test_no_crop_holds_a_clips_frames(crop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = crop_video(64, 40, "ultrafast", crop)
    assert most_frames_alive(tmp_path, 300, monkeypatch, spec) <= ANCHOR_FRAMES + BATCH + 3
