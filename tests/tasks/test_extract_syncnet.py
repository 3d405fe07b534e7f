"""SyncNet's vectors: settled squares against those of the whole clip, rows against the published evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from talkforge.core.counters import Counters
from talkforge.core.errors import NoAudioTrack, NoFace, SilentAudio, TooShort
from talkforge.core.hashing import file_sha256
from talkforge.core.registry import resolve
from talkforge.core.weights import CONFIGS, weights_store
from talkforge.datasets.audio import read_audio, write_wav
from talkforge.datasets.video import open_video, resample
from talkforge.metrics.lse import clip_scores
from talkforge.models.loading import load_strict
from talkforge.models.mfcc import mfcc, mfcc_windows
from talkforge.models.syncnet import FoldedSyncNet, SyncNet, lip_windows
from talkforge.tasks.crops import syncnet_rectangle, syncnet_squares
from talkforge.tasks.extract import ClipFile, extract_clip
from talkforge.tasks.extract_faces import FACES
from talkforge.tasks.extract_syncnet import DIRECT, LEAST, DirectVectors
from talkforge.tasks.extractor import Batch, Context
from talkforge.tasks.faces import Face
from talkforge.tasks.features import FeatureRow, FeatureStore
from talkforge.tasks.syncnet_tracks import (
    NoTrack,
    TrackLooks,
    TrackSquares,
    looks_with_sound,
    mfcc_rows,
    sound_of,
    sound_vectors,
)
from talkforge.tests.media_factory import tone
from talkforge.tests.metrics.rows import HeldRow
from talkforge.tests.models.test_syncnet import published, random_weights
from talkforge.tests.tasks.one_row import need


@pytest.fixture(scope="module")
def network() -> Iterator[FoldedSyncNet]:
    """SyncNet at random weights in the place of the published ones, which are not at hand everywhere."""
    network = FoldedSyncNet(load_strict(SyncNet(), random_weights(), source="random"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Context, "network", lambda self, target: network)
        yield network


def walk(seed: int, n: int) -> np.ndarray:
    """Boxes (n, 4) of a face that moves, shakes and grows."""
    rng = np.random.default_rng(seed)
    middle = np.cumsum(rng.normal(0, 3, (n, 2)), axis=0) + 300
    half = 60 + np.cumsum(rng.normal(0, 1, (n, 1)), axis=0) + rng.normal(0, 4, (n, 2))
    return np.concatenate([middle - half, middle + half], axis=1)


class TestSquares:
    """Squares that settle while the clip runs."""

    @pytest.mark.parametrize("n", [1, 2, 5, 12, 13, 14, 19, 60])
    @pytest.mark.parametrize("gaps", [(), ((3, 4), (8, 9), (20, 44))])
    def test_are_those_of_the_whole_clip(self, n: int, gaps: tuple[tuple[int, int], ...]) -> None:
        boxes = walk(n, n)
        for first, last in gaps:
            boxes[first : min(last, n - 1)] = np.nan
        wanted = syncnet_squares(boxes, np.where(np.isnan(boxes[:, 0]), -1, 0))
        stream, found, most = TrackSquares(), [], 0
        for k, box in enumerate(boxes):
            frame = np.array([k])
            if np.isnan(box[0]):
                stream.miss(frame)
            else:
                found += stream.see(100 + k, frame, box)
            most = max(most, k + 1 - len(found))
        found += stream.close()
        assert [int(frame[0]) for frame, _ in found] == list(range(n))
        np.testing.assert_allclose([square for _, square in found], wanted, rtol=1e-12)
        assert stream.start == 100
        assert most <= (12 if not gaps else 32), "what waits: half a median, and a gap"

    def test_frames_after_the_last_box_are_no_part_of_the_track(self) -> None:
        stream = TrackSquares(patience=4)
        for k, box in enumerate(walk(0, 15)):
            stream.see(k, np.array([k]), box)
        for k in range(15, 25):
            assert stream.over is (k >= 19)
            stream.miss(np.array([k]))
        assert [int(frame[0]) for frame, _ in stream.close()] == list(range(9, 15))

    def test_the_mean_side_counts_bridged_frames(self) -> None:
        """20, then a gap in which it grows to 50: 20, 30, 40, 50."""
        stream = TrackSquares()
        stream.see(0, np.zeros(1), np.array([0, 0, 20, 10]))
        stream.miss(np.zeros(1))
        stream.miss(np.zeros(1))
        stream.see(3, np.zeros(1), np.array([0, 0, 50, 10]))
        assert stream.mean_side == pytest.approx(35)
        assert stream.seen == 2


def test_looks_through_the_stream_are_those_of_all_crops_at_once(network: FoldedSyncNet) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (29, 224, 224, 3), dtype=np.uint8)
    context = Context("cpu", Counters())
    looks = TrackLooks(context, 23)
    for k, crop in enumerate(crops):
        looks.push(crop)
        assert bool(context.counters.forwards) is (k + 1 >= 23), "nothing is forwarded for a track that may be short"
    found = looks.vectors()
    with torch.inference_mode():
        wanted = network.forward_lip(lip_windows(crops)[:24]).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert context.counters.forwards == {"syncnet-v2-lip": 24}


def test_looks_and_sound_are_counted_as_published() -> None:
    """Of n frames and floor(S / 640) frames of sound the smaller, less 5."""
    sound = np.arange(100 * 640, dtype=np.int32).astype(np.int16)
    assert looks_with_sound(30, sound_of(sound, 0, 30)) == 25
    assert looks_with_sound(30, sound_of(sound, 80, 30)) == 15
    assert looks_with_sound(30, sound[: 20 * 640 - 1]) == 14
    np.testing.assert_array_equal(sound_of(sound, 10, 2), sound[6400:7680])


@pytest.mark.parametrize(("first", "last"), [(0, 20), (1, 9), (40, 76), (90, 99)])
def test_rows_of_the_sounds_features_are_those_of_the_whole(first: int, last: int) -> None:
    """The last of them reach beyond the sound's end."""
    sound = np.random.default_rng(8).integers(-9000, 9000, 16000 - 37).astype(np.int16)
    np.testing.assert_allclose(mfcc_rows(sound, first, last), mfcc(sound)[first:last], rtol=0, atol=1e-11)


