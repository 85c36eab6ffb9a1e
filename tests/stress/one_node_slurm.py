"A Slurm cluster of one node for tests, with its own key, ports and folder; stopped when the block ends"
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = "munged", "mungekey", "slurmctld", "slurmd", "srun"
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmdParameters=config_overrides
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
MinJobAge=86400
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:1
PartitionName=main Nodes={host} Default=YES State=UP
"""


class NoSlurm(Exception):
    "Why there is no Slurm here"


def free_ports(number: int) -> list[int]:
    "Ports that are free now"
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets: each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until(there, seconds: float, what: str):
    "Wait until `there()` holds; raises `NoSlurm` after that many seconds"
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end: raise NoSlurm(f"{what} did not come up in {seconds} s")
        time.sleep(.1)


def configure(folder: Path, cpus: int, memory: int):
    "Write the key and the configuration"
    for name in ("state", "spool"): (folder/name).mkdir()
    values = dict(folder=folder, host=socket.gethostname().split(".")[0], user=getpass.getuser(),
                  ports=free_ports(2), cpus=cpus, memory=memory)
    (folder/"slurm.conf").write_text(CONFIGURATION.format(**values))
    (folder/"gres.conf").write_text("Name=gpu File=/dev/null\n")  # a GPU to ask for, and none to compute with
    # inside a job, Snakemake passes on no SLURM_ variable
    (folder/"srun").write_text(
        f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    (folder/"srun").chmod(0o755)
    subprocess.run(["mungekey", "--create", f"--keyfile={folder}/munge.key"], check=True,
                   env=os.environ | dict(PATH=PATH))


@contextmanager
def daemon(folder: Path, *command):
    "A daemon that runs as long as the block; its output goes to a file of its name"
    with open(folder/f"{command[0]}.out", "w") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output,
                                   env=os.environ | dict(PATH=PATH, SLURM_CONF=str(folder/"slurm.conf")))
    try: yield process
    finally:
        process.terminate()
        try: process.wait(20)
        except subprocess.TimeoutExpired: process.kill()


@contextmanager
def one_node_slurm(
    cpus: int = 2,
    memory: int = 8000, # megabytes that jobs may request in all, whatever this computer has
):                      # yields the environment of Slurm's commands
    "Start munged, slurmctld and slurmd, and stop them at the end; raises `NoSlurm` where they cannot start"
    lacking = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if lacking: raise NoSlurm(f"{', '.join(lacking)} not installed (Debian: slurm-wlm and munge)")
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, ExitStack() as stack:
        folder = Path(name)
        environment = dict(PATH=f"{name}{os.pathsep}{PATH}", SLURM_CONF=f"{name}/slurm.conf")
        configure(folder, cpus, memory)
        stack.enter_context(daemon(folder, "munged", "--foreground", "--force",
                                   f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key",
                                   f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munged.seed",
                                   f"--log-file={folder}/munged.log"))
        wait_until((folder/"munge.socket").exists, 10, "munged")
        stack.enter_context(daemon(folder, "slurmctld", "-D"))
        stack.enter_context(daemon(folder, "slurmd", "-D"))
        def output(*command):
            return subprocess.run(command, capture_output=True, text=True,
                                  env=os.environ | environment).stdout
        wait_until(lambda: "idle" in output("sinfo", "--noheader", "--format=%T"), 30, "Slurm")
        try: yield environment
        finally:
            output("scancel", "--user", getpass.getuser())
            # a running job would outlive slurmd
            wait_until(lambda: not output("squeue", "--noheader"), 60, "an empty queue")
