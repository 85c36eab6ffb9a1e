"Reading files as they occur in practice: wrong headers, several pages, damage inside, odd names"
import io
import struct

import cv2
import numpy as np
import pytest

from boneage.radiographs import (
    FIGURE_MARK,
    RadiographError,
    find_radiographs,
    open_radiograph,
    read_dicom_sex,
    read_mask,
    read_radiograph,
)

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import JPEGBaseline8Bit, JPEGLSLossless, RLELossless  # noqa: E402
from test_radiographs import (  # noqa: E402
    as_bits,
    dicom,
    png_chunk,
    radiograph,  # noqa: F401
    save,
    save_dicom,
    write_tiff,
)


def codes(path) -> list[str]: return [warning.code for warning in open_radiograph(path).warnings]


# ------------------------------------------------------------------ headers

EMPTY_OR_WRONG = {
    "empty rescaling": dict(RescaleSlope=None, RescaleIntercept=None),
    "slope of zero": dict(RescaleSlope=0, RescaleIntercept=0),
    "slope alone": dict(RescaleSlope=2),
    "huge slope": dict(RescaleSlope="1e308", RescaleIntercept="0"),
    "empty window": dict(WindowCenter=None, WindowWidth=None),
    "window without width": dict(WindowCenter=2048),
    "width of zero": dict(WindowCenter=2048, WindowWidth=0),
    "negative width": dict(WindowCenter=2048, WindowWidth=-100),
    "first window wrong": dict(WindowCenter=[5, 2048], WindowWidth=[0, 4096]),
    "window beside the pixels": dict(WindowCenter=-9000, WindowWidth=100),
    "empty function": dict(WindowCenter=2048, WindowWidth=4096, VOILUTFunction=""),
    "unknown function": dict(WindowCenter=2048, WindowWidth=4096, VOILUTFunction="CUBIC"),
    "empty tables": dict(VOILUTSequence=[], ModalityLUTSequence=[]),
    "table without data": dict(VOILUTSequence=[Dataset()]),
    "no bits stored": dict(BitsStored=None),
    "more bits stored than allocated": dict(BitsStored=17),
    "fewer bits stored than used": dict(BitsStored=10),
    "no bits allocated": dict(BitsAllocated=None),
    "no samples": dict(SamplesPerPixel=None),
    "no representation": dict(PixelRepresentation=None),
    "no photometric interpretation": dict(PhotometricInterpretation=None),
    "photometric interpretation in small letters": dict(PhotometricInterpretation="Monochrome2"),
    "unknown photometric interpretation": dict(PhotometricInterpretation="GREY"),
    "palette without colours": dict(PhotometricInterpretation="PALETTE COLOR"),
}


def written(path, header):
    "Write a data set whose entries may be wrong"
    if not isinstance(header.BitsStored, int): del header.HighBit
    header.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("entries", EMPTY_OR_WRONG.values(), ids=EMPTY_OR_WRONG)
def test_wrong_headers_around_good_pixels(tmp_path, radiograph, entries):  # noqa: F811
    "Viewers ignore such entries; the whole range is displayed"
    header = dicom(as_bits(radiograph, 12), BitsStored=12)
    for name, value in entries.items(): setattr(header, name, value)
    path = written(tmp_path/"hand.dcm", header)
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=1e-3)
    assert set(codes(path)) == {"header"}


def test_decimal_commas_in_a_window(tmp_path, radiograph):  # noqa: F811
    header = dicom(as_bits(radiograph, 12), BitsStored=12, WindowCenter=1024.5, WindowWidth=2048.5)
    right = read_radiograph(path := save_dicom(tmp_path/"hand.dcm", header))
    path.write_bytes(path.read_bytes().replace(b"1024.5", b"1024,5").replace(b"2048.5", b"2048,5"))
    np.testing.assert_array_equal(read_radiograph(path), right)
    path.write_bytes(path.read_bytes().replace(b"1024,5", b"bright"))
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=1e-3)
    assert codes(path) == ["header"]


