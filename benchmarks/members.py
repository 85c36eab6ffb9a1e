"""Which networks join the released ensemble: every try, judged by one gate.

    python benchmarks/members.py DATA work/thumbnail

DATA is the folder of radiographs that the released networks were fitted on, with its label table.
`work/thumbnail` is a run of the profile `thumbnail`: its thumbnails, masks and registrations are used. No
thumbnail of a radiograph in DATA is used, and none of the 109 radiographs on which the card measures the
released system. So one network fitted on thumbnails serves all folds, and the 109 stay new.

The gate was written down on 2026-11-29, before the first fit, and is kept. It uses all registered radiographs
of DATA, the five folds of the release, out-of-fold predictions and cross-fitted weights. A try stays in the
ensemble if the ensemble's MAE falls by at least 0.05 months with a 95 % interval (paired, over radiographs)
above zero, and if no stage of development with 70 or more radiographs loses more than 0.3 months. The tries
are made in the order of `TRIES`. Each is added to the ensemble of those kept so far, or exchanged for some of
its members; the ensemble is the released one at first. Each try is counted and listed, kept or not.

Masks and key points come from the released networks, which were fitted on DATA, on both sides alike. Results
go to boneage/data/members.json after each try, without radiographs, labels or ids. A stopped command
continues; `--only NAME` fits one try and judges nothing, so that two can be fitted side by side.
"""
import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from measure import PROJECT, machine

from boneage.assessment import load_assessor, weights_folder
from boneage.contrast import Contrast
from boneage.datasets.preprocessing import MATRIX_COLUMNS, read_regions, write_regions
from boneage.datasets.profiles import FineTuningSettings, change_settings, load_profile
from boneage.datasets.workspace import Workspace, open_workspace
from boneage.files import publish
from boneage.inference import NetworkInput
from boneage.networks import load_network
from boneage.paper.evaluation import add_stage, mae_difference, mean_absolute_error
from boneage.paper.pipeline import make_cohort
from boneage.registration import region_matrix
from boneage.release.ages import (
    cross_fit_ages,
    cross_fit_ensemble,
    member_name,
    predict_ages_again,
    read_out_of_fold_distributions,
    write_age_regions,
)
from boneage.release.preprocessing import assess_held_out
from boneage.training.core import FitJob
from boneage.training.fine_tuning import fine_tune, predict_distributions

RESULT = PROJECT/"boneage"/"data"/"members.json"
GAIN, STAGE_LOSS, STAGE_SIZE = 0.05, 0.3, 70  # months, months, radiographs: the gate
RELEASED, MAIN = ("hand", "carpals", "metacarpals"), "members"  # regions; name of the workspace
NOISE = dict(augmentation=dict(noise=0.03))
FINE_TUNED = dict(schedule=dict(epochs=12, learning_rate=4e-4), **NOISE)  # after the thumbnails
LONG = dict(schedule=dict(epochs=30), **NOISE)  # added when the short fits on the folds had lost


@dataclass(frozen=True)
class Try:
    "A change of the ensemble"
    name: str
    region: str
    scale: float               # of the region, as in the released networks unless stated
    on_thumbnails: dict        # changes of the settings for the fit on thumbnails
    replaces: tuple = ()       # names of members that leave
    fine_tuned: dict|None = None  # changes of the settings for the fits on the folds; None: none
    start: str = ""            # name of an earlier try whose network on thumbnails is used

    @property
    def slug(self) -> str: return self.name.replace(",", "").replace(" ", "-")

    def log(self, line: str): print(self.name, line, flush=True)


def pretrained(region, scale, epochs, replaces=()):
    "A network fitted on the thumbnails, then on the folds"
    return Try(f"{region} after thumbnails", region, scale, dict(schedule=dict(epochs=epochs), **NOISE),
               replaces, FINE_TUNED)


TRIES = [
    Try("low resolution", "hand", 0.08, dict(schedule=dict(epochs=12), **NOISE)),
    pretrained("metacarpals", 0.174, 5, ("metacarpals",)),
    Try("metacarpals after thumbnails, long", "metacarpals", 0.174, {}, ("metacarpals",), LONG,
        "metacarpals after thumbnails"),
    pretrained("wrist", 0.3, 4),
    pretrained("fingers", 0.174, 5),
    pretrained("carpals", 0.224, 5, ("carpals",)),
]


