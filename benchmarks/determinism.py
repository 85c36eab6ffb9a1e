"""Same seed, same numbers? `make determinism` does each stage twice, in two ways, and writes the largest difference to benchmarks/determinism.json, which the site's page on reliability shows."""
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from measure import machine

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

PROJECT = Path(__file__).resolve().parent.parent
NAME = ModelName("registered", "hand", "both", "regression")


def files_of(folder: Path) -> dict[str, str]:
    "Each file's digest, by its path in the folder"
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def preprocess(radiographs: Path, folder: Path, workers: int) -> dict[str, str]:
    "Masks, registration and regions of every plate by the released networks; the files' digests"
    pictures = sorted((radiographs/"boneage-training-dataset").glob("*.png"))
    cohort, settings = pd.DataFrame(dict(id=[p.stem for p in pictures], path=[str(p) for p in pictures])), load_profile(PROJECT/"reports"/"profiles"/"smoke.yaml").bone_age
    unet, points = load_network(weights_folder()/"segmentation"), load_network(weights_folder()/"keypoints")
    masks = write_masks(cohort, *unet, folder/"masks", workers=workers)
    joined = cohort.merge(masks[["id", "mask"]], on="id")
    contrasts: list[Contrast] = [each.contrast for _, each in map_in_parallel(lambda pair: measure_radiograph(*pair), list(zip(joined.path, joined["mask"])), workers)]
    registered = register_cohort(joined, contrasts, points, None, folder/"rows.jsonl", workers=workers)
    registered.to_csv(folder/"registration.csv", index=False)
    write_regions(joined.merge(registered, on="id"), contrasts, [("registered", "hand")], settings.scales, settings.margin, folder/"regions", workers)
    return {name: digest for name, digest in files_of(folder).items() if not name.endswith(".jsonl")}


def fit(folder: Path, device: str = "cpu", threads: int = 1):
    "Fit a small model on made-up regions; its weights, and its predictions in months"
    settings, random = load_profile(PROJECT/"reports"/"profiles"/"smoke.yaml").bone_age, np.random.default_rng(0)
    images = random.integers(0, 256, (64, *region_matrix("hand", settings.scales["hand"], settings.margin)[1]), np.uint8)
    ages, sexes, split = random.uniform(12, 216, 64), np.where(np.arange(64) % 2, "M", "F"), np.where(np.arange(64) % 4, "train", "validation")
    cohort = pd.DataFrame(dict(id=np.arange(64).astype(str), sex=sexes, bone_age=ages, split=split))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    predictions = fit_bone_age(NAME, images, cohort, settings, FitJob(folder, folder/"fit.safetensors", 7, device))
    torch.set_num_threads(before)
    return {name: value.cpu().numpy() for name, value in load_network(folder)[0].state_dict().items()}, predictions.predicted.to_numpy()


def difference(a, b) -> tuple[float, float]:
    "Largest difference of the weights, and of the predictions in months"
    return max(float(np.abs(a[0][name].astype(float) - b[0][name]).max()) for name in a[0]), float(np.abs(a[1] - b[1]).max())


def in_another_process(folder: Path):
    "The same fit by a Python of its own"
    subprocess.run([sys.executable, __file__, "--fit", folder], check=True)
    found = np.load(folder/"found.npz")
    return {name: found[name] for name in found.files if name != "predicted"}, found["predicted"]


def main():
    "Compare, and write down"
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for workers in (1, 2): write_phantoms(folder/f"phantoms{workers}", 24, 5, shape=(256, 200), workers=workers)
        one, two = files_of(folder/"phantoms1"), files_of(folder/"phantoms2")
        rows.append(dict(what="24 phantoms, by one process and by two", files=len(one), differing=sum(one[k] != two.get(k) for k in one)))
        one, two = (preprocess(folder/"phantoms1", folder/f"preprocessed{workers}", workers) for workers in (1, 2))
        rows.append(dict(what="masks, registration and regions of them, by one thread and by two", files=len(one), differing=sum(one[k] != two.get(k) for k in one)))
        first = fit(folder/"a")
        for what, again in (("a fit, twice in one process", fit(folder/"b")), ("a fit, in two processes", in_another_process(folder/"c")), ("a fit, on one thread and on two", fit(folder/"d", threads=2))):
            weights, months = difference(first, again)
            rows.append(dict(what=what, weights=weights, months=months))
    (Path(__file__).parent/"determinism.json").write_text(json.dumps(dict(machine=machine(), rows=rows), indent=1) + "\n")
    for row in rows: print(", ".join(f"{k}: {v}" for k, v in row.items()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fit"]:
        weights, predicted = fit(Path(sys.argv[2]))
        np.savez(Path(sys.argv[2])/"found.npz", predicted=predicted, **weights)
    else: main()
