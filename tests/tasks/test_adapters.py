"""Adapters as data: those that come with the package, and what makes one of your own wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import talkforge
from talkforge.core.config import read_yaml, validate
from talkforge.core.emotions import MEAD_EMOTIONS
from talkforge.core.errors import ConfigError, InputError
from talkforge.reports.published import load_published
from talkforge.tasks.adapter_setup import Local, gpus_of, setup_of, version_of
from talkforge.tasks.adapters import PLACEHOLDERS, Adapter, fill, path_of, placeholders, shipped
from talkforge.tasks.crops import crops
from talkforge.tasks.external import External
from talkforge.tasks.external_stage import mirror
from talkforge.tasks.methods import methods
from talkforge.tests.tasks.foreign import RUN, adapter_of, commit

NAMES = [
    "aniportrait", "dice-talk-release", "dreamtalk", "eamm", "eat", "echomimic", "hallo", "hallo2", "pc-avs",
    "sadtalker", "sonic", "styletalk", "v-express", "wav2lip",
]  # fmt: skip
PRAISE = re.compile(r"realistic|high.quality|accurate|vivid|lifelike|natural|best|superior|state.of.the.art", re.I)


def test_the_methods_that_are_asked_for_are_there() -> None:
    assert sorted(shipped()) == NAMES
    assert set(NAMES) <= set(methods.names()) and isinstance(methods.get("sadtalker"), External)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_adapter(name: str) -> None:
    """It is of the form, says where its facts are from, and what it does not know."""
    raw, adapter = read_yaml(shipped()[name]), Adapter.read(shipped()[name])
    assert adapter.repository.startswith("https://github.com/") and raw["licence"].keys() == {
        "code",
        "weights",
        "source",
    }
    assert adapter.commit and adapter.read_from and adapter.licence.source
    assert not PRAISE.search(adapter.what), "what a method does, not how well"
    assert set(adapter.emotions) <= set(MEAD_EMOTIONS)
    if adapter.inputs.portrait.crop:
        crops.get(adapter.inputs.portrait.crop)
    assert adapter.steps[0].run[0] == "{python}", "an interpreter of its own"
    assert ("clip" in {found for _, text in adapter.texts() for found in placeholders(text)}) <= bool(
        adapter.inputs.clip
    )
    nulls = [value for key, value in facts(raw) if value is None]
    assert not nulls or adapter.unknown, "what is null is spoken of"
    limits = (adapter.output.shorter_s, adapter.output.longer_s)
    assert all(0 <= one <= 1 for one in limits)


def facts(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows = []
    for key, value in data.items():
        rows += facts(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return rows


def test_every_placeholder_that_is_used_is_known() -> None:
    used = {
        found for path in shipped().values() for _, text in Adapter.read(path).texts() for found in placeholders(text)
    }
    assert {found for found in used if "." not in found} <= set(PLACEHOLDERS)
    assert {"python", "portrait", "audio", "result", "emotion", "clip", "seed"} <= used


def test_conditions_are_those_that_the_papers_print() -> None:
    """A published row's condition for a method is its adapter's; DICE-Talk's release is the paper's P."""
    rows = [row for table in load_published() for row in table.rows if row.condition.text]
    printed = {row.method: row.condition.text for row in rows}
    same = {"DICE-Talk-P": "dice-talk-release"}
    adapters = {Adapter.read(path).name: name for name, path in shipped().items()} | same
    compared = [name for name in adapters if name in printed]
    assert len(compared) >= 9
    for name in compared:
        assert Adapter.read(path_of(adapters[name])).condition == printed[name], name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": [{"run": [*RUN, "{portait}"]}]}, r"unknown placeholder '\{portait\}' \(did you mean portrait"),
        ({"steps": [{"run": ["{python}", "{clip}"]}]}, r"unknown placeholder '\{clip\}'"),
        ({"steps": [{"run": ["{python}", "{emotion}"]}]}, r"unknown placeholder '\{emotion\}'"),
        ({"steps": [{"run": ["{python}", "{file.pose}"]}]}, r"unknown placeholder '\{file.pose\}'"),
        ({"configs": {"c": {"base": None, "set": {"{x}": 1}}}}, r"configs.c: unknown placeholder '\{x\}'"),
        ({"output": {"glob": "/etc/*.mp4"}}, "must be a path below its folder"),
        ({"output": {"glob": "../*.mp4"}}, "must be a path below its folder"),
        ({"inputs": {"portrait": {"file": "a b.png"}}}, "without blanks"),
        ({"inputs": {"portrait": {"crop": "ffhq"}}}, "a crop needs a size"),
        ({"emotions": {"hapy": "h"}}, r"unknown emotion 'hapy' \(did you mean happy"),
        ({"repository": "http://example.org"}, "repository"),
        ({"commit": "main"}, "commit"),
        ({"output": {"glob": "a.mp4", "crop": [0, 0, 3, 4]}}, "with even sides"),
        ({"steps": []}, "steps"),
        ({"condition": "audio+text"}, "condition"),
        ({"ouput": {}}, "unknown key 'ouput'"),
        ({"output": {"glob": "a.mp4", "fsp": 25}}, r"unknown key 'output.fsp' \(did you mean fps"),
    ],
)
def test_a_wrong_adapter_says_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Adapter, adapter_of("good", **changes), where="mine.yaml")


def test_names() -> None:
    with pytest.raises(ConfigError, match=r"unknown published method 'sadtaker' \(did you mean sadtalker"):
        path_of("sadtaker")
    with pytest.raises(ConfigError, match="did you mean sadtalker"):
        methods.get("sadtaker")


def test_filling() -> None:
    values = {"a": "1", "file.x": "{a}"}
    filled = fill({"{a}": ["{a}{a}", "{b} {} {{a}}", 3, None, {"k": "{file.x}"}]}, values)
    assert filled == {"1": ["11", "{b} {} {1}", 3, None, {"k": "{a}"}]}, "once, and only what is known"


def test_a_tree_of_links(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("code/deep/a.py", "results/old.mp4", "big/one.bin", ".git/HEAD", ".venv/x", "top.py", "code/tmp/t"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    (source / "to_big").symlink_to(source / "big")
    mirror(source, tmp_path / "work", own=["results", "code/tmp", "new/deep"], link=["big"])
    work = tmp_path / "work"
    found = sorted(path.relative_to(work).as_posix() for path in work.rglob("*"))
    assert found == [
        "big", "code", "code/deep", "code/deep/a.py", "code/tmp", "new", "new/deep", "results", "to_big", "top.py"
    ]  # fmt: skip
    assert (work / "code/deep/a.py").is_symlink() and not (work / "code/deep").is_symlink()
    assert (work / "big").is_symlink() and (work / "to_big/one.bin").read_text() == "big/one.bin"
    (work / "code" / "new.txt").write_text("x")
    assert not (source / "code" / "new.txt").exists()


def test_a_tree_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talkforge.tasks.external_stage.MOST_FILES", 2)
    (tmp_path / "source").mkdir()
    for k in range(3):
        (tmp_path / "source" / str(k)).touch()
    with pytest.raises(InputError, match=r"name large folders in the adapter's work\.link"):
        mirror(tmp_path / "source", tmp_path / "work")


def test_the_version_of_a_checkout(tmp_path: Path) -> None:
    """Its commit; a change in a tracked file is another version; what a program leaves beside them is not."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "a.py").write_text("x = 1\n")
    plain = version_of(checkout)
    assert plain.startswith("sources ")
    name = commit(checkout)
    assert version_of(checkout) == name
    (checkout / "left.mp4").write_bytes(b"x")
    assert version_of(checkout) == name
    (checkout / "a.py").write_text("x = 2\n")
    changed = version_of(checkout)
    assert changed.startswith(f"{name} with changes ")
    (checkout / "a.py").write_text("x = 3\n")
    assert version_of(checkout) not in (name, changed)
    inner = checkout / "inner"
    inner.mkdir()
    assert version_of(inner).startswith("sources "), "a folder inside a repository is none itself"


