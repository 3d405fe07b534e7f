"""Crops: closed forms, an independent least-squares solution, and the stream against a reference in two passes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from talkforge.tasks.crop import (
    ALIGNED_TEMPLATE,
    ANCHOR_FRAMES,
    BRIDGED_FRAMES,
    FACE_SIZE,
    FaceCropper,
    Item,
    aligned_224,
    crop_square,
    ffhq_square,
    key_points,
    similarity,
)
from talkforge.tasks.faces import Face
from talkforge.tests.tasks.hand_made import face_box, face_of

Seen = tuple[int, int | None]  # scene, track or no face


def turn(points: np.ndarray, degrees: float, scale: float, shift: Sequence[float]) -> np.ndarray:
    """Points rotated (x to y), scaled and shifted, written with complex numbers."""
    moved = (points[:, 0] + 1j * points[:, 1]) * scale * np.exp(1j * math.radians(degrees)) + complex(*shift)
    return np.stack([moved.real, moved.imag], axis=1)


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def test_the_square_by_the_eyes() -> None:
    """Eyes 40 apart, mouth 40 below: 2.0 x 40 beats 1.8 x 40; centre 4 below the eyes."""
    face = face_of((80, 100), (120, 100), (100, 140))
    np.testing.assert_allclose(key_points(face), [(80, 100), (120, 100), (100, 140)], atol=1e-4)
    np.testing.assert_allclose(ffhq_square(face), [100, 104, 160], atol=1e-3)


def test_the_square_by_the_mouth() -> None:
    """A face from the side: eyes 20 apart, mouth 50 below and 10 aside: 1.8 x sqrt(2600) beats 40."""
    face = face_of((90, 100), (110, 100), (110, 150))
    np.testing.assert_allclose(ffhq_square(face), [101, 105, 3.6 * math.sqrt(2600)], rtol=1e-5)


def test_the_square_turns_with_the_face_and_keeps_its_side() -> None:
    points = np.array([(80.0, 100.0), (120.0, 100.0), (100.0, 140.0)])
    straight = ffhq_square(face_of(*map(tuple, points)))
    turned = ffhq_square(face_of(*map(tuple, turn(points, 70, 1.5, (30, -20)))))
    np.testing.assert_allclose(turned[:2], turn(straight[None, :2], 70, 1.5, (30, -20))[0], atol=1e-3)
    assert turned[2] == pytest.approx(1.5 * straight[2], rel=1e-5)


@pytest.mark.parametrize("degrees", [0, 17, 90, -135, 180])
def test_a_similarity_is_recovered_exactly(degrees: float) -> None:
    target = turn(ALIGNED_TEMPLATE, degrees, 0.37, (12.5, -3))
    matrix = similarity(ALIGNED_TEMPLATE, target)
    np.testing.assert_allclose(apply(matrix, ALIGNED_TEMPLATE), target, atol=1e-9)
    s = 0.37 * np.exp(1j * math.radians(degrees))
    np.testing.assert_allclose(matrix[:, :2], [[s.real, -s.imag], [s.imag, s.real]], atol=1e-12)


def test_a_similarity_of_noisy_points_is_the_least_squares_one() -> None:
    """Against numpy's solver on the four unknowns (a, b, shift x, shift y)."""
    rng = np.random.default_rng(4)
    source = rng.uniform(0, 200, (9, 2))
    target = turn(source, 33, 1.7, (5, 9)) + rng.normal(0, 6, (9, 2))
    rows = [[(x, -y, 1, 0), (y, x, 0, 1)] for x, y in source]
    (a, b, tx, ty), *_ = np.linalg.lstsq(np.reshape(rows, (-1, 4)), target.ravel(), rcond=None)
    np.testing.assert_allclose(similarity(source, target), [[a, -b, tx], [b, a, ty]], atol=1e-9)


def test_a_similarity_never_mirrors() -> None:
    source = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 2.0)])
    assert np.linalg.det(similarity(source, source * [-1, 1])[:, :2]) > 0


