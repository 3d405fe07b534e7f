"""3DDFA_V2's network: strict loading, and numbers that an independent evaluation of the same checkpoint gave."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError, WeightsError
from talkforge.datasets.video import open_video
from talkforge.models.tddfa import EXPRESSION, POSE, SHAPE, TDDFA, load_tddfa, prepare, read_statistics
from talkforge.tasks.extract_tddfa import crop_box, cut
from talkforge.tests.tasks.one_row import need, sample

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "tddfa.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def network() -> TDDFA:
    need("tddfa-v2-mb05")
    need("tddfa-v2-mean-std")
    return load_tddfa()


def normalised(network: TDDFA, picture: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return ((network(prepare(picture[None]))[0] - network.mean) / network.std).numpy()


def check(found: np.ndarray, golden: dict) -> None:
    for k, value in golden["values"]:
        assert found[k] == pytest.approx(value, abs=golden["tolerance"]), k


def test_a_made_up_picture_gives_the_golden_numbers(network: TDDFA) -> None:
    y, x = np.mgrid[0:120, 0:120]
    picture = np.stack([(2 * x + y) % 256, (x + 3 * y) % 256, (x * y // 16) % 256], axis=2).astype(np.uint8)
    check(normalised(network, picture), GOLDEN["made_up"])


def test_a_frame_gives_the_golden_numbers(network: TDDFA) -> None:
    with open_video(sample("jwp-intro")) as frames:
        _, frame = next(iter(frames))
    left, top, right, bottom = GOLDEN["frame"]["landmark_box"]
    box = crop_box(np.array([(left, top), (right, bottom)], dtype=float))
    assert box.tolist() == GOLDEN["frame"]["crop_box"]
    check(normalised(network, cut(frame, box)), GOLDEN["frame"])


def test_the_62_are_pose_shape_and_expression() -> None:
    parts = [list(range(62))[part] for part in (POSE, SHAPE, EXPRESSION)]
    assert [len(part) for part in parts] == [12, 40, 10]
    assert [k for part in parts for k in part] == list(range(62))


def test_pictures_become_bgr_about_zero() -> None:
    picture = np.zeros((1, 120, 120, 3), np.uint8)
    picture[..., 0] = 255
    prepared = prepare(picture)
    assert prepared.shape == (1, 3, 120, 120)
    assert prepared[0, 2].unique().tolist() == [127.5 / 128]
    assert prepared[0, :2].unique().tolist() == [-127.5 / 128]


@pytest.mark.parametrize("pictures", [np.zeros((1, 120, 120, 3)), np.zeros((1, 60, 60, 3), np.uint8)])
def test_other_pictures_are_refused(pictures: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        prepare(pictures)


def test_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="floats"):
        TDDFA().eval()(torch.zeros(1, 3, 60, 60))


def test_other_statistics_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", mean=np.zeros(62))
    with pytest.raises(WeightsError, match="two arrays of 62"):
        read_statistics(tmp_path / "x.npz")
