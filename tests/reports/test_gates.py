"""Gates: what the grammar takes, which metric they mean, and that nothing without a value passes."""

from __future__ import annotations

import pytest
from talkforge.core.errors import ConfigError
from talkforge.reports.gate_summary import render_summary
from talkforge.reports.gates import Verdict, check_gates, gate_lines, judge, parse_gate, tally
from talkforge.tests.reports.demo import INJECTION, demo_results

FVD, FULL, SYNC, LSE = (
    "fvd:i3d-k400-16f",
    "fvd:i3d-k400-full",
    "av_sync:mouth-envelope",
    "lse_d:syncnet-v2-direct",
)
KNOWN = [FVD, FULL, SYNC, LSE, "fd:mobilenet-v2", "fid:clean", "fvd_inf:i3d-k400-16f"]


def verdict(text: str, *, allow_missing: bool = False) -> Verdict:
    """Of the demo run: FVD 412.37 [355.2, 486.1], av_sync 0.5841 on 8 of 12 clips, two metrics without weights."""
    (one,) = judge([parse_gate(text)], demo_results(), KNOWN, allow_missing=allow_missing)
    return one


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("fvd>300", (None, "fvd", "value", ">", 300.0)),
        (" fvd:i3d-k400-16f >= 3e2 ", (None, FVD, "value", ">=", 300.0)),
        ("lse_c:syncnet-v2-compat<5", (None, "lse_c:syncnet-v2-compat", "value", "<", 5.0)),
        ("fvd.ci_high<=-.5", (None, "fvd", "ci_high", "<=", -0.5)),
        (f"{FVD}.ci_low>+1.", (None, FVD, "ci_low", ">", 1.0)),
        ("lse_c.coverage<0.9", (None, "lse_c", "coverage", "<", 0.9)),
        ("coverage<0.9", (None, None, "coverage", "<", 0.9)),
        ("a/b > c/fvd>300", ("a/b > c", "fvd", "value", ">", 300.0)),
        ("mine/coverage<1", ("mine", None, "coverage", "<", 1.0)),
    ],
)
def test_the_grammar(text: str, parts: tuple[object, ...]) -> None:
    gate = parse_gate(text)
    assert (gate.method, gate.name, gate.field, gate.sign, gate.threshold) == parts


@pytest.mark.parametrize(
    "text", ["", "fvd", "fvd>", ">300", "fvd=300", "fvd==300", "fvd=>300", "300<fvd", "fvd>1e999", "fvd>nan", "f d>3"]
)
def test_other_forms_are_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError, match=r"not of the form METRIC>NUMBER.*examples: fvd>300"):
        parse_gate(text)


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no '\.ci_hi' of a metric \(did you mean ci_high"):
        parse_gate("fvd.ci_hi>1")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("fvd>300", rf"'fvd' is 2 metrics here \(say {FVD} or {FULL}\)"),
        ("fdv>300", r"unknown metric 'fdv' \(did you mean .*fvd"),
        ("fvd:i3d-k400-16>300", r"unknown metric .* \(did you mean fvd:i3d-k400-16f"),
        ("fid>30", r"fid is not measured here \(--metrics chooses"),
        ("fid:clean>30", "fid:clean is not measured here"),
        ("EDTolk/av_sync<1", r"no method 'EDTolk' here \(did you mean EDTalk"),
    ],
)
def test_what_no_run_could_answer_is_refused(text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        check_gates([parse_gate(text)], {"EDTalk": list(demo_results()["results"])}, KNOWN)


def test_a_family_is_taken_for_its_only_variant() -> None:
    check_gates([parse_gate("av_sync<1"), parse_gate("EDTalk/fd>1")], {"EDTalk": [SYNC, "fd:mobilenet-v2"]}, KNOWN)
    assert verdict("av_sync<0.5").metric_id == SYNC


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (f"{FVD}>412.37", "passed"),
        (f"{FVD}>=412.37", "failed"),
        (f"{FVD}<412.37", "passed"),
        (f"{FVD}<=412.37", "failed"),
        (f"{FVD}>412.3", "failed"),
        (f"{FVD}.ci_low>412.3", "passed"),
        (f"{FVD}.ci_low>355", "failed"),
        (f"{FVD}.ci_high<=486.1", "failed"),
        ("av_sync.coverage<0.6666", "passed"),
        ("av_sync.coverage<0.6667", "failed"),
        ("lse_d>1", "no value"),
        ("lse_d<1", "no value"),
        ("lse_d.ci_low>1", "no value"),
        ("lse_d.coverage<0.1", "no value"),
        ("coverage<0.1", "no value"),
    ],
)
def test_a_gate_fails_where_it_holds_and_where_nothing_is_known(text: str, state: str) -> None:
    assert verdict(text).state == state
    assert verdict(text).failed == (state != "passed")


