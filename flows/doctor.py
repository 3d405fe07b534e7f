"""What can run on this machine, and if not why."""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

from ..core.asset_store import list_rows
from ..core.provenance import package_version, version
from ..core.weights import weights_store
from ..metrics.base import metrics
from .evaluate import missing_weights

NAMED = {
    "prefect": "flows and schedules",
    "torch": "all networks",
    "mediapipe": "faces",
    "av": "decoding and encoding",
    "pyarrow": "shards",
    "scipy": "statistics",
    "face-alignment": "68-point landmarks",
    "py-feat": "action units",
    "hsemotion": "home of the emotion networks",
    "h5py": "FER2013 weights",
    "dlib-bin": "identity",
    "silero-vad": "speech detection",
    "openai-whisper": "speech features",
    "decord": "decoding of trusted files",
    "syncnet-python": "lip-sync parity",
}


def examine() -> dict[str, Any]:
    """Packages, weights and metrics with their state, JSON-ready."""
    return {
        "talkforge": version(),
        "python": sys.version.split()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "device": _device(),
        "packages": [
            {
                "name": name,
                "version": package_version(name) or "not installed",
                "extra": _extra(name),
                "wanted_for": use,
            }
            for name, use in NAMED.items()
        ],
        "weights_folder": str(weights_store().root),
        "weights": [_weight(row) for row in list_rows(weights_store())],
        "metrics": [_metric(name) for name in metrics.names()],
    }


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _extra(name: str) -> str | None:
    """The extra that brings a package, None for what the base install holds."""
    for text in metadata.requires("talkforge") or []:
        requirement = Requirement(text)
        found = re.search(r'extra == "([^"]+)"', str(requirement.marker))
        if requirement.name == name and found:
            return found.group(1)
    return None


def _weight(row: dict[str, Any]) -> dict[str, Any]:
    way = {"present": None, "wrong_hash": f"talkforge weights pull {row['name']}"}.get(row["state"], _way(row))
    size = None if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f}"
    return {
        "name": row["name"],
        "state": row["state"],
        "sha256": row["sha256"],
        "sha256_ok": row["state"] == "present" and row["pinned"],
        "megabytes": size,
        "licence": row["licence"],
        "way": way,
    }


def _way(row: dict[str, Any]) -> str:
    pullable = row["pinned"] and any(kind != "local" for kind in row["sources"])
    return f"talkforge weights pull {row['name']}" if pullable else "by hand; see talkforge weights list --json"


def _metric(name: str) -> dict[str, Any]:
    why = missing_weights(metrics.get(name).spec.extractors)
    return {"id": name, "runs": why is None, "why_not": why}
