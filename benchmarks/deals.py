"""Error of averages over several assignments of radiographs to folds (deals), on the two small regions.

    python benchmarks/deals.py DATA --deals 3

The released system averages the networks of all folds, but cross-fitting measures one network per region: the
one that was fitted without the radiograph. With several deals, a radiograph is held out several times, and
the average of these networks can be measured, too. The recipe is that of the release, shortened for two
cores: half the resolution and twelve epochs. So the numbers show a difference, not the released system's
error. They are written to boneage/data/deals.json after each deal; they contain no radiograph and no label. A
stopped command continues.
"""
import argparse
import json
from dataclasses import replace

import numpy as np
import pandas as pd
from measure import PROJECT, machine

from boneage.assessment import load_assessor
from boneage.datasets.profiles import change_settings, load_profile
from boneage.datasets.workspace import Workspace, open_workspace
from boneage.files import publish
from boneage.paper.evaluation import mean_estimate
from boneage.paper.pipeline import make_cohort
from boneage.release.ages import (
    cross_fit_ages,
    cross_fit_ensemble,
    read_out_of_fold_distributions,
    write_age_regions,
)
from boneage.release.preprocessing import assess_held_out

RESULT = PROJECT/"boneage"/"data"/"deals.json"
REGIONS = ("carpals", "metacarpals")
SHORT = dict(regions=REGIONS, schedule=dict(epochs=12), batch_size=16)


def prepare(data: str, work: str, deals: int) -> tuple[Workspace, pd.DataFrame]:
    "Cohort and regions; masks and key points are those of the released networks"
    profile = load_profile(PROJECT/"reports"/"profiles"/"release.yaml", data=data)
    profile = change_settings(profile, dict(name="deals", cohort=dict(phantoms=0, composites=0)))
    scales = {region: scale/2 for region, scale in profile.fine_tuning.scales.items()}
    settings = change_settings(profile.fine_tuning, SHORT | dict(scales=scales, deals=deals))
    workspace = open_workspace(replace(profile, fine_tuning=settings), work)
    make_cohort(workspace)
    assess_held_out(workspace, [load_assessor(device="cpu")])
    return workspace, write_age_regions(workspace)


def absolute_errors(workspace: Workspace, radiographs: pd.DataFrame, deals: int) -> dict[str, np.ndarray]:
    "Out-of-fold absolute errors in months of each region and of both, averaged over the first deals"
    regions = [read_out_of_fold_distributions(workspace, radiographs, region, deals) for region in REGIONS]
    found = {region: cross_fit_ensemble(each[None], radiographs, (region,))
             for region, each in zip(REGIONS, regions)}
    found["both"] = cross_fit_ensemble(np.stack(regions), radiographs, REGIONS)
    return {name: (table.predicted - table.bone_age).abs().to_numpy() for name, table in found.items()}


def summarise(workspace: Workspace, radiographs: pd.DataFrame, deals: int) -> list[dict]:
    "MAE of each region with one deal and with the average over several, and the paired difference"
    one, several = (absolute_errors(workspace, radiographs, count) for count in (1, deals))
    return compare_errors(one, several, ("one_deal", "average"))


def compare_errors(before: dict, after: dict, names: tuple[str, str]) -> list[dict]:
    "Means of absolute errors by region under two names, and the paired gain with its 95 % interval"
    rows = []
    for region in before:
        means = [round(mean_estimate(errors[region]).value, 2) for errors in (before, after)]
        gain = mean_estimate(before[region] - after[region])
        rows.append(dict(regions=region, **dict(zip(names, means)), gain=round(gain.value, 2),
                         low=round(gain.low, 2), high=round(gain.high, 2)))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="folder of radiographs with a label table")
    parser.add_argument("--deals", type=int, default=3)
    parser.add_argument("--work", default=str(PROJECT/"work"))
    chosen = parser.parse_args()
    for deals in range(1, chosen.deals + 1):
        workspace, radiographs = prepare(chosen.data, chosen.work, deals)
        cross_fit_ages(workspace, radiographs, lambda line: print(line, flush=True))
        if deals == 1: continue
        values = dict(made_with="python benchmarks/deals.py DATA", date=machine()["date"], deals=deals,
                      folds=workspace.profile.fine_tuning.folds, radiographs=len(radiographs),
                      epochs=workspace.profile.fine_tuning.schedule.epochs,
                      errors=summarise(workspace, radiographs, deals))
        with publish(RESULT) as file: file.write_text(json.dumps(values, indent=1) + "\n")
        print(pd.DataFrame(values["errors"]).to_string(), flush=True)


if __name__ == "__main__": main()
