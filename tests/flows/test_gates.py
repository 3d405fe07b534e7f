"""Gates, summary and history as commands, on runs of real clips."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from talkforge.cli import cli
from talkforge.core.errors import ConfigError, InputError, TalkForgeError
from talkforge.flows.benchmark import read_run
from talkforge.flows.history import Commit, commit_of, read_history, record, write_history

SYNC, LIPS, FD = "av_sync:mouth-envelope", "lip_dynamics:mp-tasks", "fd:mobilenet-v2"
METRICS = "av_sync,lip_dynamics"


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKFORGE_CACHE", str(cache))
    monkeypatch.delenv("GITHUB_SHA", raising=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def clips(sample_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for k in range(2):
        (folder / f"{k}.mp4").symlink_to(sample_clips / f"test-movie-{k}.mp4")
    return folder


@pytest.fixture(scope="module")
def run(clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished evaluation of the clips against themselves."""
    out = tmp_path_factory.mktemp("run") / "mine"
    arguments = ["eval", "--real", clips, "--generated", clips, "--out", out, "--metrics", METRICS, "--method", "mine"]
    assert called(*arguments, "--no-prefect", "--cache", cache).exit_code == 0
    return out


def called(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def refused(*arguments: str | Path) -> str:
    """The error that the command line turns into one line and exit code 2."""
    error = CliRunner().invoke(cli, [str(one) for one in arguments], standalone_mode=False).exception
    assert isinstance(error, TalkForgeError) and error.exit_code == 2
    return str(error)


def test_a_failed_gate_is_exit_code_1_and_all_are_listed(run: Path) -> None:
    done = called("gate", run, "--fail-if", "av_sync>-1", "--fail-if", "lip_dynamics<0", "--fail-if", "coverage<1")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["FAILED", "passed", "passed"]
    assert lines[0].startswith(f"FAILED  fail if av_sync>-1:  {SYNC}  0.") and lines[0].endswith("threshold -1")
    assert "1 of 3 gates failed" in done.stderr
    assert called("gate", run, "--fail-if", "lip_dynamics<0").exit_code == 0


def test_gates_follow_an_evaluation_and_work_is_done_first(run: Path, clips: Path, tmp_path: Path) -> None:
    arguments = ["eval", "--real", clips, "--generated", clips, "--metrics", METRICS, "--no-prefect"]
    arguments += ["--method", "mine", "--fail-if", "av_sync>-1", "--summary", tmp_path / "new" / "s.md"]
    done = called(*arguments, "--history", tmp_path / "h.jsonl", "--commit", "c" * 40, "--out", tmp_path / "out")
    assert done.exit_code == 1 and (tmp_path / "out" / "report.html").is_file()
    assert f"mine at ccccccc added to {tmp_path / 'h.jsonl'}" in done.stderr
    assert (
        "| Change |" in (tmp_path / "new" / "s.md").read_text()
        and "first entry" in (tmp_path / "new" / "s.md").read_text()
    )
    again = called(*arguments, "--history", tmp_path / "h.jsonl", "--commit", "c" * 40, "--out", tmp_path / "out")
    assert again.exit_code == 1 and "nothing to do" in again.stderr and "is already in" in again.stderr
    assert (tmp_path / "new" / "s.md").read_text().count("# mine: 1 of 1 gate failed") == 2, "a summary is appended to"


def test_what_cannot_be_judged_is_said_before_any_work(clips: Path, tmp_path: Path) -> None:
    start = ["eval", "--real", clips, "--generated", clips, "--out", tmp_path / "out", "--metrics", METRICS]
    assert "unknown metric 'av_snc'" in refused(*start, "--fail-if", "av_snc<1")
    assert "fvd is not measured here" in refused(*start, "--fail-if", "fvd>300")
    assert "not of the form" in refused(*start, "--fail-if", "fvd")
    (tmp_path / "h.jsonl").write_text("{}\n")
    assert "h.jsonl, line 1: 'schema_version' is needed" in refused(*start, "--history", tmp_path / "h.jsonl")
    inside = tmp_path / "out" / "h.jsonl"
    assert "would lie in a report folder" in refused(*start, "--history", inside)
    assert "would lie in a report folder" in refused(*start, "--summary", inside)
    bench = ["benchmark", "--real", clips, "--methods", "copy,still", "--out", tmp_path / "out", "--metrics", METRICS]
    assert "no method 'warp' here" in refused(*bench, "--fail-if", "warp/av_sync<1")
    assert not (tmp_path / "out").exists()


def test_a_missing_number_fails_unless_it_may_be_missing(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    results = json.loads((run / "results.json").read_text())
    results["results"][SYNC] |= {"value": None, "ci95": None, "reason": "no_face"}
    (bare / "results.json").write_text(json.dumps(results))
    done = called("gate", bare, "--fail-if", "av_sync<0")
    assert done.exit_code == 1 and "— no_face" in done.stdout
    done = called("gate", bare, "--fail-if", "av_sync<0", "--allow-missing")
    assert done.exit_code == 0 and done.stdout.startswith("passed") and "— no_face" in done.stdout


def test_an_empty_summary_is_none_and_nothing_to_do_is_said(run: Path, tmp_path: Path) -> None:
    done = called("gate", run, "--fail-if", "av_sync<-1", "--summary", "")
    assert done.exit_code == 0
    assert "nothing is asked for" in called("gate", run, "--summary", "").stderr
    assert "is a folder" in called("gate", run, "--summary", tmp_path).stderr
    assert "same method name" in refused("gate", run, run, "--fail-if", "av_sync<-1")
    assert "is no evaluation" in refused("gate", tmp_path / "none", "--fail-if", "av_sync<-1")


def test_the_history_has_one_entry_a_commit(run: Path, tmp_path: Path) -> None:
    file, outcome = tmp_path / "h.jsonl", read_run(run)
    for sha in ("a" * 40, "b" * 40, "a" * 40):
        record(file, [outcome], Commit(sha))
    entries = read_history(file)
    assert [one.commit for one in entries] == ["a" * 40, "b" * 40]
    found = entries[0].metrics[SYNC]
    assert found.value == outcome.results["results"][SYNC]["value"]
    assert found.weights == outcome.results["results"][SYNC]["weights"]
    assert entries[0].settings["crop"] == "face" and entries[0].config_digest == outcome.results["config_digest"]
    (kept,) = record(file, [outcome], Commit("b" * 40))
    assert kept.recorded.how == "there" and kept.changes[SYNC] == "unchanged"


def test_many_at_once_lose_no_entry(run: Path, tmp_path: Path) -> None:
    outcome = read_run(run)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: record(tmp_path / "h.jsonl", [outcome], Commit(f"{k:040x}")), range(4)))
    assert {one.commit for one in read_history(tmp_path / "h.jsonl")} == {f"{k:040x}" for k in range(4)}


