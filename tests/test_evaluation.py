"""Properties of a report's numbers that hold for any predictions, checked on random ones."""

import numpy as np
import pandas as pd
import pytest

from boneage.bone_age import ablation, grid
from boneage.ensembles import ensemble_mean
from boneage.paper.claims import compare_mae, paired_errors, read_paper, relative_cost
from boneage.paper.evaluation import (
    SCHEMA,
    bland_altman,
    ensemble_predictions,
    ensemble_weights,
    fit_ensemble_rule,
    fit_ensemble_rules,
    gather_predictions,
    mae_difference,
    mean_absolute_error,
    proportion_estimate,
    score,
    weighted_ensemble_predictions,
)


def random_predictions(n: int = 300, seed: int = 0, spread: float = 8.0) -> pd.DataFrame:
    "The long table of all twenty models with random errors"
    rng = np.random.default_rng(seed)
    patients = pd.DataFrame({"id": [f"p{i}" for i in range(n)], "sex": rng.choice(["M", "F"], n),
                             "bone_age": rng.uniform(10, 220, n),
                             "split": rng.choice(["validation", "test"], n)})
    tables = []
    for name in (*grid(), *ablation()):
        rows = patients if name.sex == "both" else patients[patients.sex == name.sex[0].upper()]
        tables.append(rows.assign(predicted=rows.bone_age + rng.normal(0, spread, len(rows)), model=str(name),
                                  input=name.input, region=name.region, sex_model=name.sex, head=name.head,
                                  fit=name.fit))
    return pd.concat(tables, ignore_index=True)[list(SCHEMA)]


def test_perfect_predictions_have_no_error():
    perfect = random_predictions(spread=0.0)
    assert (score(perfect, by=("model",))[["mae", "low", "high", "rmse", "bias"]].to_numpy() == 0).all()
    assert (score(ensemble_predictions(perfect), by=("model",)).mae < 1e-9).all()
    rules = fit_ensemble_rules(perfect)
    assert np.allclose(weighted_ensemble_predictions(perfect, rules).eval("predicted - bone_age"), 0)
    assert all(rule.half_width == pytest.approx(0, abs=1e-9) for rule in rules.values())


def test_95_percent_intervals_contain_the_expectation_about_95_times_in_100():
    expected = 8 * np.sqrt(2 / np.pi)
    rng = np.random.default_rng(0)
    estimates = [mean_absolute_error(np.zeros(200), rng.normal(0, 8, 200), seed=seed) for seed in range(200)]
    assert 0.90 <= np.mean([e.low <= expected <= e.high for e in estimates]) <= 0.99


def test_the_interval_narrows_with_the_square_root_of_the_number_of_radiographs():
    rng = np.random.default_rng(1)
    few, many = (mean_absolute_error(np.zeros(n), rng.normal(0, 8, n)) for n in (200, 3200))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4, rel=0.35)


@pytest.mark.parametrize("seed", range(5))
def test_a_difference_changes_sign_with_its_order_and_is_zero_for_a_model_with_itself(seed):
    rng = np.random.default_rng(seed)
    truth, first, second = rng.uniform(0, 230, (3, 100))
    forward, reverse = mae_difference(truth, first, second), mae_difference(truth, second, first)
    assert forward.value == pytest.approx(-reverse.value)
    assert (forward.low, forward.high) == pytest.approx((-reverse.high, -reverse.low), abs=0.5)
    assert mae_difference(truth, first, first).value == 0


def test_shifting_all_predictions_changes_only_the_bias():
    truth = np.linspace(10, 220, 50)
    agreement = bland_altman(truth, truth - 4)
    assert (agreement.bias, agreement.low, agreement.high) == pytest.approx((-4, -4, -4))


def test_an_ensemble_of_identical_models_predicts_as_they_do():
    same = random_predictions().assign(predicted=lambda t: t.bone_age + 3)
    ensembles = ensemble_predictions(same)
    assert ensembles.model.nunique() == 9
    assert np.allclose(ensembles.predicted, ensembles.bone_age + 3)


def test_ensembles_have_lower_errors_than_their_members_when_these_are_independent():
    predictions = random_predictions()
    members = score(predictions[predictions.input == "registered"], by=("model",)).mae
    assert score(ensemble_predictions(predictions), by=("model",)).mae.max() < members.min()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 2, 12])
def test_ensemble_weights_sum_to_one_and_beat_single_models(seed, k):
    rng = np.random.default_rng(seed)
    errors = rng.normal(rng.normal(0, 3, (k, 1)), rng.uniform(2, 20, (k, 1)), (k, 150))
    weights = ensemble_weights(errors, shrinkage=0)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    assert ((weights @ errors) ** 2).mean() <= (errors**2).mean(axis=1).min() + 1e-9


