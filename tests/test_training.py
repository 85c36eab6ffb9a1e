"""Kill and resume fits: tests that need a process of their own"""
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from boneage.datasets.profiles import Augmentation, Schedule
from boneage.networks import BoneAgeArchitecture, BoneAgeNetwork
from boneage.training.core import (
    ArrayLoader,
    CheckpointError,
    FitJob,
    apply_lookup_tables,
    digest,
    fit,
    new_network,
    read_checkpoint,
    sample_lookup_tables,
    sample_matrices,
    warp_batch,
    write_checkpoint,
)

CONFIG = dict(network="BoneAgeNetwork", shape=(24, 20), widths=(4, 4, 4, 4, 4, 4), pools=(2, 2, 1, 1, 1, 1),
              hidden=(8,), dropout=0.3)
AUGMENTATION = Augmentation(rotation=10, zoom=0.1, shift=0.1, mirror=0.5, gamma=0.3, exposure=0.2, invert=0.2)
SCHEDULE = Schedule(epochs=6, learning_rate=0.01)


def prepare(images, ages, generator):
    "Random matrices and lookup tables, as in a real fit; dropout is in the network"
    matrices = sample_matrices(len(images), (28, 24), (24, 20), AUGMENTATION, generator)
    tables = sample_lookup_tables(len(images), AUGMENTATION, generator)
    return warp_batch(apply_lookup_tables(images, tables), matrices, (24, 20)), ages


def train_loader(seed=3, rows=40):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 28, 24), dtype=np.uint8)
    ages = rng.uniform(-1, 1, 40).astype(np.float32)
    return ArrayLoader((images, ages), prepare, batch_size=8, shuffle=True, seed=seed, rows=np.arange(rows))


def train_and_digest(checkpoint, schedule=SCHEDULE, loader=None, **kwargs):
    "Fit, and return the network's digest and the history without its timings"
    network, loader = new_network(CONFIG, 1), loader or train_loader()
    valid = ArrayLoader(loader.arrays, prepare, batch_size=20)
    job = FitJob(checkpoint.parent, checkpoint, seed=3, **kwargs)
    history = fit(network, loader, valid, F.l1_loss, schedule, job)
    return digest(network.state_dict()), history.drop(columns="seconds")


SCRIPT = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {tests!r})
import test_training
loss = torch.nn.functional.l1_loss
def slow(output, target):  # the kill falls inside an epoch
    time.sleep(0.03)
    return loss(output, target)
slow.__module__, slow.__qualname__ = loss.__module__, loss.__qualname__
test_training.F.l1_loss = slow
print("ready", flush=True)
def log(line): print(line, flush=True)
log(test_training.train_and_digest(Path({checkpoint!r}), log=log)[0])
"""


def start(checkpoint):
    script = SCRIPT.format(tests=os.path.dirname(__file__), checkpoint=str(checkpoint))
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


pytestmark = pytest.mark.usefixtures("one_thread")


def test_killed_again_and_again_reaches_the_same_bits(tmp_path):
    expected, history = train_and_digest(tmp_path / "undisturbed.safetensors")
    checkpoint, epochs = tmp_path / "killed.safetensors", []
    for pause in (0.0, 0.15):  # seconds after an epoch's line: as the next one starts, and in its middle
        process = start(checkpoint)
        for line in process.stdout:
            if line.startswith("epoch"): break
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        epochs.append(read_checkpoint(checkpoint).epoch)
    assert epochs == sorted(epochs) and 1 <= epochs[0] and epochs[-1] < SCHEDULE.epochs
    process = start(checkpoint)
    assert process.stdout.read().split()[-1] == expected
    assert process.wait() == 0
    again, resumed = train_and_digest(checkpoint)  # finished: returns without training
    assert again == expected
    pd.testing.assert_frame_equal(resumed, history)


def test_finished_fit_does_not_train(tmp_path):
    expected, _ = train_and_digest(tmp_path / "a.safetensors")
    lines = []
    assert train_and_digest(tmp_path / "a.safetensors", log=lines.append)[0] == expected
    assert lines == []


def test_every_resume_point_gives_the_same_bits(tmp_path, monkeypatch):
    import boneage.training.core as training
    expected, _ = train_and_digest(tmp_path / "straight.safetensors")

    class Stop(Exception): pass

    for epochs in range(1, SCHEDULE.epochs):
        path = tmp_path / f"{epochs}.safetensors"

        def stop_after(path, checkpoint, last=epochs):
            write_checkpoint(path, checkpoint)
            if checkpoint.epoch == last: raise Stop

        with monkeypatch.context() as patched, pytest.raises(Stop):
            patched.setattr(training, "write_checkpoint", stop_after)
            train_and_digest(path)
        torch.rand(7), np.random.rand(7)  # other random numbers of the process do not matter
        assert train_and_digest(path)[0] == expected


def test_global_random_state_is_unchanged(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_and_digest(tmp_path / "a.safetensors", Schedule(1, 0.01))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("what, change", [
    ("schedule", dict(schedule=Schedule(6, 0.02))),
    ("train data", dict(loader=train_loader(rows=32))),
    ("train batches", dict(loader=train_loader(seed=4))),
])
def test_checkpoint_of_another_fit_is_rejected_or_replaced(tmp_path, what, change):
    path = tmp_path / "fit.safetensors"
    train_and_digest(path)
    with pytest.raises(CheckpointError, match=f"fit.safetensors.*{what}"): train_and_digest(path, **change)
    expected, _ = train_and_digest(tmp_path / "another.safetensors", **change)
    assert train_and_digest(path, **change, stale="restart")[0] == expected


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"", lambda b: b"\0" * 64, lambda b: b[:-1]])
def test_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "fit.safetensors"
    train_and_digest(path, Schedule(1, 0.01))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match="fit.safetensors"): train_and_digest(path, Schedule(1, 0.01))
    assert len(train_and_digest(path, Schedule(1, 0.01), stale="restart")[1]) == 1


def test_error_messages_are_unchanged(tmp_path, monkeypatch):
    "fastai wraps the errors of its callbacks; the message of a full disk must remain"
    import boneage.training.core as training

    def full(*args): raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "write_checkpoint", full)
    with pytest.raises(OSError, match="No space left on device"): train_and_digest(tmp_path / "a.safetensors")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_fit_on_a_gpu(tmp_path):
    loader = train_loader()
    loader.device = "cuda"
    network = new_network(CONFIG, 1)
    job = FitJob(tmp_path, tmp_path / "gpu.safetensors", seed=3)
    history = fit(network, loader, None, F.l1_loss, Schedule(3, 0.01), job)
    assert next(network.parameters()).is_cuda and history.train_loss.iloc[-1] < history.train_loss.iloc[0]


def test_full_size_architecture_can_be_built():
    architecture = BoneAgeArchitecture((500, 375), (32, 64, 128, 128, 256, 384), hidden=(2048, 2048),
                                       dropout=0.3, norm_between=True)
    network = BoneAgeNetwork(architecture)
    assert network.fully_connected[1].in_features == 384 * 8 * 6
