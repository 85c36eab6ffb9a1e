"Fitting one network in two processes gives the fit of one process, and a complete model of a run"
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_training import train_loader
from torch import nn
from torch.nn import functional as F

from boneage.bone_age import ModelName
from boneage.datasets.profiles import Schedule
from boneage.datasets.workspace import Workspace
from boneage.paper.pipeline import train_model_distributed
from boneage.training.core import FitJob, fit
from boneage.training.distributed import rank_and_world_size, run_distributed

pytest.importorskip("accelerate", reason="accelerate is not installed")


def plain_network():
    "A network without dropout and batch normalisation, which depend on the rows of each process"
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 8, 5, 2), nn.ELU(), nn.Flatten(), nn.Linear(8*10*8, 1),
                             nn.Flatten(0))


def fit_plain(folder: Path, epochs: int) -> pd.DataFrame:
    "Fit the plain network on 37 rows in batches of 7 and 8, so that the parts of a batch are unequal"
    network, loader = plain_network(), train_loader(rows=37)
    schedule = Schedule(epochs, 0.003, clip=0.5, bfloat16=False)
    job = FitJob(folder, folder/"fit.safetensors", seed=5)
    history = fit(network, loader, replace(loader, shuffle=False), F.l1_loss, schedule, job)
    if rank_and_world_size()[0] == 0:
        np.savez(folder/f"{rank_and_world_size()[1]}.npz",
                 **{name: value.numpy() for name, value in network.state_dict().items()})
        history.drop(columns="seconds").to_csv(folder/f"{rank_and_world_size()[1]}.csv", index=False)
    return history


@pytest.fixture
def importable(monkeypatch):
    "Let child processes import this module"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_two_processes_fit_the_same_model(tmp_path, importable):
    alone, together = tmp_path/"alone", tmp_path/"together"
    alone.mkdir(), together.mkdir()
    fit_plain(alone, 4)
    run_distributed(2, "test_distributed", together, 4)
    mine, theirs = np.load(together/"2.npz"), np.load(alone/"1.npz")
    before = plain_network().state_dict()
    for name in theirs.files:
        difference, change = np.abs(mine[name] - theirs[name]), np.abs(theirs[name] - before[name].numpy())
        assert difference.max() < 1e-5 < change.max(), name
    np.testing.assert_allclose(pd.read_csv(together/"2.csv"), pd.read_csv(alone/"1.csv"), rtol=1e-5)
    whole = (together/"fit.safetensors").read_bytes()  # the same for any number of processes
    # one process finds it finished and returns at once
    assert len(fit_plain(together, 4)) == 4 and (together/"fit.safetensors").read_bytes() == whole


def test_error_in_a_process_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path/"broken.py").write_text("raise ValueError('the image is a sock')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError, match="^broken failed in 2 processes: the image is a sock$"):
        run_distributed(2, "broken")


def test_model_of_a_run(smoke, tmp_path):
    "As the report fits a model, with two processes instead of two GPUs"
    root, name = tmp_path/"work", ModelName("registered", "carpals", "female", "classification")
    root.mkdir()
    for each in ("profile.yaml", "cohort.csv", "regions"): (root/each).symlink_to(smoke/"work"/"smoke"/each)
    predictions = train_model_distributed(Workspace(root), name, 2)
    alone = pd.read_csv(smoke/"work"/"smoke"/"models"/str(name)/"predictions.csv", dtype={"id": str})
    assert predictions[["id", "split"]].equals(alone[["id", "split"]])
    assert np.isfinite(predictions.predicted).all()
    folder = root/"models"/str(name)
    assert json.loads((folder/"config.json").read_text())["network_input"]["region"] == "carpals"
    assert len(pd.read_csv(folder/"history.csv")) == Workspace(root).profile.bone_age.schedule.epochs


if __name__ == "__main__": fit_plain(Path(sys.argv[1]), int(sys.argv[2]))
