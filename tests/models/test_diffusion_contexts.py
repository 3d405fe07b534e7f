"""What a pass leaves for the layers of a UNet: grids, masks, the slot."""

from __future__ import annotations

import pytest
import torch
from talkforge.core.errors import InputError
from talkforge.models.diffusion.config import PoseGuiderConfig
from talkforge.models.diffusion.contexts import AddPose, Contexts, ContextSlot, grid_of
from talkforge.models.diffusion.pose_guider import face_mask


@pytest.mark.parametrize(("sites", "grid"), [(45, (9, 5)), (15, (5, 3)), (6, (3, 2)), (2, (2, 1))])
def test_grids_halve_and_round_up(sites: int, grid: tuple[int, int]) -> None:
    assert grid_of(sites, (9, 5)) == grid


def test_a_number_of_sites_that_is_no_grid_is_refused() -> None:
    with pytest.raises(InputError, match="has 44 sites"):
        grid_of(44, (9, 5))


@pytest.mark.parametrize("resize", ["area", "nearest", "bilinear"])
def test_masks_of_one_value_stay_it_on_every_grid(resize: str) -> None:
    given = Contexts({}, torch.full((2, 1, 1, 16, 16), 0.5), 3, (4, 4), resize, pose=torch.zeros(()))
    for sites in (16, 4, 1):
        found = given.site_mask(sites)
        assert found is not None and found.shape == (6, sites, 1)
        torch.testing.assert_close(found, torch.full_like(found, 0.5))


def test_face_masks_are_boxes_grown_by_a_tenth() -> None:
    mask = face_mask((10, 20, 30, 60), 64, 48, PoseGuiderConfig())  # 20 x 40 grows to 22 x 44
    assert mask.shape == (1, 64, 48)
    assert mask.sum() == 22 * 44 and mask[0, 18:62, 9:31].all()
    assert face_mask((-20, 40, 10, 90), 64, 48, PoseGuiderConfig()).nonzero().amax(0).tolist() == [0, 63, 11]
    with pytest.raises(InputError, match="covers nothing"):
        face_mask((60, 0, 70, 10), 64, 48, PoseGuiderConfig())


def test_a_slot_is_empty_outside_of_a_pass_and_passes_nest() -> None:
    slot = ContextSlot()
    outer, inner = (Contexts({}, None, 1, (1, 1), "area", pose=torch.tensor(number)) for number in (2.0, 3.0))
    hook, network = AddPose(slot), torch.nn.Identity()
    with slot.filled(outer):
        with slot.filled(inner):
            assert float(hook(network, None, torch.tensor(1.0))) == 4
        assert float(hook(network, None, torch.tensor(1.0))) == 3
    with pytest.raises(InputError, match="through its denoiser"):
        slot.get()
