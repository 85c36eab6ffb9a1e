"The paper's protocol on radiographs of a folder: first masks, corrections, key points, and who is held out"
import numpy as np
import pandas as pd
import pytest
from test_cohorts import TEST, TRAIN, VALIDATION, VALIDATION_TABLE, rsna

from boneage.contrast import measure_contrast
from boneage.datasets.annotations import POINT_COLUMNS
from boneage.datasets.profiles import Profile, change_settings
from boneage.datasets.workspace import Workspace, open_workspace
from boneage.networks import load_network
from boneage.paper import pipeline
from boneage.paper.pipeline import make_cohort, run_registration_step, segment_cohort, write_cohort_regions
from boneage.radiographs import read_mask, read_radiograph, write_mask
from boneage.synthetic.phantoms import write_phantoms
from boneage.training.review import DecisionLog, ReviewNeeded, read_candidates

SETTINGS = dict(
    seed=3, cohort=dict(source="folder", train=12, validation=4, test=0, phantoms=6, shape=[128, 100]),
    segmentation=dict(shape=[64, 48], width=4, depth=2, initial_masks=5, rounds=2, shown=0, quality=0.0,
                      batch_size=4, corrected_masks=3, schedule=dict(epochs=12, learning_rate=2e-2)),
    keypoints=dict(labels=9, shape=[65, 50], crop_size=64, widths=[4, 4, 4], hidden=[8], batch_size=8,
                   passes=1, schedule=dict(epochs=1)))
LABELLED = 9  # of the 16 radiographs: masks and key points in DATA


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Workspace:
    "The cohort of a folder with sixteen radiographs, nine of them labelled"
    folder = tmp_path_factory.mktemp("protocol")
    data = write_phantoms(folder/"data", 16, 9, (128, 100))
    masks = sorted((data/"masks").glob("*.png"))
    for path in masks[LABELLED:]: path.unlink()
    points = pd.read_csv(data/"keypoints.csv", dtype={"id": str})
    points[points.id.isin([path.stem for path in masks[:LABELLED]])].to_csv(data/"keypoints.csv", index=False)
    profile = change_settings(Profile("protocol"), SETTINGS | dict(data=str(data)))
    workspace = open_workspace(profile, folder/"work")
    make_cohort(workspace)
    return workspace


@pytest.fixture(scope="module")
def segmented(run) -> pd.DataFrame:
    "The masks of the run, after a person has reviewed the three that were worst"
    with pytest.raises(ReviewNeeded, match="3 of 3 masks wait for review"): segment_cohort(run)
    assert not (run.root/"masks.csv").exists()  # nothing goes on before
    waiting = read_candidates(run.root/"corrections.waiting.npz")
    log = DecisionLog(run.root/"corrections.csv")
    drawn = np.zeros(waiting[0].mask.shape, bool)
    drawn[8:56, 12:36] = True
    log.correct(waiting[0], drawn)
    log.decide(waiting[1:], "accept")
    segment_cohort(run)
    return run.read_table("masks").merge(run.read_table("cohort"), on="id")


def labelled_ids(run, split=None) -> list[str]:
    "Radiographs that DATA has a mask for"
    annotations, cohort = run.read_table("annotations"), run.read_table("cohort")
    ids = annotations.id[annotations["mask"].notna() & (annotations.origin == "data")]
    return cohort.id[cohort.id.isin(ids) & (cohort.split.isin([split] if split else cohort.split))].tolist()


def test_first_round_takes_the_number_of_hand_masks_that_the_profile_says(run, segmented):
    assert len(labelled_ids(run, "train")) >= 5  # so that no phantom is needed
    assert run.read_table("mining").training.iloc[0] == 5


def test_phantoms_stand_in_for_missing_hand_masks(run, tmp_path, monkeypatch):
    "The pool of the first round, without fitting"
    given = {}
    def record(data, *rest):
        given.update(first=list(data.labelled), pool=data.ids)
        raise KeyboardInterrupt
    monkeypatch.setattr(pipeline, "run_positive_mining", record)
    for wanted in (5, 9):
        profile = change_settings(run.profile, dict(segmentation=dict(initial_masks=wanted)))
        other = open_workspace(change_settings(profile, dict(name=f"first{wanted}")), tmp_path)
        make_cohort(other)
        with pytest.raises(KeyboardInterrupt): segment_cohort(other)
        real = set(given["first"]) & set(labelled_ids(other, "train"))
        phantoms = {name for name in given["first"] if name.startswith("phantom-")}
        assert len(real) + len(phantoms) == len(given["first"]) == wanted
        assert len(real) == min(wanted, len(labelled_ids(other, "train")))
        assert {name for name in given["pool"] if name.startswith("phantom-")} == phantoms  # no others


