"""Method `dice-talk`: a portrait, a sound and an emotion to a talking head, by a training of the system dice-talk.

The portrait is cut and scaled as the training's pictures were; the video shows that cut, at the model's size or, below
256 pixels, enlarged by a whole factor, for landmarkers find no faces in smaller pictures. The emotion is a named mean
prior, or that of a clip by the training's embedder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..core.config import digest
from ..core.errors import InputError, MediaError, NoFace
from ..core.registry import did_you_mean
from ..models.dice_talk.denoiser_config import DiceTalkConfig
from ..models.dice_talk.priors import WIDTH, read_priors, read_published_priors
from ..models.diffusion.config import AudioTokensConfig
from .clip_prior import ClipPriors
from .dice_priors import PRIORS, embedder_run, open_priors, prior_of_clip
from .generate_talking import Factor, Level, TalkingMaker, TalkingOptions, checked_sound, opened_run, sampled
from .methods import Method, Opened, TestItem
from .portrait import shot_of
from .talking_batches import check_pinned
from .talking_training import pinned_by
from .train_dice_talk import EMBEDDER, DiceTalkTrainConfig
from .trained import weights_of

if TYPE_CHECKING:
    from ..models.dice_talk.model import DiceTalk
    from ..models.diffusion.batch import Encoders

Retrieval = Literal["all", "nearest"]
READ = {"model", "audio_column", "prior_from"}  # settings of the training that generation depends on
HERE = "talkforge.tasks.generate_dice_talk"


class DiceTalkOptions(TalkingOptions):
    """What generation can be told.

    Attributes:
        priors: mean priors of emotions: an .npz of `talkforge priors`, or a folder of published .npy ones; None takes
            `priors.npz` of the run.
        prior: of an item that has both a clip and a name: "clip" embeds the clip, "mean" takes the named mean prior.
        temperature: on the starting noise; None takes the training's.
        sigma_max: noise level at the start; None takes the training's.
        retrieval: what of the emotion bank is attended to, see `BankConfig`; None takes the training's.
    """

    priors: Path | None = None
    prior: Literal["clip", "mean"] = "clip"
    temperature: Factor | None = None
    sigma_max: Level | None = None
    retrieval: Retrieval | None = None


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
        ConfigError: settings of another version, or another embedder than the training had.
    """
    return opened_run(DiceTalkMaker, options, "dice-talk", DiceTalkTrainConfig)


def retrieving(model: DiceTalkConfig, retrieval: Retrieval | None) -> DiceTalkConfig:
    """The configuration with another retrieval from the emotion bank, where one is given."""
    return model if retrieval is None else replace(model, bank=replace(model.bank, retrieval=retrieval))


@dataclass
class DiceTalkMaker(TalkingMaker[DiceTalkOptions, DiceTalkTrainConfig]):
    """Makes videos with one training's weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.known = self._known()

    @property
    def config(self) -> DiceTalkConfig:
        """The model's, with the sampling that was asked for."""
        asked = self.options
        model = sampled(self.settings.model, temperature=asked.temperature, sigma_max=asked.sigma_max)
        return retrieving(model, asked.retrieval)

    @property
    def audio(self) -> AudioTokensConfig:
        """What the model hears."""
        return self.config.audio

    @property
    def identity(self) -> dict[str, Any]:
        """See `Opened`."""
        return {
            **self.shared_identity(READ, {"priors"}),
            "priors": digest({name: mu.tolist() for name, mu in self.known.items()}),
            "embedder": self._embedder_sha256(),
        }

    @property
    def facts(self) -> dict[str, Any]:
        """See `Opened`."""
        linear = self.config.windows.interpolation == "linear"
        return {
            **self.shared_facts(self.config.diffusion.steps),
            "temperature": self.config.diffusion.temperature,
            "sigma_max": self.config.diffusion.sigma_max,
            "retrieval": self.config.bank.retrieval,
            "embedder_sha256": self._embedder_sha256(),
            "priors": sorted(self.known),
            "frames_between": "linear, from 12.5 to 25 a second" if linear else "none, 12.5 a second",
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
        shot = shot_of(item.portrait, self.crop, self.crop_size, self.config.size, self.config.pose.box_scale)
        mu = self._named(item) if clip is None else self._of(clip)
        states = self.states_of(item.audio, frames)
        self._write(Portrayed(shot.picture, states, mu, shot.mask, frames), samples, out)
        prior = f"mean of {item.emotion}" if clip is None else f"clip {clip.name}"
        return {"frames": frames, "prior": prior, "faces_in_portrait": shot.faces}

    def _write(self, given: Any, samples: np.ndarray, out: Path) -> None:
        from ..models.dice_talk.pipeline import evaluations, frame_rate, latent_count, latents_of, pictures

        windows = self.config.windows
        count = evaluations(latent_count(given.frames, windows), self.config, self.options.steps, self.guidance)
        with self.networks() as (model, encoders):
            with self.shown(model, count):
                latents = latents_of(model, given, encoders, **self.chosen)
            self.write(pictures(model, latents, given.frames, encoders), samples, out, frame_rate(windows))

    def loaded(self) -> tuple[DiceTalk, Encoders | None]:
        """Model and encoders."""
        from ..models.dice_talk.model import DiceTalk
        from ..models.training.weights import load_for_use

        model = load_for_use(lambda: DiceTalk(self.config), self.trained.weights, self.device)
        if model.encoders is not None:
            return model, None
        from ..models.dice_talk.base_weights import load_encoders

        return model, load_encoders(self.config).to(self.device)

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
        with self.loading:
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
        """Of the embedder's weights; None where it is not here, when only named emotions can be made.

        Raises ConfigError where another one is in its place than the training had.
        """
        try:
            found = weights_of(embedder_run(self.run)).sha256
        except InputError:
            return None
        check_pinned(pinned_by(self.trained.checkpoint), {EMBEDDER: found})
        return found
