"""SyncNet against the network and `evaluate` of syncnet-python, MFCC against python_speech_features."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from talkforge.core.asset_store import AssetStore
from talkforge.core.errors import InputError, TooShort, WeightsError, WeightsMissing
from talkforge.core.weights import CONFIGS
from talkforge.metrics.lse import sync_scores
from talkforge.models.loading import load_strict
from talkforge.models.mfcc import mfcc, mfcc_windows
from talkforge.models.syncnet import FoldedSyncNet, SyncNet, lip_windows, load_syncnet, read_syncnet
from talkforge.tests.models.reference import random_array, random_state

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "syncnet.json").read_text())


def published(module: str) -> ModuleType:
    """A file of syncnet-python by itself; the package's first lines ask for its detector's dependencies."""
    spec = importlib.util.find_spec("syncnet_python")
    if spec is None or spec.origin is None:
        pytest.skip("syncnet-python is not installed")
    path = Path(spec.origin).with_name(f"{module}.py")
    spec = importlib.util.spec_from_file_location(f"syncnet_python_{module}", path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def random_weights() -> dict[str, torch.Tensor]:
    """Weights under which vectors lie about as far apart as the real ones do, some 10."""
    state = random_state(SyncNet(), 1)
    for name, factor in (("cnnlip.0", 0.005), ("cnnaud.0", 0.05), ("fclip.3", 0.3), ("fcaud.3", 0.3)):
        state[f"net{name}.weight"] *= factor
    return state


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return random_weights()


@pytest.fixture(scope="module")
def network(state: dict[str, torch.Tensor]) -> SyncNet:
    return load_strict(SyncNet(), state, source="random")


@pytest.fixture(scope="module")
def theirs(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    reference = published("SyncNetModel").S()
    reference.load_state_dict(state, strict=True)
    return reference.eval()


@pytest.fixture(scope="module")
def looks() -> torch.Tensor:
    """Three looks at moving squares, levels as `lip_windows` gives them."""
    return torch.from_numpy(random_array(2, 3, 3, 5, 28, 28).repeat(8, axis=3).repeat(8, axis=4) * 255)


@pytest.fixture(scope="module")
def sounds() -> torch.Tensor:
    return torch.from_numpy(random_array(3, 6, 1, 13, 20) * 20 - 10)


def face(n: int) -> np.ndarray:
    """n crops with a mouth that opens and shuts, RGB."""
    frames = np.full((n, 224, 224, 3), (180, 130, 110), np.uint8)
    frames += (random_array(9, 1, 224, 224, 3) * 30).astype(np.uint8)
    for i in range(n):
        opening = int(14 + 12 * np.sin(1.3 * i + 0.1 * i**1.5))
        frames[i, 150 - opening : 150 + opening, 70:154] = (60, 20, 30)
    return frames


def signal(n: int) -> np.ndarray:
    """n samples of int16 noise that swells and fades, by whole-number arithmetic only, so the same everywhere."""
    at = np.arange(n, dtype=np.int64)
    noise = (at * at * 7919 + at * 104729) % 20011 - 10005
    return (noise * (800 - abs(at % 1600 - 800)) // 800 + (at % 93) * 20 - 930).astype(np.int16)


def test_both_branches_equal_the_published_network(
    network: SyncNet, theirs: torch.nn.Module, looks: torch.Tensor, sounds: torch.Tensor
) -> None:
    with torch.inference_mode():
        pictures, sound = network(looks, sounds)
        assert pictures.shape == (3, 1024)
        assert sound.shape == (6, 1024)
        assert min(pictures.std(), sound.std()) > 0.1
        assert (pictures - theirs.forward_lip(looks)).abs().max() < 1e-4
        assert (sound - theirs.forward_aud(sounds)).abs().max() < 1e-4


def test_vectors_equal_the_golden_values(network: SyncNet, looks: torch.Tensor, sounds: torch.Tensor) -> None:
    with torch.inference_mode():
        found = dict(zip(("pictures", "sound"), network(looks, sounds), strict=True))
    for branch, vectors in found.items():
        for row, channel, value in GOLDEN[branch]["values"]:
            assert abs(float(vectors[row, channel]) - value) < GOLDEN[branch]["tolerance"]


def test_layout_is_the_published_one() -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in SyncNet().state_dict().items()}
    assert {name.split(".")[0] for name in shapes} == {"netcnnaud", "netfcaud", "netcnnlip", "netfclip"}
    assert shapes["netcnnaud.8.weight"] == (384, 192, 3, 3)
    assert shapes["netcnnaud.18.weight"] == (512, 256, 5, 4)
    assert shapes["netcnnlip.0.weight"] == (96, 3, 5, 7, 7)
    assert shapes["netcnnlip.18.weight"] == (512, 256, 1, 6, 6)
    assert shapes["netfclip.3.weight"] == (1024, 512)
    # As float32 with running statistics this is all but 11 kB of the 54,573,114 bytes of the file.
    assert sum(parameter.numel() for parameter in SyncNet().parameters()) == GOLDEN["parameters"]


def test_the_folded_network_is_the_same_function(network: SyncNet, looks: torch.Tensor, sounds: torch.Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = FoldedSyncNet(network)
    with torch.inference_mode():
        for found, wanted in zip(folded(looks, sounds), network(looks, sounds), strict=True):
            assert (found - wanted).abs().max() < 5e-6 * wanted.abs().max()
    assert not any(isinstance(m, torch.nn.Conv3d | torch.nn.BatchNorm3d) for m in folded.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_scores_equal_the_published_evaluation(
    network: SyncNet, theirs: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same crop and sound through `SyncNetInstance.evaluate` and through every step of ours."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    pytest.importorskip("python_speech_features", reason="python_speech_features is not installed")
    from scipy.io import wavfile

    for i, frame in enumerate(face(22)):
        cv2.imwrite(str(tmp_path / f"{i:06d}.jpg"), frame[..., ::-1])
    sound = signal(22 * 640 + 111)
    wavfile.write(tmp_path / "audio.wav", 16000, sound)
    instance = published("SyncNetInstance").SyncNetInstance(theirs, device="cpu")
    options = SimpleNamespace(tmp_dir=str(tmp_path), batch_size=8, vshift=15)
    with torch.inference_mode():
        offset, confidence, distance = instance.evaluate(options)

    crops = np.stack([cv2.imread(str(path))[..., ::-1] for path in sorted(tmp_path.glob("*.jpg"))])
    folded, windows = FoldedSyncNet(network), 22 - 5
    with torch.inference_mode():
        video = folded.forward_lip(lip_windows(crops)[:windows])
        audio = folded.forward_aud(torch.from_numpy(mfcc_windows(mfcc(sound))[:windows].astype(np.float32)))
    found = sync_scores(video.numpy(), audio.numpy())
    assert found.offset == offset
    assert abs(found.distance - distance) < 1e-4
    assert abs(found.confidence - confidence) < 1e-4
    assert confidence > 1e-3


@pytest.mark.parametrize("x", [torch.zeros(2, 5, 3, 224, 224), torch.zeros(2, 3, 5, 224, 224).byte()])
def test_other_pictures_are_refused(network: SyncNet, x: torch.Tensor) -> None:
    for one in (network, FoldedSyncNet(network)):
        with pytest.raises(InputError, match=r"pictures as floats \(B, 3, 5, 224, 224\)"):
            one.forward_lip(x)


def test_other_sound_is_refused(network: SyncNet) -> None:
    with pytest.raises(InputError, match=r"sound as floats \(B, 1, 13, 20\)"):
        network.forward_aud(torch.zeros(2, 1, 20, 13))


def test_lip_windows_are_five_frames_of_bgr() -> None:
    frames = (random_array(4, 7, 224, 224, 3) * 256).astype(np.uint8)
    looks = lip_windows(frames)
    assert looks.shape == (3, 3, 5, 224, 224)
    for window, channel, frame in ((0, 0, 0), (1, 2, 3), (2, 1, 4)):
        wanted = torch.from_numpy(frames[window + frame, :, :, 2 - channel].copy()).float()
        assert torch.equal(looks[window, channel, frame], wanted)
    with pytest.raises(TooShort, match="there are 4"):
        lip_windows(frames[:4])
    with pytest.raises(InputError, match="uint8"):
        lip_windows(frames.astype(np.float32))


class TestMfcc:
    """The sound's features."""

    @pytest.mark.parametrize("n", [1, 399, 400, 401, 559, 560, 561, 16000, 31999])
    def test_equal_to_python_speech_features(self, n: int) -> None:
        reference = pytest.importorskip("python_speech_features", reason="python_speech_features is not installed")
        wanted = reference.mfcc(signal(n), 16000)
        assert mfcc(signal(n)).shape == wanted.shape
        assert np.abs(mfcc(signal(n)) - wanted).max() < 1e-10 * np.abs(wanted).max()

    def test_silence_is_the_log_of_epsilon(self) -> None:
        """Not minus infinity: 36.04 below zero for the energy, and a flat spectrum."""
        found = mfcc(np.zeros(1600, np.int16))
        assert np.allclose(found[:, 0], np.log(np.finfo(np.float64).eps))
        assert np.allclose(found[:, 1:], 0, atol=1e-10)

    def test_golden_values(self) -> None:
        found = mfcc(signal(16000))
        assert found.shape == (99, 13)
        for row, column, value in GOLDEN["mfcc"]["values"]:
            assert abs(found[row, column] - value) < GOLDEN["mfcc"]["tolerance"]

    def test_ten_times_the_level_adds_to_the_energy_alone(self) -> None:
        quiet = np.clip(signal(8000), -3000, 3000).astype(np.int16)
        rise = mfcc(quiet * 10) - mfcc(quiet)
        assert np.allclose(rise[:, 0], 2 * np.log(10), atol=1e-9)
        assert np.allclose(rise[:, 1:], 0, atol=1e-9)

    def test_windows_begin_with_their_frame(self) -> None:
        coefficients = np.arange(29.0)[:, None] * 100 + np.arange(13)
        windows = mfcc_windows(coefficients)
        assert windows.shape == (3, 1, 13, 20)
        assert np.array_equal(windows[2, 0, 5], np.arange(8, 28) * 100 + 5)

    def test_what_is_no_sound_is_refused(self) -> None:
        with pytest.raises(InputError, match="int16"):
            mfcc(np.zeros(800, np.float32))
        with pytest.raises(TooShort, match="no sound"):
            mfcc(np.zeros(0, np.int16))
        with pytest.raises(TooShort, match="there are 19"):
            mfcc_windows(np.zeros((19, 13)))
        with pytest.raises(InputError, match=r"\(N, 13\)"):
            mfcc_windows(np.zeros((13, 40)))


