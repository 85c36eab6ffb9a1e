"""Print the article of a run: a PDF from the report that shows the same text on the site.

    python tools/build_article.py --root work/phantom --out work/phantom/article.pdf

pandoc (GPL, a program of its own in the extra `docs`) turns the text into Typst's markup; typst prints it.
"""
import argparse
import re
from datetime import date
from pathlib import Path

import nbformat
import yaml

PROJECT = Path(__file__).absolute().parent.parent
REPORT, REFERENCES, TEMPLATE = (PROJECT/"reports"/name for name in (
    "16_article.ipynb", "references.bib", "article.typ"))
FIGURE = re.compile(r"!\[[^\]]*\]\(\.\./(figures/[^)]+)\)\\\n\*(.+?)\*\n", re.S)
TABLE = re.compile(r"^\*([^*\n]+)\*\n\n((?:\|.*\n)+)", re.M)
PAGE = re.compile(r"\]\((?:\d+_)?(\w+)\.ipynb(#[\w-]+)?\)")  # a link to another report
TITLE = "Paediatric bone age assessment with deep convolutional networks: a reproduction"
FLUSH = "```{=typst}\n#place.flush()\n```\n\n"  # figures are printed before the next chapter
PAGE_ONLY = ("This page is also printed", "## In short")


def shown_text(notebook: Path) -> str:
    "The prose of an executed notebook, and the Markdown that its code shows"
    parts = []
    for cell in nbformat.read(notebook, 4).cells:
        if cell.cell_type == "markdown": parts.append(cell.source)
        for output in cell.get("outputs", []):
            if "text/markdown" in output.get("data", {}): parts.append(output["data"]["text/markdown"])
    return "\n\n".join(parts) + "\n"


def citation_keys() -> dict[str, str]:
    "The key of each reference, by its address"
    keys = {}
    for entry in re.split(r"\n(?=@)", REFERENCES.read_text()):
        key = re.match(r"@\w+\{(\w+),", entry)[1]
        for kind, address in re.findall(r"\b(doi|url) = \{([^}]+)\}", entry):
            keys[f"https://doi.org/{address}" if kind == "doi" else address] = key
    return keys


def printed_text(text: str) -> str:
    "The text of the page as that of an article: citations, captions, and links into the site"
    keys = citation_keys()
    blocks = [block for block in re.split(r"\n\n+(?=#|This page)", text) if not block.startswith(PAGE_ONLY)]
    text = "\n\n".join(blocks[1:]) + "\n"  # without the page's summary
    def cite(found): return f"[@{keys[found[2]]}]" if found[2] in keys else found[0]
    text = re.sub(r"\(?\[([^\]]+)\]\((https?://[^)]+)\)\)?", cite, text)
    text = FIGURE.sub(r"![\2](\1)\n", text)
    text = TABLE.sub(r"\2\n: \1\n", text)
    # the article lies beside the front page of the site
    text = PAGE.sub(r"](reports/\1.html\2)", text).replace("](../", "](")
    text = re.sub(r"^#(#+) ", r"\1 ", text, flags=re.M) + "\n# References\n"
    text = re.sub(r"^# ", f"{FLUSH}# ", text, flags=re.M)
    return f"---\nnocite: '@*'\n---\n\n{text}"


def markup(root: Path) -> str:
    "The article of a run in Typst's markup"
    import pypandoc
    citation = yaml.safe_load((PROJECT/"CITATION.cff").read_text())
    notebook = root/"notebooks"/REPORT.name
    made = date.fromtimestamp(notebook.stat().st_mtime).isoformat()
    variables = dict(title=TITLE, author=citation["authors"][0]["name"], date=made,
                     version=citation["version"])
    options = ["--standalone", f"--template={TEMPLATE}", "--citeproc", f"--bibliography={REFERENCES}",
               *(f"--variable={name}={value}" for name, value in variables.items())]
    return pypandoc.convert_text(printed_text(shown_text(notebook)), "typst", "markdown", extra_args=options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of the run")
    parser.add_argument("--out", type=Path, required=True, help="the PDF to write")
    chosen = parser.parse_args()
    try:
        import pypandoc  # noqa: F401
        import typst
    except ModuleNotFoundError as error:
        raise SystemExit(f'The article needs {error.name}: pip install ".[docs]" in the clone.') from None
    from boneage.files import publish
    source = chosen.root/"article.typ"
    with publish(source) as file: file.write_text(markup(chosen.root))
    with publish(chosen.out) as file:
        typst.compile(source, output=file, root=chosen.root, format="pdf")
    print(f"Written to {chosen.out}")


if __name__ == "__main__": main()
