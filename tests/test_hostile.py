"Three hundred damaged, foreign and hostile files in one folder, through `boneage assess`: one sentence for each, the rest assessed"
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("pydicom")
from test_radiographs import as_bits, bomb_dicom, bomb_jpeg, bomb_png, bomb_tiff, dicom, save, save_dicom
from tiny_models import write_tiny_models

from boneage.radiographs import write_radiograph
from boneage.synthetic.phantoms import make_phantom

GOOD = 6          # radiographs among them
LIMIT = 2 * 2**30  # bytes of memory


def foreign(path, random, i):
    "What is no image at all"
    contents = [b"", b"\0"*1000, b"id,boneage,male\n1377,180,False\n", b"<html><body>404</body></html>", b"%PDF-1.7\n%%EOF", b"PK\x03\x04" + random.bytes(500), random.bytes(3000),
                b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"\0"*128 + b"DICM", "Röntgenbild".encode("utf-16"), b"GIF89a" + random.bytes(100)]
    path.write_bytes(contents[i % len(contents)])


def drawing(path, random, i):
    "An image that is no radiograph"
    canvas = np.full((300 + i, 240, 3), 255, np.uint8)
    for _ in range(8):
        colour = tuple(int(c) for c in random.randint(0, 255, 3))
        cv2.circle(canvas, tuple(int(c) for c in random.randint(0, 240, 2)), int(random.randint(3, 60)), colour, -1)
        cv2.putText(canvas, "hand", tuple(int(c) for c in random.randint(0, 240, 2)), 0, 1, colour, 2)
    if i % 3 == 0: canvas = cv2.resize(random.randint(0, 255, (40, 30, 3)).astype(np.uint8), (240, 300), interpolation=cv2.INTER_CUBIC)  # as a photograph
    if i % 7 == 0: canvas = canvas[:2, :2]
    if i % 11 == 0: canvas[:] = 90
    cv2.imwrite(str(path), canvas)


def write_hostile(folder, radiograph):
    "The files, by whether they must be refused"
    random, refused, other = np.random.RandomState(2018), [], []
    originals = {suffix: save(folder.parent/f"whole{suffix}", as_bits(radiograph, 8)).read_bytes() for suffix in (".png", ".jpg", ".tif")}
    originals[".dcm"] = save_dicom(folder.parent/"whole.dcm", dicom(as_bits(radiograph, 12), BitsStored=12, HighBit=11)).read_bytes()
    for i in range(100):  # cut short anywhere
        suffix = list(originals)[i % 4]
        path = folder/f"cut{i}{suffix}"
        path.write_bytes(originals[suffix][:random.randint(0, int(.9*len(originals[suffix])))])
        refused.append(path)
    for i in range(80):   # some bytes changed: may still be readable
        suffix = list(originals)[i % 4]
        data = bytearray(originals[suffix])
        for at in random.randint(0, len(data) if i % 2 else 200, 8): data[at] = random.randint(256)
        (folder/f"changed{i}{suffix}").write_bytes(data)
        other.append(folder/f"changed{i}{suffix}")
    for i in range(52):
        path = folder/f"foreign{i}{['.png', '.jpg', '.tif', '.dcm'][i % 4]}"
        foreign(path, random, i)
        refused.append(path)
    for i, suffix in enumerate([".png", ".jpg", ".tif"]*6):  # under another kind's name, which harms nobody
        path = folder/f"renamed{i}{suffix}"
        path.write_bytes(originals[list(originals)[i % 4]])
        other.append(path)
    for i in range(40):
        drawing(path := folder/f"drawing{i}{['.png', '.jpg'][i % 2]}", random, i)
        other.append(path)
    for name, bomb in [("bomb.png", bomb_png), ("bomb.jpg", bomb_jpeg), ("bomb.tif", bomb_tiff), ("bomb.dcm", bomb_dicom)]:
        (folder/name).write_bytes(bomb())
        refused.append(folder/name)
    report = dicom(as_bits(radiograph, 8), Modality="SR")
    for name in ("PixelData", "Rows", "Columns"): del report[name]
    refused.append(save_dicom(folder/"report.dcm", report))
    (folder/"loop.png").symlink_to(folder/"loop.png")
    (folder/"gone.png").symlink_to(folder/"absent.png")
    (folder/"folder.png").mkdir()
    os.mkfifo(folder/"pipe.png")  # nobody will ever write to it
    refused += [folder/"loop.png", folder/"gone.png", folder/"pipe.png"]
    return refused, other


def test_three_hundred_hostile_files(tmp_path):
    (folder := tmp_path/"radiographs").mkdir()
    models = write_tiny_models(tmp_path/"run")
    phantom = make_phantom(3, 1, shape=(300, 240), defects={}).image
    refused, other = write_hostile(folder, phantom/255)
    assert len(refused) + len(other) > 290
    good = [folder/f"{'amz'[i % 3]}good{i}.png" for i in range(GOOD)]
    for path in good: write_radiograph(path, phantom)
    done = subprocess.run([sys.executable, "-c", "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); sys.argv[0] = 'boneage'; "
                           "import atexit; atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=open(sys.argv.pop(), 'w'))); "
                           "from boneage.cli import app; app(sys.argv[1:-1])", "assess", str(folder), "--json", "--weights", str(models), str(tmp_path/"memory")],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    outputs = {output["path"] for output in json.loads(done.stdout)}
    sentences = [line for line in done.stderr.splitlines() if line]
    assert {str(path) for path in good} <= outputs
    assert not outputs & {str(path) for path in refused}
    for path in refused:
        about = [line for line in sentences if f"{path.name}:" in line or f"{path} " in line]
        assert len(about) == 1, (path.name, about)
    for path in other: assert (str(path) in outputs) != any(str(path) in line for line in sentences), path.name
    assert int((tmp_path/"memory").read_text())*1024 < LIMIT
