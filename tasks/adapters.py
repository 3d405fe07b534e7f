"""A published method as data: what its own program is given, how it is called, and where its video appears.

An adapter is a YAML file: `configs/methods/<name>.yaml` for the published ones, any file for one's own. It says nothing
about a machine; where a method lies on one is in `adapter_setup`. A fact that could not be established is null, and
`unknown` says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from ..core.config import Config, digest, read_yaml, validate
from ..core.emotions import MEAD_EMOTIONS
from ..core.errors import ConfigError
from ..core.registry import did_you_mean
from ..core.weights import CONFIGS

FOLDER = CONFIGS / "methods"
GB, MB = 10**9, 10**6
# Fields that do not change a video: what is said of the method, and what ends or judges a run.
SPOKEN = {"name", "what", "paper", "licence", "runtime", "unknown", "notes", "needs", "limits", "commit", "read_from"}

PLACEHOLDERS = {
    "python": "the interpreter that the local settings name",
    "checkout": "the folder of the method's repository",
    "scratch": "the item's own folder",
    "work": "inside it: the checkout's files, as links; programs start here",
    "inputs": "inside it: staged files",
    "result": "inside it: empty, for the program's video",
    "portrait": "the staged portrait",
    "audio": "the staged sound",
    "clip": "the staged clip",
    "emotion": "the program's own word for the item's emotion",
    "seed": "of --seed",
    "frames": "of the video at 25 a second",
    "seconds": "of the video",
    "gpu": "number of the GPU that the item got, empty without one",
    "job": "a name that no other item at work has, for containers",
}
GROUPS = {"config": "configs", "file": "files"}  # {config.NAME}, {file.NAME}: staged ones, by the field that has them
_PLACEHOLDER = re.compile(r"\{([a-z_]+(?:\.[a-z_0-9]+)?)\}")


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in text or not text.isascii() or " " in text:
        raise ValueError("must be a path below its folder, of ASCII characters without blanks")
    return text


Inside = Annotated[str, AfterValidator(_inside)]


class Paper(Config):
    """Where the method was published."""

    title: str
    venue: str | None
    url: str | None = Field(pattern=r"^https://")


class Licence(Config):
    """Terms, as the repository says them; None where it could not be established.

    Attributes:
        code, weights: SPDX names, or a few words.
        source: where it was read.
    """

    code: str | None
    weights: str | None
    source: str


class Portrait(Config):
    """How the portrait is handed over.

    Attributes:
        file: below the item's folder; PNG or JPEG by its ending.
        crop: a named crop of dataset builds (`ffhq`, `dice-square`, ...); None leaves the picture as it is.
        size: pixels a side, of cropped portraits; the portrait's shorter side otherwise. None keeps it.
    """

    file: Inside = Field(default="inputs/portrait.png", pattern=r"\.(png|jpg)$")
    crop: str | None = None
    size: PositiveInt | None = None

    @model_validator(mode="after")
    def _has_a_size(self) -> Self:
        if self.crop and not self.size:
            raise ValueError("a crop needs a size")
        return self


class Audio(Config):
    """How the sound is handed over: mono 16-bit PCM, cut to the video's length; as .mp4 over the still portrait."""

    file: Inside = Field(default="inputs/audio.wav", pattern=r"\.(wav|mp4)$")
    rate: PositiveInt = 16000


class Clip(Config):
    """A clip that gives expression or pose, at 25 frames a second, no longer than the video.

    Attributes:
        file: below the item's folder.
        of: which of the item's clips; "either" takes the emotion video, else the real clip.
        sound: the clip's own, the item's, or none.
        size: (width, height) in pixels; None keeps them.
    """

    file: Inside = Field(default="inputs/clip.mp4", pattern=r"\.mp4$")
    of: Literal["video", "emotion_video", "either"] = "either"
    sound: Literal["own", "item", "none"] = "own"
    size: tuple[PositiveInt, PositiveInt] | None = None


