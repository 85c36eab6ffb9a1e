"""How fast it is: `make bench` writes benchmarks/results.json and benchmarks/README.md.

Each figure is a median over repeats, compared figures are taken in turns within one run. Tests assert none of them."""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import torch

from boneage.assessment import load_assessor
from boneage.bone_age import ModelName
from boneage.bone_age_training import _PrepareRegions, bone_age_config
from boneage.contrast import measure_contrast
from boneage.keypoints import detect_key_points
from boneage.networks import load_network
from boneage.phantoms import make_phantom
from boneage.radiographs import read_radiograph, write_radiograph
from boneage.registration import frame_from_key_points, region_image, region_matrix
from boneage.segmentation import segment
from boneage.training import ArrayLoader, Augmentation, fresh_network
from boneage.workspace import load_profile

PROJECT = Path(__file__).resolve().parent.parent


def seconds(function, repeats=5):
    "Median seconds of a call, the first left out"
    function()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def phantoms(count=30):
    "Phantoms a second on one core at 512×400"
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    made = seconds(lambda: [make_phantom(1, i, shape=(512, 400)) for i in range(count)], 3)
    cv2.setNumThreads(threads)
    return {"phantoms a second and core, 512×400": count/made}


def preprocessing(models: Path, folder: Path):
    "From file to regions: seconds of each step, for a small and for a full-size plate"
    unet, unet_config = load_network(models/"segmentation")
    points, points_config = load_network(models/"keypoints")
    figures = {}
    for words, shape in (("512×400", (512, 400)), ("2048×1600", (2048, 1600))):
        path = folder/f"{shape[0]}.png"
        write_radiograph(path, make_phantom(2, 3, shape=shape, sex="F", bone_age=120., defects={}).image)
        image = read_radiograph(path)
        mask = segment(image, unet, unet_config).mask
        contrast = measure_contrast(image, mask)
        detection = detect_key_points(image, mask, contrast, points, points_config)
        matrix = frame_from_key_points(detection.points)[0]
        steps = dict(read=lambda: read_radiograph(path), segment=lambda: segment(image, unet, unet_config), contrast=lambda: measure_contrast(image, mask),
                     key_points=lambda: detect_key_points(image, mask, contrast, points, points_config),
                     regions=lambda: [region_image(image, matrix, r, s, mask=mask, contrast=contrast) for r, s in (("hand", .0625), ("carpals", .125), ("metacarpals", .1))])
        took = {name: seconds(step, 9) for name, step in steps.items()}
        figures |= {f"preprocessing {words}, {name}, ms": 1e3*t for name, t in took.items()} | {f"preprocessing {words}, images a second": 1/sum(took.values())}
    return figures


def training(profile, count=512, rounds=7):
    "The training step fed by the loader against the same step on tensors already in memory, in turns"
    settings = load_profile(PROJECT/"reports"/"profiles"/f"{profile}.yaml").bone_age
    name = ModelName("registered", "hand", "both", "regression")
    config, random = bone_age_config(name, settings), np.random.default_rng(0)
    stored = region_matrix("hand", settings.scales["hand"], settings.margin)[1]
    arrays = random.integers(0, 256, (count, *stored), np.uint8), random.uniform(12, 216, count).astype(np.float32)
    augmentation = Augmentation(settings.rotation, settings.zoom, settings.shift, gamma=settings.gamma)
    loader = ArrayLoader(arrays, _PrepareRegions(config["shape"], augmentation), settings.batch_size, True)
    network = fresh_network(config, 0).train().to(memory_format=torch.channels_last)
    optimizer, ready = torch.optim.AdamW(network.parameters(), 1e-4, fused=True), list(loader)

    def epoch(batches):
        "Seconds of one epoch"
        began = time.perf_counter()
        for images, target in batches:
            optimizer.zero_grad()
            torch.nn.functional.l1_loss(network(images.contiguous(memory_format=torch.channels_last)), target).backward()
            optimizer.step()
        return time.perf_counter() - began

    epoch(ready), epoch(loader)
    pairs = [(epoch(ready), epoch(loader)) for _ in range(rounds)]
    return {f"training, {profile} network, images a second": count/statistics.median(b for _, b in pairs),
            f"training, {profile} network, the same step on tensors in memory, images a second": count/statistics.median(a for a, _ in pairs),
            f"training, {profile} network, cost of the loader (share of the step)": statistics.median(b/a for a, b in pairs) - 1}


def assessing(models: Path, folder: Path):
    "Assessments a second with everything loaded, and from typing the command to the answer"
    path = folder/"hand.png"
    write_radiograph(path, make_phantom(2, 4, shape=(512, 400), sex="F", bone_age=120., defects={}).image)
    assessor = load_assessor(models)
    figures = {"assess 512×400, images a second": 1/seconds(lambda: assessor.assess(str(path), sex="F"), 9)}
    command = [sys.executable, "-m", "boneage.cli", "assess", str(path), "--sex", "F", "--weights", str(models)]
    figures["`boneage assess`, from typing to the answer, s"] = seconds(lambda: subprocess.run(command, check=True, capture_output=True), 3)
    figures["`boneage --help`, s"] = seconds(lambda: subprocess.run([sys.executable, "-m", "boneage.cli", "--help"], check=True, capture_output=True), 3)
    return figures


def main():
    "Measure everything and write it down"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="work/phantom/models", help="fitted networks of a run")
    models = Path(parser.parse_args().models)
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        figures = phantoms() | preprocessing(models, Path(folder)) | training("smoke", 4096) | training("phantom", rounds=3) | assessing(models, Path(folder))
    machine = dict(date=str(date.today()), cores=os.cpu_count(), python=platform.python_version(), torch=torch.__version__, opencv=cv2.__version__,
                   capability=torch.backends.cpu.get_cpu_capability(), allocator="kept" if os.environ.get("MALLOC_MMAP_MAX_") == "0" else "default")
    here = Path(__file__).parent
    (here/"results.json").write_text(json.dumps(dict(machine=machine, figures=figures), indent=1) + "\n")
    lines = ["# Benchmarks", "", "Written by `make bench`; medians, compared figures taken in turns within one run.", "",
             ", ".join(f"{k}: {v}" for k, v in machine.items()), "", "| what | figure |", "|---|---|", *(f"| {k} | {v:.3g} |" for k, v in figures.items())]
    (here/"README.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__": main()
