"""Keeps known chatter of native libraries off stderr, and nothing else."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_ONE_AT_A_TIME = Lock()  # stderr belongs to the whole process


@contextmanager
def without_chatter(pattern: re.Pattern[bytes]) -> Iterator[None]:
    """Holds back what is written to stderr meanwhile, by any thread, and then writes the lines that do not match.

    For libraries that log from C++ and offer no switch. Keep the block short.
    """
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        real = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            kept = [line for line in held.readlines() if not pattern.match(line)]
            if kept:
                os.write(2, b"".join(kept))
