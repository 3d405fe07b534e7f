"""A made-up emotional corpus in MEAD's shape: expression coefficients and Whisper-like states, in place of films.

For training tests and for questions whose answer is known. A clip of identity i, emotion e and level l is

    expression(t) = rest_i + articulation_i(t) + l gain_i envelope(t) (blend(d_ie) + slip) + blinks + noise
    audio(t)      = content(t) + voice_i + l envelope(t - lag) m_i (blend'(p_e) + slip') + noise

- `d_ie` is the manner of i: the emotion's archetype, bent towards a direction of i's own, as long as the archetype. The
  archetypes put FACS prototypes (P. Ekman, W. Friesen and J. Hager, FACS Investigator's Guide, 2002, table of emotion
  predictions; contempt after Ekman and Friesen, 1986: one side only) on the blendshapes that look like their units.
- `p_e` says of the emotion only what voices say of it: arousal, valence and potency (signs after K. Scherer, Vocal
  communication of emotion, 2003; numbers ours), in directions that all voices share, scaled by the speaker.
- a blend is some of another emotion, as an actor's takes have it; blend and slip are constant over a clip.
- articulation and content follow one sequence of phones. The rest is smooth or white noise.

What is built in: both modalities carry the emotion, faces with more dimensions and less noise than voices; blends and
slips of a clip's face and voice are independent, so that there is something to gain from both; all sizes are fields of
`SyntheticConfig`. What is not: how well any embedding of audio, of video or of both separates the emotions. Emotion and
level are the same in both modalities of a clip, speech does not depend on them, and nothing here is measured on people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..core.emotions import MEAD_EMOTIONS
from ..core.errors import ConfigError


def _sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{side}" for name in names for side in ("Left", "Right"))


# MediaPipe's order: "_neutral", then ARKit's but "tongueOut".
COEFFICIENTS: tuple[str, ...] = (
    *("_neutral", *_sides("browDown"), "browInnerUp", *_sides("browOuterUp"), "cheekPuff", *_sides("cheekSquint")),
    *_sides("eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide"),
    *("jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", *_sides("mouthDimple", "mouthFrown")),
    *("mouthFunnel", "mouthLeft", *_sides("mouthLowerDown", "mouthPress"), "mouthPucker", "mouthRight"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *_sides("mouthSmile", "mouthStretch", "mouthUpperUp", "noseSneer"),
)
PLACE = {name: place for place, name in enumerate(COEFFICIENTS)}

# Action unit -> the blendshapes that look like it.
UNITS: dict[str, tuple[str, ...]] = {
    "1": ("browInnerUp",),
    "2": _sides("browOuterUp"),
    "4": _sides("browDown"),
    "5": _sides("eyeWide"),
    "6": _sides("cheekSquint"),
    "7": _sides("eyeSquint"),
    "9": _sides("noseSneer"),
    "10": _sides("mouthUpperUp"),
    "12": _sides("mouthSmile"),
    "R12": ("mouthSmileRight",),
    "R14": ("mouthDimpleRight",),
    "15": _sides("mouthFrown"),
    "16": _sides("mouthLowerDown"),
    "17": ("mouthShrugLower",),
    "20": _sides("mouthStretch"),
    "23": _sides("mouthPress"),
    "26": ("jawOpen",),
}
# Prototype of each emotion: unit -> strength at full intensity (FACS letters A to E in steps of 0.2).
PROTOTYPES: dict[str, dict[str, float]] = {
    "angry": {"4": 0.8, "5": 0.5, "7": 0.6, "23": 0.6},
    "contempt": {"R12": 0.5, "R14": 0.7},
    "disgusted": {"9": 0.7, "10": 0.5, "15": 0.4, "16": 0.4},
    "fear": {"1": 0.7, "2": 0.5, "4": 0.4, "5": 0.8, "20": 0.5, "26": 0.3},
    "happy": {"6": 0.6, "12": 0.8},
    "neutral": {},
    "sad": {"1": 0.6, "4": 0.4, "15": 0.6, "17": 0.4},
    "surprised": {"1": 0.7, "2": 0.7, "5": 0.5, "26": 0.5},
}
# Arousal, valence, potency of the voice.
PROSODY: dict[str, tuple[float, float, float]] = {
    "angry": (0.9, -0.6, 0.9),
    "contempt": (-0.1, -0.5, 0.6),
    "disgusted": (0.0, -0.7, 0.3),
    "fear": (0.8, -0.7, -0.8),
    "happy": (0.6, 0.8, 0.3),
    "neutral": (0.0, 0.0, 0.0),
    "sad": (-0.7, -0.6, -0.7),
    "surprised": (0.8, 0.2, -0.1),
}
LEVELS = {1: 0.45, 2: 0.7, 3: 1.0}  # MEAD's three intensities; neutral has the first one only
SPEECH = ("jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", *_sides("mouthLowerDown", "mouthUpperUp"))
# Where a person may have habits of expression: all that is neither gaze, blink nor "_neutral".
HABITS = tuple(name for name in COEFFICIENTS if not name.startswith(("eyeLook", "eyeBlink", "_")))
PHONES = 16
FPS, STEPS = 25, 2  # frames a second, audio steps a frame


def archetype(emotion: str) -> np.ndarray:
    """The emotion's prototype at full intensity, float64 (52,)."""
    face = np.zeros(len(COEFFICIENTS))
    for unit, strength in PROTOTYPES[emotion].items():
        for name in UNITS[unit]:
            face[PLACE[name]] = max(face[PLACE[name]], strength)
    return face


