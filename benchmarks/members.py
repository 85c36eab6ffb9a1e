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
its members; the ensemble is the released one at first. Each try is counted and listed, kept or not. The tries
"reduced alike", "thumbnails alone" and "combined labels" were added when those before them had been judged.

A try that passes is fitted once more with the seed of the release, and is kept only if it passes again. This
was added on 2026-11-29, after the second fit of "wrist, thumbnails alone" had gained less than the first.

Three more were stopped and are not in `TRIES`: the metacarpals after thumbnails with 30 epochs, after one
fold, whose MAE was 7.17 months against 6.91 of the released network; the wrist after thumbnails with 20
epochs, in the first fold; and the wrist at half the scale, fitted on the folds after the thumbnails, after
one fold, whose MAE was 8.35 months against 8.23 before. Fingers and carpals after thumbnails were not fitted.

Written down on 2026-11-29 before their first fit, to be tried on the metacarpals first, the region that
weighs most, and on other regions only if they gain there. Each continues the released networks for twelve
epochs: with as many thumbnails as radiographs in each epoch; with each radiograph mixed with that of a
child of the same sex and a similar age (C-Mixup); with both. C-Mixup was stopped after three folds (723
radiographs): in place of the released metacarpals, the ensemble gained -0.02 months (-0.12 to 0.07),
averaged with them 0.01 (-0.04 to 0.06). The fit with thumbnails was stopped after two folds (482
radiographs): in place of the released metacarpals -0.02 months (-0.17 to 0.13), averaged with them 0.04
(-0.03 to 0.12). The one with both was not made. So these are not in `TRIES`.

Also written down before their fit: three networks with new seeds for the wrist at half the scale, on the
thumbnails alone, averaged to one member. The two single networks before them gained 0.10 and 0.06 months,
and a mean of three errs less than one. The region and the scale were chosen by those two, so only fits with
new seeds count. This try is judged once, by the gate, without a second fit.

And a last one, written down before its fit: the first of these three networks for the wrist, fitted on the
folds for twelve epochs with as many thumbnails as radiographs in each epoch, so that it need not forget the
thumbnails. It was stopped after two folds (482 radiographs): alone, its MAE was 8.76 months against 8.43 of
the network before, and the ensemble gained 0.04 months (-0.09 to 0.17) against 0.11 (-0.04 to 0.26). The
numbers of these stopped fits come from a prototype that is not in this repository, so no command repeats
them.

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
from boneage.datasets.cohorts import used_rsna_ids
from boneage.datasets.preprocessing import read_regions, write_regions
from boneage.datasets.profiles import FineTuningSettings, change_settings, load_profile
from boneage.datasets.workspace import Workspace, open_workspace
from boneage.files import publish
from boneage.inference import MONTHS, SEX_OUTPUTS, NetworkInput
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
from boneage.training.thumbnails import combine_with_predictions, fit_on_thumbnails, read_thumbnails

RESULT = PROJECT/"boneage"/"data"/"members.json"
GAIN, STAGE_LOSS, STAGE_SIZE = 0.05, 0.3, 70  # months, months, radiographs: the gate
RELEASE = load_profile(PROJECT/"reports"/"profiles"/"release.yaml")
RELEASED, MAIN = ("hand", "carpals", "metacarpals"), "members"  # regions; name of the workspace
FURTHER = dict(scales=dict(wrist=0.3, fingers=0.174), stages=dict(wrist=5, fingers=5))
NOISE = dict(augmentation=dict(noise=0.03))
FINE_TUNED = dict(schedule=dict(epochs=12, learning_rate=4e-4), **NOISE)  # after the thumbnails
SECOND = dict(schedule=dict(epochs=12, learning_rate=4e-4))  # from the released networks
CORRECTING = ("low resolution", "metacarpals after thumbnails", "wrist after thumbnails")  # see `months_of`


@dataclass(frozen=True)
class Try:
    "A change of the ensemble"
    name: str
    region: str
    scale: float               # of the region, as in the released networks unless stated
    epochs: int = 0            # of the fit on thumbnails
    replaces: tuple = ()       # names of members that leave
    fine_tuned: dict|None = None  # changes of the settings for the fits on the folds; None: none
    start: str = ""            # name of an earlier try whose network on thumbnails is used
    second: bool = False       # whether it is the second fit of a try that passed
    alike: bool = False        # whether the radiographs are reduced to thumbnails, too
    combined: bool = False     # whether the released networks are fitted again, on combined labels
    fits: int = 0              # networks on thumbnails that are averaged, with seeds of their own; 0: one

    @property
    def slug(self) -> str:
        return self.name.replace(",", "").replace(" ", "-") + "-second"*self.second

    @property
    def seeds(self) -> list[int]:
        if not self.fits: return [RELEASE.seed*self.second]
        return [RELEASE.seed + RELEASE.fine_tuning.folds + fit for fit in range(self.fits)]  # as the release

    def log(self, line: str): print(self.name, line, flush=True)


