"""Where published methods lie on this machine, and what is missing.

One folder, `$TALKFORGE_METHODS` (else `methods` in the user's cache folder), holds a checkout a method, named as the
method, and a file `methods.yaml` that says with which interpreter each runs, and where it lies elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from ..core.config import Config, read_yaml, validate
from ..core.hashing import file_sha256
from ..core.registry import did_you_mean
from ..core.weights import cache_root
from .adapters import PLACEHOLDERS, Adapter, placeholders
from .external_errors import MethodNotReady
from .external_run import environment

VARIABLE = "TALKFORGE_METHODS"
SETTINGS = "methods.yaml"
ASK_S = 60.0  # for a program's version
SOURCES = {".py", ".sh", ".yaml", ".yml", ".json"}  # what makes up the version of a checkout without git
IGNORED = {"venv", "env", "__pycache__", "node_modules"}


class LocalLimits(Config):
    """Limits of this machine, in place of the adapter's."""

    seconds: PositiveFloat | None = None
    memory_gb: PositiveFloat | None = None
    scratch_gb: PositiveFloat | None = None
    log_mb: PositiveFloat | None = None


class Local(Config):
    """A method on this machine: an entry of `methods.yaml`.

    Attributes:
        checkout: the repository's folder.
        python: interpreter, for {python}; its folder comes first on PATH.
        prefix: what each call begins with: conda, docker. Placeholders are those of adapters.
        stop: command that ends what the prefix has started elsewhere, such as a container; likewise.
        gpus: numbers that may be used, one an item at a time; None takes CUDA_VISIBLE_DEVICES, else all there are. An
            empty list asks for none here and assigns none, as for a program that reaches its GPU by itself.
        env: variables for the program.
        files: folders of files that other tools made, by the adapter's names.
        scratch: folder for items at work.
        limits: see there.
    """

    checkout: Path | None = None
    python: str | None = None
    prefix: list[str] = Field(default_factory=list)
    stop: list[str] = Field(default_factory=list)
    gpus: list[int] | None = None
    env: dict[str, str] = Field(default_factory=dict)
    files: dict[str, Path] = Field(default_factory=dict)
    scratch: Path | None = None
    limits: LocalLimits = Field(default_factory=LocalLimits)

    @model_validator(mode="after")
    def _knows_its_placeholders(self) -> Self:
        for found in (found for word in (*self.prefix, *self.stop) for found in placeholders(word)):
            if found not in PLACEHOLDERS:
                hint = did_you_mean(found, PLACEHOLDERS) or f"known: {', '.join(PLACEHOLDERS)}"
                raise ValueError(f"unknown placeholder '{{{found}}}' ({hint})")
        return self

    def env_of_run(self, room: Path, gpu: str | None) -> dict[str, str]:
        """Variables of one item's programs: what they write beside their output lies in its folder, too."""
        fixed = {"TMPDIR": str(room / "tmp"), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return fixed | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})


@dataclass(frozen=True)
class Setup:
    """A method on this machine, with everything that is not said filled in.

    Attributes:
        checkout: the repository's folder; it need not be there.
        python: for {python}.
        chosen: whether an interpreter or a prefix is named, or the checkout has a .venv.
        local: the entry of `methods.yaml`.
        source: that file.
    """

    checkout: Path
    python: str
    chosen: bool
    local: Local
    source: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment of its programs."""
        given = dict(self.local.env)
        if "/" in self.python:
            given["PATH"] = os.pathsep.join(
                [str(Path(self.python).parent), given.get("PATH", os.environ.get("PATH", ""))]
            )
        return environment(given)


@dataclass(frozen=True)
class Requirement:
    """One thing that a method needs.

    Attributes:
        name: what it is.
        state: "missing" keeps the method from running; "differs" and "unknown" do not.
        detail: what was found.
        way: what to do about it.
    """

    name: str
    state: Literal["ok", "missing", "differs", "unknown"]
    detail: str
    way: str | None = None


def methods_folder() -> Path:
    """$TALKFORGE_METHODS, else `methods` in the user's cache folder."""
    given = os.environ.get(VARIABLE)
    return Path(given).expanduser() if given else cache_root() / "methods"


