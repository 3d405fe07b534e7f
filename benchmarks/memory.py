"""Peak memory: does the streaming pass over a 1080p clip grow with its length, and FID with the number of frames?

    python benchmarks/memory.py            both
    python benchmarks/memory.py pass       the pass: decode, faces, crop, I3D, MobileNetV2, envelope, strip
    python benchmarks/memory.py fid        FID's score over stored rows

Each length and each number of frames runs in a process of its own. The pass prints the peak resident set and CPU
seconds per second of video. FID prints the peak beyond what the process had taken before the first row was read, and
the largest number of frames against the smallest. Its rows are drawn, 2048 half-precision numbers a frame, stored in
clips of 50 frames; so 20 clips become 400. A score is value, interval over clips and real against real, as an
evaluation makes them, but for the interval's replicates: two stand for all of them, as each takes the same memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from talkforge.benchmarks.lse import peak_memory
from talkforge.core.counters import Counters
from talkforge.core.shards import write_table
from talkforge.datasets.audio import read_audio
from talkforge.datasets.encode import VideoWriter
from talkforge.datasets.samples import cut_samples
from talkforge.datasets.video import open_video
from talkforge.metrics.base import Pair, Settings, metrics
from talkforge.tasks.extract import ClipFile, extract_clip
from talkforge.tasks.extractor import extractors
from talkforge.tasks.features import FeatureRow, FeatureStore, to_arrow

SECONDS = (10, 60)
WANTED = ("faces-mediapipe", "i3d-k400-16f", "mobilenet-v2", "speech-envelope", "strip")
FRAMES, CLIP_FRAMES, WIDTH = (1_000, 5_000, 20_000), 50, 2048


def make_clip(folder: Path, seconds: int) -> Path:
    """A sample clip repeated to the length, scaled into 1920x1080."""
    sample = cut_samples(folder / "samples")[0].video
    with open_video(sample) as stream:
        frames = [np.pad(cv2.resize(frame, (1440, 1080)), ((0, 0), (240, 240), (0, 0))) for _, frame in stream]
    audio = np.tile(read_audio(sample), seconds)
    path = folder / f"{seconds}.mp4"
    with VideoWriter(path, 1920, 1080, audio=audio, preset="ultrafast") as out:
        for k in range(seconds * 25):
            out.write(frames[k % len(frames)])
    return path


def measure(path: Path) -> None:
    """Extracts in this process and prints its peak memory and CPU time."""
    clip, counters = ClipFile(path, path), Counters()
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as cache:
        store = FeatureStore(Path(cache), "face")
        extract_clip(clip, clip.content(), [extractors.get(name) for name in WANTED], store, counters)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{path.stem:>4} s  peak {peak:6.0f} MB  {(time.process_time() - begun) / int(path.stem):.2f} CPU-s per second"
    )


def stored_rows(folder: Path, clips: int) -> None:
    """Rows of both sides as a store holds them, with the falling spectrum of pooled activations."""
    rng, none = np.random.default_rng(0), pa.array([None], pa.string())
    spread = (0.5 / np.sqrt(1 + np.arange(WIDTH))).astype(np.float32)
    for side, mean in (("real", 0.4), ("generated", 0.42)):
        for k in range(clips):
            rows = rng.standard_normal((CLIP_FRAMES, WIDTH), np.float32) * spread + np.float32(mean)
            features = to_arrow(rows.astype(np.float16), pa.list_(pa.list_(pa.float16(), WIDTH)))
            table = pa.table({"reason": none, "message": none, "features": features})
            write_table(folder / side / f"{k}.parquet", table)


def measure_fid(folder: Path, frames: int) -> None:
    """Scores in this process; prints for people, and its own peak in MB as the last word."""
    metric = metrics.get("fid:pytorch-fid")
    name = metric.spec.generated[0]
    FeatureRow(folder / "real" / "0.parquet").array("features")  # what the first reading loads
    names = [f"{k}.parquet" for k in range(frames // CLIP_FRAMES)]
    sides = [[{name: FeatureRow(folder / side / one)} for one in names] for side in ("generated", "real")]
    pairs = [Pair(one, *both) for one, *both in zip(names, *sides, strict=True)]
    start, begun = peak_memory(), time.process_time()
    score = metric.score(pairs, Settings(frechet_bootstrap=2))
    own = peak_memory() - start
    seconds = time.process_time() - begun
    print(f"FID {frames:6d} frames a side  d2={score.value:.6f}  {seconds:6.1f} CPU-s  beyond the start, MB: {own:.0f}")


def run_pass() -> None:
    """Makes the clips and measures each in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        for seconds in SECONDS:
            path = make_clip(Path(folder), seconds)
            subprocess.run([sys.executable, __file__, "pass", str(path)], check=True)


def run_fid() -> None:
    """Measures each number of frames in a fresh process, and prints the last against the first."""
    with tempfile.TemporaryDirectory() as folder:
        stored_rows(Path(folder), max(FRAMES) // CLIP_FRAMES)
        peaks = []
        for frames in FRAMES:
            command = [sys.executable, __file__, "fid", folder, str(frames)]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            print(line, flush=True)
            peaks.append(float(line.split()[-1]))
        print(f"FID {FRAMES[-1]} against {FRAMES[0]} frames: {peaks[-1] / peaks[0]:.2f} times the memory")


def main() -> None:
    """The named part, or both; with more arguments one measurement, in this process."""
    match sys.argv[1:]:
        case ["pass", path]:
            measure(Path(path))
        case ["fid", folder, frames]:
            measure_fid(Path(folder), int(frames))
        case []:
            run_pass()
            run_fid()
        case [part]:
            {"pass": run_pass, "fid": run_fid}[part]()


if __name__ == "__main__":
    main()
