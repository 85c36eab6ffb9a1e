"`boneage assess` on the kinds of files, folders, tables and destinations that occur in practice"
import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
from conftest import command
from test_cli import call
from tiny_models import HAND, write_tiny_models
from typer.testing import CliRunner

from boneage.assessment import load_assessor
from boneage.cli import app
from boneage.radiographs import RadiographWarning, open_radiograph, write_radiograph

pytest.importorskip("pydicom")
from test_radiographs import as_bits, dicom, save_dicom  # noqa: E402


def hospital(folder, image):
    "Two patients whose files have the same name"
    for name, sex in (("anna", "F"), ("ben", "M")):
        (folder/name).mkdir(parents=True)
        save_dicom(folder/name/"00001.dcm", dicom(as_bits(image/255, 12), BitsStored=12, PatientSex=sex))
    return folder


def assessed(*arguments):
    "Exit code, records by path, standard error"
    code, out, err = call("assess", *arguments, "--json")
    return code, {record["path"]: record for record in json.loads(out or "[]")}, err


# ------------------------------------------------------------------ the sex

def test_a_path_in_the_table_reaches_its_own_child_only(tmp_path, models, image):
    folder = hospital(tmp_path/"dup", image)
    (tmp_path/"one.csv").write_text("path,sex\nanna/00001.dcm,F\n")
    code, records, err = assessed(folder, "--sexes", tmp_path/"one.csv", "--weights", models)
    found = {path: (record["sex"], record["sex_from"]) for path, record in records.items()}
    assert code == 0 and found == {str(folder/"anna"/"00001.dcm"): ("F", "table"),
                                   str(folder/"ben"/"00001.dcm"): ("M", "DICOM header")}
    assert "1 of 1 rows fit a radiograph; 1 of 2 radiographs have no row" in err
    (tmp_path/"both.csv").write_text("Path;Sex\nanna\\00001.dcm;F\nben\\00001.dcm;M\n", "utf-16")
    assert assessed(folder, "--sexes", tmp_path/"both.csv", "--weights", models)[0] == 0


@pytest.mark.parametrize("row", ["00001.dcm", "00001", "00001.DCM"])
def test_a_bare_name_that_fits_several_files_is_refused(tmp_path, models, image, row):
    folder = hospital(tmp_path/"dup", image)
    (tmp_path/"bare.csv").write_text(f"id,sex\n{row},F\n")
    code, out, err = call("assess", folder, "--sexes", tmp_path/"bare.csv", "--weights", models)
    assert (code, out) == (2, "") and "fits several files" in err
    assert "anna/00001.dcm" in err and "ben/00001.dcm" in err


def test_a_table_against_the_header_is_warned_of(tmp_path, models, image):
    folder = hospital(tmp_path/"dup", image)
    (tmp_path/"swapped.csv").write_text("path,sex\nanna/00001.dcm,M\nben/00001.dcm,M\n")
    _, records, _ = assessed(folder, "--sexes", tmp_path/"swapped.csv", "--weights", models)
    anna, ben = (records[str(folder/name/"00001.dcm")] for name in ("anna", "ben"))
    assert [anna["sex"], "sex" in anna["warning_codes"]] == ["M", True]
    assert any("header is F, but M was given" in warning for warning in anna["warnings"])
    assert "sex" not in ben["warning_codes"]


def test_a_table_that_fits_no_file_is_reported(tmp_path, models, image):
    write_radiograph(tmp_path/"hands"/"1.png", image)
    (tmp_path/"none.csv").write_text("id,sex\nnobody,F\n")
    code, records, err = assessed(tmp_path/"hands", "--sexes", tmp_path/"none.csv", "--weights", models)
    assert code == 1 and len(records) == 1 and "0 of 1 rows fit a radiograph" in err


