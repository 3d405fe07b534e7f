"""What is read of a build's action units, beside what a training makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from talkforge.tasks.talking_aus import neutral_faces
from talkforge.tests.tasks.mf_build import mf_row, track_of, write_mf_build


def test_the_mean_neutral_face_is_over_people(tmp_path: Path) -> None:
    """Three clips of one person and one of another: each person counts once."""
    rows = [mf_row(k, 10, identity="often") for k in range(3)] + [mf_row(3, 10, identity="once", emotion="neutral")]
    found = neutral_faces(write_mf_build(tmp_path / "build", rows), "train", "au-blendshape-proxy")
    often = np.median(np.concatenate([track_of(k, 10) for k in range(3)]), 0)
    once = track_of(3, 10).mean(0)
    np.testing.assert_allclose(np.stack(found.faces), [often, once], rtol=1e-5)
    np.testing.assert_allclose(found.average(), (often + once) / 2, rtol=1e-5)
    assert (found.labelled, found.estimated) == (1, 1)


def test_people_without_a_face_do_not_count(tmp_path: Path) -> None:
    gone = {name: [None] * 10 for name in mf_row(0, 10) if name.startswith("au_blendshape_proxy_AU")}
    rows = [mf_row(0, 10, identity="seen"), mf_row(1, 10, identity="unseen", **gone)]
    found = neutral_faces(write_mf_build(tmp_path / "build", rows), "train", "au-blendshape-proxy")
    assert found.of_clip["toy/001"] is None and (found.labelled, found.estimated) == (0, 1)
    np.testing.assert_allclose(found.average(), np.median(track_of(0, 10), 0), rtol=1e-5)
