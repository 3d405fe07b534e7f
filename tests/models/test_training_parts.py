"""Optimiser, rates, clipping, average, loader and counting, each against a closed form or an independent reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from talkforge.core.errors import ConfigError
from talkforge.models.training.config import CHANGEABLE, EmaConfig, OptimiserConfig, ScheduleConfig, TrainConfig
from talkforge.models.training.counting import count_parameters
from talkforge.models.training.ema import Ema
from talkforge.models.training.feed import Feed, to_device
from talkforge.models.training.loader import Loader
from talkforge.models.training.optimiser import build_optimiser, clip_gradients, rate_factor, set_rate, trainable
from talkforge.models.training.system import SystemSpec
from talkforge.tests.models.toy_training import Draws, Endless, loader
from torch import nn


def test_rates_follow_their_closed_forms() -> None:
    def at(step: int, **how: Any) -> float:
        return rate_factor(ScheduleConfig(**how), step, 110)

    assert [at(step, warmup=10) for step in (1, 5, 10, 11, 110)] == [0.1, 0.5, 1, 1, 1]
    assert [at(step, name="linear", warmup=10) for step in (10, 35, 60, 110, 500)] == pytest.approx(
        [1, 0.75, 0.5, 0, 0]
    )
    assert [at(step, name="cosine", warmup=10) for step in (5, 10, 60, 110)] == pytest.approx([0.5, 1, 0.5, 0])
    assert at(35, name="cosine", warmup=10) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert at(60, name="cosine", warmup=10, final=0.2) == pytest.approx(0.6)
    assert at(1) == at(109) == 1.0
    assert at(110, name="linear", final=0.25) == pytest.approx(0.25)
    assert at(110, name="linear", warmup=200) == pytest.approx(0.55)  # the warm-up outlasts the training


def test_the_cosine_is_that_of_torch() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=40, eta_min=0.1)
    for step in range(1, 41):
        optimiser.step()
        reference.step()
        mine = rate_factor(ScheduleConfig(name="cosine", final=0.1), step, 40)
        assert mine == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-9)


def test_adam_and_adamw_differ_in_where_weights_decay() -> None:
    """With a gradient of 0 AdamW still shrinks a weight by lr x decay; Adam's first step is lr in size."""
    for name, expected in [("adamw", 2 * (1 - 0.1 * 0.5)), ("adam", 2 - 0.1)]:
        layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(layer.weight, 2.0)
        optimiser = build_optimiser(OptimiserConfig(name=name, weight_decay=0.5), layer)  # type: ignore[arg-type]
        set_rate(optimiser, 0.1)
        layer.weight.grad = torch.zeros(1, 1)
        optimiser.step()
        assert layer.weight.item() == pytest.approx(expected, rel=1e-5)


def test_frozen_parameters_are_left_out() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    net[0].requires_grad_(False)
    assert list(trainable(net)) == ["1.weight", "1.bias"]
    assert len(build_optimiser(OptimiserConfig(), net).param_groups[0]["params"]) == 2


def test_gradients_are_scaled_together() -> None:
    one, other = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    one.grad, other.grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip_gradients([one, other], None) == pytest.approx(5)
    assert one.grad.tolist() == [3.0, 0.0]
    assert clip_gradients([one, other], 1.0) == pytest.approx(5)
    torch.testing.assert_close(torch.cat([one.grad, other.grad]), torch.tensor([0.6, 0.0, 0.8]), rtol=1e-5, atol=0)
    assert clip_gradients([one, other], 1.5) == pytest.approx(1, rel=1e-5)
    assert other.grad.item() == pytest.approx(0.8, rel=1e-5)
    other.grad.fill_(math.nan)
    assert math.isnan(clip_gradients([one, other], 1.0))


def test_the_average_has_its_closed_form() -> None:
    """Weights that jump from 0 to 1: after n updates 1 - d^n; they stay untouched."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    ema = Ema(layer, EmaConfig(decay=0.9, warmup=False))
    nn.init.ones_(layer.weight)
    for count in range(1, 30):
        ema.update(layer)
        assert ema.averages["weight"].item() == pytest.approx(1 - 0.9**count, abs=1e-6)
    assert layer.weight.item() == 1.0


def test_the_warm_up_of_the_average_forgets_the_first_weights() -> None:
    """d = min(decay, (1 + t) / (10 + t)): the product of the first n is 10! / ((n + 2) ... (n + 10)) for decay 1."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    ema = Ema(layer, EmaConfig(decay=0.95, warmup=True))
    nn.init.ones_(layer.weight)
    assert ema.decay() == pytest.approx(2 / 11)
    for _ in range(20):
        ema.update(layer)
    left = math.prod(t + 1 for t in range(1, 21)) / math.prod(10 + t for t in range(1, 21))
    assert 1 - ema.averages["weight"].item() == pytest.approx(left, abs=1e-6)
    for _ in range(200):
        ema.update(layer)
    assert ema.decay() == 0.95


