"""What published methods there are, and what of them is missing on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..tasks.adapter_setup import methods_folder, requirements, setup_of
from ..tasks.adapters import Adapter, path_of, shipped


def list_methods() -> list[dict[str, Any]]:
    """A row a published method, JSON-ready; starts none of their programs."""
    return [_row(name) for name in shipped()]


def _row(name: str) -> dict[str, Any]:
    adapter = Adapter.read(path_of(name))
    missing = [one.name for one in requirements(name, adapter, setup_of(name), quick=True) if one.state == "missing"]
    return {
        "name": name,
        "condition": adapter.condition,
        "licence": adapter.licence.code,
        "ready": not missing,
        "missing": missing,
        "repository": adapter.repository,
    }


def check_method(name: str) -> dict[str, Any]:
    """What a method needs and what of it is there, JSON-ready; `name` may be an adapter file.

    Raises:
        ConfigError: no such method, or its adapter or the local settings cannot be used.
    """
    path = path_of(name)
    adapter, setup = Adapter.read(path), setup_of(path.stem)
    rows = [asdict(one) for one in requirements(path.stem, adapter, setup)]
    return {
        "name": path.stem,
        "what": adapter.what,
        "ready": all(row["state"] != "missing" for row in rows),
        "folder": str(methods_folder()),
        "settings": str(setup.source),
        "repository": adapter.repository,
        "licence": adapter.licence.model_dump(),
        "runtime": adapter.runtime.model_dump(),
        "requirements": rows,
        "unknown": adapter.unknown,
        "notes": adapter.notes,
    }


TABLE_HEAD = "| method | condition | licence of the code | of the weights | GPU memory | time a second of video |"


def methods_table() -> str:
    """The shipped methods as a Markdown table, for docs/methods.md."""
    return "\n".join(
        [TABLE_HEAD, "|---|---|---|---|---|---|", *(_line(name, path) for name, path in shipped().items())]
    )


def _line(name: str, path: Path) -> str:
    adapter = Adapter.read(path)
    memory, seconds = adapter.needs.gpu_memory_gb, adapter.runtime.seconds_per_second
    cells = [
        f"`{name}` ([{adapter.name}]({adapter.repository}))",
        adapter.condition,
        adapter.licence.code or "?",
        adapter.licence.weights or "?",
        f"{memory:g} GB" if memory else "?",
        f"{seconds:g} s ({adapter.runtime.source})" if seconds else "?",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(methods_table())
