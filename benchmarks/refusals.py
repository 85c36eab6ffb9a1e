"""How often the released system refuses hands or warns about them, and how often it refuses other images.

    python benchmarks/refusals.py DATA

DATA is a folder of radiographs with a label table. Images without a hand are generated, or come with
installed packages (tests/test_field_hands.py). The numbers are written to benchmarks/reliability.json, and
from there to the site's page on reliability; they contain no radiograph, label or id. A stopped command
continues.
"""
import argparse
import json
import sys
from collections import Counter

import numpy as np
from measure import PROJECT, machine, write_section

from boneage.assessment import load_assessor
from boneage.batches import describe_origin
from boneage.datasets.cohorts import load_cohort
from boneage.datasets.preprocessing import collect_rows

sys.path.insert(0, str(PROJECT/"tests"))
from test_field_hands import drawn_images, photographs, pydicom_images  # noqa: E402


def codes(result) -> list[str]:
    "Codes of the warnings of an assessment, each once"
    return sorted({warning.code for warning in result.warnings})


def summarise(name: str, found: list[list[str]]) -> dict:
    "Numbers of images, of refused ones, of those with any warning and with each warning"
    times = Counter(code for each in found for code in each)
    return dict(images=name, number=len(found), refused=times.pop("no-hand", 0),
                warned=sum(bool(set(each) - {"no-hand"}) for each in found), **dict(sorted(times.items())))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="folder of radiographs with a label table")
    chosen = parser.parse_args()
    cohort, assessor = load_cohort(chosen.data, problems=[]), load_assessor(device="cpu")
    def assess(row):
        radiograph = cohort.iloc[row]
        return dict(codes=codes(assessor.assess(radiograph.path, radiograph.sex)))
    part, origin = PROJECT/"work"/"refusals.part.jsonl", describe_origin(None, dict(data=chosen.data))
    hands = collect_rows(cohort.id.tolist(), assess, part, origin, label="radiographs").codes.tolist()
    others = [codes(assessor.assess(np.clip(image, 0, 1).astype(np.float32)))
              for source in (drawn_images, photographs, pydicom_images) for _, image in source()]
    rows = [summarise("radiographs of hands", hands), summarise("no hands", others)]
    write_section("reliability", "refusals", dict(machine=machine(), made_with=origin, rows=rows))
    print(json.dumps(rows, indent=1))


if __name__ == "__main__": main()
