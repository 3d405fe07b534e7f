"""Emotions by name, and the label orders of other projects, so that an integer is never taken for what it is not.

The same eight names stand in at least four orders in public code: label 1 is contempt in one and disgust in another.
Inside this package an emotion is always its MEAD name; integers are translated here, with the order named.
"""

from __future__ import annotations

from ..core.errors import ConfigError, InputError
from ..core.registry import did_you_mean

MEAD_EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")

ORDERS: dict[str, tuple[str, ...]] = {
    # Alphabetical, also the order of EAT's emotion prompts.
    "mead-names": MEAD_EMOTIONS,
    # MEAD's own frame lists (video_list.txt).
    "mead-lists": ("angry", "disgusted", "contempt", "fear", "happy", "sad", "surprised", "neutral"),
    # EmoAffectNet's softmax.
    "emoaffectnet": ("neutral", "happy", "sad", "surprised", "fear", "disgusted", "angry"),
    # HSEmotion's softmax, trained on AffectNet with and without contempt.
    "hsemotion-8": ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised"),
    "hsemotion-7": ("angry", "disgusted", "fear", "happy", "neutral", "sad", "surprised"),
}

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
