"""LPIPS against torchmetrics and the official formula on the same weights; the official weightings."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.asset_store import AssetStore
from talkforge.core.errors import InputError, WeightsError, WeightsMissing
from talkforge.core.weights import CONFIGS
from talkforge.models.loading import load_strict
from talkforge.models.lpips import LPIPS, WIDTHS, AlexNet, Weightings, load_lpips, read_lpips
from talkforge.tests.models.reference import random_array, random_state, run_beside_torchvision

# torchmetrics builds its network with torchvision's AlexNet, whose layout the backbone's file has.
TORCHMETRICS = """
from torchmetrics.functional.image.lpips import _LPIPS
import torchmetrics.functional.image.lpips as module
folder = Path(sys.argv[1])
network = _LPIPS(pretrained=False, net="alex", pnet_rand=True).eval()
state = torch.load(folder / "alexnet.pth", weights_only=True)
layers = {name.split(".", 2)[1]: None for name in state if name.startswith("features")}
for slice_ in (network.net.slice1, network.net.slice2, network.net.slice3, network.net.slice4, network.net.slice5):
    for place, layer in slice_.named_children():
        if place in layers:
            layer.load_state_dict({kind: state[f"features.{place}.{kind}"] for kind in ("weight", "bias")})
            layers[place] = True
assert all(layers.values()), layers
heads = torch.load(folder / "heads.pth", weights_only=True)
missing = network.load_state_dict(heads, strict=False)
assert not missing.unexpected_keys, missing
x, y = (torch.from_numpy(np.load(folder / "xy.npz")[name]) for name in "xy")
with torch.inference_mode():
    names = list(module._get_tv_model_features("alexnet").state_dict())
    np.savez(folder / "out.npz", distances=network(x, y).flatten().numpy(), names=names)
"""


@pytest.fixture(scope="module")
def network() -> LPIPS:
    backbone = load_strict(AlexNet(), random_state(AlexNet(), 1), source="random")
    weights = {name: tensor.abs() for name, tensor in random_state(Weightings(), 2).items()}
    return LPIPS(backbone, load_strict(Weightings(), weights, source="random")).eval()


def pictures(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(2 * random_array(seed, *shape) - 1)


def test_distances_equal_torchmetrics(tmp_path: Path) -> None:
    """But for what keeps lengths off 0, which it adds elsewhere."""
    if find_spec("torchmetrics") is None or find_spec("torchvision") is None:
        pytest.skip("torchmetrics and its torchvision are not installed")
    backbone = random_state(AlexNet(), 1)
    heads = {name: tensor.abs() for name, tensor in random_state(Weightings(), 2).items()}
    torch.save(backbone, tmp_path / "alexnet.pth")
    torch.save(heads, tmp_path / "heads.pth")
    x = pictures(3, 3, 3, 80, 96)
    y = x + torch.tensor([0.02, 0.1, 0.5]).view(3, 1, 1, 1) * (pictures(4, 3, 3, 80, 96) - x)
    np.savez(tmp_path / "xy.npz", x=x.numpy(), y=y.numpy())
    run_beside_torchvision(TORCHMETRICS, tmp_path)
    with np.load(tmp_path / "out.npz") as answers:
        wanted, names = answers["distances"], answers["names"].tolist()
    with torch.inference_mode():
        found = read_lpips(tmp_path / "alexnet.pth", tmp_path / "heads.pth")(x, y).numpy()
    assert wanted[2] > 5 * wanted[0] > 0
    np.testing.assert_allclose(found, wanted, rtol=2e-5)
    assert [name for name in backbone if name.startswith("features")] == [f"features.{name}" for name in names]


def test_distances_are_the_papers_formula(network: LPIPS) -> None:
    """In NumPy, from the layers' outputs."""
    x, y = pictures(5, 1, 3, 64, 64), pictures(6, 1, 3, 64, 64)
    outputs: list[list[np.ndarray]] = []
    for one in (x, y):
        signal = (one - network.shift) / network.scale
        layers = []
        with torch.inference_mode():
            for layer in network.layers:
                signal = layer(signal)
                if isinstance(layer, torch.nn.ReLU):
                    layers.append(signal[0].numpy().astype(np.float64))
        outputs.append(layers)
    wanted = 0.0
    for a, b, weigh in zip(*outputs, network.weightings, strict=True):
        a, b = (values / np.sqrt((values**2).sum(axis=0)) for values in (a, b))
        weights = next(weigh.parameters()).flatten().numpy()
        wanted += float(np.mean(np.tensordot(weights, (a - b) ** 2, axes=1)))
    with torch.inference_mode():
        assert float(network(x, y)) == pytest.approx(wanted, rel=1e-5)


