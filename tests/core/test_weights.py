"""The declared weights and samples: well-formed, consistent with what their authors state, and the real clips."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version
from talkforge.core.asset_store import AssetStore, list_rows
from talkforge.core.assets import PRESETS, ArchiveMember, ArchiveSource, AssetSpec, JoinedSource, UrlSource
from talkforge.core.errors import InputError
from talkforge.core.hashing import file_sha256
from talkforge.core.weights import cache_root, samples_store, store_of, weights_store

MEDIA = os.environ.get("TALKFORGE_MEDIA")


@pytest.fixture(autouse=True)
def _empty_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TALKFORGE_SAMPLES", str(tmp_path / "samples"))


def specs(store: AssetStore) -> list[AssetSpec]:
    return [store.spec(name) for name in store.names()]


def everything() -> list[AssetSpec]:
    return specs(weights_store()) + specs(samples_store())


def members(spec: AssetSpec) -> list[ArchiveMember]:
    return [
        part for source in spec.sources if isinstance(source, ArchiveSource | JoinedSource) for part in source.parts
    ]


def test_names_are_unique_across_both_stores() -> None:
    names = [spec.name for spec in everything()]

    assert len(names) == len(set(names)) > 40


def test_every_member_of_a_preset_is_pinned_and_can_be_had_from_an_archive() -> None:
    for spec in everything():
        if spec.presets:
            assert spec.pinned and spec.bytes and members(spec), spec.name


def test_presets_are_closed() -> None:
    for store in (weights_store(), samples_store()):
        ci, evaluation, train = (set(store.names(preset)) for preset in PRESETS)
        assert ci and ci <= evaluation and ci <= train
        assert evaluation | train <= set(store.names("all")) == set(store.names())


def test_what_setup_pulls_is_what_was_agreed_and_small() -> None:
    weights = weights_store()

    assert set(weights.names("ci")) == {
        *("i3d-k400", "mediapipe-face-landmarker", "mobilenet-v2-imagenet", "whisper-tiny-en-ct2", "fer-mini-xception")
    }
    assert sum(weights.spec(name).bytes or 0 for name in weights.names("ci")) < 200e6
    assert sum(samples_store().spec(name).bytes or 0 for name in samples_store().names("ci")) < 10e6


def test_archives_belong_to_the_stated_project_and_version() -> None:
    for part in (part for spec in everything() for part in members(spec)):
        parse = parse_wheel_filename if part.archive.endswith(".whl") else parse_sdist_filename
        name, version = parse(part.archive)[:2]
        assert (name, version) == (canonicalize_name(part.project), Version(part.version)), part.archive


def test_one_archive_has_one_hash_everywhere() -> None:
    pairs = {(part.archive, part.archive_sha256) for spec in everything() for part in members(spec)}

    assert len(pairs) == len({archive for archive, _ in pairs})


def test_hashes_agree_with_those_that_authors_put_into_names_and_addresses() -> None:
    # PyTorch's convention: the first digits of the sha256 end the file's stem. Whisper's addresses hold all of it.
    checked = set()
    for entry in specs(weights_store()):
        short = re.search(r"-([0-9a-f]{8,10})\.(?:pth|zip)$", entry.file)
        urls = [source.url for source in entry.sources if isinstance(source, UrlSource)]
        long = [found for url in urls for found in re.findall(r"/([0-9a-f]{64})/", url)]
        for stated in [short.group(1)] if short else long:
            assert str(entry.sha256).startswith(stated), entry.name
            checked.add(entry.name)

    assert checked >= {
        "inception-2015-12-05",
        "mobilenet-v2-imagenet",
        "s3fd",
        "fan-2d",
        "whisper-tiny",
        "whisper-base",
    }


def test_entries_that_only_a_person_can_get_say_from_where() -> None:
    store = weights_store()
    by_hand = [spec for spec in specs(store) if not spec.remote]

    assert {spec.name for spec in by_hand if spec.gated} >= {"svd-xt-1-1-unet", "bfm-2009-front"}
    for spec in by_hand:
        note = str(store.status(spec.name).note)
        assert str(store.where(spec.name)) in note
        assert str(spec.home) in note and str(spec.note) in note
        assert ("weights pull" in note) == spec.pinned


def test_addresses_in_repositories_are_pinned_to_a_revision() -> None:
    hosts = ("https://huggingface.co/", "https://raw.githubusercontent.com/")
    urls = [source.url for spec in everything() for source in spec.sources if isinstance(source, UrlSource)]
    moving = [url for url in urls if url.startswith(hosts) and not re.search(r"/[0-9a-f]{40}/", url)]

    assert [url for url in urls if url.startswith(hosts)]
    assert moving == []


def test_rows_of_an_empty_store_are_ready_for_json() -> None:
    for store in (weights_store(), samples_store()):
        rows = json.loads(json.dumps(list_rows(store), allow_nan=False))
        assert [row["name"] for row in rows] == store.names()
        assert {row["state"] for row in rows} == {"missing"}
        assert all(row["licence"] and row["what"] and row["note"] for row in rows)


def test_the_store_of_a_name_is_found_and_unknown_names_suggest() -> None:
    assert store_of("i3d-k400").root == weights_store().root
    assert store_of("jfk").root == samples_store().root
    with pytest.raises(InputError, match="did you mean syncnet-v2"):
        store_of("syncnet_v2")
    with pytest.raises(InputError, match="talkforge weights list"):
        store_of("0")


def test_roots_follow_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights_store().root == tmp_path / "weights"
    assert samples_store().root == tmp_path / "samples"
    monkeypatch.delenv("TALKFORGE_WEIGHTS")
    monkeypatch.setenv("TALKFORGE_SAMPLES", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights_store().root == tmp_path / "xdg" / "talkforge" / "weights"
    assert samples_store().root == tmp_path / "xdg" / "talkforge" / "samples"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "talkforge"


@pytest.mark.skipif(not MEDIA, reason="TALKFORGE_MEDIA does not name a folder with the clips")
def test_declared_samples_are_the_known_clips() -> None:
    files = {path.name: path for path in Path(str(MEDIA)).rglob("*") if path.is_file()}
    same = 0
    for spec in specs(samples_store()):
        path = files.get(Path(spec.file).name)
        if path is not None:
            assert (path.stat().st_size, file_sha256(path)) == (spec.bytes, spec.sha256), spec.name
            same += 1

    assert same >= 10
