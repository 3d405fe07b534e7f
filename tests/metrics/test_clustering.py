"""Clustering strength: both distances in closed form, which clips form a class, and its interval."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from talkforge.core.errors import InputError
from talkforge.metrics import clustering
from talkforge.metrics.base import Pair, Settings
from talkforge.metrics.clustering import Cluster, Definition, Speakers, clustering_strength, pair_distance
from talkforge.tests.metrics.rows import HeldRow

QUICK = Settings(frechet_bootstrap=100)
BY_ID = {metric.spec.id: metric for metric in clustering.METRICS}
DEFAULT = BY_ID["clustering:arkit52-pairs-centroids"]
# Two classes of two on a line: means 0 and 10; distances to the mean 1 and 2, of the pairs 2 and 4.
LINE, LABELS = np.array([[-1.0], [1.0], [8.0], [12.0]]), ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("intra", "inter", "expected"),
    [
        ("pairs", "centroids", {"a": 10 / 2, "b": 10 / 4}),
        ("centroid", "centroids", {"a": 10 / 1, "b": 10 / 2}),
        ("pairs", "clips", {"a": (8 + 12) / 2 / 2, "b": (11 + 9) / 2 / 4}),
        ("centroid", "clips", {"a": 10, "b": 5}),
    ],
)
def test_on_a_line(intra: str, inter: str, expected: dict[str, float]) -> None:
    assert clustering_strength(LINE, LABELS, intra=intra, inter=inter) == pytest.approx(expected)


def test_clips_and_means_differ_off_the_line() -> None:
    """Class b stands across: its mean is 3 from a's, its clips 5."""
    rows = np.array([[0.0, -1.0], [0.0, 1.0], [3.0, -4.0], [3.0, 4.0]])
    assert clustering_strength(rows, LABELS, inter="centroids")["a"] == pytest.approx(3 / 2)
    assert clustering_strength(rows, LABELS, inter="clips")["a"] == pytest.approx(5 / 2)


def test_other_classes_weigh_alike_however_large() -> None:
    rows = np.array([[-1.0], [1.0], [9.0], [11.0], [10.0], [10.0], [-39.0], [-41.0]])
    labels = [*"aabbbbcc"]
    for inter in ("centroids", "clips"):
        assert clustering_strength(rows, labels, inter=inter)["a"] == pytest.approx((10 + 40) / 2 / 2)


def test_against_plain_loops() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(12, 5)), [*"abcabcabcaab"]
    own = {name: [row for row, label in zip(rows, labels, strict=True) if label == name] for name in "abc"}
    means = {name: sum(members) / len(members) for name, members in own.items()}
    for name in "abc":
        pairs = [np.sqrt(((x - y) ** 2).sum()) for x, y in combinations(own[name], 2)]
        others = [np.sqrt(((means[name] - means[other]) ** 2).sum()) for other in "abc" if other != name]
        expected = np.mean(others) / np.mean(pairs)
        assert clustering_strength(rows, labels)[name] == pytest.approx(expected)


def test_scale_place_and_order_do_not_matter() -> None:
    rows, labels = np.random.default_rng(1).normal(size=(9, 4)), np.array([*"abcabcabc"])
    turned = np.random.default_rng(2).permutation(9)
    for intra in ("pairs", "centroid"):
        for inter in ("centroids", "clips"):
            plain = clustering_strength(rows, labels, intra=intra, inter=inter)
            assert clustering_strength(7 * rows[turned] + 3, labels[turned], intra=intra, inter=inter) == (
                pytest.approx(plain)
            )


def test_a_clip_drawn_twice_is_no_pair() -> None:
    """Weights 2, 1, 0: two pairs of the first with the second, none of the first with itself."""
    cluster = Cluster.of(np.array([[0.0], [3.0], [50.0]]))
    assert pair_distance(cluster, np.array([2.0, 1.0, 0.0])) == pytest.approx(3)
    assert pair_distance(cluster, np.ones(3)) == pytest.approx((3 + 50 + 47) / 3)