@pytest.mark.parametrize("name", ["Rows", "SamplesPerPixel", "BitsAllocated"])
def test_headers_that_are_right_give_no_warning(tmp_path, radiograph, name):  # noqa: F811
    path = save_dicom(tmp_path/"hand.dcm", dicom(as_bits(radiograph, 12), BitsStored=12))
    assert codes(path) == [] and name in pydicom.dcmread(path)


def test_bits_in_use(tmp_path, radiograph):  # noqa: F811
    "12-bit numbers in files of 16 bits fill the range of greys, whatever bits its header claims"
    stored = as_bits(radiograph, 12)
    paths = [save(tmp_path/"hand.png", stored), save(tmp_path/"hand.tif", stored),
             save_dicom(tmp_path/"hand.dcm", dicom(stored))]
    for path in paths: np.testing.assert_allclose(read_radiograph(path), radiograph, atol=2e-4)


@pytest.mark.parametrize("entries", [
    dict(RescaleSlope=1, RescaleIntercept=0), dict(RescaleSlope=1, RescaleIntercept=-1024),
    dict(RescaleSlope="-1", RescaleIntercept="4095"), dict(WindowCenter=-30000, WindowWidth=10)])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_bits_in_use_without_a_window(tmp_path, radiograph, entries, dtype):  # noqa: F811
    "Rescaled and signed numbers of 12 bits fill the range of greys, too"
    stored = as_bits(radiograph, 12).astype(dtype)
    if entries.get("RescaleSlope") == "-1": stored = 4095 - stored
    path = save_dicom(tmp_path/"hand.dcm", dicom(stored, **entries))
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=2e-4)
    if dtype == np.uint16: return
    path = save_dicom(tmp_path/"hand.dcm", dicom(stored - 2048, **entries))
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=2e-4)


WIDE = {"of 16 bits": dict(WindowCenter=32768, WindowWidth=65536),
        "of 14 bits": dict(WindowCenter=8192, WindowWidth=16384),
        "exact": dict(WindowCenter=32768, WindowWidth=65536, VOILUTFunction="LINEAR_EXACT"),
        "padded": dict(WindowCenter=32768, WindowWidth=65536, PixelPaddingValue=65535)}


@pytest.mark.parametrize("entries", WIDE.values(), ids=WIDE)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_window_far_wider_than_the_pixels(tmp_path, radiograph, entries, photometric):  # noqa: F811
    "It leaves 16 to 64 of 256 greys"
    stored = as_bits(radiograph, 12)
    if photometric == "MONOCHROME1": stored = 4095 - stored
    path = save_dicom(tmp_path/"hand.dcm", dicom(stored, PhotometricInterpretation=photometric, **entries))
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=1e-3)
    assert codes(path) == ["header"]


def test_pixels_far_from_zero_without_a_window(tmp_path, radiograph):  # noqa: F811
    path = save_dicom(tmp_path/"hand.dcm", dicom(as_bits(radiograph, 12) + np.uint16(30000)))
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=1e-3)
    assert codes(path) == ["header"]
    faint = as_bits(radiograph, 8)//8 + np.uint8(100)  # it has as few greys itself
    path = save_dicom(tmp_path/"faint.dcm", dicom(faint))
    np.testing.assert_allclose(read_radiograph(path), faint/255, atol=1e-3)
    assert codes(path) == []


@pytest.mark.parametrize("entries", [
    dict(PixelPaddingValue=65535), dict(PixelPaddingValue=65530, PixelPaddingRangeLimit=65535),
    dict(PixelPaddingValue=65535, BitsStored=12), dict(PixelPaddingValue=-32768),
    dict(PixelPaddingValue=0, WindowCenter=2048, WindowWidth=4096)])
def test_padding_around_the_image_is_black(tmp_path, radiograph, entries):  # noqa: F811
    "Its value, far from those of the image, does not darken the image"
    stored, expected, value = as_bits(radiograph, 12), radiograph.copy(), entries["PixelPaddingValue"]
    if value < 0: stored = stored.astype(np.int16)
    stored[:, :9], expected[:, :9] = max(value, entries.get("PixelPaddingRangeLimit", value)), 0
    path = save_dicom(tmp_path/"hand.dcm", dicom(stored, **entries))
    np.testing.assert_allclose(read_radiograph(path), expected, atol=3e-4)
    assert codes(path) == []


