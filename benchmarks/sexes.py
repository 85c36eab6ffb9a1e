"""Whether a wrong sex can be noticed: from the networks' three predictions, and from the child's age.

    python benchmarks/sexes.py work/members-released "the released networks"

The first argument is a workspace: `work/members-released` of benchmarks/members.py has the out-of-fold
predictions of the released networks, that of benchmarks/deals.py those of short fits. The second argument
names the networks in the result. They predict a distribution for boys, one for girls and one for unknown sex,
out of fold. Four statistics compare the first two, and are positive for a hand that is more like a boy's.
Three of them measure whether, under the boys' predictions, the regions disagree less, the averaged
distribution is narrower, and its entropy is lower. The fourth is a logistic regression on these, the regions'
differences and the predicted age.

Each radiograph is given its own sex and then the other. Before any statistic was computed, the regression was
chosen to decide: the library gets a warning if a threshold that warns of at most 1 % of the right sexes in
the other folds finds at least 20 % of the wrong ones, with at most 1.5 % false alarms, in the held-out fold.
The other three statistics are shown only.

With the child's age, `boneage.growth.fits_other_sex` compares the SDS for both sexes. The radiographs have no
such ages. So each child is given an age at which the predicted bone age has an SDS from a normal
distribution, with the scatter of the table or more. Six other rules were tried on the first deal before this
one was chosen: other odds, and limits for each of the two SDS. Odds of 20 are a round number.

The numbers are written to boneage/data/sexes.json, without radiograph, label or id. Masks and key points are
those of the released networks, which were fitted on the same radiographs.
"""
import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from measure import PROJECT, machine
from scipy.optimize import minimize
from scipy.stats import bootstrap, rankdata

from boneage.datasets.workspace import Workspace
from boneage.ensembles import distribution_sd
from boneage.files import publish
from boneage.growth import SDS_TABLES, fits_other_sex, read_reference_tables
from boneage.inference import MONTHS
from boneage.paper.evaluation import Estimate, mean_estimate, proportion_estimate
from boneage.release.ages import member_regions, read_out_of_fold_distributions

RESULT = PROJECT/"boneage"/"data"/"sexes.json"
FALSE_ALARMS, MOST_FALSE_ALARMS, LEAST_FOUND = 0.01, 0.015, 0.2  # shares; see above
DECIDES = "logistic regression"
SCATTERS = (1.0, 1.5, 2.0)  # SD of the children's SDS


