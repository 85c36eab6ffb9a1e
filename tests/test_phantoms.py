"The frozen test set is unchanged, and its defects are at least as frequent as on real radiographs"
from boneage.synthetic.exposure import DefectRates
from boneage.synthetic.phantoms import (
    HARD_COUNT,
    HARD_RATES,
    fingerprint,
    format_hard_record,
    make_phantom,
    read_hard_fingerprint,
    write_phantoms,
)


def test_hard_phantoms_match_their_fingerprint():
    records = (format_hard_record(i) for i in range(HARD_COUNT))
    assert fingerprint(records) == read_hard_fingerprint()["fingerprint"]


def test_hard_phantoms_have_at_least_the_real_defect_rates():
    for name in ("mirrored", "turned", "inverted", "dim", "grey", "collimated", "borders", "gradient",
                 "marker", "cut", "small"):
        assert getattr(HARD_RATES, name) >= getattr(DefectRates(), name), name


def test_phantoms_after_opencv_has_used_its_threads(tmp_path):
    "A forked process waited for ever for OpenCV's threads; nothing is forked now"
    make_phantom(0, 0, shape=(512, 400))
    write_phantoms(tmp_path, 40, seed=7, shape=(96, 75))
    assert len(list((tmp_path/"masks").glob("*.png"))) == 40
