"""What a file is, by content; and that nothing but a known media file gets through."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from talkforge.core.errors import MediaNotFound, NotMedia, PlaylistRefused
from talkforge.datasets.containers import printable, sniff
from talkforge.tests.media_factory import tone, write_clip, write_sound

WRITTEN = {
    "mov": ("a.mp4", {}),
    "matroska": ("a.mkv", {}),
    "avi": ("a.avi", {"codec": "mpeg4"}),
    "mpeg": ("a.mpg", {"codec": "mpeg1video", "format": "mpeg"}),
    "mpegts": ("a.ts", {"format": "mpegts"}),
    "flv": ("a.flv", {"codec": "flv"}),
    "asf": ("a.wmv", {"codec": "wmv2", "format": "asf"}),
    "mpegvideo": ("a.m1v", {"codec": "mpeg1video", "format": "mpeg1video"}),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_video_formats_are_known_by_content(kind, tmp_path):
    name, options = WRITTEN[kind]
    clip = write_clip(tmp_path / name, 5, **options)
    # The name says something else, and must not matter.
    disguised = clip.rename(tmp_path / "holiday.txt")
    assert sniff(disguised) == kind


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("a.wav", "pcm_s16le", "wav"),
        ("a.flac", "flac", "flac"),
        ("a.mp3", "libmp3lame", "mp3"),
        ("a.aac", "aac", "aac"),
        ("a.m4a", "aac", "mov"),
        ("a.ogg", "libopus", "ogg"),
    ],
)
def test_sound_formats_are_known_by_content(name, codec, kind, tmp_path):
    rate = 48000 if codec == "libopus" else 16000
    path = write_sound(tmp_path / name, tone(0.3, rate), rate=rate, codec=codec)
    assert sniff(path.rename(tmp_path / "sound.mp4")) == kind


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 30, "png_pipe"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "jpeg_pipe"),
        (b"GIF89a" + b"\0" * 30, "gif"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "webp_pipe"),
        (b"\0" * 4 + b"\x47" + (b"\0" * 191 + b"\x47") * 3, "mpegts"),
        (b"\xff\xfb\x90\x64" + b"\0" * 400, "mp3"),
        (b"\xff\xf1\x50\x80" + b"\0" * 400, "aac"),
    ],
)
def test_magic_bytes(head, kind, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(head)
    assert sniff(path) == kind


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXTINF:1,\nseg.ts\n",
    "hls after a byte-order mark": "\ufeff\n #EXTM3U\nseg.ts\n",
    "ffconcat": "ffconcat version 1.0\nfile seg.ts\n",
    "concat": "file 'seg.ts'\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
    "pls": "[playlist]\nFile1=seg.ts\n",
    "smil": '<smil><body><video src="seg.ts"/></body></smil>',
}


@pytest.mark.parametrize("text", PLAYLISTS.values(), ids=PLAYLISTS.keys())
def test_playlists_are_refused_as_such(text, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PlaylistRefused) as caught:
        sniff(path)
    assert caught.value.reason == "playlist_refused"
    assert "clip.mp4" in caught.value.message


@pytest.mark.parametrize(
    "content",
    [
        b"Google said 404",
        "Seite nicht gefunden: Über uns, 漢字".encode(),
        "not a film".encode("utf-16"),
        b"<html><body>Sign in</body></html>",
        b"G" + b"o on " * 100,
        b"\x00\x01\x02\x03" * 64,
        b"\x7fELF\x02\x01\x01" + b"\0" * 100,
        b"RIFF\x24\0\0\0XXXX",
    ],
)
def test_text_and_unknown_content_is_not_media(content, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(NotMedia) as caught:
        sniff(path)
    assert caught.value.reason == "not_a_video"


def test_a_playlist_in_another_encoding_is_no_sound(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes("#EXTM3U\nother.ts\n".encode("utf-16"))  # begins with FF FE, like the sync word of MPEG audio
    with pytest.raises(PlaylistRefused):
        sniff(path)


def test_empty_file_says_so(tmp_path):
    path = tmp_path / "clip.mp4"
    path.touch()
    with pytest.raises(NotMedia, match="is empty"):
        sniff(path)


def test_what_is_no_regular_file_is_not_found(tmp_path, monkeypatch):
    fifo, folder, link = tmp_path / "fifo.mp4", tmp_path / "folder.mp4", tmp_path / "link.mp4"
    os.mkfifo(fifo)
    folder.mkdir()
    link.symlink_to(tmp_path / "nothing.mp4")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path)  # a socket's path must be short
        listening.bind("sock.mp4")
        for path in (fifo, folder, link, tmp_path / "absent.mp4", Path("/dev/zero"), tmp_path / "sock.mp4"):
            with pytest.raises(MediaNotFound) as caught:
                sniff(path)
            assert path.name in caught.value.message


def test_a_link_to_a_file_is_the_file(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 3)
    link = tmp_path / "b.mp4"
    link.symlink_to(clip)
    assert sniff(link) == "mov"


def test_messages_stay_on_one_line():
    assert printable("a\nb.mp4") == repr("a\nb.mp4")
    assert printable("plain.mp4") == "plain.mp4"
    assert "\n" not in printable(os.fsdecode(b"\xff\n.mp4"))
