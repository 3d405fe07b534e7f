"""Finding an archive on the package index that pip is set up for, without running pip's download or any archive code.

Where the index is comes from pip itself: its configuration files and environment, else its built-in default. A simple
index answers in HTML or in JSON; both are read, and the archive is known by its exact file name.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

import httpx

from .errors import WeightsError
from .hashing import file_sha256
from .transfer import DownloadFailed, Offline, check, patiently, redact

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.8, text/html;q=0.5"


@dataclass(frozen=True)
class Link:
    """An archive that an index offers: its address without fragment, its name, and the sha256 it states."""

    url: str
    filename: str
    sha256: str | None = None

    @property
    def local_path(self) -> Path | None:
        """The file behind a file:// address, None for a remote one."""
        parts = urlsplit(self.url)
        return Path(url2pathname(parts.path)) if parts.scheme == "file" else None

    def fits(self, sha256: str) -> bool:
        """Whether this may be the archive with that sha256: by what the index states, and for a file by its bytes."""
        local = self.local_path
        if local is not None:
            return local.is_file() and file_sha256(local) == sha256
        return self.sha256 in (None, sha256)


@dataclass(frozen=True)
class IndexSettings:
    """Where archives come from, in the order in which they are asked.

    Attributes:
        places: flat folders of archives, as paths or file:// addresses.
        indexes: base addresses of simple indexes, http(s):// or file://.
        cert: certificate bundle that pip's files name.
    """

    places: tuple[str, ...]
    indexes: tuple[str, ...]
    cert: str | None = None

    @classmethod
    def from_pip(cls) -> IndexSettings:
        """The settings that `pip download` would use here.

        Raises:
            DownloadFailed: pip is absent and no PIP_INDEX_URL is given.
        """
        options = _pip_options()
        indexes: list[str] = []
        if not _truthy(options.get("no-index", "")):
            main = options.get("index-url") or _pip_default()
            # Folders first: they cost nothing and may be all there is on a machine without network.
            indexes = [main, *options.get("extra-index-url", "").split()]
            indexes.sort(key=lambda base: not base.startswith("file:"))
        return cls(tuple(options.get("find-links", "").split()), tuple(indexes), options.get("cert") or None)


def _truthy(text: str) -> bool:
    return text.strip().lower() in ("1", "true", "yes", "on")


def _pip_options() -> dict[str, str]:
    """pip's options that matter here, from its files and then from PIP_* variables, which win."""
    names = ("index-url", "extra-index-url", "find-links", "no-index", "cert")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found: dict[tuple[str, str], str] = {}
    for line in listed.stdout.splitlines():
        key, sign, value = line.partition("=")
        section, _, option = key.strip().rpartition(".")
        if sign and option in names:
            found[section, option] = _unquoted(value)
    options: dict[str, str] = {}
    for section in ("global", "download"):
        options |= {option: value for (where, option), value in found.items() if where == section}
    for option in names:
        variable = f"PIP_{option.upper().replace('-', '_')}"
        if variable in os.environ:
            options[option] = os.environ[variable]
    return options


def _unquoted(value: str) -> str:
    """`pip config list` prints values as Python string literals."""
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value.strip()


def _pip_default() -> str:
    """The index that pip uses when nothing is configured."""
    try:
        from pip._internal.models.index import PyPI
    except ImportError as error:
        hint = "set PIP_INDEX_URL to the address of a simple package index"
        raise DownloadFailed("no package index is known: pip is not installed here", hint=hint) from error
    return PyPI.simple_url


def normalised(project: str) -> str:
    """A project's name as it stands in a simple index's addresses."""
    return re.sub(r"[-_.]+", "-", project).lower()


class _Anchors(HTMLParser):
    """Collects the addresses of all `<a href>` on a page, and of `<base href>`."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.hrefs: list[str] = []
        self.base: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called by the parser for each opening tag."""
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.hrefs.append(href)
        elif href and tag == "base" and self.base is None:
            self.base = href


