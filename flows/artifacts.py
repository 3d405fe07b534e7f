"""What a build shows in Prefect: a table of its shards, a summary in Markdown, and a picture, all of them text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

from ..core.records import Reject
from ..tasks.build_shard import BuildShard, ShardResult

MOST_ROWS = 500  # of the table: a server keeps an artifact as one field of its database
_ROW, _LABEL, _BARS, _COUNT = 26, 190, 420, 90  # of the picture, in its own units


@dataclass(frozen=True)
class Artifacts:
    """A run's artifacts.

    Attributes:
        key: first part of their keys: lower-case letters, digits and dashes.
        description: one line.
        table: a row a shard.
        markdown: counts, and rejects by reason.
        picture: bars of rows and rejects, as a `data:` address of an SVG.
    """

    key: str
    description: str
    table: list[dict[str, Any]]
    markdown: str
    picture: str


def build_artifacts(
    info: Mapping[str, Any], shards: Sequence[BuildShard], results: Sequence[ShardResult], rejects: Sequence[Reject]
) -> Artifacts:
    """Artifacts of a finished build.

    Args:
        info: what `meta/info.json` says.
        shards, results: of equal length, in one order.
        rejects: of the whole build, also those before any shard.
    """
    rows = [_row(shard, result) for shard, result in zip(shards, results, strict=True)]
    shown = f"first {MOST_ROWS} of {len(rows)}" if len(rows) > MOST_ROWS else str(len(rows))
    reasons = Counter(reject.reason for reject in rejects)
    return Artifacts(
        key=f"build-{_slug(info['dataset'])}",
        description=f"{info['dataset']}, {shown} shards, digest {info['digest'][:12]}",
        table=rows[:MOST_ROWS],
        markdown=_markdown(info, results, reasons),
        picture=_picture({"rows": info["counts"]["rows"], **_named(reasons)}),
    )


def _row(shard: BuildShard, result: ShardResult) -> dict[str, Any]:
    return {
        "shard": result.path.relative_to(shard.out).as_posix(),
        "digest": shard.digest[:12],
        "rows": result.rows,
        "rejects": len(result.rejects),
        "built": "now" if result.fresh else "before",
        "seconds": result.seconds if result.fresh else None,
    }


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _named(reasons: Mapping[str, int]) -> dict[str, int]:
    """The commonest first."""
    return {f"reject: {name}": n for name, n in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))}


def _markdown(info: Mapping[str, Any], results: Sequence[ShardResult], reasons: Mapping[str, int]) -> str:
    counts = info["counts"]
    fresh = [result for result in results if result.fresh]
    lines = [
        f"# Build of {info['dataset']}",
        f"{counts['clips']} clips: {counts['rows']} rows, {counts['rejects']} rejects. "
        f"{len(fresh)} of {len(results)} shards built now, {sum(result.seconds for result in fresh):.1f} s of work.",
        f"Digest `{info['digest']}`, talkforge {info['talkforge_version']}, {info['created']}.",
    ]
    if reasons:
        table = ["| rejected for | clips |", "|---|---|"]
        table += [f"| {name.removeprefix('reject: ')} | {n} |" for name, n in _named(reasons).items()]
        lines.append("\n".join(table))
    return "\n\n".join(lines) + "\n"


def _picture(counts: Mapping[str, int]) -> str:
    """Horizontal bars of some counts; each has its number beside it."""
    most = max([*counts.values(), 1])
    bars = []
    for k, (name, count) in enumerate(counts.items()):
        y, width = 4 + k * _ROW, round(_BARS * count / most, 1)
        color = "#2a6f97" if k == 0 else "#c1666b"
        bars.append(
            f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{_LABEL}" y="{y}" width="{width}" height="{_ROW - 6}" fill="{color}"/>'
            f'<text x="{_LABEL + width + 6}" y="{y + 15}">{count}</text>'
        )
    width, height = _LABEL + _BARS + _COUNT, 8 + len(bars) * _ROW
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    style = 'font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
    return "data:image/svg+xml," + quote(head + style + "".join(bars) + "</svg>")
