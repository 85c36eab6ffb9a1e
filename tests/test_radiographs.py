"Reading every supported kind of image file, and rejecting every kind of damaged one"
import io
import struct
import zlib

import cv2
import numpy as np
import pytest

from boneage.files import publish
from boneage.radiographs import (
    MAX_PIXELS,
    RadiographError,
    find_radiographs,
    read_dicom_sex,
    read_mask,
    read_radiograph,
    write_mask,
    write_radiograph,
)

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)


@pytest.fixture(scope="module")
def radiograph():
    "A smooth asymmetric synthetic radiograph (H, W) that uses the whole range [0, 1]"
    y, x = np.mgrid[:120, :88] / 120
    image = .3*x + .2*y + np.exp(-((x - .3)/.2)**2 - ((y - .5)/.3)**2)
    return (image - image.min()) / np.ptp(image)


def as_bits(radiograph, bits):
    return np.rint(radiograph * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def save(path, image, *options):
    path.write_bytes(cv2.imencode(path.suffix, image, list(options))[1])
    return path


def write_tiff(path, image, photometric=1, orientation=1, sample_format=1):
    "Write an uncompressed TIFF with tags that OpenCV does not write"
    data, (height, width) = image.tobytes(), image.shape
    tags = {256: width, 257: height, 258: 8*image.itemsize, 259: 1, 262: photometric, 273: 8,
            274: orientation, 277: 1, 278: height, 279: len(data), 339: sample_format}
    table = tag_table(tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + table)
    return path


def tag_table(tags):
    "A TIFF's table of tags, each with one number"
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<H", len(tags)) + entries + bytes(4)


# ------------------------------------------------------------------ PNG, JPEG, TIFF

COLOURS = {
    "grey": lambda a: a,
    "rgb": lambda a: np.dstack([a]*3),
    "rgba": lambda a: np.dstack([a]*3 + [np.full_like(a, np.iinfo(a.dtype).max)]),
}


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
def test_lossless_files_keep_every_grey(tmp_path, radiograph, suffix, bits, colour):
    stored, largest = as_bits(radiograph, bits), 2**bits - 1
    image = read_radiograph(save(tmp_path/f"hand{suffix}", COLOURS[colour](stored)))
    assert image.dtype == np.float32 and image.shape == radiograph.shape
    np.testing.assert_allclose(image, stored / largest, atol=2e-7 if colour == "grey" else 1.01/largest)


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_jpeg(tmp_path, radiograph, suffix, colour, options):
    image = read_radiograph(save(tmp_path/f"hand{suffix}", COLOURS[colour](as_bits(radiograph, 8)), *options))
    np.testing.assert_allclose(image, radiograph, atol=.03)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
def test_tiff_compressions(tmp_path, radiograph, compression):
    path = save(tmp_path/"hand.tif", as_bits(radiograph, 16), cv2.IMWRITE_TIFF_COMPRESSION, compression)
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=1e-5)


def test_float_tiff(tmp_path, radiograph):
    single = radiograph.astype(np.float32)
    np.testing.assert_array_equal(read_radiograph(save(tmp_path/"hand.tif", single)), single)
    with pytest.raises(RadiographError, match="fractions from 0 to 1"):
        read_radiograph(save(tmp_path/"high.tif", single*4095))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_where_white_is_zero(tmp_path, radiograph, dtype):
    stored = as_bits(radiograph, 8*np.dtype(dtype).itemsize)
    white_is_zero = read_radiograph(write_tiff(tmp_path/"a.tif", ~stored, photometric=0))
    np.testing.assert_array_equal(white_is_zero, read_radiograph(write_tiff(tmp_path/"b.tif", stored)))


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour_type, *chunks):
    "A PNG with the header of a size and the given chunks"
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IEND", b"")


def palette_png(indices, palette, bits=8):
    "A PNG with a palette, which OpenCV does not write"
    rows = b"".join(b"\0" + (np.packbits(row) if bits == 1 else row).tobytes() for row in indices)
    chunks = png_chunk(b"PLTE", palette.tobytes()), png_chunk(b"IDAT", zlib.compress(rows))
    return png(indices.shape[1], indices.shape[0], bits, 3, *chunks)


