"""Downloads that can be cut at any moment: resumed by HTTP Range, checked by sha256, and visible only when whole.

The bytes grow in a `.part` file whose name carries the expected sha256, so what is resumed is always the same content.
The caller holds a lock (see `asset_files.locked`), so that two processes never write into the same part.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx

from .asset_files import Progress, silent, storage_errors
from .errors import WeightsCorrupt, WeightsError
from .hashing import file_sha256
from .shards import fsync_folder

RETRIES = 5
CONNECT_RETRIES = 2
TIMEOUT = httpx.Timeout(60.0, connect=15.0)
CERT_ENVS = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")

T = TypeVar("T")


class DownloadFailed(WeightsError):
    """A server could not be reached or did not give the file."""

    reason = "download_failed"


class Unreachable(DownloadFailed):
    """No connection to the server came about."""


class Offline(WeightsError):
    """The network is needed and not allowed."""

    reason = "offline"


def redact(url: str) -> str:
    """The address without user name, password and query, for messages."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def ca_file(configured: str | None = None) -> str | None:
    """The certificate bundle that pip would use: environment first, then `configured` (from pip's files)."""
    for name in CERT_ENVS:
        if os.environ.get(name):
            return os.environ[name]
    return configured


def http_client(cert: str | None = None) -> httpx.Client:
    """A client with bounded waits that follows redirects and trusts `cert`, or the usual bundle where it is None."""
    bundle = ca_file(cert)
    try:
        verify = ssl.create_default_context(cafile=bundle) if bundle else True
    except (OSError, ssl.SSLError) as error:
        raise DownloadFailed(f"cannot use the certificate bundle {bundle}: {error}") from error
    return httpx.Client(verify=verify, timeout=TIMEOUT, follow_redirects=True, trust_env=True)


@dataclass
class Download:
    """One file to fetch.

    Attributes:
        url: http or https address.
        target: final path.
        part: where the bytes grow; its name must be tied to `sha256`.
        sha256: of the whole file.
        size: exact size in bytes when known; more bytes than that are refused.
        label: name for progress and messages.
    """

    url: str
    target: Path
    part: Path
    sha256: str
    size: int | None = None
    label: str = ""

    def run(
        self,
        client: httpx.Client,
        progress: Progress = silent,
        *,
        wait: Callable[[float], None] = time.sleep,
        retries: int = RETRIES,
    ) -> Path:
        """Fetches, checks and moves the file into place; resumes what an earlier run left.

        Args:
            wait: called with the seconds to wait before another try.
            retries: tries in a row that may gain no byte.

        Raises:
            DownloadFailed: the server gave no whole file.
            WeightsCorrupt: the bytes are not the declared ones; nothing is kept.
            StorageFailed: the disk refused.
        """
        with storage_errors(self.part):
            try:
                resumed = self._held() > 0
                self._fill(client, progress, wait, retries)
                if resumed and file_sha256(self.part) != self.sha256:
                    # What lay here from an earlier run may have been damaged: one clean try before giving up.
                    self.part.unlink()
                    self._fill(client, progress, wait, retries)
                return self._finish()
            except WeightsCorrupt:
                self.part.unlink(missing_ok=True)
                raise

    def _fill(self, client: httpx.Client, progress: Progress, wait: Callable[[float], None], retries: int) -> None:
        """Requests the missing rest until the server has sent all of it."""
        self.part.parent.mkdir(parents=True, exist_ok=True)
        patiently(
            lambda: self._request(client, progress),
            what=f"{self.label}: {redact(self.url)}",
            held=self._held,
            wait=wait,
            retries=retries,
        )

    def _held(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _request(self, client: httpx.Client, progress: Progress) -> None:
        """One GET of what is missing, appended to the part file."""
        start = self._held()
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with client.stream("GET", self.url, headers=headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                # The part is already whole, or belongs to nothing the server has: the sha256 decides.
                return
            check(response, f"{self.label}: {redact(self.url)}")
            if response.status_code != httpx.codes.PARTIAL_CONTENT:
                start = 0
            elif not response.headers.get("content-range", "").startswith(f"bytes {start}-"):
                self.part.unlink(missing_ok=True)
                raise TryAgain(response.status_code, None)
            total = start + int(response.headers["content-length"]) if "content-length" in response.headers else None
            with self.part.open("r+b" if start else "wb") as file:
                file.seek(start)
                self._copy(response, file, start, total, progress)

    def _copy(self, response: httpx.Response, file: BinaryIO, done: int, total: int | None, progress: Progress) -> None:
        progress(self.label, done, total)
        # Blocks as they come from the network: a larger block size would lose its unfinished part at a cut.
        for block in response.iter_raw():
            done += len(block)
            if self.size is not None and done > self.size:
                raise WeightsCorrupt(f"{self.label}: {redact(self.url)} sends more than the declared {self.size} bytes")
            file.write(block)
            progress(self.label, done, total)
        file.flush()
        os.fsync(file.fileno())

    def _finish(self) -> Path:
        found = file_sha256(self.part)
        if found != self.sha256:
            raise WeightsCorrupt(
                f"{self.label}: what {redact(self.url)} gives has sha256 {found}, not the declared {self.sha256}"
            )
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.part.replace(self.target)
        fsync_folder(self.target.parent)
        return self.target


class TryAgain(Exception):
    """An answer that is worth another try, after `after` seconds when the server says so."""

    def __init__(self, status: int, after: float | None) -> None:
        super().__init__(f"HTTP status {status}")
        self.after = after


def patiently(
    action: Callable[[], T],
    *,
    what: str,
    held: Callable[[], int] = lambda: 0,
    wait: Callable[[float], None] = time.sleep,
    retries: int = RETRIES,
) -> T:
    """Runs `action` until it ends well, again after network faults, with growing pauses.

    Args:
        what: named in the error.
        held: bytes gained so far; tries count only while it stands still, so that a long download on a shaky line ends.
        wait: called with the seconds to pause.
        retries: tries in a row without a gain; fewer when there is no connection at all.

    Raises:
        Unreachable: no connection came about.
        DownloadFailed: the tries are used up.
    """
    failures, before = 0, held()
    while True:
        try:
            return action()
        except (httpx.TransportError, TryAgain) as error:
            failures = 0 if held() > before else failures + 1
            before = held()
            no_connection = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if failures >= (min(retries, CONNECT_RETRIES) if no_connection else retries):
                kind = Unreachable if no_connection else DownloadFailed
                raise kind(f"{what} failed {failures} times in a row: {_describe(error)}") from error
            after = error.after if isinstance(error, TryAgain) else None
            wait(min(2.0**failures, 30.0) if after is None else after)


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__


def check(response: httpx.Response, what: str) -> None:
    """Sorts the status codes: fine, worth another try (TryAgain), or final (DownloadFailed)."""
    code = response.status_code
    if code == httpx.codes.TOO_MANY_REQUESTS or code >= 500:
        after = response.headers.get("retry-after", "")
        raise TryAgain(code, min(float(after), 60.0) if after.isdigit() else None)
    if not response.is_success:
        raise DownloadFailed(f"{what} answers HTTP status {code}")
