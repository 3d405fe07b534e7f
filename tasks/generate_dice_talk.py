"""Method `dice-talk`: a portrait, a sound and an emotion to a talking head, by a training of the system dice-talk.

The portrait is cut and scaled as the training's pictures were; the video shows that cut, at the model's size or, below
256 pixels, enlarged by a whole factor, for landmarkers find no faces in smaller pictures. The emotion is a named mean
prior, or that of a clip by the training's embedder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from threading import Lock, current_thread, local, main_thread
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from ..core.config import Config, digest
from ..core.errors import InputError, MediaError, NoFace, SilentAudio, TooShort
from ..core.progress import track
from ..core.registry import did_you_mean
from ..core.weights import weights_store
from ..datasets.audio import SAMPLE_RATE, is_silent
from ..datasets.encode import VideoWriter
from ..datasets.shards import INFO, read_info
from ..models.dice_talk.denoiser_config import DiceTalkConfig
from ..models.dice_talk.priors import WIDTH, read_priors, read_published_priors
from ..models.diffusion.config import GuidanceConfig
from .clip_prior import ClipPriors
from .crops import crops
from .dice_priors import PRIORS, embedder_run, features_of, maker_of, open_priors, prior_of_clip
from .extract import ClipFile
from .faces import LANDMARKER
from .methods import Method, Opened, TestItem, read_sound
from .portrait import enlarged, shot_of
from .train_dice_talk import DiceTalkTrainConfig
from .trained import Trained, device_of, settings_of, weights_of

if TYPE_CHECKING:
    import torch

    from ..models.dice_talk.model import DiceTalk
    from ..models.diffusion.batch import Encoders

LEAST_SECONDS = 0.5  # of sound
SHOWN_PIXELS = 256  # least side of a video
READ = {"model", "audio_column", "prior_from"}  # settings of the training that generation depends on
HERE = "talkforge.tasks.generate_dice_talk"


class Guidance(Config):
    """Weights of guidance; None takes the training's."""

    reference: float | None = None
    conditions: float | None = None


class DiceTalkOptions(Config):
    """What generation can be told.

    Attributes:
        run: folder of a training of dice-talk.
        checkpoint: "last", "best" (lowest validation loss), or the number of a step.
        priors: mean priors of emotions: an .npz of `talkforge priors`, or a folder of published .npy ones; None takes
            `priors.npz` of the run.
        prior: of an item that has both a clip and a name: "clip" embeds the clip, "mean" takes the named mean prior.
        seed: of the starting noise, the same for each item.
        steps, guidance: None takes the training's.
        crop: how the portrait is cut; None takes that of the training's build.
        device: "auto" takes a GPU where there is one.
    """

    run: Path | None = None
    checkpoint: Literal["last", "best"] | int = "last"
    priors: Path | None = None
    prior: Literal["clip", "mean"] = "clip"
    seed: NonNegativeInt = 0
    steps: PositiveInt | None = Field(default=None, ge=2)
    guidance: Guidance = Guidance()
    crop: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"


METHODS = (
    Method(
        id="dice-talk",
        version=1,
        what="DICE-Talk: an emotional talking head by a training of dice-talk",
        target=f"{HERE}:open_method",
        options=f"{HERE}:DiceTalkOptions",
    ),
)


def open_method(options: DiceTalkOptions) -> Opened:
    """The method with a training's weights, which are read at the first video.

    Raises:
        InputError: no training of dice-talk, no checkpoint in it, no such priors, or a crop that is not known.
        ConfigError: settings of another version.
    """
    if options.run is None:
        raise InputError("dice-talk needs --run DIR", hint="the --out of a talkforge train dice-talk command")
    settings = settings_of(options.run, "dice-talk", DiceTalkTrainConfig)
    maker = DiceTalkMaker(options, options.run, settings, weights_of(options.run, options.checkpoint))
    return Opened(maker, maker.identity, maker.facts, maker.check)


