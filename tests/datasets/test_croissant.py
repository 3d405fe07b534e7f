"""The Croissant description: what the format requires, and that its reference reader loads the records."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from talkforge.core.records import Reject, reject_table
from talkforge.core.shards import write_table
from talkforge.datasets.build_meta import REJECTS
from talkforge.datasets.croissant import ORIGINS, write_croissant
from talkforge.datasets.reader import readers
from talkforge.datasets.shards import ClipShards, read_info
from talkforge.tests.datasets.small_build import SCHEMA, clip_row, write_build

# Properties that version 1.1 of the format requires of a dataset.
REQUIRED = ("conformsTo", "description", "license", "name", "url", "creator", "datePublished", "distribution")


def described(folder: Path, dataset: str = "folder") -> dict[str, Any]:
    """A build of three clips and a reject with its description."""
    rows = [clip_row(k, 4) for k in range(3)]
    rows[2] |= {"face_points": None, "face_reason": "no_face"}
    write_build(folder, [("train", rows[:2]), ("test", rows[2:])])
    write_table(folder / REJECTS, reject_table([Reject("toy/bad", "decode", "truncated", "ends early")]))
    (folder / "README.md").write_text("# toy\n")
    write_croissant(folder, read_info(folder) | {"dataset": dataset}, SCHEMA)
    return json.loads((folder / "croissant.json").read_text())


def field(data: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [one for one in data["recordSet"][0]["field"] if one["name"] == name]
    return found


@pytest.mark.parametrize("dataset", ["folder", *ORIGINS])
def test_what_the_format_requires_is_there(dataset: str, tmp_path: Path) -> None:
    data = described(tmp_path / "out", dataset)
    assert [name for name in REQUIRED if not data.get(name)] == []
    assert data["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert dataset in data["citeAs"]
    assert data["datePublished"] == "2026-01-02T03:04:05+00:00"
    assert str(tmp_path) not in json.dumps(data)


def test_each_dataset_with_a_reader_has_its_origin() -> None:
    assert set(ORIGINS) == set(readers.names()) - {"folder"}


def test_types_are_those_of_the_columns(tmp_path: Path) -> None:
    data = described(tmp_path / "out")
    assert [one["name"] for one in data["recordSet"][0]["field"]] == SCHEMA.names
    kinds = {
        name: (field(data, name)["dataType"], field(data, name).get("arrayShape"))
        for name in ("clip_id", "intensity", "has_sound", "window", "face_points", "wide_states", "face_track")
    }
    assert kinds == {
        "clip_id": ("sc:Text", None),
        "intensity": ("cr:Int8", None),
        "has_sound": ("sc:Boolean", None),
        "window": ("cr:Float64", "4"),
        "face_points": ("cr:Float16", "-1,3"),
        "wide_states": ("cr:Float32", "-1,512"),
        "face_track": ("cr:Int16", "-1"),
    }
    assert field(data, "speech_level")["description"] == "what is heard"
    assert all(("arrayShape" in one) == pa.types.is_nested(SCHEMA.field(one["name"]).type) for one in fields(data))


def fields(data: dict[str, Any]) -> list[dict[str, Any]]:
    return data["recordSet"][0]["field"]


def test_files_are_real_and_have_their_checksums(tmp_path: Path) -> None:
    out = tmp_path / "out"
    data = described(out)
    files = [one for one in data["distribution"] if one["@type"] == "cr:FileObject"]
    assert {one["contentUrl"] for one in files} == {REJECTS, "README.md"}
    for one in files:
        content = (out / one["contentUrl"]).read_bytes()
        assert one["sha256"] == hashlib.sha256(content).hexdigest()
        assert one["contentSize"] == f"{len(content)} B"
    shards = next(one for one in data["distribution"] if one["@id"] == "shards")
    assert len(list(out.glob(shards["includes"]))) == 2


@pytest.mark.parametrize("dataset", ["folder", "mead"])
def test_the_reference_reader_finds_nothing_wrong(dataset: str, tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    described(tmp_path / "out", dataset)
    found = mlcroissant.Dataset(jsonld=str(tmp_path / "out/croissant.json"))
    issues = found.metadata.ctx.issues
    assert (set(issues.errors), set(issues.warnings)) == (set(), set())
    shape = {one.id: one.array_shape_tuple for one in found.metadata.record_sets[0].fields}
    assert shape["clips/face_points"] == (-1, 3)
    assert shape["clips/n_frames"] is None


def test_the_reference_reader_loads_the_records(tmp_path: Path) -> None:
    """Compared with this project's own reader."""
    mlcroissant = pytest.importorskip("mlcroissant")
    described(tmp_path / "out")
    found = mlcroissant.Dataset(jsonld=str(tmp_path / "out/croissant.json"))
    records = {row["clips/clip_id"].decode(): row for row in found.records("clips")}
    clips = ClipShards(tmp_path / "out", split=None)
    assert sorted(records) == sorted(clips.clip_ids)
    for clip in clips:
        record = records[clip["clip_id"]]
        assert record["clips/n_frames"] == clip["n_frames"]
        np.testing.assert_array_equal(np.array(record["clips/wide_states"], np.float32), clip["wide_states"])
    assert records["toy/000"]["clips/face_points"][1] is None
    assert records["toy/001"]["clips/intensity"] is None
    assert records["toy/002"]["clips/face_points"] is None
    (reject,) = found.records("rejects")
    assert (reject["rejects/clip_id"], reject["rejects/reason"]) == (b"toy/bad", b"truncated")
