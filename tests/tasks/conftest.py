"""What the tests of generation share."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from talkforge.tasks.methods import read_portrait


@pytest.fixture(scope="session")
def clip(sample_clips: Path) -> Path:
    """One sample clip."""
    return sample_clips / "test-movie-1.mp4"


@pytest.fixture(scope="session")
def portrait(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first frame as a picture."""
    path = tmp_path_factory.mktemp("portrait") / "face.png"
    Image.fromarray(read_portrait(clip)).save(path)
    return path
