"""Published tables: every digit as printed, and the relations that a wrong one breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from talkforge.core.errors import ConfigError
from talkforge.metrics.base import metrics
from talkforge.reports.published import (
    FOLDER,
    PROTOCOL,
    Cell,
    PublishedTable,
    disagreements,
    load_published,
)
from talkforge.reports.published_checks import run_checks

# Rows and column sums, made from the papers' text by a second route (a regular expression over its lines, with no
# part in writing the YAML); THEval's final scores are compared one by one below.
SUMS = {
    "dice-talk-1-mead": (12, "6491.4254 897.2874 62.6356 112.4381 3.6275 6.0608 2.8164"),
    "dice-talk-1-ood": (12, "56.7618 112.6458 3.8762 7.2085 2.7654"),
    "dice-talk-2": (12, "4593.0775 300.9018 66.9562 109.8896"),
    "dice-talk-3": (5, "11.6786 13.1697 12.4286 13.0624"),
    "dice-talk-4": (5, "4.3126 2.5252 3.3308 2.2569"),
    "dice-talk-5": (3, "15.26 12.65 17.59 18.94"),
    "mf-etalk-1-mead": (9, "880.713 51.127 79.559 48.031"),
    "mf-etalk-2-hdtf": (9, "716.573 57.066 79.270 40.651"),
    "mf-etalk-3": (3, "134.922 20.044 24.552 7.854"),
    "mf-etalk-4": (9, "108.3 100.0 124.95"),
}
# A list of final scores that was kept apart from the leaderboard which the YAML was made from.
THEVAL = (
    "LivePortrait .9345, X-Portrait .8999, LIA-X .8806, Hallo2 .8477, EchoMimic .8207, EmoPortrait .8174, "
    "OmniAvatar .8064, FLOAT .7938, ControlTalk .7885, Dimitra .7467, SadTalker .7319, MCNet .7311, DaGAN .7140, "
    "FOM .6810, LIA .6794, Real3DPortrait .6680, Wav2Lip .6502"
)


@pytest.fixture(scope="module")
def tables() -> dict[str, PublishedTable]:
    return {table.id: table for table in load_published()}


def test_every_digit_is_the_printed_one(tables: dict[str, PublishedTable]) -> None:
    found = {
        name: (len(table.rows), [sum(_numbers(table, column)) for column in table.columns])
        for name, table in tables.items()
    }
    theval = found.pop("theval-leaderboard")
    assert found == {name: (rows, list(map(Decimal, sums.split()))) for name, (rows, sums) in SUMS.items()}
    assert (theval[0], len(theval[1])) == (17, 9)
    finals = {row.method: row.cells["final_score"].text for row in tables["theval-leaderboard"].rows}
    assert finals == {name: f"0{score}" for name, score in (entry.split() for entry in THEVAL.split(", "))}


def _numbers(table: PublishedTable, column: str) -> list[Decimal]:
    return [value for row in table.rows if (value := row.cells[column].decimal) is not None]


def test_a_row_says_that_it_was_not_measured_here(tables: dict[str, PublishedTable]) -> None:
    rows = [row for table in tables.values() for row in table.rows]
    assert len(rows) == 96
    assert {(row.published, row.protocol) for row in rows} == {(True, PROTOCOL)}
    assert PROTOCOL == "published, protocol unstated"


def test_printed_decimals_stay_and_the_number_follows(tables: dict[str, PublishedTable]) -> None:
    cell = tables["dice-talk-1-mead"].cell("StyleTalk", "fvd")
    assert (cell.text, cell.number) == ("498.3980", 498.398)
    assert tables["mf-etalk-4"].cell("EchoMimic", "composite").text == "20.85"
    assert tables["mf-etalk-4"].cell("Wav2Lip", "expressiveness") == Cell("0")


def test_names_are_the_papers_own_and_one_name_joins_them(tables: dict[str, PublishedTable]) -> None:
    spellings = {row.printed for table in tables.values() for row in table.rows if row.method == "AniPortrait"}
    assert spellings == {"AniPortait", "AmiPortrait", "AniPortrait"}
    assert tables["dice-talk-1-mead"].row("Ours-P").condition.text == "audio+prompt"


def test_what_is_not_printed_is_null_with_a_reason(tables: dict[str, PublishedTable]) -> None:
    ours = tables["mf-etalk-1-mead"].row("Ours")
    assert ours.labels["Years"] == Cell(None, "the cell is empty")
    assert ours.condition == Cell(None, "the table prints no conditions")
    assert tables["mf-etalk-4"].dataset.reason
    for table in tables.values():
        cells = [table.dataset, *(cell for row in table.rows for cell in (row.condition, *row.labels.values()))]
        assert all((cell.text is None) == bool(cell.reason) for cell in cells)


def test_arrows_are_those_of_this_toolkits_metrics(tables: dict[str, PublishedTable]) -> None:
    directions: dict[str, set[bool]] = {}
    for name in metrics.names():
        directions.setdefault(name.partition(":")[0], set()).add(metrics.get(name).spec.higher_is_better)
    named = {(c.metric, c.higher_is_better) for t in tables.values() for c in t.columns.values() if c.metric}
    assert len(named) == 10
    assert {(family, higher) for family, higher in named if directions.get(family) != {higher}} == set()


def test_one_method_has_very_different_scores_in_two_papers(tables: dict[str, PublishedTable]) -> None:
    lines = list(map(str, disagreements(tables.values())))
    assert "Hallo on HDTF, fid: 9.9675 (dice-talk), 36.980 (mf-etalk)" in lines
    assert "SadTalker on HDTF, fid: 15.6347 (dice-talk), 106.031 (mf-etalk)" in lines
    # Five methods stand in both papers, on two datasets, with three quantities of the same name.
    assert len(lines) == 5 * 2 * 3
    assert not any("clustering" in line or "THEval" in line for line in lines)


def test_a_source_by_itself_does_not_disagree(tables: dict[str, PublishedTable]) -> None:
    assert disagreements(table for table in tables.values() if table.source.key == "dice-talk") == []


# Which cells a check of their table covers: changing the last digit of such a cell by `step` is always noticed.
COVERED = [
    ("dice-talk-1-mead", ["emo_score"], 3),
    ("dice-talk-1-mead", ["non_neutral"], 3),
    ("dice-talk-1-ood", ["emo_score"], 3),
    ("dice-talk-3", ["emotion", "lip_sync", "quality", "smoothness"], 1),
    ("dice-talk-4", ["emo_score"], 3),
    ("mf-etalk-4", ["naturalness", "expressiveness", "composite"], 1),
    ("theval-leaderboard", ["final_score"], 2),
]


@pytest.mark.parametrize(("name", "columns", "step"), COVERED)
def test_a_changed_digit_is_noticed(
    tables: dict[str, PublishedTable], name: str, columns: list[str], step: int
) -> None:
    for column in columns:
        for row in tables[name].rows:
            for change in (-step, step):
                broken = changed(tables[name], row.printed, column, change)
                with pytest.raises(ConfigError, match=rf"{name}: ") as caught:
                    run_checks(broken, tables | {name: broken})
                assert f"{FOLDER}/" in str(caught.value)


def changed(table: PublishedTable, printed: str, column: str, steps: int) -> PublishedTable:
    """The table with one cell moved by units of its last printed digit."""
    value = table.cell(printed, column).decimal
    assert value is not None
    unit = Decimal(1).scaleb(int(value.as_tuple().exponent))
    moved = Cell(str(value + steps * unit))
    rows = [replace(r, cells={**r.cells, column: moved}) if r.printed == printed else r for r in table.rows]
    return replace(table, rows=tuple(rows))


Edit = Callable[[dict[str, Any]], object]


def row_of(file: dict[str, Any], table: str, printed: str) -> dict[str, Any]:
    rows = next(one["rows"] for one in file["tables"] if one["id"] == table)
    return next(row for row in rows if row.get("printed", row["method"]) == printed)


def swap(table: str, printed: str, old: str, new: str) -> Edit:
    """Replaces one printed cell."""

    def edit(file: dict[str, Any]) -> None:
        row = row_of(file, table, printed)
        assert old in row["cells"].split()
        row["cells"] = " ".join(new if cell == old else cell for cell in row["cells"].split())

    return edit


def at(file: dict[str, Any], table: str) -> dict[str, Any]:
    return next(one for one in file["tables"] if one["id"] == table)


FAULTS: list[tuple[str, Edit, str]] = [
    # the checks that the numbers allow, with file, table and cell
    ("dice-talk", swap("dice-talk-1-mead", "EAMM", "0.2220", "0.2320"), r"-1-mead: EAMM, Emo-Score: 0\.2320 .* neu"),
    ("dice-talk", swap("dice-talk-1-ood", "Sonic", "0.1255", "0.1355"), r"-1-ood: Sonic, Emo-Score: 0\.2444 "),
    ("dice-talk", swap("dice-talk-3", "Ours", "3.7768", "3.7857"), r"-3: Ours, Emotion: .*66\.9 %.*66\.5 %"),
    ("dice-talk", swap("dice-talk-3", "EAMM", "1.3482", "1.3842"), r"-3: EAMM, Emotion: 1\.3842 is no multiple"),
    ("mf-etalk", swap("mf-etalk-3", "a", "46.691", "46.961"), r"-3: a, FID: 46\.961, but 46\.691 for Hallo"),
    ("mf-etalk", swap("mf-etalk-4", "Hallo", "33.3", "25.0"), r"-4: Hallo, Composite Score: 20\.8 is not 16\.65"),
    ("mf-etalk", swap("mf-etalk-4", "EchoMimic", "25", "24"), r"-4: EchoMimic, Composite Score"),
    ("theval", swap("theval-leaderboard", "FLOAT", "0.5115", "0.5151"), r"FLOAT, Final Score: 0\.7938 is more than"),
    # the shape of a cell
    ("mf-etalk", swap("mf-etalk-1-mead", "Ours", "43.052", "43.05"), r"Ours, FID: 43\.05 has 2 decimals, not 3"),
    ("dice-talk", swap("dice-talk-4", "Ours", "0.8704", "8.7040"), r"Ours, F-SIM: 8\.7040 is outside -1 to 1"),
    ("dice-talk", swap("dice-talk-5", "audio", "2.44", "-2.44"), r"audio, angry: -2\.44 is outside 0 to -"),
    ("dice-talk", swap("dice-talk-2", "Hallo", "9.9675", "9,9675"), r"Hallo, FID: '9,9675' is not a number"),
    ("dice-talk", swap("dice-talk-2", "Hallo", "9.9675", "nan"), r"Hallo, FID: 'nan' is not a number"),
    ("dice-talk", swap("dice-talk-2", "Hallo", "9.9675", "-"), r"Hallo, fid: there is neither a value nor a reason"),
    ("dice-talk", lambda f: row_of(f, "dice-talk-2", "EAT").update(cells="1.0 2.0"), r"EAT has 2 cells for 4 columns"),
    ("dice-talk", lambda f: row_of(f, "dice-talk-2", "EAT").update(cells=1.5), r"rows\.10\.cells: .*valid string"),
    ("dice-talk", lambda f: row_of(f, "dice-talk-2", "EAT").update(missing={"fid": "lost"}), r"a value and a reason"),
    ("dice-talk", lambda f: row_of(f, "dice-talk-2", "EAT").update(missing={"lpips": "x"}), r"'lpips', which is no"),
    ("dice-talk", lambda f: row_of(f, "dice-talk-2", "EAT").update(condition="text"), r"rows\.10\.condition"),
    ("dice-talk", lambda f: row_of(f, "dice-talk-2", "EAT").pop("condition"), r"EAT: there is neither a value"),
    # names
    ("dice-talk", lambda f: row_of(f, "dice-talk-2", "EAT").update(method="Hallo"), r"two rows 'Hallo'"),
    ("dice-talk", lambda f: row_of(f, "dice-talk-2", "EAT").update(labels={"Year": "1"}), r"EAT has the labels"),
    ("dice-talk", lambda f: at(f, "dice-talk-2").update(id="dice-talk-3"), r"table dice-talk-3 is also in"),
    ("dice-talk", lambda f: at(f, "dice-talk-2").update(columns=["fvd", "psnr"]), r"unknown column 'psnr'"),
    ("dice-talk", lambda f: at(f, "dice-talk-2").update(protocol="stated"), r"unknown key 'protocol'"),
    ("dice-talk", lambda f: f["source"].pop("authors"), r"'source\.authors' is needed"),
    # checks that could not check
    ("theval", lambda f: at(f, "theval-leaderboard")["checks"][1].update(column="rank"), r"has no column 'rank'"),
    ("theval", lambda f: at(f, "theval-leaderboard")["checks"][1].update(kind="rnk"), r"checks\.1"),
    ("mf-etalk", lambda f: at(f, "mf-etalk-3")["checks"][0].update(other="Halo"), r"has no row 'Halo'"),
    ("mf-etalk", lambda f: at(f, "mf-etalk-3")["checks"][0].update(table="x"), r"there is no table x"),
    ("dice-talk", lambda f: at(f, "dice-talk-3")["checks"][0].update(row="Us"), r"has no row 'Us'"),
    # a source against itself: Ours on MEAD stands in two tables
    ("mf-etalk", lambda f: (swap("mf-etalk-3", "c (Ours)", "6.781", "6.718")(f), at(f, "mf-etalk-3").pop("checks")),
     r"-3: c \(Ours\), LSE-C: 6\.718, but 6\.781 in table mf-etalk-1-mead"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "message"), FAULTS)
def test_a_fault_names_file_table_and_cell(tmp_path: Path, name: str, edit: Edit, message: str) -> None:
    folder = copy_with(tmp_path, name, edit)
    with pytest.raises(ConfigError, match=message) as caught:
        load_published(folder)
    assert f"{folder / name}.yaml" in str(caught.value)


def copy_with(folder: Path, name: str, edit: Edit) -> Path:
    """A folder with an edited copy of one source's file."""
    file = deepcopy(source(name))
    edit(file)
    (folder / f"{name}.yaml").write_text(json.dumps(file), encoding="utf-8")  # JSON is YAML, and quicker to write
    return folder


@cache
def source(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))


def test_an_unedited_copy_is_the_same(tmp_path: Path, tables: dict[str, PublishedTable]) -> None:
    for path in FOLDER.glob("*.yaml"):
        copy_with(tmp_path, path.stem, lambda file: None)
    copied = load_published(tmp_path)
    assert [replace(table, path=tables[table.id].path) for table in copied] == list(tables.values())


def test_a_printed_dash_is_null_and_leaves_the_checks_to_the_other_rows(tmp_path: Path) -> None:
    def edit(file: dict[str, Any]) -> None:
        swap("dice-talk-1-mead", "EAMM", "0.2220", "-")(file)
        row_of(file, "dice-talk-1-mead", "EAMM")["missing"] = {"emo_score": "not scored"}

    cell = next(iter(load_published(copy_with(tmp_path, "dice-talk", edit)))).cell("EAMM", "emo_score")
    assert (cell, cell.number, cell.decimal) == (Cell(None, "not scored"), None, None)


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no published tables"):
        load_published(tmp_path)
