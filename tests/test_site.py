"The site builds from what there is, whole or partial; its links lead somewhere and nothing on it comes from elsewhere"
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from boneage import __version__

PROJECT = Path(__file__).resolve().parent.parent
BESIDE = {"howto": "dicom_folder own_data own_annotations gpu cluster add_network add_region", "play": "phantom mask key_points registration contrast_and_regions bone_age"}
sys.path.insert(0, str(PROJECT/"tools"))
from check_site import check_site  # noqa: E402
from site_pages import Page, pace  # noqa: E402


def report(path: Path, *cells):
    "Write an executed report"
    path.parent.mkdir(parents=True, exist_ok=True)
    markdown, code, output = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell, nbformat.v4.new_output
    parameters = code('root = "work/smoke"', metadata=dict(tags=["parameters"]))
    widget = output("display_data", {"application/vnd.jupyter.widget-view+json": dict(model_id="1"), "text/plain": "Button()"})
    table = output("execute_result", {"text/html": "<table><tr><td>31.56</td></tr></table>", "text/plain": "31.56"}, execution_count=1)
    last = code("boneage.paper.evaluation.mae_table()", outputs=[table, widget], execution_count=1)
    made = nbformat.v4.new_notebook(cells=[*map(markdown, cells[:1]), parameters, *map(markdown, cells[1:]), last])
    made.metadata["papermill"] = dict(duration=12.4)
    nbformat.write(made, path)


