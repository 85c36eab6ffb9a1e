"The command line: its output and exit codes, and that one damaged file never stops the others"
import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import run
from tiny_models import write_tiny_models
from typer.testing import CliRunner

import boneage
from boneage.cli import app
from boneage.radiographs import write_radiograph


@pytest.fixture
def radiographs(tmp_path, image):
    folder = tmp_path/"radiographs"
    for name in ("1.png", "2.jpg", "more/3.png"): write_radiograph(folder/name, image)
    return folder


def call(*arguments):
    "Exit code, standard output, standard error; no exception but the exit"
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_folder_as_text(radiographs, models):
    code, out, err = call("assess", radiographs, "--sex", "F", "--weights", models)
    assert (code, err) == (0, "")
    assert out.count("bone age 95 months (7 y 11 m), 90 % between 75 and 115; sex F") == 3
    assert out.count("  mean of six readers: 90 % between 77 and 113\n  by region: hand 90, carpals 120") == 3


def test_json_is_a_list_with_one_object_for_each(radiographs, models):
    code, out, err = call("assess", radiographs/"1.png", radiographs/"2.jpg", "--json", "--weights", models)
    outputs = json.loads(out)
    paths = [output["path"] for output in outputs]
    assert code == 0 and paths == [str(radiographs/"1.png"), str(radiographs/"2.jpg")]
    for output in outputs:
        assert set(output) >= {"path", "sex", "bone_age_months", "interval_months", "region_months",
                               "key_points", "frame_from_image", "mirrored", "warnings"}
        assert output["sex"] is None and output["bone_age_months"] == pytest.approx(110, abs=1e-3)
        assert output["interval_months"] == pytest.approx([0, 220], abs=1e-3)
        assert output["consensus_months"] == pytest.approx([0.37, 219.63], abs=0.01)
        assert output["region_months"]["metacarpals"] is None
        assert np.shape(output["frame_from_image"]) == (3, 3)
        assert set(output["key_points"]) == {"middle_tip", "capitate", "thumb_tip"}


def test_unknown_values_are_null_in_json(radiographs, tmp_path):
    bare = write_tiny_models(tmp_path/"bare", names=(), rules=None)
    code, out, _ = call("assess", radiographs/"1.png", "--json", "--weights", bare)
    output = json.loads(out)[0]
    assert code == 0 and "NaN" not in out
    assert {output[f"{key}_months"] for key in ("bone_age", "interval", "consensus")} == {None}
    assert set(output["region_months"].values()) == {None}
    assert output["frame_from_image"] is not None and output["warnings"]


def test_damaged_files_are_reported_and_skipped(radiographs, models, image, tmp_path):
    (radiographs/"empty.png").touch()
    (radiographs/"cut.png").write_bytes((radiographs/"1.png").read_bytes()[:400])
    (radiographs/"text.jpg").write_text("The hand is a machine of 27 bones.")
    write_radiograph(radiographs/"flat.png", image*0 + 7)
    table = tmp_path/"ages.csv"
    code, out, err = call("assess", radiographs, radiographs/"absent.png", "--sex", "M", "--csv", table,
                          "--weights", models)
    assert code == 1 and out.count("bone age") == 3
    lines = err.splitlines()
    assert len(lines) == 6 and lines[-1] == "3 of 7 radiographs were assessed." and "Traceback" not in err
    for name in ("empty.png", "cut.png", "text.jpg", "flat.png", "absent.png"):
        assert sum(name in line for line in lines) == 1, name
    with table.open() as file: rows = list(csv.DictReader(file))
    assert len(rows) == 3 and {row["sex"] for row in rows} == {"M"}
    assert all(abs(float(row["bone_age_months"]) - 137.5) < 1e-2 for row in rows)
    widths = [float(row["consensus_high"]) - float(row["consensus_low"]) for row in rows]
    assert widths == pytest.approx([2*11.99]*3, abs=0.02)  # half of the first interval: 15
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []  # no unfinished file


