"""The reference decoder of these tests: an ffmpeg binary of its own, another version than the library's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """Path of the binary."""
    return pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg carries the reference decoder").get_ffmpeg_exe()


@pytest.fixture
def ffmpeg_frames(ffmpeg):
    """Function (path, width, height, filters) -> uint8 RGB (T, H, W, 3) decoded by the reference."""

    def decode(path: Path, width: int, height: int, filters: str = "null") -> np.ndarray:
        command = [ffmpeg, "-v", "error", "-i", str(path), "-vf", filters, "-fps_mode", "passthrough", "-an"]
        raw = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
        return np.frombuffer(raw.stdout, np.uint8).reshape(-1, height, width, 3)

    return decode
