"""Emotions by name, and the label orders of other projects, so that an integer is never taken for what it is not.

The same eight names stand in at least four orders in public code: label 1 is contempt in one and disgust in another.
Inside this package an emotion is always its MEAD name; integers are translated here, with the order named.
"""

from __future__ import annotations

import re

from ..core.emotions import MEAD_EMOTIONS, ORDERS
from ..core.errors import ConfigError, InputError
from ..core.registry import did_you_mean

# Nouns, adjectives and the three letters that EAT's file names use.
_ALIASES = {
    "angry": ("anger", "ang"),
    "contempt": ("contemptuous", "con"),
    "disgusted": ("disgust", "dis"),
    "fear": ("fearful", "afraid", "fea"),
    "happy": ("happiness", "joy", "hap"),
    "neutral": ("neu",),
    "sad": ("sadness",),
    "surprised": ("surprise", "sur"),
}
_NAMES = {alias: name for name, aliases in _ALIASES.items() for alias in (name, *aliases)}

_MEAD_IDENTITY = re.compile(r"[MW]\d{3}")


def emotion_name(text: str) -> str:
    """The MEAD name for a name or a usual variant of it ("Anger", "happiness", "sur").

    Raises:
        InputError: a number (its order is unknown), or no known emotion; the hint names close ones.
    """
    key = text.strip().lower()
    if key in _NAMES:
        return _NAMES[key]
    if key.lstrip("+-").isdigit():
        raise InputError(
            f"'{text}' is a number, not an emotion", hint=f"orders of labels differ; known: {', '.join(ORDERS)}"
        )
    raise InputError(f"unknown emotion '{text}'", hint=emotion_hint(text))


def emotion_hint(text: str) -> str:
    """What the unknown name may have meant."""
    key = text.strip().lower()
    if key in _NAMES:
        return f"did you mean {_NAMES[key]}?"
    return did_you_mean(key, MEAD_EMOTIONS) or f"known: {', '.join(MEAD_EMOTIONS)}"


def emotion_at(order: str, label: int) -> str:
    """The MEAD name of an integer label in a named order.

    Raises:
        ConfigError: no such order.
        InputError: the order has no such label.
    """
    if order not in ORDERS:
        raise ConfigError(f"unknown label order '{order}'", hint=f"known: {', '.join(ORDERS)}")
    names = ORDERS[order]
    if not 0 <= label < len(names):
        raise InputError(f"label {label} is not in the order '{order}' of {len(names)} emotions")
    return names[label]


def labels_of_name(name: str) -> dict[str, str]:
    """`emotion` and `identity` as far as a path says them, such as `M003/happy/001` or `M003_front_happy_3_001`.

    A path is split at `/`, `_` and `-`. One of the eight MEAD names as a whole part (whatever its case) is the emotion,
    a MEAD identity (M or W and three digits) the identity. Other words for an emotion are not taken, since "joy" or
    "con" are parts of names too; nor is a path that names two emotions, or two identities.
    """
    parts = re.split("[/_-]", name)
    found = {
        "emotion": {part.lower() for part in parts} & {*MEAD_EMOTIONS},
        "identity": {part for part in parts if _MEAD_IDENTITY.fullmatch(part)},
    }
    return {label: values.pop() for label, values in found.items() if len(values) == 1}
