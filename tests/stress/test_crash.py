"""Killed at any moment or out of space, a stage leaves no half-written file, and the same command again ends in the undisturbed result.

CRASH_KILLS is how many kills there are, besides those before each step; where it is set they differ from run to run (`make crash`; CRASH_SEED repeats one), otherwise they are always the same.
CRASH_RESULTS is a file that the counts are written to.
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
from crash_stages import MODEL, STAGES
from safetensors import safe_open
from tiny_models import write_tiny_models
from typer.testing import CliRunner

from boneage import __version__
from boneage.cli import app
from boneage.datasets.workspace import versions
from boneage.radiographs import decode_image, read_radiograph, write_radiograph
from boneage.synthetic.phantoms import make_phantom

if sys.platform != "linux": pytest.skip("processes are found and followed as Linux shows them", allow_module_level=True)
pytest.importorskip("papermill")

LONG = "CRASH_KILLS" in os.environ
KILLS = int(os.environ.get("CRASH_KILLS", 10))
SEED = int(os.environ.get("CRASH_SEED", time.time() if LONG else 2018))
WEIGHTS = dict(phantoms=3, mining=2, training=2, regions=3, report=1, export=1)  # of the kills; the last two take the longest
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95) if LONG else (0.5,)  # of the space that a stage needs
KINDS = ("at a random time", "between two steps", "in the middle of a write")
CHANGING = dict(mining="checkpoints/|models/segmentation/", training="checkpoints/" + MODEL)  # published again and again on the way to the result
TOGETHER = ("regions",)  # folders that are published as a whole
SIZES = dict(report=1000)  # bytes after which a write is cut; a notebook has more, and its kernel must not meet the limit
KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)


# ------------------------------------------------------------------ what is published

def read(path: Path):
    "What a file says, without how long it took to say so; an error where it is not whole"
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
    else: assert path.suffix == ".yaml" and data.endswith(b"\n"), "a kind of file that nobody reads here"
    return data


def read_tensors(path: Path):
    "The tensors and words of a safetensors file; a checkpoint's history without seconds"
    with safe_open(path, "np") as file:
        words = dict(file.metadata())
        if "history" in words: words["history"] = [{key: value for key, value in row.items() if key != "seconds"} for row in json.loads(words["history"])]
        return words, {name: file.get_tensor(name).tobytes() for name in file.keys()}


def files(root: Path) -> set[str]:
    "All files and folders below one"
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def published(root: Path) -> set[str]:
    "The files that are no one's temporary ones"
    return {name for name in files(root) if (root/name).is_file() and not re.search(r"(^|/)\.|\.part\b|\.running\.", name)}


# ------------------------------------------------------------------ who runs the stages

@dataclass(frozen=True)
class RunResult:
    "How a run ended"
    status: int     # exit code, or minus the signal
    seconds: float
    steps: int      # openings for writing, renamings, removals
    said: str       # on both streams


class Warm:
    "The process of tests/crash_stages.py, and what it is asked to run"

    def __init__(self, folder: Path):
        self.folder = folder
        environment = os.environ | dict(OMP_NUM_THREADS="1", JUPYTER_RUNTIME_DIR=str(folder/"runtime"), IPYTHONDIR=str(folder/"ipython"), PYTHONWARNINGS="ignore")
        self.process = subprocess.Popen([sys.executable, Path(__file__).with_name("crash_stages.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout.readline() == "ready\n"

    def run(self, stage: str, folder: Path, delay: float|None = None, **more) -> RunResult:
        "Run a stage in a folder to its end, or until it is killed after `delay` seconds"
        token, output = uuid.uuid4().hex, self.folder/"output.txt"
        for path in (output, output.with_suffix(".count")): path.unlink(missing_ok=True)
        self._say(json.dumps(dict(stage=stage, folder=str(folder), environment={TOKEN: token}, output=str(output)) | more))
        child, began = int(self.process.stdout.readline()), time.monotonic()
        if delay is not None and not select.select([self.process.stdout], [], [], delay)[0]: kill_tree(child, token)
        status, seconds = int(self.process.stdout.readline()), time.monotonic() - began
        kill_tree(None, token)  # a kernel outlives whoever started it
        self._say("")
        counted = output.with_suffix(".count")
        return RunResult(status, seconds, int(counted.read_text() or 0) if counted.is_file() else 0, output.read_text() if output.is_file() else "")

    def _say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


# ------------------------------------------------------------------ what is counted

@dataclass
class Tally:
    "Counts of the whole run"
    began: float = field(default_factory=time.monotonic)
    kills: dict = field(default_factory=lambda: {stage: Counter() for stage in STAGES})
    missed: int = 0    # ended before the moment came
    reruns: Counter = field(default_factory=Counter)
    full: Counter = field(default_factory=Counter)
    findings: list = field(default_factory=list)

    def find(self, stage: str, sentence: str): self.findings.append(f"{stage}: {sentence}")

    def of(self, stage: str) -> list[str]: return [sentence for sentence in self.findings if sentence.startswith(stage + ":")]

    def as_dict(self) -> dict:
        "What a page about reliability needs"
        stages = {stage: dict(kills={kind: self.kills[stage][kind] for kind in KINDS}, reruns=self.reruns[stage], full_disk=self.full[stage], findings=len(self.of(stage))) for stage in STAGES}
        totals = dict(kills=sum(map(Counter.total, self.kills.values())), **{kind: sum(counts[kind] for counts in self.kills.values()) for kind in KINDS})
        return dict(stages=stages, totals=totals | dict(missed=self.missed, reruns=self.reruns.total(), full_disk=self.full.total(), findings=len(self.findings)),
                    findings=sorted(set(self.findings)), seed=SEED, seconds=round(time.monotonic() - self.began), date=date.today().isoformat(), versions=f"boneage {__version__}, {versions()}")


@pytest.fixture(scope="module")
def tally():
    "The counts, printed at the end and written where CRASH_RESULTS says"
    counts = Tally()
    yield counts
    told = counts.as_dict()
    print(f"\n| stage | {' | '.join(KINDS)} | reruns | full disks | findings |\n|:--|--:|--:|--:|--:|--:|--:|")
    for stage, row in told["stages"].items(): print(f"| {stage} | {' | '.join(str(n) for n in row['kills'].values())} | {row['reruns']} | {row['full_disk']} | {row['findings']} |")
    print(f"{told['totals']['kills']} kills, seed {SEED}, {told['seconds']} s")
    if os.environ.get("CRASH_RESULTS"): Path(os.environ["CRASH_RESULTS"]).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    process = Warm(tmp_path_factory.mktemp("warm"))
    yield process
    process.close()


@pytest.fixture(scope="module")
def starts(warm, tmp_path_factory) -> Path:
    "A folder for each stage, with what it starts from"
    folder = tmp_path_factory.mktemp("starts")
    done = warm.run("prepare", folder)
    assert done.status == 0, done.said
    return folder


@dataclass(frozen=True)
class UninterruptedRun:
    "A run that nobody killed"
    start: Path
    folder: Path
    ending: RunResult
    files: set[str]         # all
    content: dict           # of the published ones


@pytest.fixture(scope="module")
def uninterrupted(warm, starts, tmp_path_factory):
    "A function that runs a stage undisturbed, once"
    made = {}

    def run(stage: str) -> UninterruptedRun:
        if stage == "export":
            for name in ("onnx", "onnxscript", "onnxruntime"): pytest.importorskip(name)
        if stage not in made:
            folder = tmp_path_factory.mktemp("undisturbed")/stage
            shutil.copytree(starts/stage, folder)
            ending = warm.run(stage, folder)
            assert ending.status == 0, ending.said
            made[stage] = UninterruptedRun(starts/stage, folder, ending, files(folder), {name: read(folder/name) for name in published(folder)})
        return made[stage]

    return run


# ------------------------------------------------------------------ kills

def examine(stage: str, root: Path, known: UninterruptedRun, expected: set[str], when: str, find):
    "Note what is not whole or not what it should be"
    there, changing = published(root), re.compile(CHANGING.get(stage, "$^"))
    for name in sorted(there):
        try: content = read(root/name)
        except Exception as error: find(f"{name} is half-written {when}: {str(error).replace(f'{root}/', '')[:100]!r}"); continue
        if name not in known.content: find(f"{name} is published {when}, but not by an undisturbed run")
        elif content != known.content[name] and not changing.match(name): find(f"{name} is not the undisturbed one {when}")
    for folder in TOGETHER:
        whole = {name for name in known.content if name.startswith(folder + "/")}
        if whole - there and whole & there: find(f"{folder} is published in part {when}: {', '.join(sorted(whole - there))} is missing")
        expected = expected - whole
    for name in sorted(expected - there): find(f"{name} is lost {when}")


def without_numbers(name: str) -> str:
    "A temporary file's name without what is different each time"
    return re.sub(r"[0-9a-f]{6,}|[0-9]+", "N", name)


def conclude(stage: str, root: Path, known: UninterruptedRun, ending: RunResult, find):
    "Compare what a last run leaves with what an undisturbed one does"
    if ending.status: find(f"the rerun fails: {ending.said.strip().splitlines()[-1] if ending.said.strip() else ending.status}"); return
    examine(stage, root, known, set(known.content), "after the rerun", find)
    for name in sorted(known.content):
        if (root/name).is_file() and re.match(CHANGING.get(stage, "$^"), name) and read(root/name) != known.content[name]: find(f"{name} is not the undisturbed one after the rerun")
    for name in sorted(files(root) - known.files): find(f"{without_numbers(name)} stays after the rerun")


def sample_kill(kind: str, stage: str, known: UninterruptedRun, chance: random.Random) -> dict:
    "A moment of that kind, as `Warm.run` takes it"
    if kind == KINDS[0]: return dict(delay=chance.uniform(0, known.ending.seconds))
    size = round(SIZES.get(stage, 30_000)**chance.random())
    return dict(moment=["step" if kind == KINDS[1] else "write", chance.randint(1, known.ending.steps), size])


@pytest.mark.parametrize("stage", STAGES)
def test_killed_step_resumes_to_undisturbed_result(stage, warm, uninterrupted, tmp_path, tally):
    known, chance = uninterrupted(stage), random.Random(f"{SEED} {stage}")
    wanted = -(-KILLS*WEIGHTS[stage] // sum(WEIGHTS.values()))
    kinds = [KINDS[(i + list(STAGES).index(stage)) % len(KINDS)] for i in range(wanted)]

    def find(sentence): tally.find(stage, sentence)

    tries = 0
    while kinds and tries < 4*wanted + 10:
        tries += 1
        finished = chance.random() < 0.2  # what was made before must stay while it is made again
        root = tmp_path/str(tries)
        shutil.copytree(known.folder if finished else known.start, root)
        expected = published(root)
        for _ in range(chance.choice([1, 1, 2, 3])):  # the rerun may be killed, too
            if not kinds: break
            ending = warm.run(stage, root, **sample_kill(kinds[-1], stage, known, chance))
            if ending.status not in KILLED: tally.missed += 1; break
            tally.kills[stage][kinds.pop()] += 1
            examine(stage, root, known, expected, "after a kill", find)
        else: ending = None
        if ending is None or ending.status in KILLED: ending = warm.run(stage, root)
        tally.reruns[stage] += 1
        conclude(stage, root, known, ending, find)
        shutil.rmtree(root)
    assert not kinds, f"only {wanted - len(kinds)} kills in {tries} runs"
    assert not tally.of(stage), "\n".join(sorted(set(tally.of(stage))))


@pytest.mark.parametrize("stage, finished, most", [("phantoms", False, 6), ("regions", True, 30)])
def test_killed_before_each_step(stage, finished, most, warm, uninterrupted, tmp_path, tally):
    "The first steps of a collection, which note what is asked for; all steps that put new arrays in the place of old ones"
    known, before = uninterrupted(stage), len(tally.findings)

    def find(sentence): tally.find(stage, sentence)

    for step in range(1, 1000 if LONG else most):
        root = tmp_path/str(step)
        shutil.copytree(known.folder if finished else known.start, root)
        expected, ending = published(root), warm.run(stage, root, moment=["step", step, 0])
        if ending.status not in KILLED: break
        tally.kills[stage][KINDS[1]] += 1
        examine(stage, root, known, expected, "after a kill", find)
        tally.reruns[stage] += 1
        conclude(stage, root, known, warm.run(stage, root), find)
        shutil.rmtree(root)
    assert step >= 5 and len(tally.findings) == before, "\n".join(sorted(set(tally.findings[before:])))


# ------------------------------------------------------------------ a full disk

@pytest.fixture
def disk(tmp_path):
    "A function that makes a disk of so many bytes, or gives it that size"
    place = tmp_path/"disk"
    place.mkdir()

    def sized(size: int) -> Path:
        mounted = os.path.ismount(place)
        options = ["-o", f"remount,size={size}"] if mounted else ["-t", "tmpfs", "-o", f"size={size}", "tmpfs"]
        try: done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True)
        except FileNotFoundError: pytest.skip("no small disk can be made here: there is no mount")
        if done.returncode: pytest.skip(f"no small disk can be made here: {done.stderr.strip()}")
        return place

    yield sized
    if os.path.ismount(place): subprocess.run(["umount", str(place)], check=True)


def used(place: Path) -> int:
    "Bytes that are taken on a disk"
    told = os.statvfs(place)
    return (told.f_blocks - told.f_bfree)*told.f_frsize


def is_clear(said: str, words=("can't be written", "the disk is full")) -> bool:
    "Whether what a run said is one sentence about a full disk"
    lines = [line for line in said.strip().splitlines() if "IPKernelApp" not in line]
    return len(lines) == 1 and all(word in lines[0] for word in words) and "Errno" not in lines[0]


@pytest.mark.parametrize("stage", STAGES)
def test_full_disk_is_one_line_error_and_keeps_files(stage, warm, uninterrupted, disk, tally):
    known, before = uninterrupted(stage), len(tally.findings)

    def find(sentence): tally.find(stage, sentence)

    place, plenty = disk(2**26), 2**26
    shutil.copytree(known.folder, place/"measured")
    whole = used(place)
    shutil.rmtree(place/"measured")
    for share in (*SHARES, None):  # None: all was made before, and is made again
        if share is None and not LONG and stage not in ("phantoms", "regions"): continue
        root = place/"run"
        shutil.copytree(known.folder if share is None else known.start, root)
        start, before_it = used(place), {name: read(root/name) for name in published(root)}
        disk(start + max(4096, round((share or 0)*(whole - start))//4096*4096))
        ending = warm.run(stage, root)
        tally.full[stage] += 1
        well = share is None and not ending.status  # there may be nothing left to write
        if not well and (ending.status != 1 or not is_clear(ending.said)): find(f"on a full disk, it ends with {ending.status} and says {ending.said.strip()[-200:]!r}")
        examine(stage, root, known, set(), "on a full disk", find)
        for name, content in before_it.items():
            if not (root/name).is_file() or read(root/name) != content: find(f"{name} is lost on a full disk")
        for name in sorted(files(root) - known.files):
            if not name.endswith(".part.jsonl"): find(f"{without_numbers(name)} stays on a full disk")
        disk(plenty)
        conclude(stage, root, known, warm.run(stage, root), find)
        shutil.rmtree(root)
    assert len(tally.findings) == before, "\n".join(sorted(set(tally.findings[before:])))


@pytest.mark.parametrize("output", ["--csv", "--save-figure"])
def test_assessment_on_a_full_disk(output, disk, tmp_path):
    models, radiograph, place = write_tiny_models(tmp_path/"run"), write_radiograph(tmp_path/"hand.png", make_phantom(3, 1, defects={}).image), disk(2**20)
    target, ages = place/("ages.csv" if output == "--csv" else "figures"), place/"ages.csv"
    ages.write_text("of yesterday\n")
    with pytest.raises(OSError), open(place/"filler", "wb", buffering=0) as filler:
        while True: filler.write(bytes(4096))
    done = assess(radiograph, "--weights", models.parent, output, target)
    assert done.exit_code == 1 and "bone age" in done.stdout
    assert is_clear(done.stderr) and (target.name in done.stderr) and ages.read_text() == "of yesterday\n"
    assert sorted(path.name for path in place.rglob("*") if path.is_file()) == ["ages.csv", "filler"]
    (place/"filler").unlink()
    assert assess(radiograph, "--weights", models.parent, output, target).exit_code == 0
    if output == "--save-figure": read_radiograph(target/"hand-png.png"); return
    assess(radiograph, "--weights", models.parent, output, tmp_path/"ages.csv")
    assert ages.read_bytes() == (tmp_path/"ages.csv").read_bytes()


def assess(*arguments):
    "`boneage assess …` in this process"
    return CliRunner().invoke(app, ["assess", *map(str, arguments)])


def test_standard_output_on_a_full_disk(tmp_path):
    with open("/dev/full", "w") as full: done = subprocess.run(command("phantom", tmp_path/"radiographs"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and is_clear(done.stderr, ["Standard output can't be written: the disk is full"])
    assert (tmp_path/"radiographs"/"truth.csv").is_file()


# ------------------------------------------------------------------ the harness itself

@pytest.mark.parametrize("damage", ["cut", "changed", "left", "lost"])
def test_harness_sees_damage(damage, uninterrupted, tmp_path):
    known, found = uninterrupted("phantoms"), []
    root = tmp_path/"run"
    shutil.copytree(known.folder, root)
    mask, table = root/"radiographs"/"masks"/"1.png", root/"radiographs"/"truth.csv"
    if damage == "cut": mask.write_bytes(mask.read_bytes()[:-1])
    elif damage == "changed": table.write_text(table.read_text().replace("1", "2"))
    elif damage == "left": (root/"radiographs"/".truth-0.csv").touch()
    else: mask.unlink()
    conclude("phantoms", root, known, known.ending, found.append)
    words = dict(cut="masks/1.png is half-written", changed="truth.csv is not the undisturbed one", left="stays after the rerun", lost="masks/1.png is lost")
    assert len(found) == 1 and words[damage] in found[0]
