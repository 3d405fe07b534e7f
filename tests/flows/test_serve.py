"""Schedules: what a file of deployments may say, the flows behind it, and a served build that fires by itself."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import talkforge
import yaml
from talkforge.core.errors import ConfigError, InputError
from talkforge.flows.serve import EXAMPLE, describe, read_deployments
from talkforge.tests.flows.conftest import LIGHT

ROOT = Path(talkforge.__file__).parent
BUILD = {"name": "one", "flow": "build", "parameters": {"config": {"dataset": "folder", "root": "in", "out": "out"}}}
START = datetime(2026, 3, 28, 12, tzinfo=UTC)  # the day before clocks change in Berlin


def write(folder: Path, *entries: dict[str, Any]) -> Path:
    path = folder / "deployments.yaml"
    path.write_text(yaml.safe_dump({"deployments": list(entries)}))
    return path


def test_places_are_below_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "eval.yaml").write_text(
        f"real: {tmp_path}/r\ngenerated: {tmp_path}/g\nout: {tmp_path}/o\nseed: 3\n"
    )
    bounds = {"real": "r", "out": "/else/where", "methods": ["copy"]}
    path = write(
        tmp_path / "sub",
        BUILD,
        {"name": "two", "flow": "eval", "parameters": {"config": "eval.yaml"}},
        {"name": "three", "flow": "benchmark", "parameters": bounds},
    )
    monkeypatch.chdir(tmp_path)  # the present folder does not matter
    one, two, three = read_deployments(path)
    assert one.parameters["config"] == {
        "dataset": "folder",
        "root": f"{tmp_path}/sub/in",
        "out": f"{tmp_path}/sub/out",
    }
    assert two.parameters == {"config": f"{tmp_path}/sub/eval.yaml"}
    assert three.parameters == {"real": f"{tmp_path}/sub/r", "out": "/else/where", "methods": ["copy"]}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"cron": "61 * * * *"}, "61 * * * *"),
        ({"cron": "daily"}, "daily"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Berlinn"}, "timezone"),
        ({"flow": "bild"}, "build"),
        ({"corn": "0 3 * * *"}, "corn"),
        ({"name": "a/b"}, "name"),
        ({"parameters": {}}, "config"),
        ({"parameters": {"config": {"dataset": "folder", "root": "in", "out": "out", "sise": 64}}}, "sise"),
        ({"parameters": {"config": "absent.yaml"}}, "absent.yaml"),
        ({"parameters": {"config": "relative.yaml"}}, "absolute paths"),
        ({"flow": "benchmark", "parameters": {"real": "r", "out": "o", "methods": "copy"}}, "methods"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(change: dict[str, Any], part: str, tmp_path: Path) -> None:
    (tmp_path / "relative.yaml").write_text("dataset: folder\nroot: in\nout: out\n")
    with pytest.raises(ConfigError) as refused:
        read_deployments(write(tmp_path, BUILD | change))
    assert part in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_file_that_is_absent_or_empty_or_says_a_name_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no deployments\.yaml") as absent:
        read_deployments()
    assert str(EXAMPLE) in str(absent.value)
    with pytest.raises(ConfigError, match="deployments"):
        read_deployments(write(tmp_path))
    with pytest.raises(ConfigError, match="two deployments are called 'one'"):
        read_deployments(write(tmp_path, BUILD, BUILD))


def test_the_next_times_follow_cron_and_time_zone(tmp_path: Path) -> None:
    nightly = BUILD | {"cron": "30 3 * * *", "timezone": "Europe/Berlin"}
    paused, by_hand = nightly | {"name": "two", "paused": True}, BUILD | {"name": "three"}
    found = read_deployments(write(tmp_path, nightly, paused, by_hand))
    hours = [moment.astimezone(UTC).strftime("%d %H:%M") for moment in found[0].next_times(START)]
    assert hours == ["29 01:30", "30 01:30", "31 01:30"], "summer time: half past one in UTC"
    before = found[0].next_times(datetime(2026, 3, 27, 12, tzinfo=UTC))[0]
    assert before.astimezone(UTC).strftime("%d %H:%M") == "28 02:30", "winter time"
    assert [one.next_times(START) for one in found[1:]] == [[], []]
    text = describe(found, START)
    assert text.count("  next: ") == 3
    assert "one: build, 30 3 * * * (Europe/Berlin)\n" in text
    assert "two: build, 30 3 * * * (Europe/Berlin), paused" in text and "three: build, when asked for" in text


def test_the_example_can_be_served() -> None:
    found = read_deployments(EXAMPLE)
    assert {one.flow for one in found} == {"build", "eval", "benchmark"}
    assert found[0].next_times() and found[-1].paused


def test_entrypoints_schedules_and_parameters_of_prefect_yaml() -> None:
    """Read by Prefect's own model; a name of a module resolves without the sources beside it."""
    from prefect.cli.deploy._models import PrefectYamlModel
    from prefect.flows import load_flow_from_entrypoint
    from prefect.server.schemas.schedules import CronSchedule

    data = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    found = PrefectYamlModel.model_validate(data).deployments
    names = {}
    for one, raw in zip(found, data["deployments"], strict=True):
        assert one.entrypoint is not None and one.entrypoint.startswith("talkforge.flows.deployments.")
        flow: Any = load_flow_from_entrypoint(one.entrypoint, use_placeholder_flow=False)
        names[one.name] = flow.name
        flow.validate_parameters(one.parameters)
        assert one.work_pool is not None and raw["work_pool"]["name"] == "talkforge"
        (schedule,) = raw["schedules"]
        assert len(asyncio.run(CronSchedule.model_validate(schedule).get_dates(2))) == 2
    assert names == {"nightly": "talkforge-build", "morning": "talkforge-eval", "monthly": "talkforge-benchmark"}


