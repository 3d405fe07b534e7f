"""Temporary folders: what a killed process leaves goes with the next one that is made."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from talkforge.tasks.scratch import scratch_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from talkforge.tasks.scratch import scratch_folder
(scratch_folder(Path(sys.argv[1])) / "crop.mp4").write_bytes(b"half")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_nothing_for_long(tmp_path: Path) -> None:
    mine = scratch_folder(tmp_path / "tmp")
    elsewhere = tmp_path / "tmp" / "another-machine--1--x"
    elsewhere.mkdir()
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "tmp")], check=False)
    (left,) = (path for path in (tmp_path / "tmp").iterdir() if path not in (mine, elsewhere))
    assert (left / "crop.mp4").is_file() and left.name.startswith(platform.node())
    other = scratch_folder(tmp_path / "tmp")
    assert set((tmp_path / "tmp").iterdir()) == {mine, other, elsewhere}


def test_without_a_place_it_is_the_systems() -> None:
    folder = scratch_folder(None)
    assert folder.is_dir() and not list(folder.iterdir())
    folder.rmdir()
