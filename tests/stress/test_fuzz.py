"""Each reader returns valid data or raises one sentence for any file, with little time and memory.

`make stress WHAT=fuzz INPUTS=20000` opens so many files, others in each run, and writes the counts to
benchmarks/reliability.json. Otherwise the files are 500 and always the same.
"""
import copy
import io
import json
import os
import pickle
import resource
import signal
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from measure import machine, write_section
from torch import nn

from boneage.datasets.annotations import (
    POINT_COLUMNS,
    Annotation,
    AnnotationError,
    read_annotations,
    read_key_points,
    to_coco,
    to_labelme,
    to_supervisely,
)
from boneage.datasets.cohorts import DIALECTS, CohortError, read_labels
from boneage.datasets.profiles import Profile, ProfileError, load_profile
from boneage.ensembles import EnsembleRule, EnsembleRuleError, read_ensemble_rules
from boneage.inference import OnnxNetwork, WeightsError, read_config
from boneage.networks import load_network
from boneage.radiographs import RadiographError, read_dicom_sex, read_mask, read_radiograph
from boneage.sexes import read_sexes
from boneage.tables import TableError, read_rows
from boneage.training.core import Checkpoint, CheckpointError, read_checkpoint, write_checkpoint
from boneage.training.mining import MaskCandidate, read_decisions
from boneage.training.review import DecisionLog, read_candidates, write_candidates

pytest.importorskip("pydicom")
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from test_radiographs import as_bits, dicom  # noqa: E402
from tiny_models import write_tiny_models  # noqa: E402

LONG = "STRESS" in os.environ
INPUTS = int(os.environ.get("INPUTS", 20_000)) if LONG else 500
SECONDS, MEMORY = 10, 2 * 2**30  # allowed for one file
PROJECT = Path(__file__).resolve().parents[2]


# ------------------------------------------------------------------ damage

ODD_NUMBERS = [
    0, 1, -1, 2, 7, 255, 4096, 65_536, 10**6, 2**31, 2**63, 10**30, -10**12,
    0.5, -0.1, 1e-9, 1e9, 1e308, float("nan"), float("inf"),
]
ODD_TEXTS = [
    "", " ", "F", "M", "male", "nan", "1e999", "-3", "0x10", "1.5,2", "../../x", "\ud800", "\0",
    "{value}", "id", "\n", "é", "‮", "a" * 5000, "UNet",
]
NUMBERS, TEXTS = st.sampled_from(ODD_NUMBERS), st.sampled_from(ODD_TEXTS) | st.text(max_size=8)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | TEXTS,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(TEXTS, parts, max_size=3), max_leaves=6)
FOREIGN_JSON = [
    b"[" * 100_000, b'{"shapes":' * 100_000, b"1" * 10_000, b'{"format": ' + b"9" * 10_000 + b"}",
    b"", b"\0", b"null", b"[]", b"{}", b"\xff\xfe{}", b"\xef\xbb\xbf{}",
]
FOREIGN_TABLES = [
    b"", b",,,\n", b"\xff\xfe", b"\xef\xbb\xbf\n", b"id\n" * 3, b"\"", b"a" * 200_000, b"\xfe\xff\0,\0,",
    b"id,boneage,male\n" + b"0" * 60_000 + b"x,1,True\n",
    b"id,boneage,male\n1," + b"9" * 100_000 + b",True\n",
]
FOUR_BYTES = [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\0\1\0\0", b"\0\0\1\0"]


@st.composite
def damaged(draw, originals: list[bytes]) -> bytes:
    "A file with bytes changed, removed, doubled, inserted or set to extreme numbers, mostly near its start"
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, min(len(data), 400)) | st.integers(0, len(data)))
        kind = draw(st.sampled_from(["byte", "cut", "end", "double", "number", "insert"]))
        length = draw(st.integers(1, 40))
        if kind == "byte": data[at:at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "cut": del data[at:at + length]
        elif kind == "end": del data[at:]
        elif kind == "double": data[at:at] = data[at:at + length]
        elif kind == "number": data[at:at + 4] = draw(st.sampled_from(FOUR_BYTES))
        else: data[at:at] = draw(st.binary(max_size=20))
    return bytes(data)


def places(tree):
    "Every value in a JSON tree, as its container and its key"
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from places(tree[key])


@st.composite
def odd(draw, originals: list) -> object:
    "A JSON tree with some values removed, doubled or replaced"
    tree = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 2))):
        if not (known := list(places(tree))): break
        holder, key = draw(st.sampled_from(range(len(known))).map(known.__getitem__))
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "add"]))
        if kind == "replace": holder[key] = draw(ANYTHING)
        elif kind == "remove": del holder[key]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]) if kind == "double" else draw(ANYTHING))
        else: holder[draw(TEXTS)] = draw(ANYTHING)
    return tree


