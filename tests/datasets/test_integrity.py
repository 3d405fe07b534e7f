"""The containers' own bookkeeping, on bytes laid out by hand from the formats' specifications."""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from talkforge.datasets.integrity import Integrity, integrity, missing_wave_bytes
from talkforge.datasets.mp4_boxes import Orientation, boxes, has_index, missing_bytes, track_kinds, track_orientation
from talkforge.tests.media_factory import tone, write_clip


@pytest.fixture
def stored(tmp_path):
    """Function bytes -> open file."""
    handles: list[io.FileIO] = []

    def store(data: bytes) -> io.FileIO:
        path = Path(tmp_path / f"{len(handles)}")
        path.write_bytes(data)
        handles.append(path.open("rb", buffering=0))
        return handles[-1]

    yield store
    for handle in handles:
        handle.close()


def box(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def test_boxes_of_all_three_sizes(stored):
    data = box(b"ftyp", b"isom") + struct.pack(">I4sQ", 1, b"mdat", 20) + b"1234" + struct.pack(">I", 0) + b"freeXX"
    assert [(b.name, b.start, b.end) for b in boxes(stored(data))] == [
        (b"ftyp", 8, 12),
        (b"mdat", 28, 32),
        (b"free", 40, 42),
    ]


def test_missing_bytes_and_index(stored):
    data = box(b"ftyp") + box(b"moov", b"x" * 10) + box(b"mdat", b"y" * 100)
    assert missing_bytes(stored(data)) == 0 and has_index(stored(data))
    for lost in (1, 50, 100):
        assert missing_bytes(stored(data[:-lost])) == lost
    assert integrity(stored(data[:-1]), "mov") is Integrity.CUT
    assert not has_index(stored(data[:20])) and not has_index(stored(box(b"ftyp") + box(b"mdat")))


def test_boxes_that_cannot_be_end_the_walk(stored):
    assert list(boxes(stored(struct.pack(">I", 4) + b"moov" + b"\0" * 20))) == []
    assert list(boxes(stored(b"\0\0\0"))) == [] and missing_bytes(stored(b"")) == 0


UNIT = 1 << 16


def matrix(a, b, c, d) -> bytes:
    return struct.pack(">9i", a * UNIT, b * UNIT, 0, c * UNIT, d * UNIT, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize("version", [0, 1])
def test_orientation_is_read_from_the_right_track(version, stored):
    def track(number, values):
        times = b"\0" * (16 if version else 8)
        head = bytes([version, 0, 0, 7]) + times + struct.pack(">I", number) + b"\0" * (12 if version else 8)
        return box(b"trak", box(b"tkhd", head + b"\0" * 16 + matrix(*values) + b"\0" * 8))

    data = box(b"ftyp") + box(b"moov", track(1, (1, 0, 0, 1)) + track(2, (0, 1, -1, 0)))
    assert track_orientation(stored(data), 1).is_identity
    assert track_orientation(stored(data), 2).degrees == 90
    assert track_orientation(stored(data), 3).is_identity


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("signs", list(itertools.product([1, -1], repeat=2)))
def test_all_eight_orientations_move_each_pixel_where_the_matrix_says(transpose, signs):
    a, b, c, d = (0, signs[0], signs[1], 0) if transpose else (signs[0], 0, 0, signs[1])
    picture = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    turned = Orientation.from_matrix(struct.pack("=9i", *struct.unpack(">9i", matrix(a, b, c, d)))).apply(picture)
    height, width = turned.shape[:2]
    for y, x in itertools.product(range(6), range(4)):
        # The matrix works about the origin; the translation only brings the picture back into view.
        to_x, to_y = (a * x + c * y) % width, (b * x + d * y) % height
        if a + c < 0:
            to_x = width - 1 - (x if not transpose else y)
        if b + d < 0:
            to_y = height - 1 - (y if not transpose else x)
        assert np.array_equal(turned[to_y, to_x], picture[y, x])
    assert turned.flags["C_CONTIGUOUS"]


def element(identifier: str, body: bytes = b"", unknown: bool = False) -> bytes:
    size = b"\x01" + b"\xff" * 7 if unknown else struct.pack(">Q", 1 << 56 | len(body))
    return bytes.fromhex(identifier) + size + body


def matroska(*clusters: bytes, unknown: bool = False) -> bytes:
    return element("1A45DFA3", b"head") + element("18538067", b"".join(clusters), unknown)


BLOCKS = element("E7", b"\0") + element("A3", b"b" * 40) + element("A0", b"b" * 40)


@pytest.mark.parametrize("unknown", [False, True])
def test_matroska_chains(unknown, stored):
    cluster = element("1F43B675", BLOCKS, unknown)
    data = matroska(element("1549A966", b"info"), cluster, cluster, unknown=unknown)
    assert integrity(stored(data), "matroska") is Integrity.WHOLE
    assert integrity(stored(data), "matroska", packets=4) is Integrity.WHOLE
    assert integrity(stored(data), "matroska", packets=3) is Integrity.BROKEN
    for lost in (1, 30, 45):
        assert integrity(stored(data[:-lost]), "matroska") is Integrity.CUT
    broken = bytearray(data)
    broken[data.index(b"\xa3\x01", 20)] = 0x99
    assert integrity(stored(bytes(broken)), "matroska") is Integrity.BROKEN
    assert integrity(stored(element("1A45DFA3", b"head") + b"\0" * 40), "matroska") is Integrity.BROKEN


def test_riff(stored):
    def riff(size, name=b"AVI "):
        return b"RIFF" + struct.pack("<I", size) + name + b"d" * 96

    assert integrity(stored(riff(100)), "avi") is Integrity.WHOLE
    assert integrity(stored(riff(99)[:-1]), "avi") is Integrity.WHOLE  # the pad byte is often left out
    assert integrity(stored(riff(120)), "avi") is Integrity.CUT
    assert integrity(stored(riff(0)), "avi") is Integrity.WHOLE
    assert integrity(stored(riff(100) + riff(100)), "avi") is Integrity.WHOLE
    assert integrity(stored(riff(100) + riff(200)), "avi") is Integrity.CUT
    assert integrity(stored(b"anything"), "mpegts") is Integrity.UNKNOWN


@pytest.mark.parametrize(("size", "missing"), [(8, 0), (20, 12), (0xFFFFFFFF, 0), (0x7FFFF000, 0)])
def test_wave(size, missing, stored):
    data = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + b"\0" * 16 + b"LIST\x03\0\0\0abc\0data"
    assert missing_wave_bytes(stored(data + struct.pack("<I", size) + b"12345678")) == missing
    assert missing_wave_bytes(stored(data[:20])) == 0


def test_track_kinds_are_those_of_the_demuxer(tmp_path: Path) -> None:
    with_sound = write_clip(tmp_path / "a.mp4", 3, audio=tone(0.12))
    mute = write_clip(tmp_path / "b.mp4", 3)
    other = tmp_path / "c.mp4"
    other.write_text("no boxes here at all")
    found = []
    for path in (with_sound, mute, other):
        with path.open("rb") as handle:
            found.append(track_kinds(handle))
    assert found == [{b"vide", b"soun"}, {b"vide"}, set()]
