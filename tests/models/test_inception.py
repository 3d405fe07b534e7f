"""The FID's Inception against pytorch-fid and clean-fid on the same weights and pictures."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.asset_store import AssetStore
from talkforge.core.errors import InputError, WeightsError, WeightsMissing
from talkforge.core.weights import CONFIGS
from talkforge.models import inception
from talkforge.models.inception import (
    CLASSES,
    FIDInception,
    load_fid_inception,
    read_fid_inception,
    resize_clean_fid,
    resize_pytorch_fid,
)
from talkforge.models.loading import fold_norms, load_strict
from talkforge.tests.models.reference import random_array, random_state, run_beside_torchvision
from torch.nn import functional as F

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "inception.json").read_text())

# pytorch-fid fetches its weights while it builds the network; here it is given others.
PYTORCH_FID = """
import pytorch_fid.inception as reference
weights, pictures, answers = sys.argv[1:]
reference.load_state_dict_from_url = lambda *_, **__: torch.load(weights, weights_only=True)
whole = reference.fid_inception_v3().eval()
reference.fid_inception_v3 = lambda: whole
network = reference.InceptionV3([reference.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
x = torch.from_numpy(np.load(pictures))
with torch.inference_mode():
    features = network(x)[0][:, :, 0, 0]
    np.savez(answers, features=features.numpy(), logits=whole.fc(features).numpy(), names=list(whole.state_dict()))
"""


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return random_state(FIDInception(), 1)


@pytest.fixture(scope="module")
def network(state: dict[str, torch.Tensor]) -> FIDInception:
    return load_strict(FIDInception(), state, source="random")


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Two pictures of coloured squares, higher than 299 and less wide."""
    return torch.from_numpy(random_array(2, 2, 3, 33, 25).repeat(10, axis=2).repeat(10, axis=3))


@pytest.fixture(scope="module")
def features(network: FIDInception, pictures: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(pictures)


@pytest.fixture(scope="module")
def theirs(
    state: dict[str, torch.Tensor], pictures: torch.Tensor, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, np.ndarray]:
    """pytorch-fid's answers."""
    if find_spec("pytorch_fid") is None or find_spec("torchvision") is None:
        pytest.skip("pytorch-fid and its torchvision are not installed")
    folder = tmp_path_factory.mktemp("inception")
    torch.save(state, folder / "w.pth")
    np.save(folder / "x.npy", pictures.numpy())
    run_beside_torchvision(PYTORCH_FID, folder / "w.pth", folder / "x.npy", folder / "y.npz")
    with np.load(folder / "y.npz") as answers:
        return dict(answers)


def test_features_equal_pytorch_fids(features: torch.Tensor, theirs: Mapping[str, np.ndarray]) -> None:
    assert features.shape == (2, 2048)
    assert theirs["features"].std() > 0.5
    assert np.abs(features.numpy() - theirs["features"]).max() < 2e-5


def test_logits_equal_those_of_pytorch_fids_classifier(
    network: FIDInception, pictures: torch.Tensor, theirs: Mapping[str, np.ndarray]
) -> None:
    with torch.inference_mode():
        logits = network.logits(pictures)
    assert logits.shape == (2, CLASSES)
    assert np.abs(logits.numpy() - theirs["logits"]).max() < 2e-5


def test_names_are_those_of_the_port(theirs: Mapping[str, np.ndarray]) -> None:
    """Order apart, which a state dict does not depend on."""
    assert set(FIDInception().state_dict()) == set(theirs["names"].tolist())


def test_features_equal_the_golden_values(features: torch.Tensor) -> None:
    for picture, channel, value in GOLDEN["features"]["values"]:
        assert abs(float(features[picture, channel]) - value) < GOLDEN["features"]["tolerance"]


def test_layout_has_the_ports_size() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in FIDInception().state_dict().items()}
    assert len(shapes) == 94 * 6 + 2
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_5b.branch_pool.conv.weight"] == (32, 192, 1, 1)
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7c.branch3x3dbl_3a.bn.running_var"] == (384,)
    assert shapes["fc.weight"] == (1008, 2048)
    assert sum(parameter.numel() for parameter in FIDInception().parameters()) == 23_850_960


def test_bytes_are_levels_over_255_and_batches_do_not_matter(
    network: FIDInception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inception, "AT_ONCE_CPU", 2)
    levels = torch.from_numpy((random_array(3, 3, 3, 100, 80) * 256).astype(np.uint8))
    folded = fold_norms(load_strict(FIDInception(), network.state_dict(), source="again"))
    with torch.inference_mode():
        wanted = torch.cat([network(picture[None] / 255) for picture in levels])
        assert torch.allclose(folded(levels), wanted, atol=2e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())


def test_no_picture_gives_no_feature(network: FIDInception) -> None:
    assert network(torch.zeros(0, 3, 64, 64)).shape == (0, 2048)


def test_resize_like_pytorch_fid() -> None:
    """Every second pixel's edge lies between two: the mean of both, after 2 x - 1; no smoothing on the way down."""
    x = torch.from_numpy(random_array(4, 1, 3, 598, 598))
    means = x.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    assert torch.allclose(resize_pytorch_fid(x), 2 * means - 1, atol=1e-6)
    assert torch.equal(resize_pytorch_fid(x[:, :, :299, :299]), 2 * x[:, :, :299, :299] - 1)


@pytest.mark.parametrize("size", [(512, 384), (200, 310), (299, 299)])
def test_clean_resize_equals_clean_fids_bit_for_bit(size: tuple[int, int]) -> None:
    pytest.importorskip("cleanfid", reason="clean-fid is not installed")
    from cleanfid.resize import make_resizer

    levels = (random_array(5, *size, 3) * 256).astype(np.uint8)
    wanted = make_resizer("PIL", False, "bicubic", (299, 299))(levels)
    found = resize_clean_fid(torch.from_numpy(levels).permute(2, 0, 1)[None])
    assert torch.equal(found[0].permute(1, 2, 0), (torch.from_numpy(wanted) - 128) / 128)


def test_clean_resize_removes_what_the_new_size_cannot_show() -> None:
    """A chessboard of single pixels at thrice the size: grey for antialiased bicubic, black and white for the other."""
    board = (np.indices((897, 897)).sum(axis=0) % 2 * 255).astype(np.uint8)
    x = torch.from_numpy(np.broadcast_to(board, (1, 3, 897, 897)).copy())
    assert resize_clean_fid(x)[..., 9:-9, 9:-9].abs().max() < 0.05
    assert resize_pytorch_fid(x).abs().min() > 0.99


def test_clean_resize_clips_overshoot_and_keeps_fractions() -> None:
    step = torch.zeros(1, 3, 100, 100)
    step[..., 50:] = 1
    resized = resize_clean_fid(step)
    assert resized.min() == -1.0
    assert resized.max() == torch.tensor(127 / 128)
    assert resized.unique().numel() > 4


def test_clean_scaling_is_about_128() -> None:
    """At 299 x 299 there is nothing to resize, and the two variants still differ."""
    levels = torch.from_numpy((random_array(6, 1, 3, 299, 299) * 256).astype(np.uint8))
    assert torch.equal(resize_clean_fid(levels), (levels.float() - 128) / 128)
    assert torch.allclose(resize_pytorch_fid(levels), levels.float() / 127.5 - 1, atol=1e-6)


def test_the_network_resizes_as_it_was_told(state: dict[str, torch.Tensor], pictures: torch.Tensor) -> None:
    clean = load_strict(FIDInception("clean-fid"), state, source="random")
    with torch.inference_mode():
        found = clean(pictures[:1])
        wanted = clean._features(resize_clean_fid(pictures[:1]))
        other = clean._features(resize_pytorch_fid(pictures[:1]))
    assert torch.equal(found, wanted)
    assert (found - other).abs().max() > 0.01


def test_unknown_resize_is_refused() -> None:
    with pytest.raises(InputError, match=r"nearest.*pytorch-fid, clean-fid"):
        FIDInception("nearest")  # type: ignore[arg-type]


@pytest.mark.parametrize("x", [torch.zeros(3, 9, 9), torch.zeros(1, 1, 9, 9), torch.zeros(1, 3, 9, 9).long()])
def test_what_is_no_batch_of_pictures_is_refused(network: FIDInception, x: torch.Tensor) -> None:
    with pytest.raises(InputError, match="Inception takes"):
        network(x)


class TestReading:
    """The file of the port, strictly."""

    def test_a_file_in_the_old_format_without_counts_is_read(
        self, state: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
        torch.save(old, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
        network = read_fid_inception(tmp_path / "w.pth", resize="clean-fid")
        assert network.resize == "clean-fid"
        assert not network.training
        assert all(torch.equal(tensor, old[name]) for name, tensor in network.state_dict().items() if name in old)

    def test_another_network_is_refused(self, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
        """torchvision's Inception v3 has 1000 classes."""
        torch.save(state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=r"fc\.weight is \(1000, 2048\), not \(1008, 2048\)"):
            read_fid_inception(tmp_path / "w.pth")

    def test_a_pickled_network_is_refused(self, tmp_path: Path) -> None:
        torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="cannot be read as tensors alone"):
            read_fid_inception(tmp_path / "w.pth")

    def test_what_is_no_state_dict_is_refused(self, tmp_path: Path) -> None:
        torch.save({"epoch": 3}, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="no state dict"):
            read_fid_inception(tmp_path / "w.pth")

    def test_without_the_file_the_way_to_it_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsMissing, match="inception-2015-12-05"):
            load_fid_inception(AssetStore.open(tmp_path, CONFIGS / "weights.yaml"))


def test_the_padding_is_left_out_of_average_pools(network: FIDInception) -> None:
    """A constant picture stays constant under every pool, so the corner of a block's pooled branch is its middle."""
    x = torch.ones(1, 192, 35, 35)
    with torch.inference_mode():
        pooled = network.Mixed_5b(x)[:, -32:]
        maximum = network.Mixed_7c.branch_pool(F.max_pool2d(torch.ones(1, 2048, 8, 8), 3, 1, 1))
        last = network.Mixed_7c(torch.ones(1, 2048, 8, 8))[:, -192:]
    assert torch.allclose(pooled[..., 0, 0], pooled[..., 17, 17], atol=1e-6)
    assert torch.equal(last, maximum)
