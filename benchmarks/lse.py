"""LSE beside syncnet-python's whole pipeline, on one clip: CPU seconds without networks, temporary files, the network.

    python benchmarks/lse.py

chain    10 s of 1280x720 with sound, each side in a process of its own: from the file to offset, distance and
         confidence, all networks replaced by constants (detector and SyncNet; both sides are told the same boxes of the
         face). CPU seconds count the process and the ffmpeg processes that it starts. Files are what is left in the
         working folder but for our feature rows.
length   ours over 10 s and over 30 s: what the peak memory of the process does.
network  both SyncNets with the same random weights over the same crops and sound, through the peer's `evaluate` and
         through ours; their scores must agree to 1e-4.

Needs the peer with its dependencies: syncnet-python, ffmpeg-python, scenedetect, python_speech_features and an ffmpeg.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from talkforge.core.counters import Counters
from talkforge.datasets.audio import read_audio, write_wav
from talkforge.datasets.encode import VideoWriter
from talkforge.datasets.samples import cut_samples
from talkforge.datasets.video import open_video
from talkforge.metrics.lse import clip_scores, sync_scores
from talkforge.models.loading import load_strict
from talkforge.models.syncnet import FoldedSyncNet, SyncNet
from talkforge.tasks.crops import boxes_of
from talkforge.tasks.extract import ClipFile, extract_clip
from talkforge.tasks.extract_faces import FACES, replay
from talkforge.tasks.extract_syncnet import DIRECT
from talkforge.tasks.extract_syncnet_compat import COMPAT
from talkforge.tasks.extractor import Context
from talkforge.tasks.features import FeatureStore
from talkforge.tasks.syncnet_chain import DETECTOR
from talkforge.tasks.syncnet_tracks import TrackLooks, looks_with_sound, pcm, sound_vectors
from talkforge.tests.models.test_syncnet import random_weights

SECONDS, LONGER, WIDTH, HEIGHT = 10, 30, 1280, 720
NETWORK_FRAMES = 50
TOLERANCE = 1e-4
PEER_PACKAGES = ("syncnet_python", "ffmpeg", "scenedetect", "python_speech_features", "imageio_ffmpeg")


class Constant(torch.nn.Module):
    """In the place of SyncNet: the same vector for everything."""

    def forward_lip(self, x: torch.Tensor) -> torch.Tensor:
        """(B, ...) to (B, 1024)."""
        return torch.ones(len(x), 1024)

    forward_aud = forward_lip


class Told(torch.nn.Module):
    """In the place of S3FD: the box of each frame in turn, as fractions of the picture."""

    def __init__(self, boxes: np.ndarray) -> None:
        super().__init__()
        self._boxes, self._count = torch.nn.Parameter(torch.from_numpy(boxes).float(), requires_grad=False), 0

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One box (1, 1, 4) of probability 1."""
        self._count += 1
        return self._boxes[None, [min(self._count, len(self._boxes)) - 1]], torch.ones(1, 1)


def make_clip(folder: Path, seconds: int) -> Path:
    """A sample clip, there and back again up to a length, scaled into 1280x720."""
    sample = cut_samples(folder / "samples")[0].video
    with open_video(sample) as stream:
        frames = [cv2.resize(frame, (960, HEIGHT)) for _, frame in stream]
    frames = [np.pad(frame, ((0, 0), (160, 160), (0, 0))) for frame in [*frames, *frames[::-1]]]
    audio = np.tile(read_audio(sample), seconds)
    with VideoWriter(folder / "clip.mp4", WIDTH, HEIGHT, audio=audio, preset="veryfast") as out:
        for k in range(seconds * 25):
            out.write(frames[k % len(frames)])
    return folder / "clip.mp4"


def find_faces(video: Path, folder: Path) -> np.ndarray:
    """Stores the clip's faces, so that ours need not find them while it is timed; their boxes (N, 4) for the peer."""
    clip, store = ClipFile(video, video), FeatureStore(folder / "ours", "none")
    extract_clip(clip, clip.content(), [FACES], store, Counters())
    row = store.find(FACES, clip.content())
    assert row is not None and row.reason is None
    return boxes_of(replay(row)[0])[0]


def ours(video: Path, folder: Path, boxes: np.ndarray, spec: Any = DIRECT) -> dict[str, Any]:
    """Scores of the clip by our way, everything but the networks."""
    networks = {DETECTOR: Told(boxes / [WIDTH, HEIGHT, WIDTH, HEIGHT])}
    Context.network = lambda self, target: networks.get(target, Constant())
    clip, counters, store = ClipFile(video, video), Counters(), FeatureStore(folder / "ours", "none")
    extract_clip(clip, clip.content(), [spec], store, counters)
    row = store.find(spec, clip.content())
    assert row is not None and row.reason is None, row and row.message
    clip_scores(row)
    left = [path for path in (folder / "ours").rglob("*") if path.is_file() and path.suffix != ".parquet"]
    return {"looks": len(row.array("track")), "decodes": counters.decodes, "files": left}


