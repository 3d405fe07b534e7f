"""Comparisons: what a network makes of both sides of a pair, stored as a row that metrics reduce.

Extractors see one clip, metrics run no network. What needs both clips and a network, as LPIPS does, is an extractor
with `compares`: it takes the rows of that extractor on both sides instead of a clip, and its target is a function

    (context, generated row, real row) -> values of the columns

The key of its row is made from the keys of those two, so it is valid wherever the clips lie and under their crop only.
Where one of them failed there is nothing to compare and no row: that side's own reason stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.config import digest
from ..core.counters import Counters
from ..core.registry import resolve
from .extract import CLIP_FAULTS
from .extractor import Context, ExtractorSpec, extractors
from .features import FeatureRow, FeatureStore


@dataclass(frozen=True)
class CompareRequest:
    """What to compare in a shard of pairs.

    Attributes:
        pairs: content digests of a generated and a real clip, whose rows are stored.
        comparisons: ids of extractors with `compares`.
        crop, cache, device: of the run.
    """

    pairs: tuple[tuple[str, str], ...]
    comparisons: tuple[str, ...]
    crop: str
    cache: Path | None
    device: str = "cpu"


def compare_shard(request: CompareRequest) -> Counters:
    """Makes the missing rows of each pair; gives the work done.

    Raises:
        WeightsError, MissingPackage: what a comparison needs is not here; nothing is stored about the pair.
    """
    store, counters = FeatureStore(request.cache, request.crop), Counters()
    for name in request.comparisons:
        spec = extractors.get(name)
        for pair in request.pairs:
            if store.find(spec, pair_content(store, spec, *pair)) is None:
                _compare(store, spec, pair, Context(request.device, counters))
            else:
                counters.cache_hits += 1
    return counters


def pair_content(store: FeatureStore, spec: ExtractorSpec, generated: str, real: str) -> str:
    """Digest of what a pair's row depends on besides the comparison itself."""
    wanted = extractors.get(spec.compares)
    return digest({"generated": store.key(wanted, generated), "real": store.key(wanted, real)})


def compared(store: FeatureStore, pair: tuple[str, str], names: Sequence[str]) -> dict[str, FeatureRow]:
    """The rows of a pair by comparison (those that exist)."""
    specs = [extractors.get(name) for name in names]
    found = {spec.id: store.find(spec, pair_content(store, spec, *pair)) for spec in specs}
    return {name: row for name, row in found.items() if row is not None}


def _compare(store: FeatureStore, spec: ExtractorSpec, pair: tuple[str, str], context: Context) -> None:
    generated, real = (store.find(extractors.get(spec.compares), content) for content in pair)
    if generated is None or real is None or generated.reason or real.reason:
        return
    content = pair_content(store, spec, *pair)
    try:
        values = resolve(spec.target)(context, generated, real)
    except CLIP_FAULTS as error:
        store.save_failure(spec, content, error.reason, error.message)
    else:
        store.save(spec, content, values)
