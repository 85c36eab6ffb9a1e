"""Every number of an evaluation against one that was computed by hand or by other means"""

import warnings

import numpy as np
import pandas as pd
import pytest
from test_evaluation import random_predictions

from boneage.datasets.cohorts import STAGES, development_stage
from boneage.ensembles import conformal_half_width, ensemble_mean
from boneage.geometry import rotation, translation
from boneage.paper.evaluation import (
    SCHEMA,
    add_holm,
    add_stage,
    baseline_predictions,
    bland_altman,
    choose_models,
    cross_fitted_ensemble_predictions,
    ensemble_predictions,
    ensemble_weights,
    estimate_of,
    fit_ensemble_rule,
    fit_ensemble_rules,
    gather_predictions,
    key_point_errors,
    mae_difference,
    mae_table,
    mean_absolute_error,
    mean_estimate,
    member_predictions,
    proportion_estimate,
    proportion_within,
    proportions_within_by,
    registration_errors,
    score,
    sort_in_paper_order,
    weighted_ensemble_predictions,
)

HAND_REGRESSION = "registered-hand-both-regression"


def without(predictions: pd.DataFrame, identity: str, model: str = HAND_REGRESSION) -> pd.DataFrame:
    "Predictions without that of one model for one radiograph"
    return predictions[(predictions.model != model) | (predictions.id != identity)]


def test_coverage_and_seed_reach_the_bootstrap():
    truth, first, second = np.random.default_rng(0).uniform(0, 230, (3, 60))
    first_errors, second_errors = np.abs(first - truth), np.abs(second - truth)
    assert mean_absolute_error(truth, first, 0.5, 3) == mean_estimate(first_errors, 0.5, seed=3)
    difference = mean_estimate(first_errors - second_errors, 0.5, seed=3)
    assert mae_difference(truth, first, second, 0.5, 3) == difference
    scores = score(pd.DataFrame(dict(bone_age=truth, predicted=first)), seed=3)
    assert estimate_of(scores.iloc[0]) == mean_absolute_error(truth, first, seed=3)


def test_missing_labels_and_predictions_do_not_count():
    for truth, predicted in [([100, None, 90, 80], [90, 50, 100, 80]),
                             ([100, 50, 90, 80], [90, None, 100, 80])]:
        assert mean_absolute_error(truth, predicted).n == proportion_within(truth, predicted, 6).n == 3
    assert bland_altman([100, None, 90, 80], [90, 50, 100, 80]).bias == 0
    assert np.isnan(bland_altman([100, 90, 80], [90, None, 80]).bias)


def test_undefined_estimates_are_nan_without_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for few in (mean_estimate([]), proportion_estimate([])):
            assert np.isnan([few.value, few.low, few.high]).all() and few.n == 0
        one = mean_estimate([3])
        assert one.value == 3 and np.isnan([one.low, one.high]).all()
        few = bland_altman([100, 110], [90, 95])
        assert np.isnan([few.bias, few.low, few.high, few.slope]).all()
        assert np.isnan(bland_altman([100] * 3, [90] * 3).slope)
    assert proportion_estimate([2, 0]).value == 0.5


def test_holm_adjustment_is_idempotent():
    table = add_holm(pd.DataFrame(dict(p=[0.01, np.nan, 0.04])))
    pd.testing.assert_frame_equal(add_holm(table), table)
    assert table.holm.dtype == float


def test_baseline_is_the_median_training_age_of_the_sex():
    splits = ["train"] * 4 + ["test", "validation"]
    cohort = pd.DataFrame(dict(id=list("abcdef"), sex=list("MMMFMF"), bone_age=[10., 20, 60, 100, 77, 33],
                               split=splits), index=range(10, 16))
    expected = pd.DataFrame(dict(id=["e", "f"], sex=["M", "F"], bone_age=[77., 33],
                                 split=["test", "validation"], predicted=[20., 100]))
    pd.testing.assert_frame_equal(baseline_predictions(cohort), expected)