def test_palette_png(tmp_path, radiograph):
    grey, mask = as_bits(radiograph, 8), radiograph > .5
    descending = np.repeat(np.arange(256, dtype=np.uint8)[::-1], 3)
    (tmp_path/"hand.png").write_bytes(palette_png(255 - grey, descending))
    np.testing.assert_allclose(read_radiograph(tmp_path/"hand.png"), grey/255, atol=1e-6)
    black_and_white = np.array([0, 0, 0, 255, 255, 255], np.uint8)
    (tmp_path/"mask.png").write_bytes(palette_png(mask.astype(np.uint8), black_and_white, bits=1))
    np.testing.assert_array_equal(read_mask(tmp_path/"mask.png"), mask)


ORIENTED = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.T, 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].T, 8: np.rot90,
}


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("kind", ["jpg", "tif", "tif16"])
def test_orientation_is_applied(tmp_path, radiograph, kind, orientation):
    stored = as_bits(radiograph, 16 if kind == "tif16" else 8)
    if kind == "jpg":
        exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, orientation, 0)
        data = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
        segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        (tmp_path/"hand.jpg").write_bytes(data[:2] + segment + data[2:])
        image = read_radiograph(tmp_path/"hand.jpg")
    else: image = read_radiograph(write_tiff(tmp_path/"hand.tif", stored, orientation=orientation))
    np.testing.assert_allclose(image, ORIENTED[orientation](radiograph), atol=.02)


def test_file_names_may_have_a_wrong_suffix_and_any_letters(tmp_path, radiograph):
    data = cv2.imencode(".png", as_bits(radiograph, 8))[1].tobytes()
    for name in ("hand.jpg", "main gauche é[1].png", "手.tif", "nosuffix"):
        (tmp_path/name).write_bytes(data)
        assert read_radiograph(tmp_path/name).shape == radiograph.shape
        assert read_radiograph(str(tmp_path/name)).shape == radiograph.shape


def test_bytes_after_the_end_are_ignored(tmp_path, radiograph):
    for suffix in (".png", ".jpg"):
        path = save(tmp_path/f"hand{suffix}", as_bits(radiograph, 8))
        path.write_bytes(path.read_bytes() + b"\r\n" + bytes(50))
        assert read_radiograph(path).shape == radiograph.shape


# ------------------------------------------------------------------ DICOM

def dicom(stored, syntax=ExplicitVRLittleEndian, **tags):
    "A DICOM data set around an array of stored numbers: (H, W), (H, W, 3) or (frames, H, W)"
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = DigitalXRayImageStorageForPresentation
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    colour = stored.ndim == 3 and stored.shape[-1] == 3
    header.Modality, header.PhotometricInterpretation = "DX", "RGB" if colour else "MONOCHROME2"
    header.Rows, header.Columns = stored.shape[:2] if colour else stored.shape[-2:]
    header.SamplesPerPixel = 3 if colour else 1
    if colour: header.PlanarConfiguration = 0
    header.BitsAllocated = header.BitsStored = 8*stored.itemsize
    header.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in tags.items(): setattr(header, name, value)
    header.HighBit = header.BitsStored - 1
    big = syntax == ExplicitVRBigEndian
    header.PixelData = stored.astype(stored.dtype.newbyteorder(">" if big else "<")).tobytes()
    header["PixelData"].VR = "OB" if stored.itemsize == 1 else "OW"
    return header


def structured_report(stored):
    "A DICOM data set without an image"
    report = dicom(stored, Modality="SR")
    for name in ("PixelData", "Rows", "Columns"): del report[name]
    return report


def save_dicom(path, header):
    header.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", [
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless,
])
def test_dicom_of_each_syntax_polarity_and_depth(tmp_path, radiograph, syntax, photometric, bits):
    stored, compressed = as_bits(radiograph, bits), syntax in (RLELossless, JPEG2000Lossless)
    if photometric == "MONOCHROME1": stored = (2**bits - 1 - stored).astype(stored.dtype)
    uncompressed = ExplicitVRLittleEndian if compressed else syntax
    header = dicom(stored, uncompressed, BitsStored=bits, PhotometricInterpretation=photometric)
    if compressed: header.compress(syntax, generate_instance_uid=False)
    image = read_radiograph(save_dicom(tmp_path/"hand.dcm", header))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, radiograph, atol=.51/(2**bits - 1) + 1e-6)


