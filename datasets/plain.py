"""A plain folder of videos as a dataset: identities from folder names, labels from a manifest, nothing guessed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ..core.errors import InputError, MediaError
from ..core.records import Clip, Reject, safe_id
from ..core.registry import did_you_mean
from .containers import printable
from .folder import MediaFile, scan_folder
from .labels import emotion_name
from .reader import MISSING_AUDIO, Listing, Option, ReaderSpec, finish, media_reject, parted, reject, sound_of

DATASET = "folder"
TEXTS = ("identity", "emotion", "view", "split")
SPLITS = ("train", "val", "test")
FOLDER = ReaderSpec(
    id=DATASET,
    version=1,
    what="any folder of videos, with a manifest of labels if there is one",
    target="talkforge.datasets.plain:read",
    layout="<name>.mp4, at any depth",
    options={
        "missing_audio": MISSING_AUDIO,
        "identity_from": Option(
            "none", "who speaks: not told by folders, the nearest one, the first one", ("none", "parent", "top")
        ),
    },
)
READERS = (FOLDER,)


def read(
    root: Path, *, annotations: Path | None = None, missing_audio: str = "reject", identity_from: str = "none"
) -> Listing:
    """Lists the videos of a folder.

    Args:
        annotations: manifest, Parquet or CSV, with a column `clip` (path below `root` without suffix) and any of
            identity, emotion, intensity, view, split, start_s, end_s. What it says goes before folder names.
        identity_from: "parent" or "top": the name of the nearest or the first folder is the speaker's.

    Raises:
        InputError: no folder, no video in it, or a manifest that cannot be used.
    """
    root = Path(root)
    rows = read_labels(Path(annotations)) if annotations else {}
    scan = scan_folder(root)
    clips, rejects = parted(_clip(file, rows.get(file.stem, {}), identity_from, missing_audio) for file in scan.files)
    rejects += [reject(f"{DATASET}/{safe_id(name)}", reason, message) for name, reason, message in scan.problems]
    names = {file.stem for file in scan.files} | {name for name, _, _ in scan.problems}
    rejects += [
        reject(f"{DATASET}/{safe_id(stem)}", "missing_file", f"the manifest names {stem!a}; there is no such video")
        for stem in rows.keys() - names
    ]
    bare = len(names - rows.keys())
    notes = [f"{bare} videos are not in the manifest and have no labels"] if rows and bare else []
    return finish(FOLDER, root, clips, rejects, notes)


def _clip(file: MediaFile, labels: dict[str, Any], identity_from: str, missing_audio: str) -> Clip | Reject:
    folders = file.stem.split("/")[:-1]
    identity = None if identity_from == "none" or not folders else folders[-1 if identity_from == "parent" else 0]
    clip = Clip(f"{DATASET}/{safe_id(file.stem)}", file.path, identity=identity)
    try:
        return replace(clip, audio=sound_of(file.path, file.audio_path, missing_audio), **labels)
    except MediaError as error:
        return media_reject(clip.clip_id, file.path, error)


def read_labels(path: Path) -> dict[str, dict[str, Any]]:
    """Stem -> labels that are given for it, from a Parquet or CSV file.

    Raises:
        InputError: unreadable, without a column `clip`, a stem twice, or a label that cannot be one.
    """
    table = _table(path)
    if "clip" not in table.column_names:
        text = table.column_names[0] if table.num_columns == 1 and path.suffix != ".parquet" else ""
        other = next((mark for mark in ";\t|" if mark in text), None)
        close = did_you_mean("clip", table.column_names) or f"columns: {', '.join(table.column_names)}"
        hint = f"its columns are separated by {other!r}: save it with commas" if other else close
        raise InputError(f"the manifest {printable(path)} has no column 'clip'", hint=hint)
    rows: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        stem = str(row["clip"])
        if stem in rows:
            raise InputError(f"the manifest {printable(path)} names {stem!a} twice")
        try:
            rows[stem] = _labels(row)
        except (InputError, ValueError) as error:
            raise InputError(f"the manifest {printable(path)}, clip {stem!a}: {error}") from error
    return rows


def _table(path: Path) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        # Names such as 007 are texts, whatever they look like.
        texts = pa_csv.ConvertOptions(column_types={name: pa.string() for name in ("clip", *TEXTS)})
        return pa_csv.read_csv(path, convert_options=texts)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot read the manifest {printable(path)}: {str(error).splitlines()[0]}") from error


def _labels(row: dict[str, Any]) -> dict[str, Any]:
    """The labels of one row that are not empty, in the types of `Clip`."""
    given = {name: value for name, value in row.items() if value is not None and value != ""}
    labels: dict[str, Any] = {name: str(given[name]) for name in TEXTS if name in given}
    if "emotion" in labels:
        labels["emotion"] = emotion_name(labels["emotion"])
    if labels.get("split", "train") not in SPLITS:
        hint = did_you_mean(labels["split"], SPLITS) or f"one of: {', '.join(SPLITS)}"
        raise InputError(f"unknown split '{labels['split']}'", hint=hint)
    labels |= {name: float(given[name]) for name in ("start_s", "end_s") if name in given}
    return labels | ({"intensity": int(given["intensity"])} if "intensity" in given else {})
