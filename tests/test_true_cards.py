"""The cards of the released networks agree with themselves, with the networks, and with the package's data

An edited number contradicts others: that of all radiographs is the mean of its groups, a share is a possible
one, a difference is one of two errors. What no other number holds has a digest in
tests/data/package_data.sha256.
"""
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from boneage import assessment
from boneage.assessment import (
    age_warnings,
    cut_warnings,
    exposure_warnings,
    mask_warnings,
    registration_warnings,
    weights_folder,
)
from boneage.contrast import Contrast
from boneage.datasets.annotations import read_rsna_labels
from boneage.datasets.profiles import FineTuningSettings, load_profile
from boneage.ensembles import read_ensemble_rules
from boneage.inference import NetworkInput, current_names, read_config
from boneage.networks import count_parameters, load_network
from boneage.paper.claims import claim_verdict
from boneage.paper.evaluation import Estimate
from boneage.registration import RegisteredRadiograph
from boneage.release.ages import ALONE, FEW_GREY_LEVELS, member_name
from boneage.release.cards import outline_kinds, summarise_package_review
from boneage.segmentation import Segmentation
from boneage.synthetic.exposure import NO_DEFECTS
from boneage.synthetic.phantoms import make_phantom
from boneage.training.fine_tuning import fine_tuning_config

PACKAGE, WEIGHTS = weights_folder().parent, weights_folder()
PROFILES = Path(__file__).resolve().parent.parent/"reports"/"profiles"
UNITS = {"MAE": 0.01, "bias": 0.01, "within 6": 0.001, "within 12": 0.001, "coverage": 0.001,
         "interval score": 0.1}  # of the last place


def read_card(name: str) -> dict:
    "The card of masks or key points, under current names"
    return read_config(WEIGHTS/name/"config.json")["card"]


@pytest.fixture(scope="module")
def ages() -> dict:
    "The card of the bone-age networks, under current names"
    return current_names(json.loads((WEIGHTS/"bone-age.json").read_text()))


def section(card: dict, name: str):
    "A section that takes hours to measure: of the card, or of an earlier one"
    return card[name] if name in card else card["earlier"][name]["content"]


def is_weighted_mean(whole: dict, parts: list[dict], name: str, unit: float) -> bool:
    "Whether a number is the mean of those of its parts, up to the rounding of both"
    counts = [part["radiographs"] for part in parts]
    return abs(np.average([part[name] for part in parts], weights=counts) - whole[name]) <= unit + 1e-9


# ------------------------------------------------------------------ the errors of the ensemble

@pytest.mark.parametrize("table", ["errors", "errors_without_sex"])
def test_errors_of_all_are_the_mean_of_their_groups(ages, table):
    everyone, *groups = ages[table]
    assert [row["group"] for row in ages[table][:3]] == ["all", "boys", "girls"]
    for parts in (groups[:2], groups[2:]):  # by sex, by stage
        assert sum(row["radiographs"] for row in parts) == everyone["radiographs"] == ages["radiographs"]
        for name, unit in UNITS.items(): assert is_weighted_mean(everyone, parts, name, unit), name


@pytest.mark.parametrize("table", ["errors", "errors_without_sex"])
def test_each_error_is_possible(ages, table):
    for row in ages[table]:
        n, group = row["radiographs"], row["group"]
        for name in ("within 6", "within 12", "coverage"):
            assert round(round(row[name]*n)/n, 3) == row[name], f"{group}, {name}: not a share of {n}"
        assert abs(row["bias"]) <= row["MAE"] + 0.01 and row["within 6"] <= row["within 12"], group
        assert row["median width"] > 0 and row["interval score"] > 0, group
        if n > 1: assert row["low"] < row["MAE"] < row["high"], group
        else: assert row["low"] is None and row["high"] is None and row["MAE"] == abs(row["bias"])


def test_ensemble_has_the_same_error_in_all_tables(ages):
    assert all(ages["errors"][0][name] == ages["regions"][-1][name]
               for name in ("MAE", "low", "high", "radiographs"))


