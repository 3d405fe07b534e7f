"""One download over a real HTTP server: resumed, checked, bounded, patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from talkforge.core.errors import WeightsCorrupt
from talkforge.core.transfer import Download, DownloadFailed, http_client


def download(kit, folder: Path, **more: Any) -> Download:
    kit.web.files.setdefault("/net.bin", kit.BODY)
    values = {"sha256": kit.sha(kit.BODY), "size": len(kit.BODY), "label": "net", **more}
    return Download(f"{kit.web.url}/net.bin", folder / "net.bin", folder / "net.bin.part", **values)


def run(task: Download) -> Path:
    with http_client() as client:
        return task.run(client, wait=lambda seconds: None)


def test_a_cut_download_goes_on_where_it_stopped(kit, tmp_path: Path) -> None:
    kit.web.cuts["/net.bin"] = [700_001, 300_000]

    path = run(download(kit, tmp_path))

    assert path.read_bytes() == kit.BODY
    assert kit.web.asked("/net.bin") == [
        (None, 700_001),
        ("bytes=700001-", 300_000),
        ("bytes=1000001-", len(kit.BODY) - 1_000_001),
    ]
    assert kit.visible(tmp_path) == ["net.bin"]


def test_a_server_without_ranges_starts_over(kit, tmp_path: Path) -> None:
    kit.web.ranges = False
    kit.web.cuts["/net.bin"] = [700_001]

    assert run(download(kit, tmp_path)).read_bytes() == kit.BODY
    assert kit.web.asked("/net.bin") == [(None, 700_001), ("bytes=700001-", len(kit.BODY))]


def test_a_server_that_misstates_the_range_is_not_trusted(kit, tmp_path: Path) -> None:
    kit.web.wrong_range = True
    kit.web.cuts["/net.bin"] = [700_001]

    assert run(download(kit, tmp_path)).read_bytes() == kit.BODY
    assert [wanted for wanted, _ in kit.web.asked("/net.bin")] == [None, "bytes=700001-", None]


@pytest.mark.parametrize("length", [1000, 1_500_000, 1_500_005])
def test_a_damaged_part_of_an_earlier_run_is_thrown_away(kit, tmp_path: Path, length: int) -> None:
    task = download(kit, tmp_path)
    task.part.write_bytes(b"x" * length)

    assert run(task).read_bytes() == kit.BODY
    assert kit.visible(tmp_path) == ["net.bin"]


def test_a_whole_part_of_an_earlier_run_is_not_fetched_again(kit, tmp_path: Path) -> None:
    task = download(kit, tmp_path)
    task.part.write_bytes(kit.BODY)

    assert run(task).read_bytes() == kit.BODY
    assert kit.web.asked("/net.bin") == [(f"bytes={len(kit.BODY)}-", 0)]


def test_wrong_content_is_refused_and_nothing_is_kept(kit, tmp_path: Path) -> None:
    kit.web.files["/net.bin"] = kit.BODY[:-1] + b"?"

    with pytest.raises(WeightsCorrupt, match=kit.sha(kit.BODY)):
        run(download(kit, tmp_path))
    assert kit.visible(tmp_path) == []


def test_more_than_the_declared_size_is_not_downloaded(kit, tmp_path: Path) -> None:
    kit.web.files["/net.bin"] = kit.BODY * 40

    with pytest.raises(WeightsCorrupt, match=f"declared {len(kit.BODY)} bytes"):
        run(download(kit, tmp_path))
    assert kit.visible(tmp_path) == []
    ((_, sent),) = kit.web.asked("/net.bin")
    assert sent < len(kit.BODY) * 20


def test_a_busy_server_is_asked_again_after_the_time_it_names(kit, tmp_path: Path) -> None:
    kit.web.statuses = [(503, {}), (429, {"Retry-After": "7"}), (500, {"Retry-After": "100000"})]
    waits: list[float] = []

    with http_client() as client:
        download(kit, tmp_path).run(client, wait=waits.append)

    assert waits == [2.0, 7.0, 60.0]


def test_tries_without_a_gain_come_to_an_end(kit, tmp_path: Path) -> None:
    kit.web.cuts["/net.bin"] = [1000, 0, 0, 0]
    waits: list[float] = []

    with http_client() as client, pytest.raises(DownloadFailed, match="3 times in a row"):
        download(kit, tmp_path).run(client, wait=waits.append, retries=3)

    assert waits == [1.0, 2.0, 4.0]
    assert (tmp_path / "net.bin.part").stat().st_size == 1000


def test_an_absent_file_is_final(kit, tmp_path: Path) -> None:
    task = download(kit, tmp_path)
    kit.web.files.clear()

    with pytest.raises(DownloadFailed, match="HTTP status 404"):
        run(task)
    assert len(kit.web.log) == 1


def test_progress_tells_bytes_and_total_and_ends_at_the_total(kit, tmp_path: Path) -> None:
    kit.web.cuts["/net.bin"] = [500_000]
    seen: list[tuple[str, int, int | None]] = []

    with http_client() as client:
        download(kit, tmp_path).run(client, lambda *step: seen.append(step), wait=lambda seconds: None)

    assert {(label, total) for label, _, total in seen} == {("net", len(kit.BODY))}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1] == len(kit.BODY)
