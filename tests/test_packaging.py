"The package, the notebooks, and the files written from them agree; sdist, wheel and installer work"
import filecmp
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

import boneage

PROJECT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((PROJECT/"nbs").rglob("*.ipynb"))
BESIDE = ("howto", "play")  # folders of notebooks beside the library's
PAGES = [p for folder in BESIDE for p in sorted((PROJECT/folder).glob("*.ipynb"))]
MODULES = sorted(p for p in (PROJECT/"boneage").rglob("*.py") if not p.name.startswith("_"))
sys.path.insert(0, str(PROJECT/"tools"))


def settings() -> ConfigParser:
    "settings.ini"
    read = ConfigParser(delimiters=["="], interpolation=None)
    read.read(PROJECT/"settings.ini")
    return read


def requirements() -> dict[str, list[str]]:
    "Requirements of the library (under '') and of each extra"
    read = settings()
    extras = {name: read["extras"][name] for name in read["extras"] if name not in read["DEFAULT"]}
    listed = {name: lines.split() for name, lines in ({"": read["DEFAULT"]["requirements"]} | extras).items()}
    def resolve(line): return sum(map(resolve, listed[line[1:-1]]), []) if line.startswith("[") else [line]
    return {name: sum(map(resolve, lines), []) for name, lines in listed.items()}


def clean_environment() -> dict:
    "Without the mark of nbdev's tests, under which its commands do nothing"
    return {key: value for key, value in os.environ.items() if key != "IN_TEST"}


# ---- versions and the wheel

def test_versions_agree():
    from nbdev.config import get_config
    version = settings()["DEFAULT"]["version"]
    assert boneage.__version__ == version
    assert importlib.metadata.version("boneage") == version
    assert get_config(PROJECT).version == version
    assert yaml.safe_load((PROJECT/"CITATION.cff").read_text())["version"] == version
    assert f"\n## {version}\n" in (PROJECT/"CHANGELOG.md").read_text()


def test_descriptions_of_the_software_agree():
    "settings.ini, CITATION.cff, codemeta.json and .zenodo.json"
    package, citation = settings()["DEFAULT"], yaml.safe_load((PROJECT/"CITATION.cff").read_text())
    code, deposit = (json.loads((PROJECT/name).read_text()) for name in ("codemeta.json", ".zenodo.json"))
    assert package["name"] == code["name"] and citation["title"] == deposit["title"]
    assert citation["title"].startswith(package["name"] + ": ")
    assert package["description"] == citation["abstract"] == code["description"] == deposit["description"]
    assert package["version"] == str(citation["version"]) == code["version"] == deposit["version"]
    assert package["license"] == citation["license"] == Path(code["license"]).name == deposit["license"]
    authors = [citation["authors"], code["author"], deposit["creators"]]
    assert [[author["name"] for author in each] for each in authors] == [[package["author"]]]*3
    assert package["keywords"].split(", ") == citation["keywords"] == code["keywords"] == deposit["keywords"]
    paper = citation["preferred-citation"]
    cited = [paper["doi"], *(reference["doi"] for reference in citation["references"])]
    assert cited == [other["identifier"] for other in deposit["related_identifiers"]]
    stated = [(f"https://doi.org/{paper['doi']}", paper["title"])]
    assert stated == [(other["@id"], other["name"]) for other in code["referencePublication"]]


def test_tested_pythons_are_the_declared_ones():
    declared = re.findall(r"Python :: (3\.\d+)", settings()["DEFAULT"]["classifiers"])
    for name, job in {"ci": "test", "release": "wheel"}.items():
        workflow = yaml.safe_load((PROJECT/".github"/"workflows"/f"{name}.yml").read_text())
        assert workflow["jobs"][job]["strategy"]["matrix"]["python"] == declared
    for name in ("Containerfile", ".devcontainer/devcontainer.json", ".binder/runtime.txt"):
        version = re.search(r"python[=:-](3\.\d+)", (PROJECT/name).read_text(), re.I)[1]
        assert version in declared, name
    assert f'requires-python = ">={declared[0]}"' in (PROJECT/"pyproject.toml").read_text()


INSTALL = re.compile(r'pip install (?:--?[\w-]+ )*("[^"]+"|[\w.,[\]-]+)')


