"""What a dataset build costs, side by side in one run, and whether memory and reruns behave.

    python benchmarks/build.py            all parts; about six minutes on two cores
    python benchmarks/build.py pass       only the named parts: pass, workers, many

pass     CPU seconds per second of 512x512 video by stage; the same work as separate scripts, each of which decodes and
         finds faces by itself, as the field's preprocessing folders do
workers  wall seconds of two workers against one
many     500 clips in one process: resident memory after 100 and after 500, a warm rerun, one extractor added
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from talkforge.core.clock import StageClock
from talkforge.core.counters import Counters
from talkforge.datasets.encode import reencode_clip
from talkforge.datasets.samples import cut_samples
from talkforge.flows.build_dataset import BuildConfig, build, default_extractors, plan_recipe
from talkforge.tasks.extract import ClipFile, extract_clip
from talkforge.tasks.features import FeatureStore
from talkforge.tasks.recipe import Recipe

SECONDS = 1.92  # of a sample clip
NETWORKS = {"detect", "whisper-tiny-en"}
CODECS = {"decode", "encode", "sound"}
MANY, EARLY = 500, 100


def recipe() -> Recipe:
    """The default extractors with crops of 512 pixels."""
    return plan_recipe(BuildConfig(dataset="folder", root=Path(), out=Path()))


def one_pass(clips: list[ClipFile], specs: list[Any]) -> tuple[float, dict[str, Any]]:
    """CPU seconds of a pass over the clips with nothing stored, and its stages."""
    with tempfile.TemporaryDirectory() as cache, StageClock() as clock:
        store, counters = FeatureStore(Path(cache), "face"), Counters()
        begun = time.process_time()
        for clip in clips:
            extract_clip(clip, clip.content(), specs, store, counters, clock=clock)
        return time.process_time() - begun, clock.as_dict()


def compare_pass(folder: Path) -> None:
    """One pass against one script a feature."""
    clips = []
    for sample in cut_samples(folder / "samples"):
        big = folder / sample.video.name
        reencode_clip(sample.video, big, size=(512, 512))
        clips.append(ClipFile(big, big))
    specs = recipe().specs()
    video_s = len(clips) * SECONDS
    one_pass(clips[:1], specs)  # networks are loaded once, whoever uses them
    together, stages = one_pass(clips, specs)
    apart = {spec.id: one_pass(clips, [spec])[0] for spec in specs}
    print(
        f"one pass: {together / video_s:.2f} CPU-s per second of video ({len(clips)} clips, {video_s:.0f} s, 512x512)"
    )
    outside = together
    for name, seconds in sorted(stages.items(), key=lambda item: -item[1]["cpu_s"]):
        kind = "network" if name in NETWORKS else "codec" if name in CODECS else ""
        outside -= seconds["cpu_s"] if kind else 0
        print(f"  {name:24} {seconds['cpu_s'] / video_s:.3f}  {kind}")
    print(f"outside networks and codecs: {outside / together:.0%}")
    print(
        f"separate scripts: {sum(apart.values()) / video_s:.2f} CPU-s per second, {sum(apart.values()) / together:.2f}x"
    )
    for name, seconds in apart.items():
        print(f"  {name:24} {seconds / video_s:.3f}")


def compare_workers(folder: Path) -> None:
    """Wall time of a whole build with one worker and with two, each in a process of its own, networks loaded."""
    root = folder / "clips"
    root.mkdir()
    for sample in cut_samples(folder / "samples"):
        for k, shift in enumerate((0.0, 0.04, 0.08)):  # other content, so that nothing is shared
            reencode_clip(sample.video, root / f"{sample.video.stem}-{k}.mp4", start_s=shift, size=(512, 512))
    seconds = {}
    for workers in (1, 2):
        done = subprocess.run(
            [sys.executable, __file__, "timed", str(root), str(folder / f"w{workers}"), str(workers)],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds[workers] = float(done.stdout.split()[-1])
    print(f"workers: 1 takes {seconds[1]:.1f} s, 2 take {seconds[2]:.1f} s: {seconds[1] / seconds[2]:.2f}x")


def timed(root: Path, out: Path, workers: int) -> None:
    """Prints the wall seconds of one build; what both runs load once is loaded before."""
    warm = out.with_name(f"{out.name}-warm")
    settings: dict[str, Any] = {"dataset": "folder", "root": root, "prefect": False, "shard_clips": 1}
    build(BuildConfig(**settings, out=warm, cache=warm / "c", limit=1, workers=1))
    begun = time.perf_counter()
    build(BuildConfig(**settings, out=out, cache=out.with_name(f"{out.name}-cache"), workers=workers))
    print(time.perf_counter() - begun)


def many_clips(folder: Path) -> None:
    """500 short clips built in one process; then the same command again; then with one more extractor."""
    root = folder / "many"
    root.mkdir()
    samples = cut_samples(folder / "samples")
    for k in range(MANY):
        start = 0.04 * (k // len(samples) % 24)
        size = (256 + 2 * (k // (len(samples) * 24)), 256)
        reencode_clip(
            samples[k % len(samples)].video, root / f"{k:03d}.mp4", start_s=start, end_s=start + 0.48, size=size
        )
    me = psutil.Process()
    settings = {"dataset": "folder", "root": root, "prefect": False, "size": 128, "workers": 2}
    places = {"out": folder / "built", "cache": folder / "cache"}
    build(BuildConfig(**settings, **places, limit=EARLY))
    early = me.memory_info().rss
    build(BuildConfig(**settings, **places))
    late = me.memory_info().rss
    print(
        f"memory: {early / 1e6:.0f} MB after {EARLY} clips, {late / 1e6:.0f} MB after {MANY}: {late / early - 1:+.1%}"
    )
    command = [sys.executable, __file__, "again", json.dumps({**settings, **places}, default=str)]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    more = build(BuildConfig(**settings, **places, extractors=[*default_extractors(), "landmarks68-mediapipe"]))
    print(f"one extractor added: counters {more.counters.as_dict()}")


def again(settings: dict[str, Any]) -> None:
    """Prints what a rerun does and how long it takes, imports included."""
    begun = time.perf_counter()
    outcome = build(BuildConfig(**settings))
    took = time.perf_counter() - begun
    print(f"rerun of {MANY} clips: {took:.2f} s, decodes {outcome.counters.decodes}, done before: {outcome.done}")


PARTS = {"pass": compare_pass, "workers": compare_workers, "many": many_clips}


def main() -> None:
    """Runs the named parts, or all."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1:2] == ["timed"]:
        timed(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["again"]:
        again(json.loads(sys.argv[2]))
    else:
        for name in sys.argv[1:] or PARTS:
            with tempfile.TemporaryDirectory() as folder:
                PARTS[name](Path(folder))


if __name__ == "__main__":
    main()
