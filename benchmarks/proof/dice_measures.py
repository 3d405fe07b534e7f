"""What `dice_embedder.py` beside this file measures of one seed's priors: questions (a) to (d)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from dice_priors import MODALITIES, Priors
from talkforge.core.emotions import MEAD_EMOTIONS
from talkforge.datasets.synthetic import LEVELS, archetype
from talkforge.metrics.clustering import DEFINITIONS, clustering_strength
from talkforge.metrics.path import points_between, position_on, steadiness
from talkforge.metrics.probe import ReadOut, linear_probe, neighbour_agreement, read_out, variance_share

DRAWS = 3  # samples of eq. 6 that a measure of samples is the mean over
OPEN = tuple(name for name in MEAD_EMOTIONS if name != "neutral")
POINTS = 11
NARROWER = (1.0, 0.5, 0.25)  # kernels of the read-out, in median distances: narrower ones see clusters, not a slope
Measures = dict[str, float]


def clustering(priors: Priors) -> Measures:
    """(a) "definition/modality": mean over people and emotions of clustering strength of mu; and by emotion."""
    found: Measures = {}
    for modality in MODALITIES:
        for definition in DEFINITIONS:
            by_emotion = _strengths(priors, modality, definition.intra, definition.inter)
            name = f"{definition.intra}-{definition.inter}"
            found[f"{name}/{modality}"] = float(np.mean([*by_emotion.values()]))
            if name == "pairs-centroids":
                found |= {f"{name}/{modality}/{emotion}": value for emotion, value in by_emotion.items()}
    return found


def _strengths(priors: Priors, modality: str, intra: str, inter: str) -> dict[str, float]:
    """By emotion, the mean over people: classes are the emotions of one identity."""
    own = [priors.identity == name for name in np.unique(priors.identity)]
    each = [clustering_strength(priors.mu[modality][k], priors.emotion[k], intra=intra, inter=inter) for k in own]
    return {emotion: float(np.mean([strengths[emotion] for strengths in each])) for emotion in each[0]}


def leakage(priors: Priors) -> Measures:
    """(b) "modality/what/identity" and ".../emotion": accuracy of linear probes; and shares of variance.

    `what` is mu, s (a sample of eq. 6) or round (a sample with noise of the same power, alike in all directions).
    Probes are fitted on the first half of each person's takes and judged on the other half. "face": the clip's mean
    coefficients, in place of a prior: what there is to leak.
    """
    found = _leaks("face", priors, [priors.face])
    for target, labels in (("identity", priors.identity), ("emotion", priors.emotion)):
        found[f"most/{target}"] = float(np.unique(labels, return_counts=True)[1].max() / len(labels))
    for modality in MODALITIES:
        drawn = {
            "mu": [priors.mu[modality]],
            "s": [priors.drawn(modality, seed) for seed in range(DRAWS)],
            "round": [priors.drawn_round(modality, seed) for seed in range(DRAWS)],
        }
        for what, samples in drawn.items():
            found |= _leaks(f"{modality}/{what}", priors, samples)
    return found


def _leaks(name: str, priors: Priors, samples: list[np.ndarray]) -> Measures:
    fitted = priors.take < np.median(priors.take)
    found: Measures = {}
    for target, labels in (("identity", priors.identity), ("emotion", priors.emotion)):
        right = [linear_probe(x[fitted], labels[fitted]).accuracy(x[~fitted], labels[~fitted]) for x in samples]
        found[f"{name}/{target}"] = float(np.mean(right))
        found[f"{name}/{target}-variance"] = float(np.mean([variance_share(x, labels) for x in samples]))
    return found


def neighbourhoods(priors: Priors) -> Measures:
    """(c) "modality/emotion": part of the 5 nearest priors of the same person that have a prior's emotion; ".../level":
    of those of the same person and emotion, its level. Each with "-chance"."""
    found: Measures = {}
    person_emotion = np.char.add(priors.identity, np.char.add("/", priors.emotion))
    graded = priors.emotion != "neutral"
    for modality in MODALITIES:
        rows = priors.mu[modality]
        emotion = neighbour_agreement(rows, priors.emotion, within=priors.identity)
        own = (rows[graded], priors.level[graded].astype(str))
        level = neighbour_agreement(*own, within=person_emotion[graded])
        for name, (value, chance) in {"emotion": emotion, "level": level}.items():
            found |= {f"{modality}/{name}": value, f"{modality}/{name}-chance": chance}
    return found


def interpolation(train: Priors, test: Priors, modality: str = "both") -> Measures:
    """(d) Straight lines from a held-out person's neutral prior to each emotion's, read by a read-out of other people.

    The read-out takes mu to the clip's mean coefficients; an emotion's amount is the part of its archetype in them. A
    linear read-out would change evenly along a line whatever it means, so it is not linear.
    """
    reader = read_out(train.mu[modality], train.face)
    found: Measures = {
        "read-out/explained": reader.explained(test.mu[modality], test.face),
        "read-out/amount": _amounts_right(reader, test, modality),
    }
    for part in NARROWER:
        sharp = reader if part == 1 else read_out(train.mu[modality], train.face, width=part * reader.width)
        rises = [(steps, steadiness(steps)) for steps in _amounts(sharp, test, modality, "neutral")]
        found |= {
            f"rise/{part:g}/rho": _mean([rise.rho for _, rise in rises]),
            f"rise/{part:g}/monotone": float(np.mean([rise.rising == 1.0 for _, rise in rises])),
            f"rise/{part:g}/largest": _mean([rise.largest for _, rise in rises]),
            f"rise/{part:g}/start": float(np.mean([steps[0] for steps, _ in rises])),
            f"rise/{part:g}/end": float(np.mean([steps[-1] for steps, _ in rises])),
        }
    for emotion in ("sad", "happy"):
        paths = _amounts(reader, test, modality, "happy", ends=("sad",), of=emotion)
        found[f"happy-sad/{emotion}"] = _mean([steadiness(steps).rho for steps in paths])
    return found | _levels(test, modality)


def _amounts_right(reader: ReadOut, test: Priors, modality: str) -> float:
    """Pearson's correlation of amounts as read with those of the coefficients over held-out clips; mean of emotions."""
    read, found = reader(test.mu[modality]), []
    for emotion in OPEN:
        # Over all clips, of the emotion or not: the amount has to be low where it is absent.
        found.append(np.corrcoef(read @ archetype(emotion), test.face @ archetype(emotion))[0, 1])
    return float(np.mean(found))