def describe(distributions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    "Statistics by name, and the regressors (n, …), of (regions, n, 3, 240) distributions"
    months, average = distributions @ np.arange(MONTHS), distributions.mean(0)
    boys, girls = months[..., 0], months[..., 1]  # (regions, n)
    sd = np.stack([distribution_sd(average[:, head]) for head in (0, 1)])
    entropy = np.stack([-(average[:, head]*np.log(average[:, head] + 1e-12)).sum(1) for head in (0, 1)])
    statistics = {"regions agree": girls.std(0) - boys.std(0), "narrower": np.log(sd[1]/sd[0]),
                  "lower entropy": entropy[1] - entropy[0]}
    age = (boys + girls).mean(0)/2
    between_regions = [other - head[-1] for head in (boys, girls) for other in head[:-1]]
    columns = [*between_regions, *np.log(sd), *entropy, *(boys - girls), age, age**2/100]
    return statistics, np.column_stack(columns)


def fit_logistic(regressors: np.ndarray, boy: np.ndarray):
    "A function from regressors to the log odds of a boy, from which the share of boys is removed"
    centre, scale, share = regressors.mean(0), regressors.std(0), boy.mean()
    standard = np.column_stack([np.ones(len(regressors)), (regressors - centre)/scale])
    def loss(weights):
        odds, ridge = standard @ weights, np.r_[0, weights[1:]]
        slope = standard.T @ (1/(1 + np.exp(-odds)) - boy) + ridge
        return (np.logaddexp(0, odds) - boy*odds).sum() + ridge @ ridge/2, slope
    weights = minimize(loss, np.zeros(standard.shape[1]), jac=True).x
    weights[0] -= np.log(share/(1 - share))
    return lambda new: np.column_stack([np.ones(len(new)), (new - centre)/scale]) @ weights


def cross_fit(regressors: np.ndarray, boy: np.ndarray, fold: np.ndarray) -> np.ndarray:
    "Log odds of a boy for each radiograph, by regressions that were fitted on the other folds"
    odds = np.zeros(len(boy))
    for left_out in np.unique(fold):
        inside = fold == left_out
        odds[inside] = fit_logistic(regressors[~inside], boy[~inside])(regressors[inside])
    return odds


def warn(regressors: np.ndarray, boy: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "Whether a right sex and whether a wrong sex is warned of; the thresholds are from the other folds"
    for_own, thresholds = np.where(boy, 1, -1)*cross_fit(regressors, boy, fold), np.zeros(len(boy))
    for left_out in np.unique(fold):
        others = fold != left_out
        odds = cross_fit(regressors[others], boy[others], fold[others])
        against = np.sort(np.where(boy[others], -odds, odds))[::-1]
        thresholds[~others] = against[int(FALSE_ALARMS*len(against))]  # at most this share lies above
    return -for_own > thresholds, for_own > thresholds


def area(statistic: np.ndarray, boy: np.ndarray) -> float:
    "Area under the ROC curve: 0.5 for a statistic without information"
    boy = np.asarray(boy, bool)  # the bootstrap makes it float
    boys = boy.sum()
    return (rankdata(statistic)[boy].sum() - boys*(boys + 1)/2)/boys/(len(boy) - boys)


def area_estimate(statistic: np.ndarray, boy: np.ndarray) -> Estimate:
    "The area with its bootstrap interval over radiographs"
    drawn = bootstrap((statistic, boy), area, paired=True, vectorized=False, n_resamples=2000,
                      method="percentile", rng=0).confidence_interval
    return Estimate(area(statistic, boy), float(drawn.low), float(drawn.high), len(boy))


def standard_scores(months: np.ndarray, sex: str, ages: np.ndarray) -> np.ndarray:
    "SDS of each bone age at each chronological age; NaN outside the table"
    at, means, sds = np.array([row[:3] for row in read_reference_tables()[SDS_TABLES[0]].columns[sex]]).T
    mean, sd = (np.interp(ages, at, values, np.nan, np.nan) for values in (means, sds))
    return (months - mean)/sd


def check_by_age(months: np.ndarray, boy: np.ndarray, scatter: float) -> dict:
    "Rates of the check by the child's age, for (n, 2) bone ages as a boy and as a girl"
    rng, ages, own, other = np.random.default_rng(0), np.arange(24, 216, 0.5), [], []
    for row, is_boy in zip(months, boy):
        scores = [standard_scores(row[head], sex, ages) for head, sex in enumerate("MF")]
        right, wrong = scores if is_boy else scores[::-1]
        distance = np.abs(right - rng.normal(0, scatter))
        if not np.nanmin(distance) < 0.1: continue  # no such age in the table
        own.append(right[np.nanargmin(distance)])
        other.append(wrong[np.nanargmin(distance)])
    own, other = np.array(own), np.array(other)
    known = np.isfinite(own + other)
    own, other = own[known], other[known]
    rates = dict(false_alarms=fits_other_sex(own, other), found=fits_other_sex(other, own))
    return dict(scatter=scatter, radiographs=len(own), shift=round(float(np.median(np.abs(own - other))), 2),
                **{name: _rounded(proportion_estimate(hits)) for name, hits in rates.items()})


def measure(distributions: np.ndarray, radiographs: pd.DataFrame) -> dict:
    "Areas of the four statistics, rates of a warning, and the error with the right and with the wrong sex"
    boy, fold = (radiographs.sex == "M").to_numpy(), radiographs.fold.to_numpy()
    statistics, regressors = describe(distributions)
    statistics[DECIDES] = cross_fit(regressors, boy, fold)
    false_alarms, found = map(proportion_estimate, warn(regressors, boy, fold))
    months = (distributions @ np.arange(MONTHS)).mean(0)
    def error(head): return np.abs(months[np.arange(len(boy)), head] - radiographs.bone_age)
    numbers = dict(false_alarms=false_alarms, found=found,
                   error_right_sex=mean_estimate(error(np.where(boy, 0, 1))),
                   error_wrong_sex=mean_estimate(error(np.where(boy, 1, 0))))
    areas = {name: area_estimate(values, boy) for name, values in statistics.items()}
    built = false_alarms.value <= MOST_FALSE_ALARMS and found.value >= LEAST_FOUND
    return dict(radiographs=len(boy), folds=len(np.unique(fold)), warning=bool(built),
                areas={name: _rounded(each) for name, each in areas.items()},
                **{name: _rounded(each) for name, each in numbers.items()},
                by_age=[check_by_age(months[:, :2], boy, scatter) for scatter in SCATTERS])


def _rounded(estimate): return {key: round(value, 3) for key, value in asdict(estimate).items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("workspace", help="of members.py, deals.py or `boneage release`")
    parser.add_argument("networks", help="what they are, in a few words")
    chosen = parser.parse_args()
    workspace = Workspace(Path(chosen.workspace))
    settings = workspace.profile.fine_tuning
    radiographs = pd.read_csv(workspace.root/"ages"/"radiographs.csv", dtype={"id": str})
    regions = member_regions(settings)
    distributions = [read_out_of_fold_distributions(workspace, radiographs, region) for region in regions]
    found = dict(made_with="python benchmarks/sexes.py WORKSPACE NETWORKS", date=machine()["date"],
                 networks=chosen.networks, regions=list(regions), deals=settings.deals,
                 epochs=settings.schedule.epochs) | measure(np.stack(distributions), radiographs)
    with publish(RESULT) as file: file.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__": main()
