"""What builds of a few clips share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from talkforge.tasks.extractor import extractors
from talkforge.tests.tasks.one_row import need

LIGHT = ["arkit52", "speech-envelope"]  # extractors without a large network


@pytest.fixture
def clips(sample_clips: Path, tmp_path: Path) -> Path:
    """A folder of two clips, of which another one's name can come between; a test may change it."""
    for weight in {weight for name in LIGHT for weight in extractors.get(name).weights}:
        need(weight)
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("jwp-intro-0", "test-movie-0"):
        shutil.copy(sample_clips / f"{name}.mp4", folder)
    return folder
