"""The six pipeline steps that test_crash.py kills; a process with all imports forks a child for each run.

A line of JSON on standard input starts a run. Two lines of standard output follow: the child's process id,
and its wait status when it has ended.
"""
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

PROFILE = dict(name="crash", seed=7,
               cohort=dict(source="phantoms", train=8, validation=2, test=0, shape=[128, 100]),
               segmentation=dict(shape=[32, 24], width=2, depth=2, initial_masks=5, rounds=2, shown=0,
                                 batch_size=4, quality=0.0, schedule=dict(epochs=3, learning_rate=1e-2)),
               keypoints=dict(labels=8, shape=[33, 25], crop_size=64, widths=[2, 2, 2], hidden=[4, 4],
                              schedule=dict(epochs=1), batch_size=8, passes=1),
               bone_age=dict(scales=dict(hand=0.03, carpals=0.06, metacarpals=0.05), widths=[4]*6,
                             pools=[2, 2, 1, 1, 1, 1], hidden=[8], schedule=dict(epochs=6),
                             batch_size=4))
MODEL = "registered-hand-both-regression"
CELLS = ["root = '.'\nnumber = 1",
         "from boneage.datasets.workspace import Workspace\nimport pandas as pd\nworkspace = Workspace(root)",
         "workspace.write_result('report', dict(numbers=[number*i for i in range(2000)]))",
         "workspace.write_table('report', pd.DataFrame(dict(number=range(3000))))",
         "print('line\\n'*2000)\nnumber*2"]


# ------------------------------------------------------------------ the steps, in the current folder

def make_phantoms():
    "A collection, by the command itself"
    from boneage.cli import app
    app(["phantom", "radiographs", "-n", "4", "--seed", "3"])


def mine_masks():
    "Two rounds of mining, then the mask of every radiograph"
    from boneage.paper.pipeline import segment_cohort
    segment_cohort(_workspace())


def write_arrays():
    "The arrays of all regions"
    from boneage.paper.pipeline import write_cohort_regions
    write_cohort_regions(_workspace())


def train():
    "One bone-age network"
    from boneage.bone_age import ModelName
    from boneage.paper.pipeline import train_model
    train_model(_workspace(), ModelName(*MODEL.split("-")))


def report():
    "A notebook run by papermill; its kernel publishes two files"
    from boneage.paper.run import run_report
    run_report("report.ipynb", "notebooks/report.ipynb", dict(number=3), lambda line: None)


def warm_exporter(folder):
    "Export a layer: the first export of a process takes ten seconds for PyTorch's tables of ONNX"
    import warnings

    import torch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(2, 2),), str(Path(folder)/"warm.onnx"),
                          dynamo=True, external_data=False, verbose=False)


def export():
    "A network as safetensors and as an ONNX model"
    from boneage.export import export_network
    from boneage.networks import save_network
    from boneage.training.core import new_network
    config = dict(network="BoneAgeNetwork", shape=[62, 47], widths=[2]*6, hidden=[16, 8],
                  head="classification", network_input=dict(input="registered", region="hand", scale=1/32))
    network = new_network(config, 7).eval()
    save_network("network", network, config, card={"images": 3})
    save_network("released", network, config, precision="bytes")
    export_network(network, config, "exported")


def _workspace():
    from boneage.datasets.workspace import Workspace
    return Workspace(".")


# ------------------------------------------------------------------ their input

