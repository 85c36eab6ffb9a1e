"Write requirements/*.txt for the Containerfile: exact versions with the hashes of their files"
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path

PROJECT = Path(__file__).absolute().parent.parent
PYTHON = "3.12"  # the oldest that the files are for
# What a file holds: sections of `read_ranges`, or single packages of any section; and what these require
FILES = {
    "torch": ("library", "dicom", "onnx", "research", "build"),
    "onnx": ("numpy", "opencv-python-headless", "onnxruntime", "typer", "rich",
             "pydicom", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle")}
HEADER = (f"# Python {PYTHON} or newer. Written by `make pins` from settings.ini and constraints.txt; "
          "not edited by hand.\n")


def read_ranges() -> dict[str, list[str]]:
    "The ranges of settings.ini by extra, those of the library, and those of the build"
    settings = ConfigParser(delimiters=["="], interpolation=None)
    settings.read(PROJECT/"settings.ini", encoding="utf-8")
    package = settings["DEFAULT"]
    found = {extra: lines.split() for extra, lines in settings["extras"].items() if extra not in package}
    build = tomllib.loads((PROJECT/"pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    return found | dict(library=package["requirements"].split(), build=build)


def wanted(name: str) -> list[str]:
    "The ranges of one file"
    ranges = read_ranges()
    single = {line.split(">=")[0]: [line] for lines in ranges.values() for line in lines}
    return sum(((single | ranges)[part] for part in FILES[name]), [])


def main():
    "Resolve each file anew; versions that it has, and that are still allowed, stay"
    (PROJECT/"requirements").mkdir(exist_ok=True)
    for name in FILES:
        file = PROJECT/"requirements"/f"{name}.txt"
        command = [sys.executable, "-m", "uv", "pip", "compile", "-", "-q", "--no-config", "--universal",
                   "--python-version", PYTHON, "--constraints", "constraints.txt", "--generate-hashes",
                   "--no-emit-index-url", "--no-annotate", "--no-header", "--output-file", file]
        lines = "\n".join(wanted(name))
        done = subprocess.run([str(part) for part in command], input=lines, text=True, cwd=PROJECT,
                              stdout=subprocess.DEVNULL)
        if done.returncode: sys.exit(f"{file}: no versions could be found; the lines above give the reason.")
        file.write_text(HEADER + file.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__": main()