def test_macos_names_letter_case_and_blank_cells(tmp_path, models, image):
    for name in ("Zoe\u0308.png", "HAND.PNG", "blank.png"): write_radiograph(tmp_path/"hands"/name, image)
    (tmp_path/"sexes.csv").write_text("file,sex\nZoë.png,F\n\nhand.png,M\nblank.png,\n")
    code, records, _ = assessed(tmp_path/"hands", "--sexes", tmp_path/"sexes.csv", "--weights", models)
    sexes = {os.path.basename(path): record["sex"] for path, record in records.items()}
    assert code == 0 and sexes == {"Zoe\u0308.png": "F", "HAND.PNG": "M", "blank.png": None}


def test_ids_and_empty_cells_as_spreadsheets_write_them(tmp_path, models, image):
    "Zeros removed or kept by a formula, quotes after spaces, words for empty cells, times after dates"
    for name in ("00001", "00002", "3", "hand4"): write_radiograph(tmp_path/"hands"/f"{name}.png", image)
    (tmp_path/"sexes.csv").write_text('"id", "sex", "Age (months)", "birth_date", "date", "remark"\n'
                                      '1, "F", 126, NA, NaT, x\n="00002", "M", nan, "2014-05-31 00:00:00", '
                                      '2024-11-30T08:15:00, \n"3.0", "#N/A", , , , \nhand5, "F", , , , \n')
    code, records, err = assessed(tmp_path/"hands", "--sexes", tmp_path/"sexes.csv", "--weights", models)
    found = {os.path.basename(path): (record["sex"], record["chronological_age_months"])
             for path, record in records.items()}
    assert code == 0 and found == {"00001.png": ("F", 126), "00002.png": ("M", 126), "3.png": (None, None),
                                   "hand4.png": (None, None)}
    assert all("chronological-age" not in record["warning_codes"] for record in records.values())
    assert "3 of 4 rows fit a radiograph (not hand5); 1 of 4 radiographs have no row" in err
    assert "these columns are not used: remark." in err


def test_a_table_is_read_once(tmp_path, models, image):
    "A pipe, such as the shell's <(…), can't be read a second time"
    write_radiograph(tmp_path/"1.png", image)
    os.mkfifo(tmp_path/"pipe")
    writer = threading.Thread(target=(tmp_path/"pipe").write_text, args=["id,sex,age\n1,F,10y\n"])
    writer.start()
    code, records, err = assessed(tmp_path/"1.png", "--sexes", tmp_path/"pipe", "--csv", tmp_path/"ages.csv",
                                  "--weights", models)
    writer.join(20)
    record, = records.values()
    assert code == 0 and (record["sex"], record["chronological_age_months"]) == ("F", 120), err


@pytest.mark.parametrize("rows", ['1,F\n"2,M\n3,M\n', '1,F\n2,"M\n3,M\n4,"F\n', '1,F\n2,M\n3,M\n"4,F\n'])
def test_a_quotation_mark_swallows_no_rows(tmp_path, rows):
    for name in "1234": (tmp_path/f"{name}.png").touch()
    (tmp_path/"sexes.csv").write_text(f"id,sex\n{rows}")
    code, out, err = call("assess", tmp_path, "--sexes", tmp_path/"sexes.csv", "--weights", "absent")
    assert (code, out) == (2, "") and str(tmp_path/"sexes.csv") in err and len(err.splitlines()) == 1
    assert "quotation mark is not closed" in err or "expected after" in err


CHILDREN = {
    "patient_id,age,bone_age\na,10y,120\nb,11y,130\n": "patient_id is a and b",
    "id,age,bone_age\n7,10y,120\n7,11y,130\n8,12y,140\n": "id is 7 and 8",
    "DOB,date,bone_age\n2012-01-01,2022-01-01,120\n2012-02-01,2023-01-01,130\n":
        "birth_date is 2012-01-01 and 2012-02-01",
    "sex;age;bone_age\nF;7,5 y;84\n": None,
    "sex,birth_date,date,bone_age,interval_low\nNA,2012-01-01 00:00,2022-01-01 0:00,120,NA\n": None,
}


