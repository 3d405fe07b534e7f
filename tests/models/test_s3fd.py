"""S3FD against the detector that syncnet-python carries, with the same random weights."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from talkforge.core.asset_store import AssetStore
from talkforge.core.errors import InputError, WeightsError, WeightsMissing
from talkforge.core.weights import CONFIGS
from talkforge.models.checkpoints import read_state_dict
from talkforge.models.loading import load_strict
from talkforge.models.s3fd import S3FD, detect, load_s3fd, prepare, suppress
from talkforge.tests.models.reference import random_array, random_state


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Weights under which some places are faces and most are not."""
    state = random_state(S3FD(), 4)
    for name in ("L2Norm3_3", "L2Norm4_3", "L2Norm5_3"):
        state[f"{name}.weight"] *= 8
    state["vgg.0.weight"] *= 0.02
    for k in range(6):
        state[f"conf.{k}.weight"] *= 6
    return state


@pytest.fixture(scope="module")
def network(state: dict[str, torch.Tensor]) -> S3FD:
    return load_strict(S3FD(), state, source="random")


@pytest.fixture(scope="module")
def theirs(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The peer's `S3FD` with its `S3FDNet`."""
    pytest.importorskip("cv2")
    package = published_detector()
    network = package.S3FDNet(device="cpu")
    network.load_state_dict(state, strict=True)
    return package.S3FD(net=network, device="cpu")


def published_detector() -> ModuleType:
    """The folder `detectors/s3fd` of syncnet-python by itself."""
    spec = importlib.util.find_spec("syncnet_python")
    if spec is None or spec.origin is None:
        pytest.skip("syncnet-python is not installed")
    name, init = "syncnet_python_s3fd", Path(spec.origin).parent / "detectors" / "s3fd" / "__init__.py"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(init.parent)])
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def picture(height: int, width: int) -> np.ndarray:
    blocks = random_array(6, height // 8 + 1, width // 8 + 1, 3).repeat(8, axis=0).repeat(8, axis=1)
    return (blocks[:height, :width] * 255).astype(np.uint8)


def test_faces_equal_those_of_the_published_detector(network: S3FD, theirs) -> None:
    """Through the network, the decoding and both rounds of suppression; boxes of several sizes at this threshold."""
    image = picture(128, 176)
    found = detect(network, image, 0.6)
    wanted = theirs.detect_faces(image, conf_th=0.6, scales=[1])
    assert len(found) == len(wanted) > 10
    assert len({round(float(np.log2(side))) for side in wanted[:, 2] - wanted[:, 0]}) > 2
    np.testing.assert_allclose(found[:, :4] * [176, 128, 176, 128], wanted[:, :4], atol=2e-3)
    np.testing.assert_allclose(found[:, 4], wanted[:, 4], atol=1e-5)


@pytest.mark.parametrize("size", [(96, 160), (99, 131), (180, 320)])
def test_every_place_has_a_box_and_a_probability(network: S3FD, size: tuple[int, int]) -> None:
    """Sides that no stride divides included; the third pool rounds up, the others down."""
    with torch.inference_mode():
        boxes, faces = network(prepare(picture(*size)))
    assert boxes.shape == (1, faces.shape[1], 4)
    assert faces.min() >= 0 and faces.max() <= 1
    assert (boxes[..., 2:] > boxes[..., :2]).all()


def test_layout_is_the_published_one() -> None:
    state = S3FD().state_dict()
    assert {name.split(".")[0] for name in state} == {
        "vgg", "L2Norm3_3", "L2Norm4_3", "L2Norm5_3", "extras", "loc", "conf",
    }  # fmt: skip
    assert tuple(state["vgg.31.weight"].shape) == (1024, 512, 3, 3)
    assert tuple(state["conf.0.weight"].shape) == (4, 256, 3, 3)
    # As float32 this is all but 13 kB of the 89,844,381 bytes of the file.
    assert 0 < 89_844_381 - 4 * sum(tensor.numel() for tensor in state.values()) < 20_000


def test_suppression_by_hand() -> None:
    """b overlaps a by 0.5, c overlaps b alone: with b gone, c stays."""
    boxes = np.array([[0, 0, 3, 1], [1, 0, 4, 1], [2.5, 0, 5.5, 1], [9, 9, 10, 10]], float)
    scores = np.array([0.9, 0.8, 0.7, 0.95])
    assert suppress(boxes, scores, 0.3).tolist() == [3, 0, 2]
    assert suppress(boxes, scores, 0.6).tolist() == [3, 0, 1, 2]
    assert suppress(boxes[:0], scores[:0], 0.5).tolist() == []


def test_other_input_is_refused(network: S3FD) -> None:
    with pytest.raises(InputError, match="at least 32 pixels"):
        network(torch.zeros(1, 3, 31, 64))


def test_loading_is_strict(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({name: tensor for name, tensor in state.items() if name != "loc.5.bias"}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"no loc\.5\.bias"):
        read_state_dict(S3FD(), tmp_path / "w.pth", source="s3fd-syncnet")
    with pytest.raises(WeightsMissing, match="s3fd-syncnet"):
        load_s3fd(AssetStore.open(tmp_path, CONFIGS / "weights.yaml"))
