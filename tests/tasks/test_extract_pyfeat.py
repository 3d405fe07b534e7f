"""py-feat's action units: the worker against py-feat's own detector on the same random weights, and its rows.

The published weights are not at hand everywhere, so a random landmark network and random classifiers are saved in the
files' own formats; the landmark network's last layer is set so that it sees a face's layout, a little different in
each picture.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from talkforge.core.counters import Counters
from talkforge.core.errors import NoFace, WeightsError, WeightsMissing
from talkforge.core.weights import weights_store
from talkforge.tasks import extract_pyfeat
from talkforge.tasks.extract import ClipFile, extract_clip
from talkforge.tasks.extract_pyfeat import CLASSIFIERS, LANDMARKS, PYFEAT, UNITS, ActionUnits, action_units
from talkforge.tasks.extractor import Batch, Context
from talkforge.tasks.faces import LANDMARKER
from talkforge.tasks.features import FeatureStore
from talkforge.tasks.npy_worker import Worker, WorkerFailed
from talkforge.tests.tasks.hand_made import face_box
from talkforge.tests.tasks.one_row import need, sample

# Makes the two files, then lets py-feat's detector loose on pictures: its own downloads replaced by these files, and
# its face detector by given boxes.
REFERENCE = """
import subprocess, sys
from pathlib import Path
import numpy as np
from talkforge.core.errors import WeightsError
from talkforge.tasks.pyfeat_worker import Model, import_beside_missing_libraries
import_beside_missing_libraries()
import feat.detector, skops.io, torch, xgboost
from feat.au_detectors.StatLearning.SL_test import XGBClassifier
from feat.landmark_detectors.mobilefacenet_test import MobileFaceNet
from feat.utils.face_mask import extract_hog_features_batched
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

folder = Path(sys.argv[1])
layout = np.load(folder / "layout.npy")
pictures, boxes = np.load(folder / "pictures.npy"), np.load(folder / "boxes.npy")
torch.manual_seed(0)
network = MobileFaceNet([112, 112], 136).eval()
last = network.output_layer.bn
with torch.inference_mode():
    seen = network(torch.rand(8, 3, 112, 112))[0]
last.running_mean.copy_(seen.mean(dim=0))
last.running_var.copy_(seen.var(dim=0))
last.weight.data.fill_(0.01)
last.bias.data.copy_(torch.from_numpy(layout.ravel()))
torch.save({"epoch": 1, "state_dict": network.state_dict()}, folder / "landmarks.pth.tar")

# Classifiers of what this very network and py-feat's histograms give for pictures of the same kind, taught nonsense:
# so the pictures of the test fall on both sides of the trees' splits.
draw = np.random.default_rng(0)
faces = torch.from_numpy(np.load(folder / "lessons.npy")).permute(0, 3, 1, 2).float() / 255
with torch.inference_mode():
    histograms, points = extract_hog_features_batched(faces, network(faces)[0])
points = np.stack(points).reshape(len(points), 136)
parts, rows = {}, {}
for region in ("upper", "lower", "full"):
    parts["scaler_" + region] = scaler = StandardScaler().fit(histograms + draw.normal(0, 0.1, histograms.shape))
    parts["pca_model_" + region] = pca = PCA(12, random_state=1).fit(scaler.transform(histograms))
    rows[region] = np.concatenate([pca.transform(scaler.transform(histograms)), points], axis=1)
model = XGBClassifier()
upper, lower = ("AU1", "AU2", "AU7"), ("AU11", "AU14", "AU17", "AU23", "AU24", "AU26")
model.load_weights(**parts, classifiers={
    unit: xgboost.XGBClassifier(n_estimators=10, max_depth=3, n_jobs=1).fit(
        rows["upper" if unit in upper else "lower" if unit in lower else "full"], draw.integers(0, 2, len(points))
    )
    for unit in model.au_keys
})
skops.io.dump(model, folder / "classifiers.skops")

def local(filename, **_):
    return str(folder / ("landmarks.pth.tar" if filename.startswith("mobilefacenet") else "classifiers.skops"))

class Given:
    def __init__(self, device):
        self.turn = iter(boxes)
    def __call__(self, frames):
        return [[[*next(self.turn), 0.99]] for _ in frames]

feat.detector.hf_hub_download = feat.detector.hf_hub_download_with_fallback = local
feat.detector.Retinaface = Given
detector = feat.detector.Detectorv1(emotion_model=None, identity_model=None, gaze_model=None)
found = detector.detect(torch.from_numpy(pictures).permute(0, 3, 1, 2), data_type="tensor", progress_bar=False)
np.save(folder / "units.npy", found.aus.to_numpy(dtype=np.float32))
assert list(found.aus.columns) == sys.argv[2:], list(found.aus.columns)

