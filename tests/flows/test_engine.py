"""What engines promise: order, the first error, refusals in one line, and what they show of a build."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from talkforge.core.counters import Counters
from talkforge.core.errors import ConfigError, MissingPackage
from talkforge.core.records import Clip, Reject
from talkforge.flows.artifacts import MOST_ROWS, Artifacts, build_artifacts
from talkforge.flows.build_dataset import BuildConfig, build
from talkforge.flows.engine import Carried, DirectEngine, Engine, carried_variables, run
from talkforge.tasks.build_shard import BuildClip, BuildShard, ShardResult
from talkforge.tasks.recipe import Recipe


def seen(name: str) -> str | None:
    return os.environ.get(name)


def refuse(item: int) -> int:
    if item % 2:
        raise ValueError(f"item {item}")
    return item


def test_results_come_in_the_order_of_the_items() -> None:
    gate = threading.Event()

    def first_waits(item: int) -> int:
        if item == 0:
            assert gate.wait(30), "the others run beside it"
        else:
            gate.set()
        return item * item

    assert DirectEngine(2).map("square", first_waits, range(5)) == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="item 1"):
        DirectEngine(1).map("refuse", refuse, range(5))


@pytest.mark.parametrize(("runner", "package"), [("dask", "prefect_dask"), ("ray", "ray")])
def test_an_absent_runner_names_its_extra(runner: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be imported
    with pytest.raises(MissingPackage, match=package) as missing:
        run("none", lambda engine: None, workers=1, use_prefect=True, runner=runner)
    assert missing.value.hint is not None and f"pip install -c constraints.txt -e '.[{runner}]'" in missing.value.hint


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"runner": "dask", "prefect": False}, "--no-prefect"),
        ({"runner": "ray", "prefect": False}, "--no-prefect"),
        ({"address": "tcp://127.0.0.1:1"}, "--runner dask"),
    ],
)
def test_what_cannot_be_meant_is_said_before_any_work(settings: dict[str, Any], part: str, tmp_path: Path) -> None:
    config = BuildConfig.model_validate({"dataset": "folder", "root": tmp_path, "out": tmp_path / "out"} | settings)
    with pytest.raises(ConfigError) as refused:
        build(config)
    assert part in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_workers_see_the_variables_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKFORGE_PROBE", "here")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SECRET_OF_ANOTHER_PROGRAM", "stays")
    variables = carried_variables()
    assert variables["OMP_NUM_THREADS"] == "1" and "SECRET_OF_ANOTHER_PROGRAM" not in variables
    sent = pickle.loads(pickle.dumps(Carried(seen, variables)))  # by the function's name, as to a worker
    monkeypatch.delenv("TALKFORGE_PROBE")
    assert seen("TALKFORGE_PROBE") is None
    assert sent("TALKFORGE_PROBE") == "here"


def test_without_prefect_nothing_is_drawn() -> None:
    def body(engine: Engine) -> str:
        engine.publish(lambda: pytest.fail("somebody drew"))
        return "done"

    assert run("none", body, workers=1, use_prefect=False) == "done"


def shard(out: Path, index: int, total: int) -> BuildShard:
    clip = BuildClip(Clip(f"d/a/{index}", "d", Path("a.mp4"), identity="a", sha256=str(index)), "a.mp4")
    return BuildShard("train", index, total, (clip,), Recipe("d", (), 64, 18, "veryfast"), out, None)


def artifacts(out: Path, total: int, rejects: list[Reject]) -> Artifacts:
    info = {"dataset": "My <Data>", "digest": "ab" * 32, "talkforge_version": "1", "created": "now"}
    counts = {"clips": total + len(rejects), "rows": total, "rejects": len(rejects)}
    shards = [shard(out, k, total) for k in range(total)]
    for one in shards:
        one.__dict__["digest"] = "cd" * 32  # what it is made of needs weights
    results = [
        ShardResult(s.writer().shard_path(s.index), 1, (), s.index == 0, s.digest, Counters(), 2.5) for s in shards
    ]
    return build_artifacts(info | {"counts": counts}, shards, results, rejects)


def test_artifacts_tell_shards_reasons_and_counts(tmp_path: Path) -> None:
    rejects = [Reject("x", "read", "a<b", "m"), Reject("y", "read", "no_face", "m"), Reject("z", "read", "no_face", "")]
    made = artifacts(tmp_path, 6, rejects)
    assert made.key == "build-my-data"
    assert made.table[0] == {
        "shard": "data/train/part-00000-of-00006.parquet",
        "digest": "cdcdcdcdcdcd",
        "rows": 1,
        "rejects": 0,
        "built": "now",
        "seconds": 2.5,
    }
    assert (made.table[1]["built"], made.table[1]["seconds"]) == ("before", None)
    assert "9 clips: 6 rows, 3 rejects. 1 of 6 shards built now, 2.5 s of work." in made.markdown
    assert made.markdown.index("| no_face | 2 |") < made.markdown.index("| a<b | 1 |"), "the commonest first"
    svg = ElementTree.fromstring(unquote(made.picture.removeprefix("data:image/svg+xml,")))
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(bar.get("width", "")) for bar in svg.findall(f"{space}rect")[1:]]
    assert widths == [420.0, 140.0, 70.0]  # of 6, 2 and 1
    texts = [text.text for text in svg.findall(f"{space}text")]
    assert texts == ["rows", "6", "reject: no_face", "2", "reject: a<b", "1"]


def test_the_table_of_a_large_build_is_cut_and_says_so(tmp_path: Path) -> None:
    made = artifacts(tmp_path, MOST_ROWS + 1, [])
    assert len(made.table) == MOST_ROWS
    assert f"first {MOST_ROWS} of {MOST_ROWS + 1} shards" in made.description


def test_a_build_of_nothing_but_rejects_has_a_picture(tmp_path: Path) -> None:
    made = artifacts(tmp_path, 0, [Reject("x", "read", "no_face", "m")])
    assert made.table == [] and "0 rows, 1 rejects" in made.markdown
    ElementTree.fromstring(unquote(made.picture.removeprefix("data:image/svg+xml,")))
