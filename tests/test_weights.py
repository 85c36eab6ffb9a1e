"The released networks: their documentation, and their predictions for phantoms and for images without a hand"
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from boneage.assessment import load_assessor, weights_folder
from boneage.export import export_repository
from boneage.geometry import transform
from boneage.inference import current_names
from boneage.radiographs import read_radiograph, write_radiograph
from boneage.registration import FRAME_CAPITATE, FRAME_TIP
from boneage.release.measurement import compare_fingerprints, make_fingerprint
from boneage.release.preprocessing import make_radiograph_variants
from boneage.synthetic.exposure import NO_DEFECTS
from boneage.synthetic.phantoms import make_phantom


@pytest.fixture(scope="module")
def assessor():
    return load_assessor(device="cpu")


@pytest.fixture(scope="module")
def hand():
    "An upright phantom: float32 radiograph, truth"
    phantom = make_phantom(77, 4, shape=(640, 500), defects=NO_DEFECTS)
    return phantom.image.astype(np.float32)/255, phantom


def read_card(name): return json.loads((weights_folder()/name/"config.json").read_text())["card"]


def test_weights_are_small_and_documented():
    folder = weights_folder()
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 30e6
    for name in ("segmentation", "keypoints"):
        card = read_card(name)
        assert card["licence"] == "CC BY-NC 4.0" and "Halabi" in card["citation"]
        assert card["parameters"] <= 2.1e6
        assert card["crossfit"] and card["date"] and card["data"]
    assert "CC BY-NC 4.0" in (folder/"README.md").read_text()


def test_phantom_is_segmented_and_registered(assessor, hand):
    radiograph, phantom = hand
    result = assessor.assess(radiograph)
    assert (result.mask & phantom.mask).sum() / (result.mask | phantom.mask).sum() > 0.93
    landed = transform(phantom.key_points[:2], result.frame_from_image)
    assert np.abs(landed - [FRAME_TIP, FRAME_CAPITATE]).max() < 60
    assert result.confidence > 0.5


CHANGES = *(f"turned {angle}°" for angle in range(45, 360, 45)), "mirrored", "inverted", "dim"


@pytest.mark.parametrize("change", CHANGES)
def test_frame_is_invariant_to_pose_and_exposure(assessor, hand, change):
    radiograph, phantom = hand
    variant, variant_from_image = make_radiograph_variants(radiograph, 0.0)[change]
    original, found = assessor.assess(radiograph), assessor.assess(variant)
    assert found.mirrored == (original.mirrored ^ (change == "mirrored"))
    distance = (transform(phantom.key_points, original.frame_from_image)
                - transform(phantom.key_points, found.frame_from_image @ variant_from_image))
    assert np.linalg.norm(distance, axis=1).max() < 40


@pytest.mark.parametrize("picture", ["noise", "chessboard", "gradient"])
def test_image_without_hand_gives_warning(assessor, picture):
    y, x = np.mgrid[:500, :400]/400
    image = {"noise": np.random.default_rng(0).random((500, 400)),
             "chessboard": ((x*8).astype(int) + (y*8).astype(int)) % 2 * .8 + .1,
             "gradient": (x + y)/2.3}[picture]
    warnings = assessor.assess(image.astype(np.float32)).warnings
    assert [warning for warning in warnings if not any(word in warning for word in ("infant", "adult"))], \
        "a warning that is not about the age"


def test_released_networks_are_the_default(assessor, tmp_path, hand):
    path = tmp_path/"hand.png"
    write_radiograph(path, np.uint8(hand[0]*255))
    assert assessor.folder == weights_folder()
    assert (assessor.assess(path).mask == assessor.assess(read_radiograph(path)).mask).all()


def test_bone_age_networks_and_their_card(assessor):
    card = current_names(json.loads((weights_folder()/"bone-age.json").read_text()))
    assert card["licence"] == "CC BY-NC 4.0" and "Halabi" in card["citation"]
    assert card["date"] and card["data"]
    everyone, *by_sex = card["errors"][:3]
    assert everyone["group"] == "all"
    assert everyone["radiographs"] == card["radiographs"] == sum(row["radiographs"] for row in by_sex)
    assert everyone["low"] < everyone["MAE"] < everyone["high"] < 31.0, "baseline: median age of the sex"
    for key in ("M", "F", "none"):
        members = assessor.rules[key].members
        assert {name.split("-")[1] for name in members} == {"hand", "carpals", "metacarpals"}
        assert len(members) == 3*card["folds"]
        assert all("Halabi" in read_card(name)["citation"] for name in members)


