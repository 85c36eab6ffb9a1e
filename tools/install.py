"Make `.venv` with all that `make` needs: once, and again when requirements change or an attempt failed"
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
EXTRAS = "research,dicom,reports,slurm,distributed,docs,dev,onnx,report,hospital,fine-tuning"
# The exact versions; or, with NEWEST=1, the newest ones in the ranges of settings.ini
PINS = () if os.environ.get("NEWEST") else ("-c", "constraints.txt")
MERGE = ("PATH=.venv/bin:$PATH; if command -v nbdev-merge >/dev/null; "
         "then nbdev-merge %O %A %B %P; else git merge-file %A %O %B; fi")


def fingerprint() -> str:
    "Changes with the requirements, the version of Python and the project's folder"
    requirements = [(PROJECT/name).read_bytes() for name in REQUIREMENTS]
    others = [text.encode() for text in (sys.version, EXTRAS, str(PROJECT), *PINS)]
    return hashlib.sha256(b"\0".join(requirements + others)).hexdigest()


def run(*command, **environment) -> bool:
    "Run a command in the project's folder, with its output on the terminal; whether it succeeded"
    command = [str(part) for part in command]
    return subprocess.run(command, cwd=PROJECT, env=os.environ | environment, close_fds=False).returncode == 0


def make_venv():
    "An empty environment with pip, marked as unfinished; an environment of another origin is kept"
    if UNFINISHED.exists() or DONE.exists(): shutil.rmtree(VENV)
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    if not run(SYSTEM_PYTHON, "-m", "venv", VENV):
        sys.exit(f"{SYSTEM_PYTHON} -m venv failed: install your system's venv package "
                 "(Debian: python3-venv) and try again")


def install() -> bool:
    "Install the library, editable, with its extras: with uv, which is faster, or pip"
    wanted = *PINS, "-e", f".[{EXTRAS}]"
    pip = PYTHON, "-m", "pip", "install", "--disable-pip-version-check"
    uv = PYTHON, "-m", "uv", "pip", "install", "-q", "--python", PYTHON
    links = os.environ.get("PIP_FIND_LINKS")  # uv has a variable of its own
    if run(*pip, "-qq", "uv") and run(*uv, *wanted, **({"UV_FIND_LINKS": links} if links else {})):
        return True
    return run(*pip, "-q", *wanted)


def set_merge_driver():
    "In a git repository, let nbdev merge notebooks (see .gitattributes); nothing outside it changes"
    if not (PROJECT/".git").exists() or not shutil.which("git"): return
    run("git", "config", "--local", "merge.jupyternotebook.name", "merge notebooks with nbdev")
    run("git", "config", "--local", "merge.jupyternotebook.driver", MERGE)


def main():
    "Install unless that is done; a second call waits for the first"
    if sys.version_info < (3, 11):  # noqa: UP036  the one file that an older Python may run
        sys.exit(f"boneage needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}; "
                 "name another: make PYTHON=python3.12 …")
    (PROJECT/"build").mkdir(exist_ok=True)
    with open(PROJECT/"build"/"install.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)  # a child that outlives this process keeps the lock
        if DONE.exists() and not UNFINISHED.exists() and DONE.read_text() == fingerprint(): return
        print("Installing into .venv (once) …", flush=True)
        make_venv()
        if not install():
            sys.exit(
                "The installation failed; the lines above give the reason. The same command tries again.")
        set_merge_driver()
        DONE.write_text(fingerprint())
        UNFINISHED.unlink()


if __name__ == "__main__": main()