def test_averages_are_put_in_and_out_and_stored_under_the_model_s_names() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net[0].bias.requires_grad_(False)
    ema = Ema(net, EmaConfig(decay=0.5, warmup=False))
    with torch.no_grad():
        net[0].weight += 1
    ema.update(net)
    own = net[0].weight.detach().clone()
    with pytest.raises(RuntimeError), ema.applied(net):
        torch.testing.assert_close(net[0].weight, own - 0.5)
        raise RuntimeError
    assert torch.equal(net[0].weight, own)
    state = ema.state(net)
    assert state.keys() == net.state_dict().keys()
    torch.testing.assert_close(state["0.weight"], own - 0.5)
    again = Ema(net, EmaConfig(decay=0.5, warmup=False))
    again.load(state, ema.updates)
    assert torch.equal(again.averages["0.weight"], ema.averages["0.weight"]) and again.updates == 1


def test_the_average_of_weights_in_half_precision_is_kept_in_float32() -> None:
    layer = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.ones_(layer.weight)
    ema = Ema(layer, EmaConfig(decay=0.999, warmup=False))
    nn.init.constant_(layer.weight, 2.0)
    for _ in range(3):
        ema.update(layer)  # in bfloat16 1 + 0.001 would stay 1
    assert ema.averages["weight"].item() == pytest.approx(2 - 0.999**3, abs=1e-6)
    assert ema.state(layer)["weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_in_the_middle_of_an_epoch(workers: int) -> None:
    def ids(made: Any) -> list[list[str]]:
        return [batch["clip_id"] for batch in made]

    whole = loader(workers=workers)
    whole.set_epoch(1)
    everything = ids(whole)
    begun = iter(loader(workers=workers))
    next(begun)
    first = loader(workers=workers)
    first.set_epoch(1)
    second = loader(workers=workers)
    second.load_state_dict(first.state_dict(batches_done=4))
    second.set_epoch(1)
    assert ids(second) == everything[4:] and len(everything) == 6
    assert ids(second) == everything
    assert ids(loader()) != everything


def test_a_loader_draws_nothing_from_the_training_s_generator() -> None:
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    list(loader())
    assert torch.equal(torch.randn(3), expected)


def test_workers_draw_apart_from_epoch_to_epoch_and_alike_in_each_run() -> None:
    def draws(epoch: int) -> list[float]:
        made = loader(workers=1)
        one = Loader(Draws(), made.sampler, torch.stack, workers=1)
        one.set_epoch(epoch)
        return [float(batch[0]) for batch in one]

    assert draws(0) == draws(0) != draws(1)


def test_a_feed_counts_epochs_and_batches() -> None:
    feed = Feed(Endless("abc"))
    given = []
    for _ in range(7):
        given.append((feed.next(), feed.epoch, feed.done))
    assert given[2:5] == [("c", 0, 3), ("a", 1, 1), ("b", 1, 2)]
    again = Feed(Endless("abc"))
    again.load(feed.state((1, 2)))
    assert again.next() == "c"
    for expected in "abca":
        again.rest()
        assert again.next() == expected


def test_batches_are_moved_with_their_structure() -> None:
    import numpy as np

    batch = {"x": np.ones((2, 3), np.float16), "ok": np.array([True]), "id": ["a", "b"], "pair": (torch.zeros(1), 4)}
    moved = to_device(batch | {"words": np.array(["a"])}, torch.device("meta"))
    assert (moved["x"].device.type, moved["x"].dtype, moved["ok"].dtype) == ("meta", torch.float16, torch.bool)
    assert moved["id"] == ["a", "b"] and moved["pair"][0].is_meta and moved["pair"][1] == 4
    assert isinstance(moved["pair"], tuple) and isinstance(moved["words"], np.ndarray)


def test_parameters_are_counted_without_being_made() -> None:
    wide = 10**7  # 400 TB in float32
    assert count_parameters({"wide": lambda: nn.Linear(wide, wide), "small": lambda: nn.Linear(2, 3)}) == {
        "wide": wide * wide + wide,
        "small": 9,
    }


def test_presets_and_overrides_make_settings() -> None:
    presets = {"tiny": {"steps": 5, "ema": None, "optimiser": {"lr": 0.5}}}
    spec = SystemSpec("toy", "a toy", f"{TrainConfig.__module__}:TrainConfig", "", "", presets)
    made = spec.settings("tiny", ["optimiser.clip=null", "schedule.name=cosine"])
    assert (made.steps, made.ema, made.optimiser.lr, made.optimiser.clip) == (5, None, 0.5, None)
    assert made.schedule.name == "cosine"
    assert spec.settings("tiny", ["ema.decay=0.5"]).ema == EmaConfig(decay=0.5)
    with pytest.raises(ConfigError, match=r"no preset 'tinny'.*did you mean tiny"):
        spec.settings("tinny")
    with pytest.raises(ConfigError, match=r"unknown key 'optimiser\.lrr'.*did you mean lr"):
        spec.settings("tiny", ["optimiser.lrr=1"])
    with pytest.raises(ConfigError, match="steps"):
        spec.settings("tiny", ["steps=0"])
    assert set(TrainConfig.model_fields) >= CHANGEABLE