def test_a_corrupt_history_is_left_as_it_is(run: Path, tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text("<<<<<<< HEAD\n")
    with pytest.raises(ConfigError, match=r"h\.jsonl, line 1"):
        record(tmp_path / "h.jsonl", [read_run(run)], Commit("a" * 40))
    assert (tmp_path / "h.jsonl").read_text() == "<<<<<<< HEAD\n"


def test_the_commit_is_the_jobs_or_the_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    lost = commit_of(tmp_path)
    assert lost.sha is None and "not a git repository" in (lost.reason or "")

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    assert commit_of(tmp_path).sha is None
    (tmp_path / "a").write_text("a")
    git("add", "a")
    git("commit", "-q", "-m", "m")
    head = git("rev-parse", "HEAD")
    assert commit_of(tmp_path) == Commit(head, None, False)
    (tmp_path / "a").write_text("b")
    assert commit_of(tmp_path) == Commit(head, None, True)
    monkeypatch.setenv("GITHUB_SHA", "f" * 40)
    assert commit_of(tmp_path) == Commit("f" * 40, None, None)


def test_the_page_and_its_plots(run: Path, tmp_path: Path) -> None:
    record(tmp_path / "h.jsonl", [read_run(run)], Commit("a" * 40))
    done = called("history", tmp_path / "h.jsonl", "--out", tmp_path / "page")
    assert done.exit_code == 0
    names = sorted(path.name for path in (tmp_path / "page").iterdir())
    assert names == ["av_sync-mouth-envelope.svg", "index.html", "lip_dynamics-mp-tasks.svg"]
    write_history(tmp_path / "h.jsonl", tmp_path / "page")  # over its own files
    (tmp_path / "page" / "lip_dynamics-mp-tasks.svg").write_text("<svg>mine</svg>")
    with pytest.raises(InputError, match="is not ours"):
        write_history(tmp_path / "h.jsonl", tmp_path / "page")
    assert "there is no history" in refused("history", tmp_path / "none.jsonl", "--out", tmp_path / "page")
    (tmp_path / "empty.jsonl").write_text("\n")
    assert "holds no entry" in refused("history", tmp_path / "empty.jsonl", "--out", tmp_path / "page")


def test_without_real_clips_what_needs_none_is_computed(clips: Path, tmp_path: Path) -> None:
    start = ["eval", "--generated", clips, "--out", tmp_path / "out", "--no-prefect"]
    done = called(*start, "--metrics", "av_sync")
    assert done.exit_code == 0, done.stderr
    assert f"metrics that need no reference: {SYNC}" in done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert list(results) == [SYNC]
    one = results[SYNC]
    assert (one["n_scored"], one["n_attempted"], one["real_vs_real"]) == (2, 2, None) and one["value"] is not None
    assert "real vs real" in (tmp_path / "out" / "report.md").read_text().lower()
    message = refused(*start, "--metrics", "fd,av_sync")
    assert message.startswith(f"{FD} cannot be computed without real clips (give --real DIR; ")
    assert "av_sync" in message.partition("these can run")[2] and "fvd" not in message.partition("these can run")[2]
    assert one["protocol"]["pairing"] == "none: there are no real clips"
    start[4] = tmp_path / "other"
    assert "give --real DIR" in refused(*start, "--metrics", "av_sync", "--against", tmp_path / "out")


def test_the_default_set_without_real_clips_says_what_is_left_out(clips: Path, tmp_path: Path) -> None:
    done = called("eval", "--generated", clips, "--out", tmp_path / "out", "--dry-run")
    assert "left out, they need real clips: fd:mobilenet-v2, fvd:i3d-k400-16f" in done.stderr
    assert f"metric {SYNC}" in done.stdout and "fvd" not in done.stdout


def test_a_value_is_the_same_with_and_without_real_clips(run: Path, clips: Path, tmp_path: Path) -> None:
    called("eval", "--generated", clips, "--out", tmp_path / "out", "--no-prefect", "--metrics", METRICS)
    alone, both = (read_run(folder).results["results"] for folder in (tmp_path / "out", run))
    assert {name: one["value"] for name, one in alone.items()} == {name: one["value"] for name, one in both.items()}
    assert read_run(tmp_path / "out").results["config_digest"] != read_run(run).results["config_digest"]


@pytest.mark.slow
def test_real_clips_win_over_the_file_of_a_run_without(clips: Path, tmp_path: Path) -> None:
    called("eval", "--generated", clips, "--out", tmp_path / "a", "--no-prefect", "--metrics", "av_sync")
    again = ["eval", "--generated", clips, "--out", tmp_path / "b", "--no-prefect"]
    same = called(*again, "--config", tmp_path / "a" / "config.yaml", "--dry-run")
    assert same.exit_code == 0 and f"metrics that need no reference: {SYNC}" in same.stderr
    with_real = [*again, "--config", tmp_path / "a" / "config.yaml", "--real", clips]
    assert called(*with_real).exit_code == 0
    assert read_run(tmp_path / "b").results["results"][SYNC]["real_vs_real"] is not None


def test_gates_as_another_process(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "talkforge.cli", "gate", str(run), "--fail-if"]
    codes = {}
    for text in ("av_sync<-1", "av_sync>-1", "av_snc>-1"):
        done = subprocess.run([*command, text], capture_output=True, text=True, cwd=tmp_path, env=os.environ)
        codes[text] = done.returncode
    assert codes == {"av_sync<-1": 0, "av_sync>-1": 1, "av_snc>-1": 2}
    assert done.stderr.startswith("talkforge: gate 'av_snc>-1': unknown metric") and done.stderr.count("\n") == 1
