"""From the image stage, or from another training of the temporal one, to a training of the temporal one.

Both stages have the same tensors. What MF-ETalk adds to Hallo does not learn in the image stage, so that one training
of it can start every row of the ablation: these tensors may be there on either side alone. In the temporal stage they
have learnt, and none may be missing or be left over.
"""

from __future__ import annotations

from pathlib import Path

from ..diffusion.base import read_tensors
from ..training.state import check_fit
from .config import Stage
from .model import MfEtalk


def added(name: str) -> bool:
    """Whether a tensor belongs to what MF-ETalk adds to Hallo."""
    return name.startswith("aus.") or ".fusion." in name


def start_from(model: MfEtalk, path: Path, stage: Stage) -> None:
    """Fills a model with weights of a training.

    Args:
        model: of the temporal stage.
        path: the weights.
        stage: of the training that they are of.

    Raises:
        WeightsError: the file cannot be read, or its names or shapes are not the model's.
    """
    own, given = model.state_dict(), read_tensors(path)
    known, used = own, given
    if stage == "image":
        known = {name: value for name, value in own.items() if not added(name) or name in given}
        used = {name: value for name, value in given.items() if not added(name) or name in own}
    check_fit(known, used, source=f"{path.parent.name}/{path.name}")
    model.load_state_dict(own | used)
