"""A real HTTP server on the loopback interface that can cut connections, ignore ranges, be slow or ask for patience,
and what the tests of the asset store put on it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from talkforge.core.asset_store import AssetStore
from talkforge.core.assets import Catalogue


@dataclass
class Loopback:
    """What the server offers and what it was asked.

    Attributes:
        files: path to content.
        types: path to content type.
        ranges: whether the Range header is honoured.
        cuts: for each of the next answers to a path, the number of bytes after which the connection is closed.
        statuses: (code, headers) pairs to answer first, in order.
        pause: seconds to wait after each 64 KiB.
        log: [path, Range header or None, body bytes sent] for each request.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    wrong_range: bool = False
    cuts: dict[str, list[int]] = field(default_factory=dict)
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    pause: float = 0.0
    log: list[list] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def asked(self, path: str) -> list[tuple[str | None, int]]:
        """(Range header, bytes sent) of the requests for one path."""
        return [(wanted, sent) for asked, wanted, sent in self.log if asked == path]


class _Handler(BaseHTTPRequestHandler):
    state: Loopback
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test output clean."""

    def do_GET(self) -> None:
        state = self.state
        state.headers.append(dict(self.headers))
        wanted = self.headers.get("Range")
        if state.statuses:
            code, headers = state.statuses.pop(0)
            state.log.append([self.path, wanted, 0])
            self._head(code, {**headers, "Content-Length": "0"})
        elif self.path not in state.files:
            state.log.append([self.path, wanted, 0])
            self._head(404, {"Content-Length": "0"})
        else:
            self._file(state.files[self.path], wanted)

    def _file(self, body: bytes, wanted: str | None) -> None:
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.state.ranges else 0
        headers = {"Content-Type": self.state.types.get(self.path, "application/octet-stream")}
        if start >= len(body) > 0:
            self.state.log.append([self.path, wanted, 0])
            self._head(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
            return
        stated = 0 if self.state.wrong_range else start
        if start:
            headers["Content-Range"] = f"bytes {stated}-{len(body) - 1}/{len(body)}"
        self._head(206 if start else 200, {**headers, "Content-Length": str(len(body) - start)})
        self._body(body[start:], wanted)

    def _body(self, body: bytes, wanted: str | None) -> None:
        cuts = self.state.cuts.get(self.path, [])
        cut = cuts.pop(0) if cuts else None
        entry = [self.path, wanted, 0]
        self.state.log.append(entry)
        try:
            for begin in range(0, len(body), 65536):
                block = body[begin : begin + 65536]
                if cut is not None and begin + len(block) > cut:
                    block = body[begin:cut]
                entry[2] += len(block)
                self.wfile.write(block)
                if cut is not None and entry[2] >= cut:
                    self.close_connection = True
                    break
                time.sleep(self.state.pause)
        except OSError:
            self.close_connection = True

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A running server; pip's settings and the toolkit's variables of the machine are out of sight."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "TALKFORGE_"))]:
        if name != "TALKFORGE_MEDIA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Loopback()
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("PIP_INDEX_URL", f"{state.url}/simple")
    yield state
    server.shutdown()
    server.server_close()


class Kit:
    """Declared files, archives and stores around a loopback server."""

    BODY = np.random.default_rng(0).bytes(1_500_000)

    def __init__(self, web: Loopback) -> None:
        self.web = web

    @staticmethod
    def sha(data: bytes) -> str:
        """sha256 as hex."""
        return hashlib.sha256(data).hexdigest()

    def entry(self, name: str, data: bytes, *sources: dict[str, Any], **more: Any) -> dict[str, Any]:
        """A declaration of `data`, kept as net/NAME.bin."""
        base = {"name": name, "file": f"net/{name}.bin", "bytes": len(data), "sha256": self.sha(data)}
        return {**base, "licence": "MIT", "what": "a test file", "sources": list(sources), **more}

    @staticmethod
    def store(root: Path, *entries: dict[str, Any]) -> AssetStore:
        """A store of these declarations."""
        return AssetStore(root, Catalogue.model_validate({"assets": entries}))

    @staticmethod
    def catalogue_file(path: Path, *entries: dict[str, Any]) -> Path:
        """The declarations as a YAML file."""
        path.write_text(yaml.safe_dump({"assets": list(entries)}), encoding="utf-8")
        return path

    @staticmethod
    def wheel(members: dict[str, bytes]) -> bytes:
        """A zip archive."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return buffer.getvalue()

    @staticmethod
    def sdist(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
        """A tar.gz archive, with symbolic links where given."""
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

    def offer(self, archive: str, data: bytes, *, project: str = "pkg", form: str = "html") -> dict[str, Any]:
        """Puts an archive on the server's package index and gives the start of a source that names it."""
        self.web.files[f"/files/{archive}"] = data
        page, digest = f"/simple/{project}/", self.sha(data)
        if form == "html":
            text = f'<a href="../../files/{archive}#sha256={digest}">{archive}</a>'
            self.web.types[page] = "text/html"
        else:
            text = json.dumps({"files": [{"filename": archive, "url": f"../../files/{archive}", "hashes": {}}]})
            self.web.types[page] = "application/vnd.pypi.simple.v1+json"
        self.web.files[page] = text.encode()
        return {"kind": "archive", "project": project, "version": "1", "archive": archive, "archive_sha256": digest}

    def url(self, data: bytes, path: str = "/net.bin") -> dict[str, Any]:
        """Puts a file on the server and gives the source that names it."""
        self.web.files[path] = data
        return {"kind": "url", "url": self.web.url + path}

    @staticmethod
    def visible(root: Path) -> list[str]:
        """Files below the root, without locks, stamps and working files."""
        files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
        hidden = {".locks", ".archives"}
        shown = [path for path in files if not hidden & set(path.parts) and not path.name.endswith(".stamp.json")]
        return sorted(map(str, shown))


@pytest.fixture
def kit(loopback: Loopback) -> Kit:
    """Declarations, archives and stores around a running server."""
    return Kit(loopback)
