"""Diffusion in discrete steps: schedule, zero terminal SNR, v-prediction, min-SNR weights, DDIM.

With a_t the product of 1 - beta up to step t (alpha bar) and SNR_t = a_t / (1 - a_t):

    x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) eps
    v_t = sqrt(a_t) eps - sqrt(1 - a_t) x_0              T. Salimans and J. Ho, 2022
    x_0 = sqrt(a_t) x_t - sqrt(1 - a_t) v_t
    eps = sqrt(a_t) v_t + sqrt(1 - a_t) x_t

    zero terminal SNR (S. Lin et al., 2024, algorithm 1), with r_t = sqrt(a_t):

        r_t <- (r_t - r_T) r_1 / (r_1 - r_T)             the last is 0, the first stays

    weight of a step for v-prediction (T. Hang et al., 2023), S = SNR:

        paper     min(S, gamma) / (S + 1)
        released  min(S + 1, gamma) / (S + 1)            Hallo's code; 1 where S = 0

    DDIM without noise (J. Song et al., 2021), s the step before t:

        x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) eps

Steps of sampling are spaced backwards from the last ("trailing"), so that sampling starts from pure noise as trained.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..diffusion.tensors import along, randn
from .config import DiffusionConfig, Schedule


def alpha_bars(config: DiffusionConfig, schedule: Schedule) -> torch.Tensor:
    """a_t for t = 0 ... T - 1, float64 (T,), falling; the last is 0 with `zero_snr`."""
    if schedule == "linear":
        betas = torch.linspace(config.beta_start, config.beta_end, config.steps, dtype=torch.float64)
    else:
        roots = (config.beta_start**0.5, config.beta_end**0.5)
        betas = torch.linspace(*roots, config.steps, dtype=torch.float64) ** 2
    products = torch.cumprod(1 - betas, 0)
    return zero_terminal_snr(products) if config.zero_snr else products


def zero_terminal_snr(products: torch.Tensor) -> torch.Tensor:
    """Lin et al.'s algorithm 1 on alpha bars (T,)."""
    roots = products.sqrt()
    first, last = roots[0], roots[-1]
    return ((roots - last) * (first / (first - last))) ** 2


def trailing_steps(config: DiffusionConfig, count: int) -> torch.Tensor:
    """Steps of sampling, int64 (count,), from T - 1 down: round(T - i T / count) - 1."""
    places = config.steps - torch.arange(count, dtype=torch.float64) * (config.steps / count)
    return places.round().long() - 1


class VPrediction:
    """The algebra above for one schedule. Steps are int64 tensors (B,) or a scalar; x is (B, ...)."""

    def __init__(self, config: DiffusionConfig, schedule: Schedule) -> None:
        self.config = config
        self.products = alpha_bars(config, schedule)

    def signal_and_noise(self, step: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """sqrt(a_t) and sqrt(1 - a_t), shaped to multiply x. A step below 0 is the clean picture: a = 1."""
        known = self.products[step.clamp_min(0).cpu()]
        product = torch.where(step.cpu() < 0, torch.ones_like(known), known).to(x.device)
        return along(product.sqrt(), x), along((1 - product).sqrt(), x)

    def noisy(self, clean: torch.Tensor, noise: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """x_t."""
        signal, rest = self.signal_and_noise(step, clean)
        return signal * clean + rest * noise

    def velocity(self, clean: torch.Tensor, noise: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """v_t."""
        signal, rest = self.signal_and_noise(step, clean)
        return signal * noise - rest * clean

    def clean(self, x: torch.Tensor, velocity: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """x_0 from x_t and v_t."""
        signal, rest = self.signal_and_noise(step, x)
        return signal * x - rest * velocity

    def noise(self, x: torch.Tensor, velocity: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """eps from x_t and v_t."""
        signal, rest = self.signal_and_noise(step, x)
        return signal * velocity + rest * x

    def weight(self, step: torch.Tensor) -> torch.Tensor:
        """min-SNR weight of steps (B,), float64; 1 with gamma 0."""
        product = self.products[step.cpu()].to(step.device)
        if self.config.snr_gamma == 0:
            return torch.ones_like(product)
        # With S = a / (1 - a): 1 / (S + 1) = 1 - a, and S / (S + 1) = a. No division by zero noise.
        most = self.config.snr_gamma * (1 - product)
        share = product if self.config.snr_weight == "paper" else torch.ones_like(product)
        return torch.minimum(share, most)

    def draw(self, batch: int, generator: torch.Generator | None, device: torch.device) -> torch.Tensor:
        """Steps of a training batch, int64 (batch,): uniform, or the largest of `draws`."""
        place = generator.device if generator is not None else device
        drawn = torch.randint(self.config.steps, (self.config.draws, batch), generator=generator, device=place)
        return drawn.amax(0).to(device)

    def ddim(
        self, predict: Callable[[torch.Tensor, int], torch.Tensor], noise: torch.Tensor, count: int
    ) -> torch.Tensor:
        """Solves from pure noise down to x_0.

        Args:
            predict: (x_t, t) -> v_t.
            noise: standard normal, any shape.
            count: steps.
        """
        x, steps = noise, trailing_steps(self.config, count).tolist()
        for now, after in zip(steps, [*steps[1:], -1], strict=True):
            step, following = torch.tensor(now), torch.tensor(after)
            velocity = predict(x, now)
            signal, rest = self.signal_and_noise(following, x)
            x = signal * self.clean(x, velocity, step) + rest * self.noise(x, velocity, step)
        return x


def draw_noise(like: torch.Tensor, config: DiffusionConfig, generator: torch.Generator | None) -> torch.Tensor:
    """eps for latents (B, F, C, h, w): standard normal, and `noise_offset` times one number a clip and channel."""
    noise = randn(like, generator)
    if config.noise_offset:
        noise = noise + config.noise_offset * randn(like[:, :1, :, :1, :1], generator)
    return noise
