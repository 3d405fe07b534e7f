"""The drill-down pages of real evaluations: what they find, where it leads, what they say of what is gone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from talkforge.commands.scoring import leaderboard
from talkforge.core.errors import ConfigError, InputError
from talkforge.flows import drilldown_files
from talkforge.flows.drilldown import write_drilldown
from talkforge.flows.drilldown_clips import base_of
from talkforge.flows.drilldown_methods import page_folder
from talkforge.flows.evaluate import EvalConfig, evaluate
from talkforge.models.dice_talk.priors import write_priors
from talkforge.reports.run import DETAIL_SCHEMA
from talkforge.tests.metrics.test_emo_score import clip, score, sure_of
from talkforge.tests.reports.demo import INJECTION
from talkforge.tests.reports.page import Page
from talkforge.tests.tasks.one_row import need

SYNC = "av_sync:mouth-envelope"
NAMES = ["happy_a b #1 100%", INJECTION, "sad_'q' \"d\"?"]


@pytest.fixture(scope="module")
def place(sample_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three awkwardly named clips, evaluated as themselves ("copy") and with their videos exchanged ("M <b>")."""
    need("mediapipe-face-landmarker")
    root = tmp_path_factory.mktemp("drill")
    sources = sorted(sample_clips.glob("*.mp4"))[: len(NAMES)]
    for k, name in enumerate(NAMES):
        for folder, source in (("real", sources[k]), ("copy", sources[k]), ("swap", sources[k - 1])):
            (root / folder).mkdir(exist_ok=True)
            shutil.copy(source, root / folder / f"{name}.mp4")
    for folder, method in (("copy", "copy"), ("swap", "M <b>")):
        settings = {"real": root / "real", "generated": root / folder, "out": root / "runs" / folder}
        evaluate(
            EvalConfig.model_validate(
                settings
                | {"method": method, "metrics": ["av_sync"], "cache": root / "cache", "prefect": False, "workers": 1}
            )
        )
    return root


@pytest.fixture
def runs(place: Path, tmp_path: Path) -> list[Path]:
    """Copies of both runs, which a test may change."""
    return [Path(shutil.copytree(place / "runs" / name, tmp_path / "runs" / name)) for name in ("copy", "swap")]


def data_of(page: Path) -> dict[str, Any]:
    """The numbers inside a page."""
    return json.loads(Page(page.read_text(encoding="utf-8")).all("script", id="data")[0].text)


def targets(page: Path) -> set[Path]:
    """The files that a page points at."""
    found = Page(page.read_text(encoding="utf-8"))
    links = [e.attributes["href"] for e in found.all("a")]
    for entry in data_of(page)["clips"]:
        links += [file[0] for file in (entry[2:] if isinstance(entry, list) else entry["files"])]
    plain = [link.partition("#")[0] for link in links if link and not link.startswith(("data:", "#"))]
    return {page.parent / unquote(link) for link in plain}


def test_pages_lead_to_each_other_to_videos_and_to_frames(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "pages"
    hrefs = write_drilldown(runs, out, index="index.html")
    (out / "index.html").touch()
    assert set(hrefs) == {"copy", "M <b>"} and hrefs["copy"] == "method-copy/index.html"
    for href in [*hrefs.values(), "compare.html"]:
        found = targets(out / href)
        assert found and all(path.is_file() for path in found), href
        assert out / "index.html" in {path.resolve() for path in found}
    one = data_of(out / hrefs["copy"])
    assert [clip["n"] for clip in one["clips"]] == sorted(NAMES)
    assert {clip["n"]: clip["e"] for clip in one["clips"]} == {NAMES[0]: "happy", NAMES[1]: None, NAMES[2]: "sad"}
    for entry in one["clips"]:
        assert [len(strip["at"]) for strip in entry["strips"]] == [10, 10]
        assert all((out / "method-copy" / strip["file"][0]).is_file() for strip in entry["strips"])
        assert [group["kind"] for group in entry["curves"]] == ["sync"] + 17 * ["unit"]
        assert [len(line["data"]) for line in entry["curves"][0]["lines"]] == [48, 48, 48]
        assert entry["notes"] == []
    # A copy's curves are the real clip's own.
    assert one["clips"][0]["curves"][0]["lines"][0]["data"] == one["clips"][0]["curves"][0]["lines"][1]["data"]


def test_numbers_are_those_of_the_details(runs: list[Path], tmp_path: Path) -> None:
    write_drilldown(runs, tmp_path / "pages")
    data = data_of(tmp_path / "pages" / "compare.html")
    for method, folder in zip(data["methods"], runs, strict=True):
        rows = pq.read_table(folder / "details" / "av_sync.parquet").to_pylist()
        known = {row["clip_id"]: row["value"] for row in rows}
        for (_, name, _), value in zip(data["clips"], method["values"][0], strict=True):
            assert value == pytest.approx(known[name], rel=1e-4)


def test_copied_videos_are_equal_there_once_and_not_copied_again(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "pages"
    hrefs = write_drilldown(runs, out, videos="copy")
    files = sorted((out / "media").iterdir())
    assert len(files) == 3 * len(NAMES)  # real ones, copies, exchanged ones
    linked = {path.resolve() for href in hrefs.values() for path in targets(out / href) if path.suffix == ".mp4"}
    assert linked == set(files)
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files]
    (out / "made.json").unlink()
    write_drilldown(runs, out, videos="copy")
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files] == before


