"Annotations compared with the COCO format's own library, and the project's labels"
import json
import os
from collections import Counter

import numpy as np
import pytest

from boneage.datasets.annotations import (
    Annotation,
    AnnotationError,
    encode_run_lengths,
    format_packed_runs,
    from_coco,
    from_labelme,
    from_supervisely,
    mask_from_coco,
    parse_packed_runs,
    read_annotations,
    read_rsna_labels,
    to_coco,
    to_labelme,
    to_supervisely,
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


# ------------------------------------------------------------------ as people's tools write them

SQUARE = np.zeros((60, 40), bool)
SQUARE[10:30, 5:20] = True


def labelled(i="1", mask=SQUARE, points=None):
    return Annotation(i, SQUARE.shape, mask, np.full((3, 2), np.nan) if points is None else points)


def write_files(folder, **contents):
    for name, content in contents.items():
        path = folder/name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(content))


def read(folder):
    "Ids that have a mask, and the sentences"
    annotations = read_annotations(folder, problems := [])
    return [a.id for a in annotations if a.mask is not None], problems


def test_images_of_one_name_never_exchange_their_labels(tmp_path):
    "Exports have a folder a patient, and number the images of each"
    coco = to_coco([labelled("1"), labelled("1"), labelled("2")])
    for image, name in zip(coco["images"], ("anna/1.png", "ben/1.png", "2.png")): image["file_name"] = name
    write_files(tmp_path/"coco", labels=coco)
    write_files(tmp_path/"labelme", anna__1=to_labelme(labelled(), "1.png"),
                ben__1=to_labelme(labelled(), "1.png"), ben__2=to_labelme(labelled("2"), "2.png"))
    for folder in (tmp_path/"coco", tmp_path/"labelme"):
        ids, problems = read(folder)
        assert ids == ["2"] and len(problems) == 1 and "id 1 is labelled 2 times" in problems[0]
        with pytest.raises(AnnotationError, match="id 1 is labelled 2 times"): read_annotations(folder)
    coco["images"][1] |= {"id": 1, "file_name": "1.jpg"}  # two images of one number
    write_files(tmp_path/"coco", labels=coco)
    ids, problems = read(tmp_path/"coco")
    assert ids == ["2"] and "annotation for two images of one number" in problems[0]


def test_a_renamed_image_does_not_get_the_labels_of_another(tmp_path):
    write_files(tmp_path, five=to_labelme(labelled("4"), "4.png"))
    assert read(tmp_path) == (["4"], [])
    (tmp_path/"five.png").touch()
    ids, problems = read(tmp_path)
    assert ids == [] and problems == [f"{tmp_path}/five.json is beside five.png, but names the image 4."]


def change(content, label=None, size=None):
    "Name the areas, or declare another size, in a file of any tool"
    for shape in content.get("shapes", []) + content.get("objects", []) + content.get("categories", []):
        for key in {"label", "classTitle", "name"} & shape.keys():
            if label and shape[key] == "hand": shape[key] = label
    for image in [content, content.get("size", {}), *content.get("images", [])]:
        for key in {"imageHeight", "height", "imageWidth", "width"} & image.keys():
            if size: image[key] = size[key.lower().endswith("width")]
    return content


@pytest.mark.parametrize("kind", ["labelme", "Supervisely", "COCO"])
def test_labels_outside_of_the_declared_size_are_left_out(tmp_path, kind):
    "A tool displayed the image rotated, but declares the size of the file"
    tall = Annotation("1", (200, 40), np.zeros((200, 40), bool), np.array([[20., 10], [20, 150], [30, 190]]))
    tall.mask[20:190, 5:35] = True
    content = {"labelme": to_labelme(tall, "1.png"), "Supervisely": to_supervisely(tall),
               "COCO": to_coco([tall])}[kind]
    write_files(tmp_path, **{"1.png" if kind == "Supervisely" else "1": change(content, size=(40, 200))})
    annotation, = read_annotations(tmp_path, problems := [])
    assert annotation.mask is None and np.isfinite(annotation.points[:, 0]).tolist() == [True, False, False]
    assert "2 × point outside of its image" in problems[0] and "1 × area outside of its image" in problems[0]


