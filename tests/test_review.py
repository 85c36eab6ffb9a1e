"The canvas in a real browser sends drawn and typed input as messages; skipped where there is no Chromium"
import json
import shutil
import subprocess

import numpy as np
import pytest

from boneage.training.review import RadiographCanvas, render_candidate

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

PAGE = """<!doctype html><meta charset="utf-8"><body style="margin:0"><div id="el"></div>
<script type="module">
const source = %s, picture = %s;
const { default: widget } = await import("data:text/javascript;charset=utf-8," + encodeURIComponent(source));
const sent = [], watchers = {}, state = { picture, tool: "none", radius: 8 };
const model = { get: k => state[k], send: m => sent.push(m), on: (k, f) => watchers[k] = f };
const use = tool => { state.tool = tool; watchers["change:tool"](); };
const el = document.getElementById("el");
widget.render({ model, el });
const canvas = el.querySelector("canvas");
await new Promise(r => setTimeout(r, 300));
canvas.setPointerCapture = () => {};
const at = (type, x, y) => canvas.dispatchEvent(
  new PointerEvent(type, { clientX: x + 0.5, clientY: y + 0.5, pointerId: 1, bubbles: true }));
const key = k => canvas.dispatchEvent(new KeyboardEvent("keydown", { key: k, bubbles: true }));
key("a");
use("polygon"); [[10, 10], [50, 10], [50, 40]].forEach(p => at("pointerdown", ...p)); key("Enter");
at("pointerdown", 1, 1); key("Escape"); key("Enter");
use("brush"); at("pointerdown", 5, 6); at("pointermove", 9, 6); at("pointerup", 9, 6);
use("point"); at("pointermove", 20, 30); at("pointerdown", 20, 30);
const found = JSON.stringify({ sent, size: [canvas.width, canvas.height] });
document.body.innerHTML = "<pre id=out>" + found + "</pre>";
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_canvas_sends_drawn_shapes(tmp_path):
    canvas = RadiographCanvas()
    canvas.show(render_candidate(np.zeros((60, 80), np.uint8), np.zeros((60, 80), bool), 120))
    source, picture = json.dumps(str(RadiographCanvas._esm)), json.dumps(canvas.picture)
    (tmp_path/"page.html").write_text(PAGE % (source, picture))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
               "--disable-background-networking", f"--user-data-dir={tmp_path/'user'}",
               "--virtual-time-budget=4000", "--dump-dom", (tmp_path/"page.html").as_uri()]
    document = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert '<pre id="out">' in document, document[-2000:]
    result = json.loads(document.split('<pre id="out">')[1].split("</pre>")[0])
    assert result["size"] == [160, 120]
    keys, polygons, paths, points = ([message[kind] for message in result["sent"] if kind in message]
                                     for kind in ("key", "polygon", "path", "point"))
    assert keys == ["a", "Enter"]                    # Enter closes an open polygon, and is a key otherwise
    assert polygons == [[[10, 10], [50, 10], [50, 40]]]
    assert paths == [[[5, 6], [9, 6]]]
    assert points == [[20, 30]]
