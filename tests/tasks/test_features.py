"""Feature rows: what goes in comes out, and a row is found again exactly when it would come out the same."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from talkforge.core.config import digest
from talkforge.tasks import features
from talkforge.tasks.crop import CROP_RULES
from talkforge.tasks.extract_faces import FACES
from talkforge.tasks.extractor import ExtractorSpec, extractors, series, vectors
from talkforge.tasks.features import FeatureRow, FeatureStore, default_cache

COLUMNS = {
    "points": vectors(3),
    "half": vectors(2, pa.float16()),
    "counts": vectors(2, pa.int32()),
    "level": series(),
    "frame": series(pa.int32()),
    "jpeg": pa.binary(),
    "n_frames": pa.int32(),
    "peak": pa.float32(),
}
SPEC = ExtractorSpec("test", 1, "nowhere:Nothing", COLUMNS, "for tests")
PICTURE = replace(SPEC, picture=True)
VALUES: dict[str, Any] = {
    "points": np.array([[1, 2, 3], [np.nan] * 3, [4, np.nan, 6]], np.float32),
    "half": np.array([[0.5, -65504], [6e-8, np.inf]], np.float16),
    "counts": np.array([[1, -2], [2**31 - 1, 0]], np.int32),
    "level": np.array([0.25, np.nan, -80], np.float32),
    "frame": np.array([0, 2, 7], np.int32),
    "jpeg": b"\x00\xff\xd8binary\x00",
    "n_frames": 3,
    "peak": 0.75,
}
CONTENT = digest("a clip")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path, "face")


def saved(store: FeatureStore, **changes: Any) -> FeatureRow:
    store.save(SPEC, CONTENT, VALUES | changes)
    row = store.find(SPEC, CONTENT)
    assert row is not None
    return row


def test_a_row_comes_back_as_it_went_in(store: FeatureStore) -> None:
    row = saved(store)
    assert row.reason is None and row.message == ""
    for name in ("points", "half", "counts", "level", "frame"):
        found = row.array(name)
        assert found.dtype == VALUES[name].dtype, name
        np.testing.assert_array_equal(found, VALUES[name], err_msg=name)
    assert row.value("jpeg") == VALUES["jpeg"]
    assert (row.value("n_frames"), row.value("peak")) == (3, 0.75)


def test_a_missing_vector_is_null_in_the_file_and_nan_in_the_array(store: FeatureStore) -> None:
    """Null is what other readers of the file understand; a vector that is known in part stays as it is."""
    saved(store)
    (points,) = pq.read_table(store.path(SPEC, CONTENT))["points"].to_pylist()
    assert points[0] == [1, 2, 3] and points[1] is None and points[2][0] == 4


@pytest.mark.parametrize(
    "points",
    [
        np.zeros((0, 3), np.float32),
        np.full((4, 3), np.nan, np.float32),
        np.full((1, 3), np.nan, np.float32),
        np.arange(30, dtype=np.float64).reshape(10, 3),
        np.arange(60, dtype=np.float32).reshape(10, 6)[:, ::2],
        np.asfortranarray(np.arange(9, dtype=np.float32).reshape(3, 3)),
    ],
    ids=["no rows", "all missing", "one missing", "float64", "strided", "columns first"],
)
def test_any_matrix_survives(store: FeatureStore, points: np.ndarray) -> None:
    found = saved(store, points=points).array("points")
    assert found.shape == points.shape and found.dtype == np.float32
    np.testing.assert_array_equal(found, points)


def test_random_gaps_survive(store: FeatureStore) -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        points = rng.normal(size=(200, 3)).astype(np.float32)
        points[rng.random(200) < 0.4] = np.nan
        np.testing.assert_array_equal(saved(store, points=points).array("points"), points)


def test_empty_series_survive(store: FeatureStore) -> None:
    row = saved(store, level=np.zeros(0, np.float32), frame=np.zeros(0, np.int32))
    assert row.array("level").shape == row.array("frame").shape == (0,)


def test_a_failure_is_a_row(store: FeatureStore) -> None:
    store.save_failure(SPEC, CONTENT, "no_face", "no face in any of 48 frames")
    row = store.find(SPEC, CONTENT)
    assert row is not None
    assert (row.reason, row.message) == ("no_face", "no face in any of 48 frames")
    table = pq.read_table(row.path)
    assert all(table[name].null_count == 1 for name in COLUMNS), "missing is null, not 0"
    assert table.schema.names == ["reason", "message", *COLUMNS]


def test_a_row_has_the_columns_it_declares(store: FeatureStore) -> None:
    for values in ({**VALUES, "extra": 1}, {name: value for name, value in VALUES.items() if name != "level"}, {}):
        with pytest.raises(ValueError, match="gave columns"):
            store.save(SPEC, CONTENT, values)
    assert store.find(SPEC, CONTENT) is None


def test_a_wrong_width_is_refused(store: FeatureStore) -> None:
    """Cut anew into rows of three, the numbers would look right and mean nothing."""
    for width in (1, 2, 6):
        with pytest.raises(ValueError, match=f"{width} numbers a row do not fit"):
            store.save(SPEC, CONTENT, VALUES | {"points": np.zeros((4, width), np.float32)})
    assert store.find(SPEC, CONTENT) is None


def test_a_row_is_found_again_only_for_the_same_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore(tmp_path, "face")
    weights = [name for spec in extractors.all() for name in spec.weights]
    keys = [
        store.key(SPEC, CONTENT),
        store.key(SPEC, digest("another clip")),
        store.key(replace(SPEC, id="other"), CONTENT),
        store.key(replace(SPEC, version=2), CONTENT),
        store.key(replace(SPEC, params={"window": 16}), CONTENT),
        store.key(replace(SPEC, params={"window": 9}), CONTENT),
        store.key(replace(SPEC, weights=(weights[0],)), CONTENT),
        store.key(replace(SPEC, weights=(weights[-1],)), CONTENT),
        store.key(PICTURE, CONTENT),
        FeatureStore(tmp_path, "none").key(PICTURE, CONTENT),
    ]
    assert len({*weights}) > 1 and len({*keys}) == len(keys)
    assert store.key(replace(SPEC, what="other words", columns={}), CONTENT) == keys[0], "words do not change a row"
    assert FeatureStore(tmp_path / "elsewhere", "face").key(SPEC, CONTENT) == keys[0]


def test_what_does_not_see_the_crop_is_shared_between_crops(tmp_path: Path) -> None:
    one, other = FeatureStore(tmp_path, "face"), FeatureStore(tmp_path, "none")
    for spec in (SPEC, FACES):
        assert one.path(spec, CONTENT) == other.path(spec, CONTENT)


def test_another_crop_rule_makes_another_row(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [store.key(spec, CONTENT) for spec in (PICTURE, SPEC, FACES)]
    monkeypatch.setitem(CROP_RULES, "face", "another rule")
    after = [store.key(spec, CONTENT) for spec in (PICTURE, SPEC, FACES)]
    assert [one != two for one, two in zip(before, after, strict=True)] == [True, False, False]


def test_other_faces_make_other_rows_of_what_depends_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version of the tracker moves the face crop, and with it every feature of the cropped picture."""
    by_face, plain = FeatureStore(tmp_path, "face"), FeatureStore(tmp_path, "none")
    wants_faces = replace(SPEC, faces=True)

    def keys() -> list[str]:
        return [
            by_face.key(PICTURE, CONTENT),
            plain.key(wants_faces, CONTENT),
            plain.key(PICTURE, CONTENT),
            by_face.key(SPEC, CONTENT),
        ]

    before = keys()
    newer = replace(FACES, version=FACES.version + 1)
    monkeypatch.setattr(features.extractors, "get", {FACES.id: newer}.__getitem__)
    assert [one != two for one, two in zip(before, keys(), strict=True)] == [True, True, False, False]


