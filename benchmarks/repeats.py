"""How much the predicted bone age changes between simulated exposures of the same radiograph.

    python benchmarks/repeats.py DATA

DATA is a folder of radiographs with a label table; those that a released bone-age network was fitted on are
left out. Each is assessed in the variants of `boneage.release.evaluation.make_repeats`. The smallest
detectable change is computed from the bone ages; `boneage visits` and `boneage report` use it by default. The
numbers are written to boneage/data/repeats.json; they contain no radiograph, label or id. A stopped command
continues.
"""
import argparse
import json

from measure import PROJECT

from boneage.assessment import load_assessor
from boneage.batches import describe_origin
from boneage.files import publish
from boneage.release.evaluation import assess_repeats, load_labelled, summarise_repeats


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="folder of radiographs with a label table")
    chosen, assessor = parser.parse_args(), load_assessor(device="cpu")
    cohort, _ = load_labelled(chosen.data, None, assessor.folder, [])
    part, origin = PROJECT/"work"/"repeats.part.jsonl", describe_origin(None, dict(data=chosen.data))
    found = summarise_repeats(assess_repeats(assessor, cohort, part, origin))
    found |= dict(made_with=origin, command="python benchmarks/repeats.py DATA")
    with publish(PROJECT/"boneage"/"data"/"repeats.json") as file:
        file.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__": main()
