"""Splits: MEAD's own, EAT's, drawn ones; reproducible, stored, and never through a speaker."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path

import pytest
from talkforge.core.errors import ConfigError, InputError
from talkforge.core.records import Clip
from talkforge.datasets.hdtf_annotations import identities
from talkforge.datasets.splits import (
    EAT_TEST,
    SPLIT_RULES,
    SplitPlan,
    eat_identities,
    identity_ratio,
    official_sentences,
    plan_split,
    random_identities,
)


def mead(identity, emotion, level, number, view="front"):
    clip_id = f"mead/{identity}/{view}/{emotion}/level_{level}/{number:03d}"
    return Clip(clip_id, Path(f"{number}.mp4"), None, identity, emotion, level, view)


def people(sizes):
    return [Clip(f"x/{name}/{k}", Path("v.mp4"), identity=name) for name, count in sizes.items() for k in range(count)]


def sides(clips):
    found = defaultdict(set)
    for clip in clips:
        found[clip.identity].add(clip.split)
    return found


def test_official_sentences():
    clips = [mead("M003", "neutral", 1, k) for k in range(1, 41)]
    clips += [mead("M003", "angry", level, k) for level in (1, 2, 3) for k in range(1, 31)]
    clips += [mead("W009", "sad", 2, k) for k in range(1, 31) if k != 28]  # one is lost
    plan = official_sentences(clips)
    test = {clip.clip_id for clip in plan.apply(clips) if clip.split == "test"}
    expected = {f"mead/M003/front/neutral/level_1/{k:03d}" for k in range(31, 41)}
    expected |= {f"mead/M003/front/angry/level_{level}/{k:03d}" for level in (1, 2, 3) for k in range(25, 31)}
    expected |= {f"mead/W009/front/sad/level_2/{k:03d}" for k in (24, 25, 26, 27, 29, 30)}
    assert test == expected
    assert {clip.split for clip in plan.apply(clips)} == {"train", "test"}
    assert plan.notes == []


def test_all_views_of_a_sentence_are_on_one_side():
    clips = [mead("M003", "sad", 1, k, "front") for k in range(1, 31)]
    clips += [mead("M003", "sad", 1, k, "down") for k in range(1, 21)]  # a view with fewer recordings
    found = defaultdict(set)
    for clip in official_sentences(clips).apply(clips):
        found[clip.clip_id[-3:]].add(clip.split)
    assert all(len(splits) == 1 for splits in found.values())
    assert sorted(k for k, splits in found.items() if splits == {"test"}) == [f"{k:03d}" for k in range(25, 31)]


def test_few_sentences_are_said_to_be_all_test():
    plan = official_sentences([mead("M003", "sad", 1, k) for k in range(1, 5)])
    assert plan.notes == ["no sentence of M003/sad/level_1 is left for training"]


def test_official_sentences_are_for_mead_only():
    with pytest.raises(InputError, match="no clip of MEAD"):
        official_sentences(people({"a": 1}))


def test_eat_identities():
    clips = people(dict.fromkeys((*EAT_TEST[:3], "M005", "W011"), 2))
    plan = eat_identities(clips)
    assert plan.identities == {"train": ["M005", "W011"], "val": [], "test": ["M003", "M030", "W009"]}
    assert plan.notes == ["test actors that are not here: W015"]
    with pytest.raises(InputError, match="none of the test actors"):
        eat_identities(people({"M005": 1}))


def test_random_identities():
    names = {f"M{k:03d}": 3 for k in range(46)}
    plans = {seed: random_identities(people(names), seed=seed) for seed in range(20)}
    assert all(len(plan.identities["test"]) == 5 and len(plan.identities["train"]) == 41 for plan in plans.values())
    assert len({tuple(plan.identities["test"]) for plan in plans.values()}) > 15
    assert all(plan.seed == seed for seed, plan in plans.items())
    with pytest.raises(InputError, match="too few"):
        random_identities(people(dict.fromkeys("abcde", 1)))


def test_a_draw_is_the_same_for_ever():
    """Golden: the order of sha256("<seed>:<identity>"), computed with coreutils' sha256sum."""
    plan = random_identities(people(dict.fromkeys(["M003", "M005", "W009", "W011"], 1)), seed=7, count=2)
    assert plan.identities["test"] == ["M005", "W011"]


