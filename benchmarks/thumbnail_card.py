"""Write the numbers of a finished run of the profile `thumbnail` into the package, as one card.

    python benchmarks/thumbnail_card.py work/thumbnail

The card holds tables of errors and claims, the curves of the losses, and hours. It contains no radiograph, no
label and no id. The site's page "On all radiographs, at thumbnail size" shows it in every run.
"""
import argparse
import json
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from measure import PROJECT, compact_json, machine

from boneage.datasets.workspace import Workspace, data_fingerprint
from boneage.files import publish
from boneage.inference import allowed_cores
from boneage.networks import MONTHS
from boneage.paper.evaluation import ensemble_predictions, gather_predictions, score
from boneage.paper.learning_curve import fit_power_law

RESULT = PROJECT/"boneage"/"data"/"thumbnails.json"
TABLES = ("mae_table", "region_claims", "head_claims", "region_costs", "pooled_claims", "ablation_steps",
          "stages_mae", "stage_claims", "carpals_claims", "peak_claims", "stage_frequency",
          "claims_one_by_one", "learning_curve", "size_claims")


def count_radiographs(workspace: Workspace) -> dict:
    "Radiographs of each split, and those that could not be registered"
    cohort = workspace.read_table("cohort")
    registered = cohort.id.isin(pd.read_csv(workspace.root/"regions"/"ids.csv", dtype=str).id)
    counts = cohort[registered].groupby("split").size().to_dict()
    male = cohort[registered].groupby("split").sex.agg(lambda sex: (sex == "M").mean())
    return dict(all=len(cohort), left_out=int((~registered).sum()), fingerprint=data_fingerprint(cohort),
                share_of_boys=male.round(3).to_dict()) | {name: int(n) for name, n in counts.items()}


def loss_curves(workspace: Workspace) -> dict[str, dict]:
    "Training and validation error of each first fit after each epoch, months"
    curves = {}
    for file in sorted(workspace.models.glob("*-*-*-*/history.csv")):
        if file.parent.name.count("-") > 3: continue
        history = pd.read_csv(file)
        curves[file.parent.name] = {column: (history[f"{column}_loss"]*MONTHS/2).round(2).tolist()
                                    for column in ("train", "valid")}
    return curves


def hours_of(workspace: Workspace) -> dict[str, float]:
    "Hours of the fits, from their histories, and of the preprocessing, from its executed notebooks"
    fits = sum(pd.read_csv(file).seconds.sum() for file in workspace.models.glob("*/history.csv"))
    notebooks = sorted((workspace.root/"notebooks").glob("0[1-4]_*.ipynb"))
    steps = [json.loads(file.read_text())["metadata"]["papermill"]["duration"] for file in notebooks]
    return dict(fits=round(fits/3600, 2), preprocessing=round(sum(steps)/3600, 2))


def own_sex_errors(workspace: Workspace) -> list[dict]:
    "Errors where the ensemble of its own sex predicts each child, by head"
    ensembles = ensemble_predictions(gather_predictions(workspace.models, "validation"))
    return score(ensembles[ensembles.sex_model != "both"], by=("head",)).to_dict("records")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workspace", type=Path, help="folder of the finished run")
    parser.add_argument("--threads", type=int, default=allowed_cores(), help="threads of each fit")
    chosen = parser.parse_args()
    workspace = Workspace(chosen.workspace)
    profile = workspace.profile
    tables = {name: json.loads(workspace.read_table(f"results/{name}").to_json(orient="records"))
              for name in TABLES}
    ablation, table = workspace.read_result("ablation"), pd.DataFrame(tables["learning_curve"])
    law = fit_power_law(table, floor=len(table) > 5) if len(table) > 2 else None
    card = dict(
        made_with="python benchmarks/thumbnail_card.py work/thumbnail", machine=machine(),
        settings=json.loads(json.dumps(asdict(profile.bone_age))), seed=profile.seed,
        radiographs=count_radiographs(workspace), baseline=ablation["baseline"], ablation=ablation["mae"],
        law=asdict(law) if law else None, losses=loss_curves(workspace),
        hours=dict(hours_of(workspace), threads=chosen.threads),
        own_sex=own_sex_errors(workspace), tables=tables)
    with publish(RESULT) as file: file.write_text(compact_json(card) + "\n")
    print(f"Written to {RESULT}")


if __name__ == "__main__": main()
