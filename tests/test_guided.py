"Guided fuzzing: what it does to a file, what it keeps of a finding, and a short run where atheris is installed"
import importlib.util
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pydicom")
PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT/"tools"))

import fuzz_guided  # noqa: E402
from test_fuzz import READERS, reader  # noqa: E402


def test_readers_that_are_left_out_are_there():
    assert set(READERS) >= fuzz_guided.WITHOUT
    assert len({fuzz_guided.folder_of(name) for name in READERS}) == len(READERS)


def test_json_stays_json_and_one_value_changes():
    original, chance = {"a": [1, 2], "b": {"c": "d"}}, random.Random(0)
    made = [json.loads(fuzz_guided.mutate_json(json.dumps(original).encode(), chance)) for _ in range(300)]
    assert {"a": [1, 1, 2], "b": {"c": "d"}} in made and {"b": {"c": "d"}} in made and {"a": [1, 2], "b": {"c": [1, 2]}} in made
    with pytest.raises(ValueError): fuzz_guided.mutate_json(b"{", chance)


def test_first_file_of_each_kind_of_finding_is_kept(tmp_path):
    def read(path):
        if (content := path.read_bytes()) == b"refused": raise ValueError(f"{path} holds nothing that can be used.")
        if content: raise KeyError(content)
        return "wrong"
    (kept := tmp_path/"kept").mkdir()
    look = fuzz_guided.reads(reader(read, lambda found: found == "right", ValueError, "a", None), tmp_path/"a", kept)
    for content in (b"refused", b"one", b"two", b"", b"three"): look(content)
    found = {path.read_bytes(): path.with_suffix(".txt").read_text() for path in kept.iterdir() if not path.suffix}
    assert set(found) == {b"one", b""} and "KeyError: b'one'" in found[b"one"] and "AssertionError" in found[b""]


@pytest.mark.skipif(importlib.util.find_spec("atheris") is not None, reason="atheris is installed")
def test_says_how_to_install_what_it_needs():
    done = subprocess.run([sys.executable, fuzz_guided.__file__], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip() == fuzz_guided.MISSING


def test_a_short_run(tmp_path, monkeypatch):
    pytest.importorskip("atheris")
    monkeypatch.setattr(fuzz_guided, "KEPT", tmp_path)
    row = fuzz_guided.attempt("verdicts", "verdicts.csv", 300, 30)
    assert row["inputs"] >= 300 and row["reached"] >= row["before"] > 5 and row["findings"] == []
    assert [*(tmp_path/"verdicts"/"corpus").iterdir()]


def test_page_shows_a_row_for_each_reader_and_counts_findings(monkeypatch):
    import site_measures
    row = dict(inputs=1000, seconds=5, before=10, reached=12)
    rows = [row | dict(reader="PNG", findings=[]), row | dict(reader="DICOM", findings=["found-end"])]
    monkeypatch.setattr(site_measures, "read", lambda name: dict(machine={}, atheris="3.0.0", rows=rows))
    page = site_measures.guided()
    assert "Of 2,000 files some are findings, 1 in all" in page and "| DICOM | 1,000 | 5 | 10 | 12 | 1 |" in page
