"""HSEmotion's networks against timm's on the same weights, in both forms of file."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.asset_store import AssetStore
from talkforge.core.errors import InputError, WeightsError, WeightsMissing
from talkforge.core.weights import CONFIGS
from talkforge.datasets.labels import ORDERS, emotion_name
from talkforge.models.hsemotion import (
    SIZES,
    WEIGHTS,
    HSEmotion,
    load_hsemotion_b0,
    load_hsemotion_b2,
    prepare,
    read_hsemotion,
)
from talkforge.tests.models.reference import random_array, random_state, run_beside_torchvision

# A whole pickled module, as the authors publish: timm's network with a Sequential in place of the last layer.
TIMM = """
import timm

folder = Path(sys.argv[1])
for variant, classes in zip(("b0", "b2"), (8, 7)):
    network = timm.create_model(f"tf_efficientnet_{variant}_ns", pretrained=False, num_classes=classes).eval()
    network.load_state_dict(torch.load(folder / f"{variant}.pth", weights_only=True), strict=True)
    with torch.inference_mode():
        answer = network.double()(torch.from_numpy(np.load(folder / f"{variant}.npy")).double()).numpy()
    network.float().classifier = torch.nn.Sequential(network.classifier)
    torch.save(network, folder / f"{variant}.pt")
    np.save(folder / f"{variant}-answer.npy", answer)
"""
# What the authors' package calls its outputs.
PUBLISHED_8 = ("Anger", "Contempt", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights and pictures for B0 with 8 classes and B2 with 7, timm's answers and its pickled modules."""
    if find_spec("timm") is None or find_spec("torchvision") is None:
        pytest.skip("timm and its torchvision are not installed")
    folder = tmp_path_factory.mktemp("timm")
    for variant, classes in (("b0", 8), ("b2", 7)):
        torch.save(random_state(HSEmotion(variant, classes), 3), folder / f"{variant}.pth")
        np.save(folder / f"{variant}.npy", random_array(4, 1, 3, SIZES[variant], SIZES[variant]) * 4 - 2)
    run_beside_torchvision(TIMM, folder)
    return folder


@pytest.mark.parametrize(("variant", "classes"), [("b0", 8), ("b2", 7)])
def test_logits_equal_timms(variant: str, classes: int, timm_folder: Path) -> None:
    """The same names and shapes, and the same numbers."""
    network = read_hsemotion(timm_folder / f"{variant}.pth", variant).double()
    x, wanted = (np.load(timm_folder / f"{variant}{part}.npy") for part in ("", "-answer"))
    with torch.inference_mode():
        found = network(torch.from_numpy(x).double()).numpy()
    assert found.shape == wanted.shape == (1, classes)
    assert wanted.std() > 0.1
    assert np.abs(found - wanted).max() < 1e-9 * np.abs(wanted).max()


@pytest.mark.parametrize("variant", ["b0", "b2"])
def test_a_pickled_module_of_timms_is_the_same_network(variant: str, timm_folder: Path) -> None:
    plain, pickled = (read_hsemotion(timm_folder / f"{variant}.{kind}", variant) for kind in ("pth", "pt"))
    same = pickled.state_dict()
    assert all(torch.equal(same[name], tensor) for name, tensor in plain.state_dict().items())


def test_the_order_of_the_classes_is_the_published_one() -> None:
    assert ORDERS["hsemotion-8"] == tuple(emotion_name(name) for name in PUBLISHED_8)
    assert ORDERS["hsemotion-7"] == tuple(emotion_name(name) for name in PUBLISHED_8 if name != "Contempt")


def test_pictures_are_normalised_as_imagenets() -> None:
    picture = np.zeros((1, 224, 224, 3), np.uint8)
    picture[..., 0] = 255
    assert prepare(picture)[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])


@pytest.mark.parametrize("shape", [(1, 225, 225, 3), (1, 224, 260, 3), (224, 224, 3)])
def test_other_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="uint8"):
        prepare(np.zeros(shape, np.uint8))


def test_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="260, 260"):
        HSEmotion("b2").eval()(torch.zeros(1, 3, 224, 224))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(HSEmotion("b0", 10).state_dict(), path)
    with pytest.raises(WeightsError, match="10 outputs"):
        read_hsemotion(path, "b0")
    with pytest.raises(WeightsError, match="not 7 or 8"):
        read_hsemotion(path, "b2")
    torch.save(HSEmotion("b0").state_dict(), path)
    with pytest.raises(WeightsError, match="hsemotion-enet-b2-8"):
        read_hsemotion(path, "b2")
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsError, match="no state dict"):
        read_hsemotion(path, "b0")
    torch.save(torch.nn.Linear(2, 8), path)
    with pytest.raises(WeightsError, match="for HSEmotion"):
        read_hsemotion(path, "b0")


def test_the_store_is_asked_and_has_eight_classes(tmp_path: Path) -> None:
    store = AssetStore.open(tmp_path, CONFIGS / "weights.yaml")
    for load in (load_hsemotion_b0, load_hsemotion_b2):
        with pytest.raises(WeightsMissing) as missing:
            load(store)
        assert "HSE-asavchenko" in str(missing.value)
    path = store.where(WEIGHTS["b0"])
    path.parent.mkdir(parents=True)
    torch.save(HSEmotion("b0", 7).state_dict(), path)
    with pytest.raises(WeightsError, match="7 classes, not 8"):
        load_hsemotion_b0(store)
    torch.save(HSEmotion("b0").state_dict(), path)
    assert not load_hsemotion_b0(store).training
