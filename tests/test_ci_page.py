"""The page on continuous integration: its workflow is YAML whose commands exist, and its scripts do what they say."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
import talkforge
import yaml
from talkforge.cli import cli
from talkforge.metrics.base import metrics, select
from talkforge.reports.gates import check_gates, parse_gate

ROOT = Path(talkforge.__file__).resolve().parent
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
NEEDED = {"actions/checkout", "actions/setup-python", "actions/cache", "actions/upload-artifact"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def workflow() -> dict[Any, Any]:
    (text,) = blocks("yaml")
    return yaml.safe_load(text)


def steps() -> list[dict[str, Any]]:
    return workflow()["jobs"]["eval"]["steps"]


def script(name: str) -> str:
    (found,) = (step["run"] for step in steps() if step.get("name") == name)
    return found


def commands(text: str) -> list[list[str]]:
    """Command lines of talkforge, without its name, as a shell would split them."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.strip().startswith("talkforge ")]


def parsed(arguments: list[str]) -> click.Context:
    """The command's context; fails for a command or option that there is not, or one that is wanted and not given."""
    command, context = cli, click.Context(cli)
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    return command.make_context(context.info_name, list(arguments))


def made(folder: Path, *arguments: str) -> str:
    """What the page's makefile would run."""
    (folder / "Makefile").write_text(blocks("make")[0])
    done = subprocess.run(["make", "-n", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def all_commands(folder: Path) -> list[list[str]]:
    texts = [*blocks(""), *(step["run"] for step in steps() if "run" in step), made(folder, "eval")]
    return [line for text in texts for line in commands(text)]


def test_the_workflow_has_what_a_job_needs() -> None:
    data = workflow()
    assert set(data) == {"name", True, "permissions", "concurrency", "jobs"}, "YAML 1.1 reads the key `on` as true"
    assert set(data[True]) == {"push", "pull_request"} and data["permissions"] == {"contents": "write"}
    for step in steps():
        assert ("uses" in step) != ("run" in step), step
        assert set(step) <= {"name", "uses", "with", "run", "if"}
    used = [step["uses"].partition("@") for step in steps() if "uses" in step]
    assert {name for name, _, _ in used} == NEEDED and all(re.fullmatch(r"v\d+", version) for _, _, version in used)
    assert "make eval" in script("Evaluate") and "make -C talkforge setup" in script("Set up TalkForge")
    assert re.search(r"^setup:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_what_must_run_after_a_failed_gate_does() -> None:
    names = [step.get("name", step.get("uses")) for step in steps()]
    after = steps()[names.index("Gates, summary and history") + 1 :]
    assert len(after) == 3 and all("!cancelled()" in step["if"] for step in after)


def test_every_command_is_one_of_the_command_line(tmp_path: Path) -> None:
    found = all_commands(tmp_path)
    assert {line[0] for line in found} == {"eval", "gate", "history"} and len(found) >= 6
    for line in found:
        parsed(line)


def test_every_gate_can_be_judged(tmp_path: Path) -> None:
    default = [metric.spec.id for metric in select(None)]
    lines = [line for line in all_commands(tmp_path) if "--fail-if" in line]
    texts = [word for line in lines for before, word in pairwise(line) if before == "--fail-if"]
    table = re.findall(r"^\| `([^`]+)` \| ", PAGE.partition("| gate | fails when |")[2], flags=re.MULTILINE)
    assert len(texts) >= 5 and len(table) == 7
    runs = dict.fromkeys(("copy", "warp", "still"), default)
    check_gates([parse_gate(text) for text in (*texts, *table)], runs, metrics.names())


def test_the_history_is_one_file_from_step_to_step() -> None:
    (gate,) = commands(script("Gates, summary and history"))
    (page,) = commands(script("Page of the history"))
    options = parsed(gate).params
    assert str(options["history"]) == page[1] == "history/history.jsonl"
    assert str(options["summary"]) == "$GITHUB_STEP_SUMMARY" and options["commit"] == "$COMMIT"


def test_an_unknown_option_would_be_seen() -> None:
    for line in (["gate", "runs", "--fail-iff", "a>1"], ["gate"], ["gat", "runs"]):
        with pytest.raises(click.UsageError):
            parsed(line)


def test_make_eval_takes_gates(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"  # newer than all that set-up depends on
    stamp.touch()
    command = ["make", "-n", "-C", str(ROOT), "eval", "FAIL_IF=copy/fvd>100 coverage<1", "BIN=bin", f"STAMP={stamp}"]
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, capture_output=True, text=True, env=outside)  # this test may be run by make itself
    (line,) = (one for one in done.stdout.splitlines() if "talkforge benchmark" in one)
    assert parsed(shlex.split(line)[1:]).params["fail_if"] == ("copy/fvd>100", "coverage<1")


def test_the_historys_branch_is_made_and_continued(tmp_path: Path) -> None:
    """The two scripts in a clone of a repository, as two jobs one after the other would run them."""
    git, bash = shutil.which("git"), shutil.which("bash")
    if not git or not bash:
        pytest.skip("no git or no bash is installed")

    def run(*words: str, cwd: Path) -> str:
        variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "COMMIT": "abc", "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(words, cwd=cwd, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(git, "init", "-q", "--bare", "-b", "main", "origin", cwd=tmp_path)
    run(git, "clone", "-q", "origin", "first", cwd=tmp_path)
    identity = ("-c", "user.name=n", "-c", "user.email=e@localhost")
    (tmp_path / "first" / "code.py").write_text("pass\n")
    run(git, "add", "code.py", cwd=tmp_path / "first")
    run(git, *identity, "commit", "-q", "-m", "start", cwd=tmp_path / "first")
    run(git, "push", "-q", "origin", "HEAD:main", cwd=tmp_path / "first")
    for job, lines in (("one", "1\n"), ("two", "1\n2\n"), ("three", "1\n2\n")):
        clone = tmp_path / job
        run(git, "clone", "-q", "--depth", "1", f"file://{tmp_path / 'origin'}", job, cwd=tmp_path)
        run(bash, "-e", "-c", script("History so far"), cwd=clone)
        file = clone / "history" / "history.jsonl"
        assert (file.read_text() if file.exists() else "") == {"one": "", "two": "1\n", "three": "1\n2\n"}[job]
        file.write_text(lines)
        run(bash, "-e", "-c", script("Keep the history"), cwd=clone)
    assert run(git, "show", "evaluation-history:history.jsonl", cwd=tmp_path / "origin") == "1\n2\n"
    assert run(git, "log", "--format=%s", "evaluation-history", cwd=tmp_path / "origin") == "abc\nabc\n"
    assert run(git, "ls-tree", "--name-only", "evaluation-history", cwd=tmp_path / "origin") == "history.jsonl\n"
