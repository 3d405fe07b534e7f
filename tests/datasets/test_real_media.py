"""Every real clip, frame by frame against the reference decoder; figures of the folder's own description."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from talkforge.core import errors
from talkforge.datasets.audio import SAMPLES_PER_FRAME, find_audio, is_silent, read_audio
from talkforge.datasets.encode import reencode_clip
from talkforge.datasets.folder import scan_folder
from talkforge.datasets.video import open_video, probe, resample

ROOT = Path(os.environ.get("TALKFORGE_MEDIA") or "/nonexistent")
SUFFIXES = (".mp4", ".mov", ".mpg", ".wav", ".flac")
FOUND = sorted(str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.suffix in SUFFIXES) if ROOT.is_dir() else []
VIDEOS = [name for name in FOUND if name.endswith(SUFFIXES[:3])] or ["(no clip)"]
LARGE = {"latentsync/demo2_video.mp4"}  # 1080x1920: seconds for each pass
COMPARED = 60  # slots whose pixels are compared; all are counted
SOUND_CASES = FOUND or ["(no clip)"]

# Slots at 25 fps, counted by ffmpeg's filter fps=25:round=near from the first frame on.
SLOTS = {"videoretalking/1.mp4": 153, "pkg_psychopy/testMovie.mp4": 197, "pyfeat/no_face.mp4": 100}


def reference(ffmpeg: str, path: Path, folder: Path) -> tuple[int, int, list[str]]:
    """(decoded frames, slots at 25 fps, hashes of the first slots) by one pass of the reference decoder."""
    graph = (
        "[0:v]setpts=PTS-STARTPTS,split=3[a][b][c];[b]fps=25:round=near[slots];"
        f"[c]fps=25:round=near,trim=end_frame={COMPARED},format=rgb24[rgb]"
    )
    command = [ffmpeg, "-v", "error", "-i", str(path), "-filter_complex", graph, "-fps_mode", "passthrough"]
    outputs = [folder / name for name in ("all", "slots", "rgb")]
    for output, label in zip(outputs, ("[a]", "[slots]", "[rgb]"), strict=True):
        command += ["-map", label, "-f", "framemd5" if label == "[rgb]" else "framecrc", str(output)]
    subprocess.run(command, capture_output=True, check=True)
    lines = [[x for x in output.read_text().splitlines() if not x.startswith("#")] for output in outputs]
    return len(lines[0]), len(lines[1]), [line.rsplit(",", 1)[1].strip() for line in lines[2]]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in VIDEOS])
def test_frames_and_slots_are_the_references(name, media, ffmpeg, tmp_path):
    hashes, count = [], 0
    with open_video(media / name) as stream:
        for index, _, frame in resample(stream):
            count += 1
            if index < COMPARED:
                hashes.append(hashlib.md5(frame.tobytes()).hexdigest())
    assert (stream.frames_decoded, count, hashes) == reference(ffmpeg, media / name, tmp_path)
    assert count == SLOTS.get(name, count)
    assert count == pytest.approx(float(stream.end) * 25, abs=0.5)


@pytest.mark.parametrize("name", VIDEOS)
def test_header_figures(name, media):
    info = probe(media / name)
    assert info.container == ("mpeg" if name.endswith(".mpg") else "mov")
    assert (info.duration_s is None) == name.endswith(".mpg")
    assert info.rotation == 0 and info.width >= 176 and info.height >= 144
    with av.open(str(media / name)) as container:
        track = container.streams.video[0]
        assert (info.width, info.height, info.codec) == (track.width, track.height, track.codec_context.name)


@pytest.mark.parametrize("name", SOUND_CASES)
def test_sound_is_in_its_place(name, media, ffmpeg):
    """Same place as the reference puts it, found by correlation; the resamplers differ in the last bits."""
    path = media / name
    try:
        ours = read_audio(path)
    except errors.NoAudioTrack:
        with av.open(str(path)) as container:
            assert not container.streams.audio
        return
    start = probe(path).start_s if name in VIDEOS else 0.0
    filters = f"aresample=async=1:first_pts=0,atrim=start={start},aformat=sample_fmts=flt"
    command = [ffmpeg, "-v", "error", "-copyts", "-i", str(path), "-vn", "-af", filters, "-ar", "16000"]
    raw = subprocess.run([*command, "-f", "f32le", "-"], capture_output=True, check=True).stdout
    with av.open(str(path)) as container:
        channels = container.streams.audio[0].channels
    theirs = np.frombuffer(raw, np.float32).reshape(-1, channels).mean(axis=1)
    # One of the two drops an encoder's padding at the end.
    assert abs(len(ours) - len(theirs)) < 1024
    length = min(len(ours), len(theirs))
    if is_silent(ours):
        assert name == "pyfeat/WolfgangLanger_Pexels.mp4" and not np.abs(theirs).max() > 1e-4
        return
    window = slice(length // 2 - 4000, length // 2 + 4000)
    lags = range(-40, 41)
    scores = [float(ours[window] @ theirs[window.start + lag : window.stop + lag]) for lag in lags]
    assert lags[int(np.argmax(scores))] == 0
    assert np.corrcoef(ours[:length], theirs[:length])[0, 1] > 0.998


@pytest.mark.parametrize("name", VIDEOS)
def test_common_length_of_picture_and_sound(name, media):
    """n_frames = min(slots, floor(samples / 640)): within a tenth of a second of the shorter track."""
    path = media / name
    info = probe(path)
    sound = path if info.has_audio else find_audio(path)
    if sound is None or name in LARGE:
        pytest.skip("needs sound, and a picture of moderate size")
    with open_video(path) as stream:
        slots = sum(1 for _ in resample(stream))
    frames = min(slots, len(read_audio(sound)) // SAMPLES_PER_FRAME)
    assert 0 <= slots - frames <= 3
    assert frames > 50


def test_files_without_sound_have_it_beside(media):
    files = {item.stem: item for item in scan_folder(media).files}
    assert len(files) == len(VIDEOS) and not scan_folder(media).problems
    assert files["edtalk/mouth_source"].audio_path == media / "edtalk" / "mouth_source.wav"
    assert files["styletalk_source/reagan_clip1"].audio_path == media / "styletalk_source" / "reagan_clip1.wav"
    assert files["edtalk/uncrop_Obama"].audio_path is None


def test_copying_a_real_clip_keeps_it(media, tmp_path):
    source = media / "pkg_psychopy" / "jwpIntro.mp4"
    assert reencode_clip(source, tmp_path / "a.mp4", start_s=1, end_s=2) == 25
    with open_video(source) as stream:
        before = [frame for index, _, frame in resample(stream) if 25 <= index < 50]
    with open_video(tmp_path / "a.mp4") as stream:
        after = [frame for _, frame in stream]
    errors_ = [np.mean((a.astype(float) - b) ** 2) for a, b in zip(before, after, strict=True)]
    assert 10 * np.log10(255**2 / np.mean(errors_)) > 38
    sound, copied = read_audio(source)[16000:32000], read_audio(tmp_path / "a.mp4")[:16000]
    assert np.corrcoef(sound, copied)[0, 1] > 0.99
