"""68 landmarks from two sources: FAN against face-alignment on the same random weights, MediaPipe's by definition."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from talkforge.core.counters import Counters
from talkforge.core.errors import NoFace
from talkforge.core.landmarks import landmarks_68
from talkforge.core.weights import weights_store
from talkforge.tasks import extract_landmarks68
from talkforge.tasks.extract import ClipFile, extract_clip
from talkforge.tasks.extract_landmarks68 import (
    FAN,
    FAN_SPEC,
    MEDIAPIPE_SPEC,
    FromFan,
    fan_crop,
    load_fan,
    peaks,
    placement,
    to_frame,
)
from talkforge.tasks.extractor import Batch, Context
from talkforge.tasks.features import FeatureStore
from talkforge.tests.tasks.hand_made import face_box
from talkforge.tests.tasks.one_row import extract, need, sample

# A network of FAN's layout, with one module instead of four, at random weights: as a state dict for the package, whose
# download it replaces, and as TorchScript that gives the last heatmaps, the published file's form.
REFERENCE = """
import sys
from pathlib import Path
import numpy as np, torch
import face_alignment
from face_alignment import api
from face_alignment.models import FAN

folder = Path(sys.argv[1])
torch.manual_seed(0)
network = FAN(1).eval()
with torch.no_grad():
    for tensor in network.parameters():
        if tensor.ndim == 1:
            tensor.uniform_(-0.5, 1.5)
torch.save(network.state_dict(), folder / "fan.pth")

