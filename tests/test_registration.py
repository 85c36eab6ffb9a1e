"What `registration_confidence` measures, on masks of known shape in the frame, and properties of the matrix"
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneage import registration
from boneage.geometry import compose, invert, mirror, rotation, scaling, transform, translation
from boneage.registration import (
    FRAME_CAPITATE,
    FRAME_SHAPE,
    FRAME_TIP,
    REGIONS,
    frame_from_key_points,
    region_matrix,
    registration_confidence,
    registration_measures,
)

PLAUSIBLE = dict(outside=0, top=100, thumb_x=1500, thumb_y=1000, area=0.4)
LIMITS = [
    ("outside", -np.inf, 30, 60),
    ("top", -20, 220, 100),
    ("thumb_x", 1100, 1920, 120),
    ("thumb_y", 650, 1420, 80),
    ("area", 0.20, 0.60, 0.06),
]
STEP = 16  # frame pixels to one pixel of the small image on which the measures are taken


@pytest.mark.parametrize("name, low, high, width", LIMITS, ids=[limits[0] for limits in LIMITS])
def test_confidence_is_one_in_range_and_gaussian_beyond(monkeypatch, name, low, high, width):
    def confidence(value):
        measures = PLAUSIBLE | {name: value}
        monkeypatch.setattr(registration, "registration_measures", lambda points, mask: measures)
        return registration_confidence(None, None)
    ends = [(end, sign) for end, sign in [(low, -1), (high, 1)] if np.isfinite(end)]
    for end, sign in ends:
        confidences = [confidence(end + sign*widths*width) for widths in range(3)]
        assert np.allclose(confidences, np.exp([0, -1/2, -2]))


def rectangle_measures(thumb=(1100, 800), top=160, left=400, right=1200):
    "Measures of a mask from `top` to the frame's bottom edge and from `left` to before `right`"
    mask = np.zeros(FRAME_SHAPE, bool)
    mask[top:, left:right] = True
    return registration_measures(np.array([FRAME_TIP, FRAME_CAPITATE, thumb]), mask)


def test_measures_of_a_rectangle():
    measures = rectangle_measures()
    assert np.allclose([measures["thumb_x"], measures["thumb_y"]], [1100, 800])
    assert measures["top"] == 160 and measures["area"] == (2080 - 160) * 800 / (2080 * 1600)
    assert abs(measures["outside"] - 60) <= STEP  # the tip, at y 100, lies above the mask


@pytest.mark.parametrize("thumb, pixels", [
    ((1300, 800), 100), ((1600 + 320 + 1000, 800), 1720), ((300, 800), 100),
    ((800, 2080 + 320 + 1000), 1320), ((1100, -1320), 1480),
])
def test_outside_is_the_distance_of_a_point_to_the_mask(thumb, pixels):
    assert abs(rectangle_measures(thumb)["outside"] - pixels) <= 1.5 * STEP


def test_top_of_a_hand_above_the_frame_is_negative():
    mask, points = np.ones((2400, 1600), bool), np.array([FRAME_TIP, FRAME_CAPITATE, (1100, 800)]) + [0, 200]
    assert registration_measures(points, mask)["top"] == pytest.approx(-200, abs=STEP)


@given(st.sampled_from([*REGIONS]), st.floats(0.05, 1), st.floats(0, 0.5))
def test_a_margin_keeps_the_centre(region, scale, margin):
    box = REGIONS[region]
    matrix, (height, width) = region_matrix(region, scale, margin)
    centre = [box.left + (box.width - 1)/2, box.top + (box.height - 1)/2]
    assert np.allclose(transform(centre, matrix), [(width - 1)/2, (height - 1)/2])
    assert abs(height - box.height*(1 + 2*margin)*scale) <= 0.5
    assert abs(width - box.width*(1 + 2*margin)*scale) <= 0.5


@given(st.floats(-179, 179), st.floats(0.1, 10), st.booleans(), st.floats(-500, 500))
def test_key_points_map_to_the_frame_from_any_pose(degrees, zoom, flip, shift):
    points = np.array([FRAME_TIP, FRAME_CAPITATE, (1400., 1000.)])
    pose = compose(translation(shift, -shift), rotation(degrees), scaling(zoom), *[mirror(1600)] * flip)
    matrix, mirrored = frame_from_key_points(transform(points, pose))
    assert mirrored == flip and np.allclose(matrix, invert(pose), atol=1e-6)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_integer_and_float_points_give_the_same_matrix(kind):
    points = np.array([[300, 900], [280, 40], [40, 500]])
    expected, _ = frame_from_key_points(points.astype(float))
    assert np.array_equal(frame_from_key_points(points.astype(kind))[0], expected)