# What the worker does with other files.
skops.io.dump({"a": subprocess.Popen}, folder / "process.skops")
skops.io.dump(StandardScaler(), folder / "scaler.skops")
torch.save({"weights": {}}, folder / "nothing.pth.tar")
torch.save({"state_dict": {"conv1.conv.weight": torch.zeros(1)}}, folder / "other.pth.tar")
refusals = []
for files in (
    ("process.skops", "landmarks.pth.tar"),
    ("scaler.skops", "landmarks.pth.tar"),
    ("classifiers.skops", "nothing.pth.tar"),
    ("classifiers.skops", "other.pth.tar"),
):
    try:
        Model(*(folder / name for name in files), 1)
    except WeightsError as error:
        refusals.append(error.message)
(folder / "refusals.txt").write_text("\\n".join(refusals))
last.weight.data.zero_()
for name, place in (("place", torch.full((136,), 0.5)), ("line", torch.linspace(0.2, 0.8, 68).repeat_interleave(2))):
    last.bias.data.copy_(place)
    torch.save({"state_dict": network.state_dict()}, folder / "still.pth.tar")
    model = Model(folder / "classifiers.skops", folder / "still.pth.tar", 1)
    np.save(folder / (name + ".npy"), model.rows(boxes[:1], iter(pictures[:1])))