def test_pages_are_made_again_only_when_something_changed(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "pages"
    page = out / write_drilldown(runs, out)["copy"]

    def fresh(**settings: Any) -> bool:
        before = page.stat().st_mtime_ns
        write_drilldown(runs, out, **settings)
        return page.stat().st_mtime_ns != before

    assert not fresh()
    assert fresh(clips_limit=2) and not fresh(clips_limit=2)
    results = (runs[1] / "results.json").read_text(encoding="utf-8")
    (runs[1] / "results.json").write_text(results + "\n", encoding="utf-8")
    assert fresh(clips_limit=2)
    (out / "compare.html").unlink()
    assert fresh(clips_limit=2) and (out / "compare.html").is_file()


def test_embedded_pages_need_no_other_file(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "pages"
    hrefs = write_drilldown(runs, out, videos="embed")
    data = data_of(out / hrefs["copy"])
    assert all(f[0].startswith("data:video/mp4;base64,") for clip in data["clips"] for f in clip["files"])
    assert not (out / "media").exists() and not (out / "frames").exists()
    monkeypatch.setattr(drilldown_files, "MOST_EMBEDDED", 1000)
    with pytest.raises(InputError, match="would stand in"):
        write_drilldown(runs, tmp_path / "other", videos="embed")
    assert not (tmp_path / "other").exists()


def test_a_limit_leaves_frames_and_curves_out_and_says_so(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "pages"
    hrefs = write_drilldown(runs, out, clips_limit=1)
    clips = data_of(out / hrefs["M <b>"])["clips"]
    whole = [clip for clip in clips if clip["curves"]]
    values = {clip["n"]: float(clip["values"][0][0].split()[0]) for clip in clips}
    assert [clip["n"] for clip in whole] == [min(values, key=lambda name: values[name])]  # the worst one
    for entry in clips:
        assert all(file[0] for file in entry["files"])
        if entry not in whole:
            assert entry["notes"] == ["Frames and curves are left out: 1 of 3 clips have them."]


def test_what_is_gone_is_said_with_its_reason(place: Path, runs: list[Path], tmp_path: Path) -> None:
    text = (runs[0] / "config.yaml").read_text(encoding="utf-8")
    (runs[0] / "config.yaml").write_text(text.replace(str(place / "real"), str(tmp_path / "moved")), encoding="utf-8")
    out = tmp_path / "pages"
    hrefs = write_drilldown(runs, out, cache=tmp_path / "nothing")
    page = Page((out / hrefs["copy"]).read_text(encoding="utf-8"))
    said = next(e.text for e in page.all("section") if e.attributes.get("aria-labelledby") == "absent")
    assert str(tmp_path / "moved") in said and "no priors of clips were given" in said
    for entry in data_of(out / hrefs["copy"])["clips"]:
        assert [file[0] for file in entry["files"]] == [None, None] and all(file[1] for file in entry["files"])
        assert entry["values"][0][0] not in ("", "—")  # the numbers are still there


def test_without_stored_features_the_panel_says_what_makes_them(runs: list[Path], tmp_path: Path) -> None:
    hrefs = write_drilldown(runs, tmp_path / "pages", cache=tmp_path / "nothing")
    entry = data_of(tmp_path / "pages" / hrefs["copy"])["clips"][0]
    assert entry["curves"] == [] and len(entry["notes"]) == 3
    assert all("not in the feature cache" in note for note in entry["notes"])
    assert all("not in the feature cache" in strip["file"][1] for strip in entry["strips"])


def test_a_run_without_real_clips_shows_none(place: Path, tmp_path: Path) -> None:
    settings = {"generated": place / "swap", "out": tmp_path / "run", "reference": False, "cache": place / "cache"}
    settings |= {"metrics": ["av_sync"], "prefect": False, "workers": 1}
    evaluate(EvalConfig.model_validate(settings))
    hrefs = write_drilldown([tmp_path / "run"], tmp_path / "pages")
    for entry in data_of(tmp_path / "pages" / hrefs["swap"])["clips"]:
        assert entry["files"][0][:2] == [None, "it was evaluated without real clips"] and entry["files"][1][0]
        assert [line["name"] for line in entry["curves"][0]["lines"]] == ["mouth, generated", "loudness, generated"]


def test_relative_folders_are_found_from_anywhere(tmp_path: Path) -> None:
    run = tmp_path / "work" / "runs" / "m"
    run.mkdir(parents=True)
    assert base_of(run, Path("runs/m")) == tmp_path / "work"
    assert base_of(run, Path("elsewhere/m")) == Path.cwd()
    assert base_of(run, run) == Path.cwd()  # absolute paths need no base


def test_emotions_seen_are_counted_from_what_the_metric_says(runs: list[Path], tmp_path: Path) -> None:
    seen = dict(
        zip((*NAMES, "x"), (("happy", "sad"), ("angry",) * 2, ("neutral", "happy"), ("happy", "sad")), strict=True)
    )
    pairs = [clip(name, label, sure_of(shown)) for name, (label, shown) in seen.items()]
    rows = [
        {"clip_id": c.clip_id, "variant": f"fer2013-{rule}", "value": c.value, "samples": 1, "message": c.message}
        for rule in ("frame-accuracy", "clip-accuracy")
        for c in score(f"emo_score:fer2013-{rule}", pairs).clips
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=DETAIL_SCHEMA), runs[0] / "details" / "emo_score.parquet")
    results = json.loads((runs[0] / "results.json").read_text(encoding="utf-8"))
    entry = results["results"][SYNC] | {"title": "Emo-Score"}
    results["results"] |= {f"emo_score:fer2013-{rule}": entry for rule in ("frame-accuracy", "clip-accuracy")}
    (runs[0] / "results.json").write_text(json.dumps(results), encoding="utf-8")
    hrefs = write_drilldown(runs[:1], tmp_path / "pages")
    page = Page((tmp_path / "pages" / hrefs["copy"]).read_text(encoding="utf-8"))
    (table,) = page.all("table", class_="shares")
    assert "Seen by fer2013, 4 clips" in table.text  # under two rules, and yet counted once
    numbers = [e.text for e in page.all("td") if re.match(r"s\d", e.attributes.get("class") or "")]
    assert numbers == ["1", "0", "0", "0", "0", "0", "0", "2", "0", "1", "0", "0"]  # angry, happy, neutral; and sad
    assert not (tmp_path / "pages" / "compare.html").exists()  # of one method there is nothing to compare


def test_priors_of_clips_are_shown_by_emotion_and_a_wrong_file_is_said(runs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    priors = {f"clip_{name}_{k}": rng.normal(size=(1, 16)) for name in ("happy", "sad") for k in range(4)}
    write_priors(tmp_path / "priors.npz", priors, width=16)
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    given = ["--priors", f"copy={tmp_path / 'priors.npz'}", "--priors", f"M <b>={tmp_path / 'broken.npz'}"]
    done = CliRunner().invoke(leaderboard, [*map(str, runs), "--out", str(tmp_path / "board"), *given])
    assert done.exit_code == 0, done.output
    pages = {one.name: one / "index.html" for one in (tmp_path / "board" / "_clips").glob("method-*")}
    page = Page(pages[page_folder("copy")].read_text(encoding="utf-8"))
    assert len([e for e in page.all("circle") if "figure" in e.parents and e.attributes.get("cy") != "5"]) == 8
    other = Page(pages[page_folder("M <b>")].read_text(encoding="utf-8"))
    said = next(e.text for e in other.all("section") if e.attributes.get("aria-labelledby") == "absent")
    assert "t-SNE of priors" in said and "broken.npz" in said


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--priors", "clips.npz"], "is not METHOD=FILE"),
        (["--priors", "copy=gone.npz"], "there is no file gone.npz"),
        (["--priors", "cpy=here.npz"], "'cpy', which is no method of the runs"),
        (["--priors", "copy=here.npz", "--videos", "none"], "pages of clips, which are left out"),
    ],
)
def test_priors_without_a_place_are_refused(
    arguments: list[str], part: str, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.npz").touch()
    done = CliRunner().invoke(leaderboard, [*map(str, runs), "--out", "board", *arguments])
    assert isinstance(done.exception, ConfigError | InputError) and part in done.exception.message
    assert not Path("board").exists()
    alone = CliRunner().invoke(leaderboard, ["--out", "board", "--priors", "copy=here.npz"])
    assert isinstance(alone.exception, ConfigError)


def test_what_cannot_be_shown_is_refused_before_anything_is_written(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "pages"
    for given, words in (([], "needs runs"), ([runs[0], runs[0]], "needs runs"), ([tmp_path], "is no evaluation")):
        with pytest.raises(InputError, match=words):
            write_drilldown(given, out)
    twin = Path(shutil.copytree(runs[0], tmp_path / "twin"))
    with pytest.raises(InputError, match="each of another method"):
        write_drilldown([runs[0], twin], out)
    assert not out.exists()
    out.mkdir()
    (out / "compare.html").write_text("<p>mine</p>", encoding="utf-8")
    with pytest.raises(InputError, match="is not a page of ours"):
        write_drilldown(runs, out)
    assert [path.name for path in out.iterdir()] == ["compare.html"]
