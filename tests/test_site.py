"The site builds from a whole or partial run, with working links, and loads nothing from other servers"
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import nbformat
import pytest
import yaml

from boneage import __version__

PROJECT = Path(__file__).resolve().parent.parent
BESIDE = {"howto": "dicom_folder own_data own_annotations gpu cluster add_network add_region growth "
                   "report evaluate",
          "play": "phantom mask key_points registration contrast_and_regions bone_age"}
sys.path.insert(0, str(PROJECT/"tools"))
import build_site  # noqa: E402
from check_site import PageReader, check_site  # noqa: E402
from site_measures import reliability_page, speed_page  # noqa: E402
from site_pages import WINGS, Page, run_times  # noqa: E402


def report(path: Path, *cells):
    "Write an executed report"
    path.parent.mkdir(parents=True, exist_ok=True)
    markdown, code, output = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell, nbformat.v4.new_output
    parameters = code('root = "work/smoke"', metadata=dict(tags=["parameters"]))
    widget = output("display_data", {"application/vnd.jupyter.widget-view+json": dict(model_id="1"),
                                     "text/plain": "Button()"})
    table = output("execute_result", {"text/html": "<table><tr><th></th><th>MAE</th></tr>"
                                                   "<tr><td>hand</td><td>31.56</td></tr></table>",
                                      "text/plain": "31.56"}, execution_count=1)
    heading = output("display_data", {"text/markdown": "## Problems of the input\n\nNone was found."})
    figure = output("display_data",
                    {"text/markdown": f"{DOWNLOADS}\n\n[Fits](07_training_1.ipynb#figure-mae)"})
    last = code("boneage.paper.evaluation.mae_table()", outputs=[table, heading, figure, widget],
                execution_count=1)
    cells = [*map(markdown, cells[:1]), parameters, *map(markdown, cells[1:]), last]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=dict(papermill=dict(duration=12.4))), path)


def build(root: Path, renderer: str) -> subprocess.CompletedProcess:
    "Run the builder as the pipeline does"
    command = [sys.executable, PROJECT/"tools"/"build_site.py", "--root", root, "--out", root/"site",
               "--renderer", renderer]
    return subprocess.run(command, capture_output=True, text=True)


COHORT = """# The cohort
> Which radiographs

Words before. See [registration](../nbs/assessing/12_registration.ipynb),
[the test set](11_test_set.ipynb) and `fit_similarity`."""
LOSS = r"""The loss is $L = H - \log J$ with

$$J = \frac{1}{n} \sum_{i=1}^n \frac{y_i \hat{y}_i}{y_i + \hat{y}_i - y_i \hat{y}_i} \tag{3}$$"""
DOWNLOADS = "Download: [the figure, SVG](../figures/mae.svg) · [its data, CSV](../figures/mae.csv)"


def workspace(root: Path) -> Path:
    "A workspace with two reports of a run that was stopped"
    report(root/"notebooks"/"01_cohort.ipynb", COHORT, LOSS, "An error of {{< var story.mae >}} months.")
    report(root/"notebooks"/"07_training_1.ipynb", "# Fitting\n> Models")
    report(root/"notebooks"/"08_ablation.failed.ipynb", "# Ablation\n> Failed")
    (root/"results").mkdir()
    (root/"results"/"story.json").write_text(json.dumps(dict(mae=6.1, words="text", list=[1, 2.5])))
    estimate = dict(value=44.25, low=40.0, high=48.0, n=16)
    grid = dict(best={"ensemble": estimate | dict(value=33.5)}, baseline=estimate | dict(value=55.5))
    for name, results in dict(ablation=dict(mae=dict(original=estimate)), mae_table=grid).items():
        (root/"results"/f"{name}.json").write_text(json.dumps(results))
    (root/"figures").mkdir()
    for name in ("mae.svg", "mae.csv"): (root/"figures"/name).write_text("figure")
    return root


QUARTO = pytest.param("quarto", marks=pytest.mark.skipif(not shutil.which("quarto"),
                                                         reason="Quarto is not installed"))


@pytest.fixture(scope="module", params=["smalldocs", QUARTO])
def root(request, tmp_path_factory) -> Path:
    "A workspace and its site, by each renderer that is installed"
    root = workspace(tmp_path_factory.mktemp("work")/"partial")
    (root/"site.building").mkdir()  # of a build that was killed
    (root/"site.building"/"rest").touch()
    done = build(root, request.param)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" or request.param == "quarto", done.stderr
    assert done.stdout.splitlines()[-1] == f"The site: {(root/'site'/'index.html').as_uri()}"
    return root


