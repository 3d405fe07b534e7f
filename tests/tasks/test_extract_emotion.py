"""Emotion rows: the crops in closed form, real faces whose expression is known, and what happens without a face."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from talkforge.core.counters import Counters
from talkforge.core.emotions import MEAD_EMOTIONS, ORDERS
from talkforge.core.errors import NoFace
from talkforge.datasets.labels import emotion_name
from talkforge.models import emoaffectnet, hsemotion
from talkforge.models.mini_xception import CLASSES
from talkforge.tasks.extract_arkit import BLENDSHAPE_NAMES
from talkforge.tasks.extract_emotion import (
    EMOAFFECTNET,
    EXTRACTORS,
    FER,
    HSEMOTION_B0,
    HSEMOTION_B2,
    EmoAffectNet,
    HSEmotionB0,
    HSEmotionB2,
    MiniXception,
    cut_grey,
    cut_resized,
    fer_square,
    mesh_box,
)
from talkforge.tasks.extractor import Batch, Context
from talkforge.tasks.faces import LANDMARKER, Face, Landmarker
from talkforge.tests.tasks.one_row import extract, extract_counted, need, sample

CLASSES_OF_FER = ORDERS["fer2013"]
HAPPY = CLASSES_OF_FER.index("happy")


def face_in(left: float, top: float, right: float, bottom: float) -> Face:
    """A face whose mesh has that box."""
    points = np.full((478, 3), (left, top, 0), np.float32)
    points[1:, :2] = (right, bottom)
    return Face(points, np.zeros(52, np.float32), np.eye(4, dtype=np.float32))


def happiness(path: Path) -> float:
    """The probability of "happy" that `emotion-fer2013` sees in a picture of one face."""
    need("fer-mini-xception")
    need(LANDMARKER)
    with Image.open(path) as picture:
        frame = np.asarray(picture.convert("RGB"))
    with Landmarker(Counters()) as landmarker:
        (face, *_) = landmarker.detect(frame, 0)
    one = MiniXception(FER, Context("cpu", Counters()))
    one.push(Batch(np.arange(1), [frame], [face], [0], [None]))
    return float(one.finish()["probabilities"][0, HAPPY])


class TestDeclaration:
    def test_classes_are_named_as_in_the_package(self) -> None:
        assert tuple(emotion_name(name) for name in CLASSES) == CLASSES_OF_FER == FER.params["classes"]
        for spec in EXTRACTORS:
            classes = spec.params["classes"]
            assert set(classes) <= set(MEAD_EMOTIONS)
            assert spec.columns["probabilities"].value_type.list_size == len(set(classes)) == len(classes)

    def test_each_network_has_its_own_size(self) -> None:
        assert {spec.id: spec.params["size"] for spec in EXTRACTORS} == {
            "emotion-fer2013": 64,
            "emotion-hsemotion-b0": hsemotion.SIZES["b0"],
            "emotion-hsemotion-b2": hsemotion.SIZES["b2"],
            "emotion-emoaffectnet": emoaffectnet.SIZE,
        }


class TestFerCrop:
    def test_the_square_is_as_high_as_the_mesh_and_higher_up(self) -> None:
        """A box 80 wide and 100 high: side 100, centre 10 higher, 10 pixels more on each side."""
        assert fer_square((110.0, 200.0, 190.0, 300.0)).tolist() == [90, 180, 210, 300]

    def test_it_is_the_packages_grey_inside_the_picture(self) -> None:
        frame = np.random.default_rng(0).integers(0, 256, (200, 160, 3), dtype=np.uint8)
        cut = cut_grey(frame, np.array([20, 30, 148, 158]))
        assert cut is not None
        grey = frame.astype(float) @ (0.299, 0.587, 0.114)
        # 128 to 64 pixels by bilinear interpolation is the mean of four.
        wanted = grey[30:158, 20:148].reshape(64, 2, 64, 2).mean(axis=(1, 3))
        assert np.abs(cut - wanted).max() < 1.6

    def test_outside_it_is_the_mean_of_the_lowest_rows_for_forty_pixels(self) -> None:
        frame = np.full((100, 100, 3), 250, np.uint8)
        frame[-2:] = 60
        cut = cut_grey(frame, np.array([-64, -64, 64, 64]))
        assert cut is not None
        # 24 of the 128 are cut off, the rest (104 square) is stretched over 64: the picture begins at 40 / 104 of it.
        edge = 64 * 40 // 104
        assert (cut[: edge - 1] == 60).all()
        assert (cut[:, : edge - 1] == 60).all()
        assert (cut[edge + 2 :, edge + 2 :] == 250).all()
        assert cut_grey(frame, np.array([-300, 0, -200, 100])) is None


class TestMeshCrop:
    def test_the_box_is_whole_and_inside(self) -> None:
        frame = np.zeros((100, 120, 3), np.uint8)
        box = mesh_box(frame, face_in(-5.5, 10.9, 60.2, 140.0))
        assert box is not None
        assert box.tolist() == [0, 10, 60, 99]
        wide = mesh_box(frame, face_in(-5.5, 10.9, 160.2, 40.0))
        assert wide is not None
        assert wide.tolist() == [0, 10, 119, 40]
        assert mesh_box(frame, face_in(130, 10, 150, 40)) is None

    def test_its_shape_is_not_kept(self) -> None:
        frame = np.zeros((100, 120, 3), np.uint8)
        frame[20:60, 30:50] = (10, 20, 30)
        for method in (Image.Resampling.NEAREST, Image.Resampling.BILINEAR):
            cut = cut_resized(frame, np.array([30, 20, 50, 60]), 224, method)
            assert cut.shape == (224, 224, 3)
            assert (cut == (10, 20, 30)).all()


class TestFer2013:
    def test_sad_becomes_happy(self) -> None:
        """The clip is called that; its first third holds no smile, its last is one."""
        row = extract(FER.id, sample("wolfgang-langer"))
        rows = row.array("probabilities")
        assert rows.shape == (row.value("n_frames"), 7)
        assert rows.sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
        thirds = [part.mean(axis=0) for part in np.array_split(rows, 3)]
        assert thirds[0][HAPPY] < 0.1
        assert thirds[2][HAPPY] > 0.9
        assert CLASSES_OF_FER[int(thirds[0].argmax())] == "sad"

    def test_it_goes_with_the_smile_of_the_blendshapes(self) -> None:
        clip = sample("single-face-video")
        smile = extract("arkit52", clip).array("blendshapes")
        left = smile[:, BLENDSHAPE_NAMES.index("mouthSmileLeft")]
        happy = extract(FER.id, clip).array("probabilities")[:, HAPPY]
        assert np.corrcoef(left, happy)[0, 1] > 0.7

    @pytest.mark.parametrize("name", ["happy-face", "single-face"])
    def test_smiling_pictures_are_happy(self, name: str) -> None:
        assert happiness(sample(name)) > 0.95

    def test_the_astronaut_is_happy(self, media: Path) -> None:
        assert happiness(media / "pkg_skimage" / "astronaut.png") > 0.95

    def test_an_angry_picture_is_not(self) -> None:
        assert happiness(sample("angry-face")) < 0.05

    def test_only_faces_are_forwarded_and_the_rest_is_null(self) -> None:
        row, work = extract_counted(FER.id, sample("face-noface"))
        missing = np.isnan(row.array("probabilities")).all(axis=1)
        assert 0 < missing.sum() == row.value("n_missing") < row.value("n_frames")
        assert work.forwards[FER.id] == (~missing).sum()
        assert (np.isnan(row.array("box")).all(axis=1) == missing).all()

    def test_no_face_at_all_is_a_reason(self) -> None:
        assert extract(FER.id, sample("no-face-video")).reason == "no_face"


RANDOM = (
    (HSEMOTION_B0, HSEmotionB0, lambda: hsemotion.HSEmotion("b0"), hsemotion.prepare, Image.Resampling.BILINEAR),
    (HSEMOTION_B2, HSEmotionB2, lambda: hsemotion.HSEmotion("b2"), hsemotion.prepare, Image.Resampling.BILINEAR),
    (EMOAFFECTNET, EmoAffectNet, emoaffectnet.EmoAffectNet, emoaffectnet.prepare, Image.Resampling.NEAREST),
)


@pytest.mark.parametrize(("spec", "extractor", "make", "prepare", "method"), RANDOM, ids=lambda x: getattr(x, "id", ""))
def test_a_row_is_the_networks_softmax_of_the_box(spec, extractor, make, prepare, method, monkeypatch) -> None:
    """With random weights, as the real ones are placed by hand: frames with a face, one without, one face outside."""
    torch.manual_seed(0)
    network = make().eval()
    monkeypatch.setattr(Context, "network", lambda self, target: network)
    frames = list(np.random.default_rng(1).integers(0, 256, (4, 90, 120, 3), dtype=np.uint8))
    faces = [face_in(10, 20, 70, 85), None, face_in(300, 20, 360, 85), face_in(30, 5, 119, 89)]
    one = extractor(spec, Context("cpu", Counters()))
    one.push(Batch(np.arange(3), frames[:3], faces[:3], [0] * 3, [None] * 3))
    one.push(Batch(np.arange(3, 4), frames[3:], faces[3:], [0], [None]))
    row = one.finish()
    assert (row["n_frames"], row["n_missing"]) == (4, 2)
    assert np.isnan(row["probabilities"][[1, 2]]).all()
    for k, (left, top, right, bottom) in ((0, (10, 20, 70, 85)), (3, (30, 5, 119, 89))):
        picture = Image.fromarray(frames[k]).crop((left, top, right, bottom))
        size = spec.params["size"]
        with torch.inference_mode():
            logits = network(prepare(np.asarray(picture.resize((size, size), method))[None]))[0].double()
        assert row["probabilities"][k] == pytest.approx((logits.exp() / logits.exp().sum()).numpy(), abs=1e-5)
        assert row["box"][k].tolist() == [left, top, right, bottom]


def test_without_any_face_there_is_no_row() -> None:
    one = EmoAffectNet(EMOAFFECTNET, Context("cpu", Counters()))
    one.push(Batch(np.arange(2), [np.zeros((8, 8, 3), np.uint8)] * 2, [None] * 2, [0] * 2, [None] * 2))
    with pytest.raises(NoFace, match="2 frames"):
        one.finish()