def test_the_key_is_golden(tmp_path: Path) -> None:
    """The key must not change by accident: every stored row of every user would be made again.

    Origin: printed by this test at layout 1. It goes with every deliberate change of the identity.
    """
    key = FeatureStore(tmp_path, "none").key(PICTURE, "0" * 64)
    assert key == "982da360975578c9c944ca0eb19614115261ef87eb3c0e6e127ff5cf6d81f6ab"
    parts = FeatureStore(tmp_path, "none").path(PICTURE, "0" * 64).relative_to(tmp_path).parts
    assert parts == ("layout-1", "test", key[:2], f"{key}.parquet")


def test_the_cache_lies_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("TALKFORGE_CACHE", str(tmp_path / "named"))
    assert default_cache() == tmp_path / "named"
    monkeypatch.delenv("TALKFORGE_CACHE")
    assert default_cache() == tmp_path / "xdg" / "talkforge" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "talkforge" / "features"


def test_every_extractor_declares_what_can_be_stored(store: FeatureStore) -> None:
    """A failure row of each: the declared types must be ones that a file can hold."""
    for spec in extractors.all():
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", spec.id), "the id is a folder's name"
        assert spec.what and spec.version >= 1
        assert spec.picture or spec.faces or spec.frames or spec.audio or spec.compares
        digest(dict(spec.params))
        table = pa.table({name: pa.nulls(1, kind) for name, kind in spec.columns.items()})
        assert table.schema.names == list(spec.columns) and not {"reason", "message"} & {*spec.columns}
