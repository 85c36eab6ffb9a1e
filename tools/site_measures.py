"The pages of the site that show what was measured of the library itself: speed and reliability, from the files that `make bench` and its like have written"
import json
from pathlib import Path

BENCHMARKS = Path(__file__).absolute().parent.parent/"benchmarks"


def read(name: str) -> dict:
    "What a command wrote; empty where it has not been run"
    path = BENCHMARKS/f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def number(value: float) -> str:
    "Three digits that count"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def format_machine(machine: dict) -> str:
    "Date, machine and versions in a line"
    return "*" + ", ".join(f"{key} {value}" if key in ("python", "torch", "opencv", "numpy", "allocator", "gpu") else f"{value} cores" if key == "cores" else str(value) for key, value in machine.items()) + ".*"


def table(heads: list[str], lines: list[list[str]], right: int) -> str:
    "A table in Markdown whose columns from `right` on hold numbers"
    rule = ["--:" if n >= right else ":--" for n in range(len(heads))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, rule, *lines])


def speed_page() -> str:
    "The page on speed"
    found = read("results")
    if not found: return "Nothing has been measured yet: `make bench` does.\n"
    parts = ["Medians of several calls; what is compared was measured in turns in the same run, at the same allocator setting. `make bench` measures all of it on your computer.\n", format_machine(found["machine"]), WHAT_A_SHARE_IS, *figure_tables(found)]
    gpu = read("gpu")
    if gpu: parts += ["\n" + ON_A_GPU, format_machine(gpu["machine"]), *figure_tables(gpu)]
    cuts = read("cuts")
    if cuts: parts.append(f"\n## What was cut\n\n{CUTS}\n\n" + table(["", "before", "after", "ratio"], [[row["what"], f"{number(row['before'])} {row['unit']}", f"{number(row['after'])} {row['unit']}", f"{row['ratio']:.2f}"] for row in cuts["rows"]], 1) + "\n\n" + format_machine(cuts["machine"]))
    return "\n".join(parts) + "\n"


def figure_tables(found: dict) -> list[str]:
    "A section a table of figures"
    parts = []
    for title, figures in found["tables"].items():
        shares = any("limit" in figure for figure in figures)
        lines = [[figure["what"], f"{number(figure['value'])} {figure['unit']}"] + [f"{figure['limit']:.0%} of {figure['bound']}" if figure.get("limit") else ""]*shares + [figure.get("note", "")] for figure in figures]
        keep = [n for n in range(len(lines[0])) if n < 2 or any(line[n] for line in lines)]
        heads = ["", "figure"] + ["of the best possible"]*shares + [""]
        parts.append(f"\n## {title}\n\n" + table([heads[n] for n in keep], [[line[n] for n in keep] for line in lines], 1))
    return parts


WHAT_A_SHARE_IS = """
*Of the best possible*: what this computer needs at least for the part that can't be left out (to decode the file, to do the multiplications of the networks' convolutions, to warp the picture), measured in the same run, as a share of what the step takes."""

ON_A_GPU = "What follows was measured on another computer, with a GPU: `make bench-gpu`."

CUTS = "The code before and after, in turns in one run: `make bench-against REVISION=…` does it with any two revisions."


def reliability_page() -> str:
    "The page on reliability"
    parts = ["What was done to break the library, and what came of it. Each table is written by the command that stands above it, which anyone can run; the tests run a small part of each.\n"]
    for section in (fuzzing, guided, crashes, determinism, mutants, coverage):
        text = section()
        if text: parts.append(text)
    return "\n\n".join(parts) + "\n"


def fuzzing() -> str:
    "Damaged and invented files"
    found = read("fuzz")
    if not found: return ""
    lines = [[row["reader"], f"{row['inputs']:,}", f"{row['read']:,}", f"{row['refused']:,}"] for row in found["rows"]]
    total = sum(row["inputs"] for row in found["rows"])
    return (f"## Damaged and invented files\n\n`make fuzz`. {total:,} files, mutated or made up by hypothesis, went through every reader in {found['seconds']:.0f} s: each was read or refused with a sentence of our own; "
            f"none hung, none left a traceback, and no more than {found['memory']:.2f} GB was taken.\n\n" + table(["reader", "files", "read", "refused in a sentence"], lines, 1) + "\n\n" + format_machine(found["machine"]))


def guided() -> str:
    "Files made by what those before them reached"
    found = read("guided")
    if not found: return ""
    lines = [[row["reader"], *(f"{row[key]:,}" for key in ("inputs", "seconds", "before", "reached")), str(len(row["findings"]))] for row in found["rows"]]
    total, findings = (sum(count) for count in zip(*((row["inputs"], len(row["findings"])) for row in found["rows"])))
    verdict = "each was read or refused with a sentence of our own, in at most 10 s and 2 GB" if not findings else f"some are findings, {findings} in all"
    return (f"## Files made by what those before them reached\n\n`make fuzz-guided`. The same readers, and the same promises. Here libFuzzer, through atheris {found['atheris']}, changes a file, and goes on from it where it reached a branch of the library, of pydicom or of PyYAML that none before it had. "
            f"Of {total:,} files {verdict}. Branches are counted in Python alone, and of the library only those that a reader comes to; *before* are those of the files it starts from. ONNX Runtime, which is not Python, is left to the files above.\n\n"
            + table(["reader", "files", "seconds", "branches before", "branches reached", "findings"], lines, 1) + "\n\n" + format_machine(found["machine"]))