def setup_of(name: str) -> Setup:
    """A method on this machine.

    Raises:
        ConfigError: `methods.yaml` or the method's entry in it cannot be used.
    """
    folder = methods_folder()
    source = folder / SETTINGS
    entries = read_yaml(source) if source.is_file() else {}
    local = validate(Local, entries.get(name) or {}, where=f"{source}: {name}")
    checkout = folder / (local.checkout.expanduser() if local.checkout else name)
    files = {key: folder / path.expanduser() for key, path in local.files.items()}
    own = checkout / ".venv" / "bin" / "python"
    python = local.python or (str(own) if own.is_file() else "python")
    if "/" in python:
        python = str(folder / Path(python).expanduser())
    chosen = bool(local.python or local.prefix or own.is_file())
    return Setup(checkout, python, chosen, local.model_copy(update={"files": files}), source)


def requirements(name: str, adapter: Adapter, setup: Setup, *, quick: bool = False) -> Iterator[Requirement]:
    """What the method needs, line by line.

    Args:
        quick: starts no program of the method's own.
    """
    yield _checkout(name, adapter, setup)
    if setup.checkout.is_dir():
        yield _commit(adapter, setup)
    yield _interpreter(name, adapter, setup, quick)
    for program in adapter.needs.programs:
        yield _program(program, setup, quick)
    if setup.checkout.is_dir():
        yield from (_weights(pattern, setup) for pattern in adapter.needs.weights)
    yield from (_extra(key, adapter, setup) for key in adapter.files)
    if adapter.needs.gpu != "none":
        yield _gpu(adapter, setup)


def check_ready(name: str, adapter: Adapter, setup: Setup) -> None:
    """Raises MethodNotReady with the first thing that is missing."""
    for one in requirements(name, adapter, setup, quick=True):
        if one.state == "missing":
            ways = [one.way] if one.way else []
            hint = "; ".join([*ways, f"all of it: talkforge methods check {name}"])
            raise MethodNotReady(f"method {name} is not ready: {one.name}: {one.detail}", hint=hint)


def gpus_of(setup: Setup) -> list[int]:
    """Numbers of the GPUs that items are spread over."""
    if setup.local.gpus is not None:
        return list(setup.local.gpus)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [int(one) for one in re.findall(r"\d+", visible)] if re.fullmatch(r"[\d, ]*", visible) else []
    return sorted(int(path.name[6:]) for path in Path("/dev").glob("nvidia[0-9]*"))


