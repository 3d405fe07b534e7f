"""Named crops: closed forms, the published chain done again by hand, and faces found again in the crop videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.signal import medfilt
from talkforge.core.counters import Counters
from talkforge.core.errors import ConfigError
from talkforge.datasets.encode import reencode_clip
from talkforge.datasets.video import open_video
from talkforge.tasks import crops as module
from talkforge.tasks.crop import ALIGNED_TEMPLATE, aligned_224, crop_square, key_points, similarity
from talkforge.tasks.crop_video import crop_video
from talkforge.tasks.crops import (
    SYNCNET_MEDIAN,
    Cut,
    Rectangle,
    Turned,
    boxes_of,
    crops,
    dice_square,
    square_of,
    syncnet_rectangle,
    syncnet_squares,
    union_square,
    window_square,
)
from talkforge.tasks.extract import ClipFile, extract_clip
from talkforge.tasks.extract_faces import FACES, replay
from talkforge.tasks.extractor import Batch
from talkforge.tasks.faces import LANDMARKER, Face, Landmarker
from talkforge.tasks.features import FeatureRow, FeatureStore
from talkforge.tests.media_factory import write_clip
from talkforge.tests.tasks.hand_made import face_box, faces_row
from talkforge.tests.tasks.one_row import need

SIZE = 256
NAMES = crops.names()
WINDOW = (0.1, 0.05, 0.75, 0.9)


def test_the_registered_crops() -> None:
    assert NAMES == ["align-224", "annotated", "dice-square", "ffhq", "hdtf-union", "syncnet-square"]
    assert len({spec.rule for spec in crops.all()}) == len(NAMES)
    with pytest.raises(ConfigError) as error:
        crops.get("dice-squire")
    assert "dice-square" in (error.value.hint or "")


# --- squares ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "square"),
    [
        ((40, 40, 60, 60), (50, 50, 40)),  # grown by 10 on each side
        ((0, 40, 20, 60), (15, 50, 30)),  # clamped on the left to 0..30: the square of 30 stays on the face's height
        ((80, 0, 120, 60), (100, 40, 80)),  # rows 0..90, columns 60..140: slides up by 5, not by 15
        ((80, 140, 120, 200), (100, 160, 80)),  # rows 110..200: slides down by 5
        ((0, 0, 200, 100), (100, 75, 150)),  # rows 0..150, columns 0..200: the face is in the middle of both
        ((100, 150, 200, 200), (150, 162.5, 75)),  # columns 50..200, rows 125..200: slides right by 25 of 37.5
    ],
)
def test_dice_square_in_closed_form(box: Sequence[float], square: Sequence[float]) -> None:
    found = dice_square(np.array(box, float), (200, 200, 3))
    np.testing.assert_allclose(found, square)


def test_dice_square_is_the_nearest_one_inside_the_grown_box() -> None:
    """Against a search over all places of the square."""
    rng = np.random.default_rng(5)
    for _ in range(60):
        low = rng.uniform(-20, 120, 2)
        high = low + rng.uniform(15, 90, 2)
        x, y, side = dice_square(np.array([*low, *high]), (150, 180, 3))
        first = np.maximum(low - 0.5 * (high - low), 0)
        last = np.minimum(high + 0.5 * (high - low), [180, 150])
        assert side == pytest.approx(min(last - first))
        places = [np.linspace(a + side / 2, b - side / 2, 401) for a, b in zip(first, last, strict=True)]
        face = (low + high) / 2
        best = [axis[np.abs(axis - centre).argmin()] for axis, centre in zip(places, face, strict=True)]
        np.testing.assert_allclose((x, y), best, atol=0.5)
        assert min(x, y) - side / 2 >= -1e-9 and max(x - 180, y - 150) + side / 2 <= 1e-9


def tracked(pattern: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Jittering boxes of the tracks named by digits, none at a point."""
    rng = np.random.default_rng(seed)
    tracks = np.array([-1 if sign == "." else int(sign) for sign in pattern])
    low = 60 + np.cumsum(rng.normal(0, 2, (len(tracks), 2)), axis=0)
    boxes = np.hstack([low, low + rng.uniform(30, 60, (len(tracks), 2))])
    boxes[tracks < 0] = np.nan
    return boxes, tracks