@pytest.mark.parametrize("text", CHILDREN)
def test_visits_are_those_of_one_child(tmp_path, text):
    (tmp_path/"visits.csv").write_text(text)
    code, out, err = call("visits", tmp_path/"visits.csv")
    if CHILDREN[text]: assert (code, out) == (2, "") and "several children" in err and CHILDREN[text] in err
    else: assert code == 0 and out.count("bone age") == 1, err


def test_python_and_the_command_agree_on_the_sex(tmp_path, models, image):
    path = hospital(tmp_path/"dup", image)/"anna"/"00001.dcm"
    assessor = load_assessor(models, device="cpu")
    for given, option in ((None, ()), ("M", ("--sex", "m")), ("unknown", ("--sex", "unknown"))):
        result = assessor.assess(path, given)
        record = assessed(path, *option, "--weights", models)[1][str(path)]
        assert record["bone_age_months"] == result.bone_age_months
        assert [record["sex"], record["sex_from"]] == [result.sex, result.sex_from]
        assert record["warning_codes"] == [warning.code for warning in result.warnings]
    assert assessor.assess(path).sex == "F"
    assert assessor.assess(path, "unknown").bone_age_months == assessor.assess(image).bone_age_months


# ------------------------------------------------------------------ nothing is lost

def trouble(folder, image):
    "Fifty files, one of each kind of trouble: good ones, bad ones, those to pass over"
    twelve, png = as_bits(image/255, 12), cv2.imencode(".png", image)[1].tobytes()
    jpeg, whole = cv2.imencode(".jpg", image)[1].tobytes(), io.BytesIO()
    dicom(twelve, BitsStored=12, PatientSex="F").save_as(whole, enforce_file_format=True)
    good = {f"good{number}.png": png for number in range(14)}
    good |= {"IM0001": whole.getvalue(), "SUBJ.CR.HAND.IMA": whole.getvalue(), "hand.jfif": jpeg,
             "Doe^Jane 1.5.2010 Hand": whole.getvalue(), "wrong.tif": jpeg, "手.png": png,
             os.fsdecode("Müller.png".encode("latin-1")): png, "a\nb.png": png, "sub/1.png": png}
    bad = {f"cut{number}.png": png[:number*100 + 50] for number in range(8)}
    bad |= {"empty.png": b"", "text.jpg": b"no image", "short.dcm": whole.getvalue()[:900],
            "flat.png": cv2.imencode(".png", image*0)[1].tobytes(), ".cloud.png.icloud": b"bplist00",
            **{name: cv2.imencode(kind, image)[1].tobytes() for name, kind in
               (("web.jpg", ".webp"), ("scan.bmp", ".bmp"))},
            "pointer.dcm": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"}
    passed = {"DICOMDIR": whole.getvalue(), "notes.txt": b"no", "table.csv": b"a,b", ".hidden.png": png,
              "archive.zip": b"PK\3\4"}
    for name, content in (good | bad | passed).items():
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).write_bytes(content)
    (folder/"linked").symlink_to(folder.parent/"elsewhere")
    (folder.parent/"elsewhere").mkdir()
    (folder.parent/"elsewhere"/"far.png").write_bytes(png)
    (folder/"gone.png").symlink_to(folder/"absent")
    (folder/"@eaDir").mkdir()
    (folder/"@eaDir"/"thumbnail.png").write_bytes(png)
    return [*good, "linked/far.png"], [*bad, "gone.png"], [*passed, "@eaDir"]


def escaped(name: str) -> str:
    return name.replace("\n", "\\n").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@pytest.fixture(scope="module")
