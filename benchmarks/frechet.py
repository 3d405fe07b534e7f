"""CPU time of the Fréchet distance beside pytorch-fid, in one process on the same features.

    python benchmarks/frechet.py

Both sides start from the same two (N, 2048) arrays in memory: ours is one call, the peer's is its own recipe (mean and
`np.cov` of each side, then its `calculate_frechet_distance`). Time is `time.process_time`, the CPU seconds of all
threads, so a library that spreads over cores gains nothing. Ours is the best of five, the peer's one run: it is the
longer by far, and a slow first run would only be held against the short one. With N < D the two do not agree in the
last digits: the peer takes the root of a singular product, where it has lost half of them.
"""

from __future__ import annotations

import argparse
import ast
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy import linalg
from talkforge.core.errors import MissingPackage, TalkForgeError
from talkforge.metrics.frechet import FrechetState, distance, frechet_distance

DIM = 2048
SMALL, LARGE = 500, 20_000
SHARD = 1000
REPEATS = 5


def peer() -> Callable[..., float]:
    """pytorch-fid's `calculate_frechet_distance`, taken out of its file as it stands.

    Importing the file would import torchvision, which has no part in the comparison and does not load everywhere.

    Raises:
        MissingPackage: pytorch-fid is not installed.
    """
    spec = find_spec("pytorch_fid")
    if spec is None or spec.origin is None:
        raise MissingPackage("pytorch-fid is not installed", hint="pip install pytorch-fid==0.3.0")
    path, name = Path(spec.origin).with_name("fid_score.py"), "calculate_frechet_distance"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    names: dict[str, Any] = {"np": np, "linalg": linalg}
    exec(compile(tree, str(path), "exec"), names)
    return names[name]


def features(n: int, seed: int) -> np.ndarray:
    """float32 (n, 2048), with the falling spectrum and the positive mean of pooled activations."""
    rng = np.random.default_rng(seed)
    spread = (0.5 / np.sqrt(1 + np.arange(DIM))).astype(np.float32)
    return rng.standard_normal((n, DIM), np.float32) * spread + np.float32(0.4 + 0.01 * seed)


def timed(call: Callable[[], float], repeats: int = 1) -> tuple[float, float]:
    """The call's answer and its CPU seconds, the best of `repeats`."""
    runs = []
    for _ in range(repeats):
        start = time.process_time()
        runs.append((call(), time.process_time() - start))
    return min(runs, key=lambda run: run[1])


def peer_distance(function: Callable[..., float], x: np.ndarray, y: np.ndarray) -> float:
    """The peer's recipe: statistics of both sides, then the distance."""
    statistics = [part for side in (x, y) for part in (np.mean(side, axis=0), np.cov(side, rowvar=False))]
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return float(function(*statistics))


def streamed(x: np.ndarray, y: np.ndarray) -> float:
    """Both sides in shards of 1000 rows, one state a shard, merged."""
    totals = []
    for side in (x, y):
        total = FrechetState(DIM)
        for start in range(0, len(side), SHARD):
            shard = FrechetState(DIM)
            shard.update(side[start : start + SHARD])
            total.merge(shard)
        totals.append(total)
    return distance(*totals)


def peak(call: Callable[[], float]) -> tuple[float, float, float]:
    """Answer, CPU seconds, and the peak of memory allocated beyond the inputs, in MB."""
    tracemalloc.start()
    answer, seconds = timed(call)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return answer, seconds, most / 1e6


def small() -> list[str]:
    """Rows of N = 500: ours, the peer, the ratio."""
    x, y = features(SMALL, 1), features(SMALL, 2)
    ours, fast = timed(lambda: frechet_distance(x, y), REPEATS)
    rows = [f"N={SMALL:>6}  talkforge frechet_distance   {fast:>9.3f} s            d2={ours:.9f}"]
    function = peer()
    try:
        theirs, slow = timed(lambda: peer_distance(function, x, y))
    except (TypeError, ValueError) as error:
        return [*rows, f"N={SMALL:>6}  pytorch-fid                   does not run with this scipy: {error}"]
    rows.append(f"N={SMALL:>6}  pytorch-fid                  {slow:>9.3f} s            d2={theirs:.9f}")
    return [*rows, f"          ratio pytorch-fid / talkforge: {slow / fast:.0f}"]


def large() -> list[str]:
    """Rows of N = 20000: in one piece and streamed."""
    x, y = features(LARGE, 1), features(LARGE, 2)
    calls = {"frechet_distance": frechet_distance, "20 merged states": streamed}
    rows = []
    for name, call in calls.items():
        answer, seconds, megabytes = peak(lambda call=call: call(x, y))
        rows.append(f"N={LARGE:>6}  talkforge {name:<18} {seconds:>9.3f} s {megabytes:>7.0f} MB d2={answer:.9f}")
    return rows


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Fréchet distance: CPU time beside pytorch-fid")
    parser.add_argument("--skip-large", action="store_true", help="leave out N = 20000")
    options = parser.parse_args()
    print(f"Fréchet distance, D={DIM}, CPU seconds of all threads (process_time), numpy {np.__version__}")
    try:
        for row in small() + ([] if options.skip_large else large()):
            print(row, flush=True)
    except TalkForgeError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