def test_sexes_from_a_table(radiographs, models, tmp_path):
    table = tmp_path/"sexes.csv"
    table.write_text("id,boneage,male\n1,80,False\n2,90,True\n")
    code, out, _ = call("assess", radiographs, "--sexes", table, "--json", "--weights", models)
    found = {output["path"].rsplit("/", 1)[1]: output["sex"] for output in json.loads(out)}
    assert code == 0 and found == {"1.png": "F", "2.jpg": "M", "3.png": None}


def test_sex_from_a_dicom_header(models, image, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.PatientSex, file.Rows, file.Columns, file.Modality = "F", *image.shape, "CR"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.PixelData = image.tobytes()
    file.save_as(tmp_path/"hand.dcm", enforce_file_format=True)
    code, out, _ = call("assess", tmp_path/"hand.dcm", "--weights", models)
    assert code == 0 and "bone age 95 months" in out and "sex F, from the DICOM header" in out
    assert "sex M" in call("assess", tmp_path/"hand.dcm", "--sex", "M", "--weights", models)[1]


@pytest.mark.parametrize("arguments, sentence", [
    (["--sex", "X"], "'X' is not one of"), (["--sexes", "absent.csv"], "can't be read"),
    (["--weights", "nowhere"], "holds no weights"),
    (["--device", "abacus"], "no device"), (["--nonsense"], "--nonsense")])
def test_wrong_usage_is_a_sentence_and_code_2(radiographs, arguments, sentence):
    code, out, err = call("assess", radiographs/"1.png", *arguments)
    assert code == 2 and out == "" and sentence in err and "Traceback" not in err


def test_damaged_weights_are_one_sentence(radiographs, tmp_path):
    models = write_tiny_models(tmp_path/"run")
    (models/"registered-hand-both-regression"/"model.safetensors").write_bytes(b"no")
    code, _, err = call("assess", radiographs, "--weights", models)
    assert code == 2 and len(err.splitlines()) == 1 and "damaged" in err


def test_nothing_found(tmp_path):
    assert call("assess", tmp_path)[0] == 1  # an empty folder: no weights are loaded
    assert call("assess", tmp_path/"absent.png", "--json")[:2] == (1, "[]\n")


def test_phantom_command_writes_requested_phantoms(tmp_path):
    code, out, err = call("phantom", tmp_path/"a", "-n", 2, "--seed", 4, "--age", 96, "--sex", "f", "--clean")
    assert (code, err) == (0, "") and str(tmp_path/"a"/"boneage-training-dataset") in out
    labels = (tmp_path/"a"/"boneage-training-dataset.csv").read_text()
    assert labels == "id,boneage,male\n1,96.0,False\n2,96.0,False\n"
    call("phantom", tmp_path/"b", "-n", 1, "--seed", 4, "--age", 96, "--sex", "F", "--clean")
    first, again = ((tmp_path/name/"boneage-training-dataset"/"1.png").read_bytes() for name in "ab")
    assert first == again
    more = call("phantom", tmp_path/"a", "-n", 3, "--seed", 4, "--age", 96, "--sex", "F", "--clean")
    assert more[0] == 0  # continued
    code, _, err = call("phantom", tmp_path/"a", "--seed", 5)
    assert code == 2 and "other options" in err


def test_version_and_help():
    assert call("--version") == (0, f"boneage {boneage.__version__}\n", "")
    code, out, _ = call("--help")
    assert code == 0 and "boneage assess hand.png --sex F" in out and "not a medical device" in out
    assert "not a medical device" in call("assess", "--help")[1]


def test_help_imports_nothing_heavy():
    program = ("import sys\nfrom boneage.cli import app\n"
               "try: app(['--help'])\nexcept SystemExit: pass\n"
               "heavy = ('torch', 'fastai', 'pandas', 'matplotlib', 'numpy', 'cv2')\n"
               "print([name for name in heavy if name in sys.modules], file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1] == "[]" and "assess" in done.stdout


def test_as_a_program(radiographs, models):
    done = run("assess", radiographs/"1.png", "absent.png", "--json", "--weights", models)
    assert done.returncode == 1 and len(json.loads(done.stdout)) == 1
    assert done.stderr == "absent.png names no file or folder.\n"
