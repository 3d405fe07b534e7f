"""Named splits into train, val and test: reproducible from a seed, stored with what they decide.

A split is decided on identities (or on MEAD's sentences), never on clips, so it is small enough to store and a clip
found later falls on the side of its identity. Orders that look random come from sha256 of seed and identity: they are
the same in every version of every library, and a new identity moves no other one.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..core.errors import ConfigError, InputError
from ..core.records import Clip
from ..core.registry import did_you_mean

SPLITS = ("train", "val", "test")
EAT_TEST = ("M003", "M030", "W009", "W015")
DICE_TEST_COUNT = 5
OFFICIAL_LAST = {"neutral": 10}
OFFICIAL_LAST_OTHERS = 6


@dataclass(frozen=True)
class SplitPlan:
    """A decided split.

    Attributes:
        name: of the rule, see `SPLIT_RULES`.
        rule: the rule in words.
        seed: None where nothing is drawn.
        identities: split -> identities, sorted; empty where the split is one of sentences.
        test_sentences: "<identity>/<emotion>/level_<k>" -> sentence numbers of the test split.
        notes: what is unusual about these clips.
    """

    name: str
    rule: str
    seed: int | None = None
    identities: Mapping[str, Sequence[str]] = field(default_factory=dict)
    test_sentences: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def split_of(self, clip: Clip) -> str:
        """The clip's split.

        Raises:
            InputError: the plan does not know the clip's identity.
        """
        if not self.identities:
            return "test" if _number(clip) in self.test_sentences.get(_take(clip), ()) else "train"
        if clip.identity not in self._sides:
            raise InputError(f"the split '{self.name}' does not know the identity {clip.identity} of {clip.clip_id}")
        return self._sides[clip.identity]

    @cached_property
    def _sides(self) -> dict[str | None, str]:
        return {identity: split for split, members in self.identities.items() for identity in members}

    def apply(self, clips: Iterable[Clip]) -> list[Clip]:
        """The clips with their splits."""
        return [replace(clip, split=self.split_of(clip)) for clip in clips]

    def as_dict(self, clips: Iterable[Clip]) -> dict[str, Any]:
        """What `splits.json` holds: the plan, and how many of these clips fall on each side."""
        counts = Counter(self.split_of(clip) for clip in clips)
        return {
            "name": self.name,
            "rule": self.rule,
            "seed": self.seed,
            "identities": {split: list(members) for split, members in self.identities.items()},
            "test_sentences": {take: list(numbers) for take, numbers in self.test_sentences.items()},
            "clips": {split: counts[split] for split in SPLITS},
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SplitPlan:
        """The stored plan."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})


def official_sentences(clips: Iterable[Clip]) -> SplitPlan:
    """MEAD's own split: of each actor, emotion and level the last sentences are the test set, 10 of neutral, else 6.

    "Last" is by number among those present; all views of a sentence fall on one side. Source: the README of the
    dataset's repository. Every actor is in both sets.

    Raises:
        InputError: clips that are not MEAD's.
    """
    takes: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        takes[_take(clip)].add(_number(clip))
    test = {take: tuple(sorted(numbers)[-_last(take) :]) for take, numbers in sorted(takes.items())}
    whole = [take for take, numbers in test.items() if len(numbers) == len(takes[take])]
    notes = [f"no sentence of {', '.join(whole)} is left for training"] if whole else []
    rule = "per actor, emotion and level: the last 10 sentences of neutral, the last 6 of the others"
    return SplitPlan("official-sentences", rule, test_sentences=test, notes=notes)


def _last(take: str) -> int:
    return OFFICIAL_LAST.get(take.split("/")[1], OFFICIAL_LAST_OTHERS)


def _take(clip: Clip) -> str:
    if not clip.clip_id.startswith("mead/"):
        raise InputError(f"{clip.clip_id} is no clip of MEAD: the split by sentences is for MEAD")
    return f"{clip.identity}/{clip.emotion}/level_{clip.intensity}"


def _number(clip: Clip) -> str:
    return clip.clip_id.rsplit("/", 1)[1]


def eat_identities(clips: Iterable[Clip]) -> SplitPlan:
    """The test actors of EAT (M003, M030, W009, W015); all others train. Source: its public test script.

    Raises:
        InputError: clips without identity, or none of these actors.
    """
    present = sorted(_sizes(clips))
    test = [identity for identity in EAT_TEST if identity in present]
    if not test:
        raise InputError(f"none of the test actors {', '.join(EAT_TEST)} is here", hint="choose another split")
    absent = [identity for identity in EAT_TEST if identity not in present]
    notes = [f"test actors that are not here: {', '.join(absent)}"] if absent else []
    return _by_identity("eat-identities", f"test actors {', '.join(EAT_TEST)}", None, present, {"test": test}, notes)