def to_json(tree) -> bytes: return json.dumps(tree).encode()


def json_files(originals: list):
    "A JSON file with odd values, with damaged bytes, or with any other content"
    odd_or_damaged = odd(originals).map(to_json) | damaged([to_json(tree) for tree in originals])
    return odd_or_damaged | ANYTHING.map(to_json) | st.sampled_from(FOREIGN_JSON)


@st.composite
def tables(draw, originals: list[list[list[str]]]) -> bytes:
    "A table with odd cells, rows and columns, in one of several separators and encodings"
    rows = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        row = draw(st.sampled_from(rows))
        kind = draw(st.sampled_from(["cell", "cell", "row", "short", "long"]))
        if kind == "cell" and row: row[draw(st.integers(0, len(row) - 1))] = str(draw(TEXTS | NUMBERS))
        elif kind == "row": rows.append(list(row))
        elif kind == "short" and row: row.pop()
        else: row.append(draw(TEXTS))
    separator = draw(st.sampled_from(",;\t"))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return "\n".join(separator.join(row) for row in rows).encode(encoding, errors="replace")


def table_files(originals: list[list[list[str]]]):
    "A table with odd cells, with damaged bytes, or with any other content"
    plain = ["\n".join(",".join(row) for row in rows).encode() for rows in originals]
    return tables(originals) | damaged(plain) | st.sampled_from(FOREIGN_TABLES)


# ------------------------------------------------------------------ originals

Y, X = np.mgrid[:40, :36] / 40
RADIOGRAPH = (X + Y) / (X + Y).max()
DISC = np.hypot(X - 0.4, Y - 0.5) < 0.3
HOLE = np.hypot(X - 0.4, Y - 0.5) < 0.1
NOTE = Annotation("7", DISC.shape, DISC, np.array([[3.0, 4], [5, 6], [np.nan, np.nan]]))
RING = Annotation("8", DISC.shape, DISC & ~HOLE, np.full((3, 2), 2.5))


def images(suffix: str, depths=(8, 16)) -> list[bytes]:
    "A radiograph in one file format: each depth, grey and colour"
    greys = [as_bits(RADIOGRAPH, bits) for bits in depths]
    made = [image for grey in greys for image in (grey, np.dstack([grey] * 3))]
    return [cv2.imencode(suffix, image)[1].tobytes() for image in made]


def with_checksums(data: bytes) -> bytes:
    "A damaged PNG with checksums corrected to its contents"
    data, start = bytearray(data), 8
    while start + 12 <= len(data):
        end = start + 8 + struct.unpack_from(">I", data, start)[0]
        if end + 4 > len(data): break
        struct.pack_into(">I", data, end, zlib.crc32(data[start + 4:end]))
        start = end + 4
    return bytes(data)


COMPRESSED = (RLELossless, JPEG2000Lossless)
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian,
            DeflatedExplicitVRLittleEndian, *COMPRESSED)


def dicom_bytes(bits=12, syntax=ExplicitVRLittleEndian, **tags) -> bytes:
    "A radiograph as DICOM"
    written, file = ExplicitVRLittleEndian if syntax in COMPRESSED else syntax, io.BytesIO()
    header = dicom(as_bits(RADIOGRAPH, bits), written, BitsStored=bits)
    if syntax in COMPRESSED: header.compress(syntax, generate_instance_uid=False)
    for name, value in tags.items(): setattr(header, name, value)
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


