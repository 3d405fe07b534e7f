"""TOPIQ: its windows in closed form, its pictures, and which files it takes; `test_iqa_networks` has its numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.asset_store import AssetStore
from talkforge.core.errors import InputError, WeightsError, WeightsMissing
from talkforge.core.weights import CONFIGS
from talkforge.models import swin
from talkforge.models.swin import join_windows, relative_index, shift_mask, split_windows
from talkforge.models.topiq import WEIGHTS, load_topiq_face, load_topiq_iaa, prepare, read_topiq, topiq
from talkforge.tests.models.iqa_weights import drawn_state


def test_windows_are_squares_of_neighbours_and_come_back() -> None:
    place = torch.arange(48 * 48).reshape(1, 48, 48, 1)
    windows = split_windows(place)
    assert windows.shape == (1, 16, 144, 1)
    assert windows[0, 5, :, 0].tolist() == place[0, 12:24, 12:24, 0].flatten().tolist()
    assert torch.equal(join_windows(windows, 48), place)


def test_the_bias_belongs_to_the_offset() -> None:
    index = relative_index()
    assert int(index[0, 143]) == 0 and int(index[143, 0]) == 23 * 23 - 1
    assert (index.diagonal() == 11 * 23 + 11).all()
    assert int(index[12 * 3 + 4, 12 * 2 + 6]) == (1 + 11) * 23 + (-2 + 11)


def test_shifted_windows_keep_apart_what_the_picture_keeps_apart() -> None:
    """Of 24 x 24 places shifted by 6: the first window is whole, the last holds the four corners of the picture."""
    mask = shift_mask(24, 6)
    assert mask.shape == (4, 144, 144) and set(mask.unique().tolist()) == {0, -100}
    assert (mask[0] == 0).all()
    corner = (torch.arange(144) // 12 >= 6).long() * 2 + (torch.arange(144) % 12 >= 6).long()
    assert torch.equal(mask[3] == 0, corner[:, None] == corner)
    sides = torch.arange(144) % 12 >= 6
    assert torch.equal(mask[1] == 0, sides[:, None] == sides)


def test_the_last_stage_is_one_window_and_does_not_shift() -> None:
    with torch.device("meta"):
        stages = [stage.blocks for stage in swin.SwinFeatures().layers]
    assert [len(blocks) for blocks in stages] == [2, 2, 18, 2]
    assert [[block.shift for block in blocks][:2] for blocks in stages] == [[0, 6], [0, 6], [0, 6], [0, 0]]


def test_pictures_are_resized_without_keeping_their_shape() -> None:
    halves = np.zeros((1, 40, 60, 3), np.uint8)
    halves[:, :, 30:] = (255, 51, 0)
    x = prepare(halves, 384)
    assert x.shape == (1, 3, 384, 384)
    assert x[0, :, 100, 50].tolist() == [0, 0, 0] and x[0, :, 300, 350].tolist() == pytest.approx([1, 0.2, 0])
    # Antialiased: 1 in 4 columns is white, so a quarter is the mean wherever one looks.
    lines = np.zeros((1, 64, 1024, 3), np.uint8)
    lines[:, :, ::4] = 255
    assert float((prepare(lines, 64) - 0.25).abs().max()) < 0.02


def test_a_picture_of_the_size_is_only_scaled() -> None:
    picture = np.random.RandomState(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    assert prepare(picture, 32).numpy() == pytest.approx(picture.transpose(0, 3, 1, 2) / 255)


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 4), np.uint8), np.zeros((1, 8, 8, 3))]
)
def test_other_pictures_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8 or float32"):
        prepare(wrong, 384)


def test_another_size_is_refused() -> None:
    with torch.device("meta"):
        network = topiq("face")
        with pytest.raises(InputError, match="512, 512"):
            network(torch.zeros(1, 3, 384, 384))


def test_the_store_is_asked_and_the_file_is_read_strictly(tmp_path: Path) -> None:
    store = AssetStore.open(tmp_path, CONFIGS / "weights.yaml")
    for load, file in (
        (load_topiq_face, "topiq_nr_cgfiqa_res50-0a8b8e4f"),
        (load_topiq_iaa, "cfanet_iaa_ava_swin-393b41b4"),
    ):
        with pytest.raises(WeightsMissing, match=file):
            load(store)
    path = store.where(WEIGHTS["face"])
    path.parent.mkdir(parents=True)
    state = drawn_state("face")
    torch.save({"params": state}, path)
    read = load_topiq_face(store)
    assert not read.training and torch.equal(read.h_emb, state["h_emb"])
    with pytest.raises(WeightsError, match="topiq-iaa-ava"):
        read_topiq(path, "iaa")
