"""The training loop: it goes on to the bit, stops when told to, and names what breaks it."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from talkforge.core.errors import ConfigError, InputError, Interrupted, MissingPackage
from talkforge.models.training.log import StepLog, read_log
from talkforge.models.training.loop import NotFinite, Trainer
from talkforge.models.training.state import best_checkpoint, checkpoints_in, read_checkpoint
from talkforge.models.training.system import Loss
from talkforge.tests.models.toy_training import Clips, Endless, Net, loader, loss_fn, trainer
from torch import nn

FACTS = {"seconds", "clips_per_s", "memory_bytes"}  # what two runs of one training need not share


def learned(out: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in FACTS} for row in read_log(out / "log.jsonl")]


def weights(made: Trainer) -> dict[str, torch.Tensor]:
    assert made.ema is not None
    average = {f"ema.{name}": value for name, value in made.ema.averages.items()}
    return {name: value.clone() for name, value in {**made.model.state_dict(), **average}.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"accumulate": 3},
        {"precision": "bf16", "optimiser": {"name": "adam"}, "schedule": {"name": "cosine", "warmup": 5}},
        {"workers": 1, "steps": 23},
    ],
    ids=["plain", "accumulate", "bf16-adam-cosine", "worker"],
)
def test_a_training_that_goes_on_equals_one_that_never_stopped(how: dict[str, Any], tmp_path: Path) -> None:
    """Dropout, noise of two generators, running means, average, buckets: the losses are equal to the bit."""
    steps, stop = how.pop("steps", 40), 13  # in the middle of an epoch of six batches
    whole = trainer(tmp_path / "whole", steps=steps, **how)
    whole.fit()
    wish = {"on_checkpoint": lambda _: os.kill(os.getpid(), signal.SIGTERM)}
    with pytest.raises(Interrupted, match=f"SIGTERM ended the training at step {stop + 1} of {steps}"):
        trainer(tmp_path / "parts", steps=steps, checkpoint_every=stop, **wish, **how).fit()
    second = trainer(tmp_path / "parts", steps=steps, **how)
    torch.randn(7)  # what happens before is forgotten
    assert second.resume() == stop + 1
    second.fit()
    rows = learned(tmp_path / "parts")
    assert len(rows) == steps and rows == learned(tmp_path / "whole")
    assert len({row["loss"] for row in rows}) == steps
    assert same(weights(whole), weights(second))


def test_an_end_of_an_epoch_is_a_place_like_any_other(tmp_path: Path) -> None:
    trainer(tmp_path / "whole", steps=20).fit()
    for steps in (6, 12, 20):  # an epoch has six batches
        made = trainer(tmp_path / "parts", steps=steps)
        if steps > 6:
            assert made.resume() == steps - (6 if steps == 12 else 8)
        made.fit()
    assert learned(tmp_path / "parts") == learned(tmp_path / "whole")
    assert [row["epoch"] for row in learned(tmp_path / "whole")] == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 2


def test_it_learns(tmp_path: Path) -> None:
    made = trainer(tmp_path, steps=150, optimiser={"lr": 0.01})
    made.fit()
    losses = [row["loss"] for row in learned(tmp_path)]
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:10])


def test_each_line_of_the_log_says_what_the_step_was(tmp_path: Path) -> None:
    schedule = {"name": "linear", "warmup": 2}
    trainer(tmp_path, steps=5, log_every=2, optimiser={"lr": 1e-3, "clip": None}, schedule=schedule).fit()
    rows = read_log(tmp_path / "log.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 5]  # the last step is always there
    assert set(rows[0]) == FACTS | {"step", "epoch", "loss", "parts", "lr", "grad_norm"}
    assert [row["lr"] for row in rows] == pytest.approx([1e-3, 1e-3 / 3, 0])
    clips = [len(batch) for batch in loader().sampler]
    for row in rows:
        assert row["loss"] == pytest.approx(row["parts"]["error"] + 1e-4 * row["parts"]["decay"], rel=1e-5)
        assert round(row["clips_per_s"] * row["seconds"], 6) == clips[row["step"] - 1]
        assert row["memory_bytes"] > 10**7


def test_gradients_of_several_batches_are_those_of_one_large_batch(tmp_path: Path) -> None:
    """For a loss that is a mean over clips and layers that see each clip alone."""
    data = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    ends = []
    for count in (1, 4):
        torch.manual_seed(0)
        net = nn.Linear(3, 1)
        made = trainer(
            tmp_path / str(count),
            net=net,
            loss=lambda model, batch: model(batch).square().mean(),
            batches=Endless(data.chunk(count)),
            accumulate=count,
            steps=5,
        )
        made.fit()
        ends.append(
            (net.weight.detach().clone(), [row["loss"] for row in read_log(tmp_path / str(count) / "log.jsonl")])
        )
    torch.testing.assert_close(ends[0], ends[1])


def test_a_batch_that_is_not_finite_is_named_and_never_reaches_the_weights(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "good", steps=60)
    whole.fit()
    made = trainer(tmp_path / "bad", clips=Clips(bad=[9]), steps=60)
    with pytest.raises(NotFinite) as caught:
        made.fit()
    step = made.step
    assert f"step {step + 1}: loss, error, grad_norm not finite" in caught.value.message
    named = caught.value.message.split("clips: ")[1].split(", ")
    assert [f"toy/{cut.clip}" for cut in list(loader().sampler)[step]] == named and "toy/9" in named
    assert (caught.value.reason, caught.value.exit_code) == ("not_finite", 2)
    assert f"step-{step:08d}" in str(caught.value)
    assert learned(tmp_path / "bad") == learned(tmp_path / "good")[:step]
    # The state is that before the step: with the clip mended, the training goes on as the good one did.
    mended = trainer(tmp_path / "bad", steps=60)
    assert mended.resume() == step
    mended.fit()
    assert learned(tmp_path / "bad") == learned(tmp_path / "good")
    assert same(weights(mended), weights(whole))


def test_a_gradient_that_is_not_finite_stops_as_well(tmp_path: Path) -> None:
    """The root of 0 is 0 and has an infinite slope."""
    batches = Endless([torch.ones(2, 3), torch.zeros(2, 3)])
    made = trainer(
        tmp_path, net=nn.Linear(3, 1, bias=False), batches=batches, loss=lambda m, b: m(b).abs().sum().sqrt()
    )
    with pytest.raises(NotFinite, match="step 2: grad_norm not finite; clips: the batch names none"):
        made.fit()
    assert all(value.isfinite().all() for value in made.model.state_dict().values())
    assert [path.name for path in checkpoints_in(tmp_path / "checkpoints")] == ["step-00000001"]


def test_samples_and_validation_leave_no_trace(tmp_path: Path) -> None:
    seen: list[tuple[int, bool, torch.Tensor]] = []

    def sample(model: nn.Module, step: int) -> np.ndarray:
        seen.append((step, model.training, next(model.parameters()).detach().clone()))
        model(torch.randn(4, 5, 6))
        return np.full((4, 6, 3), step, np.uint8)

    trainer(tmp_path / "without", steps=25).fit()
    made = trainer(
        tmp_path / "with", steps=25, sample=sample, sample_every=10, validate=lambda model: float(torch.rand(()))
    )
    made.model.norm.eval()  # a frozen layer stays frozen
    made.fit()
    reference = trainer(tmp_path / "reference", steps=25)
    reference.model.norm.eval()
    reference.fit()
    assert learned(tmp_path / "with") == learned(tmp_path / "reference") != learned(tmp_path / "without")
    assert made.model.training and not made.model.norm.training
    assert [(step, mode) for step, mode, _ in seen] == [(10, False), (20, False), (25, False)]
    assert made.ema is not None and torch.equal(seen[-1][2], made.ema.averages["first.weight"])
    files = sorted((tmp_path / "with" / "samples").iterdir())
    assert [path.name for path in files] == ["step-00000010.png", "step-00000020.png", "step-00000025.png"]
    assert np.asarray(Image.open(files[1])).tolist() == np.full((4, 6, 3), 20).tolist()


def test_the_last_checkpoints_and_the_best_one_stay(tmp_path: Path) -> None:
    scores = iter([3.0, math.nan, 1.0, 2.0, 1.5, 1.0])
    made = trainer(tmp_path, steps=12, checkpoint_every=2, keep=2, validate=lambda model: next(scores))
    made.fit()
    folder = made.checkpoints
    assert [path.name for path in checkpoints_in(folder)] == ["step-00000006", "step-00000010", "step-00000012"]
    best = best_checkpoint(folder)
    assert best is not None and best.name == "step-00000006"
    assert read_checkpoint(best).facts["score"] == 1.0


def test_workers_end_with_the_training_and_leave_ctrl_c_to_it(tmp_path: Path) -> None:
    def interrupt(path: Path) -> None:
        if path.name != "step-00000002":
            return  # the one that the signal makes
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid or 0, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="SIGINT ended the training at step 3 of 40"):
        trainer(tmp_path, workers=1, checkpoint_every=2, on_checkpoint=interrupt).fit()
    assert multiprocessing.active_children() == []


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    """It comes while the first one's checkpoint is being looked at; that one is stored."""
    made = trainer(tmp_path, checkpoint_every=2, on_checkpoint=lambda _: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        made.fit()
    assert [path.name for path in checkpoints_in(made.checkpoints)] == ["step-00000002", "step-00000003"]


def test_signals_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside: list[Any] = []
    made = trainer(tmp_path, steps=1, on_checkpoint=lambda _: inside.append(signal.getsignal(signal.SIGTERM)))
    made.fit()
    assert signal.getsignal(signal.SIGTERM) is before is not inside[0]


def test_lines_behind_the_checkpoint_are_taken_out(tmp_path: Path) -> None:
    trainer(tmp_path, steps=6).fit()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 7, "loss": 0.0}) + "\n" + '{"step": 8, "lo')
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5, 6, 7]
    made = trainer(tmp_path, steps=8)
    made.resume()
    made.fit()
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert read_log(tmp_path / "log.jsonl")[6]["loss"] != 0.0


