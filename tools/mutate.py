"""Change the library in one small place at a time and see whether a check notices: `make mutants` writes benchmarks/mutants.json.

The changes are mutmut's (numbers, operators, comparisons, arguments, strings, assignments) and one of ours: the first two of a tuple exchanged, as x and y.
Left out by rule: docstrings, annotations, imports, decorators, `__all__`, whatever stands in a `raise` (an error's wording), labels of progress bars, and a string's changes of case.
The checks of a module are the lesson cells of its notebook, then a choice of quick tests. What each change came to is kept in build/, so that a run goes on where it was stopped: a change that was noticed is tried again when the cell that noticed it has become another, one that was not when any check has."""
import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import libcst as cst
import yaml
from lessons import NOTEBOOKS, PROJECT, cell_of, lesson_script, run_lessons
from mutmut.mutation.mutators import mutation_operators, operator_string

OUT, EXPLAINED, KEPT = PROJECT/"benchmarks"/"mutants.json", PROJECT/"tools"/"mutants.yaml", PROJECT/"build"/"mutants.jsonl"
LEFT_OUT = cst.Import | cst.ImportFrom | cst.Annotation | cst.Decorator | cst.Raise


class Target(NamedTuple):
    "A module, or some of its functions and classes, and what checks it beside its notebook"
    subject: str
    module: str
    only: tuple = ()   # names; none: all of the module
    tests: tuple = ()  # arguments of pytest


TARGETS = [
    Target("geometry", "geometry", (), ("tests/test_geometry.py",)),
    Target("registration", "registration", (), ("tests/test_registration.py",)),
    Target("regions", "preprocessing", ("MATRIX_COLUMNS", "matrix_from_row", "extract_regions", "write_regions", "read_regions"), ("tests/test_regions.py",)),
    Target("regions", "bone_age_training", ("bone_age_config", "_check_regions", "_PrepareRegions")),
    Target("losses", "segmentation_training", ("soft_jaccard", "SegmentationLoss", "equal_area_logit", "jaccard", "hard_jaccard")),
    Target("losses", "keypoint_training", ("KeyPointLoss", "mean_pixel_error", "HeatMapLoss", "heat_map_pixel_error")),
    Target("losses", "bone_age_training", ("mae_months",)),
    Target("losses", "fine_tuning", ("AgeDistributionLoss", "own_mae_months")),
    Target("evaluation", "bone_age", (), ("tests/test_evaluation.py",)),
    Target("evaluation", "ensembles", (), ("tests/test_evaluation.py",)),
    Target("evaluation", "evaluation", (), ("tests/test_evaluation_by_hand.py", "tests/test_evaluation.py")),
]


class Mutant(NamedTuple):
    "A module with one place changed"
    where: str  # function, class and method, or constant
    old: str    # the lines that differ
    new: str
    source: str


def swap_first_two(node: cst.Tuple):
    "(a, b) → (b, a)"
    if len(node.elements) > 1:
        first, second, *others = node.elements
        yield node.with_changes(elements=[first.with_changes(value=second.value), second.with_changes(value=first.value), *others])


class Places(cst.CSTVisitor):
    "Every node that may be changed and what it may be changed to"
    def __init__(self, only): self.only, self.names, self.found = only, [], []

    def on_visit(self, node):
        if isinstance(node, LEFT_OUT) or isinstance(node, cst.Expr) and isinstance(node.value, cst.SimpleString): return False
        if isinstance(node, cst.Arg) and node.keyword and node.keyword.value == "label": return False
        if isinstance(node, cst.ClassDef | cst.FunctionDef): self.names.append(node.name.value)
        elif isinstance(node, cst.Assign) and not self.names: self.names.append(cst.Module([]).code_for_node(node.targets[0].target))
        where = self.names[0] if self.names else ""
        if where == "__all__" or isinstance(node, cst.ClassDef | cst.FunctionDef) and self.only and where not in self.only: return self.names.pop() and False
        if where and (not self.only or where in self.only):
            for kind, changes in [*mutation_operators, (cst.Tuple, swap_first_two)]:
                if isinstance(node, kind): self.found += [(".".join(self.names), node, new) for new in [*changes(node)][:1 if changes is operator_string else None]]
        return True

    def on_leave(self, node):
        if self.names and (isinstance(node, cst.ClassDef | cst.FunctionDef) or isinstance(node, cst.Assign) and self.names == [cst.Module([]).code_for_node(node.targets[0].target)]): self.names.pop()


