"""The command as a newcomer meets it."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from talkforge.cli import cli
from talkforge.datasets.video import open_video


def talkforge(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "talkforge.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]


def test_help_names_every_command_and_loads_no_heavy_library() -> None:
    done = talkforge("--help")
    for name in ("benchmark", "doctor", "eval", "generate", "leaderboard", "weights"):
        assert f"\n  {name} " in done.stdout
    code = (
        "import sys, talkforge.cli; print([m for m in ('torch', 'prefect', 'cv2', 'scipy', 'av') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_help_of_every_command_has_examples_that_its_own_parser_takes() -> None:
    checked = 0
    for path, command in _commands(cli, ()):
        examples = re.findall(r"^talkforge (.+)$", inspect.cleandoc(command.help or ""), flags=re.MULTILINE)
        mine = [words for words in map(shlex.split, examples) if tuple(words[: len(path)]) == path]
        assert mine, f"talkforge {' '.join(path)} --help shows no example"
        if isinstance(command, click.Group):
            continue
        for words in mine:
            _options_of(command, words[len(path) :])
            checked += 1
    assert checked > 20


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


def _options_of(command: click.Command, words: list[str]) -> None:
    """Raises click.UsageError for an option that the command does not have."""
    context = click.Context(command)
    command.make_parser(context).parse_args(words)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["evl"], "did you mean eval"),
        (["eval", "--real", "a", "--generated", "b"], "'--out'"),
        (["eval", "--real", "a", "--generated", "b", "--out", "c"], "a is not a folder"),
        (["eval", "--reel", "a"], "--real"),
        (["generate", "wrap", "--portrait", "a", "--out", "b.mp4"], "did you mean warp"),
        (["generate", "still", "--out", "b.mp4"], "--portrait"),
        (["generate", "still", "--portrait", "none.png", "--out", "b.mp4"], "there is no file none.png"),
        (["weights", "pull"], "--preset"),
        (["weights", "pull", "i3d-k4000"], "i3d-k400"),
        (["leaderboard", "nothing", "--out", "b"], "no evaluation"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(arguments: list[str], part: str, tmp_path: Path) -> None:
    done = talkforge(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("talkforge: ")
    assert done.stderr.count("\n") == 1
    assert part in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_what_can_run_and_why_not(tmp_path: Path) -> None:
    ready = json.loads(talkforge("doctor", "--json").stdout)
    assert all(metric["runs"] for metric in ready["metrics"] if metric["id"].startswith(("fvd", "av_sync")))
    assert {row["state"] for row in ready["weights"] if row["name"] == "i3d-k400"} == {"present"}
    bare = json.loads(talkforge("doctor", "--json", env=os.environ | {"TALKFORGE_WEIGHTS": str(tmp_path)}).stdout)
    broken = {metric["id"]: metric["why_not"] for metric in bare["metrics"] if not metric["runs"]}
    assert "talkforge weights pull i3d-k400" in broken["fvd:i3d-k400-16f"]


def test_generate_one_video(sample_clips: Path, tmp_path: Path) -> None:
    source = str(sample_clips / "test-movie-1.mp4")
    done = talkforge("generate", "warp", "--portrait", source, "--audio", source, "--out", "a b.mp4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with open_video(tmp_path / "a b.mp4") as frames:
        assert sum(1 for _ in frames) == 48


def test_generate_from_a_test_set_keeps_what_is_done(sample_clips: Path, tmp_path: Path) -> None:
    items = [{"id": f"clip {k}", "portrait": f"p{k}.mp4", "audio": f"p{k}.mp4"} for k in range(2)]
    items.append({"id": "gone", "portrait": "p0.mp4", "audio": "nowhere.wav"})
    for k in range(2):
        (tmp_path / f"p{k}.mp4").symlink_to(sample_clips / f"test-movie-{k}.mp4")
    (tmp_path / "set.yaml").write_text(json.dumps({"name": "two", "items": items}))
    command = ["generate", "still", "--testset", "set.yaml", "--out", "videos", "--no-prefect"]
    first, second = talkforge(*command, cwd=tmp_path), talkforge(*command, "--strict", cwd=tmp_path)
    assert (first.returncode, second.returncode) == (0, 1)
    assert "2 of 3 videos in videos, 2 made now" in first.stderr
    assert "2 of 3 videos in videos, 0 made now" in second.stderr
    assert "no video for gone: input" in first.stderr


def test_a_terminated_run_exits_with_3_and_goes_on(sample_clips: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for k in range(2):
        (tmp_path / "clips" / f"{k}.mp4").symlink_to(sample_clips / f"test-movie-{k}.mp4")
    command = [sys.executable, "-m", "talkforge.cli", "eval", "--real", "clips", "--generated", "clips", "--no-prefect"]
    command += ["--out", "out", "--cache", "cache", "--workers", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not finished_rows(tmp_path / "cache") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 3
    assert errors.splitlines()[-1] == "talkforge: interrupted; run the same command again to go on"
    assert not (tmp_path / "out").exists()
    kept = len(finished_rows(tmp_path / "cache"))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counters = json.loads((tmp_path / "out" / "results.json").read_text())["counters"]
    assert counters["cache_hits"] >= kept > 0


def finished_rows(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*.parquet") if not path.name.startswith(".")]


def test_the_metrics_page_is_current() -> None:
    from talkforge.core.provenance import PACKAGE_ROOT
    from talkforge.flows.docs import metrics_page

    page = PACKAGE_ROOT / "docs" / "metrics.md"
    assert page.read_text() == metrics_page() + "\n", "run: python -m talkforge.flows.docs > docs/metrics.md"
