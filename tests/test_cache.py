"The cache of exported networks: it is complete or not used, never stops a command, and needs no PyTorch"
import errno
import os
import shutil
import signal
import subprocess
import sys
from fcntl import LOCK_EX, flock
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_models import FEMALE_HAND, write_tiny_models
from typer.testing import CliRunner

import boneage.assessment
import boneage.cache
import boneage.export
from boneage.assessment import fingerprint_networks
from boneage.cache import KEPT, cache_key, cached_models, keep_models, load_from_cache
from boneage.cli import app
from boneage.ensembles import EnsembleRule
from boneage.export import export_assessor

pytestmark = pytest.mark.skipif(not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))),
                                reason="the extra onnx is not installed")
RULES = {"F": EnsembleRule((FEMALE_HAND,), (1,), 20)}
# a process that can't import PyTorch, or that is killed while it exports
WITHOUT_TORCH = """if True:
    import sys
    sys.modules["torch"] = None
    import boneage.cache, boneage.cli
    boneage.cache.GPU_FILES = ()
    boneage.cli.app(sys.argv[1:])
"""
KILLED = """if True:
    import os, signal, sys, types
    import boneage.cache
    boneage.cache.GPU_FILES = ()
    def export_assessor(assessor, folder):
        (folder/"ensembles.json").write_text("{}")
        os.kill(os.getpid(), signal.SIGKILL)
    sys.modules["boneage.export"] = types.SimpleNamespace(export_assessor=export_assessor)
    boneage.cache.load_assessor = lambda *given: None
    boneage.cache.keep_models(boneage.cache.Path(sys.argv[1]), print)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    "Networks of PyTorch; girls get 80 months"
    return write_tiny_models(tmp_path_factory.mktemp("run"), (FEMALE_HAND,), RULES)


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory) -> Path:
    "The same networks, exported"
    folder = tmp_path_factory.mktemp("exported")
    export_assessor(boneage.assessment.load_assessor(source, "cpu"), folder)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch, exported) -> Path:
    "An empty cache of a computer without a GPU; exporting to it copies what was exported"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path/"cache"))
    monkeypatch.setenv("BONEAGE_CACHE", "on")
    monkeypatch.setattr(boneage.cache, "GPU_FILES", ())
    monkeypatch.setattr(boneage.export, "export_assessor",
                        lambda assessor, folder: shutil.copytree(exported, folder, dirs_exist_ok=True))
    return tmp_path/"cache"/"boneage"


@pytest.fixture
def kept(cache, source) -> Path:
    "The folder of exported networks in the cache"
    keep_models(source, [].append)
    return cached_models(source)


def call(*arguments):
    "Exit code, standard output, standard error; no exception but the exit"
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_command_needs_no_pytorch(kept, source, png):
    command = [sys.executable, "-c", WITHOUT_TORCH, "assess", png, "--sex", "F", "--weights", source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "bone age 80 months" in done.stdout
    shutil.rmtree(kept)
    assert subprocess.run(command, capture_output=True).returncode != 0  # now it would need PyTorch


def test_the_first_command_answers_then_exports(cache, source, png, monkeypatch):
    monkeypatch.setattr(boneage.assessment, "files", lambda package: source.parent)
    source.with_name("weights").symlink_to(source)
    try:
        code, out, err = call("assess", png, "--sex", "F")
        assert code == 0 and "bone age 80 months" in out
        assert "BONEAGE_CACHE=off" in err and err.count("\n") == 1
        assert load_from_cache().device is None  # exported networks
        code, again, err = call("assess", png, "--sex", "F")
        assert (code, again, err) == (0, out, "")
    finally: source.with_name("weights").unlink()


def test_only_the_released_networks_are_exported(cache, source, png, tmp_path):
    assert call("assess", png, "--sex", "F", "--weights", source)[2] == ""
    assert call("assess", tmp_path/"absent.png")[0] == 1
    assert not cache.exists()


def flip(path: Path):
    "Change one bit in the middle of a file"
    content = bytearray(path.read_bytes())
    content[len(content)//2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a bit": lambda folder: flip(folder/FEMALE_HAND/"model.onnx"),
    "cut short": lambda folder: os.truncate(folder/"segmentation"/"model.onnx", 100),
    "empty": lambda folder: os.truncate(folder/"segmentation"/"model.onnx", 0),
    "a missing network": lambda folder: shutil.rmtree(folder/"keypoints"),
    "edited rules": lambda folder: (folder/"ensembles.json").write_text("{}"),
    "one more file": lambda folder: (folder/"keypoints"/"more.json").write_text("{}"),
    "a folder for a file": lambda folder: (folder/"more.onnx").mkdir(),
    "no fingerprint": lambda folder: (folder/"fingerprint").unlink(),
    "fingerprint cut short": lambda folder: os.truncate(folder/"fingerprint", 10),
    "fingerprint of noise": lambda folder: (folder/"fingerprint").write_bytes(bytes(range(256))),
    "a file": lambda folder: (shutil.rmtree(folder), folder.write_text("no folder")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_exports_are_not_used(damage, kept, source, png):
    DAMAGES[damage](kept)
    assert cached_models(source) is None
    assessor = load_from_cache(source)
    assert assessor.device.type == "cpu" and assessor.assess(png, "F").bone_age_months == pytest.approx(80)
    keep_models(source, [].append)
    assert load_from_cache(source).device is None  # exported again


def test_exports_fit_networks_code_and_onnxruntime(kept, source, tmp_path, monkeypatch):
    key = cache_key(source)
    other = shutil.copytree(source, tmp_path/"other")
    assert cache_key(other) == key and cached_models(other) == kept
    flip(other/"keypoints"/"model.safetensors")
    keys = {key, cache_key(other)}
    monkeypatch.setattr("onnxruntime.__version__", "0")
    keys.add(cache_key(source))
    (tmp_path/"networks.py").write_text("# changed")
    (tmp_path/"export.py").write_text("# changed")
    monkeypatch.setattr(boneage.cache, "files", lambda package: tmp_path)
    assert len(keys | {cache_key(source)}) == 4 and cached_models(source) is None


def test_exports_that_vanish_while_they_are_loaded(kept, source, monkeypatch):
    def find(folder):
        shutil.rmtree(kept)
        return kept
    monkeypatch.setattr(boneage.cache, "cached_models", find)
    assert load_from_cache(source).device.type == "cpu"


def test_the_user_decides(kept, source, monkeypatch, tmp_path):
    def device(*given): return load_from_cache(source, *given).device
    assert device() is None and device("cpu").type == "cpu"
    for name, value in (("BONEAGE_CACHE", "off"), ("XDG_CACHE_HOME", "relative"),
                        ("XDG_CACHE_HOME", str(tmp_path/"elsewhere"))):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert device().type == "cpu"
    with monkeypatch.context() as patch:
        patch.setattr(boneage.cache, "GPU_FILES", (str(source),))
        assert cached_models(source) is None
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        assert device().type == "cpu"


def test_folders_that_cannot_be_written(cache, source, tmp_path, monkeypatch):
    (tmp_path/"file").touch()
    log = []
    for value in (tmp_path/"file", "/proc"):  # no folder; a folder in which nothing can be made, even by root
        monkeypatch.setenv("XDG_CACHE_HOME", str(value))
        keep_models(source, log.append)
        assert cached_models(source) is None and log == []


def test_a_failed_export_leaves_nothing_and_waits_a_day(cache, source, monkeypatch):
    def full(assessor, folder):
        (folder/"ensembles.json").write_text("{}")
        raise OSError(errno.ENOSPC, "No space left on device")
    log = []
    with monkeypatch.context() as patch:
        patch.setattr(boneage.export, "export_assessor", full)
        for _ in range(2): keep_models(source, log.append)
    assert len(log) == 2 and "the disk is full" in log[1]
    assert [path.name for path in cache.iterdir()] == ["attempt"]
    keep_models(source, log.append)
    assert cached_models(source) is None
    os.utime(cache/"attempt", (0, 0))
    keep_models(source, log.append)
    assert cached_models(source) and len(log) == 3


def test_networks_that_are_replaced_during_the_export(cache, source, exported, tmp_path, monkeypatch):
    other, log = shutil.copytree(source, tmp_path/"other"), []
    def export(assessor, folder):
        shutil.copytree(exported, folder, dirs_exist_ok=True)
        flip(other/"keypoints"/"model.safetensors")
    monkeypatch.setattr(boneage.export, "export_assessor", export)
    keep_models(other, log.append)
    assert "replaced meanwhile" in log[1] and [path.name for path in cache.iterdir()] == ["attempt"]


def test_a_killed_export_is_removed_by_the_next(cache, source, exported):
    done = subprocess.run([sys.executable, "-c", KILLED, source], capture_output=True, text=True)
    key = cache_key(source)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {path.name for path in cache.iterdir()} == {"attempt", f"{key}.part"} and not cached_models(source)
    (cache/f"{'0'*32}.part").mkdir()  # of another version
    os.utime(cache/"attempt", (0, 0))
    keep_models(source, [].append)
    assert {path.name for path in cache.iterdir()} == {"attempt", key}
    assert fingerprint_networks(cached_models(source)) == fingerprint_networks(exported)


def test_one_process_exports(cache, source):
    cache.mkdir(parents=True)
    log = []
    with (cache/"attempt").open("w") as note:
        flock(note, LOCK_EX)  # as another process that exports
        keep_models(source, log.append)
        assert log == [] and cached_models(source) is None
    keep_models(source, log.append)
    assert len(log) == 1 and cached_models(source)


def test_old_exports_are_removed(cache, source, tmp_path):
    old = [cache/f"{number:032x}" for number in range(KEPT + 2)]
    for number, folder in enumerate(old):
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    (cache/"notes").mkdir()  # not ours
    keep_models(source, [].append)
    names = {path.name for path in cache.iterdir()}
    assert names == {"attempt", "notes", cache_key(source), *(folder.name for folder in old[-KEPT:])}


def test_cached_results_are_those_of_pytorch(kept, source, png):
    from_torch, from_cache = (load_from_cache(source, device).assess(png, "F") for device in ("cpu", None))
    assert from_cache.bone_age_months == pytest.approx(from_torch.bone_age_months, abs=0.05)
    assert (from_cache.mask == from_torch.mask).all()
