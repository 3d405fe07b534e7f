"""Several processes train one model together, as one process with their batches would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from talkforge.core.errors import MissingPackage
from talkforge.models.training.log import read_log
from talkforge.models.training.processes import start_processes
from talkforge.models.training.state import read_checkpoint
from talkforge.models.training.system import Loss
from talkforge.tests.models.toy_training import Endless, trainer
from torch import nn

# Two steps of two batches each, and on; a network whose halves learn one after the other, with other parts of the loss
# on each rank; then a batch of the second rank holds an infinity.
SCRIPT = """
import os, sys
from pathlib import Path
import torch
from talkforge.core.errors import TalkForgeError
from talkforge.tests.models.test_training_processes import DATA, HOW, Halves, halved, named
from talkforge.tests.models.toy_training import Endless, trainer
from torch import nn

rank, out = int(os.environ["RANK"]), Path(sys.argv[1])
for steps in (2, 4):
    torch.manual_seed(rank)  # the first rank's weights are everyone's
    made = trainer(out, net=nn.Linear(3, 1), batches=Endless(DATA[rank::2]), steps=steps, **HOW)
    if steps == 4:
        made.resume()
    made.fit()
assert made.processes.world_size == 2
given = [{"x": x, "rank": rank} for x in DATA[rank::2]]
halves = trainer(out / "halves", net=Halves(), batches=Endless(given), loss=halved, device="cpu", accumulate=2, steps=4)
halves.fit()
torch.save(halves.model.state_dict(), out / f"halves{rank}.pt")
bad = [{"clip_id": [f"clip {rank}"], "x": DATA[0] if rank == 0 else DATA[0] / 0}]
try:
    trainer(out / "bad", net=nn.Linear(3, 1), batches=Endless(bad), loss=named, device="cpu").fit()
except TalkForgeError as error:
    (out / f"rank{rank}.txt").write_text(str(error))
made.processes.close()
"""
DATA = list(torch.randn(8, 5, 3, generator=torch.Generator().manual_seed(0)))
HOW = {"loss": lambda model, batch: model(batch).square().mean() + 1, "device": "cpu", "accumulate": 2}


def named(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(batch["x"]).square().mean()


class Halves(nn.Module):
    """The first half learns for three batches, then the second one does: as a VAE and what reads it."""

    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 1)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        found = self.first(x)
        return (found - x).square().mean() if self.count <= 3 else self.second(found.detach()).square().mean()


def halved(model: nn.Module, batch: dict[str, torch.Tensor]) -> Loss:
    rank = float(batch["rank"])
    return Loss(model(batch["x"]), {f"rank {rank:.0f}": 5 + rank, "both": rank} if rank else {"both": rank})


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_twice_the_batches(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [*command, str(tmp_path / "script.py"), str(tmp_path / "two")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    one = trainer(tmp_path / "one", net=nn.Linear(3, 1), batches=Endless(DATA), steps=4, **{**HOW, "accumulate": 4})
    one.fit()
    losses = [[row["loss"] for row in read_log(tmp_path / name / "log.jsonl")] for name in ("one", "two")]
    assert len(losses[1]) == 4 and losses[1] == pytest.approx(losses[0], rel=1e-6)
    found = read_checkpoint(tmp_path / "two" / "checkpoints" / "step-00000004")
    torch.testing.assert_close(dict(found.model), dict(one.model.state_dict()))
    assert len(found.rng) == 2
    rows = read_log(tmp_path / "two" / "halves" / "log.jsonl")
    assert [row["parts"] for row in rows] == [{"both": 0.5, "rank 1": 6.0}] * 4
    ranks = [torch.load(tmp_path / "two" / f"halves{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(ranks[0], ranks[1], rtol=0, atol=0)
    for rank in range(2):
        assert "loss, grad_norm not finite; clips: clip 1 (" in (tmp_path / "two" / f"rank{rank}.txt").read_text()


def test_several_processes_need_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingPackage, match="accelerate"):
        start_processes("cpu")