def test_dicom_jpeg_baseline(tmp_path, radiograph):
    pytest.importorskip("PIL")  # one of the decoders of this syntax; seaborn's matplotlib brings it
    header = dicom(as_bits(radiograph, 8))
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    jpeg = cv2.imencode(".jpg", as_bits(radiograph, 8), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    header.PixelData = encapsulate([jpeg])
    np.testing.assert_allclose(read_radiograph(save_dicom(tmp_path/"hand.dcm", header)), radiograph, atol=.01)


def test_dicom_signed(tmp_path, radiograph):
    stored = as_bits(radiograph, 12).astype(np.int16) - 2048
    path = save_dicom(tmp_path/"hand.dcm", dicom(stored, BitsStored=12))
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=2e-4)


@pytest.mark.parametrize("slope,intercept", [(1, 0), (2.5, -1000), (-1, 4095)])
def test_dicom_rescale_and_window(tmp_path, radiograph, slope, intercept):
    "A window in rescaled numbers follows the standard's formula (PS3.3 C.11.2.1.2.1) for each slope"
    stored = as_bits(radiograph, 12)
    rescaled = stored.astype(float)*slope + intercept
    centre, width = round(rescaled.mean(), 2), round(np.ptp(rescaled)/2, 2)
    header = dicom(stored, BitsStored=12, RescaleSlope=slope, RescaleIntercept=intercept,
                   WindowCenter=centre, WindowWidth=width)
    expected = np.clip((rescaled - (centre - .5))/(width - 1) + .5, 0, 1)
    np.testing.assert_allclose(read_radiograph(save_dicom(tmp_path/"hand.dcm", header)), expected, atol=2e-4)


def test_dicom_window_and_monochrome1(tmp_path, radiograph):
    stored = as_bits(radiograph, 12)
    header = dicom(4095 - stored, BitsStored=12, PhotometricInterpretation="MONOCHROME1",
                   WindowCenter=2048, WindowWidth=2048)
    expected = 1 - np.clip((4095. - stored - 2047.5)/2047 + .5, 0, 1)
    np.testing.assert_allclose(read_radiograph(save_dicom(tmp_path/"hand.dcm", header)), expected, atol=1e-4)


def test_dicom_several_windows_and_sigmoid(tmp_path, radiograph):
    stored = as_bits(radiograph, 12)
    header = dicom(stored, BitsStored=12, WindowCenter=[2048, 100], WindowWidth=[1024, 50],
                   VOILUTFunction="SIGMOID")
    image = read_radiograph(save_dicom(tmp_path/"hand.dcm", header))
    order = np.argsort(stored, axis=None)
    assert (np.diff(image.ravel()[order]) >= 0).all() and image.min() < .01 and image.max() > .99


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_dicom_voi_table(tmp_path, radiograph, depth):
    table = np.rint((np.arange(4096)/4095)**2 * (2**depth - 1)).astype(np.uint16)
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, depth], table.tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    header = dicom(as_bits(radiograph, 12), BitsStored=12, VOILUTSequence=[item])
    image = read_radiograph(save_dicom(tmp_path/"hand.dcm", header))
    np.testing.assert_allclose(image, radiograph**2, atol=.0025 if depth == 8 else 5e-4)


def test_dicom_empty_window_is_ignored(tmp_path, radiograph):
    header = dicom(as_bits(radiograph, 12), BitsStored=12, WindowCenter=None, WindowWidth=None)
    image = read_radiograph(save_dicom(tmp_path/"hand.dcm", header))
    np.testing.assert_allclose(image, radiograph, atol=2e-4)


def test_dicom_colour(tmp_path, radiograph):
    grey = as_bits(radiograph, 8)
    rgb = save_dicom(tmp_path/"rgb.dcm", dicom(np.dstack([grey]*3)))
    np.testing.assert_allclose(read_radiograph(rgb), radiograph, atol=.005)
    colours, descending = ("Red", "Green", "Blue"), np.arange(256, dtype=np.uint8)[::-1].tobytes()
    palette = {f"{colour}PaletteColorLookupTableDescriptor": [256, 0, 8] for colour in colours}
    palette |= {f"{colour}PaletteColorLookupTableData": descending for colour in colours}
    header = dicom(255 - grey, PhotometricInterpretation="PALETTE COLOR", **palette)
    image = read_radiograph(save_dicom(tmp_path/"palette.dcm", header))
    np.testing.assert_allclose(image, radiograph, atol=.005)


