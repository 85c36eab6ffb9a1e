"""Each number of an evaluation against one that was counted by hand or in another way: what mutants had shown to be unchecked."""

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


def test_coverage_and_seed_reach_the_bootstrap():
    truth, first, second = np.random.default_rng(0).uniform(0, 230, (3, 60))
    assert mean_absolute_error(truth, first, 0.5, 3) == mean_estimate(np.abs(first - truth), 0.5, seed=3)
    assert mae_difference(truth, first, second, 0.5, 3) == mean_estimate(np.abs(first - truth) - np.abs(second - truth), 0.5, seed=3)
    assert estimate_of(score(pd.DataFrame(dict(bone_age=truth, predicted=first)), seed=3).iloc[0]) == mean_absolute_error(truth, first, seed=3)


def test_none_is_no_label_and_no_prediction():
    for truth, predicted in [([100, None, 90, 80], [90, 50, 100, 80]), ([100, 50, 90, 80], [90, None, 100, 80])]:
        assert mean_absolute_error(truth, predicted).n == proportion_within(truth, predicted, 6).n == 3
    assert bland_altman([100, None, 90, 80], [90, 50, 100, 80]).bias == 0
    assert np.isnan(bland_altman([100, 90, 80], [90, None, 80]).bias)


def test_undefined_estimates_are_nan_without_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for few in (mean_estimate([]), proportion_estimate([])): assert np.isnan([few.value, few.low, few.high]).all() and few.n == 0
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
    cohort = pd.DataFrame(dict(id=list("abcdef"), sex=list("MMMFMF"), bone_age=[10., 20, 60, 100, 77, 33], split=["train"] * 4 + ["test", "validation"]), index=range(10, 16))
    expected = pd.DataFrame(dict(id=["e", "f"], sex=["M", "F"], bone_age=[77., 33], split=["test", "validation"], predicted=[20., 100]))
    pd.testing.assert_frame_equal(baseline_predictions(cohort), expected)


def test_gathered_tables_keep_names_and_count_anew(tmp_path):
    for model in ("registered-hand-both-regression", "registered-hand-male-regression"):
        (tmp_path / model).mkdir()
        pd.DataFrame(dict(id=["007", "8"], sex=["M", "M"], bone_age=[1, 2], predicted=[3, 4], split=["validation", "test"])).to_csv(tmp_path / model / "predictions.csv", index=False)
    gathered = gather_predictions(tmp_path)
    assert gathered.id.tolist() == ["007", "8"] * 2 and gathered.index.tolist() == [0, 1, 2, 3]
    tested = gather_predictions(tmp_path, "test")
    assert tested.id.tolist() == ["8"] * 2 and tested.index.tolist() == [0, 1] and tested.columns.tolist() == list(SCHEMA)


def test_an_ensemble_is_the_mean_of_its_members():
    predictions = random_predictions(40)
    gone = predictions.index[(predictions.model == "registered-hand-both-regression") & (predictions.id == "p7")]
    ensembles = ensemble_predictions(predictions.drop(gone))
    assert ensembles.columns.tolist() == list(SCHEMA) and set(ensembles.input) == {"registered"} and set(ensembles.region) == {"ensemble"}
    assert ensembles.model.unique().tolist() == [f"registered-ensemble-{sex}-{head}" for head in ("regression", "classification", "both") for sex in ("both", "female", "male")]
    assert ensembles.index.tolist() == list(range(len(ensembles)))
    without = ensemble_predictions(predictions[predictions.model != "registered-hand-both-regression"])
    assert set(ensembles.model) - set(without.model) == {"registered-ensemble-both-regression", "registered-ensemble-both-both"}
    registered = predictions[predictions.input == "registered"]
    for (sex, head), rows in ensembles.groupby(["sex_model", "head"]):
        members = registered[(registered.sex_model == sex) & ((registered["head"] == head) | (head == "both"))]
        wanted = members.groupby("id")[["predicted", "bone_age"]].mean().drop("p7" if sex == "both" and head != "classification" else [])
        assert rows.id.tolist() == wanted.index.tolist() and np.allclose(rows[["predicted", "bone_age"]], wanted)
        known = members.drop_duplicates("id").set_index("id").loc[rows.id]
        assert rows.sex.tolist() == known.sex.tolist() and rows.split.tolist() == known.split.tolist()


