"""EDM's algebra against numpy, its closed forms, and Stable Video Diffusion's sampler in diffusers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from talkforge.core.errors import ConfigError
from talkforge.models.dice_talk.denoiser_config import DiffusionConfig
from talkforge.models.dice_talk.edm import Preconditioning, add_noise, draw_sigma, euler, schedule
from talkforge.models.diffusers_import import import_extra
from talkforge.tests.models.dice_talk_cases import needs_diffusers

SVD, EDM = DiffusionConfig(), DiffusionConfig.edm()
SIGMAS = np.array([0.002, 0.1, 0.5, 1.0, 7.3, 80.0, 700.0])


def rows(config: DiffusionConfig) -> dict[str, np.ndarray]:
    scale, sigma = Preconditioning(config), torch.from_numpy(SIGMAS)
    return {name: getattr(scale, name)(sigma).numpy() for name in ("c_skip", "c_out", "c_in", "c_noise", "weight")}


def test_edm_factors_are_those_of_table_1() -> None:
    s, d = SIGMAS, 0.5
    wanted = {
        "c_skip": d**2 / (s**2 + d**2),
        "c_out": s * d / np.sqrt(s**2 + d**2),
        "c_in": 1 / np.sqrt(s**2 + d**2),
        "c_noise": np.log(s) / 4,
        "weight": (s**2 + d**2) / (s * d) ** 2,
    }
    for name, found in rows(EDM).items():
        np.testing.assert_allclose(found, wanted[name], rtol=1e-12, err_msg=name)


def test_svd_factors_are_those_of_v_prediction() -> None:
    found, s = rows(SVD), SIGMAS
    np.testing.assert_allclose(found["c_skip"], 1 / (s**2 + 1), rtol=1e-12)
    np.testing.assert_allclose(found["c_out"], -s / np.sqrt(s**2 + 1), rtol=1e-12)
    np.testing.assert_allclose(found["c_in"], 1 / np.sqrt(s**2 + 1), rtol=1e-12)
    np.testing.assert_allclose(found["weight"], (s**2 + 1) / s**2, rtol=1e-12)
    # v = cos eps - sin y on the circle x / sqrt(s^2 + 1) = cos y + sin eps, so that D(v) = y.
    y, eps = torch.tensor(0.7, dtype=torch.float64), torch.tensor(-1.3, dtype=torch.float64)
    for sigma in torch.from_numpy(SIGMAS):
        cos, sin = 1 / (sigma**2 + 1).sqrt(), sigma / (sigma**2 + 1).sqrt()
        clean = Preconditioning(SVD).denoised(cos * eps - sin * y, y + sigma * eps, sigma)
        assert float(clean) == pytest.approx(0.7, abs=1e-9)


@pytest.mark.parametrize("config", [SVD, EDM], ids=["svd", "edm"])
def test_inputs_targets_and_loss_have_unit_variance(config: DiffusionConfig) -> None:
    """What EDM derives its factors from (appendix B.6): for data of variance s_d^2."""
    found, s, d = rows(config), SIGMAS, config.sigma_data
    np.testing.assert_allclose(found["c_in"] ** 2 * (s**2 + d**2), 1, rtol=1e-12)
    target_variance = ((1 - found["c_skip"]) ** 2 * d**2 + found["c_skip"] ** 2 * s**2) / found["c_out"] ** 2
    np.testing.assert_allclose(target_variance, 1, rtol=1e-9)
    np.testing.assert_allclose(found["weight"] * found["c_out"] ** 2, 1, rtol=1e-12)


def test_epsilon_weight_is_noise_prediction() -> None:
    scale, sigma = Preconditioning(replace(SVD, weight="epsilon")), torch.tensor([0.3, 4.0])
    clean, eps = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.ones(2, 3, 4)
    noisy, guess = clean + sigma[:, None, None] * eps, clean + 0.2
    predicted = (noisy - guess) / sigma[:, None, None]
    torch.testing.assert_close(scale.loss(guess, clean, sigma), (predicted - eps).square().mean((1, 2)))


def test_each_clip_is_scaled_by_its_own_noise_level() -> None:
    scale, sigma, x = Preconditioning(EDM), torch.tensor([0.5, 2.0]), torch.ones(2, 3, 4, 5, 5)
    assert scale.scaled(x, sigma)[:, 0, 0, 0, 0].tolist() == pytest.approx([2**0.5, 1 / 4.25**0.5])
    assert scale.denoised(x * 0, x, sigma)[:, 0, 0, 0, 0].tolist() == pytest.approx([0.5, 0.25 / 4.25])


@pytest.mark.parametrize(("config", "mean", "std"), [(SVD, 0.7, 1.6), (EDM, -1.2, 1.2)], ids=["svd", "edm"])
def test_noise_levels_are_log_normal(config: DiffusionConfig, mean: float, std: float) -> None:
    count = 40_000
    logs = draw_sigma(torch.empty(count), config, torch.Generator().manual_seed(0)).log()
    assert float(logs.mean()) == pytest.approx(mean, abs=4 * std / count**0.5)
    assert float(logs.std()) == pytest.approx(std, abs=4 * std / (2 * count) ** 0.5)


def test_noise_is_added_in_proportion() -> None:
    clean, sigma = torch.zeros(2, 50, 4, 8, 8), torch.tensor([0.1, 10.0])
    found = add_noise(clean, sigma, torch.Generator().manual_seed(0)).flatten(1).std(1)
    assert (found / sigma).tolist() == pytest.approx([1, 1], abs=0.03)


def test_schedule_is_karras() -> None:
    found, i = schedule(EDM, 25).numpy(), np.arange(25)
    wanted = (80 ** (1 / 7) + i / 24 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(found[:-1], wanted, rtol=1e-12)
    assert found[0] == pytest.approx(80) and found[-2] == pytest.approx(0.002) and found[-1] == 0
    assert len(schedule(SVD)) == 26


def test_euler_on_gaussian_data_is_the_known_product() -> None:
    """For data N(0, s_d^2) the best denoiser is c_skip x: each step multiplies x by a number."""
    scale, sigmas = Preconditioning(EDM), schedule(EDM, 12)
    noise = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = euler(lambda x, sigma, step: scale.c_skip(sigma) * x, noise, sigmas)
    s = sigmas.numpy()
    slopes = (1 - 0.25 / (s[:-1] ** 2 + 0.25)) / s[:-1]
    np.testing.assert_allclose(found.numpy(), noise.numpy() * s[0] * np.prod(1 + slopes * np.diff(s)), rtol=1e-9)
    # The exact flow keeps x / sqrt(sigma^2 + s_d^2), so it ends at s_d noise; many steps come close.
    fine = euler(lambda x, sigma, step: scale.c_skip(sigma) * x, noise, schedule(EDM, 2000))
    np.testing.assert_allclose(fine.numpy(), 0.5 * noise.numpy(), rtol=5e-3)


@needs_diffusers
def test_sampling_is_that_of_the_bases_own_scheduler() -> None:
    """Scheduler configuration: stable-video-diffusion-img2vid-xt-1-1's scheduler_config.json."""
    reference = import_extra("diffusers").EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    reference.set_timesteps(7)
    sigmas, scale = schedule(SVD, 7), Preconditioning(SVD)
    np.testing.assert_allclose(sigmas.numpy(), reference.sigmas.numpy(), rtol=1e-5)
    noise = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(0))

    def network(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return torch.sin(3 * x) + level / 10

    x = noise * sigmas[0].float()
    for level in reference.timesteps:
        x = reference.step(network(reference.scale_model_input(x, level), level), level, x).prev_sample

    def denoise(x: torch.Tensor, sigma: torch.Tensor, step: int) -> torch.Tensor:
        return scale.denoised(network(scale.scaled(x, sigma), scale.c_noise(sigma)), x, sigma)

    torch.testing.assert_close(euler(denoise, noise, sigmas), x, rtol=1e-4, atol=1e-4)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="sigma_data"):
        DiffusionConfig(sigma_data=0.5)
    with pytest.raises(ConfigError, match="sigma_max"):
        DiffusionConfig(sigma_max=0.001)