def test_an_aligned_face_has_its_points_on_the_template() -> None:
    """White discs on the key points of a tilted face land where the template says."""
    points = turn(ALIGNED_TEMPLATE, 25, 1.6, (60, -30))
    frame = np.zeros((360, 420, 3), np.uint8)
    for x, y in points:
        cv2.circle(frame, (round(x * 16), round(y * 16)), 5 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    found = aligned_224(frame, face_of(*map(tuple, points)))
    assert found.shape == (224, 224, 3)
    _, _, _, centres = cv2.connectedComponentsWithStats((found[..., 0] > 127).astype(np.uint8))
    for wanted in ALIGNED_TEMPLATE:
        assert np.abs(centres[1:] - wanted).sum(axis=1).min() < 1.0


def test_a_crop_inside_the_frame_is_the_cut_itself() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    np.testing.assert_array_equal(crop_square(frame, np.array([200.0, 150.0, 224.0])), frame[38:262, 88:312])


def test_a_crop_is_scaled_down_by_area() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (448, 448, 3), dtype=np.uint8)
    blocks = frame.reshape(224, 2, 224, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(crop_square(frame, np.array([224.0, 224.0, 448.0])), blocks, atol=0.51)


@pytest.mark.parametrize("centre", [(10, 150), (395, 150), (200, 3), (200, 299), (0, 0), (399, 299)])
def test_outside_the_frame_a_crop_mirrors(centre: tuple[int, int]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    mirrored = np.pad(frame, ((250, 250), (250, 250), (0, 0)), mode="reflect")
    left, top = centre[0] - 112 + 250, centre[1] - 112 + 250
    found = crop_square(frame, np.array([*centre, 224.0]))
    np.testing.assert_array_equal(found, mirrored[top : top + 224, left : left + 224])


def test_a_square_larger_than_the_frame() -> None:
    frame = np.random.default_rng(2).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    mirrored = np.pad(frame, ((300, 300), (300, 300), (0, 0)), mode="reflect")
    found = crop_square(frame, np.array([25.0, 30.0, 224.0]))
    np.testing.assert_array_equal(found, mirrored[218 : 218 + 224, 213 : 213 + 224])


# --- the stream ------------------------------------------------------------------------------------------------------


def stream_of(pattern: Sequence[Seen], seed: int = 0) -> list[Item]:
    """Frames of noise with a jittering face wherever the pattern has one."""
    rng = np.random.default_rng(seed)
    items = []
    for index, (scene, track) in enumerate(pattern):
        frame = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        x, y, size = 40 + rng.normal(0, 4), 30 + rng.normal(0, 4), 24 + rng.normal(0, 2)
        face = None if track is None else face_box(x, y, size, track=track, scene=scene)
        items.append(Item(index, frame, face, scene))
    return items


def two_passes(items: Sequence[Item]) -> list[np.ndarray | None]:
    """The rule of the module's heading, looking at the whole clip first."""
    runs: list[list[Item]] = []  # of one subject: from its first face to the next subject's first face or scene cut
    for item in items:
        last = next((one.face for one in reversed(runs[-1]) if one.face), None) if runs else None
        cut = bool(runs) and item.scene != runs[-1][-1].scene
        if not runs or cut or (item.face is not None and (last is None or item.face.track != last.track)):
            runs.append([])
        runs[-1].append(item)
    pictures: list[np.ndarray | None] = []
    for run in runs:
        first = next((k for k, item in enumerate(run) if item.face), len(run))
        faces: list[Face] = [item.face for item in run[first : first + ANCHOR_FRAMES] if item.face]
        square = np.median([ffhq_square(face) for face in faces], axis=0) if faces else None
        for k, item in enumerate(run):
            near = any(one.face for one in run[max(0, k - BRIDGED_FRAMES) : k + 1])
            pictures.append(crop_square(item.frame, square) if near and square is not None else None)
    return pictures


def streamed(items: Sequence[Item]) -> tuple[list[Item], FaceCropper, int]:
    """What the stream gives, and the most frames that it held back after a push."""
    cropper, given, most = FaceCropper(), [], 0
    for count, item in enumerate(items, start=1):
        given.extend(cropper.push(replace(item)))
        most = max(most, count - len(given))
    given.extend(cropper.flush())
    return given, cropper, most


def assert_same_pictures(items: Sequence[Item]) -> tuple[list[Item], FaceCropper, int]:
    given, cropper, most = streamed(items)
    assert [item.index for item in given] == list(range(len(items))), "each frame once and in order"
    for item, wanted in zip(given, two_passes(items), strict=True):
        assert (item.subject is None) == (wanted is None), item.index
        if wanted is not None:
            np.testing.assert_array_equal(item.subject, wanted, err_msg=str(item.index))
    return given, cropper, most


def seen(given: Sequence[Item]) -> str:
    """A picture as x, none as a point."""
    return "".join("." if item.subject is None else "x" for item in given)


@pytest.mark.parametrize("seed", range(12))
def test_the_stream_gives_what_two_passes_give(seed: int) -> None:
    """Random runs of faces, gaps, changes of subject and scene cuts."""
    rng = np.random.default_rng(seed)
    pattern: list[Seen] = []
    scene = track = 0
    while len(pattern) < 130:
        event, length = rng.choice(["face", "gap", "cut", "other"], p=[0.4, 0.4, 0.1, 0.1]), int(rng.integers(1, 30))
        scene += event == "cut"
        track += event in ("cut", "other")
        gap = event == "gap" or (event == "cut" and rng.random() < 0.5)
        pattern += [(scene, None if gap else track)] * (min(length, 8) if gap else length)
    _, _, most = assert_same_pictures(stream_of(pattern, seed))
    assert most <= ANCHOR_FRAMES


def test_the_anchor_is_the_median_of_the_first_25_frames() -> None:
    items = stream_of([(0, 0)] * 60)
    items[3].face = face_box(10, 10, 70)  # one bad detection
    _, cropper, most = assert_same_pictures(items)
    squares = [ffhq_square(item.face) for item in items[:ANCHOR_FRAMES] if item.face]
    ((start, square),) = cropper.squares
    assert start == 0 and square == [round(float(v), 2) for v in np.median(squares, axis=0)]
    assert most == ANCHOR_FRAMES - 1, "the 25th frame settles the square"


def test_a_clip_shorter_than_the_anchor_is_cropped_by_what_it_has() -> None:
    given, cropper, _ = assert_same_pictures(stream_of([(0, 0)] * 7))
    assert seen(given) == "x" * 7 and len(cropper.squares) == 1


@pytest.mark.parametrize("start", [10, 40])
def test_short_gaps_are_bridged_and_long_ones_are_not(start: int) -> None:
    """Inside the anchor's frames and behind them."""
    for gap in (1, BRIDGED_FRAMES, BRIDGED_FRAMES + 1, BRIDGED_FRAMES + 4):
        given, cropper, _ = assert_same_pictures(stream_of([(0, 0)] * start + [(0, None)] * gap + [(0, 0)] * 20))
        bridged = min(gap, BRIDGED_FRAMES)
        assert seen(given) == "x" * (start + bridged) + "." * (gap - bridged) + "x" * 20
        assert cropper.bridged == bridged and len(cropper.squares) == 1


def test_frames_before_the_first_face_have_no_picture() -> None:
    given, cropper, most = assert_same_pictures(stream_of([(0, None)] * 30 + [(0, 0)] * 30))
    assert seen(given) == "." * 30 + "x" * 30
    assert cropper.squares[0][0] == 30, "the anchor begins with the face"
    assert most < ANCHOR_FRAMES, "nothing waits while there is no face"


def test_a_cut_is_not_bridged_and_sets_a_new_square() -> None:
    given, cropper, _ = assert_same_pictures(stream_of([(0, 0)] * 30 + [(1, None)] * 2 + [(1, 1)] * 30))
    assert seen(given) == "x" * 30 + ".." + "x" * 30
    assert [start for start, _ in cropper.squares] == [0, 32]


def test_another_subject_sets_a_new_square() -> None:
    _, cropper, _ = assert_same_pictures(stream_of([(0, 0)] * 12 + [(0, 1)] * 40))
    assert [start for start, _ in cropper.squares] == [0, 12]


def test_a_clip_without_a_face_has_no_pictures() -> None:
    given, cropper, most = assert_same_pictures(stream_of([(0, None)] * 40))
    assert seen(given) == "." * 40 and cropper.squares == [] and most == 0


def test_a_picture_has_the_crops_size() -> None:
    (item,) = streamed(stream_of([(0, 0)]))[0]
    assert item.subject is not None and item.subject.shape == (FACE_SIZE, FACE_SIZE, 3)
