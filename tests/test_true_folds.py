"""The release measures each radiograph by networks and rules that were fitted without it

Folds are what they were when the released networks were fitted; weights and intervals of the ensemble come
from the other folds; the changes of pose and exposure are all there, and each is what its name states.
"""
import hashlib
import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from boneage.datasets.annotations import POINT_COLUMNS
from boneage.datasets.profiles import FineTuningSettings, KeyPointSettings, Profile
from boneage.datasets.workspace import open_workspace
from boneage.ensembles import EnsembleRule, average_distributions, distribution_sd, ensemble_mean
from boneage.geometry import transform
from boneage.inference import SEX_OUTPUTS
from boneage.registration import KEY_POINTS
from boneage.release import ages, preprocessing
from boneage.training.fine_tuning import assign_folds

FOLDS, MONTHS, REGIONS = 3, np.arange(240), ("hand", "carpals")


def in_fold(ids, fold: int) -> list[str]:
    return [name for name in ids if preprocessing.fold_of(name) == fold]


@pytest.fixture(scope="module")
def radiographs() -> pd.DataFrame:
    "A cohort of the release: id, sex, bone_age, fold"
    rng = np.random.default_rng(0)
    table = pd.DataFrame(dict(id=[str(1377 + 7*i) for i in range(90)], sex=rng.choice(["M", "F"], 90),
                              bone_age=rng.uniform(60, 180, 90).round()))
    return table.assign(fold=assign_folds(table, FOLDS))


@pytest.fixture
def workspace(tmp_path, radiographs):
    "A workspace of the release with its cohort"
    settings = FineTuningSettings(regions=REGIONS, folds=FOLDS)
    workspace = open_workspace(Profile("release", seed=5, fine_tuning=settings), tmp_path)
    workspace.write_table("cohort", radiographs.drop(columns="fold").assign(
        path=[f"{name}.png" for name in radiographs.id], split="train"))
    return workspace


# ------------------------------------------------------------------ folds

FOLDS_CHANGED = ("the folds are not those of the released networks, so that errors measured now would not be "
                 "those of held-out radiographs: fit and measure the networks anew (boneage release) first")


def short_digest(folds) -> str: return hashlib.sha256("".join(map(str, folds)).encode()).hexdigest()[:16]


def test_folds_of_masks_and_key_points_are_those_of_the_release():
    folds = [preprocessing.fold_of(str(i)) for i in range(1377, 15611)]
    assert preprocessing.FOLDS == 3 and folds[:8] == [1, 2, 1, 2, 1, 1, 2, 1], FOLDS_CHANGED
    assert short_digest(folds) == "aff6d4288c6fc006", FOLDS_CHANGED


def test_folds_of_bone_ages_are_those_of_the_release():
    ids = [str(i) for i in range(1377, 2377)]
    table = pd.DataFrame(dict(id=ids, sex=["M" if int(i) % 3 else "F" for i in ids],
                              bone_age=[float(int(i)**2 % 211 + 12) for i in ids]))
    assert short_digest(assign_folds(table, 5)) == "dd4c68e29c618594", FOLDS_CHANGED


def test_card_has_the_folds_of_the_default_settings():
    card = ages.read_config(ages.weights_folder()/"boneage-hand-0"/"config.json")["card"]
    assert card["fitted_on"] == 1205 - 241 and FineTuningSettings().folds == 5


# ------------------------------------------------------------------ masks and key points

class Stored:
    "Replaces what reads, writes and fits networks: a network is the name of its folder"
    def __init__(self, monkeypatch, module):
        self.fitted, self.predicted = {}, {}
        monkeypatch.setattr(module, "load_network", lambda folder: (SimpleNamespace(
            name=folder.name, state_dict=dict), folder.name))


def test_masks_are_predicted_by_networks_fitted_without_their_fold(workspace, radiographs, monkeypatch):
    stored = Stored(monkeypatch, preprocessing)
    def fit_round(number, data, masks, settings, job): stored.fitted[job.folder.name] = set(masks)
    def write_masks(cohort, network, config, folder, made_with):
        stored.predicted[network.name] = set(cohort.id)
        return cohort[["id"]].assign(mask="x", quality=1.0, area=0.5)
    monkeypatch.setattr(preprocessing, "fit_round", fit_round)
    monkeypatch.setattr(preprocessing, "write_masks", write_masks)
    synthetic = {f"phantom-{i}": None for i in range(9)}
    others = pd.DataFrame(dict(id=list(synthetic), split="annotated"))
    table = pd.concat([radiographs[["id"]].assign(split="train"), others])
    data = SimpleNamespace(radiographs=table, synthetic=synthetic, mining=None)
    accepted = synthetic | dict.fromkeys(radiographs.id)
    masks = preprocessing.cross_fit_segmentation(workspace, data, accepted)
    assert sorted(masks.id) == sorted(radiographs.id)
    for fold in range(preprocessing.FOLDS):
        name, own = f"segmentation-fold{fold}", set(in_fold(radiographs.id, fold))
        assert stored.predicted[name] == own and len(own) > 10
        assert stored.fitted[name] == set(accepted) - own
    preprocessing.fit_final_segmentation(workspace, data, accepted)
    assert stored.fitted["segmentation"] == set(accepted)