def test_syncnet_squares_are_smoothed_as_published() -> None:
    """A track with a gap, by hand: boxes interpolated, then scipy's median filter over s, x and y."""
    boxes, tracks = tracked("...." + "0" * 20 + "..." + "0" * 15 + "..")
    seen, whole = np.flatnonzero(tracks == 0), np.arange(4, 42)
    full = np.stack([np.interp(whole, seen, boxes[seen, k]) for k in range(4)], axis=1)
    s = np.maximum(full[:, 3] - full[:, 1], full[:, 2] - full[:, 0]) / 2
    wanted = [medfilt(v, 13) for v in ((full[:, 0] + full[:, 2]) / 2, (full[:, 1] + full[:, 3]) / 2, s)]
    found = syncnet_squares(boxes, tracks)
    np.testing.assert_allclose(found[4:42], np.stack(wanted, axis=1))
    assert np.isnan(found[:4]).all() and np.isnan(found[42:]).all()


def test_syncnet_squares_keep_tracks_apart() -> None:
    boxes, tracks = tracked("0" * 20 + ".." + "1" * 25)
    found = syncnet_squares(boxes, tracks)
    np.testing.assert_array_equal(found[:20], syncnet_squares(boxes[:20], tracks[:20]))
    np.testing.assert_array_equal(found[22:], syncnet_squares(boxes[22:], tracks[22:]))
    assert np.isnan(found[20:22]).all()


@pytest.mark.parametrize("length", range(1, SYNCNET_MEDIAN + 3))
def test_short_tracks_have_a_square_of_some_size(length: int) -> None:
    """Zeros beyond the ends are never the median."""
    boxes, tracks = tracked("." * 2 + "0" * length)
    found = syncnet_squares(boxes, tracks)[2:]
    sizes = (boxes[2:, 2:] - boxes[2:, :2]).max(axis=1) / 2
    assert (found[:, 2] >= sizes.min() - 1e-9).all() and (found[:, 2] <= sizes.max() + 1e-9).all()
    assert syncnet_squares(np.full((3, 4), np.nan), np.full(3, -1)).shape == (3, 3)


def published_crop(frame: np.ndarray, x: float, y: float, bs: float) -> np.ndarray:
    """The chain of SyncNet's pipeline on one frame: pad with 110, slice, resize to 224."""
    cs = 0.4
    bsi = int(bs * (1 + 2 * cs))
    padded = np.pad(frame, ((bsi, bsi), (bsi, bsi), (0, 0)), "constant", constant_values=(110, 110))
    my, mx = y + bsi, x + bsi
    face = padded[int(my - bs) : int(my + bs * (1 + 2 * cs)), int(mx - bs * (1 + cs)) : int(mx + bs * (1 + cs))]
    return cv2.resize(face, (224, 224))


def test_syncnet_cut_is_the_published_one_bit_for_bit() -> None:
    """Faces in the middle and over every edge of the frame; its padding is enough for centres inside."""
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 256, (180, 240, 3), dtype=np.uint8)
    for _ in range(80):
        square = np.array([rng.uniform(1, 238), rng.uniform(1, 178), rng.uniform(12, 90)])
        np.testing.assert_array_equal(syncnet_rectangle(square).picture(frame, 224), published_crop(frame, *square))


def test_union_is_the_grown_square_around_every_box() -> None:
    faces = [None, face_box(50, 40, 20), None, face_box(90, 60, 40)]  # 40..110 by 30..80
    np.testing.assert_allclose(union_square(boxes_of(faces)[0]), [75, 55, 1.5 * 70], rtol=1e-6)


