"""A history: what counts as the same entry, what may be compared along it, and what its plots draw."""

from __future__ import annotations

import json
from typing import Any

import pytest
from talkforge.core.errors import ConfigError
from talkforge.reports.history import (
    Entry,
    before,
    change_text,
    changes,
    entry_of,
    format_history,
    parse_history,
    recorded,
)
from talkforge.reports.history_page import history_model, render_history_html, render_history_plot
from talkforge.tests.reports.demo import INJECTION, demo_results, sha
from talkforge.tests.reports.page import Page

FVD, SYNC, LSE = "fvd:i3d-k400-16f", "av_sync:mouth-envelope", "lse_d:syncnet-v2-direct"
SETTINGS = {"crop": "face", "bootstrap": 1000, "frechet_bootstrap": 200, "seed": 0, "device": "cpu", "workers": 2}


def entry(commit: str | None = "a" * 40, *, method: str = "mine", dirty: bool = False, **fvd: Any) -> Entry:
    """An entry of the demo run with other fields of its FVD; `settings` and `inputs` are the entry's own."""
    settings, inputs = SETTINGS | fvd.pop("settings", {}), fvd.pop("inputs", "i")
    results = demo_results(method) | {"inputs_digest": inputs}
    results["results"][FVD] |= fvd
    reason = None if commit else "not a git repository"
    return entry_of(results, settings, "2026-01-02T03:04:05+00:00", commit=commit, commit_reason=reason, dirty=dirty)


def series(*values: float | None) -> list[Entry]:
    return [
        entry(f"{k:040x}", value=v, ci95=None if v is None else [v - 1, v + 1], reason=None if v else "no_face")
        for k, v in enumerate(values)
    ]


def test_an_entry_survives_the_file() -> None:
    entries = [entry(), entry(None, method=f"\u2028{INJECTION}"), entry("b" * 40, value=None, ci95=None, reason="x")]
    text = format_history(entries)
    assert text.count("\n") == 3 and parse_history(text, "h") == entries
    one = json.loads(text.split("\n")[0])
    assert one["metrics"][FVD]["value"] == 412.37 and one["metrics"][FVD]["ci95"] == [355.2, 486.1]
    assert one["metrics"][LSE] | {"value": None, "reason": "weights_missing"} == one["metrics"][LSE]
    assert one["settings"] == {
        key: SETTINGS[key] for key in ("crop", "bootstrap", "frechet_bootstrap", "seed", "device")
    }
    assert len(one["metrics"][FVD]["protocol_digest"]) == 64 and one["commit"] == "a" * 40


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("<<<<<<< HEAD", "h, line 2: not a JSON object: .*mend or remove"),
        ('{"time": "2026', "h, line 2: not a JSON object: "),
        ("[]", "h, line 2: not a JSON object"),
        ("{}", "h, line 2: 'schema_version' is needed"),
        ('{"schema_version": NaN}', "NaN is no JSON number"),
    ],
)
def test_a_corrupt_line_is_named(line: str, part: str) -> None:
    good = format_history([entry()])
    with pytest.raises(ConfigError, match=part):
        parse_history(f"{good}{line}\n{good}", "h")


@pytest.mark.parametrize(
    ("field", "value"), [("value", "1e999"), ("value", '"many"'), ("n_scored", "1.5"), ("ci95", "[1]")]
)
def test_a_number_that_is_none_is_refused(field: str, value: str) -> None:
    row = json.loads(format_history([entry()]))
    row["metrics"][FVD][field] = "HERE"
    with pytest.raises(ConfigError, match=rf"h, line 1: '?metrics\.{FVD}\.{field}"):
        parse_history(json.dumps(row).replace('"HERE"', value), "h")


def test_the_same_commit_and_configuration_have_one_entry() -> None:
    first, other = entry(), entry("b" * 40)
    entries, place = recorded([first, other], entry())
    assert (entries, place.index, place.how) == ([first, other], 0, "there")
    changed = entry(value=5.0)
    entries, place = recorded([first, other], changed)
    assert (entries, place.index, place.how) == ([changed, other], 0, "replaced")
    for one in (entry("c" * 40), entry(method="other"), entry(dirty=True)):
        assert recorded([first, other], one)[1].how == "added"


@pytest.mark.parametrize("where", [{"commit": None}, {"dirty": True}])
def test_without_a_clean_commit_other_clips_are_another_entry(where: dict[str, Any]) -> None:
    assert recorded([entry(**where)], entry(**where))[1].how == "there"
    assert recorded([entry(**where)], entry(**where, inputs="j"))[1].how == "added"


