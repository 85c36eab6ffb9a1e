"""No held-out radiograph reaches a fit of the paper's pipeline, and its reports keep the splits apart

The paper's steps run on a few phantoms; then again after pixels, masks, key points, ages and sexes of the
held-out radiographs were exchanged. The weights of every network must stay the same to the last bit.
"""
import ast
import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_evaluation import random_predictions

from boneage.bone_age import ModelName
from boneage.datasets.annotations import POINT_COLUMNS
from boneage.datasets.preprocessing import measure_radiograph, read_regions
from boneage.datasets.profiles import change_settings, load_profile
from boneage.datasets.workspace import Workspace, open_workspace
from boneage.geometry import transform
from boneage.paper import evaluation, pipeline
from boneage.radiographs import read_mask, read_radiograph, write_mask, write_radiograph
from boneage.segmentation import segmentation_input
from boneage.synthetic.phantoms import write_phantoms

PROJECT = Path(__file__).resolve().parent.parent
PROFILE = """
seed: 3
cohort: {source: folder, train: 8, validation: 3, test: 3}
segmentation: {shape: [32, 24], width: 2, depth: 1, rounds: 2, schedule: {epochs: 1}, shown: 0, quality: 0.0,
               batch_size: 4}
keypoints: {shape: [33, 25], crop_size: 48, widths: [2, 2, 2], hidden: [4], schedule: {epochs: 1},
            batch_size: 4, passes: 1}
bone_age: {scales: {hand: 0.02, carpals: 0.04, metacarpals: 0.03}, widths: [2, 2, 2, 2, 2, 2], hidden: [4],
           schedule: {epochs: 1}, batch_size: 4}
"""
MODELS = [ModelName("registered", "hand", "both", "regression"),
          ModelName("registered", "carpals", "male", "classification")]
FITTED = ["segmentation", "keypoints", *map(str, MODELS)]
pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------ the paper's pipeline

@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_phantoms(tmp_path_factory.mktemp("phantoms"), 14, 3, (96, 75), workers=1)


def prepare(data: Path, folder: Path, exchanged: tuple[str, ...]) -> Workspace:
    "A workspace with its cohort; radiographs of some splits are exchanged for others in all respects"
    shutil.copytree(data, folder/"data")
    (folder/"tiny.yaml").write_text(PROFILE)
    workspace = open_workspace(load_profile(folder/"tiny.yaml", data=str(folder/"data")), folder/"work")
    cohort, columns = pipeline.make_cohort(workspace), list(POINT_COLUMNS)
    annotations = workspace.read_table("annotations").set_index("id").loc[cohort.id].reset_index()
    chosen = cohort.split.isin(exchanged).to_numpy()
    for path in cohort.path[chosen]: write_radiograph(path, 1 - read_radiograph(path)[:, ::-1])
    for path in annotations["mask"][chosen]: write_mask(path, ~read_mask(path))
    annotations.loc[chosen, columns] = annotations.loc[chosen, columns].to_numpy()[::-1] * 0.9
    cohort.loc[chosen, "bone_age"] = 230 - cohort.bone_age[chosen]
    cohort.loc[chosen, "sex"] = cohort.sex[chosen].map({"M": "F", "F": "M"})
    mined = np.flatnonzero(cohort.split == "train")[:3]  # they have no labels
    annotations.loc[mined, [*columns, "mask"]] = None
    workspace.write_table("cohort", cohort)
    workspace.write_table("annotations", annotations)
    return workspace


def fit_paper(workspace: Workspace):
    "Run the steps that fit networks"
    pipeline.segment_cohort(workspace)
    pipeline.run_registration_step(workspace)
    pipeline.write_cohort_regions(workspace)
    for name in MODELS: pipeline.train_model(workspace, name)


def weights_of(workspace: Workspace) -> dict[str, str]:
    "Digest of the weights of each fitted network"
    files = {name: workspace.models/name/"model.safetensors" for name in FITTED}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


@pytest.fixture(scope="module")
def paper(data, tmp_path_factory) -> Workspace:
    "The undisturbed run"
    workspace = prepare(data, tmp_path_factory.mktemp("paper"), ())
    fit_paper(workspace)
    return workspace


def test_held_out_radiographs_and_labels_change_no_weight(paper, data, tmp_path):
    other = prepare(data, tmp_path, ("validation", "test"))
    fit_paper(other)
    before, after = weights_of(paper), weights_of(other)
    assert [name for name in FITTED if before[name] != after[name]] == [], "fitted on held-out radiographs"
    assert not paper.read_table("masks").equals(other.read_table("masks"))  # the exchange reached the run


def test_training_radiographs_change_all_weights(paper, data, tmp_path):
    other = prepare(data, tmp_path, ("train",))
    fit_paper(other)
    before, after = weights_of(paper), weights_of(other)
    assert [name for name in FITTED if before[name] == after[name]] == []


def test_mining_fits_each_mask_to_its_radiograph(paper, monkeypatch):
    "Only training radiographs, each with its own pixels and label; others are candidates"
    passed = []
    def recorded(data, *others):
        passed.append(data)
        return SimpleNamespace(rounds=None)
    monkeypatch.setattr(pipeline, "run_positive_mining", recorded)
    table, shape = pipeline.read_radiograph_table(paper), (32, 24)
    radiographs, inputs, _ = pipeline.read_segmentation_inputs(table, shape)
    pipeline._mine_masks(paper, radiographs, inputs)
    data, known = passed[0], table[table.split == "train"].set_index("id")
    assert sorted(data.ids) == sorted(known.index) and len(data.ids) == 8
    assert set(data.labelled) == set(known.index[known["mask"].notna()]) and len(data.labelled) == 5
    truth = pipeline.true_masks(table, shape)
    for name, image in zip(data.ids, data.inputs):
        assert np.array_equal(image, segmentation_input(read_radiograph(known.path[name]), shape)[0])
    for name, mask in data.labelled.items(): assert np.array_equal(mask, truth[name])