def test_bytes_go_from_minus_1_to_1(network: LPIPS) -> None:
    x, y = ((random_array(seed, 2, 40, 50, 3) * 256).astype(np.uint8) for seed in (7, 8))
    with torch.inference_mode():
        wanted = network(*(torch.from_numpy(one / 127.5 - 1).float().permute(0, 3, 1, 2) for one in (x, y)))
    found = network.distances(x, y)
    assert found.shape == (2,) and found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5)


def test_equal_pictures_are_at_no_distance_and_sides_do_not_matter(network: LPIPS) -> None:
    x, y = pictures(9, 2, 3, 48, 48), pictures(10, 2, 3, 48, 48)
    black = torch.full((1, 3, 48, 48), -1.0)
    with torch.inference_mode():
        assert network(x, x).tolist() == [0.0, 0.0]
        assert torch.allclose(network(x, y), network(y, x))
        assert torch.isfinite(network(black, black + 1)).all()
        near, far = network(x, x + 0.02 * y), network(x, x + 0.2 * y)
    assert (near > 0).all() and (near < far).all()


@pytest.mark.parametrize("shapes", [((1, 3, 30, 40),) * 2, ((1, 3, 40, 40), (2, 3, 40, 40)), ((1, 1, 40, 40),) * 2])
def test_what_is_no_pair_of_pictures_is_refused(network: LPIPS, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InputError, match="LPIPS takes two"):
        network(*(torch.zeros(shape) for shape in shapes))


class TestFiles:
    """Both official files, strictly."""

    def test_layouts_are_the_official_ones(self) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in AlexNet().state_dict().items()}
        assert len(shapes) == 16 and shapes["classifier.6.weight"] == (1000, 4096)
        assert shapes["features.10.weight"] == (256, 256, 3, 3)
        assert sum(parameter.numel() for parameter in AlexNet().parameters()) == 61_100_840
        heads = {name: tuple(tensor.shape) for name, tensor in Weightings().state_dict().items()}
        assert heads == {f"lin{k}.model.1.weight": (1, width, 1, 1) for k, width in enumerate(WIDTHS)}

    def test_the_official_weightings_load_and_are_not_negative(self, tmp_path: Path) -> None:
        """torchmetrics carries the file of the official package."""
        spec = find_spec("torchmetrics")
        if spec is None or spec.origin is None:
            pytest.skip("torchmetrics is not installed")
        heads = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / "alex.pth"
        torch.save(random_state(AlexNet(), 1), tmp_path / "alexnet.pth")
        network = read_lpips(tmp_path / "alexnet.pth", heads)
        assert all((parameter >= 0).all() for parameter in network.weightings.parameters())
        assert not network.training
        store = AssetStore.open(tmp_path, CONFIGS / "weights.yaml")
        assert hashlib.sha256(heads.read_bytes()).hexdigest() == store.sha256("lpips-alex")

    def test_another_network_is_refused(self, tmp_path: Path) -> None:
        torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "alexnet.pth")
        with pytest.raises(WeightsError, match="alexnet-imagenet: no classifier"):
            read_lpips(tmp_path / "alexnet.pth", tmp_path / "none.pth")

    def test_without_the_files_the_way_to_them_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsMissing, match="alexnet-imagenet"):
            load_lpips(AssetStore.open(tmp_path, CONFIGS / "weights.yaml"))
