"The site's pages on speed and reliability, from what `make bench` and `make stress` wrote"
import json
from pathlib import Path

BENCHMARKS = Path(__file__).absolute().parent.parent/"benchmarks"
# facts of a computer shown with their name
NAMED = ("python", "torch", "opencv", "numpy", "allocator", "gpu")


def read(name: str) -> dict:
    "The sections of a file of results; empty where nothing was measured"
    path = BENCHMARKS/f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def format_number(value: float) -> str:
    "A number with three significant digits"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def format_machine(machine: dict) -> str:
    "Date, computer and versions in a line"
    named = {key: f"{key} {value}" for key, value in machine.items() if key in NAMED}
    cores = {"cores": f"{machine.get('cores')} cores"} if "cores" in machine else {}
    return "*" + ", ".join(map(str, (machine | named | cores).values())) + ".*"


def table(heads: list[str], lines: list[list[str]], right: int) -> str:
    "A Markdown table whose columns from `right` on hold numbers"
    rule = ["--:" if n >= right else ":--" for n in range(len(heads))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, rule, *lines])


# ------------------------------------------------------------------ speed

OPENING = """
Each figure is a median of several calls. Figures that are compared were measured in turns in one run, at the
same allocator setting. `make bench` measures all of them on your computer.
"""

SHARE = """
*Of the limit*: the shortest possible time of the step as a share of its measured time. The limit counts
only the work that no code can avoid: decoding the file, multiplying in the convolutions, warping the image.
"""

ON_A_GPU = "\nThe following tables come from another computer, with a GPU: `make bench WHAT=gpu`.\n"

COMPARED = "The code before and after a change, in turns in one run: `make bench WHAT=compare REVISION=…`."


def speed_page() -> str:
    "The page on speed"
    found = read("speed")
    if "cpu" not in found: return "Nothing has been measured yet: run `make bench`.\n"
    parts = [OPENING, format_machine(found["cpu"]["machine"]), SHARE, *figure_tables(found["cpu"])]
    if "gpu" in found:
        parts += [ON_A_GPU, format_machine(found["gpu"]["machine"]), *figure_tables(found["gpu"])]
    if "compared" in found: parts.append(compared_table(found["compared"]))
    return "\n".join(parts) + "\n"


def figure_row(figure: dict, limits: bool) -> list[str]:
    "A figure as a row of its table"
    share = f"{figure['limit']:.0%} of {figure['bound']}" if figure.get("limit") else ""
    value = f"{format_number(figure['value'])} {figure['unit']}"
    return [figure["what"], value, *([share] if limits else []), figure.get("note", "")]


def figure_tables(found: dict) -> list[str]:
    "A section for each table of figures"
    parts = []
    for title, figures in found["tables"].items():
        limits = any("limit" in figure for figure in figures)
        lines = [figure_row(figure, limits) for figure in figures]
        keep = [n for n in range(len(lines[0])) if n < 2 or any(line[n] for line in lines)]
        heads = ["", "figure", *(["of the limit"] if limits else []), ""]
        text = table([heads[n] for n in keep], [[line[n] for n in keep] for line in lines], 1)
        parts.append(f"\n## {title}\n\n{text}")
    return parts


def compared_table(found: dict) -> str:
    "The section on two revisions"
    lines = [[row["what"], *(f"{format_number(row[when])} {row['unit']}" for when in ("before", "after")),
              f"{row['ratio']:.2f}"] for row in found["rows"]]
    heads = ["", "before", "after", "ratio"]
    machine = format_machine(found["machine"])
    return f"\n## Before and after\n\n{COMPARED}\n\n{table(heads, lines, 1)}\n\n{machine}"


# ------------------------------------------------------------------ reliability

def reliability_page() -> str:
    "The page on reliability"
    found = read("reliability")
    parts = ["These tests try to break the library. A command stands above each table and repeats it; "
             "`make test` runs a small part of each.\n"]
    sections = (refusals, fuzzing, crashes, determinism, coverage)
    parts += [text for section in sections if (text := section(found))]
    return "\n\n".join(parts) + "\n"


def refusals(found: dict) -> str:
    "Hands that are refused, and what is no hand"
    if "refusals" not in found: return ""
    found = found["refusals"]
    def share(row, key): return f"{row.get(key, 0)} ({row.get(key, 0)/row['number']:.1%})"
    kinds = sorted({key for row in found["rows"] for key in row} - {"images", "number", "refused", "warned"})
    heads, names = ["", *(row["images"] for row in found["rows"])], ["refused", "warned", *kinds]
    lines = [["number", *(f"{row['number']:,}" for row in found["rows"])]]
    lines += [[name, *(share(row, name) for row in found["rows"])] for name in names]
    return f"""## Hands and no hands

`python benchmarks/refusals.py DATA`. The released system assessed radiographs of hands, with the child's sex,
and images without a hand: drawn ones, photographs, and CT, MR and other images that come with packages.
*Refused* images get the sentence "No hand was found" and no age; *warned* ones get an age and a warning. The
codes of the warnings follow. The radiographs are those that the released networks were fitted on. The
threshold for a refusal was chosen on images like those without a hand.

{table(heads, lines, 1)}

{format_machine(found["machine"])}"""


