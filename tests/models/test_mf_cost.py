"""Operations of MF-ETalk: what sampling runs against sums by hand, and what a generated second adds up to."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from talkforge.models.mf_etalk.batch import prepare
from talkforge.models.mf_etalk.config import MfEtalkConfig
from talkforge.models.mf_etalk.cost import FRAME_RATE, count_cost
from talkforge.models.mf_etalk.model import MfEtalk
from talkforge.tests.models.by_hand import operations_by_hand
from talkforge.tests.models.dice_talk_cases import needs_diffusers
from talkforge.tests.models.test_mf_cases import a_batch, seeded, small

pytestmark = needs_diffusers
STEPS = 3
counted = cache(count_cost)


def run_by_hand(config: MfEtalkConfig, clips: int) -> int:
    """All that sampling a video of so many whole clips runs."""
    model = MfEtalk(config).eval()
    batch = a_batch(config, clips=1, frames=clips * config.motion.frames)
    with torch.no_grad():
        given = prepare({key: value for key, value in batch.items() if key != "pictures"}, model.encoders)
    return operations_by_hand(model, lambda: model.sample(given, seeded(), steps=STEPS))


@pytest.mark.parametrize("row", ["a", "c"])
def test_sampling_runs_what_is_counted(row: str) -> None:
    """Two clips, so that what is once a clip, once a branch and once a step is each counted as often as it runs."""
    config = small(diffusion=replace(small().diffusion, sample_steps=STEPS)).ablated(row)
    assert run_by_hand(config, clips=2) == 2 * counted(config).window


def test_one_branch_of_guidance_is_half_of_two() -> None:
    config = small()
    alone = replace(config, guidance=replace(config.guidance, reference=1.0, conditions=1.0))
    assert 2 * counted(alone).window == counted(config).window


def test_coding_a_picture() -> None:
    config = small()
    model, cost = MfEtalk(config).eval(), counted(config)
    assert model.encoders is not None
    vae, latent = model.encoders.vae, torch.zeros(1, 4, 8, 8)
    cosines = 2 * vae.cosines.numel() * 8 * 8  # the transform is no layer
    assert operations_by_hand(vae, lambda: vae.decode(latent)) + cosines == cost.decode
    assert operations_by_hand(vae, lambda: vae.encode(torch.zeros(1, 3, 32, 32))) + cosines == cost.encode


def test_more_frames_and_steps_cost_in_proportion() -> None:
    """But for attention over time, a frame's operations are its own; steps count passes alone."""
    config = small()
    motion = config.motion
    once, twice = (counted(replace(config, motion=replace(motion, frames=n * motion.frames))) for n in (1, 2))
    for name in ("audio_tokens", "au_tokens"):
        assert twice.conditions[name] == 2 * once.conditions[name] > 0
    assert twice.conditions["reference_net"] == once.conditions["reference_net"]
    assert twice.denoise == pytest.approx(2 * once.denoise, rel=0.05)
    assert twice.decode == once.decode
    steps = counted(replace(config, diffusion=replace(config.diffusion, sample_steps=2 * once.steps)))
    assert steps.window - once.window == once.steps * once.branches * once.denoise


def test_row_a_reads_no_action_units() -> None:
    whole, row_a = counted(small()), counted(small().ablated("a"))
    assert row_a.conditions["au_tokens"] == 0 < whole.conditions["au_tokens"]
    assert row_a.denoise < whole.denoise and row_a.conditions["reference_net"] == whole.conditions["reference_net"]


def test_full_size() -> None:
    """Golden: counted here; a change says that the network is another one."""
    cost = counted(MfEtalkConfig.full())
    assert (cost.frames, cost.rate, cost.branches, cost.steps) == (14, FRAME_RATE, 2, 40)
    assert cost.denoise == 23_773_814_456_320
    assert cost.conditions["reference_net"] == 2_391_022_632_960
    assert cost.conditions["audio_tokens"] == pytest.approx(1.0203e9, rel=1e-4)
    assert cost.conditions["au_tokens"] == pytest.approx(5.884e7, rel=1e-4)
    assert cost.encode == pytest.approx(1.1167e12, rel=1e-4)
    assert cost.decode == pytest.approx(2.5145e12, rel=1e-4)
    assert cost.second == pytest.approx(3.4677e15, rel=1e-4)
    assert cost.seconds_at() == pytest.approx(8.76, abs=0.01)