def test_dicom_without_signature_or_suffix(tmp_path, radiograph):
    header = dicom(as_bits(radiograph, 8))
    whole = save_dicom(tmp_path/"IM0001", header).read_bytes()
    np.testing.assert_allclose(read_radiograph(tmp_path/"IM0001"), radiograph, atol=.005)
    (tmp_path/"old.dcm").write_bytes(whole[132:])  # group 0002 is still there
    np.testing.assert_allclose(read_radiograph(tmp_path/"old.dcm"), radiograph, atol=.005)


@pytest.mark.parametrize("name", ["hand.dcm", "IM0001", "hand.img"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_dicom_without_group_0002(tmp_path, radiograph, syntax, name):
    "The data set alone, as archives of the 1990s stored it; its content tells that it is DICOM"
    whole = save_dicom(tmp_path/"whole.dcm", dicom(as_bits(radiograph, 12), syntax, BitsStored=12))
    data = whole.read_bytes()
    whole.unlink()
    (tmp_path/name).write_bytes(data[144 + struct.unpack_from("<I", data, 140)[0]:])
    np.testing.assert_allclose(read_radiograph(tmp_path/name), radiograph, atol=2e-4)
    assert find_radiographs(tmp_path) == [tmp_path/name]


def test_dicom_whose_first_bytes_imitate_a_tiff(tmp_path, radiograph):
    "The standard allows a TIFF's header in the first 128 bytes (PS3.10, 7.1)"
    path = save_dicom(tmp_path/"dual.dcm", dicom(as_bits(radiograph, 8)))
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=.005)


@pytest.mark.parametrize("tag,expected", [("F", "F"), ("M", "M"), ("O", None), ("", None), (None, None)])
def test_dicom_sex(tmp_path, radiograph, tag, expected):
    header = dicom(as_bits(radiograph, 8), **({} if tag is None else {"PatientSex": tag}))
    assert read_dicom_sex(save_dicom(tmp_path/"hand.dcm", header)) == expected


# ------------------------------------------------------------------ rejected files

def check_rejected(path, sentence):
    "Check that reading raises one sentence that names the file; return it"
    with pytest.raises(RadiographError, match=sentence) as error: read_radiograph(path)
    text = str(error.value)
    assert str(path) in text and "\n" not in text and "Traceback" not in text
    return text


def test_missing_folder_empty_and_text(tmp_path):
    check_rejected(tmp_path/"absent.png", "does not exist")
    check_rejected(tmp_path, "is a folder")
    (tmp_path/"zero.png").touch()
    check_rejected(tmp_path/"zero.png", r"is empty \(0 bytes\)")
    for name in ("text.png", "text.jpg", "text.tif"):
        (tmp_path/name).write_text("This is not an image, whatever its name says.\n"*20)
        check_rejected(tmp_path/name, "is not a PNG, JPEG, TIFF or DICOM image")
    (tmp_path/"text.dcm").write_text("This is not an image, whatever its name says.\n"*20)
    check_rejected(tmp_path/"text.dcm", "DICOM file")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".dcm"])
@pytest.mark.parametrize("share", [.02, .3, .6, .9, .995])
def test_cut_short(tmp_path, radiograph, suffix, share, capfd):
    stored, whole = as_bits(radiograph, 8), tmp_path/f"whole{suffix}"
    data = (save_dicom(whole, dicom(stored)) if suffix == ".dcm" else save(whole, stored)).read_bytes()
    (tmp_path/f"cut{suffix}").write_bytes(data[:int(len(data)*share)])
    check_rejected(tmp_path/f"cut{suffix}",
                   "cut short|damaged|without an image|can't be decoded|is not a PNG")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("at", [.3, .5, .8])
def test_damaged_png(tmp_path, radiograph, at, capfd):
    data = bytearray(save(tmp_path/"hand.png", as_bits(radiograph, 8)).read_bytes())
    data[int(len(data)*at)] ^= 0x55
    (tmp_path/"hand.png").write_bytes(data)
    check_rejected(tmp_path/"hand.png", "damaged PNG file|cut short")
    assert capfd.readouterr().err == ""


