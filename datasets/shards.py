"""Reading a build: clips as rows of numpy arrays, at any place and of any part, without reading their neighbours.

`ClipShards` has a length and takes an index, which is all that data loaders ask for; nothing here needs torch. A row of
a shard is a row group, so one clip costs the bytes of its own columns. Open files belong to a process: after a fork, or
in a spawned worker, they are opened again.
"""

from __future__ import annotations

import json
import operator
import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.counters import Counters
from ..core.errors import ConfigError, InputError, TooShort
from ..core.registry import did_you_mean
from .audio import read_audio
from .batches import Cut
from .filters import UNITS, VALUE, FilterPreset, load_preset
from .video import FPS, open_video, resample

INFO = "meta/info.json"
BUILD = "build.yaml"  # the first file that a build writes
SAMPLES = 640  # of sound a frame
_ALWAYS = ("clip_id", "n_frames")
_READERS = 8


class ClipShards:
    """The clips of a build, or of one of its splits, as a map-style dataset.

    A row is a dict. It has `clip_id`, `n_frames` (of the part that is taken), `start` (its first frame), and the
    columns that were asked for:

    - a series: (frames x steps, D) or (frames x steps,), float16 or float32 as stored, integers as float32 (float64
      from 32 bits on); NaN where the build has null. Beside it `<column>_mask`, bool (frames x steps,), False there.
      `steps` is `steps_per_frame[column]` of the build's description, 1 where it says nothing. Where a whole feature is
      null the series is all NaN. A list that is no series (0 steps) is never cut, and is empty where it is null.
    - a list of fixed length: (D,), NaN where null.
    - else a Python value; a null is NaN among numbers and None among other things.

    Args:
        folder: the build.
        split: "train", "val" or "test"; None for all of them.
        columns: to be read; all when None.
        where: column -> the value, or values, that a clip must have: `{"emotion": ["happy", "sad"], "view": "front"}`.
        filters: a filter preset, or the name or YAML file of one; keeps the clips that pass it. A filter whose column
            the build does not have is an unknown value.
        open_files: shards that a process keeps open.

    Attributes:
        lengths: int64 (clips,), frames of each clip; features are not touched for it.
        clip_ids: their names, in the same order.
        info: the build's description.

    Raises:
        InputError: no build there, one that is not complete, or a shard that cannot be read.
        ConfigError: an unknown split, column or preset.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str | None = "train",
        *,
        columns: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        filters: str | Path | FilterPreset | None = None,
        open_files: int = 16,
    ) -> None:
        self.folder = Path(folder)
        self.info = read_info(self.folder)
        self.columns = tuple(self._known(columns) if columns is not None else self.info["columns"])
        self._open_files = max(1, open_files)
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._owner = os.getpid()
        self._paths = self._shards(split)
        rows, places = self._small([*_ALWAYS, *self._known(where or ())])
        keep = _matching(rows, where or {}) & self._passing(filters)
        self._rows = np.flatnonzero(keep)  # of all rows of the shards, those that are clips of this dataset
        self._places = places[keep]
        self.lengths = np.array(rows["n_frames"], np.int64)[keep]
        self.clip_ids: list[str] = [rows["clip_id"][row] for row in self._rows]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: int | Cut) -> dict[str, Any]:
        """The row of a clip, or of a part of it. Raises IndexError behind the last clip."""
        if isinstance(key, Cut):
            return self.window(*key)
        index = self._index(key)
        return self._row(index, 0, int(self.lengths[index]))

    def window(self, index: int, start: int, frames: int) -> dict[str, Any]:
        """The row of `frames` frames from frame `start` on. Raises InputError where the clip has no such frames."""
        index = self._index(index)
        self._check(index, start, frames)
        return self._row(index, start, frames)

    def values(self, column: str) -> list[Any]:
        """A small column for all clips, in their order; what a sampler goes by. Null is None.

        Raises:
            ConfigError: an unknown column, or a series.
        """
        found, _ = self._small(self._known([column]))
        return [found[column][row] for row in self._rows]

    def frames(
        self, index: int, start: int = 0, count: int | None = None, *, counters: Counters | None = None
    ) -> np.ndarray:
        """Pictures of the crop video: uint8 RGB (count, H, W, 3), frames `start` to `start + count`.

        Decodes from a key frame before the first of them and ends with the last one.

        Raises:
            InputError: the clip has no such frames.
            MediaError: the video is not there or cannot be decoded, or is shorter than its row says.
        """
        path, count = self._part(index, start, count)
        with open_video(path, start_s=Fraction(start, FPS), counters=counters) as stream:
            wanted = (frame for slot, _, frame in resample(stream) if slot >= start)
            pictures = list(islice(wanted, count))
        if len(pictures) < count:
            raise TooShort(f"{path.name} ends {count - len(pictures)} frames before its row does")
        return np.stack(pictures)

    def sound(self, index: int, start: int = 0, count: int | None = None) -> np.ndarray:
        """The sound of frames `start` to `start + count`: float32 (count x 640,) at 16 kHz. Errors as for `frames`."""
        path, count = self._part(index, start, count)
        samples = read_audio(path)[start * SAMPLES : (start + count) * SAMPLES]
        if len(samples) < count * SAMPLES:
            raise TooShort(f"the sound of {path.name} ends {count * SAMPLES - len(samples)} samples before its row")
        return samples

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict()}

    def _known(self, names: Collection[str]) -> list[str]:
        for name in names:
            if name not in self.info["columns"]:
                hint = did_you_mean(name, self.info["columns"]) or f"see the columns in {INFO}"
                raise ConfigError(f"the build has no column {name!r}", hint=hint)
        return list(names)

    def _shards(self, split: str | None) -> list[Path]:
        totals: dict[str, int] = self.info["shards"]
        if split is not None and split not in totals:
            raise ConfigError(f"the build has no split {split!r}", hint=f"it has {', '.join(totals)}")
        chosen = totals if split is None else {split: totals[split]}
        names = (
            self.info["paths"]["data"].format(split=name, index=index, total=total)
            for name, total in chosen.items()
            for index in range(total)
        )
        return [self.folder / name for name in names]

    def _small(self, columns: Sequence[str]) -> tuple[dict[str, list[Any]], np.ndarray]:
        """Columns that are no series, of all rows of the shards; and each row's shard, row group, and place in it."""
        big = [name for name in columns if self.info["columns"][name].startswith("list<")]
        if big:
            raise ConfigError(f"{big[0]!r} is a series", hint="clips are chosen by columns with one value a clip")
        names = list(dict.fromkeys(columns))
        with ThreadPoolExecutor(_READERS) as pool:  # most of the time goes into waiting for footers
            found = list(pool.map(lambda path: _read_small(path, names), self._paths))
        places = [(shard, *place) for shard, (_, groups) in enumerate(found) for place in groups]
        values = {name: [value for table, _ in found for value in table[name].to_pylist()] for name in names}
        return values, np.array(places, np.int64).reshape(-1, 3)

    def _passing(self, filters: str | Path | FilterPreset | None) -> np.ndarray | bool:
        """bool (rows,): which rows a filter preset keeps."""
        if filters is None:
            return True
        preset = filters if isinstance(filters, FilterPreset) else load_preset(filters)
        columns = {rule: VALUE.format(rule) for rule in UNITS if VALUE.format(rule) in self.info["columns"]}
        if not columns:
            raise ConfigError("the build has no filter columns", hint="build it again with the filters' extractors")
        values, places = self._small(list(columns.values()))
        rows = ({rule: values[name][row] for rule, name in columns.items()} for row in range(len(places)))
        return np.fromiter((preset.keeps(row) for row in rows), bool, len(places))

    def _index(self, key: int) -> int:
        index = operator.index(key)
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return index

    def _check(self, index: int, start: int, count: int) -> None:
        length = int(self.lengths[index])
        if start < 0 or count < 1 or start + count > length:
            raise InputError(f"{self.clip_ids[index]} has {length} frames, not {count} from frame {start} on")

    def _part(self, index: int, start: int, count: int | None) -> tuple[Path, int]:
        """The clip's video and how many frames of it."""
        index = self._index(index)
        count = int(self.lengths[index]) - start if count is None else count
        self._check(index, start, count)
        return self.folder / self.info["paths"]["video"].format(clip_id=self.clip_ids[index]), count

    def _row(self, index: int, start: int, frames: int) -> dict[str, Any]:
        shard, group, offset = (int(value) for value in self._places[index])
        names = [name for name in self.columns if name not in _ALWAYS]
        row = {"clip_id": self.clip_ids[index], "n_frames": frames, "start": start}
        with _readable(self._paths[shard]):
            table = self._file(shard).read_row_group(group, columns=names, use_threads=False)
        for name in names:
            steps = self.info.get("steps_per_frame", {}).get(name, 1)
            row |= _cell(name, table[name][offset], slice(start * steps, (start + frames) * steps))
        return row

    def _file(self, shard: int) -> pq.ParquetFile:
        """The shard, kept open among the last few that were used."""
        if self._owner != os.getpid():  # forked: what is open here shares its place in the file with the parent
            self._files, self._owner = OrderedDict(), os.getpid()
        if shard not in self._files:
            self._files[shard] = pq.ParquetFile(self._paths[shard])
            while len(self._files) > self._open_files:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(shard)
        return self._files[shard]


