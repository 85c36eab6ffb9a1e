"The frozen test set is what it was when it was frozen, and its defects come at least as often as on real plates"
from boneage.synthetic.phantoms import HARD, HARD_RATES, fingerprint, frozen_hard, hard_record
from boneage.synthetic.exposure import Rates


def test_hard_is_frozen():
    assert fingerprint(hard_record(i) for i in range(HARD)) == frozen_hard()["fingerprint"]


def test_hard_is_at_least_as_hard_as_real_plates():
    for name in ("mirrored", "turned", "inverted", "dim", "grey", "collimated", "borders", "gradient", "marker", "cut", "small"):
        assert getattr(HARD_RATES, name) >= getattr(Rates(), name), name
