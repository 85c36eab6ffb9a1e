"""Whatever a file holds, its reader gives what it promises or says in one sentence why not, in little time and memory.

FUZZ_INPUTS is how many inputs are made in all; where it is set they differ from run to run (`make fuzz`), otherwise they are always the same.
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
from torch import nn

pydicom = pytest.importorskip("pydicom")
from measure import machine
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from test_radiographs import as_bits, dicom
from tiny_models import RULES, write_tiny_models

from boneage.batches import read_sexes
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
from boneage.training.core import Checkpoint, CheckpointError, read_checkpoint, write_checkpoint
from boneage.training.mining import MaskCandidate, read_decisions
from boneage.training.review import DecisionLog, read_candidates, write_candidates

INPUTS = int(os.environ.get("FUZZ_INPUTS", 500))
SECONDS, MEMORY = 10, 2 * 2**30  # that one file may cost
PROJECT = Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------ damage

ODD_NUMBERS = [0, 1, -1, 2, 7, 255, 4096, 65_536, 10**6, 2**31, 2**63, 10**30, -10**12, 0.5, -0.1, 1e-9, 1e9, 1e308, float("nan"), float("inf")]
ODD_WORDS = ["", " ", "F", "M", "male", "nan", "1e999", "-3", "0x10", "1.5,2", "../../x", "\ud800", "\0", "{value}", "id", "\n", "é", "‮", "a" * 5000, "UNet"]
NUMBERS, WORDS = st.sampled_from(ODD_NUMBERS), st.sampled_from(ODD_WORDS) | st.text(max_size=8)
ANYTHING = st.recursive(st.none() | st.booleans() | NUMBERS | st.integers() | st.floats() | WORDS,
                        lambda parts: st.lists(parts, max_size=4) | st.dictionaries(WORDS, parts, max_size=3), max_leaves=6)
FOREIGN = [b"[" * 100_000, b'{"shapes":' * 100_000, b"1" * 10_000, b'{"format": ' + b"9" * 10_000 + b"}", b"", b"\0", b"null", b"[]", b"{}", b"\xff\xfe{}", b"\xef\xbb\xbf{}"]


@st.composite
def damaged(draw, originals: list[bytes]) -> bytes:
    "A file with some of its bytes changed, cut out, doubled, or replaced by numbers that are often wrong; most often near its beginning"
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, min(len(data), 400)) | st.integers(0, len(data)))
        kind, length = draw(st.sampled_from(["byte", "cut", "end", "double", "number", "insert"])), draw(st.integers(1, 40))
        if kind == "byte": data[at:at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "cut": del data[at:at + length]
        elif kind == "end": del data[at:]
        elif kind == "double": data[at:at] = data[at:at + length]
        elif kind == "number": data[at:at + 4] = draw(st.sampled_from([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\0\1\0\0", b"\0\0\1\0"]))
        else: data[at:at] = draw(st.binary(max_size=20))
    return bytes(data)


def places(tree):
    "Every place of a value in a JSON tree: what holds it, and its key"
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from places(tree[key])


@st.composite
def odd(draw, originals: list) -> object:
    "A JSON tree some of whose values are missing, doubled or something else"
    tree = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 2))):
        if not (known := list(places(tree))): break
        holder, key = draw(st.sampled_from(range(len(known))).map(known.__getitem__))
        kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "add"]))
        if kind == "replace": holder[key] = draw(ANYTHING)
        elif kind == "remove": del holder[key]
        elif isinstance(holder, list): holder.append(copy.deepcopy(holder[key]) if kind == "double" else draw(ANYTHING))
        else: holder[draw(WORDS)] = draw(ANYTHING)
    return tree


def json_files(originals: list):
    "A JSON file with odd values, with damaged bytes, or nothing of the kind"
    return odd(originals).map(lambda tree: json.dumps(tree).encode()) | damaged([json.dumps(tree).encode() for tree in originals]) | ANYTHING.map(lambda tree: json.dumps(tree).encode()) | st.sampled_from(FOREIGN)


@st.composite
def tables(draw, originals: list[list[list[str]]]) -> bytes:
    "A table with odd cells, rows and columns, written in one of several ways"
    rows = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        row = draw(st.sampled_from(rows))
        kind = draw(st.sampled_from(["cell", "cell", "row", "short", "long"]))
        if kind == "cell" and row: row[draw(st.integers(0, len(row) - 1))] = str(draw(WORDS | NUMBERS))
        elif kind == "row": rows.append(list(row))
        elif kind == "short" and row: row.pop()
        else: row.append(draw(WORDS))
    separator, encoding = draw(st.sampled_from(",;\t")), draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    return "\n".join(separator.join(row) for row in rows).encode(encoding, errors="replace")


def table_files(originals: list[list[list[str]]]):
    "A table, odd, damaged, or nothing of the kind"
    plain = ["\n".join(",".join(row) for row in rows).encode() for rows in originals]
    return tables(originals) | damaged(plain) | st.sampled_from([b"", b",,,\n", b"\xff\xfe", b"\xef\xbb\xbf\n", b"id\n" * 3, b"\"", b"a" * 200_000, b"\xfe\xff\0,\0,",
                                                               b"id,boneage,male\n" + b"0" * 60_000 + b"x,1,True\n", b"id,boneage,male\n1," + b"9" * 100_000 + b",True\n"])


# ------------------------------------------------------------------ originals

Y, X = np.mgrid[:40, :36] / 40
RADIOGRAPH = (X + Y) / (X + Y).max()
DISC = np.hypot(X - 0.4, Y - 0.5) < 0.3
NOTE = Annotation("7", DISC.shape, DISC, np.array([[3.0, 4], [5, 6], [np.nan, np.nan]]))
RING = Annotation("8", DISC.shape, DISC & ~(np.hypot(X - 0.4, Y - 0.5) < 0.1), np.full((3, 2), 2.5))


def pictures(suffix: str, depths=(8, 16)) -> list[bytes]:
    "A plate in some of the ways in which a kind of file holds it"
    return [cv2.imencode(suffix, image)[1].tobytes() for bits in depths for grey in [as_bits(RADIOGRAPH, bits)] for image in (grey, np.dstack([grey] * 3))]


def with_checksums(data: bytes) -> bytes:
    "A PNG whose chunks have the checksums that their damaged contents ask for"
    data, start = bytearray(data), 8
    while start + 12 <= len(data):
        end = start + 8 + struct.unpack_from(">I", data, start)[0]
        if end + 4 > len(data): break
        struct.pack_into(">I", data, end, zlib.crc32(data[start + 4:end]))
        start = end + 4
    return bytes(data)


SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEG2000Lossless)


def dicom_bytes(bits=12, syntax=ExplicitVRLittleEndian, **tags) -> bytes:
    "A plate as DICOM"
    packed = syntax in (RLELossless, JPEG2000Lossless)
    header, file = dicom(as_bits(RADIOGRAPH, bits), ExplicitVRLittleEndian if packed else syntax, BitsStored=bits), io.BytesIO()
    if packed: header.compress(syntax, generate_instance_uid=False)
    for name, value in tags.items(): setattr(header, name, value)
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


COUNTS, DECIMALS = st.sampled_from([0, 1, 2, 3, 7, 8, 12, 16, 17, 32, 64, 20, 24, 255, 65535]), st.sampled_from(["0", "1", "-1", "2048", "1e30", "-1e-30", "1e308", "0.5"])
TAGS = dict.fromkeys(["Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "PlanarConfiguration"], COUNTS)
TAGS |= dict.fromkeys(["WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"], DECIMALS)
TAGS |= {"NumberOfFrames": st.sampled_from(["0", "-1", "3", "2147483647"]), "VOILUTFunction": st.sampled_from(["SIGMOID", "LINEAR_EXACT", "NO"]),
         "PhotometricInterpretation": st.sampled_from(["MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL_422", ""]), "PatientSex": st.sampled_from(["F", "M", "O", "", "f", "F\\M", "female" * 100])}


@st.composite
def odd_dicom(draw) -> bytes:
    "A DICOM file whose tags contradict one another"
    names = draw(st.lists(st.sampled_from(list(TAGS)), max_size=4, unique=True))
    return dicom_bytes(draw(st.sampled_from([8, 12, 16])), draw(st.sampled_from(SYNTAXES)), **{name: draw(TAGS[name]) for name in names})


@st.composite
def odd_weights(draw, originals: list[bytes]) -> bytes:
    "A safetensors file whose header says something odd"
    whole = draw(st.sampled_from(originals))
    length, = struct.unpack("<Q", whole[:8])
    header = json.dumps(draw(odd([json.loads(whole[8:8 + length])]))).encode()
    return struct.pack("<Q", len(header)) + header + whole[8 + length:]


def weights_files(originals: list[bytes]):
    "A safetensors file, odd or damaged"
    return st.sampled_from(originals) | odd_weights(originals) | damaged(originals)


def aliases(levels: int, merge=False) -> bytes:
    "A few lines of YAML that mean billions of values"
    lines = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} " + ("{<<: [" + ", ".join([f"*a{i - 1}"] * 9) + "]}" if merge else "[" + ", ".join([f"*a{i - 1}"] * 9) + "]") for i in range(1, levels)]
    return "\n".join([*lines, f"seed: *a{levels - 1}", f"limit: *a{levels - 1}"]).encode()


PROFILES = [path.read_bytes() for path in sorted((PROJECT/"reports"/"profiles").glob("*.yaml"))]
ODD_YAML = [aliases(9), aliases(8, merge=True), b"- " * 50_000 + b"1", b"seed: 2001-99-99", b"seed: 0x" + b"f" * 9000, b"? [1]\n: 2", b"bone_age: {scales: {1: 2}}", b"seed: !!python/object/apply:os.getcwd []",
            b"seed: .nan", b"bone_age: {schedule: {learning_rate: .inf}}", b"seed: &a [*a]", b"a: b: c", b"\x80", b"--- 1\n--- 2", b"%YAML 9.9\n---\n"]
LABELS = [[list(dialect.columns), *[[str(i), sex, *["100", "120"][:len(dialect.ages)]] for i, sex in enumerate(["M", "F"])]] for dialect in DIALECTS]
LABELS[0][1:] = [["1377", "True", "180"], ["1378", "False", "12"]]
POINTS = [["id", *POINT_COLUMNS], ["1", *"123456"], ["2", *["" for _ in POINT_COLUMNS]]]
THEIRS = [["id", "middle_finger4_x", "middle_finger4_y", "middle_tip_x", "capitate_x", "thumb4_y"], ["1", "2", "3", "4", "5", "6"]]


def write_saved(folder: Path) -> Path:
    "Small networks, a checkpoint and candidates as the library writes them"
    write_tiny_models(folder)
    write_checkpoint(folder/"fit.safetensors", Checkpoint(2, nn.Linear(2, 3).state_dict(), {}, [{"loss": 1.0}], {"data": "x"}))
    write_candidates(folder/"waiting.npz", [MaskCandidate("1", as_bits(RADIOGRAPH, 8), DISC, 0.5)])
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path: return write_saved(tmp_path_factory.mktemp("saved"))


def onnx_bytes() -> bytes:
    "A model that doubles a picture"
    onnx = pytest.importorskip("onnx")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 1, 4, 4]) for name in ("image", "answer")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["image", "image"], ["answer"])], "double", ends[:1], ends[1:])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


# ------------------------------------------------------------------ readers, and what they promise

def is_radiograph_array(image): return image.dtype == np.float32 and image.ndim == 2 and 0 <= image.min() < image.max() <= 1
def is_mask(mask): return mask.dtype == bool and mask.ndim == 2
def are_annotations(notes): return all(type(a.id) is str and a.id and a.points.shape == (3, 2) and (a.mask is None or is_mask(a.mask) and a.mask.shape == a.shape) for a in notes)
def are_points(table): return list(table) == ["id", *POINT_COLUMNS] and not np.isinf(table[list(POINT_COLUMNS)].to_numpy(float)).any() and table.id.is_unique
def are_labels(table): return list(table) == ["id", "sex", "bone_age"] and table.sex.isin(["M", "F"]).all() and table.id.is_unique and (table.bone_age.isna() | table.bone_age.between(0, 240)).all()
def are_rules(rules): return all(isinstance(rule, EnsembleRule) and all(isinstance(m, str) for m in rule.members) and np.isfinite(rule.weights).all() for rule in rules.values())
def is_network(read): return isinstance(read[0], nn.Module) and isinstance(read[1], dict) and all(p.isfinite().all() for p in read[0].parameters())
def are_candidates(found): return all(c.mask.dtype == bool and c.mask.shape == c.image.shape[:2] for c in found)
def are_decisions(found): return all(isinstance(i, str) and (isinstance(d, str) or is_mask(d)) for i, d in found.items())
def are_review_labels(found): return all(len(key) == 2 and verdict in DecisionLog.REVIEW_LABELS for key, verdict in found.items())
def are_sexes(found): return set(found.values()) <= {"M", "F"}


@dataclass(frozen=True)
class Reader:
    "A way to read files"
    read: Callable          # of a path
    promises: Callable      # whether what it gives is what it promises
    errors: tuple           # the types of what it may raise, no others, not even their subclasses
    name: str               # of the file
    contents: Callable      # a strategy of the file's bytes, made from the folder `saved`
    beside: dict            # further files: name → strategy made from that folder


def reader(read, promises, errors, name, contents, **beside): return Reader(read, promises, errors if isinstance(errors, tuple) else (errors,), name, contents, beside)


def whole(*names): return lambda saved: st.sampled_from([(saved/name).read_bytes() for name in names])
def configs(*names): return lambda saved: json_files([json.loads((saved/name).read_text()) for name in names])


UNET, AGES = "models/segmentation", "models/registered-carpals-both-classification"
READERS = {
    "PNG": reader(read_radiograph, is_radiograph_array, RadiographError, "a.png", lambda saved: damaged(pictures(".png")).map(with_checksums) | damaged(pictures(".png"))),
    "JPEG": reader(read_radiograph, is_radiograph_array, RadiographError, "a.jpg", lambda saved: damaged(pictures(".jpg", [8]))),
    "TIFF": reader(read_radiograph, is_radiograph_array, RadiographError, "a.tif", lambda saved: damaged(pictures(".tif"))),
    "mask": reader(read_mask, is_mask, RadiographError, "a.png", lambda saved: damaged(pictures(".png") + pictures(".tif") + pictures(".jpg", [8])).map(lambda data: with_checksums(data) if data[1:4] == b"PNG" else data)),
    "DICOM": reader(read_radiograph, is_radiograph_array, RadiographError, "a.dcm", lambda saved: odd_dicom() | damaged([dicom_bytes(8, s) for s in SYNTAXES] + [dicom_bytes(16)])),
    "DICOM's sex": reader(read_dicom_sex, lambda sex: sex in ("M", "F", None), RadiographError, "a.dcm", lambda saved: odd_dicom() | damaged([dicom_bytes(8, PatientSex="F")])),
    "labelme": reader(read_annotations, are_annotations, AnnotationError, "7.json", lambda saved: json_files([to_labelme(a, "7.png") for a in (NOTE, RING)])),
    "Supervisely": reader(read_annotations, are_annotations, AnnotationError, "7.png.json", lambda saved: json_files([to_supervisely(a) for a in (NOTE, RING)])),
    "COCO": reader(read_annotations, are_annotations, AnnotationError, "coco.json", lambda saved: json_files([to_coco([NOTE]), to_coco([NOTE, RING])])),
    "key points": reader(read_key_points, are_points, AnnotationError, "keypoints.csv", lambda saved: table_files([POINTS, THEIRS])),
    "label table": reader(read_labels, are_labels, CohortError, "train.csv", lambda saved: table_files(LABELS)),
    "label table, leniently": reader(lambda path: read_labels(path, []), are_labels, CohortError, "train.csv", lambda saved: table_files(LABELS)),
    "table of sexes": reader(read_sexes, are_sexes, ValueError, "sex.csv", lambda saved: table_files(LABELS)),
    "verdicts": reader(read_decisions, are_decisions, ValueError, "verdicts.csv", lambda saved: table_files([[["id", "verdict"], ["1", "accept"], ["2", "reject"]]])),
    "decision log": reader(lambda path: DecisionLog(path)._labels, are_review_labels, ValueError, "log.csv", lambda saved: table_files([[["id", "mask", "verdict"], ["1", "0123456789ab", "accept"]]])),
    "waiting masks": reader(read_candidates, are_candidates, ValueError, "log.waiting.npz", lambda saved: damaged([(saved/"waiting.npz").read_bytes()])),
    "profile": reader(load_profile, lambda profile: isinstance(profile, Profile), ProfileError, "a.yaml",
                      lambda saved: json_files([yaml.safe_load(text) for text in PROFILES]) | damaged(PROFILES) | st.sampled_from(ODD_YAML)),
    "voting rules": reader(read_ensemble_rules, are_rules, EnsembleRuleError, "ensembles.json", configs("models/ensembles.json")),
    "weights": reader(lambda path: load_network(path.parent), is_network, WeightsError, "model.safetensors",
                      lambda saved: weights_files([(saved/UNET/"model.safetensors").read_bytes()]), **{"config.json": whole(UNET + "/config.json")}),
    "network's config": reader(lambda path: load_network(path.parent), is_network, WeightsError, "config.json",
                               configs(AGES + "/config.json"), **{"model.safetensors": whole(AGES + "/model.safetensors")}),
    "ONNX's config": reader(read_config, lambda config: isinstance(config, dict), WeightsError, "config.json", configs(UNET + "/config.json", AGES + "/config.json")),
    "ONNX": reader(OnnxNetwork, lambda network: network.input and network.outputs, WeightsError, "model.onnx", lambda saved: damaged([onnx_bytes()])),
    "checkpoint": reader(read_checkpoint, lambda made: isinstance(made, Checkpoint), CheckpointError, "fit.safetensors", lambda saved: weights_files([(saved/"fit.safetensors").read_bytes()])),
}


# ------------------------------------------------------------------ the check

@pytest.fixture(scope="module")
def tally(request):
    "Inputs of each reader: how many, how many of them were read, the slowest; printed at the end, and written to FUZZ_OUT where that is set and nothing failed"
    counts, began = {}, time.monotonic()
    yield counts
    out, memory = os.environ.get("FUZZ_OUT"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if out and not request.session.testsfailed and set(counts) == set(READERS):
        rows = [dict(reader=name, inputs=told.total(), read=told["read"], refused=told["refused"], slowest=round(slowest, 3)) for name, (told, slowest) in counts.items()]
        Path(out).write_text(json.dumps(dict(machine=machine(), seconds=round(time.monotonic() - began), memory=round(memory, 3), rows=rows), indent=1) + "\n")
    print("\n| reader | inputs | read | refused | slowest, s |\n|:--|--:|--:|--:|--:|")
    for name, (told, slowest) in counts.items(): print(f"| {name} | {told.total():,} | {told['read']:,} | {told['refused']:,} | {slowest:.2f} |")
    print(f"| all | {sum(told.total() for told, _ in counts.values()):,} | | | peak memory {memory:.2f} GB |")


@pytest.fixture
def bounded():
    "Memory that is asked for beyond MEMORY is not given, where the system says how much there is already; what takes too long is ended"
    before, sizes = resource.getrlimit(resource.RLIMIT_AS), Path("/proc/self/statm")
    if sizes.exists(): resource.setrlimit(resource.RLIMIT_AS, (int(sizes.read_text().split()[0]) * resource.getpagesize() + MEMORY, before[1]))
    handler = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"took more than {SECONDS} seconds"))
    yield
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, before)


def files_for(asked: Reader, saved: Path):
    "What a reader is shown: name → contents"
    return st.fixed_dictionaries({asked.name: asked.contents(saved)} | {other: made(saved) for other, made in asked.beside.items()})


def check(asked: Reader, path: Path) -> str:
    "Read a file; whether it was read or refused"
    signal.alarm(SECONDS)
    try: found = asked.read(path)
    except Exception as error:
        if type(error) not in asked.errors: raise
        text, longest = str(error).replace(str(path), "…"), 1500
        assert 10 < len(text) < longest and ("…" in text or str(path.parent) in text) and "Traceback" not in text, text
        assert text.count("\n") <= (10 if type(error) is CohortError else 0), text
        return "refused"
    finally: signal.alarm(0)
    assert asked.promises(found)
    return "read"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_reader_returns_valid_data_or_raises_its_error(name, saved, tmp_path, tally, bounded):
    asked, random = READERS[name], "FUZZ_INPUTS" in os.environ
    if name == "ONNX": pytest.importorskip("onnxruntime")
    files = files_for(asked, saved)
    told, slowest = Counter(), [0.0]
    tally[name] = told, 0.0

    @settings(max_examples=-(-INPUTS // len(READERS)), derandomize=not random, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=random)
    @given(files)
    def each(contents):
        for other, content in contents.items(): (tmp_path/other).write_bytes(content)
        began = time.monotonic()
        told[check(asked, tmp_path/asked.name)] += 1
        slowest[0] = max(slowest[0], time.monotonic() - began)
        tally[name] = told, slowest[0]

    each()


class Trap:
    "Whoever unpickles it leaves a file behind"
    def __init__(self, path): self.path = path
    def __reduce__(self): return Path.touch, (self.path,)


@pytest.mark.parametrize("name", READERS)
def test_reader_never_executes_file_contents(name, tmp_path):
    asked, sprung = READERS[name], tmp_path/"sprung"
    if name == "ONNX": pytest.importorskip("onnxruntime")
    for other in (asked.name, *asked.beside): (tmp_path/other).write_bytes(pickle.dumps(Trap(sprung)))
    assert check(asked, tmp_path/asked.name) == ("read" if name == "DICOM's sex" else "refused")
    assert not sprung.exists()
    pickle.loads((tmp_path/asked.name).read_bytes())
    assert sprung.exists()