def read_info(folder: Path) -> dict[str, Any]:
    """A build's description. Raises InputError where there is no build, or one that is not complete."""
    path = folder / INFO
    if not path.is_file():
        if (folder / BUILD).is_file() or (folder / "_done").is_dir():
            raise InputError(f"the build in {folder} is not complete", hint="run its build command again, it goes on")
        raise InputError(f"{folder} is no build", hint=f"a build has {INFO}; make one with: talkforge build")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(info, dict) or not {"columns", "paths", "shards"} <= info.keys():
        raise InputError(f"{path} does not describe a build", hint="make one with: talkforge build")
    return info


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Says which shard it was that could not be read."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"shard {path.name} cannot be read: {error}", hint="run the build command again") from error


def _read_small(path: Path, columns: list[str]) -> tuple[pa.Table, list[tuple[int, int]]]:
    """Columns of a shard, and each row's row group with its place in it."""
    with _readable(path), pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        places = [(group, offset) for group, size in enumerate(sizes) for offset in range(size)]
        return file.read(columns=columns, use_threads=False), places


def _matching(rows: Mapping[str, list[Any]], where: Mapping[str, Any]) -> np.ndarray:
    """bool (rows,): which rows have the values that are asked for."""
    keep = np.ones(len(rows["clip_id"]), bool)
    for name, wanted in where.items():
        several = isinstance(wanted, Collection) and not isinstance(wanted, str)
        allowed = set(wanted) if several else {wanted}
        keep &= np.array([value in allowed for value in rows[name]], bool)
    return keep


