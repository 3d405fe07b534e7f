"""Pictures to latents and back, and the small VAE that preset tiny has for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from talkforge.core.errors import ConfigError, InputError
from talkforge.models.diffusion.batch import need, prepare, render
from talkforge.models.diffusion.config import VaeConfig, WindowsConfig
from talkforge.models.diffusion.tiny_vae import (
    TinyEncoders,
    TinyVae,
    add_vae_loss,
    arrival,
    as_seen,
    block_cosines,
    departure,
    vae_alone,
    vae_loss,
)

CONFIG = VaeConfig(kind="tiny", downsamples=2, channels=16, scaled_reference=True)


class Halves:
    """Latents are half of a picture's first two rows."""

    def encode(self, pictures: torch.Tensor, *, scaled: bool = True) -> torch.Tensor:
        return pictures[:, :, :2] / (2 if scaled else 1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents * 2

    def embed(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.flatten(1)[:, :3]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def filmed() -> dict[str, Any]:
    return {
        name: torch.rand(shape, generator=seeded())
        for name, shape in {"pictures": (2, 3, 3, 4, 4), "motion": (2, 1, 3, 4, 4), "portrait": (2, 3, 4, 4)}.items()
    }


@pytest.mark.parametrize("scaled", [True, False])
def test_a_batch_is_encoded_frame_by_frame(scaled: bool) -> None:
    batch = filmed()
    done = prepare(batch, Halves(), system="X", embedding="who", scaled_reference=scaled)
    assert torch.equal(done["latents"], batch["pictures"][..., :2, :] / 2)
    assert torch.equal(done["motion_latents"], batch["motion"][..., :2, :] / 2)
    assert torch.equal(done["reference"], batch["portrait"][..., :2, :] / (2 if scaled else 1))
    assert torch.equal(done["who"], batch["portrait"].flatten(1)[:, :3])
    assert prepare(done, None, system="X", embedding="who").keys() == done.keys()


def test_what_cannot_be_encoded_is_named() -> None:
    with pytest.raises(InputError, match="batch of X needs 'latents', or 'pictures' and encoders"):
        prepare(filmed(), None, system="X", embedding="who")
    with pytest.raises(InputError, match="needs 'reference', or 'portrait'"):
        prepare({}, Halves(), system="X", embedding="who")
    with pytest.raises(InputError, match="needs 'who', or 'portrait'"):
        prepare({"reference": torch.zeros(1)}, Halves(), system="X", embedding="who")
    with pytest.raises(InputError, match="batch of X lacks b, c"):
        need("X", {"a": 1}, "a", "b", "c")


@pytest.mark.parametrize(("interpolation", "levels"), [("none", [0, 255, 0]), ("linear", [0, 128, 255, 96, 0])])
def test_latents_become_pictures_of_whole_numbers(interpolation: Any, levels: list[int]) -> None:
    """Decoded: -1, 1 and -1.5, which is cut; half way between are 0 and -0.25."""
    latents = torch.tensor([-0.5, 0.5, -0.75]).reshape(1, 3, 1, 1, 1).expand(2, 3, 3, 2, 4)
    found = render(latents, Halves(), WindowsConfig(decode_chunk=2, interpolation=interpolation))
    assert found.dtype == torch.uint8 and found.shape == (2, len(levels), 2, 4, 3)
    assert found[1, :, 1, 2, 0].tolist() == levels
    with pytest.raises(InputError, match="decoding needs encoders"):
        render(latents, None, WindowsConfig())


@pytest.mark.parametrize("block", [2, 4, 8])
def test_a_block_s_patterns_are_scipy_s_cosine_transform(block: int) -> None:
    """All of a block: an orthonormal basis, of brightness (colours alike) and of two differences between colours."""
    patterns = block_cosines(block, 3 * block**2).double().numpy()
    flat = patterns.reshape(len(patterns), -1)
    assert flat @ flat.T == pytest.approx(np.eye(len(flat)), abs=1e-6)
    spectrum = dctn(patterns.reshape(len(flat), 3, block, block), axes=(2, 3), norm="ortho")
    peaks = np.abs(spectrum).max(1).reshape(len(flat), -1)
    assert np.sort(peaks, axis=1)[:, :-1] == pytest.approx(np.zeros((len(flat), block**2 - 1)), abs=1e-6)
    assert len(set(map(tuple, spectrum.round(4).reshape(len(flat), -1)))) == len(flat)


def test_the_coarsest_patterns_come_first() -> None:
    """1: the mean brightness; 3: it runs along each side; the colours' means come after two cycles of brightness."""
    patterns = block_cosines(4, 12)
    assert patterns[0] == pytest.approx(torch.full((3, 4, 4), 48**-0.5), abs=1e-6)
    assert patterns[1:3].sum((1, 2, 3)).abs().max() < 1e-6
    colourless = [bool(torch.allclose(one[0], one[1], atol=1e-6)) for one in patterns]
    assert colourless.index(False) == 6
    with pytest.raises(ConfigError, match="13 latent channels for blocks of 2 x 2"):
        block_cosines(2, 13)


@torch.no_grad()
@pytest.mark.parametrize(("channels", "error"), [(48, 0.0), (24, None)])
def test_the_untrained_vae_is_its_transform(channels: int, error: float | None) -> None:
    """All patterns give the picture back; what 24 lose is what the other 24 carry (Parseval)."""
    pictures = torch.rand(2, 3, 16, 16, generator=seeded()) * 2 - 1
    vae = TinyVae(CONFIG, channels, 0.5)
    lost = float((vae.decode(vae.encode(pictures)) - pictures).square().sum())
    rest = TinyVae(CONFIG, 48, 0.5).encode(pictures, scaled=False)[:, channels:]
    assert lost == pytest.approx(float(rest.square().sum()) if error is None else error, rel=1e-4, abs=1e-6)


@torch.no_grad()
def test_the_vae_keeps_whole_precision_under_autocast() -> None:
    vae, pictures = TinyVae(CONFIG, 48, 0.5), torch.rand(2, 3, 16, 16, generator=seeded()) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        latents = vae.encode(pictures)
        again = vae.decode(latents)
        coarse = vae.decode(latents.bfloat16())
    assert latents.dtype == again.dtype == coarse.dtype == torch.float32
    assert float((again - pictures).abs().max()) < 1e-5


@torch.no_grad()
def test_the_tiny_vae_reconstructs_shapes_and_follows_its_spread() -> None:
    torch.manual_seed(0)
    vae, pictures = TinyVae(replace(CONFIG, residual=True), 4, 0.5), torch.rand(3, 2, 3, 32, 32) * 2 - 1
    portrait = pictures[:, 0] / 2
    for _ in range(200):
        vae_loss(vae.train(), pictures, portrait, seeded())
    latents = vae.encode(pictures.flatten(0, 1)).unflatten(0, (3, 2))
    assert latents.square().mean((0, 1, 3, 4)).sqrt() == pytest.approx(torch.full((4,), 0.5), rel=1e-2)
    reference = vae.encode(portrait)
    change = departure_of(vae, latents, reference)
    assert change.square().mean((0, 1, 3, 4)).sqrt() == pytest.approx(torch.full((4,), 0.5), rel=1e-2)
    torch.testing.assert_close(vae.arrival(change, reference), latents)
    assert not torch.allclose(change, latents)
    assert vae.decode(vae.encode(portrait)).shape == portrait.shape
    vae.eval()
    before = vae.spread.clone(), vae.change.clone()
    vae_loss(vae, pictures, portrait, seeded())
    assert torch.equal(vae.spread, before[0]) and torch.equal(vae.change, before[1])


def departure_of(vae: TinyVae, latents: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Through an encoders' module; without one, and without `residual`, latents are what is denoised."""
    encoders = TinyEncoders(vae.config, 4, 0.5, 8)
    encoders.vae = vae
    assert departure(None, latents, reference) is latents is arrival(None, latents, reference)
    plain = TinyEncoders(CONFIG, 4, 0.5, 8)
    assert departure(plain, latents, reference) is latents is arrival(plain, latents, reference)
    return departure(encoders, latents, reference)


@torch.no_grad()
@pytest.mark.parametrize("residual", [False, True])
def test_errors_count_as_they_do_in_pictures(residual: bool) -> None:
    """With an orthonormal transform and nothing learnt, a picture's square error is the latents', up to one factor."""
    encoders = TinyEncoders(replace(CONFIG, residual=residual), 6, 0.5, 8)
    vae, reference, draws = encoders.vae, torch.zeros(2, 6, 4, 4), seeded()
    for kept in (vae.spread, vae.change):
        kept.copy_(torch.rand(6, generator=draws) + 0.1)
    errors = [torch.randn(2, 3, 6, 4, 4, generator=draws) for _ in range(2)]
    seen = [float(as_seen(encoders, error).square().sum()) for error in errors]
    shown = [float(vae.decode(vae.arrival(error, reference).flatten(0, 1)).square().sum()) for error in errors]
    assert seen[0] / seen[1] == pytest.approx(shown[0] / shown[1], rel=1e-4)
    assert float(vae.importance.square().mean()) == pytest.approx(1)
    assert as_seen(None, errors[0]) is errors[0]


def test_a_still_portrait_departs_from_itself_by_nothing() -> None:
    vae = TinyVae(replace(CONFIG, residual=True), 4, 0.5)
    reference = torch.randn(2, 4, 8, 8, generator=seeded())
    assert not vae.departure(reference[:, None].expand(-1, 3, -1, -1, -1), reference).any()


def test_the_vaes_divergence_is_that_of_gaussians() -> None:
    """KL(N(m, v) || N(0, 1)) = (m^2 + v - 1 - ln v) / 2."""
    vae = TinyVae(CONFIG, 4, 0.5).eval()
    moments = torch.tensor(0.6), torch.tensor(2.0).log()
    vae.moments = lambda pictures: tuple(value.expand(3, 4, 8, 8) for value in moments)  # type: ignore[method-assign]
    _, parts = vae_loss(vae, torch.zeros(3, 1, 3, 32, 32), torch.zeros(3, 3, 32, 32), seeded())
    assert float(parts["kl"]) == pytest.approx((0.36 + 2 - 1 - 0.6931472) / 2, rel=1e-5)


def test_the_vaes_loss_is_added_while_it_learns() -> None:
    torch.manual_seed(0)
    batch = {"pictures": torch.rand(1, 2, 3, 32, 32) * 2 - 1, "portrait": torch.rand(1, 3, 32, 32) * 2 - 1}
    one = torch.ones(())
    alone = TinyEncoders(VaeConfig(kind="tiny", downsamples=2, channels=16, alone_steps=1, joint=False), 4, 1.0, 8)
    assert vae_alone(alone, training=True) and not vae_alone(alone, training=False)
    total, parts = add_vae_loss(one, {"own": 1.0}, alone, batch, seeded())
    assert parts.keys() == {"own", "reconstruction", "kl"} and float(total.detach()) > 1
    assert not vae_alone(alone, training=True)  # one step is over
    assert add_vae_loss(one, {"own": 1.0}, alone, batch, seeded()) == (one, {"own": 1.0})
    assert add_vae_loss(one, {}, None, batch, seeded()) == (one, {}) and not vae_alone(None, training=True)
    assert alone.embed(batch["pictures"][:, 0]).shape == (1, 8)
