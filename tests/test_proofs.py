"""The table of proofs names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import talkforge

ROOT = Path(talkforge.__file__).resolve().parent


def test_every_proof_is_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/proofs.md").read_text(encoding="utf-8"))
    assert len(named) > 25
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or f"def {name}" not in (ROOT / path).read_text(encoding="utf-8")
    ]
    assert missing == []
