"""Built-in methods: what a test item becomes, and which items cannot become anything."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from talkforge.core.errors import InputError, MediaError, NoAudioTrack, NotMedia
from talkforge.core.registry import resolve
from talkforge.datasets.audio import read_audio, write_wav
from talkforge.datasets.video import open_video
from talkforge.tasks.methods import TestItem, copy, methods, read_portrait, read_sound, still
from talkforge.tests.media_factory import numbered, read_number, tone, write_clip


def frames_of(path: Path) -> np.ndarray:
    with open_video(path) as stream:
        return np.stack([frame for _, frame in stream])


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    write_wav(tmp_path / "sound.wav", tone(1.23))
    return tmp_path / "sound.wav"


def test_every_method_can_be_called() -> None:
    assert {"copy", "still", "warp"} <= set(methods.names())
    for method in methods.all():
        assert callable(resolve(method.target)) and method.what and method.version >= 1


def test_still_is_one_picture_as_long_as_the_sound(tmp_path: Path, sound: Path) -> None:
    """1.23 s are 30 whole frames; after decoding they differ by coding alone."""
    picture = numbered(0b101101110010)
    Image.fromarray(picture).save(tmp_path / "portrait.png")
    still(TestItem("a", tmp_path / "portrait.png", sound), tmp_path / "a.mp4")
    frames = frames_of(tmp_path / "a.mp4").astype(int)
    assert frames.shape == (30, *picture.shape)
    assert np.abs(frames - frames[0]).max() <= 3 and np.abs(frames - frames[0]).mean() < 0.1
    assert np.abs(frames[0] - picture).mean() < 3
    played, given = read_audio(tmp_path / "a.mp4"), read_audio(sound)[: 30 * 640]
    assert len(played) >= len(given) and np.corrcoef(played[: len(given)], given)[0, 1] > 0.99


def test_still_is_no_longer_than_the_real_clip(tmp_path: Path, sound: Path) -> None:
    real = write_clip(tmp_path / "real.mp4", 20, audio=tone(1.23))
    still(TestItem("a", real, real, real), tmp_path / "a.mp4")
    frames = frames_of(tmp_path / "a.mp4")
    assert len(frames) == 20 and {read_number(frame) for frame in frames} == {0}, "the first frame is the portrait"


def test_copy_keeps_frames_and_sound(tmp_path: Path) -> None:
    real = write_clip(tmp_path / "real.mp4", 33, audio=tone(1.32))
    copy(TestItem("a", real, real, real), tmp_path / "a.mp4")
    assert [read_number(frame) for frame in frames_of(tmp_path / "a.mp4")] == list(range(33))
    assert len(read_audio(tmp_path / "a.mp4")) // 640 >= 33


def test_copy_needs_a_real_clip(tmp_path: Path, sound: Path) -> None:
    with pytest.raises(InputError, match="needs the real clip"):
        copy(TestItem("a", sound, sound), tmp_path / "a.mp4")


def test_a_portrait_is_an_image_or_a_clips_first_frame(tmp_path: Path) -> None:
    picture = numbered(77)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_portrait(tmp_path / "a.png"), picture)
    assert read_number(read_portrait(write_clip(tmp_path / "a.mp4", 5))) == 0


def test_a_portrait_has_even_sides_three_colours_and_stands_upright(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    odd = rng.integers(0, 256, (51, 33, 3), dtype=np.uint8)
    Image.fromarray(odd).save(tmp_path / "odd.png")
    np.testing.assert_array_equal(read_portrait(tmp_path / "odd.png"), odd[:50, :32])
    Image.fromarray(odd[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_portrait(tmp_path / "grey.png"), odd[:50, :32, :1].repeat(3, axis=2))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(np.ascontiguousarray(np.rot90(odd))).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_portrait(tmp_path / "turned.png"), odd[:50, :32])


def test_a_portrait_without_a_picture(tmp_path: Path, sound: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(numbered(1)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    Image.fromarray(np.zeros((1, 9, 3), np.uint8)).save(tmp_path / "line.png")
    for name in ("text.png", "cut.png", "absent.png", sound.name):
        with pytest.raises(MediaError, match=name.split(".")[0]):
            read_portrait(tmp_path / name)
    with pytest.raises(InputError, match="9x1 pixels"):
        read_portrait(tmp_path / "line.png")


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(numbered(1)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(NotMedia, match=r"huge\.png"):
        read_portrait(tmp_path / "huge.png")


def test_a_clip_that_looks_like_an_image_to_the_image_library(tmp_path: Path) -> None:
    """An MPEG stream has an image plugin there that knows its head and can read nothing."""
    path = tmp_path / "a.mpg"
    with av.open(str(path), "w", format="mpeg1video") as out:
        stream = out.add_stream("mpeg1video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(number), format="rgb24")))
        out.mux(stream.encode(None))
    assert read_number(read_portrait(path)) == 0


def test_the_sound_says_how_long_the_video_is(tmp_path: Path, sound: Path) -> None:
    samples, frames = read_sound(TestItem("a", sound, sound))
    assert len(samples) == round(1.23 * 16000) and frames == 30
    short = write_clip(tmp_path / "short.mp4", 12)
    assert read_sound(TestItem("a", sound, sound, short))[1] == 12
    long = write_clip(tmp_path / "long.mp4", 40)
    assert read_sound(TestItem("a", sound, sound, long))[1] == 30


def test_a_sound_that_is_not_there_or_too_short(tmp_path: Path) -> None:
    mute = write_clip(tmp_path / "mute.mp4", 5)
    with pytest.raises(NoAudioTrack):
        read_sound(TestItem("a", mute, mute))
    write_wav(tmp_path / "blip.wav", tone(0.03))
    with pytest.raises(InputError, match="shorter than one frame"):
        read_sound(TestItem("a", mute, tmp_path / "blip.wav"))