def fuzzing(found: dict) -> str:
    "Damaged and invented files"
    if "fuzz" not in found: return ""
    found = found["fuzz"]
    lines = [[row["reader"], *(f"{row[key]:,}" for key in ("inputs", "read", "refused"))]
             for row in found["rows"]]
    total = sum(row["inputs"] for row in found["rows"])
    return f"""## Damaged and invented files

`make stress WHAT=fuzz`. Every reader opened files that hypothesis had damaged or invented: {total:,} files
in {found['seconds']:.0f} s. Each file was read or refused with one sentence. None took more than its time
limit, none ended in a traceback, and memory stayed below {found['memory']:.2f} GB.

{table(["reader", "files", "read", "refused"], lines, 1)}

{format_machine(found['machine'])}"""


def crashes(found: dict) -> str:
    "Killed processes and full disks"
    if "crash" not in found: return ""
    found = found["crash"]
    total, kinds = found["totals"], list(next(iter(found["steps"].values()))["kills"])
    lines = [[step, *(str(row["kills"][kind]) for kind in kinds),
              *(str(row[key]) for key in ("reruns", "full_disk", "findings"))]
             for step, row in found["steps"].items()]
    heads = ["step", *(f"killed {kind}" for kind in kinds), "reruns", "full disks", "findings"]
    listed = "".join(f"\n- {sentence}" for sentence in found["findings"])
    verdict = ("Every rerun gave the undisturbed result, and no file was partial."
               if not listed else f"The findings:\n{listed}\n")
    return f"""## Killed processes and full disks

`make stress WHAT=crash`. A step of the pipeline was killed {total['kills']} times and run again. The signal
came at a random time, between two file operations, or in the middle of a write (at a limit of the file's
size). Its disk was full {total['full_disk']} times. {verdict}

The steps are making phantoms, mining masks, fitting a network, writing region arrays, running a report and
exporting weights, each at a small size. A rerun may be killed as well, so kills outnumber reruns. A finding
is a partial file, a different result, or a file left over.

{table(heads, lines, 1)}

*{found['date']}, {found['seconds']} s, seed {found['seed']}, {found['versions']}.*"""


def determinism_row(row: dict) -> list[str]:
    "A comparison and its largest differences"
    if "files" in row: return [row["what"], f"{row['differing']} of {row['files']} files differ"]
    if row["weights"] == row["months"] == 0: return [row["what"], "equal to the last bit"]
    months = f"predictions by {row['months']:.1g} months"
    return [row["what"], f"weights differ by at most {row['weights']:.1g}, {months}"]


def determinism(found: dict) -> str:
    "The same seed, the same numbers"
    if "determinism" not in found: return ""
    def listed(section):
        rows = [determinism_row(row) for row in section["rows"]]
        return table(["", ""], rows, 2) + "\n\n" + format_machine(section["machine"])
    gpu = found.get("determinism_gpu")
    return f"""## The same numbers twice

`make stress WHAT=determinism`. The seed fixes all numbers on one kind of computer with one number of
threads. Other numbers of threads, and GPUs, add sums in another order, which changes a fit by the months in
the table.

{listed(found["determinism"])}""" + (f"\n\nOn a GPU (`make bench WHAT=gpu`):\n\n{listed(gpu)}" if gpu else "")


def coverage(found: dict) -> str:
    "Lines that the checks reach"
    if "coverage" not in found: return ""
    found = found["coverage"]
    modules = sorted(found["modules"], key=lambda row: row["reached"]/row["lines"])
    lines = [[row["module"], f"{row['lines']:,}", f"{row['reached']:,}", f"{row['reached']/row['lines']:.0%}"]
             for row in modules]
    total, reached = (sum(row[key] for row in modules) for key in ("lines", "reached"))
    return f"""## Lines that the checks reach

`make stress WHAT=coverage`. It counts the lessons of every notebook and the tests that run in minutes, but
no code of other processes. The checks reach {reached:,} of {total:,} lines, {reached/total:.1%}.

{table(["module", "lines", "reached", "share"], lines, 1)}

*{found['date']}, Python {found['python']}, coverage {found['coverage']}.*"""