@dataclass(frozen=True)
class SyntheticConfig:
    """Size of the corpus, and of each thing in a clip.

    Attributes:
        identities, takes: people; clips of each person, emotion and level.
        emotions: MEAD names.
        min_frames, max_frames: clips are as long as this, evenly spread.
        states, width: L + 1 and D of the audio states; Whisper-tiny's 5 and 384.
        seed: of everything.
        manner: how far an emotion is bent towards a person's own direction: sine of the angle, about.
        rest: spread of the resting faces' coefficients.
        blend: largest share of another emotion in a clip; shares are even from 0 to it, in face and voice separately.
        slip, voice_slip: length of what no emotion explains in a clip, in face and voice; archetypes' are about 1.
        noise: white noise of a frame's coefficients, as of a face tracker.
        content, voice, prosody: lengths of these parts of a state, in units of sqrt(width).
        voice_noise: white noise of each number of a state.
    """

    identities: int = 8
    takes: int = 4
    emotions: tuple[str, ...] = MEAD_EMOTIONS
    min_frames: int = 40
    max_frames: int = 80
    states: int = 5
    width: int = 384
    seed: int = 0
    manner: float = 0.5
    rest: float = 0.05
    blend: float = 0.5
    slip: float = 0.25
    voice_slip: float = 0.4
    noise: float = 0.03
    content: float = 1.0
    voice: float = 0.6
    prosody: float = 0.35
    voice_noise: float = 0.5

    def __post_init__(self) -> None:
        if unknown := set(self.emotions) - set(MEAD_EMOTIONS):
            raise ConfigError(f"no emotion of MEAD: {', '.join(sorted(unknown))}")
        if min(self.identities, self.takes, self.states, self.width) < 1 or not 1 <= self.min_frames <= self.max_frames:
            raise ConfigError("a synthetic corpus needs people, takes, states and clips of at least one frame")
        if not 0 <= self.manner <= 1:
            raise ConfigError(f"manner is {self.manner}, not within 0..1")


@dataclass(frozen=True)
class Person:
    """What stays the same in all clips of a person.

    `rest` (52,), `gain`, `manners` emotion -> (52,), `voice` (L, D), `expressiveness` of the voice (3,), `mumble`:
    size of articulation, `blink_s`: seconds between blinks.
    """

    rest: np.ndarray
    gain: float
    manners: dict[str, np.ndarray]
    voice: np.ndarray
    expressiveness: np.ndarray
    mumble: float
    blink_s: float


@dataclass(frozen=True)
class Phones:
    """Mouth shapes (PHONES, 52) and states (PHONES, L, D) of the phones; axes of prosody (3, L, D)."""

    mouths: np.ndarray
    sounds: np.ndarray
    axes: np.ndarray