def test_the_entry_before_is_one_of_the_same_method() -> None:
    entries = [entry("1" * 40), entry("2" * 40, method="other"), entry("3" * 40)]
    assert [before(entries, k) for k in range(3)] == [None, None, entries[0]]


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"weights": {"i3d_torchscript.pt": "f" * 64}}, f"weights i3d_torchscript.pt: {sha('i3d')[:8]} → ffffffff"),
        ({"protocol": {"crop": "none"}}, "protocol: "),
        ({"settings": {"bootstrap": 500}}, "bootstrap: 1000 → 500"),
        ({"settings": {"crop": "none"}}, "crop: face → none"),
        ({"n_attempted": 20}, "clips: 12 → 20"),
        ({"unit": "px"}, "unit:  → px"),
        ({"real_vs_real": 160.0}, "other real clips, by their own level: 148.9 → 160"),
    ],
)
def test_what_changed_between_entries_is_named(new: dict[str, Any], said: str) -> None:
    found = changes(entry(), entry("b" * 40, **new), FVD)
    assert len(found) == 1 and found[0].startswith(said)
    assert change_text(entry(), entry("b" * 40, **new), FVD) == f"not comparable: {found[0]}"


@pytest.mark.parametrize(
    "new", [{"settings": {"workers": 9}}, {"real_vs_real": 148.93}, {"n_scored": 8}, {"value": 1.0}]
)
def test_what_does_not_define_a_number_is_no_change(new: dict[str, Any]) -> None:
    assert changes(entry(), entry("b" * 40, **new), FVD) == []


def test_changes_in_words() -> None:
    start, ci = entry(), [295.2, 426.1]
    assert change_text(None, start, FVD) == "first entry"
    assert change_text(start, entry(value=352.37, ci95=ci), FVD) == "-60, better; intervals overlap"
    assert change_text(start, entry(value=212.37, ci95=[155.2, 286.1]), FVD) == "-200, better"
    assert change_text(start, entry(value=612.37, ci95=[555.2, 686.1]), FVD) == "+200, worse"
    assert change_text(start, entry(), FVD) == "unchanged"
    assert change_text(start, entry(value=None, ci95=None, reason="no_face"), FVD) == "— no_face"
    assert change_text(start, entry(), LSE) == "— weights_missing"
    # Where the real clips' level is best, a value that leaves it is worse in either direction.
    level = {"best_is_real": True, "real_vs_real": 400.0}
    assert change_text(entry(**level), entry(**level, value=380.0), FVD).startswith("-32, worse")


def test_lines_join_only_neighbours_that_may_be_compared() -> None:
    entries = series(10.0, 9.0, None, 8.0, 7.0)
    entries += [entry("9" * 40, value=6.0, ci95=[5, 7], settings={"seed": 1})]
    plot = next(one for one in history_model(entries).plots if one.metric_id == FVD)
    places = [point.x for point in plot.points]
    assert [(x1, x2) for x1, _, x2, _ in plot.links] == [(places[0], places[1]), (places[3], places[4])]
    (parted,) = plot.breaks
    assert places[4] < parted.x < places[5] and parted.changes == ["seed: 0 → 1"] and parted.name == "9999999"
    assert plot.points[2].y is None and plot.points[2].label == "0000000: no_face"
    heights = [point.y for point in plot.points if point.y is not None]
    assert heights == sorted(heights), "y grows downwards and the values fall"
    assert all(p.high < p.y < p.low for p in plot.points if p.y is not None and p.high and p.low)


def test_a_change_that_hides_behind_a_missing_value_is_still_one() -> None:
    entries = [*series(10.0, None), entry("9" * 40, value=6.0, ci95=[5, 7], n_attempted=20)]
    plot = next(one for one in history_model(entries).plots if one.metric_id == FVD)
    assert plot.links == [] and [one.changes for one in plot.breaks] == [["clips: 12 → 20"]]


def test_methods_have_plots_of_their_own_and_files_of_their_own() -> None:
    model = history_model([entry(), entry(method="a/b"), entry(method="a-b")])
    assert [method.name for method in model.methods] == ["a-b", "a/b", "mine"]
    files = [plot.file for plot in model.plots]
    assert len(set(files)) == len(files) == 15 and all("/" not in name for name in files)
    assert history_model([entry()]).plots[0].file == "fvd-i3d-k400-16f.svg"
    assert [point.x for point in history_model([entry()]).plots[0].points] == [50.0]


def test_the_page_holds_every_value_and_no_text_becomes_markup() -> None:
    def page(text: str) -> Page:
        entries = [entry(None, method=text, title=text), entry("b" * 40, method=text, title=text, n_attempted=20)]
        return Page(render_history_html(history_model(entries)))

    tame = page("words")
    assert len(tame.all("circle", class_="mark")) == 6 and len(tame.all("line", class_="parted")) == 1
    assert "no commit: not a git repository" in " ".join(one.text for one in tame.all("th"))
    assert [one.text for one in tame.all("li")] == ["not comparable across bbbbbbb: clips: 12 → 20"]
    assert page(INJECTION).skeleton() == tame.skeleton()
    assert not tame.all("img") and not [one for one in tame.elements if "src" in one.attributes]


def test_a_plot_by_itself_is_a_picture() -> None:
    from xml.etree import ElementTree

    plot = history_model([*series(10.0, 9.0, None), entry("b" * 40, title=INJECTION)]).plots[0]
    root = ElementTree.fromstring(render_history_plot(plot))
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("data-generator") == "TalkForge"
    circles = [one for one in root.iter() if one.tag.endswith("circle")]
    assert len(circles) == 3 and not [one for one in root.iter() if one.tag.endswith("img")]
