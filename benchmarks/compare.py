"""Speed before and after: `make bench WHAT=compare REVISION=…` measures two revisions in turns.

The other revision is checked out into a temporary folder. Only its `boneage/` is used, with its weights.
Both read the same files in the same environment. The result is a section of benchmarks/speed.json."""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import PROJECT, machine, time_interleaved, write_section

from boneage.radiographs import write_radiograph
from boneage.synthetic.phantoms import make_phantom

WARM = """import sys, time
from boneage.assessment import load_assessor
assessor = load_assessor()
assessor.assess(sys.argv[1], sex="F")
took = []
for _ in range(7):
    began = time.perf_counter()
    assessor.assess(sys.argv[1], sex="F")
    took.append(time.perf_counter() - began)
print(sorted(took)[3])"""

LOADING = """import sys, time
import numpy as np
from boneage.training.bone_age import _PrepareRegions
from boneage.training.core import ArrayLoader, Augmentation
height, width, count = map(int, sys.argv[1:])
stored = count, height*106//100, width*106//100
images = np.random.default_rng(0).integers(0, 256, stored, np.uint8)
prepare = _PrepareRegions((height, width), Augmentation(rotation=5, zoom=.05, shift=.05, gamma=.2))
loader = ArrayLoader((images, np.ones(count, np.float32)), prepare, 16, True)
took = []
for _ in range(8):
    began = time.perf_counter()
    for _ in loader: pass
    took.append(time.perf_counter() - began)
print(count / sorted(took[1:])[3])"""


def run(tree: Path, *arguments) -> str:
    "What Python prints with the library of one tree"
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | dict(PYTHONPATH=str(tree))
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def write_files(folder: Path) -> tuple[Path, Path]:
    "A radiograph of an original's size, and a folder of forty small ones"
    radiograph, several = folder/"radiograph.png", folder/"radiographs"
    several.mkdir()
    large = make_phantom(2, 3, shape=(2048, 1600), sex="F", bone_age=120., defects={})
    write_radiograph(radiograph, large.image)
    for i in range(40):
        write_radiograph(several/f"{i}.png", make_phantom(2, i, shape=(512, 400), defects={}).image)
    return radiograph, several


def measure_both(old: Path, folder: Path) -> list[dict]:
    "Both revisions in turns, a row a measurement"
    radiograph, several = write_files(folder)
    assess = ["-m", "boneage.cli", "assess"]
    commands = {"`boneage --help`": ["-m", "boneage.cli", "--help"],
                "`boneage assess`, one radiograph of 2048×1600": [*assess, radiograph, "--sex", "F"],
                "`boneage assess`, a folder of 40 radiographs of 512×400": [*assess, several]}
    rows = []
    for what, arguments in commands.items():
        calls = [lambda tree=tree, arguments=arguments: run(tree, *arguments) for tree in (old, PROJECT)]
        before, after = time_interleaved(*calls, repeats=3)
        rows.append(dict(what=what, before=before, after=after, unit="s", ratio=before/after))
    def printed(*arguments):
        turns = [[float(run(tree, "-c", *arguments)) for tree in (old, PROJECT)] for _ in range(3)]
        return np.median(turns, axis=0)
    before, after = 1e3*printed(WARM, radiograph)
    rows.append(dict(what="assessing one radiograph of 2048×1600, networks loaded", before=before,
                     after=after,
                     unit="ms", ratio=before/after))
    for height, width, count in ((125, 94, 2048), (500, 375, 128)):
        before, after = printed(LOADING, height, width, count)
        rows.append(dict(what=f"batches for training, {height}×{width}", before=before, after=after,
                         unit="images/s", ratio=after/before))
    return rows


def git(*arguments) -> str:
    "What a command of git prints"
    command = ["git", *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout.strip()


def main(revision: str):
    "Measure both, in turns, and write it down"
    with tempfile.TemporaryDirectory() as name:
        old = Path(name)/"old"
        git("worktree", "add", "--detach", "--quiet", old, revision)
        try: rows = measure_both(old, Path(name))
        finally: git("worktree", "remove", "--force", old)
    for row in rows:
        change = f"{row['before']:.3g} → {row['after']:.3g} {row['unit']}"
        print(f"{row['what']}: {change}, {row['ratio']:.2f} times as fast")
    before = git("rev-parse", "--short", revision)
    write_section("speed", "compared", dict(machine=machine(), before=before, rows=rows))


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]:
        sys.exit("Name the revision to compare with: make bench WHAT=compare REVISION=v0.1.0")
    main(sys.argv[1])
