"`boneage evaluate`: errors by hand, radiographs left out, a killed run, and a card without labels or ids"
import csv
import json

import numpy as np
import pytest
from test_cli import call

from boneage.batches import RecordTable
from boneage.radiographs import write_radiograph

# ids of boys and girls → labels, in months; the tiny networks predict 137.5 ± 15 and 95 ± 20 months
BOYS = {"b-1": 130, "b-2": 140, "b-3": 157, "b-4": 137, "b-5": 138}
GIRLS = {"g-1": 90, "g-2": 95, "g-3": 100, "g-4": 120, "g-5": 74}
ERRORS = [137.5 - months for months in BOYS.values()] + [95 - months for months in GIRLS.values()]


@pytest.fixture
def data(tmp_path, image):
    "Ten radiographs, one that shows no hand, one damaged file, and one that a network was fitted on"
    folder = tmp_path/"hospital"
    rows = [f"{name},M,{months}" for name, months in BOYS.items()]
    rows += [f"{name},F,{months}" for name, months in GIRLS.items()]
    for name in [*BOYS, *GIRLS, "1377"]: write_radiograph(folder/f"{name}.png", image)
    write_radiograph(folder/"blank.png", np.eye(400, 320, k=-399, dtype=np.uint8)*3)
    (folder/"damaged.png").write_bytes((folder/"b-1.png").read_bytes()[:300])
    rows += ["blank,F,111", "damaged,M,112", "1377,M,113"]
    (folder/"labels.csv").write_text("\n".join(["id,sex,bone_age", *rows]) + "\n")
    return folder


@pytest.fixture
def weights(models):
    "The tiny networks, with the id that they were fitted on"
    (models/"fitted_on.csv").write_text("id,fold\n1377,0\n")
    return models


def evaluate(data, weights, card, *options):
    "Exit code, standard output, standard error and the card"
    card.unlink(missing_ok=True)
    outcome = call("evaluate", data, "--weights", weights, "--card", card, *options)
    return *outcome, card.read_text()


def test_errors_are_those_by_hand_and_the_rest_is_named(data, weights, tmp_path):
    code, out, err, text = evaluate(data, weights, tmp_path/"card.json", "--csv", tmp_path/"ages.csv")
    card, count = json.loads(text), len(ERRORS)
    overall, boys, girls = card["errors"][:3]
    assert [overall["radiographs"], boys["radiographs"], girls["radiographs"]] == [10, 5, 5]
    assert overall["MAE"] == pytest.approx(sum(map(abs, ERRORS))/count, abs=0.006)
    assert overall["bias"] == pytest.approx(sum(ERRORS)/count, abs=0.006)
    assert [boys["coverage"], girls["coverage"]] == [0.8, 0.6]  # 157; 120 and 74 lie outside
    assert [boys["median width"], girls["median width"]] == [30, 40]
    assert overall["lower limit, low"] < overall["lower limit"] < overall["bias, low"] < overall["bias"]
    numbers = {key: card[key] for key in ("radiographs", "refused", "unreadable", "fitted_on", "all_new")}
    assert numbers == dict(radiographs=11, refused=1, unreadable=1, fitted_on=1, all_new=False)
    assert card["warnings"]["no-hand"] == 1 and code == 1
    for name in ("damaged.png", "1377", "blank.png"): assert name in err
    assert "MAE" in out and "no card beside these networks" in out
    names = [*BOYS, *GIRLS, "blank", "damaged", "1377", "hospital", str(tmp_path), ".png", "labels"]
    assert [name for name in names if name in text.replace("labels", "", 1)] == []
    with (tmp_path/"ages.csv").open() as file: rows = list(csv.DictReader(file))
    assert len(rows) == 11 and {row["sex_from"] for row in rows} == {"table"}


def test_a_killed_run_continues_to_the_same_card(data, weights, tmp_path, monkeypatch):
    table, card = tmp_path/"ages.csv", tmp_path/"card.json"
    code, out, _, text = evaluate(data, weights, card, "--csv", tmp_path/"whole.csv", "--repeats")
    add, written = RecordTable.add, []
    def killed(rows, record):
        if len(written) == 4: raise SystemExit(137)
        written.append(record)
        add(rows, record)
    monkeypatch.setattr(RecordTable, "add", killed)
    assert call("evaluate", data, "--weights", weights, "--csv", table)[0] == 137
    monkeypatch.undo()
    assert table.read_text().count("\n") == 5
    resumed = evaluate(data, weights, card, "--csv", table, "--resume", "--repeats")
    assert resumed[0] == code and resumed[1] == out and resumed[3] == text
    assert "4 of 12 radiographs are in" in resumed[2]
    assert table.read_text() == (tmp_path/"whole.csv").read_text()
    repeats = json.loads(text)["repeats"]
    assert [repeats["radiographs"], repeats["smallest_change"], len(repeats["variants"])] == [10, 0, 6]
    (data/"labels.csv").write_text((data/"labels.csv").read_text().replace("g-1,F", "g-1,M"))
    code, out, err = call("evaluate", data, "--weights", weights, "--csv", table, "--resume")
    assert (code, out) == (2, "") and "Resume with the same" in err  # another sex, another prediction


def test_all_new_measures_every_id_and_nothing_new_is_refused(data, weights, tmp_path):
    (data/"labels.csv").write_text("id,sex,bone_age\n1377,M,113\n")
    code, out, err = call("evaluate", data, "--weights", weights)
    assert (code, out) == (2, "") and "fitted on 1 of these ids" in err
    code, out, err, text = evaluate(data, weights, tmp_path/"card.json", "--all-new")
    assert json.loads(text)["all_new"] and json.loads(text)["errors"][0] == dict(group="all", radiographs=1)
    assert code == 1 and "12 images that no row" in err and "statement of the user" in out