def test_gathered_tables_keep_ids_and_have_a_new_index(tmp_path):
    table = pd.DataFrame(dict(id=["007", "8"], sex=["M", "M"], bone_age=[1, 2], predicted=[3, 4],
                              split=["validation", "test"]))
    for model in (HAND_REGRESSION, "registered-hand-male-regression"):
        (tmp_path / model).mkdir()
        table.to_csv(tmp_path / model / "predictions.csv", index=False)
    gathered = gather_predictions(tmp_path)
    assert gathered.id.tolist() == ["007", "8"] * 2 and gathered.index.tolist() == [0, 1, 2, 3]
    tested = gather_predictions(tmp_path, "test")
    assert tested.id.tolist() == ["8"] * 2 and tested.index.tolist() == [0, 1]
    assert tested.columns.tolist() == list(SCHEMA)


def test_an_ensemble_is_the_mean_of_its_members():
    predictions = random_predictions(40)
    ensembles = ensemble_predictions(without(predictions, "p7"))
    assert ensembles.columns.tolist() == list(SCHEMA)
    assert set(ensembles.input) == {"registered"} and set(ensembles.region) == {"ensemble"}
    assert ensembles.model.unique().tolist() == [f"registered-ensemble-{sex}-{head}"
                                                 for head in ("regression", "classification", "both")
                                                 for sex in ("both", "female", "male")]
    assert ensembles.index.tolist() == list(range(len(ensembles)))
    fewer = ensemble_predictions(predictions[predictions.model != HAND_REGRESSION])
    lost = {"registered-ensemble-both-regression", "registered-ensemble-both-both"}
    assert set(ensembles.model) - set(fewer.model) == lost
    registered = predictions[predictions.input == "registered"]
    for (sex, head), rows in ensembles.groupby(["sex_model", "head"]):
        heads = ("regression", "classification") if head == "both" else (head,)
        members = registered[(registered.sex_model == sex) & registered["head"].isin(heads)]
        incomplete = ["p7"] if sex == "both" and head != "classification" else []
        expected = members.groupby("id")[["predicted", "bone_age"]].mean().drop(incomplete)
        assert rows.id.tolist() == expected.index.tolist()
        assert np.allclose(rows[["predicted", "bone_age"]], expected)
        known = members.drop_duplicates("id").set_index("id").loc[rows.id]
        assert rows.sex.tolist() == known.sex.tolist() and rows.split.tolist() == known.split.tolist()


def test_rows_have_the_papers_order_and_other_columns_the_alphabets():
    rows = [(region, sex, letter) for letter in "ba" for sex in ("both", "female", "male")
            for region in ("metacarpals", "ensemble", "carpals", "hand")]
    table = pd.DataFrame(rows, columns=["region", "sex_model", "letter"])
    ordered = sort_in_paper_order(table, ("letter", "sex_model", "region"))
    expected = [(region, sex, letter) for letter in "ab" for sex in ("male", "female", "both")
                for region in ("hand", "carpals", "metacarpals", "ensemble")]
    assert ordered.to_records(index=True).tolist() == [(i, *row) for i, row in enumerate(expected)]


@pytest.mark.parametrize("column, order", [
    ("input", ("original", "normalised", "registered")),
    ("head", ("regression", "classification", "both")),
    ("sex", ("M", "F")),
    ("stage", tuple(STAGES)),
])
def test_each_column_has_its_order_and_the_sort_is_stable(column, order):
    table = pd.DataFrame({column: [*order[::-1]] * 20, "row": range(20 * len(order))})
    ordered = sort_in_paper_order(table, (column,))
    assert tuple(ordered[column].unique()) == order
    assert all(rows.is_monotonic_increasing for _, rows in ordered.groupby(column).row)


def test_a_category_without_radiographs_has_no_row():
    sex = pd.Categorical(["M", "M"], categories=["F", "M"])
    boys = pd.DataFrame(dict(sex=sex, bone_age=[100.0, 120], predicted=[103, 110]))
    assert score(boys, by=("sex",)).sex.tolist() == ["M"]
    assert proportions_within_by(boys, ("sex",)).sex.tolist() == ["M"]


