"The changes that `make mutants` makes: where they are made, where not, and that an explanation is still for something"
import re
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("mutmut")
PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT/"tools"))

from mutate import EXPLAINED, TARGETS, Target, mutants  # noqa: E402


def test_mutants_change_code_not_docstrings():
    changed = [mutant.new for mutant in mutants(Target("", "geometry", ("mirror", "invert")))]
    assert "return np.array([[-1., 0., width + 1.], [0., 1., 0.], [0., 0., 1.]])" in changed  # another operator
    assert "inverse[2] = 0., 0., 2.0" in changed                                              # another number
    assert not [line for line in changed for words in ("exchanges left", "width:int", "flattens the image") if words in line]


def test_elements_of_a_tuple_are_exchanged():
    assert "width, height = shape" in [mutant.new for mutant in mutants(Target("", "geometry", ("warp",)))]


def test_every_part_that_is_named_is_there():
    for target in TARGETS:
        source = (PROJECT/"boneage"/f"{target.module}.py").read_text()
        assert [name for name in target.only if not re.search(rf"^((def|class) )?{name}\b", source, re.M)] == []


def test_explanations_are_for_lines_that_are_there():
    sources = {target.module: (PROJECT/"boneage"/f"{target.module}.py").read_text() for target in TARGETS}
    for entry in yaml.safe_load(EXPLAINED.read_text()):
        assert entry["why"].endswith(".") and entry["mutants"]
        for name in entry["mutants"]: assert name.split(":")[0].split(".")[1] in sources[name.split(".")[0]], name
