"""`talkforge generate` and what it needs: named priors of emotions, and test sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ..core.errors import EXIT_OK, EXIT_REJECTS
from ..core.terminal import listed, say, table
from .base import FILE, FOLDER, JSON, Group

BY = click.Choice(["emotion", "clip"])
SOURCES = ("portrait", "audio", "emotion", "emotion_video")


@click.command()
@click.argument("method")
@click.option("--portrait", type=FILE, help="Image, or a clip whose first frame is taken.")
@click.option("--audio", type=FILE, help="Sound file, or a clip with sound.")
@click.option("--emotion", help="Name of the emotion, for methods that take one.")
@click.option("--emotion-video", type=FILE, help="Clip whose emotion (mf-etalk: action units) is taken.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="MP4 file, or a folder for many items.")
@click.option("--testset", type=FILE, help="YAML with items (id, portrait, audio, video, emotion, emotion_video).")
@click.option("--real", type=FOLDER, help="Folder of real clips: each drives its own first frame.")
@click.option("--run", type=FOLDER, help="dice-talk, mf-etalk: folder of the training to generate with.")
@click.option(
    "--priors", type=click.Path(path_type=Path), help="dice-talk: file of named priors.  [default: the run's]"
)
@click.option("--seed", type=click.IntRange(0), help="Of the noise, for methods that have any.  [default: 0]")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any option of the method, e.g. steps=10.")
@click.option(
    "--workers", type=click.IntRange(1), help="Threads, on a CPU each with its own model.  [default: one a core]"
)
@click.option(
    "--runner",
    type=click.Choice(["local", "dask", "ray"]),
    default="local",
    show_default=True,
    help="Where items are made; on a cluster, methods that hold no network, as the published ones.",
)
@click.option("--address", help="Of a Dask or Ray cluster that is there already; its machines need the same paths.")
@click.option("--no-prefect", is_flag=True, help="Run in this process alone, without Prefect.")
@click.option("--strict", is_flag=True, help="Exit with 1 when any item gave no video.")
@click.option("--dry-run", is_flag=True, help="Say what would be made; write nothing.")
@JSON
def generate(
    method: str,
    out: Path,
    run: Path | None,
    priors: Path | None,
    seed: int | None,
    overrides: tuple[str, ...],
    workers: int | None,
    runner: Any,
    address: str | None,
    no_prefect: bool,
    strict: bool,
    dry_run: bool,
    as_json: bool,
    **source: Any,
) -> None:
    """Makes videos with METHOD: copy, still, warp, dice-talk, mf-etalk, a published one, or an adapter file.

    Published methods run by their own programs: talkforge methods list.

    \b
    talkforge generate warp --portrait face.png --audio speech.wav --out out.mp4
    talkforge generate still --real data/real --out runs/still
    talkforge generate dice-talk --run runs/dice --portrait face.png --audio speech.wav --emotion happy --out out.mp4
    talkforge generate dice-talk --run runs/dice --testset set.yaml --out videos --set guidance.conditions=4
    talkforge generate mf-etalk --run runs/mf --portrait face.png --audio speech.wav --out out.mp4 --set au.AU12=0.5
    talkforge generate sadtalker --testset set.yaml --out videos/sadtalker --set seconds=1800
    talkforge generate ./mine.yaml --testset set.yaml --out videos/mine --runner ray --address host:6379
    """
    from ..flows.generate import generate as run_generate
    from ..flows.generate import generate_one, item_of, items_of, open_method, plan, takes_both

    if source["emotion"] and source["emotion_video"] and not takes_both(method):
        raise click.UsageError("give --emotion or --emotion-video, not both")
    one = source["testset"] is None and source["real"] is None
    if not one:
        _only_sets(source)
    given = [source[name] for name in SOURCES]
    items = [item_of(method, out, *given)] if one else items_of(source["testset"], source["real"])
    opened = open_method(method, overrides, run=run, priors=priors, seed=seed)
    if dry_run:
        _show(plan(method, items, out, opened, many=not one), as_json)
        return
    if one:
        video = generate_one(method, out, *given, opened=opened)
        if as_json:
            click.echo(json.dumps({"video": str(out), **video.facts, "made_with": dict(opened.facts)}, indent=2))
        if video.facts.get("faces_in_portrait", 1) > 1:
            say(f"the portrait shows {video.facts['faces_in_portrait']} faces; the largest one was taken")
        say(f"video: {out}" if video.fresh else f"nothing to do: {out} is up to date")
        return
    from ..flows.engine import default_workers

    threads = workers or default_workers()
    where = {"use_prefect": not no_prefect, "runner": runner, "address": address}
    done = run_generate(method, items, out, workers=threads, opened=opened, **where)
    failed = [item for item in done if item.reason]
    for item in failed:
        say(f"no video for {item.id}: {item.reason}: {item.message}")
    fresh = sum(item.fresh for item in done)
    say(f"{len(done) - len(failed)} of {len(done)} videos in {out}, {fresh} made now")
    sys.exit(EXIT_REJECTS if strict and failed else EXIT_OK)


def _only_sets(source: dict[str, Any]) -> None:
    """Refuses what is said of one video where there are many."""
    for name in SOURCES:
        if source[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} is for one video; the items of --testset and --real say their own")


def _show(planned: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(planned, indent=2))
        return
    click.echo(f"{planned['method']}, version {planned['version']}")
    for name, value in planned["made_with"].items():
        click.echo(f"  {name.replace('_', ' ')}: {', '.join(value) if isinstance(value, list) else value}")
    table(planned["items"], ["id", "seconds", "emotion", "state", "video"])


@click.command()
@click.option("--run", type=FOLDER, required=True, help="Folder of a training of dice-talk or of dice-embedder.")
@click.option("--data", type=FOLDER, help="Folder of a build.  [default: the one that the run was trained on]")
@click.option("--split", default="train", show_default=True, help="Of the build.")
@click.option(
    "--by", type=click.Choice(["emotion", "clip"]), default="emotion", show_default=True, help="A prior for each."
)
@click.option(
    "--out",
    type=FILE,
    help="Gets the priors, .npz, for generate --priors. Needed with --by clip and for a run of dice-embedder.  "
    "[default: priors.npz in the run]",
)
@JSON
def priors(run: Path, data: Path | None, split: str, by: Any, out: Path | None, as_json: bool) -> None:
    """Writes the mean emotion prior of each emotion of a build, so that emotions have names in generation.

    \b
    talkforge priors --run runs/dice
    talkforge priors --run runs/embedder --out emotions.npz
    talkforge priors --run runs/dice --data built/hdtf --by clip --out clips.npz
    """
    from ..flows.priors import make_priors

    made = make_priors(run, data, out, split=split, by=by)
    if as_json:
        click.echo(json.dumps(made, indent=2))
    else:
        table([{"prior": name, "clips": count} for name, count in made["clips"].items()], ["prior", "clips"])
    say(f"priors: {made['out']}")


@click.group(cls=Group)
def testset() -> None:
    """Test sets: which portrait, sound and emotion each video is made from.

    \b
    talkforge testset make --protocol mead-dice --data built/mead --out sets/mead_dice.yaml
    """


@testset.command()
@click.option("--protocol", required=True, help="mead-dice, hdtf or out-of-domain; see above.")
@click.option("--data", type=FOLDER, help="Folder of a build; out-of-domain: of clips that show --emotions.")
@click.option("--split", default="test", show_default=True, help="Of the build; people whom no training has seen.")
@click.option(
    "--limit", type=click.IntRange(1), help="Clips of each person and emotion, of each video, or of each portrait."
)
@click.option("--count", type=click.IntRange(1), help="hdtf: videos, out-of-domain: portraits; drawn by --seed.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of what is drawn.")
@click.option("--portraits", type=FOLDER, help="out-of-domain: images, or clips whose first frame is taken.")
@click.option("--sounds", type=FOLDER, help="out-of-domain: sound files, or clips with sound.")
@click.option("--emotions", help="out-of-domain: comma-separated; a video for each.  [default: none is asked for]")
@click.option("--out", type=FILE, required=True, help="YAML file; its paths are relative to it.")
def make(protocol: str, data: Path | None, out: Path, emotions: str | None, **options: Any) -> None:
    """Writes the test set of a protocol, frozen by the sha256 of its files.

    \b
    mead-dice      a person's neutral portrait, with each of the same person's emotional clips
    hdtf           each clip drives its own first frame, and is its own emotion
    out-of-domain  portraits crossed with sounds; there are no real clips
    \b
    talkforge testset make --protocol mead-dice --data built/mead --out sets/mead_dice.yaml
    talkforge testset make --protocol hdtf --data built/hdtf --count 20 --out sets/hdtf.yaml
    talkforge testset make --protocol out-of-domain --portraits faces --sounds speech --limit 1 --out sets/ood.yaml
    """
    from ..flows.testsets import make_testset

    count = make_testset(protocol, data, out, emotions=tuple(listed(emotions) or ()), **options)
    say(f"{count} items: {out}")
