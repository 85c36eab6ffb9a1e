"""Speed on a GPU: `make bench WHAT=gpu` writes it to benchmarks/speed.json, and two fits to reliability.json.

Training is that of the library, `boneage.training.core.fit`, at the sizes of the profile rsna, on random
regions; the time of a step does not depend on the content of the images."""
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from benchmark import (
    PREPARED,
    compare_recipe,
    load_all,
    run_all,
    settings_of,
    training_arrays,
    training_step,
)
from measure import PROJECT, Figure, machine, rows, time_interleaved, write_section
from torch import nn

from boneage.bone_age import grid
from boneage.training.core import ArrayLoader, FitJob, fit

sys.path.insert(0, str(PROJECT/"tests"/"stress"))
from test_determinism import compare_fits, fit_small  # noqa: E402

SETTINGS = settings_of("rsna")
BATCH = 64  # images; the profile's own batches, those of the paper's code, leave such a GPU half idle
RADIOGRAPHS = {"male": 6287, "female": 5313, "both": 11600}  # to train on, as the sexes are in the RSNA's set


def without_residence(loader: ArrayLoader) -> ArrayLoader:
    "The same loader, reading batch by batch from the computer's memory as where the GPU has no room"
    other = replace(loader)
    other.__dict__["resident"] = None
    return other


def measure_loading() -> list[Figure]:
    "The training loop with its loader against the same steps on prepared tensors, in turns"
    figures = []
    for batch, count in ((SETTINGS.batch_size, 512), (BATCH, 2048)):
        loader, network, config = training_arrays("rsna", count, next(iter(grid())), batch)
        step, slow = training_step(network), without_residence(loader)
        size = "×".join(map(str, config["shape"]))
        calls = [*(partial(run_all, step, batches) for batches in (list(loader), loader, slow)),
                 partial(load_all, loader), partial(load_all, slow)]
        prepared, fed, fed_slowly, alone, alone_slowly = time_interleaved(*calls, repeats=3)
        training, resident, slowly = f"training, {size}", "regions on the GPU", "read batch by batch"
        figures += [
            Figure(f"{training}, batches of {batch}, {resident}", count/fed, "images/s", prepared/fed,
                   PREPARED),
            Figure(f"{training}, batches of {batch}, regions {slowly}", count/fed_slowly, "images/s",
                   prepared/fed_slowly, PREPARED),
            Figure(f"the loader alone, batches of {batch}, {resident}", count/alone, "images/s"),
            Figure(f"the loader alone, batches of {batch}, {slowly}", count/alone_slowly, "images/s")]
    return figures


def fitting_minutes(name, count: int, folder: Path) -> tuple[float, float]:
    "Minutes of all epochs on the paper's radiographs, and images a second: from a fit's second epoch on few"
    loader, network, _ = training_arrays("rsna", count, name, BATCH)
    began = time.perf_counter()
    job = FitJob(folder, folder/f"{name}-{BATCH}.safetensors")
    history = fit(network, loader, None, nn.L1Loss(), replace(SETTINGS.schedule, epochs=2), job)
    between = (time.perf_counter() - began - history.seconds.sum())/2  # checkpoints, mostly
    each = history.seconds.iloc[-1]/count
    return SETTINGS.schedule.epochs*(RADIOGRAPHS[name.sex]*each + between)/60, 1/each


def measure_grid() -> list[Figure]:
    "The minutes of the 18 models, added up"
    with tempfile.TemporaryDirectory() as folder:
        found = {name: fitting_minutes(name, 1024, Path(folder)) for name in grid()}
    figures = []
    for region in dict.fromkeys(name.region for name in found):
        rates = [rate for name, (_, rate) in found.items() if name.region == region]
        figures.append(Figure(f"fitting models of the {region}, batches of {BATCH}", float(np.mean(rates)),
                              "images/s"))
    what = f"all 18 models, {SETTINGS.schedule.epochs} epochs of 11,600, batches of {BATCH}"
    note = "each model's second epoch on few images, scaled to the paper's number of images"
    return [*figures, Figure(what, sum(minutes for minutes, _ in found.values()), "minutes", note=note)]


def measure_determinism() -> list[dict]:
    "Two fits on the GPU, and one on the CPU against one on the GPU"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = fit_small(folder/"a")
        gpu, again = (fit_small(folder/part, "cuda") for part in "bc")
    return [compare_fits("a fit, twice on the GPU", gpu, again),
            compare_fits("a fit, on the CPU and on the GPU", first, gpu)]


def main():
    "Measure everything and write it down"
    if not torch.cuda.is_available(): sys.exit("There is no GPU here that PyTorch can use.")
    tables = {}
    for title, section in {"Training on a GPU": measure_loading,
                           "Against the co-author's later network, on a GPU": compare_recipe,
                           "The paper's grid on a GPU": measure_grid}.items():
        tables[title] = rows(section())
        print(title, *tables[title], sep="\n  ", flush=True)
        write_section("speed", "gpu", dict(machine=machine(), tables=tables))
    write_section("reliability", "determinism_gpu", dict(machine=machine(), rows=measure_determinism()))


if __name__ == "__main__": main()
