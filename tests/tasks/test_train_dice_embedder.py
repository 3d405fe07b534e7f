"""The system dice-embedder on a small synthetic build: it learns, goes on, and says what a build lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from talkforge.core.errors import ConfigError, InputError
from talkforge.datasets.shards import ClipShards
from talkforge.datasets.synthetic import SyntheticConfig, SyntheticCorpus
from talkforge.datasets.synthetic_build import EXPRESSION, STATES, write_synthetic
from talkforge.flows.train import describe, systems, train
from talkforge.models.training.log import read_log
from talkforge.models.training.state import checkpoints_in, read_checkpoint
from talkforge.tasks.train_dice_embedder import (
    EXPRESSIONS,
    Collate,
    DiceEmbedderConfig,
    build,
    groups_of,
    parameters,
)
from torch import nn

EMOTIONS = ("angry", "happy", "sad")
CORPUS = SyntheticConfig(identities=3, takes=2, emotions=EMOTIONS, min_frames=12, max_frames=20, states=2, width=8)
SIZES = ("model.audio_states=2", "model.audio_width=8", "model.width=16", "model.layers=1", "model.feedforward=16")
RUN = (*SIZES, "window=16", "groups_per_batch=4", "steps=30", "checkpoint_every=10", "device=cpu", "tensorboard=false")
FAST = (*RUN, "optimiser.lr=3e-3", "model.drop_probability=0")  # falls to 0.4 to 0.6 of where it began
SPLITS = {"train": [0, 1], "val": [2]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "build"
    write_synthetic(folder, SyntheticCorpus(CORPUS), SPLITS)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(*overrides: str) -> DiceEmbedderConfig:
    config = systems.get("dice-embedder").settings("tiny", [*RUN, *overrides])
    assert isinstance(config, DiceEmbedderConfig)
    return config


def changed(folder: Path, **columns: Any) -> Path:
    """A new build, some columns of its shards replaced by values of (clip ids), or taken out (None)."""
    write_synthetic(folder, SyntheticCorpus(CORPUS), SPLITS)
    info = json.loads((folder / "meta" / "info.json").read_text())
    for name, values in columns.items():
        if values is None:
            del info["columns"][name]
        else:
            info["columns"][name] = "string"
        for path in sorted((folder / "data").rglob("*.parquet")):
            table = pq.read_table(path)
            table = table.drop_columns([name]) if name in table.column_names else table
            if values is not None:
                table = table.append_column(name, pa.array(map(values, table["clip_id"].to_pylist()), pa.string()))
            pq.write_table(table, path, row_group_size=1)
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return folder


def learned(out: Path) -> list[tuple[Any, ...]]:
    return [(row["step"], row["loss"], row["grad_norm"], row["parts"]) for row in read_log(out / "log.jsonl")]


def test_it_learns_and_goes_on_as_if_it_had_not_stopped(data: Path, tmp_path: Path) -> None:
    train("dice-embedder", data, tmp_path / "whole", "tiny", FAST)
    rows = learned(tmp_path / "whole")
    losses = [loss for _, loss, _, _ in rows]
    assert len(losses) == 30 and np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert {"positive_cosine", "negative_cosine", "nearest", "pairs"} <= rows[0][3].keys()
    scores = [read_checkpoint(path).facts["score"] for path in checkpoints_in(tmp_path / "whole" / "checkpoints")]
    assert len(set(scores)) == 3 and all(np.isfinite(score) for score in scores)
    train("dice-embedder", data, tmp_path / "out", "tiny", [*FAST, "steps=13"])
    train("dice-embedder", data, tmp_path / "out", "tiny", FAST, resume=True)
    assert learned(tmp_path / "out") == rows


def test_batches_are_clips_of_one_identity_and_emotion(data: Path) -> None:
    batch = next(iter(build(settings(), data, 0, 1).batches))
    labels = [tuple(name.split("/")[1:3]) for name in batch["clip_id"]]
    same = torch.tensor([[one == other for other in labels] for one in labels])
    assert torch.equal(batch["group"][:, None] == batch["group"][None], same)
    assert same.sum(1).tolist() == [2] * 8 and len(set(batch["clip_id"])) == 8
    row = next(clip for clip in SyntheticCorpus(CORPUS) if clip["clip_id"] == batch["clip_id"][0])
    taken = batch["expression"][0][batch["mask"][0]].numpy()
    face, frames = row["expression"], len(taken)
    starts = [k for k in range(len(face) - frames + 1) if np.array_equal(face[k : k + frames], taken)]
    assert len(starts) == 1 and len(taken) == min(16, len(row["expression"]))
    sound = batch["audio"][0, : 2 * len(taken)].numpy()
    assert np.array_equal(sound, row["audio"][2 * starts[0] : 2 * (starts[0] + len(taken))].astype(np.float32))


def test_validation_is_the_same_each_time_and_only_where_val_has_groups(data: Path, tmp_path: Path) -> None:
    parts = build(settings(), data, 0, 1)
    assert parts.validate is not None
    parts.model.eval()
    with torch.no_grad():
        first = parts.validate(parts.model)
        torch.rand(7)
        assert parts.validate(parts.model) == first
    assert build(settings("validation_batches=0"), data, 0, 1).validate is None
    write_synthetic(tmp_path / "other", SyntheticCorpus(CORPUS), {"train": [0, 1]})
    assert build(settings(), tmp_path / "other", 0, 1).validate is None


def test_the_loss_goes_through_the_wrapper_of_several_processes(data: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, *given: Any, **named: Any) -> Any:
            self.calls += 1
            return self.module(*given, **named)

    parts = build(settings(), data, 0, 1)
    wrapped = Wrapper(parts.model)
    found: Any = parts.loss_fn(wrapped, next(iter(parts.batches)))
    found.total.backward()
    assert wrapped.calls == 1 and all(value.grad is not None for value in parts.model.parameters())


def test_ranks_get_different_batches(data: Path) -> None:
    ids = [[batch["clip_id"] for batch in build(settings(), data, rank, 2).batches] for rank in (0, 1)]
    assert len(ids[0]) == len(ids[1]) and ids[0] != ids[1]


def test_a_missing_column_names_its_extractor(tmp_path: Path) -> None:
    folder = changed(tmp_path / "build", **{STATES: None})
    with pytest.raises(
        InputError, match=r"no column 'whisper_tiny_states' \(build it with the extractor whisper-tiny\)"
    ):
        build(settings(), folder, 0, 1)
    folder = changed(tmp_path / "build", **{EXPRESSION: None})
    with pytest.raises(InputError, match=r"no column 'arkit52_blendshapes' \(build it with the extractor arkit52\)"):
        build(settings(), folder, 0, 1)
    with pytest.raises(InputError, match=r"whisper-tiny-en, or give --set audio_column=whisper_tiny_states\)"):
        build(settings("audio_column=whisper_tiny_en_states"), changed(tmp_path / "build"), 0, 1)


def test_columns_of_other_widths_are_refused(data: Path) -> None:
    with pytest.raises(InputError, match=r"whisper_tiny_states: numbers a step: 16 in the build, 24 in the model"):
        build(settings("model.audio_states=3"), data, 0, 1)
    with pytest.raises(InputError, match=r"audio steps a frame: 2 in the build, 1 in the model"):
        build(settings("model.steps_per_frame=1"), data, 0, 1)
    with pytest.raises(InputError, match=r"numbers a frame: 52 in the build, 257 in the model"):
        build(settings("model.expression=deep3d", f"expression_column={EXPRESSION}"), data, 0, 1)


def test_a_build_without_labels_or_pairs_is_refused(tmp_path: Path) -> None:
    folder = changed(tmp_path / "build", identity=None, emotion=None)
    with pytest.raises(
        InputError, match=r"no usable clip has both identity and emotion.* 0 of 0 groups.*--annotations"
    ):
        build(settings(), folder, 0, 1)
    folder = changed(tmp_path / "build", identity=lambda clip_id: clip_id)
    with pytest.raises(InputError, match=r"0 of 36 groups of the split train \(36 clips\) have two clips or more"):
        build(settings(), folder, 0, 1)


def test_without_labels_clips_of_one_file_belong_together(tmp_path: Path) -> None:
    folder = changed(tmp_path / "build", emotion=None, source=lambda clip_id: clip_id.rpartition("/")[0])
    batch = next(iter(build(settings(), folder, 0, 1).batches))
    files = [name.rpartition("/")[0] for name in batch["clip_id"]]
    same = torch.tensor([[one == other for other in files] for one in files])
    assert torch.equal(batch["group"][:, None] == batch["group"][None], same) and len(set(files)) == 4


def test_a_clip_whose_feature_failed_is_left_out(tmp_path: Path) -> None:
    failed = "synthetic/P000/happy/level_1/000"
    folder = changed(tmp_path / "build", arkit52_reason=lambda clip_id: "no_face" if clip_id == failed else None)
    shards = ClipShards(folder)
    groups = dict(zip(shards.clip_ids, groups_of(shards, settings()), strict=True))
    assert [name for name, group in groups.items() if group is None] == [failed]
    assert groups["synthetic/P000/happy/level_1/001"] == ("emotion", "P000", "happy")


def row(name: str, frames: int = 3, width: int = 52) -> dict[str, Any]:
    face = np.arange(frames * width, dtype=np.float32).reshape(frames, width)
    return {
        "clip_id": name,
        "identity": "P",
        "emotion": "sad",
        "face": face,
        "heard": np.ones((2 * frames, 8), np.float16),
    }


def test_frames_without_face_or_sound_do_not_count() -> None:
    rows = [row("a"), row("b"), row("c")]
    rows[0]["face"][1] = np.nan
    rows[1]["heard"][5] = np.nan
    rows[2]["face"][:] = np.nan
    batch = Collate("face", "heard", 2, slice(0, 52))(rows)
    assert batch["clip_id"] == ["a", "b"]
    assert batch["mask"].tolist() == [[True, False, True], [True, True, False]]
    with pytest.raises(InputError, match="no frame of c has both a face and sound"):
        Collate("face", "heard", 2, slice(0, 52))(rows[2:])


def test_deep3d_gives_its_expression_alone() -> None:
    _, width, part = EXPRESSIONS["deep3d"]
    batch = Collate("face", "heard", 2, part)([row("a", width=width)])
    assert batch["expression"][0, 0].tolist() == list(range(80, 144))


def test_settings() -> None:
    assert settings().expression == "arkit52_blendshapes"
    assert settings("model.expression=deep3d").expression == "deep3d_coefficients"
    assert settings().model.heads == 4 and settings("model.heads=2").model.heads == 2  # tiny's, and changed
    with pytest.raises(ConfigError, match=r"unknown key 'widht' of EmbedderConfig \(did you mean width"):
        settings("model.widht=32")
    with pytest.raises(ConfigError, match="window is 300 frames, and the embedder takes 256"):
        settings("window=300")
    with pytest.raises(ConfigError, match=r"EmbedderConfig\.dropout is 2"):
        settings("model.dropout=2")


def test_parameters_are_those_of_the_network(data: Path) -> None:
    config = settings()
    model = build(config, data, 0, 1).model
    assert parameters(config)["embedder"] == sum(value.numel() for value in model.parameters())
    full = describe("dice-embedder", "full")
    assert full["parameters"]["embedder"] == sum(full["parameters"].values()) // 2
    assert full["settings"]["model"]["width"] == 256
