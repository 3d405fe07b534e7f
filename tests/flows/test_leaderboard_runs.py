"""`talkforge leaderboard` over evaluations of real clips: what it finds out about them, and what it keeps apart."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from talkforge.commands.scoring import leaderboard
from talkforge.core.errors import ConfigError, InputError
from talkforge.core.shards import write_json
from talkforge.flows.benchmark import benchmark, read_run
from talkforge.flows.evaluate import EvalConfig, evaluate
from talkforge.flows.leaderboard import ScoredRun
from talkforge.metrics.paired import paired_mean
from talkforge.reports.latex import parse_latex

SYNC, E_FID = "av_sync:mouth-envelope", "e_fid:arkit52"
FILES = {"index.html", "leaderboard.md", "leaderboard.tex", "leaderboard.csv", "leaderboard.json"}


def config(real: Path, out: Path, cache: Path, **settings: Any) -> EvalConfig:
    values = {"real": real, "generated": out, "out": out, "cache": cache, "prefect": False, "workers": 2}
    values |= {"metrics": [SYNC, E_FID], "bootstrap": 200, "frechet_bootstrap": 60, "method": "-"}
    return EvalConfig.model_validate(values | settings)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def runs(sample_clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluations of copies of the clips and of still pictures, below one folder."""
    out = tmp_path_factory.mktemp("runs") / "eval"
    benchmark(config(sample_clips, out, cache), ["copy", "still"])
    return out


