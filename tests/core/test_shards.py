"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from talkforge.core.errors import InputError
from talkforge.core.shards import (
    ShardWriter,
    atomic_folder,
    atomic_path,
    write_bytes,
    write_json,
    write_table,
    write_text,
)

# Writes one shard over and over in a child, kills it at a random moment, and tells what lies there; one line a kill.
KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from talkforge.core.shards import ShardWriter

def shard(n):
    return pa.table({"n": [n] * 20_000, "noise": [(n * 7919 + i * i) % 100_003 for i in range(20_000)]})

tables = [shard(n) for n in range(8)]
random.seed(5)
for kill in range(20):
    root = Path(sys.argv[1]) / str(kill)
    writer = ShardWriter(root, "extract", folder="data", total=1)
    child = os.fork()
    if child == 0:
        n = 0
        while True:
            writer.write(0, tables[n % 8], digest=str(n % 8))
            n += 1
            time.sleep(0.006)  # a while in which the shard is done
    deadline = time.monotonic() + 20  # on a busy machine the first shard takes longer than any pause below
    while kill % 2 and not writer.marker_path(0).exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(random.uniform(0.002, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    path, marker = writer.shard_path(0), writer.marker_path(0)
    state = {"shard": None, "marker": None, "left": len([*root.rglob(".tmp-*")])}
    if path.exists():
        table = pq.read_table(path)
        state["shard"] = table["n"][0].as_py() if table.equals(shard(table["n"][0].as_py())) else "torn"
    if marker.exists():
        state["marker"] = int(json.loads(marker.read_text())["digest"])
    print(json.dumps(state))
"""
ONE_ROW = pa.table({"clip_id": ["a"], "value": [1.5]})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_kill_leaves_no_torn_shard_and_no_wrong_marker(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLER, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    states = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(states) == 20
    for state in states:
        assert state["shard"] != "torn"
        assert state["marker"] is None or state["marker"] == state["shard"], (
            "a marker belongs to the shard it stands by"
        )
    assert any(state["left"] for state in states), "no kill hit the writing itself: the test shows nothing"
    assert any(state["marker"] is not None for state in states)


def test_a_shard_is_done_only_for_the_digest_it_was_made_from(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "extract", folder="data/train", total=12)
    assert writer.done(3, digest="one") is None
    path = writer.write(3, ONE_ROW, digest="one", seconds=2.5)
    assert path == tmp_path / "data/train/part-00003-of-00012.parquet"
    assert writer.done(3, digest="one") == {"digest": "one", "rows": 1, "seconds": 2.5}
    assert writer.done(3, digest="two") is None
    assert writer.done(4, digest="one") is None
    assert ShardWriter(tmp_path, "crop", folder="data/train", total=12).done(3, digest="one") is None


def test_a_marker_without_its_shard_is_not_done(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "extract", folder="data", total=1)
    writer.write(0, ONE_ROW, digest="one").unlink()
    assert writer.done(0, digest="one") is None


def test_a_shard_that_cannot_be_written_is_no_longer_done(tmp_path: Path) -> None:
    """The old marker goes first: were the new shard half-way in place, "done" would be about something else."""
    writer = ShardWriter(tmp_path, "extract", folder="data", total=1)
    path = writer.write(0, ONE_ROW, digest="one")
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        writer.write(0, "no table", digest="two")  # type: ignore[arg-type]
    assert writer.done(0, digest="one") is None and writer.done(0, digest="two") is None
    assert path.read_bytes() == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failed_block_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_path(tmp_path / "new.bin") as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert names(tmp_path) == []


def test_a_failed_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(ValueError, match="stop"), atomic_path(path) as temporary:
        temporary.write_text("new")
        raise ValueError("stop")
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_the_final_name_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.parquet"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent, "a rename is atomic within one file system only"
        assert temporary.suffix == ".parquet" and temporary.name.startswith(".")
        temporary.write_bytes(b"x")
        assert not path.exists()
    assert names(path.parent) == ["file.parquet"] and path.read_bytes() == b"x"


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path: Path) -> None:
    """The new content comes by a rename and never into the old file."""
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new and longer")
        assert reader.read() == "old"
    assert path.read_text() == "new and longer"


def test_a_block_that_writes_nothing_is_an_error_and_not_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        pass
    assert names(tmp_path) == []


def test_a_long_name_has_room_for_the_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".txt")
    write_text(path, "ä")
    assert path.read_bytes() == "ä".encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_refuses_what_is_no_number(tmp_path: Path, value: float) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"value": None})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"value": value})
    assert json.loads(path.read_text()) == {"value": None} and names(tmp_path) == ["results.json"]


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    """However they are cut into chunks in memory."""
    whole = pa.table({"n": range(3000), "text": [f"é{i % 7}" for i in range(3000)], "v": [[1.0, None]] * 3000})
    twice = pa.concat_tables([whole, whole]).combine_chunks()
    forms = [whole, pa.concat_tables([whole.slice(0, 1234), whole.slice(1234)]), twice.slice(3000)]
    for number, table in enumerate(forms):
        assert table.equals(whole)
        write_table(tmp_path / f"{number}.parquet", table)
    assert len({(tmp_path / f"{number}.parquet").read_bytes() for number in range(3)}) == 1
    assert pq.read_table(tmp_path / "0.parquet").equals(whole)


def test_tables_keep_their_schema(tmp_path: Path) -> None:
    schema = pa.schema(
        [pa.field("v", pa.list_(pa.list_(pa.float16(), 3)), metadata={"unit": "px"}), ("n", pa.int8())],
        metadata={"protocol": "x"},
    )
    write_table(tmp_path / "t.parquet", schema.empty_table())
    found = pq.read_schema(tmp_path / "t.parquet")
    assert found.equals(schema)
    assert found.metadata == schema.metadata and found.field("v").metadata == schema.field("v").metadata


def test_a_folder_is_swapped_in_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for text in ("first", "second"):
        with atomic_folder(out) as folder:
            write_text(folder / f"{text}.txt", text)
            assert not (out / f"{text}.txt").exists()
        assert names(out) == [f"{text}.txt"] and names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_folder_leaves_the_old_one(tmp_path: Path, error: type[BaseException]) -> None:
    out = tmp_path / "out"
    with atomic_folder(out) as folder:
        write_text(folder / "old.txt", "old")
    with pytest.raises(error), atomic_folder(out) as folder:
        write_text(folder / "new.txt", "new")
        raise error
    assert names(out) == ["old.txt"] and names(tmp_path) == ["out"]


def test_a_failed_swap_brings_the_old_folder_back(tmp_path: Path) -> None:
    """The second of the two renames fails, here because the finished folder has been taken away."""
    out = tmp_path / "out"
    with atomic_folder(out) as folder:
        write_text(folder / "old.txt", "old")
    with pytest.raises(FileNotFoundError), atomic_folder(out) as folder:
        folder.rmdir()
    assert names(out) == ["old.txt"] and names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", [".", "..", "inner/.."])
def test_the_present_folder_is_not_pulled_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Replacing it would leave this process, and the shell it was started from, in a folder that is gone."""
    (tmp_path / "out" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "out")
    with pytest.raises(InputError, match="present folder"), atomic_folder(Path(name)):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["inner"]


def test_a_linked_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with atomic_folder(tmp_path / "link") as folder:
        write_text(folder / "a.txt", "a")
    assert (tmp_path / "link").is_symlink() and names(tmp_path / "real") == ["a.txt"]
    assert names(tmp_path) == ["link", "real"]


# Stops its own process for good just between the two renames of a swap.
KILLED_BETWEEN = """
import os, signal, sys
from pathlib import Path
from talkforge.core import shards

out = Path(sys.argv[1])
fsynced, real = [], Path.replace
def replace(self, target):
    done = real(self, target)
    if Path(self) == out:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
Path.replace = replace
with shards.atomic_folder(out) as folder:
    (folder / "new.txt").write_text("new")
"""


def test_no_kill_can_lose_a_finished_folder(tmp_path: Path) -> None:
    """Between the two renames nothing lies under the name; old and new lie whole beside it, and the next run finds it.

    Two renames cannot be one step without help from the system, so the promise is: nothing is lost or torn.
    """
    out = tmp_path / "out"
    out.mkdir()
    write_text(out / "old.txt", "old")
    killed = subprocess.run([sys.executable, "-c", KILLED_BETWEEN, str(out)], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.rglob("*.txt")) == ["new.txt", "old.txt"]
    with atomic_folder(out) as folder:
        write_text(folder / "again.txt", "again")
    assert names(out) == ["again.txt"]


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    """A temporary file made with mkstemp would keep its mode 0600 under the final name."""
    umask = os.umask(0)
    os.umask(umask)
    write_bytes(tmp_path / "file", b"x")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask
