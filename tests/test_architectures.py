"The report on architectures shows the networks that a run used, and computes what agrees with the paper"
import json
from pathlib import Path

import pytest

from boneage.assessment import weights_folder
from boneage.datasets.profiles import change_settings, load_profile
from boneage.datasets.workspace import open_workspace
from boneage.inference import read_config
from boneage.networks import save_network
from boneage.paper.architectures import (
    NETWORK_FOLDERS,
    PAPER_KEYS,
    compare_architectures,
    network_table,
    profile_networks,
    run_networks,
)
from boneage.paper.claims import format_agreement, read_paper
from boneage.paper.pipeline import _take_released

REPORTS = Path(__file__).resolve().parents[1]/"reports"
PAPER = read_paper(REPORTS/"paper.yml")


def workspace_of(name: str, folder: Path):
    "A workspace with the networks that a run of a profile loads and fits"
    workspace = open_workspace(load_profile(REPORTS/"profiles"/f"{name}.yaml"), folder)
    for title, used in profile_networks(workspace.profile).items():
        target = NETWORK_FOLDERS[title]
        if used.source == "released": _take_released(workspace, target)  # as the pipeline does
        else: save_network(workspace.models/target, used.build()[0], used.config)
    return workspace


def compare_run(workspace): return compare_architectures(network_table(run_networks(workspace)), PAPER)


@pytest.mark.parametrize("name, released", [("phantom", []), ("sample", ["U-Net", "key points"]),
                                            ("rsna", ["U-Net", "key points"])])
def test_table_names_the_networks_that_were_loaded(name, released, tmp_path):
    workspace = workspace_of(name, tmp_path)
    table = network_table(run_networks(workspace))
    assert list(table.index) == list(NETWORK_FOLDERS)
    assert list(table.index[table.source == "released"]) == released
    for title, folder in NETWORK_FOLDERS.items():
        loaded = read_config(workspace.models/folder/"config.json")
        assert table.network[title] == loaded["network"]
        if title in released:
            package = read_config(weights_folder()/folder/"config.json")
            assert table.network[title] == package["network"]
            assert [table.height[title], table.width[title]] == package["network_input"]["shape"]
            assert table.parameters[title] == package["card"]["parameters"]


def test_released_key_points_are_not_reported_as_the_papers(tmp_path):
    compared = {name: compare_run(workspace_of(name, tmp_path/name)) for name in ("phantom", "sample")}
    differs = {name: list(table.key[table.difference != 0]) for name, table in compared.items()}
    small = ["connected"]  # the small bone-age networks have one layer before the output
    assert differs == {"phantom": small, "sample": small + list(PAPER_KEYS["key points"])}
    assert "key-point network" not in format_agreement(compared["phantom"]).partition("**Differs**")[2]
    assert "VGG blocks of the key-point network (paper 3, here 5)" in format_agreement(compared["sample"])


@pytest.mark.parametrize("folder, changes, key", [
    ("registered-hand-both-regression", dict(widths=[8]*5, pools=[2]*5), "blocks"),
    ("registered-hand-both-regression", dict(hidden=[64]*3), "connected"),
    ("keypoints", dict(hidden=[64]), "key_point_connected"),
    ("keypoints", dict(shape=[128, 100]), "key_point_height"),
])
def test_a_changed_configuration_no_longer_agrees(folder, changes, key, tmp_path):
    workspace = workspace_of("phantom", tmp_path)
    def listed():
        "Whether the quantity stands after Agrees, and after Differs"
        agrees, _, differs = format_agreement(compare_run(workspace)).partition("**Differs**")
        return [PAPER[key].description in part for part in (agrees, differs)]
    path = workspace.models/folder/"config.json"
    full = json.loads(path.read_text()) | (dict(hidden=[64, 64]) if folder != "keypoints" else {})
    path.write_text(json.dumps(full))
    assert listed() == [True, False]
    path.write_text(json.dumps(full | changes))
    assert listed() == [False, True]


def test_a_profile_decides_what_a_run_takes():
    profile = load_profile(REPORTS/"profiles"/"rsna.yaml")
    fits = change_settings(profile, dict(segmentation=dict(weights="fit"), keypoints=dict(weights="fit")))
    table = network_table(profile_networks(fits))
    assert set(table.source) == {"fitted"} and table.network["key points"] == "KeyPointNetwork"
    assert (table.height["U-Net"], table.width["U-Net"]) == profile.segmentation.shape


def test_the_full_profile_has_the_papers_numbers():
    profile = load_profile(REPORTS/"profiles"/"rsna.yaml")
    fits = change_settings(profile, dict(segmentation=dict(weights="fit"), keypoints=dict(weights="fit")))
    compared = compare_architectures(network_table(profile_networks(fits)), PAPER)
    assert len(compared) == sum(map(len, PAPER_KEYS.values())) and (compared.difference == 0).all()