def test_the_same_error_is_the_same_in_the_ablation(ages):
    "The ensemble, the ensemble without the sex and the whole hand stand in two or three tables"
    if "ablation" not in ages: pytest.skip("the ablation is older than the errors")
    known, unknown = ages["errors"][0], ages["errors_without_sex"][0]
    hand, *_, ensemble = ages["regions"]
    rows = {row["variant"]: row for row in ages["ablation"]}
    without_sex = next(row for name, row in rows.items() if name.endswith("without the sex"))
    released = rows["whole hand, released recipe"]
    for first, second in ((known, ensemble), (unknown, without_sex), (hand, released)):
        assert all(first[name] == second[name] for name in ("MAE", "low", "high", "radiographs"))
    for name in ("worse by", "worse by, low", "worse by, high"): assert hand[name] == released[name]


def test_differences_are_those_of_the_errors(ages):
    ablation = section(ages, "ablation")
    errors = {row["variant"]: row for row in ablation}
    alone = next(row for row in ablation if row["reference"] == "ensemble" and "hand" in row["variant"])
    errors["ensemble"] = alone | {"MAE": alone["MAE"] - alone["worse by"]}
    errors["all"] = ages["errors"][0]
    for row in [*ablation, *(part | {"reference": "all"} for part in ages["regions"])]:
        assert row["low"] <= row["MAE"] <= row["high"]
        assert row["worse by, low"] <= row["worse by"] <= row["worse by, high"]
        reference = errors[row["reference"]]
        if row["radiographs"] == reference["radiographs"]:
            assert row["worse by"] == pytest.approx(row["MAE"] - reference["MAE"], abs=0.0151), row


def test_changes_of_age_add_up(ages):
    *rows, everyone = ages["variants"]
    assert everyone["variant"] == "all"
    for name in ("radiographs", "no prediction"): assert everyone[name] == sum(row[name] for row in rows)
    assert everyone["largest"] == max(row["largest"] for row in rows)
    medians = [row["median"] for row in rows]
    assert min(medians) <= everyone["median"] <= max(medians)
    assert all(row["median"] <= row["95 %"] <= row["largest"] + 0.05 for row in ages["variants"])
    counts = {row["variant"]: row["radiographs"] for row in rows}
    dimmed = [counts.pop(name) for name in list(counts) if name.startswith("dim, 8 bit")]  # by grey levels
    assert set(counts) == {"turned 90°", "turned 180°", "turned 270°", "mirrored", "inverted", "dim, 16 bit",
                           "half the size"}
    assert set(counts.values()) == {sum(dimmed)}


def test_grid_agrees_with_its_comparisons(ages):
    tables = section(ages, "paper_grid")["tables"]
    errors = {row["about"]: row["MAE"] for row in tables["The grid and its ensembles, MAE"]}
    kinds = ("original", "normalised", "registered")
    errors |= dict(zip(kinds, (row["MAE"] for row in tables["Preprocessing, MAE"])))
    compared = [(row, row["about"].split(", ")) for name, table in tables.items() if name.endswith("order")
                for row in table]
    assert len(compared) == 2 + 18 + 12
    for row, (claim, *rest) in compared:
        first, second = claim.split(" > ")
        pair = [", ".join([part, *rest]) for part in (first, second)]
        if first == "regression": pair = [f"{rest[1]}, {rest[0]}, {head}" for head in (first, second)]
        difference = errors[pair[0]] - errors[pair[1]]
        assert row["difference"] == pytest.approx(difference, abs=0.0151), row
        found = Estimate(row["difference"], row["low"], row["high"], row["radiographs"])
        assert found.low <= found.value <= found.high and claim_verdict(found) == row["verdict"], row


# ------------------------------------------------------------------ the networks