def open_release(data: str, work: str, name: str, **changes) -> Workspace:
    "A workspace with the profile `release` and other settings of the fine-tuning; all share their regions"
    profile = load_profile(PROJECT/"reports"/"profiles"/"release.yaml", data=data)
    profile = change_settings(profile, dict(name=name, cohort=dict(phantoms=0, composites=0)))
    settings = change_settings(profile.fine_tuning, changes)
    workspace = open_workspace(replace(profile, fine_tuning=settings), work)
    shared = workspace.root/"ages"
    if name != MAIN and not shared.exists(): shared.symlink_to(Path(work).absolute()/MAIN/"ages")
    return workspace


def prepare(data: str, work: str) -> tuple[Workspace, pd.DataFrame]:
    "The radiographs with masks, key points and all regions"
    regions = tuple(dict.fromkeys([*RELEASED, *(each.region for each in TRIES)]))
    workspace = open_release(data, work, MAIN, regions=regions)
    if not (workspace.root/"held_out.csv").is_file():
        make_cohort(workspace)
        assessor = load_assessor(device="cpu")
        assessor.rules = {}  # masks and key points are enough
        assess_held_out(workspace, [assessor])
    return workspace, write_age_regions(workspace)


def released_members(data: str, work: str, radiographs: pd.DataFrame) -> dict[str, np.ndarray]:
    "Out-of-fold distributions of the released networks, by region"
    workspace = open_release(data, work, f"{MAIN}-released", regions=RELEASED)
    last = workspace.models/member_name(RELEASED[-1], workspace.profile.fine_tuning.folds - 1)
    if not (last/"config.json").is_file(): predict_ages_again(workspace, radiographs, weights_folder())
    return {region: read_out_of_fold_distributions(workspace, radiographs, region) for region in RELEASED}


def read_thumbnails(run: Workspace) -> tuple[pd.DataFrame, list[Contrast]]:
    "Registered thumbnails that the release may be fitted on, with files, labels and contrast"
    used = pd.read_csv(PROJECT/"boneage"/"data"/"rsna_used.csv", dtype={"id": str}).id
    _, ids = read_regions(run.root/"regions", "registered", "hand")
    def table(name, *columns):
        return pd.read_csv(run.root/f"{name}.csv", dtype={"id": str})[["id", *columns]]
    found = (table("cohort", "sex", "bone_age").merge(table("contrast", "inverted", "low", "high"))
             .merge(table("registration", "height", "width", *MATRIX_COLUMNS)))
    found = found[found.id.isin(ids) & ~found.id.isin(used)].reset_index(drop=True)
    found["path"] = [str(run.root/"thumbnails"/f"{each}.png") for each in found.id]
    found["mask"] = [str(run.root/"masks"/f"{each}.png") for each in found.id]
    return found, [Contrast(bool(row.inverted), row.low, row.high) for row in found.itertuples()]


def fit_on_thumbnails(each: Try, workspace: Workspace, run: Workspace) -> Path:
    "Fit the network of a try on the thumbnails; return its folder"
    if each.start: each = next(earlier for earlier in TRIES if earlier.name == each.start)
    folder = workspace.root/"thumbnails"/each.slug
    if (folder/"config.json").is_file(): return folder
    found, contrasts = read_thumbnails(run)
    changes = dict(scales={each.region: each.scale}) | each.on_thumbnails
    settings = change_settings(FineTuningSettings(), changes)
    regions = folder/"regions"
    if not (regions/"ids.csv").is_file():
        wanted = [("registered", each.region)]
        write_regions(found, contrasts, wanted, settings.scales, settings.margin, regions)
    images, _ = read_regions(regions, "registered", each.region)
    job = FitJob(folder, folder/"checkpoint.safetensors", log=each.log, stale="restart")
    fine_tune(each.region, images, found, np.ones(len(found), bool), settings, job)
    return folder


def regions_of(each: Try, workspace: Workspace) -> np.ndarray:
    "The regions of the radiographs at the scale of a try, with a margin"
    settings = workspace.profile.fine_tuning
    stored, _ = read_regions(workspace.root/"ages"/"regions", "registered", each.region)
    if each.scale == settings.scales[each.region]: return stored
    height, width = region_matrix(each.region, each.scale, settings.margin)[1]
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in stored])