def test_other_areas_are_not_the_hand(tmp_path):
    letter = labelled(mask=np.flipud(SQUARE))
    labelme = to_labelme(labelled(), "1.png")
    labelme["shapes"] += change(to_labelme(letter, "1.png"), "letter L")["shapes"]
    supervisely = to_supervisely(labelled())
    supervisely["objects"] += change(to_supervisely(letter), "letter L")["objects"]
    coco = to_coco([labelled()])
    coco["annotations"] += [to_coco([letter])["annotations"][0] | {"id": 2, "category_id": 2}]
    coco["categories"] += [{"id": 2, "name": "letter L"}]
    for content, reader in ((labelme, from_labelme), (supervisely, from_supervisely), (coco, from_coco)):
        annotation, = reader(content, "1.png", left := Counter())
        assert (annotation.mask == SQUARE).all() and left == {"area 'letter l'": 1}
        annotation, = reader(change(content, "bones"), "1.png", left := Counter())
        assert (annotation.mask == SQUARE | letter.mask).all() and not left


def test_files_of_other_tools_are_counted(tmp_path, monkeypatch):
    first, second = (to_labelme(labelled(i), f"{i}.png") for i in "12")
    write_files(tmp_path, labels__1=first, locked__2=second)
    for name in ("1.xml", "2.XML", "export.ndjson", "masks.npz", "yolo.txt", "readme.txt", "@eaDir/3.xml"):
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_text("0 0.5 0.5 0.25 0.125\n" if name == "yolo.txt" else "3 hands of 4\n")
    (tmp_path/"labels"/"1.json").rename(tmp_path/"labels"/"1.JSON")
    scandir = os.scandir
    def locked(folder):
        if str(folder).endswith("locked"): raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)
    monkeypatch.setattr("os.scandir", locked)
    ids, problems = read(tmp_path)
    assert ids == ["1"] and problems[0] == f"{tmp_path}/locked can't be read: Permission denied."
    sentence, kinds = problems[1].rstrip(".").split(" labels were not understood and are left out: ")
    assert sentence.endswith(": 5")
    assert set(kinds.split(", ")) == {"2 × file .xml", "1 × file .ndjson", "1 × file .npz", "1 × file .txt"}


@pytest.mark.parametrize("corners", [[], [[5, 5]], [[5, 5], [20, 30]]])
@pytest.mark.parametrize("kind", ["labelme", "Supervisely", "COCO"])
def test_polygons_without_an_area_are_left_out(tmp_path, kind, corners):
    "A click too few is no mask of a line"
    content = {"labelme": to_labelme(labelled(), "1.png"), "Supervisely": to_supervisely(labelled()),
               "COCO": to_coco([labelled()])}[kind]
    polygon = dict(exterior=corners, interior=[])
    if kind == "labelme": content["shapes"][0]["points"] = corners
    elif kind == "COCO": content["annotations"][0]["segmentation"] = [sum(corners, [])]
    else: content["objects"] = [dict(classTitle="hand", geometryType="polygon", points=polygon)]
    write_files(tmp_path, **{"1.png" if kind == "Supervisely" else "1": content})
    ids, problems = read(tmp_path)
    assert ids == [] and len(problems) == 1
    assert "polygon of fewer than three corners" in problems[0] or "box without an outline" in problems[0]


def test_run_lengths_of_another_image_are_refused(tmp_path):
    "Of as many pixels, such as those of the rotated image"
    ring = SQUARE.copy()
    ring[15:20, 8:12] = False
    coco = to_coco([labelled(mask=ring)])
    coco["annotations"][0]["segmentation"]["size"].reverse()
    write_files(tmp_path, labels=coco)
    ids, problems = read(tmp_path)
    assert ids == [] and "run lengths in the file are of an image of the size [40, 60]" in problems[0]
