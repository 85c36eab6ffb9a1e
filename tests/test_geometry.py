"Matrices: whatever the similarity and the points, what goes there comes back, and reading a matrix gives what it was made of"
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneage.geometry import (
    compose,
    fit_similarity,
    invert,
    is_mirrored,
    letterbox,
    mirror,
    rotation,
    rotation_of,
    scaling,
    transform,
    translation,
    zoom_of,
)

PLACES = st.floats(-3000, 3000)
ZOOMS = st.floats(0.05, 20)
DEGREES = st.floats(-179, 179)
POINTS = np.array([[812.25, 103.5], [790.75, 1611.125], [1402.0, 1010.5]])


@st.composite
def similarities(draw, mirrored=st.booleans()) -> tuple[np.ndarray, float, float, bool]:
    "A matrix, and the zoom, the rotation and the handedness that it was made of"
    zoom, degrees, flip = draw(ZOOMS), draw(DEGREES), draw(mirrored)
    return compose(translation(draw(PLACES), draw(PLACES)), rotation(degrees), scaling(zoom), *[mirror(200)] * flip), zoom, degrees, flip


@given(similarities())
def test_zoom_rotation_and_mirror_are_recovered(made):
    matrix, zoom, degrees, flip = made
    assert np.allclose([zoom_of(matrix), rotation_of(matrix)], [zoom, degrees]) and is_mirrored(matrix) == flip


@given(similarities())
def test_points_come_back(made):
    assert np.allclose(transform(transform(POINTS, made[0]), invert(made[0])), POINTS, atol=1e-6)


@given(similarities(), st.floats(1e-3, 1))
def test_a_similarity_is_found_from_its_points_however_near_they_lie(made, size):
    matrix, _, _, flip = made
    points = POINTS * size / 1000
    assert np.allclose(transform(points, fit_similarity(points, transform(points, matrix), flip)), transform(points, matrix), atol=1e-6)


@pytest.mark.parametrize("points, targets", [(POINTS[:1], POINTS[:1]), (POINTS[:2], POINTS), (np.eye(3), np.eye(3)), (np.ones((2, 2, 2)), np.ones((2, 2, 2)))])
def test_only_pairs_of_points_are_fitted(points, targets):
    with pytest.raises(ValueError, match="two pairs"): fit_similarity(points, targets)


def test_single_precision_in_double_precision_out():
    points, targets = np.float32(POINTS / 7), np.float32(POINTS[::-1] / 3)
    matrix = fit_similarity(points, targets)
    assert (matrix == fit_similarity(points.astype(float), targets.astype(float))).all()
    assert transform(points, np.float32(matrix)).dtype == np.float64


@given(st.tuples(*[st.integers(1, 4000)] * 4))
def test_a_letterbox_fits_and_is_centred(sizes):
    height, width, canvas_height, canvas_width = sizes
    low, high = transform([[-0.5, -0.5], [width - 0.5, height - 0.5]], letterbox((height, width), (canvas_height, canvas_width)))
    left, top, right, bottom = *(low + 0.5), *([canvas_width - 0.5, canvas_height - 0.5] - high)
    assert np.allclose([left, top], [right, bottom], atol=1e-6) and abs(min(left, top)) < 1e-6 and max(left, top) < max(canvas_height, canvas_width)