def distributions_of(each: Try, workspace: Workspace, radiographs: pd.DataFrame, run: Workspace):
    "Out-of-fold distributions of a try (n, 3, 240); fits what is not fitted yet"
    folder, profile = fit_on_thumbnails(each, workspace, run), workspace.profile
    if each.fine_tuned is None:
        network, config = load_network(folder)
        tta = NetworkInput.from_config(config).tta
        return predict_distributions(network, regions_of(each, workspace), config["shape"], tta)
    changes = dict(regions=(each.region,), start=str(folder)) | each.fine_tuned
    fitted = open_release(profile.data, str(workspace.root.parent), f"{MAIN}-{each.slug}", **changes)
    cross_fit_ages(fitted, radiographs, each.log)
    return read_out_of_fold_distributions(fitted, radiographs, each.region)


def judge(kept: dict, tried: dict, radiographs: pd.DataFrame) -> dict:
    "Compare two ensembles, out-of-fold distributions by name of the member, by the gate"
    before, after = (cross_fit_ensemble(np.stack(list(each.values())), radiographs, tuple(each))
                     for each in (kept, tried))
    gain = mae_difference(before.bone_age, before.predicted, after.predicted.to_numpy())
    errors = add_stage(before.assign(lost=(after.predicted - after.bone_age).abs()
                                     - (before.predicted - before.bone_age).abs()))
    stages = errors.groupby("stage", observed=True).lost.agg(["mean", "size"])
    worst = stages[stages["size"] >= STAGE_SIZE]["mean"].max()
    passed = gain.value >= GAIN and gain.low > 0 and worst <= STAGE_LOSS
    return dict(MAE=round(mean_absolute_error(after.bone_age, after.predicted).value, 3),
                gain=round(gain.value, 3), low=round(gain.low, 3), high=round(gain.high, 3),
                worst_stage_loses=round(float(worst), 3), kept=bool(passed))


def exchange(kept: dict, each: Try, distributions: np.ndarray) -> dict:
    "The members after a try"
    rest = {name: found for name, found in kept.items() if name not in each.replaces}
    return rest | {each.name: distributions}


def alone(distributions: np.ndarray, radiographs: pd.DataFrame) -> float:
    "MAE of one member, months"
    table = cross_fit_ensemble(distributions[None], radiographs, ("alone",))
    return round(mean_absolute_error(table.bone_age, table.predicted).value, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="folder of radiographs with a label table")
    parser.add_argument("thumbnails", type=Path, help="folder of a run of the profile thumbnail")
    parser.add_argument("--work", default=str(PROJECT/"work"))
    parser.add_argument("--only", help="fit this try and stop", choices=[each.name for each in TRIES])
    parser.add_argument("--prepare", action="store_true", help="make the regions and stop")
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    workspace, radiographs = prepare(chosen.data, chosen.work)
    run = Workspace(chosen.thumbnails.absolute())
    if chosen.prepare: return
    if chosen.only:
        each = next(each for each in TRIES if each.name == chosen.only)
        distributions_of(each, workspace, radiographs, run)
        return
    kept = released_members(chosen.data, chosen.work, radiographs)
    released = judge(kept, kept, radiographs)["MAE"]
    rows = [dict(name=name, alone=alone(found, radiographs)) for name, found in kept.items()]
    for each in TRIES:
        found = distributions_of(each, workspace, radiographs, run)
        tried = exchange(kept, each, found)
        rows.append(dict(name=each.name, replaces=list(each.replaces), alone=alone(found, radiographs),
                         **judge(kept, tried, radiographs)))
        if rows[-1]["kept"]: kept = tried
        values = dict(made_with="python benchmarks/members.py DATA work/thumbnail", date=machine()["date"],
                      radiographs=len(radiographs), thumbnails=len(read_thumbnails(run)[0]),
                      tries=len(TRIES), released=released, ensemble=list(kept), members=rows)
        with publish(chosen.out) as file: file.write_text(json.dumps(values, indent=1) + "\n")
        print(pd.DataFrame(rows).to_string(), flush=True)


if __name__ == "__main__": main()
