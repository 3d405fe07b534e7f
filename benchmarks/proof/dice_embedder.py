"""Evidence for DICE-Talk's emotion embedder and bank, on made-up people whose emotions are known.

    python benchmarks/proof/dice_embedder.py --out DIR [--seeds 5] [--steps 400]

For each seed: another synthetic corpus (`datasets/synthetic.py`), an embedder trained with samples of eq. 6 and one
with mu alone, and on the priors of people that neither has seen

(a) clustering strength by input modality, the paper's Table 5;
(b) linear probes for identity and emotion, with and without sampling;
(c) neighbours by emotion and intensity, and t-SNE pictures of two people;
(d) what a read-out of other people's faces says along straight lines between priors;
(e) an emotion bank on the priors, with a proxy in the place of the denoiser.

Each seed's results are kept below DIR and not made again: stop it and start it again at will. Writes results.json,
table.md and index.html. The folders seed-*/corpus may go once a seed has its priors.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from talkforge.core.provenance import environment, now, version
from talkforge.core.shards import write_json, write_text

sys.path.insert(0, str(Path(__file__).parent))
from dice_bank import measure_bank
from dice_measures import measure, measure_longer
from dice_page import Found, write_page
from dice_priors import KINDS, Plan, Priors, described, priors_of_seed, say


def flat(measured: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names to one level, joined by "|": numbers, texts, lists and nothing else."""
    found: dict[str, Any] = {}
    for name, value in measured.items():
        found |= flat(value, f"{prefix}{name}|") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the file holds, or what is made and then kept in it."""
    if not path.is_file():
        write_json(path, make())
    return json.loads(path.read_text(encoding="utf-8"))


def of_seed(plan: Plan, seed: int, folder: Path) -> dict[str, Any]:
    """All numbers of a seed by flat name."""
    priors = priors_of_seed(plan, seed, folder)
    gaussian = priors["gaussian"]
    say(f"seed {seed}: measures")
    measured = kept(folder / "measures.json", lambda: measure(priors))
    longer = kept(folder / "longer.json", lambda: measure_longer(priors["longer"]["test"]))
    bank = kept(folder / "bank.json", lambda: measure_bank(gaussian["train"], gaussian["test"], seed))
    seconds = {kind: float((folder / kind / "cpu_seconds").read_text(encoding="utf-8")) for kind in KINDS}
    return flat({**measured, **longer, "bank": bank, "cpu seconds": seconds})


def same_plan(out: Path, plan: Plan) -> None:
    """Refuses to mix results of other sizes. Raises SystemExit."""
    path, wanted = out / "plan.json", json.loads(json.dumps(described(plan, [])))
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise SystemExit(f"{out} holds results of other sizes; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, wanted)


def summary(plan: Plan, found: Found, seeds: Sequence[int]) -> dict[str, Any]:
    """results.json."""
    return {
        "schema_version": 1,
        "made": now(),
        "version": version(),
        "environment": environment(),
        **described(plan, seeds),
        "measures": {name: found.entry(name) for name in found.names()},
    }


def main() -> None:
    """Makes what is missing, then the summary and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--longer", type=int, default=Plan.longer, help="steps of the first training where it goes on")
    parser.add_argument("--takes", type=int, default=Plan.takes, help="clips of a person, emotion and level")
    parser.add_argument("--people", type=int, nargs=3, metavar=("TRAIN", "VAL", "TEST"))
    parser.add_argument("--audio", type=int, nargs=2, metavar=("STATES", "WIDTH"), help="size of the made-up states")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE", help="of the training")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = dict(zip(("train", "val", "test"), options.people or (), strict=False))
    sizes |= dict(zip(("states", "width"), options.audio or (), strict=False))
    lengths = {name: getattr(options, name) for name in ("steps", "longer", "takes")}
    plan = Plan(**lengths, sets=tuple(options.sets), **sizes)
    seeds = range(options.seeds)
    same_plan(options.out, plan)
    found = Found([of_seed(plan, seed, options.out / f"seed-{seed}") for seed in seeds])
    results = summary(plan, found, seeds)
    write_json(options.out / "results.json", results)
    first = {split: Priors.load(options.out / "seed-0" / f"gaussian-{split}.npz") for split in ("train", "test")}
    page, table = write_page(results, found, first)
    write_text(options.out / "index.html", page)
    write_text(options.out / "table.md", table)
    say(f"{options.out / 'index.html'}")


if __name__ == "__main__":
    main()
