"""What follows finished runs, without work on clips: gates are judged, summary and history are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError
from ..metrics.base import metrics
from ..reports.gate_summary import render_summary
from ..reports.gates import Gate, Verdict, check_gates, judge, parse_gate
from .evaluate import Outcome
from .history import Commit, Kept, commit_of, read_history, record


@dataclass(frozen=True)
class Asked:
    """What is wanted of finished runs.

    Attributes:
        fail_if: gates, see `reports.gates`.
        allow_missing: a gate whose number is missing does not fail.
        summary: file that gets a Markdown summary at its end.
        history: file that gets an entry a run.
        commit: of the entries; None asks the job or the checkout.
    """

    fail_if: tuple[str, ...] = ()
    allow_missing: bool = False
    summary: Path | None = None
    history: Path | None = None
    commit: str | None = None

    def gates(self) -> list[Gate]:
        """The gates. Raises ConfigError for one that is none."""
        return [parse_gate(text) for text in dict.fromkeys(self.fail_if)]


@dataclass(frozen=True)
class Settled:
    """What became of it: for each run what its gates say, and its entry where there is a history."""

    verdicts: list[list[Verdict]]
    kept: list[Kept] | None

    @property
    def failed(self) -> bool:
        """Whether a gate failed."""
        return any(one.failed for verdicts in self.verdicts for one in verdicts)


def check(asked: Asked, runs: Mapping[str, Sequence[str]], outs: Sequence[Path]) -> None:
    """Refuses, before any work, what could not be done after it.

    Args:
        runs: method -> ids of the metrics that it will have.
        outs: their report folders, which hold nothing else.

    Raises:
        ConfigError: a gate that no run could answer, or a broken history. InputError: it cannot be read, or would lie
            in a report folder.
    """
    check_gates(asked.gates(), runs, metrics.names())
    for file in (asked.history, asked.summary):
        if file is not None and any(file.resolve().is_relative_to(out.resolve()) for out in outs):
            raise InputError(f"{file} would lie in a report folder, which is replaced", hint="give it another place")
    if asked.history is not None:
        read_history(asked.history)


def settle(asked: Asked, runs: Sequence[Outcome]) -> Settled:
    """Judges the runs, then writes what was asked for.

    Raises:
        InputError: two runs of one method. What `check` raises.
    """
    ids = {run.results["method"]: list(run.results["results"]) for run in runs}
    if len(ids) < len(runs):
        raise InputError("two runs carry the same method name", hint="give each run its own --method")
    check(asked, ids, [run.out for run in runs])
    gates, known = asked.gates(), metrics.names()
    verdicts = [judge(gates, run.results, known, allow_missing=asked.allow_missing) for run in runs]
    kept = None
    if asked.history is not None:
        kept = record(asked.history, runs, Commit(asked.commit) if asked.commit else commit_of(Path.cwd()))
    if asked.summary is not None:
        changed = None if kept is None else [one.changes for one in kept]
        _append(asked.summary, render_summary([run.results for run in runs], verdicts, changed))
    return Settled(verdicts, kept)


def _append(file: Path, text: str) -> None:
    """A blank line apart from what earlier steps of a job have written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"\n{text}" if stream.tell() else text)
