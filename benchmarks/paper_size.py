"""Fit one regression and one classification network at the paper's input size on real radiographs.

python benchmarks/paper_size.py DATA --epochs 20

The settings are those of `bone_age` in reports/profiles/rsna.yaml: the registered whole hand at 500×375
pixels, both sexes; epochs and learning-rate policy can be changed. A killed or timed-out command continues
from the last epoch. The curves are written to boneage/data/paper_size.json after each epoch; they contain no
radiograph and no label.
"""
import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from boneage.assessment import load_assessor
from boneage.bone_age import ModelName
from boneage.datasets.preprocessing import read_regions, write_regions
from boneage.datasets.profiles import change_settings, load_profile
from boneage.datasets.workspace import open_workspace
from boneage.files import publish
from boneage.inference import MONTHS
from boneage.paper.pipeline import make_cohort
from boneage.release.ages import _contrasts, _registered_radiographs
from boneage.release.preprocessing import assess_held_out
from boneage.training.bone_age import fit_bone_age
from boneage.training.core import FitJob, read_checkpoint

PROFILES = Path(__file__).resolve().parent.parent/"reports"/"profiles"
RESULT = Path(__file__).resolve().parent.parent/"boneage"/"data"/"paper_size.json"
HEADS = ("classification", "regression")


class Stop(Exception):
    "Ends a fit after an epoch"


def prepare(data: str, work: str) -> tuple[pd.DataFrame, np.ndarray]:
    "Cohort and regions of registered whole hands, by the released networks for masks and key points"
    profile = replace(load_profile(PROFILES/"release.yaml", data=data), name="paper_size")
    workspace = open_workspace(profile, work)
    make_cohort(workspace)
    assess_held_out(workspace, [load_assessor(device="cpu")])
    radiographs, settings = _registered_radiographs(workspace), load_profile(PROFILES/"rsna.yaml").bone_age
    folder, hand = workspace.root/"regions", [("registered", "hand")]
    if not (folder/"ids.csv").is_file():
        write_regions(radiographs, _contrasts(radiographs), hand, settings.scales, settings.margin, folder)
    split = np.where(radiographs.split == "train", "train", "validation")
    cohort = radiographs[["id", "sex", "bone_age"]].assign(split=split)
    return cohort, read_regions(folder, *hand[0])[0]


def months(history: list[dict]) -> dict[str, list[float]]:
    "Training and validation error of each epoch, months"
    table = pd.DataFrame(history)
    return {"training": (table.train_loss * MONTHS/2).round(2).tolist(),
            "validation": table.mae_months.round(2).tolist()}


def describe(cohort: pd.DataFrame) -> dict:
    "What was measured on what, and the error of the baseline"
    fitted, held_out = (cohort[cohort.split == part].bone_age for part in ("train", "validation"))
    return dict(data=f"{len(fitted):,} radiographs of the RSNA 2017 training set to fit on, {len(held_out)} "
                     "held out; masks and key points by the released networks, which were fitted on all of "
                     "them",
                command="python benchmarks/paper_size.py DATA",
                baseline=round(float((held_out - fitted.median()).abs().mean()), 2))


def fit_head(head: str, cohort: pd.DataFrame, regions: np.ndarray, options: argparse.Namespace, end: float):
    "Fit one network until its schedule ends or the time is up; write its curve"
    root, key = Path(options.work)/"paper_size", f"{head}, {options.policy}"
    checkpoint, schedule = root/f"{head}-{options.policy}.safetensors", dict(epochs=options.epochs)
    settings = load_profile(PROFILES/"rsna.yaml").bone_age
    settings = change_settings(settings, dict(schedule=schedule | dict(policy=options.policy)))

    def after_epoch(line: str):
        print(f"{key}: {line}", flush=True)
        curves = months(read_checkpoint(checkpoint).history)
        found = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
        fits = found.get("fits", {}) | {key: curves | dict(epochs=options.epochs)}
        with publish(RESULT) as path:
            path.write_text(json.dumps(describe(cohort) | dict(fits=fits), indent=1) + "\n")
        if time.time() > end: raise Stop

    name = ModelName("registered", "hand", "both", head)
    job = FitJob(root/"models"/f"{name}-{options.policy}", checkpoint, 2018, log=after_epoch)
    try: fit_bone_age(name, regions, cohort, settings, job)
    except Stop: pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder of radiographs, such as the sample")
    parser.add_argument("--work", default="work")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--policy", choices=("one-cycle", "constant"), default="one-cycle")
    parser.add_argument("--minutes", type=float, default=240)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    start, (table, arrays) = time.time(), prepare(chosen.data, chosen.work)
    for one in chosen.heads: fit_head(one, table, arrays, chosen, start + 60*chosen.minutes)