def test_tables_match_the_scores():
    predictions = random_predictions(60)
    scores = score(predictions[predictions.input == "registered"], by=("region", "sex_model", "head"))
    table = mae_table(scores)
    assert table.index.tolist() == ["hand", "carpals", "metacarpals"]
    assert table.columns.tolist() == [(head, sex) for head in ("regression", "classification")
                                      for sex in ("male", "female", "both")]
    for row in scores.itertuples(): assert table.loc[row.region, (row.head, row.sex_model)] == row.mae


def test_stages_and_shares_omit_radiographs_without_label():
    children = pd.DataFrame(dict(sex=["M", "F", "F", "M"], bone_age=[30., 30., np.nan, 200],
                                 predicted=[36., 43, 5, 212.5]))
    staged = add_stage(children)
    stages = development_stage(np.array([30., 30, 200]), np.array(["M", "F", "M"]))
    assert staged.stage.tolist() == list(stages)
    shares = proportions_within_by(children, ("sex",))
    assert shares.columns.tolist() == ["sex", "n", "within 6 months", "within 12 months"]
    assert shares.iloc[:, :2].to_numpy().tolist() == [["M", 2], ["F", 1]]
    for column in (2, 3): assert [text.split()[0] for text in shares.iloc[:, column]] == ["50%", "0%"]


def test_one_model_a_region():
    predictions = random_predictions(30)
    own = choose_models(predictions[predictions.input == "registered"], "classification", "own")
    assert set(zip(own.sex, own.sex_model)) == {("M", "male"), ("F", "female")}
    assert set(own["head"]) == {"classification"}
    assert own.index.tolist() == list(range(90))


def test_key_point_errors_are_shares_of_their_own_image():
    truth = np.zeros((2, 3, 2))
    predicted = truth + [[[3, 4]], [[6, 8]]]
    truth[1, 2] = np.nan
    errors = key_point_errors(predicted, truth, [100, 50])
    assert np.allclose(errors, [[0.05] * 3, [0.2, 0.2, np.nan]], equal_nan=True)
    moved, turned = translation(5, 12), rotation(180)
    errors = registration_errors([truth[0], predicted[1]], [moved, turned], [np.eye(3)] * 2)
    assert np.allclose(errors, [[13] * 3, [20] * 3])
    assert registration_errors(np.zeros((0, 3, 2)), [], []).shape == (0, 3)


@pytest.mark.parametrize("shrinkage", [0.0, 5.0, 20.0])
def test_ensemble_weights_solve_the_normal_equations(shrinkage):
    rng = np.random.default_rng(0)
    errors = rng.normal(0, [[6], [8], [7]], (3, 50))
    matrix = errors @ errors.T + shrinkage * (errors**2).mean() * np.eye(3)
    solution = np.linalg.solve(matrix, np.ones(3))
    expected = solution / solution.sum()
    assert np.allclose(ensemble_weights(errors, shrinkage), expected)
    assert np.allclose(ensemble_weights(errors / 1000, shrinkage), expected)
    assert np.allclose(ensemble_weights(errors), ensemble_weights(errors, 20))


def test_single_member_keeps_its_error():
    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 220, 30)
    months = truth + rng.normal(0, 8, (1, 30))
    for coverage in (0.5, 0.9):
        rule = fit_ensemble_rule(months, truth, ["alone"], coverage)
        half_width = conformal_half_width(np.abs(months[0] - truth), coverage)
        assert rule.weights == (1,) and rule.half_width == pytest.approx(half_width)
    defaults = fit_ensemble_rule(months, truth, ["alone"], 0.9, 20.0, 5, 0)
    assert fit_ensemble_rule(months, truth, ["alone"]) == defaults
    assert fit_ensemble_rule(months[:, :2], truth[:2], ["alone"]).half_width > 0


