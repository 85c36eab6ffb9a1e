"""Write boneage/ from nbs/ as nbdev-export does, with `__all__` wrapped at 110 columns instead of 120

A lesson that was run in JupyterLab holds live widgets, which would load scripts from other servers. They are
removed from the notebooks."""
from pathlib import Path
from textwrap import TextWrapper

import nbformat
from nbdev import maker
from nbdev.doclinks import nbdev_export

WIDGET = "application/vnd.jupyter.widget-view+json"


class _Narrow(TextWrapper):
    "Wraps early enough for the `__all__ = ` that stands before the first line"
    def __init__(self, width, **options): super().__init__(width=100, **options)


def drop_live_widgets(path: Path) -> bool:
    "Keep only the images of a notebook's live widgets; whether it had any"
    if WIDGET not in path.read_text(encoding="utf-8"): return False
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if WIDGET not in output.get("data", {}): continue
            output["data"] = {kind: value for kind, value in output["data"].items() if kind[:6] == "image/"}
        if "outputs" in cell: cell.outputs = [output for output in cell.outputs if output.get("data", True)]
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)
    return True


if __name__ == "__main__":
    maker.TextWrapper = _Narrow
    nbdev_export()
    for folder in ("nbs", "howto", "play", "reports"):
        for path in Path(folder).rglob("*.ipynb"): drop_live_widgets(path)
