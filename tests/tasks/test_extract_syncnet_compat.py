"""The published chain in memory: its tracks against the published way to find them, its losses, its reasons."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from talkforge.core.counters import Counters
from talkforge.core.errors import NoFace, SilentAudio, TooShort
from talkforge.datasets.audio import read_audio
from talkforge.datasets.video import open_video, resample
from talkforge.models.loading import load_strict
from talkforge.models.syncnet import FoldedSyncNet, SyncNet
from talkforge.tasks.extract import ClipFile, extract_clip
from talkforge.tasks.extract_faces import FACES
from talkforge.tasks.extract_syncnet_compat import COMPAT, COMPAT_50, EXTRACTORS, CompatVectors
from talkforge.tasks.extractor import Batch, Context, ExtractorSpec
from talkforge.tasks.faces import overlap
from talkforge.tasks.features import FeatureStore
from talkforge.tasks.syncnet_chain import DETECTOR, LEAD, Cuts, Follower, LossyCrop, chain_sound, faces_in
from talkforge.tasks.syncnet_tracks import NoTrack
from talkforge.tests.media_factory import numbered, tone, write_clip
from talkforge.tests.models.test_syncnet import random_weights
from talkforge.tests.tasks.one_row import need

Box = tuple[float, float, float, float]


class OneFace(torch.nn.Module):
    """In the place of S3FD: the same face in every picture, or none. What S3FD itself finds: `models/test_s3fd.py`."""

    def __init__(self, box: Box, probability: float = 0.99) -> None:
        super().__init__()
        self.box = torch.nn.Parameter(torch.tensor([[box]]), requires_grad=False)
        self.probability = probability

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.box, torch.full((1, 1), self.probability)


def use(monkeypatch: pytest.MonkeyPatch, box: Box, syncnet: object, probability: float = 0.99) -> None:
    networks = {DETECTOR: OneFace(box, probability)}
    monkeypatch.setattr(Context, "network", lambda self, target: networks.get(target, syncnet))


@pytest.fixture
def zeros() -> SimpleNamespace:
    """Where only the way to the network is looked at."""
    return SimpleNamespace(
        forward_lip=lambda x: torch.zeros(len(x), 1024), forward_aud=lambda x: torch.ones(len(x), 1024)
    )


def run(spec: ExtractorSpec, frames: list[np.ndarray], audio) -> tuple[dict, Counters]:
    context = Context("cpu", Counters(), audio)
    extractor = CompatVectors(spec, context)
    for k, frame in enumerate(frames):
        extractor.push(Batch(np.array([k]), [frame], [None], [0], [None]))
    return extractor.finish(), context.counters


def by_passes(scene: list[list[Box]], min_track: int) -> list[list[tuple[int, Box]]]:
    """The published way: one track after the other from the first face that is left, over the whole scene."""
    left, tracks = [list(faces) for faces in scene], []
    while any(left):
        track: list[tuple[int, Box]] = []
        for index, faces in enumerate(left):
            for face in list(faces):
                if not track or (index - track[-1][0] <= 25 and overlap(track[-1][1], face) > 0.5):
                    track.append((index, face))
                    faces.remove(face)
                    break
        if len(track) > min_track:
            tracks.append(track)
    return tracks


@pytest.mark.parametrize("seed", range(4))
def test_tracks_are_those_of_the_published_search(seed: int, zeros, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three faces that wander, jump and are away for up to 40 frames."""
    monkeypatch.setattr(Context, "network", lambda self, target: zeros)
    rng = np.random.default_rng(seed)
    at = np.array([[100.0, 100], [400, 120], [250, 300]])
    away, scene = np.zeros(3, int), []
    for _ in range(150):
        at += rng.normal(0, 3, at.shape) + 60 * (rng.random((3, 1)) < 0.01)
        away = np.where(away > 0, away - 1, (rng.random(3) < 0.03) * rng.integers(1, 40, 3))
        faces = [(x - 60, y - 70, x + 60, y + 70) for (x, y), gone in zip(at, away, strict=True) if not gone]
        scene.append([faces[k] for k in rng.permutation(len(faces))])
    follower = Follower(Context("cpu", Counters()), 8)
    for index, faces in enumerate(scene):
        follower.push(index, np.zeros((16, 16, 3), np.uint8), [np.array(face) for face in faces])
    follower.cut()
    wanted = [(track[0][0], track[-1][0] - track[0][0] + 1) for track in by_passes(scene, 8)]
    assert sorted((track.start, track.looks.count) for track in follower.tracks) == sorted(wanted)
    assert len(wanted) > 3


