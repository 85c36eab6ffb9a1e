"The notebooks with sliders: controls change the figure, a user's radiograph can be used, outputs are small"
import base64
import io
import re
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
from ipywidgets import Checkbox

from boneage.radiographs import write_radiograph
from boneage.synthetic.phantoms import make_phantom

PROJECT = Path(__file__).resolve().parent.parent
PLAY = sorted((PROJECT/"play").glob("[0-9]*.ipynb"))
each_notebook = pytest.mark.parametrize("notebook", PLAY, ids=lambda p: p.stem)
SHOWN = re.compile(r"^show\(.*\)$")


def cells(notebook: Path) -> list[str]:
    "The code of a notebook, without the cells that need one"
    return [cell.source for cell in nbformat.read(notebook, 4).cells
            if cell.cell_type == "code" and not cell.source.startswith("#| hide")]


def run_cells(notebook: Path, radiograph: str = "", until: str = "") -> dict:
    "The names that a notebook's cells define, before the first that begins with `until`"
    names, first, *rest = {}, *cells(notebook)
    assert first.startswith('radiograph = ""')
    for source in [f"radiograph = {radiograph!r}", *rest]:
        if until and source.startswith(until): return names
        if not SHOWN.match(source): exec(source, names)
    return names


@cache
def played(notebook: Path) -> dict: return run_cells(notebook)


def rendered(figure) -> bytes:
    "A figure's pixels, coarse"
    pixels = io.BytesIO()
    figure.savefig(pixels, format="rgba", dpi=60)
    return pixels.getvalue()


def other_value(control):
    "Another value of a control"
    if isinstance(control, Checkbox): return not control.value
    if hasattr(control, "options"):
        found = [value for _, value in control._options_full]
        if isinstance(control.value, tuple): return (found[0],)
        return next(value for value in found[::-1] if value != control.value)
    return control.max if control.value < control.max else control.min


@each_notebook
def test_controls_start_at_the_defaults_of_show(notebook):
    names = played(notebook)
    defaults = dict(zip(names["show"].__code__.co_varnames, names["show"].__defaults__))
    assert {control._kwarg: control.value for control in names["show"].widget.kwargs_widgets} == defaults


@each_notebook
def test_each_control_changes_the_figure(notebook):
    controls = played(notebook)["show"].widget
    assert controls.auto_display  # else a notebook would show the controls without the figure
    before, without_effect = rendered(controls.result), []
    for control in controls.kwargs_widgets:  # one after the other, none is set back
        control.value = other_value(control)
        after = rendered(controls.result)
        if after == before: without_effect.append(control.description)
        before = after
    assert without_effect == []


@each_notebook
def test_own_radiograph_can_be_used(notebook, tmp_path):
    phantom = make_phantom(7, 1, shape=(400, 320), bone_age=150, defects={})
    write_radiograph(tmp_path/"own.png", phantom.image)
    own = run_cells(notebook, str(tmp_path/"own.png"), until="#| eval")
    assert rendered(own["show"]()) != rendered(played(notebook)["show"]())


@each_notebook
def test_stored_outputs_are_small_and_static(notebook):
    read = nbformat.read(notebook, 4)
    code = [cell for cell in read.cells if cell.cell_type == "code"]
    pictures = [out.data["image/png"] for cell in code if SHOWN.match(cell.source) for out in cell.outputs]
    assert len(pictures) == 2 and pictures[0] != pictures[1] and notebook.stat().st_size < 160_000
    for picture in pictures: assert base64.b64decode(picture)[:4] == b"\x89PNG"
    live = [cell for cell in code if "interact(show" in cell.source]
    assert len(live) == 1 and live[0].source.startswith("#| eval: false") and not live[0].outputs


@each_notebook
def test_radiograph_without_hand_is_shown_or_reported(notebook, tmp_path):
    image = np.zeros((400, 300), np.float32)
    image[200:204, 150:154] = .5
    write_radiograph(tmp_path/"blank.png", image)
    try: rendered(run_cells(notebook, str(tmp_path/"blank.png"))["show"]())
    except ValueError as error: assert re.search("[Nn]o hand", str(error))
