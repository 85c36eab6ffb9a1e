# The paper as a graph of reports and their inputs. `boneage paper` (or `make paper`) runs it.
# The settings of a run are in its profile.
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from boneage.datasets.workspace import Workspace
from boneage.paper.run import model_groups, report_inputs

W = config["workspace"]                      # work/<run>, opened by `boneage paper`
profile = asdict(Workspace(Path(W)).profile)
FITS = [profile["bone_age"][key] for key in ("fits", "fits_of_one_sex")]
GROUPS = model_groups(profile["models_per_run"], *FITS)
MODELS = sum(GROUPS, [])
MODEL_FILES = "model.safetensors", "config.json", "history.csv", "predictions.csv"
REPORTS = ["01_cohort", "02_segmentation", "03_registration", "04_preprocessing", "05_released",
           "06_architectures", "08_ablation", "09_mae_table", "10_stages", "11_test_set", "12_summary",
           "13_claims"]
if profile["learning_curve"]["radiographs"]: REPORTS.insert(-2, "14_learning_curve")
if Path("boneage/data/thumbnails.json").is_file(): REPORTS.append("15_thumbnails")  # once it was measured
REPORTS.append("16_article")

# Resources of a report that fits networks. On one computer, one such report runs at a time.
# On a cluster it gets a GPU, if the partition has any, and a time limit of its own.
FITTING = dict(trainer=1)
if "gpus" in config: FITTING |= dict(gpu=config["gpus"], runtime=profile["cluster"]["fit_minutes"])


def keys(*names):
    "The part of the profile that a job uses; the job is out of date when this part changes"
    return {name: profile[name] for name in ("seed", "data", "limit", *names)}


def report(name):
    "The files whose change makes a report out of date"
    return report_inputs(f"reports/{name}.ipynb")


def released(name):
    "The files of the released network, if the run takes it instead of fitting its own"
    if profile[name]["weights"] != "released": return []
    return [str(path) for path in sorted(Path(f"boneage/weights/{name}").glob("*"))]


def quoted(text):
    "A word of a shell command, whatever is in the clone's path; Snakemake replaces what is in single braces"
    return shlex.quote(text).replace("{", "{{").replace("}", "}}")


# Every job runs one report. Its params say which; they are evaluated when the rule is defined, a shell
# command later.
SHELL = (f"{quoted(sys.executable)} -m boneage.paper.run reports/{{params.report}}.ipynb "
         f"{quoted(W)}/notebooks/{{params.executed}}.ipynb {quoted(f'root={W}')} {{params.more}}")


def notebook(name):
    "The executed copy of a report"
    return f"{W}/notebooks/{name}.ipynb"


def model(name, *files):
    "Files of a fitted network"
    return [f"{W}/models/{name}/{file}" for file in files]


def job(name, executed="", more="", **used):
    "The params of a job: the report, its parameters, and the part of the profile that it uses"
    return dict(report=name, executed=executed or name, more=more, used=used)


# These reports only count and plot. On a cluster, a job in the queue would take longer.
localrules:
    all, released, thumbnails, architectures, ablation, mae_table, stages, test_set, summary, claims, article, site,


rule all:
    input: f"{W}/site/index.html"


rule cohort:
    input: report("01_cohort")
    output:
        f"{W}/cohort.csv", f"{W}/annotations.csv", f"{W}/results/cohort.json",
        notebook("01_cohort"),
    params: **job("01_cohort", **keys("cohort"))
    threads: 2
    shell: SHELL


rule segmentation:
    input:
        report("02_segmentation"), released("segmentation"), f"{W}/cohort.csv", f"{W}/annotations.csv",
    output:
        model("segmentation", "model.safetensors"), f"{W}/mining.csv", f"{W}/masks.csv",
        f"{W}/results/background.csv", f"{W}/results/segmentation.json", notebook("02_segmentation"),
    params: **job("02_segmentation", **keys("segmentation"))
    threads: 2
    resources: **FITTING
    shell: SHELL


rule registration:
    input: report("03_registration"), released("keypoints"), f"{W}/masks.csv"
    output:
        model("keypoints", "model.safetensors"), f"{W}/contrast.csv", f"{W}/registration.csv",
        f"{W}/results/registration.json", notebook("03_registration"),
    params: **job("03_registration", **keys("keypoints"))
    threads: 2
    resources: **FITTING
    shell: SHELL


rule preprocessing:
    input: report("04_preprocessing"), f"{W}/registration.csv", f"{W}/contrast.csv"
    output: f"{W}/regions/ids.csv", notebook("04_preprocessing")
    params: **job("04_preprocessing", **{key: profile["bone_age"][key] for key in ("margin", "scales", "boxes")})
    threads: 2
    shell: SHELL