def test_small_faces_and_short_tracks_are_left_out(zeros, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "network", lambda self, target: zeros)
    follower = Follower(Context("cpu", Counters()), 8)
    boxes = [np.array([0, 0, 101, 50.0]), np.array([200, 0, 300, 100.0])]
    for index in range(9):
        follower.push(index, np.zeros((16, 16, 3), np.uint8), boxes)
    follower.cut()
    assert [track.looks.count for track in follower.tracks] == [9], "a mean side of 100 is not more than 100"
    for index in range(8):
        follower.push(index, np.zeros((16, 16, 3), np.uint8), boxes)
    follower.cut()
    assert (len(follower.tracks), follower.longest) == (1, 9), "8 sights are not more than 8"


def test_cuts_are_sudden_changes_some_frames_apart() -> None:
    cuts = Cuts()
    dark, light = np.zeros((90, 160, 3), np.uint8), np.full((90, 160, 3), 200, np.uint8)
    frames = [dark] * 20 + [light] * 10 + [dark] * 20 + [light]
    found = [k for k, frame in enumerate(frames) if cuts.push(frame)]
    assert found == [20, 50], "the change back after 10 frames is too near"
    slow = Cuts()
    assert not any(slow.push(np.full((90, 160, 3), 4 * k, np.uint8)) for k in range(60))


def test_the_detector_sees_a_quarter_of_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Watching(OneFace):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            sizes.append(tuple(x.shape))
            return super().forward(x)

    monkeypatch.setattr(Context, "network", lambda self, target: Watching((0.25, 0.5, 0.75, 1.0)))
    context = Context("cpu", Counters())
    np.testing.assert_allclose(faces_in(context, np.zeros((180, 320, 3), np.uint8)), [[80, 90, 240, 180]])
    assert sizes == [(1, 3, 45, 80)]
    assert context.counters.forwards == {"s3fd-syncnet": 1}


def test_late_sound_and_repeated_frames_nearly_cancel() -> None:
    """69 ms against 80 ms."""
    sound = np.zeros(32000, np.float32)
    sound[16000:16032] = 0.9
    late = int(np.abs(chain_sound(sound).astype(int)).argmax()) - 16000
    assert LEAD == 2
    assert 1095 < late < 1145
    assert abs(late - LEAD * 640) < 200


def test_the_crop_loses_what_the_published_one_loses(media: Path) -> None:
    """Figures of OpenCV's AVI and FFmpeg's JPEGs of these crops: 1300 bytes a frame; 38.3 dB, later 31.6."""
    frames = []
    with open_video(media / "edtalk" / "mouth_source.mp4") as stream:
        for k, _, frame in resample(stream):
            if k == 40:
                break
            frames.append(np.ascontiguousarray(frame[16:240, 16:240]))
    lossy = LossyCrop()
    errors = [((lossy(frame).astype(float) - frame) ** 2).mean() for frame in frames]
    first, settled = (10 * np.log10(255**2 / np.mean(part)) for part in (errors[:1], errors[25:]))
    assert lossy.avi.bytes / 40 == pytest.approx(1300, rel=0.2)
    assert first == pytest.approx(38.3, abs=1.5)
    assert settled == pytest.approx(31.6, abs=1.0)


