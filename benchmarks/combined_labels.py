"""What labels combined with predictions bring, in short fits on the two small regions.

    python benchmarks/combined_labels.py DATA work/thumbnail

DATA is the folder of radiographs that the released networks were fitted on, with its label table;
`work/thumbnail` is a run of the profile `thumbnail`. Three networks fitted on the thumbnails of other
children predict the radiographs of DATA (`CORRECTING` in members.py). The networks of five folds are fitted
twice, with the same seeds: on the labels, and on the labels combined with these predictions. The recipe is
that of deals.py: half the resolution, twelve epochs. Both are measured on the held-out radiographs against
their labels. Masks and key points come from the released networks, which were fitted on DATA, on both sides
alike. The result goes to boneage/data/combined_labels.json. A stopped command continues.
"""
import argparse
import json
from dataclasses import replace
from pathlib import Path

import deals
import members
from measure import PROJECT, machine

from boneage.datasets.workspace import open_workspace
from boneage.files import publish
from boneage.release.ages import cross_fit_ages

RESULT = PROJECT/"boneage"/"data"/"combined_labels.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="folder of radiographs with a label table")
    parser.add_argument("thumbnails", type=Path, help="folder of a run of the profile thumbnail")
    parser.add_argument("--work", default=str(PROJECT/"work"))
    chosen = parser.parse_args()
    predicted = members.months_of(*members.prepare(chosen.data, chosen.work), chosen.thumbnails)
    workspace, radiographs = deals.prepare(chosen.data, chosen.work, 1)
    cross_fit_ages(workspace, radiographs, lambda line: print(line, flush=True))
    again = open_workspace(replace(workspace.profile, name="combined-labels"), chosen.work)
    if not (again.root/"ages").exists(): (again.root/"ages").symlink_to(workspace.root.absolute()/"ages")
    for region in deals.REGIONS: members.fit_again(region, again, radiographs, predicted, None)
    before, after = (deals.absolute_errors(each, radiographs, 1) for each in (workspace, again))
    rows = deals.compare_errors(before, after, ("labels", "combined"))
    settings = workspace.profile.fine_tuning
    values = dict(made_with="python benchmarks/combined_labels.py DATA work/thumbnail",
                  date=machine()["date"], radiographs=len(radiographs), folds=settings.folds,
                  epochs=settings.schedule.epochs, errors=rows)
    with publish(RESULT) as file: file.write_text(json.dumps(values, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__": main()
