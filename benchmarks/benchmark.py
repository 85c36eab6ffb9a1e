"""How fast it is: `make bench` writes benchmarks/results.json, which the site's page on speed shows.

Each figure is a median over repeats; figures that are compared are taken in turns within one run, at one allocator setting. No test asserts any of them."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from measure import (
    Figure,
    convolution_speed,
    copy_speed,
    machine,
    operations,
    peak_memory,
    rows,
    seconds,
    time_interleaved,
)
from peers import FRAME, PlainDataset, one_thread, recipe_network
from torch.utils.data import DataLoader

from boneage.assessment import load_assessor, predict_with_members
from boneage.bone_age import ModelName
from boneage.contrast import measure_contrast
from boneage.datasets.preprocessing import extract_regions
from boneage.datasets.profiles import load_profile
from boneage.keypoints import detect_key_points
from boneage.radiographs import read_radiograph, write_radiograph
from boneage.registration import RegisteredRadiograph, frame_from_key_points, region_matrix
from boneage.segmentation import segment
from boneage.synthetic.phantoms import make_phantom
from boneage.training.bone_age import _PrepareRegions, bone_age_config
from boneage.training.core import ArrayLoader, fast_bfloat16, new_network

PROJECT = Path(__file__).resolve().parent.parent
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def radiographs(folder: Path) -> dict[tuple, Path]:
    "A phantom's plate at the size of an original and at a quarter of it, as files"
    made = {}
    for shape in ((512, 400), (2048, 1600)):
        made[shape] = folder/f"{shape[0]}.png"
        if not made[shape].is_file(): write_radiograph(made[shape], make_phantom(2, 3, shape=shape, sex="F", bone_age=120., defects={}).image)
    return made


def limits(folder: Path) -> tuple[dict, list[Figure]]:
    "What this computer could do at best"
    path = radiographs(folder)[2048, 1600]
    png, image = np.frombuffer(path.read_bytes(), np.uint8), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    jpeg = cv2.imencode(".jpg", cv2.resize(image, None, fx=0.5, fy=0.5))[1]
    matrix = np.float32([[0.23, 0.01, 3], [-0.01, 0.23, 5]])
    best = dict(decode=seconds(lambda: cv2.imdecode(png, cv2.IMREAD_UNCHANGED)), warp=seconds(lambda: cv2.warpAffine(image, matrix, (375, 500))),
                fp32=convolution_speed(), bf16=convolution_speed(torch.bfloat16) if fast_bfloat16("cpu") else float("nan"), copy=copy_speed())
    figures = [Figure("decoding a PNG of 2048×1600", 1e3*best["decode"], "ms", note=f"{len(png)/2**20:.1f} MB, a phantom's"),
               Figure("decoding a JPEG of half that size", 1e3*seconds(lambda: cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED)), "ms"),
               Figure("one affine warp, 2048×1600 to 500×375", 1e3*best["warp"], "ms"), Figure("convolution, fp32", best["fp32"]/1e9, "GFLOP/s")]
    if np.isfinite(best["bf16"]): figures.append(Figure("convolution, bfloat16", best["bf16"]/1e9, "GFLOP/s"))
    return best, [*figures, Figure("copying memory", best["copy"]/1e9, "GB/s")]


def stages(folder: Path, best: dict) -> list[Figure]:
    "From file to bone age with the released networks, step by step, for a plate of an original's size"
    path, assessor = radiographs(folder)[2048, 1600], load_assessor()
    image = read_radiograph(path)
    mask = segment(image, *assessor.network("segmentation")).mask
    contrast = measure_contrast(image, mask)
    frame = frame_from_key_points(detect_key_points(image, mask, contrast, *assessor.network("keypoints")).points)[0]
    wanted, scales = [("registered", region) for region in ("hand", "carpals", "metacarpals")], dict(hand=0.25, carpals=0.5, metacarpals=1/3)
    members, radiograph = assessor.rules["F"].members, RegisteredRadiograph(image, mask, contrast, frame)
    steps = {"read": (lambda: read_radiograph(path), "decoding"), "segment": (lambda: segment(image, *assessor.network("segmentation")), "convolution"),
             "contrast": (lambda: measure_contrast(image, mask), ""), "key points": (lambda: detect_key_points(image, mask, contrast, *assessor.network("keypoints")), "convolution"),
             "regions of the paper's sizes": (lambda: extract_regions(radiograph, wanted, scales, 0.06), "warping"),
             "bone age, 15 networks": (lambda: predict_with_members(assessor, members, "F", radiograph), "convolution")}
    bound = {"decoding": lambda step: best["decode"], "convolution": lambda step: operations(step)/best["fp32"], "warping": lambda step: 6*best["warp"], "": lambda step: None}
    figures, whole = [], seconds(lambda: assessor.assess(str(path), sex="F"))
    for name, (step, kind) in steps.items():
        took, least = seconds(step), bound[kind](step)
        figures.append(Figure(name, 1e3*took, "ms", least and least/took, kind, "image and mask, three regions" if kind == "warping" else ""))
    figures.append(Figure("preprocessing, the first five together", sum(f.value for f in figures[:5]), "ms"))
    return [*figures, Figure("all of `assess`", 1e3*whole, "ms"), Figure("the same", 1/whole, "images/s")]


def phantoms() -> list[Figure]:
    "Making phantoms on one core"
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    made = {shape: seconds(lambda: [make_phantom(1, i, shape=shape) for i in range(count)], 3)/count for shape, count in (((512, 400), 20), ((2048, 1600), 2))}
    cv2.setNumThreads(threads)
    return [Figure(f"phantoms of {h}×{w}", 1/took, "images/s and core") for (h, w), took in made.items()]


def training_arrays(profile: str, count: int, name=ModelName("registered", "hand", "both", "regression"), batch: int|None = None):
    "A model's loader on made-up region arrays, its network and configuration, at a profile's sizes; batches as there, or of another size"
    settings = load_profile(PROJECT/"reports"/"profiles"/f"{profile}.yaml").bone_age
    config, random = bone_age_config(name, settings), np.random.default_rng(0)
    stored = region_matrix(name.region, settings.scales[name.region], settings.margin)[1]
    arrays = random.integers(0, 256, (count, *stored), np.uint8), random.uniform(12, 216, count).astype(np.float32)
    return ArrayLoader(arrays, _PrepareRegions(config["shape"], settings.augmentation), batch or settings.batch_size, True, device=DEVICE), new_network(config, 0), config


def training_step(network, kind=torch.bfloat16):
    "A function of a batch that does one step of training as the library does: channels last, bfloat16 where the hardware multiplies it"
    network = network.train().to(DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    def step(images, target):
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=kind == torch.bfloat16 and fast_bfloat16(DEVICE)): output = network(images.contiguous(memory_format=torch.channels_last))
        torch.nn.functional.l1_loss(output.float(), target).backward()
        optimizer.step()
    return step


def run_all(step, batches):
    "One epoch, to its end"
    for images, target in batches: step(images, target)
    if DEVICE == "cuda": torch.cuda.synchronize()


def training() -> list[Figure]:
    "The training loop fed by the loader against the same steps on tensors that lie ready, in turns; and the loader alone"
    figures = []
    for profile, count in (("smoke", 4096), ("phantom", 512), ("rsna", 48 if DEVICE == "cpu" else 1024)):
        loader, network, config = training_arrays(profile, count)
        step, ready, size = training_step(network), list(loader), "×".join(map(str, config["shape"]))
        on_tensors, fed, alone = time_interleaved(lambda: run_all(step, ready), lambda: run_all(step, loader), lambda: [None for _ in loader], repeats=3 if profile == "rsna" else 5)
        figures += [Figure(f"training, {size}, {profile}", count/fed, "images/s", on_tensors/fed, "the same steps on tensors that lie ready"),
                    Figure(f"its loader alone, {size}", count/alone, "images/s")]
    return figures


def against_plain_loader(folder: Path) -> list[Figure]:
    "The data path and the loop against a plain Dataset and DataLoader that augments each PNG at full size; the network is the phantom profile's"
    paths = [folder/f"frame{i}.png" for i in range(24)]
    for i, path in enumerate(paths): write_radiograph(path, cv2.resize(make_phantom(3, i, shape=(520, 400), defects={}).image, FRAME[::-1], interpolation=cv2.INTER_CUBIC))
    dataset, figures = PlainDataset(paths, np.full(len(paths), 120.)), []
    ours, network, config = training_arrays("rsna", len(paths))
    loaders = {"region arrays": ours} | {f"plain loader, {workers or 'no'} worker{'s' if workers > 1 else ''}": DataLoader(dataset, 8, num_workers=workers, worker_init_fn=one_thread, persistent_workers=workers > 0) for workers in (0, 1, 2)}
    epochs = time_interleaved(*(partial(list, loader) for loader in loaders.values()), repeats=3)
    for name, took in zip(loaders, epochs): figures.append(Figure(f"reading and augmenting 500×375, {name}", len(paths)/took, "images/s", note="" if name == "region arrays" else f"{took/epochs[0]:.0f} times slower"))
    small, network, config = training_arrays("phantom", len(paths))
    step = training_step(network)
    def plain(loader):
        for images, target in loader: step(torch.nn.functional.interpolate(images, tuple(config["shape"])), target)
    loops = time_interleaved(lambda: run_all(step, small), *(partial(plain, loader) for loader in list(loaders.values())[1:]), repeats=3)
    for name, took in zip(loaders, loops): figures.append(Figure(f"training the phantom profile's network, {name}", len(paths)/took, "images/s", note="" if name == "region arrays" else f"{took/loops[0]:.0f} times slower"))
    return figures


def against_recipe() -> list[Figure]:
    "Our regression network at the paper's size against the co-author's later one, in turns"
    _, network, config = training_arrays("rsna", 8)
    networks, figures, count = {"ours": network, "recipe": recipe_network()}, [], 8 if DEVICE == "cpu" else 64
    images, target = torch.rand(count, 1, *config["shape"], device=DEVICE), torch.zeros(count, device=DEVICE)
    for kind, words in ((torch.float32, "fp32"), *(((torch.bfloat16, "bfloat16, channels last"),) if fast_bfloat16(DEVICE) else ())):
        def forward(network):
            network.eval().to(DEVICE, memory_format=torch.channels_last if kind == torch.bfloat16 else torch.contiguous_format)
            x = images.contiguous(memory_format=torch.channels_last) if kind == torch.bfloat16 else images
            def ask():
                with torch.inference_mode(), torch.autocast(DEVICE, torch.bfloat16, enabled=kind == torch.bfloat16): network(x).float().cpu()
            return ask
        asked = time_interleaved(*(forward(network) for network in networks.values()), repeats=3)
        stepped = time_interleaved(*(partial(run_all, training_step(network, kind), [(images, target)]) for network in networks.values()), repeats=3)
        for what, took in (("forward", asked), ("training step", stepped)):
            figures += [Figure(f"{what}, 500×375, {words}, ours", 1e3*took[0]/count, "ms an image", note=f"{took[1]/took[0]:.2f} times as fast as the recipe's"), Figure(f"{what}, 500×375, {words}, recipe", 1e3*took[1]/count, "ms an image")]
    return figures


def growth(sizes: list[int]) -> list[Figure]:
    "Preprocessing, fitting and scoring cohorts of growing size: seconds and largest memory, each in a process of its own"
    figures = []
    for size in sizes:
        done = subprocess.run([sys.executable, Path(__file__).parent/"growth.py", str(size)], capture_output=True, text=True, check=True)
        for name, value, unit in json.loads(done.stdout.splitlines()[-1]): figures.append(Figure(f"{name}, {size:,} radiographs", value, unit))
    return figures


def starting(folder: Path) -> list[Figure]:
    "From typing a command to its answer"
    path, command = radiographs(folder)[2048, 1600], [sys.executable, "-m", "boneage.cli"]
    def run(*arguments): return lambda: subprocess.run([*command, *arguments], check=True, capture_output=True)
    figures = [Figure("`boneage --help`", seconds(run("--help"), 3), "s"), Figure("`boneage assess` of one plate", seconds(run("assess", str(path), "--sex", "F"), 3), "s")]
    watched = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); sys.argv[1:] = ['assess', {str(path)!r}, '--sex', 'F']\nimport boneage.cli\ntry: boneage.cli.app()\nfinally:\n  found = [m for m in ('fastai', 'pandas', 'matplotlib') if m in sys.modules]; from measure import peak_memory; print(peak_memory(), *found)"
    memory, *imported = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True).stdout.splitlines()[-1].split()
    return [*figures, Figure("largest memory of it", float(memory), "GB", note=f"imports of fastai, pandas and matplotlib on the way: {', '.join(imported) or 'none'}")]


def main():
    "Measure everything and write it down"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100,1000,10000", help="cohort sizes whose growth is measured")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent/"results.json")
    chosen, tables = parser.parse_args(), {}
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        best, tables["What this computer can do at best"] = limits(folder)
        for title, section in {"From a file to a bone age": partial(stages, folder, best), "From a command to its answer": partial(starting, folder), "Making phantoms": phantoms, "Training": training,
                               "Against a plain loader": partial(against_plain_loader, folder), "Against the co-author's later network": against_recipe,
                               "Growing cohorts": partial(growth, [int(size) for size in chosen.sizes.split(",") if size])}.items():
            tables[title] = section()
            print(f"{title}\n" + "\n".join(f"  {f.what}: {f.value:.3g} {f.unit}" + (f", {f.limit:.0%} of {f.bound}" if f.limit else "") + (f" ({f.note})" if f.note else "") for f in tables[title]), flush=True)
    chosen.out.write_text(json.dumps(dict(machine=machine(), tables={title: rows(figures) for title, figures in tables.items()}), indent=1) + "\n")
    print(f"Written to {chosen.out}; the site shows it.")


if __name__ == "__main__": main()