def pretrained(region, scale, epochs, replaces=()):
    "A network fitted on the thumbnails, then on the folds"
    return Try(f"{region} after thumbnails", region, scale, epochs, replaces, FINE_TUNED)


TRIES = [
    Try("low resolution", "hand", 0.08, 12),
    Try("low resolution, reduced alike", "hand", 0.08, start="low resolution", alike=True),
    pretrained("metacarpals", 0.174, 5, ("metacarpals",)),
    pretrained("wrist", 0.3, 4),
    Try("wrist, thumbnails alone", "wrist", 0.3, start="wrist after thumbnails"),
    Try("wrist at half the scale, thumbnails alone", "wrist", 0.15, 14),
    Try("fingers at half the scale, thumbnails alone", "fingers", 0.1, 12),
    Try("metacarpals, again with combined labels", "metacarpals", 0.174, replaces=("metacarpals",),
        fine_tuned=SECOND, combined=True),
    Try("wrist at half the scale, thumbnails alone, mean of three", "wrist", 0.15, 14, fits=3),
]


def open_release(data: str, work: str, name: str, second: bool = False, **changes) -> Workspace:
    "A workspace with the profile `release` and other settings of the fine-tuning; all share their regions"
    profile = change_settings(RELEASE, dict(data=data, name=name, seed=RELEASE.seed + second,
                                            cohort=dict(phantoms=0, composites=0)))
    settings = change_settings(change_settings(profile.fine_tuning, FURTHER), changes)
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


def usable_thumbnails(run: Path) -> tuple[pd.DataFrame, list]:
    "Registered thumbnails that the release may be fitted on"
    return read_thumbnails(run, used_rsna_ids())


def find_try(name: str) -> Try: return next(each for each in TRIES if each.name == name)


def start_of(each: Try) -> Try:
    "The try whose network on thumbnails is used"
    return replace(find_try(each.start), second=each.second) if each.start else each


def start_folders(each: Try, workspace: Workspace) -> list[Path]:
    "Folders of the networks of a try that are fitted on thumbnails"
    each = start_of(each)
    folder = workspace.root/"thumbnails"/each.slug
    return [folder/str(fit) for fit in range(each.fits)] if each.fits else [folder]


def fit_start(each: Try, workspace: Workspace, run: Path) -> list[Path]:
    "Fit the networks of a try on the thumbnails; return their folders"
    each, folders = start_of(each), start_folders(each, workspace)
    for seed, folder in zip(each.seeds, folders):
        if (folder/"config.json").is_file(): continue
        job = FitJob(folder, folder/"checkpoint.safetensors", seed, log=each.log, stale="restart")
        thumbnails, settings = usable_thumbnails(run), change_settings(FineTuningSettings(), FURTHER)
        fit_on_thumbnails(thumbnails, each.region, each.epochs, settings, job, each.scale)
    return folders


def regions_of(each: Try, workspace: Workspace) -> np.ndarray:
    "The regions of the radiographs at the scale of a try, with a margin"
    settings = workspace.profile.fine_tuning
    stored, _ = read_regions(workspace.root/"ages"/"regions", "registered", each.region)
    if each.scale == settings.scales[each.region]: return stored
    height, width = region_matrix(each.region, each.scale, settings.margin)[1]
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in stored])


def regions_alike(each: Try, workspace: Workspace, radiographs: pd.DataFrame, run: Path) -> np.ndarray:
    "The regions of the radiographs, cut from their thumbnails where these were registered"
    images = regions_of(each, workspace).copy()
    found, contrasts = read_thumbnails(run)
    rows = pd.Index(radiographs.id).get_indexer(found.id)
    known, folder = rows >= 0, workspace.root/"thumbnails"/f"{each.slug}-alike"
    if not (folder/"ids.csv").is_file():
        contrasts = [contrast for contrast, own in zip(contrasts, known) if own]
        write_regions(found[known], contrasts, [("registered", each.region)], {each.region: each.scale},
                      workspace.profile.fine_tuning.margin, folder)
    images[rows[known]] = read_regions(folder, "registered", each.region)[0]
    return images


def predict(folder: Path, images: np.ndarray) -> np.ndarray:
    "Distributions (n, 3, 240) by the network in a folder"
    network, config = load_network(folder)
    return predict_distributions(network, images, config["shape"], NetworkInput.from_config(config).tta)


