"An assessment from file to result, with networks of known predictions"
import json
import math
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from tiny_models import (
    AGES,
    FEMALE_HAND,
    HAND,
    constant_age_network,
    constant_key_point_network,
    write_tiny_models,
)

from boneage.assessment import load_assessor
from boneage.contrast import measure_contrast, normalise
from boneage.ensembles import EnsembleRule, EnsembleRuleError
from boneage.geometry import compose, is_mirrored, mirror, rotation, scaling, transform, translation, warp
from boneage.networks import WeightsError, save_network
from boneage.radiographs import RadiographError, write_radiograph
from boneage.registration import (
    FRAME_CAPITATE,
    FRAME_TIP,
    KEY_POINTS,
    RegisteredRadiograph,
    frame_from_key_points,
    region_image,
)
from boneage.synthetic.phantoms import make_phantom


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_tiny_models(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def assessor(models):
    return load_assessor(models, device="cpu")


@pytest.fixture(scope="module")
def radiograph():
    return make_phantom(3, 1, shape=(400, 320), defects={}).image.astype(np.float32)/255


def points_of(result) -> np.ndarray:
    return np.array([result.key_points[name] for name in KEY_POINTS])


def test_every_field_is_set(assessor, radiograph):
    result = assessor.assess(radiograph, "F")
    assert result.mask.shape == radiograph.shape and result.mask.dtype == bool
    assert 0.1 < result.mask.mean() < 0.6
    assert list(result.key_points) == list(KEY_POINTS)
    registered = transform(points_of(result)[:2], result.frame_from_image)
    np.testing.assert_allclose(registered, [FRAME_TIP, FRAME_CAPITATE], atol=1e-6)
    assert result.mirrored is False and is_mirrored(result.frame_from_image) is False
    assert all(isinstance(warning, str) for warning in result.warnings)
    assert set(result.region_months) == {"hand", "carpals", "metacarpals"}


def test_each_sex_has_its_ensemble_members(assessor, radiograph):
    girl, boy, unknown = (assessor.assess(radiograph, sex) for sex in ("F", "M", None))
    np.testing.assert_allclose([girl.bone_age_months, boy.bone_age_months, unknown.bone_age_months],
                               [(2*80 + 100 + 120)/4, (3*150 + 100)/4, (100 + 120)/2], atol=1e-3)
    np.testing.assert_allclose(girl.interval_months, (75, 115), atol=1e-3)
    np.testing.assert_allclose(unknown.interval_months, (0, 220), atol=1e-3)  # 110 ± 110: nothing below zero
    half = math.sqrt(20**2 - 5/6*(1.645*6)**2)  # one reader scatters by 6 months, the mean of six by a sixth
    np.testing.assert_allclose(girl.consensus_months, (95 - half, 95 + half), atol=1e-3)
    regions = [girl.region_months["hand"], girl.region_months["carpals"], boy.region_months["metacarpals"]]
    np.testing.assert_allclose(regions, [90, 120, 150], atol=1e-3)
    assert math.isnan(girl.region_months["metacarpals"]) and math.isnan(boy.region_months["carpals"])


def test_path_and_array_give_equal_results(assessor, radiograph, tmp_path):
    path = write_radiograph(tmp_path/"hand.png", radiograph)
    from_path = assessor.assess(path)
    for source in (str(path), radiograph, np.rint(radiograph*255).astype(np.uint8)):
        other = assessor.assess(source)
        assert (other.mask == from_path.mask).all() and other.bone_age_months == from_path.bone_age_months
        np.testing.assert_allclose(points_of(other), points_of(from_path))


def test_points_follow_the_hand(assessor, radiograph):
    hand = np.pad(radiograph, 40)  # the forearm ends inside the image: its outline is the same after a shift
    hand[:, :50] = hand[:, -50:] = 0
    hand[-70:] = hand[:10] = 0
    before = points_of(assessor.assess(hand))
    moved = np.pad(hand, ((30, 50), (70, 10)))
    np.testing.assert_allclose(points_of(assessor.assess(moved)), before + [70, 30], atol=8)
    larger = warp(hand, scaling(2.5), (1200, 1000))
    np.testing.assert_allclose(points_of(assessor.assess(larger)), transform(before, scaling(2.5)), atol=12)


def test_mirrored_hand_is_registered(models, radiograph, tmp_path):
    copy = write_tiny_models(tmp_path)
    save_network(copy/"keypoints", *constant_key_point_network([[53.8, 12.6], [50.6, 92.5], [16.3, 54.7]]))
    result = load_assessor(tmp_path).assess(radiograph)
    assert result.mirrored is True and is_mirrored(result.frame_from_image)
    assert transform(points_of(result), result.frame_from_image)[2, 0] > FRAME_TIP[0]


def test_regions_do_not_depend_on_pose_or_exposure():
    phantom = make_phantom(4, 2, shape=(400, 320), defects={})
    image = phantom.image.astype(np.float32)/255
    moved_from_image = compose(translation(500, 200), rotation(118, (160, 200)), scaling(1.3), mirror(320))
    moved = warp(image, moved_from_image, (900, 900))
    mask = warp(phantom.mask, moved_from_image, (900, 900))
    dull = 0.8 - 0.3*moved
    points = phantom.key_points
    frame = frame_from_key_points(points)[0]
    original = RegisteredRadiograph(image, phantom.mask, measure_contrast(image, phantom.mask), frame)
    moved_frame = frame_from_key_points(transform(points, moved_from_image))[0]
    expected = region_image(original, "hand", 0.06)
    other = RegisteredRadiograph(dull, mask, measure_contrast(dull, mask), moved_frame)
    found = region_image(other, "hand", 0.06)
    assert measure_contrast(dull, mask).inverted
    assert np.abs(found.astype(float) - expected).mean() < 4


@pytest.mark.parametrize("index", range(12))
def test_polarity_and_window_of_degraded_radiographs(index):
    phantom = make_phantom(77, index, shape=(300, 240))
    image = phantom.image.astype(np.float32)/255
    contrast, turned = measure_contrast(image, phantom.mask), measure_contrast(1 - image, phantom.mask)
    assert contrast.inverted == phantom.defects["inverted"] and turned.inverted != contrast.inverted
    np.testing.assert_allclose(normalise(1 - image, turned), normalise(image, contrast), atol=0.02)


def test_without_bone_age_weights_preprocessing_still_works(assessor, radiograph, tmp_path):
    write_tiny_models(tmp_path, names=(), rules=None)
    result, whole = load_assessor(tmp_path).assess(radiograph, "F"), assessor.assess(radiograph, "F")
    months = [result.bone_age_months, *result.interval_months, *result.region_months.values()]
    assert len(months) == 6 and np.isnan(months).all()
    assert any("no bone-age weights" in warning for warning in result.warnings)
    assert (result.mask == whole.mask).all() and result.key_points == whole.key_points
    assert (result.frame_from_image == whole.frame_from_image).all()


def test_without_rules_all_registered_models_weigh_equally(radiograph, tmp_path):
    write_tiny_models(tmp_path, rules=None)
    result = load_assessor(tmp_path).assess(radiograph, "F")
    assert result.bone_age_months == pytest.approx(np.mean([100, 120, 80]), abs=1e-3)
    assert math.isnan(result.interval_months[0])
    assert any("no interval" in warning for warning in result.warnings)


def test_ensemble_accepts_other_inputs(radiograph, tmp_path):
    name = "normalised-hand-both-regression"
    write_tiny_models(tmp_path, rules={"none": EnsembleRule((name,), (1,), 5)})
    assert load_assessor(tmp_path).assess(radiograph).bone_age_months == pytest.approx(AGES[name], abs=1e-3)


def test_sex_without_ensemble(radiograph, tmp_path):
    write_tiny_models(tmp_path/"both", [HAND], {"none": EnsembleRule([HAND], (1,), 10)})
    result = load_assessor(tmp_path/"both").assess(radiograph, "M")
    assert result.bone_age_months == pytest.approx(100, abs=1e-3)
    assert any('no models for sex "M"' in warning for warning in result.warnings)
    write_tiny_models(tmp_path/"female", [FEMALE_HAND], {"F": EnsembleRule([FEMALE_HAND], (1,), 10)})
    assert math.isnan(load_assessor(tmp_path/"female").assess(radiograph).bone_age_months)


def test_ages_are_clipped_with_a_warning(radiograph, tmp_path):
    for months, expected in ((260.0, 240), (-9.0, 0)):
        write_tiny_models(tmp_path, [HAND], {"none": EnsembleRule((HAND,), (1,), 12)})
        save_network(tmp_path/"models"/HAND, *constant_age_network(months, "hand", "regression"))
        result = load_assessor(tmp_path).assess(radiograph)
        assert result.bone_age_months == expected and result.region_months["hand"] == expected
        assert 0 <= result.interval_months[0] <= result.interval_months[1] <= 240
        assert any("adult" in warning or "infant" in warning for warning in result.warnings)


def test_defects_give_warnings(assessor, radiograph):
    assert any("cut off" in warning for warning in assessor.assess(radiograph[70:]).warnings)
    assert any("exposure is poor" in warning for warning in assessor.assess(0.5 + 0.04*radiograph).warnings)
    empty = assessor.assess(np.eye(400, 320, k=-399, dtype=np.float32)*0.01)
    assert empty.warnings == ["No hand was found."] and not empty.mask.any()
    assert math.isnan(empty.bone_age_months)
    assert np.isnan(empty.frame_from_image).all() and np.isnan(points_of(empty)).all()


def test_non_hand_images_give_warnings(assessor):
    disc = np.zeros((300, 300), np.uint8)
    cv2.circle(disc, (150, 150), 100, 200, -1)
    assert any("registration is doubtful" in warning for warning in assessor.assess(disc).warnings)


@pytest.mark.parametrize("shape", [(2, 2), (3, 400), (900, 4), (17, 23), (1200, 60)])
def test_odd_shapes_are_assessed_or_rejected(assessor, shape):
    image = np.random.default_rng(5).random(shape).astype(np.float32)
    result = assessor.assess(image, "M")
    assert result.mask.shape == shape and isinstance(result.warnings, list)


@pytest.mark.parametrize("source, sentence", [
    ("absent.png", "does not exist"),
    (np.zeros((50, 50)), "flat grey"),
    (np.full((50, 50), np.nan), "values from 0 to 1"),
    (np.linspace(0, 9, 2500).reshape(50, 50), "values from 0 to 1"),
    (np.arange(2500).reshape(50, 50), "values from 0 to 1"),
    (np.zeros((50, 50, 3)), "grey image"),
    (np.zeros(50), "grey image")])
def test_invalid_image_raises_one_sentence(assessor, source, sentence):
    with pytest.raises(RadiographError, match=sentence) as caught: assessor.assess(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sex", ["m", "female", "", 1, True])
def test_invalid_sex_is_rejected(assessor, radiograph, sex):
    with pytest.raises(ValueError, match='sex is "M", "F", "unknown" or None'):
        assessor.assess(radiograph, sex)


def test_missing_and_damaged_weights_raise_one_sentence(radiograph, tmp_path):
    with pytest.raises(WeightsError, match="holds no weights"): load_assessor(tmp_path)
    models = write_tiny_models(tmp_path)
    (models/HAND/"model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="damaged"): load_assessor(tmp_path).assess(radiograph)
    models = write_tiny_models(tmp_path)
    network, config = constant_age_network(90, "hand", "regression")
    save_network(models/HAND, network, config | {"network_input": {"region": "hand", "scale": 1/8}})
    with pytest.raises(WeightsError, match="does not give an image of shape"):
        load_assessor(tmp_path).assess(radiograph)
    (models/"ensembles.json").write_text("{")
    with pytest.raises(EnsembleRuleError, match="not valid JSON"): load_assessor(tmp_path)
    (models/"keypoints"/"config.json").unlink()
    with pytest.raises(WeightsError, match="found no keypoints"): load_assessor(models)


def test_a_run_and_its_models_folder_are_the_same(models):
    assert load_assessor(models.parent).folder == load_assessor(str(models)).folder == models


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_and_cpu_agree(models, assessor, radiograph):
    on_gpu = load_assessor(models, device="cuda").assess(radiograph, "F")
    on_cpu = assessor.assess(radiograph, "F")
    assert on_gpu.bone_age_months == pytest.approx(on_cpu.bone_age_months, abs=0.01)
    np.testing.assert_allclose(points_of(on_gpu), points_of(on_cpu), atol=0.1)


def test_assessing_does_not_import_packages_of_the_research_wings(models, radiograph, tmp_path):
    path = write_radiograph(tmp_path/"hand.png", radiograph)
    program = f"""
import sys, json
from boneage.assessment import load_assessor
result = load_assessor({str(models)!r}).assess({str(path)!r}, "F")
research = {{"fastai", "pandas", "matplotlib", "scipy", "pydicom", "torchvision"}}
print(json.dumps([result.bone_age_months, sorted(research & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    months, imported = json.loads(done.stdout)
    assert months == pytest.approx(95, abs=1e-3) and imported == []
