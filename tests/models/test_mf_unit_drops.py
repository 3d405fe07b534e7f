"""Units that a training of MF-ETalk holds at the person's neutral, clip by clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from talkforge.core.errors import ConfigError
from talkforge.models.mf_etalk.config import DropsConfig
from talkforge.models.mf_etalk.model import MfEtalk
from talkforge.tests.models.dice_talk_cases import needs_diffusers, one_thread
from talkforge.tests.models.test_mf_cases import a_batch, seeded, small

CONFIG = small()


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    with one_thread():
        yield


def dropping(share: float, **changes: Any) -> MfEtalk:
    return MfEtalk(small(drops=replace(CONFIG.drops, units=share), **changes))


def units_read(model: MfEtalk, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Intensities (B, F, 17) that a training step makes tokens of."""
    seen: list[torch.Tensor] = []
    assert model.aus is not None
    model.aus.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model(batch, seeded(3))
    return seen[0]


@needs_diffusers
def test_units_are_held_at_neutral_clip_by_clip() -> None:
    batch = a_batch(CONFIG, clips=64)
    aus, neutral = batch["aus"], batch["au_neutral"][:, None].expand_as(batch["aus"])
    found = units_read(dropping(0.5), batch)
    held = (found == neutral).all(1)
    assert torch.equal(found, torch.where(held[:, None], neutral, aus))
    assert abs(held.float().mean() - 0.5) < 4 * (0.25 / held.numel()) ** 0.5
    assert len(held.unique(dim=0)) > 60  # each clip by itself, each unit by itself
    assert torch.equal(units_read(dropping(1.0), batch), neutral)
    assert torch.equal(units_read(dropping(0.0), batch), aus)
    bare = dropping(1.0, au=replace(CONFIG.au, neutral="none"))
    assert torch.equal(units_read(bare, batch), torch.zeros_like(aus))


@needs_diffusers
def test_without_a_share_nothing_is_drawn_for_units() -> None:
    """A training of before, which knew no such share, goes on with the same draws."""
    untouched = seeded(3).get_state()
    for model, moves in ((dropping(0.0), False), (dropping(0.5), True)):
        draws = seeded(3)
        model._training_units(a_batch(CONFIG), draws)
        assert torch.equal(draws.get_state(), untouched) != moves
    assert dropping(0.5, stage="image")._training_units(a_batch(CONFIG), seeded()) == {}
    row_a = MfEtalk(small(drops=replace(CONFIG.drops, units=0.5)).ablated("a"))
    assert row_a._training_units(a_batch(CONFIG), seeded()) == {}


def test_a_share_is_a_probability() -> None:
    with pytest.raises(ConfigError, match=r"units is 1\.5, not within"):
        DropsConfig(units=1.5)
