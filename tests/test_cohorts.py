"Label tables of every dialect, folders of every layout, and every kind of bad row"

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from boneage.datasets.cohorts import (
    COHORT_SCHEMA,
    DIALECTS,
    STAGES,
    CohortError,
    canonical_id,
    development_stage,
    find_dialect,
    load_cohort,
    read_labels,
    sample_stratified,
    split_cohort,
    stage_bounds,
)

TABLES = {  # dialect: header and a male of 120 months, a female of 66
    "RSNA training": "id,boneage,male\n{a},120,True\n{b},66,False\n",
    "RSNA validation": "Image ID,male,Bone Age (months)\n{a},TRUE,120.0\n{b},FALSE,66.0\n",
    "RSNA test": "Case ID,Sex,Ground truth bone age (months)\n{a},M,120\n{b},F,66.0\n",
    "plain": "id,sex,bone_age\n{a},male,120\n{b},f,66\n",
    "Digital Hand Atlas": ("id,race,gender,chrono_age,reading1,reading2\n"
                           "{a},ASI,M,9.7,9.5,10.5\n{b},CAU,F,6.1,5.5,5.5\n"),
    "Kaggle test": "Case ID,Sex\n{a},M\n{b},F\n",
}


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding, newline="")
    return path


def images(folder, ids, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in ids: (folder/f"{i}{suffix}").touch()


def training_table(ids, seed=0):
    random = np.random.default_rng(seed)
    rows = (f"{i},{random.integers(1, 229)},{bool(random.random() < .54)}\n" for i in ids)
    return "id,boneage,male\n" + "".join(rows)


# ------------------------------------------------------------------ tables

@pytest.mark.parametrize("dialect", [dialect.name for dialect in DIALECTS])
def test_dialects(tmp_path, dialect):
    path = write(tmp_path/"labels.csv", TABLES[dialect].format(a=4360, b=4361))
    assert find_dialect(path.read_text().splitlines()[0].split(",")).name == dialect
    labels = read_labels(path)
    assert labels.id.tolist() == ["4360", "4361"] and labels.sex.tolist() == ["M", "F"]
    assert labels.index.tolist() == [2, 3]
    assert labels.bone_age.isna().all() if dialect == "Kaggle test" else labels.bone_age.tolist() == [120, 66]
    assert labels.bone_age.dtype == float


def add_remarks(text):
    "A further column, with a letter that latin-1 and UTF-8 encode differently"
    return (text.replace("\n", ",remark\n", 1).replace("True\n", "True,né\n").replace("False\n", "False,\n"))


def change_capitals(text):
    return text.replace("id,boneage,male", "ID,BoneAge,Male").replace("True", "TRUE")


def change_cells(text, change):
    return "\n".join(",".join(change(line.split(","))) for line in text.splitlines())


SPELLINGS = {
    "byte-order mark": lambda text: ("\ufeff" + text, "utf-8"),
    "utf-16": lambda text: (text, "utf-16"),
    "latin-1": lambda text: (add_remarks(text), "latin-1"),
    "semicolons": lambda text: (text.replace(",", ";"), "utf-8"),
    "tabs": lambda text: (text.replace(",", "\t"), "utf-8"),
    "windows line ends": lambda text: (text.replace("\n", "\r\n"), "utf-8"),
    "no last line end": lambda text: (text.rstrip("\n"), "utf-8"),
    "spaces": lambda text: (text.replace(",", " , ").replace("\n", "  \n"), "utf-8"),
    "quotes": lambda text: (change_cells(text, lambda cells: [f'"{cell}"' for cell in cells]), "utf-8"),
    "capitals": lambda text: (change_capitals(text), "utf-8"),
    "another order": lambda text: (change_cells(text, reversed), "utf-8"),
    "more columns": lambda text: (text.replace("\n", ",,\n"), "utf-8"),
}

@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(tmp_path, spelling):
    text, encoding = SPELLINGS[spelling]("id,boneage,male\n1377,180,False\n1378,12.5,True\n")
    labels = read_labels(write(tmp_path/"train.csv", text, encoding))
    assert labels.reset_index().values.tolist() == [[2, "1377", "F", 180.0], [3, "1378", "M", 12.5]]


def test_decimal_commas(tmp_path):
    path = write(tmp_path/"train.csv", "id;boneage;male\n1377;180,5;False\n")
    assert read_labels(path).bone_age.tolist() == [180.5]


def test_ids_in_all_spellings(tmp_path):
    rows = "1377.0,1,True\n01378,2,True\n1379.png,3,True\nhand-a,4,True\n"
    labels = read_labels(write(tmp_path/"train.csv", "id,boneage,male\n" + rows))
    assert labels.id.tolist() == ["1377", "1378", "1379", "hand-a"]
    for text in ("7", "07", "7.0", "7.PNG", " 7 "):
        assert canonical_id(canonical_id(text)) == canonical_id(text) == "7"


BAD = {  # a cell pattern → the end of its sentence
    "1380,-3,True": "the bone age -3 lies outside 0 to 240 months",
    "1380,400,True": "the bone age 400 lies outside 0 to 240 months",
    "1380,240,True": "the bone age 240 lies outside 0 to 240 months",
    "1380,,True": "the bone age is missing",
    "1380,NaN,True": "the bone age 'NaN' is not a number",
    "1380,inf,True": "the bone age 'inf' is not a number",
    "1380,ten,True": "the bone age 'ten' is not a number",
    "1380,120 kg,True": "the bone age '120 kg' is not a number",
    "1380,120,": "the sex '' is neither M nor F, nor True or False in a column male",
    "1380,120,maybe": "the sex 'maybe' is neither M nor F, nor True or False in a column male",
    ",120,True": "the id is missing",
    "1377,120,True": "id 1377 occurs a second time",
    "01377.0,120,True": "id 1377 occurs a second time",
    "1380": "the bone age is missing and the sex '' is neither M nor F, nor True or False in a column male",
    "1380,120,True,what": "4 cells, but the header has 3",
}

@pytest.mark.parametrize("row", BAD)
def test_bad_rows(tmp_path, row):
    path = write(tmp_path/"train.csv", f"id,boneage,male\n1377,180,False\n\n{row}\n1399,60,True\n")
    problems = []
    assert read_labels(path, problems).id.tolist() == ["1377", "1399"]
    assert len(problems) == 1 and problems[0].startswith(f"{path}, row 4: ") and problems[0].endswith(".")
    reasons = problems[0].split("row 4: ")[1].rstrip(".")
    assert sorted(reasons.split(" and ")) == sorted(BAD[row].split(" and "))
    with pytest.raises(CohortError) as error: read_labels(path)
    assert str(error.value) == problems[0]


def test_row_numbers_are_those_of_an_editor(tmp_path):
    "Quoted line breaks and blank lines count"
    path = write(tmp_path/"train.csv", 'id,boneage,male,remark\n1,10,True,"two\nlines"\n\n2,-1,True,\n')
    with pytest.raises(CohortError, match="row 5: the bone age -1"): read_labels(path)


def test_all_invalid_rows_are_reported_together(tmp_path):
    path = write(tmp_path/"train.csv", "id,boneage,male\n" + "".join(f"{i},-1,True\n" for i in range(30)))
    with pytest.raises(CohortError, match="and 20 more") as error: read_labels(path)
    assert str(error.value).count("\n") == 10
    problems = []
    assert read_labels(path, problems).empty and len(problems) == 30


@pytest.mark.parametrize("header,sentence", [
    ("id,boneage", "has no column male"),
    ("id,male", "has no column boneage"),
    ("boneage,male", "has no column id"),
    ("Image ID,male", "has no column"),
    ("id,gender,reading1", "has no column reading2"),
    ("a,b,c", "is not a label table: its columns are a, b, c"),
    ("id,sex,bone_age,id", "has two columns called id"),
    ("id,sex,Sex,bone_age", "has two columns called Sex and sex"),  # the last one would win
    ("ID,id,sex,bone_age", "has two columns called ID and id"),
])
def test_missing_columns(tmp_path, header, sentence):
    path = write(tmp_path/"train.csv", header + "\n1,2,3\n")
    for problems in (None, []):
        with pytest.raises(CohortError, match=f"train.csv {sentence}"): read_labels(path, problems)


def test_ids_and_images_in_another_case(tmp_path):
    for name in ("ABC", "abd", "x1", "X1"): (tmp_path/f"{name}.png").touch()
    problems = []
    write(tmp_path/"labels.csv", "id,sex,bone_age\nabc,M,100\nABD,F,90\nX1,F,80\n")
    cohort = load_cohort(tmp_path, problems=problems)
    assert {i: Path(path).stem for i, path in zip(cohort.id, cohort.path)} == {"abc": "ABC", "ABD": "abd",
                                                                              "X1": "X1"}
    assert len(problems) == 1 and "1 images that no row" in problems[0] and "x1.png" in problems[0]


def test_files_that_are_not_tables(tmp_path):
    contents = {
        "empty.csv": b"", "blank.csv": b" \n\n",
        "image.csv": b"\x89PNG\r\n\x1a\n\0\0\0\r", "ages.xlsx": b"PK\3\4",
    }
    for name, data in contents.items(): (tmp_path/name).write_bytes(data)
    sentences = {
        "absent.csv": "can't be read", "empty.csv": "is empty", "blank.csv": "is empty",
        "image.csv": "is not a text file", "ages.xlsx": "is a workbook: save the sheet as CSV",
    }
    for name, sentence in sentences.items():
        with pytest.raises(CohortError, match=f"{name} {sentence}"): read_labels(tmp_path/name)
    with pytest.raises(CohortError, match="can't be read"): read_labels(tmp_path)


# ------------------------------------------------------------------ folders

TRAIN, VALIDATION, TEST = range(1377, 1417), range(1500, 1510), range(4360, 4366)
VALIDATION_TABLE = "Image ID,male,Bone Age (months)\n" + "".join(f"{i},TRUE,{i - 1400}\n" for i in VALIDATION)
TRUTH = "Case ID,Sex,Ground truth bone age (months)\n" + "".join(f"{i},M,{i/70 + .5:.4f}\n" for i in TEST)
CASES = "Case ID,Sex\n" + "".join(f"{i},F\n" for i in TEST)


def rsna(folder):
    "The challenge's data in RSNA's layout, with the workbook of the test set saved as CSV"
    images(folder/"boneage-training-dataset", TRAIN)
    write(folder/"train.csv", training_table(TRAIN))
    images(folder/"Bone Age Validation Set"/"boneage-validation-dataset-1", VALIDATION[:6])
    images(folder/"Bone Age Validation Set"/"boneage-validation-dataset-2", VALIDATION[6:])
    write(folder/"Bone Age Validation Set"/"Validation Dataset.csv", VALIDATION_TABLE)
    images(folder/"boneage-test-dataset", TEST)
    write(folder/"Bone age ground truth.csv", TRUTH)


def kaggle(folder):
    "The same data in Kaggle's layout, with the files that macOS adds to archives"
    images(folder/"boneage-training-dataset"/"boneage-training-dataset", TRAIN)
    write(folder/"boneage-training-dataset.csv", training_table(TRAIN))
    images(folder/"boneage-test-dataset"/"boneage-test-dataset", TEST)
    write(folder/"boneage-test-dataset.csv", CASES)
    images(folder/"__MACOSX"/"boneage-training-dataset", [f"._{i}" for i in TRAIN])


def with_copies(folder):
    "A training set beside other images of the same ids and other tables"
    images(folder/"boneage-training-dataset", TRAIN, ".jpg")
    write(folder/"boneage-training-dataset.csv", training_table(TRAIN))
    images(folder/"originals", TRAIN[:5])
    images(folder/"registered-by-the-authors", TRAIN[3:9], ".jpg")
    images(folder/"masks", TRAIN[:7])
    write(folder/"labels-train-and-validation.csv", training_table(range(1377, 1999)))
    write(folder/"keypoints-21.csv", "id,width,height,wrist_x,wrist_y\n1377,815,1100,377.3,918.9\n")


def plain(folder):
    images(folder/"radiographs"/"a", TRAIN[:30])
    images(folder/"radiographs"/"b", TRAIN[30:], ".DCM")
    images(folder/"small copies", TRAIN[:20], ".jpg")
    images(folder/"masks", TRAIN)
    write(folder/"labels.csv", training_table(TRAIN))


def test_rsna_layout(tmp_path):
    rsna(tmp_path)
    cohort = load_cohort(tmp_path)
    assert cohort.split.value_counts().to_dict() == {"validation": 10, "test": 6}
    assert cohort.split.isna().sum() == 40
    assert list(cohort) == list(COHORT_SCHEMA.columns)
    assert cohort.id.is_unique and cohort.bone_age.notna().all()
    for row in cohort.itertuples(): assert row.path.endswith(f"{row.id}.png")
    assert all("training" in path for path in cohort.path[cohort.split.isna()])
    assert all("test" in path for path in cohort.path[cohort.split == "test"])


def test_rsna_layout_with_its_workbook(tmp_path):
    rsna(tmp_path)
    (tmp_path/"Bone age ground truth.csv").rename(tmp_path/"Bone age ground truth.xlsx")
    sentence = ("6 test radiographs without a label table.*"
                "Bone age ground truth.xlsx can't be read: save it as CSV")
    with pytest.raises(CohortError, match=sentence): load_cohort(tmp_path)
    problems = []
    assert len(load_cohort(tmp_path, problems=problems)) == 50 and len(problems) == 1


def test_kaggle_layout(tmp_path):
    kaggle(tmp_path)
    cohort = load_cohort(tmp_path)
    test = cohort[cohort.split == "test"]
    assert len(cohort) == 46 and test.bone_age.isna().all() and test.sex.tolist() == ["F"]*6
    write(tmp_path/"Bone age ground truth.csv", TRUTH)  # a table with ages takes precedence
    cohort = load_cohort(tmp_path)
    assert cohort.bone_age.notna().all() and set(cohort.sex[cohort.split == "test"]) == {"M"}


@pytest.mark.parametrize("depth", ["", "bone age/2017"])
def test_copies_and_other_tables_are_ignored(tmp_path, depth):
    with_copies(tmp_path/depth)
    cohort = load_cohort(tmp_path)
    assert len(cohort) == 40
    assert set(cohort.path.str.rsplit("/", n=2).str[-2]) == {"boneage-training-dataset"}


def test_plain_folder(tmp_path):
    plain(tmp_path)
    cohort = load_cohort(tmp_path)
    assert len(cohort) == 40 and cohort.split.isna().all()
    assert cohort.path.str.contains("radiographs").all()


def test_a_folder_named_for_a_set_is_an_ordinary_folder(tmp_path):
    "Only names below the given folder count"
    images(tmp_path/"test"/"radiographs", TRAIN)
    write(tmp_path/"test"/"labels.csv", training_table(TRAIN))
    assert load_cohort(tmp_path/"test").split.isna().all()


def test_ids_and_file_names_may_be_spelt_differently(tmp_path):
    images(tmp_path/"radiographs", ["01377", "1378", "hand-a"])
    write(tmp_path/"labels.csv", "id,boneage,male\n1377.0,1,True\n01378,2,True\nhand-a.png,3,True\n")
    assert load_cohort(tmp_path).id.tolist() == ["1377", "1378", "hand-a"]


def test_missing_images(tmp_path):
    with_copies(tmp_path)
    (tmp_path/"boneage-training-dataset"/"1379.jpg").unlink()
    with pytest.raises(CohortError, match="training-dataset.csv, row 4: there is no image of id 1379"):
        load_cohort(tmp_path)
    problems = []
    assert len(load_cohort(tmp_path, problems=problems)) == 39 and len(problems) == 1
    for path in (tmp_path/"boneage-training-dataset").iterdir(): path.unlink()
    (tmp_path/"masks").rename(tmp_path/"other")
    for folder in ("originals", "registered-by-the-authors", "other"):
        for path in (tmp_path/folder).iterdir(): path.unlink()
    with pytest.raises(CohortError, match="none of its 40 ids has an image"): load_cohort(tmp_path)
    with pytest.raises(CohortError, match="holds no radiograph with a label"):
        load_cohort(tmp_path, problems=[])


def test_the_table_can_be_named(tmp_path):
    plain(tmp_path)
    write(tmp_path/"corrected.csv", "id,sex,bone_age\n1377,M,100\n1400,F,50\n")
    sentence = "holds several label tables.*corrected.csv.*labels.csv; name the one to use"
    with pytest.raises(CohortError, match=sentence): load_cohort(tmp_path)
    assert load_cohort(tmp_path, labels="corrected.csv").bone_age.tolist() == [100, 50]
    assert len(load_cohort(tmp_path, labels=tmp_path/"labels.csv")) == 40
    with pytest.raises(CohortError, match="absent.csv can't be read"):
        load_cohort(tmp_path, labels="absent.csv")


def test_an_id_in_two_sets_is_a_problem(tmp_path):
    rsna(tmp_path)
    images(tmp_path/"boneage-test-dataset", [1377])
    write(tmp_path/"Bone age ground truth.csv", TRUTH + "1377,M,50\n")
    with pytest.raises(CohortError, match="id 1377 occurs in several sets"): load_cohort(tmp_path)
    cohort = load_cohort(tmp_path, problems=[])
    assert cohort.id.is_unique and len(cohort) == 56


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(CohortError, match="is not a folder"): load_cohort(tmp_path/"absent")
    with pytest.raises(CohortError, match="holds no label table"): load_cohort(tmp_path)


LAYOUTS = {  # folders of images and tables, by their ids; the expected number of radiographs in each split
    "val": (dict(train=range(10), val=range(10, 13)), dict(train=10, val=3), dict(validation=3)),
    "dev": (dict(train=range(10), dev=range(10, 13)), dict(train=10, dev=3), dict(validation=3)),
    "RHPE": (dict(RHPE_train=range(10), RHPE_val=range(10, 13)),
             dict(RHPE_Boneage_train=10, RHPE_Boneage_val=3), dict(validation=3)),
    "labels_validated": (dict(images=range(10)), dict(labels_validated=10), {}),
    "one table": (dict(train=range(10), val=range(10, 13), test=range(13, 15)), dict(labels=15),
                  dict(validation=3, test=2)),
}

@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    folders, tables, expected = LAYOUTS[layout]
    for name, ids in folders.items(): images(tmp_path/name, ids)
    ids = [i for each in folders.values() for i in each]
    for name, count in tables.items():
        write(tmp_path/f"{name}.csv", training_table(ids[:count]))
        ids = ids[count:]
    cohort = load_cohort(tmp_path, problems=(problems := []))
    assert cohort.split.value_counts().to_dict() == expected and problems == []
    assert cohort.split.isna().sum() == 10


def test_linked_folders_and_images_are_followed(tmp_path):
    images(tmp_path/"disk", [1, 2, 3])
    data = tmp_path/"data"
    data.mkdir()
    (data/"radiographs").symlink_to(tmp_path/"disk")
    (data/"again").symlink_to(data)  # would never end
    (data/"4.png").symlink_to(tmp_path/"disk"/"3.png")
    (data/"5.png").symlink_to(tmp_path/"nowhere.png")
    write(data/"labels.csv", training_table([1, 2, 3, 4, 5]))
    cohort = load_cohort(data, problems=(problems := []))
    assert cohort.id.tolist() == ["1", "2", "3", "4"]
    assert len(problems) == 1 and "there is no image of id 5" in problems[0]


@pytest.mark.parametrize("first,second", [("a", "b"), ("augmented", "original"), ("images", "thumbnails")])
def test_two_images_of_an_id_are_refused_with_both_names(tmp_path, first, second):
    images(tmp_path/first, [1, 2, 3])
    images(tmp_path/second, [1, 2, 4])
    for ids in ([1, 2], [1, 2, 3, 4]):
        write(tmp_path/"labels.csv", training_table(ids))
        with pytest.raises(CohortError, match="id 1 has two images.*1.png and .*1.png: keep one"):
            load_cohort(tmp_path, problems=[])


def test_names_with_accents(tmp_path):
    "macOS writes them as two characters; old archives in other encodings are named"
    images(tmp_path/"data", ["Zoe\u0308", "2", os.fsdecode("é3".encode("latin-1"))])
    write(tmp_path/"data"/"labels.csv", "id,sex,bone_age\nZoë,M,100\n2,F,90\né3,F,80\n")
    cohort = load_cohort(tmp_path/"data", problems=(problems := []))
    assert cohort.id.tolist() == ["Zo\u00eb", "2"]
    assert "1 files whose path is not UTF-8, such as \\xe93.png" in problems[0]
    assert "no image of id é3" in problems[1] and len(problems) == 2
    "\n".join(problems).encode()


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    "A locked folder may hold the test set; a link to a table may lead nowhere"
    for name in (".", "locked", "@eaDir", "#recycle"): images(tmp_path/name, [1, 2])
    write(tmp_path/"labels.csv", training_table([1, 2]))
    (tmp_path/"test.csv").symlink_to("nowhere.csv")
    scandir = os.scandir
    def locked(folder):
        if str(folder).endswith("locked"): raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)
    monkeypatch.setattr("os.scandir", locked)
    assert load_cohort(tmp_path, problems=(problems := [])).id.tolist() == ["1", "2"]
    assert sorted(problems) == [f"{tmp_path}/locked can't be read: Permission denied.",
                                f"{tmp_path}/test.csv is a link to nothing."]
    with pytest.raises(CohortError, match="is a link to nothing"): load_cohort(tmp_path)


