"""Two methods held against each other, with real clips and real networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from talkforge.core.errors import InputError
from talkforge.flows.benchmark import benchmark
from talkforge.flows.evaluate import EvalConfig, Outcome, describe_plan, evaluate
from talkforge.reports.text import summary

FD, KID, SYNC = "fd:mobilenet-v2", "kid:mobilenet-v2", "av_sync:mouth-envelope"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def runs(sample_clips: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluations of copies of the clips and of still pictures, below one folder."""
    out = tmp_path_factory.mktemp("runs") / "eval"
    benchmark(config(sample_clips, out, "-", cache, generated=out, out=out), ["copy", "still"])
    return out


def config(real: Path, runs: Path, method: str, cache: Path, **settings: Any) -> EvalConfig:
    values: dict[str, Any] = {"real": real, "generated": runs / "_videos" / method, "method": method, "cache": cache}
    values |= {"metrics": ["fd:mobilenet-v2", "kid:mobilenet-v2", "av_sync", "av_offset"], "prefect": False}
    return EvalConfig.model_validate(values | {"workers": 2, "bootstrap": 300, "frechet_bootstrap": 60} | settings)


def held(real: Path, runs: Path, method: str, other: str, cache: Path, out: Path, **settings: Any) -> Outcome:
    return evaluate(config(real, runs, method, cache, out=out, against=runs / other, **settings))


@pytest.fixture(scope="module")
def swapped(
    sample_clips: Path, runs: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Outcome, Outcome]:
    """Still pictures against copies, and the other way round."""
    out = tmp_path_factory.mktemp("held")
    one = held(sample_clips, runs, "still", "copy", cache, out / "still")
    return one, held(sample_clips, runs, "copy", "still", cache, out / "copy")


def gaps(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return outcome.results["against"]["results"]


def test_a_still_picture_is_worse_than_a_copy(swapped: tuple[Outcome, Outcome], runs: Path) -> None:
    found = gaps(swapped[0])
    other = json.loads((runs / "copy" / "results.json").read_text())["results"]
    for name, sign in ((FD, 1), (KID, 1), (SYNC, -1)):
        gap, own = found[name], swapped[0].results["results"][name]["value"]
        assert gap["difference"] * sign > 0
        assert gap["ci95"][0] <= gap["difference"] <= gap["ci95"][1]
        assert (gap["value"], gap["other"]) == (pytest.approx(own), pytest.approx(other[name]["value"]))
        assert (gap["n_common"], gap["reason"]) == (7, None)
    # The kernel distance of seven short clips is too uncertain for a verdict.
    assert [found[name]["verdict"] for name in (FD, SYNC, KID)] == ["worse", "worse", "not established"]
    assert [found[name]["p_value"] for name in (FD, SYNC)] == [pytest.approx(2 / 61), 2**-6]


def test_swapped_runs_swap_the_sign_alone(swapped: tuple[Outcome, Outcome]) -> None:
    one, back = map(gaps, swapped)
    for name in (FD, KID, SYNC):
        assert back[name]["difference"] == pytest.approx(-one[name]["difference"], rel=1e-9)
        assert back[name]["ci95"] == pytest.approx([-one[name]["ci95"][1], -one[name]["ci95"][0]], rel=1e-6)
        assert back[name]["p_value"] == one[name]["p_value"]
    assert [back[name]["verdict"] for name in (FD, SYNC, KID)] == ["better", "better", "not established"]


def test_what_one_side_lacks_is_null_with_a_reason(swapped: tuple[Outcome, Outcome]) -> None:
    """A still mouth has no offset."""
    for outcome, reason in zip(swapped, ("undetermined", "no_common_clips"), strict=True):
        gap = gaps(outcome)["av_offset:mouth-envelope"]
        assert (gap["difference"], gap["ci95"], gap["p_value"], gap["verdict"]) == (None, None, None, None)
        assert (gap["reason"], gap["n_common"]) == (reason, 0)


def test_the_numbers_and_digests_are_those_of_a_run_alone(swapped: tuple[Outcome, Outcome], runs: Path) -> None:
    alone = json.loads((runs / "still" / "results.json").read_text())
    assert swapped[0].results["results"] == alone["results"]
    assert swapped[0].results["config_digest"] == alone["config_digest"]
    assert "against" not in alone and "against_digest" not in alone
    counters = swapped[0].results["counters"]
    assert (counters["decodes"], counters["forwards"]) == (0, {})


def test_the_comparison_is_shown(swapped: tuple[Outcome, Outcome]) -> None:
    page, text = ((swapped[0].out / name).read_text() for name in ("report.html", "report.md"))
    for shown in (page, text):
        assert "Against" in shown and "not established" in shown
        assert "undetermined: this run has no value" in shown
    assert "| FD (MobileNetV2) ↓ | `fd:mobilenet-v2` |" in text
    lines = summary(swapped[0].results).splitlines()
    assert "against copy:" in lines
    assert sum(line.endswith("n 7: worse") for line in lines) == 2


def test_a_run_without_its_comparison_is_not_done(
    sample_clips: Path, runs: Path, cache: Path, tmp_path: Path, swapped: tuple[Outcome, Outcome]
) -> None:
    shutil.copytree(runs / "still", tmp_path / "out")
    plain = config(sample_clips, runs, "still", cache, out=tmp_path / "out")
    assert not evaluate(plain).fresh
    other = plain.model_copy(update={"against": runs / "copy"})
    assert evaluate(other).fresh
    assert not evaluate(other).fresh
    assert evaluate(plain.model_copy(update={"against": swapped[1].out})).fresh is False  # the same run, elsewhere
    assert evaluate(plain).fresh
    assert "against copy" in describe_plan(other)


def test_lost_rows_of_the_other_are_made_again(
    sample_clips: Path, runs: Path, cache: Path, tmp_path: Path, swapped: tuple[Outcome, Outcome]
) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    rows = len(list((tmp_path / "cache").rglob("speech-envelope/*/*.parquet")))
    (speech,) = (tmp_path / "cache").rglob("speech-envelope")
    shutil.rmtree(speech)
    again = held(sample_clips, runs, "still", "copy", tmp_path / "cache", tmp_path / "out", metrics=["av_sync"])
    assert gaps(again)[SYNC] == gaps(swapped[0])[SYNC]
    assert len(list(speech.rglob("*.parquet"))) == rows == 21


def test_a_metric_that_the_other_run_did_not_ask_for_is_compared(
    sample_clips: Path, runs: Path, cache: Path, tmp_path: Path, swapped: tuple[Outcome, Outcome]
) -> None:
    folder = altered(runs, tmp_path / "old")
    results = json.loads((folder / "results.json").read_text())
    del results["results"][SYNC]
    (folder / "results.json").write_text(json.dumps(results))
    run = config(sample_clips, runs, "still", cache, out=tmp_path / "out", against=folder, metrics=["av_sync"])
    assert gaps(evaluate(run))[SYNC] == gaps(swapped[0])[SYNC]


def altered(runs: Path, folder: Path, **settings: Any) -> Path:
    """A copy of the copies' run with other settings in its config.yaml."""
    shutil.copytree(runs / "copy", folder)
    written = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(written | {k: str(v) for k, v in settings.items()}))
    return folder


