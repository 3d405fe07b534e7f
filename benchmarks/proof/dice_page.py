"""The page and the table of `dice_embedder.py` beside this file: what was found, in words that follow the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from dice_bank import VARIANTS
from dice_measures import rising_curve
from dice_priors import MODALITIES, Priors
from talkforge.core.emotions import MEAD_EMOTIONS
from talkforge.metrics.clustering import DEFINITIONS
from talkforge.metrics.projection import t_sne
from talkforge.metrics.replicates import Repeated, repeated
from talkforge.reports.cells import MetricCell
from talkforge.reports.embedding import scatter
from talkforge.reports.study import Heat, Section, Study, Table, path_chart, plain_cell, render_study, repeated_cell

# W. Tan et al., 2025, Table 5. Its definition and its data are others: only the order can be compared.
PUBLISHED = {"audio": (2.44, 2.12, 2.51, 2.49), "video": (6.25, 4.89, 7.45, 8.07), "both": (6.57, 5.64, 7.63, 8.38)}
PUBLISHED_EMOTIONS = ("angry", "contempt", "disgusted", "happy")
MAIN = "pairs-centroids"
LENGTHS = {"clustering": "steps", "clustering, longer": "longer"}  # of training, by name in the plan
ORDER = tuple(MODALITIES)
SHOWN = {"audio": "audio only", "video": "video only", "both": "video + audio"}
WHAT = {
    "leakage, deterministic|{}/mu": "μ, trained without sampling",
    "leakage|{}/mu": "μ",
    "leakage|{}/s": "s, sampled (eq. 6)",
    "leakage|{}/round": "μ + noise of the same power, alike in all directions",
}


class Found:
    """Numbers of all seeds by flat name."""

    def __init__(self, seeds: Sequence[Mapping[str, Any]]) -> None:
        self.seeds = seeds

    def names(self) -> list[str]:
        """All that are numbers in at least one seed."""
        known = dict.fromkeys(name for seed in self.seeds for name in seed)
        return [name for name in known if any(map(_is_number, self.each(name)))]

    def each(self, name: str) -> list[Any]:
        """By seed; seeds that were never asked are left out."""
        return [seed[name] for seed in self.seeds if name in seed]

    def over(self, name: str, minus: str | None = None) -> Repeated | None:
        """Over seeds, or of the difference within a seed; None where a seed has none."""
        values = self.each(name)
        others = self.each(minus) if minus else [0.0] * len(values)
        if not values or not all(map(_is_number, values)) or not all(map(_is_number, others)):
            return None
        return repeated([a - b for a, b in zip(values, others, strict=True)])

    def cell(self, name: str, minus: str | None = None) -> MetricCell:
        """Of `over`."""
        return repeated_cell(self.over(name, minus), "undefined in a seed", signed=minus is not None)

    def entry(self, name: str) -> dict[str, Any]:
        """For results.json; a mean only where all seeds have a value."""
        made = self.over(name)
        reason = None if made else "undefined in a seed"
        ci = list(made.ci95) if made and made.ci95 else None
        return {"mean": made.mean if made else None, "ci95": ci, "values": self.each(name), "reason": reason}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def verdict(gap: Repeated | None) -> str:
    """Whether one number is above another, by the interval of their difference within seeds."""
    if gap is None or gap.ci95 is None:
        return "not established"
    above = sum(value > 0 for value in gap.values)
    seen = f"in {above} of {len(gap.values)} seeds"
    if not gap.established:
        return f"not established ({seen})"
    return f"holds ({seen})" if gap.mean > 0 else f"does not hold (above {seen})"


def clustering_section(found: Found, plan: Mapping[str, Any]) -> Section:
    """(a)."""
    tables = [_strengths(found, kind, plan[steps]) for kind, steps in LENGTHS.items()]
    text = [
        f"After {plan[steps]} steps {SHOWN[a]} < {SHOWN[b]}: "
        f"{verdict(found.over(f'{kind}|{MAIN}/{b}', f'{kind}|{MAIN}/{a}'))}."
        for kind, steps in LENGTHS.items()
        for a, b in _steps()
    ]
    return Section(
        "clustering", "Clustering strength", text, [*tables, _by_emotion(found, plan), _without(found, plan)]
    )


def _strengths(found: Found, kind: str, steps: int) -> Table:
    names = [f"{d.intra}-{d.inter}" for d in DEFINITIONS]
    rows = [(SHOWN[m], [found.cell(f"{kind}|{name}/{m}") for name in names]) for m in ORDER]
    rows += [
        (f"{SHOWN[b]} − {SHOWN[a]}", [found.cell(f"{kind}|{n}/{b}", f"{kind}|{n}/{a}") for n in names])
        for a, b in _steps()
    ]
    note = "Inter / intra distance of μ of people whom training has not seen; classes are one person's emotions."
    return Table([f"{steps} steps", *(f"{d.inter} / {d.intra}" for d in DEFINITIONS)], rows, note)


def _steps() -> list[tuple[str, str]]:
    return [*pairwise(ORDER)]


def _by_emotion(found: Found, plan: Mapping[str, Any]) -> Table:
    rows = [(SHOWN[m], [found.cell(f"clustering, longer|{MAIN}/{m}/{e}") for e in MEAD_EMOTIONS]) for m in ORDER]
    published = [(f"paper, {SHOWN[m]}", [_paper(m, emotion) for emotion in MEAD_EMOTIONS]) for m in ORDER]
    note = "Paper: Table 5, on MEAD, by a definition that it does not give. Only the order of its rows can be compared."
    return Table([f"{plan['longer']} steps, centroids / pairs", *MEAD_EMOTIONS], rows + published, note)


def _paper(modality: str, emotion: str) -> MetricCell:
    if emotion not in PUBLISHED_EMOTIONS:
        return plain_cell("")
    return plain_cell(f"{PUBLISHED[modality][PUBLISHED_EMOTIONS.index(emotion)]:.2f}")


def _without(found: Found, plan: Mapping[str, Any]) -> Table:
    kinds = {"clustering": "with samples of eq. 6", "clustering, deterministic": "with μ alone"}
    rows = [(text, [found.cell(f"{kind}|{MAIN}/{m}") for m in ORDER]) for kind, text in kinds.items()]
    return Table(["trained", *(SHOWN[m] for m in ORDER)], rows, f"After {plan['steps']} steps.")


def leakage_section(found: Found) -> Section:
    """(b)."""
    targets = ("identity", "emotion")
    heads = ["prior", *(f"{SHOWN[m]}: {target}" for m in ("video", "both", "audio") for target in targets)]
    tables = []
    for suffix, note in (
        ("", "Accuracy of linear probes, fitted on half of the takes of held-out people and judged on the other half."),
        ("-variance", "Share of the priors' variance that lies between people, and between emotions (η²)."),
    ):
        rows = [
            (text, [found.cell(f"{what.format(m)}/{t}{suffix}") for m in ("video", "both", "audio") for t in targets])
            for what, text in WHAT.items()
        ]
        given = [found.cell(f"leakage|face/{target}{suffix}") for target in targets]
        rows.append(("the clip's mean coefficients themselves", [*given, *[plain_cell("")] * 4]))
        if not suffix:
            rows.append(
                (
                    "the most frequent one",
                    [found.cell(f"leakage|most/{target}") for _ in range(3) for target in targets],
                )
            )
        tables.append(Table(heads, rows, note))
    gap = found.over("leakage, deterministic|video/mu/identity", "leakage|video/s/identity")
    rounded = found.over("leakage|video/s/identity", "leakage|video/round/identity")
    text = [
        f"A sampled prior tells less of who it is than a deterministic one, from video: {verdict(gap)}.",
        f"The shape of σ hides less of it than round noise of the same power: {verdict(rounded)}.",
        "Positives of eq. 8 share identity and emotion, so that nothing in the objective takes identity out: see the "
        "columns with audio, where the voice gives it away.",
    ]
    return Section("identity", "Identity in the prior", text, tables)


def neighbours_section(found: Found, plan: Mapping[str, Any], test: Priors) -> Section:
    """(c): the pictures are of seed 0."""
    names = ("emotion", "emotion-chance", "level", "level-chance")
    lengths = {"neighbours": plan["steps"], "neighbours, longer": plan["longer"]}
    rows = [
        (f"{SHOWN[m]}, {steps} steps", [found.cell(f"{kind}|{m}/{name}") for name in names])
        for kind, steps in lengths.items()
        for m in ORDER
    ]
    heads = ["input", "emotion", "chance", "intensity", "chance"]
    note = "Part of the five nearest priors of the same person (intensity: and emotion) that share it."
    text = [
        "Two held-out people of seed 0, as in the paper's Figure 4(c): circles and squares, larger with intensity. "
        "Intensity is no label of the training; clips of all three are each other's positives."
    ]
    return Section("neighbours", "Neighbours, t-SNE", text, [Table(heads, rows, note)], pictures(test))


def pictures(test: Priors, people: int = 2) -> list[Any]:
    """t-SNE of the first people's priors: by emotion for each input, by intensity for both."""
    chosen = np.isin(test.identity, np.unique(test.identity)[:people])
    groups, levels = test.identity[chosen].tolist(), test.level[chosen].tolist()
    places = {m: t_sne(test.mu[m][chosen]) for m in ORDER}
    emotion, intensity = test.emotion[chosen].tolist(), [f"level {level}" for level in levels]
    made = [
        scatter(places[m], emotion, title=f"{SHOWN[m]}, by emotion", groups=groups, grades=levels)
        for m in ("both", "video", "audio")
    ]
    return [made[0], scatter(places["both"], intensity, title="video + audio, by intensity", groups=groups), *made[1:]]