def test_rows_come_in_the_papers_order_and_others_in_the_alphabets():
    table = pd.DataFrame([(r, s, w) for w in "ba" for s in ("both", "female", "male") for r in ("metacarpals", "ensemble", "carpals", "hand")], columns=["region", "sex_model", "word"])
    ordered = sort_in_paper_order(table, ("word", "sex_model", "region"))
    assert ordered.to_records(index=True).tolist() == [(i, r, s, w) for i, (w, s, r) in enumerate((w, s, r) for w in "ab" for s in ("male", "female", "both") for r in ("hand", "carpals", "metacarpals", "ensemble"))]


@pytest.mark.parametrize("column, order", [("input", ("original", "normalised", "registered")), ("head", ("regression", "classification", "both")), ("sex", ("M", "F")), ("stage", tuple(STAGES))])
def test_each_column_has_its_order_and_equals_keep_theirs(column, order):
    table = pd.DataFrame({column: [*order[::-1]] * 20, "row": range(20 * len(order))})
    ordered = sort_in_paper_order(table, (column,))
    assert tuple(ordered[column].unique()) == order and all(rows.is_monotonic_increasing for _, rows in ordered.groupby(column).row)


def test_a_category_without_radiographs_has_no_row():
    boys = pd.DataFrame(dict(sex=pd.Categorical(["M", "M"], categories=["F", "M"]), bone_age=[100.0, 120], predicted=[103, 110]))
    assert score(boys, by=("sex",)).sex.tolist() == proportions_within_by(boys, ("sex",)).sex.tolist() == ["M"]


def test_tables_match_the_scores():
    predictions = random_predictions(60)
    scores = score(predictions[predictions.input == "registered"], by=("region", "sex_model", "head"))
    table = mae_table(scores)
    assert table.index.tolist() == ["hand", "carpals", "metacarpals"]
    assert table.columns.tolist() == [(h, s) for h in ("regression", "classification") for s in ("male", "female", "both")]
    for row in scores.itertuples(): assert table.loc[row.region, (row.head, row.sex_model)] == row.mae


def test_stages_and_shares_leave_the_unlabelled_out():
    children = pd.DataFrame(dict(sex=["M", "F", "F", "M"], bone_age=[30., 30., np.nan, 200], predicted=[36., 43, 5, 212.5]))
    staged = add_stage(children)
    assert staged.stage.tolist() == list(development_stage(np.array([30., 30, 200]), np.array(["M", "F", "M"])))
    found = proportions_within_by(children, ("sex",))
    assert found.columns.tolist() == ["sex", "n", "within 6 months", "within 12 months"]
    assert found.iloc[:, :2].to_numpy().tolist() == [["M", 2], ["F", 1]] and [words.split()[0] for words in found.iloc[:, 2]] == ["50%", "0%"]
    assert [words.split()[0] for words in found.iloc[:, 3]] == ["50%", "0%"]


def test_one_model_a_region():
    predictions = random_predictions(30)
    own = choose_models(predictions[predictions.input == "registered"], "classification", "own")
    assert set(zip(own.sex, own.sex_model)) == {("M", "male"), ("F", "female")} and set(own["head"]) == {"classification"}
    assert own.index.tolist() == list(range(90))


def test_key_points_are_measured_by_their_own_image():
    truth = np.zeros((2, 3, 2))
    found = truth + [[[3, 4]], [[6, 8]]]
    truth[1, 2] = np.nan
    assert np.allclose(key_point_errors(found, truth, [100, 50]), [[0.05] * 3, [0.2, 0.2, np.nan]], equal_nan=True)
    moved, turned = translation(5, 12), rotation(180)
    assert np.allclose(registration_errors([truth[0], found[1]], [moved, turned], [np.eye(3)] * 2), [[13] * 3, [20] * 3])
    assert registration_errors(np.zeros((0, 3, 2)), [], []).shape == (0, 3)


@pytest.mark.parametrize("shrinkage", [0.0, 5.0, 20.0])
def test_ensemble_weights_solve_the_normal_equations(shrinkage):
    rng = np.random.default_rng(0)
    errors = rng.normal(0, [[6], [8], [7]], (3, 50))
    matrix = errors @ errors.T + shrinkage * (errors**2).mean() * np.eye(3)
    wanted = np.linalg.solve(matrix, np.ones(3))
    assert np.allclose(ensemble_weights(errors, shrinkage), wanted / wanted.sum()) and np.allclose(ensemble_weights(errors / 1000, shrinkage), wanted / wanted.sum())
    assert np.allclose(ensemble_weights(errors), ensemble_weights(errors, 20))


