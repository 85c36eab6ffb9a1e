"""The child behind the age: twelve children by hand, the tables, and what `boneage assess` prints and writes

The numbers of the children were computed by hand from boneage/data/bone_age_sd.csv and bayley_pinneau.csv; the
rows that were used stand beside them."""
import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from boneage.assessment import Assessment
from boneage.cli import app
from boneage.growth import UNCHECKED, BoneAge, assess_growth, read_reference_tables

DATA = Path(__file__).resolve().parent.parent/"boneage"/"data"

# sex, chronological age, bone age, table; SDS to the fourth digit, category, or no SDS and the reason
BY_SDS = {
    "row 120: (150 − 125.68) / 9.79 = 24.32 / 9.79":
        ("M", 120, 150, "brush", "+2.4842", "advanced"),
    "first row 3: (3 − 3.02) / 0.72":
        ("F", 3, 3, "brush", "-0.0278", "normal"),
    "last row 192: (174 − 189.44) / 7.31":
        ("F", 192, 174, "brush", "-2.1122", "delayed"),
    "a month beyond the last row":
        ("F", 193, 174, "brush", None, "covers 0 y 3 m to 16 y 0 m"),
    "half way from 120 (125.68, 9.79) to 132 (137.32, 10.09): (111.62 − 131.50) / 9.94 = −19.88 / 9.94":
        ("M", 126, 111.62, "brush", "-2.0000", "normal"),
    "row 180, doubtful: (200 − 180) / 14.2":
        ("M", 180, 200, "greulich-pyle", "+1.4085", "normal"),
    "half way from 36 (5.6) to 42 (6.5), doubtful: (51.1 − 39) / 6.05 = 12.1 / 6.05":
        ("F", 39, 51.1, "greulich-pyle", "+2.0000", "normal"),
}
# sex, chronological age, bone age and interval, height; column → height, low, high in cm to the fourth digit
BY_HEIGHT = {
    "12 months behind, last row of the column 156 (88.0): 155 / 0.880":
        ("M", 168, (156, math.nan, math.nan), 155, {"delayed": ("176.1364", "nan", "nan")}),
    "12 months ahead, row 144 (90.1): 150 / 0.901":
        ("F", 132, (144, math.nan, math.nan), 150, {"accelerated": ("166.4817", "nan", "nan")}),
    "two columns, which meet at 144: 150 / 0.853 (150), / 0.914 (165), / 0.834 (144); "
    "delayed: / 0.845 (144), / 0.827 (135)":
        ("M", 156, (150, 135, 165), 150, {"average": ("175.8499", "164.1138", "179.8561"),
                                          "delayed": ("nan", "177.5148", "181.3785")}),
    "three columns, which meet at 108 and 132: 138 / 0.870 (122: 86.2 + 2/3 · 1.2), / 0.906 (132), / 0.827 (108); "
    "delayed: / 0.841 (108), / 0.83275 (105: 82.3 + 3/4 · 1.3); "
    "accelerated: / 0.88833 (136: 88.7 + 1/3 · 0.4), / 0.883 (132)":
        ("F", 120, (122, 105, 136), 138, {"average": ("158.6207", "152.3179", "166.8682"),
                                          "delayed": ("nan", "164.0904", "165.7160"),
                                          "accelerated": ("nan", "155.3471", "156.2854")}),
    "the column of delayed boys ends at 156: 160 / 0.860 (150); average: / 0.976 (186), / 0.968 (180)":
        ("M", 192, (168, 150, 186), 160, {"delayed": ("nan", "nan", "186.0465"),
                                          "average": ("nan", "163.9344", "165.2893")}),
}


def test_there_are_twelve_children(): assert len(BY_SDS) + len(BY_HEIGHT) == 12


@pytest.mark.parametrize("child", BY_SDS.values(), ids=BY_SDS)
def test_sds_by_hand(child):
    sex, age, bone_age, table, sds, expected = child
    growth = assess_growth(BoneAge(bone_age), sex, age, table=table)
    assert growth.difference_months == pytest.approx(bone_age - age, abs=1e-12)
    if sds is None: assert math.isnan(growth.sds) and growth.category is None and expected in growth.notes[0]
    else: assert (f"{growth.sds:+.4f}", growth.category) == (sds, expected)
    assert any("second transcription" in note for note in growth.notes) == (table == "greulich-pyle")


@pytest.mark.parametrize("child", BY_HEIGHT.values(), ids=BY_HEIGHT)
def test_adult_height_by_hand(child):
    sex, age, (months, *interval), height, expected = child
    heights = assess_growth(BoneAge(months, tuple(interval)), sex, age, height).heights
    found = {each.column: tuple(f"{cm:.4f}" for cm in (each.height_cm, *each.interval_cm)) for each in heights}
    assert found == expected and list(found)[0] == list(expected)[0]
    gap = [each.note for each in heights if each.note]
    assert gap == (["the table ends at a bone age of 13 y 0 m for delayed boys"] if months == 168 else [])


def test_shares_of_the_tables_agree_with_those_of_the_phantoms():
    "relative_size.csv holds the column average of Bayley and Pinneau, transcribed apart"
    with (DATA/"relative_size.csv").open() as file:
        other = {(row["sex"], float(row["bone_age_months"])): float(row["fraction_of_adult_length"])
                 for row in csv.DictReader(file) if row["source"].startswith("Bayley")}
    columns = read_reference_tables()["bayley-pinneau"].columns
    shares = {(sex, months): percent/100 for sex in "MF" for months, percent, _ in columns[sex, "average"]}
    assert len(shares) == 94 and shares == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("name", ["brush", "greulich-pyle", "bayley-pinneau"])
def test_each_table_states_where_it_comes_from(name):
    table = read_reference_tables()[name]
    assert all((table.title, table.population, table.years, table.source, table.doubts))
    assert "/" in table.source and table.doubts.endswith(".")
