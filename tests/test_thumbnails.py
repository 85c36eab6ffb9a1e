"""The profile `thumbnail` on sixty phantoms, from files to claims: the profile's own settings, with tiny
networks, one epoch each, and two fits of each model for both sexes."""
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from boneage.bone_age import ablation, grid, repeat_models
from boneage.datasets.annotations import POINT_COLUMNS, read_key_points, read_mask_folder
from boneage.datasets.cohorts import load_cohort, used_rsna_ids
from boneage.datasets.preprocessing import MATRIX_COLUMNS
from boneage.datasets.profiles import FineTuningSettings, Profile, change_settings, load_profile
from boneage.datasets.thumbnails import make_thumbnail
from boneage.datasets.workspace import open_workspace, read_problems
from boneage.ensembles import EnsembleRule
from boneage.inference import WeightsError, read_config
from boneage.paper import pipeline
from boneage.paper.claims import pooled_claims, preprocessing_claims, region_claims
from boneage.paper.evaluation import ensemble_predictions, gather_predictions, score
from boneage.paper.learning_curve import curve_table, gather_curve, size_claims
from boneage.paper.run import run_report
from boneage.radiographs import read_mask, read_radiograph, write_mask, write_radiograph
from boneage.registration import frame_from_key_points
from boneage.release import ages
from boneage.synthetic.phantoms import write_phantoms

REPORTS = Path(__file__).resolve().parent.parent/"reports"
PROFILE = REPORTS/"profiles"/"thumbnail.yaml"
TINY = dict(bone_age=dict(schedule=dict(epochs=1), widths=[4, 4, 8, 8, 8, 8], hidden=[8, 8], fits=2),
            learning_curve=dict(radiographs=[16, 32, 200], draws=2, shown=0))
MODELS = repeat_models([*grid(), *ablation()], fits=2)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("thumbnails")
    write_phantoms(folder/"data", 60, 3, (256, 200))
    profile = change_settings(load_profile(PROFILE, data=str(folder/"data")), TINY)
    workspace = open_workspace(profile, folder/"work")
    pipeline.make_cohort(workspace)
    pipeline.segment_cohort(workspace)
    pipeline.run_registration_step(workspace)
    pipeline.write_cohort_regions(workspace)
    for name in MODELS: pipeline.train_model(workspace, name)
    for part in pipeline.curve_parts(workspace): pipeline.fit_on_part(workspace, *part)
    return workspace


def test_full_run_has_the_papers_numbers():
    profile = load_profile(PROFILE, data="radiographs")
    assert (profile.cohort.train, profile.cohort.validation) == (11_591, 1_000)
    assert len(profile.bone_age.widths) == 6 and len(profile.bone_age.hidden) == 2
    assert profile.bone_age.fits >= 3
    assert profile.segmentation.weights == profile.keypoints.weights == "released"


def test_thumbnails_are_those_of_opencv(tmp_path):
    greys = np.random.default_rng(0).integers(0, 256, (1100, 815), dtype=np.uint8)
    write_radiograph(tmp_path/"image.png", greys/np.float32(255))
    expected = cv2.resize(greys, (100, 100), interpolation=cv2.INTER_NEAREST_EXACT)
    found = make_thumbnail(read_radiograph(tmp_path/"image.png"))
    assert (np.rint(found*255) == expected).all()
    assert make_thumbnail(found) is found


def test_same_radiographs_are_left_out_of_all_inputs(workspace):
    registration = workspace.read_table("registration")
    kept = registration.id[registration.confidence >= 0.8].tolist()
    for kind in ("original", "normalised", "registered"):
        assert pipeline.read_regions(workspace.root/"regions", kind, "hand")[1].tolist() == kept
    left_out = len(registration) - len(kept)
    assert left_out <= 3
    assert any("are left out" in text for text in read_problems(workspace)) == (left_out > 0)


