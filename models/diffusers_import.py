"""The one place that imports diffusers and transformers, which import torchvision where it is installed."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from ..core.errors import MissingPackage, extra_hint
from ..core.torchvision_guard import make_torchvision_importable


@cache
def import_extra(name: str) -> ModuleType:
    """`diffusers`, `transformers` or a module of theirs.

    Raises:
        MissingPackage: it is not installed.
    """
    make_torchvision_importable()
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.split(".")[0]
        if error.name != package:
            raise
        raise MissingPackage(f"{package} is not installed", hint=extra_hint("train")) from error
