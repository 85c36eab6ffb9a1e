"The paper on the smoke profile: all outputs, no step twice, and the same numbers after a killed run"
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pandas as pd
import pytest
from conftest import TOKEN, command, copy_project, kill_tree, run
from safetensors.numpy import load_file

from boneage.bone_age import ablation, grid
from boneage.paper.architectures import NETWORK_FOLDERS

REPORTS = sorted(p.stem for p in (Path(__file__).parent.parent/"reports").glob("*.ipynb"))


def numbers(root: Path) -> dict:
    "Every number of a run's results, its predictions and its weights"
    results = {p.name: json.loads(p.read_text()) for p in sorted((root/"results").glob("*.json"))}
    results |= {str(p.relative_to(root)): p.read_text() for p in sorted(root.glob("*.csv"))}
    results |= {str(p.relative_to(root)): p.read_text()
                for p in sorted((root/"models").rglob("predictions.csv"))}
    weights = {str(p.relative_to(root)): {k: v.tobytes() for k, v in load_file(p).items()}
               for p in sorted((root/"models").rglob("model.safetensors"))}
    return results | weights


def wait_for(condition, process, seconds=600):
    "Wait until `condition()` holds while the process runs; whether it did"
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition(): return True
        time.sleep(.02)
    return False


def kill_when(condition, folder):
    "Start the smoke run, and kill it and all that it started once `condition()` holds"
    output, token = folder/"output.txt", uuid.uuid4().hex
    with open(output, "w") as file:
        process = subprocess.Popen(command("paper", "--profile", "smoke"), cwd=folder, stdout=file,
                                   stderr=file, env=os.environ | {TOKEN: token})
    reached = wait_for(condition, process)
    kill_tree(process.pid, token)  # kernels have process groups of their own
    process.wait()
    logs = [file.read_text()[-3000:] for file in (output, folder/"work"/"smoke"/"run.log") if file.is_file()]
    assert reached, "\n".join(["the run ended before it could be killed:", *logs])


def test_run_writes_all_outputs(smoke):
    root = smoke/"work"/"smoke"
    for name in [*grid(), *ablation()]:
        predictions = pd.read_csv(root/"models"/str(name)/"predictions.csv")
        assert predictions.predicted.between(-120, 360).all()
        assert set(predictions.split) == {"validation", "test"}
    assert len(grid()) == 18
    made = {p.stem for p in (root/"notebooks").glob("*.ipynb")}
    # 07 once for each group of models; 14 where the profile has a learning curve, see test_thumbnails.py;
    # 15 once the run that it shows was measured
    measured = (Path(__file__).parent.parent/"boneage"/"data"/"thumbnails.json").is_file()
    assert {r for r in REPORTS if not r.startswith(("07", "14") + ("15",)*(not measured))} <= made
    assert not list((root/"notebooks").glob("*running*")) and not list(root.rglob("*.part"))
    assert set(json.loads((root/"models"/"ensembles.json").read_text())) == {"M", "F", "none"}
    assert (root/"site"/"index.html").is_file()
    used = json.loads((root/"results"/"architectures.json").read_text())
    loaded = {title: json.loads((root/"models"/folder/"config.json").read_text())
              for title, folder in NETWORK_FOLDERS.items()}
    assert {title: row["network"] for title, row in used.items()} == {
        title: config["network"] for title, config in loaded.items()}
    claims = pd.read_csv(root/"results"/"claims_one_by_one.csv")
    assert (claims.topic == "background").sum() == 4


def test_reports_run_without_test_set(smoke, tmp_path):
    "A cohort without a test set, as in the profile `sample`: every report runs"
    folder = copy_project(tmp_path/"project")
    root = folder/"work"/"untested"
    without = shutil.ignore_patterns("site", "notebooks", "hard", "regions", "checkpoints", "results")
    shutil.copytree(smoke/"work"/"smoke", root, ignore=without)
    for table in [root/"cohort.csv", *(root/"models").glob("*-*-*-*/predictions.csv")]:
        rows = pd.read_csv(table, dtype={"id": str})
        rows[rows.split != "test"].to_csv(table, index=False)
    later = shutil.ignore_patterns("*test*", "*claims*", "*ablation*", "*mae*", "*stage*", "submission*")
    shutil.copytree(smoke/"work"/"smoke"/"results", root/"results", ignore=later)
    for name in ("08_ablation", "09_mae_table", "10_stages", "11_test_set", "12_summary", "13_claims"):
        arguments = f"reports/{name}.ipynb", root/"notebooks"/f"{name}.ipynb", f"root={root}"
        done = subprocess.run([sys.executable, "-m", "boneage.paper.run", *arguments], cwd=folder,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads((root/"results"/"test_set.json").read_text())
    assert found["split"] == "validation" and "mae" not in found and found["validation"]["mae"]["n"] == 16
    assert not (root/"results"/"submission.csv").exists()
    cells = json.loads((root/"notebooks"/"11_test_set.ipynb").read_text())["cells"]
    assert "no test set" in json.dumps([cell.get("outputs") for cell in cells])
    claims = pd.read_csv(root/"results"/"claims_one_by_one.csv").set_index("claim").verdict
    assert claims["MAE(validation) > MAE(test)"] == "cannot tell"
    assert "MAE(original) > MAE(normalised)" in claims


def test_rerun_repeats_no_step(smoke):
    root = smoke/"work"/"smoke"
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()
              and p.name not in ("run.log", ".lock")}
    again = run("paper", "--profile", "smoke", cwd=smoke)
    assert again.returncode == 0, again.stdout
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_killed_run_resumes_to_same_results(smoke, tmp_path):
    folder = copy_project(tmp_path/"killed")
    root = folder/"work"/"smoke"
    kill_when(lambda: any((root/"checkpoints").glob("registered-*.safetensors")), folder)  # during training
    assert not (root/"site"/"index.html").exists()
    kill_when((root/"notebooks"/"09_mae_table.running.ipynb").exists, folder)              # during a report
    assert not (root/"notebooks"/"09_mae_table.ipynb").exists()
    done = run("paper", "--profile", "smoke", cwd=folder)
    assert done.returncode == 0, done.stdout[-2000:]
    resumed, uninterrupted = numbers(root), numbers(smoke/"work"/"smoke")
    assert resumed.keys() == uninterrupted.keys()
    for name in resumed: assert resumed[name] == uninterrupted[name], name