COUNTS = st.sampled_from([0, 1, 2, 3, 7, 8, 12, 16, 17, 32, 64, 20, 24, 255, 65535])
DECIMALS = st.sampled_from(["0", "1", "-1", "2048", "1e30", "-1e-30", "1e308", "0.5"])
COUNT_TAGS = ["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
              "SamplesPerPixel", "PlanarConfiguration"]
DECIMAL_TAGS = ["WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"]
PHOTOMETRICS = ["MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL_422", ""]
TAGS = dict.fromkeys(COUNT_TAGS, COUNTS) | dict.fromkeys(DECIMAL_TAGS, DECIMALS) | {
    "NumberOfFrames": st.sampled_from(["0", "-1", "3", "2147483647"]),
    "VOILUTFunction": st.sampled_from(["SIGMOID", "LINEAR_EXACT", "NO"]),
    "PhotometricInterpretation": st.sampled_from(PHOTOMETRICS),
    "PatientSex": st.sampled_from(["F", "M", "O", "", "f", "F\\M", "female" * 100]),
}


@st.composite
def odd_dicom(draw) -> bytes:
    "A DICOM file with contradictory tags"
    names = draw(st.lists(st.sampled_from(list(TAGS)), max_size=4, unique=True))
    bits, syntax = draw(st.sampled_from([8, 12, 16])), draw(st.sampled_from(SYNTAXES))
    return dicom_bytes(bits, syntax, **{name: draw(TAGS[name]) for name in names})


@st.composite
def odd_weights(draw, originals: list[bytes]) -> bytes:
    "A safetensors file with odd values in its header"
    whole = draw(st.sampled_from(originals))
    length, = struct.unpack("<Q", whole[:8])
    header = json.dumps(draw(odd([json.loads(whole[8:8 + length])]))).encode()
    return struct.pack("<Q", len(header)) + header + whole[8 + length:]


def weights_files(originals: list[bytes]):
    "A safetensors file: complete, with an odd header, or with damaged bytes"
    return st.sampled_from(originals) | odd_weights(originals) | damaged(originals)


def aliases(levels: int, merge=False) -> bytes:
    "A few lines of YAML that expand to billions of values"
    lines = ["a0: &a0 {x: 1}"]
    for i in range(1, levels):
        nine = "[" + ", ".join([f"*a{i - 1}"] * 9) + "]"
        lines.append(f"a{i}: &a{i} " + (f"{{<<: {nine}}}" if merge else nine))
    return "\n".join([*lines, f"seed: *a{levels - 1}", f"limit: *a{levels - 1}"]).encode()


PROFILES = [path.read_bytes() for path in sorted((PROJECT/"reports"/"profiles").glob("*.yaml"))]
ODD_YAML = [
    aliases(9), aliases(8, merge=True), b"- " * 50_000 + b"1", b"seed: 2001-99-99", b"seed: 0x" + b"f" * 9000,
    b"? [1]\n: 2", b"bone_age: {scales: {1: 2}}", b"seed: !!python/object/apply:os.getcwd []", b"seed: .nan",
    b"bone_age: {schedule: {learning_rate: .inf}}", b"seed: &a [*a]", b"a: b: c", b"\x80", b"--- 1\n--- 2",
    b"%YAML 9.9\n---\n",
]
LABELS = [[list(dialect.columns), *[[str(i), sex, *["100", "120"][:len(dialect.ages)]]
                                    for i, sex in enumerate(["M", "F"])]] for dialect in DIALECTS]
LABELS[0][1:] = [["1377", "True", "180"], ["1378", "False", "12"]]
POINTS = [["id", *POINT_COLUMNS], ["1", *"123456"], ["2", *["" for _ in POINT_COLUMNS]]]
OTHER_POINTS = [["id", "middle_finger4_x", "middle_finger4_y", "middle_tip_x", "capitate_x", "thumb4_y"],
                ["1", "2", "3", "4", "5", "6"]]
DECISIONS = [["id", "verdict"], ["1", "accept"], ["2", "reject"]]
DECISION_LOG = [["id", "mask", "verdict"], ["1", "0123456789ab", "accept"]]