def points_of(radiographs: pd.DataFrame):
    "Point data of the cohort, every third one labelled by hand, and of nine phantoms"
    ids = [*radiographs.id, *(f"phantom-{i}" for i in range(9))]
    real = np.array([not name.startswith("phantom") for name in ids])
    return SimpleNamespace(annotations=pd.DataFrame(dict(id=ids)), crops=np.zeros((len(ids), 4, 4), np.uint8),
                           points=np.zeros((len(ids), 3, 2)), real=real,
                           labelled=real & (np.arange(len(ids)) % 3 == 0),
                           folds=np.array([preprocessing.fold_of(name) for name in ids]))


def test_key_points_are_predicted_by_detectors_fitted_without_their_fold(workspace, radiographs, monkeypatch):
    stored, data = Stored(monkeypatch, preprocessing), points_of(radiographs)
    ids = data.annotations.id.to_numpy()
    def fit_key_points(crops, points, settings, job, rows): stored.fitted[job.folder.name] = ids[rows]
    def register_cohort(inside, contrasts, network, passes, part, made_with):
        stored.predicted[network[0].name] = set(inside.id)
        return inside[["id"]]
    monkeypatch.setattr(preprocessing, "fit_key_points", fit_key_points)
    monkeypatch.setattr(preprocessing, "register_cohort", register_cohort)
    monkeypatch.setattr(preprocessing, "measure_radiograph", lambda *files: SimpleNamespace(contrast=None))
    masks, settings = radiographs[["id"]].assign(mask="x.png"), KeyPointSettings(labelled_share=0.6)
    preprocessing.cross_fit_key_points(workspace, masks, data, settings, "keypoints")
    for fold in range(preprocessing.FOLDS):
        name, own = f"keypoints-fold{fold}", set(in_fold(radiographs.id, fold))
        assert stored.predicted[name] == own
        assert set(stored.fitted[name]) == set(ids) - own
        assert np.isin(stored.fitted[name], ids[data.labelled]).mean() > 0.55  # labelled ones are repeated
    preprocessing.fit_detector(workspace, data, settings, "keypoints")
    assert set(stored.fitted["keypoints"]) == set(ids)


def test_points_and_masks_of_the_release_are_out_of_fold(workspace, radiographs):
    "Key points are fitted with predicted masks where there are any; mined points replace no label"
    ids = radiographs.id.tolist()[:6]
    annotations = pd.DataFrame(dict(id=[*ids[:4], "phantom-0", "other"], path="p", mask="m.png",
                                    origin=["label"]*4 + ["phantom", "data"]))
    annotations[list(POINT_COLUMNS)] = np.arange(36.).reshape(6, 6)
    workspace.write_table("annotations", annotations)
    masks = pd.DataFrame(dict(id=ids, mask=[f"out-of-fold-{name}" for name in ids]))
    found = pd.DataFrame(dict(id=ids, confidence=0.9, pass_displacement=0.01))
    found[list(POINT_COLUMNS)] = 7.0
    table = preprocessing._point_annotations(workspace, masks, found).set_index("id")
    origins = dict.fromkeys(ids[:4], "label") | dict.fromkeys(ids[4:], "found") | {"phantom-0": "phantom"}
    assert table.origin.to_dict() == origins
    assert table["mask"].to_dict() == dict(zip(masks.id, masks["mask"])) | {"phantom-0": "m.png"}
    assert (table.loc[ids[:4], list(POINT_COLUMNS)].to_numpy() == np.arange(24.).reshape(4, 6)).all()


class FoldAssessor:
    "Records the radiographs that it assesses"
    def __init__(self, fold):
        self.fold, self.paths, self.loaded = fold, [], {}

    def assess(self, source, sex=None):
        self.paths.append(source if isinstance(source, str) else f"{source[0, 0]:.0f}.png")
        points = dict(zip(KEY_POINTS, np.ones((3, 2))))
        return SimpleNamespace(mask=np.ones((4, 3), bool), key_points=points, frame_from_image=np.eye(3),
                               mirrored=False, confidence=1.0, warnings=[], bone_age_months=100.0*self.fold)


def test_released_masks_and_registrations_are_measured_out_of_fold(workspace, radiographs, monkeypatch):
    assessors = [FoldAssessor(fold) for fold in range(preprocessing.FOLDS)]
    table = preprocessing.assess_held_out(workspace, assessors)
    assert table.id.tolist() == radiographs.id.tolist()
    for assessor in assessors:
        expected = [f"{name}.png" for name in in_fold(radiographs.id, assessor.fold)]
        assert sorted(assessor.paths) == sorted(expected)


def read_number(path: str) -> np.ndarray:
    "An image that holds its radiograph's id"
    return np.full((2, 2), float(path.removesuffix(".png")))


def test_changed_radiographs_are_registered_out_of_fold(workspace, radiographs, monkeypatch):
    monkeypatch.setattr(preprocessing, "read_radiograph", read_number)
    def unchanged(image, background): return {"same": (image, np.eye(3))}
    monkeypatch.setattr(preprocessing, "make_radiograph_variants", unchanged)
    assessors = [FoldAssessor(fold) for fold in range(preprocessing.FOLDS)]
    preprocessing.compute_variant_distances(workspace.read_table("cohort"), assessors)
    for assessor in assessors:
        expected = [f"{name}.png" for name in in_fold(radiographs.id, assessor.fold)]
        assert sorted(assessor.paths) == sorted(2*expected)


def test_fold_assessors_have_the_networks_of_their_folds(workspace, monkeypatch):
    copied = {}
    Stored(monkeypatch, preprocessing)
    def save(folder, network, config): copied[folder.parent.name, folder.name] = config
    monkeypatch.setattr(preprocessing, "save_network", save)
    monkeypatch.setattr(preprocessing, "load_assessor", lambda folder, device: folder.name)
    assert preprocessing.build_fold_assessors(workspace) == [f"weights{fold}" for fold in range(3)]
    assert copied == {(f"weights{fold}", name): f"{name}-fold{fold}"
                      for fold in range(3) for name in ("segmentation", "keypoints")}


# ------------------------------------------------------------------ bone ages

@pytest.fixture
def fitted(workspace, radiographs, monkeypatch) -> dict:
    "By folder: what reached a fit of a bone-age network; predictions are the number of the fold"
    calls = {}
    def fine_tune(region, images, cohort, in_training, settings, job, kind="registered"):
        calls[job.folder.name] = SimpleNamespace(region=region, ids=set(cohort.id[in_training]), job=job,
                                                 images=images, settings=settings)
        return cohort[~in_training][["id", "sex", "bone_age"]].assign(predicted=1.0)
    monkeypatch.setattr(ages, "fine_tune", fine_tune)
    monkeypatch.setattr(ages, "read_regions", lambda folder, kind, region: (f"{folder.name}-{region}", None))
    return calls


def test_each_network_of_the_release_is_fitted_without_its_fold(workspace, radiographs, fitted):
    ages.cross_fit_ages(workspace, radiographs)
    assert set(fitted) == {ages.member_name(*pair) for pair in itertools.product(REGIONS, range(FOLDS))}
    for region, fold in itertools.product(REGIONS, range(FOLDS)):
        call = fitted[ages.member_name(region, fold)]
        assert call.ids == set(radiographs.id[radiographs.fold != fold])
        assert (call.region, call.images) == (region, f"regions-{region}")
        assert call.settings == workspace.profile.fine_tuning
        assert call.job.seed == workspace.profile.seed + fold


def test_variants_are_fitted_without_the_fold_that_they_predict(workspace, radiographs, fitted, monkeypatch):
    def outside(*folds): return set(radiographs.id[~radiographs.fold.isin(folds)])
    variant = ages.AblationVariant((), "short")
    table = ages.cross_fit_variants(workspace, radiographs, {"v": variant}, (0, 2))
    assert [fitted[f"variant-v-{fold}"].ids for fold in (0, 2)] == [outside(0), outside(2)]
    assert set(table.id) == outside(1)
    nested = ages.fit_nested(workspace, radiographs, variant, 1)
    assert [fitted[f"nested-1-{other}"].ids for other in (0, 2)] == [outside(1, 0), outside(1, 2)]
    assert set(nested.id) == outside(0, 2)
    splits = []
    def fit_bone_age(name, images, cohort, settings, job):
        splits.append(cohort.set_index("id").split)
        return cohort[cohort.split != "train"].assign(predicted=1.0)
    monkeypatch.setattr(ages, "fit_bone_age", fit_bone_age)
    ages.fit_paper_network(workspace, radiographs, (2,))
    assert set(splits[0].index[splits[0] == "train"]) == outside(2)
    assert set(splits[0]) == {"train", "test"}  # nothing is chosen by the held-out fold


