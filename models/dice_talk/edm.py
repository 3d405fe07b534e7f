"""Diffusion in the framework of EDM: preconditioning, noise levels, loss weights, the schedule and Euler's method.

T. Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022, table 1 and
algorithm 1 (deterministic, without its second-order correction, as Stable Video Diffusion samples). With sigma the
noise level of x = y + sigma eps and F the network:

    D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)
    loss        = w(sigma) |D(y + sigma eps; sigma) - y|^2

EDM has c_skip = s_d^2 / (sigma^2 + s_d^2), c_out = sigma s_d / sqrt(sigma^2 + s_d^2), c_in = 1 / sqrt(sigma^2 + s_d^2),
c_noise = ln(sigma) / 4 and w = (sigma^2 + s_d^2) / (sigma s_d)^2 = 1 / c_out^2. Stable Video Diffusion (2023,
appendix D) is the same with s_d = 1 and the sign of c_out turned, which makes F the velocity of v-prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

from ..diffusion.tensors import along, randn
from .denoiser_config import DiffusionConfig

# (x, sigma as a scalar tensor, index of the step) -> D(x; sigma)
DenoiseFn = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]


class Preconditioning:
    """The four factors around a network as functions of sigma, tensors of any shape."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.sigma_data = config.sigma_data
        self.sign = -1.0 if config.parametrisation == "svd" else 1.0
        self.weighting = config.weight

    def c_skip(self, sigma: torch.Tensor) -> torch.Tensor:
        return self.sigma_data**2 / (sigma**2 + self.sigma_data**2)

    def c_out(self, sigma: torch.Tensor) -> torch.Tensor:
        return self.sign * sigma * self.sigma_data * self.c_in(sigma)

    def c_in(self, sigma: torch.Tensor) -> torch.Tensor:
        return (sigma**2 + self.sigma_data**2).rsqrt()

    def c_noise(self, sigma: torch.Tensor) -> torch.Tensor:
        return sigma.log() / 4

    def weight(self, sigma: torch.Tensor) -> torch.Tensor:
        """w(sigma). `epsilon` makes the loss that of noise prediction: |D - y|^2 / sigma^2 = |eps' - eps|^2."""
        return sigma**-2 if self.weighting == "epsilon" else self.c_out(sigma) ** -2

    def denoised(self, output: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """D from the network's output for x (B, ...); sigma (B,) or a scalar."""
        return along(self.c_skip(sigma), x) * x + along(self.c_out(sigma), x) * output

    def scaled(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """c_in x, what the network reads."""
        return along(self.c_in(sigma), x) * x

    def loss(self, denoised: torch.Tensor, target: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """w(sigma) times the mean square over all but the first axis, per clip: (B,)."""
        return self.weight(sigma) * (denoised - target).square().flatten(1).mean(1)


def draw_sigma(like: torch.Tensor, config: DiffusionConfig, generator: torch.Generator | None) -> torch.Tensor:
    """Noise levels of a training batch, ln sigma ~ N(log_mean, log_std^2); in the form of `like`, say (B,)."""
    return (config.log_mean + config.log_std * randn(like, generator)).exp()


def add_noise(clean: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """y + sigma eps, y (B, ...), sigma (B,)."""
    return clean + along(sigma, clean) * randn(clean, generator)


def schedule(config: DiffusionConfig, steps: int | None = None) -> torch.Tensor:
    """Noise levels of sampling, float64 (steps + 1,), falling, the last one 0.

    t_i = (max^(1/rho) + i / (n - 1) (min^(1/rho) - max^(1/rho)))^rho, EDM eq. 5.
    """
    count = config.steps if steps is None else steps
    high, low = config.sigma_max ** (1 / config.rho), config.sigma_min ** (1 / config.rho)
    ramp = torch.linspace(0, 1, count, dtype=torch.float64)
    return torch.cat([(high + ramp * (low - high)) ** config.rho, torch.zeros(1, dtype=torch.float64)])


def euler(denoise: DenoiseFn, noise: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Solves dx/dsigma = (x - D(x; sigma)) / sigma from the highest level down.

    Args:
        denoise: D.
        noise: standard normal, any shape; the start is sigmas[0] times it.
        sigmas: (n + 1,), falling, the last one 0 (`schedule`).

    Returns:
        What is left at the last level, as `noise`.
    """
    x = noise * sigmas[0].to(noise.dtype)
    for step, (now, after) in enumerate(pairwise(sigmas)):
        slope = (x - denoise(x, now.to(x), step)) / now.to(x)
        x = x + slope * (after - now).to(x)
    return x