def differing(old: str, new: str) -> tuple[str, str]:
    "The lines between the first and the last that differ, in both"
    a, b = old.splitlines(), new.splitlines()
    first = len(os.path.commonprefix([a, b]))
    last = len(os.path.commonprefix([a[first:][::-1], b[first:][::-1]]))
    return tuple("\n".join(line.strip() for line in lines[first:len(lines) - last]) for lines in (a, b))


def mutants(target: Target) -> list[Mutant]:
    "All changes of a target that are still Python"
    tree, made = cst.parse_module((PROJECT/"boneage"/f"{target.module}.py").read_text()), {}
    places = Places(target.only)
    tree.visit(places)
    for where, node, new in places.found:
        source = tree.deep_replace(node, new).code
        old, changed = differing(tree.code, source)
        try: compile(source, target.module, "exec")
        except SyntaxError: continue
        if source != tree.code: made[source] = Mutant(where, old, changed, source)
    return list(made.values())


class Finder:
    "Imports one module of the package from a changed file"
    def __init__(self, module, path): self.module, self.path = f"boneage.{module}", path

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_file_location(name, self.path) if name == self.module else None


def checks(target: Target, source: str, script: str, folder: Path):
    "In a process of its own: import the changed module, run its checks, and end with 0 if none of them noticed"
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30,) * 2)
    for name, text in [("module.py", source), ("lessons.py", script)]: (folder/name).write_text(text)
    tempfile.tempdir = str(folder)
    sys.meta_path.insert(0, Finder(target.module, folder/"module.py"))
    try: run_lessons(folder/"lessons.py")
    except BaseException as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(folder/"lessons.py")]
        (folder/"by").write_text(cell_of(script, lines[0] if lines else 0))
        raise
    os.chdir(PROJECT)
    (folder/"by").write_text("tests")
    import pytest
    if target.tests and pytest.main(["-x", "-q", "-p", "no:cacheprovider", *target.tests]): raise SystemExit(1)


def attempt(target: Target, source: str, script: str, limit: float) -> dict:
    "What the checks say of a module: survived, killed (by which cell, or the tests) or timed out"
    folder, start = Path(tempfile.mkdtemp(prefix="mutant-")), time.monotonic()
    if not (child := os.fork()):
        code = 1
        try:
            os.setsid()
            silent = os.open(folder/"said", os.O_WRONLY | os.O_CREAT)
            for stream in (1, 2): os.dup2(silent, stream)
            checks(target, source, script, folder)
            code = 0
        except BaseException: traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() - start < limit: time.sleep(0.01)
    if not ended[0]:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    outcome = "timed out" if not ended[0] else "killed" if ended[1] else "survived"
    by = (folder/"by").read_text() if outcome == "killed" and (folder/"by").is_file() else None
    said = (folder/"said").read_text(errors="replace")[-2000:]
    shutil.rmtree(folder, ignore_errors=True)
    return dict(outcome=outcome, by=by, seconds=round(time.monotonic() - start, 2), said=said)


def warm_up():
    "Import everything that the package imports, and forget the package itself"
    os.environ.update(MPLBACKEND="Agg", HYPOTHESIS_STORAGE_DIRECTORY=tempfile.mkdtemp(prefix="hypothesis-"))
    sys.path[:0] = [str(PROJECT), str(PROJECT/"tests")]
    import cv2  # noqa: E401, F401
    import fastcore.test
    import hypothesis
    import matplotlib.pyplot
    import pytest
    import scipy.optimize
    import scipy.stats
    import seaborn
    import torch
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    for module in ("figures", "phantoms", "assessment", *(target.module for target in TARGETS)): importlib.import_module(f"boneage.{module}")
    for name in [name for name in sys.modules if name.split(".")[0] == "boneage"]: del sys.modules[name]