def test_a_window_becomes_the_square_of_its_longer_side() -> None:
    np.testing.assert_allclose(window_square((0.25, 0.5, 0.5, 0.25), (200, 400)), [200, 125, 200])
    np.testing.assert_allclose(window_square((0.0, 0.0, 1.0, 1.0), (300, 200, 3)), [100, 150, 300])


# --- matrices --------------------------------------------------------------------------------------------------------


def ramp(height: int = 210, width: int = 250) -> np.ndarray:
    """A frame whose levels are the coordinates of its pixels' centres."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, 0 * x], axis=2).astype(np.float32)


CUTS: dict[str, Cut] = {
    "smaller": Rectangle(20, 30, 160, 160),
    "larger": Rectangle(60, 50, 40, 40),
    "same": Rectangle(11, 7, 96, 96),
    "uneven": Rectangle(20, 30, 151, 150, level=110, method=cv2.INTER_LINEAR),
    "turned": Turned(similarity(np.array([[80.0, 70], [130, 85], [95, 140]]), ALIGNED_TEMPLATE)),
}


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("size", [64, 96, 224])
def test_a_matrix_says_which_source_pixel_is_where(name: str, size: int) -> None:
    """On the ramp a crop's levels are source coordinates, so they tell the true place of every pixel."""
    picture, matrix = CUTS[name].picture(ramp(), size), CUTS[name].matrix(size)
    v, u = np.mgrid[:size, :size]
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    x, y, _ = np.einsum("ij,jvu->ivu", inverse, np.stack([u, v, np.ones_like(u)]))
    inside = (x > 2) & (x < 247) & (y > 2) & (y < 207)
    inside[:3] = inside[-3:] = inside[:, :3] = inside[:, -3:] = False
    assert inside.mean() > 0.5
    for level, place in ((picture[..., 0], x), (picture[..., 1], y)):
        error = (level - place)[inside]
        assert np.abs(error).max() < 0.1, "averages are over steps, and OpenCV turns in steps of 1/32 pixel"
        assert abs(error.mean()) < 0.005


def test_the_template_crop_is_the_aligned_face() -> None:
    face, frame = face_box(120, 100, 90), ramp()
    cut = Turned(similarity(key_points(face), ALIGNED_TEMPLATE))
    np.testing.assert_array_equal(cut.picture(frame, 224), aligned_224(frame, face))


@pytest.mark.parametrize("size", [112, 224, 448])
def test_the_template_is_scaled_about_the_pictures_corner(size: int) -> None:
    """An eye at 87 is half a pixel more from the corner: at twice the size 175 from it, so at 174.5."""
    point = Turned(np.eye(2, 3)).matrix(size) @ [87, 59, 1]
    np.testing.assert_allclose(point, [87.5 * size / 224 - 0.5, 59.5 * size / 224 - 0.5])


def test_a_square_is_cut_as_the_evaluation_cuts_it() -> None:
    for square in ([100.3, 90.2, 77.7], [5.0, 8.0, 60.0], [120.0, 100.0, 300.0]):
        cut = square_of(np.array(square))
        np.testing.assert_array_equal(cut.picture(ramp(), 224), crop_square(ramp(), np.array(square)))


# --- cutters ---------------------------------------------------------------------------------------------------------


def cuts_of(
    name: str, track: Sequence[Face | None], scenes: Sequence[int] | None = None, window: Any = None
) -> list[Cut | None]:
    """What a crop cuts out of a clip, given in batches of 7."""
    cutter = crops.get(name).cutter(track, window)
    cuts: list[Cut | None] = []
    for start in range(0, len(track), 7):
        index = np.arange(start, min(start + 7, len(track)))
        faces, numbers = [track[k] for k in index], [scenes[k] if scenes else 0 for k in index]
        cuts += cutter(Batch(index, [ramp()] * len(index), faces, numbers, [None] * len(index)))
    return cuts


