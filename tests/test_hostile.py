"Assess a folder of three hundred damaged, foreign and hostile files: one sentence each, the rest assessed"
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from boneage.radiographs import write_radiograph
from boneage.synthetic.phantoms import make_phantom

pytest.importorskip("pydicom")
from test_radiographs import BOMBS, as_bits, dicom, save, save_dicom, structured_report  # noqa: E402
from tiny_models import write_tiny_models  # noqa: E402

PHANTOMS = 6       # usable radiographs among the files
LIMIT = 2 * 2**30  # bytes of memory

ASSESS = """
import atexit, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
sys.argv[0] = "boneage"
memory = sys.argv.pop()
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=open(memory, "w")))
from boneage.cli import app
app(sys.argv[1:])
"""


def foreign_bytes(random, i):
    "Content that is no image"
    contents = [
        b"", b"\0"*1000, b"id,boneage,male\n1377,180,False\n", b"<html><body>404</body></html>",
        b"%PDF-1.7\n%%EOF", b"PK\x03\x04" + random.bytes(500), random.bytes(3000),
        b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"\0"*128 + b"DICM",
        "Röntgenbild".encode("utf-16"), b"GIF89a" + random.bytes(100),
    ]
    return contents[i % len(contents)]


def write_drawing(path, random, i):
    "Write an image that is no radiograph"
    canvas = np.full((300 + i, 240, 3), 255, np.uint8)
    for _ in range(8):
        colour = tuple(int(c) for c in random.randint(0, 255, 3))
        centre = tuple(int(c) for c in random.randint(0, 240, 2))
        cv2.circle(canvas, centre, int(random.randint(3, 60)), colour, -1)
        cv2.putText(canvas, "hand", tuple(int(c) for c in random.randint(0, 240, 2)), 0, 1, colour, 2)
    if i % 3 == 0:  # smooth colours, as in a photograph
        colours = random.randint(0, 255, (40, 30, 3)).astype(np.uint8)
        canvas = cv2.resize(colours, (240, 300), interpolation=cv2.INTER_CUBIC)
    if i % 7 == 0: canvas = canvas[:2, :2]
    if i % 11 == 0: canvas[:] = 90
    cv2.imwrite(str(path), canvas)


def write_originals(folder, radiograph):
    "One complete file of each kind: suffix → its bytes"
    eight, twelve = as_bits(radiograph, 8), dicom(as_bits(radiograph, 12), BitsStored=12, HighBit=11)
    paths = [save(folder/f"whole{suffix}", eight) for suffix in (".png", ".jpg", ".tif")]
    paths.append(save_dicom(folder/"whole.dcm", twelve))
    return {path.suffix: path.read_bytes() for path in paths}


def write_damaged(folder, originals, random):
    "Write files that are cut short, to be rejected, and files with changed bytes, which may be readable"
    cut, changed = [], []
    for i in range(100):
        suffix = list(originals)[i % 4]
        cut.append(folder/f"cut{i}{suffix}")
        cut[-1].write_bytes(originals[suffix][:random.randint(0, int(.9*len(originals[suffix])))])
    for i in range(80):
        suffix = list(originals)[i % 4]
        data = bytearray(originals[suffix])
        for at in random.randint(0, len(data) if i % 2 else 200, 8): data[at] = random.randint(256)
        changed.append(folder/f"changed{i}{suffix}")
        changed[-1].write_bytes(data)
    return cut, changed


def write_no_files(folder):
    "Make links, a folder and a pipe with names of images; the paths that must be rejected"
    (folder/"loop.png").symlink_to(folder/"loop.png")
    (folder/"gone.png").symlink_to(folder/"absent.png")
    (folder/"folder.png").mkdir()
    os.mkfifo(folder/"pipe.png")  # no process ever writes to it
    return [folder/"loop.png", folder/"gone.png", folder/"pipe.png"]


def write_hostile(folder, radiograph):
    "Write all hostile files: those that must be rejected, and the others"
    random = np.random.RandomState(2018)
    originals = write_originals(folder.parent, radiograph)
    rejected, others = write_damaged(folder, originals, random)
    for i in range(52):
        path = folder/f"foreign{i}{['.png', '.jpg', '.tif', '.dcm'][i % 4]}"
        path.write_bytes(foreign_bytes(random, i))
        rejected.append(path)
    for i, suffix in enumerate([".png", ".jpg", ".tif"]*6):  # a complete file with another kind's suffix
        path = folder/f"renamed{i}{suffix}"
        path.write_bytes(originals[list(originals)[i % 4]])
        others.append(path)
    for i in range(40):
        write_drawing(path := folder/f"drawing{i}{['.png', '.jpg'][i % 2]}", random, i)
        others.append(path)
    for name, bomb in BOMBS.items():
        (folder/name).write_bytes(bomb())
        rejected.append(folder/name)
    rejected.append(save_dicom(folder/"report.dcm", structured_report(as_bits(radiograph, 8))))
    return rejected + write_no_files(folder), others


def assess(*arguments):
    "Run `boneage assess` in a process that writes its peak memory to the last argument"
    return subprocess.run([sys.executable, "-c", ASSESS, "assess", *map(str, arguments)],
                          capture_output=True, text=True, timeout=300)


def test_three_hundred_hostile_files(tmp_path):
    (folder := tmp_path/"radiographs").mkdir()
    models = write_tiny_models(tmp_path/"run")
    phantom = make_phantom(3, 1, shape=(300, 240), defects={}).image
    rejected, others = write_hostile(folder, phantom/255)
    assert len(rejected) + len(others) > 290
    usable = [folder/f"{'amz'[i % 3]}good{i}.png" for i in range(PHANTOMS)]
    for path in usable: write_radiograph(path, phantom)
    done = assess(folder, "--json", "--weights", models, tmp_path/"memory")
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assessed = {output["path"] for output in json.loads(done.stdout)}
    sentences = [line for line in done.stderr.splitlines() if line]
    assert {str(path) for path in usable} <= assessed
    assert not assessed & {str(path) for path in rejected}
    for path in rejected:
        about = [line for line in sentences if f"{path.name}:" in line or f"{path} " in line]
        assert len(about) == 1, (path.name, about)
    for path in others:
        assert (str(path) in assessed) != any(str(path) in line for line in sentences), path.name
    assert int((tmp_path/"memory").read_text())*1024 < LIMIT
