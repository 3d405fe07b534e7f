"""The table of proofs names tests that exist, and allows what they allow."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import talkforge

ROOT = Path(talkforge.__file__).resolve().parent
PAGE = (ROOT / "docs/proofs.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def rows() -> list[tuple[str, list[tuple[str, str]]]]:
    """What each row says that its tests allow, and these tests; "the same" are those of the row before."""
    found: list[tuple[str, list[tuple[str, str]]]] = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and ("tests/" in cells[3] or cells[3].startswith("the same")):
            found.append((cells[2], NAMED.findall(cells[3]) or found[-1][1]))
    return found


def allowed(path: str, name: str) -> Iterator[float]:
    """The numbers in a test's source, and the tolerances in the golden file that its module reads."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    (test,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)
    yield from (node.value for node in ast.walk(test) if isinstance(node, ast.Constant) and type(node.value) is float)
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for golden in sorted(ROOT.glob("tests/golden/*.json")):
        if golden.name in texts and "tolerance" in ast.unparse(ast.Module([test, *_helpers(tree)], [])):
            yield from _tolerances(json.loads(golden.read_text(encoding="utf-8")))


def _helpers(tree: ast.Module) -> list[ast.stmt]:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("test_")]


def _tolerances(held: Any) -> Iterator[float]:
    if isinstance(held, dict):
        yield from ([held["tolerance"]] if "tolerance" in held else [])
    for one in held.values() if isinstance(held, dict) else held if isinstance(held, list) else []:
        yield from _tolerances(one)


def test_every_proof_is_a_test_that_exists() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) > 25
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).is_file() or f"def {name}" not in (ROOT / path).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_every_proof_allows_what_its_test_allows() -> None:
    assert len(rows()) > 25
    for said, tests in rows():
        numbers = [float(number) for number in re.findall(r"\d+e-\d+", said)]
        known = {number for path, name in tests for number in allowed(path, name)}
        assert numbers or said.startswith("none"), said
        assert set(numbers) <= known, (said, tests)
