"Fit one network in two processes: the result is that of one process, and a model of a run is complete"
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
    "A network without dropout and batch normalisation: both depend on which process gets which row"
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 8, 5, 2), nn.ELU(), nn.Flatten(), nn.Linear(8*10*8, 1), nn.Flatten(0)]
        return nn.Sequential(*layers)


def fit_plain(folder: Path, epochs: int) -> pd.DataFrame:
    "Fit the plain network on 37 rows in batches of 7 and 8, so that the parts of a batch are unequal"
    network, loader, (rank, processes) = plain_network(), train_loader(rows=37), rank_and_world_size()
    schedule = Schedule(epochs, 0.003, clip=0.5, bfloat16=False)
    job = FitJob(folder, folder/"fit.safetensors", seed=5)
    history = fit(network, loader, replace(loader, shuffle=False), F.l1_loss, schedule, job)
    if rank == 0:
        weights = {name: value.numpy() for name, value in network.state_dict().items()}
        np.savez(folder/f"{processes}.npz", **weights)
        history.drop(columns="seconds").to_csv(folder/f"{processes}.csv", index=False)
    return history


@pytest.fixture
def importable(monkeypatch):
    "Child processes can import this module"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_two_processes_fit_the_same_model(tmp_path, importable):
    alone, together = tmp_path/"alone", tmp_path/"together"
    alone.mkdir(), together.mkdir()
    fit_plain(alone, 4)
    run_distributed(2, "test_distributed", together, 4)
    by_two, by_one, first = np.load(together/"2.npz"), np.load(alone/"1.npz"), plain_network().state_dict()
    for name in by_one.files:
        difference, change = by_two[name] - by_one[name], by_one[name] - first[name].numpy()
        assert np.abs(difference).max() < 1e-5 < np.abs(change).max(), name
    np.testing.assert_allclose(pd.read_csv(together/"2.csv"), pd.read_csv(alone/"1.csv"), rtol=1e-5)
    checkpoint = (together/"fit.safetensors").read_bytes()
    assert len(fit_plain(together, 4)) == 4  # one process resumes what two have finished, and returns at once
    assert (together/"fit.safetensors").read_bytes() == checkpoint


def test_error_in_a_process_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path/"broken.py").write_text("raise ValueError('no hand in this radiograph')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ValueError, match="^broken failed in 2 processes: no hand in this radiograph$"):
        run_distributed(2, "broken")


def test_model_of_a_run(smoke, tmp_path):
    "As the report of the training fits a model, with two processes instead of two GPUs"
    root, name = tmp_path/"work", ModelName("registered", "carpals", "female", "classification")
    root.mkdir()
    for file in ("profile.yaml", "cohort.csv", "regions"): (root/file).symlink_to(smoke/"work"/"smoke"/file)
    predictions = train_model_distributed(Workspace(root), name, 2)
    by_one = pd.read_csv(smoke/"work"/"smoke"/"models"/str(name)/"predictions.csv", dtype={"id": str})
    assert predictions[["id", "split"]].equals(by_one[["id", "split"]])
    assert np.isfinite(predictions.predicted).all()
    assert json.loads((root/"models"/str(name)/"config.json").read_text())["network_input"]["region"] == "carpals"
    history = pd.read_csv(root/"models"/str(name)/"history.csv")
    assert len(history) == Workspace(root).profile.bone_age.schedule.epochs


if __name__ == "__main__": fit_plain(Path(sys.argv[1]), int(sys.argv[2]))
