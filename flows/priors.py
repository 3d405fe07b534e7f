"""Mean priors of emotions by a training's embedder, for `talkforge priors`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ..core.lock import owned
from ..tasks.dice_priors import write_run_priors
from ..tasks.trained import system_of


def make_priors(
    run: Path,
    build: Path | None = None,
    out: Path | None = None,
    *,
    split: str = "train",
    by: Literal["emotion", "clip"] = "emotion",
) -> dict[str, Any]:
    """See `tasks.dice_priors.write_run_priors`; JSON-ready.

    Raises:
        OutputBusy: `run` is being trained.
        InputError: `by` "clip", or a run of dice-embedder, without `out`.
        What `write_run_priors` raises.
    """
    system_of(run)  # before a lock is laid beside what is no training
    with owned(run):
        path, counts = write_run_priors(run, build, out, split=split, by=by)
    return {"out": str(path), "by": by, "split": split, "clips": counts}