def test_a_damaged_log_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1\n{"step": 2}\n')
    with pytest.raises(InputError, match="not a log"):
        read_log(tmp_path / "log.jsonl")


def test_tensorboard_gets_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer(tmp_path, steps=3, tensorboard=True).fit()
    board = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss", "error", "lr", "grad_norm"} <= set(board.Tags()["scalars"])
    rows = read_log(tmp_path / "log.jsonl")
    assert [event.value for event in board.Scalars("loss")] == pytest.approx([row["loss"] for row in rows])
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    StepLog(tmp_path, 3, None).close()
    with pytest.raises(MissingPackage, match="tensorboard"):
        StepLog(tmp_path, 3, True)


def test_what_cannot_be_done_is_said_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Net cannot recompute"):
        trainer(tmp_path, gradient_checkpointing=True)
    with pytest.raises(ConfigError, match="no trainable parameter"):
        trainer(tmp_path, net=Net().requires_grad_(False))
    with pytest.raises(InputError, match="no batch"):
        trainer(tmp_path, batches=Endless([])).fit()
    with pytest.raises(InputError, match="no checkpoint"):
        trainer(tmp_path).resume()
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no GPU"):
            trainer(tmp_path, device="cuda")


def test_recomputing_is_switched_on_where_the_model_can(tmp_path: Path) -> None:
    """And changes nothing, dropout included: torch puts its generator back for the second forward pass."""

    class Thrifty(Net):
        thrifty = False

        def enable_gradient_checkpointing(self) -> None:
            self.thrifty = True

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            hidden = self.first(frames.mean(1))
            if self.thrifty:
                hidden = torch.utils.checkpoint.checkpoint(nn.functional.dropout, hidden, 0.3, use_reentrant=False)
            else:
                hidden = nn.functional.dropout(hidden, 0.3)
            return self.head(hidden)[:, 0]

    for wanted in (True, False):
        torch.manual_seed(0)
        made = trainer(tmp_path / str(wanted), net=Thrifty(), steps=6, gradient_checkpointing=wanted)
        made.fit()
        assert made.model.thrifty is wanted
    assert learned(tmp_path / "True") == learned(tmp_path / "False")


