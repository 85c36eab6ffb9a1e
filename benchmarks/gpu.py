"""How fast it is on a GPU: `make bench-gpu` writes benchmarks/gpu.json, which the site's page on speed shows.

Training is the library's own, `boneage.training.core.fit`, at the sizes of the profile rsna, on made-up regions: what a step costs does not depend on what is in the pictures."""
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from benchmark import against_recipe, run_all, training_arrays, training_step
from determinism import difference
from determinism import fit as fit_small
from measure import Figure, machine, rows, time_interleaved
from torch import nn

from boneage.bone_age import grid
from boneage.datasets.profiles import load_profile
from boneage.training.core import ArrayLoader, FitJob, fit

SETTINGS = load_profile(Path(__file__).resolve().parent.parent/"reports"/"profiles"/"rsna.yaml").bone_age
BATCH = 64  # images; the profile's own, the recipe's, leave such a GPU half idle
RADIOGRAPHS = {"male": 6287, "female": 5313, "both": 11600}  # to train on, as the sexes are in the RSNA's set


def read_each_time(loader: ArrayLoader) -> ArrayLoader:
    "The same loader, reading from the computer's memory batch by batch as it does where the GPU has no room"
    other = replace(loader)
    other.__dict__["resident"] = None
    return other


def loading() -> list[Figure]:
    "The training loop fed by the loader against the same steps on tensors that lie ready, in turns"
    figures = []
    for batch, count in ((SETTINGS.batch_size, 512), (BATCH, 2048)):
        loader, network, config = training_arrays("rsna", count, next(iter(grid())), batch)
        step, ready, size = training_step(network), list(loader), "×".join(map(str, config["shape"]))
        def alone(batches): return lambda: ([None for _ in batches], torch.cuda.synchronize())
        slow = read_each_time(loader)
        took = time_interleaved(lambda: run_all(step, ready), lambda: run_all(step, loader), lambda: run_all(step, slow), alone(loader), alone(slow), repeats=3)
        ready = None
        figures += [Figure(f"training, {size}, batches of {batch}, regions on the GPU", count/took[1], "images/s", took[0]/took[1], "the same steps on tensors that lie ready"),
                    Figure(f"training, {size}, batches of {batch}, regions read batch by batch", count/took[2], "images/s", took[0]/took[2], "the same steps on tensors that lie ready"),
                    Figure(f"the loader alone, batches of {batch}, regions on the GPU", count/took[3], "images/s"), Figure(f"the loader alone, batches of {batch}, read batch by batch", count/took[4], "images/s")]
    return figures


def minutes_of(name, batch: int, count: int, folder: Path) -> tuple[float, float]:
    "Minutes that a model of the paper's size takes for all its epochs on 11,600 radiographs, and images a second; from a fit of two epochs on few, whose second is timed"
    loader, network, _ = training_arrays("rsna", count, name, batch)
    began = time.perf_counter()
    job = FitJob(folder, folder/f"{name}-{batch}.safetensors")
    history = fit(network, loader, None, nn.L1Loss(), replace(SETTINGS.schedule, epochs=2), job)
    between = (time.perf_counter() - began - history.seconds.sum())/2  # checkpoints, mostly
    each = history.seconds.iloc[-1]/count
    return SETTINGS.schedule.epochs*(RADIOGRAPHS[name.sex]*each + between)/60, 1/each


def whole_grid(folder: Path) -> list[Figure]:
    "The minutes of each of the 18 models, added up"
    found = {name: minutes_of(name, BATCH, 1024, folder) for name in grid()}
    rates = {region: [rate for name, (_, rate) in found.items() if name.region == region] for region in dict.fromkeys(name.region for name in found)}
    return [*(Figure(f"fitting models of the {region}, batches of {BATCH}", float(np.mean(rate)), "images/s") for region, rate in rates.items()),
            Figure(f"all 18 models, {SETTINGS.schedule.epochs} epochs of 11,600, batches of {BATCH}", sum(took for took, _ in found.values()), "minutes", note="each model's second epoch on few images, times what it would see")]


def same_numbers() -> list[dict]:
    "The comparisons of determinism.py that need a GPU"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first, gpu, again = fit_small(folder/"a"), fit_small(folder/"b", "cuda"), fit_small(folder/"c", "cuda")
    return [dict(what=what, **dict(zip(("weights", "months"), difference(*pair)))) for what, pair in (("a fit, twice on the GPU", (gpu, again)), ("a fit, on the CPU and on the GPU", (first, gpu)))]


def main():
    "Measure everything and write it down"
    if not torch.cuda.is_available(): sys.exit("There is no GPU here that PyTorch can use.")
    out, tables = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent/"gpu.json"), {}
    with tempfile.TemporaryDirectory() as name:
        for title, section in {"Training on a GPU": loading, "Against the co-author's later network, on a GPU": against_recipe, "The paper's grid on a GPU": lambda: whole_grid(Path(name))}.items():
            tables[title] = rows(section())
            out.write_text(json.dumps(dict(machine=machine(), tables=tables, determinism=same_numbers()), indent=1) + "\n")
            print(title, *tables[title], sep="\n  ", flush=True)


if __name__ == "__main__": main()