def test_long_sound_goes_through_the_network_in_parts(network: FoldedSyncNet) -> None:
    sound = np.random.default_rng(9).integers(-9000, 9000, 75 * 640).astype(np.int16)
    found = sound_vectors(Context("cpu", Counters()), sound, 70)
    with torch.inference_mode():
        wanted = network.forward_aud(torch.from_numpy(mfcc_windows(mfcc(sound))[:70].astype(np.float32)))
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def batches(boxes: np.ndarray, identities: Sequence[int | None]) -> Iterator[Batch]:
    """Frames of noise whose face has these boxes and identities, None where there is no face."""
    frame = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for k, (box, identity) in enumerate(zip(boxes, identities, strict=True)):
        points = np.tile(np.array([*box[:2], 0], np.float32), (478, 1))
        points[1, :2] = box[2:]
        face = None if identity is None else Face(points, np.zeros(52), np.eye(4), identity)
        yield Batch(np.array([k]), [np.roll(frame, k, axis=1)], [face], [0], [None])


def run(audio, identities: Sequence[int | None]) -> tuple[dict, Counters]:
    context = Context("cpu", Counters(), audio)
    extractor = DirectVectors(DIRECT, context)
    for batch in batches(np.tile([10.0, 10, 50, 50], (len(identities), 1)), identities):
        extractor.push(batch)
    return extractor.finish(), context.counters


class TestReasons:
    """Why there is no row; none of these forwards a single look."""

    @pytest.fixture(autouse=True)
    def no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(self, target: str):
            raise AssertionError("the network was asked for")

        monkeypatch.setattr(Context, "network", refuse)

    def test_no_face(self) -> None:
        with pytest.raises(NoFace, match="40 frames"):
            run(tone(2), [None] * 40)

    def test_sound(self) -> None:
        with pytest.raises(SilentAudio):
            run(np.zeros(32000, np.float32), [0] * 40)
        missing = NoAudioTrack("a.mp4 has no sound track")
        with pytest.raises(NoAudioTrack) as caught:
            run(missing, [0] * 40)
        assert caught.value is missing

    def test_a_short_clip_and_short_tracks_are_two_things(self) -> None:
        with pytest.raises(TooShort, match=f"20 frames; {LEAST} are needed"):
            run(tone(2), [0] * 20)
        with pytest.raises(NoTrack, match="the longest track has 20 frames") as caught:
            run(tone(2), [0] * 20 + [1] * 15)
        assert caught.value.reason == "no_track"


def test_sound_that_ends_early_is_told(network: FoldedSyncNet) -> None:
    with pytest.raises(TooShort, match="sound ends"):
        run(tone(20 / 25), [0] * 22)


def test_tracks_have_their_own_looks_and_sound(network: FoldedSyncNet) -> None:
    """The row of a clip of two tracks is the rows of its two halves; a gap belongs to its track."""
    audio = (np.random.default_rng(5).normal(0, 0.1, 48 * 640)).astype(np.float32)
    row, counters = run(audio, [0] * 10 + [None] * 3 + [0] * 10 + [1] * 25)
    assert row["n_tracks"] == 2 and row["n_missing"] == 3 and row["n_frames"] == 48
    assert row["track"].tolist() == [0] * 18 + [1] * 20
    assert row["frame"].tolist() == [*range(18), *range(23, 43)]
    assert counters.forwards == {"syncnet-v2-lip": 38, "syncnet-v2-sound": 38}
    alone, _ = run(audio[23 * 640 :], [1] * 25)
    np.testing.assert_allclose(row["audio"][18:], alone["audio"], atol=1e-5)
    assert np.abs(row["video"][18:] - alone["video"]).max() > 0, "the frames of the picture are others"


