"""The system mf-etalk: its size by the command; it learns in two stages, goes on, and says what does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from talkforge.commands.training import train
from talkforge.core.errors import ConfigError, InputError, TalkForgeError, WeightsError
from talkforge.core.landmarks import MESH_LIPS
from talkforge.core.registry import resolve
from talkforge.core.weights import weights_store
from talkforge.flows.train import systems
from talkforge.flows.train import train as run_train
from talkforge.models.mf_etalk.config import FaceConfig, MfEtalkConfig
from talkforge.models.mf_etalk.masks import region_masks
from talkforge.models.training.feed import to_device
from talkforge.models.training.log import read_log
from talkforge.models.training.state import checkpoints_in, read_checkpoint
from talkforge.models.training.system import TrainParts
from talkforge.tasks.extractor import extractors, vectors
from talkforge.tasks.recipe import column_name
from talkforge.tasks.talking_aus import filled, neutral_faces
from talkforge.tasks.talking_batches import Shot, TalkingWindows
from talkforge.tasks.talking_training import pinned_by
from talkforge.tasks.train_mf_etalk import LIPS
from talkforge.tasks.trained import weights_of
from talkforge.tests.models.dice_talk_cases import needs_diffusers, one_thread
from talkforge.tests.tasks.mf_build import AU_SCHEMA, PROXY, UNITS, lips_of, mf_row, track_of, write_mf_build
from talkforge.tests.tasks.talking_build import box_of, losses_of

ROWS = (
    mf_row(0, 16, identity="two", emotion="neutral"),
    mf_row(1, 14, identity="two", emotion="happy"),
    mf_row(2, 15, identity=None),
    mf_row(3, 12, identity=None, split="val"),
)
W2V = "wav2vec2_base_960h_states"
SMALL = (
    "model.size=32",
    "model.tiny_vae.channels=16",
    "model.audio.hidden=16",
    "model.motion.frames=3",
    "model.diffusion.sample_steps=2",
    "model.face.mask_grid=16",
    "model.face.face_blur=5",
    "model.face.lip_blur=3",
    "model.emotion.weight=0",
    "picture_cache_mb=8",
    "batch_size=2",
    "steps=6",
    "checkpoint_every=3",
    "sample_every=0",
    "validation_batches=1",
    "ema.decay=0.5",
    "device=cpu",
    "tensorboard=false",
)


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mf_build(tmp_path_factory.mktemp("mf") / "build", ROWS)


def parts_of(data: Path, *overrides: str) -> TrainParts:
    spec = systems.get("mf-etalk")
    return resolve(spec.build)(spec.settings("tiny", [*SMALL, *overrides]), data, 0, 1)


def rows_of(data: Path, *overrides: str) -> Any:
    loader: Any = parts_of(data, *overrides).batches
    return loader.rows


def learned(out: Path) -> list[tuple[Any, ...]]:
    return [(row["step"], row["loss"], row["grad_norm"], row["parts"]) for row in read_log(out / "log.jsonl")]


@needs_diffusers
def test_the_full_system_is_counted_by_the_command() -> None:
    done = CliRunner().invoke(train, ["mf-etalk", "--preset", "full", "--dry-run", "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["parameters"]["denoising_unet"] == 859_520_964  # the published UNet's
    assert found["parameters"]["vae"] == 83_653_863  # likewise
    assert found["settings"]["model"]["audio"]["kind"] == "wav2vec2"


def test_presets_are_the_model_s_own() -> None:
    for preset in ("tiny", "full"):
        config: Any = systems.get("mf-etalk").settings(preset)
        own = MfEtalkConfig.preset(preset)
        assert replace(config.model, tiny_vae=own.tiny_vae) == own
        assert type(config).model_validate(json.loads(config.model_dump_json())) == config


def test_stage_and_ablation_are_those_of_the_model() -> None:
    def settings(*overrides: str) -> Any:
        return systems.get("mf-etalk").settings("tiny", overrides)

    assert settings().model.stage == "temporal" and settings("stage=image").model.stage == "image"
    assert (settings("stage=image").before, settings().before) == (0, 2)
    for name, fusion, loss in (("a", False, False), ("b", True, False), ("c", True, True)):
        found = settings(f"ablation={name}").model
        assert (found.fusion.on, found.emotion.weight > 0) == (fusion, loss)
    assert not settings("model.fusion.on=false").guided
    with pytest.raises(ConfigError, match="ablation"):
        settings("ablation=d")
    with pytest.raises(ConfigError, match=r"unknown key 'au\.hiden' of AuConfig \(did you mean hidden"):
        settings("model.au.hiden=3")


def test_the_lips_are_among_the_published_lip_points() -> None:
    assert len(set(LIPS)) == 20 and set(LIPS) <= set(MESH_LIPS.tolist())


@needs_diffusers
@pytest.mark.parametrize("stage", ["image", "motion"])
def test_it_goes_on_as_if_it_had_not_stopped(data: Path, tmp_path: Path, stage: str) -> None:
    given = [*SMALL, f"stage={stage}", "model.tiny_vae.alone_steps=1", "sample_every=3"]
    run_train("mf-etalk", data, tmp_path / "whole", "tiny", given)
    rows = learned(tmp_path / "whole")
    assert rows[0][3].keys() == {"reconstruction", "kl"}
    assert {"denoise", "velocity_error"} <= rows[1][3].keys() and all(np.isfinite(row[1]) for row in rows)
    scores = [read_checkpoint(path).facts["score"] for path in checkpoints_in(tmp_path / "whole" / "checkpoints")]
    assert len(set(scores)) == 2 and all(np.isfinite(score) for score in scores)
    run_train("mf-etalk", data, tmp_path / "out", "tiny", [*given, "steps=4"])
    run_train("mf-etalk", data, tmp_path / "out", "tiny", given, resume=True)
    assert learned(tmp_path / "out") == rows
    shapes = {Image.open(path).size for path in sorted((tmp_path / "out" / "samples").glob("*.png"))}
    columns = {"image": 2, "motion": 4}[stage]  # the portrait, and the pictures that the stage makes
    assert shapes == {(columns * 32, 4 * 32)}


@needs_diffusers
def test_recomputed_activations_train_the_same(data: Path, tmp_path: Path) -> None:
    given = [*SMALL, "steps=2", "model.tiny_vae.alone_steps=0", "model.tiny_vae.joint=true", "validation_batches=0"]
    run_train("mf-etalk", data, tmp_path / "kept", "tiny", given)
    run_train("mf-etalk", data, tmp_path / "again", "tiny", [*given, "gradient_checkpointing=true"])
    for one, other in zip(learned(tmp_path / "kept"), learned(tmp_path / "again"), strict=True):
        assert one[1:3] == pytest.approx(other[1:3], rel=1e-4)


@needs_diffusers
def test_the_motion_stage_starts_from_a_training_of_either_stage(data: Path, tmp_path: Path) -> None:
    given = [*SMALL, "stage=image", "steps=2", "checkpoint_every=2", "validation_batches=0"]
    run_train("mf-etalk", data, tmp_path / "image", "tiny", given)
    trained = read_checkpoint(checkpoints_in(tmp_path / "image" / "checkpoints")[-1]).ema
    assert trained is not None
    for ablation in ("a", "b"):
        state = parts_of(data, f"init={tmp_path / 'image'}", f"ablation={ablation}").model.state_dict()
        shared = {name for name in trained if not name.startswith("aus.") and ".fusion." not in name}
        assert shared <= state.keys() and all(torch.equal(state[name], trained[name]) for name in shared)
        assert (set(state) - shared == set()) == (ablation == "a")
    motion = [*SMALL, "steps=2", "checkpoint_every=2", "validation_batches=0"]
    run_train("mf-etalk", data, tmp_path / "motion", "tiny", motion)
    trained = read_checkpoint(checkpoints_in(tmp_path / "motion" / "checkpoints")[-1]).ema
    assert trained is not None
    on = [*motion, f"init={tmp_path / 'motion'}", "model.drops.audio=0.5"]
    run_train("mf-etalk", data, tmp_path / "on", "tiny", on)
    assert pinned_by(weights_of(tmp_path / "on").checkpoint).keys() == {"init"}
    state = parts_of(data, f"init={tmp_path / 'motion'}", "model.drops.audio=0.5").model.state_dict()
    assert state.keys() == trained.keys() and all(torch.equal(state[name], trained[name]) for name in state)
    with pytest.raises(WeightsError, match="in the model"):
        parts_of(data, f"init={tmp_path / 'image'}", "model.audio.hidden=17")
    with pytest.raises(WeightsError, match=r"no aus\..* in the model"):  # what has learnt is not left behind
        parts_of(data, f"init={tmp_path / 'motion'}", "ablation=a")
    with pytest.raises(ConfigError, match="stage image starts from the base"):
        parts_of(data, f"init={tmp_path / 'image'}", "stage=image")


@needs_diffusers
def test_a_training_goes_on_with_its_own_image_stage_and_judge_only(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = [*SMALL, "checkpoint_every=1", "validation_batches=0"]
    image, out = tmp_path / "image", tmp_path / "motion"
    run_train("mf-etalk", data, image, "tiny", [*quick, "stage=image", "steps=1"])
    given = [*quick, f"init={image}", "ablation=c", "model.emotion.network=mini-xception"]
    run_train("mf-etalk", data, out, "tiny", [*given, "steps=1"])
    judge = weights_store().sha256("fer-mini-xception")
    pinned = {"init": weights_of(image).sha256, "network of the emotion loss": judge}
    assert pinned_by(weights_of(out).checkpoint) == pinned
    with monkeypatch.context() as patch:
        patch.setattr(type(weights_store()), "sha256", lambda *_: 64 * "f")
        with pytest.raises(ConfigError, match=f"another network of the emotion loss: sha256 {judge[:12]}"):
            run_train("mf-etalk", data, out, "tiny", [*given, "steps=2"], resume=True)
    weights = weights_of(image).weights
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights)
    with pytest.raises(ConfigError, match="begun with another init"):
        run_train("mf-etalk", data, out, "tiny", [*given, "steps=2"], resume=True)


@needs_diffusers
def test_batches_hold_motion_frames_sound_units_and_regions(data: Path) -> None:
    rows = rows_of(data)
    item = rows[Shot(1, 4, 0, 3)]  # frames 4 and 5 are motion frames
    assert item["motion"].shape == (2, 3, 32, 32) and item["pictures"].shape == (3, 3, 32, 32)
    assert np.array_equal(item["motion"], rows[Shot(1, 4, 0, 3)]["motion"])
    assert np.array_equal(rows[Shot(1, 5, 0, 3)]["motion"][0], item["motion"][1])
    assert np.array_equal(rows[Shot(1, 5, 0, 3)]["pictures"][0], item["pictures"][1])
    wanted = [[t if 0 <= t < 28 else 0 for t in range(2 * f - 4, 2 * f + 6)] for f in (6, 7, 8)]
    assert item["audio"][..., 0, 0].tolist() == wanted
    np.testing.assert_allclose(item["aus"], track_of(1, 14)[6:9], rtol=1e-6)
    np.testing.assert_allclose(item["au_neutral"], track_of(0, 16).mean(0), rtol=1e-5)  # the neutral clip of "two"
    face, lip = ((f(6)[0], f(6)[1], f(8)[2], f(8)[3]) for f in (box_of, lips_of))
    small = FaceConfig(mask_grid=16, face_blur=5, lip_blur=3)
    np.testing.assert_allclose(item["regions"][0], region_masks(face, lip, 96, 96, small).numpy(), atol=1e-5)
    alone = rows_of(data, "stage=image")[Shot(1, 4, 0, 3)]
    assert alone.keys() == {"clip_id", "emotion", "pictures", "portrait", "mask"}
    assert np.array_equal(alone["pictures"][2], item["pictures"][0])
    assert not {"aus", "au_neutral"} & rows_of(data, "ablation=a")[Shot(1, 4, 0, 3)].keys()


def test_neutral_faces_are_of_neutral_clips_or_medians(data: Path) -> None:
    found = neutral_faces(data, "train", "au-blendshape-proxy")
    assert (found.labelled, found.estimated) == (1, 1)
    np.testing.assert_allclose(found.of_clip["toy/001"], track_of(0, 16).mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.of_clip["toy/002"], np.median(track_of(2, 15), 0), rtol=1e-5)
    wanted = (track_of(0, 16).mean(0) + np.median(track_of(2, 15), 0)) / 2
    np.testing.assert_allclose(found.average(), wanted, rtol=1e-5)


def test_clips_without_an_identity_are_people_of_their_own(tmp_path: Path) -> None:
    data = write_mf_build(tmp_path / "nobody", [mf_row(k, 8, identity=None) for k in range(2)])
    found = neutral_faces(data, "train", "au-blendshape-proxy")
    assert found.estimated == 2
    for k in range(2):
        np.testing.assert_allclose(found.of_clip[f"toy/00{k}"], np.median(track_of(k, 8), 0), rtol=1e-5)


def test_gaps_are_bridged() -> None:
    track = np.full((6, 17), np.nan, np.float32)
    track[1], track[4] = 0.2, 0.8
    np.testing.assert_allclose(filled(track)[:, 3], [0.2, 0.2, 0.4, 0.6, 0.8, 0.8], rtol=1e-6)


@needs_diffusers
def test_a_build_without_units_names_the_extractor(data: Path, tmp_path: Path) -> None:
    bare = write_mf_build(tmp_path / "bare", ROWS, AU_SCHEMA.remove(AU_SCHEMA.get_field_index(PROXY[4])))
    with pytest.raises(InputError, match="no column 'au_blendshape_proxy_AU06' with action units") as caught:
        parts_of(bare)
    assert "extractor au-blendshape-proxy" in str(caught.value.hint)
    with pytest.raises(InputError, match="no column 'pyfeat_AU01'") as caught:
        parts_of(data, "aus=pyfeat")
    assert str(caught.value.hint) == "build it with the extractor pyfeat, or give --set aus=au-blendshape-proxy"
    parts_of(bare, "ablation=a")  # Hallo reads none


@needs_diffusers
def test_a_build_whose_units_are_empty_is_refused(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {name: [None] * 16 for name in PROXY}
    empty = write_mf_build(tmp_path / "empty", [mf_row(k, 16, **nothing) for k in range(2)])
    with pytest.raises(InputError, match="none of 2 clips of split train has action units") as caught:
        parts_of(empty)
    assert "extractor au-blendshape-proxy" in str(caught.value.hint)
    some = write_mf_build(tmp_path / "some", [mf_row(0, 16, **nothing), mf_row(1, 16, identity="b"), mf_row(2, 16)])
    loader: Any = parts_of(some).batches
    shots = [shot for batch in TalkingWindows.__iter__(loader.sampler) for shot in batch]
    assert {shot.clip for shot in shots} == {1, 2}


@needs_diffusers
def test_the_emotion_loss_of_row_c_is_logged_under_its_network(data: Path) -> None:
    try:
        weights_store().path("fer-mini-xception")
    except WeightsError as error:
        pytest.skip(str(error))
    parts = parts_of(data, "ablation=c", "model.emotion.network=mini-xception", "model.emotion.low_noise=1000")
    torch.manual_seed(0)
    loss: Any = parts.loss_fn(parts.model.eval(), to_device(next(iter(parts.batches)), torch.device("cpu")))
    found = {name: float(value) for name, value in loss.parts.items()}
    assert float(loss.total.detach()) > found["denoise"] and found["emotion_mini-xception"] > 0


@needs_diffusers
def test_what_does_not_fit_is_said(data: Path) -> None:
    for overrides, message in (
        (
            ["model.audio.kind=wav2vec2"],
            r"whisper_tiny_states has 2 x 1920 .* the model reads 1 x 9216",
        ),
        (["audio_column=whisper_tiny_en_states"], "no column 'whisper_tiny_en_states'"),
        (["frames=15"], "none of 3 clips can be used"),
        (["frames=31"], "exceed model.motion.max_frames"),
        (["model.temporal_trains=new"], "needs a trained image stage"),
        (["batch_size=3"], "3 clips cannot be shared out"),
        ([f"init={data}"], "is no training"),
        ([f"init={data / 'nothere'}"], "init: there is no folder .*nothere"),
    ):
        with pytest.raises(TalkForgeError, match=message):
            parts_of(data, *overrides)


def test_the_full_system_needs_identities_and_a_first_stage(data: Path) -> None:
    spec = systems.get("mf-etalk")
    with pytest.raises(InputError, match="no column 'identity_arcface_r50_embedding'") as caught:
        resolve(spec.build)(spec.settings("full", ["stage=image"]), data, 0, 1)
    assert "extractor identity-arcface-r50" in str(caught.value.hint)
    with pytest.raises(ConfigError, match="needs a trained image stage"):
        resolve(spec.build)(spec.settings("full"), data, 0, 1)


@pytest.fixture(scope="module")
def hallo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build with wav2vec2's states beside Whisper's: entry (t, s, d) is t + s / 16, the same for all d."""
    rows = []
    for row in ROWS:
        entries = np.arange(row["n_frames"])[:, None] + np.repeat(np.arange(12) / 16, 768)
        rows.append(row | {W2V: list(entries.astype(np.float16)), "wav2vec2_base_960h_reason": None})
    schema = AU_SCHEMA.append(pa.field(W2V, vectors(12 * 768, pa.float16())))
    schema = schema.append(pa.field("wav2vec2_base_960h_reason", pa.string()))
    return write_mf_build(tmp_path_factory.mktemp("hallo") / "build", rows, schema)