def rising_curve(train: Priors, test: Priors, end: str, modality: str = "both") -> dict[str, np.ndarray]:
    """Emotion -> its mean amount at the points of held-out people's lines from happy to `end`: the picture of (d)."""
    reader = read_out(train.mu[modality], train.face)
    return {
        emotion: np.mean([*_amounts(reader, test, modality, "happy", ends=(end,), of=emotion)], axis=0)
        for emotion in ("happy", end)
    }


def _amounts(
    reader: ReadOut, test: Priors, modality: str, start: str, *, ends: tuple[str, ...] = OPEN, of: str | None = None
) -> Iterator[np.ndarray]:
    """The amount of each path's end (or of `of`) at its points."""
    for person in np.unique(test.identity):
        for end in ends:
            direction = archetype(of or end)
            for take in np.unique(test.take):
                a, b = (_of(test, modality, person, emotion, take) for emotion in (start, end))
                yield reader(points_between(a, b, POINTS)) @ direction / (direction @ direction)


def _of(test: Priors, modality: str, person: str, emotion: str, take: int) -> np.ndarray:
    """The prior of a clip at its emotion's highest level, (d,)."""
    level = 1 if emotion == "neutral" else max(LEVELS)
    which = (test.identity == person) & (test.emotion == emotion) & (test.level == level) & (test.take == take)
    return test.mu[modality][which][0]


def _levels(test: Priors, modality: str) -> Measures:
    """Where other takes' levels lie on the line from neutral to level 3, whose ends are the first takes' means."""
    first = test.take < np.median(test.take)
    places: dict[int, list[float]] = {level: [] for level in LEVELS}
    for person in np.unique(test.identity):
        own = test.identity == person
        start = test.mu[modality][own & first & (test.emotion == "neutral")].mean(axis=0)
        for emotion in OPEN:
            here = own & (test.emotion == emotion)
            end = test.mu[modality][here & first & (test.level == max(LEVELS))].mean(axis=0)
            for level, found in places.items():
                found.append(
                    float(position_on(test.mu[modality][here & ~first & (test.level == level)], start, end).mean())
                )
    order = np.diff(np.array([places[level] for level in sorted(places)]), axis=0) > 0
    means = {f"levels/place-{level}": float(np.mean(found)) for level, found in places.items()}
    return means | {"levels/ordered": float(order.all(axis=0).mean()), "levels/ordered-chance": 1 / 6}


def _mean(values: list[float | None]) -> float:
    """Of those that there are: a quantity that never changes on a path has no rank correlation."""
    return float(np.mean([value for value in values if value is not None]))


def measure_longer(priors: Priors) -> dict[str, Measures]:
    """(a) and (c) of the held-out people once the training of `gaussian` has gone on."""
    return {"clustering, longer": clustering(priors), "neighbours, longer": neighbourhoods(priors)}


def measure(priors: Mapping[str, Mapping[str, Priors]]) -> dict[str, Measures]:
    """(a) to (d) of a seed; `gaussian` is the paper's training, `deterministic` the one without sampling."""
    gaussian, plain = priors["gaussian"], priors["deterministic"]
    return {
        "clustering": clustering(gaussian["test"]),
        "clustering, deterministic": clustering(plain["test"]),
        "leakage": leakage(gaussian["test"]),
        "leakage, deterministic": leakage(plain["test"]),
        "neighbours": neighbourhoods(gaussian["test"]),
        "interpolation": interpolation(gaussian["train"], gaussian["test"]),
    }
