"""Configuration: unknown keys are errors with a suggestion, every error is one line, equal settings have one digest."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from pydantic import Field
from talkforge.core.config import Config, digest, read_yaml
from talkforge.core.errors import ConfigError


class Window(Config):
    frames: int = 16
    stride: int = Field(16, ge=1)


class Settings(Config):
    method: str
    out: Path = Path("runs")
    seed: int = 0
    window: Window = Window()
    metrics: list[str] | None = None


def failure(**options: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Settings.load(**options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_file_then_options_then_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "method: a\nseed: 1\nwindow: {frames: 9}\n")
    made = Settings.load(path, ["window.stride=4", "seed=3"], method="b", seed=2, out=None)
    assert (made.method, made.seed, made.window, made.out) == ("b", 3, Window(frames=9, stride=4), Path("runs"))


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ("metrics=[fvd, fd]", "metrics", ["fvd", "fd"]),
        ("metrics=", "metrics", None),
        ("method=a=b", "method", "a=b"),
        ("method=off", "method", "off"),  # not false, as YAML 1.1 has it
        ("metrics=[on, 'true']", "metrics", ["on", "true"]),
        (" seed =7", "seed", 7),
        ("out=runs/x", "out", Path("runs/x")),
    ],
)
def test_an_override_is_read_as_yaml(text: str, field: str, expected: object) -> None:
    assert getattr(Settings.load(overrides=["method=m", text]), field) == expected


def test_an_override_fills_a_group_that_the_file_leaves_empty(tmp_path: Path) -> None:
    path = write(tmp_path, "method: a\nwindow:\n")
    assert Settings.load(path, ["window.frames=8"]).window.frames == 8


def test_overrides_leave_the_callers_values_alone() -> None:
    window = {"frames": 9}
    Settings.load(overrides=["window.frames=8"], method="m", window=window)
    assert window == {"frames": 9}


def test_an_unknown_key_is_answered_with_the_closest_field() -> None:
    error = failure(overrides=["sede=1"], method="m")
    assert "unknown key 'sede'" in error.message and error.hint == "did you mean seed?"


def test_an_unknown_key_in_a_group_is_compared_with_that_groups_fields() -> None:
    error = failure(overrides=["window.frame=1"], method="m")
    assert "unknown key 'window.frame'" in error.message and error.hint == "did you mean frames?"
    far = failure(overrides=["window.zzz=1"], method="m")
    assert far.hint == "known: frames, stride"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["window.stride=0"], ["window.stride", "not 0"]),
        (["seed=many"], ["seed", "'many'"]),
        (["seed"], ["--set seed", "KEY=VALUE"]),
        (["=1"], ["KEY=VALUE"]),
        (["seed.x=1", "seed.x.y=2"], ["--set seed.x.y=2", "'x' holds a value"]),
        (["seed=[1"], ["--set seed=[1", "not valid YAML"]),
        (["method='a\nb'", "seed='a\nb'"], ["seed"]),
    ],
)
def test_a_bad_override_is_one_clear_line(overrides: list[str], words: list[str]) -> None:
    error = failure(overrides=["method=m", *overrides])
    assert all(word in str(error) for word in words), str(error)


def test_a_key_that_is_needed_is_named(tmp_path: Path) -> None:
    error = failure(path=write(tmp_path, "seed: 1\n"))
    assert error.message.endswith("settings.yaml: 'method' is needed")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: [a\nseed: 1", "is not valid YAML"),
        ("a\tb: : c\n- x", "is not valid YAML"),
        ("- method\n- seed\n", "holds a list, not key: value pairs"),
        ("just text", "holds a str"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    error = failure(path=write(tmp_path, text))
    assert words in error.message and "settings.yaml" in error.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert failure(path=tmp_path / "absent.yaml").message == f"there is no file {tmp_path / 'absent.yaml'}"
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot read" in (message := failure(path=tmp_path / "binary.yaml").message) and "binary.yaml" in message


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, "# nothing\n")) == {}


def test_a_written_configuration_loads_to_the_same(tmp_path: Path) -> None:
    made = Settings(method="Ä ~ null", metrics=["fvd"], out=Path("x/é"))
    made.write(tmp_path / "config.yaml")
    again = Settings.load(tmp_path / "config.yaml")
    assert again == made and again.digest() == made.digest()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text("utf-8"))["out"] == "x/é"


def test_the_digest_does_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    one = Settings.load(write(tmp_path, "method: a\nwindow: {stride: 2, frames: 3}\n")).digest()
    two = Settings.load(write(tmp_path, "window: {frames: 3, stride: 2}\nmethod: a\n")).digest()
    assert one == two
    assert digest({"a": 1, "b": {"c": [1, 2], "d": None}}) == digest({"b": {"d": None, "c": [1, 2]}, "a": 1})


def test_the_digest_tells_values_apart() -> None:
    values = [{"a": 1}, {"a": 2}, {"a": "1"}, {"a": True}, {"a": None}, {"a": [1]}, {"b": 1}, {}, {"a": 1.5}]
    assert len({digest(value) for value in values}) == len(values)
    assert digest([1, 2]) != digest([2, 1])


def test_the_digest_is_that_of_canonical_json() -> None:
    """printf '{"a":[1,null,"x"],"b":true}' | sha256sum"""
    assert digest({"b": True, "a": [1, None, "x"]}) == (
        "98d9d9eb9fde88e59263a83c4fac10e71ba374ce38fa76884da0f6a1d6b3c9bf"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_digest_refuses_numbers_that_json_cannot_hold(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": [value]})


def test_a_file_name_that_is_no_text_has_a_digest() -> None:
    """Names that are not UTF-8 come from the file system with lone surrogates."""
    assert digest(["clip\udcff"]) != digest(["clip\udcfe"])
