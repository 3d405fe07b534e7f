"""torchvision's compiled operators do not load beside every build of torch (a CPU build beside the usual torchvision).

Its Python files then fail to import because the operators have no schema. Libraries that import it here call none of
those operators, so empty schemas are enough. Operators once defined stay defined for the process.
"""

from __future__ import annotations

import re
import sys
import threading
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Fragments of operator libraries end with their object.
_KEPT: list[Any] = []
_ALONE = threading.Lock()  # operators are defined once


def forget(package: str) -> None:
    """Removes what a failed import left behind."""
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def make_torchvision_importable() -> None:
    """Defines empty schemas where torchvision is installed and fails for want of them."""
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return
    with _ALONE:
        try:
            import_module("torchvision")
        except RuntimeError:
            forget("torchvision")
            _define_schemas(Path(found.origin).with_name("_meta_registrations.py"))


def _define_schemas(registrations: Path) -> None:
    """Of all operators that a file of torchvision's registers."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    text = registrations.read_text(encoding="utf-8")
    for name in sorted(set(re.findall(r'register_(?:meta|fake)[(]"(?:torchvision::)?([a-z0-9_]+)"', text))):
        library.define(f"{name}() -> ()")
    _KEPT.append(library)
