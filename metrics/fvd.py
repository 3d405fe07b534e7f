"""Fréchet video distance: Fréchet distance between I3D logits of real and generated clips.

T. Unterthiner et al., "FVD: A new Metric for Video Generation", ICLR workshop 2019. Features are the 400 Kinetics
logits, the convention of the original code.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..core.errors import InputError, TooShort
from ..core.registry import resolve
from .base import FrechetMetric, MetricSpec
from .frechet import frechet_distance

WINDOW = 16
# What the network takes at least, see models/i3d.py.
MIN_FRAMES = 9
MIN_SAMPLES = 2
# Frames prepared at once: 256 take 150 MB.
FRAMES_AT_ONCE = 256


def preprocess(video: np.ndarray) -> np.ndarray:
    """Videos as the network wants them: shorter side to 224 (bilinear, no antialiasing), centre crop, [-1, 1].

    Args:
        video: uint8 (B, T, H, W, 3) RGB.

    Returns:
        float32 (B, 3, T, 224, 224).

    Raises:
        InputError: another type or shape.
    """
    _check(video, "video")
    frames = resolve("talkforge.models.i3d:prepare_frames")(video.reshape(-1, *video.shape[2:])).numpy()
    return frames.reshape(*video.shape[:2], *frames.shape[1:]).swapaxes(1, 2)


def video_fvd(real: np.ndarray, generated: np.ndarray, *, window: int | None = WINDOW) -> float:
    """Fréchet video distance between two sets of videos.

    Args:
        real: uint8 (B, T, H, W, 3) RGB.
        generated: the same, with its own B, T, H and W.
        window: frames of a sample: each video is cut into windows from its start, without overlap, and what does not
            fill the last one is left out. None takes each video whole.

    Returns:
        The distance, in squared logits. It falls with the number of samples: compare equal numbers only.

    Raises:
        InputError: another type or shape, a window under 9 frames, or fewer than 2 samples on a side.
        TooShort: videos shorter than the window, or than 9 frames.
        WeightsMissing, WeightsCorrupt: the network's weights.
    """
    sides = [_windows(real, window, "real"), _windows(generated, window, "generated")]
    forward = resolve("talkforge.models.i3d:load_i3d")().window_logits
    return frechet_distance(*(_logits(forward, windows) for windows in sides))


def _check(video: np.ndarray, name: str) -> None:
    if not isinstance(video, np.ndarray) or video.dtype != np.uint8:
        raise InputError(f"{name} must be a uint8 array, not {getattr(video, 'dtype', type(video).__name__)}")
    if video.ndim != 5 or video.shape[4] != 3 or 0 in video.shape:
        raise InputError(f"{name} must be (B, T, H, W, 3), not {video.shape}")


def _windows(video: np.ndarray, window: int | None, name: str) -> list[np.ndarray]:
    """(B, T, H, W, 3) cut into samples (window, H, W, 3), as views."""
    _check(video, name)
    frames = video.shape[1] if window is None else window
    if window is not None and window < MIN_FRAMES:
        raise InputError(f"a window has at least {MIN_FRAMES} frames, not {window}")
    if video.shape[1] < max(frames, MIN_FRAMES):
        raise TooShort(f"{name}: videos of {video.shape[1]} frames, at least {max(frames, MIN_FRAMES)} are needed")
    starts = range(0, video.shape[1] - frames + 1, frames)
    samples = [clip[start : start + frames] for clip in video for start in starts]
    if len(samples) < MIN_SAMPLES:
        raise InputError(f"{name}: {len(samples)} sample, a covariance needs at least {MIN_SAMPLES}")
    return samples


def _logits(forward: Callable[[np.ndarray], np.ndarray], windows: list[np.ndarray]) -> np.ndarray:
    """(N, 400) features of N samples (T, H, W, 3), some at a time so that memory does not grow with N."""
    at_once = max(1, FRAMES_AT_ONCE // len(windows[0]))
    parts = [windows[start : start + at_once] for start in range(0, len(windows), at_once)]
    return np.concatenate([forward(preprocess(np.stack(part))) for part in parts])


def _declare(variant: str, title: str, frames: str, *, default: bool) -> FrechetMetric:
    """The declaration of one frame rule; both share the network and the distance."""
    extractor = f"i3d-k400-{variant}"
    return FrechetMetric(
        spec=MetricSpec(
            id=f"fvd:{extractor}",
            title=title,
            unit="",
            higher_is_better=False,
            what="How far the generated clips' look and movement are from the real clips', in I3D logits.",
            formula="|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) over 400 Kinetics logits of I3D",
            source="Unterthiner et al. 2019; network: Carreira & Zisserman 2017, Kinetics-400 weights",
            generated=(extractor,),
            real=(extractor,),
            comparable_with_papers=True,
            measures=("picture", "flow"),
            why="network, logits and resize of the original; compare only equal crops, frame rules and sample sizes",
            protocol={"network": "i3d-k400", "features": "400 logits", "frames": frames, "resize": "224, bilinear"},
            clip_title="gap of mean features",
            default=default,
        ),
        column="logits",
    )


FVD_16F = _declare("16f", "FVD (16 frames)", "non-overlapping windows of 16 frames at 25 fps", default=True)
FVD_FULL = _declare("full", "FVD (whole clips)", "each clip whole, 9 to 512 frames at 25 fps", default=False)
METRICS = (FVD_16F, FVD_FULL)