@pytest.mark.parametrize("kind,number", [(np.int16, 2), (np.uint32, 1), (np.int32, 2), (np.float32, 3)])
def test_tiff_of_whole_numbers_of_any_type(tmp_path, radiograph, kind, number):  # noqa: F811
    "ImageJ writes 32 bits, ITK signed numbers"
    path = write_tiff(tmp_path/"hand.tif", as_bits(radiograph, 12).astype(kind), sample_format=number)
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=2e-4)


def test_segmentations_are_no_radiographs(tmp_path, radiograph):  # noqa: F811
    path = save_dicom(tmp_path/"mask.dcm", dicom(np.uint8(radiograph > .5), Modality="SEG"))
    with pytest.raises(RadiographError, match="with a segmentation"): read_radiograph(path)


SYNTAXES = "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.110", "1.2.840.113619.5.2"


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_unknown_compression_is_a_sentence(tmp_path, radiograph, syntax):  # noqa: F811
    "Damaged high-throughput JPEG 2000, JPEG XL, and a private syntax"
    header = dicom(as_bits(radiograph, 8))
    header.file_meta.TransferSyntaxUID = written = "1.2.840.10008.1.2.4.100"  # replaced below
    header.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(range(100))])
    path = save_dicom(tmp_path/"hand.dcm", header)
    assert path.read_bytes().count(written.encode()) == 1
    path.write_bytes(path.read_bytes().replace(written.encode(), syntax.ljust(len(written), "\0").encode()))
    with pytest.raises(RadiographError, match="hand.dcm"): read_radiograph(path)


SEXES = {"F": "F", "f": "F", " F": "F", "Female": "F", "M ": "M", "male": "M", "O": None, "": None,
         "X": None, "M\\F": None}


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("entry", SEXES)
def test_sex_in_the_header(tmp_path, radiograph, entry):  # noqa: F811
    header = dicom(as_bits(radiograph, 8))
    header.PatientSex = "QQQQQQ"
    path = save_dicom(tmp_path/"hand.dcm", header)
    path.write_bytes(path.read_bytes().replace(b"QQQQQQ", entry.ljust(6).encode()))
    assert read_dicom_sex(path) == open_radiograph(path).sex == SEXES[entry]
    assert codes(path) == (["sex"] if entry in ("X", "M\\F") else [])


# ------------------------------------------------------------------ pages, damage, compression

def test_compressed_dicom_cut_short(tmp_path, radiograph):  # noqa: F811
    "Of such a file, pydicom reads nothing at all"
    header = dicom(as_bits(radiograph, 12), BitsStored=12)
    header.compress(RLELossless, generate_instance_uid=False)
    path = save_dicom(tmp_path/"hand.dcm", header)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(RadiographError, match="its end is missing"): read_radiograph(path)


def png_of(*channels): return cv2.imencode(".png", np.dstack(channels))[1].tobytes()


def test_transparent_pixels_are_black(tmp_path, radiograph):  # noqa: F811
    "Under them, programs leave any colour"
    grey = as_bits(radiograph, 8)
    opaque = np.where(np.arange(88) < 9, 0, 255)*np.ones_like(grey)
    hidden = np.where(opaque, grey, 255).astype(np.uint8)
    (tmp_path/"border.png").write_bytes(png_of(hidden, hidden, hidden, opaque.astype(np.uint8)))
    shown = read_radiograph(tmp_path/"border.png")
    np.testing.assert_allclose(shown, np.where(opaque, grey/255, 0), atol=.01)
    assert codes(tmp_path/"border.png") == ["transparent"]
    (tmp_path/"border.png").write_bytes(png_of(grey, grey, grey, np.full_like(grey, 255)))
    assert codes(tmp_path/"border.png") == []
    for colour in (0, 255):  # a mask whose shape is in its opacity
        flat = np.full_like(grey, colour)
        (tmp_path/"mask.png").write_bytes(png_of(flat, flat, flat, np.uint8(radiograph > .5)*np.uint8(255)))
        np.testing.assert_array_equal(read_mask(tmp_path/"mask.png"), radiograph > .5)