class Last(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network
    def forward(self, x):
        return self.network(x)[-1]

with torch.no_grad():
    torch.jit.trace(Last(), torch.rand(1, 3, 256, 256)).save(folder / "fan.zip")
api.models_urls["2DFAN-1"] = str(folder / "fan.pth")
api.load_file_from_url = lambda path: path
kind = face_alignment.LandmarksType.TWO_D
aligner = api.FaceAlignment(
    kind, network_size=1, device="cpu", flip_input=False, face_detector="folder", compile=False
)
pictures, boxes = np.load(folder / "pictures.npy"), np.load(folder / "boxes.npy")
points, scores = [], []
for picture, box in zip(pictures, boxes):
    found, score, _ = aligner.get_landmarks_from_image(picture, detected_faces=[box], return_landmark_score=True)
    points.append(found[0])
    scores.append(score[0])
np.savez(folder / "found.npz", points=points, scores=scores)
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with pictures, boxes, the random network, and what face-alignment finds with it."""
    if find_spec("face_alignment") is None:
        pytest.skip("face-alignment is not installed")
    folder, draw = tmp_path_factory.mktemp("fan"), np.random.default_rng(5)
    coarse = draw.integers(0, 200, (5, 15, 20, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    np.save(folder / "pictures.npy", coarse + draw.integers(0, 40, coarse.shape, dtype=np.uint8))
    inside = [[100.3, 80.2, 210.9, 200.4], [130.1, 90.7, 170.3, 141.9]]
    beyond = [[-20.2, -10.6, 130.5, 150.3], [200.4, 120.8, 340.2, 260.1], [10.7, 20.1, 310.6, 235.2]]
    np.save(folder / "boxes.npy", np.array(inside + beyond))
    # Without compilation the package's loops take no time; its numbers are the same.
    setting = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", REFERENCE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=setting)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def context(reference: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """With the random network in the place of the published one, loaded as that is."""
    store = weights_store()
    monkeypatch.setattr(type(store), "path", lambda self, name: {FAN: reference / "fan.zip"}[name])
    network = load_fan().eval()
    monkeypatch.setattr(Context, "network", lambda self, target: network)
    return Context("cpu", Counters())


def landmarks(context: Context, picture: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, float]:
    face = face_box(0, 0, 1)
    face.points[:] = 0
    face.points[:, :2] = (box[:2] + box[2:]) / 2
    face.points[0, :2], face.points[1, :2] = box[:2], box[2:]
    return FromFan(FAN_SPEC, context)._landmarks(picture, face)


def test_fan_gives_what_the_package_gives(reference: Path, context: Context) -> None:
    pictures, boxes = np.load(reference / "pictures.npy"), np.load(reference / "boxes.npy")
    with np.load(reference / "found.npz") as found:
        points, scores = found["points"], found["scores"]
    assert points.shape == (5, 68, 2)
    assert len(np.unique(points[0], axis=0)) > 20  # its peaks are not all in one place
    for k in range(5):
        ours, score = landmarks(context, pictures[k], boxes[k])
        np.testing.assert_array_equal(ours.reshape(68, 2), points[k])
        assert score == pytest.approx(scores[k].mean(), rel=1e-5)


def test_the_network_says_the_same_however_often_it_is_asked(reference: Path, context: Context) -> None:
    """TorchScript rewrites itself over its first runs."""
    picture, box = np.load(reference / "pictures.npy")[0], np.load(reference / "boxes.npy")[0]
    scores = [landmarks(context, picture, box)[1] for _ in range(4)]
    assert scores == [scores[0]] * 4


def test_the_square_of_a_box() -> None:
    centre, side = placement(np.array([100, 200, 295, 395]))
    assert centre.tolist() == pytest.approx([197.5, 297.5 - 0.12 * 195])
    assert side == pytest.approx(400)


def test_the_crop_is_black_outside_the_frame() -> None:
    frame = np.full((100, 100, 3), 200, np.uint8)
    crop = fan_crop(frame, np.array([0.0, 50.0]), 100.0)
    assert crop.shape == (256, 256, 3)
    assert (crop[:, :120] == 0).all()
    assert (crop[:, 136:] == 200).all()
    assert (fan_crop(frame, np.array([500.0, 500.0]), 100.0) == 0).all()


@pytest.mark.parametrize("cell", [(10, 20), (62, 1), (0, 0), (63, 40), (5, 63)])
def test_a_peak_leans_a_quarter_towards_its_higher_neighbour(cell: tuple[int, int]) -> None:
    x, y = cell
    heatmap = np.zeros((1, 64, 64), np.float32)
    heatmap[0, y, x] = 3
    inner = 0 < x < 63 and 0 < y < 63
    if inner:
        heatmap[0, y, x + 1], heatmap[0, y - 1, x] = 1, 2
    places, heights = peaks(heatmap)
    lean = (0.25, -0.25) if inner else (0, 0)
    assert places[0].tolist() == [x + 0.5 + lean[0], y + 0.5 + lean[1]]
    assert heights.tolist() == [3]


def test_places_come_back_to_the_frame() -> None:
    """The middle of the heatmap is the centre; whole pixels, towards zero."""
    places = np.array([[32.0, 32.0], [0, 0], [64, 48]])
    found = to_frame(places, np.array([100.9, 40.9]), 128.0)
    assert found.tolist() == [[100, 40], [36, -23], [164, 72]]


def test_columns_are_the_same() -> None:
    assert dict(MEDIAPIPE_SPEC.columns) == dict(FAN_SPEC.columns)
    assert set(FAN_SPEC.columns) == {"points", "score", "n_frames", "n_missing"}


def test_frames_without_a_face_are_null(context: Context) -> None:
    extractor = FromFan(FAN_SPEC, context)
    frames = [np.full((120, 160, 3), 90, np.uint8)] * 2
    for faces in ([face_box(80, 60, 50), None], [None, None]):
        extractor.push(Batch(np.arange(2), frames, faces, [0, 0], [None, None]))
    row = extractor.finish()
    assert row["points"].dtype == np.float32
    assert np.isnan(row["points"]).all(axis=1).tolist() == [False, True, True, True]
    assert [score is None for score in row["score"]] == [False, True, True, True]
    assert (row["n_frames"], row["n_missing"]) == (4, 3)
    assert context.counters.forwards == {"landmarks68-fan": 1}


@pytest.mark.parametrize("spec", [MEDIAPIPE_SPEC, FAN_SPEC], ids=lambda spec: spec.id)
def test_no_face_at_all_is_a_reason(spec: Any) -> None:
    from talkforge.core.registry import resolve

    extractor = resolve(spec.target)(spec, Context("cpu", Counters()))
    extractor.push(Batch(np.arange(1), [np.zeros((9, 9, 3), np.uint8)], [None], [0], [None]))
    with pytest.raises(NoFace):
        extractor.finish()


def test_mediapipes_are_68_of_the_stored_points() -> None:
    clip = sample("face-noface")
    row, faces = extract("landmarks68-mediapipe", clip), extract("faces-mediapipe", clip)
    stored = faces.array("points").reshape(-1, 478, 3)
    np.testing.assert_array_equal(row.array("points").reshape(-1, 68, 2), landmarks_68(stored)[..., :2])
    missing = np.isnan(row.array("points")).all(axis=1)
    assert 0 < missing.sum() == row.value("n_missing") < row.value("n_frames") == len(stored)
    scores = row._table["score"].chunk(0)[0].values
    assert scores.null_count == len(scores) == len(stored)


def test_both_see_the_same_face(tmp_path: Path) -> None:
    """With the published network: eyes, nose and mouth lie within a tenth of the distance between the eyes."""
    need(FAN)
    video = sample("jwp-intro")
    clip, store = ClipFile(video, video, 0.0, 0.12), FeatureStore(tmp_path, "none")
    extract_clip(clip, clip.content(), [MEDIAPIPE_SPEC, FAN_SPEC], store, Counters())
    rows = [store.find(spec, clip.content()) for spec in (MEDIAPIPE_SPEC, FAN_SPEC)]
    ours, fan = (row.array("points").reshape(-1, 68, 2) for row in rows if row is not None)
    eyes = np.linalg.norm(fan[:, 36] - fan[:, 45], axis=1)
    assert (np.linalg.norm(ours - fan, axis=2)[:, 27:] < 0.1 * eyes[:, None]).mean() > 0.9
    assert rows[1] is not None
    assert rows[1].array("score").min() > 0.5


def test_loading_is_quiet(reference: Path, context: Context, recwarn: pytest.WarningsRecorder) -> None:
    network = extract_landmarks68.load_fan()
    assert network(torch.zeros(1, 3, 256, 256)).shape == (1, 68, 64, 64)
    assert [str(warning.message) for warning in recwarn] == []
