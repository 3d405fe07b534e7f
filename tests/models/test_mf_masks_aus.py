"""Region masks against OpenCV's blur and closed forms; AU guidance: equation, separation, neutral faces, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from talkforge.core.errors import ConfigError, InputError
from talkforge.models.mf_etalk.au_guidance import AuGuidance, identity_neutral
from talkforge.models.mf_etalk.config import LOWER_AUS, UPPER_AUS, AuConfig, FaceConfig, au_columns
from talkforge.models.mf_etalk.contexts import region_contexts
from talkforge.models.mf_etalk.masks import blurred, gaussian_kernel, grown, region_masks
from talkforge.tasks.action_units import ACTION_UNITS
from talkforge.tests.models.test_mf_cases import seeded

FACE = FaceConfig()
AUS = AuConfig(hidden=16, blocks=2, tokens=3, width=8)


@pytest.mark.parametrize("width", [31, 51])
def test_the_blur_is_opencvs(width: int) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    np.testing.assert_allclose(gaussian_kernel(width), cv2.getGaussianKernel(width, 0)[:, 0], rtol=1e-4)
    mask = np.zeros((64, 64), np.float32)
    mask[20:45, 5:40] = 1
    wanted = cv2.normalize(cv2.GaussianBlur(mask, (width, width), 0), None, 0, 1, cv2.NORM_MINMAX)
    np.testing.assert_allclose(blurred(torch.from_numpy(mask), width), wanted, atol=1e-4)


def test_flat_masks_stay_flat() -> None:
    torch.testing.assert_close(blurred(torch.ones(64, 64), 31), torch.ones(64, 64))


def test_regions_are_face_without_lips_its_outside_and_lips() -> None:
    pose, face, lip = region_masks((100, 100, 400, 450), (200, 350, 300, 400), 512, 512, FACE)
    torch.testing.assert_close(face, ((1 - pose) - lip).clamp_min(0))
    for mask in (pose, face, lip):
        assert mask.shape == (64, 64) and mask.min() >= 0 and mask.max() <= 1
    assert lip[47, 31] > 0.95 and face[20, 31] > 0.9 and pose[0, 0] > 0.9
    assert lip[5, 5] == 0 and face[47, 31] < 0.1


@pytest.mark.parametrize(
    ("box", "scale", "wanted"),
    [
        ((10, 20, 30, 60), 1.5, (5, 10, 35, 70)),
        ((0, 20, 20, 60), 1.5, (0, 10, 30, 70)),  # what is cut at the left is added at the right
        ((80, 60, 100, 80), 2.0, (60, 40, 100, 80)),
        ((0, 0, 100, 80), 2.0, (0, 0, 100, 80)),
    ],
)
def test_boxes_grow_about_their_centres(box: tuple, scale: float, wanted: tuple) -> None:
    assert grown(box, scale, 80, 100) == wanted


def test_boxes_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="covers nothing"):
        region_masks((30, 20, 30, 60), (10, 10, 20, 20), 64, 64, FACE)
    with pytest.raises(ConfigError, match="face_blur"):
        FaceConfig(face_blur=50)


@pytest.mark.parametrize("sites", [4096, 1024, 256, 64])
def test_masks_come_to_four_resolutions(sites: int) -> None:
    """Each is the smoothed mask of its own branch, and the same for all frames."""
    masks = torch.rand(2, 1, 3, 64, 64, generator=seeded())
    found = region_contexts(masks, 3, (64, 64), FACE.mask_resize)
    side = int(sites**0.5)
    for number, branch in enumerate(("pose", "face", "lip")):
        small = found[branch].site_mask(sites)
        assert small is not None and small.shape == (6, sites, 1)
        wanted = torch.nn.functional.interpolate(
            masks[:, 0, number : number + 1], (side, side), mode="bilinear", antialias=True
        )
        torch.testing.assert_close(small[::3].reshape(2, 1, side, side), wanted)
        assert torch.equal(small[0], small[2])


def test_the_columns_are_those_of_the_extractors() -> None:
    assert sorted(au_columns()) == sorted(unit.column for unit in ACTION_UNITS)
    assert au_columns()[:2] == ("AU01", "AU02") and au_columns()[len(UPPER_AUS)] == "AU10"


def some_aus(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    draw = seeded(seed)
    return torch.rand(2, 5, 17, generator=draw), torch.rand(2, 17, generator=draw)


def guidance(config: AuConfig = AUS) -> AuGuidance:
    torch.manual_seed(0)
    return AuGuidance(config)


@torch.no_grad()
def test_tokens_are_the_stated_encoder_of_the_residual() -> None:
    network = guidance(replace(AUS, scale=5.0)).double()
    aus, neutral = (value.double() for value in some_aus())
    found = network(aus, neutral)

    def norm(x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)

    residual = (aus - neutral[:, None]).numpy() / 5
    for half, place in (("upper", slice(0, 8)), ("lower", slice(8, 17))):
        p = {k: v.numpy() for k, v in network.get_submodule(half).named_parameters()}
        h = residual[..., place] @ p["first.weight"].T + p["first.bias"]
        for block in range(2):
            name = f"blocks.{block}."
            y = norm(h) @ p[f"{name}first.weight"].T + p[f"{name}first.bias"]
            h = h + (y / (1 + np.exp(-y))) @ p[f"{name}second.weight"].T + p[f"{name}second.bias"]
        tokens = norm((norm(h) @ p["last.weight"].T + p["last.bias"]).reshape(2, 5, 3, 8))
        np.testing.assert_allclose(getattr(found, half).numpy(), tokens, rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_halves_of_the_face_do_not_meet() -> None:
    network, (aus, neutral) = guidance(), some_aus()
    before = network(aus, neutral)
    for column in range(17):
        moved = aus.clone()
        moved[..., column] += 0.5
        after = network(moved, neutral)
        is_upper = column < len(UPPER_AUS)
        assert torch.equal(after.upper, before.upper) != is_upper
        assert torch.equal(after.lower, before.lower) == is_upper


@torch.no_grad()
def test_units_can_be_left_unread() -> None:
    """Then they are as those of the neutral face, whatever the columns have, and every other unit is read."""
    some, (aus, neutral) = guidance(replace(AUS, unread=(6, 26))), some_aus()
    at_rest, unread = aus.clone(), [place for place, name in enumerate(au_columns()) if name in ("AU06", "AU26")]
    at_rest[..., unread] = neutral[:, None, unread]
    found, wanted = some(aus, neutral), guidance()(at_rest, neutral)
    torch.testing.assert_close((found.upper, found.lower), (wanted.upper, wanted.lower))
    bare = replace(AUS, unread=(6, 26), neutral="none")
    at_zero = aus.clone()
    at_zero[..., unread] = 0
    found, wanted = guidance(bare)(aus, None), guidance(replace(bare, unread=()))(at_zero, None)
    torch.testing.assert_close((found.upper, found.lower), (wanted.upper, wanted.lower))
    for column in set(range(17)) - set(unread):
        moved = aus.clone()
        moved[..., column] += 0.5
        before, after = some(aus, neutral), some(moved, neutral)
        assert not torch.equal(after.upper, before.upper) or not torch.equal(after.lower, before.lower)


def test_gradients_keep_the_halves_apart_too() -> None:
    network, (aus, neutral) = guidance(), some_aus()
    aus.requires_grad_(True)
    network(aus, neutral).upper.square().sum().backward()
    assert aus.grad is not None
    assert not aus.grad[..., len(UPPER_AUS) :].any()
    assert [p for p in network.lower.parameters() if p.grad is not None] == []


@torch.no_grad()
def test_people_with_other_neutral_faces_give_the_same_tokens() -> None:
    network, (aus, neutral) = guidance(), some_aus()
    shift = torch.full((2, 17), 0.25)
    found, same = network(aus + shift[:, None], neutral + shift), network(aus, neutral)
    torch.testing.assert_close(found.upper, same.upper, rtol=1e-3, atol=1e-4)
    plain = guidance(replace(AUS, neutral="none"))
    assert torch.equal(plain(aus, None).lower, plain(aus, neutral).lower)


def test_neutral_faces_are_means_over_neutral_frames() -> None:
    values = np.arange(17, dtype=np.float32) + np.array([[0], [1], [2], [30]], np.float32)
    values[1] = np.nan
    np.testing.assert_allclose(identity_neutral(values, np.array([True, True, True, False])), np.arange(17) + 1)
    np.testing.assert_allclose(identity_neutral(values, np.zeros(4, bool)), np.arange(17) + 2)


def test_bad_intensities_are_named() -> None:
    values = np.zeros((4, 17), np.float32)
    with pytest.raises(InputError, match=r"\(T, 17\)"):
        identity_neutral(values[:, :16])
    values[:, 8] = np.nan
    with pytest.raises(InputError, match="no value of AU10"):
        identity_neutral(values)
    network, (aus, neutral) = guidance(), some_aus()
    with pytest.raises(InputError, match="16 AUs, not 17"):
        network(aus[..., 1:], neutral)
    with pytest.raises(InputError, match="lacks au_neutral"):
        network(aus, None)
    aus[1, 2, 3] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        network(aus, neutral)


def test_all_units_belong_to_one_half() -> None:
    assert len(UPPER_AUS) == 8 and len(LOWER_AUS) == 9 and not set(UPPER_AUS) & set(LOWER_AUS)
