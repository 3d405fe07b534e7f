"""Method `mf-etalk`: a portrait, a sound and a track of action units to a talking head, by a training of mf-etalk.

The track is that of a clip, played forth and back where the sound is longer; without a clip it is neutral. `au` adds to
single units over the whole video.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import FiniteFloat, field_validator

from ..core.errors import ConfigError, InputError, MediaError, NoFace
from ..core.registry import resolve
from ..core.weights import weights_store
from ..datasets.shards import INFO, read_info
from ..models.diffusion.config import AudioTokensConfig
from ..models.mf_etalk.config import MfEtalkConfig, au_column, au_columns
from .dice_priors import features_of, maker_of
from .extract import ClipFile
from .extract_identity import aligned_112
from .extractor import extractors
from .generate_talking import Factor, TalkingMaker, TalkingOptions, checked_sound, opened_run, sampled
from .methods import Method, Opened, TestItem, read_portrait
from .portrait import Shot, face_in, shot_of
from .talking_aus import feature_names, filled, neutral_faces
from .train_mf_etalk import LIPS, MfEtalkTrainConfig, around

if TYPE_CHECKING:
    from ..models.diffusion.batch import Encoders
    from ..models.mf_etalk.model import MfEtalk

READ = {"model", "audio_column", "aus"}  # settings of the training that generation depends on
UNITS = au_columns()
FPS = Fraction(25)
HERE = "talkforge.tasks.generate_mf_etalk"


class MfEtalkOptions(TalkingOptions):
    """What generation can be told.

    Attributes:
        au: by unit, what is added to its intensity: {"AU12": 0.5} for a smile. Sums stay within 0 and `au.most`.
        neutral: what a clip's track is compared with: "build", the mean neutral face of the training's people; "clip",
            the clip's own median; "zero", no intensity at all. Without a clip, what edits add to; for "clip" zero.
        temperature: on the starting noise; None takes the training's.
    """

    au: Mapping[str, FiniteFloat] = {}
    neutral: Literal["build", "clip", "zero"] = "build"
    temperature: Factor | None = None

    @field_validator("au", mode="before")
    @classmethod
    def _known(cls, au: Any) -> Any:
        for name in au if isinstance(au, Mapping) else ():
            if name not in UNITS:
                padded = re.sub(r"^(?:AU)?(\d)$", r"AU0\1", str(name).upper())
                hint = f"did you mean {padded}?" if padded in UNITS else f"one of: {', '.join(sorted(UNITS))}"
                raise ConfigError(f"au: unknown action unit '{name}'", hint=hint)
        return au


METHODS = (
    Method(
        id="mf-etalk",
        version=3,
        what="MF-ETalk: a talking head with the action units of a clip by a training of mf-etalk",
        target=f"{HERE}:open_method",
        options=f"{HERE}:MfEtalkOptions",
    ),
)


def open_method(options: MfEtalkOptions) -> Opened:
    """The method with a training's weights, which are read at the first video.

    Raises:
        InputError: no training of mf-etalk's stage motion, no checkpoint in it, or a crop that is not known.
        ConfigError: settings of another version.
    """
    return opened_run(MfEtalkMaker, options, "mf-etalk", MfEtalkTrainConfig)


@dataclass
class MfEtalkMaker(TalkingMaker[MfEtalkOptions, MfEtalkTrainConfig]):
    """Makes videos with one training's weights."""

    def __post_init__(self) -> None:
        if self.settings.stage != "motion":
            raise InputError(f"{self.run} is a training of stage image, and makes no videos", hint="train stage motion")
        if (self.options.au or self.options.neutral != "build") and not self.config.fusion.on:
            raise InputError(
                f"the model of {self.run} reads no action units (ablation a)", hint="leave out au, neutral"
            )
        unread = set(map(au_column, self.config.au.unread))
        if asked := sorted(self.options.au.keys() & unread):
            text = f"the model of {self.run} was trained to leave {', '.join(asked)} unread"
            raise InputError(text, hint=f"it reads {', '.join(sorted(set(UNITS) - unread))}")
        if (self.options.steps or 0) > (most := self.config.diffusion.steps):
            raise ConfigError(f"steps: {self.options.steps} of sampling, and the model knows {most}", hint="give fewer")
        super().__post_init__()

    @property
    def config(self) -> MfEtalkConfig:
        """The model's, with the sampling that was asked for."""
        return sampled(self.settings.model, temperature=self.options.temperature)

    @property
    def audio(self) -> AudioTokensConfig:
        """What the model hears."""
        return self.config.audio.layers

    @property
    def identity(self) -> dict[str, Any]:
        """See `Opened`."""
        info = self.trained.data / INFO
        build = read_info(self.trained.data)["digest"] if self.options.neutral == "build" and info.is_file() else None
        outside, read = self._outside
        shared = self.shared_identity(READ | read)
        weights = {*extractors.get(self.settings.aus).weights, *outside}
        networks = shared["networks"] | {name: weights_store().sha256(name) for name in sorted(weights)}
        return shared | {"networks": networks, "neutral_of": build}

    @property
    def _outside(self) -> tuple[set[str], set[str]]:
        """Weights that stand beside a model without encoders of its own, and the settings that name them."""
        if self.config.vae == "tiny":
            return set(), set()
        from ..models.mf_etalk.base_weights import VAE

        return {VAE, *maker_of(self.settings.identity_column)[0].weights}, {"identity_column"}

    @property
    def facts(self) -> dict[str, Any]:
        """See `Opened`."""
        added = {"au": dict(self.options.au)} if self.options.au else {}
        return {
            **self.shared_facts(self.config.diffusion.sample_steps),
            "action_units": self.settings.aus if self.config.fusion.on else None,
            **added,
            "temperature": self.config.diffusion.temperature,
            "neutral": self.options.neutral if self.config.fusion.on else None,
        }

    def __call__(self, item: TestItem, out: Path) -> dict[str, Any]:
        """Writes the item's video.

        Raises:
            NoFace: in the portrait, or in the clip of the action units.
            TooShort, SilentAudio: the sound is shorter than half a second, or silent.
            InputError: an emotion by name, a clip of an emotion for a model that reads no action units, or no build to
                take neutral faces of.
            MediaError: something cannot be read.
            WeightsError: the checkpoint does not fit its settings, or a network's weights are not here.
        """
        from ..models.mf_etalk.pipeline import Portrayed, evaluations, latents_of, pictures

        samples, frames = checked_sound(item)
        clip = self._clip(item)
        face = self.config.face
        shot = shot_of(item.portrait, self.crop, self.crop_size, self.config.size, face.face_scale)
        track, neutral = self._track(clip, frames)
        states = self.states_of(item.audio, frames)
        given = Portrayed(
            shot.picture, shot.mask, self._regions(shot), states, track, neutral, self._who(item.portrait)
        )
        count = evaluations(frames, self.config, self.options.steps, self.guidance)
        with self.networks() as (model, encoders):
            with self.shown(model, count):
                latents = latents_of(model, given, encoders, **self.chosen)
            self.write(pictures(model, latents, encoders), samples, out, FPS)
        source = "neutral" if clip is None else f"clip {clip.name}"
        read = source if self.config.fusion.on else None
        return {"frames": frames, "action_units": read, "faces_in_portrait": shot.faces}

    def check(self, item: TestItem) -> int:
        """Frames of an item's video. Raises what is wrong with its sound, or with its emotion."""
        self._clip(item)
        return checked_sound(item)[1]

    def loaded(self) -> tuple[MfEtalk, Encoders | None]:
        """Model and encoders."""
        from ..models.mf_etalk.model import MfEtalk
        from ..models.training.weights import load_for_use

        model = load_for_use(lambda: MfEtalk(self.config), self.trained.weights, self.device)
        if model.encoders is not None:
            return model, None
        from ..models.mf_etalk.base_weights import load_encoders

        return model, load_encoders().to(self.device)

    def _clip(self, item: TestItem) -> Path | None:
        """The clip whose action units an item takes; a real clip's own ones. A model that reads none takes none."""
        if item.emotion_video is not None and not self.config.fusion.on:
            text = f"{item.id}: the model of {self.run} reads no action units (ablation a)"
            raise InputError(text, hint="leave out --emotion-video")
        clip = item.emotion_video or item.video
        if clip is None and item.emotion is not None:
            edits = "--emotion-video MP4, or --set au.AU12=0.5"
            hint = edits if self.config.fusion.on else "leave out the emotion: this model (ablation a) reads none"
            raise InputError(f"{item.id}: mf-etalk knows no emotions by name, but action units", hint=hint)
        return clip if self.config.fusion.on else None

    def _track(self, clip: Path | None, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Intensities (frames, 17) of the video, and (17,) those that count as neutral."""
        units = None if clip is None else self._units_of(clip)
        neutral = self._neutral(units)
        track = neutral[None] if units is None else units
        added = np.array([self.options.au.get(unit, 0.0) for unit in UNITS], np.float32)
        moved = np.clip(track + added, 0, self.config.au.most) if self.options.au else track
        return forth_and_back(moved.astype(np.float32), frames), neutral

    def _units_of(self, clip: Path) -> np.ndarray:
        if not clip.is_file():
            raise InputError(f"there is no file {clip}")
        spec = extractors.get(self.settings.aus)
        try:
            row = features_of(ClipFile(clip, clip), [spec])[spec.id]
        except (MediaError, NoFace) as error:
            text = f"the clip of the action units, {clip.name}: {error.message}"
            raise type(error)(text, hint="give a clip of a face, or none for a neutral one") from error
        return filled(np.stack([row.array(name) for name in feature_names(self.settings.aus)], 1))

    def _neutral(self, units: np.ndarray | None) -> np.ndarray:
        """The face that counts as neutral, (17,); without a clip also the one that is shown, if edited."""
        if self.options.neutral == "build" and self._compares(units):
            return self._average
        if self.options.neutral == "clip" and units is not None:
            return np.median(units, 0).astype(np.float32)
        return np.zeros(len(UNITS), np.float32)

    def _compares(self, units: np.ndarray | None) -> bool:
        """Whether the network or an edit reads what the neutral face is like."""
        relative = self.config.au.neutral == "identity"
        if units is None:  # the neutral face itself: no difference, unless there are edits, which stay above 0
            return self.config.fusion.on and (bool(self.options.au) or not relative)
        return relative

    @property
    def _average(self) -> np.ndarray:
        """The mean neutral face of the training's people, read by one thread."""
        with self.loading:
            return self._read_average

    @cached_property
    def _read_average(self) -> np.ndarray:
        data = self.trained.data
        if not (data / INFO).is_file():
            text = f"{data}, which {self.run} was trained on, is not here to say what its neutral faces are like"
            raise InputError(text, hint="--set neutral=clip, or --set neutral=zero")
        return neutral_faces(data, "train", self.settings.aus).average()

    def _regions(self, shot: Shot) -> np.ndarray:
        """Masks (1, 3, g, g) from the portrait's face and lips."""
        from ..models.mf_etalk.masks import region_masks

        face, lip = around(shot.box()[None]), around(shot.box(LIPS)[None])
        return region_masks(face, lip, self.crop_size, self.crop_size, self.config.face).numpy()[None]

    def _who(self, portrait: Path) -> np.ndarray | None:
        """The portrait's ArcFace embedding, (512,), where the model does not make its own of the picture."""
        if self.config.vae == "tiny":
            return None
        import torch

        from ..models.arcface import prepare

        frame = read_portrait(portrait)
        chip = aligned_112(frame, face_in(frame, portrait.name)[0])
        with torch.inference_mode():
            return self._arcface(prepare(chip[None]))[0].numpy()

    @property
    def _arcface(self) -> Any:
        """The network behind the training's embeddings, on the CPU, loaded by one thread."""
        with self.loading:
            return self._loaded_arcface

    @cached_property
    def _loaded_arcface(self) -> Any:
        spec, _ = maker_of(self.settings.identity_column)
        return resolve(resolve(spec.target).network)()


def forth_and_back(track: np.ndarray, frames: int) -> np.ndarray:
    """A track (T, ...) of so many frames: cut, or played forth and back, so that it never jumps."""
    turn = max(1, 2 * (len(track) - 1))
    places = np.arange(frames) % turn
    return track[np.minimum(places, turn - places) if len(track) > 1 else np.zeros(frames, int)]