def _link(url: str, stated: str | None = None) -> Link:
    plain, fragment = urldefrag(url)
    name, _, value = fragment.partition("=")
    sha256 = stated or (value.lower() if name == "sha256" else None)
    return Link(plain, unquote(urlsplit(plain).path.rsplit("/", 1)[-1]), sha256)


def parse_html(text: str, page_url: str) -> list[Link]:
    """The archives that an HTML page of a simple index lists."""
    anchors = _Anchors()
    anchors.feed(text)
    base = urljoin(page_url, anchors.base) if anchors.base else page_url
    return [_link(urljoin(base, href)) for href in anchors.hrefs]


def parse_json(text: str, page_url: str) -> list[Link]:
    """The archives that a JSON page of a simple index lists.

    Raises:
        DownloadFailed: the page has another form.
    """
    try:
        files = json.loads(text)["files"]
        return [_link(urljoin(page_url, file["url"]), file.get("hashes", {}).get("sha256")) for file in files]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadFailed(f"{redact(page_url)} is no JSON page of a package index") from error


def _remote_page(base: str, project: str, client: httpx.Client) -> list[Link]:
    """Links of a project's page on an index over HTTP; none when the index does not know the project."""
    url = f"{base.rstrip('/')}/{normalised(project)}/"
    what = f"the package index {redact(url)}"

    def ask() -> httpx.Response:
        response = client.get(url, headers={"Accept": ACCEPT})
        if response.status_code != httpx.codes.NOT_FOUND:
            check(response, what)
        return response

    response = patiently(ask, what=what)
    if response.status_code == httpx.codes.NOT_FOUND:
        return []
    kind = response.headers.get("content-type", "")
    return (parse_json if "json" in kind else parse_html)(response.text, str(response.url))


def _folder_page(folder: Path) -> list[Link]:
    """Links of a folder: its index.html where there is one, and the files themselves."""
    page = folder / "index.html"
    links = parse_html(page.read_text(encoding="utf-8"), page.resolve().as_uri()) if page.is_file() else []
    files = sorted(entry for entry in folder.iterdir() if entry.is_file()) if folder.is_dir() else []
    return links + [_link(file.resolve().as_uri()) for file in files if file != page]


def _path_of(place: str) -> Path | None:
    """The folder that a place names, None for a remote one."""
    parts = urlsplit(place)
    if parts.scheme in ("http", "https"):
        return None
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else Path(place).expanduser()


class PackageIndex:
    """Looks archives up by exact file name.

    Args:
        settings: where to look; None takes pip's.
        client: for indexes over HTTP; None keeps to folders and file:// indexes.
    """

    def __init__(self, settings: IndexSettings, client: httpx.Client | None) -> None:
        self.settings = settings
        self.client = client
        self._pages: dict[tuple[str, str], list[Link]] = {}

    def find(self, project: str, filename: str, sha256: str) -> Link:
        """The archive `filename` of `project`.

        Raises:
            DownloadFailed: no place has it, or only with another sha256; says where was looked.
            Offline: the same, and places on the network could not be asked.
        """
        problems: list[str] = []
        offline = False
        for place in (*self.settings.places, *self.settings.indexes):
            try:
                same = [link for link in self._links(place, project) if link.filename == filename]
            except (WeightsError, OSError) as error:
                offline = offline or isinstance(error, Offline)
                problems.append(getattr(error, "message", str(error)))
                continue
            for link in same:
                if link.fits(sha256):
                    return link
            problems.append(f"{redact(place)} has it with another sha256" if same else f"not in {redact(place)}")
        kind = Offline if offline else DownloadFailed
        raise kind(f"archive {filename} was not found: {'; '.join(problems) or 'no index is configured'}")

    def _links(self, place: str, project: str) -> list[Link]:
        """Links at one place, remembered for the next archive of the same project."""
        if (place, project) not in self._pages:
            self._pages[place, project] = self._read(place, project)
        return self._pages[place, project]

    def _read(self, place: str, project: str) -> list[Link]:
        folder = _path_of(place)
        if folder is not None:
            return _folder_page(folder if place in self.settings.places else folder / normalised(project))
        if self.client is None:
            raise Offline(f"{redact(place)} is on the network and this is offline")
        return _remote_page(place, project, self.client)
