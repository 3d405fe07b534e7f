"""What a leaderboard reads of a run's folder whose clips are gone: names, values and times, of made runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from talkforge.core.shards import write_json, write_table
from talkforge.flows.benchmark import read_run, write_comparison
from talkforge.flows.drilldown_methods import page_folder
from talkforge.flows.leaderboard import ScoredRun
from talkforge.reports.run import DETAIL_SCHEMA
from talkforge.tests.reports.demo import results
from talkforge.tests.reports.made_runs import of_clips

CLIPS = {"a": 1.0, "b": 2.0, "c": 6.0}


def run_folder(folder: Path, videos: Path | None = None, **settings: Any) -> Path:
    """A run over three clips and one that no real clip exists for."""
    (folder / "details").mkdir(parents=True)
    rows: list[dict[str, Any]] = [{"clip_id": clip, "value": value, "samples": 1} for clip, value in CLIPS.items()]
    rows += [{"clip_id": "d", "samples": 0, "reason": "unmatched_generated"}]
    rows += [{"clip_id": "e", "samples": 0, "reason": "unmatched_real"}]
    table = pa.Table.from_pylist([{"variant": "v"} | row for row in rows], schema=DETAIL_SCHEMA)
    write_table(folder / "details" / "m.parquet", table)
    write_json(folder / "results.json", results(folder.name, m__v=of_clips(CLIPS)))
    if videos:
        config = {"real": "gone", "generated": str(videos), "out": str(folder)} | settings
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def scored(folder: Path) -> ScoredRun:
    return ScoredRun(read_run(folder))


def test_names_and_values_come_from_the_details(tmp_path: Path) -> None:
    """A video without a real clip is none of the real clips; a real clip without a video is."""
    facts = scored(run_folder(tmp_path / "A")).facts()
    assert facts.reference.clips == {"a", "b", "c", "e"} and facts.reference.contents is None
    assert facts.clips == {"m:v": CLIPS}


def test_a_folder_without_details_says_that_nothing_is_known(tmp_path: Path) -> None:
    write_json(tmp_path / "A" / "results.json", results("A", m__v=of_clips(CLIPS)))
    facts = scored(tmp_path / "A").facts()
    assert facts.reference.clips is None and facts.reference.text == "real clips: not recorded"
    assert (facts.cost.value, facts.cost.reason) == (None, "its videos are not where they were scored")


def test_clips_that_were_scored_without_real_ones_say_so(tmp_path: Path) -> None:
    facts = scored(run_folder(tmp_path / "A", tmp_path, reference=False)).facts()
    assert facts.reference.text == "5 clips without real ones"


@pytest.mark.parametrize(
    ("items", "value", "videos"),
    [
        ([{"took_s": 3.0, "frames": 50}, {"took_s": 5.0, "frames": 150}], 1.0, 2),
        ([{"took_s": 3.0, "frames": 50}, {"frames": 150}, {"took_s": 9.0, "reason": "timed_out"}], 1.5, 1),
    ],
)
def test_work_per_second_is_that_of_all_timed_videos(
    tmp_path: Path, items: list[dict[str, Any]], value: float, videos: int
) -> None:
    """Of the sums, so that long videos count for what they are; what failed and what was not timed does not count."""
    write_json(tmp_path / "videos" / "generation.json", {"items": [{"id": str(k)} | i for k, i in enumerate(items)]})
    cost = scored(run_folder(tmp_path / "A", tmp_path / "videos")).cost()
    assert (cost.value, cost.videos, cost.reason) == (pytest.approx(value), videos, None)


def test_only_reports_that_are_there_and_pages_that_are_given_are_linked(tmp_path: Path) -> None:
    outcomes = [read_run(run_folder(tmp_path / name)) for name in "AB"]
    (tmp_path / "A" / "report.html").write_text("A")
    write_comparison(tmp_path / "out", outcomes, published=False, videos=None)
    text = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "[A](<../A/report.html>)" in text and "[B]" not in text
    links = {"B": "method-B/index.html"}
    write_comparison(tmp_path / "out", outcomes, published=False, videos=None, links=links)
    text = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "[A](<../A/report.html>)" in text and "[B](<method-B/index.html>)" in text
    write_comparison(tmp_path / "out", outcomes, published=False)
    text = (tmp_path / "out" / "leaderboard.md").read_text()
    for name in "AB":
        page = f"_clips/{page_folder(name)}/index.html"
        assert f"[{name}](<{page}>)" in text and (tmp_path / "out" / page).is_file()
    assert 'href="_clips/compare.html"' in (tmp_path / "out" / "index.html").read_text()