def prepare():
    "Make a folder for each step, with its input, in the current folder"
    import shutil

    import nbformat
    import yaml

    from boneage.datasets.profiles import load_profile
    from boneage.datasets.workspace import Workspace, open_workspace
    from boneage.paper.pipeline import (
        make_cohort,
        run_registration_step,
        segment_cohort,
        write_cohort_regions,
    )
    base = Path.cwd()
    settings = {key: value for key, value in PROFILE.items() if key != "name"}
    Path("crash.yaml").write_text(yaml.safe_dump(settings))
    make_cohort(open_workspace(load_profile("crash.yaml"), "."))
    Path("crash.yaml").unlink()
    (base/"crash").rename(base/"mining")
    table = base/"mining"/"cohort.csv"
    for name in ("cohort", "annotations"):  # paths of radiographs are relative to the run's folder
        table = base/"mining"/f"{name}.csv"
        table.write_text(table.read_text().replace("crash/phantoms", "phantoms"))
    for source, target, steps in (("mining", "regions", (segment_cohort, run_registration_step)),
                                  ("regions", "training", (write_cohort_regions,))):
        shutil.copytree(base/source, base/target)
        os.chdir(base/target)
        for step in steps: step(Workspace("."))
    os.chdir(base)
    for name in ("phantoms", "export", "report"): Path(name).mkdir()
    cells = [nbformat.v4.new_code_cell(source, id=f"cell{i}",
                                       metadata=dict(tags=["parameters"] if not i else []))
             for i, source in enumerate(CELLS)]
    kernel = dict(name="python3", display_name="python3", language="python")
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=kernel))
    nbformat.write(notebook, "report/report.ipynb")


STEPS = dict(phantoms=make_phantoms, mining=mine_masks, training=train, regions=write_arrays, report=report,
             export=export)


# ------------------------------------------------------------------ kills at file operations

def watch(act: Callable[[int, bool], None]):
    "Call `act(number, opening)` before each file operation: opening for writing, renaming, making or removal"
    count, here = [0], os.getcwd()

    def hook(event, arguments):
        if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"): return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else None
        if path is None or os.path.isabs(path) and not path.startswith(here): return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT): return
        count[0] += 1
        act(count[0], event == "open")

    sys.addaudithook(hook)
    return count


def die(*_): os.kill(os.getpid(), signal.SIGKILL)


def die_at(kind: str, number: int, size: int):
    "Kill before the file operation of that number, or in the first write after it that passes `size` bytes"
    def act(count, opening):
        if count < number: return
        if kind == "operation": die()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    if kind == "write": signal.signal(signal.SIGXFSZ, die)
    return watch(act)


# ------------------------------------------------------------------ the process that forks

def child(order: dict):
    "Run a step and exit; prints one line for an error of the project, and a traceback for any other"
    os.setpgid(0, 0)
    os.chdir(order["folder"])
    os.environ.update(order["environment"])  # identifies its kernels
    with open(order["output"], "w") as output:
        for stream in (1, 2): os.dup2(output.fileno(), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    code, count = 1, [0]
    try:
        if order.get("limit"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], resource.RLIM_INFINITY))
        if order.get("moment"): count = die_at(*order["moment"])
        elif order["step"] != "prepare": count = watch(lambda *_: None)
        (STEPS | dict(prepare=prepare))[order["step"]]()
        code = 0
    except SystemExit as error: code = error.code or 0
    except ValueError as error:  # the project's errors are of this kind
        print(f"{type(error).__name__}: {error}")
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr): stream.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        Path(order["output"]).with_suffix(".count").write_text(str(count[0]))
        os._exit(code)


def serve():
    "Import what the steps need, then fork a child for each order; reap it once its end was noted"
    import cv2
    import torch
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in ("fastai.basics", "nbclient", "papermill", "sklearn", "boneage.cli", "boneage.export",
                 "boneage.paper.pipeline", "boneage.paper.run"):
        import_module(name)  # once, not in each child
    try:
        for name in ("onnx", "onnxscript"): import_module(name)  # but not onnxruntime, which starts a thread
        import tqdm
        tqdm.tqdm.monitor_interval = 0  # no thread of its own
        with tempfile.TemporaryDirectory() as folder: warm_exporter(folder)
    except ImportError: pass
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not be forked"
    print("ready", flush=True)
    for line in sys.stdin:
        if (pid := os.fork()) == 0: child(json.loads(line))
        print(pid, flush=True)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        print(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status, flush=True)
        sys.stdin.readline()
        os.waitpid(pid, 0)


if __name__ == "__main__": serve()
