"Each fit uses its loss, augmentation, settings and the radiographs of its split, and saves its last weights"
from copy import deepcopy
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from test_training import train_loader
from torch import nn
from torch.nn import functional as F

from boneage.bone_age import ModelName
from boneage.datasets.profiles import (
    Augmentation,
    BoneAgeSettings,
    FineTuningSettings,
    KeyPointSettings,
    Schedule,
    SegmentationSettings,
)
from boneage.inference import SEX_OUTPUTS
from boneage.networks import load_network
from boneage.registration import region_matrix
from boneage.training import bone_age, fine_tuning, keypoints, mining, segmentation
from boneage.training.core import ArrayLoader, FitJob, digest, fit, read_checkpoint

SEED, EPOCHS = 11, 2
ONE_BATCH = dict(schedule=Schedule(EPOCHS, 1e-3, bfloat16=False), batch_size=40)
SCALES, MONTHS = dict(carpals=1/16), np.arange(240)
AGES = BoneAgeSettings(scales=SCALES, margin=0.125, widths=(2,)*6, hidden=(4,), dropout=0.0, **ONE_BATCH)
TUNED = FineTuningSettings(scales=SCALES, stages=dict(carpals=1), margin=0.125, start="nothing", dropout=0.0,
                           smoothing=4.0, smoothing_weight=0.3, unknown_sex_weight=0.7,
                           tta=((-60.0, 0.6), (20.0, 1.4)), **ONE_BATCH)
POINTS = KeyPointSettings(shape=(33, 25), crop_size=48, widths=(2, 2, 2), hidden=(4,), dropout=0.0,
                          **ONE_BATCH)
MAPS = replace(POINTS, network="HeatMapNetwork", width=2, depth=2)
MASKS = SegmentationSettings(shape=(32, 24), width=2, depth=1, index="printed", **ONE_BATCH)
CROPS = replace(MASKS, passes=2, close=0.6, index="sums")
pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------ tiny fits

