"""Records: rows that fit their schema, identifiers that are safe and stay apart."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import fields
from pathlib import Path

import pyarrow as pa
import pytest
from talkforge.core.hashing import file_sha256
from talkforge.core.records import CLIP_SCHEMA, REJECT_SCHEMA, Clip, Reject, reject_table, safe_id

NASTY = [
    "M003/front/angry/level_1/001",
    "müller",
    "muller",
    "muller-",
    "mu ller",
    "mu_ller",
    "..",
    ".",
    "",
    "-",
    "../../etc/passwd",
    "a//b",
    "a/b",
    "名前",
    "名前2",
    "ﬁ",
    "clip\udcff",
    "clip\udcfe",
    "a\nb",
    "a\x00b",
    "$(reboot).mp4",
    "Ⅷ",
]


@pytest.mark.parametrize("text", NASTY)
def test_an_identifier_is_plain_ascii_and_stays_below_its_folder(text: str) -> None:
    made = safe_id(text)
    assert re.fullmatch(r"[A-Za-z0-9._/-]+", made)
    assert made.count("/") == text.count("/")
    assert all(part.strip(".") for part in made.split("/")), "no part may be empty or lead upwards"
    assert safe_id(made) == made


def test_different_texts_have_different_identifiers() -> None:
    for one, other in itertools.combinations(NASTY, 2):
        assert safe_id(one) != safe_id(other), (one, other)


def test_a_plain_identifier_stays_as_it_is() -> None:
    assert safe_id("mead/M003/front/angry/level_1/001.a-b") == "mead/M003/front/angry/level_1/001.a-b"
    assert safe_id("müller") == f"muller-{hashlib.sha256('müller'.encode()).hexdigest()[:6]}"


def test_a_clip_is_a_row_of_its_schema() -> None:
    known = Clip(
        "d/a/1", Path("v.mp4"), Path("a.wav"), "a", "happy", 3, "front", "train", start_s=0.0, sha256="00" * 32
    )
    bare = Clip("d/b/1", Path("w.mp4"))
    assert list(bare.as_row()) == CLIP_SCHEMA.names == [field.name for field in fields(Clip)]
    first, second = pa.Table.from_pylist([known.as_row(), bare.as_row()], schema=CLIP_SCHEMA).to_pylist()
    assert (first["video"], first["audio"], first["intensity"], first["start_s"]) == ("v.mp4", "a.wav", 3, 0.0)
    assert {name for name, value in second.items() if value is not None} == {"clip_id", "video"}, "unknown is null"


def test_rejects_come_in_one_order() -> None:
    rows = [Reject("b", "crop", "no_face", "m"), Reject("a", "track", "corrupt", "m"), Reject("a", "crop", "x", "m")]
    tables = [reject_table(order) for order in itertools.permutations(rows)]
    assert all(table.equals(tables[0]) for table in tables)
    assert tables[0]["clip_id"].to_pylist() == ["a", "a", "b"]
    assert tables[0]["stage"].to_pylist() == ["crop", "track", "crop"]
    assert reject_table([]).schema.equals(REJECT_SCHEMA)


def test_a_files_digest_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