def random_identities(clips: Iterable[Clip], *, seed: int = 0, count: int = DICE_TEST_COUNT) -> SplitPlan:
    """`count` drawn identities test, the others train: DICE-Talk's protocol on MEAD, whose five are not named.

    Raises:
        InputError: clips without identity, or not more than `count` of them.
    """
    present = sorted(_sizes(clips))
    if len(present) <= count:
        raise InputError(f"{len(present)} identities are too few to draw {count} for the test set and train on others")
    test = _drawn(present, seed)[:count]
    return _by_identity("random-identities", f"{count} drawn test identities", seed, present, {"test": test}, [])


def identity_ratio(clips: Iterable[Clip], *, seed: int = 0, val: float = 0.1, test: float = 0.1) -> SplitPlan:
    """Whole identities in drawn order, each to the split that lacks most of its share of clips.

    Every split with a share gets at least one identity.

    Args:
        val, test: shares of the clips; the rest trains.

    Raises:
        ConfigError: shares that are none.
        InputError: clips without identity, or fewer identities than splits.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise ConfigError(
            f"val={val} and test={test} are no shares of the clips", hint="each 0 or more, together below 1"
        )
    shares = {split: share for split, share in (("train", 1 - val - test), ("val", val), ("test", test)) if share}
    sizes = _sizes(clips)
    if len(sizes) < len(shares):
        raise InputError(f"{len(sizes)} identities cannot fill {len(shares)} splits")
    total = sum(sizes.values())
    lack = {split: share * total for split, share in shares.items()}
    members: dict[str, list[str]] = {split: [] for split in shares}
    for identity in _drawn(sizes, seed):
        split = max(shares, key=lambda name: lack[name])
        members[split].append(identity)
        lack[split] -= sizes[identity]
    for split in shares:
        if not members[split]:
            richest = max(shares, key=lambda name: len(members[name]))
            smallest = min(members[richest], key=lambda identity: (sizes[identity], identity))
            members[richest].remove(smallest)
            members[split].append(smallest)
    rule = f"whole identities, shares of clips: {', '.join(f'{s} {share:g}' for s, share in shares.items())}"
    return _by_identity("identity-ratio", rule, seed, sorted(sizes), members, [])


def _by_identity(
    name: str,
    rule: str,
    seed: int | None,
    present: Sequence[str],
    chosen: Mapping[str, Sequence[str]],
    notes: list[str],
) -> SplitPlan:
    taken = {identity for split, members in chosen.items() if split != "train" for identity in members}
    identities = {split: sorted(chosen.get(split, ())) for split in SPLITS}
    identities["train"] = [identity for identity in present if identity not in taken]
    return SplitPlan(name, rule, seed, identities, notes=notes)


def _sizes(clips: Iterable[Clip]) -> Counter[str]:
    """Identity -> clips."""
    sizes: Counter[str] = Counter()
    for clip in clips:
        if clip.identity is None:
            raise InputError(
                f"{clip.clip_id} has no identity, so a split by identities could take one speaker apart",
                hint="name identities in the manifest, or take them from folder names",
            )
        sizes[clip.identity] += 1
    return sizes


def _drawn(identities: Iterable[str], seed: int) -> list[str]:
    """The identities in an order drawn with `seed`."""
    return sorted(identities, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode()).digest(), name))


FIXED_RULES: dict[str, Callable[[Iterable[Clip]], SplitPlan]] = {
    "official-sentences": official_sentences,
    "eat-identities": eat_identities,
}
DRAWN_RULES: dict[str, Callable[..., SplitPlan]] = {
    "random-identities": random_identities,
    "identity-ratio": identity_ratio,
}
SPLIT_RULES = (*FIXED_RULES, *DRAWN_RULES)


def plan_split(rule: str, clips: Iterable[Clip], *, seed: int = 0) -> SplitPlan:
    """The split of that name, with its usual shares; a rule that draws nothing ignores the seed.

    Raises:
        ConfigError: no such split.
        InputError: these clips cannot be split so.
    """
    if rule in FIXED_RULES:
        return FIXED_RULES[rule](clips)
    if rule in DRAWN_RULES:
        return DRAWN_RULES[rule](clips, seed=seed)
    raise ConfigError(
        f"unknown split '{rule}'", hint=did_you_mean(rule, SPLIT_RULES) or f"known: {', '.join(SPLIT_RULES)}"
    )
