"""Lines of the library that its checks reach: `make stress WHAT=coverage` counts them.

It counts the lessons of every notebook and the tests that run in minutes, but no code of other processes.
The result is a section of benchmarks/reliability.json."""
import json
import os
import platform
import re
import runpy
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest

PROJECT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((PROJECT/"nbs").rglob("[0-9]*.ipynb"))
LONG = "test_pipeline.py", "test_distributed.py"
NOT_A_LESSON = re.compile(r"^#\| *(export|exporti|exec_doc|default_exp|eval: *false)", re.M)
BEGINNING = """import warnings
warnings.filterwarnings("ignore")
import boneage.{module} as _module
def display(*shown, **options): pass
globals().update({{name: value for name, value in vars(_module).items() if not name.startswith("__")}})"""


def lesson_script(notebook: Path) -> str:
    "The lessons of a notebook as a script; its exported names come from the package"
    cells = [cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
    module = re.search(r"^#\| default_exp (\S+)", "\n".join(cells), re.M)[1]
    lessons = [source for source in cells if not NOT_A_LESSON.search(source)]
    return "\n".join([BEGINNING.format(module=module), *lessons]) + "\n"


def counted(folder: Path, *command, cwd: Path = PROJECT) -> bool:
    "Run a command of Python and count its lines into the folder; whether it succeeded"
    environment = os.environ | dict(PYTHONPATH=str(PROJECT), COVERAGE_FILE=str(folder/"lines"),
                                    MPLBACKEND="Agg")
    environment.pop("STRESS", None)
    command = [sys.executable, "-m", "coverage", "run", "--rcfile", folder/"coverage.ini", *command]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(*command[6:], f"failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}", flush=True)
    return done.returncode == 0


def summarise(folder: Path) -> list[dict]:
    "Lines of each module, and how many of them were reached"
    environment = os.environ | dict(COVERAGE_FILE=str(folder/"lines"))
    for step in (["combine", "-q"], ["json", "-q", "-o", folder/"lines.json"]):
        subprocess.run([sys.executable, "-m", "coverage", *step], cwd=folder, check=True, env=environment)
    files = sorted(json.loads((folder/"lines.json").read_text())["files"].items())
    modules = {Path(path).relative_to(PROJECT/"boneage"): found["summary"] for path, found in files}
    return [dict(module=".".join(module.with_suffix("").parts), lines=found["num_statements"],
                 reached=found["covered_lines"])
            for module, found in modules.items() if not module.name.startswith("_")]


@pytest.mark.skipif("STRESS" not in os.environ, reason="runs under `make stress WHAT=coverage`")
def test_checks_pass_while_their_lines_are_counted(tmp_path):
    from measure import write_section
    (tmp_path/"coverage.ini").write_text(f"[run]\nsource = {PROJECT/'boneage'}\nparallel = true\n")
    failed = []
    for notebook in NOTEBOOKS:
        script = tmp_path/f"{notebook.parent.name}_{notebook.stem}.py"
        script.write_text(lesson_script(notebook))
        if not counted(tmp_path, __file__, script, cwd=notebook.parent): failed.append(notebook.stem)
    for test in sorted((PROJECT/"tests").glob("test_*.py")):
        if test.name in LONG: continue
        if not counted(tmp_path, "-m", "pytest", "-q", test): failed.append(test.name)
    write_section("reliability", "coverage", dict(
        date=str(date.today()), python=platform.python_version(), coverage=version("coverage"),
        modules=summarise(tmp_path)))
    assert failed == []


def test_lesson_script_holds_lessons_only():
    script = lesson_script(PROJECT/"nbs"/"assessing"/"02_geometry.ipynb")
    assert "import boneage.geometry as _module" in script and "test_close" in script
    assert "#| export" not in script


if __name__ == "__main__":
    from IPython.core.interactiveshell import InteractiveShell
    InteractiveShell.instance()  # some lessons show what a notebook displays
    runpy.run_path(sys.argv[1], run_name="lessons")
