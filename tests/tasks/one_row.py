"""One clip through one extractor, for tests. Faces are found once a session: all rows share one feature cache."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from talkforge.core.counters import Counters
from talkforge.core.errors import WeightsError
from talkforge.core.weights import samples_store, weights_store
from talkforge.tasks.extract import ClipFile, extract_clip
from talkforge.tasks.extractor import extractors
from talkforge.tasks.features import FeatureRow, FeatureStore


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="talkforge-rows-")  # removed when the process ends


def extract(name: str, video: Path, audio: Path | None = None, *, fresh: Path | None = None) -> FeatureRow:
    """The row of extractor `name` for a clip, made or taken from the session's cache (or from a `fresh` one).

    Skips the test when the extractor's weights are not in the store.
    """
    return extract_counted(name, video, audio, fresh=fresh)[0]


def extract_counted(
    name: str, video: Path, audio: Path | None = None, *, fresh: Path | None = None
) -> tuple[FeatureRow, Counters]:
    """The same, with the work that was done for it."""
    spec, clip, counters = extractors.get(name), ClipFile(video, audio or video), Counters()
    for weights in spec.weights:
        need(weights)
    store, content = FeatureStore(fresh or Path(_folder().name), "none"), clip.content()
    extract_clip(clip, content, [spec], store, counters)
    row = store.find(spec, content)
    assert row is not None
    return row, counters


def need(weights: str) -> Path:
    """The file of a weight; skips the test when it is not in the store."""
    try:
        return weights_store().path(weights)
    except WeightsError as error:
        pytest.skip(str(error))


def sample(name: str) -> Path:
    """A sample clip; skips the test when it is not in the store."""
    try:
        return samples_store().path(name)
    except WeightsError as error:
        pytest.skip(str(error))
