"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from talkforge.core.errors import WeightsError
from talkforge.datasets.samples import cut_samples


@pytest.fixture(scope="session")
def sample_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of seven clips of a talking man, 48 frames each, with sound. Read only: a session shares it."""
    folder = tmp_path_factory.mktemp("samples") / "clips"
    try:
        cut_samples(folder)
    except WeightsError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="session")
def media() -> Path:
    """Folder of real clips, named by TALKFORGE_MEDIA."""
    folder = os.environ.get("TALKFORGE_MEDIA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TALKFORGE_MEDIA names no folder of real clips")
    return Path(folder)
