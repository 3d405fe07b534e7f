"""Deep3DFaceRecon's network: the published layout, the same function written out, and the order of the outputs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.asset_store import AssetStore
from talkforge.core.errors import InputError, WeightsError, WeightsMissing
from talkforge.core.weights import CONFIGS
from talkforge.models.deep3d import Deep3D, load_deep3d, prepare, read_deep3d, split_coefficients
from torch.nn import functional as F


@pytest.fixture(scope="module")
def network() -> Deep3D:
    """Random weights, every normalisation off its neutral state."""
    generator = torch.Generator().manual_seed(0)
    network = Deep3D().double().eval()
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
        elif tensor.is_floating_point():
            spread = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim == 4 else 0.3
            tensor.copy_(spread * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return network


def test_names_and_shapes_are_the_published_ones() -> None:
    """ResNet-50's 318 tensors without the classifier, in torchvision's names, and seven heads."""
    shapes = {name: tuple(tensor.shape) for name, tensor in Deep3D().state_dict().items()}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    wanted = {"backbone.conv1.weight"} | {f"backbone.bn1.{part}" for part in norm}
    for layer, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block in range(blocks):
            at = f"backbone.layer{layer}.{block}"
            wanted |= {f"{at}.conv{k}.weight" for k in (1, 2, 3)}
            wanted |= {f"{at}.bn{k}.{part}" for k in (1, 2, 3) for part in norm}
        wanted |= {f"backbone.layer{layer}.0.downsample.0.weight"}
        wanted |= {f"backbone.layer{layer}.0.downsample.1.{part}" for part in norm}
    wanted |= {f"final_layers.{k}.{part}" for k in range(7) for part in ("weight", "bias")}
    assert set(shapes) == wanted
    assert len(wanted) == 318 + 14
    assert shapes["backbone.conv1.weight"] == (64, 3, 7, 7)
    assert shapes["backbone.layer2.0.conv2.weight"] == (128, 128, 3, 3)
    assert shapes["backbone.layer3.0.downsample.0.weight"] == (1024, 512, 1, 1)
    assert shapes["backbone.layer4.2.conv3.weight"] == (2048, 512, 1, 1)
    assert [shapes[f"final_layers.{k}.weight"][0] for k in range(7)] == [80, 64, 80, 3, 27, 2, 1]
    assert sum(tensor.numel() for tensor in Deep3D().parameters()) == 23_508_032 + 257 * 2049


def test_it_computes_what_the_layout_says(network: Deep3D) -> None:
    state = network.state_dict()

    def step(x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"backbone.{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        mean, var, scale, shift = (
            state[f"backbone.{norm}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = F.max_pool2d(step(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for layer, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inner = step(y, f"{at}.conv1", f"{at}.bn1").relu()
            inner = step(inner, f"{at}.conv2", f"{at}.bn2", stride).relu()
            inner = step(inner, f"{at}.conv3", f"{at}.bn3")
            y = (inner + (step(y, f"{at}.downsample.0", f"{at}.downsample.1", stride) if block == 0 else y)).relu()
    features = y.mean(dim=(2, 3))
    heads = [
        features @ state[f"final_layers.{k}.weight"][:, :, 0, 0].T + state[f"final_layers.{k}.bias"] for k in range(7)
    ]
    wanted = torch.cat(heads, dim=1)
    with torch.inference_mode():
        found = network(x)
    assert found.shape == (1, 257)
    assert (found - wanted).abs().max() < 1e-9 * wanted.abs().max()


def test_outputs_are_split_in_the_published_order() -> None:
    parts = split_coefficients(np.arange(2 * 257).reshape(2, 257))
    assert {name: part.shape[1] for name, part in parts.items()} == {
        "identity": 80,
        "expression": 64,
        "texture": 80,
        "angle": 3,
        "gamma": 27,
        "translation": 3,
    }
    assert [int(part[0, 0]) for part in parts.values()] == [0, 80, 144, 224, 227, 254]
    assert (np.concatenate(list(parts.values()), axis=1) == np.arange(514).reshape(2, 257)).all()
    with pytest.raises(InputError, match="257"):
        split_coefficients(np.zeros(256))


def test_pictures_stay_rgb_from_0_to_1() -> None:
    picture = np.zeros((1, 224, 224, 3), np.uint8)
    picture[..., 0] = 255
    assert prepare(picture)[0].amax(dim=(1, 2)).tolist() == [1.0, 0.0, 0.0]
    with pytest.raises(InputError, match="uint8"):
        prepare(picture[:, :100])


def test_a_training_checkpoint_loads_strictly(network: Deep3D, tmp_path: Path) -> None:
    state = {
        name: value.float() if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    torch.save({"net_recon": state, "opt_00": {"state": {}}}, tmp_path / "epoch.pth")
    loaded = read_deep3d(tmp_path / "epoch.pth")
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    del state["final_layers.6.bias"]
    torch.save({"net_recon": state}, tmp_path / "epoch.pth")
    with pytest.raises(WeightsError, match=r"final_layers\.6\.bias"):
        read_deep3d(tmp_path / "epoch.pth")
    torch.save(network, tmp_path / "whole.pth")
    with pytest.raises(WeightsError, match="tensors alone"):
        read_deep3d(tmp_path / "whole.pth")


def test_without_its_file_the_reason_is_weights_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing) as caught:
        load_deep3d(AssetStore.open(tmp_path, CONFIGS / "weights.yaml"))
    assert caught.value.reason == "weights_missing"
    assert "talkforge weights pull deep3d-epoch20" in str(caught.value)