@pytest.mark.parametrize("months, truth", [
    (np.zeros((2, 5)), np.zeros(5)),
    (np.zeros((1, 4)), np.zeros(5)),
    (np.full((1, 5), np.nan), np.zeros(5)),
    (np.zeros((1, 5)), np.full(5, np.inf)),
])
def test_incomplete_predictions_are_rejected(months, truth):
    with pytest.raises(ValueError, match="every model's prediction"):
        fit_ensemble_rule(months, truth, ["alone"])


def test_each_rule_is_fitted_on_the_rows_of_its_sex():
    predictions = random_predictions(60)
    predictions.loc[predictions.id == "p3", "bone_age"] = np.nan
    predictions = without(predictions, "p5")
    rules = fit_ensemble_rules(predictions, coverage=0.5, shrinkage=3.0)
    ages = predictions.drop_duplicates("id").set_index("id").bone_age
    for key in ("M", "F", "none"):
        rows = member_predictions(predictions, key)
        assert set(rows.input) == {"registered"} and set(rows.sex) == ({key} if key != "none" else {"M", "F"})
        wide = rows[rows.bone_age.notna()].pivot(index="id", columns="model", values="predicted").dropna()
        assert "p3" not in wide.index and "p5" not in wide.index
        truth = ages[wide.index].to_numpy()
        assert rules[key] == fit_ensemble_rule(wide.to_numpy().T, truth, list(wide.columns), 0.5, 3.0)
    complete = ~predictions.id.isin(["p3", "p5"])
    two_boys = predictions[complete & (predictions.sex == "M")].id.unique()[:2]
    two = predictions[predictions.id.isin(two_boys)]
    assert set(fit_ensemble_rules(two)) == {"M", "none"}
    assert fit_ensemble_rules(two[two.id == two.id.iloc[0]]) == {}


def test_ensemble_uses_the_rule_of_the_sex():
    predictions = random_predictions(60)
    rules = fit_ensemble_rules(predictions)
    ensemble = weighted_ensemble_predictions(without(predictions, "p5"), rules)
    assert ensemble.columns.tolist() == ["id", "sex", "bone_age", "split", "predicted", "low", "high"]
    assert ensemble.index.tolist() == list(range(59))
    assert ensemble.id.tolist() == sorted(set(predictions.id) - {"p5"})
    for row in ensemble.itertuples():
        rule, months = rules[row.sex], predictions[predictions.id == row.id].set_index("model").predicted
        expected = ensemble_mean(months[list(rule.members)].to_numpy()[:, None], rule)[0]
        assert row.predicted == pytest.approx(expected)
        half_widths = (row.predicted - row.low, row.high - row.predicted)
        assert half_widths == pytest.approx((rule.half_width, rule.half_width))
    known = predictions.drop_duplicates("id").set_index("id").loc[ensemble.id]
    columns = ["sex", "bone_age", "split"]
    assert (known[columns].to_numpy() == ensemble[columns].to_numpy()).all()
    assert weighted_ensemble_predictions(predictions, {}).columns.tolist() == ensemble.columns.tolist()


def test_cross_fitting_uses_no_rule_fitted_on_the_same_fold():
    predictions = random_predictions(60)
    once = cross_fitted_ensemble_predictions(predictions, sex_known=False, folds=3, seed=1)
    assert once.id.tolist() == sorted(predictions.id.unique()) and once.index.tolist() == list(range(60))
    # an age that changes every rule fitted with this radiograph
    other = predictions.assign(bone_age=predictions.bone_age.where(predictions.id != "p0", 400))
    changed = cross_fitted_ensemble_predictions(other, sex_known=False, folds=3, seed=1)
    same = np.isclose(once.predicted, changed.predicted)
    assert same[once.id == "p0"].all() and same.sum() == 20  # its own fold is unchanged, the others are not
    known = cross_fitted_ensemble_predictions(predictions, folds=3, seed=1)
    assert len(known) == 60 and not np.allclose(known.predicted, once.predicted)
    defaults = cross_fitted_ensemble_predictions(predictions, True, 5, 0)
    pd.testing.assert_frame_equal(cross_fitted_ensemble_predictions(predictions), defaults)