def members_of(settings: dict) -> dict[str, tuple[list[str], float]]:
    "Names of the networks and scale of the input of what the ensemble weighs"
    folds, alone = range(settings["folds"]), settings.get("thumbnails", {"scales": {}})
    return {**{region: ([member_name(region, fold) for fold in folds], settings["scales"][region])
               for region in settings["regions"]},
            **{f"{region}{ALONE}": ([f"boneage-{region}{ALONE}-{fit}" for fit in range(alone["fits"])], scale)
               for region, scale in alone["scales"].items()}}


def test_card_describes_the_networks(ages):
    "Their number of weights, radiographs, folds, regions and inputs; and the weights of the ensemble"
    rules, settings = read_ensemble_rules(WEIGHTS/"ensembles.json"), ages["settings"]
    parameters, fitted_on, members = 0, dict.fromkeys(settings["regions"], 0), members_of(settings)
    assert f"{ages['radiographs']:,} radiographs" in ages["data"] and settings["folds"] == ages["folds"]
    for kind, (names, scale) in members.items():
        region = kind.removesuffix(ALONE)
        for name in names:
            network, config = load_network(WEIGHTS/name)
            parameters += count_parameters(network)
            if kind == region: fitted_on[region] += config["card"]["fitted_on"]
            assert config["card"]["parameters"] == count_parameters(network)
            found = NetworkInput.from_config(config)
            assert (found.kind, found.region, found.scale) == ("registered", region, scale)
            assert found.margin == settings["margin"] and config["stages"] == settings["stages"][region]
            assert [list(pose) for pose in found.tta] == settings["tta"]
    assert parameters == ages["parameters"]
    assert set(fitted_on.values()) == {(ages["folds"] - 1)*ages["radiographs"]}  # each is held out once
    for key, weights in ages["weights"].items():
        assert list(weights) == list(members)
        for kind, weight in weights.items():
            own = [w for name, w in zip(rules[key].members, rules[key].weights) if name in members[kind][0]]
            assert weight == round(sum(own), 3) and len(set(own)) <= 1
            assert len(own) == len(members[kind][0]) or weight == 0
    for name in ("segmentation", "keypoints"):
        assert read_card(name)["parameters"] == count_parameters(load_network(WEIGHTS/name)[0])


def test_default_settings_are_those_of_the_released_networks(ages):
    "`boneage release` fits what the card describes"
    own = asdict(load_profile(PROFILES/"release.yaml").fine_tuning)
    flat = own | own.pop("schedule") | own.pop("augmentation")
    renamed = dict(smoothed_share="smoothing_weight", unknown_share="unknown_sex_weight")
    written = {renamed.get(name, name): value for name, value in ages["settings"].items()}
    written |= written.pop("schedule", {}) | written.pop("augmentation", {})
    assert json.loads(json.dumps({name: flat[name] for name in written})) == written
    assert {"epochs", "learning_rate", "rotation", "tta", "smoothing", "unknown_sex_weight"} <= set(written)


# ------------------------------------------------------------------ masks

def read_reviews() -> pd.DataFrame:
    return pd.read_csv(PACKAGE/"data"/"rsna_mask_reviews.csv", dtype=str, keep_default_na=False)


def test_review_labels_are_those_that_the_card_counts():
    reviews, card = read_reviews(), read_card("segmentation")["by_eye"]
    wrong, twice = reviews.review_label == "wrong", reviews.second != ""
    assert set(reviews.review_label) == {"right", "wrong"} and reviews.id.is_unique
    assert card["radiographs"] == len(reviews) and card["right"] == (~wrong).sum()
    assert card["share right"] == round((~wrong).mean(), 4)
    assert card["wrong, clearly"] == (reviews.sure == "clear").sum()
    assert card["wrong, unsure"] == (reviews.sure == "unsure").sum()
    assert ((reviews.sure != "") == wrong).all() and ((reviews.reason != "") == wrong).all()
    assert card["reviewed twice"] == twice.sum()
    assert card["of them the same label"] == (reviews.review_label == reviews.second).sum()
    assert card["right at the second review"] == (reviews.second == "right").sum()
    assert summarise_package_review(reviews.id.tolist()) == card


