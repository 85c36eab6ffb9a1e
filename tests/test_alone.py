"The library alone: with only what `requirements` of settings.ini bring, and no extra"
import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

import pytest
from packaging.requirements import Requirement
from test_packaging import requirements
from tiny_models import write_tiny_models
from typer.main import get_command

from boneage.cli import app
from boneage.radiographs import write_radiograph
from boneage.synthetic.phantoms import make_phantom

ALONE = """
import json, sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN: raise ModuleNotFoundError(f"no module {name}", name=name)
HIDDEN, lines = (json.loads(text) for text in sys.argv[1:])
sys.meta_path.insert(0, Absent)
from typer.testing import CliRunner
from boneage.cli import app
def call(line):
    done = CliRunner().invoke(app, line)
    ended = done.exception is None or isinstance(done.exception, SystemExit)
    return [done.exit_code if ended else repr(done.exception), done.stdout, done.stderr]
outcomes = [call(line) for line in lines]
try: import boneage.app
except ModuleNotFoundError as error: outcomes.append(str(error))
print(json.dumps([outcomes, [name for name in HIDDEN if name in sys.modules]]))
"""


def brought(names: set[str]) -> set[str]:
    "The distributions of this environment that some distributions require, and these themselves"
    found, left = set(), set(names)
    while left:
        name = left.pop()
        if name in found: continue
        found.add(name)
        try: lines = distribution(name).requires or []
        except PackageNotFoundError: continue  # of another platform
        required = [Requirement(line) for line in lines]
        left |= {normal(each.name) for each in required
                 if not each.marker or each.marker.evaluate({"extra": ""})}
    return found


def normal(name: str) -> str: return re.sub(r"[-_.]+", "-", name).lower()


def hidden_modules() -> list[str]:
    "Top-level modules of this environment that the library's requirements do not bring"
    kept = brought({normal(Requirement(line).name) for line in requirements()[""]}) | {"boneage"}
    modules = packages_distributions().items()
    return sorted(module for module, names in modules if not kept & {normal(name) for name in names})


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    "Command lines → exit code, standard output and standard error; error of the app; imported modules"
    folder = tmp_path_factory.mktemp("alone")
    models = write_tiny_models(folder/"run")
    (folder/"visits.csv").write_text("age,sex,bone_age_months\n7y9m,F,84\n")
    hand = write_radiograph(folder/"hand.png", make_phantom(3, 1, shape=(300, 240), defects={}).image)
    lines = ["phantom demo", f"assess {hand} --sex F --weights {models} --csv ages.csv", "visits visits.csv",
             "export --huggingface repository",
             f"assess {hand} --sex F --weights {models} --save-figure figures",
             f"report {hand} --sex F --weights {models} --out report.html",
             "visits visits.csv --out chart.png", "evaluate demo", "paper", "release --data demo",
             "export exported"]
    arguments = json.dumps(hidden_modules()), json.dumps([line.split() for line in lines])
    program = [sys.executable, "-c", ALONE, *arguments]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outcomes, imported = json.loads(done.stdout)
    return dict(zip(lines, outcomes)), outcomes[-1], imported


def test_assessing_needs_no_extra(alone):
    outcomes, _, imported = alone
    assert imported == [] and {"pandas", "fastai", "matplotlib", "yaml", "pydicom"} <= set(hidden_modules())
    for line in list(outcomes)[:4]: assert outcomes[line][0] == 0 and outcomes[line][2] == "", outcomes[line]
    assert "bone age 95 months" in outcomes[list(outcomes)[1]][1]


EXTRAS = dict(assess="research", report="research", visits="research", evaluate="research", paper="reports",
              release="fine-tuning", export="onnx")


def test_a_command_names_the_extra_that_it_needs(alone):
    refused = {line.split()[0]: outcome for line, outcome in list(alone[0].items())[4:]}
    assert set(refused) == set(EXTRAS) == set(get_command(app).commands) - {"phantom"}
    for name, (code, out, err) in refused.items():
        hint = f'run pip install ".[{EXTRAS[name]}]" in a clone of boneage.\n'
        assert (code, out, err.count("\n")) == (2, "", 1) and err.endswith(hint), (name, code, out, err)


def test_the_app_names_its_extra(alone):
    assert alone[1] == 'The app needs ipywidgets: run pip install ".[research]" in a clone of boneage.'


def test_export_without_pytorch(tmp_path):
    program = "import sys; sys.modules['torch'] = None; from boneage.cli import app; app(['export', 'out'])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    sentence = 'This needs the package torch: run pip install ".[onnx]" in a clone of boneage.'
    assert (done.returncode, done.stderr) == (2, sentence + "\n")
