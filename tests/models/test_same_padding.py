"""TensorFlow's padding "same", against its definition written out."""

import numpy as np
import pytest
import torch
from talkforge.models.same_padding import Conv2dSame, same_pads


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [(224, 3, 2, (0, 1)), (224, 7, 2, (2, 3)), (15, 3, 2, (1, 1)), (112, 5, 1, (2, 2)), (7, 1, 2, (0, 0))],
)
def test_the_odd_pixel_is_at_the_end(size: int, kernel: int, stride: int, pads: tuple[int, int]) -> None:
    assert same_pads(size, kernel, stride) == pads


@pytest.mark.parametrize("size", [(8, 11), (9, 6)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (1, 2), (2, 2)])
def test_each_output_sums_its_window(size: tuple[int, int], kernel: int, stride: int) -> None:
    """Output (i, j) covers rows from i * stride - pad on, as far as they are in the picture."""
    picture = np.random.default_rng(0).standard_normal(size)
    conv = Conv2dSame(1, 1, kernel, stride, bias=False).double()
    torch.nn.init.ones_(conv.weight)
    with torch.inference_mode():
        found = conv(torch.from_numpy(picture)[None, None])[0, 0].numpy()
    rows, columns = (-(-n // stride) for n in size)
    assert found.shape == (rows, columns)
    top, left = (same_pads(n, kernel, stride)[0] for n in size)
    for i in range(rows):
        for j in range(columns):
            y, x = i * stride - top, j * stride - left
            window = picture[max(y, 0) : y + kernel, max(x, 0) : x + kernel]
            assert found[i, j] == pytest.approx(window.sum())
