"""A whole evaluation beside the peers' commands one after another.

    python benchmarks/evaluation.py                     about twenty minutes of a quiet core
    python benchmarks/evaluation.py --clips 2

Ten real clips of 1.76 s and their copies by the method `copy`, through one `evaluate` call: FVD, FD, FID, LSE, E-FID,
emotion, identity, nothing stored before; and through seven scripts, one a metric (`proof/peers.py`).

What is fair, and what to keep in mind:

- Each side runs in a process of its own. CPU seconds count all its threads and the programs that it starts; one thread
  for networks and linear algebra. The first ratios leave imports and loading of weights out on both sides, and so one
  clip that each side sees beforehand.
- Same networks with the same weights, same detector (MediaPipe) in all scripts, same decoder but in syncnet-python,
  which starts ffmpeg. Inception and SyncNet have random weights in the official layout: the cost is the same, and the
  values are of no meaning. So are the emotions in the clips' names. The peers' own Inception and SyncNet run as the
  packages have them; I3D, MobileNetV2, mini-Xception and dlib are our modules on both sides.
- syncnet-python's detector, S3FD, is heavier than MediaPipe's, which stands in for it: this favours the peer. Identity
  is embedded at every fifth frame on both sides, where scripts take every frame: this favours the peer too. The row "as
  people run them" puts both back (measured, S3FD with random weights), and each command's own start: imports, and
  loading its network. Ours starts once; counted with it is a whole evaluation of the warm pair, so this is its bound.
- Both real and generated clips go through everything, since ours gives the real clips' level beside each number. The
  last rows say what is left when the peers leave the real side out of LSE and emotion, which have no need of it, and
  when they are not asked for FD beside FID.
- Ours gives intervals, real against real and a report on top, which the peers do not.
- All scripts crop the face for FVD, FD and FID, as ours does. Whoever has crops already saves the peers those passes.
- Most of ours is networks, which both sides have to run: what one pass saves is in the row "outside networks". The
  peers' largest single cost beside Inception, SciPy's root of 2048 x 2048, does not depend on the number of clips, so
  fewer or shorter clips flatter the ratio.
- Temporary files are those a side leaves in its working folder but for our feature rows and our report.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from talkforge.benchmarks.lse import cpu_seconds
from talkforge.benchmarks.proof.peers import PEERS
from talkforge.core import weights
from talkforge.core.counters import Counters
from talkforge.core.hashing import file_sha256
from talkforge.datasets.encode import reencode_clip
from talkforge.datasets.samples import cut_samples
from talkforge.datasets.video import FPS
from talkforge.flows.evaluate import EvalConfig, evaluate
from talkforge.metrics.emo_score import EMOTIONS
from talkforge.models.inception import FIDInception
from talkforge.tasks.methods import TestItem, copy
from talkforge.tests.models.reference import random_state
from talkforge.tests.models.test_syncnet import random_weights
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

METRICS = [
    "fvd:i3d-k400-16f",
    "fd:mobilenet-v2",
    "fid:pytorch-fid",
    "lse_c:syncnet-v2-direct",
    "lse_d:syncnet-v2-direct",
    "e_fid:arkit52",
    "emo_score:fer2013-frame-accuracy",
    "csim:dlib-128",
]
PEER_PACKAGES = (
    "pytorch_fid",
    "torchvision",
    "syncnet_python",
    "ffmpeg",
    "scenedetect",
    "python_speech_features",
    "imageio_ffmpeg",
    "dlib",
)
NO_REFERENCE = ("lse", "emotion")  # metrics of generated clips alone
FRAMES, LEAST, SHIFT = 44, 21, 4  # of a clip, at least for SyncNet; between two cuts of a sample


class NetworkTime:
    """CPU seconds inside networks (torch's modules, dlib's among them; not MediaPipe), of whoever calls them.

    The outermost module counts, so a network is timed whole, or in the parts that its owner calls.
    """

    def __init__(self) -> None:
        self.seconds, self._depth, self._begun = 0.0, 0, 0.0
        register_module_forward_pre_hook(self._enter)
        register_module_forward_hook(self._leave)

    def _enter(self, *_: Any) -> None:
        if self._depth == 0:
            self._begun = time.process_time()
        self._depth += 1

    def _leave(self, *_: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.process_time() - self._begun


def lay_clips(folder: Path, count: int, frames: int) -> None:
    """`real` and `generated` clips: cuts of the samples and their copies; `warm` holds one pair more."""
    samples = cut_samples(folder / "samples")
    for side in ("real", "generated", "warm/real", "warm/generated"):
        (folder / side).mkdir(parents=True)
    for k in range(count + 1):
        place = folder / "warm" if k == count else folder
        real = place / "real" / f"{k:02d}-{EMOTIONS[k % len(EMOTIONS)]}.mp4"
        start = k // len(samples) * SHIFT
        video = samples[k % len(samples)].video
        reencode_clip(video, real, start_s=start / FPS, end_s=(start + frames) / FPS)
        copy(TestItem(id=real.stem, portrait=real, audio=real, video=real), place / "generated" / real.name)


def lay_store(folder: Path) -> None:
    """A store in `folder`: links to what the user's holds, random Inception and SyncNet, and their catalogue."""
    usual, configs = weights.weights_store(), folder / "configs"
    configs.mkdir(parents=True)
    catalogue = (weights.CONFIGS / "weights.yaml").read_text(encoding="utf-8")
    states = {"inception-2015-12-05": random_state(FIDInception(), 1), "syncnet-v2": random_weights()}
    for name in usual.names():
        path = folder / usual.spec(name).file
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in states:
            torch.save(states[name], path)
            catalogue = catalogue.replace(usual.sha256(name), file_sha256(path))
        elif usual.status(name).ok:
            path.symlink_to(usual.where(name).resolve())
    (configs / "weights.yaml").write_text(catalogue, encoding="utf-8")


