"""A proxy for 17 facial action units from ARKit blendshapes: the table of formulas, as data.

Action units are what human FACS coders (Ekman & Friesen 1978) score; nobody coded these. A blendshape that a face
tracker fits to the same muscle's effect is the next best thing without a trained detector, so the table is one, under
the name of a proxy: values lie in 0..1, are no FACS intensities, and must not be set beside a detector's.

Where FACS and ARKit share a movement the formula is the mean of its two sides. Two blendshapes of MediaPipe's model
never leave 0 (cheekSquint and noseSneer, below 0.001 on every clip that was tried), so AU06 and AU09 are inferred from
their company: both parts of a Duchenne smile, and a raised upper lip under lowered brows. What covers the face misleads
the tracker and so the proxy: a hand over a weeping mouth reads as a smile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Formula:
    """A combination of blendshapes.

    Attributes:
        kind: "mean", "max", "min", or "difference" (first minus second).
        parts: names of blendshapes, or formulas.
    """

    kind: str
    parts: tuple[str | Formula, ...]

    def __str__(self) -> str:
        joined = " - " if self.kind == "difference" else ", "
        text = joined.join(str(part) for part in self.parts)
        return text if self.kind == "difference" or len(self.parts) == 1 else f"{self.kind}({text})"

    def value(self, coefficients: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """(..., len(names)) coefficients to (...)."""
        parts = [
            part.value(coefficients, names) if isinstance(part, Formula) else coefficients[..., names.index(part)]
            for part in self.parts
        ]
        if self.kind == "difference":
            return parts[0] - parts[1]
        return {"mean": np.mean, "max": np.max, "min": np.min}[self.kind](parts, axis=0)


@dataclass(frozen=True)
class ActionUnit:
    """One action unit and its stand-in.

    Attributes:
        number: of FACS.
        name, muscle: as FACS has them.
        formula: over ARKit names.
        source: "ARKit" where Apple's description of the blendshape is the action unit's movement, "ours" where not.
    """

    number: int
    name: str
    muscle: str
    formula: Formula
    source: str

    @property
    def column(self) -> str:
        """Column name, "AU01"."""
        return f"AU{self.number:02d}"


def _both(name: str) -> Formula:
    return Formula("mean", (f"{name}Left", f"{name}Right"))


def _one(name: str) -> Formula:
    return Formula("mean", (name,))


_PRESSED_OR_ROLLED = Formula("max", (_both("mouthPress"), Formula("mean", ("mouthRollLower", "mouthRollUpper"))))
_APART = Formula(
    "max", (_both("mouthLowerDown"), _both("mouthUpperUp"), Formula("difference", ("jawOpen", "mouthClose")))
)
_CHEEKS = Formula("min", (_both("eyeSquint"), _both("mouthSmile")))
_NOSE = Formula("min", (_both("mouthUpperUp"), _both("browDown")))

ACTION_UNITS = (
    ActionUnit(1, "inner brow raiser", "frontalis, pars medialis", _one("browInnerUp"), "ARKit"),
    ActionUnit(2, "outer brow raiser", "frontalis, pars lateralis", _both("browOuterUp"), "ARKit"),
    ActionUnit(4, "brow lowerer", "corrugator, depressor supercilii, procerus", _both("browDown"), "ARKit"),
    ActionUnit(5, "upper lid raiser", "levator palpebrae superioris", _both("eyeWide"), "ARKit"),
    ActionUnit(6, "cheek raiser", "orbicularis oculi, pars orbitalis", _CHEEKS, "ours"),
    ActionUnit(7, "lid tightener", "orbicularis oculi, pars palpebralis", _both("eyeSquint"), "ARKit"),
    ActionUnit(9, "nose wrinkler", "levator labii superioris alaeque nasi", _NOSE, "ours"),
    ActionUnit(10, "upper lip raiser", "levator labii superioris", _both("mouthUpperUp"), "ARKit"),
    ActionUnit(12, "lip corner puller", "zygomaticus major", _both("mouthSmile"), "ARKit"),
    ActionUnit(14, "dimpler", "buccinator", _both("mouthDimple"), "ARKit"),
    ActionUnit(15, "lip corner depressor", "depressor anguli oris", _both("mouthFrown"), "ARKit"),
    ActionUnit(17, "chin raiser", "mentalis", _one("mouthShrugLower"), "ARKit"),
    ActionUnit(20, "lip stretcher", "risorius with platysma", _both("mouthStretch"), "ARKit"),
    ActionUnit(23, "lip tightener", "orbicularis oris", _PRESSED_OR_ROLLED, "ours"),
    ActionUnit(25, "lips part", "depressor labii inferioris, or relaxed mentalis", _APART, "ours"),
    ActionUnit(26, "jaw drop", "masseter, temporalis relaxed", _one("jawOpen"), "ARKit"),
    ActionUnit(45, "blink", "levator palpebrae relaxed; orbicularis oculi", _both("eyeBlink"), "ARKit"),
)


def action_units(coefficients: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The 17 values by column name.

    Args:
        coefficients: (..., len(names)) blendshapes in 0..1.
        names: their ARKit names.

    Returns:
        float32 (...) each, within 0..1; NaN where a coefficient is NaN.
    """
    return {
        unit.column: np.clip(unit.formula.value(coefficients, names), 0.0, 1.0).astype(np.float32)
        for unit in ACTION_UNITS
    }
