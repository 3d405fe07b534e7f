"""MobileNetV2 against torchvision on the same weights, and on photographs whose content is known."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError, WeightsError, WeightsMissing
from talkforge.core.weights import weights_store
from talkforge.models.loading import fold_norms, load_strict
from talkforge.models.mobilenet_v2 import (
    MEAN,
    STD,
    WEIGHTS,
    MobileNetV2,
    load_mobilenet_v2,
    prepare_frames,
    read_mobilenet_v2,
)
from talkforge.tests.models.reference import run_beside_torchvision
from torch.nn import functional as F

OFFICIAL = """
from torchvision.models import mobilenet_v2

weights, pictures, answers = sys.argv[1:]
network = mobilenet_v2(weights=None).eval()
network.load_state_dict(torch.load(weights, weights_only=True), strict=True)
x = torch.from_numpy(np.load(pictures))
with torch.inference_mode():
    single = network(x).numpy()
    np.savez(answers, single=single, double=network.double()(x.double()).numpy())
"""


@pytest.fixture(scope="module")
def network() -> MobileNetV2:
    try:
        return load_mobilenet_v2()
    except WeightsMissing as error:
        pytest.skip(str(error))


def photograph(name: str) -> np.ndarray:
    """One of the photographs that scikit-image's wheel holds, (1, H, W, 3)."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    return getattr(data, name)()[None]


def best(network: MobileNetV2, name: str, n: int) -> list[int]:
    with torch.inference_mode():
        return network(prepare_frames(photograph(name)))[0].topk(n).indices.tolist()


def test_logits_equal_torchvisions(network: MobileNetV2, tmp_path: Path) -> None:
    """In float64 as read, where only the architecture counts; in float32 as loaded, with folded normalisations."""
    if find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    weights, x = weights_store().path(WEIGHTS), torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(5))
    np.save(tmp_path / "x.npy", x.numpy())
    run_beside_torchvision(OFFICIAL, weights, tmp_path / "x.npy", tmp_path / "y.npz")
    with torch.inference_mode(), np.load(tmp_path / "y.npz") as theirs:
        assert np.abs(read_mobilenet_v2(weights).double()(x.double()).numpy() - theirs["double"]).max() < 1e-9
        assert np.abs(read_mobilenet_v2(weights)(x).numpy() - theirs["single"]).max() < 1e-5
        assert np.abs(network(x).numpy() - theirs["single"]).max() < 3e-5


def test_logits_do_not_depend_on_the_batch(network: MobileNetV2) -> None:
    x = torch.randn(6, 3, 224, 224, generator=torch.Generator().manual_seed(6))
    with torch.inference_mode():
        whole, one_by_one = network(x), torch.cat([network(picture[None]) for picture in x])
    assert (whole - one_by_one).abs().max() < 3e-5


def test_a_cat_is_a_cat(network: MobileNetV2) -> None:
    assert best(network, "chelsea", 1)[0] in {281, 282, 285}  # tabby, tiger cat, Egyptian cat


def test_a_cup_of_coffee_is_an_espresso(network: MobileNetV2) -> None:
    assert best(network, "coffee", 1) == [967]


def test_a_rocket_on_its_pad_is_among_the_first_five(network: MobileNetV2) -> None:
    assert {657, 744, 812} & set(best(network, "rocket", 5))  # missile, projectile, space shuttle


def test_features_feed_the_classifier(network: MobileNetV2) -> None:
    x = prepare_frames(photograph("coffee"))
    with torch.inference_mode():
        features = network.features_1280(x)
        again = F.linear(features, network.classifier[1].weight, network.classifier[1].bias)
        assert features.shape == (1, 1280)
        assert torch.equal(again, network(x))


def test_prepare_keeps_the_middle_and_normalises() -> None:
    picture = np.zeros((1, 224, 448, 3), np.uint8)
    picture[:, :, 112:336] = (255, 0, 51)
    prepared = prepare_frames(picture)
    wanted = (torch.tensor([1.0, 0.0, 0.2]) - torch.tensor(MEAN)) / torch.tensor(STD)
    assert prepared.shape == (1, 3, 224, 224)
    assert torch.allclose(prepared, wanted.view(1, 3, 1, 1).expand_as(prepared), atol=1e-6)


@pytest.mark.parametrize("size", [(480, 360), (225, 1000), (64, 64), (33, 17)])
def test_prepare_gives_the_network_its_size(size: tuple[int, int]) -> None:
    assert prepare_frames(np.zeros((2, *size, 3), np.uint8)).shape == (2, 3, 224, 224)


@pytest.mark.parametrize(
    "pictures", [np.zeros((1, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), "u1")]
)
def test_prepare_refuses_what_is_no_batch_of_pictures(pictures: np.ndarray) -> None:
    with pytest.raises(InputError, match="uint8"):
        prepare_frames(pictures)


def test_integer_input_is_refused() -> None:
    with pytest.raises(InputError, match="floats"):
        MobileNetV2().eval()(torch.zeros(1, 3, 224, 224, dtype=torch.uint8))


class TestLoadStrict:
    """`load_strict`, on a network whose state is at hand without any file."""

    def state(self) -> dict[str, torch.Tensor]:
        return {name: torch.ones_like(tensor) for name, tensor in MobileNetV2().state_dict().items()}

    def test_fills_every_tensor(self) -> None:
        network = load_strict(MobileNetV2(), self.state(), source="w")
        assert all(bool((tensor == 1).all()) for tensor in network.state_dict().values())
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())

    def test_what_is_no_state_dict_is_refused(self, tmp_path: Path) -> None:
        torch.save({"epoch": 3}, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match="no state dict"):
            read_mobilenet_v2(tmp_path / "w.pth")

    def test_a_missing_tensor_is_named(self) -> None:
        state = self.state()
        del state["features.3.conv.2.weight"]
        with pytest.raises(WeightsError, match=r"w: no features\.3\.conv\.2\.weight"):
            load_strict(MobileNetV2(), state, source="w")

    def test_an_unused_tensor_is_named(self) -> None:
        with pytest.raises(WeightsError, match="has no head"):
            load_strict(MobileNetV2(), self.state() | {"head": torch.ones(1)}, source="w")

    def test_a_wrong_shape_is_named_and_nothing_changes(self) -> None:
        network = MobileNetV2()
        before = network.classifier[1].weight.clone()
        with pytest.raises(WeightsError, match=r"classifier\.1\.bias is \(7,\), not \(1000,\)"):
            load_strict(network, self.state() | {"classifier.1.bias": torch.ones(7)}, source="w")
        assert torch.equal(network.classifier[1].weight, before)


def test_folding_leaves_no_normalisation_and_no_difference() -> None:
    generator = torch.Generator().manual_seed(1)
    network = MobileNetV2().double()
    network.load_state_dict(
        {
            name: torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5
            if name.endswith("running_var")
            else torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.1
            for name, tensor in network.state_dict().items()
        }
    )
    x = torch.randn(1, 3, 224, 224, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        wanted = network.eval()(x)
        folded = fold_norms(network)
        assert (folded(x) - wanted).abs().max() < 1e-12 * wanted.abs().max()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