def test_folders_of_masks_hold_no_radiographs(tmp_path):
    images(tmp_path/"xrays", [1, 2])
    for name in ("masks", "labels_masks", "mask_images", "Hand Masks"): images(tmp_path/name, [1, 2])
    write(tmp_path/"labels.csv", training_table([1, 2]))
    assert load_cohort(tmp_path, problems=(problems := [])).path.str.contains("xrays").all()
    assert [sentence.split(" is a folder of masks")[0] for sentence in problems] == [
        str(tmp_path/name) for name in ("Hand Masks", "labels_masks", "mask_images")]  # not of masks


def test_images_without_a_row_are_counted(tmp_path):
    images(tmp_path, range(10))
    ages = [100, 100, 100, 100, 100, 100, -100]
    rows = "".join(f"{i},{age},True\n" for i, age in enumerate(ages))
    write(tmp_path/"labels.csv", "id,boneage,male\n" + rows)
    problems = []
    assert len(load_cohort(tmp_path, problems=problems)) == 6
    assert len(problems) == 2 and "holds 3 images that no row of" in problems[1]  # 6 has a row, a bad one


NEARLY = {  # a table that is nearly right → the sexes and ages of its two rows
    "id,sex,boneage\n1,M,180\n2,F,12\n": ("MF", [180, 12]),
    "id,gender,bone_age\n1,male,180\n2,Female,12\n": ("MF", [180, 12]),
    "Image ID;Sex;Bone Age (months)\n1;boy;180,5\n2;girl;12\n": ("MF", [180.5, 12]),
    "patient_id,female,BoneAge_years\n1,0,10\n2,1.0,1.5\n": ("MF", [120, 18]),
    "id,boneage,male\n1,180,1.0\n2,12,0.0\n": ("MF", [180, 12]),
    "id,boneage,male\n1,180,M\n2,12,F\n": ("MF", [180, 12]),
    "id,boneage,male\n1,180,yes\n2,12,N\n": ("MF", [180, 12]),
    'id,sex,bone_age\n1,M,"180,5"\n2,F,12\n': ("MF", [180.5, 12]),
    "sep=;\nid;sex;bone_age\n1;M;180,5\n2;F;12\n": ("MF", [180.5, 12]),
    "# exported\nid,sex,bone_age\n1,M,180\n2,F,12\n": ("MF", [180, 12]),
    "Our clinic,,\nid,sex,bone_age\n1,M,180\n2,F,12\n": ("MF", [180, 12]),
    "id,sex,bone_age\nimages\\1.png,M,180\nimages/2.PNG,F,12\n": ("MF", [180, 12]),
    '"", "id", "sex", "bone_age", "split"\n1, ="0001", "M", 180, NA\n2, 2, "F", 12, \n': ("MF", [180, 12]),
    "id;sex;bone_age\n1;M;180,5\n2;F;1,5\n": ("MF", [180.5, 1.5]),
    "id,sex,bone_age\n1,M,15y 3m\n2,F,12 months\n": ("MF", [183, 12]),
    "id,sex,bone_age_years\n1,männlich,15\n2,Weiblich,1y\n": ("MF", [180, 12]),
    "id,sex,bone_age\n1,Boys,180\n2,女,12\n": ("MF", [180, 12]),
}

