"""Drops of training and branches of guidance: shares, closed forms, what each branch keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from talkforge.core.errors import ConfigError
from talkforge.models.dice_talk.denoiser_config import ConditionsConfig, DiceTalkConfig
from talkforge.models.diffusion.conditions import branch_conditions, draw_conditions
from talkforge.models.diffusion.config import Drops, GuidanceConfig
from talkforge.models.diffusion.guidance import BRANCHES, branch_weights, guided
from talkforge.models.mf_etalk.config import MfEtalkConfig


def test_drops_exclude_each_other_and_come_as_often_as_stated() -> None:
    count = 20_000
    keep = draw_conditions(count, Drops(0.05, 0.1, 0.15, 0.2, 0.1), torch.Generator().manual_seed(0))
    rows, counts = keep.int().unique(dim=0, return_counts=True)
    found = {tuple(row.tolist()): int(number) / count for row, number in zip(rows, counts, strict=True)}
    wanted = {(0, 1, 1): 0.05, (1, 0, 1): 0.1, (1, 1, 0): 0.15, (0, 0, 0): 0.2, (0, 1, 0): 0.1, (1, 1, 1): 0.4}
    assert found == pytest.approx(wanted, abs=0.012)


@pytest.mark.parametrize("drops", [(0.3, 0.3, 0.3, 0.3), (-0.1, 0, 0, 0), (0, 0, 0, 1.1), (0.2, 0.2, 0.2, 0.2, 0.3)])
def test_drops_that_are_no_probabilities_are_refused(drops: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match=r"drops exclude each other|not within"):
        Drops(*drops)


def test_a_systems_drops_are_checked_where_they_are_set() -> None:
    with pytest.raises(ConfigError, match="sum to more than 1"):
        ConditionsConfig(drop_audio=0.9, drop_all=0.2)


def test_branches_keep_nothing_the_portrait_or_all() -> None:
    kept = {branch: branch_conditions(branch, torch.zeros(2, 5)).tolist() for branch in BRANCHES}
    assert kept == {"none": [[False] * 3] * 2, "reference": [[False, True, False]] * 2, "full": [[True] * 3] * 2}


@pytest.mark.parametrize(
    ("drops", "guidance"),
    [
        (DiceTalkConfig.tiny().conditions.drops, GuidanceConfig(2.0, 3.0)),
        (MfEtalkConfig.tiny().drops.of("temporal"), GuidanceConfig(2.0, 3.0)),
        (MfEtalkConfig.full().drops.of("temporal"), MfEtalkConfig.full().guidance),
    ],
    ids=["dice-talk-tiny", "mf-etalk-tiny", "mf-etalk-full"],
)
def test_guidance_asks_for_what_training_shows(drops: Drops, guidance: GuidanceConfig) -> None:
    """A branch that no training clip was like would be extrapolated from. The small presets can be guided anyhow.

    (DICE-Talk's published drops lack one.)
    """
    shown = {tuple(row) for row in draw_conditions(5_000, drops, torch.Generator().manual_seed(0)).tolist()}
    asked = {tuple(branch_conditions(branch, torch.zeros(1, 1))[0].tolist()) for branch in branch_weights(guidance)}
    assert asked <= shown


def test_guidance_is_the_stated_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    u, r, f = (torch.randn(2, 3, generator=draw) for _ in range(3))
    given = {"none": u, "reference": r, "full": f}
    found = guided(lambda branch: given[branch], GuidanceConfig(reference=3.0, conditions=6.0))
    torch.testing.assert_close(found, u + 3 * (r - u) + 6 * (f - r))
    same = guided(lambda branch: f, GuidanceConfig(2.5, 7.5))
    torch.testing.assert_close(same, f)


@pytest.mark.parametrize(
    ("reference", "conditions", "branches"),
    [(1, 1, ["full"]), (1, 6, ["reference", "full"]), (3, 3, ["none", "full"]), (3, 0, ["none", "reference"])],
)
def test_branches_without_weight_are_not_computed(reference: float, conditions: float, branches: list[str]) -> None:
    asked: list[str] = []
    guided(lambda branch: asked.append(branch) or torch.zeros(1), GuidanceConfig(reference, conditions))
    assert asked == branches


def test_weights_of_branches_sum_to_one() -> None:
    assert branch_weights(GuidanceConfig()) == {"none": -2, "reference": -3, "full": 6}