class TestReasons:
    """Why there is no row."""

    frames = [np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)] * 60
    whole: Box = (0.1, 0.1, 0.9, 0.9)

    def test_a_short_clip_is_scored_by_neither_and_says_so(self, zeros, monkeypatch: pytest.MonkeyPatch) -> None:
        use(monkeypatch, self.whole, zeros)
        row, _ = run(COMPAT_50, self.frames, tone(2.4))
        assert row["n_frames"] == 60 and row["n_tracks"] == 1
        with pytest.raises(TooShort, match="60 frames; the published chain scores tracks of over 100"):
            run(COMPAT, self.frames, tone(2.4))

    def test_no_face_silence_and_a_small_face(self, zeros, monkeypatch: pytest.MonkeyPatch) -> None:
        use(monkeypatch, self.whole, zeros, probability=0.89)
        with pytest.raises(NoFace, match="S3FD finds no face in any of 60 frames"):
            run(COMPAT_50, self.frames, tone(2.4))
        with pytest.raises(SilentAudio):
            run(COMPAT_50, self.frames, np.zeros(40000, np.float32))
        use(monkeypatch, (0.2, 0.2, 0.8, 0.8), zeros)
        with pytest.raises(NoTrack, match="a side of 96 pixels"):
            run(COMPAT_50, self.frames, tone(2.4))


def test_a_real_clip_through_the_chain(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step but the detector's finding: two frames repeated, one track, its vectors finite."""
    use(monkeypatch, (0.28, 0.2, 0.72, 0.78), FoldedSyncNet(load_strict(SyncNet(), random_weights(), source="random")))
    video = media / "grid_lipnet" / "bbaf2n.mpg"
    with open_video(video) as stream:
        frames = [frame for _, _, frame in resample(stream)][:51]
    row, counters = run(COMPAT_50, frames, read_audio(video))
    assert row["n_frames"] == 51
    assert row["video"].shape == row["audio"].shape == (46, 1024)
    assert row["frame"].tolist() == list(range(46))
    assert np.isfinite(row["video"]).all() and np.isfinite(row["audio"]).all()
    assert counters.forwards == {"s3fd-syncnet": 51, "syncnet-v2-lip": 46, "syncnet-v2-sound": 46}


def test_frames_come_late_and_cuts_in_time(zeros, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first frame thrice; a cut at frame 70 ends the track there, where the chain's frame is still frame 68."""
    use(monkeypatch, TestReasons.whole, zeros)
    given: list[tuple[int, float]] = []
    push = Follower.push
    monkeypatch.setattr(
        Follower,
        "push",
        lambda self, index, frame, boxes: given.append((index, frame.mean())) or push(self, index, frame, boxes),
    )
    frames = [np.full((160, 160, 3), k if k < 70 else 255 - k, np.uint8) for k in range(130)]
    row, _ = run(COMPAT_50, frames, tone(5.2))
    assert [index for index, _ in given] == list(range(130))
    levels = [level for _, level in given]
    assert levels[0] == levels[1] == levels[2]
    assert levels[71] < 80 < 170 < levels[72], "a scene of 70 frames begins with the two before it"
    assert row["track"].tolist() == [0] * 65 + [1] * 55


@pytest.mark.parametrize("crop", ["face", "none"])
def test_no_other_face_search_runs_for_it(crop: str, zeros, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """S3FD looks at each frame; MediaPipe at none, unless somebody else asks, and then the row is the same."""
    use(monkeypatch, TestReasons.whole, zeros)
    video = write_clip(tmp_path / "a.mp4", [numbered(7, 160, 160)] * 60, audio=tone(2.4))
    need("mediapipe-face-landmarker")
    clip, rows, works = ClipFile(video, video), [], []
    for company in ([], [FACES]):
        store = FeatureStore(tmp_path / str(len(company)), crop)
        works.append(Counters())
        extract_clip(clip, clip.content(), [COMPAT_50, *company], store, works[-1])
        row = store.find(COMPAT_50, clip.content())
        assert row is not None and row.reason is None
        rows.append(row.path.read_bytes())
        assert (store.find(FACES, clip.content()) is None) == (not company)
    alone, together = works
    assert (alone.decodes, alone.frames_decoded, alone.face_detections) == (1, 60, 0)
    assert alone.forwards["s3fd-syncnet"] == 60
    assert (together.decodes, together.face_detections, together.forwards) == (1, 60, alone.forwards)
    assert rows[0] == rows[1]


def test_both_variants_want_all_their_weights() -> None:
    for spec in EXTRACTORS:
        assert {"syncnet-v2", "s3fd-syncnet"} == set(spec.weights)
    assert COMPAT.params["min_track"] == 100
