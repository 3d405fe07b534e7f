"""Builds through Prefect on threads, Dask and Ray; a process each: same bytes, and what the server has."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from talkforge.core.errors import WeightsError
from talkforge.core.weights import weights_store
from talkforge.flows.build_dataset import BuildConfig, build
from talkforge.tasks.extractor import extractors

LIGHT = ["arkit52", "speech-envelope"]
CLIPS = ("jwp-intro-0", "test-movie-0")
NEEDED = {"local": (), "dask": ("prefect_dask", "distributed"), "ray": ("prefect_ray", "ray")}

# Builds; says what the server of this process has of that; on a cluster, looks at where tasks run, what they see, and
# how much travels to them beside their items, and lets one fail.
SCRIPT = """
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from talkforge.core.errors import NoFace
from talkforge.flows.build_dataset import BuildConfig, build
from talkforge.flows.engine import run

@dataclass(frozen=True)
class Seen:
    process: int
    variables: tuple
    sent: int

def look(item):
    import cloudpickle
    from prefect.context import serialize_context
    time.sleep(1)  # so that both workers get one
    names = ("TALKFORGE_PROBE", "OMP_NUM_THREADS")
    return Seen(os.getpid(), tuple(os.environ.get(name) for name in names), len(cloudpickle.dumps(serialize_context())))

def fail(item):
    raise NoFace("none in this one", hint="look at it")

def probe(plan, engine):
    found = engine.map("look", look, [0, 1])
    assert [type(one) for one in found] == [Seen, Seen], found
    assert os.getpid() not in {one.process for one in found} and len({one.process for one in found}) == 2, found
    assert {one.variables for one in found} == {("here", "1")}, found
    assert max(one.sent for one in found) < 100_000 < len(plan), found
    try:
        engine.map("fail", fail, [0])
    except NoFace as error:
        return [error.message, error.hint, error.reason]

def ask(kind, **body):
    import httpx
    from prefect.server.api.server import SubprocessASGIServer
    return httpx.post(f"{SubprocessASGIServer().api_url}/{kind}/filter", json=body, timeout=60).json()

if __name__ == "__main__":  # workers of Dask import this file again
    config = BuildConfig.load(Path(sys.argv[1]))
    build(config)
    last = ask("flow_runs", sort="START_TIME_DESC", limit=1)[0]
    told = {"flow_run": last, "artifacts": [a for a in ask("artifacts") if a["flow_run_id"] == last["id"]]}
    if config.runner != "local":
        plan = b"x" * 1_000_000  # as a build's list of all shards
        os.environ["TALKFORGE_PROBE"] = "here"
        told["probe"] = run(
            "probe", lambda engine: probe(plan, engine), workers=2, use_prefect=True, runner=config.runner
        )
    print(json.dumps(told))
"""


@dataclass(frozen=True)
class Ran:
    """What a build left behind, and what it told."""

    runner: str
    out: Path
    told: dict[str, Any]


@pytest.fixture(scope="module")
def clips(sample_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        for weight in {weight for name in LIGHT for weight in extractors.get(name).weights}:
            weights_store().path(weight)
    except WeightsError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("runners") / "clips"
    folder.mkdir()
    for name in CLIPS:
        shutil.copy(sample_clips / f"{name}.mp4", folder)
    (folder / "none.mp4").write_text("no video")
    return folder


def settings(clips: Path, out: Path, **values: Any) -> BuildConfig:
    given = {"dataset": "folder", "extractors": LIGHT, "size": 128, "shard_clips": 1, "workers": 2}
    return BuildConfig.model_validate({"root": clips, "out": out, "cache": out.parent / "cache"} | given | values)


@pytest.fixture(scope="module")
def direct(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same build without Prefect. Read only."""
    return build(settings(clips, tmp_path_factory.mktemp("direct") / "out", prefect=False)).out


def content(out: Path) -> dict[str, bytes]:
    kept = ("data/*/*.parquet", "rejects/*.parquet", "videos/**/*.mp4", "meta/stats.json", "meta/splits.json")
    return {path.relative_to(out).as_posix(): path.read_bytes() for kind in kept for path in sorted(out.glob(kind))}


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="module", params=["local", "dask", "ray"])
def ran(
    request: pytest.FixtureRequest, clips: Path, prefect_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Ran:
    """A build by one runner in a process of its own."""
    runner = request.param
    absent = [name for name in NEEDED[runner] if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"the extra '{runner}' is not installed: no {absent[0]}")
    folder = tmp_path_factory.mktemp(runner)
    settings(clips, folder / "out", runner=runner).write(folder / "build.yaml")
    (folder / "script.py").write_text(SCRIPT)
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RAY_"))}
    surroundings |= {"PREFECT_HOME": str(prefect_home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "script.py", "build.yaml"]
    done = subprocess.run(command, env=surroundings, cwd=folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return Ran(runner, folder / "out", json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_runner(ran: Ran, direct: Path) -> None:
    assert content(ran.out) == content(direct)
    assert len(content(direct)) == 2 * len(CLIPS) + 3
    markers = [json.loads(path.read_text()) for path in ran.out.glob("_done/build-*/*.json")]
    assert [marker["counters"]["decodes"] for marker in markers] == [1, 1]


@pytest.mark.slow
def test_workers_are_processes_that_get_variables_and_little_else(ran: Ran) -> None:
    """Results keep their type, an error its message and hint, and the plan behind the tasks stays at home."""
    if ran.runner == "local":
        pytest.skip("threads are no processes")
    assert ran.told["probe"] == ["none in this one", "look at it", "no_face"]


@pytest.mark.slow
def test_prefect_has_the_run_and_its_artifacts(ran: Ran) -> None:
    assert ran.told["flow_run"]["state"]["type"] == "COMPLETED"
    artifacts = {one["key"]: one for one in ran.told["artifacts"]}
    kinds = {key.removeprefix("build-folder-"): one["type"] for key, one in artifacts.items()}
    assert kinds == {"shards": "table", "summary": "markdown", "picture": "image"}
    rows = json.loads(artifacts["build-folder-shards"]["data"])
    assert [row["rows"] for row in rows] == [1, 1]
    assert "3 clips: 2 rows, 1 rejects. 2 of 2 shards built now" in artifacts["build-folder-summary"]["data"]
    assert "| not_a_video | 1 |" in artifacts["build-folder-summary"]["data"]
    assert artifacts["build-folder-picture"]["data"].startswith("data:image/svg+xml,")
