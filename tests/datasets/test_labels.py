"""Emotion names and other projects' label orders."""

from __future__ import annotations

import pytest
from talkforge.core.errors import ConfigError, InputError
from talkforge.datasets.labels import MEAD_EMOTIONS, ORDERS, emotion_at, emotion_name, labels_of_name


def test_the_eight_names_are_alphabetical_and_their_own_name():
    assert list(MEAD_EMOTIONS) == sorted(MEAD_EMOTIONS)
    assert [emotion_name(name.upper()) for name in MEAD_EMOTIONS] == list(MEAD_EMOTIONS)


@pytest.mark.parametrize("order", ORDERS)
def test_orders_hold_each_name_once(order):
    names = ORDERS[order]
    assert len(set(names)) == len(names)
    assert set(names) <= set(MEAD_EMOTIONS)
    missing = {"emoaffectnet": {"contempt"}, "hsemotion-7": {"contempt"}, "fer2013": {"contempt"}}.get(order, set())
    assert set(MEAD_EMOTIONS) - set(names) == missing


def test_label_one_depends_on_the_order():
    assert {order: emotion_at(order, 1) for order in ORDERS} == {
        "mead-names": "contempt",
        "mead-lists": "disgusted",
        "emoaffectnet": "happy",
        "hsemotion-8": "contempt",
        "hsemotion-7": "disgusted",
        "fer2013": "disgusted",
    }


def test_mead_lists_against_the_public_lists(media):
    """Their recording sets 01 to 03 are the first emotion's, 73 is neutral."""
    labels = {}
    for name in ("video_list.txt", "video_list_test.txt"):
        for line in (media / "annotations" / "mead" / name).read_text(encoding="utf-8").splitlines():
            picture, label, *_ = line.split()
            labels.setdefault(picture.split("_")[1], set()).add(emotion_at("mead-lists", int(label)))
    assert labels == {"01": {"angry"}, "02": {"angry"}, "03": {"angry"}, "73": {"neutral"}}


@pytest.mark.parametrize(
    ("text", "name"),
    [("Anger", "angry"), ("happiness", "happy"), (" disgust ", "disgusted"), ("sur", "surprised"), ("Fearful", "fear")],
)
def test_variants(text, name):
    assert emotion_name(text) == name


@pytest.mark.parametrize(
    ("text", "said"), [("3", "is a number"), ("-1", "is a number"), ("hapy", "did you mean happy")]
)
def test_what_is_no_emotion(text, said):
    with pytest.raises(InputError, match=said):
        emotion_name(text)


def test_unknown_orders_and_labels():
    with pytest.raises(ConfigError, match="known: mead-names"):
        emotion_at("dlib", 0)
    with pytest.raises(InputError, match="no"):
        emotion_at("emoaffectnet", 7)
    with pytest.raises(InputError, match="no"):
        emotion_at("mead-names", -1)


@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ("M003/happy/001", {"identity": "M003", "emotion": "happy"}),
        ("W011/video/front/Angry/level_3/001", {"identity": "W011", "emotion": "angry"}),
        ("M003_front_surprised_3_001", {"identity": "M003", "emotion": "surprised"}),
        ("take-neutral-2", {"emotion": "neutral"}),
        ("sad/happy_001", {}),  # which of the two?
        ("M003/M005_fear", {"emotion": "fear"}),  # reenactment: two people
        ("sad/sad_001", {"emotion": "sad"}),
        ("unhappy/joy_con_dis/sadness/M0031/m003", {}),
        ("clip", {}),
    ],
)
def test_labels_of_a_path_are_whole_parts_of_it(path, labels):
    assert labels_of_name(path) == labels
