"""The DICOM objects of an assessment: read back with pydicom and, where installed, by validators"""
import csv
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import generate_uid
from test_cli import call
from test_documents import report
from test_growth import write_dicom

import boneage.archives
from boneage.archives import CODES
from boneage.radiographs import write_radiograph

installed = pytest.mark.skipif(not (find_spec("highdicom") and find_spec("typst")),
                               reason="highdicom or typst is not installed")
PATIENT = dict(PatientName="Phantom^Née", PatientID="PATIENT-4711", PatientSex="F",
               PatientBirthDate="20170531", PatientComments="made up", PatientAge="008Y",
               StudyDate="20250531", SpecificCharacterSet="ISO_IR 100")


@pytest.fixture(scope="module")
def original(tmp_path_factory, image):
    return write_dicom(tmp_path_factory.mktemp("study")/"hand.dcm", image, **PATIENT,
                       StudyInstanceUID=generate_uid(), SeriesInstanceUID=generate_uid())


@pytest.fixture(scope="module")
def written(models, original, tmp_path_factory) -> list[Path]:
    "The capture and the Structured Report, written twice"
    folder = tmp_path_factory.mktemp("objects")
    for _ in range(2):
        assert report(models, original, "--out", folder/"page.html", "--dicom", folder/"dicom") == (0, "")
    return sorted((folder/"dicom").iterdir())


def items(item) -> list:
    "All content items of a Structured Report"
    return [each for child in item.get("ContentSequence", []) for each in (child, *items(child))]


@installed
def test_two_runs_leave_two_objects(written, original):
    uid = pydicom.dcmread(original).SOPInstanceUID
    assert [path.name for path in written] == [f"{uid}-capture.dcm", f"{uid}-report.dcm"]


@installed
def test_objects_belong_to_the_study_and_the_patient(written, original):
    first = pydicom.dcmread(original)
    for each in map(pydicom.dcmread, written):
        assert each.StudyInstanceUID == first.StudyInstanceUID and each.SOPInstanceUID != first.SOPInstanceUID
        assert each.SeriesInstanceUID != first.SeriesInstanceUID
        for entry in first.group_dataset(0x0010): assert each[entry.tag].value == entry.value
        assert "Research use only" in each.SeriesDescription