def test_out_of_fold_distributions_are_in_the_order_of_the_radiographs(workspace, radiographs):
    "Each is that of the network that was fitted without the radiograph, however its table is ordered"
    rng, month = np.random.default_rng(1), dict(zip(radiographs.id, radiographs.bone_age.astype(int)))
    for fold in range(FOLDS):
        ids = rng.permutation(radiographs.id[radiographs.fold == fold].to_numpy())
        folder = workspace.path("models", ages.member_name("hand", fold), "predictions.csv").parent
        pd.DataFrame(dict(id=ids)).to_csv(folder/"predictions.csv", index=False)
        one_hot = np.eye(240)[[month[name] for name in ids]]
        np.save(folder/"distributions.npy", np.stack([one_hot*(i + 1) for i in range(3)], axis=1))
    found = ages.read_out_of_fold_distributions(workspace, radiographs, "hand")
    assert (found.argmax(-1) == radiographs.bone_age.to_numpy()[:, None]).all()
    assert (found.max(-1) == [1, 2, 3]).all()


def test_predictions_without_tta_are_out_of_fold(workspace, radiographs, monkeypatch):
    monkeypatch.setattr(ages, "read_regions", lambda *_: (np.arange(len(radiographs)), None))
    monkeypatch.setattr(ages, "load_network", lambda folder: (folder.name, dict(shape=None)))
    def predict(network, images, shape, tta):
        fold = int(network.rsplit("-", 1)[1])
        assert (radiographs.fold.to_numpy()[images] == fold).all(), network
        return np.eye(240)[radiographs.bone_age.to_numpy(int)[images]][:, None].repeat(3, axis=1)
    monkeypatch.setattr(ages, "predict_distributions", predict)
    table = ages.predict_with_tta(workspace, radiographs, "hand")
    assert (table.predicted == radiographs.bone_age).all()


@pytest.fixture(scope="module")
def distributions(radiographs) -> np.ndarray:
    "(2, n, 3, 240): out-of-fold distributions of two regions with other errors for each output"
    rng, months = np.random.default_rng(2), radiographs.bone_age.to_numpy()
    def bells(error, sd): return np.exp(-(MONTHS - months[:, None] - error[:, None])**2 / (2*sd**2))
    parts = [[bells(rng.normal(0, scale*(1 + sex)/2, len(months)), 6.0 + 3*region) for sex in range(3)]
             for region, scale in enumerate((8, 14))]
    table = np.array(parts).transpose(0, 2, 1, 3)
    return table / table.sum(-1, keepdims=True)


def test_ensemble_of_a_fold_uses_no_label_of_the_fold(radiographs, distributions):
    "Neither its weights nor its half-width change with them; those of the other folds do"
    for known in (True, False):
        usual = ages.cross_fit_ensemble(distributions, radiographs, REGIONS, known)
        assert usual.id.tolist() == radiographs.id.tolist()
        for fold in range(FOLDS):
            own = (radiographs.fold == fold).to_numpy()
            noise = np.random.default_rng(fold).normal(0, 25, len(own))
            moved = radiographs.assign(bone_age=radiographs.bone_age + own*noise)
            other = ages.cross_fit_ensemble(distributions, moved, REGIONS, known)
            for column in ("predicted", "low", "high", "spread"):
                assert (other[column] == usual[column])[own].all(), column
            half, before = ((table.high - table.low)/table.spread for table in (other, usual))
            assert (np.abs(half - before)[~own] > 1e-3).all()
            assert (np.abs(other.predicted - usual.predicted)[~own] > 0).mean() > 0.9


