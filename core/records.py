"""Records that travel between rooms, and their Arrow schemas."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Clip:
    """One clip of a dataset.

    Attributes:
        clip_id: `<dataset>/<identity>/<...>`, ASCII and stable.
        video: path of the file with the picture.
        audio: path of the file with the sound; None when there is none, the video's own path when it is inside.
        identity: who speaks; None when unknown.
        emotion: name, never an integer; None when unknown.
        intensity: 1..3 where the dataset grades it.
        view: camera, where the dataset has several.
        split: train, val, test; None when unsplit.
        start_s, end_s: part of the source file, seconds; None for its ends.
        crop: (left, top, width, height) of the annotated face window, as fractions of the upright frame; (0, 0, 1, 1)
            where the file is the window already; None where none is annotated.
        sha256: of the source file's bytes.
    """

    clip_id: str
    video: Path
    audio: Path | None = None
    identity: str | None = None
    emotion: str | None = None
    intensity: int | None = None
    view: str | None = None
    split: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    crop: tuple[float, float, float, float] | None = None
    sha256: str | None = None

    def as_row(self) -> dict[str, Any]:
        """A row of `CLIP_SCHEMA`."""
        row = asdict(self)
        return row | {"video": str(self.video), "audio": None if self.audio is None else str(self.audio)}


@dataclass(frozen=True)
class Reject:
    """A clip that a stage could not use: a row with its reason, never an absence."""

    clip_id: str
    stage: str
    reason: str
    message: str


CLIP_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("video", pa.string(), nullable=False),
        *(pa.field(name, pa.string()) for name in ("audio", "identity", "emotion")),
        pa.field("intensity", pa.int8()),
        *(pa.field(name, pa.string()) for name in ("view", "split")),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
        pa.field("crop", pa.list_(pa.float64(), 4)),
        pa.field("sha256", pa.string()),
    ]
)
REJECT_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("clip_id", "stage", "reason", "message")]
)


def reject_table(rejects: Iterable[Reject]) -> pa.Table:
    """Rejects as an Arrow table in a stable order."""
    rows = sorted((asdict(reject) for reject in rejects), key=lambda row: (row["clip_id"], row["stage"]))
    return pa.Table.from_pylist(rows, schema=REJECT_SCHEMA)


def safe_id(text: str) -> str:
    """An ASCII identifier made from any text: accents folded, other runs of characters become one underscore.

    When folding loses something, six hex digits of the original's hash keep different texts apart. Slashes separate
    parts and stay.
    """
    return "/".join(_safe_part(part) for part in text.split("/"))


def _safe_part(part: str) -> str:
    folded = unicodedata.normalize("NFKD", part).encode("ascii", "ignore").decode()
    clean = _UNSAFE.sub("_", folded).strip("._")
    if clean == part and clean:
        return clean
    return f"{clean or 'clip'}-{hashlib.sha256(part.encode('utf-8', 'surrogateescape')).hexdigest()[:6]}"
