"Boxes of regions and kernels of a profile: they reach the arrays, the networks and the assessment"
import json

import numpy as np
import pandas as pd
import pytest
from test_regions import cohort  # noqa: F401  a fixture

from boneage.assessment import _member_input
from boneage.bone_age import ModelName
from boneage.datasets.preprocessing import read_regions, write_regions
from boneage.datasets.profiles import BoneAgeSettings
from boneage.inference import WeightsError, read_config
from boneage.networks import load_network
from boneage.registration import REGIONS, RegisteredRadiograph, find_region, region_image
from boneage.training.bone_age import bone_age_config, fit_bone_age
from boneage.training.core import FitJob

SETTINGS = dict(scales=dict(carpals=0.05), widths=(4,)*6, pools=(2, 2, 1, 1, 1, 1), hidden=(8,), margin=0.1,
                batch_size=2, schedule=dict(epochs=1))
BOX = (300, 1350, 1000, 700)
CARPALS = ModelName("registered", "carpals", "both", "regression")


def config_of(**changes) -> dict: return bone_age_config(CARPALS, BoneAgeSettings(**SETTINGS | changes))


def test_defaults_are_those_of_the_paper():
    assert {name: BoneAgeSettings().region(name) for name in REGIONS} == REGIONS
    config = config_of()
    assert "box" not in config["network_input"] and tuple(config["kernels"]) == (3, 1)
    assert config_of(boxes=dict(carpals=tuple(REGIONS["carpals"][2:]))) == config


def test_box_gives_the_networks_input_and_stands_in_its_configuration(tmp_path):
    config = config_of(boxes=dict(carpals=BOX))
    assert config["shape"] == (35, 50) != config_of()["shape"]
    path = tmp_path/"config.json"
    path.write_text(json.dumps(config))
    found = _member_input(tmp_path, str(CARPALS), read_config(path))
    assert find_region(found.region, found.box) == REGIONS["carpals"]._replace(height=700)
    path.write_text(json.dumps(config | dict(network_input=config_of()["network_input"])))
    with pytest.raises(WeightsError, match="does not give an image of shape"):
        _member_input(tmp_path, str(CARPALS), read_config(path))


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, -4], "box", [1, 2, 3, 10**6], [1, 2, 3, True]])
def test_wrong_box_of_a_saved_network_is_refused(box, tmp_path):
    (tmp_path/"config.json").write_text(json.dumps(dict(network_input=dict(box=box))))
    with pytest.raises(WeightsError, match="box must be left, top, width and height"):
        read_config(tmp_path/"config.json")


def test_kernels_reach_the_network(tmp_path, cohort):  # noqa: F811
    radiographs, contrasts = cohort
    for kernels, sides in (((3, 1), [3, 1]), ((5, 3, 1), [5, 3, 1])):
        settings = BoneAgeSettings(**SETTINGS, kernels=kernels, boxes=dict(carpals=BOX))
        wanted, folder = [("registered", settings.region("carpals"))], tmp_path/f"{len(kernels)}"
        write_regions(radiographs, contrasts, wanted, settings.scales, settings.margin, folder/"regions")
        images, ids = read_regions(folder/"regions", "registered", "carpals")
        labels = pd.DataFrame(dict(id=ids, sex="M", bone_age=[100., 120.], split=["train", "validation"]))
        fit_bone_age(CARPALS, images, labels, settings, FitJob(folder/"model", folder/"fit.safetensors"))
        network, config = load_network(folder/"model")
        found = [layer.kernel_size[0] for layer in network.features[0] if hasattr(layer, "kernel_size")
                 and hasattr(layer, "out_channels")]
        assert found == sides and tuple(config["network_input"]["box"]) == BOX


def test_region_image_takes_another_box():
    image = np.random.default_rng(0).random((2080, 1600), np.float32)
    radiograph = RegisteredRadiograph(image, None, None, np.eye(3))
    larger = find_region("carpals", (300, 1350, 1000, 700))
    whole, usual = region_image(radiograph, larger, 1), region_image(radiograph, "carpals", 1)
    assert whole.shape == (700, 1000) and (whole[:500] == usual).all()
