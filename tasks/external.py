"""Published methods as methods of `talkforge generate`: each item is staged, made by the method's own program, checked.

The programs are run as they are; nothing of them is imported. Which of them there are, and how to add one, says
`docs/methods.md`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import NonNegativeFloat, NonNegativeInt

from ..core.config import Config
from ..core.errors import ConfigError, InputError
from ..datasets.video import FPS
from .adapter_setup import Setup, check_ready, files_digest, gpus_of, setup_of, version_of, weights_of
from .adapters import GB, MB, Adapter, Limits, fill, is_file, path_of, shipped
from .external_errors import NoOutput, ProgramFailed
from .external_run import Bounds, Ran, quoted, run_program
from .external_stage import Staged, check_item, stage
from .external_video import Before, find, normalise
from .methods import Method, Opened, TestItem, methods, read_sound
from .scratch import scratch_folder

LEASE_POLL_S = 0.2
LOGS = "logs"


class RunOptions(Config):
    """Options of every published method.

    Attributes:
        seed: for {seed}; programs that take none ignore it.
        seconds, memory_gb, scratch_gb, log_mb: limits, in place of the local settings' and the adapter's.
        shorter_s, longer_s: in place of the adapter's tolerances.
        keep: leaves the item's folder for inspection, and says where it is.
    """

    seed: NonNegativeInt = 0
    seconds: NonNegativeFloat | None = None
    memory_gb: NonNegativeFloat | None = None
    scratch_gb: NonNegativeFloat | None = None
    log_mb: NonNegativeFloat | None = None
    shorter_s: NonNegativeFloat | None = None
    longer_s: NonNegativeFloat | None = None
    keep: bool = False


@dataclass(frozen=True)
class External(Method):
    """A method whose videos another program makes.

    Attributes:
        path: its adapter.
    """

    path: Path = Path()

    @classmethod
    def of(cls, name: str) -> External:
        """A shipped method by its name, or one of an adapter file. Raises ConfigError: there is none."""
        path = path_of(name)
        if is_file(name) and path.stem not in shipped() and path.stem in methods.names():
            raise ConfigError(f"{name} would be called as the built-in method {path.stem}", hint="rename the file")
        what = f"the published program of {path.stem}, see talkforge methods"
        return cls(path.stem, 1, what, f"{__name__}:open_external", f"{__name__}:RunOptions", path)

    def open(self, overrides: Iterable[str] = (), **values: Any) -> Opened:
        """See `Method.open`. Raises MethodNotReady when something is missing on this machine."""
        for name, value in values.items():
            if value is not None and name not in RunOptions.model_fields:
                raise ConfigError(
                    f"method {self.id} takes no --{name}", hint=f"it has {', '.join(RunOptions.model_fields)}"
                )
        return open_external(self.id, Adapter.read(self.path), RunOptions.load(None, overrides, **values))


METHODS = tuple(External.of(name) for name in shipped())


def method_named(name: str) -> Method | None:
    """The method of one's own adapter file; None for any other name."""
    return External.of(name) if is_file(name) else None


def open_external(name: str, adapter: Adapter, options: RunOptions) -> Opened:
    """A published method on this machine.

    Raises:
        MethodNotReady: see `adapter_setup.check_ready`. ConfigError: the local settings cannot be used.
    """
    setup = setup_of(name)
    check_ready(name, adapter, setup)
    maker = Maker(name, adapter, setup, options, version_of(setup.checkout))
    return Opened(maker, maker.identity, maker.facts, maker.check)