def test_a_run_about_other_clips_is_refused(sample_clips: Path, runs: Path, cache: Path, tmp_path: Path) -> None:
    def against(folder: Path, real: Path = sample_clips) -> EvalConfig:
        return config(real, runs, "still", cache, out=tmp_path / "out", against=folder)

    with pytest.raises(InputError, match=r"no finished evaluation.*talkforge eval"):
        evaluate(against(tmp_path))
    with pytest.raises(InputError, match="--crop none"):
        evaluate(against(altered(runs, tmp_path / "crop", crop="none")))
    with pytest.raises(InputError, match=r"not in .*gone .*put its clips back"):
        evaluate(against(altered(runs, tmp_path / "moved", generated=tmp_path / "gone")))

    shutil.copytree(sample_clips, tmp_path / "fewer")
    min((tmp_path / "fewer").glob("*.mp4")).unlink()
    with pytest.raises(InputError, match="other real clips"):
        evaluate(against(runs / "copy", tmp_path / "fewer"))

    shutil.copytree(runs / "_videos" / "copy", tmp_path / "changed")
    first, second = sorted((tmp_path / "changed").glob("*.mp4"))[:2]
    shutil.copyfile(first, second)
    with pytest.raises(InputError, match="clips have changed"):
        evaluate(against(altered(runs, tmp_path / "new", generated=tmp_path / "changed")))
    assert not (tmp_path / "out").exists()


def test_a_number_of_another_definition_is_not_compared(
    sample_clips: Path, runs: Path, cache: Path, tmp_path: Path
) -> None:
    folder = altered(runs, tmp_path / "old")
    results = json.loads((folder / "results.json").read_text())
    results["results"][SYNC]["protocol"]["lags"] = "-5..5 frames"
    (folder / "results.json").write_text(json.dumps(results))
    run = config(sample_clips, runs, "still", cache, out=tmp_path / "out", against=folder, metrics=["av_sync"])
    gap = gaps(evaluate(run))[SYNC]
    assert (gap["difference"], gap["reason"]) == (None, "other_definition")
