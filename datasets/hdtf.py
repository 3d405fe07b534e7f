"""HDTF: speeches from public videos; raw videos with annotated segments and face windows, or clips cut from them.

A raw video gives one clip for each annotated segment. Names of cut clips as they are around: `WDA_Name_000.mp4`
(cropped), `Radio11_0.mp4` (cut, cropped or not), `RD_Radio10_0_clip_0.mp4` (a piece of a cropped one).

Scale of a window. It is in pixels of a picture of the annotated height ("resolution"); a file of another height gets it
in proportion. Three annotated heights contradict their own windows (1134 pixels in a picture of 720) and one is 0, so
for those the scale is unknown. Such a clip has no window, like the 15 segments for which none is annotated: its crop
comes from its landmarks, as that of any dataset without windows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from ..core.errors import InputError, MediaError, NoAudioTrack
from ..core.records import Clip, Reject, safe_id
from ..core.registry import did_you_mean
from .audio import find_audio
from .containers import printable
from .hdtf_annotations import AnnotatedVideo, Segment, find_annotations, read_annotations, speaker
from .reader import Listing, ReaderSpec, VideoFile, finish, media_reject, parted, path_id, reject, walk_videos
from .source import VideoInfo
from .video import probe

DATASET = "hdtf"
WHOLE = (0.0, 0.0, 1.0, 1.0)
HDTF = ReaderSpec(
    id=DATASET,
    version=1,
    what="HDTF: speeches in high resolution, annotated segments and face windows",
    target="talkforge.datasets.hdtf:read",
    layout="<Name>.mp4 with annotation files, or cut clips such as WDA_<Name>_000.mp4",
    signs=(r"(^|/)(RD|WDA|WRA)_\w[^/]*\.(mp4|txt)$", r"(^|/)Radio\d+(_\d+)?\.mp4$"),
)
READERS = (HDTF,)

_PUBLIC = re.compile(r"(RD|WDA|WRA)_(.+?)_(\d{3})")
_PIECE = re.compile(r"(RD|WDA|WRA)_(.+?)_(\d+)_clip_(\d+)")
_CUT = re.compile(r"(?:(RD|WDA|WRA)_)?(.+?)_(\d{1,2})")
_NO_SOUND = "the public download script fetches the picture only; fetch the video again with its sound"


@dataclass(frozen=True)
class _Named:
    """What a file's name says.

    Attributes:
        group: None where the name has none and no annotation tells it.
        name: of the video.
        number: of the segment, None for a raw video.
        piece: of the segment, None for a whole one.
        cropped: whether the name says so; None where both occur under it.
    """

    group: str | None
    name: str
    number: int | None = None
    piece: int | None = None
    cropped: bool | None = False


class _Annotation:
    """Annotated videos by "<group>_<name>" and by their name alone."""

    def __init__(self, videos: dict[str, AnnotatedVideo]) -> None:
        self.videos = videos
        self.groups = {video.name: video.group for video in videos.values()}

    def of(self, item: _Named) -> AnnotatedVideo | None:
        return self.videos.get(f"{item.group}_{item.name}")


def read(root: Path, *, annotations: Path | None = None) -> Listing:
    """Lists raw and cut videos of HDTF.

    Args:
        annotations: folder of the annotation files; by default in `root`, or its `HDTF_dataset` or `annotations`.

    Raises:
        InputError: no folder, nothing of HDTF in it, raw videos without annotation files, or a broken one.
    """
    root = Path(root)
    unread: list[Reject] = []
    files = list(walk_videos(root, DATASET, unread))
    place = find_annotations(root, Path(annotations) if annotations else None)
    known = _Annotation(read_annotations(place) if place else {})
    named = [(file, _read_name(file.stem, known)) for file in files]
    if not place and not any(item for _, item in named):
        _no_annotations(root, files)
    # Raw videos first: where a segment is there twice, the clip cut from it is the copy.
    named.sort(key=lambda pair: (pair[1] is None or pair[1].number is not None, pair[0].where))
    clips, rejects = parted(
        found for file, item in named for found in (_clips(file, item, known) if item else [_unknown(file, known)])
    )
    clips, copies = _without_pieces(clips)
    return finish(HDTF, root, clips, rejects + copies + unread, _notes(known.videos, clips))


def _no_annotations(root: Path, files: list[VideoFile]) -> None:
    """Raises for raw videos without times; silent where the folder is another dataset's."""
    if any(re.search(sign, file.where) for file in files for sign in HDTF.signs):
        raise InputError(
            f"{printable(root)} holds raw videos of HDTF and no annotation files: their segments are unknown",
            hint="give the folder of WDA_annotion_time.txt and others with --annotations",
        )


def _read_name(stem: str, known: _Annotation) -> _Named | None:
    """What the name says, or None where it is nothing of HDTF."""
    if stem in known.videos:
        return _Named(known.videos[stem].group, known.videos[stem].name)
    if stem in known.groups:
        return _Named(known.groups[stem], stem)
    if match := _PIECE.fullmatch(stem):
        return _Named(match[1], match[2], int(match[3]), int(match[4]), True)
    if match := _PUBLIC.fullmatch(stem):
        return _Named(match[1], match[2], int(match[3]), None, True)
    match = _CUT.fullmatch(stem)
    if match and (match[2] in known.groups or (not known.videos and (match[1] or match[2].startswith("Radio")))):
        return _Named(match[1] or known.groups.get(match[2]), match[2], int(match[3]), None, None)
    return None