class Extra(Config):
    """A file of numbers that the method wants and that other tools make (3DMM coefficients, poses, phonemes).

    It is looked for in the folder that the local settings name: `<item>.<suffix>`, `<emotion>.<suffix>`,
    `default.<suffix>`.

    Attributes:
        what: what it holds, and which tool makes it.
        suffix: with its dot.
        default: in the checkout, for items that have none; may have {emotion}.
    """

    what: str
    suffix: str = Field(pattern=r"^\.[a-z0-9]+$")
    default: Inside | None = None


class Inputs(Config):
    """What is staged for an item."""

    portrait: Portrait = Portrait()
    audio: Audio = Audio()
    clip: Clip | None = None


class Settings(Config):
    """A configuration file of the checkout with some keys set anew; written to `inputs/<NAME>.yaml`.

    Attributes:
        base: YAML file in the checkout; None begins with nothing.
        set: keys and values; texts, and keys, may have placeholders.
    """

    base: Inside | None
    set: dict[str, Any]


class Step(Config):
    """One program call.

    Attributes:
        run: program and arguments, never through a shell; placeholders are filled in each argument.
        cwd: folder below `work`.
    """

    run: list[str] = Field(min_length=1)
    cwd: Inside | None = None


class Work(Config):
    """The item's own copy of the checkout's tree: folders are made anew, files are links.

    Attributes:
        own: folders that begin empty, because the program writes there.
        link: folders that are linked as a whole, because they hold very many files or are only read.
    """

    own: list[Inside] = Field(default_factory=list)
    link: list[Inside] = Field(default_factory=list)


class Output(Config):
    """Where the video appears, and what it has to be.

    Attributes:
        glob: below `root`; a file counts that was not there before, or has changed.
        root: the item's folder, or the checkout (then one item at a time).
        choose: which one, of several.
        fps: that it has, None where unknown; said, not enforced.
        crop: (left, top, width, height) in pixels that show the result, where the program writes more than it.
        sound: whether it must have a sound track. The scored video has the item's own sound in any case.
        shorter_s, longer_s: seconds by which its length may differ from the item's.
    """

    glob: Inside
    root: Literal["scratch", "checkout"] = "scratch"
    choose: Literal["only", "newest"] = "only"
    fps: PositiveFloat | None = None
    crop: tuple[int, int, PositiveInt, PositiveInt] | None = None
    sound: Literal["any", "required"] = "any"
    shorter_s: float = Field(default=0.2, ge=0)
    longer_s: float = Field(default=0.2, ge=0)

    @model_validator(mode="after")
    def _has_even_sides(self) -> Self:
        if self.crop and (min(self.crop) < 0 or self.crop[2] % 2 or self.crop[3] % 2):
            raise ValueError("crop must lie in the picture, with even sides, which H.264 needs")
        return self


class Needs(Config):
    """What a machine must have; for `talkforge methods check`.

    Attributes:
        weights: files or folders in the checkout; may be glob patterns.
        programs: commands that must be found, such as ffmpeg.
        gpu: whether it cannot do without an NVIDIA GPU, uses one where there is one, or has nothing from it.
        gpu_memory_gb: as the authors state it, None where they do not.
        python: version that the authors name.
    """

    weights: list[Inside] = Field(default_factory=list)
    programs: list[str] = Field(default_factory=list)
    gpu: Literal["needed", "used", "none"] = "needed"
    gpu_memory_gb: PositiveFloat | None = None
    python: str | None = None


class Limits(Config):
    """What ends a program.

    Attributes:
        seconds: of all steps of an item together.
        memory_gb: resident memory of the program and all that it started, together; not of the GPU.
        scratch_gb: of files in the item's folder.
        log_mb: of what it says.
    """

    seconds: PositiveFloat = 3600
    memory_gb: PositiveFloat = 64
    scratch_gb: PositiveFloat = 20
    log_mb: PositiveFloat = 64


class Runtime(Config):
    """What the authors say that it takes."""

    seconds_per_second: PositiveFloat | None
    source: str | None


