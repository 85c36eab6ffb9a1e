"Arrays of regions: written whole or not at all, and read back as written"
import numpy as np
import pandas as pd
import pytest

from boneage.contrast import measure_contrast
from boneage.datasets.preprocessing import MATRIX_COLUMNS, extract_regions, read_regions, write_regions
from boneage.radiographs import RadiographError, read_radiograph, write_mask, write_radiograph
from boneage.registration import RegisteredRadiograph, region_matrix
from boneage.synthetic.phantoms import make_phantom

REGIONS, SCALES = [("registered", "carpals"), ("original", "hand")], dict(carpals=0.05, hand=0.03)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    "Two radiographs, the mask of the second empty, with their contrasts and true matrices"
    folder, rows, contrasts = tmp_path_factory.mktemp("radiographs"), [], []
    for index, name in enumerate(["007", "8"]):
        phantom = make_phantom(0, index, bone_age=120.0, defects={})
        path, mask_path = folder/f"{name}.png", folder/f"{name}-mask.png"
        write_radiograph(path, phantom.image)
        write_mask(mask_path, phantom.mask if index == 0 else np.zeros_like(phantom.mask))
        contrasts.append(measure_contrast(read_radiograph(path), phantom.mask))
        matrix = dict(zip(MATRIX_COLUMNS, phantom.frame_from_image[:2].ravel()))
        rows.append(dict(id=name, path=str(path), mask=str(mask_path)) | matrix)
    return pd.DataFrame(rows), contrasts


def test_region_arrays_replace_older_ones(cohort, tmp_path):
    radiographs, contrasts = cohort
    folder = tmp_path/"deep"/"regions"
    write_regions(radiographs, contrasts, REGIONS, SCALES, 0.1, folder)
    for stale_folder in (folder, folder.with_name("regions.part")):
        stale_folder.mkdir(exist_ok=True)
        (stale_folder/"stale.npy").touch()
    write_regions(radiographs, contrasts, REGIONS, SCALES, 0.1, folder)
    written = sorted(path.name for path in folder.iterdir())
    assert written == ["ids.csv", "original-hand.npy", "registered-carpals.npy"]
    assert [path.name for path in folder.parent.iterdir()] == ["regions"]
    assert (folder/"ids.csv").read_text().split() == ["id", "007", "8"]
    for kind, region in REGIONS:
        array, ids = read_regions(folder, kind, region)
        assert isinstance(array, np.memmap) and array.dtype == np.uint8 and ids.tolist() == ["007", "8"]
        assert array.shape == (2, *region_matrix(region, SCALES[region], 0.1)[1])


def test_empty_mask_keeps_the_whole_radiograph(cohort, tmp_path):
    radiographs, contrasts = cohort
    write_regions(radiographs, contrasts, REGIONS, SCALES, 0.1, tmp_path/"regions")
    image = read_radiograph(radiographs.path[1])
    matrix = np.vstack([radiographs.loc[1, MATRIX_COLUMNS].to_numpy(float).reshape(2, 3), [0, 0, 1]])
    radiograph = RegisteredRadiograph(image, np.ones(image.shape, bool), contrasts[1], matrix)
    for (kind, region), expected in zip(REGIONS, extract_regions(radiograph, REGIONS, SCALES, 0.1)):
        assert np.array_equal(read_regions(tmp_path/"regions", kind, region)[0][1], expected)


def test_unreadable_radiograph_keeps_the_old_arrays(cohort, tmp_path):
    radiographs, contrasts = cohort
    write_regions(radiographs, contrasts, REGIONS, SCALES, 0.1, tmp_path/"regions")
    missing = radiographs.assign(path=["nowhere.png"]*2)
    with pytest.raises(RadiographError):
        write_regions(missing, contrasts, REGIONS, SCALES, 0.1, tmp_path/"regions")
    assert read_regions(tmp_path/"regions", *REGIONS[0])[0].any()