def write_saved(folder: Path) -> Path:
    "Write small networks, a checkpoint and candidate masks with the library"
    checkpoint = Checkpoint(2, nn.Linear(2, 3).state_dict(), {}, [{"loss": 1.0}], {"data": "x"})
    write_tiny_models(folder)
    write_checkpoint(folder/"fit.safetensors", checkpoint)
    write_candidates(folder/"waiting.npz", [MaskCandidate("1", as_bits(RADIOGRAPH, 8), DISC, 0.5)])
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path: return write_saved(tmp_path_factory.mktemp("saved"))


def onnx_bytes() -> bytes:
    "A model that doubles an image, with the output's name of exported networks"
    onnx = pytest.importorskip("onnx")
    image, output = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 1, 4, 4])
                     for name in ("image", "answer"))
    node = onnx.helper.make_node("Add", ["image", "image"], ["answer"])
    graph = onnx.helper.make_graph([node], "double", [image], [output])
    opset = onnx.helper.make_opsetid("", 17)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


# ------------------------------------------------------------------ valid data

def is_radiograph_array(image):
    return image.dtype == np.float32 and image.ndim == 2 and 0 <= image.min() < image.max() <= 1


def is_mask(mask): return mask.dtype == bool and mask.ndim == 2


def are_annotations(found):
    return all(type(a.id) is str and a.id and a.points.shape == (3, 2)
               and (a.mask is None or is_mask(a.mask) and a.mask.shape == a.shape) for a in found)


def are_points(table):
    numbers = table[list(POINT_COLUMNS)].to_numpy(float)
    return list(table) == ["id", *POINT_COLUMNS] and not np.isinf(numbers).any() and table.id.is_unique


def are_labels(table):
    return (list(table) == ["id", "sex", "bone_age"] and table.id.is_unique
            and table.sex.isin(["M", "F"]).all()
            and (table.bone_age.isna() | table.bone_age.between(0, 240)).all())


def are_rules(rules):
    return all(isinstance(rule, EnsembleRule) and all(isinstance(member, str) for member in rule.members)
               and np.isfinite(rule.weights).all() for rule in rules.values())


def is_network(loaded):
    network, config = loaded
    return (isinstance(network, nn.Module) and isinstance(config, dict)
            and all(parameter.isfinite().all() for parameter in network.parameters()))


def are_candidates(found):
    return all(c.mask.dtype == bool and c.mask.shape == c.image.shape[:2] for c in found)


def are_decisions(found):
    return all(isinstance(i, str) and (isinstance(d, str) or is_mask(d)) for i, d in found.items())


def are_review_labels(found):
    return all(len(key) == 2 and label in DecisionLog.REVIEW_LABELS for key, label in found.items())


def are_sexes(found): return set(found.values()) <= {"M", "F", None}


# ------------------------------------------------------------------ readers

@dataclass(frozen=True)
class Reader:
    "A reader, and the files that it is tested with"
    read: Callable     # of a path
    is_valid: Callable # whether what it returns is valid
    errors: tuple      # the exact types that it may raise, without their subclasses
    name: str          # of the file
    contents: Callable # the folder `saved` → a strategy of the file's bytes
    beside: dict       # further files: name → the same


def reader(read, is_valid, errors, name, contents, **beside):
    errors = errors if isinstance(errors, tuple) else (errors,)
    return Reader(read, is_valid, errors, name, contents, beside)


def constant(strategy):
    "A strategy that needs no saved file"
    return lambda saved: strategy


def whole(*names): return lambda saved: st.sampled_from([(saved/name).read_bytes() for name in names])


def configs(*names): return lambda saved: json_files([json.loads((saved/name).read_text()) for name in names])


def weights(name): return lambda saved: weights_files([(saved/name).read_bytes()])


def dicom_files(saved):
    return odd_dicom() | damaged([dicom_bytes(8, syntax) for syntax in SYNTAXES] + [dicom_bytes(16)])


def read_network(path): return load_network(path.parent)


PNG = damaged(images(".png"))
MASKS = damaged(images(".png") + images(".tif") + images(".jpg", [8]))
YAML = json_files([yaml.safe_load(text) for text in PROFILES]) | damaged(PROFILES) | st.sampled_from(ODD_YAML)
SEGMENTATION, BONE_AGE = "models/segmentation", "models/registered-carpals-both-classification"

