"Whether a wrong sex can be noticed: distributions without and with such information"
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent/"benchmarks"))
from sexes import DECIDES, FALSE_ALARMS, area, measure  # noqa: E402

COUNT = 400


def distributions_of(disagreement: np.ndarray) -> np.ndarray:
    "(3, n, 3, 240): normal, SD 9; `disagreement` (n, 3) shifts the carpals under the boys', girls', any head"
    rng = np.random.default_rng(1)
    age = rng.uniform(40, 200, COUNT) + rng.normal(0, 4, (3, COUNT))
    middle = np.stack([age, age - 18, age - 9], axis=-1)
    middle[1] += disagreement
    exponent = -(np.arange(240) - middle[..., None])**2/(2*9**2)
    found = np.exp(exponent)
    return found/found.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def radiographs() -> pd.DataFrame:
    sex = np.where(np.random.default_rng(0).random(COUNT) < 0.5, "M", "F")
    return pd.DataFrame(dict(sex=sex, fold=np.arange(COUNT) % 5, bone_age=120.))


def test_area_by_hand():
    boy = np.array([True, False, True, False])
    rows = [2, 1, 2, 1], [1, 2, 1, 2], [3, 2, 1, 0]
    assert [area(np.array(values), boy) for values in rows] == [1, 0, 0.75]


def test_no_information_is_no_warning(radiographs):
    found = measure(distributions_of(np.zeros((COUNT, 3))), radiographs)
    for name, each in found["areas"].items(): assert each["low"] <= 0.5 <= each["high"], name
    assert not found["warning"] and found["found"]["value"] < 0.1


def test_regions_that_agree_under_the_right_sex_tell_it(radiographs):
    boy = (radiographs.sex == "M").to_numpy()
    wrong = np.column_stack([~boy, boy, boy*0])*25  # months, under the head of the other sex
    found = measure(distributions_of(wrong), radiographs)
    assert found["areas"]["regions agree"]["value"] > 0.9 and found["areas"][DECIDES]["value"] > 0.95
    assert found["warning"] and found["false_alarms"]["low"] <= FALSE_ALARMS and found["found"]["value"] > 0.5
