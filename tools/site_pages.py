"The pages of the site: notebooks prepared for Quarto or smalldocs, and pages that link to them; runs nothing"
import ast
import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nbformat
import site_measures
import site_pictures
import yaml

from boneage.datasets.workspace import code_version
from boneage.paper.claims import format_number, read_paper
from boneage.paper.evaluation import Estimate
from boneage.paper.pipeline import read_bone_age_card

PROJECT = Path(__file__).absolute().parent.parent
# A directive of nbdev; `#| key: value` is one of Quarto
DIRECTIVE = re.compile(r"^[ \t]*#\|[ \t]*(\w+)(?![\w-]*[ \t]*:).*\n?", re.M)
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?:[\w./-]*/)?([\w-]+)\.ipynb(#[\w-]+)?\)")
# a link, or a name in backticks
QUOTED = re.compile(r"\[[^\]]*\]\([^)]*\)|(?<!`)`([A-Za-z_][\w.]*)(?:\(\))?`(?!`)")
FENCED = re.compile(r"(^```.*?^```$)", re.M | re.S)
PROSE = re.compile(r"^(?!#|    ).+$", re.M)  # neither heading nor code
HEADING = re.compile(r"^##+ +`?(.+?)`?$", re.M)
TAG = re.compile(r"\\tag\{([^}]*)\}")  # the number of an equation, which pandoc drops from MathML
WIDGETS = "application/vnd.jupyter.widget-view+json"
PUBLISHED = re.compile(r"^Download: \[[^\]]*\]\(\.\./figures/([\w-]+)\.svg\)")  # below a report's figure

# Keys of reports/paper.yml in the table of the front page
HEADLINE = "mae_original", "mae_normalised", "mae_registered", "mae_best_ensemble", "mae_test"
USES = {"assess a folder of DICOM files": "howto/dicom_folder.ipynb",
        "your own radiographs": "howto/own_data.ipynb",
        "every how-to": "howto/index.md"}
# Folders of notebooks beside the library: title and summary of their pages
BESIDE = {"howto": ("How to", "Short pages for one purpose each, on phantoms; the tests run them"),
          "play": ("Play", "A notebook for each step, with sliders in JupyterLab (`make lab`); "
                           "its page shows the result of two settings")}
# Wings of the library, in the order of dependence: title and summary
WINGS = {"assessing": ("Assessing a radiograph",
                       "The steps from a file to a bone age, with NumPy, OpenCV and PyTorch"),
         "datasets": ("Data sets", "Label tables, annotations, profiles, and the files of a run"),
         "synthetic": ("Synthetic radiographs",
                       "Phantoms, whose mask, key points and bone age are known exactly"),
         "training": ("Training", "How each network is fitted, alone and by positive mining"),
         "paper": ("The paper", "Errors, figures, claims, and the pipeline that reruns them"),
         "release": ("Release", "How the networks of the package were fitted and measured")}


@dataclass(frozen=True)
class Page:
    "A notebook that becomes a page"
    source: Path
    address: str       # in the site, without its ending: `library/assessing/geometry`
    title: str
    summary: str       # the one line after the title
    definitions: dict  # exported names and their one-line docstrings
    module: str = ""   # that the notebook defines: `boneage.training.core`


def read_page(source: Path, folder: str) -> Page:
    "A notebook's title, summary and exported names; the suffix `_2` of a report means part 3"
    notebook = nbformat.read(source, 4)
    part = re.search(r"_(\d+)$", source.stem)
    first = notebook.cells[0].source if notebook.cells else ""
    title, summary = (re.search(pattern, first, re.M) for pattern in (r"^# (.+)$", r"^> (.+)$"))
    name = re.sub(r"^\d+_", "", source.stem)
    found, module = {}, ""
    for cell in notebook.cells:
        if exported := re.search(r"^#\| default_exp (\S+)", cell.source, re.M):
            module = f"boneage.{exported[1]}"
        if cell.cell_type == "code" and "export" in DIRECTIVE.findall(cell.source):
            found |= definitions(cell.source)
    heading = (title[1].strip() if title else name) + (f", part {int(part[1]) + 1}" if part else "")
    return Page(source, folder + name, heading, summary[1].strip() if summary else "", found, module)


def definitions(source: str) -> dict:
    "Public functions and classes of a piece of code: name → first line of the docstring"
    public = [node for node in ast.parse(source).body
              if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    return {node.name: (ast.get_docstring(node) or "").split("\n")[0] for node in public}


def relative(address: str, page: str) -> str:
    "An address of the site, relative to a page"
    return "../"*page.count("/") + address


class Links:
    "The addresses of notebooks, modules and exported names in the site"

    def __init__(self, pages: list[Page]):
        self.pages = {page.source.stem: page.address for page in pages}
        count = Counter(name for page in pages for name in page.definitions)
        self.names = {name: f"{page.address}.ipynb#{name}" for page in pages for name in page.definitions
                      if count[name] == 1}
        self.names |= {page.module: f"{page.address}.ipynb" for page in pages if page.module}

    def resolve(self, text: str, page: str) -> str:
        "Prose with links to the pages of notebooks and names; a link to a missing page becomes text"
        def link_notebook(match):
            target = self.pages.get(match[2])
            return f"[{match[1]}]({relative(target, page)}.ipynb{match[3] or ''})" if target else match[1]
        def link_name(match):
            target = self.names.get(match[1])
            elsewhere = target and not target.startswith(page + ".")
            return f"[{match[0]}]({relative(target, page)})" if elsewhere else match[0]
        def link_names(line): return QUOTED.sub(link_name, line[0])
        parts = FENCED.split(text)  # every other part is a block of code
        return "".join(part if n % 2 else PROSE.sub(link_names, LINK.sub(link_notebook, part))
                       for n, part in enumerate(parts))


# ------------------------------------------------------------------ notebooks as pages

def processed(page: Page, links: Links, fold: bool = False) -> dict:
    "The notebook of a page: front matter, resolved links, marked exports; no directives, no live widgets"
    notebook = nbformat.read(page.source, 4)
    front = yaml.safe_dump(dict(title=page.title, description=page.summary), allow_unicode=True, width=10**6)
    injected = any("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    cells, taken = [nbformat.v4.new_raw_cell(f"---\n{front}---")], headings(notebook.cells)
    for number, cell in enumerate(notebook.cells):
        if injected and "parameters" in cell.metadata.get("tags", []): continue  # the run's own follow
        if cell.cell_type == "markdown":
            # the front matter holds title and summary
            text = re.sub(r"\A# .+\n*(> .+\n*)?", "", cell.source) if number == 0 else cell.source
            cell.source = TAG.sub(r"\\qquad(\1)", links.resolve(text, page.address))
            if cell.source.strip(): cells.append(cell)
        elif cell.cell_type == "code":
            for output in cell.outputs: place_output(output, links, page)
            add_code(cells, cell, fold, taken)
    cells.append(nbformat.v4.new_markdown_cell(closing(notebook, page)))
    kernel = dict(name="python3", language="python", display_name="Python 3")
    notebook.cells, notebook.metadata = cells, dict(kernelspec=kernel)
    for cell in cells: cell.pop("id", None)
    return notebook | dict(nbformat=4, nbformat_minor=4)


def add_code(cells: list, cell, fold: bool, taken: set[str]):
    "Append a code cell to the cells of a page; with `fold`, cells without output between them share one fold"
    directives = DIRECTIVE.findall(cell.source)
    if {"hide", "default_exp"} & set(directives): return
    cell.source = "#| code-fold: true\n"*fold + DIRECTIVE.sub("", cell.source).strip("\n")
    cell.outputs = [output for output in map(without_widget, cell.get("outputs", [])) if output]
    if fold and cells[-1].cell_type == "code" and not cells[-1].outputs:
        cell.source = cells.pop().source + "\n\n" + cell.source.removeprefix("#| code-fold: true\n")
    cells += marked(cell, taken) if "export" in directives else divided(cell)


def place_output(output, links: Links, page: Page):
    "Resolve the links in an output's Markdown; a published figure gets a place that other pages link to"
    data = output.get("data", {})
    if "text/markdown" not in data: return
    text = links.resolve("".join(data["text/markdown"]), page.address)
    data["text/markdown"] = PUBLISHED.sub(lambda found: f"[]{{#figure-{found[1]}}}{found[0]}", text)


def headings(cells: list) -> set[str]:
    "The ids of headings of one word, which a renderer makes of the word"
    return {match[1].lower() for cell in cells if cell.cell_type == "markdown"
            for match in HEADING.finditer(cell.source)}


def divided(cell) -> list:
    "A code cell, divided before each output that is a heading, so that the page's contents list the heading"
    cells = [cell]
    outputs, cell.outputs = cell.outputs, []
    for output in outputs:
        text = output.get("data", {}).get("text/markdown", "")
        if HEADING.match(text):
            rest = nbformat.v4.new_code_cell("#| echo: false\nNone")
            cells += [nbformat.v4.new_markdown_cell(text), rest]
        else: cells[-1].outputs.append(output)
    return [cell for cell in cells if cell.cell_type == "markdown" or cell.outputs or cell is cells[0]]


def closing(notebook, page: Page) -> str:
    "The last line of a page: the seconds of a report, or the versions of a lesson"
    seconds = notebook.metadata.get("papermill", {}).get("duration")
    if page.address.startswith("reports/"): return f"*Made in {seconds:.0f} s.*" if seconds else ""
    return f"*{code_version()}; radiographs: phantoms, from the seeds in the cells.*"


def marked(cell, taken: set[str]) -> list:
    "An exported cell inside a block that the style marks, with anchors for names that are no heading's id"
    anchors = "".join(f"[]{{#{name}}}" for name in definitions(cell.source) if name not in taken)
    opening = "::: {.exported}" + (f"\n{anchors}" if anchors else "")
    return [nbformat.v4.new_markdown_cell(opening), cell, nbformat.v4.new_markdown_cell(":::")]


def without_widget(output):
    "The image of a live widget, which would load scripts from other servers; other outputs as they are"
    if WIDGETS not in output.get("data", {}): return output
    data = {kind: value for kind, value in output["data"].items() if kind.startswith("image/")}
    return output | dict(data=data) if data else None


def as_text(value):
    "Results for `_variables.yml`: numbers as text, since YAML would turn 6.10 into 6.1"
    if isinstance(value, dict): return {str(key): as_text(item) for key, item in value.items()}
    if isinstance(value, list): return [as_text(item) for item in value]
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def table_of(pages: list[Page], page: str) -> str:
    "A table of pages with their one-line summaries"
    rows = [f"| [{p.title}]({relative(p.address, page)}.ipynb) | {p.summary} |" for p in pages]
    return "\n".join(["| | |", "|:--|:--|", *rows])


def index_of_names(library: list[Page]) -> str:
    "The page of everything that the library exports, by module"
    parts = []
    for page in library:
        address = relative(page.address, "library/names")
        rows = [f"- [`{name}`]({address}.ipynb#{name}): {line}" for name, line in page.definitions.items()]
        if rows: parts += [f"## {page.module}\n", page.summary + "\n", *rows, ""]
    return "\n".join(parts)


# ------------------------------------------------------------------ the front page

def source_of(root: Path) -> str:
    "The source of a run's radiographs: \"phantoms\" or \"folder\""
    profile = root/"profile.yaml"
    settings = yaml.safe_load(profile.read_text()) if profile.is_file() else {}
    return (settings.get("cohort") or {}).get("source", "phantoms")


PHANTOMS = (
    "Its radiographs are phantoms, generated by the library. Its numbers show that the whole pipeline "
            "works; they say nothing of clinical accuracy.")
REAL = "Its pages show radiographs of the given data. Read its terms before you publish this site."


def about_run(root: Path, reports: list[Page]) -> str:
    "The front page's section on the run and its reports"
    if not reports: return "## The reports\n\nNo report has been run yet: `make paper` runs them.\n"
    about = PHANTOMS if source_of(root) == "phantoms" else REAL
    first = [page for page in reports if not re.search(r", part ([2-9]|\d\d+)$", page.title)]
    return "\n\n".join(["## The reports", f"They come from the run `{root.name}`. {about}",
                        table_of(first, "index"), run_times(reports)])


def run_times(reports: list[Page]) -> str:
    "A table of the reports of a run by their seconds, the longest first"
    took = {}
    for page in reports:
        seconds = nbformat.read(page.source, 4).metadata.get("papermill", {}).get("duration")
        title = re.sub(r", part \d+$", "", page.title)
        if seconds: took[title] = took.get(title, 0) + seconds
    if not took: return ""
    total = sum(took.values())
    rows = [f"| {title} | {seconds:.0f} | {seconds/total:.0%} |"
            for title, seconds in sorted(took.items(), key=lambda item: -item[1])]
    summary = (f"{total/60:.0f} minutes in all. Reports that ran in parallel count in full; the installation "
               "and this site are not included.")
    return "\n".join([f"### Time of the run\n\n{summary}\n", "| report | seconds | share |", "|:--|--:|--:|",
                      *rows, ""])


def phantom_results(root: Path) -> dict[str, dict]:
    "Results of a run on phantoms by the keys of the headline; empty for a run on radiographs"
    def read(name):
        path = root/"results"/f"{name}.json"
        return json.loads(path.read_text()) if path.is_file() else {}
    if source_of(root) != "phantoms": return {}
    grid = read("mae_table")
    best = [found | dict(of=sex_in(model)) for model, found in grid.get("best", {}).items()]
    steps = {f"mae_{kind}": found for kind, found in read("ablation").get("mae", {}).items()}
    return steps | dict(mae_best_ensemble=best[0] if best else None, mae_test=read("test_set").get("mae"),
                        baseline=grid.get("baseline"))


def sample_results(paper: dict) -> dict[str, dict]:
    "Results on real radiographs from the package's card: the paper's models, and the released networks"
    card = read_bone_age_card()
    tables = card.get("paper_grid", {}).get("tables", {})
    rows = {row["about"]: row for rows in tables.values() for row in rows if "MAE" in row}
    ensembles = [row for about, row in rows.items() if about.startswith("ensemble")]
    found = {key: rows.get(paper[key].description) for key in HEADLINE}
    found |= dict(mae_best_ensemble=min(ensembles, key=lambda row: row["MAE"], default=None),
                  released=card.get("errors", [None])[0])
    return {key: row and dict(value=row["MAE"], low=row["low"], high=row["high"], n=row["radiographs"],
                              of=sex_in(row.get("about", ""))) for key, row in found.items()}


def sex_in(description: str) -> str:
    "\"males\" or \"females\" where a model is about one sex, otherwise nothing"
    return next((f"{sex}s" for sex in ("female", "male") if re.search(rf"\b{sex}s?\b", description)), "")


def format_estimate(found: dict|None) -> str:
    "An estimate with its interval in a cell of a table; a dash where there is none"
    if not found: return "–"
    sex = found.get("of", "")
    estimate = Estimate(**{key: value for key, value in found.items() if key != "of"})
    return str(estimate).replace(" (", "<br>(") + (f", {sex} only" if sex else "")


def headline(root: Path) -> str:
    "The front page's table: the paper's numbers, those of phantoms here, and those of real radiographs"
    paper = read_paper(PROJECT/"reports"/"paper.yml")
    phantoms, sample = phantom_results(root), sample_results(paper)
    rows = []
    for key in HEADLINE:
        value = float("nan") if paper[key].value is None else paper[key].value
        rows.append((re.sub("^MAE(,| of| on) ", "", paper[key].description), format_number(value), key))
    rows += [("baseline: median age of the sex", "–", "baseline"),
             ("the released ensemble, out-of-fold predictions", "–", "released")]
    lines = []
    for model, stated, key in rows:
        ours = format_estimate(phantoms.get(key)), format_estimate(sample.get(key))
        lines.append(f"| {model} | {stated} | {' | '.join(ours)} |")
    sizes = [f"*Paper*: {paper['images'].value:,} radiographs of the RSNA."]
    if phantoms: sizes.append(f"*Phantoms*: the run `{root.name}`, at its size.")
    if sample["released"]:
        sizes.append(f"*Sample*: {sample['released']['n']:,} real radiographs; their results come with "
                     "the package. Out of fold, bone-age networks were fitted without the radiograph; the "
                     "networks for masks and key points were fitted with it.")
    sizes.append("*–*: not stated, or not measured.")
    about = ("Mean absolute error in months, ours with its 95 % interval. The columns differ in radiographs "
             "and sizes: compare down a column, not across.")
    head = ["## In numbers", "", about, "", "| model | paper | phantoms | sample |", "|:--|--:|--:|--:|"]
    return "\n".join([*head, *lines, "", " ".join(sizes)])


def navigation_table(reports: list[Page]) -> str:
    "The links of the front page's three sections: read, rerun, use"
    addresses = {Path(page.address).name: page.address for page in reports}
    starts = {"cohort": "the reports, from the cohort on", "claims": "the claims, one by one",
              "summary": "every number"}
    read = [f"[{title}]({addresses[name]}.ipynb)" for name, title in starts.items() if name in addresses]
    read += ["[the library, chapter by chapter](library/index.md)", "[each step with sliders](play/index.md)",
             "[the glossary](glossary.md)"]
    rows = {"[Read](#read)": ", ".join(read),
            "[Rerun](#rerun-the-paper)": "`make paper`; [on a GPU](howto/gpu.ipynb), "
                                         "[on a cluster](howto/cluster.ipynb)",
            "[Use](#use-it)": ", ".join(f"[{title}]({address})" for title, address in USES.items())}
    return "\n".join(["| | |", "|:--|:--|",
                      *(f"| **{section}** | {links} |" for section, links in rows.items())])


def with_pictures(story: dict, folder: Path) -> dict:
    "The front page with its first figure as steps, the last of which shows the second figure"
    figures = {n: output["data"]["image/png"] for n, cell in enumerate(story["cells"])
               for output in cell.get("outputs", []) if "image/png" in output.get("data", {})}
    if len(figures) != 2: raise ValueError("nbs/index.ipynb has not two figures: run it with `make lessons`.")
    table = "\n".join(cell["source"] for cell in story["cells"])
    first, second = figures
    steps = nbformat.v4.new_markdown_cell(site_pictures.way(folder, table, figures[second]))
    steps.pop("id", None)
    cells = [steps if n == first else cell for n, cell in enumerate(story["cells"]) if n != second]
    return story | dict(cells=cells)


def with_results(story: dict, opening: str, ending: str) -> dict:
    "The front page with the results before its first section and the reports at its end"
    cells = story["cells"]
    first = next(n for n, cell in enumerate(cells)
                 if cell["cell_type"] == "markdown" and re.search("^## ", cell["source"], re.M))
    before, section = re.split("^(?=## )", cells[first]["source"], maxsplit=1, flags=re.M)
    new = [nbformat.v4.new_markdown_cell(text) for text in (before, opening, section, ending) if text.strip()]
    for cell in new: cell.pop("id", None)
    return story | dict(cells=[*cells[:first], *new[:-1], *cells[first + 1:-1], new[-1], cells[-1]])


# ------------------------------------------------------------------ the site's folder

def read_pages(folder: Path, address: str) -> list[Page]:
    "The pages of a folder's numbered notebooks, in their order"
    return [read_page(path, address) for path in sorted(folder.glob("[0-9]*.ipynb"))]


def assemble(root: Path, folder: Path):
    "Write everything that the site is rendered from into `folder`"
    front = read_page(PROJECT/"nbs"/"index.ipynb", "")
    wings = {wing: read_pages(PROJECT/"nbs"/wing, f"library/{wing}/") for wing in WINGS}
    beside = {name: read_pages(PROJECT/name, f"{name}/") for name in BESIDE}
    reports = [page for page in read_pages(root/"notebooks", "reports/") if "." not in page.source.stem]
    library = sum(wings.values(), [])
    pages = [*library, *sum(beside.values(), []), *reports]
    links = Links([front, *pages])
    for page in pages: write_notebook(folder, page, processed(page, links, fold=page in reports))
    write_indices(folder, wings, beside, library)
    results = {path.stem: as_text(json.loads(path.read_text()))
               for path in sorted((root/"results").glob("*.json"))}
    (folder/"_variables.yml").write_text(yaml.safe_dump(results))
    shutil.copytree(PROJECT/"tools"/"site", folder, dirs_exist_ok=True)
    story = with_pictures(processed(front, links), folder)
    opening = "\n\n".join([site_pictures.growing_hand(folder), headline(root), navigation_table(reports)])
    write_notebook(folder, front, with_results(story, opening, about_run(root, reports)))
    if (root/"figures").is_dir(): shutil.copytree(root/"figures", folder/"figures")
    if (root/"article.pdf").is_file(): shutil.copy(root/"article.pdf", folder)
    glossary = folder/"glossary.md"
    glossary.write_text(links.resolve(glossary.read_text(), "glossary"))
    groups = {"Reports": reports} | {title: beside[name] for name, (title, _) in BESIDE.items()}
    write_configuration(folder, groups | {title: wings[wing] for wing, (title, _) in WINGS.items()})


def write_indices(folder: Path, wings: dict, beside: dict, library: list[Page]):
    "The pages that are no notebooks: the library and its names, the folders beside it, speed and reliability"
    chapters = "\n\n".join(f"## {title}\n\n{summary}.\n\n{table_of(wings[wing], 'library/index')}"
                           for wing, (title, summary) in WINGS.items())
    pages = {
        "library/index": ("The library",
                          "Its source are notebooks. A bar marks code that becomes the library; "
                          "other cells are lessons and checks, which every test runs", chapters),
        "library/names": ("Names",
                          "All exported names, one line each; a name leads to its code, lesson and checks",
                          index_of_names(library)),
        "speed": ("Speed", "The time of each step, against the limits of the computer and the code of others",
                  site_measures.speed_page()),
        "reliability": ("Reliability",
                        "Damaged files, killed processes, full disks, reproducible numbers, covered lines",
                        site_measures.reliability_page())}
    pages |= {f"{name}/index": (title, summary, table_of(beside[name], f"{name}/index"))
              for name, (title, summary) in BESIDE.items()}
    for address, (title, description, text) in pages.items():
        path = folder/f"{address}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"---\ntitle: {title}\ndescription: {description}\n---\n\n{text}\n")


def write_notebook(folder: Path, page: Page, notebook: dict):
    "Write a processed notebook to the address of its page"
    target = folder/f"{page.address}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    # each source as a list of lines: Quarto loses the line breaks of a source in one piece
    target.write_text(nbformat.v4.writes(nbformat.from_dict(notebook)), encoding="utf-8")


def write_configuration(folder: Path, groups: dict[str, list[Page]]):
    "Write `_quarto.yml` with the existing pages"
    config = yaml.safe_load((PROJECT/"_quarto.yml").read_text())
    indices = {title: f"{name}/index.md" for name, (title, _) in BESIDE.items()}
    def link(title, address): return dict(text=title, href=address)
    sections = [dict(section=title, **({"href": indices[title]} if title in indices else {}),
                     contents=[link(page.title, f"{page.address}.ipynb") for page in pages])
                for title, pages in groups.items() if pages]
    words = [link("Names", "library/names.md"), link("Glossary", "glossary.md")]
    measured = [link("Speed", "speed.md"), link("Reliability", "reliability.md")]
    config["website"]["sidebar"]["contents"] = [link("Story", "index.ipynb"), *sections, *measured, *words]
    bar = config["website"]["navbar"]["left"]
    if groups["Reports"]: bar.append(link("Reports", f"{groups['Reports'][0].address}.ipynb"))
    bar += [*(link(*item) for item in indices.items()), link("Library", "library/index.md"), *words]
    folders = [*BESIDE, "library", *(f"library/{wing}" for wing in WINGS), "reports"]
    render = ["index.ipynb", "glossary.md", "speed.md", "reliability.md", *(f"{name}/*" for name in folders)]
    config["project"] |= {"output-dir": "rendered", "render": render}
    shown = {"figures/*": "figures", "article.pdf": "article.pdf", "way/*": "way", "growing/*": "growing"}
    config["project"]["resources"] = [name for name, place in shown.items() if (folder/place).exists()]
    # every entry in full: Quarto does not understand the anchors that YAML writes for what stands twice
    dumper = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    text = yaml.dump(config, Dumper=dumper, sort_keys=False, allow_unicode=True)
    (folder/"_quarto.yml").write_text(text, encoding="utf-8")
