"""What DICE-Talk's preset tiny costs on a CPU: a training step and a generated second, and the share of the networks.

    python benchmarks/dice_talk.py [--steps 20] [--denoise 10]

Clips are the samples, built as `talkforge build` builds them; the embedder is untrained, since its cost does not depend
on what it learnt. A process of its own measures each part with one thread. Training counts steps after every clip was
read once: the network (forward, backward), the optimiser with its averages, and the rest, which is batches, checks and
the log. Generation counts what runs inside torch's modules, and the rest: the portrait's face, sound features, files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from talkforge.benchmarks.evaluation import NetworkTime
from talkforge.benchmarks.lse import peak_memory
from talkforge.core.registry import resolve
from talkforge.datasets.samples import cut_samples
from talkforge.datasets.video import FPS
from talkforge.flows.train import systems
from talkforge.models.training.loop import Trainer
from talkforge.tasks.generate_dice_talk import DiceTalkOptions, open_method
from talkforge.tasks.methods import TestItem
from talkforge.tests.dice_runs import STATES, write_embedder, write_run

WARM = 6  # steps in which every clip is decoded once; later ones find its pictures in memory
EXTRACTORS = "arkit52,whisper-tiny-en"


class Timer:
    """CPU seconds inside calls that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*given: Any, **named: Any) -> Any:
            begun = time.process_time()
            try:
                return work(*given, **named)
            finally:
                self.seconds += time.process_time() - begun

        return timed


def lay(folder: Path) -> None:
    """Samples, their build, and an untrained embedder."""
    cut_samples(folder / "samples")
    command = ["-m", "talkforge.cli", "build", "--dataset", "folder", "--root", "samples", "--out", "build"]
    options = ["--split", "none", "--extractors", EXTRACTORS, "--cache", "cache", "--no-prefect"]
    subprocess.run([sys.executable, *command, *options], cwd=folder, check=True, capture_output=True)
    write_embedder(folder / "embedder", data=folder / "build")


def measure_training(folder: Path, steps: int) -> dict[str, Any]:
    """A step of the VAE alone, and of the denoiser."""
    found: dict[str, Any] = {}
    for kind, alone in (("vae", steps + WARM), ("denoiser", 1)):
        spec = systems.get("dice-talk")
        texts = [f"embedder={folder / 'embedder'}", f"audio_column={STATES}", f"model.vae.alone_steps={alone}"]
        config = spec.settings("tiny", [*texts, f"steps={steps + WARM}", "sample_every=0", "tensorboard=false"])
        parts = resolve(spec.build)(config, folder / "build", 0, 1)
        network, rest = Timer(), Timer()
        trainer = Trainer(config, parts.model, network.wrap(parts.loss_fn), parts.batches, folder / kind)
        torch.Tensor.backward, kept = network.wrap(torch.Tensor.backward), torch.Tensor.backward
        trainer.optimiser.step = rest.wrap(trainer.optimiser.step)  # pyright: ignore[reportAttributeAccessIssue]
        if trainer.ema:
            trainer.ema.update = rest.wrap(trainer.ema.update)
        for _ in range(WARM):
            trainer.train_step()
        network.seconds = rest.seconds = 0.0
        begun = time.process_time()
        for _ in range(steps):
            trainer.train_step()
        whole = time.process_time() - begun
        torch.Tensor.backward = kept
        found[kind] = {
            "cpu": whole / steps,
            "network": network.seconds / whole,
            "optimiser": rest.seconds / whole,
            "rest": 1 - (network.seconds + rest.seconds) / whole,
            "clips": config.batch_size,  # pyright: ignore[reportAttributeAccessIssue]
        }
    return found | {"peak_mb": peak_memory()}


def measure_generation(folder: Path, denoise: int) -> dict[str, Any]:
    """The second video of a run; the first one loads what there is to load."""
    config = systems.get("dice-talk").settings("tiny").model  # pyright: ignore[reportAttributeAccessIssue]
    run = write_run(folder / "run", embedder=folder / "embedder", data=folder / "build", config=config)
    maker = open_method(DiceTalkOptions(run=run, steps=denoise)).make
    clips = sorted((folder / "samples").glob("*.mp4"))[:2]
    networks, seconds, frames = NetworkTime(), 0.0, 0
    for clip in clips:
        networks.seconds, begun = 0.0, time.process_time()
        frames = maker(TestItem(clip.stem, clip, clip, clip), folder / f"{clip.stem}.mp4")["frames"]
        seconds = time.process_time() - begun
    cost = seconds * FPS / frames
    return {"cpu": cost, "network": networks.seconds / seconds, "frames": frames, "peak_mb": peak_memory()}


def child(what: str, folder: Path, count: int) -> dict[str, Any]:
    """What a process of its own answers."""
    own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TALKFORGE_CACHE": str(folder / "cache")}
    command = [sys.executable, __file__, "child", what, str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | own)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Both parts, or a child's."""
    if sys.argv[1:2] == ["child"]:
        torch.set_num_threads(1)
        work = {"training": measure_training, "generation": measure_generation}[sys.argv[2]]
        print(json.dumps(work(Path(sys.argv[3]), int(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="of training that are counted")
    parser.add_argument("--denoise", type=int, default=10, help="steps of generation")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lay(Path(name))
        found = child("training", Path(name), options.steps)
        for kind in ("vae", "denoiser"):
            one = found[kind]
            shares = ", ".join(f"{part} {one[part]:.0%}" for part in ("network", "optimiser", "rest"))
            print(f"training, {kind:8} {one['cpu']:.2f} CPU-s a step of {one['clips']} clips: {shares}")
        print(f"training, peak memory {found['peak_mb']:.0f} MB")
        made = child("generation", Path(name), options.denoise)
        print(
            f"generation {made['cpu']:.2f} CPU-s a second of video, {options.denoise} steps: network "
            f"{made['network']:.0%}, rest {1 - made['network']:.0%}; peak memory {made['peak_mb']:.0f} MB"
        )


if __name__ == "__main__":
    main()
