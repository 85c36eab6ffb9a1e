"""Before and after: `make bench-against REVISION=…` measures what a user waits for with the code as it is and with another revision's, in turns, and writes benchmarks/cuts.json.

The other revision is checked out beside, and only its `boneage/` is used, with its own weights; both see the same files and the same environment."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import machine, time_interleaved

from boneage.radiographs import write_radiograph
from boneage.synthetic.phantoms import make_phantom

PROJECT = Path(__file__).resolve().parent.parent

WARM = """import sys, time
from boneage.assessment import load_assessor
assessor = load_assessor()
assessor.assess(sys.argv[1], sex="F")
took = []
for _ in range(7):
    began = time.perf_counter(); assessor.assess(sys.argv[1], sex="F"); took.append(time.perf_counter() - began)
print(sorted(took)[3])"""

LOADING = """import sys, time
import numpy as np
from boneage.training.bone_age import _PrepareRegions
from boneage.training.core import ArrayLoader, Augmentation
height, width, count = map(int, sys.argv[1:])
images = np.random.default_rng(0).integers(0, 256, (count, height*106//100, width*106//100), np.uint8)
loader = ArrayLoader((images, np.ones(count, np.float32)), _PrepareRegions((height, width), Augmentation(5, .05, .05, gamma=.2)), 16, True)
took = []
for _ in range(8):
    began = time.perf_counter()
    for _ in loader: pass
    took.append(time.perf_counter() - began)
print(count / sorted(took[1:])[3])"""


def commands(radiograph: Path, folder: Path) -> dict[str, list[str]]:
    "What a user waits for"
    cli = ["-m", "boneage.cli"]
    return {"`boneage --help`": [*cli, "--help"], "`boneage assess`, one plate of 2048×1600": [*cli, "assess", str(radiograph), "--sex", "F"], "`boneage assess`, a folder of 40 plates of 512×400": [*cli, "assess", str(folder)]}


def main(revision: str):
    "Measure both, in turns"
    rows = []
    with tempfile.TemporaryDirectory() as name:
        old, radiograph, folder = Path(name)/"old", Path(name)/"plate.png", Path(name)/"radiographs"
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", old, revision], cwd=PROJECT, check=True)
        try:
            folder.mkdir()
            write_radiograph(radiograph, make_phantom(2, 3, shape=(2048, 1600), sex="F", bone_age=120., defects={}).image)
            for i in range(40): write_radiograph(folder/f"{i}.png", make_phantom(2, i, shape=(512, 400), defects={}).image)
            def run(tree, arguments): return subprocess.run([sys.executable, *arguments], env=os.environ | dict(PYTHONPATH=str(tree)), cwd=name, check=True, capture_output=True, text=True).stdout
            for what, arguments in commands(radiograph, folder).items():
                before, after = time_interleaved(lambda: run(old, arguments), lambda: run(PROJECT, arguments), repeats=3)
                rows.append(dict(what=what, before=before, after=after, unit="s", ratio=before/after))
            def both(code, *arguments): return np.median([[float(run(tree, ["-c", code, *map(str, arguments)])) for tree in (old, PROJECT)] for _ in range(3)], axis=0)
            before, after = both(WARM, radiograph)
            rows.append(dict(what="assessing one plate of 2048×1600, networks loaded", before=1e3*before, after=1e3*after, unit="ms", ratio=before/after))
            for size in ((125, 94, 2048), (500, 375, 128)):
                before, after = both(LOADING, *size)
                rows.append(dict(what=f"batches for training, {size[0]}×{size[1]}", before=before, after=after, unit="images/s", ratio=after/before))
        finally: subprocess.run(["git", "worktree", "remove", "--force", old], cwd=PROJECT, check=True)
    described = subprocess.run(["git", "rev-parse", "--short", revision], cwd=PROJECT, capture_output=True, text=True).stdout.strip()
    (Path(__file__).parent/"cuts.json").write_text(json.dumps(dict(machine=machine(), before=described, rows=rows), indent=1) + "\n")
    for row in rows: print(f"{row['what']}: {row['before']:.3g} → {row['after']:.3g} {row['unit']}, {row['ratio']:.2f} times as fast")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]: sys.exit("Say which revision to compare with: make bench-against REVISION=v0.1.0")
    main(sys.argv[1])