def test_the_settings_of_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKFORGE_METHODS", str(tmp_path))
    plain = setup_of("eat")
    assert (plain.checkout, plain.python, plain.chosen) == (tmp_path / "eat", "python", False)
    own = tmp_path / "eat" / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert (setup_of("eat").python, setup_of("eat").chosen) == (str(own), True)
    (tmp_path / "methods.yaml").write_text(
        "eat: {checkout: src/EAT, python: envs/eat/bin/python, files: {pose: poses}, env: {A: b}}\n"
        "hallo: {prefix: [conda, run, -n, hallo]}\n"
    )
    eat, hallo = setup_of("eat"), setup_of("hallo")
    assert eat.checkout == tmp_path / "src/EAT" and eat.local.files == {"pose": tmp_path / "poses"}
    assert eat.env["PATH"].split(":")[0] == str(tmp_path / "envs/eat/bin") and eat.env["A"] == "b"
    assert hallo.chosen and hallo.python == "python" and hallo.checkout == tmp_path / "hallo"
    with pytest.raises(ConfigError, match=r"unknown placeholder '\{scrtch\}' \(did you mean scratch"):
        validate(Local, {"prefix": ["docker", "{scrtch}"]}, where="methods.yaml")


def test_which_gpus_items_are_spread_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKFORGE_METHODS", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert gpus_of(setup_of("eat")) == [2, 3]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_of(setup_of("eat")) == []
    (tmp_path / "methods.yaml").write_text("eat: {gpus: [1]}\n")
    assert gpus_of(setup_of("eat")) == [1]


def test_adapters_are_files_of_the_package() -> None:
    assert all(path.is_relative_to(Path(talkforge.__file__).parent / "configs") for path in shipped().values())