def test_single_member_keeps_its_error():
    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 220, 30)
    months = truth + rng.normal(0, 8, (1, 30))
    for coverage in (0.5, 0.9):
        rule = fit_ensemble_rule(months, truth, ["alone"], coverage)
        assert rule.weights == (1,) and rule.half_width == pytest.approx(conformal_half_width(np.abs(months[0] - truth), coverage))
    assert fit_ensemble_rule(months, truth, ["alone"]) == fit_ensemble_rule(months, truth, ["alone"], 0.9, 20.0, 5, 0)
    assert fit_ensemble_rule(months[:, :2], truth[:2], ["alone"]).half_width > 0


@pytest.mark.parametrize("months, truth", [(np.zeros((2, 5)), np.zeros(5)), (np.zeros((1, 4)), np.zeros(5)), (np.full((1, 5), np.nan), np.zeros(5)), (np.zeros((1, 5)), np.full(5, np.inf))])
def test_incomplete_predictions_are_rejected(months, truth):
    with pytest.raises(ValueError, match="every model's prediction"): fit_ensemble_rule(months, truth, ["alone"])


def test_rules_are_those_of_their_rows():
    predictions = random_predictions(60)
    predictions.loc[predictions.id == "p3", "bone_age"] = np.nan
    predictions = predictions.drop(predictions.index[(predictions.model == "registered-hand-both-regression") & (predictions.id == "p5")])
    rules = fit_ensemble_rules(predictions, coverage=0.5, shrinkage=3.0)
    for key in ("M", "F", "none"):
        rows = member_predictions(predictions, key)
        assert set(rows.input) == {"registered"} and set(rows.sex) == ({key} if key != "none" else {"M", "F"})
        wide = rows[rows.bone_age.notna()].pivot(index="id", columns="model", values="predicted").dropna()
        truth = predictions.drop_duplicates("id").set_index("id").bone_age[wide.index]
        assert "p3" not in wide.index and "p5" not in wide.index
        assert rules[key] == fit_ensemble_rule(wide.to_numpy().T, truth.to_numpy(), list(wide.columns), 0.5, 3.0)
    two = predictions[predictions.id.isin(predictions[(predictions.sex == "M") & ~predictions.id.isin(["p3", "p5"])].id.unique()[:2])]
    assert set(fit_ensemble_rules(two)) == {"M", "none"} and fit_ensemble_rules(two[two.id == two.id.iloc[0]]) == {}


def test_ensemble_uses_the_rule_of_the_sex():
    predictions = random_predictions(60)
    rules = fit_ensemble_rules(predictions)
    gone = predictions.index[(predictions.model == "registered-hand-both-regression") & (predictions.id == "p5")]
    ensemble_prediction = weighted_ensemble_predictions(predictions.drop(gone), rules)
    assert ensemble_prediction.columns.tolist() == ["id", "sex", "bone_age", "split", "predicted", "low", "high"] and ensemble_prediction.index.tolist() == list(range(59))
    assert ensemble_prediction.id.tolist() == sorted(set(predictions.id) - {"p5"})
    for row in ensemble_prediction.itertuples():
        rule, said = rules[row.sex], predictions[predictions.id == row.id].set_index("model").predicted
        assert row.predicted == pytest.approx(ensemble_mean(said[list(rule.members)].to_numpy()[:, None], rule)[0])
        assert (row.predicted - row.low, row.high - row.predicted) == pytest.approx((rule.half_width, rule.half_width))
    known = predictions.drop_duplicates("id").set_index("id").loc[ensemble_prediction.id]
    assert (known[["sex", "bone_age", "split"]].to_numpy() == ensemble_prediction[["sex", "bone_age", "split"]].to_numpy()).all()
    assert weighted_ensemble_predictions(predictions, {}).columns.tolist() == ensemble_prediction.columns.tolist()


def test_cross_fitting_uses_no_rule_fitted_on_the_same_fold():
    predictions = random_predictions(60)
    once = cross_fitted_ensemble_predictions(predictions, sex_known=False, folds=3, seed=1)
    assert once.id.tolist() == sorted(predictions.id.unique()) and once.index.tolist() == list(range(60))
    other = predictions.assign(bone_age=predictions.bone_age.where(predictions.id != "p0", 400))  # an age that would turn every rule
    changed = cross_fitted_ensemble_predictions(other, sex_known=False, folds=3, seed=1)
    same = np.isclose(once.predicted, changed.predicted)
    assert same[once.id == "p0"].all() and same.sum() == 20  # its own fold is voted on as before, the others are not
    known = cross_fitted_ensemble_predictions(predictions, folds=3, seed=1)
    assert len(known) == 60 and not np.allclose(known.predicted, once.predicted)
    pd.testing.assert_frame_equal(cross_fitted_ensemble_predictions(predictions), cross_fitted_ensemble_predictions(predictions, True, 5, 0))
