"""`talkforge leaderboard` without runs: the published tables, in five forms."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from talkforge.commands.scoring import leaderboard
from talkforge.core.errors import InputError
from talkforge.reports.latex import parse_latex
from talkforge.reports.published import PROTOCOL, load_published
from talkforge.reports.published_page import published_latex_table

NAMES = {"index.html", "leaderboard.md", "leaderboard.tex", "leaderboard.csv", "leaderboard.json"}


def test_without_runs_the_published_tables_are_written(tmp_path: Path) -> None:
    out = tmp_path / "board"
    for _ in range(2):  # a second time: over its own files
        done = CliRunner().invoke(leaderboard, ["--out", str(out)])
        assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == NAMES
    assert parse_latex((out / "leaderboard.tex").read_text()) == [published_latex_table(t) for t in load_published()]
    assert json.loads((out / "leaderboard.json").read_text())["protocol"] == PROTOCOL


def test_a_file_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "leaderboard.csv").write_text("mine")
    done = CliRunner().invoke(leaderboard, ["--out", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert [path.name for path in tmp_path.iterdir()] == ["leaderboard.csv"]
