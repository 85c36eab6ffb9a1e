"""How well the ratio of a thumbnail's sides is estimated from the proportions of the hand.

    python benchmarks/side_ratio.py DATA [DATA …]

DATA are folders of radiographs with their true sides. Each radiograph is reduced to a thumbnail and enlarged
with the median ratio; the released networks find mask and key points. The distributions of the proportions
are fitted on hands with the true ratio. The error of the estimate is measured in five folds, with
distributions fitted on the other four. Both are written to boneage/data/hand_proportions.json, which holds no
radiograph, no label and no id. A stopped command continues.
"""
import argparse
import json
import zlib
from base64 import b64decode, b64encode
from pathlib import Path

import numpy as np
import pandas as pd
from measure import PROJECT, machine

from boneage.assessment import weights_folder
from boneage.contrast import measure_contrast
from boneage.datasets.cohorts import load_cohort
from boneage.datasets.preprocessing import collect_rows
from boneage.datasets.thumbnails import (
    RATIO,
    ProportionModel,
    enlarge_thumbnail,
    estimate_ratio,
    hand_proportions,
    make_thumbnail,
    stretch,
)
from boneage.files import publish
from boneage.keypoints import detect_key_points
from boneage.networks import load_network
from boneage.radiographs import read_radiograph
from boneage.registration import registration_confidence
from boneage.segmentation import segment

RESULT = PROJECT/"boneage"/"data"/"hand_proportions.json"
PLAUSIBLE = 0.5  # hands with a lower confidence of the registration at the true ratio are left out
FOLDS = 5


def pack(mask: np.ndarray) -> str: return b64encode(zlib.compress(np.packbits(mask).tobytes())).decode()


def unpack(text: str, shape) -> np.ndarray:
    return np.unpackbits(np.frombuffer(zlib.decompress(b64decode(text)), np.uint8),
                         count=int(np.prod(shape))).reshape(shape).astype(bool)


def detect(paths: list[str], ids: list[str], part: Path) -> pd.DataFrame:
    "Mask and key points of each thumbnail at the median ratio, and the true ratio"
    segmentation, key_points = (load_network(weights_folder()/name) for name in ("segmentation", "keypoints"))
    def row(position):
        image = read_radiograph(paths[position])
        large = enlarge_thumbnail(make_thumbnail(image))
        mask = segment(large, *segmentation).mask
        if not mask.any(): return dict(ratio=image.shape[1]/image.shape[0], points=None, mask=None)
        found = detect_key_points(large, mask, measure_contrast(large, mask), *key_points)
        return dict(ratio=image.shape[1]/image.shape[0], points=found.points.tolist(), mask=pack(mask))
    return collect_rows(ids, row, part, "side ratio")


def with_true_ratio(row) -> tuple[np.ndarray, float]:
    "Proportions of a hand with its true ratio, and the confidence of its registration"
    shape = 400, round(400*RATIO)
    mask, points, stretched = unpack(row.mask, shape), np.array(row.points), row.ratio/RATIO
    wide = stretch(mask, (400, round(400*row.ratio)))
    confidence = registration_confidence((points + 0.5)*[stretched, 1] - 0.5, wide)
    try: return hand_proportions(points, mask, stretched), confidence
    except ValueError: return np.full(13, np.nan), 0.0


def estimate(row, model: ProportionModel) -> float:
    mask = unpack(row["mask"], (400, round(400*RATIO)))
    try: return estimate_ratio(np.array(row["points"]), mask, model)
    except ValueError: return RATIO


def summarise(errors: np.ndarray) -> dict:
    "Errors of log(width/height), in per cent"
    per_cent = 100*np.abs(np.expm1(errors))
    values = dict(bias=100*np.expm1(errors.mean()), median=np.median(per_cent),
                  percentile_90=np.percentile(per_cent, 90), percentile_99=np.percentile(per_cent, 99))
    return {name: round(float(value), 2) for name, value in values.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="+", help="folders of radiographs, each with its label table")
    parser.add_argument("--work", type=Path, default=PROJECT/"work"/"side_ratio")
    chosen = parser.parse_args()
    cohort = pd.concat([load_cohort(folder, problems=[]) for folder in chosen.data]).drop_duplicates("id")
    found = detect(cohort.path.tolist(), cohort.id.tolist(), chosen.work/"found.jsonl")
    found = found[found.points.notna()].reset_index(drop=True)
    true = [with_true_ratio(row) for row in found.itertuples()]
    proportions = np.array([row[0] for row in true])
    plausible = np.array([row[1] for row in true]) > PLAUSIBLE
    fold = np.random.default_rng(0).permutation(len(found)) % FOLDS
    estimates = np.zeros(len(found))
    for part in range(FOLDS):
        rows = (fold != part) & plausible
        model = ProportionModel.fit(proportions[rows], found.ratio[rows])
        for row in np.flatnonzero(fold == part): estimates[row] = estimate(found.iloc[row], model)
    log_true, model = np.log(found.ratio), ProportionModel.fit(proportions[plausible], found.ratio[plausible])
    errors = dict(estimated=summarise(np.log(estimates) - log_true),
                  always_the_median=summarise(np.full(len(found), np.log(RATIO)) - log_true))
    values = dict(
        made_with="python benchmarks/side_ratio.py DATA", date=machine()["date"], radiographs=len(cohort),
        without_hand=len(cohort) - len(found), fitted_on=int(plausible.sum()), folds=FOLDS,
        error_per_cent=errors, model=dict(
            mean=model.mean.round(2).tolist(), precision=model.precision.round(9).tolist(),
            log_ratio=round(model.log_ratio, 4), log_ratio_sd=round(model.log_ratio_sd, 4)))
    with publish(RESULT) as file: file.write_text(json.dumps(values, indent=1) + "\n")
    print(json.dumps({key: value for key, value in values.items() if key != "model"}, indent=1))


if __name__ == "__main__": main()
