"The frozen test set is unchanged, and its defects are at least as frequent as on real radiographs"
from boneage.synthetic.exposure import DefectRates
from boneage.synthetic.phantoms import (
    HARD_COUNT,
    HARD_RATES,
    fingerprint,
    format_hard_record,
    read_hard_fingerprint,
)


def test_hard_phantoms_match_their_fingerprint():
    records = (format_hard_record(i) for i in range(HARD_COUNT))
    assert fingerprint(records) == read_hard_fingerprint()["fingerprint"]


def test_hard_phantoms_have_at_least_the_real_defect_rates():
    for name in ("mirrored", "turned", "inverted", "dim", "grey", "collimated", "borders", "gradient",
                 "marker", "cut", "small"):
        assert getattr(HARD_RATES, name) >= getattr(DefectRates(), name), name
