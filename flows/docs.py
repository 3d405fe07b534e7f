"""Generates docs/metrics.md from the declarations; a test holds that the file is current."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..metrics.base import Metric, metrics
from ..reports.cells import direction
from ..tasks.extractor import extractors
from .evaluate import protocol

HEAD = """# Metrics

Generated from the declarations with `python -m talkforge.flows.docs`; do not edit by hand.
"""


def metrics_page() -> str:
    """The page as Markdown."""
    pages = (_metric(metric) for metric in metrics.all())
    return "\n".join([HEAD, *_index(metrics.all()), *pages, "# Extractors\n", *_extractors()])


def _index(known: list[Metric]) -> Iterator[str]:
    """A line a metric with a way to its section: those that `eval` computes unasked first."""
    chosen = sorted(known, key=lambda metric: not metric.spec.default)
    for default, heading in (
        (True, "Computed unasked"),
        (False, "On request: `--metrics ID`, or its part before the :"),
    ):
        yield f"{heading}\n\n| metric | what | direction | beside papers |\n|---|---|---|---|"
        for spec in (metric.spec for metric in chosen if metric.spec.default == default):
            way = f"[`{spec.id}`](#{_anchor(f'{spec.title}: {spec.id}')})"
            beside = "yes" if spec.comparable_with_papers else "no"
            yield f"| {way} | {spec.title} | {direction(spec.higher_is_better, spec.best_is_real)} | {beside} |"
        yield ""


def _anchor(heading: str) -> str:
    """Where Markdown viewers put a heading: lower case, without punctuation, hyphens for spaces."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _metric(metric: Metric) -> str:
    spec, rules = metric.spec, protocol(metric, "face")
    facts = {
        "direction": direction(spec.higher_is_better, spec.best_is_real),
        "unit": spec.unit or "none",
        "in the default set": "yes" if spec.default else "no",
        "formula": f"`{spec.formula}`",
        "source": spec.source,
        "wants": ", ".join(f"`{name}`" for name in spec.extractors),
        "beside papers": f"{'yes' if spec.comparable_with_papers else 'no'}: {spec.why}",
        "protocol": "; ".join(f"{key}: {value}" for key, value in rules.items() if key != "extractors"),
    }
    rows = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return f"## {spec.title}: `{spec.id}`\n\n{spec.what}\n\n{rows}\n"


def _extractors() -> list[str]:
    return [
        f"- `{spec.id}` (version {spec.version}): {spec.what}. Columns: {', '.join(spec.columns)}."
        for spec in extractors.all()
    ]


if __name__ == "__main__":
    print(metrics_page())