def test_bf16_computes_in_bf16_and_keeps_weights_in_float32(tmp_path: Path) -> None:
    kinds = []

    def loss(model: nn.Module, batch: Any) -> Any:
        kinds.append(model(batch["frames"]).dtype)
        return loss_fn(model, batch)

    made = trainer(tmp_path, steps=2, precision="bf16", loss=loss)
    made.fit()
    assert set(kinds) == {torch.bfloat16}
    assert {value.dtype for value in made.model.parameters()} == {torch.float32}


def test_a_place_in_other_data_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, steps=3).fit()
    with pytest.raises(ConfigError, match="other clips or settings"):
        trainer(tmp_path, steps=6, batches=loader(Clips(count=24))).resume()
    with pytest.raises(ConfigError, match="made with ema"):
        trainer(tmp_path, steps=6, ema=None).resume()


def test_of_several_batches_only_those_that_broke_are_named(tmp_path: Path) -> None:
    batches = [{"clip_id": [f"clip {k}"], "x": torch.full((1, 3), 1.0 if k != 4 else math.nan)} for k in range(6)]
    made = trainer(
        tmp_path,
        net=nn.Linear(3, 1),
        batches=Endless(batches),
        accumulate=3,
        loss=lambda m, b: m(b["x"]).square().mean(),
    )
    with pytest.raises(NotFinite, match=r"^step 2: loss, grad_norm not finite; clips: clip 4 \("):
        made.fit()


def test_a_part_that_only_some_batches_have_is_their_mean(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> Loss:
        parts = {"value": batch["x"].mean()}
        return Loss(model(batch["x"]).square().mean(), parts | ({"rare": batch["rare"]} if "rare" in batch else {}))

    batches = [{"x": torch.full((1, 3), float(k))} | ({"rare": 10.0 + k} if k % 2 else {}) for k in range(4)]
    how = {"net": nn.Linear(3, 1), "loss": loss, "accumulate": 2, "steps": 2}
    trainer(tmp_path, batches=Endless(batches), **how).fit()
    parts = [row["parts"] for row in read_log(tmp_path / "log.jsonl")]
    assert parts == [{"value": 0.5, "rare": 11.0}, {"value": 2.5, "rare": 13.0}]
