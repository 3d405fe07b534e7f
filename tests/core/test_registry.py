"""Names to things: lazy, unique, found without importing what declares nothing, and clear about unknown names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from talkforge.core.errors import ConfigError
from talkforge.core.registry import Registry, declaring_modules, did_you_mean, resolve

MakePackage = Callable[..., str]


@pytest.fixture
def make_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakePackage]:
    """Function (module=source, ...) -> name of an importable package without __init__.py."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def make(**modules: str) -> str:
        folder = tmp_path / "room_under_test"
        folder.mkdir(exist_ok=True)
        for name, source in modules.items():
            (folder / f"{name}.py").write_text(source, encoding="utf-8")
        return folder.name

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def found_in(package: str) -> Registry[str]:
    registry: Registry[str] = Registry("thing")
    registry.discover(package, "THINGS", key=lambda item: item)
    return registry


def test_an_added_entry_is_imported_at_its_first_use(make_package: MakePackage) -> None:
    package = make_package(lazy="value = object()")
    registry: Registry[object] = Registry("thing")
    registry.add("one", f"{package}.lazy:value")
    assert registry.names() == ["one"]
    assert f"{package}.lazy" not in sys.modules
    first = registry.get("one")
    assert first is sys.modules[f"{package}.lazy"].value
    assert registry.get("one") is first


def test_discovery_imports_only_modules_that_declare(make_package: MakePackage) -> None:
    package = make_package(
        plain="raise RuntimeError('imported')",
        mentions="raise RuntimeError('imported')\ndef f():\n    THINGS = 1\nprint(THINGS)\n",
        declares="THINGS = ('b', 'a')",
        annotated="THINGS: tuple[str, ...] = ('c',)",
    )
    registry = found_in(package)
    assert f"{package}.declares" not in sys.modules, "discovery waits until somebody asks"
    assert registry.names() == ["a", "b", "c"]
    assert registry.all() == ["a", "b", "c"]
    assert declaring_modules(package, "THINGS") == [f"{package}.annotated", f"{package}.declares"]
    assert f"{package}.plain" not in sys.modules and f"{package}.mentions" not in sys.modules


def test_an_unknown_name_is_answered_with_the_closest_known_ones() -> None:
    registry: Registry[object] = Registry("metric")
    for name in ("fvd:i3d-k400-16f", "fd:mobilenet-v2"):
        registry.add(name, "json:dumps")
    with pytest.raises(ConfigError, match="unknown metric 'fd:mobilnet'") as close:
        registry.get("fd:mobilnet")
    assert close.value.hint == "did you mean fd:mobilenet-v2?"
    with pytest.raises(ConfigError) as far:
        registry.get("zzz")
    assert far.value.hint == "known: fd:mobilenet-v2, fvd:i3d-k400-16f"
    with pytest.raises(ConfigError) as kind:
        registry.get("fdv")
    assert kind.value.hint == "did you mean fd:mobilenet-v2 or fvd:i3d-k400-16f?"
    with pytest.raises(ConfigError) as other:
        registry.get("fvd:my-own-network-of-a-long-name")
    assert str(other.value.hint).startswith("did you mean fvd:i3d-k400-16f")
    for number in range(20):
        registry.add(f"x{number:02d}", "json:dumps")
        registry.add(f"kid:a-network-of-a-long-name-{number:02d}", "json:dumps")
    with pytest.raises(ConfigError, match=r"\(did you mean kid:.*-00 or .*-05 or 14 more\?\)$"):
        registry.get("kidd")
    with pytest.raises(ConfigError, match=r"name-09, 30 more\)$"):
        registry.get("zzzzzzzz")


def test_a_name_has_one_meaning(make_package: MakePackage) -> None:
    registry: Registry[object] = Registry("thing")
    registry.add("one", "json:dumps")
    with pytest.raises(ConfigError, match="thing 'one' is registered twice"):
        registry.add("one", "json:loads")


def test_a_name_declared_twice_is_refused_each_time_it_is_asked(make_package: MakePackage) -> None:
    package = make_package(first="THINGS = ('same',)", second="THINGS = ('same',)")
    registry = found_in(package)
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"thing 'same' is declared twice, the second time in {package}.second"):
            registry.names()


def test_a_declared_name_and_an_added_one_cannot_hide_each_other(make_package: MakePackage) -> None:
    package = make_package(first="THINGS = ('same',)")
    before, after = found_in(package), found_in(package)
    before.add("same", "json:dumps")
    with pytest.raises(ConfigError, match="thing 'same' is registered twice"):
        before.names()
    assert after.names() == ["same"]
    with pytest.raises(ConfigError, match="thing 'same' is registered twice"):
        after.add("same", "json:dumps")


def test_threads_that_ask_at_once_get_the_same_answer(make_package: MakePackage) -> None:
    registry = found_in(make_package(slow="import time\ntime.sleep(0.05)\nTHINGS = ('a', 'b')"))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: registry.names(), range(8)))
    assert answers == [["a", "b"]] * 8


def test_a_broken_module_is_not_forgotten_after_the_first_error(make_package: MakePackage) -> None:
    registry = found_in(make_package(broken="import no_such_library_at_all\nTHINGS = ('a',)"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="no_such_library_at_all"):
            registry.names()


@pytest.mark.parametrize("target", ["json", "json:", ":dumps", "no_such_module:x", "json:no_such_name"])
def test_a_target_that_leads_nowhere_is_a_config_error(target: str) -> None:
    with pytest.raises(ConfigError, match=target.replace(":", ":?")):
        resolve(target)


def test_no_package_to_discover_in() -> None:
    with pytest.raises(ConfigError, match="no package 'no_such_room'"):
        found_in("no_such_room").names()


def test_suggestions_need_some_likeness() -> None:
    assert did_you_mean("bootstap", ["bootstrap", "seed"]) == "did you mean bootstrap?"
    assert did_you_mean("x", ["bootstrap", "seed"]) is None