def extracted(video: Path, folder: Path, seconds: float) -> tuple[FeatureRow, FeatureRow, Counters]:
    need("mediapipe-face-landmarker")
    clip, counters, store = ClipFile(video, video, 0.0, seconds), Counters(), FeatureStore(folder, "none")
    extract_clip(clip, clip.content(), [DIRECT], store, counters)
    row, faces = store.find(DIRECT, clip.content()), store.find(FACES, clip.content())
    assert row is not None and faces is not None
    return row, faces, counters


def test_a_real_clip_scores_as_the_published_evaluation_of_its_crop(
    network: FoldedSyncNet, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The extractor's crop and sound through syncnet-python's `evaluate`, with the same random weights."""
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("python_speech_features", reason="python_speech_features is not installed")
    video = media / "grid_lipnet" / "bbaf2n.mpg"
    row, faces, counters = extracted(video, tmp_path / "cache", 1.2)
    assert row.reason is None, row.message
    assert len(row.array("video")) == 25
    assert counters.decodes == 1
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".parquet"]

    points = faces.array("points").reshape(-1, 478, 3)
    boxes = np.concatenate([points[..., :2].min(axis=1), points[..., :2].max(axis=1)], axis=1)
    squares = syncnet_squares(boxes, faces.array("track"))
    work = tmp_path / "peer"
    work.mkdir()
    with open_video(video) as stream:
        for k, _, frame in resample(stream):
            if k == len(squares):
                break
            crop = syncnet_rectangle(squares[k]).picture(frame, 224)
            # OpenCV reads by content: lossless pictures under the names that the peer looks for.
            (work / f"{k:06d}.jpg").write_bytes(cv2.imencode(".png", crop[..., ::-1])[1].tobytes())
    write_wav(work / "audio.wav", read_audio(video)[: len(squares) * 640])
    reference = published("SyncNetModel").S()
    reference.load_state_dict(random_weights(), strict=True)
    options = SimpleNamespace(tmp_dir=str(work), batch_size=8, vshift=15)
    with torch.inference_mode():
        offset, confidence, distance = published("SyncNetInstance").SyncNetInstance(reference, "cpu").evaluate(options)
    found = clip_scores(HeldRow({name: row.array(name) for name in ("video", "audio", "track")}))
    assert found.offset == offset
    assert found.distance == pytest.approx(distance, abs=1e-4)
    assert found.confidence == pytest.approx(confidence, abs=1e-4)
    assert confidence > 1e-3


def test_a_clip_without_a_face_says_so(network: FoldedSyncNet, media: Path, tmp_path: Path) -> None:
    row, _, counters = extracted(media / "pyfeat" / "no_face.mp4", tmp_path, 1.0)
    assert row.reason == "no_face"
    assert not counters.forwards


def test_the_network_comes_from_the_store(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: FoldedSyncNet
) -> None:
    """A random file under the published layout and name, declared by its own hash: the row is that network's."""
    landmarker = need("mediapipe-face-landmarker")
    random = tmp_path / "store" / "syncnet" / "syncnet_v2.model"
    random.parent.mkdir(parents=True)
    torch.save(random_weights(), random)
    (tmp_path / "store" / "mediapipe").mkdir()
    (tmp_path / "store" / "mediapipe" / "face_landmarker.task").write_bytes(landmarker.read_bytes())
    catalogue = (
        (CONFIGS / "weights.yaml").read_text().replace(weights_store().sha256("syncnet-v2"), file_sha256(random))
    )
    (tmp_path / "weights.yaml").write_text(catalogue)
    monkeypatch.setattr("talkforge.core.weights.CONFIGS", tmp_path)
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.setattr(Context, "network", lambda self, target: resolve(target)())
    row, _, _ = extracted(media / "grid_lipnet" / "bbaf2n.mpg", tmp_path / "cache", 0.84)
    monkeypatch.setattr(Context, "network", lambda self, target: network)
    again, _, _ = extracted(media / "grid_lipnet" / "bbaf2n.mpg", tmp_path / "again", 0.84)
    assert len(row.array("video")) == 16
    for column in ("video", "audio"):
        np.testing.assert_allclose(row.array(column), again.array(column), atol=1e-5)


def test_the_weights_are_declared_with_their_hash() -> None:
    assert weights_store().sha256("syncnet-v2").startswith("961e8696f888")
