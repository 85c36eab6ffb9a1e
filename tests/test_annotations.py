"Annotations compared with the COCO format's own library, and the project's labels"
import json

import numpy as np
import pytest

from boneage.datasets.annotations import (
    Annotation,
    encode_run_lengths,
    format_packed_runs,
    from_coco,
    mask_from_coco,
    parse_packed_runs,
    read_annotations,
    read_rsna_labels,
    to_coco,
)

coco_mask = pytest.importorskip("pycocotools.mask", reason="the COCO library is not installed")


@pytest.fixture(params=range(6))
def mask(request):
    "Masks of several kinds: a disc, one with a hole, noise, all, nothing, a single pixel"
    y, x = np.mgrid[:67, :53]
    disc = np.hypot(x - 26, y - 30) < 20
    noise = np.random.default_rng(request.param).random(disc.shape) > 0.6
    ring, pixel = disc & ~(np.hypot(x - 26, y - 30) < 6), (x == 3) & (y == 5)
    return [disc, ring, noise, disc | True, disc & False, pixel][request.param]


def test_packed_runs_match_pycocotools(mask):
    theirs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert format_packed_runs(encode_run_lengths(mask)) == theirs["counts"].decode()
    assert parse_packed_runs(theirs["counts"].decode()) == encode_run_lengths(mask)
    assert (mask_from_coco({"counts": theirs["counts"]}, mask.shape) == mask).all()


def test_pycocotools_reads_written_files(mask):
    annotation = Annotation("7", mask.shape, mask, np.full((3, 2), np.nan))
    written = to_coco([annotation])["annotations"][0]["segmentation"]
    if isinstance(written, dict): assert (coco_mask.decode(written) == mask).all()
    elif mask.any():
        theirs = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(written, *mask.shape))) > 0
        # COCO fills up to the middle of an outline's pixels; this library includes them
        assert (theirs & mask).sum() / (theirs | mask).sum() > 0.9


def test_pycocotools_makes_a_mask_of_every_written_annotation(tmp_path):
    "Also of a radiograph with points only; one without any label has no annotation"
    from pycocotools.coco import COCO
    none, points = np.full((3, 2), np.nan), np.array([[5., 6], [7, 8], [np.nan, np.nan]])
    square = np.zeros((20, 15), bool)
    square[4:9, 3:8] = True
    written = [Annotation("1", square.shape, square, none), Annotation("2", square.shape, None, points),
               Annotation("3", square.shape, None, none)]
    (tmp_path/"coco.json").write_text(json.dumps(to_coco(written)))
    coco = COCO(tmp_path/"coco.json")
    masks = {mark["image_id"]: coco.annToMask(mark) for mark in coco.loadAnns(coco.getAnnIds())}
    assert masks.keys() == {1, 2} and masks[1].any() and not masks[2].any()
    assert [a.mask is None for a in read_annotations(tmp_path/"coco.json")] == [False, True]


def test_a_large_file_round_trips(tmp_path):
    "A hundred masks, and points of which some are missing, are identical after writing and reading"
    random = np.random.default_rng(0)

    def points():
        missing = random.random((3, 1)) < 0.3
        return np.where(missing, np.nan, random.random((3, 2))*30)
    annotations = [Annotation(str(i), (40, 30), random.random((40, 30)) > 0.5, points()) for i in range(100)]
    (tmp_path/"coco.json").write_text(json.dumps(to_coco(annotations)))
    for before, after in zip(annotations, read_annotations(tmp_path/"coco.json"), strict=True):
        assert before.id == after.id and (before.mask == after.mask).all()
        assert np.array_equal(before.points, after.points, equal_nan=True)


def test_shipped_labels_are_complete():
    labels = read_rsna_labels()
    assert len({a.id for a in labels}) == len(labels)
    for a in labels:
        known = a.points[np.isfinite(a.points).all(axis=1)]
        assert (known > -1).all() and (known < np.array(a.shape[::-1]) + 1).all(), a.id


def test_shipped_labels_state_their_terms():
    from importlib.resources import files
    content = json.loads((files("boneage")/"data"/"rsna_labels.json").read_text())
    assert content["licenses"][0]["name"] == "CC BY-NC 4.0" and "Halabi" in content["licenses"][0]["note"]
    assert from_coco(content)