@pytest.mark.parametrize("text", NEARLY)
def test_tables_that_are_nearly_right_are_read(tmp_path, text):
    images(tmp_path, [1, 2])
    write(tmp_path/"labels.csv", text)
    cohort = load_cohort(tmp_path)
    assert ("".join(cohort.sex), cohort.bone_age.tolist()) == NEARLY[text]


@pytest.mark.parametrize("text,sentence", {
    "id,boneage\n1,180\n": "labels.csv has no column male",
    "id,age,weight\n1,9,20\n": "labels.csv has no column",
    "a,b\n1,2\n": "labels.csv is not a label table: its columns are a, b",
    'id,sex,bone_age\n0,M,90\n0,M,90\n1,M,"90\n2,F,80\n': "row 4: a quotation mark is not closed",
    "id,sex,bone_age\n1,True,180\n": "row 2: the sex 'True' is neither M nor F",
    "id,sex,bone_age\n1,1,180\n": "row 2: the sex '1' is neither",
    "id,sex,bone_age,split\n1,M,180,holdout\n": "row 2: the split 'holdout' is none of train",
    "id,sex,bone_age\n1,H,180\n2,M,90\n": "M stands beside H or V in the column sex, and may mean a girl",
    "id,sex,bone_age,set,phase\n1,M,180,test,train\n": "the columns set and phase name sets",
}.items())
def test_tables_that_are_not_understood_are_named(tmp_path, text, sentence):
    images(tmp_path, [1])
    write(tmp_path/"labels.csv", text)
    with pytest.raises(CohortError, match=sentence): load_cohort(tmp_path)
    with pytest.raises(CohortError, match=sentence): load_cohort(tmp_path, problems=[])