def test_hints_name_no_package_of_an_index():
    "Nobody has published `boneage` in an index: `pip install boneage` could install something else"
    sources = [(path, cell.source) for path in NOTEBOOKS + PAGES for cell in nbformat.read(path, 4).cells]
    sources += [(path, path.read_text()) for path in [*MODULES, *sorted(PROJECT.glob("*.md"))]]
    extras = set(requirements()) - {""}
    others = {Requirement(line).name for lines in requirements().values() for line in lines}
    found = [(path, target) for path, text in sources for target in INSTALL.findall(text.replace('\\"', '"'))]
    assert len({path for path, _ in found}) > 8
    for path, target in found:
        extra = re.fullmatch(r'"\.\[([\w,-]+)\]"', target)
        named = extra and set(extra[1].split(",")) <= extras
        named = named or target == '".[{extra}]"'  # tests/test_alone.py reads what is printed
        assert named or target == "." or target in others, f"{path}: pip install {target}"


SCRATCH = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.egg-info", "*.pyc")
OTHERS = ".venv", ".git", "work", "build", "dist", ".pytest_cache", ".ruff_cache", ".hypothesis", ".snakemake"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    "A copy of the project as a fresh clone has it"
    copy = tmp_path_factory.mktemp("source")/"boneage"
    copy.mkdir()
    for path in PROJECT.iterdir():
        if path.name in OTHERS or path.suffix == ".egg-info": continue
        if path.is_dir(): shutil.copytree(path, copy/path.name, ignore=SCRATCH)
        else: shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def sdist(source) -> Path:
    "The unpacked source distribution"
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with tarfile.open(next((source/"dist").glob("*.tar.gz"))) as archive:
        archive.extractall(source/"unpacked", filter="data")
    return next((source/"unpacked").iterdir())


def files_of(folder: Path, *without: str) -> set[str]:
    "Files below a folder, but those of some of its folders"
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {name.as_posix() for name in names if name.parts[0] not in without}


def test_sdist_has_all_of_the_project(source, sdist):
    "Modules, notebooks, tests with their helpers, tools: what a clone has, an sdist has"
    ours = files_of(source, "dist", "unpacked", "boneage.egg-info")
    assert sorted(ours - files_of(sdist)) == []
    assert files_of(sdist, "boneage.egg-info") - ours <= {"PKG-INFO", "setup.cfg"}


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> zipfile.ZipFile:
    "The wheel that `pip install` would build from the sdist"
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder,
               sdist]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_has_all_of_the_library(wheel):
    theirs = {name for name in wheel.namelist() if name.startswith("boneage/")}
    ours = {str(p.relative_to(PROJECT)) for p in (PROJECT/"boneage").rglob("*") if p.is_file()
            and "__pycache__" not in p.parts}
    assert ours == theirs
    assert any(name.startswith("boneage/data/") for name in theirs)


def in_wheel(wheel: zipfile.ZipFile, name: str) -> str:
    "The text of a file of the wheel's metadata"
    return wheel.read(next(path for path in wheel.namelist() if path.endswith(f"/{name}"))).decode()


def test_wheel_has_its_metadata(wheel):
    metadata = in_wheel(wheel, "METADATA")
    for line in ("Name: boneage", "License-Expression: Apache-2.0", "Requires-Python: >=3.11",
                 "Author: The boneage authors"):
        assert line in metadata.splitlines()
    assert "not a medical device" in metadata
    required = {Requirement(line.removeprefix("Requires-Dist: ")).name for line in metadata.splitlines()
             if line.startswith("Requires-Dist")}
    assert required == {Requirement(line).name for lines in requirements().values() for line in lines}
    assert set(re.findall(r"^Provides-Extra: (.*)$", metadata, re.M)) == set(requirements()) - {""}
    for extra, lines in requirements().items():
        mark = rf"; extra == [\"']{extra}[\"']" if extra else ""
        marked = re.findall(rf"^Requires-Dist: ([^;\n]*){mark}$", metadata, re.M)
        assert sorted(map(str, map(Requirement, marked))) == sorted(str(Requirement(line)) for line in lines)
    assert "boneage = boneage.cli:app" in in_wheel(wheel, "entry_points.txt")


