"""Speed on the CPU, or on a GPU where there is one: `make bench` writes it to benchmarks/speed.json.

Each figure is a median over repeats. Figures that are compared are taken in turns within one run, at one
allocator setting. The site shows them; no test asserts any of them."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from measure import (
    PROJECT,
    Figure,
    convolution_speed,
    copy_speed,
    machine,
    operations,
    peak_memory,
    rows,
    seconds,
    time_interleaved,
    write_section,
)
from peers import FRAME, PlainDataset, recipe_network, use_one_thread
from torch.utils.data import DataLoader

from boneage.assessment import load_assessor, predict_with_members
from boneage.bone_age import ModelName
from boneage.contrast import measure_contrast
from boneage.datasets.preprocessing import (
    extract_regions,
    map_in_parallel,
    measure_radiograph,
    read_regions,
    register_cohort,
    write_masks,
    write_regions,
)
from boneage.datasets.profiles import load_profile
from boneage.keypoints import detect_key_points
from boneage.networks import build_network
from boneage.paper.evaluation import SCHEMA, score
from boneage.radiographs import read_radiograph, write_radiograph
from boneage.registration import RegisteredRadiograph, frame_from_key_points, region_matrix
from boneage.segmentation import segment
from boneage.synthetic.phantoms import make_phantom, write_phantoms
from boneage.training.bone_age import _PrepareRegions, bone_age_config, fit_bone_age
from boneage.training.core import ArrayLoader, FitJob, fast_bfloat16, new_network

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PREPARED = "the same steps on prepared tensors"
HAND = ModelName("registered", "hand", "both", "regression")


def settings_of(profile: str):
    "The settings of bone-age networks in a profile"
    return load_profile(PROJECT/"reports"/"profiles"/f"{profile}.yaml").bone_age


# ------------------------------------------------------------------ assessing

def radiographs(folder: Path) -> dict[tuple, Path]:
    "A phantom at the size of an original and at a quarter of it, as files"
    files = {}
    for shape in ((512, 400), (2048, 1600)):
        files[shape] = folder/f"{shape[0]}.png"
        if files[shape].is_file(): continue
        write_radiograph(files[shape],
                         make_phantom(2, 3, shape=shape, sex="F", bone_age=120., defects={}).image)
    return files


def measure_limits(folder: Path) -> tuple[dict, list[Figure]]:
    "The fastest that this computer can decode, warp, convolve and copy"
    path = radiographs(folder)[2048, 1600]
    png, image = np.frombuffer(path.read_bytes(), np.uint8), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    jpeg = cv2.imencode(".jpg", cv2.resize(image, None, fx=0.5, fy=0.5))[1]
    matrix = np.float32([[0.23, 0.01, 3], [-0.01, 0.23, 5]])
    best = dict(decode=seconds(lambda: cv2.imdecode(png, cv2.IMREAD_UNCHANGED)),
                warp=seconds(lambda: cv2.warpAffine(image, matrix, (375, 500))), fp32=convolution_speed(),
                bf16=convolution_speed(torch.bfloat16) if fast_bfloat16("cpu") else float("nan"),
                copy=copy_speed())
    half = seconds(lambda: cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED))
    figures = [
        Figure("decoding a PNG of 2048×1600", 1e3*best["decode"], "ms",
               note=f"{len(png)/2**20:.1f} MB, a phantom"),
        Figure("decoding a JPEG of half that size", 1e3*half, "ms"),
        Figure("one affine warp, 2048×1600 to 500×375", 1e3*best["warp"], "ms"),
        Figure("convolution, fp32", best["fp32"]/1e9, "GFLOP/s")]
    if np.isfinite(best["bf16"]): figures.append(Figure("convolution, bfloat16", best["bf16"]/1e9, "GFLOP/s"))
    return best, [*figures, Figure("copying memory", best["copy"]/1e9, "GB/s")]


def assessment_steps(path: Path, assessor) -> dict:
    "The steps from a file to a bone age with the released networks: name → function, kind of its limit"
    unet, points = assessor.network("segmentation"), assessor.network("keypoints")
    image = read_radiograph(path)
    mask = segment(image, *unet).mask
    contrast = measure_contrast(image, mask)
    frame = frame_from_key_points(detect_key_points(image, mask, contrast, *points).points)[0]
    radiograph = RegisteredRadiograph(image, mask, contrast, frame)
    wanted = [("registered", region) for region in ("hand", "carpals", "metacarpals")]
    scales, members = dict(hand=0.25, carpals=0.5, metacarpals=1/3), assessor.rules["F"].members
    return {
        "read": (lambda: read_radiograph(path), "decoding"),
        "segment": (lambda: segment(image, *unet), "convolution"),
        "contrast": (lambda: measure_contrast(image, mask), ""),
        "key points": (lambda: detect_key_points(image, mask, contrast, *points), "convolution"),
        "regions of the paper's sizes": (lambda: extract_regions(radiograph, wanted, scales, 0.06),
                                         "warping"),
        "bone age, 15 networks": (lambda: predict_with_members(assessor, members, "F", radiograph),
                                  "convolution")}


def measure_assessment(folder: Path, best: dict) -> list[Figure]:
    "From a file to a bone age with the released networks, step by step, at an original's size"
    path, assessor = radiographs(folder)[2048, 1600], load_assessor()
    steps = assessment_steps(path, assessor)
    bound = {"decoding": lambda step: best["decode"],
             "convolution": lambda step: operations(step)/best["fp32"],
             "warping": lambda step: 6*best["warp"], "": lambda step: None}
    figures, whole = [], seconds(lambda: assessor.assess(str(path), sex="F"))
    for name, (step, kind) in steps.items():
        took, least = seconds(step), bound[kind](step)
        note = "image and mask, three regions" if kind == "warping" else ""
        figures.append(Figure(name, 1e3*took, "ms", least and least/took, kind, note))
    preprocessing = sum(figure.value for figure in figures[:5])
    return [*figures, Figure("preprocessing, the first five together", preprocessing, "ms"),
            Figure("all of `assess`", 1e3*whole, "ms"), Figure("throughput of `assess`", 1/whole, "images/s")]


WATCHED = """import sys
sys.argv[1:] = ['assess', {radiograph!r}, '--sex', 'F']
import boneage.cli
try: boneage.cli.app()
finally:  # the module `measure` imports PyTorch, which would add to the memory
    imported = [name for name in ('torch', 'fastai', 'pandas', 'matplotlib') if name in sys.modules]
    line = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))
    print(int(line.split()[1])/2**20, *imported)"""
COPIES = 100  # radiographs in a folder for one command


def measure_command(folder: Path) -> list[Figure]:
    "From a command to its output: with PyTorch, and with exported networks from a cache"
    many, path = folder/"many", radiographs(folder)[2048, 1600]
    many.mkdir()
    for number in range(COPIES): shutil.copy(path, many/f"{number}.png")
    began = time.perf_counter()
    run_command(folder, "on", "assess", str(path), "--sex", "F")()
    filled, kept = time.perf_counter() - began, any((folder/"cache").glob("boneage/*/fingerprint"))
    return [Figure("`boneage --help`", seconds(run_command(folder, "off", "--help"), 3), "s"),
            *measure_assess_command(folder, many, "off", "PyTorch"),
            *([Figure("the first `boneage assess`, with the export after its result", filled, "s"),
               *measure_assess_command(folder, many, "on", "from the cache")] if kept else [])]


def run_command(folder: Path, cache: str, *arguments: str, command=("-m", "boneage.cli")):
    "A function that runs Python with a command, with a cache in `folder` or without; it returns the output"
    environment = os.environ | dict(BONEAGE_CACHE=cache, XDG_CACHE_HOME=str(folder/"cache"))
    def run():
        return subprocess.run([sys.executable, *command, *arguments], check=True, capture_output=True,
                              text=True, env=environment).stdout
    return run


def measure_assess_command(folder: Path, many: Path, cache: str, name: str) -> list[Figure]:
    "One radiograph and a folder of them, with the start of the command; memory"
    path = radiographs(folder)[2048, 1600]
    one, each = (run_command(folder, cache, "assess", str(what), "--sex", "F") for what in (path, many))
    code = WATCHED.format(radiograph=str(path))
    memory, *imported = run_command(folder, cache, command=("-c", code))().splitlines()[-1].split()
    note = f"torch, fastai, pandas and matplotlib imported: {', '.join(imported) or 'none'}"
    return [Figure(f"`boneage assess` of one radiograph, {name}", seconds(one, 3), "s"),
            Figure(f"largest memory of it, {name}", float(memory), "GB", note=note),
            Figure(f"`boneage assess` of a folder of {COPIES}, {name}", COPIES/seconds(each, 1),
                   "images/s")]


def measure_phantoms() -> list[Figure]:
    "Generating phantoms on one core"
    threads, figures = cv2.getNumThreads(), []
    cv2.setNumThreads(1)
    for (height, width), count in (((512, 400), 20), ((2048, 1600), 2)):
        def generate(shape=(height, width), count=count):
            for i in range(count): make_phantom(1, i, shape=shape)
        figures.append(Figure(f"phantoms of {height}×{width}", count/seconds(generate, 3),
                              "images/s per core"))
    cv2.setNumThreads(threads)
    return figures


# ------------------------------------------------------------------ training

def training_arrays(profile: str, count: int, name: ModelName = HAND, batch: int|None = None):
    "A model's loader on random region arrays, its network and configuration; sizes and batches of a profile"
    settings = settings_of(profile)
    config, random = bone_age_config(name, settings), np.random.default_rng(0)
    stored = region_matrix(name.region, settings.scales[name.region], settings.margin)[1]
    images = random.integers(0, 256, (count, *stored), np.uint8)
    ages = random.uniform(12, 216, count).astype(np.float32)
    prepare = _PrepareRegions(config["shape"], settings.augmentation)
    loader = ArrayLoader((images, ages), prepare, batch or settings.batch_size, True, device=DEVICE)
    return loader, new_network(config, 0), config


def training_step(network, kind=torch.bfloat16):
    "A function that trains on one batch as the library does: channels last, bfloat16 where it is fast"
    network = network.train().to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    half = kind == torch.bfloat16 and fast_bfloat16(DEVICE)
    def step(images, target):
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            output = network(images.contiguous(memory_format=torch.channels_last))
        torch.nn.functional.l1_loss(output.float(), target).backward()
        optimizer.step()
    return step


def run_all(step, batches):
    "One epoch; waits for the GPU"
    for images, target in batches: step(images, target)
    if DEVICE == "cuda": torch.cuda.synchronize()


def load_all(loader):
    "One epoch of loading alone; waits for the GPU"
    for _ in loader: pass
    if DEVICE == "cuda": torch.cuda.synchronize()


def measure_training() -> list[Figure]:
    "The training loop with its loader against the same steps on prepared tensors, and the loader alone"
    figures = []
    for profile, count in (("smoke", 4096), ("phantom", 512), ("rsna", 48 if DEVICE == "cpu" else 1024)):
        loader, network, config = training_arrays(profile, count)
        step, ready, size = training_step(network), list(loader), "×".join(map(str, config["shape"]))
        calls = partial(run_all, step, ready), partial(run_all, step, loader), partial(load_all, loader)
        prepared, fed, alone = time_interleaved(*calls, repeats=3 if profile == "rsna" else 5)
        figures += [Figure(f"training, {size}, {profile}", count/fed, "images/s", prepared/fed, PREPARED),
                    Figure(f"its loader alone, {size}", count/alone, "images/s")]
    return figures


def compare_speeds(what: str, count: int, names, took) -> list[Figure]:
    "Images a second of each; the first is ours, the others get a note"
    return [Figure(f"{what}, {name}", count/each, "images/s",
                   note="" if n == 0 else f"{each/took[0]:.0f} times slower")
            for n, (name, each) in enumerate(zip(names, took))]


def plain_loaders(paths) -> dict[str, DataLoader]:
    "The plain loader with none, one and two workers"
    dataset = PlainDataset(paths, np.full(len(paths), 120.))
    names = {0: "no worker", 1: "1 worker", 2: "2 workers"}
    return {f"plain loader, {name}": DataLoader(dataset, 8, num_workers=workers,
                                                worker_init_fn=use_one_thread,
                                                persistent_workers=workers > 0)
            for workers, name in names.items()}


def compare_plain_loader(folder: Path) -> list[Figure]:
    "Our loader and loop against a plain Dataset and DataLoader; the network is that of the profile phantom"
    paths = [folder/f"frame{i}.png" for i in range(24)]
    for i, path in enumerate(paths):
        image = make_phantom(3, i, shape=(520, 400), defects={}).image
        write_radiograph(path, cv2.resize(image, FRAME[::-1], interpolation=cv2.INTER_CUBIC))
    ours, *_ = training_arrays("rsna", len(paths))
    plain = plain_loaders(paths)
    names = ["region arrays", *plain]
    epochs = time_interleaved(*(partial(list, loader) for loader in (ours, *plain.values())), repeats=3)
    small, network, config = training_arrays("phantom", len(paths))
    step = training_step(network)
    def resized(loader):
        for images, target in loader:
            yield torch.nn.functional.interpolate(images, tuple(config["shape"])), target
    def epoch(loader): return lambda: run_all(step, resized(loader))
    loops = time_interleaved(lambda: run_all(step, small), *map(epoch, plain.values()), repeats=3)
    return [*compare_speeds("reading and augmenting 500×375", len(paths), names, epochs),
            *compare_speeds("training the phantom profile's network", len(paths), names, loops)]


def forward_call(network, images, kind):
    "A function that runs a network forward on images in one precision"
    half = kind == torch.bfloat16
    layout = torch.channels_last if half else torch.contiguous_format
    network.eval().to(DEVICE, memory_format=layout)
    x = images.contiguous(memory_format=torch.channels_last) if half else images
    def forward():
        with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16, enabled=half):
            network(x).float().cpu()
    return forward


def compare_recipe() -> list[Figure]:
    "Our regression network at the paper's size against the co-author's later one, in turns"
    _, network, config = training_arrays("rsna", 8)
    networks, figures, count = (network, recipe_network()), [], 8 if DEVICE == "cpu" else 64
    images, target = torch.rand(count, 1, *config["shape"], device=DEVICE), torch.zeros(count, device=DEVICE)
    kinds = {torch.float32: "fp32"}
    if fast_bfloat16(DEVICE): kinds[torch.bfloat16] = "bfloat16, channels last"
    for kind, precision in kinds.items():
        forward = time_interleaved(*(forward_call(each, images, kind) for each in networks), repeats=3)
        steps = (partial(run_all, training_step(each, kind), [(images, target)]) for each in networks)
        stepped = time_interleaved(*steps, repeats=3)
        for what, (ours, recipe) in (("forward", forward), ("training step", stepped)):
            name, note = f"{what}, 500×375, {precision}", f"{recipe/ours:.2f} times as fast as the recipe's"
            figures += [Figure(f"{name}, ours", 1e3*ours/count, "ms an image", note=note),
                        Figure(f"{name}, recipe", 1e3*recipe/count, "ms an image")]
    return figures


# ------------------------------------------------------------------ cohorts of growing size

def preprocess(cohort: pd.DataFrame, settings, folder: Path):
    "Masks, registration and regions of a cohort by tiny networks: measures the library's own share"
    unet = dict(network="UNet", width=4, depth=3, network_input=dict(shape=[64, 48], passes=1))
    points = dict(network="KeyPointNetwork", shape=[65, 50], widths=[8, 8, 16], hidden=[32, 16],
                  network_input=dict(passes=1))
    masks = write_masks(cohort, build_network(unet).eval(), unet, folder/"masks")
    cohort = cohort.merge(masks[["id", "mask"]], on="id")
    pairs = list(zip(cohort.path, cohort["mask"]))
    measured = map_in_parallel(lambda pair: measure_radiograph(*pair), pairs)
    contrasts = [each.contrast for _, each in measured]
    registered = register_cohort(cohort, contrasts, (build_network(points).eval(), points), None,
                                 folder/"registration.part.jsonl")
    write_regions(cohort.merge(registered, on="id"), contrasts, [("registered", "hand")], settings.scales,
                  settings.margin, folder/"regions")


def measure_cohort(size: int) -> list:
    "Seconds and memory of preprocessing, fitting for one epoch and scoring: name, value and unit of each"
    settings, found = settings_of("smoke"), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # fifty phantoms; a larger cohort repeats them
        made = write_phantoms(folder/"phantoms", 50, 5, shape=(256, 200), workers=1)
        images = sorted((made/"boneage-training-dataset").glob("*.png"))
        paths = [str(images[i % len(images)]) for i in range(size)]
        cohort = pd.DataFrame(dict(id=[f"{i:06}" for i in range(size)], path=paths))
        began = time.perf_counter()
        preprocess(cohort, settings, folder)
        found += [("preprocessing", time.perf_counter() - began, "s"),
                  ("largest memory after it", peak_memory(), "GB")]
        images, ids = read_regions(folder/"regions", "registered", "hand")
        random, began = np.random.default_rng(0), time.perf_counter()
        ages, sexes = random.uniform(12, 216, size), np.where(np.arange(size) % 2, "M", "F")
        split = np.where(np.arange(size) % 5, "train", "validation")
        labels = pd.DataFrame(dict(id=ids, sex=sexes, bone_age=ages, split=split))
        job = FitJob(folder/"model", folder/"fit.safetensors")
        predictions = fit_bone_age(HAND, images, labels, settings, job)
        found += [("fitting for one epoch", time.perf_counter() - began, "s")]
        began = time.perf_counter()
        described = predictions.assign(model="m", input="registered", region="hand", sex_model="both",
                                       head="regression")
        score(described[list(SCHEMA)], by=("sex",))
        return [*found, ("scoring its predictions", time.perf_counter() - began, "s"),
                ("largest memory in all", peak_memory(), "GB")]


def measure_growth(sizes: list[int]) -> list[Figure]:
    "Cohorts of growing size, each in a process of its own"
    figures = []
    for size in sizes:
        command = [sys.executable, __file__, "--cohort", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        figures += [Figure(f"{name}, {size:,} radiographs", value, unit) for name, value, unit in found]
    return figures


# ------------------------------------------------------------------ everything

def describe(figure: Figure) -> str:
    "A figure as a line of the terminal"
    limit = f", {figure.limit:.0%} of {figure.bound}" if figure.limit else ""
    note = f" ({figure.note})" if figure.note else ""
    return f"  {figure.what}: {figure.value:.3g} {figure.unit}{limit}{note}"


def main():
    "Measure everything and write it down"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100,1000,10000", help="sizes of the growing cohorts")
    parser.add_argument("--cohort", type=int, help="measure one cohort of this size, and print it as JSON")
    parser.add_argument("--only", metavar="TABLE", help="measure one table, such as \"From a command to its "
                                                        "output\", and write nothing")
    chosen, tables = parser.parse_args(), {}
    if chosen.cohort: return print(json.dumps(measure_cohort(chosen.cohort)))
    sizes = [int(size) for size in chosen.sizes.split(",") if size]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cores)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        best, limits = measure_limits(folder)
        sections = {
            "Limits of this computer": lambda: limits,
            "From a file to a bone age": partial(measure_assessment, folder, best),
            "From a command to its output": partial(measure_command, folder),
            "Making phantoms": measure_phantoms,
            "Training": measure_training,
            "Against a plain loader": partial(compare_plain_loader, folder),
            "Against the co-author's later network": compare_recipe,
            "Growing cohorts": partial(measure_growth, sizes)}
        for title, section in sections.items():
            if chosen.only not in (None, title): continue
            tables[title] = section()
            print(title, *map(describe, tables[title]), sep="\n", flush=True)
    found = {title: rows(figures) for title, figures in tables.items()}
    if not chosen.only: write_section("speed", "cpu", dict(machine=machine(), tables=found))


if __name__ == "__main__": main()
