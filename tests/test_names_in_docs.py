"""Help and pages name the crops and extractors that there are."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import talkforge
from talkforge.cli import cli
from talkforge.flows.build_dataset import BuildConfig
from talkforge.tasks.crop import CROP_RULES
from talkforge.tasks.crops import crops
from talkforge.tasks.extractor import extractors

ROOT = Path(talkforge.__file__).resolve().parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ID = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"


def option(command: str, name: str) -> click.Option:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    return next(one for one in found.params if isinstance(one, click.Option) and one.name == name)


def sections(page: Path, word: str) -> str:
    """The sections with this word in their heading; code blocks, whose names are made up, left out."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return "\n".join(part for part in parts if word in part.partition("\n")[0].lower())


def test_the_help_of_build_names_every_crop() -> None:
    said = option("build", "crop").help or ""
    names, _, default = said.partition("[default: ")
    assert sorted(re.findall(ID, names)) == crops.names()
    assert default.rstrip("]") == BuildConfig.model_fields["crop"].default


@pytest.mark.parametrize("command", ["eval", "benchmark", "audit"])
def test_what_is_scored_is_cropped_by_the_rules_that_there_are(command: str) -> None:
    kind = option(command, "crop").type
    assert isinstance(kind, click.Choice) and set(kind.choices) == set(CROP_RULES)


def test_the_page_on_builds_says_what_each_crop_is() -> None:
    table = (ROOT / "docs/building.md").read_text(encoding="utf-8").partition("| `--crop` | what |")[2]
    rows = table.strip().partition("\n\n")[0].splitlines()[1:]
    assert sorted(re.findall(rf"^\| `({ID})` \|", "\n".join(rows), flags=re.MULTILINE)) == crops.names()
    (default,) = (row for row in rows if "(default)" in row)
    assert default.startswith(f"| `{BuildConfig.model_fields['crop'].default}` |")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_a_page_name_crops_that_there_are(page: Path) -> None:
    for line in page.read_text(encoding="utf-8").splitlines():
        for name in re.findall(rf"--crop ({ID})", line):
            assert name in (crops.names() if "talkforge build" in line else CROP_RULES), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_extractors_that_a_page_speaks_of_are_there(page: Path) -> None:
    """Under headings about extractors, and where the page on metrics says what each wants."""
    text = page.read_text(encoding="utf-8")
    wanted = "\n".join(re.findall(r"^- wants: .*$", text, flags=re.MULTILINE))
    said = set(re.findall(rf"`({ID})`", sections(page, "extractor") + wanted))
    assert said <= set(extractors.names())
    assert len(said) >= (20 if page.name in ("building.md", "metrics.md") else 0)
