"The smoke profile on a real Slurm of one node, with one job killed, equals the local run to the last digit"
import os
import subprocess
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
from conftest import command, copy_project
from one_node_slurm import NoSlurm, one_node_slurm
from test_pipeline import numbers, wait_for

from boneage.datasets.workspace import Workspace
from boneage.paper.run import exclusive_slurm_jobs, run_paper


@pytest.fixture
def slurm():
    "A Slurm of one node, which runs as long as the test; sets the environment of its commands"
    pytest.importorskip("snakemake_executor_plugin_slurm")
    with ExitStack() as stack:
        try: environment = stack.enter_context(one_node_slurm())
        except NoSlurm as reason: pytest.skip(str(reason))
        with patch.dict(os.environ, environment): yield


def output(*command_line) -> str:
    "The output of a command of Slurm"
    return subprocess.run(command_line, capture_output=True, text=True, check=True).stdout


def times(*files) -> dict[Path, int]:
    "When each file was written"
    return {path: path.stat().st_mtime_ns for path in files}


def job_environments(folder: Path) -> list[list[str]]:
    "The environment of each report that runs in the folder"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_report = b"boneage.paper.run" in (process/"cmdline").read_bytes().split(b"\0")
            if is_report and (process/"cwd").resolve() == folder.resolve():
                found.append((process/"environ").read_text().split("\0"))
        except OSError: continue  # it has ended
    return found


def test_slurm_job_requests_profile_resources(slurm, tmp_path):
    (tmp_path/"own.yaml").write_text("cluster: {memory: 700, minutes: 9, cpus: 1, pause: 1, retries: 0}\n")
    (tmp_path/"Snakefile").write_text("""rule all:
    input: "fitted"
rule fit:
    output: "fitted"
    threads: 2
    resources: gpu=config["gpus"], runtime=8
    shell: "scontrol show job $SLURM_JOB_ID > {output}"
""")
    with pytest.MonkeyPatch.context() as change:
        change.chdir(tmp_path)
        assert run_paper("own.yaml", slurm=True) == 0, (tmp_path/"work"/"own"/"run.log").read_text()[-3000:]
    job = dict(pair.split("=", 1) for pair in (tmp_path/"fitted").read_text().split() if "=" in pair)
    requested = [job[key] for key in ("NumCPUs", "MinMemoryNode", "TimeLimit", "TresPerJob")]
    assert requested == ["2", "700M", "00:08:00", "gres:gpu:1"]


def test_slurm_run_with_a_killed_job_equals_the_local_run(smoke, slurm, tmp_path):
    folder = copy_project(tmp_path/"slurm")
    root = folder/"work"/"smoke"
    with exclusive_slurm_jobs(Workspace(root)) as name: pass
    # as a killed run leaves it
    output("sbatch", f"--job-name={name}_old", "--output=/dev/null", "--wrap=sleep 1000")
    with open(tmp_path/"output.txt", "w") as log:
        process = subprocess.Popen(command("paper", "--profile", "smoke", "--slurm"), cwd=folder,
                                   stdout=log, stderr=log)
    def has_checkpoint(): return any((root/"checkpoints").glob("registered-*.safetensors"))
    assert wait_for(has_checkpoint, process, 1200), (tmp_path/"output.txt").read_text()
    fitted = [path for path in (root/"checkpoints").glob("*-*-*.safetensors")
              if not path.name.startswith(".")]
    done = times(*fitted, *root.glob("*.csv"), root/"models"/"segmentation"/"model.safetensors",
                 root/"regions"/"ids.csv")
    environments = job_environments(folder)
    output("scancel", "--state=RUNNING", f"--user={os.getuid()}")
    assert process.wait(1800) == 0, (tmp_path/"output.txt").read_text() + (root/"run.log").read_text()[-3000:]
    assert environments and all("MALLOC_MMAP_MAX_=0" in each for each in environments)
    states = Counter(output("squeue", "--noheader", "--states=all", "--format=%T").split())
    assert states == {"CANCELLED": 2, "COMPLETED": 5}  # the old one and the killed one
    # only the killed job was rerun, and of it only the models that were not fitted yet
    assert fitted and times(*done) == done
    mine, theirs = numbers(root), numbers(smoke/"work"/"smoke")
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == []
