"""A training as a user runs it: what lies in its folder, and how it goes on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from talkforge.commands.training import train
from talkforge.core.errors import ConfigError, InputError, Interrupted, OutputBusy, TalkForgeError
from talkforge.core.lock import owned
from talkforge.core.registry import Registry
from talkforge.flows import train as flow
from talkforge.models.training.log import read_log
from talkforge.tests.flows.toy_system import TINY
from talkforge.tests.reports.page import Page

SCRIPT = """
from talkforge.flows.train import systems
systems.add("toy", "talkforge.tests.flows.toy_system:TOY")
from talkforge.cli import main
main()
"""


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    known: Registry[Any] = Registry("system")
    known.add("toy", "talkforge.tests.flows.toy_system:TOY")
    monkeypatch.setattr(flow, "systems", known)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", SCRIPT, "train", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def learned(out: Path) -> list[tuple[int, float, float]]:
    return [(row["step"], row["loss"], row["grad_norm"]) for row in read_log(out / "log.jsonl")]


def test_a_training_s_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = flow.train("toy", data, out, "tiny", ["seed=3"])
    assert (done.out, done.steps, done.fresh) == (out, 30, True)
    names = {path.name for path in out.iterdir()}
    assert names == {"checkpoints", "config.yaml", "log.jsonl", "samples", "train.html", "train.json"}
    kept = yaml.safe_load((out / "config.yaml").read_text())
    assert (kept["system"], kept["settings"]["seed"], kept["settings"]["hidden"]) == ("toy", 3, 8)
    facts = json.loads((out / "train.json").read_text())
    assert facts["steps"] == 30 and facts["loss"] == read_log(out / "log.jsonl")[-1]["loss"]
    assert [path.name for path in sorted((out / "samples").iterdir())] == [f"step-000000{k}0.png" for k in (1, 2, 3)]


def test_a_finished_training_is_left_alone(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flow.train("toy", data, out, "tiny")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for how in ({}, {"resume": True}, {"overrides": ["keep=7", "log_every=5"]}):
        done = flow.train("toy", data, out, "tiny", **how)
        assert (done.steps, done.fresh) == (30, False)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_an_interrupted_training_goes_on_as_if_nothing_had_been(data: Path, tmp_path: Path) -> None:
    flow.train("toy", data, tmp_path / "whole", "tiny")
    (data / "stop").touch()
    with pytest.raises(Interrupted) as caught:
        flow.train("toy", data, tmp_path / "out", "tiny")
    assert "--resume" in str(caught.value)
    assert not (tmp_path / "out" / "train.json").exists()
    assert (tmp_path / "out" / "train.html").is_file()
    with pytest.raises(InputError, match=r"holds a training already.*--resume"):
        flow.train("toy", data, tmp_path / "out", "tiny")
    assert len(learned(tmp_path / "out")) == 1
    assert flow.train("toy", data, tmp_path / "out", "tiny", resume=True).fresh
    assert learned(tmp_path / "out") == learned(tmp_path / "whole")


def test_a_longer_training_goes_on_from_the_shorter_one(data: Path, tmp_path: Path) -> None:
    flow.train("toy", data, tmp_path / "whole", "tiny")
    flow.train("toy", data, tmp_path / "out", "tiny", ["steps=17"])
    with pytest.raises(InputError, match="holds a training already"):
        flow.train("toy", data, tmp_path / "out", "tiny")
    flow.train("toy", data, tmp_path / "out", "tiny", resume=True)
    assert learned(tmp_path / "out") == learned(tmp_path / "whole")


def test_other_settings_or_data_do_not_go_on(data: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    other.mkdir()
    flow.train("toy", data, out, "tiny", ["steps=2"])
    with pytest.raises(ConfigError, match=r"hidden was 8 and is 9.*only these may change: .*optimiser"):
        flow.train("toy", data, out, "tiny", ["hidden=9"], resume=True)
    with pytest.raises(ConfigError, match=r"data was '.*data' and is '.*other'"):
        flow.train("toy", other, out, "tiny", ["steps=4"], resume=True)
    with pytest.raises(ConfigError, match=r"ema\.decay was 0\.9999 and is 0\.5"):
        flow.train("toy", data, out, "tiny", ["ema.decay=0.5"], resume=True)
    flow.train("toy", data, out, "tiny", ["steps=4", "optimiser.lr=0.5"], resume=True)
    assert [row["lr"] for row in read_log(out / "log.jsonl")] == [1e-4, 1e-4, 0.5, 0.5]


def test_a_folder_that_is_not_a_training_s_is_left_alone(data: Path, tmp_path: Path) -> None:
    (data / "clip.mp4").touch()
    with pytest.raises(InputError, match="holds other files"):
        flow.train("toy", data, data, "tiny", resume=True)
    with pytest.raises(InputError, match="is not a folder"):
        flow.train("toy", tmp_path / "none", tmp_path / "out", "tiny")
    with pytest.raises(ConfigError, match=r"unknown system 'toi'.*did you mean toy"):
        flow.train("toi", data, tmp_path / "out", "tiny")
    assert [path.name for path in data.iterdir()] == ["clip.mp4"]


def test_two_trainings_never_share_a_folder(data: Path, tmp_path: Path) -> None:
    with owned(tmp_path / "out"), pytest.raises(OutputBusy):
        flow.train("toy", data, tmp_path / "out", "tiny")
    assert not (tmp_path / "out").exists()


def test_a_training_in_a_thread_leaves_signals_alone(data: Path, tmp_path: Path) -> None:
    thread = threading.Thread(target=flow.train, args=("toy", data, tmp_path / "out", "tiny", ["steps=2"]))
    thread.start()
    thread.join()
    assert len(learned(tmp_path / "out")) == 2


def test_a_dry_run_counts_and_makes_nothing() -> None:
    found = flow.describe("toy", "full", ["steps=7"])
    assert found["parameters"] == {"net": 999 * 6 + 999 + 2 * 999 + 999 + 1}
    assert found["settings"]["steps"] == 7 and len(found["config_digest"]) == 64


def test_the_command_ends_with_3_on_sigterm_and_goes_on(data: Path, tmp_path: Path) -> None:
    out, tiny = tmp_path / "out", ("toy", "--data", data, "--preset", "tiny")
    (data / "stop").touch()
    stopped = command(*tiny, "--out", out)
    assert stopped.returncode == 3
    assert stopped.stderr == (
        "talkforge: SIGTERM ended the training at step 1 of 30 (the same command with --resume goes on)\n"
    )
    done = command(*tiny, "--out", out, "--resume", "--json")
    assert (done.returncode, json.loads(done.stdout)["steps"]) == (0, 30), done.stderr
    # As a command too: how many threads torch has in this process depends on the tests before, and sums on threads.
    assert command(*tiny, "--out", tmp_path / "whole").returncode == 0
    assert learned(out) == learned(tmp_path / "whole")


def test_the_command_s_options(data: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(train, ["toy", *arguments])

    dry = run("--dry-run", "--json", "--set", "hidden=2")
    assert json.loads(dry.stdout)["parameters"] == {"net": 6 * 2 + 2 + 4 + 3}
    plain = run("--dry-run", "--set", "steps=7").stdout
    assert "9,991 parameters" in plain
    shown = yaml.safe_load(plain.partition("settings:\n")[2])
    assert shown == flow.describe("toy", "full", ["steps=7"])["settings"] and shown["steps"] == 7
    missing = run("--data", str(data))
    assert missing.exit_code == 2 and "Missing option '--out'" in missing.output
    assert "Missing option '--data'" in run().output


def test_a_bad_clip_is_named_and_the_training_can_go_on(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TalkForgeError, match=r"toy/9") as caught:
        flow.train("toy", data, tmp_path / "out", "tiny", ["bad=[9]"])
    assert (caught.value.reason, caught.value.exit_code) == ("not_finite", 2)
    assert not (tmp_path / "out" / "train.json").exists()


def test_the_page_shows_curves_pictures_and_settings(data: Path, tmp_path: Path) -> None:
    flow.train("toy", data, tmp_path / "out", "tiny", ["optimiser.lr=0.01"])
    text = (tmp_path / "out" / "train.html").read_text()
    page = Page(text)
    labels = [svg.attributes["aria-label"] or "" for svg in page.all("svg", class_="plot")]
    names = [label.split(" over ")[0] for label in labels]
    assert names == ["loss", "loss: error", "loss: decay", "lr", "grad_norm", "clips_per_s", "memory_bytes"]
    assert labels[3].startswith("lr over 30 steps: last 0.01, least 0.01, most 0.01")
    assert [image.attributes["alt"] for image in page.all("img")] == [f"Samples at step {k}0" for k in (3, 2, 1)]
    rows = {row.text.strip() for row in page.all("tr")}
    assert {"optimiser.lr0.01", f"steps{TINY['steps']}"} <= rows
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)


def test_a_training_that_could_not_be_set_up_leaves_the_folder_free(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.yaml").write_text("system: toy\n", encoding="utf-8")
    assert flow.train("toy", data, out, "tiny", ["steps=2"]).steps == 2
