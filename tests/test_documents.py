"""The page about one radiograph: what is on it, what is not, and what `boneage report` writes

The PDF is tested where typst is installed; text, pictures and templates everywhere."""
import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from test_cli import call
from test_growth import write_dicom

import boneage.documents
from boneage.assessment import load_assessor
from boneage.documents import Page, page_pdf, page_pictures, page_text
from boneage.explanations import Explanation
from boneage.growth import BoneAge, ChronologicalAge
from boneage.visits import Visit

DATA = Path(__file__).resolve().parent.parent/"boneage"/"data"
VISITS = """age,sex,bone_age_months,interval_low,interval_high
5y9m,F,60,46,74
6y9m,F,75,61,89
7y3m,F,80,66,94
"""


def report(models, *arguments) -> tuple[int, str]:
    "Exit code and standard error of `boneage report`"
    code, _, err = call("report", *arguments, "--weights", models, "--device", "cpu")
    return code, err


def visible(path: Path) -> str:
    "The text of an HTML page as a browser shows it"
    plain = re.sub(r"<style.*?</style>|<[^>]+>", " ", path.read_text(), flags=re.S)
    return " ".join(unescape(plain).split())


# The tiny networks predict 95 months (75 to 115) for a girl. Brush, 96 months: 100.66, SD 10.23
def test_page_with_four_visits(models, png, tmp_path):
    (tmp_path/"visits.csv").write_text(VISITS)
    out = tmp_path/"page.html"
    assert report(models, png, "--age", "8y", "--height-cm", 125, "--visits", tmp_path/"visits.csv",
                  "--smallest-change", 6, "--out", out) == (0, "")
    page = visible(out)
    for part in ("95 months; 90 % between 75 and 115 months (mean of six readers: 77 to 113)",
                 "Bone age 7 y 11 m 95 months",  # the sex is from the table
                 "Sex girl", "8 y 0 m (source: given)", "SDS −0.6, normal", "SDS, 90 % −2.5 to +1.4",
                 "Adult height, average 159.0 cm",   # 125 / 0.786
                 "8 y 0 m 7 y 11 m 75–115 −0.6 1.7",  # 15 months of bone age in 9
                 "7 y 3 m 6 y 8 m 66–94", "No pace: the smallest detectable change, 6.0 months",
                 "Brush Foundation", "Bayley and Pinneau", "No clinician has checked this table",
                 "Research use only: not a medical device", "networks", "radiograph"):
        assert part in page, part
    assert page.index("Check first") < page.index("Bone age 7 y 11 m")
    assert "hand.png" not in page and len(out.read_bytes()) < 300_000


def test_page_names_nobody_unless_asked(models, image, tmp_path):
    entries = dict(PatientSex="F", PatientName="Private^Name", PatientID="PATIENT-4711",
                   PatientBirthDate="20170531", StudyDate="20250531")
    path, out = write_dicom(tmp_path/"private.dcm", image, **entries), tmp_path/"page.html"
    assert report(models, path, "--out", out) == (0, "")
    assert "8 y 0 m (source: DICOM header, birth date)" in visible(out)
    for word in ("Private", "PATIENT-4711", "20170531", "2017-05-31", "private.dcm"):
        assert word not in out.read_text()
    assert report(models, path, "--out", out, "--name", "A <b>phantom</b>\n#1") == (0, "")
    assert "A <b>phantom</b>\\n#1" in visible(out)


def test_contradictions_stand_first(models, image, tmp_path):
    path = write_dicom(tmp_path/"hand.dcm", image, PatientSex="M", PatientAge="126M")
    assert report(models, path, "--sex", "F", "--age", "8y", "--out", tmp_path/"page.html") == (0, "")
    page = visible(tmp_path/"page.html")
    for part in ("The sex in the DICOM header is M", "8 y 0 m old (given) or 10 y 6 m (DICOM header)"):
        assert page.index("Check first") < page.index(part) < page.index("Bone age 7 y 11 m")


def test_page_without_sex_and_age(models, png, tmp_path):
    assert report(models, png, "--out", tmp_path/"page.html") == (0, "")
    page = visible(tmp_path/"page.html")
    assert "Sex not given Chronological age not given" in page
    assert "Growth chart" not in page and "Synthetic hands" not in page and "Brush" not in page


@pytest.mark.parametrize("name, options, code, sentence", [
    ("page.docx", [], 2, "must end in .pdf or .html"),
    ("page.html", ["--visits", "absent.csv"], 2, "can't be read"),
    ("page.html", ["--sds-table", "tanner"], 2, "no table")])