def page(root: Path, name: str) -> str: return (root/"site"/f"{name}.html").read_text()


def links(text: str, name: str) -> set[str]:
    "Where a page leads to, as addresses in the site: renderers write `./a.html`, `a.html` and `../b/a.html`"
    addresses = [f"{posixpath.basename(name)}.html{address}" if address.startswith("#") else address
                 for address in PageReader(text).links if not re.match("[a-z]+:", address)]
    return {posixpath.normpath(posixpath.join(posixpath.dirname(name), address)) for address in addresses}


def pictures(text: str) -> int:
    "Number of pictures of cells, inside the page or in files beside it"
    return len(re.findall(r'<img [^>]*src="(?:data:image/|[^"]*_files/)', text))


def test_nothing_is_broken_or_fetched(root):
    assert check_site(root/"site") == []


def test_every_notebook_has_a_page(root):
    library = {f"{p.parent.name}/{p.stem.split('_', 1)[1]}" for p in (PROJECT/"nbs").rglob("[0-9]*.ipynb")}
    folder = root/"site"/"library"
    pages = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.html")}
    assert library | {"index", "names"} == pages
    for folder, expected in BESIDE.items():
        names = {path.stem.split("_", 1)[1] for path in (PROJECT/folder).glob("[0-9]*.ipynb")}
        assert set(expected.split()) == names
        assert names | {"index"} == {path.stem for path in (root/"site"/folder).glob("*.html")}
    assert (root/"site"/"glossary.html").is_file()
    assert {"cohort", "training_1"} == {p.stem for p in (root/"site"/"reports").glob("*.html")}
    assert sorted(p.name for p in root.iterdir()) == ["figures", "notebooks", "results", "site"]


def test_sidebar_lists_the_wings(root):
    text = page(root, "index")
    folders = {path.parent.name for path in (PROJECT/"nbs").rglob("[0-9]*.ipynb")}
    assert set(WINGS) == folders
    sidebar = text[text.index('id="quarto-sidebar"'):]
    places = [sidebar.index(f">{title}<") for title, _ in WINGS.values()]
    assert places == sorted(places)
    addresses = links(sidebar, "index")
    for wing in WINGS: assert any(address.startswith(f"library/{wing}/") for address in addresses)


def test_reports_show_their_outputs(root):
    text = page(root, "reports/cohort")
    assert "31.56" in text and "An error of 6.10 months" in text and "Words before" in text
    formula = re.search('<math[^>]* display="block".*?</math>', text, re.S)[0]
    assert "(3)" in unescape(re.sub("<annotation.*?</annotation>|<[^>]+>", "", formula, flags=re.S))
    assert "katex" not in text.lower()
    assert "Button()" not in text and "vnd.jupyter.widget" not in text
    for address in ("registration.html", "geometry.html#fit_similarity"):
        assert f"library/assessing/{address}" in links(text, "reports/cohort")
    assert "the test set" in text and "test_set.html" not in text
    assert "part 2" in page(root, "reports/training_1")


def test_contents_list_the_headings_of_outputs(root):
    text = page(root, "reports/cohort")
    assert "reports/cohort.html#problems-of-the-input" in links(text, "reports/cohort")
    assert text.index("31.56") < text.index("None was found.") < text.index("Made in 12 s.")
    assert "None</" not in text  # the source of the cell that is added


def test_library_shows_code_lessons_and_outputs(root):
    text = page(root, "library/assessing/geometry")
    for part in ("exported", 'id="fit_similarity"', "expect_fail"): assert part in text
    assert pictures(text)
    names = links(page(root, "library/names"), "library/names")
    assert "library/assessing/geometry.html#fit_similarity" in names


def test_pictures_are_described(root):
    for path in (root/"site").rglob("*.html"):
        assert not re.search(r"<img (?![^>]*\balt=)", path.read_text()), path
    assert 'alt="Figure: A test hand"' in page(root, "library/assessing/geometry")


def test_play_pages_show_controls_and_two_settings(root):
    for name in BESIDE["play"].split():
        text = page(root, f"play/{name}")
        assert "interact(show" in re.sub("<[^>]+>", "", text) and pictures(text) == 2, name
        assert "set_matplotlib_formats" not in text and "eval: false" not in text, name