def test_cross_fitted_ensemble_by_hand(radiographs, distributions):
    "The rule of the other folds and of the own sex, applied to the output for this sex"
    found = ages.cross_fit_ensemble(distributions, radiographs, REGIONS).set_index("id")
    for sex, fold in itertools.product("MF", range(FOLDS)):
        same, inside = radiographs.sex == sex, radiographs.fold == fold
        own = distributions[:, :, SEX_OUTPUTS.index(sex)]
        others, chosen = radiographs.bone_age[same & ~inside].to_numpy(), own[:, same & inside]
        rule = ages.fit_released_ensemble(own[:, same & ~inside], others, REGIONS)
        spread = distribution_sd(average_distributions(chosen, rule))
        rows = found.loc[radiographs.id[same & inside]]
        assert_allclose(rows.predicted, ensemble_mean(chosen @ MONTHS, rule))
        assert_allclose(rows.high - rows.low, 2*rule.half_width*spread, rtol=1e-6)


def test_half_width_covers_nine_in_ten_and_no_more(radiographs, distributions):
    own, months = distributions[:, :, 0], radiographs.bone_age.to_numpy()
    rule = ages.fit_released_ensemble(own, months, REGIONS)
    spread = distribution_sd(average_distributions(own, rule))
    errors = np.sort(np.abs(ensemble_mean(own @ MONTHS, rule) - months)/spread)
    assert rule.half_width == errors[int(np.ceil(0.9*(len(errors) + 1))) - 1]


def test_released_rules_are_fitted_on_their_sex(radiographs, distributions):
    rules = ages.build_released_rules(distributions, radiographs, REGIONS, FineTuningSettings(folds=FOLDS))
    for key in ("M", "F", "none"):
        rows = (radiographs.sex == key).to_numpy() | (key == "none")
        own = distributions[:, rows, SEX_OUTPUTS.index(key)]
        expected = ages.fit_released_ensemble(own, radiographs.bone_age.to_numpy()[rows], REGIONS)
        weights = dict(zip(rules[key].members, rules[key].weights))
        for region, weight in zip(REGIONS, expected.weights):
            for fold in range(FOLDS): assert weights.pop(ages.member_name(region, fold)) == weight/FOLDS
        assert not weights and rules[key].half_width == expected.half_width


def test_a_region_alone_has_the_output_of_the_own_sex(radiographs, distributions):
    alone = ages.region_predictions(distributions, radiographs, REGIONS, "carpals")
    own = [SEX_OUTPUTS.index(sex) for sex in radiographs.sex]
    assert_allclose(alone.predicted, (distributions[1] @ MONTHS)[np.arange(len(own)), own])


def test_age_assessors_have_the_networks_of_their_folds(workspace, monkeypatch):
    copied = {}
    monkeypatch.setattr(ages, "load_network", lambda folder: (folder.name, folder.name))
    monkeypatch.setattr(ages, "save_network", lambda folder, network, config, precision=None:
                        copied.setdefault(folder.parent.name, {}).update({folder.name: network}))
    monkeypatch.setattr(ages, "load_assessor", lambda folder, device: folder.name)
    members = tuple(ages.member_name(region, fold) for region in REGIONS for fold in range(FOLDS))
    rule, written = EnsembleRule(members, [1]*len(members), 1.0), {}
    def write(path, rules): written[path.parent.name] = rules
    monkeypatch.setattr(ages, "write_ensemble_rules", write)
    assert ages.build_age_fold_assessors(workspace, workspace.models, {"M": rule}) == [
        f"weights{fold}" for fold in range(FOLDS)]
    for fold in range(FOLDS):
        own = {ages.member_name(region, fold) for region in REGIONS}
        assert copied[f"weights{fold}"] == {name: name for name in own | {"segmentation", "keypoints"}}
        assert set(written[f"weights{fold}"]["M"].members) == own


def test_changed_radiographs_are_assessed_out_of_fold(workspace, radiographs, monkeypatch):
    monkeypatch.setattr(ages, "read_radiograph", read_number)
    assessors = [FoldAssessor(fold) for fold in range(FOLDS)]
    cohort = workspace.read_table("cohort").merge(radiographs[["id", "fold"]])
    monkeypatch.setattr(ages, "_age_variants", lambda image: {"same": image})
    ages.compute_age_changes(cohort, assessors)
    for assessor in assessors:
        expected = [f"{name}.png" for name in radiographs.id[radiographs.fold == assessor.fold]]
        assert sorted(assessor.paths) == sorted(2*expected)