@pytest.mark.parametrize(
    ("rows", "labels", "settings", "said"),
    [
        (LINE, LABELS, {"intra": "median"}, "no definition median/centroids"),
        (LINE, LABELS, {"inter": "pairs"}, "no definition"),
        (LINE, LABELS[:3], {}, "a label each"),
        (LINE * np.nan, LABELS, {}, "finite"),
        (LINE[:, 0], LABELS, {}, "N, D"),
        (LINE, [*"aaaa"], {}, "1 classes"),
        (LINE, [*"aaab"], {}, "two classes of two"),
        (np.array([[0.1], [0.1], [0.1], [8.0], [9.0]]), [*"aaabb"], {"intra": "centroid"}, "equal"),
        (np.array([[1.0], [1.0], [8.0], [9.0]]), LABELS, {}, "equal"),
    ],
)
def test_what_has_no_strength(rows: np.ndarray, labels: list[str], settings: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        clustering_strength(rows, labels, **settings)


# --- as a metric -----------------------------------------------------------------------------------------------------


def arkit(mean: np.ndarray, seed: int = 0) -> HeldRow:
    """Six frames whose 51 coefficients have this mean exactly, one of them without a face."""
    noise = np.random.default_rng(seed).normal(size=(5, 51))
    frames = np.concatenate([np.full((1, 51), np.nan), mean + noise - noise.mean(axis=0)])
    return HeldRow({"blendshapes": np.concatenate([np.full((6, 1), 99.0), frames], axis=1)})


def clips_of(identity: str, per_emotion: dict[str, int], seed: int = 0, gap: float = 4.0) -> tuple[list[Pair], dict]:
    """Clips about a place for each emotion, and their vectors by clip id; real clips lie twice as far apart."""
    rng, pairs, vectors = np.random.default_rng(seed), [], {}
    for emotion, count in per_emotion.items():
        place = gap * rng.normal(size=51)
        for k in range(count):
            name, own = f"{identity}/{emotion}/{k}", rng.normal(size=51)
            sides = ({"arkit52": arkit(factor * place + own, k)} for factor in (1, 2))
            pairs.append(Pair(name, *sides, emotion=emotion, identity=identity))
            vectors[name] = place + own
    return pairs, vectors


def test_the_value_is_the_mean_over_speakers_of_the_mean_over_emotions() -> None:
    first, vectors = clips_of("M003", {"happy": 3, "sad": 4, "angry": 2}, seed=1)
    second, more = clips_of("W009", {"happy": 2, "fear": 3}, seed=2, gap=9)
    vectors |= more
    expected = []
    for pairs in (first, second):
        rows = np.stack([vectors[pair.clip_id] for pair in pairs])
        expected.append(np.mean([*clustering_strength(rows, [str(pair.emotion) for pair in pairs]).values()]))
    score = DEFAULT.score([*first, *second], QUICK)
    assert score.value == pytest.approx(np.mean(expected)) and score.n_scored == 14
    assert score.notes[0].startswith("2 speakers; by emotion (clips): angry ")
    assert "fear" in score.notes[0] and "(5)" in score.notes[0]
    assert score.real_vs_real is not None and score.real_vs_real > 1.5 * np.mean(expected)


def test_a_clips_own_number_is_its_distance_to_the_emotions_mean() -> None:
    pairs, vectors = clips_of("M003", {"happy": 3, "sad": 3})
    own = [vectors[pair.clip_id] for pair in pairs[:3]]
    score = DEFAULT.score(pairs, QUICK)
    assert [clip.value for clip in score.clips[:3]] == pytest.approx(
        [np.linalg.norm(one - np.mean(own, axis=0)) for one in own]
    )


def test_classes_too_small_are_left_out_with_a_reason() -> None:
    whole, _ = clips_of("M003", {"happy": 3, "sad": 3})
    single, _ = clips_of("M003", {"fear": 1}, seed=5)
    alone, _ = clips_of("W009", {"happy": 4, "sad": 1}, seed=6)
    unlabelled = [
        Pair("x", whole[0].generated, None, emotion="happy"),
        Pair("y", whole[0].generated, None, identity="M003"),
    ]
    failed = Pair("z", {"arkit52": HeldRow(reason="no_face", message="none")}, None, emotion="sad", identity="M003")
    score = DEFAULT.score([*whole, *single, *alone, *unlabelled, failed], QUICK)
    assert score.value == DEFAULT.score(whole, QUICK).value
    assert score.rejects == {"no_face": 1, "no_label": 2, "too_few_clips": 6} and score.n_scored == 6


def test_nothing_to_set_apart_is_null() -> None:
    one, _ = clips_of("M003", {"happy": 5})
    assert (DEFAULT.score(one, QUICK).value, DEFAULT.score(one, QUICK).reason) == (None, "too_few_clips")
    frozen = [
        Pair(f"{e}{k}", {"arkit52": arkit(np.full(51, v))}, None, emotion=e, identity="M003")
        for e, v in (("happy", 0.1), ("sad", 0.9))
        for k in range(3)
    ]
    score = DEFAULT.score(frozen, QUICK)
    assert (score.value, score.ci95, score.reason) == (None, None, "undetermined")


def speaker(seed: int, count: int = 10) -> Speakers:
    """Two emotions of one speaker, always the same two normal distributions."""
    rng = np.random.default_rng(seed)
    places = np.eye(2, 6) * 3.0
    classes = {e: Cluster.of(p + rng.normal(size=(count, 6))) for e, p in zip(("happy", "sad"), places, strict=True)}
    return Speakers({"M003": classes}, Definition("pairs", "centroids"))


def test_the_interval_is_as_wide_as_values_of_other_clips_spread() -> None:
    values = [speaker(seed).value() for seed in range(400)]
    intervals = [speaker(seed).interval(QUICK) for seed in range(12)]
    widths = [high - low for low, high in intervals]  # type: ignore[misc]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.2)


def test_no_draw_is_one_clip_alone() -> None:
    """Of three clips one draw in nine would be, and have no strength."""
    few, rng = speaker(0, count=3), np.random.default_rng(0)
    assert np.isfinite([few.value(few.drawn(rng)) for _ in range(200)]).all()


def test_the_interval_holds_the_value_and_needs_three_clips() -> None:
    score = DEFAULT.score(clips_of("M003", {"happy": 3, "sad": 6})[0], QUICK)
    assert score.ci95 is not None and score.value is not None and score.ci95[0] <= score.value <= score.ci95[1]
    few, _ = clips_of("M003", {"happy": 2, "sad": 9})
    assert DEFAULT.score(few, QUICK).ci95 is None, "the one pair of two clips has no spread"


def test_a_class_of_nearly_equal_clips_has_a_strength_and_no_interval() -> None:
    pairs, _ = clips_of("M003", {"happy": 4, "sad": 4})
    same = [replace(pair, generated=pairs[0].generated) if k in (1, 2) else pair for k, pair in enumerate(pairs)]
    assert DEFAULT.score(same, QUICK).ci95 is not None, "one draw in eight has no strength"
    score = DEFAULT.score([*same[:3], *pairs[4:]], QUICK)
    assert (score.value, score.reason) == (None, "undetermined")
    rows = {"happy": np.array([[0.0], [0.0], [0.0], [1.0]]), "sad": np.array([[5.0], [5.0], [5.0], [6.0]])}
    frozen = Speakers({"M003": {e: Cluster.of(r) for e, r in rows.items()}}, Definition("pairs", "centroids"))
    assert np.isfinite(frozen.value()) and frozen.interval(Settings(frechet_bootstrap=1, seed=0)) is None


def test_every_definition_over_every_vector_is_a_variant_with_its_name() -> None:
    assert set(BY_ID) == {
        f"clustering:{vectors}-{intra}-{inter}"
        for vectors in ("fer2013", "arkit52")
        for intra in ("pairs", "centroid")
        for inter in ("centroids", "clips")
    }
    assert (
        len({metric.spec.title for metric in clustering.METRICS}) == len({m.spec.formula for m in BY_ID.values()}) * 2
    )
    pairs, _ = clips_of("M003", {"happy": 3, "sad": 3})
    values = [
        BY_ID[f"clustering:arkit52-{i}-{o}"].score(pairs, QUICK).value
        for i, o in (("pairs", "centroids"), ("centroid", "centroids"), ("pairs", "clips"), ("centroid", "clips"))
    ]
    assert len(set(values)) == 4


def test_emotion_vectors_are_mean_probabilities() -> None:
    rng = np.random.default_rng(3)
    rows = {name: rng.dirichlet(np.ones(7), 5) for name in ("a", "b", "c", "d")}
    labels = ["happy", "happy", "sad", "sad"]
    pairs = [
        Pair(n, {"emotion-fer2013": HeldRow({"probabilities": r})}, None, emotion=e, identity="M003")
        for (n, r), e in zip(rows.items(), labels, strict=True)
    ]
    expected = clustering_strength(np.stack([r.mean(axis=0) for r in rows.values()]), labels)
    score = BY_ID["clustering:fer2013-pairs-centroids"].score(pairs, QUICK)
    assert score.value == pytest.approx(np.mean([*expected.values()])) and score.real_vs_real is None
