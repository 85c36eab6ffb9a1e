"""A rehearsal of the whole paper: seconds, disk and memory of each step, extrapolated to the RSNA's data.

The run is that of the profile rsna with `weights: fit`, on phantoms of full size, with fewer rounds and one
epoch a network. Memory is the largest that was measured, and what the arrays of further radiographs add.
`make bench WHAT=rehearsal` takes about eighty minutes on two quiet cores, and continues where it was stopped.
At its own size it writes benchmarks/rehearsal.json, and from there the head of reports/profiles/rsna.yaml. A
trial of another size leaves both alone and takes a few minutes:

    python benchmarks/rehearsal.py --radiographs 24 --shape 256 200 --shown 24 --profile smoke --folder trial
"""
import argparse
import json
import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from measure import FOLDER, PROJECT, compact_json, machine

from boneage.bone_age import ablation, grid
from boneage.datasets.profiles import (
    Profile,
    ProfileError,
    SegmentationSettings,
    change_settings,
    load_profile,
)
from boneage.datasets.workspace import Workspace, code_version, open_workspace
from boneage.files import publish
from boneage.networks import load_network
from boneage.paper import pipeline
from boneage.paper.run import lock_workspace
from boneage.training import mining
from boneage.training.mining import oversample_labelled

RESULT, PROFILES = FOLDER/"rehearsal.json", PROJECT/"reports"/"profiles"
MODELS = [*grid(), *ablation()]
COMMAND = "make bench WHAT=rehearsal"


@dataclass(frozen=True)
class Size:
    "Size of a rehearsal; the default is that of the published numbers"
    radiographs: int = 1200
    shape: tuple = (1626, 1282)  # height and width, pixels: the median of the RSNA's files in a sample
    rounds: int = 2              # of mining
    shown: int = 1000            # images in each round, at least
    models: int = len(MODELS)    # bone-age networks
    profile: str = "rsna"        # whose networks and regions are used


# ------------------------------------------------------------------ measuring

class Meter(threading.Thread):
    "Appends the seconds of each part of a step to a file, and its largest memory, every second"
    def __init__(self, file: Path, part: str):
        super().__init__(daemon=True)
        self.file, self.name_of_part, self.lock = file, part, threading.Lock()
        self.since, self.peak, self.over = time.monotonic(), resident_memory(), threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            self.peak = max(self.peak, resident_memory())
            if time.monotonic() - self.since >= 1: self.record()

    def record(self):
        "Write what has passed since the last record"
        with self.lock:
            now, gpu = time.monotonic(), torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
            row = dict(part=self.name_of_part, seconds=now - self.since, memory=self.peak, gpu=gpu/2**30)
            with self.file.open("a") as file: file.write(json.dumps(row) + "\n")
            self.since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        "Measure a block as a part of its own"
        self.record()
        before, self.name_of_part = self.name_of_part, name
        try: yield
        finally:
            self.record()
            self.name_of_part = before

    @contextmanager
    def watch(self, *functions: tuple) -> Iterator[None]:
        "Measure the calls of functions as parts: (module, name of the function, name of the part)"
        with ExitStack() as stack:
            for module, function, name in functions:
                wrapped = self._measured(getattr(module, function), name)
                stack.enter_context(patch.object(module, function, wrapped))
            yield

    def _measured(self, function, name):
        def measured(*arguments, **options):
            with self.part(name): return function(*arguments, **options)
        return measured


def resident_memory() -> float:
    "Memory of this process in GB, without pages of files, which the system may take back"
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1])/2**20


# ------------------------------------------------------------------ the steps

def make_phantoms(workspace: Workspace, meter: Meter): pipeline.make_cohort(workspace)


def segment(workspace: Workspace, meter: Meter):
    with meter.watch((pipeline, "read_segmentation_inputs", "reading radiographs"),
                     (mining, "fit_round", "fitting the U-Net"),
                     (mining, "predict_candidates", "predicting candidates"),
                     (pipeline, "predict_cohort_masks", "masks of the cohort")):
        pipeline.segment_cohort(workspace)


def register(workspace: Workspace, meter: Meter):
    with meter.watch((pipeline, "_fit_key_points", "fitting the key-point network"),
                     (pipeline, "_register", "key points and registration")):
        pipeline.run_registration_step(workspace)


def cut_regions(workspace: Workspace, meter: Meter): pipeline.write_cohort_regions(workspace)


