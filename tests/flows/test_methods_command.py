"""`talkforge methods` as a user calls it, `generate` with a published method, and the page about both."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import talkforge
import yaml
from click.testing import CliRunner, Result
from PIL import Image
from talkforge.cli import cli
from talkforge.core.errors import ConfigError
from talkforge.datasets.audio import write_wav
from talkforge.flows.method_status import TABLE_HEAD, methods_table
from talkforge.tasks.adapters import PLACEHOLDERS, Adapter, shipped
from talkforge.tests.media_factory import numbered, tone, write_clip
from talkforge.tests.tasks.foreign import PROGRAM, commit, home_of, install, running

PAGE = (Path(talkforge.__file__).resolve().parent / "docs" / "methods.md").read_text(encoding="utf-8")


def called(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments], standalone_mode=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return home_of(tmp_path, monkeypatch)


def test_list(home: Path) -> None:
    rows = json.loads(called("methods", "list", "--json").stdout)
    assert [row["name"] for row in rows] == sorted(shipped())
    assert all(row["ready"] is False and row["missing"][0] == "checkout" for row in rows)
    shown = called("methods", "list").output
    assert re.search(
        r"^sadtalker +audio +MIT, later Apache-2.0 +no +checkout, interpreter, .*more$", shown, re.MULTILINE
    )
    assert re.search(r"^hallo2 +audio +not established", shown, re.MULTILINE), (
        "an unknown licence is said, not left out"
    )


def test_check_a_method_that_is_not_there(home: Path) -> None:
    done = called("methods", "check", "sadtalker", "--json")
    assert isinstance(done.exception, SystemExit) and done.exception.code == 2
    found = json.loads(done.stdout)
    rows = {row["name"]: row for row in found["requirements"]}
    assert found["ready"] is False and rows["checkout"]["state"] == "missing"
    assert rows["checkout"]["way"].startswith(f"git clone https://github.com/OpenTalker/SadTalker {home}/sadtalker")
    assert rows["interpreter"]["detail"] == "none is named" and rows["gpu"]["state"] == "missing"
    text = called("methods", "check", "sadtalker").output
    assert "cannot run here" in text and "unknown: Licence of the weights" in text and "note: A logo" in text
    with pytest.raises(ConfigError, match="did you mean sadtalker"):
        raise called("methods", "check", "sadtaker").exception or AssertionError


def test_check_becomes_ready_piece_by_piece(home: Path) -> None:
    """Checkout, commit, interpreter, programs, weights, numbers: each is named until it is there."""
    home.mkdir(parents=True)
    needs = {"gpu": "none", "weights": ["ckpt/*.pth"], "programs": ["talker-ffmpeg"], "python": "3.6"}
    path = install(home, "good", needs=needs, files={"pose": {"what": "poses", "suffix": ".npy"}}, commit="0" * 40)
    shutil.rmtree(home / "talker")
    (home / "methods.yaml").unlink()

    def states() -> dict[str, str]:
        done = called("methods", "check", path, "--json")
        found = json.loads(done.stdout)
        assert found["ready"] == ("missing" not in {row["state"] for row in found["requirements"]})
        assert done.exit_code == (0 if found["ready"] else 2)
        return {row["name"]: row["state"] for row in found["requirements"]}

    assert states() == dict.fromkeys(["checkout", "interpreter", "talker-ffmpeg", "files.pose"], "missing")
    (home / "talker" / "ckpt").mkdir(parents=True)
    (home / "talker" / "talker.py").write_text(PROGRAM)
    name = commit(home / "talker")
    assert states()["commit"] == "differs" and states()["ckpt/*.pth"] == "missing"
    path.write_text(path.read_text().replace("0" * 40, name))
    (home / "talker" / "ckpt" / "net.pth").touch()
    assert states()["commit"] == "ok" and states()["ckpt/*.pth"] == "missing", "an empty file is no weight"
    (home / "talker" / "ckpt" / "net.pth").write_bytes(b"net")
    (home / "poses").mkdir()
    settings = {"python": sys.executable, "files": {"pose": "poses"}, "env": {"PATH": str(home / "bin")}}
    (home / "methods.yaml").write_text(yaml.safe_dump({"talker": settings}))
    assert states()["files.pose"] == "missing" and states()["interpreter"] == "ok"
    (home / "poses" / "default.npy").write_bytes(b"")
    (home / "bin").mkdir()
    (home / "bin" / "talker-ffmpeg").write_text("#!/bin/sh\n")
    (home / "bin" / "talker-ffmpeg").chmod(0o755)
    assert set(states().values()) == {"ok"}
    shown = called("methods", "check", path).output
    assert f"Python {sys.version.split()[0]}; the authors name 3.6" in shown and "talker can run" in shown


def test_an_interpreter_that_does_not_start(home: Path) -> None:
    path = install(home, "good", python=str(home / "broken"))
    (home / "broken").write_text("#!/bin/sh\nexit 3\n")
    (home / "broken").chmod(0o755)
    found = json.loads(called("methods", "check", path, "--json").stdout)
    rows = {row["name"]: row for row in found["requirements"]}
    assert rows["interpreter"]["state"] == "missing" and "--version failed" in rows["interpreter"]["detail"]


def test_generating_a_test_set_with_an_adapter_file(home: Path, tmp_path: Path) -> None:
    """As with built-in methods: failures beside videos, --strict, nothing to do the second time, a plan."""
    Image.fromarray(numbered(5)).save(tmp_path / "face.png")
    write_wav(tmp_path / "speech.wav", tone(0.4))
    emotional = {"emotions": {"happy": "hap"}, "env": {"EMOTION": "{emotion}"}}
    adapter = install(home, "copied", **emotional)
    write_clip(home / "talker" / "answer.mp4", 10)
    row = {"portrait": "face.png", "audio": "speech.wav"}
    items = [row | {"id": f"x/{name}", "emotion": name} for name in ("happy", "sad")]
    (tmp_path / "set.yaml").write_text(yaml.safe_dump({"name": "two", "items": items}))
    given = ("generate", adapter, "--testset", tmp_path / "set.yaml", "--out", tmp_path / "videos", "--no-prefect")
    planned = json.loads(called(*given, "--dry-run", "--json").stdout)
    assert [one["state"] for one in planned["items"]] == [
        "to be made", "input: x/sad: unknown emotion 'sad'"
    ] and planned["made_with"]["program"] == "Talker"  # fmt: skip
    done = called(*given, "--strict")
    assert isinstance(done.exception, SystemExit) and done.exception.code == 1
    assert "1 of 2 videos" in done.output and "no video for x/sad: input" in done.output
    made = json.loads((tmp_path / "videos" / "generation.json").read_text())
    assert made["method"] == "talker" and made["items"][0]["frames"] == 10
    assert made["items"][0]["log"] == "logs/x/happy.log" and (tmp_path / "videos/logs/x/happy.log").is_file()
    assert "0 made now" in called(*given).output
    given = ("generate", adapter, "--portrait", tmp_path / "face.png", "--audio", tmp_path / "speech.wav")
    one = called(*given, "--emotion", "happy", "--out", tmp_path / "one.mp4")
    assert f"video: {tmp_path / 'one.mp4'}" in one.output and (tmp_path / "logs" / "one.log").is_file()
    clip = home / "talker" / "answer.mp4"
    both = called(*given, "--emotion", "happy", "--emotion-video", clip, "--out", tmp_path / "two.mp4")
    assert both.exception is None and (tmp_path / "two.mp4").is_file(), "a program may want a name and a clip"


def test_a_method_that_is_not_ready_makes_nothing(home: Path, tmp_path: Path) -> None:
    (tmp_path / "set.yaml").write_text("{name: none, items: []}")
    done = called("generate", "sadtalker", "--testset", tmp_path / "set.yaml", "--out", tmp_path / "videos")
    message = str(done.exception)
    assert message.startswith("method sadtalker is not ready: checkout: there is no folder")
    assert message.endswith("all of it: talkforge methods check sadtalker)") and not (tmp_path / "videos").exists()


def test_an_interrupted_command_leaves_no_program(home: Path, tmp_path: Path) -> None:
    """An interruption while a program and its grandchild are at work: exit code 3, nothing of them is left."""
    Image.fromarray(numbered(5)).save(tmp_path / "face.png")
    write_wav(tmp_path / "speech.wav", tone(0.4))
    adapter = install(home, "slow")
    row = {"id": "a", "portrait": "face.png", "audio": "speech.wav"}
    (tmp_path / "set.yaml").write_text(yaml.safe_dump({"name": "one", "items": [row]}))
    command = [sys.executable, "-m", "talkforge.cli", "generate", str(adapter), "--testset", "set.yaml"]
    command += ["--out", "videos", "--no-prefect"]  # a thread makes the item, which no exception reaches
    variables = os.environ | {"TMPDIR": str(tmp_path / "temp")}
    process = subprocess.Popen(command, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and len(running(f"{tmp_path}/temp/talkforge-")) < 3:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)  # handled as Ctrl-C, which a test run in the background would ignore
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 3 and "interrupted" in said, said
    assert running(f"{tmp_path}/temp/talkforge-") == [] and not [*tmp_path.rglob("a.mp4")]


def test_a_method_that_holds_a_network_is_not_sent_to_a_cluster(tmp_path: Path) -> None:
    from talkforge.flows.generate import generate
    from talkforge.tasks.methods import Opened

    held = Opened(lambda item, out: None)
    with pytest.raises(ConfigError, match="method warp cannot be sent to a cluster"):
        generate("warp", [], tmp_path / "o", workers=1, use_prefect=True, opened=held, runner="dask")


def test_the_page_has_the_table_of_the_adapters() -> None:
    assert methods_table() in PAGE and PAGE.count(TABLE_HEAD) == 1


def test_the_page_says_every_placeholder_reason_and_field() -> None:
    import talkforge.tasks.external_errors as errors

    for name, what in PLACEHOLDERS.items():
        assert f"| `{{{name}}}` | {what} |" in PAGE
    reasons = {one.reason for one in errors.ProgramFailed.__subclasses__()}
    assert {reason for reason in reasons if f"`{reason}`" not in PAGE} == set()
    form = yaml.safe_load(PAGE.partition("## Writing an adapter")[2].partition("```yaml\n")[2].partition("```")[0])
    assert set(form) == set(Adapter.model_fields)
    Adapter.model_validate(form | {"paper": {"title": "x", "venue": None, "url": None}, "read_from": "x"})
