"How the benchmarks measure: medians, compared figures in turns, what this computer could do at best"
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


@dataclass
class Figure:
    "One line of a table: what was measured, and where there is a comparison, with what"
    what: str
    value: float
    unit: str
    limit: float|None = None  # share of what the computer could do at best, in 0–1
    bound: str = ""           # by what that best is bound; or what the figure is compared with
    note: str = ""


def seconds(function, repeats=7) -> float:
    "Median seconds of a call, the first left out"
    return time_interleaved(function, repeats=repeats)[0]


def time_interleaved(*functions, repeats=7) -> list[float]:
    "Median seconds of each function, called in turns so that whatever else the computer does concerns all of them; the first turn is left out"
    took = [[] for _ in functions]
    for turn in range(repeats + 1):
        for times, function in zip(took, functions):
            began = time.perf_counter()
            function()
            if turn: times.append(time.perf_counter() - began)
    return [statistics.median(times) for times in took]


def peak_memory() -> float:
    "Largest memory of this process so far, GB; not what it was started from had taken"
    return int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))) / 2**20


def operations(function) -> float:
    "Multiplications and additions in PyTorch's convolutions and products during a call"
    with FlopCounterMode(display=False) as counter: function()
    return float(counter.get_total_flops())


def convolution_speed(kind=torch.float32) -> float:
    "Multiplications and additions a second in a large 3×3 convolution, channels last"
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.rand(8, 64, 128, 128).contiguous(memory_format=torch.channels_last)
    def convolve():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16): layer(x)
    return operations(convolve) / seconds(convolve)


def copy_speed(size=2**28) -> float:
    "Bytes a second that are read and written when memory is copied"
    a, b = np.zeros(size, np.uint8), np.ones(size, np.uint8)
    return 2 * size / seconds(lambda: np.copyto(a, b))


def machine() -> dict[str, str]:
    "What the figures were taken on"
    name = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.processor()) if Path("/proc/cpuinfo").is_file() else platform.processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return dict(date=str(date.today()), processor=name, cores=str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()), memory=f"{memory:.0f} GB",
                capability=torch.backends.cpu.get_cpu_capability(), gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
                python=platform.python_version(), torch=torch.__version__, opencv=cv2.__version__, numpy=np.__version__,
                allocator="keeps memory" if os.environ.get("MALLOC_MMAP_MAX_") == "0" else "default")


def rows(figures: list[Figure]) -> list[dict]:
    "Figures as they are written down"
    return [{key: value for key, value in asdict(figure).items() if value not in (None, "")} for figure in figures]
