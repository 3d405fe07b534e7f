"""Labels from a manifest or from paths to the metrics that need them, with real clips and a real network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from talkforge.core.emotions import ORDERS
from talkforge.core.errors import InputError
from talkforge.core.weights import weights_store
from talkforge.flows.pairs import Match, match_folders
from talkforge.metrics.clustering import clustering_strength
from talkforge.tasks.extract import ClipFile, stored
from talkforge.tasks.features import FeatureStore
from talkforge.tests.flows.test_cli import talkforge

LABELLED = ("neutral", "neutral", "happy", "surprised", "angry", "angry")
RULES = ("frame-accuracy", "clip-accuracy", "mean-probability")
FAMILIES = ("emo_score", "emo_neutral", "emo_nonneutral")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Empty files in the layouts whose paths say something; matching looks at names alone."""
    for name in ("M003/happy/001", "M003/sad/001", "W009_angry_2", "plain"):
        path = tmp_path / "clips" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "clips"


def labels(match: Match) -> dict[str, tuple[str | None, str | None]]:
    return {clip.clip_id: (clip.emotion, clip.identity) for clip in match.clips}


def manifest(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_paths_say_what_a_manifest_does_not(folder: Path, tmp_path: Path) -> None:
    told = {"M003/happy/001": ("happy", "M003"), "M003/sad/001": ("sad", "M003"), "W009_angry_2": ("angry", "W009")}
    assert labels(match_folders(folder, folder)) == told | {"plain": (None, None)}
    some = manifest(tmp_path / "some.csv", "clip\nM003/sad/001\nplain\n")
    assert labels(match_folders(folder, folder, some)) == {"M003/sad/001": ("sad", "M003"), "plain": (None, None)}


def test_a_label_in_the_manifest_is_the_manifests_alone(folder: Path, tmp_path: Path) -> None:
    text = "clip,emotion\nM003/happy/001,Surprise\nM003/sad/001,\nplain,fea\n"
    assert labels(match_folders(folder, folder, manifest(tmp_path / "m.csv", text))) == {
        "M003/happy/001": ("surprised", "M003"),
        "M003/sad/001": (None, "M003"),
        "plain": ("fear", None),
    }
    pq.write_table(pa.table({"clip": ["plain"], "identity": ["007"], "emotion": ["Neutral"]}), tmp_path / "m.parquet")
    assert labels(match_folders(folder, folder, tmp_path / "m.parquet")) == {"plain": ("neutral", "007")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clip,emotion\nplain,3\n", "is a number, not an emotion"),
        ("clip,emotion\nplain,hapy\n", "did you mean happy"),
        ("clip\nplain\nplain\n", "twice"),
        ("clip,emotion\n", "names no clip"),
        ("clips\nplain\n", "no column 'clip'"),
    ],
)
def test_a_manifest_is_believed_or_refused(folder: Path, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        match_folders(folder, folder, manifest(tmp_path / "m.csv", text))


def test_another_label_is_another_input(folder: Path, tmp_path: Path) -> None:
    texts = ("clip,emotion\nplain,happy\n", "clip,emotion\nplain,sad\n", "clip,emotion,identity\nplain,happy,a\n")
    first, second, third = (
        match_folders(folder, folder, manifest(tmp_path / f"{k}.csv", text)).digest() for k, text in enumerate(texts)
    )
    assert len({first, second, third}) == 3


# --- a run -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(sample_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Seven clips of one man against themselves through the command, six of them with a label."""
    for name in ("fer-mini-xception", "mediapipe-face-landmarker"):
        if not weights_store().status(name).ok:
            pytest.skip(f"needs {name}")
    root = tmp_path_factory.mktemp("labelled")
    stems = sorted(path.stem for path in sample_clips.glob("*.mp4"))
    lines = [f"{stem},{emotion},man" for stem, emotion in zip(stems, [*LABELLED, ""], strict=True)]
    manifest(root / "m.csv", "\n".join(["clip,emotion,identity", *lines]))
    metrics = [f"{family}:fer2013-{rule}" for family in FAMILIES for rule in RULES]
    metrics += ["clustering:fer2013-pairs-centroids", "clustering:arkit52-centroid-clips", "csim:dlib-128"]
    metrics += ["f_sim:dlib-128"]
    arguments = ["--real", str(sample_clips), "--generated", str(sample_clips), "--out", str(root / "out")]
    arguments += ["--manifest", str(root / "m.csv"), "--metrics", ",".join(metrics), "--cache", str(root / "cache")]
    done = talkforge("eval", *arguments, "--no-prefect", "--workers", "2")
    assert done.returncode == 0, done.stderr
    return root / "out", json.loads((root / "out" / "results.json").read_text())


def test_labelled_clips_are_scored_and_the_others_have_a_reason(results: tuple[Path, dict]) -> None:
    out, found = results
    for rule in RULES:
        whole, neutral, other = (found["results"][f"{family}:fer2013-{rule}"] for family in FAMILIES)
        assert abs(whole["value"] - (neutral["value"] + 3 * other["value"]) / 4) < 1e-9
        assert whole["value"] == whole["real_vs_real"], "the clips are their own reference"
        assert (whole["n_attempted"], whole["n_scored"]) == (7, 6)
        assert whole["rejects"] == {"no_label": 1} and whole["ci95"] is None, "one happy clip has no spread"
        assert other["rejects"] == {"no_label": 1, "other_emotion": 2}
        assert neutral["n_scored"] == 2 and neutral["ci95"] is not None
    rows = pq.read_table(out / "details" / "emo_score.parquet").to_pylist()
    assert sum(str(row["message"]).startswith("labelled neutral") for row in rows) == 2 * len(RULES)
    assert "(2), happy" in (out / "report.md").read_text(), "clips of each emotion are told"


def test_the_values_are_those_of_the_stored_probabilities(results: tuple[Path, dict], sample_clips: Path) -> None:
    out, found = results
    store, means = FeatureStore(out.parent / "cache", "face"), []
    for path in sorted(sample_clips.glob("*.mp4"))[: len(LABELLED)]:
        row = stored(store, ClipFile(path, path).content(), ("emotion-fer2013",))["emotion-fer2013"]
        means.append(np.nanmean(row.array("probabilities").astype(np.float64), axis=0))
    of_emotion: dict[str, list[float]] = {}
    for emotion, mean in zip(LABELLED, means, strict=True):
        of_emotion.setdefault(emotion, []).append(mean[ORDERS["fer2013"].index(emotion)])
    score = found["results"]["emo_score:fer2013-mean-probability"]["value"]
    assert score == pytest.approx(np.mean([np.mean(own) for own in of_emotion.values()])) and 0 < score < 1
    large = [k for k, emotion in enumerate(LABELLED) if emotion in ("neutral", "angry")]
    strengths = clustering_strength(np.stack([means[k] for k in large]), [LABELLED[k] for k in large])
    strength = found["results"]["clustering:fer2013-pairs-centroids"]
    assert strength["value"] == pytest.approx(np.mean([*strengths.values()])) == strength["real_vs_real"]


def test_an_emotion_with_one_clip_is_in_no_cluster(results: tuple[Path, dict]) -> None:
    for name in ("clustering:fer2013-pairs-centroids", "clustering:arkit52-centroid-clips"):
        one = results[1]["results"][name]
        assert one["value"] > 0 and one["ci95"] is None, "two clips of an emotion are one distance"
        assert one["n_scored"] == 4 and one["rejects"] == {"no_label": 1, "too_few_clips": 2}


def test_a_face_is_its_own(results: tuple[Path, dict]) -> None:
    one = results[1]["results"]["csim:dlib-128"]
    if one["rejects"].get("package_missing") or one["reason"] == "weights_missing":
        pytest.skip("needs dlib and its weights")
    assert one["value"] == pytest.approx(1, abs=1e-6) and one["n_scored"] == 7
    other = results[1]["results"]["f_sim:dlib-128"]
    assert 0.9 < other["value"] < 1, "the first frame is not the others, but the same man"
