"""Which lines of the library its checks reach: `make coverage` writes benchmarks/coverage.json.

Counted are the lesson cells of every notebook and the tests that take no whole run of the paper. What a check starts as another process is not counted."""
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path

from lessons import NOTEBOOKS, PROJECT

OUT = PROJECT/"benchmarks"/"coverage.json"
LONG = ("test_pipeline.py", "test_slurm.py", "test_fuzz.py", "test_distributed.py", "test_crash.py")  # of tests/: hours of them, or other processes


def measured(folder: Path, *command):
    "Run a command of Python's, its lines counted into a file of its own in the folder; whether it succeeded"
    settings = folder/"coverage.ini"
    settings.write_text(f"[run]\nsource = boneage\ndata_file = {folder}/lines\nparallel = true\n")
    done = subprocess.run([sys.executable, "-m", "coverage", "run", "--rcfile", settings, *command], cwd=PROJECT, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"})
    print(*command, "" if done.returncode == 0 else f"failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}", flush=True)
    return done.returncode == 0


def main():
    quick = sorted(str(path.relative_to(PROJECT)) for path in (PROJECT/"tests").glob("test_*.py") if path.name not in LONG)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        failed = [module for module in NOTEBOOKS if not measured(folder, "tools/lessons.py", module)]
        failed += [test for test in quick if not measured(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", test)]
        for step in (["combine", "-q"], ["json", "-q", "-o", str(folder/"lines.json")]):
            subprocess.run([sys.executable, "-m", "coverage", *step, "--rcfile", folder/"coverage.ini"], cwd=PROJECT, check=True)
        found = json.loads((folder/"lines.json").read_text())
    modules = [dict(module=Path(path).stem, lines=of["summary"]["num_statements"], reached=of["summary"]["covered_lines"], percent=round(of["summary"]["percent_covered"], 1),
                    missed=of["missing_lines"]) for path, of in sorted(found["files"].items()) if not Path(path).name.startswith("_")]
    lines, reached = (sum(module[key] for module in modules) for key in ("lines", "reached"))
    OUT.write_text(json.dumps(dict(date=date.today().isoformat(), python=platform.python_version(), coverage=version("coverage"), about=__doc__.split("\n\n")[1], failed=failed,
                                   lines=lines, reached=reached, percent=round(100*reached/lines, 1), modules=modules), indent=1) + "\n")
    for module in modules: print(f"{module['module']:24}{module['reached']:5} of {module['lines']:4}  {module['percent']:5} %")
    print(f"{'all':24}{reached:5} of {lines:4}  {100*reached/lines:5.1f} %")


if __name__ == "__main__": main()
