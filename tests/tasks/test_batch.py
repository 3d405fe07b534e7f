"""The views of a frame that an extractor may ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from talkforge.core.counters import Counters
from talkforge.datasets.video import open_video
from talkforge.tasks.crop import ALIGNED_TEMPLATE, key_points
from talkforge.tasks.extractor import Batch
from talkforge.tasks.faces import Landmarker


def test_the_aligned_face_lies_on_the_template(sample_clips: Path) -> None:
    """Found anew in the aligned picture, eyes and mouth are where the template wants them, up to the fit's residual."""
    with open_video(sample_clips / "jwp-intro-0.mp4") as frames, Landmarker(Counters()) as landmarker:
        frame = next(iter(frames))[1]
        face = landmarker.detect(frame, 0)[0]
    blank = np.zeros_like(frame)
    batch = Batch(np.arange(2), [frame, blank], [face, None], [0, 0], [None, None])
    picture, missing = batch.aligned
    assert missing is None
    assert picture is not None and picture.shape == (224, 224, 3) and picture.dtype == np.uint8
    with Landmarker(Counters()) as landmarker:
        again = landmarker.detect(picture, 0)[0]
    assert np.linalg.norm(key_points(again) - ALIGNED_TEMPLATE, axis=1).max() < 8
    assert batch.aligned[0] is picture, "made once, shared"
