"""The page on MF-ETalk says what its configuration marks as inferred, and what is counted of its cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import talkforge
from talkforge.models.diffusion.cost import Cost
from talkforge.models.mf_etalk.config import MfEtalkConfig
from talkforge.models.mf_etalk.cost import count_cost
from talkforge.models.mf_etalk.parameters import count_parameters
from talkforge.tests.models.dice_talk_cases import needs_diffusers

PAGE = (Path(talkforge.__file__).resolve().parent / "docs" / "mf_etalk.md").read_text(encoding="utf-8")
FULL = MfEtalkConfig.full()
SHARED = {"guidance", "tiny_vae"}  # forms that DICE-Talk marks, with marks of its own
UNITS = {"M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


def marks(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every choice below `config`: its dotted name, value and source."""
    for item in fields(config):
        value, name = getattr(config, item.name), prefix + item.name
        if item.name in SHARED:
            continue
        if is_dataclass(value):
            yield from marks(value, f"{name}.")
        else:
            yield name, value, item.metadata["source"]


@cache
def counted(row: str) -> Cost:
    """Cost of a row of Table 3."""
    return count_cost(FULL.ablated(row))


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    return found


def test_what_is_inferred_is_what_the_configuration_marks() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| (\S+) \| (.*?) \|$", section("What is inferred"), flags=re.MULTILINE)
    marked = [(name, value, source) for name, value, source in marks(FULL) if source.startswith("inferred")]
    assert rows == [(name, str(value), source.removeprefix("inferred: ")) for name, value, source in marked]
    (named,) = re.findall(r"Not even inferred but `ours`.*?:(.*?)\.$", PAGE, flags=re.DOTALL | re.MULTILINE)
    ours = {name for name, _, source in marks(FULL) if source.startswith("ours")}
    assert set(re.findall(r"`([\w.]+)`", named)) == ours


SIZES = re.compile(
    r"(unet\.(channels|layers_per_block|latent_channels|cross_attention_dim)|motion\.frames|audio\.(hidden|tokens|width)"
    r"|face\.(embedding|tokens|locator)|au\.(hidden|tokens|width)|fusion\.motion_grid|vae|size|tiny_vae\..*)"
)


def shown(config: MfEtalkConfig) -> dict[str, str]:
    """Settings by name, as the page writes them; guidance too, sizes not."""
    every = [*marks(config), *marks(config.guidance, "guidance.")]
    told = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value, _ in every}
    return {name: value for name, value in told.items() if not SIZES.fullmatch(name)}


def test_what_tiny_has_other_than_full_is_all_of_it() -> None:
    """Every setting that is no mere size, with the values that the presets have."""
    table = PAGE.partition("| setting | `full` | `tiny` |")[2].partition("\n\n")[0]
    told = {}
    for names, *values in (line.split(" | ")[:3] for line in table.splitlines()[2:]):
        named = re.findall(r"`([\w.]+)`", names)
        both = zip(*(value.split(", ") for value in values), strict=True) if len(named) > 1 else [tuple(values)]
        told |= dict(zip(named, both, strict=True))
    full, tiny = shown(FULL), shown(MfEtalkConfig.tiny())
    assert told == {name: (full[name], tiny[name]) for name in full if full[name] != tiny[name]}


@needs_diffusers
def test_sizes_are_those_of_the_full_preset() -> None:
    sizes = re.findall(r"([\d.]+) M(?=,| \|)", section("What is published: Hallo"))
    held = count_parameters(FULL)
    order = "denoising_unet reference_net motion_modules audio_modules audio_tokens identity_tokens face_locator vae"
    assert sizes == [f"{held[name] / 1e6:.1f}" for name in order.split()]


@needs_diffusers
def test_operations_are_those_that_are_counted() -> None:
    cost, row_a = counted("c"), counted("a")
    parts = cost.conditions
    wanted = [
        cost.denoise,
        cost.denoise_frame,
        cost.denoise - row_a.denoise,
        *(parts[name] for name in ("reference_net", "audio_tokens", "au_tokens", "identity_tokens")),
        cost.encode,
        cost.decode,
        cost.window,
        cost.second,
    ]
    said = re.findall(r"^\| .* \| ([\d.]+) ([MGTP]) \|$", section("Cost"), flags=re.MULTILINE)
    assert [number for number, _ in said] == [
        f"{value / UNITS[unit]:.3g}" for value, (_, unit) in zip(wanted, said, strict=True)
    ]


@needs_diffusers
def test_seconds_are_those_that_are_counted() -> None:
    cost = counted("c")
    wanted = (cost, counted("a"), replace(cost, steps=10), replace(cost, branches=1))
    said = re.findall(r"\b([\d.]+) s\b", section("Cost"))
    assert said == [f"{one.seconds_at():.1f}" for one in wanted]