def test_a_clone_has_every_extra():
    "`make install` leaves nothing out, and what needs the packages of research brings them"
    import install
    extras = requirements()
    assert set(install.EXTRAS.split(",")) == set(extras) - {""}
    for extra in ("report", "hospital", "reports", "slurm", "distributed", "fine-tuning", "docs", "dev"):
        assert set(extras["research"]) < set(extras[extra]), extra
    assert set(extras["dicom"]) < set(extras["hospital"])
    assert not set(extras[""]) & set(extras["research"])
    wanted = {"jupyterlab", "papermill", "nbdev", "torch", "fastai", "opencv-python-headless", "pandas",
              "seaborn", "ipywidgets"}
    assert wanted <= {Requirement(line).name for lines in extras.values() for line in lines}


def test_pins_are_in_the_ranges():
    lines = (PROJECT/"constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for line in (line for lines in requirements().values() for line in lines):
        wanted = Requirement(line)
        assert wanted.name in pins and wanted.specifier.contains(pins[wanted.name]), line


PINNED = sorted((PROJECT/"requirements").glob("*.txt"))


@pytest.mark.parametrize("file", PINNED, ids=lambda file: file.stem)
def test_hashed_versions(file):
    "Exact versions, each with hashes and without an address; those of constraints.txt where it has one"
    import pin
    text = file.read_text()
    _, *blocks = re.split(r"\n(?=\S)", text)  # after the line about the file
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}", block) for block in blocks)
    versions = dict(re.match(r"([\w-]+)==([\w.]+) ", block).groups() for block in blocks)
    assert len(versions) == len(blocks) > 10
    assert not re.search("://|--(?:extra-)?index|--find-links", text)
    lines = (PROJECT/"constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert not [name for name in versions if pins.get(name, versions[name]) != versions[name]], "`make pins`"
    for wanted in map(Requirement, pin.wanted(file.stem)):
        assert wanted.specifier.contains(versions[wanted.name]), f"{wanted}: `make pins`"


def test_the_container_installs_hashed_versions():
    import pin
    text = (PROJECT/"Containerfile").read_text()
    assert {file.stem for file in PINNED} == set(pin.FILES)
    assert set(re.findall(r"--require-hashes -r \S*?(\w+)\.txt", text)) == set(pin.FILES)
    for command in re.findall(r"pip (?:install|wheel) [^&\n]*", text):
        assert "--require-hashes" in command or "--no-deps" in command, command
    assert f"PYTHON={pin.PYTHON}" in text


def test_settings_are_all_that_packaging_reads():
    project = (PROJECT/"pyproject.toml").read_text()
    assert not re.search(r"^(version|dependencies|description)\s*=", project, re.M)


# ---- notebooks and what is written from them

@pytest.fixture(scope="module")
def remade(tmp_path_factory) -> Path:
    "A copy of the project in which nbdev has exported and cleaned"
    copy = tmp_path_factory.mktemp("remade")
    shutil.copy(PROJECT/"pyproject.toml", copy)
    for name in ("nbs", "boneage", "reports", *BESIDE):
        shutil.copytree(PROJECT/name, copy/name,
                        ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for module in MODULES: (copy/module.relative_to(PROJECT)).unlink()
    clean = Path(sys.executable).parent/"nbdev-clean"
    for command in ([sys.executable, PROJECT/"tools"/"export.py"],
                    *([clean, "--fname", folder] for folder in ("nbs", "reports", *BESIDE))):
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, env=clean_environment())
        assert done.returncode == 0, done.stderr
    return copy


def differing(ours: Path, theirs: Path, pattern: str) -> list[str]:
    "Paths of files that are in one folder only or differ"
    names = {p.relative_to(folder).as_posix() for folder in (ours, theirs) for p in folder.rglob(pattern)}
    return sorted(n for n in names if not ((ours/n).is_file() and (theirs/n).is_file()
                                           and filecmp.cmp(ours/n, theirs/n, shallow=False)))


def test_modules_are_the_notebooks_export(remade):
    assert differing(PROJECT/"boneage", remade/"boneage", "*.py") == [], "run `make export`"


@pytest.mark.parametrize("folder", ["nbs", "reports", *BESIDE])
def test_notebooks_are_clean(remade, folder):
    assert differing(PROJECT/folder, remade/folder, "*.ipynb") == [], "run `make export`"


def test_readme_is_the_index():
    from build_readme import readme
    text, pictures = readme(PROJECT/"nbs"/"index.ipynb")
    assert (PROJECT/"README.md").read_text() == text, "run `make readme`"
    for name, content in pictures.items(): assert (PROJECT/name).read_bytes() == content, "run `make readme`"
    for target in re.findall(r"\]\(((?!http)[^)#]+)", text): assert (PROJECT/target).is_file(), target


@pytest.mark.parametrize("notebook", NOTEBOOKS + PAGES, ids=lambda p: p.stem)
def test_notebook_is_fit_to_be_shown(notebook):
    text = notebook.read_text()
    cells = nbformat.reads(text, 4).cells
    assert re.match(r"# .+\n+> .+", cells[0].source), "a title and one line"
    assert not [o for c in cells if c.cell_type == "code" for o in c.outputs
                if o.output_type == "error"], "an error is shown"
    assert "vnd.jupyter.widget" not in text, "a live widget is stored: a page would load remote scripts"
    for place in {PROJECT, Path.home()} - {Path("/")}:
        assert not re.search(rf"{re.escape(str(place))}/\w", text), f"a path of one computer: {place}"


def test_export_removes_live_widgets(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(PROJECT/"tools")
    from export import WIDGET, drop_live_widgets
    image, text = {"image/png": "iVBORw0K"}, {"text/plain": "Button()"}
    outputs = [nbformat.v4.new_output("display_data", data)
               for data in (image | text | {WIDGET: dict(model_id="1")}, text | {WIDGET: {}}, text)]
    path = tmp_path/"lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=outputs)]), path)
    assert drop_live_widgets(path) and not drop_live_widgets(path)
    assert [output["data"] for output in nbformat.read(path, 4).cells[0].outputs] == [image, text]


# ---- the installer

@pytest.fixture
def installer(tmp_path, monkeypatch):
    "tools/install.py at work in an empty folder, with commands recorded and not run"
    import install
    for name in install.REQUIREMENTS: shutil.copy(PROJECT/name, tmp_path)
    venv = tmp_path/".venv"
    monkeypatch.setattr(install, "PROJECT", tmp_path)
    for name, value in dict(VENV=venv, PYTHON=venv/"bin"/"python", DONE=venv/"boneage-done",
                            UNFINISHED=venv/"boneage-unfinished").items():
        monkeypatch.setattr(install, name, value)
    install.commands, install.succeed = [], lambda command: True
    def run(*command, **environment):
        install.commands.append(" ".join(map(str, command)))
        return install.succeed(install.commands[-1])
    monkeypatch.setattr(install, "run", run)
    return install


def test_install_is_done_once(installer):
    installer.main()
    first = len(installer.commands)
    installer.main()
    assert first == len(installer.commands) == 3 and "constraints.txt" in installer.commands[-1]
    with open(installer.PROJECT/"constraints.txt", "a") as file: file.write("# changed\n")
    (installer.VENV/"stale").touch()
    installer.main()
    assert len(installer.commands) == 2*first and not (installer.VENV/"stale").exists()


def test_install_falls_back_to_pip(installer):
    installer.succeed = lambda command: "uv" not in command
    installer.main()
    assert "-m pip install" in installer.commands[-1] and installer.DONE.is_file()


def test_install_takes_the_newest_versions_on_request(installer, monkeypatch):
    installer.main()
    monkeypatch.setattr(installer, "PINS", ())  # NEWEST=1
    installer.main()
    assert "constraints.txt" not in installer.commands[-1] and ".[research,dicom," in installer.commands[-1]
    assert len(installer.commands) == 6


def test_failed_install_starts_again(installer):
    installer.succeed = lambda command: " install " not in command
    with pytest.raises(SystemExit, match="installation failed"): installer.main()
    (installer.VENV/"half").touch()
    installer.succeed = lambda command: True
    installer.main()
    assert not (installer.VENV/"half").exists() and not installer.UNFINISHED.exists()
    assert installer.DONE.is_file()


def test_install_names_a_missing_package(installer):
    installer.succeed = lambda command: "venv" not in command.split()
    with pytest.raises(SystemExit, match="python3-venv"): installer.main()


def test_install_sets_the_merge_driver_in_a_repository(installer):
    installer.main()
    assert not [line for line in installer.commands if line.startswith("git")]
    (installer.PROJECT/".git").mkdir()
    installer.DONE.unlink()
    installer.main()
    assert [line for line in installer.commands
            if line.startswith("git config --local merge.jupyternotebook.driver")]
    assert "*.ipynb merge=jupyternotebook" in (PROJECT/".gitattributes").read_text()
