"""MUSIQ and TOPIQ against pyiqa's networks on the same weights: names, shapes and numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.models import musiq, swin, topiq
from talkforge.tests.models.iqa_weights import blank, drawn, scene
from talkforge.tests.models.reference import run_beside_torchvision

# Wide, tall, smaller than a patch, very wide. TOPIQ's networks are made smaller than they are, which changes no code:
# ResNet-50 gets 256 pixels in place of 512, Swin's third stage 2 blocks in place of 18.
SHAPES = {"musiq": ((60, 110), (100, 50), (30, 31), (40, 300)), "face": ((256, 256),), "iaa": ((200, 333),)}
DEPTHS = (2, 2, 2, 2)
# pyiqa 0.1.16 on these weights and pictures.
GOLDEN = {
    "musiq": [-0.73426, -0.4555, -1.02288, -1.20732, -1.05966],
    "face": [0.39788],
    "iaa": [5.01086],
}
# Digests of its networks' names and shapes.
LAYOUTS = {"iaa": "806be57e776d5ac2", "face": "846762a4a2dc9bdb", "musiq": "6cc8b89320cd2827"}
PYIQA = """
import json
from pyiqa.archs import topiq_arch, topiq_swin
from pyiqa.archs.musiq_arch import MUSIQ

folder, depths = Path(sys.argv[1]), json.loads(sys.argv[2])
swin = {"patch_size": 4, "window_size": 12, "embed_dim": 128, "num_heads": (4, 8, 16, 32)}


def made(name, depths):
    if name == "musiq":
        return MUSIQ(pretrained=False)
    if name == "face":
        return topiq_arch.CFANet("resnet50", "plain", backbone_pretrain=False, use_ref=False, pretrained=False)
    topiq_arch.create_swin = lambda name, **settings: topiq_swin._create_swin_transformer(
        name, pretrained=False, depths=depths, **swin
    )
    settings = {"use_ref": False, "inter_dim": 512, "num_heads": 8, "num_class": 10, "pretrained": False}
    return topiq_arch.CFANet("swin_base_patch4_window12_384", "plain", **settings)


answers = {}
for name in ("musiq", "face", "iaa"):
    network = made(name, depths).eval()
    network.load_state_dict(torch.load(folder / f"{name}.pth", weights_only=True), strict=True)
    with torch.inference_mode():
        pictures = np.load(folder / f"{name}.npz").values()
        x = [torch.from_numpy(picture.transpose(2, 0, 1)[None].copy()).float() / 255 for picture in pictures]
        answers[name] = [network(one).item() for one in x]
(folder / "answers.json").write_text(json.dumps(answers))
"""


def pictures(name: str) -> list[np.ndarray]:
    """For MUSIQ also a flat one, where the small numbers that normalisations add decide."""
    flat = [np.full((40, 50, 3), 128, np.uint8)] if name == "musiq" else []
    return [scene(seed, *shape) for seed, shape in enumerate(SHAPES[name])] + flat


@pytest.fixture(scope="module")
def networks() -> Iterator[dict[str, torch.nn.Module]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swin, "DEPTHS", DEPTHS)
        found = {name: drawn(name) for name in SHAPES}
    assert isinstance(found["face"], topiq.CFANet)
    found["face"].size = 256
    yield found


@pytest.fixture(scope="module")
def answers(networks: dict[str, torch.nn.Module]) -> dict[str, np.ndarray]:
    """Ours."""
    given = {"musiq": musiq.prepare(pictures("musiq"))}
    given |= {name: topiq.prepare(np.stack(pictures(name)), size) for name, size in (("face", 256), ("iaa", 384))}
    with torch.inference_mode():
        return {name: networks[name](x).numpy() for name, x in given.items()}


@pytest.fixture(scope="module")
def pyiqas(networks: dict[str, torch.nn.Module], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """pyiqa's, which take the weights strictly."""
    if absent := [name for name in ("pyiqa", "timm", "facexlib") if find_spec(name) is None]:
        pytest.skip(f"{', '.join(absent)}: not installed")
    folder: Path = tmp_path_factory.mktemp("pyiqa")
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / f"{name}.pth")
        np.savez(folder / f"{name}.npz", *pictures(name))
    run_beside_torchvision(PYIQA, folder, json.dumps(DEPTHS))
    return json.loads((folder / "answers.json").read_text())


@pytest.mark.parametrize("name", SHAPES)
def test_scores_equal_pyiqas(name: str, answers: dict[str, np.ndarray], pyiqas: dict[str, list[float]]) -> None:
    assert np.abs(answers[name] - pyiqas[name]).max() < 1e-4
    assert pyiqas[name] == pytest.approx(GOLDEN[name], abs=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_scores_are_the_known_ones(name: str, answers: dict[str, np.ndarray]) -> None:
    assert answers[name] == pytest.approx(GOLDEN[name], abs=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_names_and_shapes_are_pyiqas(name: str) -> None:
    """Of the networks at their full size."""
    with torch.device("meta"):
        layout = {key: list(value.shape) for key, value in blank(name).state_dict().items()}
    assert hashlib.sha256(json.dumps(layout, sort_keys=True).encode()).hexdigest()[:16] == LAYOUTS[name]
