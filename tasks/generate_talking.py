"""What the methods share that animate a portrait with a training's weights: options, crop, networks, sound, writing.

The portrait is cut and scaled as the training's pictures were; the video shows that cut, at the model's size or, below
256 pixels, enlarged by a whole factor, for landmarkers find no faces in smaller pictures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from threading import Lock, current_thread, local, main_thread
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import numpy as np
from pydantic import Field, FiniteFloat, NonNegativeInt, PositiveInt

from ..core.config import Config, digest
from ..core.errors import InputError, SilentAudio, TooShort
from ..core.progress import track
from ..core.weights import weights_store
from ..datasets.audio import SAMPLE_RATE, is_silent
from ..datasets.encode import VideoWriter
from ..datasets.shards import INFO, read_info
from ..models.diffusion.config import AudioTokensConfig, GuidanceConfig
from .crops import crops
from .dice_priors import features_of, maker_of
from .extract import ClipFile
from .faces import LANDMARKER
from .methods import Opened, TestItem, read_sound
from .portrait import enlarged
from .talking_training import TalkingTrainConfig
from .trained import Trained, device_of, settings_of, weights_of

if TYPE_CHECKING:
    import torch

    from ..models.dice_talk.denoiser_config import DiceTalkConfig
    from ..models.mf_etalk.config import MfEtalkConfig

LEAST_SECONDS = 0.5  # of sound
SHOWN_PIXELS = 256  # least side of a video
OUTSIDE = {"run", "device", "checkpoint", "crop"}  # options that are said of a video in other words, or not at all

Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Level = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Guidance(Config):
    """Weights of guidance; None takes the training's."""

    reference: FiniteFloat | None = None
    conditions: FiniteFloat | None = None


class TalkingOptions(Config):
    """What generation can be told by every such method.

    Attributes:
        run: folder of a training.
        checkpoint: "last", "best" (lowest validation loss), or the number of a step.
        seed: of the noise, the same for each item.
        steps, guidance: None takes the training's.
        crop: how the portrait is cut; None takes that of the training's build.
        device: "auto" takes a GPU where there is one.
    """

    run: Path | None = None
    checkpoint: Literal["last", "best"] | int = "last"
    seed: NonNegativeInt = 0
    steps: PositiveInt | None = Field(default=None, ge=2)
    guidance: Guidance = Guidance()
    crop: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"


OptionsT = TypeVar("OptionsT", bound=TalkingOptions)
SettingsT = TypeVar("SettingsT", bound=TalkingTrainConfig)
ModelT = TypeVar("ModelT", "DiceTalkConfig", "MfEtalkConfig")


def sampled(model: ModelT, **given: float | None) -> ModelT:
    """The configuration with another start of sampling, where one is given. Raises ConfigError where it cannot be."""
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(model, diffusion=replace(model.diffusion, **changes))