def test_wrong_options_write_nothing(models, png, tmp_path, name, options, code, sentence):
    found, err = report(models, png, "--out", tmp_path/name, *options)
    assert (found, err.count("\n")) == (code, 1) and sentence in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hand.png"]


def test_damaged_radiograph_is_one_sentence(models, png, tmp_path):
    png.write_bytes(png.read_bytes()[:500])
    code, err = report(models, png, "--out", tmp_path/"page.html")
    assert (code, err.count("\n")) == (1, 1) and "hand.png" in err and not (tmp_path/"page.html").exists()


def test_pdf_without_typst_is_one_sentence(models, png, tmp_path, monkeypatch):
    monkeypatch.setattr(boneage.documents, "find_spec", lambda name: None)
    code, err = report(models, png, "--out", tmp_path/"page.pdf")
    assert (code, err.count("\n")) == (2, 1) and 'pip install ".[report]"' in err


# ------------------------------------------------------------------ templates and PDF

@pytest.fixture(scope="module")
def page(models, image):
    result = load_assessor(models, "cpu").assess(image, "F", age=96, height_cm=125)
    visits = [Visit(69, BoneAge(60, (46, 74))), Visit(96, BoneAge(95, (75, 115)))]
    explanation = Explanation(95, np.linspace(-4, 4, 80).reshape(10, 8), 200, {"fingers": 1.5, "wrist": -0.3})
    return Page(np.float32(image/255), result, ChronologicalAge(96, "given"), visits, origin="made here",
                explanation=explanation)


@pytest.fixture(scope="module")
def pictures(page): return page_pictures(page)


def test_template_reads_what_the_text_holds(page, pictures):
    template, text = (DATA/"report.typ").read_text(), page_text(page, list(pictures))
    read = set(re.findall(r"page-text\.(\w+)", template))
    assert read == set(text) and {"chart", "distribution", "radiograph"} <= set(pictures)
    named = set(re.findall(r'picture\("(\w+)"', template))
    named |= {each["picture"] for each in text["regions"] + text["phantoms"]}
    assert named == set(pictures)
    assert "preview" not in template and "http" not in template  # nothing is fetched


def test_pictures_hold_text_and_load_nothing(pictures):
    assert ">chronological age (years)</text>" in pictures["chart"]
    for name, picture in pictures.items():
        kind = "png" if name == "explanation" else "jpeg"  # matplotlib embeds PNG
        links = re.findall(r'href="([^"]*)"', picture)
        assert all(link.startswith(("#", f"data:image/{kind};base64,")) for link in links)
        ids = re.findall(r'url\(([^)]*)\)', picture)
        assert all(each.startswith("#") for each in ids) and "<script" not in picture


def test_explanation_is_a_second_page(page, pictures):
    if not find_spec("typst"): pytest.skip("typst is not installed")
    pypdf = pytest.importorskip("pypdf")
    content = page_pdf(page_text(page, list(pictures)), pictures)
    pages = [" ".join(each.extract_text().split()) for each in pypdf.PdfReader(BytesIO(content)).pages]
    assert len(pages) == 2 and len(content) < 300_000
    for part in ("What moved the bone age", "fingers", "not whether they are right", "made here"):
        assert part in pages[1], part


def test_explanation_is_made_when_asked(models, png, tmp_path):
    assert report(models, png, "--sex", "F", "--out", tmp_path/"page.html", "--explain") == (0, "")
    assert "not whether they are right" in visible(tmp_path/"page.html")
    assert report(models, png, "--sex", "F", "--out", tmp_path/"page.html") == (0, "")
    assert "What moved" not in visible(tmp_path/"page.html")


def test_pdf_is_one_page_of_text(page, pictures):
    if not find_spec("typst"): pytest.skip("typst is not installed")
    pypdf = pytest.importorskip("pypdf")
    page, pictures = replace(page, explanation=None), pictures.copy()
    del pictures["explanation"]
    many = replace(page, result=replace(page.result, warnings=["The registration is doubtful. "*12]*9))
    for each in (page, many, replace(page, name='#panic("x") $ @y *z*', visits=())):
        content = page_pdf(page_text(each, list(pictures)), pictures)
        pages = pypdf.PdfReader(BytesIO(content)).pages
        text = " ".join(pages[0].extract_text().split())
        assert len(pages) == 1 and len(content) < 300_000
        assert "90 % between 75 and 115 months" in text and "chronological age (years)" in text
        assert "No clinician has checked this table" in text and "made here" in text
        assert each.name in text


def test_assessing_imports_nothing_of_it():
    code = ("import sys, boneage.cli, boneage.assessment, boneage.batches; "
            "print([name for name in ('typst', 'boneage.documents') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
