"""Checkpoints: whole or absent, back to the bit, and refused with reasons where they do not fit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from talkforge.core.errors import InputError, WeightsError
from talkforge.models.training.rng import rng_state, seed_everything, set_rng_state, untouched
from talkforge.models.training.state import (
    Checkpoint,
    best_checkpoint,
    checkpoints_in,
    clear_temporary,
    prune,
    read_checkpoint,
    save_checkpoint,
)
from talkforge.tests.models.toy_training import Net, trainer

CPU = torch.device("cpu")


def stored(folder: Path, step: int, score: float | None = None) -> Path:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7), "c": torch.tensor([True, False])}
    facts = {"feed": {}, "ema_updates": None, "score": score}
    return save_checkpoint(folder, Checkpoint(step, tensors, None, {}, [rng_state(CPU)], facts))


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    path = stored(tmp_path, 12, 0.5)
    found = read_checkpoint(path)
    assert path.name == "step-00000012" and found.step == 12 and found.ema is None
    assert found.facts == {"feed": {}, "ema_updates": None, "score": 0.5}
    assert torch.equal(found.model["a"], torch.arange(6.0).reshape(2, 3))
    assert (found.model["b"].item(), found.model["c"].tolist()) == (7, [True, False])
    assert found.model["b"].dtype == torch.int64


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    made = trainer(tmp_path, steps=2)
    made.fit()
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".safetensors", ".json", ".jsonl"}
    folder = made.checkpoints / "step-00000002"
    assert sorted(load_file(folder / "optimiser.safetensors"))[:2] == ["exp_avg.first.bias", "exp_avg.first.weight"]
    assert set(load_file(folder / "ema.safetensors")) == set(made.model.state_dict())
    json.loads((folder / "state.json").read_text())


def test_tied_weights_and_parts_of_tensors_are_stored_whole(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {"own": whole, "tied": whole, "column": whole[:, 1], "row": whole[2]}
    facts = {"feed": {}, "ema_updates": None, "score": None}
    path = save_checkpoint(tmp_path, Checkpoint(1, tensors, None, {}, [rng_state(CPU)], facts))
    found = read_checkpoint(path).model
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_generators_go_on_where_they_were() -> None:
    def draws() -> list[float]:
        numbers = [random.gauss(0, 1), random.random(), float(np.random.normal()), float(np.random.rand())]
        return [*numbers, *torch.randn(3).tolist()]

    seed_everything(3)
    random.gauss(0, 1), np.random.normal()  # both keep a second value back
    tensors, data = rng_state(CPU)
    data = json.loads(json.dumps(data))
    first = draws()
    assert draws() != first
    set_rng_state(tensors, data, CPU)
    assert draws() == first
    set_rng_state(tensors, data, CPU)
    with untouched(CPU):
        draws()
    assert draws() == first
    seed_everything(3)
    zero = draws()
    seed_everything(3, rank=1)
    assert not set(draws()) & set(zero)


def test_a_checkpoint_of_other_sizes_names_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    trainer(tmp_path, steps=2).fit()
    with pytest.raises(WeightsError) as caught:
        trainer(tmp_path, net=Net(hidden=16)).resume()
    said = caught.value.message
    assert said.startswith("step-00000002/model.safetensors: ")
    assert "first.weight is (8, 6) in the checkpoint and (16, 6) in the model" in said
    assert "and 4 more" in said
    assert "other sizes" in (caught.value.hint or "")


def test_a_checkpoint_of_other_parts_names_them(tmp_path: Path) -> None:
    trainer(tmp_path, steps=2).fit()
    net = Net()
    net.tail = net.head
    del net.head
    with pytest.raises(
        WeightsError, match=r"no tail.weight in the checkpoint; no tail.bias .*; no head.bias in the model; and 1 more"
    ):
        trainer(tmp_path, net=net).resume()


def test_optimiser_state_of_other_parameters_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, steps=2).fit()
    net = Net()
    net.head.requires_grad_(False)
    with pytest.raises(WeightsError, match=r"optimiser.safetensors: no exp_avg.head.bias in the model"):
        trainer(tmp_path, net=net).resume()


@pytest.mark.parametrize("name", ["state.json", "model.safetensors", "rng.safetensors"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    trainer(tmp_path, steps=2).fit()
    path = tmp_path / "checkpoints" / "step-00000002" / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises((InputError, WeightsError), match="step-00000002"):
        trainer(tmp_path).resume()


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path, 1)
    facts = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps(facts | {"version": 2}))
    with pytest.raises(InputError, match="another version"):
        read_checkpoint(path)


def test_pruning_spares_the_last_ones_and_the_best(tmp_path: Path) -> None:
    for step, score in enumerate([None, 2.0, 0.5, 0.5, 3.0]):
        stored(tmp_path, step, score)
    stored(tmp_path, 100_000_000, 0.7)  # nine digits sort behind eight
    (tmp_path / "step-best").mkdir()
    prune(tmp_path, 2)
    names = [path.name for path in checkpoints_in(tmp_path)]
    assert names == ["step-00000002", "step-00000004", "step-100000000"]
    assert best_checkpoint(tmp_path) == tmp_path / "step-00000002"
    assert not list(tmp_path.glob(".tmp-*"))


# Forks a training for each line that it reads: torch is loaded once, and never used before the fork.
SCRIPT = """
import os, sys
from pathlib import Path
from talkforge.tests.models.toy_training import trainer
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        made = trainer(Path(sys.argv[1]), steps=100000, checkpoint_every=1, keep=2)
        if made.checkpoints.is_dir():
            made.resume()
        made.fit()
    print(child, flush=True)
    os.waitpid(child, 0)
"""


def test_a_kill_at_any_moment_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    """A checkpoint at every step, so that most kills hit one that is being written or removed."""
    rng, folder, steps = random.Random(0), tmp_path / "checkpoints", [0]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        for _ in range(6):
            parent.stdin.write("go\n")
            parent.stdin.flush()
            child, deadline = int(parent.stdout.readline()), time.monotonic() + 60
            while _last(folder) <= steps[-1] and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            while _alive(child):
                time.sleep(0.002)
            for path in checkpoints_in(folder):
                assert read_checkpoint(path).step == int(path.name[5:])
            steps.append(trainer(tmp_path, steps=100000).resume())
    assert sorted(set(steps)) == steps  # each went on from where the one before was killed
    clear_temporary(folder)
    assert not list(folder.glob(".*"))


def _last(folder: Path) -> int:
    found = checkpoints_in(folder)
    return int(found[-1].name[5:]) if found else 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
