"The rehearsal of a whole run: its numbers stand in rsna.yaml as it wrote them, and a stopped one continues"
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from boneage.bone_age import ModelName
from boneage.datasets.profiles import SegmentationSettings, load_profile

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT/"benchmarks"))
import rehearsal  # noqa: E402
from rehearsal import BEGIN, END, PARTS, STEPS, UNMEASURED, Meter, Size, describe_cost  # noqa: E402

PROFILE = PROJECT/"reports"/"profiles"/"rsna.yaml"
COST = dict(full_hours=1.25, full_disk=13.0, full_memory=2.0)
FOUND = dict(size=dict(radiographs=1200), rows=[dict(COST, part="regions")],
             total=dict(COST, radiographs=12611),
             machine=dict(date="2020-01-01", processor="a processor", cores="2", gpu="none"))


def test_head_of_the_profile_is_what_the_rehearsal_wrote():
    head = PROFILE.read_text().split(BEGIN + "\n")[1].split(END + "\n")[0]
    assert head.splitlines() == describe_cost(rehearsal.read_result())


def test_result_is_of_full_size():
    found = rehearsal.read_result()
    if found is None: pytest.skip("the rehearsal has not been run")
    assert Size(**found["size"] | dict(shape=tuple(found["size"]["shape"]))) == Size()
    assert [row["part"] for row in found["rows"]] == list(PARTS)


def test_cost_is_unmeasured_or_as_found():
    assert describe_cost(None) == UNMEASURED and "not been measured" in UNMEASURED[0]
    lines = describe_cost(FOUND)
    assert all(line.startswith("# ") for line in lines)
    assert lines[-1].split() == ["#", "all", "1.2", "13.0", "2.0"]
    assert "12,611" in lines[0] and "1,200 phantoms" in lines[1] and "2 cores" in lines[1]


def test_only_the_head_is_replaced(tmp_path):
    copy = tmp_path/"rsna.yaml"
    copy.write_text(PROFILE.read_text())
    for lines in (describe_cost(FOUND), describe_cost(None), describe_cost(rehearsal.read_result())):
        rehearsal.write_head(copy, lines)
        assert load_profile(copy) == load_profile(PROFILE)
        assert copy.read_text().split(BEGIN + "\n")[1].startswith(lines[0])
    assert copy.read_text() == PROFILE.read_text()


def test_images_shown_in_rounds():
    settings = SegmentationSettings(shown=100, labelled_share=0.5, schedule=dict(epochs=2))
    assert rehearsal.images_shown(settings, [10]) == 100        # 10 masks, 10 epochs
    # 10 by hand and 90 predicted: each hand mask nine times, 180 rows, 2 epochs
    assert rehearsal.images_shown(settings, [10, 100]) == 100 + 360


def test_regions_shown_by_sex():
    models = [ModelName("registered", "hand", sex, "regression") for sex in ("male", "both", "both")]
    assert rehearsal.regions_shown(dict(M=3, F=4), models) == 3 + 7 + 7
    assert rehearsal.sexes_of_the_data() == dict(F=5778, M=6833)


def test_meter_adds_up_what_a_stopped_step_has_taken(tmp_path):
    file = tmp_path/"step.jsonl"
    for _ in range(2):  # the second is the same step, continued
        meter = Meter(file, "rest")
        with meter.part("fitting"): time.sleep(0.05)
        meter.record()
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    fitting = sum(row["seconds"] for row in rows if row["part"] == "fitting")
    assert 0.1 <= fitting < 1 and {row["part"] for row in rows} == {"rest", "fitting"}
    assert all(row["memory"] > 0.01 for row in rows)
    assert isinstance(meter, threading.Thread) and not meter.is_alive()


def test_stopped_rehearsal_continues_with_the_step(tmp_path, monkeypatch):
    ran, fails = [], ["registration"]
    def run(command, **options):
        ran.append(command[-1])
        code = 1 if command[-1] in fails else 0
        return subprocess.CompletedProcess(command, code)
    monkeypatch.setattr(rehearsal.subprocess, "run", run)
    size = Size(radiographs=24, shape=(64, 48), profile="smoke")
    with pytest.raises(SystemExit, match="The step registration stopped"): rehearsal.rehearse(size, tmp_path)
    assert ran == ["phantoms", "segmentation", "registration"]
    fails.clear()
    rehearsal.rehearse(size, tmp_path)
    assert ran[3:] == ["registration", "regions", "bone age"] and set(ran) == set(STEPS)
    rehearsal.rehearse(size, tmp_path)
    assert len(ran) == 6  # nothing is run twice
    with pytest.raises(SystemExit, match="of another size"): rehearsal.rehearse(Size(), tmp_path)


def test_every_part_belongs_to_a_step_and_grows_with_something():
    profile = rehearsal.settings_of(Size())
    assert profile.segmentation.weights == profile.keypoints.weights == "fit"
    assert profile.cohort.train + profile.cohort.validation == Size().radiographs
    assert {step for step, *_ in PARTS.values()} == set(STEPS) - {"phantoms"}
    full = load_profile(PROFILE)
    assert profile.bone_age.widths == full.bone_age.widths
    assert profile.segmentation.shape == full.segmentation.shape
