"What a cohort of a given size takes, in time and memory: preprocessing with tiny networks (so that what is measured is the library's own share), one epoch of a tiny fit, and scoring"
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from measure import peak_memory

from boneage.bone_age import ModelName
from boneage.datasets.preprocessing import (
    map_in_parallel,
    measure_radiograph,
    read_regions,
    register_cohort,
    write_masks,
    write_regions,
)
from boneage.datasets.profiles import load_profile
from boneage.networks import build_network
from boneage.paper.evaluation import SCHEMA, score
from boneage.synthetic.phantoms import write_phantoms
from boneage.training.bone_age import fit_bone_age
from boneage.training.core import FitJob

PROJECT = Path(__file__).resolve().parent.parent
RADIOGRAPHS = 50  # different ones; a larger cohort shows them again and again, so that making them does not count


def main(size: int):
    "Print name, value and unit of each figure as JSON"
    profile, found = load_profile(PROJECT/"reports"/"profiles"/"smoke.yaml"), []
    with tempfile.TemporaryDirectory() as name:
        folder = write_phantoms(Path(name)/"phantoms", RADIOGRAPHS, 5, shape=(256, 200), workers=1)
        pictures = sorted((folder/"boneage-training-dataset").glob("*.png"))
        cohort = pd.DataFrame(dict(id=[f"{i:06}" for i in range(size)], path=[str(pictures[i % len(pictures)]) for i in range(size)]))
        unet = dict(network="UNet", width=4, depth=3, network_input=dict(shape=[64, 48], passes=1))
        points = dict(network="KeyPointNetwork", shape=[65, 50], widths=[8, 8, 16], hidden=[32, 16], network_input=dict(passes=1))
        began = time.perf_counter()
        masks = write_masks(cohort, build_network(unet).eval(), unet, Path(name)/"masks")
        radiographs = cohort.merge(masks[["id", "mask"]], on="id")
        measures = [each for _, each in map_in_parallel(lambda row: measure_radiograph(*row), list(zip(radiographs.path, radiographs["mask"])))]
        contrasts = [each.contrast for each in measures]
        registered = register_cohort(radiographs, contrasts, (build_network(points).eval(), points), None, Path(name)/"registration.part.jsonl")
        write_regions(radiographs.merge(registered, on="id"), contrasts, [("registered", "hand")], profile.bone_age.scales, profile.bone_age.margin, Path(name)/"regions")
        found += [("preprocessing", time.perf_counter() - began, "s"), ("largest memory after it", peak_memory(), "GB")]
        images, ids = read_regions(Path(name)/"regions", "registered", "hand")
        random, began = np.random.default_rng(0), time.perf_counter()
        ages, sexes, split = random.uniform(12, 216, size), np.where(np.arange(size) % 2, "M", "F"), np.where(np.arange(size) % 5, "train", "validation")
        labels = pd.DataFrame(dict(id=ids, sex=sexes, bone_age=ages, split=split))
        model, job = ModelName("registered", "hand", "both", "regression"), FitJob(Path(name)/"model", Path(name)/"fit.safetensors")
        predictions = fit_bone_age(model, images, labels, profile.bone_age, job)
        found += [("fitting for one epoch", time.perf_counter() - began, "s")]
        began = time.perf_counter()
        score(predictions.assign(model="m", input="registered", region="hand", sex_model="both", head="regression")[list(SCHEMA)], by=("sex",))
        found += [("scoring its predictions", time.perf_counter() - began, "s"), ("largest memory in all", peak_memory(), "GB")]
    print(json.dumps(found))


if __name__ == "__main__": main(int(sys.argv[1]))