def path_section(found: Found, first: Mapping[str, Priors]) -> Section:
    """(d)."""
    kernels = {1.0: "median distance", 0.5: "half of it", 0.25: "a quarter"}
    names = ("rho", "monotone", "largest", "start", "end")
    rows = [
        (f"kernel: {text}", [found.cell(f"interpolation|rise/{part:g}/{name}") for name in names])
        for part, text in kernels.items()
    ]
    heads = ["neutral → emotion", "Spearman", "strictly rising", "largest step", "amount at the start", "at the end"]
    note = (
        "The emotion's amount at 11 points; mean of 7 emotions, all takes and held-out people. Even steps would be 0.1."
    )
    own = {"read-out/explained": "R² of all coefficients", "read-out/amount": "correlation of an emotion's amount"}
    own |= {"happy-sad/happy": "happy → sad: Spearman, happy", "happy-sad/sad": "happy → sad: Spearman, sad"}
    own |= {f"levels/place-{k}": f"place of level {k} on the line neutral → level 3" for k in (1, 2, 3)}
    own |= {"levels/ordered": "levels in order (chance 0.167)"}
    others = [(text, [found.cell(f"interpolation|{name}")]) for name, text in own.items()]
    text = [
        "The embedder does not decode. A kernel ridge regression from μ to the clip's mean expression coefficients, "
        "fitted on the training people, reads lines between held-out people's priors. A linear read-out would rise "
        "evenly along any line, so it is not linear; narrow kernels see single clips and not a slope.",
    ]
    chart = path_chart(
        {k: v.tolist() for k, v in rising_curve(first["train"], first["test"], "sad").items()}, ("happy", "sad")
    )
    return Section(
        "interpolation",
        "Between two priors",
        text,
        [Table(heads, rows, note), Table(["", "value"], others)],
        [],
        [chart],
    )