def test_bad_rows_and_files_are_named_and_the_rest_is_processed(smoke, tmp_path):
    "A folder of radiographs without masks or key points, some of them unusable"
    folder, data = copy_project(tmp_path/"project"), tmp_path/"data"
    profile = (folder/"reports"/"profiles"/"smoke.yaml").read_text()
    changed = profile.replace("source: phantoms, train: 48, validation: 16, test: 16",
                              "source: folder, train: 0, validation: 6, test: 6, phantoms: 30")
    assert changed != profile
    (folder/"reports"/"profiles"/"folder.yaml").write_text(changed)
    cohort = pd.read_csv(smoke/"work"/"smoke"/"cohort.csv", dtype={"id": str}).iloc[:40]
    images = data/"boneage-training-dataset"
    images.mkdir(parents=True)
    for row in cohort.itertuples(): shutil.copy(smoke/row.path, images/f"{row.id}.png")
    table = pd.DataFrame({"id": cohort.id, "boneage": cohort.bone_age.round().astype(int).astype(object),
                          "male": cohort.sex == "M"})
    table.loc[[3, 4, 5], "boneage"] = [-3, 400, None]
    missing = pd.DataFrame({"id": ["7777777"], "boneage": [100], "male": [True]})
    pd.concat([table, table.iloc[[10]], missing]).to_csv(data/"boneage-training-dataset.csv", index=False)
    (images/f"{cohort.id[20]}.png").write_bytes(b"")
    (images/f"{cohort.id[21]}.png").write_text("no picture")
    done = run("paper", "--profile", "folder", "--data", str(data), cwd=folder)
    assert done.returncode == 1, done.stdout[-2000:]
    problems = [line for line in done.stdout.splitlines() if line.startswith("Problem: ")]
    for text in ("row 5: the bone age -3", "row 6: the bone age 400", "row 7: the bone age is missing",
                 f"row 42: id {cohort.id[10]} occurs a second time",
                 "no image of id 7777777", f"{cohort.id[20]}.png is empty", f"{cohort.id[21]}.png is not a"):
        assert len([p for p in problems if text in p]) == 1, (text, problems)
    assert len(problems) == 7 and "Traceback" not in done.stdout
    root = folder/"work"/"folder"
    assert len(pd.read_csv(root/"registration.csv")) == len(cohort) - 5
    assert (root/"site"/"index.html").is_file()
    assert not [p for p in root.rglob("*") if "running" in p.name or p.suffix == ".part"]


@pytest.mark.parametrize("arguments, sentence", [
    (["--profile", "absent"], "no such profile; there are phantom, release, rsna, sample, smoke"),
    (["--profile", "rsna"], "name their folder with DATA"),
    (["--profile", "sample", "--data", "nowhere"], "nowhere: no such folder"),
    (["--profile", "phantom", "--data", "."], "reads no DATA"),
])
def test_missing_prerequisite_gives_one_line_error(arguments, sentence, tmp_path):
    folder = copy_project(tmp_path/"project")
    done = run("paper", *arguments, cwd=folder)
    assert done.returncode != 0 and sentence in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stdout + done.stderr
    assert not (folder/"work").exists()


def test_unknown_profile_key(tmp_path):
    folder = copy_project(tmp_path/"project")
    (folder/"reports"/"profiles"/"typo.yaml").write_text("bone_age: {epoch: 3}\n")
    done = run("paper", "--profile", "typo", cwd=folder)
    assert done.returncode != 0 and "unknown key 'epoch'" in " ".join((done.stdout + done.stderr).split())