def test_ages_that_may_be_years_are_noted(tmp_path):
    path = write(tmp_path/"labels.csv", "id,sex,bone_age\n1,M,15\n2,F,7.8\n")
    with pytest.warns(UserWarning, match="the oldest bone age is 15.*may be years"): read_labels(path)
    assert len(read_labels(path, problems := [])) == 2 and "may be years" in problems[0]


def test_a_column_split_decides_for_its_rows(tmp_path):
    images(tmp_path, range(6))
    words = ["train", "Training", "val", "validation", "TEST", ""]
    rows = "".join(f"{i},M,100,{word}\n" for i, word in enumerate(words))
    write(tmp_path/"labels.csv", "id,sex,bone_age,split\n" + rows)
    cohort = load_cohort(tmp_path)
    assert cohort.split.fillna("").tolist() == ["train", "train", "validation", "validation", "test", ""]
    assert split_cohort(cohort, 0, 0).split.tolist()[-1] == "train"
    write(tmp_path/"labels.csv", "id,sex,bone_age,Partition,quality\n" + rows.replace("\n", ",valid\n"))
    assert load_cohort(tmp_path).equals(cohort)  # whatever it is called


# ------------------------------------------------------------------ subsets and splits

def simulate_children(n=2000, seed=0):
    random = np.random.default_rng(seed)
    sex = random.choice(["M", "F"], n, p=[.54, .46])
    common = np.array([12, 24, 36, 60, 82, 94, 106, 120, 132, 144, 156, 162, 180, 192, 216.])
    ages = np.where(random.random(n) < .85, random.choice(common, n), random.integers(1, 229, n))
    return pd.DataFrame({"id": [str(i) for i in range(n)], "sex": sex, "bone_age": ages})


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("validation,test", [(160, 0), (200, 100), (1, 0), (0, 0)])
def test_splits(validation, test, seed):
    cohort = simulate_children(seed=seed)
    split = split_cohort(cohort, validation, seed, test)
    counts = split.split.value_counts()
    expected = {"validation": validation, "test": test, "train": 2000 - validation - test}
    assert {name: counts.get(name, 0) for name in expected} == expected
    assert split.index.equals(cohort.index) and split.id.equals(cohort.id) and "split" not in cohort
    for name in [name for name, n in counts.items() if n >= 100]:
        part = split[split.split == name]
        assert abs((part.sex == "M").sum() - (cohort.sex == "M").mean()*len(part)) <= 3
        for sex, group in part.groupby("sex"):
            ages = cohort.bone_age[cohort.sex == sex]
            assert abs(group.bone_age.mean() - ages.mean()) < .12*ages.std()
            assert abs(group.bone_age.std()/ages.std() - 1) < .1


