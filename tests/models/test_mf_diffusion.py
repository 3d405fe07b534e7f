"""Noise schedule, v-prediction, min-SNR and DDIM against numpy, closed forms and diffusers' scheduler."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from talkforge.core.errors import ConfigError
from talkforge.models.diffusers_import import import_extra
from talkforge.models.mf_etalk.config import DiffusionConfig
from talkforge.models.mf_etalk.diffusion import (
    VPrediction,
    alpha_bars,
    draw_noise,
    trailing_steps,
    zero_terminal_snr,
)
from talkforge.tests.models.dice_talk_cases import needs_diffusers
from talkforge.tests.models.test_mf_cases import seeded

HALLO = DiffusionConfig()
STEPS = np.array([0, 1, 250, 700, 998, 999])
SCHEDULES = ("linear", "scaled_linear")


def products(schedule: str) -> np.ndarray:
    betas = np.linspace(0.00085, 0.012, 1000)
    if schedule == "scaled_linear":
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return np.cumprod(1 - betas)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_rescaling_the_schedule_is_the_bases(schedule: str) -> None:
    found = alpha_bars(replace(HALLO, zero_snr=False), schedule).numpy()
    np.testing.assert_allclose(found, products(schedule), rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_last_step_is_pure_noise_and_the_first_stays(schedule: str) -> None:
    before, found = products(schedule), alpha_bars(HALLO, schedule).numpy()
    roots = np.sqrt(before)
    wanted = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert found[-1] == 0 and found[0] == pytest.approx(before[0], rel=1e-12)
    assert (np.diff(found) < 0).all()


def test_rescaling_twice_changes_nothing() -> None:
    once = zero_terminal_snr(torch.from_numpy(products("linear")))
    torch.testing.assert_close(zero_terminal_snr(once), once)


@needs_diffusers
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_schedule_is_that_of_diffusers(schedule: str) -> None:
    reference = import_extra("diffusers").DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule=schedule, rescale_betas_zero_snr=True
    )
    np.testing.assert_allclose(alpha_bars(HALLO, schedule), reference.alphas_cumprod, atol=2e-5)


def test_velocity_is_the_stated_mix_and_goes_round() -> None:
    algebra, step = VPrediction(HALLO, "scaled_linear"), torch.from_numpy(STEPS)
    clean, noise = torch.randn(2, len(STEPS), 3, 4, dtype=torch.float64, generator=seeded())
    a = alpha_bars(HALLO, "scaled_linear").numpy()[STEPS][:, None, None]
    x, v = algebra.noisy(clean, noise, step), algebra.velocity(clean, noise, step)
    np.testing.assert_allclose(x, np.sqrt(a) * clean.numpy() + np.sqrt(1 - a) * noise.numpy(), rtol=1e-12)
    np.testing.assert_allclose(v, np.sqrt(a) * noise.numpy() - np.sqrt(1 - a) * clean.numpy(), rtol=1e-12)
    torch.testing.assert_close(algebra.clean(x, v, step), clean)
    torch.testing.assert_close(algebra.noise(x, v, step), noise)


@pytest.mark.parametrize("kind", ["released", "paper"])
def test_weights_are_min_snr(kind: str) -> None:
    found = VPrediction(replace(HALLO, snr_weight=kind), "scaled_linear").weight(torch.from_numpy(STEPS)).numpy()
    a = alpha_bars(HALLO, "scaled_linear").numpy()[STEPS]
    with np.errstate(divide="ignore"):
        snr = a / (1 - a)
    top = snr + 1 if kind == "released" else snr
    np.testing.assert_allclose(found, np.minimum(top, 5) / (snr + 1), rtol=1e-9)
    assert found[-1] == (1 if kind == "released" else 0)


def test_gamma_of_zero_weighs_all_steps_the_same() -> None:
    weights = VPrediction(replace(HALLO, snr_gamma=0.0), "linear").weight(torch.from_numpy(STEPS))
    assert weights.tolist() == [1.0] * len(STEPS)


@needs_diffusers
@pytest.mark.parametrize("count", [40, 8])
def test_sampling_is_that_of_hallos_scheduler(count: int) -> None:
    """Scheduler settings: Hallo's inference configuration."""
    reference = import_extra("diffusers").DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        clip_sample=False,
        steps_offset=1,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    reference.set_timesteps(count)
    assert trailing_steps(HALLO, count).tolist() == reference.timesteps.tolist()
    noise = torch.randn(1, 2, 3, dtype=torch.float64, generator=seeded())

    def network(x: torch.Tensor, step: int) -> torch.Tensor:
        return torch.sin(2 * x) * (0.3 + step / 2000)

    x = noise
    for step in reference.timesteps:
        x = reference.step(network(x, int(step)), step, x).prev_sample
    found = VPrediction(HALLO, "linear").ddim(network, noise, count)
    torch.testing.assert_close(found, x, rtol=2e-4, atol=2e-4)


def test_sampling_ends_at_the_picture_that_is_always_predicted() -> None:
    algebra, target = VPrediction(HALLO, "linear"), torch.tensor([0.5, -2.0], dtype=torch.float64)

    def network(x: torch.Tensor, step: int) -> torch.Tensor:
        signal, rest = algebra.signal_and_noise(torch.tensor(step), x)
        return (signal * x - target) / rest  # the velocity whose clean picture is the target

    torch.testing.assert_close(algebra.ddim(network, torch.randn(2, dtype=torch.float64), 7), target)


def test_offset_noise_is_shared_by_a_clips_channel() -> None:
    like = torch.zeros(3, 4, 2, 8, 8)
    plain = draw_noise(like, replace(HALLO, noise_offset=0.0), seeded())
    shift = draw_noise(like, replace(HALLO, noise_offset=0.5), seeded()) - plain
    torch.testing.assert_close(shift, shift[:, :1, :, :1, :1].expand(shift.shape))
    assert len(shift[:, 0, :, 0, 0].unique()) == 6


def test_the_largest_of_several_draws_sees_more_noise() -> None:
    """Of n uniform numbers on 0..1 the largest has the distribution t^n: a half is passed in 1 - 2^-n of all cases."""
    for draws in (1, 2, 3):
        algebra = VPrediction(replace(HALLO, draws=draws), "linear")
        drawn = algebra.draw(20_000, seeded(), torch.device("cpu"))
        share = float((drawn >= 500).float().mean())
        assert drawn.shape == (20_000,) and share == pytest.approx(1 - 0.5**draws, abs=0.01)


def test_steps_are_drawn_from_the_whole_schedule() -> None:
    drawn = VPrediction(replace(HALLO, steps=10, sample_steps=5), "linear").draw(2000, seeded(), torch.device("cpu"))
    assert drawn.unique().tolist() == list(range(10))


def test_schedules_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="beta_end"):
        DiffusionConfig(beta_end=0.0001)
    with pytest.raises(ConfigError, match="sample_steps"):
        DiffusionConfig(steps=20)
