"""Show the readers files that are made by what the files before them reached: `make fuzz-guided` writes benchmarks/guided.json.

The readers, the files they start from and what they may answer are those of tests/test_fuzz.py. libFuzzer, through atheris, changes a file's bytes, its checksums or the values of its JSON, and keeps what reaches a branch of the library, of pydicom or of PyYAML that no file before it reached.
A finding is an answer that the test doesn't allow, more than 10 s or more than 2 GB. Its file, with what happened, is in build/guided/<reader>/ beside the files that reached something new, from which the next run goes on."""
import argparse
import copy
import faulthandler
import importlib.metadata
import importlib.util
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from hashlib import sha256
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT/"tests"), str(PROJECT/"benchmarks")]
OUT, KEPT = PROJECT/"benchmarks"/"guided.json", PROJECT/"build"/"guided"
FOLLOWED = ["boneage", "pydicom", "yaml"]  # packages whose branches count
WITHOUT = {"ONNX"}                         # a reader that is not Python: ONNX Runtime's own
SEEDS, LONGEST = 150, 20_000               # files to start from; bytes of a file
MISSING = "atheris is not installed, which runs on Linux on x86-64: .venv/bin/python -m pip install atheris==3.0.0"


def folder_of(name: str) -> Path:
    "Where a reader's files are kept"
    return KEPT/re.sub(r"\W+", "-", name).strip("-").lower()


# ------------------------------------------------------------------ a reader, in a process of its own

def seeds(asked, saved: Path) -> list[dict]:
    "Files that the test makes for a reader, the same each time: name → contents"
    import test_fuzz
    from hypothesis import HealthCheck, Phase, given, settings
    found = []

    @settings(max_examples=SEEDS, derandomize=True, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(test_fuzz.files_for(asked, saved))
    def each(files): found.append(files)

    each()
    return found


def mutate_json(data: bytes, chance: random.Random) -> bytes:
    "JSON with one value removed, doubled, or replaced by an odd one or by another of its own"
    import test_fuzz
    tree = [json.loads(data)]
    known = list(test_fuzz.places(tree))
    (holder, key), (theirs, other) = chance.choice(known), chance.choice(known)
    kind = chance.choice(["odd", "odd", "moved", "removed", "doubled"])
    if kind == "odd": holder[key] = chance.choice([*test_fuzz.ODD_NUMBERS, *test_fuzz.ODD_WORDS, None, True, [], {}, [[]]])
    elif kind == "moved": holder[key] = copy.deepcopy(theirs[other])
    elif kind == "removed" and len(known) > 1: del holder[key]
    elif isinstance(holder, list): holder.insert(key, copy.deepcopy(holder[key]))
    return json.dumps(tree[0] if tree else None).encode()


def changed(data: bytes, longest: int, seed: int) -> bytes:
    "Another file: JSON, or the JSON at the beginning of weights, by its values; everything by its bytes; a PNG often with the checksums it asks for"
    import atheris
    import test_fuzz
    chance, length = random.Random(seed), struct.unpack("<Q", data[:8])[0] if len(data) > 8 else 0
    try:
        if chance.random() < 0.5:
            if 1 < length <= len(data) - 8:
                header = mutate_json(data[8:8 + length], chance)
                return (struct.pack("<Q", len(header)) + header + data[8 + length:])[:longest]
            if data[:1] in (b"{", b"["): return mutate_json(data, chance)[:longest]
    except (ValueError, RecursionError): pass
    data = atheris.Mutate(data, longest)
    return test_fuzz.with_checksums(data)[:longest] if data[1:4] == b"PNG" and chance.random() < 0.8 else data


def reads(asked, path: Path, kept: Path):
    "What libFuzzer calls: the answer to a file is checked; the first file of each kind of finding is kept, with what happened"
    import test_fuzz
    def read(data):
        path.write_bytes(data)
        try: test_fuzz.check(asked, path)
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            found = kept/f"found-{sha256(f'{type(error)} {at.filename} {at.lineno}'.encode()).hexdigest()[:10]}"
            if not found.exists():
                found.write_bytes(data)
                found.with_suffix(".txt").write_text(traceback.format_exc())
    return read


def hunt(name: str, kept: Path, runs: int, limit: int):
    "Never returns: libFuzzer ends the process"
    import atheris
    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=FOLLOWED):
        import cv2
        import test_fuzz
        import torch
        torch.set_num_threads(1), cv2.setNumThreads(0)
        asked, folder = test_fuzz.READERS[name], Path("read").absolute()
        for part in (folder, Path("seeds"), kept/"corpus"): part.mkdir(parents=True, exist_ok=True)
        for number, files in enumerate(seeds(asked, test_fuzz.write_saved(Path("saved")))):
            (Path("seeds")/str(number)).write_bytes(files.pop(asked.name))
            for other, content in files.items(): (folder/other).write_bytes(content)
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10) + (test_fuzz.MEMORY >> 20)
        options = [f"-runs={runs}", f"-max_total_time={limit}", f"-max_len={LONGEST}", "-timeout=0", "-handle_alrm=0", f"-rss_limit_mb={memory}", f"-artifact_prefix={kept}/", "-print_final_stats=1", "-seed=1"]
        atheris.Setup([sys.argv[0], *options, str(kept/"corpus"), "seeds"], reads(asked, folder/asked.name, kept), custom_mutator=changed)
        faulthandler.register(signal.SIGALRM, chain=True)  # the alarm that the test sets tells where the file hangs and ends the process, in native code as well
        atheris.Fuzz()


