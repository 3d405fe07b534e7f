"""Windows over long videos, chunks and the doubled frame rate: partitions of unity and closed forms."""

from __future__ import annotations

import pytest
import torch
from talkforge.core.errors import ConfigError, InputError
from talkforge.models.diffusion.config import WindowsConfig
from talkforge.models.diffusion.windows import decode_chunks, double_rate, over_windows, window_indices

RELEASED = WindowsConfig()


def test_windows_move_by_seven_around_the_ring() -> None:
    first, second = window_indices(50, 1, RELEASED)
    assert first.tolist() == list(range(7, 32))
    assert second.tolist() == [*range(32, 50), *range(7)]


@pytest.mark.parametrize("overlap", [0, 6])
@pytest.mark.parametrize("length", [26, 40, 50, 125])
@pytest.mark.parametrize("step", [0, 1, 24])
def test_every_frame_is_denoised_in_full_windows(length: int, step: int, overlap: int) -> None:
    windows = window_indices(length, step, WindowsConfig(overlap=overlap))
    assert {len(set(window.tolist())) for window in windows} == {25}
    assert set(torch.cat(windows).tolist()) == set(range(length))
    assert len(windows) == -(-length // (25 - overlap))


@pytest.mark.parametrize("length", [1, 24, 25])
def test_a_short_video_is_one_window_in_order(length: int) -> None:
    assert [window.tolist() for window in window_indices(length, 5, RELEASED)] == [list(range(length))]


@pytest.mark.parametrize("step", [0, 3])
def test_averaging_is_a_partition_of_unity(step: int) -> None:
    x = torch.randn(2, 37, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(over_windows(lambda part, index: part, x, step, WindowsConfig(overlap=9)), x)


def test_overlapping_predictions_are_averaged() -> None:
    """Length 6 in windows of 4: 0-3 and 4, 5, 0, 1. Frames 0 and 1 are in both."""
    config, count = WindowsConfig(frames=4, shift=1), iter((10.0, 20.0))

    def predict(part: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return torch.full_like(part, next(count))

    found = over_windows(predict, torch.zeros(1, 6, 1), 0, config)
    assert found.flatten().tolist() == [15, 15, 10, 10, 20, 20]


def test_windows_see_the_frames_that_their_indices_name() -> None:
    x = torch.arange(60.0).reshape(1, 60, 1)

    def predict(part: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        assert part.flatten().tolist() == index.tolist()
        return part

    over_windows(predict, x, 2, RELEASED)


def test_chunks_are_decoded_in_order() -> None:
    sizes: list[int] = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        sizes.append(len(latents))
        return latents * 2

    found = decode_chunks(decode, torch.arange(30.0)[:, None], RELEASED)
    assert sizes == [14, 14, 2]
    assert found.flatten().tolist() == [2.0 * i for i in range(30)]


def test_frames_between_are_means() -> None:
    assert double_rate(torch.tensor([[0.0], [4.0], [2.0]]), RELEASED).flatten().tolist() == [0, 2, 4, 3, 2]
    alone = torch.tensor([[5.0]])
    assert double_rate(alone, RELEASED).tolist() == [[5.0]]
    assert double_rate(torch.tensor([[0.0], [4.0]]), WindowsConfig(interpolation="none")).shape == (2, 1)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(InputError, match="no frames"):
        window_indices(0, 0, RELEASED)
    with pytest.raises(ConfigError, match="overlap"):
        WindowsConfig(overlap=25)
