"""MF-ETalk's sampling on the tiny preset: clips chained by motion frames, guidance, branch weights, pictures."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from talkforge.core.errors import InputError
from talkforge.models.diffusion.config import GuidanceConfig
from talkforge.models.mf_etalk.batch import prepare
from talkforge.models.mf_etalk.chaining import clip_bounds, first_motion, next_motion
from talkforge.models.mf_etalk.config import MfEtalkConfig
from talkforge.models.mf_etalk.model import MfEtalk, at_frames
from talkforge.tests.models.dice_talk_cases import needs_diffusers, one_thread
from talkforge.tests.models.test_mf_cases import a_batch, build, seeded, shared_model, small

pytestmark = needs_diffusers
CONFIG = small()


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model() -> MfEtalk:
    return shared_model()


@pytest.mark.parametrize(
    ("length", "wanted"),
    [(1, [(0, 1)]), (14, [(0, 14)]), (15, [(0, 14), (14, 15)]), (30, [(0, 14), (14, 28), (28, 30)])],
)
def test_clips_follow_each_other_without_gaps(length: int, wanted: list[tuple[int, int]]) -> None:
    assert clip_bounds(length, 14) == wanted


def test_motion_frames_are_the_last_ones() -> None:
    reference, motion = torch.ones(1, 4, 2, 2), MfEtalkConfig.full().motion
    first = first_motion(reference, motion)
    assert first.shape == (1, 2, 4, 2, 2) and first.all()
    assert not first_motion(reference, replace(motion, first="zeros")).any()
    made = torch.arange(14.0).reshape(1, 14, 1, 1, 1)
    assert next_motion(first[:, :, :1, :1, :1], made).flatten().tolist() == [12, 13]
    assert next_motion(first[:, :, :1, :1, :1], made[:, :1]).flatten().tolist() == [1, 0]
    assert next_motion(first[:, :0], made).shape[1] == 0


def sampling(frames: int = 6, clips: int = 1) -> dict[str, torch.Tensor]:
    batch = a_batch(CONFIG, clips=clips, frames=frames)
    return {key: value for key, value in batch.items() if key not in {"pictures", "motion"}}


def test_samples_are_as_long_as_the_audio_and_follow_it(model: MfEtalk) -> None:
    """6 frames in clips of 4: what changes in the second clip's audio cannot reach the first."""
    batch = sampling()
    first, again = (model.sample(batch, seeded(), steps=1) for _ in range(2))
    assert first.shape == (1, 6, 4, 8, 8) and torch.isfinite(first).all() and torch.equal(first, again)
    later = batch["audio"].clone()
    later[:, 4:] += 1
    moved = model.sample(batch | {"audio": later}, seeded(), steps=1)
    assert torch.equal(moved[:, :4], first[:, :4]) and not torch.allclose(moved[:, 4:], first[:, 4:])


def test_clips_are_chained_by_motion_frames(model: MfEtalk) -> None:
    """A change in the first clip's AUs reaches the second; without motion frames it does not."""
    batch = sampling()
    edited = batch["aus"].clone()
    edited[:, :4] += 1
    found = [model.sample(batch | {"aus": aus}, seeded(), steps=1) for aus in (batch["aus"], edited)]
    assert not torch.allclose(found[0][:, 4:], found[1][:, 4:], atol=1e-6)
    plain = build(small(motion=replace(CONFIG.motion, motion_frames=0)))
    found = [plain.sample(batch | {"aus": aus}, seeded(), steps=1) for aus in (batch["aus"], edited)]
    assert torch.equal(found[0][:, 4:], found[1][:, 4:]) and not torch.equal(found[0][:, :4], found[1][:, :4])


def test_guidance_of_one_is_the_full_condition_alone(model: MfEtalk) -> None:
    """One step from pure noise, here damped, a = 0, lands on the clean picture -v."""
    assert CONFIG.diffusion.temperature == 0.3
    batch = sampling(frames=3)
    found = model.sample(batch, seeded(), steps=1, guidance=GuidanceConfig(1.0, 1.0))
    given = prepare(batch, model.encoders)
    noise = 0.3 * torch.randn(found.shape, generator=seeded())
    with torch.no_grad():
        motion = first_motion(given["reference"], CONFIG.motion)
        inputs = model._inputs(given, motion, torch.ones(1, 3, dtype=torch.bool))
        velocity = model.denoiser(noise, torch.tensor([999]), inputs, temporal=True)
    torch.testing.assert_close(found, -velocity, rtol=1e-4, atol=1e-5)


def test_branch_weights_turn_branches_up_and_off(model: MfEtalk) -> None:
    batch = sampling(frames=2)
    plain, same, off = (
        model.sample(batch, seeded(), steps=1, weights=weights)
        for weights in (None, {"lip": 1.0}, {"pose": 0.0, "face": 0.0, "lip": 0.0})
    )
    assert torch.equal(plain, same) and not torch.allclose(plain, off)
    louder = {"audio": batch["audio"] + 1}
    assert torch.equal(
        model.sample(batch | louder, seeded(), steps=1, weights={"pose": 0.0, "face": 0.0, "lip": 0.0}), off
    )


def test_the_image_stage_samples_one_frame() -> None:
    network = build(small(stage="image"))
    found = network.sample(sampling(), seeded(), steps=1)
    assert found.shape == (1, 1, 4, 8, 8)
    pictures = network.render(found)
    assert pictures.shape == (1, 1, 32, 32, 3) and pictures.dtype == torch.uint8


def test_conditions_are_cut_frame_by_frame(model: MfEtalk) -> None:
    given = prepare(sampling(), model.encoders)
    part = at_frames(given | {"mask": given["mask"].expand(-1, 6, -1, -1, -1)}, 4, 6)
    assert torch.equal(part["audio"], given["audio"][:, 4:]) and torch.equal(part["aus"], given["aus"][:, 4:])
    assert part["mask"].shape[1] == 2 and part["regions"].shape[1] == 1 and part["au_neutral"].shape == (1, 17)


def test_decoding_needs_encoders() -> None:
    network = copy.deepcopy(shared_model())
    network.encoders = None
    with pytest.raises(InputError, match="decoding needs encoders"):
        network.render(torch.zeros(1, 1, 4, 8, 8))


def test_a_small_vae_may_have_only_differences_denoised() -> None:
    """A denoiser that finds no difference gives the portrait in each clip of the chain."""
    config = small(tiny_vae=replace(small().tiny_vae, residual=True))
    model = build(config)
    model._denoised = lambda noise, *rest: torch.zeros_like(noise)  # type: ignore[method-assign]
    batch = a_batch(config, frames=6)
    found = model.sample({k: v for k, v in batch.items() if k not in ("pictures", "motion")}, seeded(), steps=1)
    reference = prepare(batch, model.encoders)["reference"]
    torch.testing.assert_close(found, reference[:, None].expand_as(found))
