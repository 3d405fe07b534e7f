"""Metrics as such: which are chosen, which clips count, and what becomes of the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from talkforge.core.errors import ConfigError, NoFace
from talkforge.metrics.base import (
    ClipMetric,
    ClipScore,
    FrechetMetric,
    MetricSpec,
    Pair,
    Row,
    Settings,
    main_reason,
    metrics,
    problem,
    select,
    usable,
)
from talkforge.metrics.frechet import frechet_distance
from talkforge.tasks.extractor import extractors
from talkforge.tests.metrics.rows import HeldRow

QUICK = Settings(bootstrap=200, frechet_bootstrap=50)
ALONE = MetricSpec(
    id="test:alone",
    title="Test",
    unit="",
    higher_is_better=True,
    what="For tests.",
    formula="x",
    source="none",
    generated=("look",),
    real=(),
    comparable_with_papers=False,
    why="a test",
)
BOTH = replace(ALONE, id="test:both", real=("look", "sound"))
FAILED = HeldRow(reason="no_face", message="no face in any of 48 frames")


def row(value: float = 1.0) -> HeldRow:
    return HeldRow({"x": value})


def pair(name: str, generated: HeldRow | None, real: HeldRow | None) -> Pair:
    sides: list[dict[str, Row] | None] = [None if one is None else {"look": one} for one in (generated, real)]
    return Pair(name, sides[0], sides[1])


def value_of(generated, real) -> float:
    return generated["look"].value("x")


# --- choosing --------------------------------------------------------------------------------------------------------


def test_a_family_stands_for_its_variants() -> None:
    ids = [metric.spec.id for metric in select(["fvd"])]
    assert ids == ["fvd:i3d-k400-16f", "fvd:i3d-k400-full"]
    assert [metric.spec.id for metric in select(["fvd:i3d-k400-full"])] == ["fvd:i3d-k400-full"]


def test_the_order_is_the_callers_and_nothing_is_there_twice() -> None:
    ids = [metric.spec.id for metric in select(["fd", "fvd:i3d-k400-full", "fvd", "fd:mobilenet-v2"])]
    assert ids == ["fd:mobilenet-v2", "fvd:i3d-k400-full", "fvd:i3d-k400-16f"]


def test_nothing_chosen_is_the_default_set() -> None:
    wanted = [metric.spec.id for metric in metrics.all() if metric.spec.default]
    assert [metric.spec.id for metric in select(None)] == [metric.spec.id for metric in select([])] == wanted
    assert "fvd:i3d-k400-full" not in wanted and len(wanted) >= 3


@pytest.mark.parametrize("name", ["fvd:i3d-k400-16", "fdv", "fvd:", ""])
def test_an_unknown_name_is_an_error_with_a_way_out(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown metric") as caught:
        select([name])
    assert caught.value.hint


def test_every_metric_says_what_it_is() -> None:
    for metric in metrics.all():
        spec = metric.spec
        family, _, variant = spec.id.partition(":")
        assert family and variant and ":" not in variant
        assert spec.title and spec.what.endswith(".") and spec.formula and spec.source and spec.why
        assert spec.generated and set(spec.extractors) == {*spec.generated, *spec.real, *spec.compared}


# The one network whose features a published name stands for. A substitute has a name of its own ("fd:mobilenet-v2").
NETWORK_OF = {
    "fid": "inception-2015-12-05",
    "fid_inf": "inception-2015-12-05",
    "fvd": "i3d-k400",
    "fvd_inf": "i3d-k400",
}


def test_no_substitute_bears_a_published_name() -> None:
    found = {metric.spec.id: metric.spec for metric in metrics.all() if metric.spec.id.split(":")[0] in NETWORK_OF}
    assert {name.split(":")[0] for name in found} >= {"fid", "fvd"}
    for name, spec in found.items():
        weights = {weight for extractor in spec.extractors for weight in extractors.get(extractor).weights}
        assert weights == {NETWORK_OF[name.split(":")[0]]}, name
    assert not {"fd:mobilenet-v2", "kid:mobilenet-v2"} & {
        m.spec.id for m in metrics.all() if m.spec.comparable_with_papers
    }


# --- which clips count -----------------------------------------------------------------------------------------------


def test_the_first_wanted_row_that_fails_gives_the_reason() -> None:
    features = {"look": row(), "sound": HeldRow(reason="no_audio", message="mute"), "more": FAILED}
    assert problem(features, ("look",)) is None and problem(None, ()) is None
    assert problem(features, ("look", "sound", "more")) == ("no_audio", "mute")
    assert problem(features, ("look", "depth")) == ("no_features", "depth was not extracted")
    assert problem(None, ("look",)) == ("no_features", "look was not extracted")


def test_a_rejected_pair_says_which_side_it_was() -> None:
    whole = {"look": row(), "sound": row()}
    assert usable(Pair("a", whole, whole), BOTH) is None
    assert usable(Pair("a", {"look": FAILED}, whole), BOTH) == ClipScore(
        "a", None, "no_face", "generated: no face in any of 48 frames"
    )
    assert usable(Pair("a", whole, {"look": row()}), BOTH) == ClipScore(
        "a", None, "no_features", "real: sound was not extracted"
    )
    assert usable(Pair("a", whole, {"look": FAILED}), ALONE) is None, "the real side is not wanted"
    unmatched = Pair("a", None, whole, "unmatched_real", "no generated file of this stem")
    assert usable(unmatched, ALONE) == ClipScore("a", None, "unmatched_real", "no generated file of this stem")


def test_the_commonest_reason() -> None:
    reasons = ["no_face", "no_audio", "no_face", None]
    clips = [ClipScore(str(k), None if reason else 1.0, reason) for k, reason in enumerate(reasons)]
    assert main_reason(clips) == "no_face" and main_reason(clips[3:]) is None and main_reason([]) is None


# --- a value a clip --------------------------------------------------------------------------------------------------


def test_the_mean_its_interval_and_the_rejects() -> None:
    values = [1.0, 2.0, 3.0, 6.0]
    pairs = [pair(str(k), row(value), row(10 * value)) for k, value in enumerate(values)]
    pairs += [pair("x", FAILED, row(50.0)), pair("y", FAILED, FAILED), Pair("z", None, None, "unmatched_real")]
    score = ClipMetric(ALONE, value_of).score(pairs, QUICK)
    assert score.value == 3.0 and score.n_scored == 4
    assert score.rejects == {"no_face": 2, "unmatched_real": 1} and score.reason is None
    assert [clip.clip_id for clip in score.clips] == [*"0123", *"xyz"], "each attempted clip is a row"
    assert score.ci95 is not None and 1.0 <= score.ci95[0] < 3.0 < score.ci95[1] <= 6.0
    assert score.real_vs_real == np.mean([10, 20, 30, 60]), "what the real clips of the same pairs score"


def test_the_interval_is_that_of_resampled_clips() -> None:
    """Against a bootstrap written here, for which only the law of the draws counts."""
    values = np.random.default_rng(0).gamma(2.0, size=40)
    score = ClipMetric(ALONE, value_of).score([pair(str(v), row(v), None) for v in values], Settings(bootstrap=4000))
    rng = np.random.default_rng(99)
    means = [rng.choice(values, 40).mean() for _ in range(4000)]
    assert score.ci95 == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.05)
    assert score.ci95 is not None and score.real_vs_real is None


def test_one_clip_has_a_value_and_no_interval() -> None:
    score = ClipMetric(ALONE, value_of).score([pair("a", row(2.5), None)], QUICK)
    assert (score.value, score.ci95, score.n_scored) == (2.5, None, 1)


def test_no_clip_is_null_with_the_commonest_reason() -> None:
    score = ClipMetric(ALONE, value_of).score([pair("a", FAILED, row()), pair("b", None, row())], QUICK)
    assert (score.value, score.ci95, score.real_vs_real, score.n_scored) == (None, None, None, 0)
    assert score.reason == "no_face"
    assert ClipMetric(ALONE, value_of).score([], QUICK).value is None


def test_an_error_of_one_clip_is_its_reason() -> None:
    def strict(generated, real) -> float:
        if generated["look"].value("x") < 0:
            raise NoFace("turned away")
        return 1.0

    score = ClipMetric(ALONE, strict).score([pair("a", row(-1), None), pair("b", row(1), None)], QUICK)
    assert score.clips == [ClipScore("a", None, "no_face", "turned away"), ClipScore("b", 1.0)]


def test_a_value_that_is_no_number_is_missing_and_spoils_no_mean() -> None:
    pairs = [pair("a", row(np.nan), None), pair("b", row(np.inf), None), pair("c", row(4.0), None)]
    score = ClipMetric(ALONE, value_of).score(pairs, QUICK)
    assert score.value == 4.0 and score.n_scored == 1
    assert score.rejects == {"not_finite": 2}


def test_a_metric_with_a_reference_has_no_level_of_its_own() -> None:
    spec = replace(ALONE, real=("look",))
    gap = ClipMetric(spec, lambda generated, real: generated["look"].value("x") - real["look"].value("x"))
    score = gap.score([pair("a", row(3), row(1)), pair("b", row(3), None)], QUICK)
    assert score.value == 2.0 and score.real_vs_real is None and score.rejects == {"no_features": 1}


# --- distributions ---------------------------------------------------------------------------------------------------

FRECHET = FrechetMetric(replace(ALONE, id="test:fd", real=("look",)), "v")


def features(seed: int, rows: int = 12, shift: float = 0.0) -> HeldRow:
    return HeldRow({"v": np.random.default_rng(seed).normal(shift, 1, (rows, 3)).astype(np.float32)})


def test_the_distance_is_over_complete_pairs_only() -> None:
    good = [pair(str(k), features(k, 6 + k, shift=1), features(50 + k)) for k in range(5)]
    bad = [
        pair("x", FAILED, features(7, shift=9)),
        pair("y", features(8, shift=9), FAILED),
        pair("z", features(9), None),
    ]
    score = FRECHET.score([good[0], *bad, *good[1:]], QUICK)
    sides = [[features(k, 6 + k, shift=1) for k in range(5)], [features(50 + k) for k in range(5)]]
    x, y = (np.concatenate([one.array("v") for one in side]) for side in sides)
    assert score.value == pytest.approx(frechet_distance(x, y), rel=1e-9)
    assert score.n_scored == 5 and score.rejects == {"no_face": 2, "no_features": 1}
    assert [clip.clip_id for clip in score.clips] == ["0", "x", "y", "z", "1", "2", "3", "4"]
    assert score.ci95 is not None and score.ci95[0] <= score.value <= score.ci95[1]


def test_a_clips_row_is_the_gap_of_its_means() -> None:
    generated = HeldRow({"v": np.array([[0.0, 0.0, 4.0], [6.0, 0.0, 4.0]])})
    real = HeldRow({"v": np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])})
    score = FRECHET.score([pair("a", generated, real), pair("b", features(1), features(2))], QUICK)
    assert score.clips[0] == ClipScore("a", 5.0, samples=2)


def test_real_against_real_is_far_below_a_shifted_method() -> None:
    pairs = [pair(str(k), features(k, 30, shift=2), features(50 + k, 30)) for k in range(8)]
    score = FRECHET.score(pairs, QUICK)
    assert score.value is not None and score.real_vs_real is not None
    assert score.value == pytest.approx(3 * 2**2, rel=0.15), "|m1 - m2|^2 of a shift by 2 in 3 dimensions"
    assert 0 < score.real_vs_real < 0.5


def test_a_perfect_copy_has_distance_zero() -> None:
    score = FRECHET.score([pair(str(k), features(k), features(k)) for k in range(4)], QUICK)
    assert score.value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("generated", "real"), [(1, 12), (12, 1), (1, 1)])
def test_fewer_than_two_samples_are_null_with_a_reason(generated: int, real: int) -> None:
    score = FRECHET.score([pair("a", features(1, generated), features(2, real))], QUICK)
    assert (score.value, score.ci95, score.real_vs_real) == (None, None, None)
    assert score.reason == "too_few_samples"


def test_nothing_complete_is_null_with_the_clips_reason() -> None:
    score = FRECHET.score([pair("a", FAILED, features(1)), pair("b", features(1), FAILED)], QUICK)
    assert (score.value, score.reason, score.n_scored) == (None, "no_face", 0)
    assert FRECHET.score([], QUICK).reason is not None


def test_one_clip_has_a_distance_but_no_interval_and_no_halves() -> None:
    score = FRECHET.score([pair("a", features(1), features(2))], QUICK)
    assert score.value is not None and score.ci95 is None and score.real_vs_real is None


def test_few_samples_are_noted() -> None:
    few = FRECHET.score([pair(str(k), features(k, 14), features(50 + k)) for k in range(2)], QUICK)
    assert len(few.notes) == 1 and few.notes[0].startswith("24 samples for 3 dimensions")
    enough = FRECHET.score([pair(str(k), features(k), features(50 + k)) for k in range(3)], QUICK)
    assert enough.notes == ()


def test_the_same_clips_give_the_same_score() -> None:
    pairs = [pair(str(k), features(k, shift=1), features(50 + k)) for k in range(4)]
    assert FRECHET.score(pairs, QUICK) == FRECHET.score(pairs, QUICK)