def test_key_points_are_fitted_on_the_crops_of_their_radiographs(paper, monkeypatch):
    passed = []
    monkeypatch.setattr(pipeline, "fit_key_points", lambda *arguments: passed.append(arguments))
    pipeline.run_registration_step(paper)
    crops, points, settings, job = passed[0]
    assert (settings, job.seed) == (paper.profile.keypoints, paper.profile.seed)
    labels = paper.read_table("annotations").merge(paper.read_table("cohort")[["id", "split"]])
    labels = labels[(labels.split == "train") & labels.thumb_tip_x.notna()].set_index("id")
    masks, expected = paper.read_table("masks").set_index("id")["mask"], []
    for name in labels.index:
        measures = measure_radiograph(labels.path[name], masks[name], 48)
        own = labels.loc[name, list(POINT_COLUMNS)].to_numpy(float).reshape(3, 2)
        expected.append((measures.crop, transform(own, measures.crop_from_image)))
    assert len(expected) == len(crops) == 5
    for crop, own in zip(crops, points):
        assert any(np.array_equal(crop, other) and np.allclose(own, label) for other, label in expected)


def test_bone_age_models_get_the_rows_of_their_regions(paper, monkeypatch):
    passed = []
    monkeypatch.setattr(pipeline, "fit_bone_age", lambda *arguments: passed.append(arguments))
    monkeypatch.setattr(pipeline, "read_regions", lambda *_: read_some(paper))
    pipeline.train_model(paper, MODELS[0])
    _, regions, cohort, settings, job = passed[0]
    assert (settings, job.seed) == (paper.profile.bone_age, paper.profile.seed)
    known = paper.read_table("cohort").set_index("id")
    pd.testing.assert_frame_equal(cohort.set_index("id"), known.loc[cohort.id])
    assert cohort.id.tolist() == read_some(paper)[1].tolist()


def read_some(workspace: Workspace):
    "Regions of some radiographs, in another order than that of the cohort"
    images, ids = read_regions(workspace.root/"regions", "registered", "hand")
    return images[10:2:-1], ids[10:2:-1]


def test_regions_do_not_depend_on_the_order_of_tables(paper, tmp_path):
    other = Workspace(tmp_path/"other")
    shutil.copytree(paper.root, other.root, ignore=shutil.ignore_patterns("regions", "models", "checkpoints"))
    for name in ("contrast", "masks", "cohort", "annotations"):
        other.write_table(name, other.read_table(name).iloc[::-1])
    pipeline.write_cohort_regions(other)
    for kind in (("original", "hand"), ("registered", "carpals")):
        (images, ids), (others, same) = (read_regions(run.root/"regions", *kind) for run in (paper, other))
        assert ids.tolist() == same.tolist() and np.array_equal(images, others)


def test_composites_leave_out_hands_of_the_cohort(paper, monkeypatch):
    passed = {}
    def recorded(*arguments, without=()):
        passed["without"] = list(without)
        return pd.DataFrame(dict(id=["composite-0"]))
    monkeypatch.setattr(pipeline, "write_composites", recorded)
    pipeline._composites(paper)
    assert sorted(passed["without"]) == sorted(paper.read_table("cohort").id)


@pytest.mark.parametrize("step, evaluate", [("segmentation", pipeline.evaluate_masks),
                                            ("keypoints", pipeline.evaluate_registration)])
def test_errors_of_released_networks_are_not_called_held_out(paper, step, evaluate, tmp_path):
    "They were fitted on these radiographs; a network of the run has the splits of its cohort"
    assert set(evaluate(paper).split) == {"train", "validation", "test"}
    profile = change_settings(paper.profile, {step: dict(weights="released")})
    released = open_workspace(profile, tmp_path)
    for file in paper.root.glob("*.csv"): shutil.copy(file, released.root)
    assert set(evaluate(released).split) == {pipeline.IN_TRAINING_SET}


# ------------------------------------------------------------------ reports

def test_report_fits_its_ensemble_on_validation_radiographs(tmp_path):
    "The cell of the report on the test set, run on made-up predictions"
    cells = json.loads((PROJECT/"reports"/"11_test_set.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    code = next(source for source in sources if "fit_ensemble_rules(" in source)
    def run(single, split="test"):
        names = vars(evaluation) | dict(single=single, split=split, selected=single[single.split == split],
                                        workspace=SimpleNamespace(models=tmp_path),
                                        write_ensemble_rules=lambda path, rules: None)
        exec(compile(code, "report", "exec"), names)
        return names["rules"], names["ensemble_prediction"]
    single = random_predictions(60).query("input == 'registered'")
    rules, predicted = run(single)
    for split in ("test", "validation"):
        moved = single.assign(bone_age=single.bone_age + 30*(single.split == split)*(single.sex == "M"))
        assert (run(moved)[0] == rules) == (split == "test"), split
    expected = evaluation.cross_fitted_ensemble_predictions(single[single.split == "validation"])
    pd.testing.assert_frame_equal(run(single, "validation")[1], expected)


def test_reports_name_the_split_of_their_numbers():
    "Every report that reads predictions selects one held-out split, or compares both"
    found = {}
    for path in sorted((PROJECT/"reports").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)
                 and getattr(node.func, "id", "") == "gather_predictions"]
        if calls: found[path.stem] = [[ast.unparse(part) for part in call.args[1:]] for call in calls]
    assert found["08_ablation"] == [["'validation'"]]
    assert found["09_mae_table"] == found["10_stages"] == [["split"]]
    assert found["11_test_set"] == [[]]  # selects the rows of the split itself