def test_drawn_labels_are_those_that_the_cards_count(ages):
    labels, masks = read_rsna_labels(), read_card("segmentation")
    drawn = [label.id for label in labels if label.mask is not None]
    pointed = [label.id for label in labels if np.isfinite(label.points).any()]
    kinds = pd.Series(outline_kinds(drawn)).value_counts().to_dict()
    assert {kind: masks["crossfit"][kind]["radiographs"] for kind in kinds} == kinds
    assert set(drawn) | set(pointed) <= set(read_reviews().id)
    last, points = masks["mining"][-1], read_card("keypoints")
    assert last["kept"] + last["corrected"] + last["rejected"] + len(drawn) == ages["radiographs"]
    assert f"{len(drawn)} masks by hand and {last['kept']:,} mined" in masks["data"]
    assert f"{len(pointed)} by hand" in points["data"]
    for name in ("heat maps (released)", "the paper's network"):
        assert points["crossfit"][name]["radiographs"] == len(pointed)


# ------------------------------------------------------------------ key points

def test_errors_of_key_points_are_their_quantiles():
    card = read_card("keypoints")
    assert set(card["crossfit"]) == set(card["quantiles"])
    for name, quantiles in card["quantiles"].items():
        row = card["crossfit"][name]
        assert len(quantiles) == 101 and quantiles == sorted(quantiles)
        found = [row["all points, median"], row["all points, 95 %"], row["worst"]]
        assert found == [quantiles[50], quantiles[95], quantiles[100]], name
        for measure in ("median", "95 %"):
            own = [row[f"{point}, {measure}"] for point in ("middle tip", "capitate", "thumb tip")]
            assert min(own) <= row[f"all points, {measure}"] <= max(own)
        if "beyond 60 px" not in row: continue
        beyond = max(row["tip, largest px"], row["capitate, largest px"]) > 60
        assert beyond == (row["beyond 60 px"] > 0) and row["of them righted"] <= row["mirrored hands"]


def test_changes_of_pose_and_exposure_add_up():
    variants = dict(read_card("keypoints")["variants"])
    everyone = variants.pop("all")
    assert set(variants) == {"turned", "mirrored", "inverted", "dim"}
    for name in ("within 30 px", "mirror flag correct"):
        assert is_weighted_mean(everyone, list(variants.values()), name, 0.0001)
    counts = {name: row["radiographs"] for name, row in variants.items()}
    assert counts["turned"] == 7*counts["dim"] and len({*counts.values()} - {counts["turned"]}) == 1
    assert everyone["radiographs"] == sum(counts.values())
    assert everyone["largest px"] == max(row["largest px"] for row in variants.values())
    for row in [everyone, *variants.values()]:
        assert row["median px"] <= row["95 % px"] <= row["largest px"]
        assert (row["largest px"] <= 30) == (row["within 30 px"] == 1)


def test_warnings_add_up(ages):
    warnings = read_card("keypoints")["warnings"]
    bad = [row for kind, row in warnings.items() if kind.startswith("bad: ") and kind != "bad: all"]
    everyone, cohort = warnings["bad: all"], warnings["cohort"]
    assert everyone["radiographs"] == sum(row["radiographs"] for row in bad) and len(bad) == 5
    assert cohort["radiographs"] == ages["radiographs"]
    for name in set(cohort) - {"radiographs"}:
        assert is_weighted_mean(everyone, bad, name, 0.0001), name
        for row in (cohort, everyone, *bad):
            n = row["radiographs"]
            assert round(round(row[name]*n)/n, 4) == row[name] and row[name] <= row["warned"]


# ------------------------------------------------------------------ what was measured

WRITE_ANEW = "(cd boneage && sha256sum data/*.csv data/*.json) > tests/data/package_data.sha256"
CHANGED = {
    "rsna_mask_reviews.csv": "if review labels have really changed, write the counts of "
                             "`summarise_package_review` into `by_eye` of the segmentation's card",
    "rsna_labels.json": "if labels have really changed, measure masks and key points anew (boneage release)"}