def _unknown(file: VideoFile, known: _Annotation) -> Reject:
    hint = did_you_mean(file.stem, [*known.videos, *known.groups])
    message = f"{file.path.name!a} is not in the annotation files" + (f" ({hint})" if hint else "")
    return reject(path_id(DATASET, file.where), "not_annotated", message)


def _clips(file: VideoFile, item: _Named, known: _Annotation) -> Iterator[Clip | Reject]:
    """The clips of one file, or why there are none."""
    video = known.of(item)
    segments = {segment.number: segment for segment in video.segments} if video else {}
    base = _base(file, item, video)
    if item.number is not None:
        parts = [(base, segments.get(item.number))]
    else:
        parts = [(_part(base, segment), segment) for segment in segments.values()]
    if not parts:
        message = f"{file.path.name!a} has an address in the annotation files, and no times"
        yield reject(path_id(DATASET, file.where), "no_segments", message)
        return
    try:
        info = probe(file.path)
        audio = _sound(file.path, info)
    except MediaError as error:
        yield from (media_reject(clip.clip_id, file.path, error) for clip, _ in parts)
        return
    for clip, segment in parts:
        if item.cropped or (item.cropped is None and info.width == info.height):
            crop = WHOLE
        else:
            crop = window_crop(segment, video.resolution if video else None, info.width, info.height)
        yield _inside(replace(clip, audio=audio, crop=crop), info)


def _base(file: VideoFile, item: _Named, video: AnnotatedVideo | None) -> Clip:
    """The clip that the file is as a whole."""
    identity = video.identity if video else speaker(item.name)
    name = item.name if item.group is None else f"{item.group}_{item.name}"
    number = "" if item.number is None else f"_{item.number:03d}"
    piece = "" if item.piece is None else f"_clip_{item.piece:03d}"
    return Clip(f"{DATASET}/{safe_id(identity)}/{safe_id(name + number + piece)}", file.path, identity=identity)


def _part(base: Clip, segment: Segment) -> Clip:
    clip_id = f"{base.clip_id}_{segment.number:03d}"
    return replace(base, clip_id=clip_id, start_s=segment.start_s, end_s=segment.end_s)


def _sound(path: Path, info: VideoInfo) -> Path:
    if info.has_audio:
        return path
    if beside := find_audio(path):
        return beside
    raise NoAudioTrack(f"{path.name} has no sound track", hint=_NO_SOUND)


def _inside(clip: Clip, info: VideoInfo) -> Clip | Reject:
    """The clip with times that lie in the file."""
    if clip.start_s is None or clip.end_s is None or info.duration_s is None:
        return clip
    if clip.start_s >= info.duration_s:
        message = f"starts at {clip.start_s:g} s; {clip.video.name!a} ends at {info.duration_s:.2f} s"
        return reject(clip.clip_id, "segment_outside", message)
    return replace(clip, end_s=min(clip.end_s, info.duration_s))


def window_crop(
    segment: Segment | None, resolution: int | None, width: int, height: int
) -> tuple[float, float, float, float] | None:
    """The segment's window as (left, top, width, height) in fractions of a picture of `width` x `height` pixels.

    Returns:
        None where there is no window, where the height it refers to is unknown or smaller than the window, or where
        the window leaves the picture: then its scale is not what is annotated, and no other is certain.
    """
    window = segment.window if segment else None
    if window is None or resolution is None or window.top + window.height > resolution:
        return None
    # Fractions of the annotators' picture, whose shape is the file's: only heights are annotated.
    across = resolution * width / height
    if window.left + window.width > across:
        return None
    return (window.left / across, window.top / resolution, window.width / across, window.height / resolution)


def _without_pieces(clips: list[Clip]) -> tuple[list[Clip], list[Reject]]:
    """Pieces of a segment that is there as a whole would be in the data twice: they are rejected."""
    whole = {clip.clip_id for clip in clips}
    kept: list[Clip] = []
    copies: list[Reject] = []
    for clip in clips:
        segment, _, piece = clip.clip_id.partition("_clip_")
        if piece and segment in whole:
            copies.append(reject(clip.clip_id, "duplicate_clip", f"{segment} is there as a whole"))
        else:
            kept.append(clip)
    return kept, copies


def _notes(known: dict[str, AnnotatedVideo], clips: list[Clip]) -> list[str]:
    """Counts of the annotation, and what in it is doubtful for these clips."""
    notes: list[str] = []
    segments = [segment for video in known.values() for segment in video.segments]
    if known:
        windows = sum(segment.window is not None for segment in segments)
        notes.append(f"annotation: {len(segments)} segments of {len(known)} videos, {windows} with a face window")
    bare = [clip.clip_id for clip in clips if clip.crop is None]
    if bare:
        notes.append(f"{len(bare)} clips without a usable face window: {', '.join(sorted(bare))}")
    present = {clip.video.stem for clip in clips}
    for key, video in sorted(known.items()):
        if _overlap(video.segments) and present & {key, video.name}:
            notes.append(f"{key}: annotated segments overlap; they are kept as annotated")
    if any(clip.identity == "Radio" for clip in clips):
        notes.append("the speakers of the RD videos are not annotated: they count as one identity, Radio")
    return notes


def _overlap(segments: tuple[Segment, ...]) -> bool:
    ordered = sorted(segments, key=lambda segment: segment.start_s)
    return any(one.end_s > two.start_s for one, two in pairwise(ordered))