def bank_section(found: Found) -> Section:
    """(e)."""
    text = [
        "A proxy takes the denoiser's place: from the mean of the tokens E_s one linear head says the clip's mean "
        "coefficients, another one its emotion. The embedder does not learn; priors are sampled.",
        f"Nearest emotion by shared codes (seeds): {neighbours_text(found, BANKS[0])}. "
        f"Reseeded: {neighbours_text(found, BANKS[1])}.",
    ]
    heats = [Heat(f"Shared codes, {name}", MEAD_EMOTIONS, _overlap(found, name)) for name in BANKS]
    tables = [_codes_table(found), _proxy_table(found), _likeness_table(found)]
    return Section("bank", "The emotion bank", text, tables, heats=heats)


def _codes_table(found: Found) -> Table:
    codes = {"used, fitted": "codes used, training people", "used": "held-out people", "perplexity": "perplexity"}
    codes |= {"alone": "part of codes with one emotion", "spread": "spread of z"}
    names = [name for name, (changes, _) in VARIANTS.items() if "mode" not in changes]
    rows = [(name, [found.cell(f"bank|{name}|{key}") for key in codes]) for name in names]
    return Table(["variant", *codes.values()], rows, "Of 64 codes; those that are left are dead.")


def _proxy_table(found: Found) -> Table:
    heads = {"all codes/emotion": "emotion, all codes", "nearest code/emotion": "emotion, nearest code"}
    heads |= {"all codes/face": "face R², all codes", "nearest code/face": "face R², nearest code"}
    proxies = [name for name, (_, proxy) in VARIANTS.items() if proxy]
    rows = [(name, [_optional(found, f"bank|{name}|{key}") for key in heads]) for name in proxies]
    note = "Held-out people's μ: accuracy of the emotion head, mean over emotions, and R² of the face head."
    return Table(["variant", *heads.values()], rows, note)


