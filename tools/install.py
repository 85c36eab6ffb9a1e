"Make `.venv` with everything that `make` needs. Done once, and anew when the requirements change or an attempt was cut short"
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).absolute().parent.parent
VENV = PROJECT/".venv"
PYTHON = VENV/"bin"/"python"
SYSTEM_PYTHON = getattr(sys, "_base_executable", sys.executable)  # also where .venv is active
DONE = VENV/"boneage-done"              # holds the fingerprint of what was installed
UNFINISHED = VENV/"boneage-unfinished"  # there while an installation is under way
REQUIREMENTS = "settings.ini", "setup.py", "pyproject.toml", "constraints.txt"
EXTRAS = "dicom,reports,slurm,distributed,docs,dev,onnx,fine-tuning"


def fingerprint() -> str:
    "Changes when another environment is needed: other requirements, another Python, or a folder that moved"
    parts = [(PROJECT/name).read_bytes() for name in REQUIREMENTS] + [sys.version.encode(), EXTRAS.encode(), str(PROJECT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def run(*command, **environment) -> bool:
    "Run a command in the project, its words going to the terminal; whether it succeeded"
    return subprocess.run([str(part) for part in command], cwd=PROJECT, env=os.environ | environment, close_fds=False).returncode == 0


def make_venv():
    "An empty environment with pip, and a mark that it is not finished; one that somebody else made is kept"
    if UNFINISHED.exists() or DONE.exists(): shutil.rmtree(VENV)
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    if not run(SYSTEM_PYTHON, "-m", "venv", VENV): sys.exit(f"{SYSTEM_PYTHON} -m venv failed: install your system's venv package (Debian: python3-venv) and try again")


def install() -> bool:
    "The library, editable, with its extras at the pinned versions: with uv where pip can bring it, since it is much faster, and otherwise with pip"
    wanted = "-c", "constraints.txt", "-e", f".[{EXTRAS}]"
    disk = {"UV_FIND_LINKS": os.environ["PIP_FIND_LINKS"]} if os.environ.get("PIP_FIND_LINKS") else {}  # uv does not look where pip looks
    has_uv = run(PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "uv")
    if has_uv and run(PYTHON, "-m", "uv", "pip", "install", "-q", "--python", PYTHON, *wanted, **disk): return True
    return run(PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted)


def main():
    "Install unless that is done; two at once wait for each other"
    if sys.version_info < (3, 11): sys.exit(f"boneage needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}; say which to take: make PYTHON=python3.12 …")
    (PROJECT/"build").mkdir(exist_ok=True)
    with open(PROJECT/"build"/"install.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)  # a child that outlives this process holds it too
        if DONE.exists() and not UNFINISHED.exists() and DONE.read_text() == fingerprint(): return
        print("Installing into .venv (once) …", flush=True)
        make_venv()
        if not install(): sys.exit("The installation failed, and the words above say why; the same command tries again")
        DONE.write_text(fingerprint())
        UNFINISHED.unlink()


if __name__ == "__main__": main()