SERVE = """
import signal
import sys
from pathlib import Path
from talkforge.flows.serve import serve

def stop(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, stop)  # as the command does
try:
    serve(Path(sys.argv[1]))
except KeyboardInterrupt:
    sys.exit(3)
"""


def wait(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not ready():
        assert process.poll() is None and time.monotonic() < until, log.read_text()[-3000:]
        time.sleep(0.2)


def decodes(out: Path) -> list[int]:
    """Of each shard's last making; an unfinished build has none."""
    info = out / "meta/info.json"
    if not info.is_file():
        return []
    return [json.loads(path.read_text())["counters"]["decodes"] for path in sorted(out.glob("_done/build-*/*.json"))]


def processes(session: int) -> list[str]:
    """Command lines of a session's living processes: dead ones stay listed until the machine's init asks for them."""
    command = ["ps", "-eo", "sess=,stat=,args="]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [line.split(maxsplit=2) for line in lines]
    return [" ".join(rest) for own, state, *rest in found if own == str(session) and not state.startswith("Z")]


@pytest.mark.slow
def test_a_served_build_fires_by_itself_and_does_what_is_new(clips: Path, sample_clips: Path, tmp_path: Path) -> None:
    settings = {"dataset": "folder", "root": "clips", "out": "out", "cache": "cache", "extractors": LIGHT}
    config = settings | {"size": 128, "shard_clips": 1, "workers": 2}
    entry = {"name": "often", "flow": "build", "cron": "* * * * * */20", "parameters": {"config": config}}
    (tmp_path / "serve.py").write_text(SERVE)
    path, log = write(tmp_path, entry), tmp_path / "log.txt"
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    surroundings["PREFECT_HOME"] = str(tmp_path / "prefect")
    command = [sys.executable, str(tmp_path / "serve.py"), str(path)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=surroundings, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait(process, log, lambda: decodes(tmp_path / "out") == [1, 1])
        shutil.copy(sample_clips / "test-movie-1.mp4", clips)
        wait(process, log, lambda: "3 clips: 3 rows, 0 rejects; 1 shards built now" in log.read_text())
        assert decodes(tmp_path / "out") == [1, 1, 1]
        wait(process, log, lambda: "3 clips: 3 rows, 0 rejects; up to date" in log.read_text())
        (below,) = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        assert len(processes(int(below))) >= 2, "the server and the runner"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 3
        assert processes(int(below)) == []
    finally:
        process.terminate()
        process.wait()