def test_what_is_missing_says_why_and_may_be_allowed() -> None:
    assert verdict("lse_d>1").reason == "weights_missing: get them with: talkforge weights pull syncnet_v2"
    allowed = verdict("lse_d>1", allow_missing=True)
    assert (allowed.state, allowed.failed, allowed.value) == ("no value, allowed", False, None)
    assert verdict(f"{FVD}>1", allow_missing=True).failed, "a number is judged all the same"


def test_a_value_without_an_interval_and_a_run_of_no_clip_have_nothing_to_judge() -> None:
    results = demo_results()
    results["results"][SYNC] |= {"ci95": None}
    results["results"]["fd:mobilenet-v2"] |= {"n_attempted": 0, "n_scored": 0}
    results["results"][FVD] |= {"value": float("nan")}
    gates = [parse_gate(text) for text in ("av_sync.ci_low<0", "fd.coverage<1", f"{FVD}>1")]
    reasons = [one.reason for one in judge(gates, results, KNOWN)]
    assert reasons == ["the value has no interval", "no clip was attempted", "no reason was recorded"]
    (none,) = judge([parse_gate("coverage<1")], results | {"results": {}}, KNOWN)
    assert (none.failed, none.reason) == (True, "the run has no metric")


def test_coverage_by_itself_is_the_least_or_the_greatest_of_all() -> None:
    low = verdict("coverage<0.7", allow_missing=True)
    assert (low.metric_id, low.value, low.state, low.counts) == (SYNC, 8 / 12, "failed", "8/12")
    high = verdict("coverage>0.7", allow_missing=True)
    assert (high.value, high.state) == (9 / 12, "failed")


def test_clips_that_were_all_rejected_are_a_coverage_of_0() -> None:
    results = demo_results()
    results["results"][SYNC] |= {"value": None, "ci95": None, "n_scored": 0, "reason": "no_face"}
    (one,) = judge([parse_gate("av_sync.coverage<0.5")], results, KNOWN, allow_missing=True)
    assert (one.value, one.state) == (0.0, "failed")


def test_lines_hold_value_interval_and_threshold() -> None:
    gates = [parse_gate(text) for text in (f"{FVD}>412", "av_sync<0.5", "lse_d>1", "other/fvd>1")]
    verdicts = judge(gates, demo_results(), KNOWN)
    assert gate_lines(verdicts, several=False) == [
        f"FAILED  fail if {FVD}>412:  412.37 [355, 486]  threshold 412",
        f"passed  fail if av_sync<0.5:  {SYNC}  0.5841 [0.512, 0.651]  threshold 0.5",
        f"FAILED  fail if lse_d>1:  {LSE}  — weights_missing: get them with: talkforge weights pull syncnet_v2"
        "  threshold 1",
    ]
    assert gate_lines(verdicts[:1], several=True)[0].startswith("FAILED  EDTalk: fail if")
    (named,) = judge([parse_gate("EDTalk/av_sync<0.5")], demo_results(), KNOWN)
    assert gate_lines([named], several=True)[0].startswith("passed  fail if EDTalk/av_sync<0.5:")
    assert tally(verdicts) == "2 of 3 gates failed" and tally(verdicts[1:2]) == "1 gate passed"


def test_the_summary_is_a_table_that_markup_cannot_leave() -> None:
    results = demo_results(INJECTION)
    verdicts = judge([parse_gate(f"{FVD}>300"), parse_gate("lse_d>1")], results, KNOWN)
    text = render_summary([results], [verdicts], [dict.fromkeys(results["results"], "+1 | <b>worse</b>")])
    assert INJECTION not in text and "<b>" not in text
    lines = text.splitlines()
    assert lines[0].startswith("# ") and lines[0].endswith(": 2 of 2 gates failed")
    assert lines[2] == "| Metric | Value | 95 % interval | n | Gate | Change |"
    row = next(line for line in lines if line.startswith(f"| `{FVD}`"))
    assert row.split(" | ")[1:4] == ["412", "\\[355, 486\\]", "9/12"] and "**failed**: fvd:i3d-k400-16f&gt;300" in row
    assert all(line.replace("\\|", "").count("|") in (6, 7) for line in lines if line.startswith("|"))


def test_a_summary_without_gates_or_history_has_no_column_for_them() -> None:
    text = render_summary([demo_results(), demo_results("other")], [[], []])
    assert text.startswith("# EDTalk\n") and "\n# other\n" in text
    assert "| Metric | Value | 95 % interval | n |\n" in text and "Gate" not in text