def survey(target: Target) -> list[dict]:
    "What became of every change of a target"
    script = lesson_script(target.module)
    target = target._replace(tests=tuple(name for name in target.tests if not name.endswith(".py") or (PROJECT/name).is_file()))
    tests = repr(target.tests) + "".join((PROJECT/name).read_text() for name in target.tests if name.endswith(".py"))
    texts = {None: script + tests, "tests": tests} | dict(re.findall(r"^# cell (\S+)\n(.*?)(?=^# cell |\Z)", script, re.M | re.S))
    whole = attempt(target, (PROJECT/"boneage"/f"{target.module}.py").read_text(), script, 600)
    if whole["outcome"] != "survived": sys.exit(f"{target.module}: the checks fail without any change ({whole['by']}).\n{whole['said']}")
    kept = {row["this"]: row for row in map(json.loads, KEPT.read_text().splitlines())} if KEPT.is_file() else {}
    rows = []
    for mutant in mutants(target):
        this = digest(mutant.source)
        row = kept.get(this)
        if row is None or row["seen"] != digest(texts.get(row["by"], "")):
            done = attempt(target, mutant.source, script, 10*whole["seconds"] + 10)
            row = dict(this=this, module=target.module, where=mutant.where, old=mutant.old, new=mutant.new, seen=digest(texts.get(done["by"], ""))) | done
            del row["said"]
            with KEPT.open("a") as file: file.write(json.dumps(row, ensure_ascii=False) + "\n")
        rows.append(row)
    return rows


def digest(text: str) -> str: return hashlib.sha256(text.encode()).hexdigest()[:16]


def counts(rows: list[dict], why: dict) -> dict:
    "Changes by what they came to; explained are those of the survivors for which a sentence stands in mutants.yaml"
    found = Counter(row["outcome"] for row in rows)
    explained = sum(row["outcome"] == "survived" and name_of(row) in why for row in rows)
    return dict(mutants=len(rows), killed=found["killed"], timed_out=found["timed out"], survived=found["survived"], explained=explained)


def name_of(row: dict) -> str: return f"{row['module']}.{row['where']}: {row['new']}"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("modules", nargs="*", help="only these; all when none is named")
    asked = options.parse_args()
    KEPT.parent.mkdir(exist_ok=True)
    why = {name: entry["why"] for entry in (yaml.safe_load(EXPLAINED.read_text()) if EXPLAINED.is_file() else []) for name in entry["mutants"]}
    before = {(row["subject"], row["module"]): row["before"] for row in json.loads(OUT.read_text())["modules"]} if OUT.is_file() else {}
    warm_up()
    table, left = [], []
    for target in TARGETS:
        if asked.modules and target.module not in asked.modules: continue
        rows = survey(target)
        now = counts(rows, why)
        table.append(dict(subject=target.subject, module=target.module, parts=list(target.only), before=before.get((target.subject, target.module), now), now=now))
        left += [dict(module=row["module"], where=row["where"], line=row["old"], changed=row["new"], why=why.get(name_of(row))) for row in rows if row["outcome"] == "survived"]
        print(f"{target.subject:14}{target.module:24}" + "  ".join(f"{count} {name.replace('_', ' ')}" for name, count in now.items()), flush=True)
    for row in left:
        if not row["why"]: print(f"\n{row['module']}.{row['where']}\n  - {row['line']}\n  + {row['changed']}")
    if asked.modules: return
    for name in sorted(set(why) - {f"{row['module']}.{row['where']}: {row['changed']}" for row in left}): print(f"no survivor any more: {name}")
    made = dict(date=date.today().isoformat(), python=platform.python_version(), versions={name: version(name) for name in ("mutmut", "libcst", "pytest", "hypothesis", "numpy", "torch")})
    OUT.write_text(json.dumps(dict(made, about=__doc__.split("\n\n")[1].splitlines(), modules=table, survivors=left), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__": main()
