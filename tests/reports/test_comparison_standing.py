"""Where a method stands: joint draws, intervals, paired differences, and what is said where nobody can tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from talkforge.metrics.compare import Difference
from talkforge.metrics.paired import paired_mean
from talkforge.reports.comparison import comparison_model
from talkforge.reports.comparison_facts import Evidence, swapped
from talkforge.reports.comparison_layout import MetricTable
from talkforge.reports.comparison_standing import Above, Standing
from talkforge.tests.reports.demo import result, results
from talkforge.tests.reports.made_runs import NAME, hard_clips, made, named


def table_of(methods: dict[str, dict[str, float]], **fields: Any) -> MetricTable:
    (table,) = comparison_model(*with_facts(methods, **fields)).columns
    return table


def with_facts(methods: dict[str, dict[str, float]], **fields: Any) -> tuple[Any, Any, Any]:
    runs, facts = made(methods, **fields)
    return runs, {}, facts


def standing(table: MetricTable, method: str) -> Standing:
    found = table.standing(method)
    assert found is not None
    return found


def above(table: MetricTable, method: str) -> Above:
    found = standing(table, method).above
    assert found is not None
    return found


def test_methods_that_only_pairs_tell_apart_have_sure_ranks() -> None:
    """Their own intervals overlap almost wholly: clips differ a hundred times more than methods do."""
    table = table_of(hard_clips(4, 30))
    assert [row.method for row in table.rows] == ["M0", "M1", "M2", "M3"]
    assert [standing(table, f"M{k}").text for k in range(4)] == ["1", "2", "3", "4"]
    assert standing(table, "M0").best == 1.0 and table.basis == "30 clips drawn jointly"
    assert all(above(table, f"M{k}").established for k in (1, 2, 3))
    first, second = (row.entry.result["ci95"] for row in table.rows[:2])
    assert first[1] > second[0]


def test_the_p_value_is_the_one_of_the_paired_draws() -> None:
    methods = hard_clips(3, 12, step=0.3, seed=4)
    table = table_of(methods)
    sides = [np.array(list(clips.values())) for clips in methods.values()]
    ps = [paired_mean(sides[k], sides[k - 1]).p_value for k in (1, 2)]
    assert [above(table, f"M{k}").p_value for k in (1, 2)] == ps
    assert above(table, "M1").difference == pytest.approx(float(np.mean(sides[1] - sides[0])))
    assert sorted(above(table, f"M{k}").holm or 0 for k in (1, 2)) == pytest.approx(
        sorted([min(1.0, 2 * min(p or 0 for p in ps)), max(2 * min(p or 0 for p in ps), max(p or 0 for p in ps))])
    )


def test_what_one_test_establishes_many_may_not() -> None:
    """p of 2^-5 alone is below 0.05; among three, Holm's first is above it."""
    values = named([0.0, 0, 0, 0, 0, 0])
    methods = {"A": values} | {m: {c: v + k for c, v in values.items()} for k, m in enumerate("BCD", start=1)}
    alone, many = table_of({m: methods[m] for m in "AB"}), table_of(methods)
    assert above(alone, "B").established and above(alone, "B").p_value == 2**-5
    assert above(many, "B").holm == pytest.approx(3 * 2**-5)
    assert not any(above(many, method).established for method in "BCD")
    assert above(many, "B").text == "order not established: p 0.031, Holm 0.094, 6 clips"


def test_only_common_clips_are_drawn_and_counted() -> None:
    methods = hard_clips(2, 10)
    del methods["M1"]["c03"]
    table = table_of(methods)
    assert above(table, "M1").clips == 9 and standing(table, "M1").clips == 9


def test_few_clips_order_nothing() -> None:
    table = table_of({"A": named([1, 1, 1, 1, 1]), "B": named([9, 9, 9, 9, 9])})
    assert [standing(table, m).text for m in "AB"] == ["1–2", "1–2"]
    assert above(table, "B").text == "order not established: p 0.062, Holm 0.062, 5 clips"


def test_alike_methods_tie() -> None:
    table = table_of({"A": named([1, 2, 3, 4, 5, 6, 7]), "B": named([1, 2, 3, 4, 5, 6, 7])})
    assert [(standing(table, m).rank, standing(table, m).text) for m in "AB"] == [(1, "1–2"), (1, "1–2")]
    assert above(table, "B").p_value == 1.0


