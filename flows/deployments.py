"""Flows that a schedule, a Prefect worker or a person at Prefect's page starts: typed parameters, small results.

The one module that imports Prefect when it is imported: Prefect finds flows as decorated functions of a module
(`talkforge.flows.deployments.build_dataset` in `prefect.yaml`). Nothing else of the package imports it at its head.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow, get_run_logger
from pydantic import BaseModel

from ..core.config import Config
from ..core.errors import ConfigError
from .benchmark import benchmark as run_benchmark
from .build_dataset import BuildConfig
from .build_dataset import build as run_build
from .evaluate import EvalConfig
from .evaluate import evaluate as run_evaluate

C = TypeVar("C", bound=Config)
# A disk or server that was away for a moment: what was finished stays, so the second try does the rest.
OPTIONS: dict[str, Any] = {"persist_result": False, "retries": 1, "retry_delay_seconds": 10}
PLACES = ("root", "out", "annotations", "real", "generated", "manifest", "against", "cache")


class Done(BaseModel):
    """What a scheduled run came to.

    Attributes:
        out: the folder.
        fresh: what was made now: shards of a build, evaluations else. 0 says that all was up to date.
        rejected: clips that are rejects.
    """

    out: Path
    fresh: int
    rejected: int


@flow(name="talkforge-build", **OPTIONS)
def build_dataset(config: BuildConfig | Path) -> Done:
    """`talkforge build`: what is new or changed since the last run, by digest.

    Args:
        config: all settings, or a YAML file with them that is read at each run. Paths are absolute.
    """
    outcome = run_build(settled(BuildConfig, config))
    done = Done(out=outcome.out, fresh=outcome.fresh, rejected=outcome.rejected)
    counts, word = outcome.info["counts"], "up to date" if outcome.done else f"{done.fresh} shards built now"
    _log(f"{counts['clips']} clips: {counts['rows']} rows, {counts['rejects']} rejects; {word}: {done.out}")
    return done


@flow(name="talkforge-eval", **OPTIONS)
def evaluate(config: EvalConfig | Path) -> Done:
    """`talkforge eval`: nothing is done while inputs, settings and weights are those of the last run.

    Args:
        config: all settings, or a YAML file with them that is read at each run. Paths are absolute.
    """
    outcome = run_evaluate(settled(EvalConfig, config))
    done = Done(out=outcome.out, fresh=int(outcome.fresh), rejected=outcome.rejected)
    _log(f"{'evaluated now' if outcome.fresh else 'up to date'}: {done.out}")
    return done


@flow(name="talkforge-benchmark", **OPTIONS)
def benchmark(real: Path, out: Path, methods: list[str], metrics: list[str] | None = None) -> Done:
    """`talkforge benchmark`: built-in methods over one folder of real clips.

    Args:
        real, out: folders, absolute.
        methods: ids of built-in methods.
        metrics: ids; the default set when left out.
    """
    config = settled(EvalConfig, EvalConfig.load(real=real, generated=out, out=out, method="-", metrics=metrics))
    made = run_benchmark(config, methods)
    outcomes = made.outcomes.values()
    done = Done(out=out, fresh=sum(one.fresh for one in outcomes), rejected=sum(one.rejected for one in outcomes))
    _log(f"{done.fresh} of {len(outcomes)} methods evaluated now: {out}")
    return done


def settled(kind: type[C], config: C | Path) -> C:
    """The settings, read from their file where it is one.

    Raises:
        ConfigError: the file cannot be used, or a path is relative: a schedule has no folder that it starts from.
    """
    found = kind.load(config) if isinstance(config, Path) else config
    places = {name: getattr(found, name) for name in PLACES if name in kind.model_fields}
    for name, place in places.items():
        if place is not None and not place.is_absolute():
            raise ConfigError(f"{name}: {place} is relative", hint="a scheduled run needs absolute paths")
    return found


def _log(text: str) -> None:
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger] = get_run_logger()
    logger.info(text)