def test_ensemble_prediction_lies_between_its_members():
    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 220, 100)
    months = truth + rng.normal(0, 10, (4, 100))
    rule = fit_ensemble_rule(months, truth, "abcd")
    ensemble_prediction = ensemble_mean(months, rule)
    assert (ensemble_prediction >= months.min(axis=0) - 1e-9).all()
    assert (ensemble_prediction <= months.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize("noise", ["normal", "heavy-tailed"])
def test_conformal_intervals_cover_ninety_percent_of_held_out_radiographs(noise):
    rng = np.random.default_rng(3)
    sample = {"normal": lambda *shape: rng.normal(0, 8, shape),
              "heavy-tailed": lambda *shape: 5 * rng.standard_t(3, shape)}[noise]
    coverage = []
    for _ in range(10):
        truth = rng.uniform(10, 220, 700)
        months = truth + sample(6, 700)
        rule = fit_ensemble_rule(months[:, :200], truth[:200], "abcdef")
        error = np.abs(ensemble_mean(months[:, 200:], rule) - truth[200:])
        coverage.append((error <= rule.half_width).mean())
    assert np.mean(coverage) == pytest.approx(0.9, abs=0.03)


def test_ensembles_are_fitted_on_their_members():
    rules = fit_ensemble_rules(random_predictions().query("split == 'validation'"))
    sexes = {key: {name.split("-")[2] for name in rule.members} for key, rule in rules.items()}
    assert sexes == {"M": {"male", "both"}, "F": {"female", "both"}, "none": {"both"}}
    assert all(name.startswith("registered-") for rule in rules.values() for name in rule.members)


def test_a_sex_without_a_rule_uses_the_rule_for_unknown_sex():
    predictions = random_predictions()
    girls = fit_ensemble_rules(predictions.query("split == 'validation' and sex == 'F'"))
    assert set(girls) == {"F", "none"}
    test = predictions.query("split == 'test'")
    assert len(weighted_ensemble_predictions(test, girls)) == test.id.nunique()


def test_unlabelled_test_radiographs_are_predicted_and_not_scored():
    predictions = random_predictions()
    rules = fit_ensemble_rules(predictions.query("split == 'validation'"))
    unlabelled = predictions.query("split == 'test'").assign(bone_age=np.nan)
    ensemble_prediction = weighted_ensemble_predictions(unlabelled, rules)
    assert len(ensemble_prediction) == unlabelled.id.nunique() and ensemble_prediction.predicted.notna().all()
    assert len(score(ensemble_prediction)) == 1 and score(ensemble_prediction).n.item() == 0


def test_predictions_read_from_files_equal_those_written(tmp_path):
    predictions = random_predictions(40)
    for model, rows in predictions.groupby("model"):
        (tmp_path / model).mkdir()
        columns = ["id", "sex", "bone_age", "predicted", "split"]
        rows[columns].to_csv(tmp_path / model / "predictions.csv", index=False)
    (tmp_path / "segmentation").mkdir()
    gathered, written = (table.sort_values(["model", "id"], ignore_index=True)
                         for table in (gather_predictions(tmp_path), predictions))
    pd.testing.assert_frame_equal(gathered, written, check_dtype=False)
    assert set(gather_predictions(tmp_path, "test").split) == {"test"}


def test_claims_are_directional():
    rng = np.random.default_rng(0)
    good = pd.DataFrame({"id": np.arange(500).astype(str), "bone_age": rng.uniform(20, 200, 500)})
    good["predicted"] = good.bone_age + rng.normal(0, 5, 500)
    bad = good.assign(predicted=good.bone_age + 1.5 * (good.predicted - good.bone_age))
    assert compare_mae(bad, good, "bad > good")["verdict"] == "holds"
    assert compare_mae(good, bad, "good > bad")["verdict"] == "does not hold"
    assert relative_cost(*paired_errors(bad, good)).value == pytest.approx(50)


def test_proportion_of_none_and_of_all():
    assert np.isnan(proportion_estimate([]).value)
    assert proportion_estimate(np.ones(20, bool)).low < 1


def test_every_number_of_the_paper_has_its_section(request):
    paper = read_paper(request.config.rootpath / "reports" / "paper.yml")
    assert all(paper_value.section and paper_value.description for paper_value in paper.values())
    assert all((value.quote is None) == (value.value is None) for value in paper.values())
    assert (paper["mae_registered"].value, paper["mae_test"].value) == (8.08, 4.97)
    unstated = (paper[key].value for key in ("mae_cell", "mae_stage"))
    assert list(unstated) == [None, None]  # not in the text, never to be filled in