def version_of(checkout: Path) -> str:
    """What a checkout's program is: its commit, and a digest of what was changed in it; without git, of its sources."""
    if (commit := _git(checkout, "rev-parse", "HEAD")) is None:
        return f"sources {_digest(checkout)}"
    changed = _git(checkout, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv") or ""
    return f"{commit} with changes {hashlib.sha256(changed.encode()).hexdigest()[:16]}" if changed else commit


def weights_of(adapter: Adapter, setup: Setup) -> dict[str, int]:
    """Bytes of each weight file that is there, by its path in the checkout: hashing gigabytes at each start is slow."""
    files = (path for pattern in adapter.needs.weights for path in setup.checkout.glob(pattern) if path.is_file())
    return {path.relative_to(setup.checkout).as_posix(): path.stat().st_size for path in sorted(files)}


def files_digest(adapter: Adapter, setup: Setup) -> dict[str, str]:
    """sha256 over names and contents of the files that other tools made, by the adapter's names."""
    found = {}
    for name, folder in setup.local.files.items():
        suffix = adapter.files[name].suffix if name in adapter.files else ""
        rows = [
            f"{path.relative_to(folder)} {file_sha256(path)}"
            for path in sorted(folder.rglob(f"*{suffix}"))
            if path.is_file()
        ]
        found[name] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says of a folder that is a repository itself (and not only inside one); None where it is none."""
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],
            capture_output=True,
            timeout=ASK_S,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


def _digest(checkout: Path) -> str:
    total = hashlib.sha256()
    for place, folders, names in os.walk(checkout):
        folders[:] = sorted(name for name in folders if name not in IGNORED and not name.startswith("."))
        for path in (Path(place, name) for name in sorted(names)):
            if path.suffix in SOURCES and path.is_file():
                total.update(f"{path.relative_to(checkout)} {file_sha256(path)}\n".encode())
    return total.hexdigest()[:16]


def _checkout(name: str, adapter: Adapter, setup: Setup) -> Requirement:
    if setup.checkout.is_dir():
        return Requirement("checkout", "ok", str(setup.checkout))
    way = f"git clone {adapter.repository} {setup.checkout}, or name its place as {name}: checkout in {setup.source}"
    return Requirement("checkout", "missing", f"there is no folder {setup.checkout}", way)


def _commit(adapter: Adapter, setup: Setup) -> Requirement:
    version = version_of(setup.checkout)
    if adapter.commit is None:
        return Requirement("commit", "unknown", f"{version}; the adapter names none")
    if version == adapter.commit:
        return Requirement("commit", "ok", version)
    way = f"git -C {setup.checkout} checkout {adapter.commit}, if its arguments have changed since"
    return Requirement("commit", "differs", f"{version}; the adapter was written for {adapter.commit}", way)


def _interpreter(name: str, adapter: Adapter, setup: Setup, quick: bool) -> Requirement:
    if not setup.chosen:
        way = (
            f"name it in {setup.source}, as {name}: {{python: /path/to/its/bin/python}}, or a prefix of conda or docker"
        )
        return Requirement("interpreter", "missing", "none is named", way)
    command = [*setup.local.prefix, setup.python]
    if quick or any("{" in word for word in command):
        found = shutil.which(command[0], path=setup.env.get("PATH"))
        wrong = None if found else f"there is no program {command[0]}"
        return Requirement("interpreter", "missing" if wrong else "ok", wrong or " ".join(command))
    said = _asked([*command, "--version"], setup)
    if said is None:
        return Requirement("interpreter", "missing", f"{' '.join(command)} --version failed")
    wanted = adapter.needs.python
    note = f"; the authors name {wanted}" if wanted else ""
    return Requirement("interpreter", "ok", f"{' '.join(command)}: {said}{note}")


def _program(program: str, setup: Setup, quick: bool) -> Requirement:
    if setup.local.prefix:
        if quick or any("{" in word for word in setup.local.prefix):
            return Requirement(program, "unknown", "inside the prefix's environment")
        there = _asked([*setup.local.prefix, program, "-version"], setup) is not None
    else:
        there = shutil.which(program, path=setup.env.get("PATH")) is not None
    way = None if there else f"install {program}, or set PATH in env"
    return Requirement(program, "ok" if there else "missing", "found" if there else "not on PATH", way)


def _asked(command: list[str], setup: Setup) -> str | None:
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, env=setup.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_S, check=True
        )
        said = (done.stdout or done.stderr).decode("utf-8", "replace").strip().splitlines()
        return said[0][:100] if said else "it says nothing"
    return None


def _weights(pattern: str, setup: Setup) -> Requirement:
    found = [path for path in setup.checkout.glob(pattern) if path.is_dir() or path.stat().st_size]
    if found:
        size = sum(path.stat().st_size for path in found if path.is_file())
        return Requirement(pattern, "ok", f"{size / 1e6:.0f} MB" if size else "there")
    return Requirement(pattern, "missing", f"not in {setup.checkout}", "the repository's README says where to get it")


def _extra(name: str, adapter: Adapter, setup: Setup) -> Requirement:
    wanted, folder = adapter.files[name], setup.local.files.get(name)
    label = f"files.{name}"
    if folder is not None:
        count = sum(1 for _ in folder.rglob(f"*{wanted.suffix}"))
        way = None if count else f"put <item>{wanted.suffix} or <emotion>{wanted.suffix} there"
        return Requirement(label, "ok" if count else "missing", f"{count} files in {folder}", way)
    if wanted.default is not None:
        return Requirement(label, "ok", f"{wanted.default} of the checkout")
    way = f"make {wanted.what}, and name their folder in {setup.source}"
    return Requirement(label, "missing", "no folder is named", way)


def _gpu(adapter: Adapter, setup: Setup) -> Requirement:
    memory = adapter.needs.gpu_memory_gb
    hint = f"the authors name {memory:g} GB" if memory else "the authors name no size of its memory"
    gpus = gpus_of(setup)
    if setup.local.gpus == []:
        return Requirement("gpu", "ok", f"left to the program and its machine, as the local settings say; {hint}")
    if gpus:
        return Requirement("gpu", "ok", f"{len(gpus)} found (numbers {', '.join(map(str, gpus))}); {hint}")
    if adapter.needs.gpu == "used":
        return Requirement("gpu", "ok", f"no NVIDIA GPU was found, and it runs without; {hint}")
    way = "name gpus in the local settings if there are some"
    return Requirement("gpu", "missing", f"no NVIDIA GPU was found; {hint}", way)