# ------------------------------------------------------------------ all of them

def attempt(name: str, path: str, runs: int, limit: int) -> dict:
    "A reader's row: files, seconds, branches reached by the files it started from and at the end, findings; `path` is the name of its file"
    kept, began = folder_of(name), time.monotonic()
    kept.mkdir(parents=True, exist_ok=True)
    for old in [each for each in kept.iterdir() if each.is_file()]: old.unlink()
    with tempfile.TemporaryDirectory() as folder, (kept/"log").open("wb") as log:
        command = [sys.executable, "-W", "ignore", __file__, "--reader", name, "--kept", str(kept), "--runs", str(runs), "--seconds", str(limit)]
        code = subprocess.run(command, cwd=folder, stdout=log, stderr=log, env=os.environ | {"OPENCV_LOG_LEVEL": "OFF", "OMP_NUM_THREADS": "1"}).returncode
        if code and (last := Path(folder)/"read"/path).is_file(): shutil.copy(last, kept/("found-slow" if code == -signal.SIGALRM else "found-end"))
    told = (kept/"log").read_text(errors="replace")
    edges = [int(number) for number in re.findall(r"^#\d+\s+\w+\s+cov: (\d+)", told, re.M)]
    number = {key: int(value) for key, value in re.findall(r"^stat::(\w+):\s+(\d+)", told, re.M)}
    found = sorted(each.name for each in kept.glob("found-*") if each.suffix != ".txt") or ["log"] * bool(code)
    return dict(reader=name, inputs=number.get("number_of_executed_units", 0), seconds=round(time.monotonic() - began), before=edges[0] if edges else 0, reached=edges[-1] if edges else 0,
                slowest=number.get("slowest_unit_time_sec", 0), memory=round(number.get("peak_rss_mb", 0) / 1024, 2), findings=found)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("readers", nargs="*", help="only these, whose rows are written anew; all when none is named")
    options.add_argument("--runs", type=int, default=20_000, help="files for each reader")
    options.add_argument("--seconds", type=int, default=3600, help="for each reader, at most")
    options.add_argument("--anew", action="store_true", help="start from the test's files alone, not from what earlier runs kept")
    options.add_argument("--reader", help=argparse.SUPPRESS)
    options.add_argument("--kept", type=Path, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if not importlib.util.find_spec("atheris"): sys.exit(MISSING)
    if asked.reader: hunt(asked.reader, asked.kept, asked.runs, asked.seconds)
    from measure import machine
    from test_fuzz import READERS
    before = {row["reader"]: row for row in json.loads(OUT.read_text())["rows"]} if OUT.is_file() else {}
    rows = []
    for name in READERS:
        if name in WITHOUT or asked.readers and name not in asked.readers: continue
        if asked.anew: shutil.rmtree(folder_of(name), ignore_errors=True)
        rows.append(row := attempt(name, READERS[name].name, asked.runs, asked.seconds))
        print(f"{name:26}{row['inputs']:7,} files{row['seconds']:5} s{row['before']:6} → {row['reached']:5} branches  {', '.join(row['findings'])}", flush=True)
        before[name] = row
        OUT.write_text(json.dumps(dict(machine=machine(), atheris=importlib.metadata.version("atheris"), rows=[before[n] for n in READERS if n in before]), indent=1) + "\n")
    if any(row["findings"] for row in rows): sys.exit(f"What was found is in {KEPT.relative_to(PROJECT)}.")


if __name__ == "__main__": main()
