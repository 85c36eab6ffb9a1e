"The lesson cells of a library notebook as one plain script, run against the package as it is imported"
import os
import re
import runpy
import sys
import tempfile
from pathlib import Path

import nbformat
from IPython.core.interactiveshell import InteractiveShell

PROJECT = Path(__file__).absolute().parent.parent
NOTEBOOKS = {re.search(r"#\| default_exp (\w+)", text)[1]: path for path in sorted((PROJECT/"nbs").glob("*.ipynb"))
             if "#| default_exp" in (text := path.read_text())}  # module → its notebook
NOT_A_LESSON = re.compile(r"^#\| *(export|exporti|exec_doc|default_exp|eval: *false)", re.M)


def lesson_script(
    module: str,  # of the package, without "boneage."
) -> str:         # Python; each cell begins with a line `# cell <id>`
    "What the module's notebook checks, without what it exports: that comes from the package"
    cells = [cell for cell in nbformat.read(NOTEBOOKS[module], 4).cells if cell.cell_type == "code" and not NOT_A_LESSON.search(cell.source)]
    begin = ["import warnings", 'warnings.filterwarnings("ignore")', f"import boneage.{module} as _module", "def display(*shown, **how): pass",
             'globals().update({name: value for name, value in vars(_module).items() if not name.startswith("__")})']
    return "\n".join(begin + [f"# cell {cell.id}\n{cell.source}" for cell in cells]) + "\n"


def run_lessons(script: Path):
    "Run a script of lessons where nbdev runs its notebooks, without a display"
    os.environ["MPLBACKEND"] = "Agg"
    os.chdir(PROJECT/"nbs")
    runpy.run_path(str(script), run_name="lessons")


def cell_of(
    script: str,  # of `lesson_script`
    line: int,    # counted from 1
) -> str:
    "The cell that a line of a script stands in"
    return re.findall(r"^# cell (\S+)$", "\n".join(["# cell import", *script.splitlines()[:line]]), re.M)[-1]


if __name__ == "__main__":
    InteractiveShell.instance()  # some lessons look at what a notebook displays
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder)/f"{sys.argv[1]}_lessons.py"
        script.write_text(lesson_script(sys.argv[1]))
        run_lessons(script)
