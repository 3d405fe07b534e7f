"""The audit as a whole, with real clips and the real landmarker: what it leaves behind and what it does twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from talkforge.core.errors import ConfigError, InputError
from talkforge.datasets.encode import reencode_clip
from talkforge.flows.audit import Audit, AuditConfig, audit, describe_audit
from talkforge.flows.audit_sets import choose, make, read_clips, videos
from talkforge.flows.evaluate import EvalConfig
from talkforge.tests.media_factory import tone, write_clip

SYNC, MOUTH = "av_sync:mouth-envelope", "lmd:mouth-mp68"
NAMES = ["sound-swap", "mouth-frozen"]
CLIPS = ("jwp-intro-0", "test-movie-1")


@pytest.fixture(scope="module")
def place(sample_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of a talking man and one of stripes."""
    place = tmp_path_factory.mktemp("audit")
    (place / "real").mkdir()
    for name in CLIPS:
        reencode_clip(sample_clips / f"{name}.mp4", place / "real" / f"{name}.mp4", crf=16, end_s=1.2)
    write_clip(place / "real" / "stripes.mp4", 30, audio=tone(1.2))
    return place


def config(place: Path, out: str = "out", names: list[str] | None = None, **settings: object) -> AuditConfig:
    values = {"real": place / "real", "generated": place / out, "out": place / out, "cache": place / "cache"}
    values |= {"method": "-", "metrics": [SYNC, MOUTH], "crop": "none", "workers": 2, "prefect": False} | settings
    return AuditConfig(EvalConfig.model_validate({"bootstrap": 100, **values}), names or NAMES, levels=2)


@pytest.fixture(scope="module")
def done(place: Path) -> Audit:
    return audit(config(place))


def stamps(folder: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    }


def test_each_metric_is_judged_under_each_corruption(done: Audit) -> None:
    data = json.loads((done.out / "audit.json").read_text())
    assert data == done.data
    cells = {(cell["metric"], cell["corruption"]): cell for cell in data["cells"]}
    assert set(cells) == {(metric, name) for metric in (SYNC, MOUTH) for name in NAMES}
    assert [score["level"] for score in cells[SYNC, "sound-swap"]["scores"]] == [0, 1, 2]
    assert cells[MOUTH, "mouth-frozen"]["verdict"] == "notices"
    assert cells[MOUTH, "mouth-frozen"]["rho"] == 1


def test_a_sound_does_not_move_a_metric_of_the_picture(done: Audit) -> None:
    """The pictures of all levels are the same, to the byte."""
    found = next(c for c in done.data["cells"] if (c["metric"], c["corruption"]) == (MOUTH, "sound-swap"))
    assert found["verdict"] == "unaffected"
    assert found["effect"] == 0


def test_a_clip_that_a_corruption_cannot_be_made_of_has_its_reason(done: Audit) -> None:
    entries = {one["name"]: one for one in done.data["corruptions"]}
    assert (entries["sound-swap"]["clips"], entries["sound-swap"]["rejected"]) == (3, [])
    assert [(r["clip"], r["reason"]) for r in entries["mouth-frozen"]["rejected"]] == [("stripes", "no_face")]
    assert entries["mouth-frozen"]["clips"] == 2


def test_the_page_and_its_twin_are_there_and_link_to_reports(done: Audit) -> None:
    page = (done.out / "index.html").read_text()
    assert (done.out / "audit.md").read_text().startswith("# Audit of metrics")
    links = [part.split('"')[0] for part in page.split('href="runs/')[1:]]
    assert len(links) == 4
    assert all((done.out / "runs" / link).is_file() for link in links)
    assert page.count("data:image/jpeg") >= 4


def test_a_second_run_does_nothing(place: Path, done: Audit) -> None:
    before = stamps(done.out)
    again = audit(config(place))
    assert not again.fresh and again.data == done.data
    assert stamps(done.out) == before


def test_a_run_goes_on_where_one_was_broken_off(place: Path, done: Audit) -> None:
    """Without its last file an audit is unfinished; sets and evaluations are taken as they are."""
    (done.out / "audit.json").unlink()
    before = stamps(done.out / "runs") | stamps(done.out / "sets")
    again = audit(config(place))
    assert again.fresh and again.data["cells"] == done.data["cells"]
    assert stamps(done.out / "runs") | stamps(done.out / "sets") == before


def test_a_lost_video_is_made_again_and_no_other(place: Path, done: Audit) -> None:
    wanted = videos(choose(NAMES, 2), read_clips(place / "real", None), done.out, place / "cache")
    lost = next(one for one in wanted if one.name == "sound-swap" and one.level == 2)
    before = lost.video.read_bytes()
    lost.video.unlink()
    made = [make(one) for one in wanted]
    assert [(one.name, one.level, one.stem) for one in made if one.fresh] == [("sound-swap", 2, lost.item.stem)]
    assert lost.video.read_bytes() == before


def test_a_dry_run_counts_and_makes_nothing(place: Path) -> None:
    text = describe_audit(config(place, out="dry"))
    assert "videos: 15, of which 0 are there" in text  # 3 clips, the copy and two times two levels
    assert "minutes" in text and f"metric {SYNC}" in text
    assert not (place / "dry").exists()


def test_what_cannot_be_audited_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown corruption 'blurr'") as caught:
        audit(config(place, names=["blurr"]))
    assert "did you mean blur" in str(caught.value)
    with pytest.raises(InputError, match="inside --real"):
        audit(config(place, out="real/out"))
    shutil.copytree(place / "real", place / "foreign")
    with pytest.raises(InputError, match="no audit"):
        audit(config(place, out="foreign"))


def test_a_manifest_chooses_the_clips_and_labels_them(place: Path) -> None:
    (place / "list.csv").write_text(f"clip,emotion\n{CLIPS[1]},happy\nmissing,sad\n")
    clips = read_clips(place / "real", None, place / "list.csv")
    assert [(item.stem, dict(item.labels), item.other) for item in clips] == [(CLIPS[1], {"emotion": "happy"}, None)]
    done = audit(config(place, out="listed", names=["colour-cast"], metrics=[SYNC], manifest=place / "list.csv"))
    assert done.data["clips"] == [CLIPS[1]]
    manifests = list((place / "listed" / "runs").glob("*/clips-*.parquet"))
    assert len(manifests) == 2
    assert pq.read_table(manifests[0]).to_pylist() == [{"clip": CLIPS[1], "emotion": "happy"}]


def test_fewer_levels_keep_the_greatest() -> None:
    assert [choose(["blur"], count)[0].levels for count in (1, 2, 4)] == [(4.0,), (0.5, 4.0), (0.5, 1.0, 2.0, 4.0)]
    with pytest.raises(ConfigError, match="5 levels"):
        choose(["blur"], 5)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--real", "nowhere", "--out", "o"], "nowhere is not a folder"),
        (["--real", "real", "--out", "o", "--corruptions", "blurr"], "did you mean blur"),
        (["--real", "real", "--out", "o", "--levels", "9"], "--levels"),
        (["--real", "real"], "'--out'"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(place: Path, arguments: list[str], part: str) -> None:
    command = [sys.executable, "-m", "talkforge.cli", "audit", "--no-prefect", *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("talkforge: ") and done.stderr.count("\n") == 1
    assert part in done.stderr
    assert not (place / "o").exists()
