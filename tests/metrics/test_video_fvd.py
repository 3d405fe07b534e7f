"""FVD against published values, and the preparation of frames against its definition."""

import json
from pathlib import Path

import numpy as np
import pytest
from talkforge.core.errors import InputError, TooShort, WeightsMissing
from talkforge.core.weights import weights_store
from talkforge.metrics.frechet import frechet_distance
from talkforge.metrics.fvd import preprocess, video_fvd
from talkforge.models.i3d import WEIGHTS, load_i3d

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "fvd.json").read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="module")
def weights() -> None:
    try:
        weights_store().path(WEIGHTS)
    except WeightsMissing as error:
        pytest.skip(str(error))


def clips(count: int, frames: int, value: int | None = None, *, size: int = 32, seed: int = 0) -> np.ndarray:
    shape = (count, frames, size, size, 3)
    if value is None:
        return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return np.full(shape, value, np.uint8)


@pytest.mark.usefixtures("weights")
class TestValues:
    @pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['frames']} frames")
    def test_black_against_white(self, case: dict) -> None:
        found = video_fvd(clips(2, case["frames"], 0), clips(2, case["frames"], 255), window=None)
        assert found == pytest.approx(case["fvd"], abs=case["tolerance"])

    def test_windows_are_cut_from_the_start_without_overlap(self) -> None:
        """25 frames hold two windows of 9 and a rest of 7."""
        real, generated = clips(1, 25), clips(2, 9, seed=1)
        network = load_i3d()
        pieces = np.concatenate([real[:, :9], real[:, 9:18]])
        features = [network.window_logits(preprocess(side)) for side in (pieces, generated)]
        assert video_fvd(real, generated, window=9) == pytest.approx(frechet_distance(*features), rel=1e-6)


class TestPreprocess:
    @staticmethod
    def along(values: np.ndarray, size: int) -> np.ndarray:
        """Bilinear interpolation of the last axis between pixel centres, as it is defined."""
        n = values.shape[-1]
        at = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, n - 1)
        return values[..., low] * (1 - (at - low)) + values[..., high] * (at - low)

    @pytest.mark.parametrize("size", [(64, 64), (100, 130), (301, 256), (480, 640), (360, 37)])
    def test_bilinear_then_centre_crop(self, size: tuple[int, int]) -> None:
        video = np.random.default_rng(0).integers(0, 256, (1, 2, *size, 3), np.uint8)
        height, width = (int(np.ceil(round(side * 224 / min(size), 9))) for side in size)
        wide = self.along(video.swapaxes(-1, -2) / 255.0, width)
        both = self.along(wide.swapaxes(-1, -3), height).swapaxes(-1, -3)
        top, left = (height - 224) // 2, (width - 224) // 2
        # both: (B, T, H, 3, W)
        wanted = both[:, :, top : top + 224, :, left : left + 224].transpose(0, 3, 1, 2, 4) * 2 - 1
        found = preprocess(video)
        assert found.shape == (1, 3, 2, 224, 224)
        assert found.dtype == np.float32
        # A fortieth of a grey level: torch works out the places between pixels in float32.
        assert np.abs(found - wanted).max() < 2e-4

    def test_frames_of_the_right_size_stay_as_they_are(self) -> None:
        video = np.random.default_rng(0).integers(0, 256, (2, 3, 224, 224, 3), np.uint8)
        assert np.allclose(preprocess(video), video.transpose(0, 4, 1, 2, 3) / 127.5 - 1, atol=1e-6)


class TestRefusals:
    """No network is needed to refuse."""

    good = clips(2, 16)

    @pytest.mark.parametrize(
        "bad", [good.astype(float), good[0], good[..., :1], good[:0], good[:, :, :0], good.tolist()]
    )
    def test_what_is_no_video(self, bad: np.ndarray) -> None:
        with pytest.raises(InputError, match="generated must be"):
            video_fvd(self.good, bad)

    def test_too_few_frames(self) -> None:
        with pytest.raises(TooShort, match="real: videos of 15 frames, at least 16"):
            video_fvd(clips(2, 15), self.good)
        with pytest.raises(TooShort, match="generated: videos of 8 frames, at least 9"):
            video_fvd(self.good, clips(2, 8), window=None)

    def test_too_short_a_window(self) -> None:
        with pytest.raises(InputError, match="at least 9 frames, not 8"):
            video_fvd(self.good, self.good, window=8)

    def test_too_few_samples(self) -> None:
        with pytest.raises(InputError, match="real: 1 sample"):
            video_fvd(clips(1, 31), self.good)