def peer(video: Path, folder: Path, boxes: np.ndarray) -> dict[str, Any]:
    """Scores of the clip by the peer's whole pipeline, everything but the networks."""
    import imageio_ffmpeg

    programs = folder / "programs"
    programs.mkdir()
    (programs / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    pipeline_module = importlib.import_module("syncnet_python.syncnet_pipeline")
    instance = importlib.import_module("syncnet_python.SyncNetInstance").SyncNetInstance
    given = iter([*boxes, *boxes[-1:].repeat(25, axis=0)])
    pipeline = pipeline_module.SyncNetPipeline.__new__(pipeline_module.SyncNetPipeline)
    pipeline.cfg, pipeline.device = pipeline_module.PipelineConfig(min_track=100), "cpu"
    pipeline.s3fd = SimpleNamespace(detect_faces=lambda *_, **__: np.append(next(given), 1.0)[None])
    pipeline.syncnet = instance(Constant(), device="cpu")
    work = folder / "peer"
    pipeline.inference(str(video), None, cache_dir=str(work))
    looks = sum(len(list(crop.glob("*.jpg"))) - 5 for crop in (work / "cropped").glob("crop_*"))
    return {"looks": looks, "files": [path for path in work.rglob("*") if path.is_file()]}


def measure(side: str, video: Path, folder: Path) -> None:
    """Runs one side in this process and prints its costs as JSON; what its libraries print is thrown away."""
    boxes = np.load(folder / "boxes.npy")
    sides: dict[str, Callable[[], dict[str, Any]]] = {
        "ours": lambda: ours(video, folder, boxes),
        "compat": lambda: ours(video, folder, boxes, COMPAT),
        "peer": lambda: peer(video, folder, boxes),
    }
    before, start = cpu_seconds(), peak_memory()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        found = sides[side]()
    files = found.pop("files")
    found |= {"cpu": cpu_seconds() - before, "peak": peak_memory(), "start": start}
    print(json.dumps(found | {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}))


def peak_memory() -> float:
    """Largest resident set of this process so far, MB. (`getrusage` would count the parent's at the start.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def run_side(side: str, video: Path, folder: Path) -> dict[str, Any]:
    """One side in a process of its own."""
    command = [sys.executable, __file__, side, str(video), str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def chain(folder: Path) -> None:
    """Both sides from the file to the scores, without networks."""
    video = make_clip(folder, SECONDS)
    np.save(folder / "boxes.npy", find_faces(video, folder))
    costs = {}
    for side in ("ours", "compat", "peer"):
        costs[side] = cost = run_side(side, video, folder)
        print(
            f"chain    {side:6}  {cost['cpu']:6.1f} CPU-s  peak {cost['peak']:5.0f} MB (imports {cost['start']:.0f})  "
            f"{cost['files']:4d} files of {cost['bytes'] / 1e6:5.1f} MB  {cost['looks']} looks"
        )
    print(
        f"chain    peer / ours  {costs['peer']['cpu'] / costs['ours']['cpu']:.1f} in CPU, "
        f"{costs['peer']['peak'] / costs['ours']['peak']:.1f} in memory; "
        f"peer / compat  {costs['peer']['cpu'] / costs['compat']['cpu']:.1f} in CPU"
    )


def length(folder: Path) -> None:
    """Our peak memory over two lengths, files to scores, without networks."""
    for seconds in (SECONDS, LONGER):
        place = folder / str(seconds)
        place.mkdir()
        video = make_clip(place, seconds)
        np.save(place / "boxes.npy", find_faces(video, place))
        cost = run_side("ours", video, place)
        print(
            f"length   {seconds} s  peak {cost['peak']:.0f} MB (imports {cost['start']:.0f})  {cost['decodes']} decode"
        )


def network(folder: Path) -> None:
    """Both networks over the same crops and sound; raises SystemExit when the scores differ."""
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (NETWORK_FRAMES, 28, 28, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    for k, crop in enumerate(crops):
        (folder / f"{k:06d}.jpg").write_bytes(cv2.imencode(".png", crop[..., ::-1])[1].tobytes())
    samples = (0.1 * rng.normal(size=NETWORK_FRAMES * 640)).astype(np.float32)
    write_wav(folder / "audio.wav", samples)
    reference = importlib.import_module("syncnet_python.SyncNetModel").S()
    reference.load_state_dict(random_weights())
    instance = importlib.import_module("syncnet_python.SyncNetInstance").SyncNetInstance(reference.eval(), "cpu")
    options = SimpleNamespace(tmp_dir=str(folder), batch_size=20, vshift=15)
    folded = FoldedSyncNet(load_strict(SyncNet(), random_weights(), source="random"))
    Context.network = lambda self, target: folded

    def theirs() -> tuple[float, ...]:
        with torch.inference_mode(), redirect_stdout(io.StringIO()):
            offset, confidence, distance = instance.evaluate(options)
        return offset, distance, confidence

    found, mine = timed(lambda: our_scores(crops, pcm(samples)))
    wanted, other = timed(theirs)
    gap = float(np.abs(np.subtract(found, wanted)).max())
    print(f"network  ours {mine:.1f} CPU-s  peer {other:.1f} CPU-s  ratio {other / mine:.2f}  scores within {gap:.1e}")
    if gap > TOLERANCE:
        raise SystemExit(f"the scores differ by {gap}, more than {TOLERANCE}")


def our_scores(crops: np.ndarray, sound: np.ndarray) -> tuple[float, ...]:
    """Offset, distance and confidence as the extractor and the metric make them."""
    context = Context("cpu", Counters())
    looks = TrackLooks(context, 6)
    for crop in crops:
        looks.push(crop)
    many = looks_with_sound(len(crops), sound)
    return tuple(sync_scores(looks.vectors()[:many], sound_vectors(context, sound, many)))


def timed(work: Callable[[], tuple[float, ...]]) -> tuple[tuple[float, ...], float]:
    """The result and the least CPU seconds of two runs."""
    runs = []
    for _ in range(2):
        before = time.process_time()
        runs.append((work(), time.process_time() - before))
    return runs[-1][0], min(seconds for _, seconds in runs)


def main() -> None:
    """All parts; without the peer it says what is missing and ends."""
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
        return
    missing = [name for name in PEER_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"no comparison: {', '.join(missing)} not installed")
        return
    for part in (chain, length, network):
        with tempfile.TemporaryDirectory() as folder:
            part(Path(folder))


if __name__ == "__main__":
    main()