@dataclass
class TalkingMaker(ABC, Generic[OptionsT, SettingsT]):
    """Makes videos with one training's weights, from several threads at once.

    A model serves one video at a time, for its denoiser holds what it works on. So each thread has its own on a CPU;
    on a GPU there is one, for which threads wait.
    """

    options: OptionsT
    run: Path
    settings: SettingsT
    trained: Trained
    loading: Lock = field(default_factory=Lock)
    _gpu: Lock = field(default_factory=Lock)
    _own: local = field(default_factory=local)  # of each thread

    def __post_init__(self) -> None:
        self.crop, self.crop_size = self._crop()
        self.states = maker_of(self.settings.audio_column)

    @property
    @abstractmethod
    def config(self) -> Any:
        """The model's."""

    @property
    @abstractmethod
    def audio(self) -> AudioTokensConfig:
        """What the model hears."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """See `Opened`."""

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """See `Opened`."""

    @abstractmethod
    def __call__(self, item: TestItem, out: Path) -> dict[str, Any]:
        """Writes the item's video."""

    @abstractmethod
    def check(self, item: TestItem) -> int:
        """Frames of an item's video. Raises what can be seen to be wrong before it is made."""

    @abstractmethod
    def loaded(self) -> tuple[Any, Any]:
        """Model, and encoders where it has none itself, on the device."""

    @property
    def factor(self) -> int:
        """By which pictures are enlarged."""
        return -(-SHOWN_PIXELS // self.config.size)

    @property
    def guidance(self) -> GuidanceConfig:
        """The training's, with the options' weights."""
        return replace(self.config.guidance, **self.options.guidance.model_dump(exclude_none=True))

    @property
    def chosen(self) -> dict[str, Any]:
        """How latents are drawn."""
        return {"seed": self.options.seed, "steps": self.options.steps, "guidance": self.guidance}

    def shared_identity(self, read: Set[str], without: Set[str] = frozenset()) -> dict[str, Any]:
        """What videos of every such method depend on: weights, options, and the settings `read` of the training."""
        options = self.options.model_dump(mode="json", exclude=OUTSIDE | without)
        return {
            "weights": self.trained.sha256,
            "settings": digest(self.settings.model_dump(mode="json", include=set(read))),
            "options": options | {"crop": [self.crop, self.crop_size]},
            "networks": {name: weights_store().sha256(name) for name in (LANDMARKER, *self.states[0].weights)},
        }

    def shared_facts(self, steps: int) -> dict[str, Any]:
        """What is said of every such method; `steps` are the training's."""
        return {
            "run": str(self.run),
            "checkpoint": self.trained.checkpoint.name,
            "weights": self.trained.weights.name,
            "weights_sha256": self.trained.sha256,
            "seed": self.options.seed,
            "steps": self.options.steps or steps,
            "guidance_reference": self.guidance.reference,
            "guidance_conditions": self.guidance.conditions,
            "crop": self.crop,
            "model_pixels": self.config.size,
            "video_pixels": self.config.size * self.factor,
            "enlarged": f"Lanczos, {self.factor} times" if self.factor > 1 else None,
        }

    def states_of(self, sound: Path, frames: int) -> np.ndarray:
        """The states of the sound that the training read, (steps x frames, L, D)."""
        spec, name = self.states
        states = features_of(ClipFile(sound, sound), [spec])[spec.id].array(name)
        shaped = states.reshape(len(states), self.audio.states, self.audio.state_width)
        return shaped[: self.audio.steps_per_frame * frames]

    def write(self, parts: Iterable[np.ndarray], samples: np.ndarray, out: Path, fps: Fraction) -> None:
        """Pictures, a few at a time, as a video with its sound."""
        side = self.config.size * self.factor
        with VideoWriter(out, side, side, fps=fps, audio=samples) as writer:
            for part in parts:
                for frame in part:
                    writer.write(enlarged(frame, self.factor))

    @contextmanager
    def shown(self, model: Any, evaluations: int) -> Iterator[None]:
        """Progress of the denoising of a single video; of many, those that are done are counted elsewhere."""
        from ..models.diffusion.base import counted

        if current_thread() is not main_thread():
            yield
            return
        ticks = iter(track(range(evaluations + 1), "denoise"))
        next(ticks)
        with counted(model, lambda: next(ticks, None)):
            yield
        for _ in ticks:
            pass

    @cached_property
    def device(self) -> torch.device:
        """Where the networks are."""
        return device_of(self.options.device)

    @contextmanager
    def networks(self) -> Iterator[tuple[Any, Any]]:
        """See `loaded`; for this thread alone meanwhile."""
        if self.device.type == "cuda":
            with self._gpu:
                yield self._shared
            return
        if not hasattr(self._own, "loaded"):
            self._own.loaded = self._load()
        yield self._own.loaded

    @cached_property
    def _shared(self) -> tuple[Any, Any]:
        return self._load()

    def _load(self) -> tuple[Any, Any]:
        with self.loading:  # the packages behind it are imported by one thread, or their operators come twice
            return self.loaded()

    def _crop(self) -> tuple[str, int]:
        """Name and pixels of the cut that the training saw."""
        name, data = self.options.crop, self.trained.data
        size = self.config.size
        if name is None:
            if not (data / INFO).is_file():
                hint = f"--set crop=NAME, one of: {', '.join(crops.names())}"
                raise InputError(f"{data}, which {self.run} was trained on, is not here to say its crop", hint=hint)
            made = read_info(data).get("crop") or {}
            if "name" not in made:
                raise InputError(f"{data} does not say how its pictures are cut", hint="--set crop=NAME")
            name, size = made["name"], int(made.get("size", size))
        return crops.get(name).name, size


def opened_run(
    maker: type[TalkingMaker[OptionsT, SettingsT]], options: OptionsT, system: str, kind: type[SettingsT]
) -> Opened:
    """A method with a training's weights, which are read at the first video.

    Raises:
        InputError: no training of the system, no checkpoint in it, or a crop that is not known.
        ConfigError: settings of another version.
    """
    if options.run is None:
        raise InputError(f"{system} needs --run DIR", hint=f"the --out of a talkforge train {system} command")
    settings = settings_of(options.run, system, kind)
    made = maker(options, options.run, settings, weights_of(options.run, options.checkpoint))
    return Opened(made, made.identity, made.facts, made.check)


def checked_sound(item: TestItem) -> tuple[np.ndarray, int]:
    """See `methods.read_sound`. Raises TooShort and SilentAudio as well."""
    samples, frames = read_sound(item)
    if len(samples) < LEAST_SECONDS * SAMPLE_RATE:
        raise TooShort(
            f"the sound {item.audio.name} has {len(samples) / SAMPLE_RATE:.2f} s",
            hint=f"give at least {LEAST_SECONDS} s of speech",
        )
    if is_silent(samples):
        raise SilentAudio(f"the sound {item.audio.name} is silent", hint="give a recording of speech")
    return samples, frames