def cohort_of(n: int = 18) -> pd.DataFrame:
    "A cohort in which the split, the sex and missing ages alternate"
    ages = np.where(np.arange(n) % 9 == 4, np.nan, np.random.default_rng(0).uniform(20, 210, n))
    return pd.DataFrame(dict(id=[f"r{i}" for i in range(n)], sex=["M", "F", "F", "M"]*(n//4) + ["M"]*(n % 4),
                             bone_age=ages, split=(["train"]*4 + ["validation", "test"])*(n//6)))


def images_of(n: int, shape: tuple) -> np.ndarray:
    "Noise with another mean in each image"
    rng = np.random.default_rng(1)
    means = np.linspace(0, 200, n)[:, None, None]
    return np.uint8(means + rng.integers(0, 55, (n, *shape)))


def hands_of(n: int, shape: tuple) -> tuple[np.ndarray, np.ndarray]:
    "Noisy images with a bright box, and the boxes as masks"
    masks = np.zeros((n, *shape), np.uint8)
    for i, mask in enumerate(masks): mask[shape[0]//4 + i % 5:-8, 6 + i % 7:-6] = 255
    return images_of(n, shape)//2 + masks//2 + 1, masks


def fit_ages(job, head="regression", sex="both", **changes):
    settings = replace(AGES, **changes)
    regions = images_of(18, region_matrix("carpals", 1/16, settings.margin)[1])
    name = ModelName("registered", "carpals", sex, head)
    return bone_age.fit_bone_age(name, regions, cohort_of(), settings, job)


def fine_tune(job, **changes):
    settings = replace(TUNED, **changes)
    regions = images_of(18, region_matrix("carpals", 1/16, settings.margin)[1])
    in_training = (cohort_of().split == "train").to_numpy()
    return fine_tuning.fine_tune("carpals", regions, cohort_of(), in_training, settings, job)


def fit_points(job, settings=POINTS):
    rng, crops = np.random.default_rng(2), images_of(36, (48, 48))
    points = np.array([[24., 5], [24, 36], [40, 22]]) + rng.normal(0, 2, (36, 3, 2))
    points[3, 2] = np.nan
    return keypoints.fit_key_points(crops, points, settings, job)


def fit_masks(job, settings=MASKS):
    size = 2 if settings.passes > 1 else 1
    return segmentation.fit_segmentation(*hands_of(12, (32*size, 24*size)), settings, job)


def absolute_error(output, target): return np.abs(output - target).mean()


def distribution_loss(output, target):
    "Absolute error in ten months, and cross-entropy with a Gaussian, for the own and for unknown sex"
    months, gaussian = target[:, 0], np.exp(-(MONTHS - target[:, :1])**2 / (2*4.0**2))
    gaussian /= gaussian.sum(1, keepdims=True)
    def loss(one): return (np.abs(np.exp(one) @ MONTHS - months)/10 - 0.3*(gaussian*one).sum(1)).mean()
    return loss(output[np.arange(len(output)), target[:, 1].astype(int)]) + 0.7*loss(output[:, 2])


def squared_error(output, target): return np.nanmean((output - target)**2)


def heat_map_divergence(output, target):
    "Kullback–Leibler divergence from Gaussians of 1.5 pixels on the labelled points inside the input"
    losses, (height, width) = [], output.shape[-2:]
    for maps, points in zip(output, target):
        for log_map, (x, y) in zip(maps, points):
            if not (-0.5 < x < width - 0.5 and -0.5 < y < height - 0.5): continue
            rows, columns = np.mgrid[:height, :width]
            gaussian = np.exp(-((columns - x)**2 + (rows - y)**2) / (2*1.5**2))
            gaussian /= gaussian.sum()
            losses.append((gaussian * (np.log(gaussian.clip(1e-300)) - log_map)).sum())
    return np.mean(losses)


def entropy_minus_log_jaccard(jaccard):
    "H − log J (Eq. 1–3) with one of the two definitions of J"
    def loss(output, target):
        p = 1 / (1 + np.exp(-output))
        entropy = -(target*np.log(p) + (1 - target)*np.log(1 - p)).mean()
        both = target*p
        return entropy - np.log(jaccard(both, target + p - both))
    return loss


PRINTED = entropy_minus_log_jaccard(lambda both, either: (both/either).mean())
SUMS = entropy_minus_log_jaccard(lambda both, either: both.sum()/either.sum())
FITS = {  # fit: module, function, the loss by hand
    "bone age, regression": (bone_age, fit_ages, absolute_error),
    "bone age, classification": (bone_age, lambda job: fit_ages(job, head="classification"), absolute_error),
    "fine tuning": (fine_tuning, fine_tune, distribution_loss),
    "key points": (keypoints, fit_points, squared_error),
    "key points, heat maps": (keypoints, lambda job: fit_points(job, MAPS), heat_map_divergence),
    "segmentation": (segmentation, fit_masks, PRINTED),
    "segmentation with crops": (segmentation, lambda job: fit_masks(job, CROPS), SUMS),
}


def new_job(folder: Path) -> FitJob:
    return FitJob(folder/"network", folder/"fit.safetensors", SEED, "cpu", stale="restart")


class Recorded(Exception):
    "Raised when a fit would start, with its inputs"


def record(module, run, folder: Path) -> SimpleNamespace:
    "Inputs of a fit, which does not run; with its first network"
    def recording(network, train, valid, loss, schedule, job, **more):
        raise Recorded(SimpleNamespace(network=network, train=train, valid=valid, schedule=schedule, job=job))
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Recorded) as raised:
        patched.setattr(module, "fit", recording)
        run(new_job(folder))
    return raised.value.args[0]


def training_batch(module, run, folder: Path) -> torch.Tensor:
    "Network inputs of the first training batch"
    return next(iter(record(module, run, folder).train))[0]


# ------------------------------------------------------------------ the loss

@pytest.mark.parametrize("name", FITS)
def test_first_epoch_has_the_loss_by_hand(name, tmp_path):
    "With one batch an epoch, the first epoch's loss is that of the first network"
    module, run, by_hand = FITS[name]
    recorded = record(module, run, tmp_path)
    images, target = next(iter(recorded.train))
    with torch.no_grad(): output = recorded.network.train()(images)
    expected = by_hand(output.double().numpy(), target.double().numpy())
    run(new_job(tmp_path))
    history = read_checkpoint(tmp_path/"fit.safetensors").history
    assert history[0]["train_loss"] == pytest.approx(expected, rel=1e-4)


# ------------------------------------------------------------------ augmentation

VALUES = dict(rotation=90.0, turned=0.8, zoom=0.4, shift=0.3, mirror=0.9, gamma=0.8, levels=0.9,
              min_levels=3, sharpness=0.9, noise=0.4, exposure=0.8, invert=0.8)
NEEDED = dict(min_levels=dict(levels=1.0))  # what a key needs for an effect


@pytest.mark.parametrize("key", [field.name for field in fields(Augmentation)])
@pytest.mark.parametrize("name", ["bone age, regression", "fine tuning"])
def test_each_key_of_the_profiles_augmentation_changes_the_batches(name, key, tmp_path):
    module, run, _ = FITS[name]
    def batch(**changes):
        augmentation = Augmentation(**NEEDED.get(key, {}) | changes)
        return training_batch(module, lambda job: run(job, augmentation=augmentation), tmp_path)
    value, kind = VALUES[key], type(VALUES[key])
    without, some, other = batch(), batch(**{key: value}), batch(**{key: kind(value/2)})
    assert torch.equal(without, batch())
    assert (some != without).any(), f"{name} ignores {key}"
    assert (some != other).any(), f"{name} ignores the value of {key}"


WITH_SETTINGS = {  # fit: module, function of a job and settings, settings
    "key points": (keypoints, fit_points, POINTS), "key points, heat maps": (keypoints, fit_points, MAPS),
    "segmentation": (segmentation, fit_masks, MASKS),
    "segmentation with crops": (segmentation, fit_masks, CROPS)}


@pytest.mark.parametrize("name, field", [
    ("key points", "coarse_augmentation"), ("key points", "refinement_augmentation"),
    ("key points, heat maps", "coarse_augmentation"), ("key points, heat maps", "refinement_augmentation"),
    ("segmentation", "augmentation"), ("segmentation with crops", "crop_augmentation"),
])
def test_each_key_of_the_settings_augmentation_changes_the_batches(name, field, tmp_path):
    module, run, settings = WITH_SETTINGS[name]
    def batch(settings): return training_batch(module, lambda job: run(job, settings), tmp_path)
    augmentation, before = getattr(settings, field), batch(settings)
    used = [key for key, value in asdict(augmentation).items() if value != getattr(Augmentation(), key)]
    assert used
    for key in used:
        changed = replace(augmentation, **{key: getattr(Augmentation(), key)})
        assert (batch(replace(settings, **{field: changed})) != before).any(), f"{field}.{key} has no effect"


@pytest.mark.parametrize("field", ["trimmed", "cluttered", "collimated"])
def test_each_simulated_defect_changes_the_crops(field, tmp_path):
    def batch(settings):
        return training_batch(segmentation, lambda job: fit_masks(job, settings), tmp_path)
    assert (batch(replace(CROPS, **{field: 0.0})) != batch(CROPS)).any()


def test_share_of_crops_is_that_of_the_settings(tmp_path):
    def batch(close):
        settings = replace(CROPS, close=close)
        return training_batch(segmentation, lambda job: fit_masks(job, settings), tmp_path)
    assert (batch(0.1) != batch(0.9)).any()


@pytest.mark.parametrize("name", ["bone age, regression", "fine tuning"])
def test_validation_and_prediction_use_the_middle_of_the_region(name, tmp_path):
    module, run, _ = FITS[name]
    recorded = record(module, run, tmp_path)
    batch, _ = next(iter(recorded.valid))
    regions = recorded.valid.arrays[0][recorded.valid.rows]
    top, left = ((a - b)//2 for a, b in zip(regions.shape[1:], batch.shape[2:]))
    middle = regions[:, top:top + batch.shape[2], left:left + batch.shape[3]]
    assert np.allclose(255*batch[:, 0].numpy(), middle, atol=0.01)


def test_each_epoch_has_other_batches(tmp_path):
    loader, digests = train_loader(), []
    def prepare(images, ages, generator):
        inputs, target = loader.prepare(images, ages, generator)
        digests.append(digest(inputs))
        return inputs, target
    network = nn.Sequential(nn.Flatten(), nn.Linear(24*20, 1), nn.Flatten(0))
    job = FitJob(tmp_path, tmp_path/"fit.safetensors", SEED)
    fit(network, replace(loader, prepare=prepare), None, F.l1_loss, Schedule(3, 1e-3), job)
    assert len(digests) == 3*len(loader) == len(set(digests))


# ------------------------------------------------------------------ schedule and seed

LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(24*20, 8), nn.ELU(), nn.Linear(8, 1), nn.Flatten(0))


def fitted_digest(folder: Path, schedule: Schedule, loss=F.l1_loss) -> str:
    "Digest of a small network after its fit"
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = deepcopy(LINEAR).apply(lambda layer: getattr(layer, "reset_parameters", lambda: None)())
    fit(network, train_loader(), None, loss, schedule, new_job(folder))
    return digest(network.state_dict())


def test_each_setting_of_the_schedule_and_the_loss_reach_the_fit(tmp_path):
    schedule = Schedule(2, 0.01, weight_decay=0.1, clip=0.1, bfloat16=False)
    usual = fitted_digest(tmp_path, schedule)
    assert fitted_digest(tmp_path, schedule) == usual
    for changes in (dict(epochs=3), dict(learning_rate=0.02), dict(weight_decay=0.2), dict(clip=0.2)):
        assert fitted_digest(tmp_path, replace(schedule, **changes)) != usual, changes
    assert fitted_digest(tmp_path, schedule, F.mse_loss) != usual


@pytest.mark.parametrize("name", FITS)
def test_fit_depends_on_its_seed_and_settings_alone(name, tmp_path):
    module, run, _ = FITS[name]
    first, again = record(module, run, tmp_path), record(module, run, tmp_path)
    other = record(module, lambda job: run(replace(job, seed=SEED + 1)), tmp_path)
    assert digest(first.network.state_dict()) == digest(again.network.state_dict())
    assert digest(first.network.state_dict()) != digest(other.network.state_dict())
    assert (first.train.seed, other.train.seed, other.job.seed) == (SEED, SEED + 1, SEED + 1)
    assert first.train.shuffle and first.schedule == ONE_BATCH["schedule"]
    assert first.train.batch_size == ONE_BATCH["batch_size"]


# ------------------------------------------------------------------ the radiographs

@pytest.mark.parametrize("sex", ["male", "female", "both"])
def test_bone_age_model_is_fitted_on_the_training_radiographs_of_its_sex(sex, tmp_path):
    cohort = cohort_of()
    own = cohort[cohort.sex == sex[0].upper()] if sex != "both" else cohort
    recorded = record(bone_age, lambda job: fit_ages(job, sex=sex), tmp_path)
    for loader, split in ((recorded.train, "train"), (recorded.valid, "validation")):
        expected = own[(own.split == split) & own.bone_age.notna()]
        assert cohort.id[loader.rows].tolist() == expected.id.tolist()
        assert np.allclose(loader.arrays[1][loader.rows], expected.bone_age)


def test_fine_tuning_uses_the_radiographs_in_training(tmp_path):
    cohort = cohort_of()
    recorded = record(fine_tuning, fine_tune, tmp_path)
    in_training = cohort.split == "train"
    for loader, chosen in ((recorded.train, in_training), (recorded.valid, ~in_training)):
        expected = cohort[chosen & cohort.bone_age.notna()]
        assert cohort.id[loader.rows].tolist() == expected.id.tolist()
        assert np.allclose(loader.arrays[1][loader.rows], expected.bone_age)
        assert [SEX_OUTPUTS[sex] for sex in loader.arrays[2][loader.rows]] == expected.sex.tolist()


def test_rows_of_a_loader_are_all_that_it_yields():
    arrays = np.arange(20, dtype=np.uint8)[:, None, None], np.arange(20.)
    def prepare(images, ages, generator): return images, ages
    loader = ArrayLoader(arrays, prepare, 4, True, 1, rows=[3, 5, 5, 11, 2])
    ages = torch.cat([target for _, target in loader])
    assert sorted(ages.tolist()) == [2, 3, 5, 5, 11]


def test_labelled_masks_are_repeated(tmp_path, monkeypatch):
    "Of an epoch, at least the share of the settings has masks labelled by hand"
    epochs = {}
    def recorded(inputs, masks, settings, job, rows): epochs.update(rows=rows, images=inputs[rows, 0, 0])
    monkeypatch.setattr(mining, "fit_segmentation", recorded)
    monkeypatch.setattr(mining, "_copy", lambda *files: None)
    ids, inputs = [f"r{i}" for i in range(12)], np.repeat(np.arange(12), 16).reshape(12, 4, 4)
    accepted = {name: np.ones((4, 4), bool) for name in ids if name != "r5"}
    data = mining.MiningData(ids, inputs, accepted, by_hand=["r1", "r7"])
    for share in (0.5, 0.8):
        mining.fit_round(1, data, accepted, replace(MASKS, labelled_share=share), new_job(tmp_path))
        values, counts = np.unique(epochs["images"], return_counts=True)
        assert values.tolist() == [i for i in range(12) if i != 5]
        assert np.isin(epochs["images"], [1, 7]).mean() >= share - 0.05
        assert set(counts[~np.isin(values, [1, 7])]) == {1}


# ------------------------------------------------------------------ what is saved

@pytest.mark.parametrize("name", FITS)
def test_saved_network_is_that_of_the_last_epoch(name, tmp_path):
    FITS[name][1](new_job(tmp_path))
    last, (network, _) = read_checkpoint(tmp_path/"fit.safetensors"), load_network(tmp_path/"network")
    assert last.epoch == EPOCHS == len(last.history)
    kept = {key.removeprefix("network."): value for key, value in last.network.items()}
    changed = [key for key, value in network.state_dict().items() if not torch.equal(value, kept[key])]
    assert changed == (["logit.bias"] if name.startswith("segmentation") else [])  # the calibrated threshold


def test_segmentation_has_the_area_of_its_masks(tmp_path):
    fit_masks(new_job(tmp_path))
    images, masks = hands_of(12, (32, 24))
    network, _ = load_network(tmp_path/"network")
    with torch.no_grad(): logits = network(torch.from_numpy(images)[:, None] / 255)
    assert (logits > 0).float().mean() == pytest.approx((masks > 0).mean(), abs=0.01)


def test_predictions_are_those_of_their_radiographs(tmp_path):
    schedule, cohort = Schedule(30, 1e-2, bfloat16=False), cohort_of().set_index("id")
    predictions = fit_ages(new_job(tmp_path), schedule=schedule)
    network, config = load_network(tmp_path/"network")
    shape = config["shape"]
    regions = images_of(18, region_matrix("carpals", 1/16, AGES.margin)[1])
    top, left = ((a - b)//2 for a, b in zip(regions.shape[1:], shape))
    middle = torch.from_numpy(regions[:, None, top:top + shape[0], left:left + shape[1]] / np.float32(255))
    with torch.no_grad(): months = 120*(network(middle).numpy() + 1)
    assert predictions.id.tolist() == ["r10", "r16", "r5", "r11", "r17"]  # validation, test
    rows = [int(name[1:]) for name in predictions.id]
    assert np.allclose(predictions.predicted, months[rows], rtol=0, atol=1e-5*5)
    assert np.diff(np.sort(predictions.predicted)).min() > 10*1e-5
    columns = ["sex", "bone_age", "split"]
    pd.testing.assert_frame_equal(predictions.set_index("id")[columns], cohort.loc[predictions.id, columns])


def test_fine_tuned_predictions_are_means_over_the_tta_poses(tmp_path):
    table, cohort = fine_tune(new_job(tmp_path)), cohort_of()
    stored = np.load(tmp_path/"network"/"distributions.npy").astype(float)
    network, config = load_network(tmp_path/"network")
    regions = images_of(18, region_matrix("carpals", 1/16, TUNED.margin)[1])[[int(i[1:]) for i in table.id]]
    def predict(*poses): return fine_tuning.predict_distributions(network, regions, config["shape"], poses)
    assert len(TUNED.tta) == 2 and np.allclose(stored, predict(*TUNED.tta), atol=1e-5)
    assert config["network_input"]["tta"] == [list(pose) for pose in TUNED.tta]
    for poses in ((), TUNED.tta[:1], TUNED.tta[1:]):
        assert np.abs(stored - predict(*poses)).max() > 1e-4
    held_out = cohort[(cohort.split != "train") & cohort.bone_age.notna()]
    assert table.id.tolist() == held_out.id.tolist() and table.bone_age.tolist() == held_out.bone_age.tolist()
    own = [SEX_OUTPUTS.index(sex) for sex in held_out.sex]
    assert np.allclose(table.predicted, (stored @ MONTHS)[np.arange(len(own)), own], atol=0.1)
    assert np.allclose(table.unknown, (stored @ MONTHS)[:, 2], atol=0.1)
