"""Chronological age, SDS and adult height: twelve children by hand, the tables, output of `boneage assess`

The numbers of the children were computed by hand from boneage/data/bone_age_sd.csv and bayley_pinneau.csv;
the rows that were used stand beside them."""
import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid
from typer.testing import CliRunner

from boneage.assessment import load_assessor
from boneage.cli import app
from boneage.growth import UNCHECKED, BoneAge, assess_growth, read_reference_tables
from boneage.visits import measured_change

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
    "three columns, which meet at 108 and 132: 138 / 0.870 (122: 86.2 + 2/3 · 1.2), / 0.906 (132), "
    "/ 0.827 (108); "
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
    found = {each.column: tuple(f"{cm:.4f}" for cm in (each.height_cm, *each.interval_cm))
             for each in heights}
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


# ------------------------------------------------------------------ what `boneage assess` prints and writes

def write_dicom(path: Path, image: np.ndarray, **header) -> Path:
    "A phantom as a DICOM file with these entries in its header"
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Modality, (file.Rows, file.Columns), file.PixelData = "CR", image.shape, image.tobytes()
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 8, 8, 7
    for name, value in header.items(): setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path


def assess(models, *arguments) -> tuple[int, str, list]:
    "Exit code, standard error and the records of `boneage assess … --json`"
    words = ["assess", *arguments, "--weights", models, "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr, json.loads(done.stdout or "[]")


def about_child(record: dict) -> list[str]:
    "The warnings that do not come from the tiny networks"
    own = ("registration", "cut off", "check the sex")
    return [each for each in record["warnings"] if not any(part in each for part in own)]


# The tiny networks predict 95 months (75 to 115) for a girl. Brush, 96 months: 100.66, SD 10.23
def test_record_by_hand(models, png):
    code, err, (record,) = assess(models, png, "--sex", "F", "--age", "8y", "--height-cm", 125)
    growth = record["growth"]
    assert (code, err, record["chronological_age_months"], record["age_from"]) == (0, "", 96, "given")
    assert growth["difference_months"] == pytest.approx(-1, abs=1e-3)
    assert growth["sds"] == pytest.approx((95 - 100.66)/10.23, abs=1e-3)
    assert growth["sds_interval"] == pytest.approx([(75 - 100.66)/10.23, (115 - 100.66)/10.23], abs=1e-3)
    assert growth["category"] == "normal" and growth["share_advanced"] is None  # regression: no distribution
    own, *others = growth["heights"]
    assert own["height_cm"] == pytest.approx(125/0.786, abs=1e-2)  # 95: half way from 94 (78.2) to 96 (79.0)
    assert [height["column"] for height in (own, *others)] == ["average", "delayed", "accelerated"]
    assert [table["name"] for table in growth["tables"]] == ["brush", "bayley-pinneau"]


def test_result_has_growth_only_with_an_age(models, image):
    assessor = load_assessor(models, "cpu")
    assert assessor.assess(image, "F").growth is None
    growth = assessor.assess(image, "F", age=96, sds_table="greulich-pyle").growth
    assert growth.sds == pytest.approx(-1/8.8, abs=1e-3) and growth.heights == ()


def test_sex_is_checked_by_the_age(models, image):
    "The tiny networks predict 95 months for a girl and 137.5 for a boy: normal at 96 and at 132 months"
    assessor = load_assessor(models, "cpu")
    def warned(sex, **child):
        return sum(each.code == "sex" for each in assessor.assess(image, sex, **child).warnings)
    assert [warned("F", age=96), warned("M", age=132)] == [0, 0]
    assert [warned("F", age=132), warned("M", age=96)] == [1, 1]
    assert [warned("F"), warned("unknown", age=132), warned("F", age=30)] == [0, 0, 0]


@pytest.mark.parametrize("entries, age, source, warning", [
    (dict(PatientBirthDate="20140531", StudyDate="20241130"), 126, "DICOM header, birth date", None),
    (dict(PatientBirthDate="20140531", StudyDate="20241130", PatientAge="010Y"), 126,
     "DICOM header, birth date", None),
    (dict(PatientBirthDate="20130531", StudyDate="20241130", PatientAge="010Y"), 138,
     "DICOM header, birth date", "contradict each other"),
    (dict(PatientBirthDate="19000101", StudyDate="20241130", PatientAge="126M"), 126,
     "DICOM header", "no age of a child"),
    (dict(PatientAge="126M"), 126, "DICOM header", None),
    (dict(PatientAge="010Y"), 120, "DICOM header", "in whole years"),
    (dict(PatientBirthDate="20140531"), None, None, "without the date of the study gives no age"),
    (dict(PatientBirthDate="20240531", StudyDate="20140101"), None, None, "before the date of birth"),
    (dict(Manufacturer="none"), None, None, None)])
def test_age_from_a_dicom_header(models, image, tmp_path, entries, age, source, warning):
    path = write_dicom(tmp_path/"hand.dcm", image, PatientSex="F", PatientName="Private^Name", **entries)
    code, err, (record,) = assess(models, path)
    assert code == 0 and record["age_from"] == source and "Private" not in json.dumps(record) + err
    assert record["chronological_age_months"] == (None if age is None else pytest.approx(age))
    assert [warning in each for each in about_child(record)] == ([True] if warning else [])
    assert (record["growth"] is None) == (age is None)


def test_precedence(models, image, tmp_path):
    path = write_dicom(tmp_path/"hand.dcm", image, PatientSex="F", PatientBirthDate="20140531",
                       StudyDate="20241130")
    table = tmp_path/"children.csv"
    table.write_text("file,sex,birth_date,height_cm\nhand.dcm,F,2013-05-31,140\n")
    found = {}
    for name, arguments in {"header": (), "table": ("--sexes", table),
                            "birth date": ("--sexes", table, "--birth-date", "2012-05-31"),
                            "age": ("--sexes", table, "--age", "12y")}.items():
        record = assess(models, path, *arguments)[2][0]
        found[name] = record["chronological_age_months"], record["age_from"], len(about_child(record))
        assert (record["growth"]["height_cm"] == 140) == (name != "header")
    assert found == {"header": (126, "DICOM header, birth date", 0), "table": (138, "table, birth date", 1),
                     "birth date": (150, "given, birth date", 2), "age": (144, "given", 2)}


def test_text_and_table_carry_what_is_doubtful(models, png, tmp_path):
    out = tmp_path/"ages.csv"
    words = ["assess", png, "--sex", "M", "--age", "15y6m", "--sds-table", "greulich-pyle", "--csv", out,
             "--height-cm", 150, "--weights", models, "--device", "cpu"]
    text = CliRunner().invoke(app, list(map(str, words))).stdout
    with out.open() as file: row, = csv.DictReader(file)
    for printed in (text, " ".join(row.values())):
        for part in (UNCHECKED, "Greulich and Pyle 1959", "published 1959", "not stated in the transcription",
                     "14 instead of 14.2", "a second transcription has 14", "linear"):
            assert part in printed, part
    assert "from the bone age alone" in text
    assert row["sds_table"] == "greulich-pyle" and row["category"] in ("delayed", "normal", "advanced")


def test_entries_of_a_table_that_cannot_be_read_are_warnings(models, png, tmp_path):
    table = tmp_path/"children.csv"
    table.write_text("id,sex,age,height_cm\nhand,F,10,1.4\n")
    code, _, (record,) = assess(models, png, "--sexes", table)
    assert code == 0 and record["growth"] is None and len(warnings := about_child(record)) == 2
    assert "children.csv, row 2: '10' is no age" in warnings[0] and "expected centimetres" in warnings[1]


def test_assessing_without_an_age_imports_nothing_new():
    code = ("import sys, boneage.cli, boneage.assessment, pathlib; from boneage.batches import *; "
            "find_child(pathlib.Path('README.md'), ChildOptions()); "
            "print([name for name in ('boneage.growth', 'boneage.visits') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          cwd=DATA.parent.parent)
    assert done.stdout.strip() == "[]", done.stderr


# ------------------------------------------------------------------ several visits

VISITS = """age,sex,bone_age_months,interval_low,interval_high
8y,F,90,75,105
8y6m,F,92,77,107
10y,F,126,110,142
"""


def test_visits_by_hand(tmp_path):
    "Brush: 8 y 100.66, SD 10.23; 8 y 6 m half way to 113.86, SD 10.74; 10 y 125.66, SD 11.73"
    table, chart = tmp_path/"visits.csv", tmp_path/"chart.pdf"
    table.write_text(VISITS)
    done = CliRunner().invoke(app, ["visits", str(table), "--smallest-change", "6", "--out", str(chart)])
    first, second, third, slow, fast, about = done.stdout.splitlines()
    assert first.endswith("SDS -1.0, normal")   # (90 − 100.66)/10.23 = −1.042
    assert second.endswith("SDS -1.5, normal")  # (92 − 107.26)/10.485 = −1.455
    assert third.endswith("SDS +0.0, normal")   # (126 − 125.66)/11.73 = 0.029
    assert slow.endswith("+2 months; no pace: the smallest detectable change, 6.0 months, is not exceeded")
    assert fast.endswith("bone age +34 months; 1.89 months a month")  # 34/18
    assert UNCHECKED in about and chart.read_bytes().startswith(b"%PDF")
    assert done.exit_code == 0 and done.stderr == ""
    *_, slow, fast, _, measured = CliRunner().invoke(app, ["visits", str(table)]).stdout.splitlines()
    months, sentence = measured_change()
    assert measured == sentence and 2 < months < 34
    assert f"no pace: the smallest detectable change, {months:.1f} months" in slow and "1.89 months" in fast


def test_the_table_of_assess_is_a_table_of_visits(models, png, tmp_path):
    out = tmp_path/"ages.csv"
    assess(models, png, "--sex", "F", "--age", "8y", "--csv", out)
    text = CliRunner().invoke(app, ["visits", str(out)]).stdout
    assert text.startswith("8 y 0 m: bone age 95 months (7 y 11 m), 90 % between 75 and 115; SDS -0.6")


def test_a_file_that_cannot_be_read_keeps_its_sentence(models, tmp_path):
    (tmp_path/"hand.dcm").write_bytes(b"")
    os.mkfifo(tmp_path/"pipe.png")  # opening it would wait for ever
    for name, sentence in (("hand.dcm", "is empty"), ("pipe.png", "is a pipe or a device")):
        code, err, records = assess(models, tmp_path/name, "--sex", "F", "--age", "8y")
        assert (code, records) == (1, []) and sentence in err
