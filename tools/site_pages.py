"The pages of the site: notebooks made ready for Quarto or smalldocs, and the pages that lead to them; nothing is executed"
import ast
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml

PROJECT = Path(__file__).absolute().parent.parent
DIRECTIVE = re.compile(r"^[ \t]*#\|[ \t]*(\w+)(?![\w-]*[ \t]*:).*\n?", re.M)  # nbdev's own; `#| key: value` is Quarto's
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?:[\w./-]*/)?([\w-]+)\.ipynb(#[\w-]+)?\)")
QUOTED = re.compile(r"\[[^\]]*\]\([^)]*\)|(?<!`)`([A-Za-z_][\w.]*)(?:\(\))?`(?!`)")  # a link, which is left alone, or a name
FENCED = re.compile(r"(^```.*?^```$)", re.M | re.S)
NAMED_LINE = re.compile(r"^(?!#|    ).+$", re.M)  # prose: neither heading nor code
WIDGETS = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Page:
    "A notebook that becomes a page"
    source: Path
    address: str      # in the site, without its ending: `library/geometry`
    title: str
    summary: str      # the one line after the title
    definitions: dict # what the page exports: name → one-line docstring


def read_page(source: Path, folder: str) -> Page:
    "Title, summary and exported names of a notebook; its page's name is the file's without the number; `_2` after it is a report's third part"
    notebook = nbformat.read(source, 4)
    part = re.search(r"_(\d+)$", source.stem)
    first = notebook.cells[0].source if notebook.cells else ""
    title = re.search(r"^# (.+)$", first, re.M)
    summary = re.search(r"^> (.+)$", first, re.M)
    name = re.sub(r"^\d+_", "", source.stem)
    found = {}
    for cell in notebook.cells:
        if cell.cell_type == "code" and "export" in DIRECTIVE.findall(cell.source): found |= definitions(cell.source)
    return Page(source, folder + name, (title[1].strip() if title else name) + (f", part {int(part[1]) + 1}" if part else ""), summary[1].strip() if summary else "", found)


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
        self.names |= {"boneage." + Path(p.address).name: p.address + ".ipynb" for p in pages if p.address.startswith("library/")}

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
    notebook.cells, notebook.metadata = cells, dict(kernelspec=dict(name="python3", language="python", display_name="Python 3"))
    for cell in cells: cell.pop("id", None)
    return notebook | dict(nbformat=4, nbformat_minor=4)


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
        if rows: parts += [f"## boneage.{Path(page.address).name}\n", page.summary + "\n", *rows, ""]
    return "\n".join(parts)


def about_run(root: Path, reports: list[Page]) -> str:
    "What the front page says of the run that the reports come from"
    profile = yaml.safe_load((root/"profile.yaml").read_text()) if (root/"profile.yaml").is_file() else {}
    if not reports: return "## The reports\n\nNo report has been run yet: `make paper` runs them.\n"
    synthetic = (profile.get("cohort") or {}).get("source", "phantoms") == "phantoms"
    words = ("Its radiographs are phantoms, made by the library: the numbers show that the whole path works, and say nothing of clinical accuracy." if synthetic else
             "Its pages show radiographs of the data that it was given: read the terms of that data before you pass this site on.")
    shown = [page for page in reports if not re.search(r", part ([2-9]|\d\d+)$", page.title)]
    return f"## The reports\n\nThey come from the run `{root.name}`. {words}\n\n{table(shown, 'index')}\n"


def assemble(root: Path, folder: Path):
    "Put everything that the site is rendered from into `folder`"
    front = read_page(PROJECT/"nbs"/"index.ipynb", "")
    library = [read_page(p, "library/") for p in sorted((PROJECT/"nbs").glob("[0-9]*.ipynb"))]
    reports = [read_page(p, "reports/") for p in sorted((root/"notebooks").glob("*.ipynb")) if "." not in p.stem]
    links = Links([front, *library, *reports])
    for page in [*library, *reports]: write_notebook(folder, page, processed(page, links, fold=page in reports))
    story = processed(front, links)
    story["cells"].append(nbformat.v4.new_markdown_cell(about_run(root, reports)))
    for cell in story["cells"]: cell.pop("id", None)
    write_notebook(folder, front, story)
    assessing = [p for p in library if p.source.stem < "25"]
    research = [p for p in library if p.source.stem >= "25"]
    (folder/"library"/"index.md").write_text(f"---\ntitle: The library\ndescription: Notebooks are its source. A bar marks code that becomes the library; the other cells are lessons and checks, which every test runs\n---\n\n"
                                             f"## Assessing a radiograph\n\n{table(assessing, 'library/index')}\n\n## Research\n\n{table(research, 'library/index')}\n")
    (folder/"library"/"names.md").write_text(index_of_names(library))
    (folder/"_variables.yml").write_text(yaml.safe_dump({p.stem: as_text(json.loads(p.read_text())) for p in sorted((root/"results").glob("*.json"))}))
    shutil.copytree(PROJECT/"tools"/"site", folder, dirs_exist_ok=True)
    write_configuration(folder, reports, assessing, research)


def write_notebook(folder: Path, page: Page, notebook: dict):
    "Write a processed notebook to where its page belongs"
    target = folder/f"{page.address}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook, ensure_ascii=False))


def write_configuration(folder: Path, *groups: list[Page]):
    "`_quarto.yml` with the pages that there are"
    config = yaml.safe_load((PROJECT/"_quarto.yml").read_text())
    sections = [dict(section=name, contents=[dict(text=p.title, href=f"{p.address}.ipynb") for p in pages])
                for name, pages in zip(("Reports", "Library: assessing", "Library: research"), groups) if pages]
    config["website"]["sidebar"]["contents"] = [dict(text="Story", href="index.ipynb"), *sections, dict(text="Names", href="library/names.md")]
    if groups[0]: config["website"]["navbar"]["left"].append(dict(text="Reports", href=f"{groups[0][0].address}.ipynb"))
    config["website"]["navbar"]["left"] += [dict(text="Library", href="library/index.md"), dict(text="Names", href="library/names.md")]
    config["project"] |= {"output-dir": "rendered", "render": ["index.ipynb", "library/*", "reports/*"]}
    (folder/"_quarto.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
