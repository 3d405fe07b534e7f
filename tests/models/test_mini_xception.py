"""mini-Xception: numbers that Keras itself gave for the published file, the file's layout, and real faces."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError, WeightsError
from talkforge.models.mini_xception import CLASSES, MiniXception, load_mini_xception, prepare, read_mini_xception
from talkforge.tests.tasks.one_row import need

h5py = pytest.importorskip("h5py", reason="h5py is not installed")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "mini_xception.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def network() -> MiniXception:
    need("fer-mini-xception")
    return load_mini_xception()


def pictures() -> np.ndarray:
    y, x = np.mgrid[0:64, 0:64]
    noise = np.random.RandomState(5).randint(0, 256, (64, 64))
    return np.stack([(2 * x + 3 * y) % 256, (x * y // 4) % 256, noise]).astype(np.uint8)


def test_probabilities_are_those_of_keras(network: MiniXception) -> None:
    with torch.inference_mode():
        found = network(prepare(pictures())).softmax(dim=1).numpy()
    assert np.abs(found - GOLDEN["probabilities"]).max() < GOLDEN["tolerance"]
    for name in CLASSES:
        assert name in GOLDEN["what"]


def test_probabilities_do_not_depend_on_the_batch(network: MiniXception) -> None:
    x = prepare(pictures())
    with torch.inference_mode():
        assert (network(x) - torch.cat([network(picture[None]) for picture in x])).abs().max() < 1e-5


def test_black_is_minus_one_and_white_one() -> None:
    ends = prepare(np.stack([np.zeros((64, 64), np.uint8), np.full((64, 64), 255, np.uint8)]))
    assert ends.shape == (2, 1, 64, 64)
    assert ends[0].unique().tolist() == [-1.0]
    assert ends[1].unique().tolist() == [1.0]


@pytest.mark.parametrize("shape", [(1, 48, 48), (1, 64, 64, 3), (64, 64)])
def test_other_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="uint8"):
        prepare(np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match="floats"):
        MiniXception()(torch.zeros(1, *shape))


def copy_without(source: Path, target: Path, layer: str | None = None, extra: str | None = None) -> Path:
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        for name, group in old["model_weights"].items():
            if name != layer:
                old["model_weights"].copy(group, new.require_group("model_weights"))
        if extra:
            new[f"model_weights/{extra}/{extra}/kernel:0"] = np.zeros((3, 3, 8, 8), np.float32)
    return target


class TestFile:
    """The file is read strictly."""

    def test_a_missing_layer_is_named(self, tmp_path: Path) -> None:
        source = need("fer-mini-xception")
        path = copy_without(source, tmp_path / "x.hdf5", layer="separable_conv2d_5")
        with pytest.raises(WeightsError, match=r"no blocks\.2\.separable1\.depthwise\.weight"):
            read_mini_xception(path)

    def test_a_further_layer_is_named(self, tmp_path: Path) -> None:
        path = copy_without(need("fer-mini-xception"), tmp_path / "x.hdf5", extra="conv2d_8")
        with pytest.raises(WeightsError, match=r"has no conv2d_8\.weight"):
            read_mini_xception(path)

    def test_another_hdf5_file_is_refused(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "x.hdf5", "w") as file:
            file["data"] = np.zeros(3)
        with pytest.raises(WeightsError, match="no file of Keras weights"):
            read_mini_xception(tmp_path / "x.hdf5")

    def test_what_is_no_hdf5_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "x.hdf5").write_bytes(b"text")
        with pytest.raises(WeightsError, match="no HDF5 file"):
            read_mini_xception(tmp_path / "x.hdf5")