def board(out: Path, *arguments: str | Path) -> dict[str, Any]:
    """The leaderboard's data, after the command has written it."""
    done = CliRunner().invoke(leaderboard, [*map(str, arguments), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads((out / "leaderboard.json").read_text())


def rows(data: dict[str, Any], number: int = 0) -> dict[tuple[str, str], dict[str, Any]]:
    found = data["boards"][number]["tables"]
    return {(row["method"], row["metric"]): row for table in found for row in table["rows"]}


def changed(run: Path, folder: Path, method: str, change: Any = None, **settings: Any) -> Path:
    """A copy of a run under another name, its results changed by a function and its settings by values."""
    shutil.copytree(run, folder)
    results = json.loads((folder / "results.json").read_text()) | {"method": method}
    if change:
        change(results["results"])
    (folder / "results.json").write_text(json.dumps(results))
    written = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(written | {k: str(v) for k, v in settings.items()}))
    return folder


def test_a_benchmark_leaves_all_five_files(runs: Path) -> None:
    assert {path.name for path in runs.iterdir() if path.is_file() and path.suffix != ".lock"} == FILES
    assert parse_latex((runs / "leaderboard.tex").read_text())[0].heads[0] == "Method"


def test_clips_are_drawn_jointly_from_the_runs_details(runs: Path, tmp_path: Path) -> None:
    data = board(tmp_path / "out", runs / "copy", runs / "still")
    (only,) = data["boards"]
    assert len(only["reference"]["clips"]) == 7 and len(only["reference"]["sha256"]) == 64
    found = rows(data)
    assert [found[m, SYNC]["standing"]["low"] for m in ("copy", "still")] == [1, 2]
    assert found["copy", SYNC]["standing"]["clips"] == 7
    copy, still = (ScoredRun(read_run(runs / m)).facts().clips[SYNC] for m in ("copy", "still"))
    expected = paired_mean([still[c] for c in sorted(still)], [copy[c] for c in sorted(still)])
    above = found["still", SYNC]["standing"]["above"]
    assert (above["method"], above["p_value"], above["difference"]) == ("copy", expected.p_value, expected.value)
    assert above["established"] is True


def test_a_distance_is_paired_only_when_asked(runs: Path, tmp_path: Path, cache: Path) -> None:
    plain = rows(board(tmp_path / "a", runs / "copy", runs / "still"))["still", E_FID]["standing"]
    assert plain["clips"] is None and plain["best"] is None
    assert plain["above"]["p_value"] is None and "--pair-distances" in plain["above"]["reason"]
    stored = {path: path.stat().st_mtime_ns for path in cache.rglob("*.parquet")}
    asked = rows(board(tmp_path / "b", runs / "copy", runs / "still", "--pair-distances"))["still", E_FID]
    held = evaluate(
        EvalConfig.load(runs / "still" / "config.yaml", [], out=tmp_path / "held", against=runs / "copy")
    ).results["against"]["results"][E_FID]
    above = asked["standing"]["above"]
    assert (above["difference"], above["p_value"]) == (held["difference"], held["p_value"])
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.parquet")} == stored
    # A copy is nearer to its clip than a still picture, in nearly all draws.
    assert asked["standing"]["clips"] == 7 and 0 <= asked["standing"]["best"] < 0.1
    # The difference that a run carries needs no drawing.
    told = rows(board(tmp_path / "c", runs / "copy", tmp_path / "held"))["still", E_FID]["standing"]["above"]
    assert told["p_value"] == held["p_value"]


def test_other_real_clips_stand_on_another_board(runs: Path, sample_clips: Path, cache: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_clips, tmp_path / "fewer")
    gone = min((tmp_path / "fewer").glob("*.mp4"))
    gone.unlink()
    settings = {"generated": runs / "_videos" / "still", "method": "few"}
    evaluate(config(tmp_path / "fewer", tmp_path / "few", cache, **settings))
    data = board(tmp_path / "out", runs / "copy", tmp_path / "few", runs / "still")
    assert [[run["method"] for run in one["runs"]] for one in data["boards"]] == [["copy", "still"], ["few"]]
    assert f"not in all runs: {gone.stem} (copy, still)" in data["reference_differences"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Different real clips" in page and f"not in all runs: {gone.stem}" in page


def test_a_video_that_is_missing_leaves_the_real_clips_as_they_are(
    runs: Path, sample_clips: Path, cache: Path, tmp_path: Path
) -> None:
    """Its clip counts as attempted; what is compared is what both methods have."""
    shutil.copytree(runs / "_videos" / "still", tmp_path / "videos")
    min((tmp_path / "videos").glob("*.mp4")).unlink()
    evaluate(config(sample_clips, tmp_path / "run", cache, generated=tmp_path / "videos", method="most"))
    data = board(tmp_path / "out", runs / "copy", tmp_path / "run")
    (only,) = data["boards"]
    assert only["runs"][1]["coverage"] == {"low": 6, "high": 6, "attempted": 7}
    assert rows(data)["most", SYNC]["standing"]["above"]["clips"] == 6


def test_labels_and_bytes_are_part_of_the_real_clips(runs: Path, sample_clips: Path, tmp_path: Path) -> None:
    """The same names are not the same clips."""
    shutil.copytree(sample_clips, tmp_path / "real")
    first, second = sorted((tmp_path / "real").glob("*.mp4"))[:2]
    shutil.copyfile(first, second)
    moved = changed(runs / "still", tmp_path / "moved", "moved", real=tmp_path / "real")
    data = board(tmp_path / "out", runs / "copy", moved)
    assert [one["reference"]["sha256"] is None for one in data["boards"]] == [False, True]
    assert any("known by their names alone" in line for line in data["reference_differences"])


def test_where_no_clip_can_be_read_again_names_and_a_warning_remain(runs: Path, tmp_path: Path) -> None:
    both = [changed(runs / m, tmp_path / m, m, generated=tmp_path / "gone") for m in ("copy", "still")]
    data = board(tmp_path / "out", *both)
    assert len(data["boards"]) == 1 and "could not be read again" in data["notes"][0]
    assert data["boards"][0]["runs"][0]["cost"]["reason"] == "its videos are not where they were scored"


@pytest.mark.parametrize(
    ("what", "value", "difference"),
    [
        ("protocol", {"crop": "other"}, "protocol.crop: "),
        ("weights", {"mediapipe-face-landmarker": "00" * 32}, "weights.mediapipe-face-landmarker: "),
        ("protocol", {"extractors": {"arkit52": {"version": 99}}}, "protocol.extractors.arkit52.version: "),
    ],
)
def test_a_number_of_another_definition_has_a_table_of_its_own(
    runs: Path, tmp_path: Path, what: str, value: dict[str, Any], difference: str
) -> None:
    def change(results: dict[str, Any]) -> None:
        results[E_FID][what] = results[E_FID][what] | value

    other = changed(runs / "still", tmp_path / "run", "other", change)
    data = board(tmp_path / "out", runs / "copy", other)
    (split,) = data["boards"][0]["split"]
    assert split["metric"] == E_FID and any(line.startswith(difference) for line in split["differences"])
    with (tmp_path / "out" / "leaderboard.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["metric"] == E_FID and line["kind"] == "measured"]
    assert len({line["definition_sha256"] for line in lines}) == 2 and not any(line["rank"] for line in lines)


def test_two_runs_of_one_name_are_refused_with_a_way_out(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"two runs carry the method name 'copy' \(give each run its own --method\)"):
        board(tmp_path / "out", runs / "copy", runs / "copy")
    assert not (tmp_path / "out").exists()


def test_details_that_cannot_be_read_are_said(runs: Path, tmp_path: Path) -> None:
    broken = changed(runs / "copy", tmp_path / "run", "broken")
    (broken / "details" / "e_fid.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"e_fid\.parquet cannot be read"):
        board(tmp_path / "out", broken, runs / "still")


def test_work_per_second_of_video(runs: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    shutil.copytree(runs / "_videos" / "copy", videos)
    run = changed(runs / "copy", tmp_path / "run", "timed", generated=videos)
    found = ScoredRun(read_run(runs / "copy")).cost()
    assert found.value is None or found.value > 0
    first, second, *rest = sorted(path.stem for path in videos.glob("*.mp4"))
    items = [{"id": first, "took_s": 3.0, "frames": 50}, {"id": second, "took_s": 4.68}]
    items += [{"id": rest[0], "took_s": 99.0, "reason": "failed"}, {"id": rest[1]}]
    write_json(videos / "generation.json", {"items": [{"reason": None} | item for item in items]})
    cost = ScoredRun(read_run(run)).cost()
    # 50 frames are 2 s, and the second video is 48 frames long.
    assert (cost.value, cost.videos, cost.reason) == (pytest.approx(7.68 / 3.92, rel=1e-3), 2, None)
    write_json(videos / "generation.json", {"items": [{"id": first, "reason": None}]})
    assert ScoredRun(read_run(run)).cost().reason == "its generation.json records no time"
    (videos / "generation.json").write_text("{}")
    assert "cannot be read: KeyError" in (ScoredRun(read_run(run)).cost().reason or "")
    (videos / "generation.json").unlink()
    assert ScoredRun(read_run(run)).cost().reason == "no generation.json was found beside its videos"


def test_published_numbers_come_along_unless_unwanted(runs: Path, tmp_path: Path) -> None:
    one = board(tmp_path / "a", runs / "copy")
    assert {c["metric"] for t in one["published"]["tables"] for c in t["columns"].values()} == {"e_fid"}
    assert board(tmp_path / "b", runs / "copy", "--no-published")["published"]["tables"] == []
    assert "Published" not in (tmp_path / "b" / "index.html").read_text()


def test_its_own_files_are_written_over_and_those_of_others_are_not(runs: Path, tmp_path: Path) -> None:
    for _ in range(2):
        board(tmp_path, runs / "copy", "--no-published")
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"_clips"}
    assert {path.name for path in (tmp_path / "_clips").iterdir()} == {"frames", "method-copy", "made.json"}
    (tmp_path / "leaderboard.json").write_text("{}")
    page = (tmp_path / "index.html").read_text()
    with pytest.raises(InputError, match=r"leaderboard\.json is not a page of ours"):
        board(tmp_path, runs / "still")
    assert (tmp_path / "index.html").read_text() == page
