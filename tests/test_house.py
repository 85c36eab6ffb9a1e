"The format of modules, notebooks and tests: rules that hold in every file"
import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest

PROJECT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for path in (PROJECT/"boneage").rglob("*.py") if not path.name.startswith("_"))
SCRIPTS = [path for folder in ("tests", "tools", "benchmarks")
           for path in sorted((PROJECT/folder).rglob("*.py"))]
CHAPTERS = sorted((PROJECT/"nbs").rglob("[0-9]*.ipynb"))
GUIDES = [path for folder in ("howto", "play") for path in sorted((PROJECT/folder).glob("[0-9]*.ipynb"))]
REPORTS = sorted((PROJECT/"reports").glob("[0-9]*.ipynb"))
NOTEBOOKS = [path for folder in ("nbs", "reports", "howto", "play")
             for path in sorted((PROJECT/folder).rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
LINES, PARAMETERS, EXPORTS = 40, 7, 3  # of a function, of a function, of a run of exported cells
EXPORTED = re.compile(r"^#\| *exporti?\b", re.M)
DIRECTIVES_ONLY = re.compile(r"(?:\s*#\|.*\n?)*\Z")
MUTATORS = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove",
            "discard",
            "clear", "sort", "reverse"}


def relative(path: Path) -> str:
    "A test's id: the path in the project"
    return path.relative_to(PROJECT).as_posix()


def tree(module: Path) -> ast.Module: return ast.parse(module.read_text())


def code_cells(notebook: Path) -> list:
    "Code cells of a notebook"
    return [cell for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]


# ------------------------------------------------------------------ code

def test_ruff_finds_nothing():
    if not find_spec("ruff"): pytest.skip("ruff is not installed")
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--output-format", "concise"], cwd=PROJECT,
                          capture_output=True, text=True)
    assert done.returncode == 0, "\n" + done.stdout + done.stderr


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_module_keeps_to_the_style(module):
    nodes = list(ast.walk(tree(module)))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not [node for node in imports if any(alias.name == "*" for alias in node.names)], "a star import"
    assert not [node for node in nodes if isinstance(node, ast.ExceptHandler)
                and node.type is None], "a bare except"
    assert not [node for node in nodes if isinstance(node, ast.Global)], "global state"
    public = [node for node in tree(module).body
              if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node)] == [], "no docstring"


UNSAFE_PACKAGES = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
UNSAFE_CALLS = {"pd.read_pickle", "load_learner", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval",
                "exec"}


def test_reading_files_executes_no_code():
    "No pickle in any form, and no YAML that makes objects"
    found = []
    for path in [*MODULES, *(PROJECT/"tools").glob("*.py")]:
        nodes = list(ast.walk(tree(path)))
        imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        found += [f"{path.name} imports {name}" for name in imported if name.split(".")[0] in UNSAFE_PACKAGES]
        for call in (node for node in nodes if isinstance(node, ast.Call)):
            name, options = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
            unsafe = name == "torch.load" and options.get("weights_only") != "True"
            if unsafe or options.get("allow_pickle", "False") != "False" or name in UNSAFE_CALLS:
                found.append(f"{path.name}: {ast.unparse(call)}")
    assert found == []


def parameters(function: ast.FunctionDef) -> list[str]:
    "Names of a function's parameters, without self and cls"
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return [each.arg for each in every if each.arg not in ("self", "cls")]


@pytest.mark.parametrize("module", [*MODULES, *SCRIPTS], ids=relative)
def test_functions_are_short(module):
    functions = [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef)]
    assert [f"{node.name}: {node.end_lineno - node.lineno + 1} lines" for node in functions
            if node.end_lineno - node.lineno >= LINES] == []
    if module in MODULES:
        assert [f"{node.name}: {len(parameters(node))} parameters" for node in functions
                if len(parameters(node)) > PARAMETERS] == [
                    ], "gather what travels together in a frozen record"


