"""What the talking heads' presets tiny cost on a CPU: a training step, a generated second, the share of the networks.

    python benchmarks/talking.py [--system dice-talk|mf-etalk] [--steps 20] [--denoise 10]

Clips are the samples, built as `talkforge build` builds them; weights of generation and of DICE-Talk's embedder are
random, since the cost does not depend on what was learnt. A process of its own measures each part with one thread.
Training counts steps after every clip was read once: the network (forward, backward; the emotion loss where there is
one, by mini-Xception), the optimiser with its averages, and the rest, which is batches, checks and the log. Generation
counts what runs inside torch's modules, and the rest: the portrait's face, sound features, action units, files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from talkforge.benchmarks.evaluation import NetworkTime
from talkforge.benchmarks.lse import peak_memory
from talkforge.core.registry import resolve
from talkforge.datasets.samples import cut_samples
from talkforge.datasets.video import FPS
from talkforge.flows.generate import open_method
from talkforge.flows.train import systems
from talkforge.models.training.loop import Trainer
from talkforge.tasks.methods import TestItem
from talkforge.tests.dice_runs import STATES, write_embedder, write_run
from talkforge.tests.mf_runs import write_mf_run

WARM = 6  # steps in which every clip is decoded once; later ones find its pictures in memory
EXTRACTORS = "arkit52,au-blendshape-proxy,faces-mediapipe,whisper-tiny-en"
ALWAYS = 10**6  # steps
# By system the stages of its training, with their settings.
STAGES = {
    "dice-talk": {"vae": [f"model.vae.alone_steps={ALWAYS}"], "denoiser": ["model.vae.alone_steps=1"]},
    "mf-etalk": {
        "vae": ["stage=image", f"model.tiny_vae.alone_steps={ALWAYS}"],
        "image": ["stage=image", "model.tiny_vae.alone_steps=1"],
        "motion": ["stage=motion", "model.tiny_vae.alone_steps=1", "model.emotion.network=mini-xception"],
    },
}


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


def settings_of(system: str, stage: str, folder: Path, steps: int) -> Any:
    """Settings of a stage of so many steps, without samples and pages."""
    embedder = [f"embedder={folder / 'embedder'}"] if system == "dice-talk" else []
    common = [f"audio_column={STATES}", f"steps={steps}", "sample_every=0", "tensorboard=false"]
    return systems.get(system).settings("tiny", [*embedder, *common, *STAGES[system][stage]])


def measure_training(folder: Path, system: str, stage: str, steps: int) -> dict[str, Any]:
    """A step of one stage."""
    config = settings_of(system, stage, folder, steps + WARM)
    parts = resolve(systems.get(system).build)(config, folder / "build", 0, 1)
    network, rest = Timer(), Timer()
    trainer = Trainer(config, parts.model, network.wrap(parts.loss_fn), parts.batches, folder / f"{system}-{stage}")
    torch.Tensor.backward = network.wrap(torch.Tensor.backward)
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
    return {
        "cpu": whole / steps,
        "network": network.seconds / whole,
        "optimiser": rest.seconds / whole,
        "rest": 1 - (network.seconds + rest.seconds) / whole,
        "clips": config.batch_size,
        "peak_mb": peak_memory(),
    }


def write_weights(folder: Path, system: str) -> Path:
    """A run to generate with."""
    config: Any = systems.get(system).settings("tiny")
    run, data = folder / f"{system}-run", folder / "build"
    if system == "mf-etalk":
        return write_mf_run(run, config.model, data)
    return write_run(run, embedder=folder / "embedder", data=data, config=config.model)


def measure_generation(folder: Path, system: str, denoise: int) -> dict[str, Any]:
    """The second video of a run; the first one loads what there is to load."""
    maker = open_method(system, [f"steps={denoise}"], run=write_weights(folder, system)).make
    clips = sorted((folder / "samples").glob("*.mp4"))[:2]
    networks, seconds, frames = NetworkTime(), 0.0, 0
    for clip in clips:
        networks.seconds, begun = 0.0, time.process_time()
        facts = maker(TestItem(clip.stem, clip, clip, clip), folder / f"{system}-{clip.stem}.mp4")
        seconds, frames = time.process_time() - begun, (facts or {})["frames"]
    cost = seconds * FPS / frames
    return {"cpu": cost, "network": networks.seconds / seconds, "frames": frames, "peak_mb": peak_memory()}


def child(folder: Path, what: Sequence[object]) -> dict[str, Any]:
    """What a process of its own answers."""
    own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TALKFORGE_CACHE": str(folder / "cache")}
    command = [sys.executable, __file__, "child", str(folder), *map(str, what)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | own)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(folder: Path, system: str, stage: str, count: int) -> dict[str, Any]:
    """A child's measures; the stage may be `generate`."""
    torch.set_num_threads(1)
    if stage == "generate":
        return measure_generation(folder, system, count)
    return measure_training(folder, system, stage, count)


def report(folder: Path, system: str, steps: int, denoise: int) -> None:
    """Measures a system and prints it."""
    for stage in STAGES[system]:
        one = child(folder, (system, stage, steps))
        shares = ", ".join(f"{part} {one[part]:.0%}" for part in ("network", "optimiser", "rest"))
        print(
            f"{system} training, {stage:8} {one['cpu']:.2f} CPU-s a step of {one['clips']} clips: {shares}; "
            f"peak memory {one['peak_mb']:.0f} MB",
            flush=True,
        )
    made = child(folder, (system, "generate", denoise))
    print(
        f"{system} generation {made['cpu']:.2f} CPU-s a second of video, {denoise} steps: network "
        f"{made['network']:.0%}, rest {1 - made['network']:.0%}; peak memory {made['peak_mb']:.0f} MB",
        flush=True,
    )


def main() -> None:
    """Both systems or one, or a child's part."""
    if sys.argv[1:2] == ["child"]:
        folder, system, stage, count = sys.argv[2:]
        print(json.dumps(answer(Path(folder), system, stage, int(count))))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--system", choices=tuple(STAGES), action="append", help="both, if not given")
    parser.add_argument("--steps", type=int, default=20, help="of training that are counted")
    parser.add_argument("--denoise", type=int, default=10, help="steps of generation")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lay(Path(name))
        for system in options.system or STAGES:
            report(Path(name), system, options.steps, options.denoise)


if __name__ == "__main__":
    main()
