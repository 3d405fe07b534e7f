"""A run's HTML report: one self-contained file, readable without scripts, network or server.

Style and script are inline and pinned by hash in a Content-Security-Policy that allows nothing else, so that even a
hole in the escaping could neither run a script nor reach the network. Every value passes Jinja's autoescaping; the
templates hold no `safe` filter.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .against import NOTE
from .charts import TimeChart, time_chart
from .formatting import printable
from .model import ClipRow, run_model
from .view import RunView

MAX_STRIP_BYTES = 32 * 2**20  # of JPEG; base64 makes it 43 MiB of page
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Drilldown:
    """A clip's pictures and curves; strips are base64 text, `omitted` says that the page's limit kept them out."""

    row: ClipRow
    strip_real: str | None
    strip_generated: str | None
    omitted: bool
    chart: TimeChart | None


def render_html(run: RunView, *, max_strip_bytes: int = MAX_STRIP_BYTES) -> str:
    """The run's page.

    Args:
        max_strip_bytes: JPEG bytes of strips that the page may carry. Clips beyond it keep numbers and curves, and
            the page says that their strips were left out.

    Measured: 200 clips with two strips of 22 kB (ten tiles, 96 px high) and three curves of 250 samples make 14.2 MB,
    of which all but 2.2 MB are strips. A curve takes at most 9 kB however long its clip is.
    """
    model = run_model(run)
    drilldowns = _drilldowns(model.clips, max_strip_bytes)
    omitted = sum(d.omitted for d in drilldowns)
    context = {"drilldowns": drilldowns, "omitted": omitted, "limit": max_strip_bytes, "against_note": NOTE}
    return render_page("report.html", model=model, **context)


def render_page(template: str, **context: Any) -> str:
    """Renders a page template with its styles and script pinned by hash.

    A style sheet of the template's own name ("audit.css" of "audit.html") follows the common one.
    """
    environment = _environment()
    names = ["style.css", str(Path(template).with_suffix(".css"))]
    styles = [environment.get_template(name).render() for name in names if (_TEMPLATES / name).is_file()]
    pinned = {
        "styles": [Markup(text) for text in styles],
        "style_hashes": [_csp_hash(text) for text in styles],
        "script_hash": _csp_hash(environment.get_template("script.js").render()),
    }
    return environment.get_template(template).render(**pinned, **context)


def _drilldowns(rows: list[ClipRow], budget: int) -> list[Drilldown]:
    drilldowns = []
    for row in rows:
        size = sum(len(strip) for strip in (row.clip.strip_real, row.clip.strip_generated) if strip)
        omitted = size > budget
        budget -= 0 if omitted else size
        real, generated = (None, None) if omitted else (row.clip.strip_real, row.clip.strip_generated)
        drilldowns.append(Drilldown(row, _base64(real), _base64(generated), omitted, time_chart(row.clip.curves)))
    return drilldowns


def _base64(data: bytes | None) -> str | None:
    return base64.b64encode(data).decode("ascii") if data else None


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _finalize(value: Any) -> Any:
    """Runs before escaping on all that a template prints; what macros return is finished markup."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
