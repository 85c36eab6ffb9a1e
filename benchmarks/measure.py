"How the benchmarks measure and what they write: medians, functions timed in turns, limits of the computer"
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

FOLDER = Path(__file__).resolve().parent
PROJECT = FOLDER.parent


@dataclass(frozen=True)
class Figure:
    "One line of a table: what was measured, and the limit that it is compared with"
    what: str
    value: float
    unit: str
    limit: float|None = None  # share of the fastest possible speed, in 0–1
    bound: str = ""           # the operation that sets this limit
    note: str = ""


def seconds(function, repeats: int = 7) -> float:
    "Median seconds of a call; the first call does not count"
    return time_interleaved(function, repeats=repeats)[0]


def time_interleaved(*functions, repeats: int = 7) -> list[float]:
    "Median seconds of each function, called in turns so that other load affects all of them alike"
    took = [[] for _ in functions]
    for turn in range(repeats + 1):
        for times, function in zip(took, functions):
            began = time.perf_counter()
            function()
            if turn: times.append(time.perf_counter() - began)
    return [statistics.median(times) for times in took]


def peak_memory() -> float:
    "Largest memory of this process so far, in GB, without that of its parent"
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in status if line.startswith("VmHWM"))) / 2**20


def operations(function) -> float:
    "Multiplications and additions of PyTorch's convolutions and matrix products during a call"
    with FlopCounterMode(display=False) as counter: function()
    return float(counter.get_total_flops())


def convolution_speed(kind=torch.float32) -> float:
    "Multiplications and additions a second in a large 3×3 convolution, channels last"
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.rand(8, 64, 128, 128).contiguous(memory_format=torch.channels_last)
    def convolve():
        half = torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16)
        with torch.inference_mode(), half: layer(x)
    return operations(convolve) / seconds(convolve)


def copy_speed(size: int = 2**28) -> float:
    "Bytes read and written a second when memory is copied"
    a, b = np.zeros(size, np.uint8), np.ones(size, np.uint8)
    return 2 * size / seconds(lambda: np.copyto(a, b))


def processor_name() -> str:
    "The processor's name as Linux gives it, elsewhere as Python does"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def machine() -> dict[str, str]:
    "Date, computer and versions of a measurement"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return dict(
        date=str(date.today()), processor=processor_name(), cores=str(cores), memory=f"{memory:.0f} GB",
        capability=torch.backends.cpu.get_cpu_capability(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        python=platform.python_version(), torch=torch.__version__, opencv=cv2.__version__,
        numpy=np.__version__,
        allocator="keeps memory" if os.environ.get("MALLOC_MMAP_MAX_") == "0" else "default")


def rows(figures: list[Figure]) -> list[dict]:
    "Figures as dictionaries without their empty fields"
    return [{key: value for key, value in asdict(figure).items() if value not in (None, "")}
            for figure in figures]


def compact_json(value, indent: str = "") -> str:
    "JSON with one row a line"
    def dump(item): return json.dumps(item, ensure_ascii=False)
    items = list(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    if not any(isinstance(item, dict | list) for item in items): return dump(value)
    inner, (opening, closing) = indent + " ", "{}" if isinstance(value, dict) else "[]"
    keys = [f"{dump(key)}: " for key in value] if isinstance(value, dict) else [""]*len(items)
    lines = [inner + key + compact_json(item, inner) for key, item in zip(keys, items)]
    return opening + "\n" + ",\n".join(lines) + f"\n{indent}{closing}"


def write_section(
    file: str,     # "speed" or "reliability": a JSON file of this folder
    section: str,  # its key
    found: dict,   # what was measured
):
    "Replace one section of a file of results, and keep the others"
    path = FOLDER/f"{file}.json"
    sections = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(compact_json(dict(sorted((sections | {section: found}).items()))) + "\n")
    print(f"Written to {path}, section {section}")
