"""The synthetic corpus as a build's folder, for whatever reads builds: `ClipShards`, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..core.config import digest
from ..core.errors import InputError
from ..core.shards import ShardWriter, atomic_folder, write_json
from .build_meta import REJECTS, SHARD, column_rows
from .synthetic import COEFFICIENTS, FPS, STEPS, SyntheticCorpus

EXPRESSION, ROTATION, STATES = "arkit52_blendshapes", "arkit52_rotation", "whisper_tiny_states"


def schema_of(corpus: SyntheticCorpus) -> pa.Schema:
    """Columns, named and typed as those of real builds."""
    width = corpus.config.states * corpus.config.width
    return pa.schema(
        {
            **dict.fromkeys(("clip_id", "split", "identity", "emotion"), pa.string()),
            "intensity": pa.int8(),
            "n_frames": pa.int32(),
            EXPRESSION: pa.list_(pa.list_(pa.float32(), len(COEFFICIENTS))),
            ROTATION: pa.list_(pa.list_(pa.float32(), 3)),
            STATES: pa.list_(pa.list_(pa.float16(), width)),
        }
    )


def write_synthetic(folder: Path, corpus: SyntheticCorpus, splits: Mapping[str, Sequence[int]]) -> None:
    """Writes people of the corpus as a build, one shard a person; it appears whole or not at all.

    Args:
        folder: to be made; one that is there is replaced.
        splits: "train", "val", "test" -> numbers of people. All their clips are written.

    Raises:
        InputError: a person in two splits, or of a number that the corpus does not have.
    """
    people = [person for members in splits.values() for person in members]
    if len(set(people)) < len(people) or not set(people) <= set(range(corpus.config.identities)):
        raise InputError(f"splits need different people out of {corpus.config.identities}, not {people}")
    totals = {name: len(splits.get(name, ())) for name in ("train", "val", "test", *splits)}
    with atomic_folder(folder) as out:
        rows = 0
        for split, members in splits.items():
            writer = ShardWriter(out, f"build-{split}", folder=f"data/{split}", total=len(members), group_rows=1)
            for place, person in enumerate(members):
                table = _table(corpus, person, split)
                writer.write(place, table, digest="synthetic")
                rows += len(table)
        write_json(out / "meta" / "info.json", _info(corpus, totals, rows))


def _table(corpus: SyntheticCorpus, person: int, split: str) -> pa.Table:
    """All clips of a person."""
    schema = schema_of(corpus)
    clips = [corpus.clip(*key) for key in corpus.clip_keys() if key[0] == person]
    columns: dict[str, Any] = {
        **{name: [clip[name] for clip in clips] for name in ("clip_id", "identity", "emotion", "intensity")},
        "split": [split] * len(clips),
        "n_frames": [len(clip["expression"]) for clip in clips],
        EXPRESSION: _series([clip["expression"] for clip in clips]),
        ROTATION: _series([clip["rotation"] for clip in clips]),
        STATES: _series([clip["audio"].reshape(len(clip["audio"]), -1) for clip in clips]),
    }
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _series(arrays: Sequence[np.ndarray]) -> pa.Array:
    """(N, D) arrays as one list column, without going through Python numbers."""
    ends = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    flat = pa.array(np.concatenate(arrays).reshape(-1))
    return pa.ListArray.from_arrays(ends, pa.FixedSizeListArray.from_arrays(flat, arrays[0].shape[1]))


def _info(corpus: SyntheticCorpus, totals: Mapping[str, int], rows: int) -> dict[str, Any]:
    schema, config = schema_of(corpus), asdict(corpus.config)
    return {
        "schema_version": 1,
        "digest": digest({"synthetic": config, "shards": dict(totals)}),
        "dataset": "synthetic",
        "synthetic": config,
        "counts": {"clips": rows, "rows": rows, "rejects": 0},
        "fps": FPS,
        "paths": {"data": SHARD, "video": "videos/{clip_id}.mp4", "rejects": REJECTS},
        "shards": dict(totals),
        "columns": column_rows(schema),
        "steps_per_frame": {STATES: STEPS},
        "extractors": [],
        "notes": ["made up: there are no videos and no people"],
    }