READERS = {
    "PNG": reader(read_radiograph, is_radiograph_array, RadiographError, "a.png",
                  constant(PNG.map(with_checksums) | PNG)),
    "JPEG": reader(read_radiograph, is_radiograph_array, RadiographError, "a.jpg",
                   constant(damaged(images(".jpg", [8])))),
    "TIFF": reader(read_radiograph, is_radiograph_array, RadiographError, "a.tif",
                   constant(damaged(images(".tif")))),
    "mask": reader(read_mask, is_mask, RadiographError, "a.png",
                   constant(MASKS.map(lambda data: with_checksums(data) if data[1:4] == b"PNG" else data))),
    "DICOM": reader(read_radiograph, is_radiograph_array, RadiographError, "a.dcm", dicom_files),
    "DICOM's sex": reader(read_dicom_sex, lambda sex: sex in ("M", "F", None), RadiographError, "a.dcm",
                          lambda saved: odd_dicom() | damaged([dicom_bytes(8, PatientSex="F")])),
    "labelme": reader(read_annotations, are_annotations, AnnotationError, "7.json",
                      constant(json_files([to_labelme(a, "7.png") for a in (NOTE, RING)]))),
    "Supervisely": reader(read_annotations, are_annotations, AnnotationError, "7.png.json",
                          constant(json_files([to_supervisely(a) for a in (NOTE, RING)]))),
    "COCO": reader(read_annotations, are_annotations, AnnotationError, "coco.json",
                   constant(json_files([to_coco([NOTE]), to_coco([NOTE, RING])]))),
    "key points": reader(read_key_points, are_points, AnnotationError, "keypoints.csv",
                         constant(table_files([POINTS, OTHER_POINTS]))),
    "label table": reader(read_labels, are_labels, CohortError, "train.csv", constant(table_files(LABELS))),
    "label table, leniently": reader(lambda path: read_labels(path, []), are_labels, CohortError, "train.csv",
                                     constant(table_files(LABELS))),
    "table of sexes": reader(lambda path: read_sexes(read_rows(path)), are_sexes, TableError, "sex.csv",
                             constant(table_files(LABELS))),
    "decisions": reader(read_decisions, are_decisions, ValueError, "verdicts.csv",
                        constant(table_files([DECISIONS]))),
    "decision log": reader(lambda path: DecisionLog(path)._labels, are_review_labels, ValueError, "log.csv",
                           constant(table_files([DECISION_LOG]))),
    "candidate masks": reader(read_candidates, are_candidates, ValueError, "log.waiting.npz",
                              lambda saved: damaged([(saved/"waiting.npz").read_bytes()])),
    "profile": reader(load_profile, lambda profile: isinstance(profile, Profile), ProfileError, "a.yaml",
                      constant(YAML)),
    "ensemble rules": reader(read_ensemble_rules, are_rules, EnsembleRuleError, "ensembles.json",
                             configs("models/ensembles.json")),
    "weights": reader(read_network, is_network, WeightsError, "model.safetensors",
                      weights(SEGMENTATION + "/model.safetensors"),
                      **{"config.json": whole(SEGMENTATION + "/config.json")}),
    "network's config": reader(read_network, is_network, WeightsError, "config.json",
                               configs(BONE_AGE + "/config.json"),
                               **{"model.safetensors": whole(BONE_AGE + "/model.safetensors")}),
    "ONNX's config": reader(read_config, lambda config: isinstance(config, dict), WeightsError, "config.json",
                            configs(SEGMENTATION + "/config.json", BONE_AGE + "/config.json")),
    "ONNX": reader(OnnxNetwork, lambda network: network.input and network.outputs, WeightsError, "model.onnx",
                   lambda saved: damaged([onnx_bytes()])),
    "checkpoint": reader(read_checkpoint, lambda found: isinstance(found, Checkpoint), CheckpointError,
                         "fit.safetensors", weights("fit.safetensors")),
}


# ------------------------------------------------------------------ the check