@dataclass
class DiceTalkMaker:
    """Makes videos with one training's weights, from several threads at once.

    A model serves one video at a time, for its denoiser holds what it works on. So each thread has its own on a CPU;
    on a GPU there is one, for which threads wait.
    """

    options: DiceTalkOptions
    run: Path
    settings: DiceTalkTrainConfig
    trained: Trained
    _loading: Lock = field(default_factory=Lock)
    _gpu: Lock = field(default_factory=Lock)
    _own: local = field(default_factory=local)  # of each thread

    def __post_init__(self) -> None:
        self.crop, self.crop_size = self._crop()
        self.states = maker_of(self.settings.audio_column)
        self.known = self._known()

    @property
    def config(self) -> DiceTalkConfig:
        """The model's."""
        return self.settings.model

    @property
    def factor(self) -> int:
        """By which pictures are enlarged."""
        return -(-SHOWN_PIXELS // self.config.size)

    @property
    def guidance(self) -> GuidanceConfig:
        """The training's, with the options' weights."""
        return replace(self.config.guidance, **self.options.guidance.model_dump(exclude_none=True))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """See `Opened`."""
        chosen = self.options.model_dump(mode="json", exclude={"run", "priors", "device", "checkpoint", "crop"})
        return {
            "weights": self.trained.sha256,
            "settings": digest(self.settings.model_dump(mode="json", include=READ)),
            "options": chosen | {"crop": [self.crop, self.crop_size]},
            "priors": digest({name: mu.tolist() for name, mu in self.known.items()}),
            "embedder": self._embedder_sha256(),
            "networks": {name: weights_store().sha256(name) for name in (LANDMARKER, *self.states[0].weights)},
        }

    @property
    def facts(self) -> dict[str, Any]:
        """See `Opened`."""
        config, windows = self.config, self.config.windows
        between = "linear, from 12.5 to 25 a second" if windows.interpolation == "linear" else "none, 12.5 a second"
        return {
            "run": str(self.run),
            "checkpoint": self.trained.checkpoint.name,
            "weights": self.trained.weights.name,
            "weights_sha256": self.trained.sha256,
            "embedder_sha256": self._embedder_sha256(),
            "priors": sorted(self.known),
            "seed": self.options.seed,
            "steps": self.options.steps or config.diffusion.steps,
            "guidance_reference": self.guidance.reference,
            "guidance_conditions": self.guidance.conditions,
            "crop": self.crop,
            "model_pixels": config.size,
            "video_pixels": config.size * self.factor,
            "enlarged": f"Lanczos, {self.factor} times" if self.factor > 1 else None,
            "frames_between": between,
        }

    def __call__(self, item: TestItem, out: Path) -> dict[str, Any]:
        """Writes the item's video.

        Raises:
            NoFace: in the portrait, or in the emotional clip.
            TooShort, SilentAudio: the sound is shorter than half a second, or silent.
            InputError: no emotion, or one of another name than the priors'.
            MediaError: something cannot be read.
            WeightsError: the checkpoint does not fit its settings, or a network's weights are not here.
        """
        from ..models.dice_talk.pipeline import Portrayed

        samples, frames = checked_sound(item)
        clip = self._clip(item)
        if clip is None:
            self._named(item)  # an unknown name is said before anything is looked for
        shot = shot_of(item.portrait, self.crop, self.crop_size, self.config)
        mu = self._named(item) if clip is None else self._of(clip)
        states = self._states(item.audio, frames)
        self._write(Portrayed(shot.picture, states, mu, shot.mask, frames), samples, out)
        prior = f"mean of {item.emotion}" if clip is None else f"clip {clip.name}"
        return {"frames": frames, "prior": prior, "faces_in_portrait": shot.faces}

    def _write(self, given: Any, samples: np.ndarray, out: Path) -> None:
        from ..models.dice_talk.pipeline import frame_rate, latents_of, pictures

        side, fps = self.config.size * self.factor, frame_rate(self.config.windows)
        options = {"seed": self.options.seed, "steps": self.options.steps, "guidance": self.guidance}
        with self._networks() as (model, encoders):
            with self._shown(model, given):
                latents = latents_of(model, given, encoders, **options)
            with VideoWriter(out, side, side, fps=fps, audio=samples) as writer:
                for part in pictures(model, latents, given.frames, encoders):
                    for frame in part:
                        writer.write(enlarged(frame, self.factor))

    @contextmanager
    def _shown(self, model: DiceTalk, given: Any) -> Iterator[None]:
        """Progress of the denoising of a single video; of many, those that are done are counted elsewhere."""
        from ..models.dice_talk.pipeline import counted, evaluations, latent_count

        if current_thread() is not main_thread():
            yield
            return
        latents = latent_count(given.frames, self.config.windows)
        ticks = iter(track(range(evaluations(latents, self.config, self.options.steps, self.guidance) + 1), "denoise"))
        next(ticks)
        with counted(model, lambda: next(ticks, None)):
            yield
        for _ in ticks:
            pass

    @cached_property
    def _device(self) -> torch.device:
        return device_of(self.options.device)

    @contextmanager
    def _networks(self) -> Iterator[tuple[DiceTalk, Encoders | None]]:
        """Model and encoders, for this thread alone meanwhile."""
        if self._device.type == "cuda":
            with self._gpu:
                yield self._shared
            return
        if not hasattr(self._own, "loaded"):
            self._own.loaded = self._load()
        yield self._own.loaded

    @cached_property
    def _shared(self) -> tuple[DiceTalk, Encoders | None]:
        return self._load()

    def _load(self) -> tuple[DiceTalk, Encoders | None]:
        with self._loading:  # the packages behind it are imported by one thread, or their operators come twice
            return self._loaded()

    def _loaded(self) -> tuple[DiceTalk, Encoders | None]:
        from ..models.dice_talk.model import DiceTalk
        from ..models.training.weights import load_for_use

        model = load_for_use(lambda: DiceTalk(self.config), self.trained.weights, self._device)
        if model.encoders is not None:
            return model, None
        from ..models.dice_talk.base_weights import load_encoders

        return model, load_encoders(self.config).to(self._device)

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

    def _known(self) -> dict[str, np.ndarray]:
        """The named priors, none where there is no file of them."""
        width, path = self.config.bank.prior_width, self.options.priors
        if path is None:
            own = self.run / PRIORS
            return read_priors(own, width=width) if own.is_file() else {}
        if not path.is_dir():
            return read_priors(path, width=width)
        found = read_published_priors(path)
        if width != WIDTH:
            text = f"the published priors have {WIDTH} numbers, and the model of {self.run} reads {width}"
            raise InputError(text, hint=f"its own come from: talkforge priors --run {self.run}")
        return found

    def check(self, item: TestItem) -> int:
        """Frames of an item's video. Raises what is wrong with its sound, or with its emotion's name."""
        frames = checked_sound(item)[1]
        if self._clip(item) is None:
            self._named(item)
        return frames

    def _clip(self, item: TestItem) -> Path | None:
        """The clip whose emotion an item takes. A real clip without a name is its own one."""
        clip = item.emotion_video or (item.video if item.emotion is None else None)
        return clip if item.emotion is None or self.options.prior == "clip" else None

    def _of(self, clip: Path) -> np.ndarray:
        try:
            return prior_of_clip(self._embedder, clip)
        except (MediaError, NoFace) as error:
            text = f"the emotional clip {clip.name}: {error.message}"
            raise type(error)(text, hint="give a clip of a talking face, or --emotion NAME") from error

    def _named(self, item: TestItem) -> np.ndarray:
        """The mean prior that an item names."""
        if item.emotion is None:
            names = f" ({', '.join(sorted(self.known))})" if self.known else ""
            raise InputError(f"{item.id}: no emotion is given", hint=f"--emotion NAME{names}, or --emotion-video MP4")
        if not self.known:
            raise InputError(
                f"{self.run} has no {PRIORS}, so no emotion has a name",
                hint=f"make it with: talkforge priors --run {self.run}; or give --priors, or --emotion-video",
            )
        if item.emotion not in self.known:
            hint = did_you_mean(item.emotion, self.known) or f"known: {', '.join(sorted(self.known))}"
            raise InputError(f"unknown emotion '{item.emotion}'", hint=hint)
        return self.known[item.emotion]

    @property
    def _embedder(self) -> ClipPriors:
        with self._loading:
            return self._opened

    @cached_property
    def _opened(self) -> ClipPriors:
        found = open_priors(self.run)
        reads = self.config.bank.prior_width
        if found.width != reads:
            raise InputError(
                f"priors of {embedder_run(self.run)} have {found.width} numbers, and the model reads {reads}"
            )
        return found

    def _embedder_sha256(self) -> str | None:
        """Of the embedder's weights; None where it is not here, when only named emotions can be made."""
        try:
            return weights_of(embedder_run(self.run)).sha256
        except InputError:
            return None

    def _states(self, sound: Path, frames: int) -> np.ndarray:
        """Whisper's states of the sound, (2 x frames, L, D)."""
        spec, name = self.states
        audio = self.config.audio
        states = features_of(ClipFile(sound, sound), [spec])[spec.id].array(name)
        return states.reshape(len(states), audio.states, audio.state_width)[: audio.steps_per_frame * frames]


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
