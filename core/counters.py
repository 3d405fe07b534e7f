"""Exact counters of work done. They travel in results, so that a claim such as "one decode per clip" can be checked.

Each worker fills its own `Counters`; results are merged, so no locks are needed and no count is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Counters:
    """Work done: clips seen, files decoded, frames decoded, detector calls, samples per network, spilled bytes.

    `forwards` counts batch items (one frame, one window...) per network, so it does not depend on the batch size.
    """

    clips: int = 0
    decodes: int = 0
    frames_decoded: int = 0
    face_detections: int = 0
    forwards: Counter[str] = field(default_factory=Counter)
    temp_bytes: int = 0
    cache_hits: int = 0

    def merge(self, other: Counters) -> Counters:
        """Adds `other` to this one and returns this one."""
        for name in ("clips", "decodes", "frames_decoded", "face_detections", "temp_bytes", "cache_hits"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.forwards.update(other.forwards)
        return self

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, networks in alphabetical order."""
        return {
            "clips": self.clips,
            "decodes": self.decodes,
            "frames_decoded": self.frames_decoded,
            "face_detections": self.face_detections,
            "forwards": dict(sorted(self.forwards.items())),
            "temp_bytes": self.temp_bytes,
            "cache_hits": self.cache_hits,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Counters:
        """Inverse of `as_dict`."""
        return cls(**{**data, "forwards": Counter(data["forwards"])})