class SyntheticCorpus:
    """The clips of a configuration; each can be made by itself, and is the same whatever else was made before.

    Iterating gives the items of `clip` in the order of `clip_keys`, one at a time.
    """

    def __init__(self, config: SyntheticConfig | None = None) -> None:
        self.config = config or SyntheticConfig()
        self._people: dict[int, Person] = {}

    def clip_keys(self) -> list[tuple[int, str, int, int]]:
        """(person, emotion, level, take) of all clips."""
        return [
            (person, emotion, level, take)
            for person in range(self.config.identities)
            for emotion in self.config.emotions
            for level in (LEVELS if emotion != "neutral" else (1,))
            for take in range(self.config.takes)
        ]

    def __len__(self) -> int:
        return len(self.clip_keys())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self.clip(*key) for key in self.clip_keys())

    def clip(self, person: int, emotion: str, level: int, take: int) -> dict[str, Any]:
        """One clip.

        Returns:
            `clip_id`, `identity`, `emotion`, `intensity` (1..3), `expression` float32 (T, 52) in 0..1, `audio` float16
            (2T, L + 1, D), `rotation` float32 (T, 3): yaw, pitch, roll in degrees.
        """
        config, who = self.config, self.person(person)
        rng = self._rng(1, person, MEAD_EMOTIONS.index(emotion), level, take)
        frames = int(rng.integers(config.min_frames, config.max_frames + 1))
        spoken = _spoken(rng, frames * STEPS)
        envelope = LEVELS[level] * (1 + 0.15 * _smooth(rng, frames * STEPS, 25))[:, 0]
        identity = f"P{person:03d}"
        return {
            "clip_id": f"synthetic/{identity}/{emotion}/level_{level}/{take:03d}",
            "identity": identity,
            "emotion": emotion,
            "intensity": level,
            "expression": self._face(rng, who, emotion, spoken, envelope),
            "audio": self._sound(rng, who, emotion, spoken, envelope),
            "rotation": _head(rng, frames, PROSODY[emotion][0] * LEVELS[level]),
        }

    def person(self, number: int) -> Person:
        """A person of the corpus, by number from 0; any number has one."""
        if number not in self._people:
            rng = self._rng(2, number)
            config = self.config
            self._people[number] = Person(
                rest=np.where(np.isin(COEFFICIENTS, HABITS), np.abs(rng.normal(0, config.rest, len(COEFFICIENTS))), 0),
                gain=float(np.exp(rng.normal(0, 0.15))),
                manners={emotion: _bent(rng, archetype(emotion), config.manner) for emotion in MEAD_EMOTIONS},
                voice=config.voice * rng.normal(size=(config.states, config.width)),
                expressiveness=np.exp(rng.normal(0, 0.3, 3)),
                mumble=float(rng.uniform(0.6, 1.2)),
                blink_s=float(rng.uniform(2.0, 6.0)),
            )
        return self._people[number]

    @cached_property
    def phones(self) -> Phones:
        """What all people share: how phones look and sound, and what prosody does to the states."""
        config, rng = self.config, self._rng(3)
        mouths = np.zeros((PHONES, len(COEFFICIENTS)))
        mouths[:, [PLACE[name] for name in SPEECH]] = rng.uniform(0, 1, (PHONES, len(SPEECH))) ** 2 * 0.5
        # As in speech models: early states have more of the voice, late ones more of what is said.
        depth = np.linspace(0, 1, config.states)[:, None]
        sounds = rng.normal(size=(PHONES, config.states, config.width)) * (0.6 + 0.4 * depth)
        axes = rng.normal(size=(3, config.states, config.width)) * (1 - 0.6 * depth)
        return Phones(mouths, config.content * sounds, config.prosody * axes)

    def _rng(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, *place])

    def _blended(self, rng: np.random.Generator, emotion: str, directions: Mapping[str, np.ndarray]) -> np.ndarray:
        """The emotion's direction with some of another one's."""
        other = str(rng.choice([name for name in MEAD_EMOTIONS if name != emotion]))
        share = rng.uniform(0, self.config.blend)
        return (1 - share) * directions[emotion] + share * directions[other]

    def _face(
        self, rng: np.random.Generator, who: Person, emotion: str, spoken: np.ndarray, envelope: np.ndarray
    ) -> np.ndarray:
        """Coefficients, float32 (T, 52)."""
        frames = len(spoken) // STEPS
        direction = self._blended(rng, emotion, who.manners)
        slip = _off(rng, self.config.slip)
        articulation = who.mumble * (spoken @ self.phones.mouths)[::STEPS]
        face = who.rest + articulation + who.gain * envelope[::STEPS, None] * (direction + slip)
        face[:, [PLACE[name] for name in _sides("eyeBlink")]] += _blinks(rng, frames, who.blink_s)[:, None]
        face += rng.normal(0, self.config.noise, face.shape)
        face[:, PLACE["_neutral"]] = 0.0
        return np.clip(face, 0.0, 1.0).astype(np.float32)

    def _sound(
        self, rng: np.random.Generator, who: Person, emotion: str, spoken: np.ndarray, envelope: np.ndarray
    ) -> np.ndarray:
        """States, float16 (2T, L + 1, D)."""
        config, phones = self.config, self.phones
        lag = int(rng.integers(0, 6))  # the voice's envelope trails the face's by up to 0.1 s
        heard = np.concatenate((np.full(lag, envelope[0]), envelope))[: len(envelope)]
        blended = self._blended(rng, emotion, {name: np.array(point) for name, point in PROSODY.items()})
        point = who.expressiveness * (blended + config.voice_slip / np.sqrt(3) * rng.normal(size=3))
        sound = np.tensordot(spoken, phones.sounds, 1) + who.voice
        sound += heard[:, None, None] * np.tensordot(point, phones.axes, 1)
        sound += config.voice_noise * rng.standard_normal(sound.shape, np.float32)
        return sound.astype(np.float16)