def test_splits_do_not_depend_on_row_order_or_index():
    cohort = simulate_children()
    reference = split_cohort(cohort, 200, 7, 100).set_index("id").split
    for seed in range(3):
        shuffled = cohort.sample(frac=1, random_state=seed, ignore_index=seed == 1)
        split = split_cohort(shuffled, 200, 7, 100).set_index("id").split
        assert split.loc[reference.index].equals(reference)
    other = split_cohort(cohort, 200, 8, 100).set_index("id").split
    assert .85 < (other == reference).mean() < .95 or (other != reference).any()


def test_predefined_splits_are_kept(tmp_path):
    rsna(tmp_path)
    cohort = load_cohort(tmp_path)
    split = split_cohort(cohort, 8, 0)
    assert split.split.value_counts().to_dict() == {"train": 32, "validation": 18, "test": 6}
    assert split.split[cohort.split.notna()].tolist() == cohort.split.dropna().tolist()
    for validation, test in ((41, 0), (30, 11), (-1, 0)):
        with pytest.raises(CohortError, match="can't be held out"):
            split_cohort(cohort, validation, 0, test=test)


@pytest.mark.parametrize("n", [0, 1, 7, 100, 1999, 2000, 5000])
def test_stratified_samples_have_the_requested_size(n):
    cohort = simulate_children()
    sampled = sample_stratified(cohort, n, seed=0)
    assert sampled.sum() == min(n, 2000) and sampled.index.equals(cohort.index)