def test_ratio_of_sides_is_estimated(workspace):
    registration, truth = workspace.read_table("registration"), workspace.profile.data
    paths = {path.stem: path for path in Path(truth).rglob("*.png")}
    true = np.array([np.divide(*read_radiograph(paths[name]).shape[::-1]) for name in registration.id])
    errors = np.abs(np.log(registration.width/registration.height) - np.log(true))
    assert np.median(errors) < 0.1
    assert (registration.width/registration.height).nunique() > 5


def test_held_out_radiographs_are_new_to_the_released_networks(tmp_path):
    used = sorted(used_rsna_ids(), key=int)[:30]
    write_phantoms(tmp_path/"data", 60, 3, (64, 48))
    table = pd.read_csv(tmp_path/"data"/"boneage-training-dataset.csv", dtype={"id": str})
    names = dict(zip(table.id[:30], used))
    for old, new in names.items():
        path = tmp_path/"data"/"boneage-training-dataset"/f"{old}.png"
        path.rename(path.with_name(f"{new}.png"))
    table["id"] = table.id.replace(names)
    table.to_csv(tmp_path/"data"/"boneage-training-dataset.csv", index=False)
    profile = load_profile(PROFILE, data=str(tmp_path/"data"))
    many = change_settings(profile, dict(cohort=dict(train=40, validation=20)))
    cohort = pipeline.make_cohort(open_workspace(many, tmp_path/"work"))
    held_out = cohort.id[cohort.split == "validation"]
    assert len(held_out) == 20 and not set(held_out) & set(used)
    anyone = change_settings(many, dict(cohort=dict(new_held_out=False), name="anyone"))
    cohort = pipeline.make_cohort(open_workspace(anyone, tmp_path/"work"))
    assert set(cohort.id[cohort.split == "validation"]) & set(used)


def test_every_fit_is_another(workspace):
    predictions = gather_predictions(workspace.models, "validation")
    assert predictions.groupby("sex_model").fit.nunique().to_dict() == dict(male=1, female=1, both=2)
    wide = predictions[predictions.sex_model == "both"].pivot_table(
        index=["input", "region", "head", "id"], columns="fit", values="predicted")
    assert (wide[1] != wide[2]).any()


def test_claims_count_radiographs_once(workspace):
    single = gather_predictions(workspace.models, "validation")
    held_out = single.id.nunique()
    predictions = pd.concat([single, ensemble_predictions(single)], ignore_index=True)
    scores = score(predictions.query("input == 'registered'"), by=("region", "sex_model", "head"))
    assert len(scores) == 27 and scores[scores.sex_model == "both"].n.unique().tolist() == [held_out]
    assert set(preprocessing_claims(predictions).n) == {held_out}
    registered = predictions[predictions.input == "registered"]
    assert region_claims(registered).query("sex_model == 'both'").n.unique().tolist() == [held_out]
    assert pooled_claims(registered).n.max() == held_out


def test_learning_curve_ends_with_the_whole_training_set(workspace):
    predictions = gather_curve(workspace)
    table = curve_table(predictions)
    trained = pd.read_csv(workspace.root/"regions"/"ids.csv", dtype=str).id
    cohort = workspace.read_table("cohort").set_index("id").loc[trained]
    whole = (cohort.split == "train").sum()  # less than 200, the largest size of the curve
    assert table.radiographs.tolist() == [16, 32, whole]
    assert table.fits.tolist() == [2, 2, 2]
    assert size_claims(predictions).claim.tolist()[-1].endswith(f"{table.radiographs.iloc[-1]:,}")


def test_report_shows_the_learning_curve(workspace, monkeypatch):
    monkeypatch.chdir(REPORTS.parent)
    executed = workspace.path("notebooks", "14_learning_curve.ipynb")
    run_report(REPORTS/"14_learning_curve.ipynb", executed, dict(root=str(workspace.root)))
    found = workspace.read_result("learning_curve")
    assert found["law"]["exponent"] >= 0 and len(found["claims"]) == 2
    assert (workspace.root/"results"/"size_claims.csv").is_file()


