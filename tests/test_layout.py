"""The house's own rules: which room may import which, what is imported lazily, what is never called."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import talkforge

ROOT = Path(talkforge.__file__).resolve().parent
BELOW_CLI = {"core", "datasets", "models", "tasks", "metrics", "reports", "flows"}
MAY_IMPORT = {
    "core": set(),
    "datasets": {"core"},
    "models": {"core"},
    "tasks": {"core", "datasets", "models"},
    "metrics": {"core"},
    "reports": {"core", "metrics"},
    "flows": BELOW_CLI,
    "commands": {"core"},
    "cli": {"core", "commands"},
}
# Inside a function a command may reach for more: that is what keeps `--help` fast.
ABOVE_FLOWS = {"core", "flows", "reports", "datasets", "metrics"}
LATER = MAY_IMPORT | {"commands": ABOVE_FLOWS, "cli": {*ABOVE_FLOWS, "commands"}}
# Names such as "talkforge.models.i3d:load_i3d" are imports too. `metrics.fvd.video_fvd` takes arrays of pixels, so it
# needs the network; nothing else of that room does.
BY_NAME = LATER | {"metrics": {"core", "models"}}
# Where a library may be imported at module level, and where inside functions.
HOMES = {
    "torch": ({"models"}, {"models", "core", "tasks", "flows"}),
    "prefect": (set(), {"flows"}),
    "mediapipe": (set(), {"tasks"}),
    "cv2": ({"tasks"}, {"tasks"}),
    "av": ({"datasets"}, {"datasets"}),
    "scipy": ({"metrics", "tasks"}, {"metrics", "tasks"}),
    "jinja2": ({"reports"}, {"reports"}),
    "click": ({"cli", "commands"}, {"cli", "commands"}),
}
# The one file that imports Prefect when it is imported: Prefect finds flows as decorated functions of a module. It is
# itself imported inside functions alone.
FLOWS_OF_PREFECT = "flows/deployments.py"
MOST_LINES = 400


def files_of(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


SOURCES = [*files_of(*BELOW_CLI, "commands"), ROOT / "cli.py"]
ALL = [*SOURCES, *files_of("benchmarks", "tests")]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


class Import(NamedTuple):
    """An import statement: its full target below the package ("core.errors") or a library's name."""

    line: int
    target: str
    inside: bool  # a module of this package
    relative: bool
    later: bool  # inside a function


