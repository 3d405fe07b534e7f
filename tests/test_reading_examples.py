"""Every Python block of docs/reading.md, and of the card that a build writes, runs inside a real build."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import talkforge
from talkforge.core.errors import WeightsError
from talkforge.core.weights import weights_store
from talkforge.flows.build_dataset import BuildConfig, build
from talkforge.tasks.extractor import extractors

PAGE = Path(talkforge.__file__).resolve().parent / "docs" / "reading.md"
LIGHT = ["arkit52", "speech-envelope"]
PLACES = {
    "M003/video/front/happy/level_1/001.mp4": "jwp-intro-0",
    "M003/video/front/neutral/level_1/001.mp4": "jwp-intro-1",
}
HAPPY, NEUTRAL = "mead/M003/front/happy/level_1/001", "mead/M003/front/neutral/level_1/001"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
# What a block imports first -> what it prints, a pattern each.
ALL = [HAPPY, NEUTRAL, "48"]
CARD = {"pyarrow": ALL, "polars": ALL, "duckdb": ALL, "datasets": ALL, "talkforge": ALL}
DOCS = [
    ("pyarrow", ALL),
    ("polars", ALL),
    ("duckdb", [rf"\('{HAPPY}', 48, 48\)", rf"\('{NEUTRAL}', 48, 48\)"]),
    ("datasets", ALL),
    ("mlcroissant", ALL),
    ("talkforge", [rf"^{HAPPY} 48 \(48, 52\) True$"]),
    ("talkforge", [rf"^{HAPPY} 25 \(25, 3\) \(25, 128, 128, 3\) \(16000,\)$"]),
    ("talkforge", [rf"^\['{HAPPY}'\] \['happy'\]$"]),
    ("torch", [r"^0 .*\(2, 25, 52\) torch.float32\n1 .*\(2, 25, 52\) torch.float32$", HAPPY, NEUTRAL]),
    ("talkforge", [r"^\['emotion', 'ordinary'\]$"]),
]


def blocks(path: Path) -> list[str]:
    return BLOCK.findall(path.read_text(encoding="utf-8"))


def package_of(block: str) -> str:
    """The package that a block imports first."""
    return re.split(r"[\s.]", block)[1]


@pytest.fixture(scope="module")
def built(sample_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of two clips. Read only."""
    folder = tmp_path_factory.mktemp("reading")
    try:
        for weight in {weight for name in LIGHT for weight in extractors.get(name).weights}:
            weights_store().path(weight)
    except WeightsError as error:
        pytest.skip(str(error))
    for place, name in PLACES.items():
        (folder / "tree" / place).parent.mkdir(parents=True)
        shutil.copyfile(sample_clips / f"{name}.mp4", folder / "tree" / place)
    places = {"root": folder / "tree", "out": folder / "out", "cache": folder / "cache"}
    how = {"dataset": "mead", "extractors": LIGHT, "size": 128, "workers": 1, "prefect": False}
    return build(BuildConfig.model_validate({**places, **how})).out


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment in which nothing is fetched, and caches go with the test."""
    yield os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def run(block: str, folder: Path, env: dict[str, str]) -> str:
    if importlib.util.find_spec(package_of(block)) is None or _hidden(package_of(block)):
        pytest.skip(f"the package {package_of(block)} is not installed")
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _hidden(package: str) -> bool:
    """Whether the name is found as one of the project's own rooms, for want of the library."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is None


def test_the_page_has_the_examples_that_are_expected() -> None:
    assert [package_of(block) for block in blocks(PAGE)] == [package for package, _ in DOCS]


@pytest.mark.parametrize("number", range(len(DOCS)), ids=[f"{k}-{package}" for k, (package, _) in enumerate(DOCS)])
def test_an_example_of_the_page(number: int, built: Path, home: dict[str, str]) -> None:
    printed = run(blocks(PAGE)[number], built, home)
    missing = [part for part in DOCS[number][1] if not re.search(part, printed)]
    assert missing == [], printed


@pytest.mark.parametrize("package", CARD)
def test_an_example_of_the_card(package: str, built: Path, home: dict[str, str]) -> None:
    found = {package_of(block): block for block in blocks(built / "README.md")}
    assert list(found) == list(CARD)
    printed = run(found[package], built, home)
    missing = [part for part in CARD[package] if part not in printed]
    assert missing == [], printed
