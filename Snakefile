# The paper as a graph: which report needs what. `boneage paper` (or `make paper`) runs it; every number stands in the profile.
import sys
from dataclasses import asdict
from pathlib import Path

from boneage.paper.run import model_groups, report_inputs
from boneage.datasets.workspace import Workspace

W = config["workspace"]                      # work/<run>, opened by `boneage paper`
profile = asdict(Workspace(Path(W)).profile)
GROUPS = model_groups(profile["models_per_run"])
MODELS = sum(GROUPS, [])
REPORTS = "01_cohort 02_segmentation 03_registration 04_preprocessing 05_released 06_architectures 08_ablation 09_mae_table 10_stages 11_test_set 12_summary 13_claims".split()

# A report that fits networks: on one computer the only one at a time; on a cluster with a GPU, where there is one, and time of its own.
FITTING = dict(trainer=1)
if "gpus" in config: FITTING |= dict(gpu=config["gpus"], runtime=profile["cluster"]["fit_minutes"])


def keys(*names):
    "The part of the profile that a job uses: a change of any of it, and of nothing else, makes the job out of date"
    return {name: profile[name] for name in ("seed", "data", "limit", *names)}


def report(name):
    "What makes a report out of date"
    return report_inputs(f"reports/{name}.ipynb")


def released(name):
    "The released network that a run takes instead of fitting its own"
    return [str(p) for p in sorted(Path(f"boneage/weights/{name}").glob("*"))] if profile[name]["weights"] == "released" else []


# Every job is one report; what differs stands in its params, which (unlike a shell command) are read when the rule is made.
SHELL = f"{sys.executable} -m boneage.paper.run reports/{{params.report}}.ipynb {W}/notebooks/{{params.executed}}.ipynb root={W} {{params.more}}"


def job(name, executed="", more="", **used):
    "The params of a report: what to run, and the part of the profile that it uses"
    return dict(report=name, executed=executed or name, more=more, used=used)


# On a cluster the others become jobs; these only count and draw, and waiting in a queue would take longer.
localrules: all, released, architectures, ablation, mae_table, stages, test_set, summary, claims, site


rule all:
    input: f"{W}/site/index.html"


rule cohort:
    input: report("01_cohort")
    output: f"{W}/cohort.csv", f"{W}/annotations.csv", f"{W}/results/cohort.json", f"{W}/notebooks/01_cohort.ipynb"
    params: **job("01_cohort", **keys("cohort"))
    threads: 2
    shell: SHELL


rule segmentation:
    input: report("02_segmentation"), released("segmentation"), f"{W}/cohort.csv", f"{W}/annotations.csv"
    output: f"{W}/models/segmentation/model.safetensors", f"{W}/mining.csv", f"{W}/masks.csv", f"{W}/results/segmentation.json", f"{W}/notebooks/02_segmentation.ipynb"
    params: **job("02_segmentation", **keys("segmentation"))
    threads: 2
    resources: **FITTING
    shell: SHELL


rule registration:
    input: report("03_registration"), released("keypoints"), f"{W}/masks.csv"
    output: f"{W}/models/keypoints/model.safetensors", f"{W}/contrast.csv", f"{W}/registration.csv", f"{W}/results/registration.json", f"{W}/notebooks/03_registration.ipynb"
    params: **job("03_registration", **keys("keypoints"))
    threads: 2
    resources: **FITTING
    shell: SHELL


rule preprocessing:
    input: report("04_preprocessing"), f"{W}/registration.csv", f"{W}/contrast.csv"
    output: f"{W}/regions/ids.csv", f"{W}/notebooks/04_preprocessing.ipynb"
    params: **job("04_preprocessing", margin=profile["bone_age"]["margin"], scales=profile["bone_age"]["scales"])
    threads: 2
    shell: SHELL


rule released:
    input: report("05_released"), [str(p) for p in sorted(Path("boneage/weights").rglob("*.json"))], f"{W}/cohort.csv"
    output: f"{W}/notebooks/05_released.ipynb"
    params: **job("05_released")
    shell: SHELL


for number, group in enumerate(GROUPS):
    rule:
        name: f"training_{number}"
        input: report("07_training"), f"{W}/regions/ids.csv"
        output: [f"{W}/models/{name}/{file}" for name in group for file in ("model.safetensors", "config.json", "history.csv", "predictions.csv")], f"{W}/notebooks/07_training_{number}.ipynb"
        params: **job("07_training", f"07_training_{number}", f"models={','.join(group)}", **keys("bone_age"))
        threads: 2
        resources: **FITTING
        shell: SHELL


rule architectures:
    input: report("06_architectures"), f"{W}/models/segmentation/model.safetensors", f"{W}/models/keypoints/model.safetensors", expand(f"{W}/models/registered-hand-both-{{head}}/config.json", head=["regression", "classification"])
    output: f"{W}/notebooks/06_architectures.ipynb", f"{W}/results/architectures.json"
    params: **job("06_architectures")
    shell: SHELL


for name, made in dict(ablation="08_ablation", mae_table="09_mae_table", stages="10_stages", test_set="11_test_set").items():
    rule:
        name: name
        input: report(made), [f"{W}/models/{model}/predictions.csv" for model in MODELS]
        output: f"{W}/notebooks/{made}.ipynb", f"{W}/results/{name}.json", ([f"{W}/models/ensembles.json"] if name == "test_set" else [])
        params: **job(made, **keys())
        shell: SHELL


rule summary:
    input: report("12_summary"), expand(f"{W}/results/{{name}}.json", name="cohort segmentation registration architectures ablation mae_table stages test_set".split())
    output: f"{W}/notebooks/12_summary.ipynb", f"{W}/results/summary.json"
    params: **job("12_summary", **keys())
    shell: SHELL


rule claims:
    input: report("13_claims"), expand(f"{W}/results/{{name}}.json", name="ablation mae_table stages test_set".split())
    output: f"{W}/notebooks/13_claims.ipynb", f"{W}/results/claims_one_by_one.json"
    params: **job("13_claims", **keys())
    shell: SHELL


# What the site shows besides the reports: how it is made, what was measured of the library, and the notebooks.
SHOWN = ["_quarto.yml", *(str(p) for p in sorted(Path("tools").rglob("*")) if p.is_file() and "site" in str(p)), *(str(p) for p in sorted(Path("benchmarks").glob("*.json"))),
         *(str(p) for folder in ("nbs", "howto", "play") for p in sorted(Path(folder).glob("*.ipynb")))]


rule site:
    input: expand(f"{W}/notebooks/{{name}}.ipynb", name=REPORTS), SHOWN
    output: f"{W}/site/index.html"
    shell: f"{sys.executable} tools/build_site.py --root {W} --out {W}/site"
