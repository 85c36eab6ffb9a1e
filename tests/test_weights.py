"The released networks: what they say of themselves, and what they do with hands that nobody has fitted them on"
import json

import numpy as np
import pytest

from boneage.assessment import load_assessor, weights_folder
from boneage.geometry import rotation, transform, warp
from boneage.inference import current_names
from boneage.radiographs import read_radiograph
from boneage.registration import FRAME_CAPITATE, FRAME_TIP
from boneage.synthetic.exposure import NO_DEFECTS
from boneage.synthetic.phantoms import make_phantom


@pytest.fixture(scope="module")
def assessor():
    return load_assessor(device="cpu")


@pytest.fixture(scope="module")
def hand():
    "An upright phantom: float32 plate, truth"
    phantom = make_phantom(77, 4, shape=(640, 500), defects=NO_DEFECTS)
    return phantom.image.astype(np.float32)/255, phantom


def test_weights_are_small_and_documented():
    folder = weights_folder()
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 30e6
    for name in ("segmentation", "keypoints"):
        card = json.loads((folder/name/"config.json").read_text())["card"]
        assert card["licence"] == "CC BY-NC 4.0" and "Halabi" in card["citation"] and card["parameters"] <= 2.1e6
        assert card["crossfit"] and card["date"] and card["data"]
    assert "CC BY-NC 4.0" in (folder/"README.md").read_text()


def test_phantom_is_found_and_registered(assessor, hand):
    radiograph, phantom = hand
    result = assessor.assess(radiograph)
    assert (result.mask & phantom.mask).sum() / (result.mask | phantom.mask).sum() > 0.93
    landed = transform(phantom.key_points[:2], result.frame_from_image)
    assert np.abs(landed - [FRAME_TIP, FRAME_CAPITATE]).max() < 60
    assert result.confidence > 0.5


@pytest.mark.parametrize("change", ["turned", "mirrored", "inverted", "dim"])
def test_frame_is_invariant_to_pose_and_exposure(assessor, hand, change):
    radiograph, phantom = hand
    height, width = radiograph.shape
    if change == "turned":
        place = rotation(90, ((width - 1)/2, (height - 1)/2))
        place[:2, 2] -= transform([[0, height - 1]], place)[0]
        variant = warp(radiograph, place, (width, height))
    elif change == "mirrored": variant, place = np.ascontiguousarray(radiograph[:, ::-1]), np.array([[-1., 0, width - 1], [0, 1, 0], [0, 0, 1]])
    else: variant, place = (1 - radiograph if change == "inverted" else 0.4 + 0.1*radiograph), np.eye(3)
    own, found = assessor.assess(radiograph), assessor.assess(variant)
    assert found.mirrored == (own.mirrored ^ (change == "mirrored"))
    distance = transform(phantom.key_points, own.frame_from_image) - transform(phantom.key_points, found.frame_from_image @ place)
    assert np.linalg.norm(distance, axis=1).max() < 40


@pytest.mark.parametrize("picture", ["noise", "chessboard", "gradient"])
def test_image_without_hand_gives_warning(assessor, picture):
    y, x = np.mgrid[:500, :400]/400
    radiograph = {"noise": np.random.default_rng(0).random((500, 400)), "chessboard": ((x*8).astype(int) + (y*8).astype(int)) % 2 * .8 + .1, "gradient": (x + y)/2.3}[picture]
    assert [w for w in assessor.assess(radiograph.astype(np.float32)).warnings if not any(word in w for word in ("infant", "adult"))], "something else than its age"


def test_released_networks_are_the_default(assessor, tmp_path, hand):
    from boneage.radiographs import write_radiograph
    write_radiograph(tmp_path/"hand.png", np.uint8(hand[0]*255))
    assert assessor.folder == weights_folder()
    assert (assessor.assess(tmp_path/"hand.png").mask == assessor.assess(read_radiograph(tmp_path/"hand.png")).mask).all()


def test_bone_age_networks_and_their_card(assessor, hand):
    folder = weights_folder()
    card = current_names(json.loads((folder/"bone-age.json").read_text()))
    assert card["licence"] == "CC BY-NC 4.0" and "Halabi" in card["citation"] and card["date"] and card["data"]
    everyone = card["errors"][0]
    assert everyone["group"] == "all" and everyone["radiographs"] == card["radiographs"] == sum(row["radiographs"] for row in card["errors"][1:3])
    assert everyone["low"] < everyone["MAE"] < everyone["high"] < 31.0, "no better than the median of each sex"
    for key in ("M", "F", "none"):
        members = assessor.rules[key].members
        assert {name.split("-")[1] for name in members} == {"hand", "carpals", "metacarpals"} and len(members) == 3*card["folds"]
        assert all("Halabi" in json.loads((folder/name/"config.json").read_text())["card"]["citation"] for name in members)


def test_bone_age_of_a_phantom(assessor, hand):
    radiograph, _ = hand
    told, unknown = assessor.assess(radiograph, "F"), assessor.assess(radiograph)
    for result in (told, unknown):
        low, high = result.interval_months
        assert 0 <= low < result.bone_age_months < high <= 240
        assert result.distribution.shape == (240,) and result.distribution.sum() == pytest.approx(1, abs=1e-3)
        assert result.distribution @ np.arange(240) == pytest.approx(result.bone_age_months, abs=0.5)
        assert all(0 < months < 240 for months in result.region_months.values())
    assert np.diff(unknown.interval_months) > np.diff(told.interval_months), "without the sex less is known"
    assert assessor.assess(radiograph, "M").bone_age_months != told.bone_age_months