def crashes() -> str:
    "Killed processes and full disks"
    found = read("crash")
    if not found: return ""
    total, kinds = found["totals"], [kind for kind in next(iter(found["stages"].values()))["kills"]]
    lines = [[stage, *(str(row["kills"][kind]) for kind in kinds), str(row["reruns"]), str(row["full_disk"]), str(row["findings"])] for stage, row in found["stages"].items()]
    verdict = "every rerun ended in the undisturbed result, and no file was half-written" if not found["findings"] else "what was found stands below"
    text = (f"## Killed processes and full disks\n\n`make crash`. {total['kills']} times a stage of the work was ended without a warning, by `kill -9` at a random time or between two of its steps, or by the system in the middle of a write (at a limit of the file's size), and run again; "
            f"{total['full_disk']} times its disk was full: {verdict}. "
            "Stages are making phantoms, mining masks, fitting a network, cutting region arrays, running a report and exporting weights, each at a small size. A kill may be followed by another before the stage ends, and a stage that had been finished need not run again, so that kills and runs again differ; "
            "a finding is a file that is not whole, a result that differs, or a file left over.\n\n" + table(["stage", *(f"killed {kind}" for kind in kinds), "runs again", "full disks", "findings"], lines, 1))
    listed = "".join(f"\n- {sentence}" for sentence in found["findings"])
    return text + (f"\n{listed}" if listed else "") + f"\n\n*{found['date']}, {found['seconds']} s, seed {found['seed']}, {found['versions']}.*"


def determinism() -> str:
    "The same numbers twice"
    found, gpu = read("determinism"), read("gpu")
    if not found: return ""
    def same(row):
        if "files" in row: return [row["what"], f"{row['differing']} of {row['files']} files differ"]
        return [row["what"], "the same to the last bit" if row["weights"] == row["months"] == 0 else f"weights differ by at most {row['weights']:.1g}, predictions by {row['months']:.1g} months"]
    def listed(rows, machine): return table(["", ""], [same(row) for row in rows], 2) + "\n\n" + format_machine(machine)
    text = ("## The same numbers twice\n\n`make determinism`. The seed fixes a run on one kind of computer and number of threads. With another number of threads sums are added in another order, and a fit goes a slightly different way, "
            "by the months in the table. A GPU adds in another order as well.\n\n" + listed(found["rows"], found["machine"]))
    return text + ("\n\nOn a GPU (`make bench-gpu`):\n\n" + listed(gpu["determinism"], gpu["machine"]) if gpu else "")


def mutants() -> str:
    "Changes that the tests should notice"
    found = read("mutants")
    if not found: return ""
    heads = ["subject", "module", "changes", "not noticed before", "noticed now", "never ends", "explained", "left"]
    lines = [[row["subject"], row["module"], f"{row['now']['mutants']:,}", str(row["before"]["survived"]), str(row["now"]["killed"]), str(row["now"]["timed_out"]), str(row["now"]["explained"]), str(row["now"]["survived"] - row["now"]["explained"])]
             for row in found["modules"]]
    left = [row for row in found["survivors"] if not row["why"]]
    reasons = {}
    for row in found["survivors"]: reasons.setdefault(row["why"] or "not explained", []).append(f"`{row['module']}.{row['where']}`")
    listed = "\n".join(f"- {why.rstrip(chr(46))}: {len(where)} ({', '.join(sorted(set(where)))})" for why, where in sorted(reasons.items(), key=lambda item: -len(item[1])))
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (f"## Would a test notice?\n\n`make mutants`. {' '.join(found['about'])}\n\n{sum(row['now']['mutants'] for row in found['modules']):,} changes, {len(left)} of which no check notices and nobody has explained.\n\n"
            + table(heads, lines, 2) + f"\n\nThose that no check notices, and why they may live:\n\n{listed}\n\n*{found['date']}, Python {found['python']}, {versions}.*")


def coverage() -> str:
    "Lines that the tests reach"
    found = read("coverage")
    if not found: return ""
    lines = [[row["module"], f"{row['lines']:,}", f"{row['reached']:,}", f"{row['percent']:.0f} %"] for row in sorted(found["modules"], key=lambda row: row["percent"])]
    return (f"## Lines that the tests reach\n\n`make coverage`. {' '.join(found['about'].split())} In all, {found['reached']:,} of {found['lines']:,} lines, {found['percent']} %.\n\n"
            + table(["module", "lines", "reached", ""], lines, 1) + f"\n\n*{found['date']}, Python {found['python']}, coverage {found['coverage']}.*")
