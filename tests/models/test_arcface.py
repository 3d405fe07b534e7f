"""ArcFace's IResNet-50: the published layout, the same function written out, and the preparation."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.asset_store import AssetStore
from talkforge.core.errors import InputError, WeightsError, WeightsMissing
from talkforge.core.weights import CONFIGS
from talkforge.models.arcface import (
    ArcFace,
    _exported,
    load_arcface,
    load_arcface_ms1mv3,
    prepare,
    read_arcface,
    read_arcface_onnx,
)
from talkforge.tests.models.onnx_file import model, node, tensor
from talkforge.tests.models.reference import random_array, random_state
from torch.nn import functional as F

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
LAYERS = ((1, 3), (2, 4), (3, 14), (4, 3))


@pytest.fixture(scope="module")
def network() -> ArcFace:
    network = ArcFace().double().eval()
    network.load_state_dict(random_state(network, 1))
    return network


def test_names_and_shapes_are_the_published_ones() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in ArcFace().state_dict().items()}
    wanted = {"conv1.weight", "prelu.weight", "fc.weight", "fc.bias"}
    wanted |= {f"{name}.{part}" for name in ("bn1", "bn2", "features") for part in NORM}
    for layer, blocks in LAYERS:
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            wanted |= {f"{at}.{name}.weight" for name in ("conv1", "prelu", "conv2")}
            wanted |= {f"{at}.bn{k}.{part}" for k in (1, 2, 3) for part in NORM}
        wanted |= {f"layer{layer}.0.downsample.0.weight"}
        wanted |= {f"layer{layer}.0.downsample.1.{part}" for part in NORM}
    assert set(shapes) == wanted
    assert shapes["layer1.0.downsample.0.weight"] == (64, 64, 1, 1)
    assert shapes["layer4.0.conv1.weight"] == (512, 256, 3, 3)
    assert shapes["layer4.0.bn1.weight"] == (256,)
    assert shapes["fc.weight"] == (512, 25088)
    assert sum(tensor.numel() for tensor in ArcFace().parameters()) == 43_590_848


def test_it_computes_what_the_layout_says(network: ArcFace) -> None:
    state = network.state_dict()

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        mean, var, scale, shift = (
            state[f"{name}.{part}"].view(shape) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def prelu(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.where(x > 0, x, x * state[f"{name}.weight"].view(1, -1, 1, 1))

    x = torch.from_numpy(random_array(2, 1, 3, 112, 112)).double() * 2 - 1
    y = prelu(norm(F.conv2d(x, state["conv1.weight"], padding=1), "bn1"), "prelu")
    for layer, blocks in LAYERS:
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if block == 0 else 1
            inner = F.conv2d(norm(y, f"{at}.bn1"), state[f"{at}.conv1.weight"], padding=1)
            inner = prelu(norm(inner, f"{at}.bn2"), f"{at}.prelu")
            inner = norm(F.conv2d(inner, state[f"{at}.conv2.weight"], stride=stride, padding=1), f"{at}.bn3")
            if block == 0:
                projected = F.conv2d(y, state[f"{at}.downsample.0.weight"], stride=2)
                y = norm(projected, f"{at}.downsample.1")
            y = inner + y
    flat = norm(y, "bn2").flatten(1)
    wanted = norm(flat @ state["fc.weight"].T + state["fc.bias"], "features")
    with torch.inference_mode():
        found = network(x)
    assert found.shape == (1, 512)
    assert wanted.std() > 0.01
    assert (found - wanted).abs().max() < 1e-9 * wanted.abs().max()


def test_pictures_lie_about_zero() -> None:
    picture = np.zeros((1, 112, 112, 3), np.uint8)
    picture[..., 2] = 255
    assert prepare(picture)[0, :, 3, 4].tolist() == [-1.0, -1.0, 1.0]


@pytest.mark.parametrize("pictures", [np.zeros((1, 112, 112, 3)), np.zeros((1, 160, 160, 3), np.uint8)])
def test_other_pictures_are_refused(pictures: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        prepare(pictures)


def test_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="floats"):
        ArcFace().eval()(torch.zeros(1, 3, 160, 160))


def test_half_precision_files_become_single(tmp_path: Path) -> None:
    state = ArcFace().half().state_dict()
    torch.save(state, tmp_path / "w.pth")
    network = read_arcface(tmp_path / "w.pth")
    assert network.fc.weight.dtype == torch.float32
    assert torch.equal(network.fc.weight, state["fc.weight"].float())


def test_a_file_is_read_strictly(tmp_path: Path) -> None:
    state = ArcFace().state_dict()
    del state["layer3.13.prelu.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"no layer3\.13\.prelu\.weight"):
        read_arcface(tmp_path / "w.pth")


@pytest.mark.parametrize(("load", "page"), [(load_arcface, "arcface-r50"), (load_arcface_ms1mv3, "arcface_torch")])
def test_without_the_file_there_is_a_way_to_it(load, page: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing) as missing:
        load(AssetStore.open(tmp_path, CONFIGS / "weights.yaml"))
    assert page in str(missing.value)


class TestOnnx:
    """The other published file is an export of this network, its normalisations folded."""

    def test_what_pytorch_exports_comes_back(self, tmp_path: Path) -> None:
        """The export has the published file's operators, its output's name (683) and, up to names, its size."""
        pytest.importorskip("onnx", reason="PyTorch's export needs onnx, which is not installed")
        network, path = ArcFace().eval(), tmp_path / "w.onnx"
        network.load_state_dict(random_state(network, 1))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(network, (torch.zeros(1, 3, 112, 112),), path, dynamo=False, opset_version=11)
        assert path.stat().st_size == pytest.approx(174_383_860, rel=2e-4)
        again = read_arcface_onnx(path)
        x = torch.from_numpy(random_array(2, 1, 3, 112, 112)) * 2 - 1
        with torch.inference_mode():
            wanted = network(x)
            assert (again(x) - wanted).abs().max() < 1e-5 * wanted.abs().max()
        assert torch.equal(again.fc.weight, network.fc.weight)
        assert torch.equal(again.get_parameter("layer3.13.bn1.bias"), network.get_parameter("layer3.13.bn1.bias"))

    def test_another_network_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "w.onnx"
        path.write_bytes(model(node("Conv", "x", "w", "b"), tensor("w", (4, 3, 3, 3)), tensor("b", (4,))))
        with pytest.raises(WeightsError, match="another network"):
            read_arcface_onnx(path)

    def test_missing_tensors_are_told(self, tmp_path: Path) -> None:
        operators = [operator for operator, _ in _exported()]
        assert (len(operators), operators.count("Conv")) == (130, 53)
        (tmp_path / "w.onnx").write_bytes(model(*(node(operator, "x") for operator in operators)))
        with pytest.raises(WeightsError, match="lacks tensors"):
            read_arcface_onnx(tmp_path / "w.onnx")