class TestReading:
    """The authors' file, strictly."""

    def test_a_file_in_the_old_format_without_counts_is_read(
        self, state: dict[str, torch.Tensor], tmp_path: Path
    ) -> None:
        """Its size says that the published file is one of those."""
        old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
        torch.save(old, tmp_path / "w.model", _use_new_zipfile_serialization=False)
        assert abs((tmp_path / "w.model").stat().st_size - 54_573_114) < 1000
        network = read_syncnet(tmp_path / "w.model")
        assert not network.training
        assert all(torch.equal(tensor, old[name]) for name, tensor in network.state_dict().items() if name in old)

    def test_a_missing_tensor_is_named(self, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
        torch.save({name: tensor for name, tensor in state.items() if name != "netfclip.3.bias"}, tmp_path / "w.model")
        with pytest.raises(WeightsError, match=r"syncnet-v2: no netfclip\.3\.bias"):
            read_syncnet(tmp_path / "w.model")

    def test_a_pickled_network_is_refused(self, tmp_path: Path) -> None:
        torch.save(torch.nn.Linear(2, 2), tmp_path / "w.model")
        with pytest.raises(WeightsError, match="cannot be read as tensors alone"):
            read_syncnet(tmp_path / "w.model")

    def test_without_the_file_the_way_to_it_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsMissing, match="syncnet-v2"):
            load_syncnet(AssetStore.open(tmp_path, CONFIGS / "weights.yaml"))