def test_bone_age_of_a_phantom(assessor, hand):
    radiograph, _ = hand
    female, male, unknown = (assessor.assess(radiograph, sex) for sex in ("F", "M", None))
    for result in (female, unknown):
        low, high = result.interval_months
        assert 0 <= low < result.bone_age_months < high <= 240
        assert result.distribution.shape == (240,)
        assert result.distribution.sum() == pytest.approx(1, abs=1e-3)
        assert result.distribution @ np.arange(240) == pytest.approx(result.bone_age_months, abs=0.5)
        assert all(0 < months < 240 for months in result.region_months.values())
    assert np.diff(unknown.interval_months) > np.diff(female.interval_months), "wider for an unknown sex"
    assert male.bone_age_months != female.bone_age_months


def test_card_fits_weights_and_behaviour(assessor):
    card = json.loads((weights_folder()/"bone-age.json").read_text())
    differences = compare_fingerprints(card["fingerprint"], make_fingerprint(assessor, card))
    assert not differences, "measure again with boneage release --measure: " + " ".join(differences)


def test_card_says_what_had_been_fitted_on_its_radiographs():
    card = json.loads((weights_folder()/"bone-age.json").read_text())
    assert "fitted on these radiographs" in card["procedure"] and "same folds" in card["choice"]
    assert "by construction" in card["interval"]
    new, fitted_on = card["new_radiographs"], pd.read_csv(weights_folder()/"fitted_on.csv")
    assert "No network of the release was fitted on them" in new["about"]
    assert fitted_on.fold.notna().sum() == card["radiographs"]
    alone = [json.loads(path.read_text())["card"]["fitted_on"]
             for path in weights_folder().glob("boneage-*-thumbnails-*/config.json")]
    assert fitted_on.fold.isna().sum() == max(alone, default=0)
    assert new["errors"][0]["radiographs"] == new["radiographs"]
    for row in (*card["errors"], *new["errors"]):
        assert row["coverage, low"] <= row["coverage"] <= row["coverage, high"]


def test_cards_name_the_authors_alone_as_labellers():
    for name in ("segmentation", "keypoints"):
        card = json.dumps(read_card(name))
        assert "no radiologist took part" in card
        assert not any(words in card for words in ("two people", "fresh eyes", "crossfit_note"))


# ------------------------------------------------------------------ the model card

@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    "What `boneage export --huggingface` writes"
    folder = tmp_path_factory.mktemp("hub")/"repository"
    export_repository(None, folder)
    return folder


def test_model_card_has_the_numbers_of_the_card(repository):
    front, text = (repository/"README.md").read_text().removeprefix("---\n").split("\n---\n", 1)
    content, card = yaml.safe_load(front), json.loads((weights_folder()/"bone-age.json").read_text())
    assert content["license"] == "cc-by-nc-4.0" and content["library_name"] == "boneage"
    sets = [card["errors"], card["errors_without_sex"],
            card["new_radiographs"]["errors"], card["new_radiographs"]["errors_without_sex"]]
    results = content["model-index"][0]["results"]
    assert len(results) == len(sets)
    for rows, result in zip(sets, results):
        values = {metric["type"]: metric["value"] for metric in result["metrics"]}
        everyone = rows[0]
        assert everyone["group"] == "all" and f"{everyone['radiographs']:,} r" in result["dataset"]["name"]
        assert values == {"mae": everyone["MAE"], "bias": everyone["bias"], "coverage": everyone["coverage"]}
        for row in rows: assert f"| {row['group']} | {row['radiographs']:,} | {row['MAE']:.2f}" in text
    for part in (card["procedure"], card["interval"], card["choice"], card["new_radiographs"]["about"],
                 card["data"], read_card("segmentation")["data"], read_card("keypoints")["labelled"],
                 "Research use only: not a medical device", "CC BY-NC 4.0", "Halabi"):
        assert part in text, part


def test_model_card_is_read_by_the_hub_library(repository):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(repository/"README.md", ignore_metadata_errors=False).data
    assert data.license == "cc-by-nc-4.0" and data.model_name == "boneage"
    assert [result.metric_type for result in data.eval_results] == ["mae", "bias", "coverage"]*4


def test_repository_has_every_released_network(repository):
    ours = {path.relative_to(weights_folder()) for path in weights_folder().rglob("*") if path.is_file()}
    theirs = {path.relative_to(repository) for path in repository.rglob("*") if path.is_file()}
    assert theirs - ours == {Path("config.json")} and ours <= theirs
    for name in ours - {Path("README.md")}:
        assert (repository/name).read_bytes() == (weights_folder()/name).read_bytes()
    networks = json.loads((repository/"config.json").read_text())["networks"]
    assert set(networks) == {path.parent.name for path in repository.glob("*/model.safetensors")}
    assert load_assessor(repository, "cpu").rules == load_assessor(device="cpu").rules
