"Released networks: no bone age without a hand; a warning for hands without detail and for mature hands"
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from boneage.assessment import MIN_HAND_CONFIDENCE, NO_HAND, load_assessor
from boneage.radiographs import RadiographError, read_radiograph
from boneage.synthetic.phantoms import make_phantom

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def assessor(one_thread):
    return load_assessor(device="cpu")


@pytest.fixture(scope="module")
def hand():
    return make_phantom(20, 1, bone_age=120, sex="F", defects={}).image.astype(np.float32)/255


def pydicom_images():
    "CT, MR, CR, ultrasound and colour images that come with pydicom, one of each size"
    pydicom, shapes = pytest.importorskip("pydicom"), set()
    for path in sorted(Path(pydicom.__file__).parent.rglob("*.dcm")):
        try: image = read_radiograph(path)
        except RadiographError: continue
        if image.shape in shapes or image.size > 10**6: continue
        shapes.add(image.shape)
        yield path.name, image


def drawn_images():
    "Ribs, long bones, empty exposures, noise and a chessboard"
    random, (y, x) = np.random.default_rng(0), np.mgrid[:500, :400]/400
    ribs = .15 + .25*np.exp(-((x - .5)/.45)**4) + .3*np.exp(-((x - .5)/.05)**2)
    for number in range(9):
        arc = np.hypot((x - .5)/(.3 + .01*number), (y - .24 - .1*number)/.16) - 1
        ribs += .22*np.exp(-(arc/.08)**2)
    for name, shafts in (("femur", [.5]), ("forearm", [.41, .59])):
        long = .1 + .25*np.exp(-((x - .5)/.25)**4)
        for shaft in shafts: long += .4*np.sqrt(np.clip(1 - ((x - shaft)/.06)**2, 0, 1))
        yield name, long
    yield "ribs", ribs
    yield "empty", .2 + .1*x + .05*y
    yield "marker", np.where((y > .1) & (y < .2) & (x > .1) & (x < .15), .95, .2 + .1*x)
    yield "noise", random.random(x.shape)
    yield "chessboard", ((x*8).astype(int) + (y*8).astype(int)) % 2*.8 + .1


def photographs():
    "The photographs in matplotlib and scikit-learn, and parts of them"
    for package, place in (("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
                           ("sklearn", "datasets/images/flower.jpg"),
                           ("sklearn", "datasets/images/china.jpg")):
        try: path = Path(__import__(package).__file__).parent/place
        except ImportError: continue
        if path.is_file():
            image = read_radiograph(path)
            yield path.name, np.ascontiguousarray(image[::2, ::2])
            yield f"half of {path.name}", np.ascontiguousarray(image[::2, :image.shape[1]//2:2])


@pytest.mark.parametrize("source", [pydicom_images, drawn_images, photographs])
def test_what_is_no_hand_gets_no_age(assessor, source):
    "At least 95 % are refused"
    results = {name: assessor.assess(np.clip(image, 0, 1).astype(np.float32)) for name, image in source()}
    if not results: pytest.skip("no such images are installed")
    accepted = [name for name, result in results.items() if NO_HAND not in result.warnings]
    assert len(accepted) <= 0.05*len(results), accepted
    for name, result in results.items():
        if name in accepted: continue
        assert math.isnan(result.bone_age_months) and np.isnan(result.interval_months).all(), name
        assert result.confidence < MIN_HAND_CONFIDENCE and result.warnings[0].code == "no-hand"


def test_hands_are_not_refused(assessor):
    "Neither phantoms with all their defects"
    for number in range(4):
        result = assessor.assess(make_phantom(77, number).image)
        assert NO_HAND not in result.warnings and result.bone_age_months > 0, number


def test_two_hands_are_warned_of(assessor, hand):
    codes = [warning.code for warning in assessor.assess(np.hstack([hand, hand[:, ::-1]]), "F").warnings]
    assert "second-hand" in codes or "no-hand" in codes


def resized(image, height, back=False):
    small = cv2.resize(image, None, fx=height/image.shape[0], fy=height/image.shape[0],
                       interpolation=cv2.INTER_AREA)
    if back: small = cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(small, 0, 1)


@pytest.mark.parametrize("height", [84, 120])
def test_hands_of_few_pixels_are_warned_of(assessor, hand, height):
    assert "resolution" in [warning.code for warning in assessor.assess(resized(hand, height), "F").warnings]


def test_a_hand_of_many_pixels_is_not_warned_of(assessor, hand):
    assert not {"resolution", "no-hand"} & {warning.code for warning in assessor.assess(hand, "F").warnings}


def test_enlarged_thumbnails_have_wide_intervals(assessor, hand):
    assert "interval" in [warning.code for warning in assessor.assess(resized(hand, 60, True), "F").warnings]
