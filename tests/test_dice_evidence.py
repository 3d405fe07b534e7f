"""The evidence for DICE-Talk's embedder at a small size: each measure finds what was put in, and the page is whole."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import talkforge
import torch
from talkforge.core.emotions import MEAD_EMOTIONS
from talkforge.datasets.synthetic import LEVELS, archetype
from talkforge.tests.reports.page import Page

FOLDER = Path(talkforge.__file__).resolve().parent / "benchmarks" / "proof"
PEOPLE, TAKES = ("P1", "P2", "P3"), 4
EMOTION = {name: 4.0 * np.eye(16)[k] for k, name in enumerate(MEAD_EMOTIONS)}


@pytest.fixture(scope="module")
def proof() -> Any:
    """The modules of the proof by name."""
    sys.path.insert(0, str(FOLDER))
    torch.set_num_threads(1)
    try:
        import dice_bank
        import dice_embedder
        import dice_measures
        import dice_page
        import dice_priors
    finally:
        sys.path.remove(str(FOLDER))
    return {m.__name__: m for m in (dice_bank, dice_embedder, dice_measures, dice_page, dice_priors)}


def priors(proof: Any, *, identity: float = 1.0, noise: float = 0.2, sigma: float = 0.1, seed: int = 0) -> Any:
    """Priors that are emotion x level, a person's own vector and noise; audio has twice the noise of video."""
    rng = np.random.default_rng(seed)
    who = {name: identity * rng.normal(size=16) for name in PEOPLE}
    keys = [
        (name, emotion, level, take)
        for name in PEOPLE
        for emotion in MEAD_EMOTIONS
        for level in (LEVELS if emotion != "neutral" else (1,))
        for take in range(TAKES)
    ]
    clean = np.array([LEVELS[k[2]] * (k[1] != "neutral") * EMOTION[k[1]] + who[k[0]] for k in keys])
    mu = {
        m: clean + n * noise * rng.normal(size=clean.shape) for m, n in (("audio", 4.0), ("video", 2.0), ("both", 1.0))
    }
    face = np.array([LEVELS[k[2]] * archetype(k[1]) for k in keys])
    columns = [np.array(column) for column in zip(*keys, strict=True)]
    return proof["dice_priors"].Priors(mu, {m: np.full_like(mu[m], sigma) for m in mu}, *columns, face)


def test_clustering_orders_inputs_by_their_noise(proof: Any) -> None:
    found = proof["dice_measures"].clustering(priors(proof))
    for definition in ("pairs-centroids", "pairs-clips", "centroid-centroids", "centroid-clips"):
        assert found[f"{definition}/audio"] < found[f"{definition}/video"] < found[f"{definition}/both"]
    emotions = [found[f"pairs-centroids/both/{emotion}"] for emotion in MEAD_EMOTIONS]
    assert np.mean(emotions) == pytest.approx(found["pairs-centroids/both"])


def test_probes_find_the_person_that_is_there_and_none_that_is_not(proof: Any) -> None:
    leakage = proof["dice_measures"].leakage
    with_person, without = leakage(priors(proof)), leakage(priors(proof, identity=0.0))
    assert with_person["both/mu/identity"] == 1.0 and with_person["both/mu/emotion"] == 1.0
    assert without["both/mu/identity"] < 0.5 and without["both/mu/identity-variance"] < 0.02
    blurred = leakage(priors(proof, identity=0.3, sigma=2.0))
    assert blurred["both/s/identity"] < blurred["both/mu/identity"]
    # Where sigma is alike in all directions, round noise is the same noise.
    assert blurred["both/round/identity"] == pytest.approx(blurred["both/s/identity"])
    assert blurred["most/identity"] == pytest.approx(1 / 3)


def test_neighbours_share_emotion_and_level(proof: Any) -> None:
    found = proof["dice_measures"].neighbourhoods(priors(proof, noise=0.05))
    assert found["both/emotion"] > 0.95 and found["both/level"] > 0.55 > found["both/level-chance"]