def _likeness_table(found: Found) -> Table:
    names = {"bank|faces|mean face": "mean coefficients", "bank|priors|mu": "priors μ"}
    names |= {f"bank|{variant}|{key}": f"{variant}: {text}" for variant in BANKS for key, text in _LIKE.items()}
    names |= {"bank|no bank|tokens": "no bank: tokens E_s", "bank|learnable CA|tokens": "learnable CA: tokens E_s"}
    rows = [
        (text, [found.cell(f"{name} as {kind}") for kind in ("face", "voice", "mean")]) for name, text in names.items()
    ]
    note = (
        "Spearman over the 21 pairs of emotions without neutral: how alike they are in a representation, and in the "
        "archetypes that the corpus is made from."
    )
    return Table(["representation", "faces", "voices", "both"], rows, note)


BANKS = ("bank", "bank, reseeded")
_LIKE = {"z": "z before the codes", "codes": "shared codes", "tokens": "tokens E_s"}


def _optional(found: Found, name: str) -> MetricCell:
    """Variants without codes have no nearest one."""
    return found.cell(name) if found.each(name) else plain_cell("")


def _overlap(found: Found, variant: str) -> list[list[float]]:
    return np.mean(found.each(f"bank|{variant}|overlap"), axis=0).tolist()


def neighbours_text(found: Found, variant: str) -> str:
    """Each emotion with those that share most of its codes, and in how many seeds."""
    parts = []
    for emotion in MEAD_EMOTIONS:
        names = Counter(name or "none" for name in found.each(f"bank|{variant}|nearest|{emotion}"))
        parts.append(f"{emotion}: {', '.join(f'{name} {count}' for name, count in names.most_common(2))}")
    return "; ".join(parts)


def write_page(results: Mapping[str, Any], found: Found, first: Mapping[str, Priors]) -> tuple[str, str]:
    """index.html and table.md."""
    plan, seconds = results["plan"], found.over("cpu seconds|gaussian")
    facts = {
        "seeds": str(len(results["seeds"])),
        "steps": str(plan["steps"]),
        "people: train, val, test": f"{plan['train']}, {plan['val']}, {plan['test']}",
        "CPU s a training": f"{seconds.mean:.0f}" if seconds else "not measured",
    }
    sections = [
        clustering_section(found, plan),
        leakage_section(found),
        neighbours_section(found, plan, first["test"]),
        path_section(found, first),
        bank_section(found),
    ]
    summary = (
        "Emotion embedder and bank of DICE-Talk, trained on made-up people whose emotions, intensities and manners are "
        "known. All numbers are of people whom training has not seen. They say how the method works, not what it does "
        "on films."
    )
    settings = {"corpus": results["corpus"], "plan": plan, "version": results["version"], "made": results["made"]}
    study = Study("What DICE-Talk's embedder does", summary, facts, sections, settings)
    return render_study(study), markdown(sections)


def markdown(sections: Sequence[Section]) -> str:
    """All tables, for the documentation."""
    lines: list[str] = []
    for section in sections:
        lines += [f"### {section.title}", "", *(part for text in section.text for part in (text, ""))]
        for table in section.tables:
            lines += [_line(table.heads), _line(["---"] + ["---:"] * (len(table.heads) - 1))]
            lines += [_line([name, *map(_text, cells)]) for name, cells in table.rows]
            lines += ["", *([table.note, ""] if table.note else [])]
    return "\n".join(lines)


def _line(parts: Sequence[str]) -> str:
    return f"| {' | '.join(parts)} |"


def _text(cell: MetricCell) -> str:
    return f"{cell.text} {cell.interval}" if cell.interval else cell.text
