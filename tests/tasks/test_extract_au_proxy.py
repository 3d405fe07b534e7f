"""The action unit proxy: its table, closed forms on made-up blendshapes, and faces whose expression is known."""

import numpy as np
import pytest
from talkforge.tasks.action_units import ACTION_UNITS, Formula, action_units
from talkforge.tasks.extract_arkit import BLENDSHAPE_NAMES
from talkforge.tasks.extract_au_proxy import AU_PROXY
from talkforge.tests.tasks.one_row import extract, sample

PROXY = "au-blendshape-proxy"
NUMBERS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)


def made(**shapes: float) -> dict[str, float]:
    """The action units of a face with these blendshapes and no others."""
    coefficients = np.zeros(52, np.float32)
    for name, value in shapes.items():
        coefficients[BLENDSHAPE_NAMES.index(name)] = value
    return {name: float(value) for name, value in action_units(coefficients, BLENDSHAPE_NAMES).items()}


def above_zero(**shapes: float) -> dict[str, float]:
    return {name: round(value, 4) for name, value in made(**shapes).items() if value > 0}


def test_the_table_holds_the_17() -> None:
    assert tuple(unit.number for unit in ACTION_UNITS) == NUMBERS
    assert all(unit.name and unit.muscle and unit.source in ("ARKit", "ours") for unit in ACTION_UNITS)
    assert [name for name in AU_PROXY.columns if name.startswith("AU")] == [f"AU{n:02d}" for n in NUMBERS]
    assert AU_PROXY.params["formulas"]["AU12"] == "mean(mouthSmileLeft, mouthSmileRight)"
    assert AU_PROXY.params["formulas"]["AU25"].endswith("jawOpen - mouthClose)")


def test_a_face_at_rest_shows_nothing() -> None:
    assert above_zero() == above_zero(_neutral=1.0) == {}


@pytest.mark.parametrize(
    ("shapes", "units"),
    [
        ({"browInnerUp": 0.7}, {"AU01": 0.7}),
        ({"browOuterUpLeft": 0.8, "browOuterUpRight": 0.2}, {"AU02": 0.5}),
        ({"browDownLeft": 1.0}, {"AU04": 0.5}),
        ({"eyeWideLeft": 0.4, "eyeWideRight": 0.4}, {"AU05": 0.4}),
        ({"eyeSquintLeft": 0.6, "eyeSquintRight": 0.6}, {"AU07": 0.6}),
        ({"mouthSmileLeft": 0.9, "mouthSmileRight": 0.7}, {"AU12": 0.8}),
        (
            {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.7, "eyeSquintLeft": 0.5, "eyeSquintRight": 0.5},
            {"AU06": 0.5, "AU07": 0.5, "AU12": 0.8},
        ),
        ({"mouthUpperUpLeft": 0.6, "mouthUpperUpRight": 0.6}, {"AU10": 0.6, "AU25": 0.6}),
        (
            {"mouthUpperUpLeft": 0.6, "mouthUpperUpRight": 0.6, "browDownLeft": 0.2, "browDownRight": 0.4},
            {"AU04": 0.3, "AU09": 0.3, "AU10": 0.6, "AU25": 0.6},
        ),
        ({"mouthDimpleLeft": 0.2, "mouthDimpleRight": 0.4}, {"AU14": 0.3}),
        ({"mouthFrownLeft": 0.2, "mouthFrownRight": 0.4}, {"AU15": 0.3}),
        ({"mouthShrugLower": 0.25}, {"AU17": 0.25}),
        ({"mouthStretchLeft": 0.2, "mouthStretchRight": 0.4}, {"AU20": 0.3}),
        ({"mouthPressLeft": 0.4, "mouthPressRight": 0.4, "mouthRollUpper": 0.2}, {"AU23": 0.4}),
        ({"mouthRollLower": 0.6, "mouthRollUpper": 0.4}, {"AU23": 0.5}),
        ({"jawOpen": 0.5}, {"AU25": 0.5, "AU26": 0.5}),
        ({"jawOpen": 0.5, "mouthClose": 0.5}, {"AU26": 0.5}),
        ({"jawOpen": 0.1, "mouthClose": 0.5}, {"AU26": 0.1}),
        ({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 0.5}, {"AU45": 0.75}),
    ],
)
def test_closed_forms(shapes: dict[str, float], units: dict[str, float]) -> None:
    assert above_zero(**shapes) == pytest.approx(units, abs=1e-4)


def test_formulas_read_as_they_compute() -> None:
    formula = Formula("max", (Formula("mean", ("a", "b")), Formula("difference", ("c", "a"))))
    assert str(formula) == "max(mean(a, b), c - a)"
    assert formula.value(np.array([[1.0, 3.0, 9.0], [0.0, 2.0, 0.5]]), ["a", "b", "c"]).tolist() == [8.0, 1.0]


def test_a_smiling_man_smiles_and_a_neutral_talker_does_not() -> None:
    smile = extract(PROXY, sample("single-face-video"))
    talker = extract(PROXY, sample("jwp-intro"))
    assert np.median(smile.array("AU12")) > np.median(talker.array("AU12")) + 0.5
    assert np.median(smile.array("AU06")) > np.median(talker.array("AU06")) + 0.2
    assert np.percentile(talker.array("AU26"), 95) > np.percentile(smile.array("AU26"), 95) + 0.1


def test_a_sad_woman_becomes_happy() -> None:
    """At first she weeps with a hand over her mouth, which the tracker takes for a smile: so AU12 of the first four
    seconds is too high, and lips that part tell the two ends of the clip apart better."""
    row = extract(PROXY, sample("wolfgang-langer"))
    smile, parted = row.array("AU12"), row.array("AU25")
    half = len(smile) // 2
    assert np.median(smile[half:]) > np.median(smile[:half]) + 0.3
    assert np.median(smile[-100:]) > np.median(smile[:100])
    assert np.median(parted[-100:]) > np.median(parted[:100]) + 0.5


def test_blinks_are_short_and_close_the_eyes() -> None:
    """AU45 rises when the lids meet: it goes against the lids' distance, measured on the landmarks."""
    clip = sample("jwp-intro")
    points = extract("faces-mediapipe", clip).array("points").reshape(-1, 478, 3)
    lids = np.linalg.norm(points[:, [159, 386]] - points[:, [145, 374]], axis=2).mean(axis=1)
    blink = extract(PROXY, clip).array("AU45")
    assert blink.max() > 0.5 > 0.3 > np.median(blink)
    assert lids[blink.argmax()] < 0.6 * np.median(lids)
    assert np.corrcoef(blink, lids)[0, 1] < -0.6


def test_frames_without_a_face_are_null() -> None:
    row = extract(PROXY, sample("face-noface"))
    values = row._table["AU45"].chunk(0)[0].values
    assert 0 < values.null_count == row.value("n_missing")
    assert np.isnan(row.array("AU12")).sum() == row.value("n_missing")
