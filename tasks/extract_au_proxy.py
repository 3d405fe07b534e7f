"""Extractor `au-blendshape-proxy`: 17 action units from the stored blendshapes, by the table in `action_units`.

A frame without a face is null in every column.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from .action_units import ACTION_UNITS, action_units
from .extract_arkit import BLENDSHAPE_NAMES
from .extractor import ExtractorSpec, series
from .faces import LANDMARKER
from .seen_faces import SeenFaces

AU_PROXY = ExtractorSpec(
    id="au-blendshape-proxy",
    version=1,
    target="talkforge.tasks.extract_au_proxy:ActionUnitProxy",
    columns={unit.column: series() for unit in ACTION_UNITS} | {"n_frames": pa.int32(), "n_missing": pa.int32()},
    what="17 action units estimated from blendshapes, 0..1 (a proxy: no FACS coding, no trained detector)",
    faces=True,
    weights=(LANDMARKER,),
    params={"formulas": {unit.column: str(unit.formula) for unit in ACTION_UNITS}},
)
EXTRACTORS = (AU_PROXY,)


class ActionUnitProxy(SeenFaces):
    """The action units of one clip."""

    def finish(self) -> dict[str, Any]:
        """The row. Raises NoFace when no frame shows a face."""
        self.check()
        units = action_units(np.stack([face.blendshapes for face in self.faces]), BLENDSHAPE_NAMES)
        columns: dict[str, Any] = {name: self.spread_series(values) for name, values in units.items()}
        return columns | {"n_frames": self.count, "n_missing": self.missing}
