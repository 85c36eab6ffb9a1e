"Write README.md from nbs/index.ipynb; its pictures go to docs/"
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

PROJECT = Path(__file__).absolute().parent.parent
HIDDEN = re.compile(r"^#\|\s*(hide|default_exp)\b", re.M)
SILENT = re.compile(r"^#\|\s*echo:\s*false", re.M)
ALTERNATIVE = re.compile(r'^#\|\s*fig-alt:\s*"(.*)"', re.M)


def readme(notebook: Path) -> tuple[str, dict[str, bytes]]:
    "The text of README.md, and its pictures by path"
    source = nbformat.read(notebook, 4)
    source.metadata["language_info"] = dict(name="python")
    source.cells = [cell for cell in source.cells
                    if not (cell.cell_type == "code" and HIDDEN.search(cell.source))]
    alternatives = [text for cell in source.cells if cell.cell_type == "code"
            for text in ALTERNATIVE.findall(cell.source)]
    resources = dict(unique_key="way", output_files_dir="docs")
    text, resources = MarkdownExporter().from_notebook_node(source, resources=resources)
    for cell in source.cells:
        if SILENT.search(cell.source): text = text.replace(f"```python\n{cell.source}\n```\n", "", 1)
    for alternative in alternatives: text = text.replace("![png](", f"![{alternative}](", 1)
    text = re.sub(r"\]\((\w+/\d\d_\w+\.ipynb)", r"](nbs/\1", text).replace("](../", "](")
    return re.sub(r"\n[ \n]*\n", "\n\n", text).strip() + "\n", dict(resources["outputs"])


def main():
    "Write what differs"
    text, pictures = readme(PROJECT/"nbs"/"index.ipynb")
    for name, content in (pictures | {"README.md": text.encode()}).items():
        target = PROJECT/name
        target.parent.mkdir(exist_ok=True)
        if not target.is_file() or target.read_bytes() != content: target.write_bytes(content)


if __name__ == "__main__": sys.exit(main())