def test_front_page_describes_the_run(root):
    text = page(root, "index")
    assert "not a medical device" in text and "say nothing of clinical accuracy" in text
    assert "reports/cohort.html" in links(text, "index")


def test_times_of_reports_are_added_up(tmp_path):
    pages = []
    for name, title, seconds in [("01_a", "Short", 30), ("02_b", "Long", 60), ("02_b_1", "Long, part 2", 90),
                                 ("03_c", "Not run", None)]:
        metadata = dict(papermill=dict(duration=seconds)) if seconds else {}
        notebook = nbformat.v4.new_notebook(metadata=metadata)
        nbformat.write(notebook, tmp_path/f"{name}.ipynb")
        pages.append(Page(tmp_path/f"{name}.ipynb", f"reports/{name}", title, "", {}))
    text = run_times(pages)
    assert text.index("| Long | 150 | 83% |") < text.index("| Short | 30 | 17% |")
    assert "3 minutes in all" in text and "Not run" not in text
    assert run_times(pages[3:]) == ""


def test_measurements_are_shown():
    speed, reliability = speed_page(), reliability_page()
    for title in ("From a file to a bone age", "Training on a GPU", "Before and after"):
        assert f"\n## {title}\n" in speed
    for what in ("fuzz", "crash", "determinism", "coverage"):
        assert f"`make stress WHAT={what}`" in reliability
    assert "| weights | 870 |" in reliability or re.search(r"\| weights \| [\d,]+ \|", reliability)


def test_front_page_shows_the_results(root):
    text = page(root, "index")
    table = text[text.index('id="in-numbers"'):]
    rows = [row for row in table.split("<tr")[1:] if row.count("<td") == 4]
    rows = {row.split("<td")[1].split(">", 1)[1].split("<")[0]: row for row in rows}
    original, test_set = rows["whole hand, regression: original images"], rows["the test set"]
    assert "31.56" in original and "44.25" in original
    assert "4.97" in test_set and test_set.count("–") == 2  # neither this run nor the sample has a test set
    assert "55.50" in rows["baseline: median age of the sex"]
    assert "33.50" in rows["the best ensemble on the validation set"]
    for address in ("howto/dicom_folder.html", "howto/gpu.html", "play/index.html", "library/index.html",
                    "glossary.html", "reports/cohort.html"):
        assert address in links(text, "index")
    assert "reports/claims.html" not in text  # not run


def panels(root: Path, name: str) -> list[str]:
    "The entries of one of the front page's parts that are stepped through"
    part = re.search(f'<section class="panels" id="{name}".*?</section>', page(root, "index"), re.S)[0]
    return re.findall("<li.*?</li>", part, re.S)


def test_front_page_steps_through_the_way(root):
    steps = panels(root, "way")
    names = "Read Segment Normalise Detect Register Predict Average".split()
    assert [re.search(r"<h2>\d\. (\w+)</h2>", step)[1] for step in steps] == names
    chapters = [address for step in steps for address in links(step, "index")]
    assert len(set(chapters)) == len(steps)
    assert all((root/"site"/address).is_file() for address in chapters)
    files = [root/"site"/re.search('src="(.*?)"', step)[1] for step in steps]
    assert len({path.read_bytes() for path in files}) == len(steps)


def test_front_page_grows_a_hand(root):
    shown = [re.search('src="(.*?)" alt="(.*?)"', entry) for entry in panels(root, "growing")]
    expected = [f"Synthetic radiograph: {sex}, {age} year{'s'*(age > 1)}"
                for sex in ("girl", "boy") for age in range(1, 19)]
    assert [found[2] for found in shown] == expected
    files = {(root/"site"/found[1]).read_bytes() for found in shown}
    assert len(files) == len(expected) and sum(map(len, files)) < 700_000
    counts = [list(map(int, re.findall(r"(\d+) of", entry))) for entry in panels(root, "growing")]
    for bones in zip(*counts):  # carpals, then growth plates: none is lost, and girls are ahead of boys
        girls, boys = bones[:18], bones[18:]
        assert sorted(girls) == [*girls] and sorted(boys) == [*boys]
        assert all(girl >= boy for girl, boy in zip(girls, boys)) and girls != boys