def _cell(name: str, cell: Any, part: slice) -> dict[str, Any]:
    """A column's entry of a row, with its mask where it is a series."""
    if pa.types.is_list(cell.type):
        values = _series(cell, part)
        missing = np.isnan(values)
        return {name: values, f"{name}_mask": ~(missing.all(axis=1) if values.ndim == 2 else missing)}
    if pa.types.is_fixed_size_list(cell.type):
        size = cell.type.list_size
        return {name: np.array(cell.as_py() if cell.is_valid else [np.nan] * size, _dtype(cell.type.value_type))}
    number = pa.types.is_integer(cell.type) or pa.types.is_floating(cell.type)
    return {name: cell.as_py() if cell.is_valid or not number else float("nan")}


def _series(cell: Any, part: slice) -> np.ndarray:
    """(entries,) or (entries, D) of a part, NaN where there is no entry; all entries where the part has no length."""
    kind = cell.type.value_type
    vectors = pa.types.is_fixed_size_list(kind)
    width, item = (kind.list_size, kind.value_type) if vectors else (1, kind)
    entries = cell.values if cell.is_valid else pa.array([], kind)
    chosen = entries.slice(part.start, part.stop - part.start) if part.stop > part.start else entries
    whole = np.full((max(len(chosen), part.stop - part.start), width), np.nan, _dtype(item))
    # `flatten` would drop null lists, so the child values are taken as they lie: Parquet gives null ones for those.
    flat = chosen.values.slice(chosen.offset * width, len(chosen) * width) if vectors else chosen
    whole[: len(chosen)] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
    return whole if vectors else whole[:, 0]


def _dtype(kind: pa.DataType) -> np.dtype:
    """Floating type that holds the values and can say NaN."""
    if pa.types.is_floating(kind):
        return np.dtype(kind.to_pandas_dtype())
    return np.dtype(np.float32 if kind.bit_width <= 16 else np.float64)


def stack(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows of `ClipShards` as one batch, for `collate_fn`.

    Arrays become (B, longest, ...): padded behind their end with NaN, masks with False. Numbers become int64 or float64
    (B,), NaN where null; other values a list. `mask`, bool (B, most frames), is True on each clip's own frames. For
    torch, `torch.from_numpy(batch[column])` takes an array over as it is.
    """
    if not rows:
        raise InputError("a batch of no rows")
    batch = {name: _stacked([row[name] for row in rows]) for name in rows[0]}
    return batch | {"mask": np.arange(batch["n_frames"].max()) < batch["n_frames"][:, None]}


def _stacked(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, np.ndarray):
        longest = max(len(value) for value in values)
        whole = np.full((len(values), longest, *first.shape[1:]), False if first.dtype == bool else np.nan, first.dtype)
        for padded, value in zip(whole, values, strict=True):
            padded[: len(value)] = value
        return whole
    return np.array(values) if all(isinstance(value, bool | int | float) for value in values) else list(values)