def test_errors_by_hand():
    "MAE, bias, shares and coverage of each group, from five radiographs"
    table = pd.DataFrame(dict(id=list("abcde"), sex=list("MMMFF"), bone_age=[100., 110, 120, 90, 95],
                              predicted=[103., 104, 133, 90, 88], low=[95., 90, 125, 85, 80],
                              high=[110., 105, 140, 95, 96]))  # b and c lie outside, by 5 months each
    rows = {row["group"]: row for row in ages.summarise_age_errors(table)}
    everyone, boys, girls = (rows[group] for group in ("all", "boys", "girls"))
    assert [row["radiographs"] for row in (everyone, boys, girls)] == [5, 3, 2]
    assert [row["MAE"] for row in (everyone, boys, girls)] == [5.8, 7.33, 3.5]
    assert [row["bias"] for row in (everyone, boys, girls)] == [0.6, 3.33, -3.5]
    assert [row["within 6"] for row in (everyone, boys, girls)] == [0.6, 0.667, 0.5]
    assert [row["within 12"] for row in (everyone, boys, girls)] == [0.8, 0.667, 1]
    assert [row["coverage"] for row in (everyone, boys, girls)] == [0.6, 0.333, 1]
    assert everyone["median width"] == 15 and everyone["interval score"] == pytest.approx(54.2)
    assert everyone["median consensus width"] == 8.1  # 2 · 1.645 · 6 / √6: most are narrower than a reader


# ------------------------------------------------------------------ changes of pose and exposure

TURNS = range(45, 360, 45)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    "A smooth picture without any symmetry, float32 (45, 31)"
    y, x = np.mgrid[:45, :31]
    spots = [(9, 8, 1.0), (30, 6, 0.7), (36, 22, 0.9), (15, 24, 0.4)]
    return sum(grey*np.exp(-((y - v)**2 + (x - u)**2)/18) for v, u, grey in spots).astype(np.float32) / 1.1


def test_all_seven_turns_and_three_other_changes_are_made(image):
    variants = preprocessing.make_radiograph_variants(image, 0.25)
    assert list(variants) == [*(f"turned {angle}°" for angle in TURNS), "mirrored", "inverted", "dim"]
    assert np.array_equal(variants["mirrored"][0], np.fliplr(image))
    assert np.array_equal(variants["inverted"][0], 1 - image)
    assert_allclose(255*variants["dim"][0], np.rint(255*(0.3 + 0.1*image)), atol=1e-4)
    assert set(variants["dim"][0].ravel()*255) <= set(np.float32(range(76, 103)) / np.float32(255) * 255)
    for name in ("inverted", "dim"): assert np.array_equal(variants[name][1], np.eye(3))


@pytest.mark.parametrize("angle", TURNS)
def test_each_turn_is_by_its_angle(image, angle):
    variant, matrix = preprocessing.make_radiograph_variants(image, 0.25)[f"turned {angle}°"]
    assert_allclose(matrix[:2, :2] @ matrix[:2, :2].T, np.eye(2), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(1)
    assert np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])) % 360 == pytest.approx(angle)
    spots = np.array([[8., 9], [6, 30], [22, 36], [24, 15]])
    column, row = np.rint(transform(spots, matrix)).astype(int).T
    assert_allclose(variant[row, column], image[spots[:, 1].astype(int), spots[:, 0].astype(int)], atol=0.06)
    right = np.rot90(image, -angle//90)
    if angle % 90 == 0: assert_allclose(variant[:len(right), :right.shape[1]], right, atol=1e-3)
    else: assert_allclose([variant[0, 0], variant[-1, -1]], 0.25, atol=1e-6)  # uncovered corners


def test_bone_ages_are_measured_on_all_changes_but_odd_turns(image):
    variants = ages._age_variants(image)
    assert list(variants) == ["turned 90°", "turned 180°", "turned 270°", "mirrored", "inverted", "dim",
                              "dim, 16 bit", "half the size"]
    background = float(np.median(image[[0, -1]]))
    for name, (expected, _) in preprocessing.make_radiograph_variants(image, background).items():
        if name in variants: assert np.array_equal(variants[name], expected)
    assert_allclose(variants["dim, 16 bit"], 0.3 + image/10, atol=1e-6)
    assert variants["half the size"].shape == (22, 16)


def test_all_turns_are_summarised():
    names = list(preprocessing.make_radiograph_variants(np.zeros((9, 7), np.float32), 0.0))
    table = pd.DataFrame(dict(variant=names, distance=np.arange(10.), mirrored=True))
    summary = preprocessing.summarise_variants(table)
    assert {name: row["radiographs"] for name, row in summary.items()} == dict(
        dim=1, inverted=1, mirrored=1, turned=7, all=10)
    assert summary["turned"]["largest px"] == 6 and summary["all"]["largest px"] == 9
