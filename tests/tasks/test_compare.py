"""Rows made from both sides of a pair: LPIPS by a network of random weights, and what becomes of pairs without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from talkforge.core.counters import Counters
from talkforge.models.loading import load_strict
from talkforge.models.lpips import LPIPS, AlexNet, Weightings
from talkforge.tasks.compare import CompareRequest, compare_shard, compared, pair_content
from talkforge.tasks.compare_lpips import LPIPS as SPEC
from talkforge.tasks.extract_lossless import LOSSLESS, LosslessPictures
from talkforge.tasks.extractor import Batch, Context
from talkforge.tasks.features import FeatureStore
from talkforge.tests.models.reference import random_state

GENERATED, REAL = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def network() -> LPIPS:
    backbone = load_strict(AlexNet(), random_state(AlexNet(), 1), source="random")
    heads = {name: tensor.abs() for name, tensor in random_state(Weightings(), 2).items()}
    return LPIPS(backbone, load_strict(Weightings(), heads, source="random")).eval()


@pytest.fixture
def store(tmp_path: Path, network: LPIPS, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """An empty store; who asks for a network gets the random one, since the real one is not everywhere."""
    monkeypatch.setattr("talkforge.tasks.extractor._loaded", lambda target, device: network)
    monkeypatch.setattr("talkforge.tasks.compare_lpips.PAIRS_PER_FORWARD", 2)
    return FeatureStore(tmp_path, "none")


def movie(seed: int, count: int, height: int = 40, width: int = 48) -> list[np.ndarray | None]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def keep(store: FeatureStore, content: str, pictures: list[np.ndarray | None]) -> None:
    extractor = LosslessPictures(LOSSLESS, Context("cpu", Counters()))
    extractor.push(Batch(np.arange(len(pictures)), [], [], [], pictures))
    store.save(LOSSLESS, content, extractor.finish())


def run(store: FeatureStore) -> Counters:
    return compare_shard(CompareRequest(((GENERATED, REAL),), (SPEC.id,), "none", store.root.parent))


def test_a_pairs_row_holds_the_distance_of_each_frame_that_both_show(store: FeatureStore, network: LPIPS) -> None:
    generated, real = movie(1, 6), movie(2, 5)
    generated[1] = None
    keep(store, GENERATED, generated)
    keep(store, REAL, real)
    counters = run(store)
    row = compared(store, (GENERATED, REAL), [SPEC.id])[SPEC.id]
    frames = [0, 2, 3, 4]
    sides = [np.stack([side[k] for k in frames]) for side in (generated, real)]  # type: ignore[arg-type]
    np.testing.assert_allclose(row.array("distance"), network.distances(*sides), rtol=1e-5)
    assert row.array("frame").tolist() == frames
    assert (row.value("n_generated"), row.value("n_real")) == (6, 5)
    assert counters.forwards == {"lpips-alex": 8} and counters.decodes == 0
    again = run(store)
    assert again.cache_hits == 1 and not again.forwards


def test_the_row_belongs_to_these_sides_and_this_crop(store: FeatureStore) -> None:
    one = pair_content(store, SPEC, GENERATED, REAL)
    assert one != pair_content(store, SPEC, REAL, GENERATED)
    assert one != pair_content(FeatureStore(store.root.parent, "face"), SPEC, GENERATED, REAL)


@pytest.mark.parametrize(
    ("generated", "real", "reason", "message"),
    [
        (movie(3, 2), movie(4, 2, 40, 40), "size_mismatch", "pictures of 48x40 and 40x40"),
        ([None, *movie(5, 1)], [*movie(6, 1), None], "no_face", "none of 2 paired frames"),
        (movie(7, 1, 30, 40), movie(8, 1, 30, 40), "input", "at least 31 pixels"),
    ],
    ids=["sizes", "frames", "small"],
)
def test_what_cannot_be_compared_is_a_row_with_the_reason(
    store: FeatureStore,
    generated: list[np.ndarray | None],
    real: list[np.ndarray | None],
    reason: str,
    message: str,
) -> None:
    keep(store, GENERATED, generated)
    keep(store, REAL, real)
    run(store)
    row = compared(store, (GENERATED, REAL), [SPEC.id])[SPEC.id]
    assert row.reason == reason and message in row.message


def test_a_failed_side_leaves_no_row(store: FeatureStore) -> None:
    """Its own reason stands in the metric."""
    keep(store, GENERATED, movie(9, 1))
    store.save_failure(LOSSLESS, REAL, "truncated", "cut")
    run(store)
    assert compared(store, (GENERATED, REAL), [SPEC.id]) == {}
