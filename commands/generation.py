"""`talkforge generate`: videos from built-in methods."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..core.errors import EXIT_OK, EXIT_REJECTS
from ..core.terminal import say
from .base import FILE, FOLDER


@click.command()
@click.argument("method")
@click.option("--portrait", type=FILE, help="Image, or a clip whose first frame is taken.")
@click.option("--audio", type=FILE, help="Sound file, or a clip with sound.")
@click.option("--emotion", help="Name of the emotion, for methods that take one.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="MP4 file, or a folder for many items.")
@click.option("--testset", type=FILE, help="YAML with items (id, portrait, audio, video).")
@click.option("--real", type=FOLDER, help="Folder of real clips: each drives its own first frame.")
@click.option("--workers", type=click.IntRange(1), help="Threads.  [default: one a core]")
@click.option("--no-prefect", is_flag=True, help="Run in this process alone, without Prefect.")
@click.option("--strict", is_flag=True, help="Exit with 1 when any item gave no video.")
def generate(method: str, out: Path, workers: int | None, no_prefect: bool, strict: bool, **source: Any) -> None:
    """Makes videos with METHOD (copy, still, warp).

    \b
    talkforge generate warp --portrait face.png --audio speech.wav --out out.mp4
    talkforge generate still --real data/real --out runs/still
    """
    from ..flows.generate import generate as run_generate
    from ..flows.generate import generate_one, items_of

    if source["testset"] is None and source["real"] is None:
        generate_one(method, out, source["portrait"], source["audio"], source["emotion"])
        say(f"video: {out}")
        return
    from ..flows.engine import default_workers

    items = items_of(source["testset"], source["real"])
    done = run_generate(method, items, out, workers=workers or default_workers(), use_prefect=not no_prefect)
    failed = [one for one in done if one.reason]
    for one in failed:
        say(f"no video for {one.id}: {one.reason}: {one.message}")
    fresh = sum(one.fresh for one in done)
    say(f"{len(done) - len(failed)} of {len(done)} videos in {out}, {fresh} made now")
    sys.exit(EXIT_REJECTS if strict and failed else EXIT_OK)
