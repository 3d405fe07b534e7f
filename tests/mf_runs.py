"""Trainings of mf-etalk that never took place, see `dice_runs`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from talkforge.models.mf_etalk.config import MfEtalkConfig
from talkforge.models.mf_etalk.model import MfEtalk
from talkforge.tests.dice_runs import STATES, write_training
from talkforge.tests.models.test_mf_cases import awake


def write_mf_run(folder: Path, config: MfEtalkConfig, data: Path | str = "nowhere", stage: str = "motion") -> Path:
    """A training of mf-etalk with random weights, whose added modules do something."""
    torch.manual_seed(0)
    config = replace(config, stage="image" if stage == "image" else "temporal")
    settings = {"model": asdict(config), "audio_column": STATES, "stage": stage}
    return write_training(folder, "mf-etalk", data, settings, awake(MfEtalk(config)), 3)
