"""Several runs on one page: methods by metrics, and for each metric the methods' intervals on one axis.

What may share a table is decided by `comparison_layout`, who is ahead and how sure that is by `comparison_standing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from ..core.errors import ConfigError
from .comparison_facts import Evidence, RunFacts, recorded
from .comparison_layout import ComparisonModel, lay_out
from .html import render_page
from .latex import write_latex
from .leaderboard_latex import metric_table, overview_tables
from .published import PROTOCOL, PublishedTable
from .published_page import published_latex_table, published_view
from .view import check_results


def comparison_model(
    runs: Sequence[Mapping[str, Any]],
    links: Mapping[str, str],
    facts: Mapping[str, RunFacts] | None = None,
    evidence: Evidence | None = None,
) -> ComparisonModel:
    """Lays out a page over several runs.

    Args:
        runs: contents of the runs' `results.json`, each with another `method`.
        links: for a method, the href of its page relative to this one; a method may be absent.
        facts: for a method, what is known of its run beside its results; a method may be absent.
        evidence: what the clips' values do not tell; None: only the differences that the runs themselves carry.

    Raises:
        ConfigError: no runs, two runs of one method, a broken `results.json`, or a link that is not relative.
    """
    by_method = _checked(runs)
    hrefs = {method: relative_href(links[method]) for method in by_method if method in links}
    return lay_out(runs, hrefs, facts or {}, evidence or recorded(by_method))


def comparison_page(
    model: ComparisonModel, published: Sequence[PublishedTable] = (), *, clips: str | None = None
) -> str:
    """The page of a model; published tables stand below, by themselves.

    Args:
        clips: relative link of the page that compares two methods clip by clip.
    """
    return render_page(
        "comparison.html",
        model=model,
        clips=clips and relative_href(clips),
        families=list(dict.fromkeys(family for board in model.boards for family in board.families)),
        hrefs={run.method: run.href for run in model.runs},
        latex_of_board=lambda board: write_latex(overview_tables(board)),
        latex_of_table=lambda board, table: write_latex([metric_table(board, table)]),
        latex_of_published=lambda table: write_latex([published_latex_table(table)]),
        published=[published_view(table) for table in published],
        unstated=PROTOCOL,
    )


def _checked(runs: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The runs by method."""
    if not runs:
        raise ConfigError("there are no runs to compare")
    found: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        check_results(run)
        method = run["method"]
        if method in found:
            raise ConfigError(f"two runs carry the method name {method!r}", hint="give each run its own --method")
        found[method] = run
    return found


def relative_href(href: str) -> str:
    """A relative path, percent-encoded, so that it can be nothing else than one.

    Raises:
        ConfigError: it names a scheme, a host or an absolute path.
    """
    parts = urlsplit(href)
    if parts.scheme or parts.netloc or href.startswith("/"):
        raise ConfigError(f"the link {href!r} is not relative")
    return quote(href, safe="/%#?=&")