def test_a_template_crop_is_kept_over_gaps_but_not_over_cuts() -> None:
    one, other = face_box(100, 100, 60), face_box(120, 90, 50, track=1, scene=1)
    cuts = cuts_of("align-224", [None, one, None, None, None, other, None], [0, 0, 0, 0, 1, 1, 1])
    assert [cut is None for cut in cuts] == [True, False, False, False, True, False, False]
    assert cuts[1] is cuts[2] is cuts[3] and cuts[5] is cuts[6]


def test_crops_of_a_whole_clip() -> None:
    track = [None, *[face_box(100 + k, 100, 60) for k in range(20)], None]
    union = cuts_of("hdtf-union", track)
    assert set(union) == {square_of(np.array([109.5, 100, 1.5 * 79]))}
    assert cuts_of("annotated", track) == union
    assert set(cuts_of("annotated", track, window=(0.2, 0.2, 0.4, 0.4))) == {square_of(np.array([100, 84, 100.0]))}
    sync = cuts_of("syncnet-square", track)
    assert sync[0] is None and sync[-1] is None and all(sync[1:-1])


def test_a_window_is_part_of_the_crops_identity_and_of_no_other() -> None:
    specs = {
        name: (crop_video(64, 30, "ultrafast", name, WINDOW), crop_video(64, 30, "ultrafast", name)) for name in NAMES
    }
    same = {name for name, (with_it, without) in specs.items() if with_it.params == without.params}
    assert same == set(NAMES) - {"annotated"}
    assert not specs["annotated"][0].track and specs["annotated"][1].track
    assert len({str(sorted(without.params.items())) for _, without in specs.values()}) == len(NAMES)


# --- real clips ------------------------------------------------------------------------------------------------------


def made(store: FeatureStore, video: Path, name: str, window: Any = None) -> tuple[FeatureRow, Counters]:
    spec, counters, clip = crop_video(SIZE, 14, "veryfast", name, window), Counters(), ClipFile(video, video)
    extract_clip(clip, clip.content(), [FACES, spec], store, counters)
    row = store.find(spec, clip.content())
    assert row is not None
    return row, counters


def faces_of(store: FeatureStore, video: Path) -> list[Face | None]:
    row = store.find(FACES, ClipFile(video, video).content())
    assert row is not None
    return replay(row)[0]


def landing_errors(row: FeatureRow, faces: Sequence[Face | None], folder: Path) -> np.ndarray:
    """Distances in crop pixels between source landmarks under the transform and those found in the crop video."""
    video = folder / "crop.mp4"
    video.write_bytes(row.value("mp4"))
    errors = []
    with Landmarker(Counters()) as landmarker, open_video(video) as stream:
        for index, (_, frame) in enumerate(stream):
            found, face, matrix = landmarker.detect(frame, index), faces[index], row.array("transform")[index]
            if not found or face is None or np.isnan(matrix).any():
                continue
            points = np.column_stack([face.points[:, :2] - 0.5, np.ones(len(face.points))])
            mapped = points @ matrix.reshape(2, 3).T + 0.5
            errors.append(np.linalg.norm(mapped - found[0].points[:, :2], axis=1))
    assert len(errors) >= 0.9 * row.value("n_frames"), "the crop shows the face"
    return np.array(errors)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    need(LANDMARKER)
    return FeatureStore(tmp_path_factory.mktemp("crops"), "face")


@pytest.mark.parametrize("name", NAMES)
def test_landmarks_land_on_the_face(name: str, store: FeatureStore, sample_clips: Path, tmp_path: Path) -> None:
    for clip in ("jwp-intro-0.mp4", "test-movie-0.mp4"):
        row, _ = made(store, sample_clips / clip, name)
        errors = landing_errors(row, faces_of(store, sample_clips / clip), tmp_path)
        assert np.median(errors) < 1.5, clip