class Adapter(Config):
    """A method's declaration; see the module."""

    name: str
    what: str
    condition: Literal["audio", "audio+video", "audio+prompt"]
    paper: Paper
    repository: str = Field(pattern=r"^https://")
    commit: str | None = Field(pattern=r"^[0-9a-f]{40}$")
    read_from: str
    licence: Licence
    inputs: Inputs = Inputs()
    emotions: dict[str, str] = Field(default_factory=dict)
    files: dict[str, Extra] = Field(default_factory=dict)
    configs: dict[str, Settings] = Field(default_factory=dict)
    steps: list[Step] = Field(min_length=1)
    work: Work = Work()
    output: Output
    env: dict[str, str] = Field(default_factory=dict)
    needs: Needs = Needs()
    limits: Limits = Limits()
    runtime: Runtime
    unknown: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for place, text in self.texts():
            for found in placeholders(text):
                self._check(place, found)
        for emotion in self.emotions:
            if emotion not in MEAD_EMOTIONS:
                hint = did_you_mean(emotion, MEAD_EMOTIONS) or f"known: {', '.join(MEAD_EMOTIONS)}"
                raise ValueError(f"emotions: unknown emotion '{emotion}' ({hint})")
        return self

    def _check(self, place: str, found: str) -> None:
        if "." in found:
            known = {f"{one}.{entry}" for one, field in GROUPS.items() for entry in getattr(self, field)}
        else:
            known = set(PLACEHOLDERS) - (set() if self.inputs.clip else {"clip"})
            known -= set() if self.emotions else {"emotion"}
        if found not in known:
            hint = did_you_mean(found, known) or f"known: {', '.join(sorted(known))}"
            raise ValueError(f"{place}: unknown placeholder '{{{found}}}' ({hint})")

    def texts(self) -> Iterator[tuple[str, str]]:
        """(where it stands, text) of everything that may have placeholders."""
        for number, step in enumerate(self.steps, 1):
            yield from ((f"steps.{number}", text) for text in step.run)
        for name, settings in self.configs.items():
            yield from ((f"configs.{name}", text) for text in _strings(settings.set))
        yield from ((f"files.{name}", extra.default) for name, extra in self.files.items() if extra.default)
        yield from ((f"env.{name}", text) for name, text in self.env.items())

    @property
    def wants_emotion(self) -> bool:
        """Whether a program is told the item's emotion."""
        return any("{emotion}" in text for _, text in self.texts())

    @property
    def identity(self) -> str:
        """sha256 of what its videos depend on; remarks, licences and limits left out."""
        data = self.model_dump(mode="json", exclude=SPOKEN)
        for judged in ("fps", "sound", "shorter_s", "longer_s"):
            del data["output"][judged]
        return digest(data)

    @classmethod
    def read(cls, path: Path) -> Adapter:
        """An adapter file. Raises ConfigError: unreadable, or not an adapter."""
        return validate(cls, read_yaml(path), where=str(path))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def placeholders(text: str) -> list[str]:
    """Names in braces."""
    return _PLACEHOLDER.findall(text)


def fill(value: Any, values: Mapping[str, str]) -> Any:
    """A text, or all texts in lists and mappings, with `{name}` replaced; other braces stay."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), value)
    if isinstance(value, Mapping):
        return {fill(key, values): fill(inner, values) for key, inner in value.items()}
    return [fill(inner, values) for inner in value] if isinstance(value, list) else value


def shipped() -> dict[str, Path]:
    """Files of the adapters that come with this package, by method."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def is_file(name: str) -> bool:
    """Whether a method is named by an adapter file of the user's own."""
    return name.lower().endswith((".yaml", ".yml"))


def path_of(name: str) -> Path:
    """The adapter file of a method: a shipped one's by its name, one's own by its path.

    Raises:
        ConfigError: no such method, or no such file.
    """
    if is_file(name):
        if not Path(name).is_file():
            raise ConfigError(f"there is no adapter file {name}")
        return Path(name)
    known = shipped()
    if name not in known:
        hint = did_you_mean(name, known) or f"known: {', '.join(known)}"
        raise ConfigError(f"unknown published method '{name}'", hint=hint)
    return known[name]
