"Tiny networks with known outputs: the mask is what is bright, key points and bone age are constant"
from pathlib import Path

import torch

from boneage.ensembles import EnsembleRule, write_ensemble_rules
from boneage.networks import build_network, save_network, scaled_from_months

# middle tip, capitate, thumb tip in an input of 130×100
DEFAULT_POINTS = [[50.0, 6.0], [50.0, 100.0], [97.0, 52.0]]
AGES = {"registered-hand-both-regression": 100.0, "registered-carpals-both-classification": 120.0,
        "registered-hand-female-regression": 80.0,
        "registered-metacarpals-male-regression": 150.0, "normalised-hand-both-regression": 60.0}
NETWORK_INPUTS = {"hand": ([62, 47], 1/32), "carpals": ([31, 62], 1/16), "metacarpals": ([55, 55], 1/20)}
RULES = {"F": EnsembleRule(("registered-hand-female-regression", "registered-hand-both-regression",
                            "registered-carpals-both-classification"), (2, 1, 1), 20),
         "M": EnsembleRule(("registered-metacarpals-male-regression", "registered-hand-both-regression"),
                           (3, 1), 15),
         "none": EnsembleRule(("registered-hand-both-regression", "registered-carpals-both-classification"),
                              (1, 1), 110)}


@torch.no_grad()
def threshold_unet(threshold: float = 0.25):
    "A U-Net whose logit is how much brighter than `threshold` a pixel is"
    config = dict(network="UNet", width=1, depth=1, network_input={"shape": [160, 128]})
    network = build_network(config)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 4:
            parameter.zero_()
            parameter[0, 0, parameter.shape[2]//2, parameter.shape[3]//2] = 1  # passes on its first channel
        elif "bias" in name: parameter.zero_()
    network.logit.weight.fill_(40)
    network.logit.bias.fill_(-40*threshold)
    return network, config


@torch.no_grad()
def constant_key_point_network(points=DEFAULT_POINTS):
    "A key-point network with a constant output"
    config = dict(network="KeyPointNetwork", shape=[130, 100], widths=[2, 2, 2], hidden=[4, 4])
    network = build_network(config).eval()
    last = network.head[-1]
    last.weight.zero_()
    last.bias.zero_()
    rest = torch.tensor(points) - network(torch.zeros(1, 1, 130, 100))[0]
    unit = 65.0  # half of the input's longer side
    last.bias.copy_((rest/unit).flatten())
    return network, config


@torch.no_grad()
def constant_age_network(months: float, region: str, head: str, kind: str = "registered"):
    "A bone-age network whose output is always `months`"
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
    "Write networks as a run does; returns the `models` folder"
    models = Path(folder)/"models"
    save_network(models/"segmentation", *threshold_unet())
    save_network(models/"keypoints", *constant_key_point_network())
    for name in names:
        kind, region, _, head = name.split("-")
        save_network(models/name, *constant_age_network(AGES[name], region, head, kind))
    if rules: write_ensemble_rules(models/"ensembles.json", rules)
    return models
