"""Tiny networks with known predictions, for tests.

Bright pixels are hand, key points lie at their usual positions, and a bone age is a constant.
"""
from pathlib import Path

import torch

from boneage.ensembles import EnsembleRule, write_ensemble_rules
from boneage.networks import build_network, save_network, scaled_from_months

DEFAULT_POINTS = [[46.2, 12.6], [49.4, 92.5], [83.7, 54.7]]  # middle tip, capitate, thumb tip: pixels
HAND, CARPALS = "registered-hand-both-regression", "registered-carpals-both-classification"
FEMALE_HAND, MALE_METACARPALS = "registered-hand-female-regression", "registered-metacarpals-male-regression"
AGES = {HAND: 100.0, CARPALS: 120.0, FEMALE_HAND: 80.0, MALE_METACARPALS: 150.0,
        "normalised-hand-both-regression": 60.0}
NETWORK_INPUTS = {"hand": ([62, 47], 1/32), "carpals": ([31, 62], 1/16), "metacarpals": ([55, 55], 1/20)}
RULES = {"F": EnsembleRule((FEMALE_HAND, HAND, CARPALS), (2, 1, 1), 20),
         "M": EnsembleRule((MALE_METACARPALS, HAND), (3, 1), 15),
         "none": EnsembleRule((HAND, CARPALS), (1, 1), 110)}


@torch.no_grad()
def threshold_unet(threshold: float = 0.25):
    "A U-Net whose logit is proportional to a pixel's brightness above `threshold`"
    config = dict(network="UNet", width=1, depth=1, network_input={"shape": [160, 128]})
    network = build_network(config)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 4:
            parameter.zero_()
            parameter[0, 0, parameter.shape[2]//2, parameter.shape[3]//2] = 1  # copies its first channel
        elif "bias" in name: parameter.zero_()
    network.logit.weight.fill_(40)
    network.logit.bias.fill_(-40*threshold)
    return network, config


@torch.no_grad()
def constant_key_point_network(points=DEFAULT_POINTS):
    "A key-point network that predicts `points` for every input"
    config = dict(network="KeyPointNetwork", shape=[130, 100], widths=[2, 2, 2], hidden=[4, 4])
    network = build_network(config).eval()
    last = network.head[-1]
    last.weight.zero_()
    last.bias.zero_()
    offsets = torch.tensor(points) - network(torch.zeros(1, 1, 130, 100))[0]
    unit = 65.0  # half of the input's longer side
    last.bias.copy_((offsets/unit).flatten())
    return network, config


@torch.no_grad()
def constant_age_network(months: float, region: str, head: str, kind: str = "registered"):
    "A bone-age network that predicts `months` for every input"
    shape, scale = NETWORK_INPUTS[region]
    config = dict(network="BoneAgeNetwork", shape=shape, widths=[2]*6, hidden=[4, 4], head=head,
                  network_input={"input": kind, "region": region, "scale": scale})
    network = build_network(config)
    last = network.fully_connected[-1]
    last.weight.zero_()
    if head == "regression": last.bias.fill_(scaled_from_months(months))
    else: last.bias.copy_(torch.where(torch.arange(240) == months, 100.0, 0.0))
    return network, config


def write_tiny_models(folder: Path, names=tuple(AGES), rules=RULES) -> Path:
    "Write a folder of networks as a run does; returns its subfolder `models`"
    models = Path(folder)/"models"
    save_network(models/"segmentation", *threshold_unet())
    save_network(models/"keypoints", *constant_key_point_network())
    for name in names:
        kind, region, _, head = name.split("-")
        save_network(models/name, *constant_age_network(AGES[name], region, head, kind))
    if rules: write_ensemble_rules(models/"ensembles.json", rules)
    return models