def _bent(rng: np.random.Generator, direction: np.ndarray, manner: float) -> np.ndarray:
    """A person's form of an archetype: turned towards a random habit, its length kept; neutral stays 0."""
    length = np.linalg.norm(direction)
    habit = np.zeros(len(COEFFICIENTS))
    places = rng.choice([PLACE[name] for name in HABITS], 8, replace=False)
    habit[places] = rng.uniform(0.2, 1.0, 8)
    if not length:
        return direction
    # At right angles to the archetype, so that `manner` is the sine of the angle.
    habit -= direction * (habit @ direction) / length**2
    return length * (np.sqrt(1 - manner**2) * direction / length + manner * habit / np.linalg.norm(habit))


def _off(rng: np.random.Generator, length: float) -> np.ndarray:
    """A random direction of about that length over the expressive coefficients, (52,)."""
    step = np.zeros(len(COEFFICIENTS))
    step[[PLACE[name] for name in HABITS]] = rng.normal(0, length / np.sqrt(len(HABITS)), len(HABITS))
    return step


def _smooth(rng: np.random.Generator, length: int, window: int, columns: int = 1) -> np.ndarray:
    """Noise of unit variance that changes over about `window` entries, (length, columns)."""
    kernel = np.hanning(window + 2)
    kernel /= np.linalg.norm(kernel)
    white = rng.normal(size=(length + window + 1, columns))
    return np.stack([np.convolve(column, kernel, "valid") for column in white.T], axis=1)[:length]


def _spoken(rng: np.random.Generator, steps: int) -> np.ndarray:
    """How much of each phone is heard at each step, (steps, PHONES): rows add up to 1, and run into each other."""
    lasting = rng.integers(3, 11, steps)  # 60 to 200 ms
    which = np.repeat(rng.integers(0, PHONES, steps), lasting)[: steps + 4]
    kernel = np.hanning(7)[1:-1]
    shares = np.eye(PHONES)[which]
    return np.stack([np.convolve(column, kernel / kernel.sum(), "valid") for column in shares.T], axis=1)


def _blinks(rng: np.random.Generator, frames: int, every_s: float) -> np.ndarray:
    """Closing of the eyes, (frames,), 0..1."""
    starts = (rng.random(frames) < 1 / (every_s * FPS)).astype(float)
    return np.clip(np.convolve(starts, (0.4, 0.9, 1.0, 0.5, 0.2))[:frames], 0, 1)


def _head(rng: np.random.Generator, frames: int, arousal: float) -> np.ndarray:
    """Yaw, pitch and roll in degrees, float32 (frames, 3): slow, and livelier with arousal."""
    swing = np.array([6.0, 3.0, 2.0]) * (1 + 0.5 * arousal)
    return (swing * _smooth(rng, frames, 20, 3) + rng.normal(0, (3.0, 2.0, 1.0))).astype(np.float32)
