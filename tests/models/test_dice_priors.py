"""Priors as files: the eight published ones, what is refused, and ours."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from talkforge.core.emotions import MEAD_EMOTIONS
from talkforge.core.errors import InputError
from talkforge.core.unpickle import BadPickle, UnsafePickle
from talkforge.models.dice_talk.priors import (
    mean_prior,
    read_priors,
    read_published_prior,
    read_published_priors,
    write_priors,
)


def vector(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, 256)).astype(np.float32)


def publish(path: Path, content: object) -> Path:
    """Writes an object as the published files hold theirs."""
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def raw_floats(path: Path) -> np.ndarray:
    """The 1024 bytes of a published prior, found by their pickle opcode and length: no pickle reader involved."""
    data = path.read_bytes()
    mark = b"B" + struct.pack("<I", 1024)  # BINBYTES, length
    assert data.count(mark) == 1
    start = data.index(mark) + len(mark)
    return np.frombuffer(data[start : start + 1024], "<f4").reshape(1, 256)


def test_the_eight_published_priors(media: Path) -> None:
    folder = media / "dicetalk"
    if not folder.is_dir():
        pytest.skip("the real clips have no published priors beside them")
    found = read_published_priors(folder)
    assert tuple(found) == MEAD_EMOTIONS
    for name, mu in found.items():
        assert mu.dtype == np.float32 and mu.shape == (1, 256)
        assert np.array_equal(mu, raw_floats(folder / f"{name}.npy"))
        assert 13 < np.linalg.norm(mu) < 14.1  # of which `EmbedderConfig.fusion` speaks


def test_a_written_dict_is_read_back(tmp_path: Path) -> None:
    mu = vector()
    assert np.array_equal(read_published_prior(publish(tmp_path / "sad.npy", {"mu": mu})), mu)
    assert list(read_published_priors(tmp_path)) == ["sad"]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("exploded"),)  # type: ignore[return-value]


def test_a_pickle_that_runs_something_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = publish(tmp_path / "angry.npy", {"mu": Bomb()})
    with pytest.raises(UnsafePickle):
        read_published_prior(path)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    "content", [{"sigma": vector()}, {"mu": vector()[:, :64]}, {"mu": vector() * np.nan}, {"mu": "text"}, [1, 2]]
)
def test_other_content_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(InputError):
        read_published_prior(publish(tmp_path / "x.npy", content))


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = publish(tmp_path / "happy.npy", {"mu": vector()})
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadPickle):
        read_published_priors(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="holds no prior"):
        read_published_priors(tmp_path)


def test_ours_go_out_and_come_back(tmp_path: Path) -> None:
    path, priors = tmp_path / "out" / "priors.npz", {"happy": vector(1), "P001 sad": vector(2)[0]}
    write_priors(path, priors)
    found = read_priors(path)
    assert list(found) == list(priors)
    assert all(np.array_equal(found[name], priors[name].reshape(1, 256)) for name in priors)
    with np.load(path) as archive:  # opens with NumPy's defaults, so without pickles
        assert archive["happy"].dtype == np.float32
    first = path.read_bytes()
    write_priors(path, priors)
    assert path.read_bytes() == first and [p.name for p in path.parent.iterdir()] == [path.name]


def test_what_is_not_a_prior_is_neither_written_nor_read(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    for bad in ({}, {"a": vector()[:, :9]}, {"a": np.zeros((1, 256), int)}, {"a": vector() * np.inf}):
        with pytest.raises(InputError):
            write_priors(path, bad)
    assert not path.exists()
    with pytest.raises(InputError, match="cannot read"):
        read_priors(path)
    np.savez(path, a=np.array({"mu": 1}, dtype=object))
    with pytest.raises(InputError, match="cannot read"):
        read_priors(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="cannot read"):
        read_priors(path)


def test_small_widths_are_for_small_systems(tmp_path: Path) -> None:
    write_priors(tmp_path / "t.npz", {"sad": vector()[:, :64]}, width=64)
    assert read_priors(tmp_path / "t.npz", width=64)["sad"].shape == (1, 64)
    with pytest.raises(InputError, match="\\(1, 256\\)"):
        read_priors(tmp_path / "t.npz")


def test_prompt_is_the_mean() -> None:
    assert np.allclose(mean_prior([vector(1), vector(2)[0]]), (vector(1) + vector(2)) / 2)
    for bad in ([], [vector(), vector()[:, :3]]):
        with pytest.raises(InputError, match="mean of"):
            mean_prior(bad)