def test_hand_masks_take_the_place_of_predicted_ones(run, segmented):
    assert (segmented.origin == "data").sum() == LABELLED
    assert (segmented.origin == "corrected").sum() == 1
    assert set(segmented.id[segmented.origin == "data"]) == set(labelled_ids(run))
    labels = run.read_table("annotations").set_index("id")["mask"]
    for row in segmented.itertuples():
        used, predicted = read_mask(row.mask), read_mask(row.predicted)
        assert used.shape == read_radiograph(row.path).shape
        if row.origin == "data": assert (used == read_mask(labels[row.id])).all()
        elif row.origin == "predicted": assert (used == predicted).all()
        else: assert (used != predicted).any() and used.any()


def test_corrected_are_the_worst_that_nobody_labelled(run, segmented):
    free = segmented[segmented.origin != "data"].sort_values("quality")
    assert free[free.origin == "corrected"].id.isin(free.id[:3]).all()


def test_hand_masks_are_used_downstream(run, segmented):
    run_registration_step(run)
    contrast = run.read_table("contrast").set_index("id")
    changed = 0
    for row in segmented.itertuples():
        image = read_radiograph(row.path)
        expected = measure_contrast(image, read_mask(row.mask))
        assert contrast.low[row.id] == pytest.approx(expected.low, abs=1e-6)
        if row.origin != "predicted" and read_mask(row.predicted).any():
            changed += measure_contrast(image, read_mask(row.predicted)) != expected
    assert changed
    write_cohort_regions(run)
    assert load_network(run.models/"keypoints")[1]["card"]["images"] == 9  # key points: the profile's number


def test_key_points_of_hands_come_first(run, segmented):
    table = pipeline.read_radiographs_with_masks(run)
    class Measures: crop_from_image = np.eye(3)
    rows, points = pipeline.labelled_points(run, table, [Measures]*len(table))
    ids, real = table.id[rows], set(labelled_ids(run, "train"))
    assert len(rows) == 9 and real <= set(ids)
    assert sum(name.startswith("phantom-") for name in ids) == 9 - len(real)
    labels = run.read_table("annotations").set_index("id").loc[ids, list(POINT_COLUMNS)]
    assert np.allclose(points.reshape(-1, 6), labels.to_numpy(float), equal_nan=True)


def test_test_radiographs_keep_predicted_masks():
    splits = ["train", "validation", "test"]
    rows = pd.DataFrame(dict(id=["a", "b", "c"], split=splits, mask="m", origin="data"))
    assert pipeline.labelled_masks(rows).id.tolist() == ["a", "b"]


def test_later_correction_replaces_a_label(run, tmp_path):
    other = open_workspace(change_settings(run.profile, dict(name="later")), tmp_path)
    make_cohort(other)
    name = labelled_ids(other)[0]
    cohort = other.read_table("cohort")
    shape = read_radiograph(cohort.set_index("id").path[name]).shape
    write_mask(other.path("review", "masks", f"{name}.png"), np.ones(shape, bool))
    found = pipeline.corrected_masks(other, cohort)
    assert found.id.tolist() == [name] and found.origin.tolist() == ["corrected"]


# ------------------------------------------------------------------ the challenge's own validation set

@pytest.mark.parametrize("validation, held_out", [(5, 5), (0, len(VALIDATION))])
def test_challenge_validation_set_is_apart(validation, held_out, tmp_path):
    "The profile's number is held out of the training set; with none, the challenge's set is taken"
    rsna(tmp_path/"data")
    numbers = dict(source="folder", train=35, validation=validation, test=0)
    changes = dict(cohort=numbers, data=str(tmp_path/"data"), segmentation=dict(weights="released"),
                   keypoints=dict(weights="released"))
    workspace = open_workspace(change_settings(Profile("rsna"), changes), tmp_path/"work")
    cohort = make_cohort(workspace).astype({"id": int}).set_index("id")
    aside = workspace.read_table("set_aside").id.astype(int).tolist()
    chosen = cohort.index[cohort.split == "validation"]
    assert len(chosen) == held_out and cohort.split[list(TEST)].eq("test").all()
    assert VALIDATION_TABLE.count("\n") == len(VALIDATION) + 1
    if validation:
        assert sorted(aside) == list(VALIDATION) and not set(aside) & set(cohort.index)
        assert set(chosen) <= set(TRAIN)
    else: assert not aside and sorted(chosen) == list(VALIDATION)


def test_labels_of_the_set_aside_are_not_fitted_on(tmp_path):
    data = tmp_path/"data"
    rsna(data)
    for name in (VALIDATION[0], TRAIN[0]): write_mask(data/"masks"/f"{name}.png", np.ones((4, 4), bool))
    changes = dict(cohort=dict(source="folder", train=35, validation=5, test=0), data=str(data))
    workspace = open_workspace(change_settings(Profile("rsna"), changes), tmp_path/"work")
    make_cohort(workspace)
    assert workspace.read_table("annotations").id.tolist() == [str(TRAIN[0])]
