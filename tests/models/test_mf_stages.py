"""Weights from outside: the base's published names, and from one stage to the other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from talkforge.core.errors import WeightsError
from talkforge.models.diffusion.base import read_tensors
from talkforge.models.mf_etalk.base_weights import OLD_NAMES, renamed
from talkforge.models.mf_etalk.model import MfEtalk
from talkforge.models.mf_etalk.official import sd_vae
from talkforge.models.mf_etalk.stages import added, start_from
from talkforge.tests.models.dice_talk_cases import needs_diffusers
from talkforge.tests.models.test_mf_cases import small


@needs_diffusers
def test_the_vae_s_old_names_become_those_of_the_network() -> None:
    with torch.device("meta"):
        names = list(sd_vae().state_dict())
    back = {new: old for old, new in OLD_NAMES.items()}
    published = []
    for name in names:
        for new, old in back.items():
            name = name.replace(new, old) if ".mid_block.attentions.0." in name else name
        published.append(name)
    assert sum(a != b for a, b in zip(names, published, strict=True)) == 2 * 4 * 2  # weights and biases of two layers
    made = renamed({name: torch.tensor(k) for k, name in enumerate(published)})
    assert [(name, int(value)) for name, value in made.items()] == [(name, k) for k, name in enumerate(names)]
    assert list(renamed(made)) == names


@needs_diffusers
def test_only_what_hallo_lacks_may_be_missing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    image, path = MfEtalk(small(stage="image")), tmp_path / "ema.safetensors"
    save_file(image.state_dict(), path)
    for config in (small(), small().ablated("a")):
        model = MfEtalk(config)
        start_from(model, path, "image")
        own = model.state_dict()
        assert all(torch.equal(own[name], value) for name, value in image.state_dict().items() if name in own)
    bare = MfEtalk(small(stage="image").ablated("a"))
    save_file(bare.state_dict(), path)
    model = MfEtalk(small())
    before = {name: value.clone() for name, value in model.state_dict().items() if added(name)}
    start_from(model, path, "image")
    assert before and all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    save_file({name: value for name, value in bare.state_dict().items() if "locator.last" not in name}, path)
    with pytest.raises(WeightsError, match=r"no denoiser\.locator\.last\.weight in the checkpoint"):
        start_from(model, path, "image")


def test_halves_are_read_as_singles_and_whole_numbers_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.tensor([1.5], dtype=torch.float16), "b": torch.tensor([7])}, path)
    found = read_tensors(path)
    assert (found["a"].dtype, found["b"].dtype, found["a"].item(), found["b"].item()) == (
        torch.float32,
        torch.int64,
        1.5,
        7,
    )
    path.write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_tensors(path)