STEPPING = """<script>addEventListener("load", () => {
  const way = document.getElementById("way"), hand = document.getElementById("growing");
  const shown = part => [...part.querySelectorAll("li")].filter(item => item.checkVisibility())
    .map(item => item.querySelector("img").getAttribute("src"));
  const seen = [shown(way), shown(hand)];
  for (let n = 0; n < 3; n++) way.querySelectorAll("button")[1].click();
  way.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
  hand.querySelectorAll("[type=radio]")[1].click();
  hand.querySelector("[type=range]").value = 12;
  hand.dispatchEvent(new Event("input"));
  seen.push(shown(way), shown(hand));
  for (const part of [way, hand]) seen.push(part.querySelector("output").textContent);
  document.title = JSON.stringify(seen);
});</script>"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_pictures_follow_buttons_keys_and_slider(root, tmp_path):
    path = root/"site"/"stepping.html"
    path.write_text(page(root, "index").replace("</body>", STEPPING + "</body>"))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               f"--user-data-dir={tmp_path/'user'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    path.unlink()
    assert json.loads(unescape(re.search("<title>(.*?)</title>", done.stdout)[1])) == [
        ["way/read.webp"], ["growing/F-07.webp"], ["way/normalise.webp"], ["growing/M-12.webp"],
        "step 3 of 7", "boy, 12 years"], done.stderr


def test_three_sections_lead_to_pages(root):
    text = page(root, "index")
    table = text[text.index('id="in-numbers"'):text.index('id="the-result-on-real-radiographs"')]
    rows = [row for row in table.split("<tr")[1:] if row.count("<td") == 2]
    leads = {re.search(r'href="[^"]*#([\w-]+)"', row)[1]: links(row, "index") for row in rows}
    assert list(leads) == ["read", "rerun-the-paper", "use-it"]
    for section, addresses in leads.items():
        assert f'id="{section}"' in text and len(addresses) >= 3
        for address in addresses: assert (root/"site"/address.partition("#")[0]).is_file(), address


def test_figures_can_be_downloaded(root):
    text = page(root, "reports/cohort")
    for name in ("mae.svg", "mae.csv"):
        assert f"figures/{name}" in links(text, "reports/cohort")
        assert (root/"site"/"figures"/name).read_text() == "figure"


def test_figures_have_a_place_that_other_pages_link_to(root):
    for name in ("reports/cohort", "reports/training_1"): assert 'id="figure-mae"' in page(root, name)
    assert "reports/training_1.html#figure-mae" in links(page(root, "reports/cohort"), "reports/cohort")


def test_navigations_have_names_and_toggles_are_buttons(root):
    text = page(root, "reports/cohort")
    names = re.findall('<nav[^>]* aria-label="(.*?)"', text)
    assert len(names) == text.count("<nav") and {"Site", "Pages", "On this page"} < {*names}
    assert text.count('role="button"') >= len(WINGS) and 'role="navigation"' not in text


def test_empty_cells_are_no_headings(root):
    row = re.search("<tr[^>]*>((?:(?!</tr>).)*)<th[^>]*>MAE", page(root, "reports/cohort"), re.S)[1]
    assert "<td></td>" in row and "<th" not in row


def test_pages_end_with_how_they_were_made(root):
    assert "Made in 12 s." in page(root, "reports/cohort")
    for name in ("library/assessing/geometry", "howto/own_data", "play/mask"):
        assert f"boneage {__version__}" in page(root, name) and "Python 3." in page(root, name)


def test_glossary_leads_to_chapters(root):
    text = page(root, "glossary")
    assert "Epiphysis" in text and "library/assessing/registration.html" in links(text, "glossary")


def test_search_works_without_a_server(root):
    script = (root/"site"/"search.js").read_text()
    entries = json.loads(script.removeprefix("window.searchIndex = ").removesuffix(";"))
    assert any("capitate" in entry["text"] for entry in entries)
    branch = re.search(r'if \(location.protocol === "file:"\) \{.*?\n\}', page(root, "index"), re.S)[0]
    assert "search.json" in branch and "window.shownWarning = true;" in branch  # no alert of Quarto's search


def test_failed_build_keeps_the_old_site(root):
    before = page(root, "index")
    broken = root/"notebooks"/"02_broken.ipynb"
    broken.write_text("{")
    done = build(root, "smalldocs")
    broken.unlink()
    assert done.returncode != 0 and page(root, "index") == before


KEYBOARD = PROJECT/"tools"/"site"/"keyboard.html"
SCROLLS = """<html><head>{}</head><body style="margin: 0"><main>
<pre id="long" style="overflow-x: auto">{}</pre><pre id="short" style="overflow-x: auto">x</pre>
<pre id="wrapped">{}</pre></main></body></html>"""


def test_what_scrolls_can_be_reached_by_keyboard(root):
    assert KEYBOARD.read_text().strip() in page(root, "library/assessing/files")


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_only_what_scrolls_is_reached_by_keyboard(tmp_path):
    (tmp_path/"a.html").write_text(SCROLLS.format(KEYBOARD.read_text(), "x"*3000, "x"*3000))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               f"--user-data-dir={tmp_path/'user'}", (tmp_path/"a.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert re.findall(r'<pre id="(\w+)"[^>]*tabindex="0"', done.stdout) == ["long"], done.stderr


TOGGLES = """<html><head>{}</head><body><a role="button" id="fold" onclick="this.title += 'x'">Fold</a>
<a role="button" id="link" href="#">Link</a><script>
const press = key => document.getElementById("fold").dispatchEvent(new KeyboardEvent("keydown", {{key}}));
addEventListener("load", () => ["Enter", " ", "a"].forEach(press));
</script></body></html>"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_toggles_work_with_the_keyboard(tmp_path):
    (tmp_path/"a.html").write_text(TOGGLES.format(KEYBOARD.read_text()))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               f"--user-data-dir={tmp_path/'user'}", (tmp_path/"a.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert re.findall(r'<a[^>]* id="(\w+)"[^>]*tabindex="0"', done.stdout) == ["fold"], done.stderr
    assert 'title="xx"' in done.stdout  # Enter and the space bar


# ------------------------------------------------------------------ Quarto, where it need not be installed

# What Quarto writes around a page with a table of HTML: scripts of other servers, and "Story" marked on each
AROUND = """<html><head>
<script src="https://cdn.example.org/require.min.js" integrity="sha512-x==" crossorigin="anonymous"></script>
<script src="https://cdn.example.org/jquery.min.js" crossorigin="anonymous" data-relocate-top="true"></script>
<script type="application/javascript">define('jquery', [],function() {return window.jQuery;})</script>
<script src="TOPindex.js"></script></head><body>
<a class="nav-link active" href="TOPindex.html" aria-current="page"> <span class="menu-text">Story</span></a>
<a class="nav-link" href="TOPglossary.html">Glossary</a></body></html>"""
PROGRAM = """#!{python}
import json, shutil, sys
from pathlib import Path
if "--broken" in {given!r}: sys.exit("" if "--quiet" in sys.argv else "ERROR: Couldn't locate key href")
folder = Path(sys.argv[2])
shutil.copytree(folder, {given!r})
Path({given!r}, "arguments.json").write_text(json.dumps(sys.argv[1:]))
for source in [*folder.rglob("*.ipynb"), *folder.rglob("*.md")]:
    page = folder/"rendered"/source.relative_to(folder).with_suffix(".html")
    page.parent.mkdir(parents=True, exist_ok=True)
    top = "../"*len(source.relative_to(folder).parent.parts)
    page.write_text({around!r}.replace("TOP", top))
(folder/"rendered"/"index.js").touch()
"""


def stand_in(folder: Path, given: str) -> str:
    "A program called quarto that records what it is given; returns a PATH on which it comes first"
    program = folder/"quarto"
    program.write_text(PROGRAM.format(python=sys.executable, given=given, around=AROUND))
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    "What the builder gives to Quarto, with its arguments; the site lies in the workspace beside it"
    folder = tmp_path_factory.mktemp("quarto")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", stand_in(folder, str(folder/"given")))
        build_site.main(["--root", str(workspace(folder/"work"))])
    return folder/"given"


def test_quarto_is_preferred_and_shows_errors(given):
    arguments = json.loads((given/"arguments.json").read_text())
    assert [arguments[0], *arguments[2:]] == ["render", "--log-level", "warning"]


def test_error_of_quarto_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", stand_in(tmp_path, "--broken"))
    with pytest.raises(SystemExit, match="could not be rendered: ERROR: Couldn't locate key href"):
        build_site.render(tmp_path, "quarto")


def test_configuration_has_no_anchors(given):
    text = (given/"_quarto.yml").read_text()
    assert text.count("href: glossary.md") == 2  # in the bar and in the sidebar
    kinds = {type(token) for token in yaml.scan(text)}
    assert yaml.ScalarToken in kinds and not kinds & {yaml.AnchorToken, yaml.AliasToken}


def test_sources_are_lists_of_lines(given):
    pages = sorted(given.rglob("*.ipynb"))
    cells = [cell for path in pages for cell in json.loads(path.read_text())["cells"]]
    assert len(pages) > 50 and all(isinstance(cell["source"], list) for cell in cells)
    front = json.loads((given/"index.ipynb").read_text())["cells"][0]["source"]
    assert front[0] == "---\n" and front[-1] == "---"
    lines = [line for cell in cells for line in cell["source"][:-1]]
    assert len(lines) > 1000 and all(line.endswith("\n") and line.count("\n") == 1 for line in lines)


def test_pages_of_quarto_fetch_nothing(given):
    site = given.parent/"work"/"site"
    assert check_site(site) == []
    for path in site.rglob("*.html"): assert re.findall("<script[^>]*>", path.read_text()) == [
        f'<script src="{"../"*len(path.relative_to(site).parent.parts)}index.js">']


def test_navigation_marks_the_current_page_alone(given):
    site = given.parent/"work"/"site"
    current = [path for path in site.rglob("*.html") if "aria-current" in path.read_text()]
    assert current == [site/"index.html"] and "nav-link active" in current[0].read_text()
    assert "active" not in (site/"library"/"index.html").read_text()


STYLE = {"links in tables keep their words": "main .table a { word-break: normal",
         "names in the text wrap": "main :not(pre) > code { white-space: normal; overflow-wrap: anywhere; }",
         "tables scroll on a phone": "(max-width: 767.98px) {\n  main table { display: block;",
         "columns as wide as their content": "main table col { width: auto !important; }",
         "tables are not stretched": "main table, main .table { width: auto; }",
         "nor striped": "main .table-striped > tbody > tr > * { --bs-table-bg-type: transparent;",
         "dark, but not its pictures": "(prefers-color-scheme: dark) {\n  html, main img { filter: invert(1)",
         "navigation is not printed": "@media print {\n  #quarto-header, #quarto-sidebar,",
         "printed code wraps": "main pre, main pre > code { white-space: pre-wrap !important;",
         "a line of code under the button cannot be read": ".code-copy-button { background-color: #ffffffd9;"}


@pytest.mark.parametrize("rule", STYLE.values(), ids=STYLE)
def test_style_for_the_pages_of_quarto(given, rule):
    assert rule in (given/"site.css").read_text()


def test_navigation_stays_while_scrolling(given):
    assert yaml.safe_load((given/"_quarto.yml").read_text())["website"]["navbar"]["pinned"] is True


# ------------------------------------------------------------------ the check of a site

@pytest.mark.parametrize("body, problem", [
    ('<a href="gone.html">x</a>', "broken link: gone.html"),
    ('<a href="#gone">x</a>', "does not have: #gone"),
    ('<a href="../../etc/hosts">x</a>', "out of the site"),
    ('<script src="https://cdn.example.org/x.js"></script>',
     "fetched from elsewhere: https://cdn.example.org/x.js"),
    ('<img src="//example.org/x.png">', "fetched from elsewhere"),
    ('<style>@import "https://fonts.example.org/a.css";</style>', "fetched from elsewhere"),
    ('<p style="background: url(http://example.org/x.png)">x</p>', "fetched from elsewhere"),
    ('<script>import x from "https://example.org/x.mjs"</script>', "fetched from elsewhere"),
    ('<pre>#| export\ndef f(): pass</pre>', "a directive on the page"),
    ('<p>{{< var x >}}</p>', "a shortcode on the page"),
    ('<h2 id="warp">Warp</h2><p><span id="warp"></span></p>', "the same id twice: warp"),
    (r'<p>\(x\)</p>', "a raw formula on the page"),
    ('<p>see @fig-x</p>', "a reference on the page"),
])
def test_check_finds(tmp_path, body, problem):
    (tmp_path/"index.html").write_text(f"<html><body>{body}</body></html>")
    assert any(problem in found for found in check_site(tmp_path)), check_site(tmp_path)


def test_check_accepts_a_good_page(tmp_path):
    body = '<h1 id="top">x</h1><a href="#top">x</a><a href="https://example.org">another site</a>'
    (tmp_path/"index.html").write_text(f"<html><body>{body}</body></html>")
    assert check_site(tmp_path) == []
