"""The audit's page: what it says, that it is escaped, and that it needs nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import talkforge
from talkforge.metrics.audit import MEANINGS
from talkforge.reports.audit import (
    SIGNS,
    AuditView,
    Sample,
    audit_model,
    audit_text,
    effect_text,
    render_audit_html,
    render_audit_markdown,
)
from talkforge.tests.reports.demo import INJECTION
from talkforge.tests.reports.page import Page

STYLE = Path(talkforge.__file__).parent / "reports" / "templates" / "audit.css"


def scores(*values: float | None) -> list[dict[str, Any]]:
    return [
        {"level": k, "value": v, "ci95": v and [v - 1, v + 1], "n_scored": 2, "reason": None if v else "no_face"}
        for k, v in enumerate(values)
    ]


def cell(metric: str, corruption: str, verdict: str, effect: float | None, **more: Any) -> dict[str, Any]:
    return {
        "metric": metric,
        "corruption": corruption,
        "expected": True,
        "worsening": effect,
        "rho": None if effect is None else 1.0,
        "effect": effect,
        "yardstick": 1.0,
        "verdict": verdict,
        "reason": None,
        "scores": scores(10, 11, 12),
    } | more


def metric(name: str, measures: list[str] | None, hint: str | None = None) -> dict[str, Any]:
    return {"id": name, "title": name, "unit": "", "higher_is_better": False, "measures": measures, "hint": hint}


def corruption(
    name: str, harms: list[str], clips: int = 2, rejected: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    facts = {"version": 1, "what": f"what {name} does", "unit": "pixels", "levels": [1, 2.5]}
    return {"name": name, **facts, "harms": harms, "clips": clips, "rejected": rejected or []}


@pytest.fixture
def view() -> AuditView:
    bad = {"clip": INJECTION, "reason": "no_face", "message": INJECTION}
    data = {
        "created": "2025-06-14T09:31:07+00:00",
        "talkforge_version": "0.1.0",
        "config_digest": "ab" * 32,
        "clips": ["a", INJECTION],
        "corruptions": [
            corruption("blur", ["picture"], rejected=[bad]),
            corruption("shift", ["sync"]),
            corruption("mouth", ["lips"], clips=0),
        ],
        "metrics": [metric("fd:x", ["picture"]), metric("sync:y", ["sync"]), metric("fid:z", ["picture"], "pull it")],
        "cells": [
            cell("fd:x", "blur", "notices", 3033.0),
            cell("fd:x", "shift", "unaffected", 0.0, rho=None),
            cell("sync:y", "blur", "wrong way", -2.44),
            cell("sync:y", "shift", "no value", None, reason="no_face", scores=scores(10, None, 12)),
        ],
    }
    samples = (
        Sample("blur", INJECTION, (b"\xff\xd8zero", b"\xff\xd8one", None)),
        Sample("shift", "a", (b"\xff\xd8same",) * 3, ([-30.0, -20.0], [-20.0, -30.0])),
    )
    links = {"blur": ("runs/blur-1/1/report.html", "runs/blur-1/2/report.html"), "shift": (), "mouth": ()}
    return AuditView(data, samples, links)


def test_every_verdict_has_a_sign_of_its_own() -> None:
    assert set(SIGNS) == set(MEANINGS)
    assert len(set(SIGNS.values())) == len(SIGNS)
    css = STYLE.read_text(encoding="utf-8")
    assert [name for name in SIGNS if f".v-{name.replace(' ', '-')} " not in css] == []


@pytest.mark.parametrize(
    ("effect", "text"),
    [(0.01, "0"), (1.24, "+1.2"), (-2.44, "-2.4"), (9.96, "+10"), (3033, "+3.0k"), (-4e6, "-4e+06"), (None, "—")],
)
def test_effects_carry_the_digits_that_can_be_used(effect: float | None, text: str) -> None:
    assert effect_text(effect) == text


def test_cells_say_verdict_sign_and_number(view: AuditView) -> None:
    page = Page(render_audit_html(view))
    found = {
        str(e.attributes["title"]).split(":")[2].split(";")[0].strip(): " ".join(e.text.split())
        for e in page.elements
        if e.tag == "td" and (e.attributes.get("class") or "").startswith("v-")
    }
    assert found["notices"] == "●+3.0k notices"
    assert found["wrong way"] == "▼-2.4 wrong way"
    assert found["no value"] == "— no value"


def test_the_page_is_escaped_and_pins_what_it_loads(view: AuditView) -> None:
    html = render_audit_html(view)
    assert INJECTION not in html
    page = Page(html)
    policy = next(str(e.attributes["content"]) for e in page.elements if "http-equiv" in e.attributes)
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(styles) == 2
    for style in styles:
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert not [e for e in page.elements if "style" in e.attributes]
    sources = [str(e.attributes[key]) for e in page.elements for key in ("src", "href") if e.attributes.get(key)]
    assert all(source.startswith(("#", "data:", "runs/")) for source in sources)


def test_pictures_that_do_not_change_are_shown_once(view: AuditView) -> None:
    images = [str(e.attributes["alt"]) for e in Page(render_audit_html(view)).elements if e.tag == "img"]
    assert [alt.split(":")[0] for alt in images] == ["blur, level 0", "blur, level 1", "shift, level 0"]


def test_a_sound_is_drawn_where_it_changes(view: AuditView) -> None:
    charts = {part.entry["name"]: part.chart is not None for part in audit_model(view).parts}
    assert charts == {"blur": False, "shift": True, "mouth": False}
    same = Sample("shift", "a", (), ([-30.0, -20.0], [-30.0, -20.0]))
    assert not any(part.chart for part in audit_model(AuditView(view.data, (same,), {})).parts)


def test_absent_metrics_and_rejected_clips_are_told(view: AuditView) -> None:
    model = audit_model(view)
    assert [one["id"] for one in model.absent] == ["fid:z"]
    assert model.names == ["blur", "shift"]
    assert any("blur could not be made of 1 of 2 clips" in note for note in model.notes)
    text = render_audit_markdown(view)
    assert "pull it" in text and INJECTION not in text


def test_trust_counts_what_was_judged(view: AuditView) -> None:
    trust = {one.harm: one for one in audit_model(view).trust}
    assert trust["picture"].notice == ["fd:x (1 of 1)"]
    assert "sync" not in trust  # its one metric has no value there
    assert "lips" not in trust


def test_a_rewarded_harm_is_named(view: AuditView) -> None:
    view.data["metrics"][1]["measures"].append("picture")
    trust = {one.harm: one for one in audit_model(view).trust}
    assert trust["picture"].fail == ["sync:y (0 of 1; rewards blur)"]


def test_the_terminal_gets_the_same_signs(view: AuditView) -> None:
    lines = audit_text(view.data).splitlines()
    assert lines[0].split() == ["metric", "blur", "shift"]
    assert lines[1].split() == ["fd:x", "●", "+3.0k", "·", "0"]
