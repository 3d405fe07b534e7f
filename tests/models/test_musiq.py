"""MUSIQ: what its patches are, and which files it takes; `test_iqa_networks` has its numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.asset_store import AssetStore
from talkforge.core.errors import InputError, WeightsCorrupt, WeightsError, WeightsMissing
from talkforge.core.weights import CONFIGS
from talkforge.models.musiq import WEIGHTS, Musiq, cut_patches, hashed_places, load_musiq, prepare, read_musiq
from talkforge.tests.models.iqa_weights import drawn, drawn_state, scene


@pytest.fixture(scope="module")
def network() -> Musiq:
    found = drawn("musiq")
    assert isinstance(found, Musiq)
    return found


def test_a_pictures_score_does_not_depend_on_its_company(network: Musiq) -> None:
    small, tall = scene(0, 30, 60), scene(1, 90, 40)
    with torch.inference_mode():
        together, alone = network(prepare([small, tall, small])), network(prepare([small]))
    assert together[[0, 2]].tolist() == pytest.approx([alone.item()] * 2, abs=1e-5)
    assert abs(together[0] - together[1]) > 0.01


def test_patches_of_three_scales() -> None:
    """50 x 100 pixels: 112 x 224 gives 4 x 7 patches, 192 x 384 gives 6 x 12, the picture itself 2 x 4."""
    found = prepare([np.full((50, 100, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)])
    assert found.lengths == (28 + 72 + 8, 49 + 144 + 1)
    assert torch.bincount(found.scales).tolist() == [28 + 49, 72 + 144, 8 + 1]
    own = found.pixels[100:108]
    assert own.shape == (8, 3, 32, 32) and float(own.max()) == 1
    # 14 rows and 28 columns are missing to 64 x 128: half of them before, grey.
    assert (own[0, :, 7:, 14:] == 1).all() and (own[0, :, :7] == 0).all() and (own[0, :, :, :14] == 0).all()
    assert (own[7, :, :25, :18] == 1).all() and (own[7, :, 25:] == 0).all() and (own[7, :, :, 18:] == 0).all()
    assert (found.pixels[-1] == -1).all()


def test_patches_are_taken_row_by_row() -> None:
    picture = torch.arange(64.0)[None, :, None] * 64 + torch.arange(64.0)
    cuts, places = cut_patches(picture.expand(3, -1, -1))
    assert cuts[:, 0, 0, 0].tolist() == [0, 32, 32 * 64, 32 * 64 + 32]
    assert places.tolist() == [0, 5, 50, 55]


def test_places_are_hashed_to_ten_by_ten() -> None:
    assert hashed_places(1, 10).tolist() == list(range(10))
    assert hashed_places(20, 1).tolist() == [10 * (k // 2) for k in range(20)]
    assert hashed_places(2, 3).tolist() == [0, 3, 6, 50, 53, 56]


@pytest.mark.parametrize("given", [[], [np.zeros((8, 8), np.uint8)], [np.zeros((8, 8, 3), np.float32)]])
def test_other_pictures_are_refused(given: list[np.ndarray]) -> None:
    with pytest.raises(InputError, match="uint8"):
        prepare(given)


def test_files_in_each_form_are_read_and_others_refused(tmp_path: Path) -> None:
    state, path = drawn_state("musiq"), tmp_path / "w.pth"
    for form in (state, {"params": state}, {f"module.{name}": value for name, value in state.items()}):
        torch.save(form, path)
        read = read_musiq(path)
        assert not read.training and torch.equal(read.head.weight, state["head.weight"])
    for wrong, message in (
        ({name: value for name, value in state.items() if name != "head.bias"}, r"no head\.bias"),
        (state | {"more": torch.zeros(1)}, "has no more"),
        ({"params": [1, 2]}, "no state dict"),
        (torch.nn.Linear(2, 2), "tensors alone"),
    ):
        torch.save(wrong, path)
        with pytest.raises(WeightsError, match=message):
            read_musiq(path)


def test_the_store_is_asked(tmp_path: Path) -> None:
    store = AssetStore.open(tmp_path, CONFIGS / "weights.yaml")
    with pytest.raises(WeightsMissing, match=r"talkforge weights pull musiq-koniq"):
        load_musiq(store)
    path = store.where(WEIGHTS)
    path.parent.mkdir(parents=True)
    torch.save(drawn_state("musiq"), path)
    with pytest.raises(WeightsCorrupt, match="e95806b9"):
        load_musiq(store)
