"""Real clips that metrics cannot score: without a face, and shorter than the published chain of SyncNet takes."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from talkforge.core.errors import MissingPackage, WeightsError
from talkforge.core.weights import CONFIGS, weights_store
from talkforge.datasets.encode import reencode_clip
from talkforge.flows.evaluate import EvalConfig, Outcome, evaluate, plan
from talkforge.metrics.base import Metric, metrics
from talkforge.models.loading import load_strict
from talkforge.models.syncnet import FoldedSyncNet, SyncNet
from talkforge.tasks.extractor import Context, extractors
from talkforge.tasks.syncnet_chain import DETECTOR, DETECTOR_NAME
from talkforge.tasks.syncnet_tracks import NETWORK
from talkforge.tests.models.test_syncnet import random_weights
from talkforge.tests.tasks.one_row import need

WHOLE_PICTURE = "talkforge.models.topiq:load_topiq_iaa"  # a network that needs no face
FACELESS, SPEAKER = "pyfeat/no_face.mp4", "grid_lipnet/bbaf2n.mpg"
EMOTIONS = sorted({emotion for metric in metrics.all() for emotion in getattr(metric, "emotions", ())})


class Detector(torch.nn.Module):
    """In the place of S3FD, whose weights are not at hand everywhere: a face in the middle, or none."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.box = torch.nn.Parameter(torch.tensor([[[0.28, 0.2, 0.72, 0.78]]]), requires_grad=False)
        self.probability = probability

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.box, torch.full((1, 1), self.probability)


def stand_ins(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Makes the store one that holds every weight: a few bytes, declared by their own hash, for what is absent."""
    store, catalogue = weights_store(), yaml.safe_load((CONFIGS / "weights.yaml").read_text(encoding="utf-8"))
    for entry in catalogue["assets"]:
        target = folder / "weights" / entry["file"]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.symlink_to(store.path(entry["name"]))
        except WeightsError:
            target.write_bytes(entry["name"].encode())
            entry["sha256"] = hashlib.sha256(target.read_bytes()).hexdigest()
    (folder / "weights.yaml").write_text(yaml.safe_dump(catalogue), encoding="utf-8")
    patch.setattr("talkforge.core.weights.CONFIGS", folder)
    patch.setenv("TALKFORGE_WEIGHTS", str(folder / "weights"))


def use(patch: pytest.MonkeyPatch, networks: dict[str, Any]) -> None:
    known = Context.network
    patch.setattr(Context, "network", lambda self, target: networks.get(target) or known(self, target))


def run(folder: Path, names: Collection[str]) -> Outcome:
    sides = {side: folder / side for side in ("real", "generated", "out", "cache")}
    how = {"method": "m", "metrics": sorted(names), "workers": 1, "bootstrap": 100, "frechet_bootstrap": 50}
    try:
        return evaluate(EvalConfig.model_validate(sides | how | {"prefect": False}))
    except MissingPackage as error:
        pytest.skip(str(error))


def of_faces(metric: Metric) -> list[bool]:
    """For each extractor that sees pictures: whether of the face (by the crop, or a search of its own) or of all."""
    specs = [extractors.get(name) for name in metric.spec.extractors]
    specs += [extractors.get(spec.compares) for spec in specs if spec.compares]
    by_face = [spec.faces or spec.picture or DETECTOR_NAME in spec.weights for spec in specs]
    return [found for found, spec in zip(by_face, specs, strict=True) if found or spec.frames]


@pytest.mark.parametrize("whole_store", [False, True], ids=["the weights that are here", "stand-ins for the others"])
def test_a_cartoon_has_no_number_in_any_metric_of_faces(
    whole_store: bool, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the generated clip beside a speaker. No network of faces sees it, so stand-ins are never opened;
    the real clip is the cartoon as well then, since its networks would be."""
    need("mediapipe-face-landmarker")
    for emotion in EMOTIONS:
        real, generated = (tmp_path / side / f"M003/{emotion}/001.mp4" for side in ("real", "generated"))
        for path in (real, generated):
            path.parent.mkdir(parents=True)
            shutil.copy(media / FACELESS, path)
        if not whole_store:
            reencode_clip(media / SPEAKER, real, end_s=0.2)
    if whole_store:
        stand_ins(tmp_path / "store", monkeypatch)
        use(monkeypatch, {DETECTOR: Detector(0.1), WHOLE_PICTURE: lambda x: torch.ones(len(x))})
    wanted = [metric for metric in metrics.all() if any(of_faces(metric))]
    assert len(wanted) > 100
    outcome = run(tmp_path, [metric.spec.id for metric in wanted])
    missing = plan(EvalConfig.load(tmp_path / "out/config.yaml")).missing
    assert not (whole_store and missing)
    for metric in wanted:
        found = outcome.results["results"][metric.spec.id]
        own = Counter("no_face" if e in getattr(metric, "emotions", EMOTIONS) else "other_emotion" for e in EMOTIONS)
        assert (found["value"], found["ci95"]) == (None, None), metric.spec.id
        if metric.spec.id in missing:
            assert found["reason"] == "weights_missing"
        else:
            assert found["reason"] == own.most_common(1)[0][0], metric.spec.id
            # A score of several measures keeps what it knows of a clip by the picture as a whole.
            assert not all(of_faces(metric)) or found["rejects"] == own, metric.spec.id


def test_two_seconds_are_scored_directly_and_too_short_for_the_published_chain(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SyncNet at random weights and a face where S3FD would find it: tracks of 50 frames, however good the network."""
    need("mediapipe-face-landmarker")
    stand_ins(tmp_path / "store", monkeypatch)
    random = FoldedSyncNet(load_strict(SyncNet(), random_weights(), source="random")).eval()
    use(monkeypatch, {DETECTOR: Detector(0.99), NETWORK: random})
    for side in ("real", "generated"):
        (tmp_path / side).mkdir()
        reencode_clip(media / SPEAKER, tmp_path / side / "two seconds.mp4", end_s=2.0)
    least = {
        metric.spec.id: (metric.spec.generated[0], extractors.get(metric.spec.generated[0]).params["min_track"])
        for metric in metrics.all()
        if "syncnet-v2" in extractors.get(metric.spec.generated[0]).weights
    }
    outcome = run(tmp_path, least)
    pages = {path.stem: pq.read_table(path).to_pylist() for path in (tmp_path / "out/details").glob("*.parquet")}
    del pages["rejects"]
    told = {f"{family}:{row['variant']}": row for family, rows in pages.items() for row in rows}
    assert set(told) == set(least) and len(least) == 15
    for name, (extractor, frames) in least.items():
        found, row = outcome.results["results"][name], told[name]
        if extractor == "syncnet-v2-direct":
            assert found["value"] is not None and found["n_scored"] == 1 and row["reason"] is None
            assert found["value"] == found["real_vs_real"], "the same clip on both sides"
        else:
            assert (found["value"], found["reason"], found["rejects"]) == (None, "too_short", {"too_short": 1})
            assert row["reason"] == "too_short"
            assert f"50 frames; the published chain scores tracks of over {frames}" in row["message"]
    assert sorted({frames for _, frames in least.values()}) == [21, 50, 100]