def test_the_order_of_clips_and_new_identities_do_not_matter():
    names = dict.fromkeys([f"p{k}" for k in range(12)], 2)
    clips = people(names)
    plan = random_identities(clips, seed=3)
    shuffled = random.Random(0).sample(clips, len(clips))
    assert random_identities(shuffled, seed=3) == plan
    more = random_identities(people(names | {"q": 2}), seed=3)
    assert len(set(more.identities["test"]) - set(plan.identities["test"])) <= 1


@pytest.mark.parametrize("seed", range(30))
def test_no_identity_is_on_two_sides(seed):
    rng = random.Random(seed)
    sizes = {f"p{k}": rng.choice([1, 1, 2, 5, 30]) for k in range(rng.randint(6, 40))}
    clips = rng.sample(clips := people(sizes), len(clips))
    for plan in (random_identities(clips, seed=seed), identity_ratio(clips, seed=seed, val=rng.choice([0, 0.1, 0.3]))):
        found = sides(plan.apply(clips))
        assert set(found) == set(sizes)
        assert all(len(splits) == 1 for splits in found.values())
        listed = [name for members in plan.identities.values() for name in members]
        assert sorted(listed) == sorted(sizes)


@pytest.mark.parametrize("seed", range(30))
def test_hdtf_names_with_digits_stay_together(seed):
    rng = random.Random(seed)
    names = [f"{person}{k}" for person in ("TomUdall", "VeronicaEscobar", "A-B", "Cy", "Di") for k in ("", 0, 1)]
    speakers = identities(
        names, [("TomUdall0", "https://video.example/watch?v=k"), ("Cy1", "https://video.example/watch?v=k")]
    )
    clips = [
        Clip(f"hdtf/{speakers[name]}/WDA_{name}_{k:03d}", Path(f"{name}.mp4"), identity=speakers[name])
        for name in names
        for k in range(rng.randint(1, 4))
    ]
    found = defaultdict(set)
    for clip in identity_ratio(clips, seed=seed, val=0.2, test=0.2).apply(clips):
        found[clip.video.stem.rstrip("012")].add(clip.split)
    assert all(len(splits) == 1 for splits in found.values())
    assert found["TomUdall"] == found["Cy"]


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_kept_where_identities_allow(seed):
    sizes = {f"p{k}": 3 + k % 3 for k in range(100)}
    clips = people(sizes)
    counts = identity_ratio(clips, seed=seed, val=0.1, test=0.2).as_dict(clips)["clips"]
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        # The last identity given to a split can be one too many, or one too few: no more.
        assert abs(counts[split] - share * len(clips)) <= max(sizes.values())


@pytest.mark.parametrize("sizes", [{"a": 1, "b": 1, "c": 1}, {"a": 1000, "b": 1, "c": 2}, dict.fromkeys("abcd", 5)])
def test_every_split_with_a_share_gets_somebody(sizes):
    for seed in range(10):
        plan = identity_ratio(people(sizes), seed=seed)
        assert all(plan.identities[split] for split in ("train", "val", "test"))


def test_what_cannot_be_split():
    with pytest.raises(InputError, match="cannot fill 3 splits"):
        identity_ratio(people({"a": 5, "b": 5}))
    with pytest.raises(ConfigError, match="no shares"):
        identity_ratio(people({"a": 5, "b": 5}), val=0.5, test=0.5)
    with pytest.raises(InputError, match="has no identity"):
        identity_ratio([Clip("x/1", Path("v.mp4"))])
    with pytest.raises(ConfigError, match="did you mean identity-ratio"):
        plan_split("identity-ratios", [])


@pytest.mark.parametrize("rule", SPLIT_RULES)
def test_a_stored_plan_decides_the_same(rule):
    clips = [mead(name, "sad", 1, k) for name in (*EAT_TEST, "M005", "M007", "W011") for k in range(1, 31)]
    plan = plan_split(rule, clips, seed=4)
    stored = json.loads(json.dumps(plan.as_dict(clips)))
    assert stored["name"] == rule
    assert sum(stored["clips"].values()) == len(clips)
    again = SplitPlan.from_dict(stored)
    assert again.apply(clips) == plan.apply(clips)
    assert again.as_dict(clips) == stored
    assert stored["seed"] == (4 if rule in ("random-identities", "identity-ratio") else None)


def test_a_plan_does_not_guess_for_strangers():
    plan = eat_identities(people({"M003": 1, "M005": 1}))
    with pytest.raises(InputError, match="does not know the identity M007"):
        plan.apply(people({"M007": 1}))