def troubled(tmp_path_factory, models, image):
    "A folder of trouble, its names by kind, and what the command makes of it, as a process"
    folder = tmp_path_factory.mktemp("troubled")/"hands"
    names = trouble(folder, image)
    table = folder.parent/"ages.csv"
    done = subprocess.run(command("assess", folder, "--csv", table, "--weights", models),
                          capture_output=True, timeout=200)
    return folder, names, table, done


def rows_of(table) -> list[dict]: return list(csv.DictReader(io.StringIO(table.read_text("utf-8"))))


def test_every_good_file_has_a_row_and_every_bad_one_a_sentence(troubled):
    folder, (good, bad, passed), table, done = troubled
    err = done.stderr.decode()
    assert done.returncode == 1 and "Traceback" not in err
    assert sorted(row["path"] for row in rows_of(table)) == sorted(escaped(f"{folder}/{n}") for n in good)
    for name in bad: assert sum(f"{folder}/{name}" in line for line in err.splitlines()) == 1, name
    counted, = [line for line in err.splitlines() if "passed over" in line]
    assert counted.startswith(f"{len(passed)} files were passed over")
    assert all(name in counted for name in passed)
    assert f"{len(good)} of {len(good) + len(bad)} radiographs were assessed." in err
    assert "M\\xfcller.png" in done.stdout.decode() and "a\\nb.png" in done.stdout.decode()


def test_the_folder_of_trouble_is_resumed_as_json_lines(troubled, models, tmp_path):
    "Killed within its ninth row, its folder named in standard input"
    folder, (good, bad, _), table, _ = troubled
    rows = table.read_text("utf-8").splitlines(keepends=True)
    (tmp_path/"ages.csv").write_text("".join(rows[:9]) + rows[9][:20], "utf-8")
    arguments = ["assess", "-", "--jsonl", "--csv", tmp_path/"ages.csv", "--resume", "--weights", models]
    done = CliRunner().invoke(app, list(map(str, arguments)), input=os.fsencode(folder))
    paths = [json.loads(line)["path"] for line in done.stdout.splitlines()]
    assert done.exit_code == 1 and len(paths) == len(set(paths)) == len(good) - 8, done.stderr
    assert rows_of(tmp_path/"ages.csv")[8:] == [row for row in rows_of(table) if row["path"] in paths]
    for name in bad: assert sum(f"{folder}/{name}" in line for line in done.stderr.splitlines()) == 1, name


def test_figures_in_the_folder_are_not_assessed_again(tmp_path, models, image):
    name = os.fsdecode("é.png".encode("latin-1"))
    write_radiograph(tmp_path/name, image)
    first = call("assess", tmp_path, "--save-figure", tmp_path, "--weights", models)
    second = call("assess", tmp_path, "--json", "--weights", models)
    assert first[0] == second[0] == 0 and len(list(tmp_path.iterdir())) == 2
    assert len(json.loads(second[1])) == 1 and "figure of an assessment" in second[2]


def test_an_unreadable_folder_is_a_problem(tmp_path, models, image, monkeypatch):
    for name in ("1.png", "locked/2.png"): write_radiograph(tmp_path/"hands"/name, image)
    scandir = os.scandir
    def locked(folder):
        if str(folder).endswith("locked"): raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)
    monkeypatch.setattr("os.scandir", locked)
    code, records, err = assessed(tmp_path/"hands", "--weights", models)
    assert code == 1 and len(records) == 1 and "locked: Permission denied." in err


# ------------------------------------------------------------------ destinations