@pytest.fixture(scope="module")
def release(workspace, tmp_path_factory):
    "A workspace of the release for twelve of the phantoms at full size, with networks of one block"
    truth = Path(workspace.profile.data)
    cohort = load_cohort(truth).iloc[:12].assign(split="train")
    points = read_key_points(truth/"keypoints.csv").set_index("id")
    settings = change_settings(FineTuningSettings(), dict(
        regions=["carpals"], scales=dict(carpals=1/20), stages=dict(carpals=1, wrist=1), folds=2,
        start="nothing", schedule=dict(epochs=1), batch_size=8,
        thumbnails=dict(scales=dict(wrist=1/20), epochs=dict(wrist=1), fits=2)))
    release = open_workspace(Profile("tiny", fine_tuning=settings), tmp_path_factory.mktemp("release"))
    rows, masks = [], read_mask_folder(truth/"masks")
    for name in cohort.id:
        own = points.loc[name, list(POINT_COLUMNS)].to_numpy(float).reshape(3, 2)
        write_mask(release.path("held_out", f"{name}.png"), read_mask(masks[name]))
        rows.append(dict(id=name) | dict(zip(MATRIX_COLUMNS, frame_from_key_points(own)[0][:2].ravel())))
    release.write_table("cohort", cohort[["id", "path", "sex", "bone_age", "split"]])
    release.write_table("held_out", pd.DataFrame(rows))
    return release


def test_a_network_fitted_on_thumbnails_joins_fitted_networks(workspace, release, tmp_path):
    radiographs = ages.write_age_regions(release)
    with pytest.raises(ValueError, match="need a run of the profile thumbnail"):
        ages.cross_fit_ages(release, radiographs)
    lines = []
    ages.cross_fit_ages(release, radiographs, lines.append, workspace.root)
    name, regions = "boneage-wrist-thumbnails-0", ("carpals", "wrist-thumbnails")
    assert lines[0].startswith(f"{name}: ") and len(lines) == 4
    single = [np.load(release.models/f"{name[:-1]}{fit}"/"distributions.npy") for fit in (0, 1)]
    assert np.abs((single[0] - single[1]) @ np.arange(240)).max() > 0.01, "the fits differ by their seeds"
    others = set(pd.read_csv(workspace.root/"regions"/"ids.csv", dtype=str).id) - set(radiographs.id)
    assert read_config(release.models/name/"config.json")["card"]["fitted_on"] == len(others)
    assert sorted(pd.read_csv(release.models/name/"predictions.csv", dtype=str).id) == sorted(radiographs.id)
    assert ages.thumbnail_ids(release) == others
    distributions = np.stack([ages.read_out_of_fold_distributions(release, radiographs, region)
                              for region in regions])
    np.testing.assert_allclose(distributions[1], np.mean(single, 0), atol=1e-3)
    rules = {"M": EnsembleRule((name, f"{name[:-1]}1", "boneage-carpals-0"), (0.2, 0.2, 0.6), 20.0)}
    earlier = tmp_path/"weights"
    shutil.copytree(release.models/"boneage-carpals-0", earlier/"boneage-carpals-0")
    before = (earlier/"boneage-carpals-0"/"model.safetensors").read_bytes()
    ages.publish_ages(release, rules, earlier, {}, "2026-11-29", only_missing=True)
    assert read_config(earlier/name/"config.json")["card"]["fitted_on"] == len(others)
    assert (earlier/"boneage-carpals-0"/"model.safetensors").read_bytes() == before
    shutil.copytree(release.models/"boneage-carpals-1", earlier/"boneage-carpals-1")
    shutil.rmtree(release.models)
    ages.predict_ages_again(release, radiographs, earlier)  # the byte weights give nearly the same months
    again = ages.read_out_of_fold_distributions(release, radiographs, "wrist-thumbnails")
    assert np.abs((again - distributions[1]) @ np.arange(240)).max() < 2
    shutil.rmtree(earlier/name)
    with pytest.raises(WeightsError): ages.predict_ages_again(release, radiographs, earlier)
    ages.predict_ages_again(release, radiographs, earlier, workspace.root, lines.append)
    assert len(lines) == 4  # the network on thumbnails was kept in the workspace and is not fitted again
    assert (release.models/name/"config.json").is_file()
