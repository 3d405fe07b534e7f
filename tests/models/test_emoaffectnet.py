"""EmoAffectNet's network: the published layout, the same function written out, and the preparation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.asset_store import AssetStore
from talkforge.core.errors import InputError, WeightsError, WeightsMissing
from talkforge.core.weights import CONFIGS
from talkforge.datasets.labels import ORDERS, emotion_name
from talkforge.models.emoaffectnet import EmoAffectNet, load_emoaffectnet, prepare, read_emoaffectnet
from talkforge.tests.models.reference import random_array, random_state
from torch.nn import functional as F

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
LAYERS = ((1, 3), (2, 4), (3, 6), (4, 3))


@pytest.fixture(scope="module")
def network() -> EmoAffectNet:
    network = EmoAffectNet().double().eval()
    network.load_state_dict(random_state(network, 1))
    return network


def test_names_and_shapes_are_the_published_ones() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in EmoAffectNet().state_dict().items()}
    wanted = {"conv_layer_s2_same.weight", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    wanted |= {f"batch_norm1.{part}" for part in NORM}
    for layer, blocks in LAYERS:
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            wanted |= {f"{at}.conv{k}.weight" for k in (1, 2, 3)}
            wanted |= {f"{at}.batch_norm{k}.{part}" for k in (1, 2, 3) for part in NORM}
        wanted |= {f"layer{layer}.0.i_downsample.0.weight"}
        wanted |= {f"layer{layer}.0.i_downsample.1.{part}" for part in NORM}
    assert set(shapes) == wanted
    assert shapes["conv_layer_s2_same.weight"] == (64, 3, 7, 7)
    assert shapes["layer3.0.i_downsample.0.weight"] == (1024, 512, 1, 1)
    assert shapes["layer4.2.conv2.weight"] == (512, 512, 3, 3)
    assert (shapes["fc1.weight"], shapes["fc2.weight"]) == ((512, 2048), (7, 512))


def test_it_computes_what_the_layout_says(network: EmoAffectNet) -> None:
    """ResNet-50 as Keras' VGGFace has it: stem padded 2 before and 3 after, strides in the first 1x1."""
    state = network.state_dict()

    def step(x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"{conv}.weight"]
        pad = 0 if weight.shape[2] == 7 else weight.shape[2] // 2
        x = F.conv2d(x, weight, stride=stride, padding=pad)
        mean, var, scale, shift = (
            state[f"{norm}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-3).sqrt() * scale + shift

    x = torch.from_numpy(random_array(2, 1, 3, 224, 224)).double() * 4 - 2
    y = step(F.pad(x, (2, 3, 2, 3)), "conv_layer_s2_same", "batch_norm1", 2).relu()
    assert y.shape[2:] == (112, 112)
    y = F.max_pool2d(y, 3, 2)
    assert y.shape[2:] == (55, 55)
    for layer, blocks in LAYERS:
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inner = step(y, f"{at}.conv1", f"{at}.batch_norm1", stride).relu()
            inner = step(inner, f"{at}.conv2", f"{at}.batch_norm2").relu()
            inner = step(inner, f"{at}.conv3", f"{at}.batch_norm3")
            y = (inner + (step(y, f"{at}.i_downsample.0", f"{at}.i_downsample.1", stride) if block == 0 else y)).relu()
    features = y.mean(dim=(2, 3)) @ state["fc1.weight"].T + state["fc1.bias"]
    wanted = features.relu() @ state["fc2.weight"].T + state["fc2.bias"]
    with torch.inference_mode():
        found = network(x)
    assert found.shape == (1, 7)
    assert wanted.std() > 0.01
    assert (found - wanted).abs().max() < 1e-9 * wanted.abs().max()


def test_the_order_of_the_classes_is_the_published_one() -> None:
    published = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger")
    assert ORDERS["emoaffectnet"] == tuple(emotion_name(name) for name in published)


def test_pictures_become_bgr_minus_the_means() -> None:
    picture = np.zeros((1, 224, 224, 3), np.uint8)
    picture[..., 0] = 200
    wanted = [-91.4953, -103.8827, 200 - 131.0912]
    assert prepare(picture)[0, :, 5, 7].tolist() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("pictures", [np.zeros((1, 224, 224, 3)), np.zeros((1, 112, 112, 3), np.uint8)])
def test_other_pictures_are_refused(pictures: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        prepare(pictures)


def test_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="floats"):
        EmoAffectNet().eval()(torch.zeros(1, 3, 112, 112))


def test_a_file_is_read_strictly(tmp_path: Path) -> None:
    state = EmoAffectNet().state_dict()
    torch.save(state, tmp_path / "w.pt")
    assert not read_emoaffectnet(tmp_path / "w.pt").training
    state["fc.weight"] = state.pop("fc2.weight")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"no fc2\.weight"):
        read_emoaffectnet(tmp_path / "w.pt")


def test_without_the_file_there_is_a_way_to_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing) as missing:
        load_emoaffectnet(AssetStore.open(tmp_path, CONFIGS / "weights.yaml"))
    assert "EMO-AffectNetModel" in str(missing.value)
