"The site builds from what there is, whole or partial; its links lead somewhere and nothing on it comes from elsewhere"
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT/"tools"))
from check_site import check_site  # noqa: E402


def report(path: Path, *cells):
    "Write an executed report"
    path.parent.mkdir(parents=True, exist_ok=True)
    markdown, code, output = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell, nbformat.v4.new_output
    parameters = code('root = "work/smoke"', metadata=dict(tags=["parameters"]))
    widget = output("display_data", {"application/vnd.jupyter.widget-view+json": dict(model_id="1"), "text/plain": "Button()"})
    table = output("execute_result", {"text/html": "<table><tr><td>31.56</td></tr></table>", "text/plain": "31.56"}, execution_count=1)
    last = code("boneage.evaluation.mae_table()", outputs=[table, widget], execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[*map(markdown, cells[:1]), parameters, *map(markdown, cells[1:]), last]), path)


def build(root: Path) -> subprocess.CompletedProcess:
    "Run the builder as the pipeline does"
    return subprocess.run([sys.executable, PROJECT/"tools"/"build_site.py", "--root", root, "--out", root/"site"], capture_output=True, text=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    "A workspace with two reports of a run that was stopped, and its site"
    root = tmp_path_factory.mktemp("work")/"partial"
    report(root/"notebooks"/"01_cohort.ipynb", "# The cohort\n> Which radiographs\n\nWords before. See [registration](../nbs/12_registration.ipynb), [the test set](11_test_set.ipynb) and `fit_similarity`.",
           "The loss is $L = H - \\log J$ with\n\n$$J = \\frac{1}{n} \\sum_{i=1}^n \\frac{y_i \\hat{y}_i}{y_i + \\hat{y}_i - y_i \\hat{y}_i} \\tag{3}$$", "An error of {{< var story.mae >}} months.")
    report(root/"notebooks"/"07_training_1.ipynb", "# Fitting\n> Models")
    report(root/"notebooks"/"08_ablation.failed.ipynb", "# Ablation\n> Failed")
    (root/"results").mkdir()
    (root/"results"/"story.json").write_text(json.dumps(dict(mae=6.1, words="text", list=[1, 2.5])))
    (root/"site.building").mkdir()  # of a build that was killed
    (root/"site.building"/"rest").touch()
    done = build(root)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines()[-1] == f"The site: {(root/'site'/'index.html').as_uri()}"
    return root


def page(root: Path, name: str) -> str: return (root/"site"/f"{name}.html").read_text()


def test_nothing_is_broken_or_fetched(root):
    assert check_site(root/"site") == []


def test_every_notebook_has_a_page(root):
    library = {p.stem.split("_", 1)[1] for p in (PROJECT/"nbs").glob("[0-9]*.ipynb")}
    assert library | {"index", "names"} == {p.stem for p in (root/"site"/"library").glob("*.html")}
    assert {"cohort", "training_1"} == {p.stem for p in (root/"site"/"reports").glob("*.html")}
    assert sorted(p.name for p in root.iterdir()) == ["notebooks", "results", "site"]


def test_reports_show_what_they_should(root):
    text = page(root, "reports/cohort")
    assert "31.56" in text and "An error of 6.10 months" in text and "Words before" in text
    assert "<math" in text and "(3)" in text and "katex" not in text.lower()
    assert "Button()" not in text and "vnd.jupyter.widget" not in text
    assert 'href="../library/registration.html"' in text and 'href="../library/geometry.html#fit_similarity"' in text
    assert "the test set" in text and "test_set.html" not in text
    assert "part 2" in page(root, "reports/training_1")


def test_library_shows_code_lessons_and_outputs(root):
    text = page(root, "library/geometry")
    assert "exported" in text and 'id="fit_similarity"' in text and "data:image/png" in text and "expect_fail" in text
    names = page(root, "library/names")
    assert 'href="../library/geometry.html#fit_similarity"' in names or 'href="geometry.html#fit_similarity"' in names


def test_front_page_says_what_the_run_is(root):
    text = page(root, "index")
    assert "not a medical device" in text and "say nothing of clinical accuracy" in text and 'href="reports/cohort.html"' in text


def test_search_works_without_a_server(root):
    script = (root/"site"/"search.js").read_text()
    entries = json.loads(script.removeprefix("window.searchIndex = ").removesuffix(";"))
    assert any("capitate" in entry["text"] for entry in entries)
    assert "search.json" in page(root, "index")


def test_failed_build_keeps_the_old_site(root):
    before = page(root, "index")
    broken = root/"notebooks"/"02_broken.ipynb"
    broken.write_text("{")
    done = build(root)
    broken.unlink()
    assert done.returncode != 0 and page(root, "index") == before


@pytest.mark.parametrize("body, problem", [
    ('<a href="gone.html">x</a>', "broken link: gone.html"),
    ('<a href="#gone">x</a>', "does not have: #gone"),
    ('<a href="../../etc/hosts">x</a>', "out of the site"),
    ('<script src="https://cdn.example.org/x.js"></script>', "fetched from elsewhere: https://cdn.example.org/x.js"),
    ('<img src="//example.org/x.png">', "fetched from elsewhere"),
    ('<style>@import "https://fonts.example.org/a.css";</style>', "fetched from elsewhere"),
    ('<p style="background: url(http://example.org/x.png)">x</p>', "fetched from elsewhere"),
    ('<script>import x from "https://example.org/x.mjs"</script>', "fetched from elsewhere"),
    ('<pre>#| export\ndef f(): pass</pre>', "a directive on the page"),
    ('<p>{{< var x >}}</p>', "a shortcode on the page"),
    (r'<p>\(x\)</p>', "a raw formula on the page"),
    ('<p>see @fig-x</p>', "a reference on the page"),
])
def test_check_finds(tmp_path, body, problem):
    (tmp_path/"index.html").write_text(f"<html><body>{body}</body></html>")
    assert any(problem in found for found in check_site(tmp_path)), check_site(tmp_path)


def test_check_is_content_with_a_good_page(tmp_path):
    (tmp_path/"index.html").write_text('<html><body><h1 id="top">x</h1><a href="#top">x</a><a href="https://example.org">elsewhere, when clicked</a></body></html>')
    assert check_site(tmp_path) == []