def test_lines_rise_and_levels_lie_in_order(proof: Any) -> None:
    measures = proof["dice_measures"]
    train, test = priors(proof, seed=1), priors(proof, seed=2)
    found = measures.interpolation(train, test)
    assert found["rise/1/rho"] > 0.95 and found["rise/1/start"] < 0.2 < 0.5 < found["rise/1/end"]
    assert found["happy-sad/sad"] > 0.9 and found["happy-sad/happy"] < -0.9
    assert found["levels/ordered"] == 1.0
    for level, place in LEVELS.items():
        assert found[f"levels/place-{level}"] == pytest.approx(place, abs=0.05)
    # Faces that have nothing to do with priors are not read from them.
    order = np.random.default_rng(0).permutation(len(train.face))
    nothing = measures.interpolation(replace(train, face=train.face[order]), test)
    assert nothing["read-out/explained"] < 0.1 and nothing["rise/1/end"] - nothing["rise/1/start"] < 0.2


def test_reseeding_keeps_codes_alive_and_vq_alone_draws_priors_together(proof: Any) -> None:
    bank = proof["dice_bank"]
    train, test = priors(proof, seed=1), priors(proof, seed=2)
    scaler = bank.Scaler.of(train.face)
    own, held = (bank.Rows.of(split, scaler) for split in (train, test))

    def after(steps: int, *, heads: bool, **changes: Any) -> dict[str, Any]:
        return bank.measured(bank.trained(own, changes, 0, heads=heads, steps=steps), own, held, heads=heads)

    plain, fed = after(60, heads=True), after(60, heads=True, dead_codes="reseed", dead_after=10)
    assert fed["used, fitted"] > plain["used, fitted"] and fed["perplexity"] > plain["perplexity"]
    assert plain["all codes/emotion"] > 0.5 and np.allclose(np.diag(plain["overlap"]), 1.0)
    assert set(plain["nearest"]) == set(MEAD_EMOTIONS)
    assert after(60, heads=False)["spread"] < 0.8 * after(0, heads=False)["spread"]
    assert "nearest code/emotion" not in after(5, heads=True, mode="none")


def test_verdicts_follow_the_interval(proof: Any) -> None:
    page = proof["dice_page"]
    found = page.Found([{"a": 1.0 + k / 10, "b": 0.5, "c": 1.0, "d": None} for k in range(5)])
    assert page.verdict(found.over("a", "b")) == "holds (in 5 of 5 seeds)"
    assert page.verdict(found.over("b", "a")).startswith("does not hold")
    assert page.verdict(found.over("c", "a")).startswith("does not hold (above in 0 of 5")
    assert page.verdict(page.Found([{"a": 1.0, "b": 2.0}]).over("a", "b")) == "not established"
    assert found.over("d") is None and found.entry("d")["reason"] and found.cell("d").reason


def test_the_whole_proof_runs_goes_on_and_refuses_other_sizes(
    proof: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.setattr(proof["dice_bank"], "STEPS", 5)
    sizes = ["--set", "model.width=16", "--set", "model.layers=1", "--set", "validation_batches=0"]
    words = [
        "proof",
        "--out",
        str(tmp_path),
        "--seeds",
        "1",
        "--people",
        "2",
        "1",
        "2",
        "--audio",
        "2",
        "8",
        "--takes",
        "2",
        *sizes,
    ]
    monkeypatch.setattr(sys, "argv", [*words, "--steps", "4", "--longer", "6"])
    proof["dice_embedder"].main()
    results = json.loads((tmp_path / "results.json").read_text())
    entry = results["measures"]["clustering, longer|pairs-centroids/both"]
    assert len(entry["values"]) == 1 and entry["ci95"] is None and results["seeds"] == [0]
    page = Page((tmp_path / "index.html").read_text())
    assert len(page.all("figure", class_="scatter")) == 4 and len(page.all("h2")) == 6
    assert (tmp_path / "table.md").read_text().count("| --- |") == 12
    kept = (tmp_path / "seed-0" / "measures.json").stat().st_mtime_ns
    proof["dice_embedder"].main()
    assert (tmp_path / "seed-0" / "measures.json").stat().st_mtime_ns == kept
    monkeypatch.setattr(sys, "argv", [*words, "--steps", "5", "--longer", "6"])
    with pytest.raises(SystemExit, match="other sizes"):
        proof["dice_embedder"].main()
