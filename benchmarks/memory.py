"""Peak memory of the streaming pass over a 1080p clip: does it grow with the clip's length?

Each length runs in a process of its own: decode, faces, crop, I3D, MobileNetV2, envelope, strip. Prints the peak
resident set and CPU seconds per second of video.
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
from talkforge.core.counters import Counters
from talkforge.datasets.audio import read_audio
from talkforge.datasets.encode import VideoWriter
from talkforge.datasets.samples import cut_samples
from talkforge.datasets.video import open_video
from talkforge.tasks.extract import ClipFile, extract_clip
from talkforge.tasks.extractor import extractors
from talkforge.tasks.features import FeatureStore

SECONDS = (10, 60)
WANTED = ("faces-mediapipe", "i3d-k400-16f", "mobilenet-v2", "speech-envelope", "strip")


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


def main() -> None:
    """Makes the clips and measures each in a fresh process."""
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        for seconds in SECONDS:
            path = make_clip(Path(folder), seconds)
            subprocess.run([sys.executable, __file__, str(path)], check=True)


if __name__ == "__main__":
    main()
