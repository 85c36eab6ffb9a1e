"""The same seed gives the same numbers: `make stress WHAT=determinism` does each step twice, in two ways.

The largest differences are written to benchmarks/reliability.json, which the site shows."""
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from measure import PROJECT, machine, write_section

from boneage.assessment import weights_folder
from boneage.bone_age import ModelName
from boneage.contrast import Contrast
from boneage.datasets.preprocessing import (
    map_in_parallel,
    measure_radiograph,
    register_cohort,
    write_masks,
    write_regions,
)
from boneage.datasets.profiles import load_profile
from boneage.networks import load_network
from boneage.registration import region_matrix
from boneage.synthetic.phantoms import write_phantoms
from boneage.training.bone_age import fit_bone_age
from boneage.training.core import FitJob

pytestmark = pytest.mark.skipif("STRESS" not in os.environ,
                                reason="runs under `make stress WHAT=determinism`")
NAME = ModelName("registered", "hand", "both", "regression")
SETTINGS = load_profile(PROJECT/"reports"/"profiles"/"smoke.yaml").bone_age


def digests(folder: Path) -> dict[str, str]:
    "Each file's digest, by its path in the folder"
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".jsonl")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def preprocess(radiographs: Path, folder: Path, workers: int) -> Path:
    "Masks, registration and regions of every radiograph by the released networks"
    images = sorted((radiographs/"boneage-training-dataset").glob("*.png"))
    cohort = pd.DataFrame(dict(id=[path.stem for path in images], path=[str(path) for path in images]))
    unet, points = load_network(weights_folder()/"segmentation"), load_network(weights_folder()/"keypoints")
    masks = write_masks(cohort, *unet, folder/"masks", workers=workers)
    joined = cohort.merge(masks[["id", "mask"]], on="id")
    pairs = list(zip(joined.path, joined["mask"]))
    measured = map_in_parallel(lambda pair: measure_radiograph(*pair), pairs, workers)
    contrasts: list[Contrast] = [each.contrast for _, each in measured]
    registered = register_cohort(joined, contrasts, points, None, folder/"rows.jsonl", workers=workers)
    registered.to_csv(folder/"registration.csv", index=False)
    write_regions(joined.merge(registered, on="id"), contrasts, [("registered", "hand")], SETTINGS.scales,
                  SETTINGS.margin, folder/"regions", workers)
    return folder


def fit_small(folder: Path, device: str = "cpu", threads: int = 1):
    "Fit a small model on random regions; its weights, and its predictions in months"
    random = np.random.default_rng(0)
    stored = region_matrix("hand", SETTINGS.scales["hand"], SETTINGS.margin)[1]
    images = random.integers(0, 256, (64, *stored), np.uint8)
    ages, sexes = random.uniform(12, 216, 64), np.where(np.arange(64) % 2, "M", "F")
    split = np.where(np.arange(64) % 4, "train", "validation")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    cohort = pd.DataFrame(dict(id=np.arange(64).astype(str), sex=sexes, bone_age=ages, split=split))
    job = FitJob(folder, folder/"fit.safetensors", 7, device)
    predictions = fit_bone_age(NAME, images, cohort, SETTINGS, job)
    torch.set_num_threads(before)
    weights = {name: value.cpu().numpy() for name, value in load_network(folder)[0].state_dict().items()}
    return weights, predictions.predicted.to_numpy()


def fit_in_another_process(folder: Path):
    "The same fit by another Python"
    environment = os.environ | dict(PYTHONPATH=os.pathsep.join(sys.path))
    subprocess.run([sys.executable, __file__, folder], check=True, env=environment)
    found = np.load(folder/"found.npz")
    return {name: found[name] for name in found.files if name != "predicted"}, found["predicted"]


def compare_fits(what: str, first, second) -> dict:
    "Largest difference of two fits' weights, and of their predictions in months"
    weights = max(float(np.abs(first[0][name].astype(float) - second[0][name]).max()) for name in first[0])
    return dict(what=what, weights=weights, months=float(np.abs(first[1] - second[1]).max()))


def compare_files(what: str, first: Path, second: Path) -> dict:
    "How many files of two folders differ"
    ours, theirs = digests(first), digests(second)
    assert ours and ours.keys() == theirs.keys()
    return dict(what=what, files=len(ours), differing=sum(ours[name] != theirs[name] for name in ours))


@pytest.fixture(scope="module")
def found():
    "Rows of the table, written down when all were measured"
    rows = []
    yield rows
    for row in rows: print("\n" + ", ".join(f"{key}: {value}" for key, value in row.items()), end="")
    if len(rows) == 5: write_section("reliability", "determinism", dict(machine=machine(), rows=rows))


def test_files_do_not_depend_on_workers(found, tmp_path):
    phantoms = [write_phantoms(tmp_path/f"phantoms{workers}", 24, 5, shape=(256, 200), workers=workers)
                for workers in (1, 2)]
    found.append(compare_files("24 phantoms, by one process and by two", *phantoms))
    folders = [preprocess(phantoms[0], tmp_path/f"preprocessed{workers}", workers) for workers in (1, 2)]
    found.append(compare_files("masks, registration and regions of them, by one thread and by two", *folders))
    assert [row["differing"] for row in found] == [0, 0]


def test_fit_depends_on_threads_alone(found, tmp_path):
    first = fit_small(tmp_path/"a")
    again = [compare_fits("a fit, twice in one process", first, fit_small(tmp_path/"b")),
             compare_fits("a fit, in two processes", first, fit_in_another_process(tmp_path/"c"))]
    found += [*again, compare_fits("a fit, on one thread and on two", first,
                                   fit_small(tmp_path/"d", threads=2))]
    assert all(row["weights"] == row["months"] == 0 for row in again)


if __name__ == "__main__":
    weights, predicted = fit_small(Path(sys.argv[1]))
    np.savez(Path(sys.argv[1])/"found.npz", predicted=predicted, **weights)