@needs_diffusers
def test_a_model_hears_wav2vec2_as_hallo_does(hallo: Path, tmp_path: Path) -> None:
    heard = ("model.audio.kind=wav2vec2", f"audio_column={W2V}")
    item = rows_of(hallo, *heard)[Shot(1, 0, 0, 3)]  # frames 2, 3, 4 after two motion frames
    assert item["audio"].shape == (3, 5, 12, 768)
    assert item["audio"][:, :, 0, 0].tolist() == [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]
    assert item["audio"][0, 2, :, 5].tolist() == [2 + k / 16 for k in range(12)]
    last = rows_of(hallo, *heard)[Shot(1, 9, 0, 3)]  # frames 11, 12, 13 of 14: zeros after the end
    assert last["audio"][2, :, 0, 0].tolist() == [11, 12, 13, 0, 0]
    run_train("mf-etalk", hallo, tmp_path / "out", "tiny", [*SMALL, *heard, "model.tiny_vae.alone_steps=1"])
    rows = learned(tmp_path / "out")
    assert len(rows) == 6 and all(np.isfinite(row[1]) for row in rows)


@needs_diffusers
def test_states_that_do_not_fit_name_the_extractor_that_makes_others(data: Path, hallo: Path) -> None:
    for build, override, hint in (
        (data, "model.audio.kind=wav2vec2", "build with the extractor wav2vec2-base-960h and give --set audio_column="),
        (hallo, "model.audio.kind=wav2vec2", f"give --set audio_column={W2V}, or see the sizes in model.audio"),
        (hallo, f"audio_column={W2V}", "give --set audio_column=whisper_tiny_states, or see the sizes in model.audio"),
    ):
        with pytest.raises(InputError, match=r"has \d x \d+ numbers a frame") as caught:
            parts_of(build, override)
        assert str(caught.value.hint).startswith(hint)


def test_the_full_preset_reads_the_column_of_its_extractor() -> None:
    config: Any = systems.get("mf-etalk").settings("full")
    spec = extractors.get("wav2vec2-base-960h")
    sizes = config.model.audio.layers
    assert config.audio_column == column_name(spec, "states") == W2V
    assert spec.columns["states"].value_type.list_size == sizes.states * sizes.state_width
    assert spec.steps.get("states", 1) == sizes.steps_per_frame


@needs_diffusers
def test_a_few_clips_are_learned(data: Path) -> None:
    torch.manual_seed(0)
    parts = parts_of(data, "model.tiny_vae.alone_steps=0", "model.tiny_vae.joint=true")
    losses = losses_of(parts, 32)
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert next(iter(parts.batches))["aus"].shape[-1] == len(UNITS)
