"Similarities of any zoom, rotation and mirror: inverses, fits from points, and recovered parameters"
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

SHIFTS = st.floats(-3000, 3000)
ZOOMS = st.floats(0.05, 20)
DEGREES = st.floats(-179, 179)
POINTS = np.array([[812.25, 103.5], [790.75, 1611.125], [1402.0, 1010.5]])


@st.composite
def similarities(draw) -> tuple[np.ndarray, float, float, bool]:
    "A matrix with its zoom, rotation and handedness"
    zoom, degrees, flip = draw(ZOOMS), draw(DEGREES), draw(st.booleans())
    shift = translation(draw(SHIFTS), draw(SHIFTS))
    return compose(shift, rotation(degrees), scaling(zoom), *[mirror(200)] * flip), zoom, degrees, flip


@given(similarities())
def test_zoom_rotation_and_mirror_are_recovered(similarity):
    matrix, zoom, degrees, flip = similarity
    assert np.allclose([zoom_of(matrix), rotation_of(matrix)], [zoom, degrees])
    assert is_mirrored(matrix) == flip


@given(similarities())
def test_inverse_maps_transformed_points_back(similarity):
    matrix = similarity[0]
    assert np.allclose(transform(transform(POINTS, matrix), invert(matrix)), POINTS, atol=1e-6)


@given(similarities(), st.floats(1e-3, 1))
def test_fit_recovers_a_similarity_from_close_points(similarity, size):
    matrix, _, _, flip = similarity
    points = POINTS * size / 1000
    targets = transform(points, matrix)
    assert np.allclose(transform(points, fit_similarity(points, targets, flip)), targets, atol=1e-6)


@pytest.mark.parametrize("points, targets", [
    (POINTS[:1], POINTS[:1]), (POINTS[:2], POINTS),
    (np.eye(3), np.eye(3)), (np.ones((2, 2, 2)), np.ones((2, 2, 2))),
])
def test_fit_rejects_anything_but_pairs_of_points(points, targets):
    with pytest.raises(ValueError, match="two pairs"): fit_similarity(points, targets)


def test_single_precision_input_gives_double_precision_output():
    points, targets = np.float32(POINTS / 7), np.float32(POINTS[::-1] / 3)
    matrix = fit_similarity(points, targets)
    assert (matrix == fit_similarity(points.astype(float), targets.astype(float))).all()
    assert transform(points, np.float32(matrix)).dtype == np.float64


@given(st.tuples(*[st.integers(1, 4000)] * 4))
def test_letterbox_fits_and_is_centred(sizes):
    height, width, canvas_height, canvas_width = sizes
    matrix = letterbox((height, width), (canvas_height, canvas_width))
    low, high = transform([[-0.5, -0.5], [width - 0.5, height - 0.5]], matrix)
    left, top, right, bottom = *(low + 0.5), *([canvas_width - 0.5, canvas_height - 0.5] - high)
    assert np.allclose([left, top], [right, bottom], atol=1e-6)
    assert abs(min(left, top)) < 1e-6 and max(left, top) < max(canvas_height, canvas_width)