REAL = ("edtalk/uncrop_Obama.mp4", "sadtalker/WDA_AlexandriaOcasioCortez_000.mp4", "latentsync/demo2_video.mp4")


@pytest.fixture(scope="module")
def pieces(media: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Sixteen frames of each."""
    folder = tmp_path_factory.mktemp("pieces")
    for index, name in enumerate(REAL):
        reencode_clip(media / name, folder / f"{index}.mp4", start_s=1, end_s=1.64)
    return sorted(folder.glob("*.mp4"))


@pytest.mark.parametrize("name", [*NAMES, "window"])
def test_landmarks_land_on_the_face_in_real_clips(
    name: str, store: FeatureStore, pieces: list[Path], tmp_path: Path
) -> None:
    named, window = ("annotated", WINDOW) if name == "window" else (name, None)
    for video in pieces:
        row, _ = made(store, video, named, window)
        errors = landing_errors(row, faces_of(store, video), tmp_path)
        assert np.median(errors) < 1.5, video.name


@pytest.mark.parametrize("name", NAMES)
def test_a_crop_of_the_whole_clip_costs_a_second_decode(name: str, sample_clips: Path, tmp_path: Path) -> None:
    need(LANDMARKER)
    store, clip = FeatureStore(tmp_path, "face"), sample_clips / "test-movie-1.mp4"
    row, counters = made(store, clip, name)
    decodes = 2 if crops.get(name).track else 1
    assert (counters.decodes, counters.frames_decoded, counters.face_detections) == (decodes, 48 * decodes, 48)
    assert row.array("transform").shape == (48, 6) and (row.value("n_frames"), row.value("source_width")) == (48, 352)
    _, again = made(store, clip, "ffhq" if name == "hdtf-union" else "hdtf-union")
    assert (again.decodes, again.face_detections) == (1, 0), "the faces are stored by now"
    assert not list((store.root / "tmp").iterdir())


def test_a_clip_without_a_face_is_decoded_once_and_has_no_crop(tmp_path: Path) -> None:
    need(LANDMARKER)
    video = write_clip(tmp_path / "blank.mp4", 6)
    row, counters = made(FeatureStore(tmp_path / "cache", "face"), video, "hdtf-union")
    assert (row.reason, counters.decodes) == ("no_face", 1)
    row, _ = made(FeatureStore(tmp_path / "cache", "face"), video, "annotated", WINDOW)
    assert row.reason == "no_face"


def test_frames_outside_a_track_are_black_and_null(tmp_path: Path) -> None:
    """Faces given beforehand: none, then one, then none."""
    video = write_clip(tmp_path / "a.mp4", [np.full((120, 160, 3), 200, np.uint8)] * 30)
    store, content = FeatureStore(tmp_path, "face"), ClipFile(video, video).content()
    faces = [None] * 5 + [face_box(80, 60, 40)] * 20 + [None] * 5
    store.save(FACES, content, faces_row([face and replace(face, track=0) for face in faces], 120, 160))
    row, counters = made(store, video, "syncnet-square")
    assert counters.decodes == 1
    empty = np.isnan(row.array("transform")).any(axis=1)
    assert empty.tolist() == [True] * 5 + [False] * 20 + [True] * 5
    (tmp_path / "crop.mp4").write_bytes(row.value("mp4"))
    with open_video(tmp_path / "crop.mp4") as stream:
        levels = [frame[100:150, 100:150].mean() for _, frame in stream]
    assert max(levels[:5] + levels[-5:]) < 5 and min(levels[5:-5]) > 150


def test_rules_name_their_constants() -> None:
    """A constant that changes changes the cache key through the rule's text."""
    for name, value in (("hdtf-union", module.UNION_RATIO), ("dice-square", module.DICE_GROWTH)):
        assert str(value) in crops.get(name).rule
    for value in (module.SYNCNET_MEDIAN, module.SYNCNET_SCALE):
        assert str(value) in crops.get("syncnet-square").rule