def test_package_data_are_those_that_were_measured_with():
    "The fingerprint of the card holds the weights and the rules, see test_weights.py"
    lines = (Path(__file__).parent/"data"/"package_data.sha256").read_text().splitlines()
    known = {name: code for code, name in (line.split("  ") for line in lines)}
    files = [*(PACKAGE/"data").glob("*.csv"), *(PACKAGE/"data").glob("*.json")]
    assert {path.relative_to(PACKAGE).as_posix() for path in files} == set(known), f"then: {WRITE_ANEW}"
    for path in files:
        advice = CHANGED.get(path.name, "numbers of the paper or of phantoms rest on it: compute them anew")
        name = path.relative_to(PACKAGE).as_posix()
        assert hashlib.sha256(path.read_bytes()).hexdigest() == known[name], (
            f"boneage/{name} has changed: {advice}; then: {WRITE_ANEW}")


def edge_mask(rows: int, first: int = 100) -> np.ndarray:
    "A hand in frame pixels that touches the left edge along some rows"
    mask = np.zeros((2080, 1600), bool)
    mask[first:first + rows, :40] = True
    return mask


HAND = edge_mask(9)
LIMITS = {  # warning: function of a value, the last value without and the first with a warning
    "exposure": (lambda v: exposure_warnings(Contrast(False, 0.0, v)), 0.0601, 0.0599),
    "outline": (lambda v: mask_warnings(Segmentation(HAND, v, 0.0)), 0.851, 0.849),
    "second hand": (lambda v: mask_warnings(Segmentation(HAND, 1.0, v)), 0.099, 0.101),
    "proportions": (lambda v: registration_warnings(v, 0.0), 0.801, 0.799),
    "passes": (lambda v: registration_warnings(1.0, v), 0.059, 0.061),
    "cut": (lambda v: cut_warnings(edge_mask(v), np.eye(3)), 60, 61),
    "forearm": (lambda v: cut_warnings(edge_mask(200, v), np.eye(3)), 1740, 1739),
    "infant": (age_warnings, 24.0, 23.9),
    "boy": (lambda v: age_warnings(v, "M"), 201.9, 202.0),
    "girl": (lambda v: age_warnings(v, "F"), 180.9, 181.0),
    "unknown sex": (age_warnings, 188.9, 189.0),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_of_warnings_are_those_of_the_cards(name):
    "The shares of warnings in the card, and the mined key points, were measured with these limits"
    warn, good, bad = LIMITS[name]
    assert warn(good) == [] and len(warn(bad)) == 1


def test_few_grey_levels_are_those_of_the_card(ages):
    few = [row["variant"] for row in ages["variants"] if row["variant"].startswith("dim, 8 bit")]
    assert len(few) == 2 and all(str(FEW_GREY_LEVELS) in name for name in few)


# ------------------------------------------------------------------ predictions

def test_members_get_all_tta_poses_at_their_size(monkeypatch):
    config, seen = fine_tuning_config(FineTuningSettings(), "hand"), []
    def predict(network, config, crops, sex):
        seen.append((crops, sex))
        return np.arange(10., 10. + len(crops)), np.eye(240)[:len(crops)]
    monkeypatch.setattr(assessment, "predict_with_distribution", predict)
    phantom = make_phantom(20, 1, shape=(256, 200), defects=NO_DEFECTS)
    radiograph = RegisteredRadiograph(phantom.image/np.float32(255), phantom.mask, Contrast(False, 0.0, 1.0),
                                      phantom.frame_from_image)
    assessor = SimpleNamespace(network=lambda name: (None, config), folder=Path("weights"))
    predictions = assessment.predict_with_members(assessor, ("boneage-hand-0",), "F", radiograph)
    crops, sex = seen[0]
    assert crops.shape == (2, *config["shape"]) and (crops[0] != crops[1]).any() and sex == "F"
    assert predictions[0].months == 10.5 and predictions[0].distribution[:3].tolist() == [0.5, 0.5, 0]
