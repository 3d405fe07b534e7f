"""The two stores of the toolkit: network weights, and sample clips to try things on.

Both are `AssetStore`s over a catalogue in `configs/`; names are unique across the two, so a command can take either.
"""

from __future__ import annotations

import os
from pathlib import Path

from .asset_store import AssetStore
from .errors import InputError
from .registry import did_you_mean

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def cache_root() -> Path:
    """The user's cache folder of TalkForge: `$XDG_CACHE_HOME/talkforge`, else `~/.cache/talkforge`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "talkforge"


def _root(variable: str, folder: str) -> Path:
    given = os.environ.get(variable)
    return Path(given).expanduser() if given else cache_root() / folder


def weights_store() -> AssetStore:
    """The store of network weights; its folder is $TALKFORGE_WEIGHTS, else `weights` in the cache folder."""
    return AssetStore.open(_root("TALKFORGE_WEIGHTS", "weights"), CONFIGS / "weights.yaml")


def samples_store() -> AssetStore:
    """The store of sample media; its folder is $TALKFORGE_SAMPLES, else `samples` in the cache folder."""
    return AssetStore.open(_root("TALKFORGE_SAMPLES", "samples"), CONFIGS / "samples.yaml")


def store_of(name: str) -> AssetStore:
    """The store that declares `name`.

    Raises:
        InputError: neither does; the hint names the closest entries.
    """
    stores = (weights_store(), samples_store())
    for store in stores:
        if name in store.names():
            return store
    known = [entry for store in stores for entry in store.names()]
    hint = did_you_mean(name, known) or "see: talkforge weights list"
    raise InputError(f"unknown weight or sample '{name}'", hint=hint)
