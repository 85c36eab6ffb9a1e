"The pages of the site: notebooks made ready for Quarto or smalldocs, and the pages that lead to them; nothing is executed"
import ast
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat
import site_measures
import yaml

from boneage.datasets.workspace import code_version
from boneage.paper.claims import format_number, read_paper
from boneage.paper.evaluation import Estimate
from boneage.paper.pipeline import read_bone_age_card

PROJECT = Path(__file__).absolute().parent.parent
DIRECTIVE = re.compile(r"^[ \t]*#\|[ \t]*(\w+)(?![\w-]*[ \t]*:).*\n?", re.M)  # nbdev's own; `#| key: value` is Quarto's
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?:[\w./-]*/)?([\w-]+)\.ipynb(#[\w-]+)?\)")
QUOTED = re.compile(r"\[[^\]]*\]\([^)]*\)|(?<!`)`([A-Za-z_][\w.]*)(?:\(\))?`(?!`)")  # a link, which is left alone, or a name
FENCED = re.compile(r"(^```.*?^```$)", re.M | re.S)
NAMED_LINE = re.compile(r"^(?!#|    ).+$", re.M)  # prose: neither heading nor code
HEADLINE = ("mae_original", "mae_normalised", "mae_registered", "mae_best_ensemble", "mae_test")  # of reports/paper.yml
USES = (("assess a folder of DICOM files", "howto/dicom_folder.ipynb"), ("your own radiographs", "howto/own_data.ipynb"), ("every how-to", "howto/index.md"))
BESIDE = {"howto": ("How to", "Short pages for one purpose each, on phantoms; the tests run them"),  # folders of pages beside the library: title, summary
          "play": ("Play", "A notebook for each step of the way, with sliders in JupyterLab (`make lab`); here stands what two settings give")}
WINGS = {"assessing": ("Assessing a radiograph", "The way of one radiograph, from a file to a bone age: NumPy, OpenCV and PyTorch only"),  # folders of nbs/: title, summary
         "datasets": ("Data sets", "Label tables, annotations, profiles, and what a run keeps of each radiograph"),
         "synthetic": ("Synthetic radiographs", "Phantoms, whose mask, key points and bone age are known exactly"),
         "training": ("Training", "How each network is fitted, alone and by positive mining"),
         "paper": ("The paper", "Errors, figures, claims, and the pipeline that reruns them"),
         "release": ("Release", "How the networks that come with the package were fitted and measured")}
WIDGETS = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Page:
    "A notebook that becomes a page"
    source: Path
    address: str      # in the site, without its ending: `library/geometry`
    title: str
    summary: str      # the one line after the title
    definitions: dict # what the page exports: name → one-line docstring
    module: str = ""  # that it defines: `boneage.training.core`


def read_page(source: Path, folder: str) -> Page:
    "Title, summary and exported names of a notebook; its page's name is the file's without the number; `_2` after it is a report's third part"
    notebook = nbformat.read(source, 4)
    part = re.search(r"_(\d+)$", source.stem)
    first = notebook.cells[0].source if notebook.cells else ""
    title = re.search(r"^# (.+)$", first, re.M)
    summary = re.search(r"^> (.+)$", first, re.M)
    name = re.sub(r"^\d+_", "", source.stem)
    found, module = {}, ""
    for cell in notebook.cells:
        if exported := re.search(r"^#\| default_exp (\S+)", cell.source, re.M): module = f"boneage.{exported[1]}"
        if cell.cell_type == "code" and "export" in DIRECTIVE.findall(cell.source): found |= definitions(cell.source)
    return Page(source, folder + name, (title[1].strip() if title else name) + (f", part {int(part[1]) + 1}" if part else ""), summary[1].strip() if summary else "", found, module)


def definitions(source: str) -> dict:
    "Public functions and classes of a piece of code: name → first line of the docstring"
    return {node.name: (ast.get_docstring(node) or "").split("\n")[0]
            for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")}


def relative(address: str, page: str) -> str:
    "The way from one page's address to another's"
    return "../"*page.count("/") + address


class Links:
    "Where notebooks and names of the library are in the site"
    def __init__(self, pages: list[Page]):
        self.pages = {page.source.stem: page.address for page in pages}
        names = [(name, page) for page in pages for name in page.definitions]
        self.names = {name: f"{page.address}.ipynb#{name}" for name, page in names if sum(name == other for other, _ in names) == 1}
        self.names |= {page.module: f"{page.address}.ipynb" for page in pages if page.module}

    def into(self, text: str, page: str) -> str:
        "Prose with its links to notebooks led to their pages (or made plain, where there is no page), and names of the library made links"
        def notebook(match):
            there = self.pages.get(match[2])
            return f"[{match[1]}]({relative(there, page)}.ipynb{match[3] or ''})" if there else match[1]
        def name(match):
            there = self.names.get(match[1])
            return f"[{match[0]}]({relative(there, page)})" if there and not there.startswith(page + ".") else match[0]
        parts = FENCED.split(text)  # every other part is a block of code
        return "".join(part if n % 2 else NAMED_LINE.sub(lambda line: QUOTED.sub(name, line[0]), LINK.sub(notebook, part)) for n, part in enumerate(parts))


def processed(page: Page, links: Links, fold: bool = False) -> dict:
    "The notebook as its page shows it: front matter, no directives, exported code marked, no live widgets; never executed"
    notebook = nbformat.read(page.source, 4)
    front = dict(title=page.title, description=page.summary)
    tags = {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    cells = [nbformat.v4.new_raw_cell(f"---\n{yaml.safe_dump(front, allow_unicode=True, width=10**6)}---")]
    for number, cell in enumerate(notebook.cells):
        directives = DIRECTIVE.findall(cell.source) if cell.cell_type == "code" else []
        if {"hide", "default_exp"} & set(directives): continue
        if "injected-parameters" in tags and "parameters" in cell.metadata.get("tags", []): continue  # the run's own follow
        if cell.cell_type == "markdown":
            text = re.sub(r"\A# .+\n*(> .+\n*)?", "", cell.source) if number == 0 else cell.source  # the front matter says it
            cell.source = links.into(text, page.address)
            if cell.source.strip(): cells.append(cell)
            continue
        if cell.cell_type != "code": continue
        cell.source = "#| code-fold: true\n"*fold + DIRECTIVE.sub("", cell.source).strip("\n")
        cell.outputs = [out for out in map(without_widget, cell.get("outputs", [])) if out]
        if fold and cells[-1].cell_type == "code" and not cells[-1].outputs:  # one fold where nothing is shown in between
            cell.source = cells.pop().source + "\n\n" + cell.source.removeprefix("#| code-fold: true\n")
        cells += marked(cell) if "export" in directives else [cell]
    cells.append(nbformat.v4.new_markdown_cell(closing(notebook, page)))
    notebook.cells, notebook.metadata = cells, dict(kernelspec=dict(name="python3", language="python", display_name="Python 3"))
    for cell in cells: cell.pop("id", None)
    return notebook | dict(nbformat=4, nbformat_minor=4)


def closing(notebook, page: Page) -> str:
    "How the page was made, for its end: a report has said its profile, versions and data itself, and its seconds are added"
    seconds = notebook.metadata.get("papermill", {}).get("duration")
    if page.address.startswith("reports/"): return f"*Made in {seconds:.0f} s.*" if seconds else ""
    return f"*{code_version()}; radiographs: phantoms, from the seeds that stand in the cells.*"


def marked(cell) -> list:
    "An exported cell between the ends of a block that the style can mark and that links to its names can find"
    anchors = "".join(f"[]{{#{name}}}" for name in definitions(cell.source))
    return [nbformat.v4.new_markdown_cell("::: {.exported}" + f"\n{anchors}"*bool(anchors)), cell, nbformat.v4.new_markdown_cell(":::")]


def without_widget(output):
    "An output as a page can show it: a live widget would pull scripts from elsewhere"
    if WIDGETS not in output.get("data", {}): return output
    data = {kind: value for kind, value in output["data"].items() if kind.startswith("image/")}
    return output | dict(data=data) if data else None


def as_text(value):
    "Results as `_variables.yml` holds them: numbers as text, for YAML would turn 6.10 into 6.1"
    if isinstance(value, dict): return {str(key): as_text(item) for key, item in value.items()}
    if isinstance(value, list): return [as_text(item) for item in value]
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def table(pages: list[Page], page: str) -> str:
    "A table of pages with their one-line summaries"
    return "\n".join(["| | |", "|:--|:--|", *(f"| [{p.title}]({relative(p.address, page)}.ipynb) | {p.summary} |" for p in pages)])


def index_of_names(library: list[Page]) -> str:
    "The page of everything that the library exports, by module"
    parts = ["---\ntitle: Names\ndescription: Everything that the library exports, with one line each; a name leads to its code, its lesson and its checks\n---\n"]
    for page in library:
        rows = [f"- [`{name}`]({relative(page.address, 'library/names')}.ipynb#{name}): {line}" for name, line in page.definitions.items()]
        if rows: parts += [f"## {page.module}\n", page.summary + "\n", *rows, ""]
    return "\n".join(parts)


def source_of(root: Path) -> str:
    "Where a run's radiographs come from: \"phantoms\" or \"folder\""
    profile = yaml.safe_load((root/"profile.yaml").read_text()) if (root/"profile.yaml").is_file() else {}
    return (profile.get("cohort") or {}).get("source", "phantoms")


def about_run(root: Path, reports: list[Page]) -> str:
    "What the front page says of the run that the reports come from"
    if not reports: return "## The reports\n\nNo report has been run yet: `make paper` runs them.\n"
    words = ("Its radiographs are phantoms, made by the library: the numbers show that the whole path works, and say nothing of clinical accuracy." if source_of(root) == "phantoms" else
             "Its pages show radiographs of the data that it was given: read the terms of that data before you pass this site on.")
    shown = [page for page in reports if not re.search(r", part ([2-9]|\d\d+)$", page.title)]
    return f"## The reports\n\nThey come from the run `{root.name}`. {words}\n\n{table(shown, 'index')}\n\n{pace(reports)}"


def pace(reports: list[Page]) -> str:
    "Where a run's minutes went: a table of its reports by the seconds that they took, the longest first"
    took = {}
    for page in reports:
        seconds, title = nbformat.read(page.source, 4).metadata.get("papermill", {}).get("duration"), re.sub(r", part \d+$", "", page.title)
        if seconds: took[title] = took.get(title, 0) + seconds
    if not took: return ""
    rows = [f"| {title} | {seconds:.0f} | {seconds/sum(took.values()):.0%} |" for title, seconds in sorted(took.items(), key=lambda item: -item[1])]
    return "\n".join([f"### Where the minutes went\n\n{sum(took.values())/60:.0f} minutes in all, those that ran side by side counted twice; the installation and this site come on top.\n", "| report | seconds | share |", "|:--|--:|--:|", *rows, ""])


def phantom_results(root: Path) -> dict[str, dict]:
    "What a run on phantoms has measured, by the keys of the headline; empty for a run on radiographs"
    def read(name): return json.loads((root/"results"/f"{name}.json").read_text()) if (root/"results"/f"{name}.json").is_file() else {}
    if source_of(root) != "phantoms": return {}
    best = [found | dict(of=sex_in(words)) for words, found in read("mae_table").get("best", {}).items()]
    return {f"mae_{kind}": found for kind, found in read("ablation").get("mae", {}).items()} | dict(
        mae_best_ensemble=best[0] if best else None, mae_test=read("test_set").get("mae"), floor=read("mae_table").get("baseline"))


def sample_results(paper: dict) -> dict[str, dict]:
    "What the package's card says of the same on real radiographs: the paper's models, and the released networks"
    card = read_bone_age_card()
    rows = [row for rows in card.get("paper_grid", {}).get("tables", {}).values() for row in rows if "MAE" in row]
    by_words = {row["about"]: row for row in rows}
    best = min((row for row in rows if row["about"].startswith("ensemble")), key=lambda row: row["MAE"], default=None)
    found = {key: by_words.get(paper[key].description) for key in HEADLINE} | dict(mae_best_ensemble=best, released=card.get("errors", [None])[0])
    return {key: row and dict(value=row["MAE"], low=row["low"], high=row["high"], n=row["radiographs"], of=sex_in(row.get("about", ""))) for key, row in found.items()}


def sex_in(words: str) -> str:
    "\"males\" or \"females\" where a model is about one sex, otherwise nothing"
    return next((f"{sex}s" for sex in ("female", "male") if re.search(rf"\b{sex}s?\b", words)), "")


def headline(root: Path) -> str:
    "The front page's table: what the paper states, what phantoms give here, what real radiographs gave"
    paper = read_paper(PROJECT/"reports"/"paper.yml")
    phantoms, sample = phantom_results(root), sample_results(paper)
    def cell(found):
        if not found: return "–"
        of = found.get("of", "")
        return str(Estimate(**{key: value for key, value in found.items() if key != "of"})).replace(" (", "<br>(") + (f", {of} only" if of else "")
    rows = [(re.sub("^MAE(,| of| on) ", "", paper[key].description), format_number(float("nan") if paper[key].value is None else paper[key].value), key) for key in HEADLINE]
    rows += [("median of the sex, which looks at no image", "–", "baseline"), ("the released networks, on plates that they had not seen", "–", "released")]
    lines = [f"| {words} | {stated} | {cell(phantoms.get(key))} | {cell(sample.get(key))} |" for words, stated, key in rows]
    sizes = f"*Paper*: {paper['images'].value:,} radiographs of the RSNA. " + (f"*Phantoms*: the run `{root.name}`, at its size. " if phantoms else "") + (
        f"*Sample*: {sample['released']['n']:,} real radiographs, whose numbers come with the package. " if sample["released"] else "") + "*–*: not stated, or not measured."
    return "\n".join(["## In numbers", "", "Mean absolute error in months, ours with its 95 % interval. The columns are about different radiographs and sizes: read down, not across.", "",
                      "| | paper | phantoms | sample |", "|:--|--:|--:|--:|", *lines, "", sizes])


def navigation_table(reports: list[Page]) -> str:
    "The front page's ways on"
    addresses = {Path(page.address).name: page.address for page in reports}
    read = [f"[{words}]({addresses[name]}.ipynb)" for words, name in (("the cohort, and on from there", "cohort"), ("the claims, one by one", "claims"), ("every number", "summary")) if name in addresses]
    variants = [("Read", ", ".join([*read, "[the library, chapter by chapter](library/index.md)", "[the glossary](glossary.md)"])),
            ("Rerun", "`make paper`, on phantoms; [on a GPU](howto/gpu.ipynb), [on a cluster](howto/cluster.ipynb)"),
            ("Play", "[by slider](play/index.md): an age, a threshold, a key point, and the picture follows"), ("Use", ", ".join(f"[{words}]({address})" for words, address in USES))]
    return "\n".join(["", "| | |", "|:--|:--|", *(f"| **{way}** | {words} |" for way, words in variants)])


def assemble(root: Path, folder: Path):
    "Put everything that the site is rendered from into `folder`"
    front = read_page(PROJECT/"nbs"/"index.ipynb", "")
    wings = {wing: [read_page(p, f"library/{wing}/") for p in sorted((PROJECT/"nbs"/wing).glob("[0-9]*.ipynb"))] for wing in WINGS}
    library = [page for pages in wings.values() for page in pages]
    beside = {name: [read_page(p, f"{name}/") for p in sorted((PROJECT/name).glob("[0-9]*.ipynb"))] for name in BESIDE}
    reports = [read_page(p, "reports/") for p in sorted((root/"notebooks").glob("*.ipynb")) if "." not in p.stem]
    shown = [*library, *(page for pages in beside.values() for page in pages), *reports]
    links = Links([front, *shown])
    for page in shown: write_notebook(folder, page, processed(page, links, fold=page in reports))
    write_notebook(folder, front, told(processed(front, links), headline(root) + "\n" + navigation_table(reports), about_run(root, reports)))
    write_page(folder/"library"/"index.md", "The library", "Notebooks are its source. A bar marks code that becomes the library; the other cells are lessons and checks, which every test runs",
               "\n\n".join(f"## {title}\n\n{summary}.\n\n{table(wings[wing], 'library/index')}" for wing, (title, summary) in WINGS.items()))
    for name, (title, summary) in BESIDE.items(): write_page(folder/name/"index.md", title, summary, table(beside[name], f"{name}/index"))
    write_page(folder/"speed.md", "Speed", "How fast each step is, how near to what the computer can do, and beside what others do", site_measures.speed_page())
    write_page(folder/"reliability.md", "Reliability", "Damaged files, killed processes, full disks, the same numbers twice, and how much the tests would notice", site_measures.reliability_page())
    (folder/"library"/"names.md").write_text(index_of_names(library))
    (folder/"_variables.yml").write_text(yaml.safe_dump({p.stem: as_text(json.loads(p.read_text())) for p in sorted((root/"results").glob("*.json"))}))
    shutil.copytree(PROJECT/"tools"/"site", folder, dirs_exist_ok=True)
    if (root/"figures").is_dir(): shutil.copytree(root/"figures", folder/"figures")
    glossary = folder/"glossary.md"
    glossary.write_text(links.into(glossary.read_text(), "glossary"))
    write_configuration(folder, {"Reports": reports} | {title: beside[name] for name, (title, _) in BESIDE.items()} | {title: wings[wing] for wing, (title, _) in WINGS.items()})


def told(story: dict, opening: str, ending: str) -> dict:
    "The front page with the headline before its first section and the reports at its end"
    cells = story["cells"]
    first = next(n for n, cell in enumerate(cells) if cell["cell_type"] == "markdown" and re.search("^## ", cell["source"], re.M))
    before, section = re.split("^(?=## )", cells[first]["source"], maxsplit=1, flags=re.M)
    new = [nbformat.v4.new_markdown_cell(text) for text in (before, opening, section, ending) if text.strip()]
    for cell in new: cell.pop("id", None)
    return story | dict(cells=[*cells[:first], *new[:-1], *cells[first + 1:-1], new[-1], cells[-1]])


def write_page(path: Path, title: str, description: str, text: str):
    "Write a page that is no notebook"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"---\ntitle: {title}\ndescription: {description}\n---\n\n{text}\n")


def write_notebook(folder: Path, page: Page, notebook: dict):
    "Write a processed notebook to where its page belongs"
    target = folder/f"{page.address}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook, ensure_ascii=False))


def write_configuration(folder: Path, groups: dict[str, list[Page]]):
    "`_quarto.yml` with the pages that there are"
    config = yaml.safe_load((PROJECT/"_quarto.yml").read_text())
    fronts = {title: f"{name}/index.md" for name, (title, _) in BESIDE.items()}  # where a section's own name leads
    sections = [dict(section=name, **({"href": fronts[name]} if name in fronts else {}), contents=[dict(text=p.title, href=f"{p.address}.ipynb") for p in pages])
                for name, pages in groups.items() if pages]
    words = [dict(text="Names", href="library/names.md"), dict(text="Glossary", href="glossary.md")]
    measured = [dict(text="Speed", href="speed.md"), dict(text="Reliability", href="reliability.md")]
    config["website"]["sidebar"]["contents"] = [dict(text="Story", href="index.ipynb"), *sections, *measured, *words]
    bar = config["website"]["navbar"]["left"]
    if groups["Reports"]: bar.append(dict(text="Reports", href=f"{groups['Reports'][0].address}.ipynb"))
    bar += [*(dict(text=title, href=f"{name}/index.md") for name, (title, _) in BESIDE.items()), dict(text="Library", href="library/index.md"), *words]
    config["project"] |= {"output-dir": "rendered", "render": ["index.ipynb", "glossary.md", "speed.md", "reliability.md", *(f"{name}/*" for name in BESIDE), "library/*", *(f"library/{wing}/*" for wing in WINGS), "reports/*"]}
    if (folder/"figures").is_dir(): config["project"]["resources"] = ["figures/*"]
    (folder/"_quarto.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
