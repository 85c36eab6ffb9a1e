"""Runs in users' environments: own radiographs, folders with odd names, clusters with other kernels, signals

Each run is as small as its case allows. tests/test_pipeline.py has the results of a whole run."""
import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pandas as pd
import pytest
from conftest import TOKEN, command, copy_project, kill_tree, processes_with, run

from boneage.radiographs import write_radiograph
from boneage.synthetic.phantoms import make_phantom

OWN = """
seed: 2018
models_per_run: 20
cohort: {source: folder, train: 0, validation: 200, test: 100}
segmentation: {weights: released}
keypoints: {weights: released}
bone_age: {scales: {hand: 0.04, carpals: 0.08, metacarpals: 0.06}, widths: [4, 4, 8, 8, 8, 8], hidden: [16],
           pools: [2, 2, 2, 1, 1, 1], schedule: {epochs: 1}, batch_size: 16}
"""


@pytest.fixture
def cluster(tmp_path) -> dict[str, str]:
    "The environment of a compute node: another kernel called python3, and a home that can't be written"
    kernel = tmp_path/"jupyter"/"kernels"/"python3"/"kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps(dict(argv=["false", "{connection_file}"], display_name="Python 3",
                                      language="python")))
    return dict(JUPYTER_PATH=str(tmp_path/"jupyter"), HOME="/dev/null/home")


def test_own_radiographs_with_a_split_column_run_to_the_site(tmp_path, cluster):
    "As in howto/02: a folder of images, one table, released networks; the clone's path has odd characters"
    folder, data, rows = copy_project(tmp_path/"My Papers (2018) [draft]"), tmp_path/"hands", []
    (folder/"reports"/"profiles"/"mine.yaml").write_text(OWN)
    for i in range(24):
        phantom = make_phantom(i, i, shape=(256, 200), defects={}, sex="MF"[i % 2])
        write_radiograph(data/f"{100 + i}.png", phantom.image)
        split = "test" if i < 4 else "validation" if i < 8 else "train"
        rows.append(dict(id=100 + i, sex=phantom.sex, bone_age=round(phantom.bone_age), split=split))
    pd.DataFrame(rows).to_csv(data/"labels.csv", index=False)
    os.symlink(data, folder/"link")
    done = run("paper", "--profile", "mine", "--data", "../link/", cwd=folder/"reports", env=cluster)
    log = folder/"work"/"mine"/"run.log"
    assert done.returncode == 0, (done.stdout + done.stderr + log.read_text())[-4000:]
    root = folder/"work"/"mine"
    cohort = pd.read_csv(root/"cohort.csv", dtype={"id": str}).set_index("id")
    assert cohort.split.to_dict() == {str(row["id"]): row["split"] for row in rows}
    assert (root/"site"/"index.html").is_file()
    page = (root/"notebooks"/"12_summary.ipynb").read_text()
    assert f"Python {sys.version.split()[0]}" in page
    before = (root/"cohort.csv").stat().st_mtime_ns
    again = run("paper", "--profile", "mine", "--data", data, cwd=folder, env=cluster)  # another spelling
    assert again.returncode == 0 and (root/"cohort.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_the_command_alone_ends_all_that_it_started(tmp_path, number):
    folder, token = copy_project(tmp_path/"project"), uuid.uuid4().hex
    running = folder/"work"/"smoke"/"notebooks"/"01_cohort.running.ipynb"
    process = subprocess.Popen(
        command("paper", "--profile", "smoke"), cwd=folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=os.environ | {TOKEN: token},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # background jobs ignore it
    try:
        wait(lambda: running.is_file() and len(processes_with(token)) > 3, 120)
        process.send_signal(number)
        assert process.wait(timeout=20) != 0
        wait(lambda: not processes_with(token), 20)
    finally: kill_tree(None, token)


def wait(condition, seconds: float):
    "Wait until a condition holds; it must"
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
