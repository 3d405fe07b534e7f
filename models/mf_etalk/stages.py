"""From the image stage, or from another training of the temporal one, to a training of the temporal one.

Both stages have the same tensors. What MF-ETalk adds to Hallo does not learn in the image stage, so that one training
of it can start every row of the ablation: these tensors may be there on either side alone.
"""

from __future__ import annotations

from pathlib import Path

from ..diffusion.base import read_tensors
from ..training.state import check_fit
from .model import MfEtalk


def added(name: str) -> bool:
    """Whether a tensor belongs to what MF-ETalk adds to Hallo."""
    return name.startswith("aus.") or ".fusion." in name


def start_from(model: MfEtalk, path: Path) -> None:
    """Fills a model with weights of a training of either stage.

    Raises:
        WeightsError: the file cannot be read, or its names or shapes are not the model's.
    """
    own, given = model.state_dict(), read_tensors(path)
    known = {name: value for name, value in own.items() if not added(name) or name in given}
    used = {name: value for name, value in given.items() if not added(name) or name in own}
    check_fit(known, used, source=f"{path.parent.name}/{path.name}")
    model.load_state_dict(own | used)