def imports_of(tree: ast.Module, package: list[str]) -> Iterator[Import]:
    """All imports except those for type checkers; `package` is the module's package as a list, [] for the root."""
    skipped = {id(child) for node in ast.walk(tree) if _typing_only(node) for child in ast.walk(node)}
    later = {id(child) for node in ast.walk(tree) if _is_function(node) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _absolute(node, alias.name, id(node) in later)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                yield Import(node.lineno, ".".join([*base, alias.name]), True, True, id(node) in later)
        elif isinstance(node, ast.ImportFrom):
            yield _absolute(node, node.module or "", id(node) in later)


def _absolute(node: ast.stmt, name: str, later: bool) -> Import:
    own = name.split(".")[0] == "talkforge"
    return Import(node.lineno, name.removeprefix("talkforge.") if own else name.split(".")[0], own, False, later)


def _typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def import_faults(room: str, text: str, package: list[str]) -> list[str]:
    """What is wrong with a module's imports, one line each."""
    faults = []
    for found in imports_of(ast.parse(text), package):
        target_room = found.target.split(".")[0]
        allowed = (LATER if found.later else MAY_IMPORT)[room] | {room, "__version__"}
        home = HOMES.get(found.target)
        if found.inside and not found.relative:
            faults.append(f"{found.line}: talkforge.{found.target} is imported absolutely")
        elif found.inside and target_room not in allowed:
            faults.append(f"{found.line}: {room} imports {found.target}")
        elif not found.inside and home and room not in home[found.later]:
            faults.append(f"{found.line}: {room} imports {found.target}{' in a function' if found.later else ''}")
    return faults


def name_faults(room: str, text: str) -> list[str]:
    """String constants "talkforge.<room>.module:attribute" that lead to a room which this one may not import."""
    strings = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    targets = [(node.lineno, node.value) for node in strings if str(node.value).startswith("talkforge.")]
    rooms = [(line, value, value.split(":")[0].split(".")[1]) for line, value in targets if " " not in value]
    return [f"{line}: {value}" for line, value, there in rooms if there not in BY_NAME[room] | {room}]


def call_faults(text: str) -> list[str]:
    """Calls and handlers that are forbidden everywhere, one line each."""
    faults = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr == "VideoCapture":
            faults.append(f"{node.lineno}: cv2.VideoCapture ends in silence on damaged files")
        elif isinstance(node, ast.Call):
            faults += [f"{node.lineno}: {fault}" for fault in _bad_call(node)]
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            faults.append(f"{node.lineno}: bare except")
        elif isinstance(node, ast.ExceptHandler) and _swallows(node):
            faults.append(f"{node.lineno}: every error is swallowed")
    return faults


def _bad_call(node: ast.Call) -> Iterator[str]:
    given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
    called = ast.unparse(node.func)
    if given.get("shell"):
        yield "shell=True"
    if called == "torch.load" and given.get("weights_only") is not True:
        yield "torch.load without weights_only=True"
    if called in {"os.system", "os.popen"}:
        yield called


def _swallows(node: ast.ExceptHandler) -> bool:
    broad = isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
    return broad and all(isinstance(line, ast.Pass) for line in node.body)


def test_imports_keep_to_the_room_table() -> None:
    faults = {}
    for path in SOURCES:
        room, *rest = path.relative_to(ROOT).with_suffix("").parts
        text = path.read_text(encoding="utf-8")
        found = import_faults(room, text, [room, *rest[:-1]] if rest else []) + name_faults(room, text)
        if name_of(path) == FLOWS_OF_PREFECT:
            found = [fault for fault in found if not fault.endswith(": flows imports prefect")]
        faults[name_of(path)] = found
    assert len(faults) > 40
    assert {name: found for name, found in faults.items() if found} == {}


def test_nothing_forbidden_is_called() -> None:
    faults = {name_of(path): call_faults(path.read_text(encoding="utf-8")) for path in ALL}
    assert {name: found for name, found in faults.items() if found} == {}


def test_code_is_never_made_from_text_or_pickles() -> None:
    calls = re.compile(r"\b(?:pickle\.loads?|eval|exec)\(")
    found = [name_of(path) for path in SOURCES if calls.search(path.read_text(encoding="utf-8").replace(".eval(", ""))]
    assert found == []


def test_files_are_short_enough_to_read() -> None:
    long = {name_of(path): count for path in ALL if (count := len(path.read_text().splitlines())) > MOST_LINES}
    assert long == {}


def test_rooms_hold_no_init_file() -> None:
    """A root `datasets/__init__.py` would shadow the library of that name for everything started from the root."""
    rooms = [*BELOW_CLI, "commands", "configs", "benchmarks", "tests"]
    assert [name_of(path) for room in rooms for path in (ROOT / room).rglob("__init__.py")] == []


def test_listed_packages_are_the_folders_there_are() -> None:
    """setuptools takes what is listed and nothing else: a room that is not listed is missing from a wheel."""
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    listed = {name.removeprefix("talkforge").removeprefix(".").replace(".", "/") or "." for name in setup["packages"]}
    assert [name for name in sorted(listed) if not (ROOT / name).is_dir()] == []
    assert {name_of(path.parent) for path in SOURCES} <= listed
    data = {package.removeprefix("talkforge."): patterns for package, patterns in setup["package-data"].items()}
    empty = [(room, text) for room, patterns in data.items() for text in patterns if not any((ROOT / room).glob(text))]
    assert empty == []


def test_importing_leaves_the_heavy_libraries_alone() -> None:
    light = [path for path in SOURCES if name_of(path) != FLOWS_OF_PREFECT]
    modules = ["talkforge.cli", *(f"talkforge.{name_of(p)[:-3].replace('/', '.')}" for p in light)]
    wanted = [name for name in dict.fromkeys(modules) if not name.startswith("talkforge.models.")]
    code = (
        "import importlib, sys\n"
        f"for name in {wanted!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = [lib for lib in ('torch', 'prefect', 'mediapipe') if lib in sys.modules]\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("room", "text", "fault"),
    [
        ("core", "from ..datasets.video import probe", "core imports datasets.video.probe"),
        ("core", "def f():\n    from ..tasks import extract", "core imports tasks.extract"),
        ("metrics", "from .. import tasks", "metrics imports tasks"),
        ("cli", "from .reports.text import summary", "cli imports reports.text.summary"),
        ("commands", "from ..flows.evaluate import evaluate", "commands imports flows.evaluate.evaluate"),
        ("tasks", "import talkforge.core.errors", "absolutely"),
        ("tasks", "import torch.nn", "tasks imports torch"),
        ("tasks", "def f():\n    import prefect", "tasks imports prefect in a function"),
        ("flows", "from prefect import flow", "flows imports prefect"),
    ],
)
def test_the_import_check_sees(room: str, text: str, fault: str) -> None:
    package = [] if room == "cli" else [room]
    assert fault in " ".join(import_faults(room, text, package))


def test_the_import_check_lets_pass_what_is_allowed() -> None:
    assert import_faults("cli", "def f():\n    from .reports.text import summary", []) == []
    assert import_faults("tasks", "from .crop import Item\ndef f():\n    import torch", ["tasks"]) == []
    assert import_faults("core", "if TYPE_CHECKING:\n    import torch", ["core"]) == []
    assert import_faults("models", "from ...core.errors import InputError", ["models", "dice_talk"]) == []


def test_the_name_check_sees_a_target_in_a_higher_room() -> None:
    assert name_faults("metrics", "resolve('talkforge.tasks.crop:similarity')") != []
    assert name_faults("tasks", "resolve('talkforge.models.i3d:load_i3d')") == []


@pytest.mark.parametrize(
    "text",
    [
        "cv2.VideoCapture(0)",
        "subprocess.run('ls', shell=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "os.system('ls')",
        "try:\n    f()\nexcept:\n    raise",
        "try:\n    f()\nexcept Exception:\n    pass",
    ],
)
def test_the_call_check_sees(text: str) -> None:
    assert len(call_faults(text)) == 1
    assert call_faults("torch.load(path, weights_only=True)") == []
