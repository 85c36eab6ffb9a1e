"""How much thumbnails of 100×100 pixels increase the error, with the same radiographs and networks.

    python benchmarks/resolution.py DATA

DATA is a folder of radiographs with a label table, such as a sample of the RSNA's. The profile `thumbnail` is
run on it twice with one split: on thumbnails of the radiographs, and on the radiographs as they are. Inputs
and networks have the same sizes in both runs; only the resolution of the radiographs differs. The released
networks find masks and key points; they may have been fitted on these radiographs, in both runs alike. The
errors are compared on the held-out radiographs that both runs could register. They are written to
boneage/data/resolution.json after each fit of all regions, without radiographs, labels or ids. A stopped
command continues.
"""
import argparse
import json
from pathlib import Path

import pandas as pd
from measure import PROJECT, machine

from boneage.bone_age import REGION_NAMES, ModelName, repeat_models
from boneage.datasets.profiles import change_settings, load_profile
from boneage.datasets.workspace import Workspace, open_workspace
from boneage.files import publish
from boneage.paper import pipeline
from boneage.paper.evaluation import estimate_over_fits

RESULT = PROJECT/"boneage"/"data"/"resolution.json"
SIDES = {"thumbnails": 100, "radiographs": 0}  # pixels; 0: as they are
MODELS = [ModelName("registered", region, "both", "regression") for region in REGION_NAMES]
FITS = 3


def prepare(data: str, work: str, name: str, held_out: int, epochs: int) -> Workspace:
    "Preprocess the radiographs at one resolution"
    profile = load_profile(PROJECT/"reports"/"profiles"/"thumbnail.yaml", data=data)
    cohort = dict(train=0, validation=held_out, thumbnail=SIDES[name], new_held_out=False)
    recipe = dict(schedule=dict(epochs=epochs))
    profile = change_settings(profile, dict(name=f"resolution-{name}", cohort=cohort, bone_age=recipe,
                                            learning_curve=dict(radiographs=())))
    workspace = open_workspace(profile, work)
    if not (workspace.root/"regions"/"ids.csv").is_file():
        pipeline.make_cohort(workspace)
        pipeline.segment_cohort(workspace)
        pipeline.run_registration_step(workspace)
        pipeline.write_cohort_regions(workspace)
    return workspace


def errors_of(workspace: Workspace, model: ModelName) -> pd.Series:
    "Absolute errors of the held-out radiographs, months"
    table = pd.read_csv(workspace.models/str(model)/"predictions.csv", dtype={"id": str}).set_index("id")
    return (table.predicted - table.bone_age).abs()


def compare(workspaces: dict[str, Workspace], fits: int) -> list[dict]:
    "MAE of each region at both resolutions, and the paired difference, over the first fits"
    rows = []
    for model in MODELS:
        pairs = [pd.concat({name: errors_of(workspace, each) for name, workspace in workspaces.items()},
                           axis=1, join="inner") for each in repeat_models([model], fits)]
        numbers = {name: estimate_over_fits([pair[name] for pair in pairs]).value for name in SIDES}
        gain = estimate_over_fits([pair.thumbnails - pair.radiographs for pair in pairs])
        rows.append(dict(region=model.region, **{name: round(value, 2) for name, value in numbers.items()},
                         difference=round(gain.value, 2), low=round(gain.low, 2), high=round(gain.high, 2),
                         held_out=gain.n))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="folder of radiographs with a label table")
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--fits", type=int, default=FITS)
    parser.add_argument("--work", default="work")
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    workspaces = {name: prepare(chosen.data, chosen.work, name, chosen.held_out, chosen.epochs)
                  for name in SIDES}
    for fits in range(1, chosen.fits + 1):
        for workspace in workspaces.values():
            for model in repeat_models(MODELS, fits):
                if not (workspace.models/str(model)/"predictions.csv").is_file():
                    pipeline.train_model(workspace, model)
                    print(workspace.root.name, model, flush=True)
        values = dict(made_with="python benchmarks/resolution.py DATA", date=machine()["date"], fits=fits,
                      epochs=chosen.epochs, held_out=chosen.held_out, errors=compare(workspaces, fits))
        with publish(chosen.out) as file: file.write_text(json.dumps(values, indent=1) + "\n")
    print(pd.DataFrame(values["errors"]).to_string())


if __name__ == "__main__": main()