def test_what_a_decoder_prints_is_no_message(tmp_path, radiograph, capfd):  # noqa: F811
    "A wrong colour profile, and a chunk of Apple's before the header"
    whole = cv2.imencode(".png", as_bits(radiograph, 8))[1].tobytes()
    (tmp_path/"hand.png").write_bytes(whole[:33] + png_chunk(b"iCCP", b"x\0\0junk") + whole[33:])
    assert codes(tmp_path/"hand.png") == []
    (tmp_path/"hand.png").write_bytes(whole[:8] + png_chunk(b"CgBI", bytes(4)) + whole[8:])
    with pytest.raises(RadiographError, match="header does not come first"): codes(tmp_path/"hand.png")
    assert capfd.readouterr().err == ""


def test_largest_page_of_a_tiff(tmp_path, radiograph):  # noqa: F811
    stored = as_bits(radiograph, 16)
    for order in ([stored[::4, ::4], stored], [stored, stored[::4, ::4]], [stored[::3], stored, stored[::2]]):
        data = cv2.imencodemulti(".tif", [np.ascontiguousarray(page) for page in order])[1].tobytes()
        (tmp_path/"pages.tif").write_bytes(data)
        np.testing.assert_allclose(read_radiograph(tmp_path/"pages.tif"), radiograph, atol=1e-5)
        assert codes(tmp_path/"pages.tif") == ["pages"]
    assert codes(save(tmp_path/"one.tif", stored)) == []


def test_tiff_whose_pages_point_to_each_other(tmp_path, radiograph):  # noqa: F811
    path = write_tiff(tmp_path/"hand.tif", as_bits(radiograph, 8))
    data = path.read_bytes()
    first, = struct.unpack_from("<I", data, 4)
    path.write_bytes(data[:-4] + struct.pack("<I", first))
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=.005)
    assert codes(path) == []


def test_first_frame_of_a_dicom_file(tmp_path, radiograph):  # noqa: F811
    stored = as_bits(radiograph, 12)
    frames = dicom(np.stack([stored, stored*0, stored*0]), BitsStored=12, NumberOfFrames=3)
    path = save_dicom(tmp_path/"frames.dcm", frames)
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=2e-4)
    assert codes(path) == ["pages"]


def jpeg_with(change, smooth):
    "A JPEG whose compressed pixels are changed"
    data = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    start = len(data)//3
    return data[:start] + change(data[start:-2]) + data[-2:]


DAMAGE = {"gap": lambda pixels: pixels[:20] + pixels[120:],
          "zeros": lambda pixels: pixels[:20] + bytes(100) + pixels[120:],
          "noise": lambda pixels: pixels[:20] + bytes(range(1, 101)) + pixels[120:],
          "end": lambda pixels: pixels[:20]}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_jpeg_damaged_inside(tmp_path, radiograph, change, capfd):  # noqa: F811
    noise = np.random.default_rng(0).normal(0, 9, (360, 264))
    image = np.uint8(np.clip(np.kron(as_bits(radiograph, 8), np.ones((3, 3))) + noise, 0, 255))
    (tmp_path/"hand.jpg").write_bytes(jpeg_with(change, image))
    assert codes(tmp_path/"hand.jpg") == ["damaged"]
    (tmp_path/"hand.jpg").write_bytes(jpeg_with(bytes, image))
    assert codes(tmp_path/"hand.jpg") == []
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_jpeg_damaged_inside_a_dicom_file(tmp_path, radiograph, change, capfd):  # noqa: F811
    "Damaged pixels are refused or warned of"
    pytest.importorskip("PIL")
    noise = np.random.default_rng(0).normal(0, 9, (360, 264))
    image = np.uint8(np.clip(np.kron(as_bits(radiograph, 8), np.ones((3, 3))) + noise, 0, 255))
    for damage, expected in ((change, ["damaged"]), (bytes, [])):
        header = dicom(image)
        header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        header.PixelData = encapsulate([jpeg_with(damage, image)])
        path = save_dicom(tmp_path/"hand.dcm", header)
        try: assert codes(path) == expected
        except RadiographError as error: assert expected and "can't be decoded" in str(error)
    assert capfd.readouterr().err == ""


