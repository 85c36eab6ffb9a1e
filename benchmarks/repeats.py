"""How much the bone age changes when the same radiograph is taken as another exposure would show it.

    python benchmarks/repeats.py DATA

DATA is a folder of radiographs with a label table; those that a released bone-age network was fitted on
are left out. Each is turned, reduced, brightened, darkened and given noise: 2 % of the range at a long side
of 1,000 pixels, and less in a smaller radiograph, because reducing averages noise away. From the bone ages
follows the smallest detectable change, the default of `boneage visits` and `boneage report`. A real second
exposure differs by more (position of the hand, device), so this is a lower bound. The numbers are written to
boneage/data/repeats.json; they contain no radiograph, label or id. A stopped command continues.
"""
import argparse
import json

import cv2
import numpy as np
import pandas as pd
from measure import PROJECT

from boneage.assessment import load_assessor, load_radiograph
from boneage.batches import describe_origin
from boneage.datasets.cohorts import load_cohort
from boneage.datasets.preprocessing import collect_rows
from boneage.files import publish
from boneage.geometry import rotation, warp
from boneage.visits import smallest_detectable_change


def variants(image: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    "The radiograph as it is, and as other exposures might show it"
    height, width = image.shape
    centre, deviation = ((width - 1)/2, (height - 1)/2), 0.02*min(1, max(image.shape)/1000)
    noise = np.random.default_rng(seed).normal(0, deviation, image.shape)
    def turned(angle): return warp(image, rotation(angle, centre), image.shape, float(np.median(image[:8])))
    reduced = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    made = {"as it is": image, "turned by 8° to the left": turned(-8), "turned by 8° to the right": turned(8),
            "reduced to 80 %": reduced, "brightened (exponent 0.8)": image**0.8,
            "darkened (exponent 1.25)": image**1.25,
            "noise (SD 2 % at 1,000 pixels)": np.clip(image + noise, 0, 1)}
    return {name: np.float32(each) for name, each in made.items()}


def summarise(table: pd.DataFrame) -> dict:
    "Smallest detectable change, and the change by each variant"
    known, own = table.dropna(), table.dropna()["as it is"]
    rows = [dict(variant=name, mean=round(float(change.mean()), 2), sd=round(float(change.std()), 2),
                 largest=round(float(change.abs().max()), 1))
            for name in known.columns[1:] for change in [known[name] - own]]
    change = smallest_detectable_change(known.to_numpy().tolist())
    return dict(radiographs=len(known), without_bone_age=len(table) - len(known),
                smallest_change=round(change, 2), variants=rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="folder of radiographs with a label table")
    chosen = parser.parse_args()
    cohort, assessor = load_cohort(chosen.data, problems=[]), load_assessor(device="cpu")
    fitted = pd.read_csv(PROJECT/"boneage"/"weights"/"fitted_on.csv", dtype=str).id
    cohort = cohort[~cohort.id.isin(fitted)].reset_index(drop=True)
    def assess(row):
        image = load_radiograph(cohort.path[row])
        return {name: assessor.assess(each, cohort.sex[row]).bone_age_months
                for name, each in variants(image, row).items()}
    part, origin = PROJECT/"work"/"repeats.part.jsonl", describe_origin(None, dict(data=chosen.data))
    table = collect_rows(cohort.id.tolist(), assess, part, origin, label="radiographs").drop(columns="id")
    found = dict(summarise(table), made_with=origin, command="python benchmarks/repeats.py DATA")
    with publish(PROJECT/"boneage"/"data"/"repeats.json") as file:
        file.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__": main()