def distributions_of(each: Try, workspace: Workspace, radiographs: pd.DataFrame, run: Path) -> np.ndarray:
    "Out-of-fold distributions of a try (n, 3, 240); fits what is not fitted yet"
    folders = [weights_folder()] if each.combined else fit_start(each, workspace, run)
    if each.fine_tuned is None:
        images = (regions_alike(each, workspace, radiographs, run) if each.alike
                  else regions_of(each, workspace))
        return np.mean([predict(folder, images) for folder in folders], axis=0)
    fitted = workspace_of(each, workspace, folders[0])
    if not is_fitted(each, workspace):
        if each.combined: fit_again(each.region, fitted, radiographs,
                                    months_of(workspace, radiographs, run), weights_folder())
        else: cross_fit_ages(fitted, radiographs, each.log)
    return read_out_of_fold_distributions(fitted, radiographs, each.region)


def months_of(workspace: Workspace, radiographs: pd.DataFrame, run: Path) -> np.ndarray:
    "Predictions in months (k, n) of the networks that correct the labels, for the child's own sex"
    own = np.arange(len(radiographs)), radiographs.sex.map(SEX_OUTPUTS.index).to_numpy(int)
    alone = [replace(find_try(name), fine_tuned=None) for name in CORRECTING]
    return np.stack([distributions_of(each, workspace, radiographs, run)[own] @ np.arange(MONTHS)
                     for each in alone])


def fit_again(region: str, fitted: Workspace, radiographs: pd.DataFrame, predicted: np.ndarray,
              start: Path|None):
    "Fit networks on the labels combined with predictions, from those in a folder or as the settings state"
    images, profile = read_regions(fitted.root/"ages"/"regions", "registered", region)[0], fitted.profile
    for fold in range(profile.fine_tuning.folds):
        name, in_training = member_name(region, fold), (radiographs.fold != fold).to_numpy()
        combined = combine_with_predictions(radiographs, predicted, in_training)
        job = FitJob(fitted.models/name, fitted.root/"checkpoints"/f"{name}.safetensors", profile.seed + fold,
                     log=lambda line: print(region, line, flush=True), stale="restart",
                     initial=start and start/name)
        fine_tune(region, images, radiographs.assign(bone_age=combined), in_training,
                  profile.fine_tuning, job)


def workspace_of(each: Try, workspace: Workspace, start: Path) -> Workspace:
    "The workspace of the fits of a try on the folds"
    changes = dict(regions=(each.region,)) | each.fine_tuned
    if not each.combined: changes["start"] = str(start)
    return open_release(workspace.profile.data, str(workspace.root.parent), f"{MAIN}-{each.slug}",
                        each.second, **changes)


def is_fitted(each: Try, workspace: Workspace) -> bool:
    "Whether all networks of a try are there"
    last = workspace.root.parent/f"{MAIN}-{each.slug}"/"models"/member_name(each.region, 4)
    folders = [last] if each.fine_tuned is not None else []
    if not each.combined: folders += start_folders(each, workspace)
    return all((folder/"config.json").is_file() for folder in folders)


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
    parser.add_argument("--judge", action="store_true",
                        help="judge the tries that are fitted; keep the rows of the others")
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    workspace, radiographs = prepare(chosen.data, chosen.work)
    if chosen.only:
        distributions_of(find_try(chosen.only), workspace, radiographs, chosen.thumbnails)
        return
    kept = released_members(chosen.data, chosen.work, radiographs)
    values = dict(made_with="python benchmarks/members.py DATA work/thumbnail", date=machine()["date"],
                  radiographs=len(radiographs), thumbnails=len(usable_thumbnails(chosen.thumbnails)[0]),
                  released=judge(kept, kept, radiographs)["MAE"],
                  alone={name: alone(found, radiographs) for name, found in kept.items()}, tries=[])
    earlier = json.loads(RESULT.read_text())["tries"] if chosen.judge else []
    for each in TRIES:
        if chosen.judge and not is_fitted(each, workspace):
            values["tries"] += [row for row in earlier if row["name"] == each.name]
            continue
        found = distributions_of(each, workspace, radiographs, chosen.thumbnails)
        tried = exchange(kept, each, found)
        row = dict(name=each.name, replaces=list(each.replaces), alone=alone(found, radiographs),
                   **judge(kept, tried, radiographs), **({"fits": each.fits} if each.fits else {}))
        if row["kept"] and not each.fits:
            again = replace(each, second=True)
            found = distributions_of(again, workspace, radiographs, chosen.thumbnails)
            row["second"] = judge(kept, exchange(kept, again, found), radiographs)
            row["kept"] = row["second"]["kept"]
        if row["kept"]: kept = tried
        values["tries"].append(row)
        values["ensemble"] = list(kept)
        with publish(chosen.out) as file: file.write_text(json.dumps(values, indent=1) + "\n")
        print(pd.Series(row).to_string(), end="\n\n", flush=True)


if __name__ == "__main__": main()