def test_limits(tmp_path):
    rsna(tmp_path)
    few = load_cohort(tmp_path, limit=20, seed=3)
    assert len(few) == 20
    assert few.equals(load_cohort(tmp_path, limit=20, seed=3))
    assert not few.equals(load_cohort(tmp_path, limit=20, seed=4))
    assert abs(few.split.isna().sum() - 20*40/56) <= 1


def test_long_error_lists_are_truncated(tmp_path):
    rows = "".join(f"{i},{'9' * 600},\n" for i in range(30))
    path = write(tmp_path/"train.csv", "id,boneage,male\n" + rows)
    with pytest.raises(CohortError, match=r"and 2\d more$") as error: read_labels(path)
    assert len(str(error.value)) < 1500 and str(error.value).count("\n") > 1


# ------------------------------------------------------------------ stages

def test_stages_cover_every_age_once():
    ages = np.arange(0, 240, .5)
    for sex in "MF":
        stages = development_stage(ages, sex)
        order = [STAGES.index(stage) for stage in stages]
        assert order == sorted(order) and set(order) == set(range(6))
    girls, boys = ([STAGES.index(stage) for stage in development_stage(ages, sex)] for sex in "FM")
    assert (np.array(girls) >= np.array(boys)).all()


def test_stage_bounds_mark_unverified_rows():
    bounds = stage_bounds()
    assert bounds.unverified.dtype == bool
    assert set(bounds.stage[~bounds.unverified]) == {"infancy", "toddlers"}
    assert development_stage(np.nan, "M") is None and development_stage(10, "F") == "toddlers"