def build(root: Path) -> subprocess.CompletedProcess:
    "Run the builder as the pipeline does"
    return subprocess.run([sys.executable, PROJECT/"tools"/"build_site.py", "--root", root, "--out", root/"site"], capture_output=True, text=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    "A workspace with two reports of a run that was stopped, and its site"
    root = tmp_path_factory.mktemp("work")/"partial"
    report(root/"notebooks"/"01_cohort.ipynb", "# The cohort\n> Which radiographs\n\nWords before. See [registration](../nbs/assessing/12_registration.ipynb), [the test set](11_test_set.ipynb) and `fit_similarity`.",
           "The loss is $L = H - \\log J$ with\n\n$$J = \\frac{1}{n} \\sum_{i=1}^n \\frac{y_i \\hat{y}_i}{y_i + \\hat{y}_i - y_i \\hat{y}_i} \\tag{3}$$", "An error of {{< var story.mae >}} months.", "Download: [the figure, SVG](../figures/mae.svg) · [its data, CSV](../figures/mae.csv)")
    report(root/"notebooks"/"07_training_1.ipynb", "# Fitting\n> Models")
    report(root/"notebooks"/"08_ablation.failed.ipynb", "# Ablation\n> Failed")
    (root/"results").mkdir()
    (root/"results"/"story.json").write_text(json.dumps(dict(mae=6.1, words="text", list=[1, 2.5])))
    estimate = dict(value=44.25, low=40.0, high=48.0, n=16)
    for name, results in (("ablation", dict(mae=dict(original=estimate))), ("mae_table", dict(best={"ensemble": estimate | dict(value=33.5)}, floor=estimate))):
        (root/"results"/f"{name}.json").write_text(json.dumps(results))
    (root/"figures").mkdir()
    for name in ("mae.svg", "mae.csv"): (root/"figures"/name).write_text("drawn")
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
    library = {f"{p.parent.name}/{p.stem.split('_', 1)[1]}" for p in (PROJECT/"nbs").rglob("[0-9]*.ipynb")}
    assert library | {"index", "names"} == {p.relative_to(root/"site"/"library").with_suffix("").as_posix() for p in (root/"site"/"library").rglob("*.html")}
    for folder, expected in BESIDE.items():
        assert set(expected.split()) == {p.stem.split("_", 1)[1] for p in (PROJECT/folder).glob("[0-9]*.ipynb")}
        assert set(expected.split()) | {"index"} == {p.stem for p in (root/"site"/folder).glob("*.html")}
    assert (root/"site"/"glossary.html").is_file()
    assert {"cohort", "training_1"} == {p.stem for p in (root/"site"/"reports").glob("*.html")}
    assert sorted(p.name for p in root.iterdir()) == ["figures", "notebooks", "results", "site"]


def test_reports_show_what_they_should(root):
    text = page(root, "reports/cohort")
    assert "31.56" in text and "An error of 6.10 months" in text and "Words before" in text
    assert "<math" in text and "(3)" in text and "katex" not in text.lower()
    assert "Button()" not in text and "vnd.jupyter.widget" not in text
    assert 'href="../library/assessing/registration.html"' in text and 'href="../library/assessing/geometry.html#fit_similarity"' in text
    assert "the test set" in text and "test_set.html" not in text
    assert "part 2" in page(root, "reports/training_1")


def test_library_shows_code_lessons_and_outputs(root):
    text = page(root, "library/assessing/geometry")
    assert "exported" in text and 'id="fit_similarity"' in text and "data:image/png" in text and "expect_fail" in text
    names = page(root, "library/names")
    assert 'href="../library/assessing/geometry.html#fit_similarity"' in names or 'href="assessing/geometry.html#fit_similarity"' in names


def test_pages_to_play_with_show_controls_and_two_settings(root):
    for name in BESIDE["play"].split():
        text = page(root, f"play/{name}")
        assert "interact(show" in re.sub("<[^>]+>", "", text) and text.count("data:image/png") == 2 and "set_matplotlib_formats" not in text and "eval: false" not in text, name


def test_front_page_describes_the_run(root):
    text = page(root, "index")
    assert "not a medical device" in text and "say nothing of clinical accuracy" in text and 'href="reports/cohort.html"' in text


def test_where_the_minutes_went(tmp_path):
    pages = []
    for name, title, seconds in [("01_a", "Short", 30), ("02_b", "Long", 60), ("02_b_1", "Long, part 2", 90), ("03_c", "Not run", None)]:
        notebook = nbformat.v4.new_notebook(metadata=dict(papermill=dict(duration=seconds)) if seconds else {})
        nbformat.write(notebook, tmp_path/f"{name}.ipynb")
        pages.append(Page(tmp_path/f"{name}.ipynb", f"reports/{name}", title, "", {}))
    words = pace(pages)
    assert words.index("| Long | 150 | 83% |") < words.index("| Short | 30 | 17% |") and "3 minutes in all" in words and "Not run" not in words
    assert pace(pages[3:]) == ""


def test_front_page_tells_the_story(root):
    text = page(root, "index")
    table = text[text.index('id="in-numbers"'):]
    rows = {row.split("<td")[1].split(">", 1)[1].split("<")[0]: row for row in table.split("<tr")[1:] if row.count("<td") == 4}
    assert "31.56" in rows["whole hand, regression: original images"] and "44.25" in rows["whole hand, regression: original images"]
    assert "4.97" in rows["the test set"] and rows["the test set"].count("–") == 2  # this run has no test, and the sample none
    assert "33.50" in rows["the best ensemble on the validation set"]
    assert text.count("data:image/png") + text.count("<img") >= 2
    for address in ("howto/dicom_folder.html", "howto/gpu.html", "play/index.html", "library/index.html", "glossary.html", "reports/cohort.html"): assert f'href="{address}"' in text, address
    assert "reports/claims.html" not in text  # not run


def test_figures_can_be_downloaded(root):
    text = page(root, "reports/cohort")
    for name in ("mae.svg", "mae.csv"): assert f'href="../figures/{name}"' in text and (root/"site"/"figures"/name).read_text() == "drawn"


def test_pages_end_with_how_they_were_made(root):
    assert "Made in 12 s." in page(root, "reports/cohort")
    for name in ("library/assessing/geometry", "howto/own_data", "play/mask"): assert f"boneage {__version__}" in page(root, name) and "Python 3." in page(root, name)


def test_glossary_leads_to_chapters(root):
    text = page(root, "glossary")
    assert "Epiphysis" in text and 'href="library/assessing/registration.html"' in text


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