def fit_ages(workspace: Workspace, meter: Meter):
    for name in MODELS[:read_size(workspace.root.parent).models]: pipeline.train_model(workspace, name)


STEPS = {  # step: function, and the name of what none of its parts covers
    "phantoms": (make_phantoms, "generating phantoms"), "segmentation": (segment, "curation and hand masks"),
    "registration": (register, "contrast and crops"), "regions": (cut_regions, "regions"),
    "bone age": (fit_ages, "bone-age networks")}
PARTS = {  # part: its step, what its time grows with, its files, what their size grows with
    "reading radiographs": ("segmentation", "radiographs", (), "radiographs"),
    "fitting the U-Net": ("segmentation", "images shown to the U-Net",
                          ("checkpoints/segmentation/*.safetensors", "checkpoints/segmentation/round*/*",
                           "models/segmentation/*"), "rounds"),
    "predicting candidates": ("segmentation", "candidates", ("checkpoints/segmentation/*.jsonl",),
                              "candidates"),
    "masks of the cohort": ("segmentation", "radiographs", ("masks/*", "hand-masks/*", "corrected/*"),
                            "radiographs"),
    "curation and hand masks": ("segmentation", "candidates", (), "radiographs"),
    "contrast and crops": ("registration", "radiographs", (), "radiographs"),
    "fitting the key-point network": ("registration", "crops shown to the key-point network",
                                      ("checkpoints/keypoints*", "models/keypoints/*"), "nothing"),
    "key points and registration": ("registration", "radiographs", (), "radiographs"),
    "regions": ("regions", "radiographs", ("regions/*",), "radiographs"),
    "bone-age networks": ("bone age", "regions shown to the bone-age networks",
                          ("checkpoints/*-*-*-*.safetensors", "models/*-*-*-*/*"), "models")}
GROWTH = {  # step: bytes that each radiograph keeps in memory; regions are read from the disk, batch by batch
    "segmentation": lambda profile: 3*math.prod(pipeline.stored_shape(profile.segmentation)),  # and two masks
    "registration": lambda profile: profile.keypoints.inputs*profile.keypoints.crop_size**2}