def use_store(folder: Path) -> None:
    """Makes `lay_store`'s folder this process's store."""
    weights.CONFIGS = folder / "configs"
    os.environ["TALKFORGE_WEIGHTS"] = str(folder)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result and the CPU seconds of this process and of those it has waited for."""
    before = cpu_seconds()
    return work(), cpu_seconds() - before


def run_ours(folder: Path, out: str, clips: str = ".", cache: str = "cache") -> dict[str, Any]:
    """Results of one `evaluate` call."""
    place = folder / clips
    config = EvalConfig(
        real=place / "real",
        generated=place / "generated",
        out=folder / out,
        metrics=METRICS,
        workers=1,
        cache=folder / cache,
        prefect=False,
    )
    return evaluate(config).results


def measure_ours(folder: Path) -> dict[str, Any]:
    """Costs of the evaluation; `reduce` is that of a second one, which finds all rows stored."""
    run_ours(folder, "warm-out", "warm", "warm-cache")
    start = cpu_seconds()
    networks = NetworkTime()
    begun = time.perf_counter()
    results, seconds = timed(lambda: run_ours(folder, "out"))
    wall = time.perf_counter() - begun
    _, reduce = timed(lambda: run_ours(folder, "out-again"))
    counters = results["counters"]
    return {
        "cpu": seconds,
        "start": start,
        "networks": networks.seconds,
        "reduce": reduce,
        "wall": wall,
        "left": leftovers(folder / "cache", feature_rows=False),
        "rows": leftovers(folder / "cache", feature_rows=True),
        "decodes": counters["decodes"],
        "detections": counters["face_detections"],
        "forwards": counters["forwards"],
        "values": {name: result["value"] for name, result in results["results"].items()},
    }


def measure_peer(name: str, folder: Path) -> dict[str, Any]:
    """Costs of one script, by side."""
    script = PEERS[name]()
    start = cpu_seconds()
    places = {side: folder / name / side for side in ("warm", "real", "generated")}
    for place in places.values():
        place.mkdir(parents=True)
    script.gather(videos_of(folder / "warm" / "real"), places["warm"])
    script.counters, networks = Counters(), NetworkTime()
    begun = time.perf_counter()
    real, real_seconds = timed(lambda: script.gather(videos_of(folder / "real"), places["real"]))
    generated, seconds = timed(lambda: script.gather(videos_of(folder / "generated"), places["generated"]))
    values, reduce = timed(lambda: script.reduce(real, generated))
    wall, inside = time.perf_counter() - begun, networks.seconds
    decodes, detections = script.counters.decodes, script.counters.face_detections
    spared = script.spared([*videos_of(folder / "real"), *videos_of(folder / "generated")])
    left = [leftovers(places[side]) for side in ("real", "generated")]
    return {
        "cpu": real_seconds + seconds + reduce,
        "start": start,
        "spared": spared,
        "networks": inside,
        "real": real_seconds,
        "reduce": reduce,
        "wall": wall,
        "left": [sum(part) for part in zip(*left, strict=True)],
        "decodes": decodes,
        "detections": detections,
        "values": values,
    }


def videos_of(folder: Path) -> list[Path]:
    """The clips of a side, by name."""
    return sorted(folder.glob("*.mp4"))


def leftovers(folder: Path, *, feature_rows: bool = False) -> tuple[int, int]:
    """Files below a folder and their bytes: feature rows, or all else."""
    files = [path for path in folder.rglob("*") if path.is_file() and (path.suffix == ".parquet") is feature_rows]
    return len(files), sum(path.stat().st_size for path in files)


def child(*arguments: object) -> dict[str, Any]:
    """What a process of its own answers."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "child", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(what: str, *arguments: str) -> None:
    """A child's work, its answer as JSON on the last line; what libraries print is thrown away."""
    torch.set_num_threads(1)
    with redirect_stdout(io.StringIO()):
        if what == "ours":
            use_store(Path(arguments[0]) / "store")
            found = measure_ours(Path(arguments[0]))
        else:
            use_store(Path(arguments[0]) / "store")
            found = measure_peer(what, Path(arguments[0]))
    print(json.dumps(found))