# The tiny networks predict 95 months (75 to 115) for a girl. Brush, 96 months: 100.66, SD 10.23
@installed
def test_report_reads_back(written, original):
    content = pydicom.dcmread(written[1])
    assert (content.VerificationFlag, content.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    numbers, texts, images = {}, [], []
    for each in items(content):
        if each.ValueType == "NUM":
            value = each.MeasuredValueSequence[0]
            code = each.ConceptNameCodeSequence[0]
            numbers[code.CodeValue] = value.NumericValue, value.MeasurementUnitsCodeSequence[0].CodeValue
        if each.ValueType == "TEXT": texts.append(each.TextValue)
        if each.ValueType == "IMAGE":
            images.append(each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    expected = {"bone age": (95, "mo"), "upper": (20, "mo"), "lower": (20, "mo"), "mean": (100.66, "mo"),
                "SD": (10.23, "mo"), "SDS": (-0.55, "1")}
    assert numbers == {CODES[name][0]: value for name, value in expected.items()}
    assert images == [pydicom.dcmread(original).SOPInstanceUID]
    assert any("No clinician has checked" in text and "8 y 0 m" in text for text in texts)
    assert any("90 % interval of one reader." in text for text in texts)
    assert any("mean of six readers: 77.1 to 112.9 months" in text for text in texts)
    assert any("doubtful" in text for text in texts)


@installed
def test_capture_reads_back(written, original):
    capture = pydicom.dcmread(written[0])
    assert capture.pixel_array.shape == (1754, 1240, 3) and capture.pixel_array[0, 0].tolist() == [255]*3
    source = capture.SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == pydicom.dcmread(original).SOPInstanceUID
    assert written[0].stat().st_size < 2_000_000


@installed
@pytest.mark.parametrize("tool", ["dsrdump", "dciodvfy"])
def test_validators_find_no_error(written, tool):
    if not shutil.which(tool): pytest.skip(f"{tool} is not installed")
    for path in written[tool == "dsrdump":]:
        done = subprocess.run([tool, path], capture_output=True)
        assert done.returncode == 0 and b"Error" not in done.stdout + done.stderr, done.stderr


@installed
def test_other_files_are_one_sentence(models, image, tmp_path):
    png = write_radiograph(tmp_path/"hand.png", image)
    bare = write_dicom(tmp_path/"bare.dcm", image, PatientSex="F")
    for path, sentence in ((png, "is no DICOM file"), (bare, "has no StudyInstanceUID")):
        code, err = report(models, path, "--out", tmp_path/"page.html", "--dicom", tmp_path/"objects")
        assert (code, err.count("\n")) == (2, 1) and sentence in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.dcm", "hand.png"]


def test_without_highdicom_is_one_sentence(models, original, tmp_path, monkeypatch):
    monkeypatch.setattr(boneage.archives, "find_spec", lambda name: None)
    code, err = report(models, original, "--out", tmp_path/"page.html", "--dicom", tmp_path/"objects")
    assert (code, err.count("\n")) == (2, 1) and 'pip install ".[hospital]"' in err
    assert list(tmp_path.iterdir()) == []


# A command whose process is killed while the second Structured Report is made
KILLED = """import os, signal, sys
import boneage.archives as archives
from boneage.cli import app
make, calls = archives.structured_report, []
def structured_report(*arguments):
    calls.append(1)
    if len(calls) == 2: os.kill(os.getpid(), signal.SIGKILL)
    return make(*arguments)
archives.structured_report = structured_report
app(sys.argv[1:])
"""


@installed
def test_folder_with_one_broken_file_killed_and_resumed(models, image, tmp_path):
    study = tmp_path/"study"
    study.mkdir()
    for number in range(4):
        write_dicom(study/f"{number}.dcm", image, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4")
    whole = (study/"1.dcm").read_bytes()
    (study/"1.dcm").write_bytes(whole[:400])
    arguments = ["assess", study, "--csv", tmp_path/"ages.csv", "--dicom", tmp_path/"objects"]
    arguments += ["--weights", models]
    words = [sys.executable, "-c", KILLED, *map(str, arguments)]
    assert subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode < 0
    assert len(list((tmp_path/"objects").glob("[!.]*.dcm"))) == 2  # those of the first row
    code, out, err = call(*arguments, "--resume")
    assert code == 1 and "1 of 4 radiographs are in" in err and out.count(": bone age") == 2
    assert [line for line in err.splitlines() if "1.dcm" in line and "assessed" not in line], err
    with (tmp_path/"ages.csv").open() as file: rows = [Path(row["path"]).name for row in csv.DictReader(file)]
    assert rows == ["0.dcm", "2.dcm", "3.dcm"]
    names = [path.name for path in (tmp_path/"objects").iterdir()]
    uids = [pydicom.dcmread(study/name).SOPInstanceUID for name in rows]
    assert sorted(names) == sorted(f"{uid}-{kind}.dcm" for uid in uids for kind in ("capture", "report"))
    assert call(*arguments, "--resume")[0] == 1 and len(list((tmp_path/"objects").iterdir())) == 6


@installed
def test_files_without_an_identifier_of_their_own_are_named(models, image, png, tmp_path):
    first = write_dicom(tmp_path/"a.dcm", image, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4")
    shutil.copy(first, tmp_path/"b.dcm")
    arguments = [first, tmp_path/"b.dcm", png, "--dicom", tmp_path/"objects", "--weights", models]
    code, out, err = call("assess", *arguments)
    assert code == 1 and out.count(": bone age") == 3 and len(list((tmp_path/"objects").iterdir())) == 2
    assert f"b.dcm was assessed, but its DICOM objects could not be written: {first} has the same" in err
    assert "hand.png was assessed, but its DICOM objects could not" in err and "no DICOM file" in err