def test_jpeg_lossless_and_jpeg_ls(tmp_path, radiograph):  # noqa: F811
    "Both are read by the packages of the extra `dicom`"
    jpegls = pytest.importorskip("jpeg_ls", reason="pyjpegls, which reads JPEG-LS, is not installed")
    stored = as_bits(radiograph, 12)
    header = dicom(stored, BitsStored=12)
    header.file_meta.TransferSyntaxUID = JPEGLSLossless
    header.PixelData = encapsulate([bytes(jpegls.encode_array(stored))])
    path = save_dicom(tmp_path/"hand.dcm", header)
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=2e-4)


def lossless_jpeg(stored, bits):
    "A lossless JPEG (process 14, first predictor) whose Huffman codes all have five bits"
    height, width = stored.shape
    padded = np.pad(stored.astype(np.int64), ((1, 0), (1, 0)))
    padded[0, 1:], padded[1:, 0] = 0, padded[:-1, 1]  # the first pixel of a row is predicted by that above
    padded[1, 0] = 1 << bits - 1
    differences = (padded[1:, 1:] - padded[1:, :-1]).ravel()
    size = np.array([int(abs(int(n))).bit_length() for n in differences])
    bitstream = "".join(f"{s:05b}" + (f"{n if n > 0 else n + (1 << s) - 1:0{s}b}" if s else "")
                        for n, s in zip(differences.tolist(), size.tolist()))
    bitstream += "1"*(-len(bitstream) % 8)
    data = int(bitstream, 2).to_bytes(len(bitstream)//8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHBBBB", bits, height, width, 1, 1, 0x11, 0)
    table = bytes([0, *(0, 0, 0, 0, 17), *[0]*11, *range(17)])
    scan = bytes([1, 1, 0, 1, 0, 0])
    def segment(marker, body): return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body
    return (b"\xff\xd8" + segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, scan) + data
            + b"\xff\xd9")


@pytest.mark.parametrize("syntax", ["57", "70"])
def test_jpeg_lossless(tmp_path, radiograph, syntax):  # noqa: F811
    "Whole archives of computed radiography are stored in this syntax"
    pytest.importorskip("gdcm", reason="python-gdcm, which reads JPEG Lossless, is not installed")
    stored = as_bits(radiograph, 12)
    header = dicom(stored, BitsStored=12)
    header.file_meta.TransferSyntaxUID = f"1.2.840.10008.1.2.4.{syntax}"
    header.PixelData = encapsulate([lossless_jpeg(stored, 12)])
    path = save_dicom(tmp_path/"hand.dcm", header)
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=2e-4)


def test_missing_decoder_is_named(tmp_path, radiograph, monkeypatch):  # noqa: F811
    from pydicom.pixels.decoders import JPEGLosslessDecoder
    monkeypatch.setattr(JPEGLosslessDecoder, "_available", {})
    header = dicom(as_bits(radiograph, 8))
    header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.57"
    header.PixelData = encapsulate([lossless_jpeg(as_bits(radiograph, 8), 8)])
    path = save_dicom(tmp_path/"hand.dcm", header)
    with pytest.raises(RadiographError, match=r"\[dicom\]"): read_radiograph(path)


# ------------------------------------------------------------------ folders