"""


def layout() -> np.ndarray:
    """68 landmarks of a plain frontal face in a cut of 1.2 times its box, (68, 2) in [0, 1]."""
    turn = np.linspace(0, np.pi, 17)
    jaw = np.stack([0.5 - 0.4 * np.cos(turn), 0.4 + 0.5 * np.sin(turn)], axis=1)
    brows = [
        (x, 0.3 - 0.02 * np.sin(k)) for k, x in enumerate([*np.linspace(0.2, 0.42, 5), *np.linspace(0.58, 0.8, 5)])
    ]
    nose = [(0.5, y) for y in np.linspace(0.4, 0.58, 4)] + [(x, 0.62) for x in np.linspace(0.43, 0.57, 5)]
    rings = [((0.32, 0.4), (0.06, 0.025), 6), ((0.68, 0.4), (0.06, 0.025), 6)]
    rings += [((0.5, 0.76), (0.14, 0.06), 12), ((0.5, 0.76), (0.1, 0.03), 8)]
    round_ones = [
        np.stack([x - width * np.cos(turn), y - height * np.sin(turn)], axis=1)
        for (x, y), (width, height), count in rings
        for turn in [2 * np.pi * np.arange(count) / count]
    ]
    return np.concatenate([jaw, brows, nose, *round_ones]).astype(np.float32)


def patches(draw: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """Pictures of coarse patches and fine noise, uint8 (count, H, W, 3)."""
    coarse = draw.integers(0, 200, (count, size[0] // 16, size[1] // 16, 3), dtype=np.uint8)
    noise = draw.integers(0, 40, (count, *size, 3), dtype=np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2) + noise


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with pictures, boxes, random weights and what py-feat's detector says of them."""
    if find_spec("feat") is None:
        pytest.skip("py-feat is not installed")
    folder, draw = tmp_path_factory.mktemp("pyfeat"), np.random.default_rng(3)
    np.save(folder / "pictures.npy", patches(draw, 5, (240, 320)))
    np.save(folder / "lessons.npy", patches(draw, 40, (112, 112)))
    boxes = [
        [80, 40, 240, 210],
        [10.4, 20.7, 130.2, 160.1],
        [200, 100, 330, 250],
        [-20, -30, 90, 80],
        [100, 90, 140, 135],
    ]
    np.save(folder / "boxes.npy", np.array(boxes, np.float32))
    np.save(folder / "layout.npy", layout())
    command = [sys.executable, "-c", REFERENCE, str(folder), *UNITS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def store(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A weights store with the random files in place, and the worker of this process closed at the end."""
    root, landmarker = tmp_path_factory.mktemp("weights"), need(LANDMARKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALKFORGE_WEIGHTS", str(root))
        for name, source in (
            (LANDMARKER, landmarker),
            (CLASSIFIERS, reference / "classifiers.skops"),
            (LANDMARKS, reference / "landmarks.pth.tar"),
        ):
            target = weights_store().where(name)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
        yield root
        extract_pyfeat.shared_worker().close()


def loaded(reference: Path, name: str) -> np.ndarray:
    return np.load(reference / f"{name}.npy")


def test_names_are_py_feats_and_unlike_the_proxys_only_where_it_has_others() -> None:
    from talkforge.tasks.extract_au_proxy import AU_PROXY

    assert len(UNITS) == 20
    assert [name for name in PYFEAT.columns if name.startswith("AU")] == list(UNITS)
    shared = set(AU_PROXY.columns) & set(PYFEAT.columns)
    assert len(shared) == 18  # 16 action units and the two counts
    assert all(AU_PROXY.columns[name] == PYFEAT.columns[name] for name in shared)


def test_rows_equal_py_feats_own_detector(reference: Path, store: Path) -> None:
    expected = loaded(reference, "units")
    assert expected.shape == (5, 20)
    assert expected.std(axis=0).min() > 0.01  # the pictures do differ
    version, found = action_units(
        extract_pyfeat.shared_worker(), loaded(reference, "boxes"), loaded(reference, "pictures")
    )
    assert version.split(".")[0].isdigit()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_face_does_not_depend_on_its_neighbours(reference: Path, store: Path) -> None:
    pictures, boxes, worker = loaded(reference, "pictures"), loaded(reference, "boxes"), extract_pyfeat.shared_worker()
    _, together = action_units(worker, boxes, pictures)
    alone = [action_units(worker, boxes[k : k + 1], pictures[k : k + 1])[1][0] for k in (4, 0)]
    np.testing.assert_array_equal(alone, together[[4, 0]])


def test_a_batch_keeps_its_order_and_its_gaps(reference: Path, store: Path) -> None:
    counters = Counters()
    extractor = ActionUnits(PYFEAT, Context("cpu", counters))
    pictures = list(loaded(reference, "pictures"))
    faces = [face_box(160, 120, 150), None, face_box(90, 100, 90), None]
    for part in (slice(0, 2), slice(2, 4)):
        extractor.push(Batch(np.arange(4)[part], pictures[:4][part], faces[part], [0, 0], [None, None]))
    row = extractor.finish()
    boxes = np.array([face.box for face in faces if face is not None])
    _, expected = action_units(extract_pyfeat.shared_worker(), boxes, [pictures[0], pictures[2]])
    assert (row["n_frames"], row["n_missing"]) == (4, 2)
    for k, name in enumerate(UNITS):
        assert row[name] == [expected[0, k], None, expected[1, k], None]
    assert counters.forwards == {"pyfeat": 2}


def test_a_real_clip_becomes_a_row_with_the_model_in_it(store: Path, tmp_path: Path) -> None:
    video = sample("face-noface")
    clip, features, counters = ClipFile(video, video, 0.0, 1.0), FeatureStore(tmp_path, "none"), Counters()
    extract_clip(clip, clip.content(), [PYFEAT], features, counters)
    row = features.find(PYFEAT, clip.content())
    assert row is not None
    assert row.reason is None
    values = np.stack([row.array(name) for name in UNITS], axis=1)
    missing = np.isnan(values).all(axis=1)
    assert missing.sum() == row.value("n_missing") == row.value("n_frames") - counters.forwards["pyfeat"]
    assert counters.forwards["pyfeat"] > 0
    assert ((values[~missing] >= 0) & (values[~missing] <= 1)).all()
    files = [f"{name} {weights_store().sha256(name)[:12]}" for name in (CLASSIFIERS, LANDMARKS)]
    assert row.value("model").startswith("py-feat ")
    assert row.value("model").endswith(", ".join(files))


def test_no_face_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "_start", lambda self: pytest.fail("started"))
    extractor = ActionUnits(PYFEAT, Context("cpu", Counters()))
    extractor.push(Batch(np.arange(2), [np.zeros((9, 9, 3), np.uint8)] * 2, [None] * 2, [0] * 2, [None] * 2))
    with pytest.raises(NoFace):
        extractor.finish()


def test_weights_of_another_kind_are_refused_by_name(reference: Path) -> None:
    lines = (reference / "refusals.txt").read_text().splitlines()
    assert lines == [
        "process.skops names subprocess.Popen, which is not on the allow-list",
        "scaler.skops does not hold py-feat's classifiers of 20 action units",
        "nothing.pth.tar: the checkpoint has no state_dict",
        lines[3],
    ]
    assert lines[3].startswith("other.pth.tar: no ")


def test_the_process_refuses_them_too(reference: Path) -> None:
    worker = extract_pyfeat._worker.__wrapped__(0, reference / "process.skops", reference / "landmarks.pth.tar")
    with pytest.raises(WeightsError, match=r"^process\.skops names subprocess\.Popen, "):
        action_units(worker, [], [])


def test_landmarks_in_one_place_or_on_one_line_are_no_face(reference: Path) -> None:
    """Networks whose last layer says so, whatever they see."""
    assert np.isnan(loaded(reference, "place")).all()
    assert np.isnan(loaded(reference, "line")).all()


def test_what_libraries_print_does_not_get_between_the_messages() -> None:
    script = """
import sys
import numpy as np
from talkforge.tasks.pyfeat_worker import own_output, serve
answers = own_output()
class Chatterbox:
    version, units = "9.9", ["AU01"]
    def rows(self, boxes, pictures):
        print("what a nice picture", flush=True)
        return np.array([[picture.mean()] for picture in pictures], np.float32)
serve(Chatterbox(), sys.stdin.buffer, answers)
"""
    worker = Worker("helper", [sys.executable, "-c", script], {})
    pictures = [np.full((4, 4, 3), value, np.uint8) for value in (3, 7)]
    greeting, answer = worker.ask([np.zeros((2, 4), np.float32), *pictures])
    assert (greeting.tolist(), answer.tolist()) == (["9.9", "AU01"], [[3.0], [7.0]])
    with pytest.raises(WorkerFailed, match="as AU01"):
        action_units(worker, [[0.0] * 4] * 2, pictures)
    worker.close()


def test_without_weights_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing, match=r"huggingface\.co/py-feat/xgb_au"):
        extract_pyfeat.shared_worker()
    with pytest.raises(WeightsMissing):
        FeatureStore(tmp_path, "none").key(PYFEAT, "0" * 64)
