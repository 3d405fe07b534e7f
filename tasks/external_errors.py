"""What can go wrong with an item that another program makes; each has its reason code, and facts of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.errors import TalkForgeError


class MethodNotReady(TalkForgeError):
    """Something that the method needs is not on this machine."""

    reason = "method_not_ready"


class ProgramFailed(TalkForgeError):
    """Base of what a program did wrong.

    Args:
        facts: of the run, JSON-ready.
    """

    reason = "program_failed"

    def __init__(self, message: str, *, hint: str | None = None, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.facts = dict(facts or {})


class CannotStart(ProgramFailed):
    """There is no such program, or it may not be run."""

    reason = "cannot_start"


class Crashed(ProgramFailed):
    """It ended with another status than 0, or by a signal."""

    reason = "crashed"


class TimedOut(ProgramFailed):
    """It was at work longer than allowed."""

    reason = "timeout"


class OutOfMemory(ProgramFailed):
    """It took more memory than allowed, or said that its GPU has no more."""

    reason = "out_of_memory"


class TooMuchOutput(ProgramFailed):
    """It wrote or said more than allowed."""

    reason = "too_much_output"


class NoOutput(ProgramFailed):
    """It ended well, and no video is where it should be."""

    reason = "no_output"


class AmbiguousOutput(ProgramFailed):
    """Several videos appeared, and the adapter does not say which one counts."""

    reason = "ambiguous_output"


class BadVideo(ProgramFailed):
    """What appeared cannot be read as a video."""

    reason = "bad_video"


class WrongLength(ProgramFailed):
    """The video is shorter or longer than the item allows."""

    reason = "wrong_length"


class NoSound(ProgramFailed):
    """The video has no sound track, and the adapter asks for one."""

    reason = "no_sound"
