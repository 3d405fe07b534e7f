"""Noise on the units that a training of MF-ETalk reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from talkforge.core.errors import ConfigError
from talkforge.models.mf_etalk.config import AuConfig
from talkforge.models.mf_etalk.model import MfEtalk
from talkforge.tests.models.dice_talk_cases import needs_diffusers, one_thread
from talkforge.tests.models.test_mf_cases import a_batch, build, seeded, small

CONFIG = small()


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    with one_thread():
        yield


def noised(noise: float, **changes: Any) -> MfEtalk:
    return build(small(au=replace(CONFIG.au, noise=noise), **changes))


def units_read(model: MfEtalk, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Intensities (B, F, 17) that a training step makes tokens of."""
    seen: list[torch.Tensor] = []
    assert model.aus is not None
    handle = model.aus.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model(batch, seeded(3))
    handle.remove()
    return seen[0]


@needs_diffusers
def test_units_have_noise_clip_by_clip() -> None:
    batch = a_batch(CONFIG, clips=64)
    added = units_read(noised(0.1), batch) - batch["aus"]
    torch.testing.assert_close(added, added[:, :1].expand_as(added))  # the same in all frames of a clip
    of_clips = added[:, 0]
    count = of_clips.numel()
    assert abs(of_clips.std() / 0.1 - 1) < 4 / (2 * count) ** 0.5
    assert abs(of_clips.mean()) < 4 * 0.1 / count**0.5
    assert torch.equal(units_read(noised(0.0), batch), batch["aus"])


@needs_diffusers
def test_sampling_has_none() -> None:
    batch = a_batch(CONFIG)
    plain, same = (noised(noise).sample(batch, seeded(), steps=2) for noise in (0.0, 0.5))
    assert torch.equal(plain, same)


@needs_diffusers
def test_without_noise_nothing_is_drawn_for_units() -> None:
    """A training of before, which knew no such noise, goes on with the same draws."""
    untouched = seeded(3).get_state()
    for model, moves in ((noised(0.0), False), (noised(0.1), True)):
        draws = seeded(3)
        model._training_units(a_batch(CONFIG), draws)
        assert torch.equal(draws.get_state(), untouched) != moves
    assert noised(0.1, stage="image")._training_units(a_batch(CONFIG), seeded()) == {}
    row_a = MfEtalk(small(au=replace(CONFIG.au, noise=0.1)).ablated("a"))
    assert row_a._training_units(a_batch(CONFIG), seeded()) == {}


def test_noise_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"noise is -0\.1, not a finite number from 0 on"):
        AuConfig(noise=-0.1)