rule released:
    input:
        report("05_released"), f"{W}/cohort.csv",
        [str(path) for path in sorted(Path("boneage/weights").rglob("*.json"))],
    output: notebook("05_released")
    params: **job("05_released")
    shell: SHELL


rule thumbnails:
    input: report("15_thumbnails"), f"{W}/cohort.csv", [str(path) for path in Path("boneage/data").glob("*.json")]
    output: notebook("15_thumbnails")
    params: **job("15_thumbnails")
    shell: SHELL


for number, group in enumerate(GROUPS):
    rule:
        name: f"training_{number}"
        input: report("07_training"), f"{W}/regions/ids.csv"
        output:
            [model(name, *MODEL_FILES) for name in group],
            notebook(f"07_training_{number}"),
        params: **job("07_training", f"07_training_{number}", f"models={','.join(group)}", **keys("bone_age"))
        threads: 2
        resources: **FITTING
        shell: SHELL


rule architectures:
    input:
        report("06_architectures"), model("segmentation", "model.safetensors"),
        model("keypoints", "model.safetensors"), model("registered-hand-both-regression", "config.json"),
        model("registered-hand-both-classification", "config.json"),
    output: notebook("06_architectures"), f"{W}/results/architectures.json"
    params: **job("06_architectures")
    shell: SHELL


AFTER_TRAINING = dict(ablation="08_ablation", mae_table="09_mae_table", stages="10_stages",
                      test_set="11_test_set")

for name, made in AFTER_TRAINING.items():
    rule:
        name: name
        input: report(made), [model(fitted, "predictions.csv") for fitted in MODELS]
        output:
            notebook(made), f"{W}/results/{name}.json",
            [f"{W}/models/ensembles.json"] if name == "test_set" else [],
        params: **job(made, **keys())
        shell: SHELL


rule learning_curve:
    input: report("14_learning_curve"), [model(fitted, "predictions.csv") for fitted in MODELS]
    output: notebook("14_learning_curve"), f"{W}/results/learning_curve.json"
    params: **job("14_learning_curve", **keys("bone_age", "learning_curve"))
    threads: 2
    resources: **FITTING
    shell: SHELL


rule summary:
    input:
        report("12_summary"),
        [f"{W}/results/{name}.json" for name in ("cohort", "segmentation", "registration", "architectures",
                                                 *AFTER_TRAINING)],
    output: notebook("12_summary"), f"{W}/results/summary.json"
    params: **job("12_summary", **keys())
    shell: SHELL


rule claims:
    input:
        report("13_claims"), f"{W}/results/background.csv",
        [f"{W}/results/{name}.json" for name in AFTER_TRAINING],
    output: notebook("13_claims"), f"{W}/results/claims_one_by_one.json"
    params: **job("13_claims", **keys())
    shell: SHELL


# The article is a page of the site, and a PDF that is printed from this page.
IN_ARTICLE = [f"{W}/results/{name}.json" for name in
              ("segmentation", "registration", "summary", "claims_one_by_one", *AFTER_TRAINING)]
IN_ARTICLE += [notebook(name) for name in REPORTS if name == "15_thumbnails"]  # it makes figures of the article
IN_ARTICLE += [path for path in ("boneage/data/thumbnails.json", "boneage/weights/bone-age.json")
               if Path(path).is_file()]
PRINTING = "tools/build_article.py", "reports/references.bib", "reports/article.typ"
PRINT = (f"{SHELL} && {quoted(sys.executable)} tools/build_article.py --root {quoted(W)} "
         f"--out {quoted(W)}/article.pdf")


rule article:
    input: report("16_article"), IN_ARTICLE, PRINTING
    output: notebook("16_article"), f"{W}/article.pdf"
    params: **job("16_article", **keys())
    shell: PRINT


# What the site shows besides the reports: its own files, the benchmarks and the notebooks.
SITE = [path for path in sorted(Path("tools").rglob("*")) if path.is_file() and "site" in str(path)]
NOTEBOOKS = [path for folder in ("nbs", "howto", "play") for path in sorted(Path(folder).rglob("*.ipynb"))
             if ".ipynb_checkpoints" not in path.parts]
SHOWN = ["_quarto.yml", *map(str, [*SITE, *sorted(Path("benchmarks").glob("*.json")), *NOTEBOOKS])]


rule site:
    input: [notebook(name) for name in REPORTS], f"{W}/article.pdf", SHOWN
    output: f"{W}/site/index.html"
    shell: f"{quoted(sys.executable)} tools/build_site.py --root {quoted(W)} --out {quoted(W)}/site"
