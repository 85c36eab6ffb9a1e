"The article of a run: the same text as its page, with citations, captions and references"
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT/"tools"))
import build_article  # noqa: E402

DOI = "https://doi.org/10.1007/978-3-030-00889-5_34"
PAGE = ["# A page\n> Its summary\n\nThis page is also printed: [article.pdf](../article.pdf).",
        f"## Abstract\n\nA paper ([Iglovikov et al., 2018]({DOI})) has [code](https://example.org).",
        "## Results\n\n![A line](../figures/line.svg)\\\n*A line. "
        "[How it is made](09_mae_table.ipynb#figure-line), [its data](../figures/line.csv).*\n",
        "## In short\n\nNothing more."]
LINE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M0 0L9 9" stroke="black"/></svg>'


@pytest.fixture
def root(tmp_path):
    "A run with an executed article and one figure"
    shown = new_output("display_data", {"text/markdown": "*Errors.*\n\n| region | MAE |\n|:--|--:|\n"
                                                   "| hand | 7.25 |\n"})
    cells = [*map(new_markdown_cell, PAGE)]
    cells.insert(3, new_code_cell("…", outputs=[shown]))
    (tmp_path/"notebooks").mkdir()
    nbformat.write(new_notebook(cells=cells), tmp_path/"notebooks"/"16_article.ipynb")
    (tmp_path/"figures").mkdir()
    (tmp_path/"figures"/"line.svg").write_text(LINE)
    return tmp_path


def test_page_becomes_article(root):
    text = build_article.printed_text(build_article.shown_text(root/"notebooks"/"16_article.ipynb"))
    assert "A paper [@iglovikov2018] has [code](https://example.org)." in text
    links = "[How it is made](reports/mae_table.html#figure-line), [its data](figures/line.csv)."
    assert f"![A line. {links}](figures/line.svg)" in text
    assert "| hand | 7.25 |\n\n: Errors.\n" in text
    assert "\n# Abstract" in text and text.rstrip().endswith("# References")
    assert not any(word in text for word in ("In short", "Its summary", ".ipynb", "article.pdf"))


def test_every_reference_has_a_key_and_most_an_address():
    keys = build_article.citation_keys()
    assert keys[DOI] == "iglovikov2018" and len(set(keys.values())) == len(keys) >= 6


def test_citations_of_the_report_are_in_the_references():
    notebook = nbformat.read(PROJECT/"reports"/"16_article.ipynb", 4)
    text, keys = "\n".join(cell.source for cell in notebook.cells), build_article.citation_keys()
    assert [address for address in keys if address not in text] == []
    assert text.count("https://doi.org/") >= 5


def test_figures_name_the_report_that_makes_them():
    def code(path):
        return "\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
    figures = re.findall(r'\bfigure\("([\w-]+)",.*?"(\d\d_\w+)"\)', code(build_article.REPORT), re.S)
    assert len(figures) >= 15
    for name, report in figures:
        assert f'"{name}"' in code(PROJECT/"reports"/f"{report}.ipynb"), f"{report} makes no figure {name}"


def test_article_is_printed(root, monkeypatch):
    pytest.importorskip("pypandoc")
    pytest.importorskip("typst")
    target = root/"article.pdf"
    monkeypatch.setattr(sys, "argv", ["build_article.py", "--root", str(root), "--out", str(target)])
    build_article.main()
    markup = (root/"article.typ").read_text()
    assert "Iglovikov et al. 2018" in markup and "7.25" in markup and "Greulich, William" in markup
    assert 'link("figures/line.csv")' in markup and "caption: [Errors." in markup
    assert target.read_bytes().startswith(b"%PDF-") and target.stat().st_size > 10_000