def bomb_png(): return png(50_000, 50_000, 8, 0, png_chunk(b"IDAT", zlib.compress(bytes(10**6))))


def bomb_jpeg():
    return b"\xff\xd8\xff\xc0\x00\x0b\x08" + struct.pack(">HH", 50_000, 50_000) + b"\x01\x01\x11\x00\xff\xd9"


def bomb_tiff():
    tags = {256: 50_000, 257: 50_000, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 50_000, 279: 4}
    return b"II*\0" + struct.pack("<I", 12) + bytes(4) + tag_table(tags)


def bomb_dicom():
    header, file = dicom(np.zeros((4, 4), np.uint8)), io.BytesIO()
    header.Rows = header.Columns = 50_000
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


BOMBS = {"bomb.png": bomb_png, "bomb.jpg": bomb_jpeg, "bomb.tif": bomb_tiff, "bomb.dcm": bomb_dicom}


@pytest.mark.parametrize("name,bomb", BOMBS.items())
def test_decompression_bombs_are_rejected_from_the_header(tmp_path, name, bomb):
    (tmp_path/name).write_bytes(bomb())
    sentence = check_rejected(tmp_path/name, "claims 50,000 × 50,000 pixels")
    assert sentence.endswith(f"at most {MAX_PIXELS//10**6} million are read.")


def test_deflated_dicom_that_unpacks_to_half_a_gigabyte(tmp_path, radiograph):
    header = dicom(as_bits(radiograph, 8), DeflatedExplicitVRLittleEndian)
    whole = save_dicom(tmp_path/"whole.dcm", header).read_bytes()
    start = 144 + struct.unpack_from("<I", whole, 140)[0]
    unpacked = zlib.decompress(whole[start:], -zlib.MAX_WBITS)
    large_tag = struct.pack("<HH2sHI", 0x7FE1, 0x10, b"OB", 0, 5*10**8) + bytes(5*10**8)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    (tmp_path/"large.dcm").write_bytes(whole[:start] + packer.compress(unpacked + large_tag) + packer.flush())
    check_rejected(tmp_path/"large.dcm", "would unpack to more than 200 million bytes")
    np.testing.assert_allclose(read_radiograph(tmp_path/"whole.dcm"), radiograph, atol=.005)


def test_jpeg_2000_pixels_that_claim_more_than_their_dicom_header(tmp_path, radiograph):
    header = dicom(as_bits(radiograph, 8))
    header.compress(JPEG2000Lossless, generate_instance_uid=False)
    at = header.PixelData.find(b"\xff\x4f\xff\x51") + 8
    header.PixelData = header.PixelData[:at] + struct.pack(">II", 60_000, 60_000) + header.PixelData[at + 8:]
    check_rejected(save_dicom(tmp_path/"claims.dcm", header), "claims 60,000 × 60,000 pixels")


@pytest.mark.parametrize("value", [0, 137, 255])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_constant_images_are_rejected(tmp_path, suffix, value):
    path = save(tmp_path/f"flat{suffix}", np.full((40, 30), value, np.uint8))
    check_rejected(path, "single flat grey: no radiograph")


def test_dicom_that_holds_no_radiograph(tmp_path, radiograph):
    stored = as_bits(radiograph, 8)
    check_rejected(save_dicom(tmp_path/"flat.dcm", dicom(stored*0)), "single flat grey")
    deep = dicom(stored.astype(np.uint32))
    check_rejected(save_dicom(tmp_path/"deep.dcm", deep), "32 bits per pixel; expected at most 16")
    check_rejected(save_dicom(tmp_path/"report.dcm", structured_report(stored)),
                   r"without an image \(its modality is SR\)")
    damaged = dicom(stored)
    damaged.compress(JPEG2000Lossless, generate_instance_uid=False)
    size = b"\xff\x4f\xff\x51" + struct.pack(">HHII", 41, 0, 88, 120)
    damaged.PixelData = encapsulate([size + b" this is no code stream"])
    check_rejected(save_dicom(tmp_path/"damaged.dcm", damaged), "pixels can't be decoded")
    headless = dicom(stored)
    del headless.Rows
    check_rejected(save_dicom(tmp_path/"headless.dcm", headless), "without an image")
    short = dicom(stored)
    short.PixelData = short.PixelData[:-100]
    check_rejected(save_dicom(tmp_path/"short.dcm", short), "pixels can't be decoded")


