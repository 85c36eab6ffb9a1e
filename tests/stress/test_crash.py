"""A pipeline step that is killed or runs out of disk leaves no partial file; a rerun gives the same result.

`make stress WHAT=crash KILLS=120` kills more often and at other moments each time (SEED repeats a run), and
writes the counts to benchmarks/reliability.json. Otherwise the kills are few and always the same.
"""
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import TOKEN, command, kill_tree
from crash_steps import MODEL, STEPS
from measure import write_section
from safetensors import safe_open
from tiny_models import write_tiny_models
from typer.testing import CliRunner

from boneage import __version__
from boneage.cli import app
from boneage.datasets.workspace import versions
from boneage.radiographs import decode_image, read_radiograph, write_radiograph
from boneage.synthetic.phantoms import make_phantom

if sys.platform != "linux":
    pytest.skip("processes are found and followed as Linux shows them", allow_module_level=True)
pytest.importorskip("papermill")

LONG = "STRESS" in os.environ
KILLS = int(os.environ.get("KILLS", 120)) if LONG else 10  # besides those before each file operation
SEED = int(os.environ.get("SEED", time.time())) if LONG else 2018
# shares of the kills; the last two steps take the longest
WEIGHTS = dict(phantoms=3, mining=2, training=2, regions=3, report=1, export=1)
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95) if LONG else (0.5,)  # of the space that a step needs
KINDS = ("at a random time", "between two file operations", "in the middle of a write")
# files that are published several times during a step
CHANGING = dict(mining="checkpoints/|models/segmentation/", training="checkpoints/" + MODEL)
TOGETHER = ("regions",)  # folders that are published at once
# bytes after which a write fails; a notebook is larger, and its kernel must not reach the limit
SIZES = dict(report=1000)
KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)


# ------------------------------------------------------------------ published files

def read(path: Path):
    "The content of a file without its times; an error where the file is not complete"
    data = path.read_bytes()
    if path.suffix == ".png": decode_image(data, "PNG", path)
    elif path.suffix == ".csv":
        table = pd.read_csv(path)
        assert data.endswith(b"\n"), "its last line is cut"
        if path.name == "history.csv": return table.drop(columns="seconds").to_csv()
    elif path.suffix == ".json": json.loads(data)
    elif path.suffix == ".npy": np.load(path)
    elif path.suffix == ".safetensors": return read_tensors(path)
    elif path.suffix == ".onnx": pytest.importorskip("onnx").checker.check_model(str(path), full_check=True)
    elif path.suffix == ".ipynb":
        notebook = nbformat.reads(data.decode(), 4)
        nbformat.validate(notebook)
        return [(cell.source, cell.get("outputs")) for cell in notebook.cells]
    else: assert path.suffix == ".yaml" and data.endswith(b"\n"), "a kind of file that this test cannot read"
    return data


def read_tensors(path: Path):
    "The metadata and tensors of a safetensors file; a checkpoint's history without seconds"
    with safe_open(path, "np") as file:
        metadata = dict(file.metadata())
        if "history" in metadata:
            metadata["history"] = [{key: value for key, value in row.items() if key != "seconds"}
                                for row in json.loads(metadata["history"])]
        return metadata, {name: file.get_tensor(name).tobytes() for name in file.keys()}


def files(root: Path) -> set[str]:
    "All files and folders below one"
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def published(root: Path) -> set[str]:
    "All files but the temporary ones"
    return {name for name in files(root) if (root/name).is_file()
            and not re.search(r"(^|/)\.|\.part\b|\.running\.", name)}


# ------------------------------------------------------------------ running steps

@dataclass(frozen=True)
class RunResult:
    "How a run ended"
    status: int     # exit code, or minus the signal
    seconds: float
    operations: int # on files: openings for writing, renamings, removals
    output: str     # of both streams