def settings_of(size: Size) -> Profile:
    "The profile of a rehearsal: phantoms, few rounds, one epoch"
    train = size.radiographs - max(2, size.radiographs//12)
    cohort = dict(source="phantoms", train=train, validation=size.radiographs - train, test=0, labels="",
                  shape=list(size.shape), phantoms=0, composites=0)
    profile = load_profile(PROFILES/f"{size.profile}.yaml")
    masks = dict(weights="fit", rounds=size.rounds, shown=size.shown, schedule=dict(epochs=1), quality=0.0,
                 initial_masks=min(profile.segmentation.initial_masks, train//3), labelled_share=0.0,
                 corrected_masks=min(profile.segmentation.corrected_masks, train//3), curator="automatic")
    once = dict(schedule=dict(epochs=1))
    return change_settings(profile, dict(name="rehearsal", cohort=cohort, segmentation=masks, bone_age=once,
                                         keypoints=dict(weights="fit", shown=0) | once))


def run_step(step: str, folder: Path):
    "Run one step in this process"
    function, rest = STEPS[step]
    meter = Meter(folder/f"{step}.jsonl", rest)
    meter.start()
    function(Workspace(folder/"rehearsal"), meter)
    meter.over.set()
    meter.record()


def read_size(folder: Path) -> Size:
    "The size of the rehearsal in a folder"
    found = json.loads((folder/"size.json").read_text())
    return Size(**found | dict(shape=tuple(found["shape"])))


def rehearse(size: Size, folder: Path):
    "Run all steps that are not finished, each in a process of its own"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder/"size.json").is_file():
        with publish(folder/"size.json") as file: file.write_text(json.dumps(asdict(size)))
    if read_size(folder) != size:
        raise SystemExit(f"{folder} holds a rehearsal of another size: name another --folder, or delete it.")
    command = [sys.executable, __file__, "--folder", str(folder), "--step"]
    with lock_workspace(open_workspace(settings_of(size), folder)) as lock:  # a step keeps it
        for step in STEPS:
            if (folder/f"{step}.done").is_file(): continue
            print(f"{size.radiographs:,} phantoms: {step} …", flush=True)
            if subprocess.run([*command, step], pass_fds=[lock]).returncode:
                raise SystemExit(f"The step {step} stopped. The same command continues it.")
            (folder/f"{step}.done").touch()


# ------------------------------------------------------------------ extrapolation

def images_shown(settings: SegmentationSettings, training: list[int]) -> int:
    "Images that the U-Net is shown in rounds with so many masks, of which those of the first are by hand"
    total = 0
    for masks in training:
        rows = len(oversample_labelled(np.arange(masks) < training[0], settings.labelled_share))
        total += rows*max(settings.schedule.epochs, -(-settings.shown//rows))
    return total


def sexes_of_the_data() -> dict[str, int]:
    "Number of boys and girls in the RSNA's training set"
    with (files("boneage")/"data"/"rsna_label_hist_6mo.csv").open() as file: table = pd.read_csv(file)
    counts = table[table.split == "train"].groupby("sex")["count"].sum()
    return {str(sex): int(count) for sex, count in counts.items()}


def regions_shown(sexes: dict[str, float], models: list) -> float:
    "Regions that the networks are shown in one epoch"
    return sum(sum(count for sex, count in sexes.items() if name.applies_to(sex)) for name in models)


def growth_factors(workspace: Workspace, models: int) -> dict[str, float]:
    "How many times larger a run on the RSNA's data is than the rehearsal, for what its cost grows with"
    here, full = workspace.profile, load_profile(PROFILES/"rsna.yaml")
    cohort, rounds = workspace.read_table("cohort"), workspace.read_table("mining")
    sexes = sexes_of_the_data()
    everyone = sum(sexes.values())
    train, first = everyone - full.cohort.validation, full.segmentation.initial_masks
    fitted_on = cohort[cohort.split == "train"].sex.value_counts().to_dict()
    of_train = {sex: count*train/everyone for sex, count in sexes.items()}
    points = load_network(workspace.models/"keypoints")[1]["card"]["images"]
    predicted = (rounds.kept + rounds.corrected + rounds.rejected).sum()
    shown = images_shown(full.segmentation, [first] + [train]*(full.segmentation.rounds - 1))
    return {
        "nothing": 1.0, "radiographs": everyone/len(cohort), "rounds": full.segmentation.rounds/len(rounds),
        "models": len(MODELS)/models, "candidates": full.segmentation.rounds*(train - first)/predicted,
        "images shown to the U-Net": shown/images_shown(here.segmentation, rounds.training.tolist()),
        "crops shown to the key-point network": full.keypoints.labels*full.keypoints.schedule.epochs/points,
        "epochs": len(MODELS)*full.bone_age.schedule.epochs/models,
        "regions shown to the bone-age networks": full.bone_age.schedule.epochs*regions_shown(
            of_train, MODELS)/regions_shown(fitted_on, MODELS[:models])}


def gigabytes(root: Path, patterns: tuple[str, ...]) -> float:
    "Size of the files that patterns name"
    found = [path for pattern in patterns for path in root.glob(pattern) if path.is_file()]
    return sum(path.stat().st_size for path in found)/1e9


def read_steps(folder: Path) -> dict[str, pd.DataFrame]:
    "What was measured in each step"
    return {step: pd.read_json(folder/f"{step}.jsonl", lines=True) for step in STEPS}


def memory_of_full_run(folder: Path, step: str) -> float:
    "Memory of a step in GB: the largest in the rehearsal, and the arrays of the radiographs beyond it"
    peak, further = read_steps(folder)[step].memory.max(), sum(sexes_of_the_data().values())
    each = GROWTH[step](load_profile(PROFILES/"rsna.yaml")) if step in GROWTH else 0
    return float(peak) + each*(further - read_size(folder).radiographs)/2**30


def tabulate(folder: Path) -> list[dict]:
    "A row for each part: what was measured, and what a run on the RSNA's data is expected to take"
    workspace, models, rows = Workspace(folder/"rehearsal"), read_size(folder).models, []
    grows, steps = growth_factors(workspace, models), read_steps(folder)
    histories = [pd.read_csv(workspace.models/str(name)/"history.csv") for name in MODELS[:models]]
    epochs = float(sum(history.seconds.sum() for history in histories))
    for part, (step, reason, patterns, reason_of_files) in PARTS.items():
        measured = steps[step][steps[step].part == part]
        seconds, factor = float(measured.seconds.sum()), grows[reason]
        disk = gigabytes(workspace.root, patterns)
        fitting = epochs if part == "bone-age networks" else seconds  # the rest of a fit: once an epoch
        hours = (fitting*factor + max(seconds - fitting, 0)*grows["epochs"])/3600
        rows.append(dict(
            part=part, seconds=round(seconds, 1), disk=round(disk, 3),
            memory=round(float(steps[step].memory.max()), 2), gpu=round(float(steps[step].gpu.max()), 2),
            grows_with=reason, factor=round(factor, 2), full_hours=round(hours, 2),
            full_disk=round(disk*grows[reason_of_files], 2),
            full_memory=round(memory_of_full_run(folder, step), 1)))
    return rows


def total(rows: list[dict]) -> dict:
    "Hours and disk of all parts, and the largest memory"
    return dict(full_hours=round(sum(row["full_hours"] for row in rows), 1),
                full_disk=round(sum(row["full_disk"] for row in rows), 1),
                full_memory=max(row["full_memory"] for row in rows),
                radiographs=sum(sexes_of_the_data().values()))


# ------------------------------------------------------------------ where the numbers are shown

BEGIN, END = "# --- cost, written by benchmarks/rehearsal.py: begin", "# --- cost: end"
UNMEASURED = ["# Disk, memory and hours of a whole run have not been measured yet.",
              f"# `{COMMAND}` measures them on phantoms and writes them here."]


def describe_cost(found: dict|None) -> list[str]:
    "The cost of a run as comments of a profile; `found` is what a rehearsal has written"
    if found is None: return UNMEASURED
    size, facts, every = found["size"], found["machine"], found["total"]
    lines = [f"# Cost of a run with `weights: fit` on {every['radiographs']:,} radiographs, extrapolated",
             f"# from a rehearsal with {size['radiographs']:,} phantoms ({facts['date']}, "
             f"{facts['processor']}, {facts['cores']} cores, GPU: {facts['gpu']}).",
             "# Disk is without the radiographs; memory is that of the step that the part belongs to.",
             "# Memory was measured in the rehearsal, and the arrays of further radiographs are",
             "# added; what the allocator keeps may grow further.",
             *([f"# {found['remark']}"] if found.get("remark") else []),
             f"# {'':<34}{'hours':>9}{'disk, GB':>11}{'memory, GB':>13}"]
    rows = [*found["rows"], dict(part="all", **every)]
    return lines + [f"# {row['part']:<34}{row['full_hours']:>9.1f}{row['full_disk']:>11.1f}"
                    f"{row['full_memory']:>13.1f}" for row in rows]


def write_head(profile: Path, lines: list[str]):
    "Replace the lines between the two marks of a profile"
    before, rest = profile.read_text().split(BEGIN + "\n")
    after = rest.split(END + "\n")[1]
    with publish(profile) as file: file.write_text("\n".join([before + BEGIN, *lines, END + "\n"]) + after)


def read_result() -> dict|None:
    "What the last rehearsal of full size has written; None before the first"
    return json.loads(RESULT.read_text()) if RESULT.is_file() else None


def main():
    "Rehearse, print the table and write it down"
    parser, standard = argparse.ArgumentParser(description=__doc__.split("\n")[0]), Size()
    parser.add_argument("--radiographs", type=int, default=standard.radiographs)
    parser.add_argument("--shape", type=int, nargs=2, default=standard.shape, help="height and width, pixels")
    parser.add_argument("--rounds", type=int, default=standard.rounds)
    parser.add_argument("--shown", type=int, default=standard.shown, help="images in each round")
    parser.add_argument("--models", type=int, default=standard.models, help="bone-age networks")
    parser.add_argument("--profile", default=standard.profile, help="whose networks and regions are used")
    parser.add_argument("--folder", type=Path, default=PROJECT/"work"/"rehearsal")
    parser.add_argument("--remark", default="", help="a sentence about the circumstances, for the results")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.step: return run_step(chosen.step, chosen.folder)
    size = Size(chosen.radiographs, tuple(chosen.shape), chosen.rounds, chosen.shown, chosen.models,
                chosen.profile)
    try:
        rehearse(size, chosen.folder)
    except ProfileError as error: raise SystemExit(str(error)) from None
    rows = tabulate(chosen.folder)
    found = dict(machine=machine(), code=code_version(), size=asdict(size), remark=chosen.remark, rows=rows,
                 total=total(rows))
    target = RESULT if size == standard else chosen.folder/"rehearsal.json"
    with publish(target) as file: file.write_text(compact_json(found) + "\n")
    if size == standard: write_head(PROFILES/"rsna.yaml", describe_cost(found))
    print(pd.DataFrame(rows).set_index("part").to_string(), *describe_cost(found), sep="\n")
    print(f"Written to {target}")


if __name__ == "__main__": main()
