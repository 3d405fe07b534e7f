"""A comparison as data: CSV with a line for each method and metric, and the same nested as JSON.

Published numbers come along as what they are: their lines say `published, protocol unstated`, and have no rank.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .comparison_layout import Board, ComparisonModel, ForestRow, MetricTable, RunRow
from .comparison_standing import Standing
from .formatting import is_number, printable
from .published import PROTOCOL, PublishedTable
from .published_page import published_json

KIND = "talkforge leaderboard"
MEASURED = "measured"
CSV_HEAD = (
    *("kind", "board", "reference_clips", "reference_sha256", "method", "metric", "title", "unit"),
    *("higher_is_better", "best_is_real", "value", "ci_low", "ci_high", "n_scored", "n_attempted", "reason"),
    *("real_vs_real", "rank", "rank_low", "rank_high", "rank_of", "rank_clips", "p_best"),
    *("above", "difference_from_above", "p_vs_above", "p_holm", "p_clips", "above_established", "above_reason"),
    *("definition_sha256", "weights", "comparable_with_papers", "talkforge_version", "config_digest"),
    *("seconds_per_second", "seconds_reason", "published_table", "published_as", "dataset"),
)


def render_leaderboard_csv(model: ComparisonModel, published: Sequence[PublishedTable] = ()) -> str:
    """A line for each method and metric; a missing number is empty and has its reason."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_HEAD, restval="", lineterminator="\n")
    writer.writeheader()
    for board in model.boards:
        for table in board.tables:
            writer.writerows(_safe(_line(board, table, row)) for row in table.rows)
    for table in published:
        writer.writerows(map(_safe, _published_lines(table)))
    return file.getvalue()


def _safe(line: dict[str, Any]) -> dict[str, Any]:
    """Without control characters and what UTF-8 cannot hold."""
    return {key: printable(value) if isinstance(value, str) else value for key, value in line.items()}


def _line(board: Board, table: MetricTable, row: ForestRow) -> dict[str, Any]:
    run = next(run for run in board.runs if run.method == row.method)
    data = _row(table, row)
    low, high = data.pop("ci95") or (None, None)
    weights = "; ".join(f"{name}={digest}" for name, digest in data.pop("weights").items())
    standing, above = data.pop("standing") or {}, None
    if standing:
        above = standing.pop("above")
    return {
        **{"kind": MEASURED, "board": board.number, "reference_sha256": board.reference.contents},
        **{"reference_clips": None if board.reference.clips is None else len(board.reference.clips)},
        **{key: value for key, value in data.items() if key in CSV_HEAD},
        **{"title": table.title, "unit": table.unit, "ci_low": low, "ci_high": high, "weights": weights},
        **_rank_columns(standing),
        **_above_columns(above or {}),
        **{"talkforge_version": run.version, "config_digest": run.config_digest},
        **{"seconds_per_second": run.cost.value, "seconds_reason": run.cost.reason},
    }


def _rank_columns(standing: dict[str, Any]) -> dict[str, Any]:
    names = {"rank": "rank", "low": "rank_low", "high": "rank_high", "of": "rank_of", "clips": "rank_clips"}
    return {column: standing.get(key) for key, column in (names | {"best": "p_best"}).items()}


def _above_columns(above: dict[str, Any]) -> dict[str, Any]:
    names = {"method": "above", "difference": "difference_from_above", "p_value": "p_vs_above", "holm": "p_holm"}
    more = {"clips": "p_clips", "established": "above_established", "reason": "above_reason"}
    return {column: above.get(key) for key, column in (names | more).items()}


def _published_lines(table: PublishedTable) -> list[dict[str, Any]]:
    return [
        {
            **{"kind": PROTOCOL, "method": row.method, "published_as": row.printed, "published_table": table.id},
            **{"dataset": table.dataset.text, "metric": table.columns[name].metric, "value": cell.text},
            **{"title": table.columns[name].title, "unit": table.columns[name].unit, "reason": cell.reason},
            "higher_is_better": table.columns[name].higher_is_better,
        }
        for row in table.rows
        for name, cell in row.cells.items()
    ]


def leaderboard_json(model: ComparisonModel, published: Sequence[PublishedTable] = ()) -> dict[str, Any]:
    """The comparison as plain data; missing values are null with a reason."""
    return _visible(
        {
            "schema_version": 1,
            "kind": KIND,
            "notes": model.notes,
            "reference_differences": model.parted,
            "boards": [_board(board) for board in model.boards],
            "published": published_json(published),
        }
    )


def _visible(data: Any) -> Any:
    """Plain data whose texts are without control characters and what UTF-8 cannot hold."""
    if isinstance(data, dict):
        return {_visible(key): _visible(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_visible(item) for item in data]
    return printable(data) if isinstance(data, str) else data


def _board(board: Board) -> dict[str, Any]:
    clips = board.reference.clips
    return {
        "board": board.number,
        "reference": {
            "clips": None if clips is None else sorted(clips),
            "sha256": board.reference.contents,
        },
        "runs": [_run(run) for run in board.runs],
        "tables": [_table(table) for table in board.tables],
        "split": [{"metric": split.metric_id, "differences": split.differences} for split in board.split],
    }


def _run(run: RunRow) -> dict[str, Any]:
    return asdict(run)


def _table(table: MetricTable) -> dict[str, Any]:
    return {
        "metric": table.metric_id,
        "title": table.title,
        "unit": table.unit,
        "comparable_with_papers": table.comparable,
        "protocol": dict(table.protocol),
        "weights": dict(table.weights),
        "rows": [_row(table, row) for row in table.rows],
    }


def _row(table: MetricTable, row: ForestRow) -> dict[str, Any]:
    result = row.entry.result
    known = is_number(result["value"])
    return {
        "method": row.method,
        "metric": table.metric_id,
        "value": result["value"] if known else None,
        "ci95": list(result["ci95"]) if known and result["ci95"] else None,
        "higher_is_better": result["higher_is_better"],
        "best_is_real": bool(result.get("best_is_real")),
        "real_vs_real": result["real_vs_real"] if is_number(result["real_vs_real"]) else None,
        "n_scored": result["n_scored"],
        "n_attempted": result["n_attempted"],
        "reason": row.cell.explanation,
        "comparable_with_papers": result["comparable_with_papers"],
        "definition_sha256": row.entry.digest,
        "weights": dict(result["weights"]),
        "standing": _standing(row.standing),
    }


def _standing(standing: Standing | None) -> dict[str, Any] | None:
    return None if standing is None else asdict(standing)
