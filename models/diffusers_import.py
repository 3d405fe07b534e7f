"""The one place that imports diffusers and transformers.

Both import torchvision where it is installed, and torchvision's compiled operators do not load beside every build of
torch (a CPU build of torch beside the usual torchvision, say): its Python files then fail because the operators have no
schema. Nothing here calls those operators, so empty schemas are enough.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

from ..core.errors import MissingPackage

# Fragments of operator libraries end with their object.
_KEPT: list[torch.library.Library] = []


def _make_torchvision_importable() -> None:
    """Defines empty schemas where torchvision is installed and fails for want of them."""
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return
    try:
        import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        text = Path(found.origin).with_name("_meta_registrations.py").read_text(encoding="utf-8")
        for name in sorted(set(re.findall(r'register_(?:meta|fake)[(]"(?:torchvision::)?([a-z0-9_]+)"', text))):
            library.define(f"{name}() -> ()")
        _KEPT.append(library)


@cache
def import_extra(name: str) -> ModuleType:
    """`diffusers`, `transformers` or a module of theirs.

    Raises:
        MissingPackage: it is not installed.
    """
    _make_torchvision_importable()
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.split(".")[0]
        if error.name != package:
            raise
        raise MissingPackage(f"{package} is not installed", hint="pip install 'talkforge[train]'") from error