def test_dicom_without_pydicom(tmp_path, radiograph, monkeypatch):
    path = save_dicom(tmp_path/"hand.dcm", dicom(as_bits(radiograph, 8)))
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    check_rejected(path, r'pip install "\.\[dicom\]"')


def test_damaged_bytes_raise_no_other_error(tmp_path, radiograph):
    "Sixty damaged files of every kind give a radiograph or a RadiographError"
    random = np.random.default_rng(0)
    kinds = [(".png", 8), (".png", 16), (".jpg", 8), (".tif", 8), (".tif", 16)]
    sources = [cv2.imencode(suffix, as_bits(radiograph, bits))[1].tobytes() for suffix, bits in kinds]
    sources.append(save_dicom(tmp_path/"hand.dcm", dicom(as_bits(radiograph, 16))).read_bytes())
    for i in range(60):
        data = bytearray(sources[i % len(sources)])
        low, high = (4, min(len(data), 4 + 10**(1 + i % 4))) if i % 2 else (140, len(data))
        for at in random.integers(low, high, 3): data[at] = random.integers(256)
        (tmp_path/"damaged").write_bytes(data)
        try: image = read_radiograph(tmp_path/"damaged")
        except RadiographError: continue
        assert image.dtype == np.float32 and 0 <= image.min() <= image.max() <= 1


# ------------------------------------------------------------------ writing and finding

def test_round_trips(tmp_path, radiograph):
    eight, mask = as_bits(radiograph, 8), radiograph > .5
    for name, image in {"sub/hand.png": eight, "hand.png": radiograph.astype(np.float32)}.items():
        path = write_radiograph(tmp_path/name, image)
        np.testing.assert_array_equal(read_radiograph(path), eight/np.float32(255))
    np.testing.assert_array_equal(read_mask(write_mask(tmp_path/"mask.png", mask)), mask)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_atomic_write_keeps_the_old_file_on_failure(tmp_path):
    (tmp_path/"a.csv").write_text("old")
    with pytest.raises(RuntimeError), publish(tmp_path/"a.csv") as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".csv"
        temporary.write_text("new")
        raise RuntimeError
    assert (tmp_path/"a.csv").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FileNotFoundError), publish(tmp_path/"b.csv"): pass


def test_published_files_have_ordinary_permissions(tmp_path):
    "Other users of a cluster can read them, unlike Python's temporary files"
    (tmp_path/"plain").touch()
    with publish(tmp_path/"published") as temporary: temporary.touch()
    assert (tmp_path/"published").stat().st_mode == (tmp_path/"plain").stat().st_mode


def test_find_radiographs(tmp_path, radiograph):
    data = cv2.imencode(".png", as_bits(radiograph, 8))[1].tobytes()
    for name in ("b.png", "a.PNG", "deep/er/c.jpg", ".hidden/d.png", "deep/._c.jpg", "[1].png"):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/name).write_bytes(data)
    save_dicom(tmp_path/"deep/1.2.840.99", dicom(as_bits(radiograph, 8)))
    (tmp_path/"notes.txt").write_text("no")
    names = ["[1].png", "a.PNG", "b.png", "deep/1.2.840.99", "deep/er/c.jpg"]
    assert [path.relative_to(tmp_path).as_posix() for path in find_radiographs(tmp_path)] == names
    several = [tmp_path, tmp_path/"b.png", f"{tmp_path}/*.png", f"{tmp_path}/**/*.jpg"]
    assert find_radiographs(several) == find_radiographs(str(tmp_path))
    assert find_radiographs(tmp_path/"[1].png") == [tmp_path/"[1].png"]
    (tmp_path/"link.png").symlink_to(tmp_path/"b.png")
    assert len(find_radiographs(tmp_path)) == 5
    with pytest.raises(RadiographError, match="names no file or folder"):
        find_radiographs([tmp_path/"absent.png"])
    (tmp_path/"none").mkdir()
    with pytest.raises(RadiographError, match="holds no radiograph"): find_radiographs(tmp_path/"none")