def test_rows_are_written_through_links_and_into_pipes(tmp_path, models, image):
    write_radiograph(tmp_path/"1.png", image)
    (tmp_path/"target.csv").write_text("old\n"*99)
    (tmp_path/"link.csv").symlink_to(tmp_path/"target.csv")
    assert call("assess", tmp_path/"1.png", "--csv", tmp_path/"link.csv", "--weights", models)[0] == 0
    assert (tmp_path/"link.csv").is_symlink() and len(rows_of(tmp_path/"target.csv")) == 1
    os.mkfifo(tmp_path/"pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path/"pipe").read_text()))
    reader.start()
    assert call("assess", tmp_path/"1.png", "--csv", tmp_path/"pipe", "--weights", models)[0] == 0
    reader.join(20)
    assert read[0].count("\n") == 2 and not (tmp_path/"pipe").is_file()
    assert call("assess", tmp_path/"1.png", "--csv", os.devnull, "--weights", models)[0] == 0
    assert not os.path.isfile(os.devnull)
    code, out, _ = call("assess", tmp_path/"1.png", "--csv", "-", "--weights", models)
    assert code == 0 and out.startswith("path,sex,") and out.count("\n") == 2


def test_destinations_are_checked_first(tmp_path, image):
    write_radiograph(tmp_path/"1.png", image)
    (tmp_path/"kept.csv").write_text("old\n")
    (tmp_path/"kept.csv").chmod(0o444)
    for out, sentence in ((tmp_path/"kept.csv", "it is read-only"), (tmp_path, "is a folder"),
                          (tmp_path/"1.png"/"ages.csv", "can't be written")):
        code, _, err = call("assess", tmp_path/"1.png", "--csv", out, "--weights", "absent")
        assert code in (1, 2) and sentence in err and "weights" not in err and len(err.splitlines()) == 1
    assert (tmp_path/"kept.csv").read_text() == "old\n"


def test_a_run_without_weights_keeps_the_old_table(tmp_path, image):
    write_radiograph(tmp_path/"1.png", image)
    (tmp_path/"ages.csv").write_text("old\n")
    assert call("assess", tmp_path/"1.png", "--csv", tmp_path/"ages.csv", "--weights", "absent")[0] == 2
    assert (tmp_path/"ages.csv").read_text() == "old\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_is_a_sentence(tmp_path, models, image):
    write_radiograph(tmp_path/"1.png", image)
    code, _, err = call("assess", tmp_path/"1.png", "--csv", "/dev/full", "--weights", models)
    assert code == 1 and err == "/dev/full can't be written: the disk is full.\n"


SLOW = """
import sys, time
from boneage.assessment import Assessor
from boneage.cli import app
assess = Assessor.assess
def slow(self, *arguments, **options):
    time.sleep(0.3)
    return assess(self, *arguments, **options)
Assessor.assess = slow
app(sys.argv[1:])
"""


def test_a_killed_run_is_resumed(tmp_path, models, image):
    for number in range(5): write_radiograph(tmp_path/"hands"/f"{number}.png", image)
    arguments = ["assess", str(tmp_path/"hands"), "--csv", str(tmp_path/"ages.csv"), "--weights", str(models)]
    child = subprocess.Popen([sys.executable, "-c", SLOW, *arguments], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    deadline = time.time() + 300
    while time.time() < deadline and not (tmp_path/"ages.csv").exists(): time.sleep(0.02)
    while time.time() < deadline and (tmp_path/"ages.csv").read_text().count("\n") < 3: time.sleep(0.02)
    child.kill()
    child.wait(30)
    rows = rows_of(tmp_path/"ages.csv")
    assert 2 <= len(rows) < 5 and child.returncode != 0
    with (tmp_path/"ages.csv").open("a") as file: file.write(f"{tmp_path}/hands/4.png,,,1")  # a row cut off
    code, out, err = call(*arguments, "--resume")
    assert code == 0 and f"{len(rows)} of 5 radiographs are in" in err
    assert out.count(": bone age 110 months") == 5 - len(rows)
    again = rows_of(tmp_path/"ages.csv")
    assert again[:len(rows)] == rows and len({row["path"] for row in again}) == len(again) == 5
    assert call(*arguments, "--resume")[0] == 0 and len(rows_of(tmp_path/"ages.csv")) == 5


def test_relative_paths_are_resumed_where_they_were_begun(tmp_path, models, image, monkeypatch):
    for number in range(2): write_radiograph(tmp_path/"hands"/f"{number}.png", image)
    arguments = ["assess", "--csv", tmp_path/"ages.csv", "--weights", models]
    monkeypatch.chdir(tmp_path)
    assert call(*arguments, "hands/0.png")[0] == 0
    (tmp_path/"elsewhere").mkdir()
    monkeypatch.chdir(tmp_path/"elsewhere")
    code, out, err = call(*arguments, "../hands", "--resume")
    assert (code, out) == (2, "") and "hands/0.png, which is not here" in err
    monkeypatch.chdir(tmp_path)
    assert call(*arguments, "hands", "--resume")[0] == 0
    assert [row["path"] for row in rows_of(tmp_path/"ages.csv")] == ["hands/0.png", "hands/1.png"]


def test_a_table_is_continued_with_the_same_networks_and_options_only(tmp_path, models, image):
    for number in range(2): write_radiograph(tmp_path/"hands"/f"{number}.png", image)
    (tmp_path/"sexes.csv").write_text("id,sex\n0,M\n")
    target = ["--csv", tmp_path/"ages.csv"]
    first = ["assess", tmp_path/"hands"/"0.png", *target, "--weights", models]
    assert call(*first)[0] == 0
    before = (tmp_path/"ages.csv").read_bytes()
    rest = ["assess", tmp_path/"hands", *target, "--resume"]
    others = write_tiny_models(tmp_path/"others", [HAND])
    for options in (["--weights", others], ["--weights", models, "--sex", "F"],
                    ["--weights", models, "--sexes", tmp_path/"sexes.csv"],
                    ["--weights", models, "--height-cm", "141"]):
        code, out, err = call(*rest, *options)
        assert (code, out) == (2, "") and "was made with boneage" in err and "choose another file" in err
        assert (tmp_path/"ages.csv").read_bytes() == before
    assert call(*rest, "--weights", models)[0] == 0 and len(rows_of(tmp_path/"ages.csv")) == 2


@pytest.mark.parametrize("workers", ["1", "3"])
def test_any_number_of_workers_gives_the_same_ages(tmp_path, models, image, workers):
    for number in range(4): write_radiograph(tmp_path/"hands"/f"{number}.png", image)
    results = [call("assess", tmp_path/"hands", "--jsonl", "--weights", models, *options)
               for options in ([], ["--workers", workers])]
    assert results[0] == results[1] and results[0][1].count("\n") == 4
    assert call("assess", tmp_path/"hands", "--workers", "0")[0] == 2


def test_json_lines_and_standard_input(tmp_path, models, image):
    for name in ("1.png", "two words.png"): write_radiograph(tmp_path/name, image)
    listed = "".join(f"{tmp_path}/{name}\n" for name in ("1.png", "two words.png"))
    def piped(content, *options):
        return CliRunner().invoke(app, ["assess", "-", "--weights", str(models), *options], input=content)
    done = piped(listed.encode(), "--jsonl")
    paths = [json.loads(line)["path"] for line in done.stdout.splitlines()]
    assert done.exit_code == 0 and paths == listed.splitlines()
    done = piped((tmp_path/"1.png").read_bytes(), "--json")
    assert [record["path"] for record in json.loads(done.stdout)] == ["-"]
    assert piped(b"\x89PNG\r\n\x1a\n damaged").stderr.startswith("- is a")


def test_a_radiograph_from_standard_input_is_not_left_behind(tmp_path, image):
    "Its copy is removed when the command is ended, too"
    (folder := tmp_path/"temporary").mkdir()
    child = subprocess.Popen(command("assess", "-"), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             env=os.environ | dict(TMPDIR=str(folder)))
    child.stdin.write(cv2.imencode(".png", image)[1].tobytes())
    child.stdin.close()
    deadline = time.time() + 100
    while time.time() < deadline and not list(folder.rglob("standard input")): time.sleep(0.02)
    assert list(folder.rglob("standard input"))
    child.terminate()
    assert child.wait(100) == 128 + signal.SIGTERM and not list(folder.rglob("standard input"))


def test_lists_of_paths_in_other_encodings(tmp_path, models, image):
    "Split at its zero bytes, a list in UTF-16 named the folder / : the whole computer was searched"
    write_radiograph(tmp_path/"ü.png", image)
    listed = f"{tmp_path}/ü.png\r\n"
    for encoding in ("utf-16", "utf-8-sig"):
        done = CliRunner().invoke(app, ["assess", "-", "--weights", str(models), "--jsonl"],
                                  input=listed.encode(encoding))
        assert done.exit_code == 0 and json.loads(done.stdout)["path"] == listed.strip(), done.stderr
    for nothing in (b"", b"\r\n", "\n".encode("utf-16"), b"%PDF-1.7\n\1\2\3", b"RIFF\0\0\0\0WEBPVP8 "):
        done = CliRunner().invoke(app, ["assess", "-"], input=nothing)
        assert (done.exit_code, done.stdout) == (2, "") and "neither a radiograph nor paths" in done.stderr


def test_long_names_have_figures(tmp_path, models, image):
    for name in ("x"*246, "手"*80):
        write_radiograph(tmp_path/"1.png", image).rename(tmp_path/f"{name}.png")
    figures = tmp_path/"figures"
    assert call("assess", tmp_path, "--save-figure", figures, "--weights", models)[0] == 0
    assert len(list(figures.iterdir())) == 2


@pytest.mark.parametrize("backend", ["module://backend_interagg", "nonsense", "TkAgg"])
def test_figures_whatever_backend_the_environment_names(tmp_path, backend):
    "Set by PyCharm and notebooks, it names a package that a terminal lacks"
    (tmp_path/"visits.csv").write_text("age,sex,bone_age_months\n7y9m,F,84\n8y9m,F,99\n")
    done = subprocess.run(command("visits", tmp_path/"visits.csv", "--out", tmp_path/"chart.png"),
                          timeout=100, capture_output=True, env=os.environ | dict(MPLBACKEND=backend))
    assert done.returncode == 0 and (tmp_path/"chart.png").exists(), done.stderr


def test_links_into_folders_that_may_not_be_searched(tmp_path, models, image, monkeypatch):
    "One such link ended the search of the whole folder"
    write_radiograph(tmp_path/"1.png", image)
    for name in ("2.png", "3"): (tmp_path/name).symlink_to(f"/locked/{name}")
    stat = os.stat
    def locked(path, **options):
        if os.fspath(path) in (f"{tmp_path}/2.png", f"{tmp_path}/3") and options.get("follow_symlinks", True):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **options)
    monkeypatch.setattr("os.stat", locked)
    code, records, err = assessed(tmp_path, "--weights", models)
    assert code == 1 and list(records) == [f"{tmp_path}/1.png"]
    assert err.count("does not exist") == 2 and "Errno" not in err


# ------------------------------------------------------------------ warnings

def test_warnings_have_codes_everywhere(tmp_path, models, image):
    header = dicom(as_bits(image/255, 12), BitsStored=12, WindowWidth=None, WindowCenter=None)
    path = save_dicom(tmp_path/"hand.dcm", header)
    result = load_assessor(models, device="cpu").assess(open_radiograph(path))
    codes = [warning.code for warning in result.warnings]
    assert {"header", "registration"} <= set(codes)
    assert all(type(warning) is RadiographWarning for warning in result.warnings)
    _, records, _ = assessed(path, "--csv", tmp_path/"ages.csv", "--weights", models)
    row, = rows_of(tmp_path/"ages.csv")
    assert records[str(path)]["warning_codes"] == codes == row["warning_codes"].split()
    assert np.isclose(float(row["confidence"]), result.confidence, rtol=1e-4)