class StepRunner:
    "The process of crash_steps.py, which forks a child for each run"

    def __init__(self, folder: Path):
        self.folder = folder
        environment = os.environ | dict(OMP_NUM_THREADS="1", JUPYTER_RUNTIME_DIR=str(folder/"runtime"),
                                        IPYTHONDIR=str(folder/"ipython"), PYTHONWARNINGS="ignore")
        self.process = subprocess.Popen([sys.executable, Path(__file__).with_name("crash_steps.py")],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=environment)
        assert self.process.stdout.readline() == "ready\n"

    def run(self, step: str, folder: Path, delay: float|None = None, **more) -> RunResult:
        "Run a step in a folder to its end, or until it is killed after `delay` seconds"
        token, output = uuid.uuid4().hex, self.folder/"output.txt"
        for path in (output, output.with_suffix(".count")): path.unlink(missing_ok=True)
        self._send(json.dumps(dict(step=step, folder=str(folder), environment={TOKEN: token},
                                  output=str(output)) | more))
        child, began = int(self.process.stdout.readline()), time.monotonic()
        if delay is not None and not select.select([self.process.stdout], [], [], delay)[0]:
            kill_tree(child, token)
        status, seconds = int(self.process.stdout.readline()), time.monotonic() - began
        kill_tree(None, token)  # a kernel outlives its parent
        self._send("")
        counted = output.with_suffix(".count")
        return RunResult(status, seconds, int(counted.read_text() or 0) if counted.is_file() else 0,
                         output.read_text() if output.is_file() else "")

    def _send(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


# ------------------------------------------------------------------ counts

@dataclass
class Tally:
    "Counts of the whole run"
    began: float = field(default_factory=time.monotonic)
    kills: dict = field(default_factory=lambda: {step: Counter() for step in STEPS})
    missed: int = 0    # ended before the moment of the kill
    reruns: Counter = field(default_factory=Counter)
    full: Counter = field(default_factory=Counter)
    findings: list = field(default_factory=list)

    def find(self, step: str, sentence: str): self.findings.append(f"{step}: {sentence}")

    def of(self, step: str) -> list[str]:
        return [sentence for sentence in self.findings if sentence.startswith(step + ":")]

    def as_dict(self) -> dict:
        "The section of benchmarks/reliability.json"
        steps = {step: dict(kills={kind: self.kills[step][kind] for kind in KINDS}, reruns=self.reruns[step],
                            full_disk=self.full[step], findings=len(self.of(step))) for step in STEPS}
        totals = dict(kills=sum(map(Counter.total, self.kills.values())),
                      **{kind: sum(counts[kind] for counts in self.kills.values()) for kind in KINDS},
                      missed=self.missed, reruns=self.reruns.total(), full_disk=self.full.total(),
                      findings=len(self.findings))
        return dict(date=date.today().isoformat(), versions=f"boneage {__version__}, {versions()}",
                    seconds=round(time.monotonic() - self.began), seed=SEED, steps=steps, totals=totals,
                    findings=sorted(set(self.findings)))


@pytest.fixture(scope="module")
def tally():
    "The counts, printed at the end and written down after a long run"
    counts = Tally()
    yield counts
    found = counts.as_dict()
    print(f"\n| step | {' | '.join(KINDS)} | reruns | full disks | findings |\n|:--|" + "--:|"*6)
    for step, row in found["steps"].items():
        cells = step, *row["kills"].values(), row["reruns"], row["full_disk"], row["findings"]
        print(f"| {' | '.join(map(str, cells))} |")
    print(f"{found['totals']['kills']} kills, seed {SEED}, {found['seconds']} s")
    if LONG: write_section("reliability", "crash", found)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    process = StepRunner(tmp_path_factory.mktemp("runner"))
    yield process
    process.close()


@pytest.fixture(scope="module")
def starts(runner, tmp_path_factory) -> Path:
    "A folder for each step, with its input"
    folder = tmp_path_factory.mktemp("starts")
    done = runner.run("prepare", folder)
    assert done.status == 0, done.output
    return folder


@dataclass(frozen=True)
class UninterruptedRun:
    "A run without a kill"
    start: Path
    folder: Path
    ending: RunResult
    files: set[str]         # all
    content: dict           # of the published ones


@pytest.fixture(scope="module")
def uninterrupted(runner, starts, tmp_path_factory):
    "A function that runs a step undisturbed, once"
    made = {}

    def run(step: str) -> UninterruptedRun:
        if step == "export":
            for name in ("onnx", "onnxscript", "onnxruntime"): pytest.importorskip(name)
        if step not in made:
            folder = tmp_path_factory.mktemp("undisturbed")/step
            shutil.copytree(starts/step, folder)
            ending = runner.run(step, folder)
            assert ending.status == 0, ending.output
            made[step] = UninterruptedRun(starts/step, folder, ending, files(folder),
                                           {name: read(folder/name) for name in published(folder)})
        return made[step]

    return run


# ------------------------------------------------------------------ kills

def examine(step: str, root: Path, known: UninterruptedRun, expected: set[str], when: str, find):
    "Record files that are partial, lost or different"
    there, changing = published(root), re.compile(CHANGING.get(step, "$^"))
    for name in sorted(there):
        try: content = read(root/name)
        except Exception as error:
            find(f"{name} is half-written {when}: {str(error).replace(f'{root}/', '')[:100]!r}")
            continue
        if name not in known.content: find(f"{name} is published {when}, but not by an undisturbed run")
        elif content != known.content[name] and not changing.match(name):
            find(f"{name} is not the undisturbed one {when}")
    for folder in TOGETHER:
        whole = {name for name in known.content if name.startswith(folder + "/")}
        if whole - there and whole & there:
            find(f"{folder} is published in part {when}: {', '.join(sorted(whole - there))} is missing")
        expected = expected - whole
    for name in sorted(expected - there): find(f"{name} is lost {when}")


def without_numbers(name: str) -> str:
    "A temporary file's name without its changing numbers"
    return re.sub(r"[0-9a-f]{6,}|[0-9]+", "N", name)


def conclude(step: str, root: Path, known: UninterruptedRun, ending: RunResult, find):
    "Compare the files of a rerun with those of an undisturbed run"
    if ending.status:
        lines = ending.output.strip().splitlines()
        find(f"the rerun fails: {lines[-1] if lines else ending.status}")
        return
    examine(step, root, known, set(known.content), "after the rerun", find)
    for name in sorted(known.content):
        changing = (root/name).is_file() and re.match(CHANGING.get(step, "$^"), name)
        if changing and read(root/name) != known.content[name]:
            find(f"{name} is not the undisturbed one after the rerun")
    for name in sorted(files(root) - known.files): find(f"{without_numbers(name)} stays after the rerun")


def sample_kill(kind: str, step: str, known: UninterruptedRun, chance: random.Random) -> dict:
    "A moment of that kind, as `StepRunner.run` takes it"
    if kind == KINDS[0]: return dict(delay=chance.uniform(0, known.ending.seconds))
    size = round(SIZES.get(step, 30_000)**chance.random())
    moment = "operation" if kind == KINDS[1] else "write"
    return dict(moment=[moment, chance.randint(1, known.ending.operations), size])


@pytest.mark.parametrize("step", STEPS)
def test_killed_step_resumes_to_undisturbed_result(step, runner, uninterrupted, tmp_path, tally):
    known, chance = uninterrupted(step), random.Random(f"{SEED} {step}")
    wanted = -(-KILLS*WEIGHTS[step] // sum(WEIGHTS.values()))
    kinds = [KINDS[(i + list(STEPS).index(step)) % len(KINDS)] for i in range(wanted)]

    def find(sentence): tally.find(step, sentence)

    tries = 0
    while kinds and tries < 4*wanted + 10:
        tries += 1
        finished = chance.random() < 0.2  # a finished result must stay during a rerun
        root = tmp_path/str(tries)
        shutil.copytree(known.folder if finished else known.start, root)
        expected = published(root)
        for _ in range(chance.choice([1, 1, 2, 3])):  # the rerun may be killed, too
            if not kinds: break
            ending = runner.run(step, root, **sample_kill(kinds[-1], step, known, chance))
            if ending.status not in KILLED:
                tally.missed += 1
                break
            tally.kills[step][kinds.pop()] += 1
            examine(step, root, known, expected, "after a kill", find)
        else: ending = None
        if ending is None or ending.status in KILLED: ending = runner.run(step, root)
        tally.reruns[step] += 1
        conclude(step, root, known, ending, find)
        shutil.rmtree(root)
    assert not kinds, f"only {wanted - len(kinds)} kills in {tries} runs"
    assert not tally.of(step), "\n".join(sorted(set(tally.of(step))))


@pytest.mark.parametrize("step, finished, most", [("phantoms", False, 6), ("regions", True, 30)])
def test_killed_before_each_file_operation(step, finished, most, runner, uninterrupted, tmp_path, tally):
    "The first operations of a collection, which note its settings; all those that replace old arrays"
    known, before = uninterrupted(step), len(tally.findings)

    def find(sentence): tally.find(step, sentence)

    for number in range(1, 1000 if LONG else most):
        root = tmp_path/str(number)
        shutil.copytree(known.folder if finished else known.start, root)
        expected, ending = published(root), runner.run(step, root, moment=["operation", number, 0])
        if ending.status not in KILLED: break
        tally.kills[step][KINDS[1]] += 1
        examine(step, root, known, expected, "after a kill", find)
        tally.reruns[step] += 1
        conclude(step, root, known, runner.run(step, root), find)
        shutil.rmtree(root)
    assert number >= 5 and len(tally.findings) == before, "\n".join(sorted(set(tally.findings[before:])))


# ------------------------------------------------------------------ a full disk

@pytest.fixture
def disk(tmp_path):
    "A function that makes a disk of so many bytes, or resizes it"
    place = tmp_path/"disk"
    place.mkdir()

    def sized(size: int) -> Path:
        mounted = os.path.ismount(place)
        new, resized = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"], ["-o", f"remount,size={size}"]
        options = resized if mounted else new
        try: done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True)
        except FileNotFoundError: pytest.skip("no small disk can be made here: there is no mount")
        if done.returncode: pytest.skip(f"no small disk can be made here: {done.stderr.strip()}")
        return place

    yield sized
    if os.path.ismount(place): subprocess.run(["umount", str(place)], check=True)


def used(place: Path) -> int:
    "Used bytes of a disk"
    disk = os.statvfs(place)
    return (disk.f_blocks - disk.f_bfree)*disk.f_frsize


def is_clear(output: str, phrases=("can't be written", "the disk is full")) -> bool:
    "Whether the output of a run is one sentence about a full disk"
    lines = [line for line in output.strip().splitlines() if "IPKernelApp" not in line]
    return len(lines) == 1 and all(phrase in lines[0] for phrase in phrases) and "Errno" not in lines[0]


@pytest.mark.parametrize("step", STEPS)
def test_full_disk_is_one_line_error_and_keeps_files(step, runner, uninterrupted, disk, tally):
    known, before = uninterrupted(step), len(tally.findings)

    def find(sentence): tally.find(step, sentence)

    plenty = 2**26
    place = disk(plenty)
    shutil.copytree(known.folder, place/"measured")
    whole = used(place)
    shutil.rmtree(place/"measured")
    for share in (*SHARES, None):  # None: a finished result is made again
        if share is None and not LONG and step not in ("phantoms", "regions"): continue
        root = place/"run"
        shutil.copytree(known.folder if share is None else known.start, root)
        start, before_it = used(place), {name: read(root/name) for name in published(root)}
        disk(start + max(4096, round((share or 0)*(whole - start))//4096*4096))
        ending = runner.run(step, root)
        tally.full[step] += 1
        well = share is None and not ending.status  # there may be nothing left to write
        if not well and (ending.status != 1 or not is_clear(ending.output)):
            find(f"on a full disk, it ends with {ending.status} and prints {ending.output.strip()[-200:]!r}")
        examine(step, root, known, set(), "on a full disk", find)
        for name, content in before_it.items():
            if not (root/name).is_file() or read(root/name) != content: find(f"{name} is lost on a full disk")
        for name in sorted(files(root) - known.files):
            if not name.endswith(".part.jsonl"): find(f"{without_numbers(name)} stays on a full disk")
        disk(plenty)
        conclude(step, root, known, runner.run(step, root), find)
        shutil.rmtree(root)
    assert len(tally.findings) == before, "\n".join(sorted(set(tally.findings[before:])))


@pytest.mark.parametrize("output", ["--csv", "--save-figure"])
def test_assessment_on_a_full_disk(output, disk, tmp_path):
    models, place = write_tiny_models(tmp_path/"run"), disk(2**20)
    radiograph = write_radiograph(tmp_path/"hand.png", make_phantom(3, 1, defects={}).image)
    target, ages = place/("ages.csv" if output == "--csv" else "figures"), place/"ages.csv"
    older = ("an older table\n"*999)[:8192]  # fills its blocks, so that no row has space in them
    ages.write_text(older)
    with pytest.raises(OSError), open(place/"filler", "wb", buffering=0) as filler:
        while True: filler.write(bytes(4096))
    done = assess(radiograph, "--weights", models.parent, output, target)
    assert done.exit_code == 1 and "bone age" in done.stdout
    assert is_clear(done.stderr) and (target.name in done.stderr) and ages.read_text() == older
    assert sorted(path.name for path in place.rglob("*") if path.is_file()) == ["ages.csv", "filler"]
    (place/"filler").unlink()
    assert assess(radiograph, "--weights", models.parent, output, target).exit_code == 0
    if output == "--save-figure":
        read_radiograph(target/"hand-png.png")
        return
    assess(radiograph, "--weights", models.parent, output, tmp_path/"ages.csv")
    assert ages.read_bytes() == (tmp_path/"ages.csv").read_bytes()


def assess(*arguments):
    "`boneage assess …` in this process"
    return CliRunner().invoke(app, ["assess", *map(str, arguments)])


def test_standard_output_on_a_full_disk(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(command("phantom", tmp_path/"radiographs"), stdout=full,
                              stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert is_clear(done.stderr, ["Standard output can't be written: the disk is full"])
    assert (tmp_path/"radiographs"/"truth.csv").is_file()


# ------------------------------------------------------------------ the checks of this file

@pytest.mark.parametrize("damage", ["cut", "changed", "left", "lost"])
def test_damaged_files_are_found(damage, uninterrupted, tmp_path):
    known, found = uninterrupted("phantoms"), []
    root = tmp_path/"run"
    shutil.copytree(known.folder, root)
    mask, table = root/"radiographs"/"masks"/"1.png", root/"radiographs"/"truth.csv"
    if damage == "cut": mask.write_bytes(mask.read_bytes()[:-1])
    elif damage == "changed": table.write_text(table.read_text().replace("1", "2"))
    elif damage == "left": (root/"radiographs"/".truth-0.csv").touch()
    else: mask.unlink()
    conclude("phantoms", root, known, known.ending, found.append)
    expected = dict(cut="masks/1.png is half-written", changed="truth.csv is not the undisturbed one",
                    left="stays after the rerun", lost="masks/1.png is lost")
    assert len(found) == 1 and expected[damage] in found[0]
