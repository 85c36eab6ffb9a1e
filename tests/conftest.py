"Shared by several tests: a copy of the project for runs, `boneage …` as a process, and killing it"
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

PROJECT = Path(__file__).resolve().parent.parent
os.environ.setdefault("BONEAGE_CACHE", "off")  # tests leave the user's cache alone
TOKEN = "BONEAGE_TOKEN"  # in the environment of what a test starts and will kill


@pytest.fixture(scope="module")
def one_thread():
    "One thread of PyTorch for a module, its own fixtures included: bits depend on how sums are split"
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    "Tiny networks with known predictions"
    from tiny_models import write_tiny_models
    return write_tiny_models(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def image():
    "A small phantom without defects"
    from boneage.synthetic.phantoms import make_phantom
    return make_phantom(3, 1, shape=(300, 240), defects={}).image


@pytest.fixture
def png(tmp_path, image) -> Path:
    "The phantom as a file"
    from boneage.radiographs import write_radiograph
    return write_radiograph(tmp_path/"hand.png", image)


def copy_project(folder: Path) -> Path:
    "Link or copy what a run reads into an empty folder, so that runs do not share files"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("boneage", "nbs", "howto", "play", "tools", "benchmarks"):
        (folder/name).symlink_to(PROJECT/name)
    shutil.copytree(PROJECT/"reports", folder/"reports")
    for name in ("Snakefile", "_quarto.yml", "README.md", "CITATION.cff", "pyproject.toml", "settings.ini"):
        shutil.copy(PROJECT/name, folder/name)
    return folder


def command(*arguments) -> list[str]:
    "`boneage …` of this environment"
    return [sys.executable, "-m", "boneage.cli", *map(str, arguments)]


def run(*arguments, cwd=None, **more) -> subprocess.CompletedProcess:
    "Run `boneage …` to its end"
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True,
                          env=os.environ | more.pop("env", {}), **more)


def kill_tree(child: int|None, token: str):
    "Kill a child and every process that has the token in its environment, and wait until they are gone"
    try:
        if child:
            os.kill(child, signal.SIGSTOP)  # it starts no other process meanwhile
            os.kill(child, signal.SIGKILL)
    except ProcessLookupError: pass         # it has ended
    while others := processes_with(token):
        for pid in others:
            try: os.kill(pid, signal.SIGKILL)
            except ProcessLookupError: continue
        time.sleep(0.01)


def processes_with(token: str) -> list[int]:
    "The living processes that were started with the token"
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _has(pid, token)]


def _has(pid: int, token: str) -> bool:
    "Whether a living process was started with the token"
    try: return f"{TOKEN}={token}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError: return False


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, worker_id) -> Path:
    "The project's folder of an undisturbed smoke run, which the first of pytest's processes makes"
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    folder, finished = base/"undisturbed", base/"undisturbed-finished"
    with FileLock(base/"undisturbed.lock"):
        if not finished.exists():
            copy_project(folder)
            done = run("paper", "--profile", "smoke", cwd=folder)
            log = (folder/"work"/"smoke"/"run.log").read_text()
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:] + log[-3000:]
            assert "The site: file://" in done.stdout
            finished.touch()
    return folder


LONGEST = "test_pipeline", "test_crash", "test_slurm", "test_runs", "test_thumbnails"


def pytest_collection_modifyitems(items):
    "Run the longest files first, so that no process is left alone with one of them at the end"
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.module.__name__, len(order)))