@dataclass(frozen=True)
class Maker:
    """Makes videos with a published program; several may be at work, each in a folder of its own.

    Holds nothing but settings, so that it can be sent to another machine, which needs the same paths.
    """

    name: str
    adapter: Adapter
    setup: Setup
    options: RunOptions
    version: str

    @property
    def identity(self) -> dict[str, Any]:
        """See `Opened`."""
        local = self.setup.local
        return {
            "adapter": self.adapter.identity,
            "checkout": self.version,
            "command": [*local.prefix, self.setup.python],
            "env": local.env,
            "weights": weights_of(self.adapter, self.setup),
            "files": files_digest(self.adapter, self.setup),
            "seed": self.options.seed,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """See `Opened`."""
        limits = self.limits
        return {
            "program": self.adapter.name,
            "condition": self.adapter.condition,
            "repository": self.adapter.repository,
            "version": self.version,
            "written_for": self.adapter.commit,
            "licence": self.adapter.licence.code,
            "command": [*self.setup.local.prefix, self.setup.python],
            "seed": self.options.seed,
            "limits": [f"{value:g} {key}" for key, value in limits.model_dump().items()],
        }

    @property
    def limits(self) -> Limits:
        """The adapter's, then the local settings', then the options'."""
        data = self.adapter.limits.model_dump()
        for given in (self.setup.local.limits.model_dump(), self.options.model_dump(include=set(data))):
            data |= {key: value for key, value in given.items() if value is not None}
        return Limits(**data)

    def check(self, item: TestItem) -> int:
        """Frames of an item's video. Raises what can be seen to be missing before it is made."""
        check_item(self.adapter, item, self.setup)
        return read_sound(item)[1]

    def __call__(self, item: TestItem, out: Path) -> dict[str, Any]:
        """Writes the item's video; facts of it. Its log lies in `logs/` beside the videos."""
        check_item(self.adapter, item, self.setup)
        log = log_of(item, out)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        room = self._room()
        kept = {"scratch": str(room)} if self.options.keep else {}
        try:
            return self._make(item, out, room, log) | kept
        except ProgramFailed as error:
            note = f" (log: {LOGS}/{log.relative_to(log_root(item, out) / LOGS).as_posix()})" if log.is_file() else ""
            known = {"version": self.version, "host": platform.node(), **error.facts, **kept}
            raise type(error)(f"{error.message}{note}", hint=error.hint, facts=known) from error
        finally:
            if not self.options.keep:
                shutil.rmtree(room, ignore_errors=True)

    def _make(self, item: TestItem, out: Path, room: Path, log: Path) -> dict[str, Any]:
        staged = stage(self.adapter, item, self.setup, room, read_sound(item), self.options.seed)
        shared = [str(self.setup.checkout.resolve())] if self.adapter.output.root == "checkout" else []
        gpus = [] if self.adapter.needs.gpu == "none" else [str(number) for number in gpus_of(self.setup)]
        with leased("checkout", shared):
            before = Before.look(self.adapter, room, self.setup.checkout)
            with leased("gpu", gpus) as gpu:
                ran = self._run(staged, room, log, gpu)
            made = self._result(staged, before, ran, room, out)
        rate = ran.facts | {"took_s_per_second": round(ran.seconds * FPS / staged.frames, 3)}
        where = {"host": platform.node(), "gpu": gpu, "log": log.relative_to(log_root(item, out)).as_posix()}
        return made | rate | where

    def _result(self, staged: Staged, before: Before, ran: Ran, room: Path, out: Path) -> dict[str, Any]:
        """The program's video, checked and in its place; facts of it."""
        tolerances = self.options.model_dump(include={"shorter_s", "longer_s"}, exclude_none=True)
        output = self.adapter.output.model_copy(update=tolerances)
        try:
            found = find(output, before, room, self.setup.checkout)
            return normalise(found, out, output, staged.samples, staged.frames)
        except ProgramFailed as error:
            said = quoted(ran.tail) if isinstance(error, NoOutput) else ""
            raise type(error)(error.message + said, hint=error.hint, facts=ran.facts) from error

    def _room(self) -> Path:
        """A new folder for an item; one that is kept has a name that no later run clears away."""
        place = self.setup.local.scratch or own_temporary("items")
        if not self.options.keep:
            return scratch_folder(place)
        place.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="kept-", dir=place))

    def _run(self, staged: Staged, room: Path, log: Path, gpu: str | None) -> Ran:
        """All steps, within one time limit."""
        limits, local = self.limits, self.setup.local
        bounds = Bounds(limits.seconds, limits.memory_gb * GB, limits.scratch_gb * GB, limits.log_mb * MB)
        runs: list[Ran] = []
        values = {**staged.values, "gpu": gpu or "", "job": room.name}
        env = self.setup.env | fill(self.adapter.env, values) | local.env_of_run(room, gpu)
        for number, step in enumerate(self.adapter.steps, 1):
            command = fill([*local.prefix, *step.run], values)
            with log.open("a", encoding="utf-8") as out:
                out.write(f"step {number} of {len(self.adapter.steps)}: {command}\n")
            spent = sum(ran.seconds for ran in runs)
            cwd = room / "work" / (step.cwd or "")
            stop = fill(local.stop, values)
            ran = run_program(command, cwd=cwd, env=env, log=log, bounds=bounds, room=room, stop=stop, spent=spent)
            runs.append(ran)
        peaks = [ran.peak_memory for ran in runs if ran.peak_memory is not None]
        return Ran(sum(ran.seconds for ran in runs), max(peaks, default=None), runs[-1].tail)


def log_root(item: TestItem, out: Path) -> Path:
    """The folder that an item's id counts from."""
    return out.parents[len(item.id.split("/")) - 1]


def log_of(item: TestItem, out: Path) -> Path:
    """Where an item's log lies."""
    return log_root(item, out) / LOGS / f"{item.id}.log"


def own_temporary(name: str) -> Path:
    """A folder of this user's in the system's place for temporary files.

    Raises:
        InputError: somebody else has made it.
    """
    folder = Path(tempfile.gettempdir()) / f"talkforge-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder} belongs to another user", hint="set TMPDIR to a folder of your own")
    (folder / name).mkdir(exist_ok=True)
    return folder / name


@contextmanager
def leased(kind: str, names: Sequence[str]) -> Iterator[str | None]:
    """Holds one of `names` for this item alone, and waits until one is free; None where there are no names.

    All processes of this user on this machine know of it, and it goes with the process that holds it.
    """
    if not names:
        yield None
        return
    folder = own_temporary("leases")
    name, file = _take(folder, kind, names)
    with file:  # closing it lets go of the lock
        yield name


def _take(folder: Path, kind: str, names: Sequence[str]) -> tuple[str, IO[str]]:
    while True:
        for name in names:
            file = (folder / f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:16]}").open("a", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return name, file
            except BlockingIOError:
                file.close()
        time.sleep(LEASE_POLL_S)