def test_where_the_real_level_is_best_its_distance_is_drawn() -> None:
    """3 less than the level is worse than 1 more, though it is the smaller number and the larger one's opposite."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20)
    methods = {"less": named(7 + noise), "more": named(11 + noise), "level": named(10 + noise * 0.1)}
    table = table_of(methods, best_is_real=True, real_vs_real=10.0)
    assert [row.method for row in table.rows] == ["level", "more", "less"]
    assert [standing(table, row.method).text for row in table.rows] == ["1", "2", "3"]
    gap = above(table, "less")
    assert gap.established and gap.difference == pytest.approx(2, abs=0.5)


def test_values_whose_mean_the_metric_is_not_are_not_drawn() -> None:
    """As those below a Fréchet distance: only a hint where to look."""
    runs, facts = made(hard_clips(2, 20))
    for run in runs:
        run["results"][NAME] |= {"value": run["results"][NAME]["value"] * 2, "ci95": [90.0, 110.0]}
    (table,) = comparison_model(runs, {}, facts).columns
    assert table.basis == "from intervals" and standing(table, "M1").text == "1–2"
    assert above(table, "M1").text.startswith("order not established, intervals overlap (not drawn in pairs")


def test_means_without_sign_are_recognised() -> None:
    signed = {"A": named([1, -1, 2, -2, 1, -1]), "B": named([5, -5, 6, -6, 5, -5])}
    runs, facts = made(signed)
    for run in runs:
        run["results"][NAME]["value"] = float(np.mean(np.abs(list(facts[run["method"]].clips[NAME].values()))))
    (table,) = comparison_model(runs, {}, facts).columns
    assert above(table, "B").difference == pytest.approx(4)


def intervals(*entries: tuple[float, float, float]) -> list[dict[str, Any]]:
    return [results("ABCDEF"[k], m__v=result(v, [low, high])) for k, (v, low, high) in enumerate(entries)]


def test_without_clips_intervals_order_and_say_so() -> None:
    (table,) = comparison_model(intervals((1, 0, 2), (5, 4, 6), (5.5, 4.5, 7)), {}).columns
    assert [standing(table, m).text for m in "ABC"] == ["1", "2–3", "2–3"]
    assert above(table, "B").text.startswith("not tested, intervals lie apart")
    assert above(table, "C").text.startswith("order not established, intervals overlap")


def test_intervals_of_few_clips_order_nothing() -> None:
    runs = intervals((1, 0, 2), (5, 4, 6), (9, 8, 9.5))
    runs[1]["results"][NAME]["n_scored"] = 5
    (table,) = comparison_model(runs, {}).columns
    assert [standing(table, m).text for m in "ABC"] == ["1–2", "1–3", "2–3"]
    assert above(table, "B").text.startswith("order not established (")


def test_a_difference_turned_round() -> None:
    gap = Difference(-4.0, (-5.0, -2.0), 0.01, 9, "better", 1.0, 5.0)
    assert swapped(gap) == Difference(4.0, (2.0, 5.0), 0.01, 9, "worse", 5.0, 1.0)
    nothing = Difference(None, reason="no_common_clips", message="none")
    assert swapped(nothing) == nothing


def test_an_earlier_comparison_is_taken_from_the_run_and_turned_round() -> None:
    runs = intervals((1, 0, 6), (5, 0, 7))
    found = {"difference": -4.0, "ci95": [-5.0, -3.0], "p_value": 0.01, "n_common": 9, "verdict": "better"}
    found |= {"value": 1.0, "other": 5.0, "reason": None, "message": ""}
    runs[0]["against"] = {"run": "B", "created": runs[1]["created"], "results": {NAME: found}}
    (table,) = comparison_model(runs, {}).columns
    gap = above(table, "B")
    assert (gap.difference, gap.p_value, gap.clips, gap.established) == (4.0, 0.01, 9, True)
    assert [standing(table, m).text for m in "AB"] == ["1", "2"]
    assert table.basis == "from intervals and paired differences"
    runs[1]["created"] = "2030-01-01T00:00:00+00:00"  # made anew since
    (table,) = comparison_model(runs, {}).columns
    assert above(table, "B").p_value is None


def test_whoever_can_tell_is_asked_and_a_refusal_is_shown() -> None:
    asked = []

    def compare(metric_id: str, method: str, other: str) -> Difference:
        asked.append((metric_id, method, other))
        return Difference(None, reason="not_drawn_again", message="too many clips")

    evidence = Evidence(compare, lambda metric_id, methods: None)
    (table,) = comparison_model(intervals((1, 0, 2), (5, 4, 6)), {}, None, evidence).columns
    assert asked == [(NAME, "B", "A")]
    assert above(table, "B").reason == "not_drawn_again: too many clips"


def test_joint_draws_of_others_give_the_ranks() -> None:
    """The intervals overlap, the draws do not; they come in the order of the rows that were asked for."""
    asked = []

    def draw(metric_id: str, methods: Sequence[str]) -> tuple[np.ndarray, int]:
        asked.append((metric_id, list(methods)))
        return np.array([[0.1, 0.2, 0.3], [1.1, 1.2, 1.3]]), 8

    runs = intervals((5, 0, 9), (1, 0, 8), (9, 2, 19))
    (table,) = comparison_model(runs, {}, None, Evidence(lambda *_: None, draw)).columns
    assert asked == [(NAME, ["B", "A", "C"])]
    assert [standing(table, m).text for m in "BAC"] == ["1", "2", "3"] and table.basis == "8 clips drawn jointly"


def test_a_lone_number_has_no_rank() -> None:
    runs = [results("A", m__v=result(1.0, [0, 2])), results("B", m__v=result(None, None, reason="no_face"))]
    (table,) = comparison_model(runs, {}).columns
    assert table.standing("A") is None and table.standing("B") is None and table.basis is None
