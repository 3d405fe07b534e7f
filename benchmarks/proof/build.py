"""Proof that a build's bytes do not depend on how it was made, on trees of real clips (TALKFORGE_MEDIA).

    python benchmarks/proof/build.py FOLDER [--kills 20] [--datasets NAME ...] [--only NAME ...]

Builds a MEAD-, an HDTF- and a VoxCeleb2-shaped tree (trees.py beside this file) with one worker, and again: two
workers, Prefect, Dask, Ray, and killed with SIGKILL at random moments and resumed, each with its own feature cache.
Then every data file is compared by sha256, and each input clip is counted in rows or rejects.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from talkforge.core.hashing import file_sha256

sys.path.insert(0, str(Path(__file__).parent))
from trees import lay_all

DATASETS = {"mead": [], "hdtf": ["--annotations", "{root}-annotations"], "voxceleb2": []}
VARIANTS = {
    "two-workers": ["--workers", "2", "--no-prefect"],
    "prefect": ["--workers", "2"],
    "dask": ["--workers", "2", "--runner", "dask"],
    "ray": ["--workers", "2", "--runner", "ray"],
}
BASE = ["--workers", "1", "--no-prefect"]
# What is data: not the markers, which hold seconds, nor the description, which holds the time and this machine.
DATA = ("data/**/*.parquet", "rejects/*.parquet", "videos/**/*.mp4", "meta/stats.json", "meta/splits.json")


def command(trees: Path, dataset: str, out: Path, options: list[str]) -> list[str]:
    """The command line of one build, features kept beside the output."""
    root = trees / dataset
    extra = [part.format(root=root) for part in DATASETS[dataset]]
    places = ["--root", str(root), "--out", str(out), "--cache", str(out) + "-cache"]
    sizes = ["--set", "size=256", "--set", "shard_clips=4"]
    return [sys.executable, "-m", "talkforge.cli", "build", "--dataset", dataset, *places, *extra, *sizes, *options]


def data_files(out: Path) -> dict[str, str]:
    """sha256 of every data file below a build."""
    return {p.relative_to(out).as_posix(): file_sha256(p) for pattern in DATA for p in sorted(out.glob(pattern))}


def finish(line: list[str]) -> float:
    """Runs a build to its end; its wall seconds."""
    begun = time.monotonic()
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}\n{done.stderr[-2000:]}")
    return time.monotonic() - begun


def killed(line: list[str], kills: int, longest: float, chance: random.Random) -> Iterator[int]:
    """Starts the build and kills it, again and again, each time at a random moment; then lets it finish."""
    for _ in range(kills):
        running = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            yield running.wait(timeout=chance.uniform(0.5, longest))
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            yield running.wait()
    finish(line)


def main() -> None:
    """Prints one line a build and variant; exits with 1 where bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--datasets", nargs="*", default=[*DATASETS])
    parser.add_argument("--only", nargs="*", default=[*VARIANTS, "killed"])
    options = parser.parse_args()
    trees = options.folder / "trees"
    if not trees.is_dir():
        lay_all(Path(os.environ["TALKFORGE_MEDIA"]), trees)
    faults = 0
    for dataset in options.datasets:
        base = options.folder / "one-worker" / dataset
        took = finish(command(trees, dataset, base, BASE))
        expected = data_files(base)
        counts = json.loads((base / "meta/info.json").read_text())["counts"]
        print(f"{dataset}: {counts}, {len(expected)} files, {took:.0f} s")
        for variant in options.only:
            out = options.folder / variant / dataset
            if variant == "killed":
                line = command(trees, dataset, out, VARIANTS["two-workers"])
                codes = list(killed(line, options.kills, min(took / 6 + 2, 6.0), random.Random(0)))
                note = f"{codes.count(-signal.SIGKILL)} of {len(codes)} runs ended by SIGKILL"
            else:
                note = f"{finish(command(trees, dataset, out, VARIANTS[variant])):.0f} s"
            found = data_files(out)
            other = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            faults += len(other)
            print(f"  {variant}: {'the same bytes' if not other else f'DIFFERENT: {other}'} ({note})", flush=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
