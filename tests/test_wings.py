"""The wings: the root of the package assesses one radiograph, each folder below it is a wing of research.

A module imports from the root or from a wing further up in ORDER, and inside its wing from a notebook of a
lower number. The doors (the command line, folders, the app) may import any wing inside a function."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

PROJECT = Path(__file__).resolve().parent.parent
ORDER = [{""}, {"datasets"}, {"synthetic", "training"}, {"paper"}, {"release"}]  # "": the root
DOORS = {"batches", "app", "cli", "documents"}  # modules of the root
MODULES = sorted(path for path in (PROJECT/"boneage").rglob("*.py") if not path.name.startswith("_"))
NOTEBOOKS = sorted((PROJECT/"nbs").rglob("[0-9]*.ipynb"))
RESEARCH = {"fastai", "pandas", "pandera", "scipy", "statsmodels", "matplotlib", "seaborn", "ipywidgets",
            "anywidget", "yaml", "pydantic",
            "papermill", "snakemake", "nbformat"}


def name_of(module: Path) -> str:
    "`training.core` for boneage/training/core.py"
    return ".".join(module.relative_to(PROJECT/"boneage").with_suffix("").parts)


def wing_of(name: str) -> str: return name.rpartition(".")[0]


NAMES = {name_of(module): module for module in MODULES}


def imported(tree: ast.AST, package: str) -> set[str]:
    "Dotted names that a piece of a module imports, those of this library without `boneage`"
    here, found = ["boneage", *filter(None, package.split("."))], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            start = here[:len(here) + 1 - node.level] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            inside = {f"{module}.{alias.name}" for alias in node.names}
            found |= inside if inside & {f"boneage.{name}" for name in NAMES} else {module}
    return {name.removeprefix("boneage.") for name in found}


def imports(name: str, deferred: bool) -> set[str]:
    "What a module imports inside its functions, or outside of them"
    tree = ast.parse(NAMES[name].read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = set().union(*(imported(function, wing_of(name))
                           for function in functions)) if functions else set()
    if deferred: return inside
    for function in functions: function.body = [ast.Pass()]
    return imported(tree, wing_of(name))


def rank(wing: str) -> int: return next(number for number, wings in enumerate(ORDER) if wing in wings)


def allowed(name: str, other: str, numbers: dict) -> bool:
    "Whether one module of the library may import another"
    a, b = wing_of(name), wing_of(other)
    return numbers[other] < numbers[name] if a == b else rank(b) < rank(a)


@pytest.fixture(scope="module")
def numbers() -> dict[str, int]:
    "Module → the number of its notebook"
    found = {}
    for notebook in NOTEBOOKS:
        source = "\n".join(cell.source for cell in nbformat.read(notebook, 4).cells)
        found[re.search(r"#\| default_exp (\S+)", source)[1]] = int(notebook.stem.split("_")[0])
    return found


def test_each_module_has_a_notebook_in_its_wing(numbers):
    assert set(numbers) == set(NAMES)
    assert len(set(numbers.values())) == len(NOTEBOOKS), "a number occurs twice"
    folders = {notebook.parent.name for notebook in NOTEBOOKS}
    assert folders == {"assessing"} | {wing for wings in ORDER for wing in wings if wing}
    wrong = [f"{notebook.parent.name}/{notebook.stem}" for notebook in NOTEBOOKS
             for name in [next(name for name, number in numbers.items() if number == int(notebook.stem[:2]))]
             if notebook.stem[3:] != name.rpartition(".")[2]
             or notebook.parent.name != (wing_of(name) or "assessing")]
    assert wrong == []


def test_numbers_rise_through_the_wings(numbers):
    for lower, higher in zip(ORDER, ORDER[1:]):
        below, above = ([numbers[name] for name in NAMES if wing_of(name) in wings]
                        for wings in (lower, higher))
        assert max(below) < min(above)


def test_imports_go_up(numbers):
    wrong = [f"{name} imports {other}" for name in NAMES for deferred in (False, True)
             for other in imports(name, deferred)
             if other in NAMES and not allowed(name, other, numbers) and not (deferred and name in DOORS)]
    assert wrong == []


def test_every_import_of_the_library_is_a_module():
    wings = {wing for wings in ORDER for wing in wings}
    wrong = [f"{name} imports {other}" for name in NAMES for deferred in (False, True)
             for other in imports(name, deferred)
             if other == "boneage" or other.split(".")[0] in wings - {""} and other not in NAMES]
    assert [line for line in wrong if not line.endswith(" boneage")] == []


def test_the_rule_rejects_imports_down():
    numbers = {"geometry": 2, "networks": 4, "training.core": 51, "training.mining": 53,
               "synthetic.phantoms": 44, "paper.run": 66}
    assert allowed("networks", "geometry", numbers) and allowed("paper.run", "training.core", numbers)
    for name, other in [("geometry", "networks"), ("networks", "training.core"),
                        ("training.core", "training.mining"),
                        ("training.core", "synthetic.phantoms"), ("synthetic.phantoms", "training.core"),
                        ("training.core", "paper.run")]:
        assert not allowed(name, other, numbers), (name, other)


def test_the_root_needs_no_package_of_research():
    roots = [name for name in NAMES if not wing_of(name) and name not in DOORS]
    wrong = [f"{name} imports {other}" for name in roots for deferred in (False, True)
             for other in imports(name, deferred) if other.split(".")[0] in RESEARCH]
    assert wrong == []


def test_the_root_starts_without_packages_of_research():
    # the app is made of widgets
    names = [f"boneage.{name}" for name in NAMES if not wing_of(name) and name != "app"]
    code = f"import sys, {', '.join(names)}; print(sorted({RESEARCH!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout.strip() == "[]", done.stderr


def test_assessing_can_do_without_torch():
    code = "import sys; sys.modules['torch'] = None; import boneage.assessment; print('cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout.strip() == "True", done.stderr


def test_every_module_imports_without_torchvision():
    modules = ", ".join(f"boneage.{name}" for name in NAMES)
    code = f"import sys, {modules}; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT)
    assert done.stdout.strip() == "False", done.stderr