def table(count: int, frames: int) -> None:
    """Both ways over the same clips."""
    missing = [name for name in PEER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"no comparison: {', '.join(missing)} not installed")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_clips(folder, count, frames)
        lay_store(folder / "store")
        print(f"{count} pairs of {frames} frames; CPU seconds, of them in networks, and after the features are there")
        ours = child("ours", folder)
        print_side("talkforge", ours)
        print(f"{'':10} {ours['rows'][0]} feature rows of {ours['rows'][1] / 1e6:.1f} MB; forwards {ours['forwards']}")
        peers = {}
        for peer in PEERS:
            peers[peer] = child(peer, folder)
            print_side(peer, peers[peer])
        print_ratios(ours, peers)


def print_side(name: str, cost: dict[str, Any]) -> None:
    """One row of the table, and the values below it."""
    files, size = cost["left"]
    print(
        f"{name:10} {cost['cpu']:7.1f} CPU-s ({cost['networks']:6.1f}, {cost['reduce']:5.1f})  "
        f"{cost['wall']:7.1f} s wall  "
        f"{files:5d} temporary files of {size / 1e6:6.1f} MB  {cost['decodes']:3d} decodes  "
        f"{cost['detections']:5d} detections"
    )
    for metric, value in cost["values"].items():
        print(f"{'':10} {metric:34} {'null' if value is None else f'{value:.6g}'}", flush=True)


def print_ratios(ours: dict[str, Any], peers: dict[str, dict[str, Any]]) -> None:
    """Sums of the peers, whole and by the stricter readings, over ours."""
    whole = sum(cost["cpu"] for cost in peers.values())
    spared = sum(peers[name]["real"] for name in NO_REFERENCE)
    roots = sum(cost["reduce"] for cost in peers.values())
    for label, seconds in (
        ("peers one after another", whole),
        ("without FD", whole - peers["fd"]["cpu"]),
        ("without the real side of LSE and emotion", whole - spared),
        ("without either", whole - spared - peers["fd"]["cpu"]),
    ):
        print(f"ratio {seconds / ours['cpu']:5.2f}  {label}: {seconds:.1f} CPU-s against {ours['cpu']:.1f}")
    started = ours["cpu"] + ours["start"]
    as_run = whole + sum(cost["start"] + cost["spared"] for cost in peers.values())
    print(f"ratio {as_run / started:5.2f}  as people run them: {as_run:.1f} CPU-s against {started:.1f}")
    for name, cost in peers.items():
        print(f"{'':10} {name}: start {cost['start']:.1f}, spared above {cost['spared']:.1f} CPU-s")
    inside = sum(cost["networks"] for cost in peers.values())
    for label, theirs, mine in (
        ("features alone", whole - roots, ours["cpu"] - ours["reduce"]),
        ("in networks", inside, ours["networks"]),
        ("outside networks", whole - inside, ours["cpu"] - ours["networks"]),
    ):
        print(f"ratio {theirs / mine:5.2f}  {label}: {theirs:.1f} CPU-s against {mine:.1f}")


def main() -> None:
    """The table, or a child's part of it."""
    if sys.argv[1:2] == ["child"]:
        answer(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description="a whole evaluation beside the peers' commands")
    parser.add_argument("--clips", type=int, default=10, help="pairs of clips")
    parser.add_argument("--frames", type=int, default=FRAMES, choices=range(LEAST, FRAMES + 1), help="of a clip")
    options = parser.parse_args()
    table(options.clips, options.frames)


if __name__ == "__main__":
    main()
