"""What a user has is never written over, and a name stays the name it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from talkforge.cli import cli
from talkforge.core.errors import ConfigError, InputError
from talkforge.flows.benchmark import benchmark, write_comparison
from talkforge.flows.evaluate import EvalConfig, check_out, evaluate
from talkforge.flows.finished import finished_results, read_results
from talkforge.flows.generate import generate, generate_one, items_from_clips
from talkforge.flows.pairs import match_folders


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def clips(sample_clips: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for k in range(2):
        shutil.copy(sample_clips / f"test-movie-{k}.mp4", folder)
    return folder


def test_a_folder_with_a_foreign_results_file_is_no_evaluation(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"mine": 1}')
    with pytest.raises(InputError, match="no evaluation"):
        check_out(tmp_path)
    assert read_results(tmp_path) is None
    with pytest.raises(InputError, match=r"results\.json cannot be read: .*schema_version None"):
        finished_results(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(InputError, match=r"results\.json cannot be read"):
        finished_results(tmp_path)


def test_a_finished_evaluation_with_a_note_beside_it_is_not_replaced(clips: Path, tmp_path: Path) -> None:
    settings = {"real": clips, "generated": clips, "out": tmp_path / "run", "metrics": ["fd"], "cache": tmp_path / "c"}
    config = EvalConfig.model_validate(settings | {"prefect": False})
    outcome = evaluate(config)
    assert outcome.results["method"] == "clips"
    assert outcome.results["results"]["fd:mobilenet-v2"]["value"] == 0.0, "equal clips are at no distance"
    assert outcome.results["results"]["fd:mobilenet-v2"]["ci95"][0] == 0.0
    (tmp_path / "run" / "note.txt").write_text("precious")
    with pytest.raises(InputError, match=r"note\.txt"):
        evaluate(config.model_copy(update={"seed": 1}))
    assert (tmp_path / "run" / "note.txt").read_text() == "precious"


def test_a_damaged_report_is_made_again(clips: Path, tmp_path: Path) -> None:
    settings = {"real": clips, "generated": clips, "out": tmp_path / "run", "metrics": ["fd"], "cache": tmp_path / "c"}
    config = EvalConfig.model_validate(settings | {"prefect": False})
    assert evaluate(config).fresh and not evaluate(config).fresh
    (tmp_path / "run" / "report.html").unlink()
    assert evaluate(config).fresh
    assert (tmp_path / "run" / "report.html").is_file()


def test_generation_never_writes_over_its_inputs(clips: Path) -> None:
    before = bytes_of(clips)
    done = generate("still", items_from_clips(clips), clips, workers=1, use_prefect=False)
    assert [one.reason for one in done] == ["input", "input"]
    for name, data in before.items():
        assert (clips / name).read_bytes() == data
    with pytest.raises(InputError, match="own input"):
        generate_one("copy", clips / "test-movie-0.mp4", clips / "test-movie-0.mp4", None, None)
    assert (clips / "test-movie-0.mp4").read_bytes() == before["test-movie-0.mp4"]


def test_generation_leaves_a_video_that_it_did_not_make(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "videos"
    out.mkdir()
    (out / "test-movie-0.mp4").write_bytes(b"mine")
    done = {one.id: one for one in generate("still", items_from_clips(clips), out, workers=1, use_prefect=False)}
    assert done["test-movie-0"].reason == "input" and done["test-movie-1"].fresh
    assert (out / "test-movie-0.mp4").read_bytes() == b"mine"


def test_a_benchmark_never_scores_its_own_output(clips: Path) -> None:
    config = EvalConfig.model_validate({"real": clips, "generated": clips, "out": clips / "runs", "prefect": False})
    with pytest.raises(InputError, match="inside"):
        benchmark(config, ["copy"])
    with pytest.raises(ConfigError, match="nope"):
        benchmark(config.model_copy(update={"out": clips.parent / "o"}), ["copy", "nope"])
    assert not (clips.parent / "o").exists(), "an unknown method is said before any work"


def test_a_benchmark_refuses_methods_that_need_options(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = clips.parent / "o"
    config = EvalConfig.model_validate({"real": clips, "generated": clips, "out": out, "prefect": False})
    text = r"dice-talk needs options.*use talkforge generate, then talkforge eval"
    with pytest.raises(InputError, match=text):
        benchmark(config, ["copy", "dice-talk"])
    with pytest.raises(InputError, match=r"no method is named \(methods: copy, still, warp\)"):
        benchmark(config, [])
    monkeypatch.setenv("TALKFORGE_CACHE", str(clips.parent / "cache"))
    command = ["benchmark", "--real", "samples", "--methods", "dice-talk", "--out", str(out)]
    with pytest.raises(InputError, match=text):
        CliRunner().invoke(cli, command, standalone_mode=False, catch_exceptions=False)
    assert not out.exists() and not (clips.parent / "cache").exists(), "before any work"


def test_a_foreign_page_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<h1>my home page</h1>")
    with pytest.raises(InputError, match="not a page of ours"):
        write_comparison(tmp_path, [])
    assert "home page" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize("stem", ["001", "1e5", "true", "2024-01-01", "NA"])
def test_a_name_in_a_manifest_is_text(clips: Path, tmp_path: Path, stem: str) -> None:
    (clips / "test-movie-0.mp4").rename(clips / f"{stem}.mp4")
    (tmp_path / "m.csv").write_text(f"clip,note\n{stem},x\ngone,y\n")
    match = match_folders(clips, clips, tmp_path / "m.csv")
    assert {clip.clip_id: clip.reason for clip in match.clips} == {stem: None, "gone": "missing_file"}


def test_settings_are_refused_before_any_work(clips: Path, tmp_path: Path) -> None:
    values = {"real": clips, "generated": clips, "out": tmp_path / "o", "cache": tmp_path / "c", "prefect": False}
    with pytest.raises(ConfigError, match="seed"):
        EvalConfig.load(None, ["seed=-1"], **values)
    for setting, part in ((["metrics=[]"], "empty list"), (["device=tpu"], "tpu")):
        with pytest.raises(ConfigError, match=part):
            evaluate(EvalConfig.load(None, setting, **values))
    assert not (tmp_path / "o").exists() and not (tmp_path / "c").exists()


def test_the_written_settings_give_the_same_run(clips: Path, tmp_path: Path) -> None:
    values = {"real": clips, "generated": clips, "out": tmp_path / "a", "cache": tmp_path / "c", "prefect": False}
    first = evaluate(EvalConfig.load(None, ["metrics=[fd]", "method=Foo", "bootstrap=200"], **values))
    again = EvalConfig.load(tmp_path / "a" / "config.yaml", [], out=tmp_path / "b")
    second = evaluate(again)
    assert second.results["method"] == "Foo"
    assert second.results["config_digest"] == first.results["config_digest"]
    assert json.dumps(second.results["results"]) == json.dumps(first.results["results"])