def mutations(code: ast.AST, constants: set[str]) -> list[str]:
    "Statements that change an object that a constant names"
    def is_constant(node):
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
        return name in constants
    def changes(node):
        if isinstance(node, ast.AugAssign) and is_constant(node.target): return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            return node.func.attr in MUTATORS and is_constant(node.func.value)
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        return any(isinstance(target, ast.Subscript) and is_constant(target.value) for target in targets)
    return [ast.unparse(node) for node in ast.walk(code) if changes(node)]


@pytest.fixture(scope="module")
def constants() -> set[str]:
    "Names in capitals that modules assign"
    names = {target.id for module in MODULES for node in tree(module).body
             if isinstance(node, ast.Assign | ast.AnnAssign)
             for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
             if isinstance(target, ast.Name)}
    return {name for name in names if re.fullmatch(r"[A-Z][A-Z0-9_]+", name)}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=relative)
def test_constants_stay_constant(notebook, constants):
    sources = (re.sub(r"^[ \t]*[%!].*$", "", cell.source, flags=re.M) for cell in code_cells(notebook))
    found = [statement for source in sources for statement in mutations(ast.parse(source), constants)]
    assert found == []


def test_mutations_are_found():
    bad = "NAMES['a'] = 1", "NAMES.append(2)", "NAMES += [3]", "del module.NAMES[0]"
    good = "names = NAMES | {}", "names[0] = 1", "NAMES.index(3)"
    assert set(mutations(ast.parse("\n".join(bad + good)), {"NAMES"})) == set(bad)


# ------------------------------------------------------------------ chapters

def longest_run(cells: list) -> list[str]:
    "Ids of the longest run of exported cells without a lesson between them"
    longest, run = [], []
    for cell in cells:
        if EXPORTED.search(cell.source): run = [*run, cell.id]
        elif not DIRECTIVES_ONLY.match(cell.source): run = []
        longest = max(longest, run, key=len)
    return longest


@pytest.mark.parametrize("notebook", CHAPTERS, ids=relative)
def test_lessons_follow_exports(notebook):
    run = longest_run(code_cells(notebook))
    assert len(run) <= EXPORTS, f"{len(run)} exported cells without a lesson: {', '.join(run)}"


@pytest.mark.parametrize("notebook", CHAPTERS + GUIDES + REPORTS, ids=relative)
def test_page_ends_in_short(notebook):
    cells = nbformat.read(notebook, 4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    ending = re.split("^(?=## )", prose, flags=re.M)[-1]
    assert ending.startswith("## In short\n"), "the last text is not `## In short`"
    sentences = re.findall(r"[.!?](?:\s|$)", ending)
    assert 1 <= len(sentences) <= 5, "two or three sentences"


# ------------------------------------------------------------------ reports

VERDICT = re.compile(r"\*\*(?:agrees|differs|does not|holds|does not hold|cannot tell)\b", re.I)


@pytest.mark.parametrize("report", REPORTS, ids=relative)
def test_reports_compute_their_verdicts(report):
    typed = [cell.source for cell in nbformat.read(report, 4).cells
             if cell.cell_type == "markdown" and VERDICT.search(cell.source)]
    assert typed == [], "compute it, for example with format_agreement"


def test_claims_open_with_their_figure():
    "The forest plot is the first thing that the page of the claims shows"
    shown = [call for cell in code_cells(PROJECT/"reports"/"13_claims.ipynb")
             for call in re.findall(r"(?:display|show_figure)\(.*", cell.source)]
    assert shown[0].startswith('show_figure(workspace, "claims", claims_figure(')


def test_typed_verdicts_are_found():
    for text in ("**Agrees**: the blocks", "The order **does not hold**.", "**Does not**, and why"):
        assert VERDICT.search(text)
    assert not VERDICT.search("A claim *holds* when the interval lies above zero. **Not measured yet**")
