"""What is declared and what lies in the store: status, stamps, conversion, refusals, rows."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from talkforge.core.asset_files import StorageFailed, storage_errors, terminal_progress
from talkforge.core.asset_store import list_rows, pull_rows, verify_rows
from talkforge.core.assets import Catalogue
from talkforge.core.errors import ConfigError, InputError, WeightsCorrupt, WeightsMissing
from talkforge.core.unpickle import UnsafePickle


def test_status_path_and_verify_follow_the_file(kit, tmp_path: Path) -> None:
    store = kit.store(tmp_path, kit.entry("a", b"data", kit.url(b"data")))

    missing = store.status("a")
    assert (missing.state, missing.bytes, missing.sha256, missing.ok) == ("missing", None, None, False)
    with pytest.raises(WeightsMissing) as caught:
        store.path("a")
    assert caught.value.hint == "get it with: talkforge weights pull a"
    assert store.sha256("a") == kit.sha(b"data")

    path = store.pull("a")
    assert store.status("a").state == "present"
    assert store.path("a") == path == tmp_path / "net" / "a.bin"

    path.write_bytes(b"evil")
    wrong = store.status("a")
    assert (wrong.state, wrong.bytes, wrong.sha256) == ("wrong_hash", 4, kit.sha(b"evil"))
    with pytest.raises(WeightsCorrupt, match=kit.sha(b"evil")):
        store.path("a")
    assert store.pull("a").read_bytes() == b"data"


def test_a_fitting_stamp_saves_the_hash_and_verify_reads_every_byte(kit, tmp_path: Path) -> None:
    store = kit.store(tmp_path, kit.entry("a", b"data", kit.url(b"data")))
    path = store.pull("a")
    before = path.stat()
    path.write_bytes(b"rot!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert store.path("a") == path
    (status,) = store.verify(["a"])
    assert status.state == "wrong_hash"
    with pytest.raises(WeightsCorrupt):
        store.path("a")
    assert verify_rows(store, ["a"])[0]["state"] == "wrong_hash"


@pytest.mark.parametrize("stamp", ["", "[]", '{"size": 4}', '{"size": 4, "mtime_ns": 1, "sha256": 5}'])
def test_a_damaged_stamp_only_costs_a_hash(kit, tmp_path: Path, stamp: str) -> None:
    store = kit.store(tmp_path, kit.entry("a", b"data", kit.url(b"data")))
    path = store.pull("a")
    path.with_name(".a.bin.stamp.json").write_text(stamp)

    assert store.path("a") == path


def test_an_unpinned_entry_is_placed_by_hand_and_never_pulled(kit, tmp_path: Path) -> None:
    spec = {**kit.entry("bfm", b"x"), "bytes": None, "sha256": None, "gated": True}
    store = kit.store(tmp_path, {**spec, "note": "register first", "home": "https://faces.example"})

    for call in (store.pull, store.path, store.sha256):
        with pytest.raises(WeightsMissing) as caught:
            call("bfm")
        assert f"put the file at {tmp_path / 'net' / 'bfm.bin'}" in str(caught.value.hint)
        assert "register first" in str(caught.value.hint) and "https://faces.example" in str(caught.value.hint)

    store.where("bfm").parent.mkdir()
    store.where("bfm").write_bytes(b"model")
    assert store.path("bfm").read_bytes() == b"model"
    assert store.sha256("bfm") == kit.sha(b"model")
    assert store.status("bfm").note == "unpinned: placed by hand, its content cannot be checked"
    assert store.pull("bfm") == store.path("bfm")


def test_unknown_names_suggest_known_ones(kit, tmp_path: Path) -> None:
    store = kit.store(tmp_path, kit.entry("i3d-k400", b"1"), kit.entry("mediapipe", b"2"))

    for call in (store.spec, store.path, store.pull, store.status, store.converted):
        with pytest.raises(InputError, match="did you mean i3d-k400"):
            call("i3d-k40")
    with pytest.raises(InputError, match="see: talkforge weights list"):
        store.pull_many(["i3d-k400", "zzz"])
    with pytest.raises(ConfigError, match="unknown preset 'cli'"):
        store.names("cli")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "../up.bin"}, "relative path"),
        ({"file": "/abs.bin"}, "relative path"),
        ({"file": ".locks/x"}, "relative path"),
        ({"sha256": "ab"}, "sha256"),
        ({"sha256": None}, "needs a note"),
        ({"sha256": None, "note": "n", "presets": ["ci"]}, "neither sources nor presets"),
        ({"presets": ["cli"]}, "presets"),
        ({"colour": "red"}, "unknown key 'assets.0.colour'"),
        ({"sources": [{"kind": "url", "url": "file:///etc/passwd"}]}, "url"),
        ({"sources": [{"kind": "ftp"}]}, "sources"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(kit, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = kit.catalogue_file(tmp_path / "c.yaml", {**kit.entry("a", b"x"), **change})

    with pytest.raises(ConfigError, match=message):
        Catalogue.read(path)


@pytest.mark.parametrize("field", ["name", "file"])
def test_names_and_files_are_declared_once(kit, tmp_path: Path, field: str) -> None:
    first, second = kit.entry("a", b"x"), kit.entry("b", b"y")
    second[field] = first[field]

    with pytest.raises(ConfigError, match=f"declared twice: {field}"):
        Catalogue.read(kit.catalogue_file(tmp_path / "c.yaml", first, second))


def test_a_pickle_is_converted_once_and_tied_to_its_source(kit, tmp_path: Path) -> None:
    tree = {"params": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    data = pickle.dumps(tree, 4)
    store = kit.store(tmp_path, kit.entry("net", data, kit.url(data), convert="flat-pickle"))
    store.pull("net")

    target = store.converted("net")

    assert target == tmp_path / "net" / f"net-{kit.sha(data)[:16]}.safetensors"
    np.testing.assert_array_equal(load_file(target)["params/w"], tree["params"]["w"])
    made = target.stat().st_mtime_ns
    assert store.converted("net") == target and target.stat().st_mtime_ns == made


def test_an_evil_pickle_with_the_right_hash_is_still_refused(kit, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'trace'}",)

    data = pickle.dumps({"w": Evil()})
    store = kit.store(tmp_path / "root", kit.entry("net", data, kit.url(data), convert="flat-pickle"))
    store.pull("net")

    with pytest.raises(UnsafePickle, match="system"):
        store.converted("net")
    assert kit.visible(tmp_path) == ["root/net/net.bin"]


def test_only_declared_conversions_are_made(kit, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="declares no conversion"):
        kit.store(tmp_path, kit.entry("a", b"x")).converted("a")


def test_a_root_that_cannot_be_written_is_one_clear_line(kit, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = kit.store(tmp_path / "file" / "root", kit.entry("a", b"data", kit.url(b"data")))

    with pytest.raises(StorageFailed, match="Not a directory") as caught:
        store.pull("a")
    assert "\n" not in str(caught.value)
    assert kit.web.log == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageFailed, match=f"no space left for {tmp_path}") as caught,
        storage_errors(tmp_path),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_rows_are_plain_and_ready_for_json(kit, tmp_path: Path) -> None:
    store = kit.store(
        tmp_path,
        kit.entry("a", b"data", kit.url(b"data"), presets=["ci"], used_by=["fid"]),
        kit.entry("b", b"no source"),
    )

    outcomes = pull_rows(store, ["a", "b"])
    rows = list_rows(store)

    json.dumps([rows, outcomes, verify_rows(store, store.names())], allow_nan=False)
    assert [(row["name"], row["outcome"], row["reason"]) for row in outcomes] == [
        ("a", "pulled", None),
        ("b", "failed", "weights_missing"),
    ]
    assert [(row["name"], row["state"], row["sources"]) for row in rows] == [
        ("a", "present", ["url"]),
        ("b", "missing", []),
    ]
    assert [row["name"] for row in list_rows(store, "ci")] == ["a"]


def test_off_a_terminal_progress_is_one_line_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal_progress() as progress:
        for done in (0, 500_000, 1_500_000):
            progress("net", done, 1_500_000)
        progress("unknown length", 10, None)

    assert capsys.readouterr().err == "net: 1.5 MB\n"
