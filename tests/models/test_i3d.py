"""I3D against the same network written out without folding, and its padding rule against its definition."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from talkforge.core.errors import InputError, TooShort, WeightsError, WeightsMissing
from talkforge.core.weights import weights_store
from talkforge.models.i3d import BLOCKS, I3D, WEIGHTS, folded_state, load_i3d, max_pool, same_padding
from torch.nn import functional as F


@pytest.fixture(scope="module")
def network() -> I3D:
    try:
        return load_i3d()
    except WeightsMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def variables() -> dict[str, torch.Tensor]:
    """The checkpoint's own variables."""
    try:
        return load_file(weights_store().converted(WEIGHTS))
    except WeightsMissing as error:
        pytest.skip(str(error))


class Reference:
    """The network straight from its definition: explicit padding, separate normalisation, no layout tricks."""

    def __init__(self, variables: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
        self.variables = {name: tensor.to(dtype) for name, tensor in variables.items()}

    @staticmethod
    def pad(x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float) -> torch.Tensor:
        pads: list[int] = []
        for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
            places = (size + s - 1) // s
            total = max((places - 1) * s + k - size, 0)
            pads = [total // 2, total - total // 2, *pads]
        return F.pad(x, pads, value=value)

    def unit(self, x: torch.Tensor, name: str, stride: int = 1) -> torch.Tensor:
        kernel = self.variables[f"params/{name}/Conv_0/kernel"].permute(4, 3, 0, 1, 2)
        y = F.conv3d(self.pad(x, tuple(kernel.shape[2:]), (stride,) * 3, 0.0), kernel, stride=stride)
        mean = self.variables[f"batch_stats/{name}/BatchNorm_0/mean"].flatten()
        var = self.variables[f"batch_stats/{name}/BatchNorm_0/var"].flatten()
        return F.relu(F.batch_norm(y, mean, var, None, self.variables[f"params/{name}/BatchNorm_0/bias"], eps=1e-3))

    def pool(self, x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
        return F.max_pool3d(self.pad(x, kernel, stride, -torch.inf), kernel, stride)

    def block(self, x: torch.Tensor, name: str) -> torch.Tensor:
        at = f"{name}/Branch_"
        one = self.unit(x, f"{at}0/Conv3d_0a_1x1")
        two = self.unit(self.unit(x, f"{at}1/Conv3d_0a_1x1"), f"{at}1/Conv3d_0b_3x3")
        three = self.unit(self.unit(x, f"{at}2/Conv3d_0a_1x1"), f"{at}2/Conv3d_0b_3x3")
        four = self.unit(self.pool(x, (3, 3, 3), (1, 1, 1)), f"{at}3/Conv3d_0b_1x1")
        return torch.cat([one, two, three, four], dim=1)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.unit(x, "Conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2))
        x = self.unit(self.unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3")
        x = self.pool(x, (1, 3, 3), (1, 2, 2))
        for name in ("Mixed_3b", "Mixed_3c"):
            x = self.block(x, name)
        x = self.pool(x, (3, 3, 3), (2, 2, 2))
        for name in ("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"):
            x = self.block(x, name)
        x = self.pool(x, (2, 2, 2), (2, 2, 2))
        x = F.avg_pool3d(self.block(self.block(x, "Mixed_5b"), "Mixed_5c"), (2, 7, 7), stride=1)
        kernel = self.variables["params/Logits/Conv3d_0c_1x1/Conv_0/kernel"].permute(4, 3, 0, 1, 2)
        bias = self.variables["params/Logits/Conv3d_0c_1x1/Conv_0/bias"]
        return F.conv3d(x, kernel, bias).flatten(2).mean(dim=2)


def noise(frames: int, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.rand(batch, 3, frames, 224, 224, generator=generator) * 2 - 1


@pytest.mark.parametrize("frames", [9, 11])
def test_logits_equal_the_unfolded_network(network: I3D, variables: dict[str, torch.Tensor], frames: int) -> None:
    """Odd lengths give every temporal stride both an odd and an even size; the tolerance is a few float32 steps."""
    x = noise(frames)
    with torch.inference_mode():
        wanted, found = Reference(variables, torch.float32)(x), network(x)
    assert found.shape == (1, 400)
    assert (found - wanted).abs().max() < 5e-5
    assert found.abs().max() > 1


def test_window_logits_do_not_depend_on_the_batch(network: I3D) -> None:
    windows = noise(9, batch=3).numpy()
    whole = network.window_logits(windows, batch=2)
    assert whole.shape == (3, 400)
    assert whole.dtype == np.float32
    assert np.abs(whole - np.concatenate([network.window_logits(window[None]) for window in windows])).max() < 5e-5


def test_every_block_is_named_as_in_the_checkpoint(variables: dict[str, torch.Tensor]) -> None:
    assert {name.split("/")[1] for name in variables if "Mixed" in name} == set(BLOCKS)


@pytest.mark.parametrize("size", range(1, 30))
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (2, 2), (3, 2), (7, 2)])
def test_same_padding_follows_its_definition(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    places = (size + before + after - kernel) // stride + 1
    assert places == -(-size // stride)
    assert after - before in (0, 1)


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("kernel", [(2, 2, 2), (3, 3, 3)])
def test_max_pool_pads_by_minus_infinity(size: int, kernel: tuple[int, int, int]) -> None:
    """Negative numbers everywhere: a pool that pads by zero would answer zero at the borders."""
    x = -1 - torch.rand(1, 2, size, size, size, generator=torch.Generator().manual_seed(size))
    wanted = Reference({}, torch.float32).pool(x, kernel, (2, 2, 2))
    assert torch.equal(max_pool(x, kernel, (2, 2, 2)), wanted)


def test_eight_frames_are_too_few() -> None:
    with pytest.raises(TooShort, match="at least 9 frames, not 8"):
        I3D()(torch.zeros(1, 3, 8, 224, 224))


@pytest.mark.parametrize("shape", [(3, 16, 224, 224), (1, 1, 16, 224, 224), (1, 3, 16, 112, 112)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="I3D takes"):
        I3D()(torch.zeros(shape))


def test_integers_are_refused() -> None:
    with pytest.raises(InputError, match="floats"):
        I3D()(torch.zeros(1, 3, 16, 224, 224, dtype=torch.uint8))


class TestStrictLoad:
    """Nothing of the checkpoint may stay unused, nothing of the network unfilled."""

    def test_a_missing_variable_is_named(self, variables: dict[str, torch.Tensor]) -> None:
        left = {
            name: tensor
            for name, tensor in variables.items()
            if name != "params/Mixed_4d/Branch_3/Conv3d_0b_1x1/BatchNorm_0/bias"
        }
        with pytest.raises(WeightsError, match=r"no variable .*Mixed_4d/Branch_3"):
            folded_state(left)

    def test_an_unused_variable_is_named(self, variables: dict[str, torch.Tensor]) -> None:
        with pytest.raises(WeightsError, match="unused variables: params/Conv3d_9"):
            folded_state({**variables, "params/Conv3d_9": torch.zeros(1)})

    def test_a_variable_that_does_not_fit_is_an_error(self, variables: dict[str, torch.Tensor]) -> None:
        name = "batch_stats/Mixed_3b/Branch_0/Conv3d_0a_1x1/BatchNorm_0/var"
        with pytest.raises(WeightsError, match="Mixed_3b"):
            folded_state({**variables, name: torch.ones(1, 1, 1, 1, 7)})