def test_content_decides_not_the_name(tmp_path, radiograph):  # noqa: F811
    stored, odd = as_bits(radiograph, 8), []
    dicom_bytes, jpeg = io.BytesIO(), cv2.imencode(".jpg", stored)[1].tobytes()
    dicom(stored).save_as(dicom_bytes, enforce_file_format=True)
    for name in ("SUBJ.CR.HAND.IMA", "Doe^Jane 1.5.2010 Hand", "IM000001", "1.2.840.113619.2.5"):
        odd.append(tmp_path/name)
        odd[-1].write_bytes(dicom_bytes.getvalue())
    for name in ("hand.jfif", "scan.dat", "hand.png.bak"):
        odd.append(tmp_path/name)
        odd[-1].write_bytes(jpeg)
    skipped = {}
    for name, content in {"notes.txt": b"bones", "DICOMDIR": dicom_bytes.getvalue(), ".hidden.png": jpeg,
                          "._hand.png": b"\0\5\x16\7", "figure.png": jpeg + FIGURE_MARK.encode()}.items():
        (tmp_path/name).write_bytes(content)
    png = cv2.imencode(".png", stored)[1].tobytes()
    (tmp_path/"figure.png").write_bytes(png[:33] + b"\0\0\0\0tEXt" + FIGURE_MARK.encode() + png[33:])
    found = find_radiographs(tmp_path, lambda path, reason: skipped.update({path.name: reason}))
    assert found == sorted(odd)
    assert skipped == {"notes.txt": "no image", "DICOMDIR": "directory of DICOM files",
                       ".hidden.png": "hidden", "figure.png": "figure of an assessment"}


OTHER_KINDS = {
    "scan.bmp": (b"BM6\0\1\0\0\0\0\0", "a BMP image"), "web.jpg": (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP image"),
    "IMG_1.HEIC": (b"\0\0\0\x18ftypheic", "a HEIF image"), "big.tif": (b"II\x2b\0\x08\0", "a BigTIFF image"),
    "hand.gif": (b"GIF89a", "a GIF image"), "hand.jxl": (b"\xff\x0a", "a JPEG XL image"),
    "hand.jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    "hand.nii": (bytes(344) + b"n+1\0", "a NIfTI volume"),
    "lfs.dcm": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    ".cloud.png.icloud": (b"bplist00", "a placeholder of iCloud"),
}


def test_images_of_other_kinds_are_named(tmp_path):
    "None is passed over as if it were no image"
    for name, (content, _) in OTHER_KINDS.items(): (tmp_path/name).write_bytes(content.ljust(400, b"\0"))
    assert find_radiographs(tmp_path) == sorted(tmp_path.iterdir())
    for name, (_, kind) in OTHER_KINDS.items():
        with pytest.raises(RadiographError, match=f"{name} is {kind}.*expected a PNG"):
            read_radiograph(tmp_path/name)


def test_folders_of_the_system_are_passed_over(tmp_path, radiograph):  # noqa: F811
    "Network storage keeps small copies and deleted files beside the radiographs"
    for name in ("1.png", "@eaDir/1.png/SYNOPHOTO_THUMB_XL.png", "#recycle/2.png", "$RECYCLE.BIN/3.png",
                 "__MACOSX/._1.png", "sub/@eaDir/4.png", "__patients/5.png"):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path/name, as_bits(radiograph, 8))
    skipped = {}
    found = find_radiographs(tmp_path, lambda path, reason: skipped.update({path.name: reason}))
    assert [path.name for path in found] == ["1.png", "5.png"]
    folders = ["@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX"]
    assert skipped == dict.fromkeys(folders, "folder of the system")


def test_linked_and_unreadable_folders(tmp_path, radiograph, monkeypatch):  # noqa: F811
    outside, inside = tmp_path/"outside", tmp_path/"inside"
    for folder in (outside, inside/"locked"): folder.mkdir(parents=True)
    save(outside/"1.png", as_bits(radiograph, 8))
    save(inside/"locked"/"2.png", as_bits(radiograph, 8))
    (inside/"linked").symlink_to(outside)
    (outside/"back").symlink_to(inside)
    skipped = {}
    assert [path.name for path in find_radiographs(inside)] == ["1.png", "2.png"]
    scandir = __import__("os").scandir
    def locked(folder):
        if str(folder).endswith("locked"): raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)
    monkeypatch.setattr("os.scandir", locked)
    found = find_radiographs(inside, lambda path, reason: skipped.update({path.name: reason}))
    assert [path.name for path in found] == ["1.png"]
    assert isinstance(skipped["locked"], PermissionError)