def write_tally(counts, seconds, memory):
    "Write the counts of all readers to benchmarks/reliability.json"
    rows = [dict(reader=name, inputs=count.total(), read=count["read"], refused=count["refused"],
                 slowest=round(slowest, 3)) for name, (count, slowest) in counts.items()]
    found = dict(machine=machine(), seconds=round(seconds), memory=round(memory, 3), rows=rows)
    write_section("reliability", "fuzz", found)


@pytest.fixture(scope="module")
def tally(request):
    "Count each reader's inputs; print the table, and write it after a long run without failures"
    counts, start = {}, time.monotonic()
    yield counts
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if LONG and not request.session.testsfailed and set(counts) == set(READERS):
        write_tally(counts, time.monotonic() - start, memory)
    print("\n| reader | inputs | read | refused | slowest, s |\n|:--|--:|--:|--:|--:|")
    for name, (count, slowest) in counts.items():
        print(f"| {name} | {count.total():,} | {count['read']:,} | {count['refused']:,} | {slowest:.2f} |")
    total = sum(count.total() for count, _ in counts.values())
    print(f"| all | {total:,} | | | peak memory {memory:.2f} GB |")


@pytest.fixture
def bounded():
    "Limit further memory to MEMORY where the system reports what is in use, and fail after SECONDS"
    before, in_use = resource.getrlimit(resource.RLIMIT_AS), Path("/proc/self/statm")
    if in_use.exists():
        bytes_in_use = int(in_use.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (bytes_in_use + MEMORY, before[1]))
    handler = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"took more than {SECONDS} seconds"))
    yield
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, before)


def files_for(tested: Reader, saved: Path):
    "A strategy of the files that a reader needs: name → contents"
    beside = {name: contents(saved) for name, contents in tested.beside.items()}
    return st.fixed_dictionaries({tested.name: tested.contents(saved)} | beside)


def check(tested: Reader, path: Path) -> str:
    "Read a file and check the result or the error; \"read\" or \"refused\""
    signal.alarm(SECONDS)
    try: found = tested.read(path)
    except Exception as error:
        if type(error) not in tested.errors: raise
        text, longest = str(error).replace(str(path), "…"), 1500
        assert 10 < len(text) < longest and "Traceback" not in text, text
        assert "…" in text or str(path.parent) in text, text
        assert text.count("\n") <= (10 if type(error) is CohortError else 0), text
        return "refused"
    finally: signal.alarm(0)
    assert tested.is_valid(found)
    return "read"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_reader_returns_valid_data_or_raises_its_error(name, saved, tmp_path, tally, bounded):
    tested, random = READERS[name], LONG
    if name == "ONNX": pytest.importorskip("onnxruntime")
    count, slowest = Counter(), [0.0]
    tally[name] = count, 0.0

    @settings(max_examples=-(-INPUTS // len(READERS)), derandomize=not random, database=None, deadline=None,
              suppress_health_check=list(HealthCheck), print_blob=random)
    @given(files_for(tested, saved))
    def each(contents):
        for other, content in contents.items(): (tmp_path/other).write_bytes(content)
        start = time.monotonic()
        count[check(tested, tmp_path/tested.name)] += 1
        slowest[0] = max(slowest[0], time.monotonic() - start)
        tally[name] = count, slowest[0]

    each()


def test_undamaged_onnx_is_read(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path/"model.onnx").write_bytes(onnx_bytes())
    assert check(READERS["ONNX"], tmp_path/"model.onnx") == "read"


class Trap:
    "Creates a file when it is unpickled"
    def __init__(self, path): self.path = path
    def __reduce__(self): return Path.touch, (self.path,)


@pytest.mark.parametrize("name", READERS)
def test_reader_never_executes_file_contents(name, tmp_path):
    tested, created = READERS[name], tmp_path/"created"
    if name == "ONNX": pytest.importorskip("onnxruntime")
    for other in (tested.name, *tested.beside): (tmp_path/other).write_bytes(pickle.dumps(Trap(created)))
    assert check(tested, tmp_path/tested.name) == ("read" if name == "DICOM's sex" else "refused")
    assert not created.exists()
    pickle.loads((tmp_path/tested.name).read_bytes())
    assert created.exists()
