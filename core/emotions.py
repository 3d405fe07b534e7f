"""Emotions by name, and the orders in which datasets and networks number them.

Inside this package an emotion is always its MEAD name; which integer or which column it is depends on the order.
"""

from __future__ import annotations

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
    # FER2013 and the networks trained on it, mini-Xception among them.
    "fer2013": ("angry", "disgusted", "fear", "happy", "sad", "surprised", "neutral"),
}
