"""Typed errors: every failure has a machine-readable `reason` code and, where there is one, a way out.

The reason code is what ends up in `rejects` columns and in `results.json`; the message is for people. Code that
handles one clip of many catches `TalkForgeError` and turns it into a row, so the run goes on; the command line turns
one that escapes into a single line on stderr and the exit code below.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_REJECTS = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 3


class TalkForgeError(Exception):
    """Base of all expected failures.

    Args:
        message: what went wrong, one line, naming the file or option.
        hint: what the user can do about it; printed after the message.
    """

    reason: ClassVar[str] = "error"
    exit_code: ClassVar[int] = EXIT_USAGE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(TalkForgeError):
    """A configuration value or key that cannot be used."""

    reason = "config"


class InputError(TalkForgeError):
    """A folder, file list or argument that cannot be worked on."""

    reason = "input"


class MissingPackage(TalkForgeError):
    """An optional package is not installed."""

    reason = "package_missing"


def extra_hint(extra: str) -> str:
    """How to get the packages of one of the project's extras: from its own folder, never by name from an index."""
    return f"in the project's folder: .venv/bin/pip install -c constraints.txt -e '.[{extra}]'"


class OutputBusy(TalkForgeError):
    """Another run owns the output folder."""

    reason = "output_busy"


class Interrupted(TalkForgeError):
    """The run was stopped from outside and can be resumed."""

    reason = "interrupted"
    exit_code = EXIT_INTERRUPTED


class WeightsError(TalkForgeError):
    """Base of the weights store's failures."""

    reason = "weights"


class WeightsMissing(WeightsError):
    """A weight file is not in the store; the hint is the command that gets it."""

    reason = "weights_missing"


class WeightsCorrupt(WeightsError):
    """A weight file's sha256 is not the declared one."""

    reason = "weights_hash_mismatch"


class MediaError(TalkForgeError):
    """Base of what can be wrong with a media file."""

    reason = "media"


class MediaNotFound(MediaError):
    """The file does not exist or is not a regular file."""

    reason = "missing_file"


class NotMedia(MediaError):
    """The content is no known video or audio container, whatever its name says."""

    reason = "not_a_video"


class PlaylistRefused(NotMedia):
    """A playlist (HLS, ffconcat, DASH...) in disguise: it would open other files."""

    reason = "playlist_refused"


class NoVideoStream(MediaError):
    """A container without a picture track."""

    reason = "no_video_stream"


class EmptyVideo(MediaError):
    """A picture track that holds no frame."""

    reason = "zero_frames"


class TruncatedMedia(MediaError):
    """The file ends before the duration that its header promises."""

    reason = "truncated"


class CorruptMedia(MediaError):
    """The decoder refused part of the data."""

    reason = "corrupt"


class NoAudioTrack(MediaError):
    """The file has no sound track (silence is another fact: `SilentAudio`)."""

    reason = "no_audio"


class SilentAudio(MediaError):
    """There is a sound track and it is silent."""

    reason = "silent_audio"


class TooShort(MediaError):
    """The clip has fewer frames than the measurement needs."""

    reason = "too_short"


class Undetermined(TalkForgeError):
    """The clip can be measured and holds nothing that would settle the value, as a still mouth has no delay."""

    reason = "undetermined"


class NoFace(TalkForgeError):
    """No face was found where one is needed."""

    reason = "no_face"
