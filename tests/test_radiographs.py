"Every kind of file that a radiograph may come in, and every kind of broken one: what no single notebook can check"

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
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
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
    "A smooth synthetic plate (H, W) in [0, 1] that uses the whole range, without any symmetry"
    y, x = np.mgrid[:120, :88] / 120
    image = .3*x + .2*y + np.exp(-((x - .3)/.2)**2 - ((y - .5)/.3)**2)
    return (image - image.min()) / np.ptp(image)


def as_bits(radiograph, bits): return np.rint(radiograph * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def save(path, image, *options):
    path.write_bytes(cv2.imencode(path.suffix, image, list(options))[1])
    return path


def write_tiff(path, image, photometric=1, orientation=1):
    "An uncompressed TIFF, tag by tag, for what OpenCV does not write"
    data = image.tobytes()
    tags = {256: image.shape[1], 257: image.shape[0], 258: 8*image.itemsize, 259: 1, 262: photometric, 273: 8, 274: orientation, 277: 1, 278: image.shape[0], 279: len(data)}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + table + bytes(4))
    return path


# ------------------------------------------------------------------ pictures

COLOURS = {"grey": lambda a: a, "rgb": lambda a: np.dstack([a]*3), "rgba": lambda a: np.dstack([a]*3 + [np.full_like(a, np.iinfo(a.dtype).max)])}

@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
def test_lossless_kinds(tmp_path, radiograph, suffix, bits, colour):
    image = read_radiograph(save(tmp_path/f"hand{suffix}", COLOURS[colour](as_bits(radiograph, bits))))
    assert image.dtype == np.float32 and image.shape == radiograph.shape
    np.testing.assert_allclose(image, as_bits(radiograph, bits) / (2**bits - 1), atol=2e-7 if colour == "grey" else 1.01/(2**bits - 1))


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_jpeg(tmp_path, radiograph, suffix, colour, options):
    image = read_radiograph(save(tmp_path/f"hand{suffix}", COLOURS[colour](as_bits(radiograph, 8)), *options))
    np.testing.assert_allclose(image, radiograph, atol=.03)


@pytest.mark.parametrize("compression", [1, 5, 8, 32773])
def test_tiff_compressions(tmp_path, radiograph, compression):
    image = read_radiograph(save(tmp_path/"hand.tif", as_bits(radiograph, 16), cv2.IMWRITE_TIFF_COMPRESSION, compression))
    np.testing.assert_allclose(image, radiograph, atol=1e-5)


def test_float_tiff(tmp_path, radiograph):
    np.testing.assert_array_equal(read_radiograph(save(tmp_path/"hand.tif", radiograph.astype(np.float32))), radiograph.astype(np.float32))
    with pytest.raises(RadiographError, match="fractions from 0 to 1"): read_radiograph(save(tmp_path/"high.tif", radiograph.astype(np.float32)*4095))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_where_white_is_zero(tmp_path, radiograph, dtype):
    stored = as_bits(radiograph, 8*np.dtype(dtype).itemsize)
    np.testing.assert_array_equal(read_radiograph(write_tiff(tmp_path/"a.tif", ~stored, photometric=0)), read_radiograph(write_tiff(tmp_path/"b.tif", stored)))


def png_chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def palette_png(indices, palette, bits=8):
    "A PNG of palette colour, which OpenCV does not write"
    rows = b"".join(b"\0" + (np.packbits(row).tobytes() if bits == 1 else row.tobytes()) for row in indices)
    header = struct.pack(">IIBBBBB", indices.shape[1], indices.shape[0], bits, 3, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"PLTE", palette.tobytes()) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


def test_palette_png(tmp_path, radiograph):
    (tmp_path/"hand.png").write_bytes(palette_png(255 - as_bits(radiograph, 8), np.repeat(np.arange(256, dtype=np.uint8)[::-1], 3)))
    np.testing.assert_allclose(read_radiograph(tmp_path/"hand.png"), as_bits(radiograph, 8)/255, atol=1e-6)
    (tmp_path/"mask.png").write_bytes(palette_png((radiograph > .5).astype(np.uint8), np.array([0, 0, 0, 255, 255, 255], np.uint8), bits=1))
    np.testing.assert_array_equal(read_mask(tmp_path/"mask.png"), radiograph > .5)


ORIENTED = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.T,
            6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].T, 8: np.rot90}

@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("kind", ["jpg", "tif", "tif16"])
def test_orientation_is_obeyed(tmp_path, radiograph, kind, orientation):
    stored = as_bits(radiograph, 16 if kind == "tif16" else 8)
    if kind == "jpg":
        exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 3, 1, orientation, 0)
        data = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
        (tmp_path/"hand.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
        image = read_radiograph(tmp_path/"hand.jpg")
    else: image = read_radiograph(write_tiff(tmp_path/"hand.tif", stored, orientation=orientation))
    np.testing.assert_allclose(image, ORIENTED[orientation](radiograph), atol=.02)


def test_names_may_lie_and_have_any_letters(tmp_path, radiograph):
    data = cv2.imencode(".png", as_bits(radiograph, 8))[1].tobytes()
    for name in ("hand.jpg", "main gauche é[1].png", "手.tif", "nosuffix"):
        (tmp_path/name).write_bytes(data)
        assert read_radiograph(tmp_path/name).shape == radiograph.shape
        assert read_radiograph(str(tmp_path/name)).shape == radiograph.shape


def test_bytes_after_the_end_do_no_harm(tmp_path, radiograph):
    for suffix in (".png", ".jpg"):
        path = save(tmp_path/f"hand{suffix}", as_bits(radiograph, 8))
        path.write_bytes(path.read_bytes() + b"\r\n" + bytes(50))
        assert read_radiograph(path).shape == radiograph.shape


# ------------------------------------------------------------------ DICOM

def dicom(stored, syntax=ExplicitVRLittleEndian, **tags):
    "A data set around an array of stored numbers, (H, W), (H, W, 3) or (frames, H, W)"
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


def save_dicom(path, header):
    header.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless])
def test_dicom_matrix(tmp_path, radiograph, syntax, photometric, bits):
    stored, compressed = as_bits(radiograph, bits), syntax in (RLELossless, JPEG2000Lossless)
    if photometric == "MONOCHROME1": stored = (2**bits - 1 - stored).astype(stored.dtype)
    header = dicom(stored, ExplicitVRLittleEndian if compressed else syntax, BitsStored=bits, PhotometricInterpretation=photometric)
    if compressed: header.compress(syntax, generate_instance_uid=False)
    image = read_radiograph(save_dicom(tmp_path/"hand.dcm", header))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, radiograph, atol=.51/(2**bits - 1) + 1e-6)


def test_dicom_jpeg_baseline(tmp_path, radiograph):
    pytest.importorskip("PIL")  # one of the decoders of this syntax; seaborn's matplotlib brings it
    header = dicom(as_bits(radiograph, 8))
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    header.PixelData = encapsulate([cv2.imencode(".jpg", as_bits(radiograph, 8), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()])
    np.testing.assert_allclose(read_radiograph(save_dicom(tmp_path/"hand.dcm", header)), radiograph, atol=.01)


def test_dicom_signed(tmp_path, radiograph):
    stored = (as_bits(radiograph, 12).astype(np.int16) - 2048)
    np.testing.assert_allclose(read_radiograph(save_dicom(tmp_path/"hand.dcm", dicom(stored, BitsStored=12))), radiograph, atol=2e-4)


@pytest.mark.parametrize("slope,intercept", [(1, 0), (2.5, -1000), (-1, 4095)])
def test_dicom_rescale_and_window(tmp_path, radiograph, slope, intercept):
    "A window in rescaled numbers, by the standard's formula (PS3.3 C.11.2.1.2.1), whatever the slope"
    stored = as_bits(radiograph, 12)
    shown = stored.astype(float)*slope + intercept
    centre, width = shown.mean(), np.ptp(shown)/2
    header = dicom(stored, BitsStored=12, RescaleSlope=slope, RescaleIntercept=intercept, WindowCenter=round(centre, 2), WindowWidth=round(width, 2))
    expected = np.clip((shown - (round(centre, 2) - .5))/(round(width, 2) - 1) + .5, 0, 1)
    np.testing.assert_allclose(read_radiograph(save_dicom(tmp_path/"hand.dcm", header)), expected, atol=2e-4)


def test_dicom_window_and_monochrome1(tmp_path, radiograph):
    stored = as_bits(radiograph, 12)
    header = dicom(4095 - stored, BitsStored=12, PhotometricInterpretation="MONOCHROME1", WindowCenter=2048, WindowWidth=2048)
    expected = 1 - np.clip((4095. - stored - 2047.5)/2047 + .5, 0, 1)
    np.testing.assert_allclose(read_radiograph(save_dicom(tmp_path/"hand.dcm", header)), expected, atol=1e-4)


def test_dicom_several_windows_and_sigmoid(tmp_path, radiograph):
    stored = as_bits(radiograph, 12)
    header = dicom(stored, BitsStored=12, WindowCenter=[2048, 100], WindowWidth=[1024, 50], VOILUTFunction="SIGMOID")
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
    np.testing.assert_allclose(read_radiograph(save_dicom(tmp_path/"hand.dcm", header)), radiograph**2, atol=.0025 if depth == 8 else 5e-4)


def test_dicom_empty_window_is_none(tmp_path, radiograph):
    header = dicom(as_bits(radiograph, 12), BitsStored=12, WindowCenter=None, WindowWidth=None)
    np.testing.assert_allclose(read_radiograph(save_dicom(tmp_path/"hand.dcm", header)), radiograph, atol=2e-4)


def test_dicom_colour(tmp_path, radiograph):
    grey = as_bits(radiograph, 8)
    np.testing.assert_allclose(read_radiograph(save_dicom(tmp_path/"rgb.dcm", dicom(np.dstack([grey]*3)))), radiograph, atol=.005)
    palette = {f"{colour}PaletteColorLookupTableDescriptor": [256, 0, 8] for colour in ("Red", "Green", "Blue")}
    palette |= {f"{colour}PaletteColorLookupTableData": np.arange(256, dtype=np.uint8)[::-1].tobytes() for colour in ("Red", "Green", "Blue")}
    header = dicom(255 - grey, PhotometricInterpretation="PALETTE COLOR", **palette)
    np.testing.assert_allclose(read_radiograph(save_dicom(tmp_path/"palette.dcm", header)), radiograph, atol=.005)


def test_dicom_without_signature_or_suffix(tmp_path, radiograph):
    header = dicom(as_bits(radiograph, 8))
    whole = save_dicom(tmp_path/"IM0001", header).read_bytes()
    np.testing.assert_allclose(read_radiograph(tmp_path/"IM0001"), radiograph, atol=.005)
    (tmp_path/"old.dcm").write_bytes(whole[132:])
    np.testing.assert_allclose(read_radiograph(tmp_path/"old.dcm"), radiograph, atol=.005)


def test_dicom_whose_free_bytes_imitate_a_tiff(tmp_path, radiograph):
    "The standard lets the first 128 bytes be a TIFF's header (PS3.10, 7.1)"
    path = save_dicom(tmp_path/"dual.dcm", dicom(as_bits(radiograph, 8)))
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])
    np.testing.assert_allclose(read_radiograph(path), radiograph, atol=.005)


@pytest.mark.parametrize("tag,expected", [("F", "F"), ("M", "M"), ("O", None), ("", None), (None, None)])
def test_dicom_sex(tmp_path, radiograph, tag, expected):
    header = dicom(as_bits(radiograph, 8), **({} if tag is None else {"PatientSex": tag}))
    assert read_dicom_sex(save_dicom(tmp_path/"hand.dcm", header)) == expected


# ------------------------------------------------------------------ what must be refused

def refused(path, sentence):
    with pytest.raises(RadiographError, match=sentence) as error: read_radiograph(path)
    text = str(error.value)
    assert str(path) in text and "\n" not in text and "Traceback" not in text
    return text


def test_missing_folder_empty_and_text(tmp_path):
    refused(tmp_path/"absent.png", "does not exist")
    refused(tmp_path, "is a folder")
    (tmp_path/"zero.png").touch()
    refused(tmp_path/"zero.png", r"is empty \(0 bytes\)")
    for name in ("text.png", "text.jpg", "text.tif"):
        (tmp_path/name).write_text("This is not an image, whatever its name says.\n"*20)
        refused(tmp_path/name, "is not a PNG, JPEG, TIFF or DICOM image")
    (tmp_path/"text.dcm").write_text("This is not an image, whatever its name says.\n"*20)
    refused(tmp_path/"text.dcm", "DICOM file")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".dcm"])
@pytest.mark.parametrize("share", [.02, .3, .6, .9, .995])
def test_cut_short(tmp_path, radiograph, suffix, share, capfd):
    whole = save_dicom(tmp_path/"whole.dcm", dicom(as_bits(radiograph, 8))) if suffix == ".dcm" else save(tmp_path/f"whole{suffix}", as_bits(radiograph, 8))
    data = whole.read_bytes()
    (tmp_path/f"cut{suffix}").write_bytes(data[:int(len(data)*share)])
    refused(tmp_path/f"cut{suffix}", "cut short|damaged|without an image|can't be decoded|is not a PNG")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("at", [.3, .5, .8])
def test_damaged_png(tmp_path, radiograph, at, capfd):
    data = bytearray(save(tmp_path/"hand.png", as_bits(radiograph, 8)).read_bytes())
    data[int(len(data)*at)] ^= 0x55
    (tmp_path/"hand.png").write_bytes(data)
    refused(tmp_path/"hand.png", "damaged PNG file|cut short")
    assert capfd.readouterr().err == ""


def bomb_png(): return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)) + png_chunk(b"IDAT", zlib.compress(bytes(10**6))) + png_chunk(b"IEND", b"")

def bomb_jpeg(): return b"\xff\xd8\xff\xc0\x00\x0b\x08" + struct.pack(">HH", 50_000, 50_000) + b"\x01\x01\x11\x00\xff\xd9"

def bomb_tiff():
    tags = {256: 50_000, 257: 50_000, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 50_000, 279: 4}
    return b"II*\0" + struct.pack("<I", 12) + bytes(4) + struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()) + bytes(4)

def bomb_dicom():
    header, file = dicom(np.zeros((4, 4), np.uint8)), io.BytesIO()
    header.Rows = header.Columns = 50_000
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()

@pytest.mark.parametrize("name,bomb", [("bomb.png", bomb_png), ("bomb.jpg", bomb_jpeg), ("bomb.tif", bomb_tiff), ("bomb.dcm", bomb_dicom)])
def test_decompression_bombs_are_rejected_from_the_header(tmp_path, name, bomb):
    (tmp_path/name).write_bytes(bomb())
    assert refused(tmp_path/name, "claims 50,000 × 50,000 pixels").endswith(f"at most {MAX_PIXELS//10**6} million are read.")


def test_dicom_that_grows_when_it_is_unpacked(tmp_path, radiograph):
    "A deflated data set of half a gigabyte in half a megabyte, and JPEG 2000 pixels that claim more than their header"
    whole = save_dicom(tmp_path/"whole.dcm", dicom(as_bits(radiograph, 8), DeflatedExplicitVRLittleEndian)).read_bytes()
    start = 144 + struct.unpack_from("<I", whole, 140)[0]
    packer, unpacked = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS), zlib.decompress(whole[start:], -zlib.MAX_WBITS)
    grown = packer.compress(unpacked + struct.pack("<HH2sHI", 0x7FE1, 0x10, b"OB", 0, 5*10**8) + bytes(5*10**8)) + packer.flush()
    (tmp_path/"grown.dcm").write_bytes(whole[:start] + grown)
    refused(tmp_path/"grown.dcm", "would unpack to more than 200 million bytes")
    np.testing.assert_allclose(read_radiograph(tmp_path/"whole.dcm"), radiograph, atol=.005)
    header = dicom(as_bits(radiograph, 8))
    header.compress(JPEG2000Lossless, generate_instance_uid=False)
    at = header.PixelData.find(b"\xff\x4f\xff\x51") + 8
    header.PixelData = header.PixelData[:at] + struct.pack(">II", 60_000, 60_000) + header.PixelData[at + 8:]
    refused(save_dicom(tmp_path/"claims.dcm", header), "claims 60,000 × 60,000 pixels")


@pytest.mark.parametrize("value", [0, 137, 255])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_constant_images_are_rejected(tmp_path, suffix, value):
    refused(save(tmp_path/f"flat{suffix}", np.full((40, 30), value, np.uint8)), "single flat grey: no radiograph")


def test_dicom_that_holds_no_radiograph(tmp_path, radiograph):
    stored = as_bits(radiograph, 8)
    refused(save_dicom(tmp_path/"flat.dcm", dicom(stored*0)), "single flat grey")
    refused(save_dicom(tmp_path/"film.dcm", dicom(np.stack([stored]*3), NumberOfFrames=3)), "3 frames; expected one radiograph")
    refused(save_dicom(tmp_path/"deep.dcm", dicom(stored.astype(np.uint32))), "32 bits a pixel; expected at most 16")
    report = dicom(stored, Modality="SR")
    for name in ("PixelData", "Rows", "Columns"): del report[name]
    refused(save_dicom(tmp_path/"report.dcm", report), r"without an image \(its modality is SR\)")
    damaged = dicom(stored)
    damaged.compress(JPEG2000Lossless, generate_instance_uid=False)
    damaged.PixelData = encapsulate([b"\xff\x4f\xff\x51" + struct.pack(">HHII", 41, 0, 88, 120) + b" this is no code stream"])
    refused(save_dicom(tmp_path/"damaged.dcm", damaged), "pixels can't be decoded")
    headless = dicom(stored)
    del headless.BitsStored
    headless.save_as(tmp_path/"headless.dcm", enforce_file_format=True)
    refused(tmp_path/"headless.dcm", "pixels can't be decoded")


def test_dicom_without_pydicom(tmp_path, radiograph, monkeypatch):
    path = save_dicom(tmp_path/"hand.dcm", dicom(as_bits(radiograph, 8)))
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    refused(path, r'pip install "boneage\[dicom\]"')


def test_random_bytes_never_end_in_another_error(tmp_path, radiograph):
    "Sixty damaged files of every kind: a radiograph or a RadiographError, nothing else"
    random = np.random.default_rng(0)
    sources = [cv2.imencode(s, as_bits(radiograph, b))[1].tobytes() for s in (".png", ".jpg", ".tif") for b in (8, 16) if (s, b) != (".jpg", 16)]
    sources.append(save_dicom(tmp_path/"hand.dcm", dicom(as_bits(radiograph, 16))).read_bytes())
    for i in range(60):
        data = bytearray(sources[i % len(sources)])
        for at in random.integers(4 if i % 2 else 140, min(len(data), 4 + 10**(1 + i % 4)) if i % 2 else len(data), 3): data[at] = random.integers(256)
        (tmp_path/"damaged").write_bytes(data)
        try: image = read_radiograph(tmp_path/"damaged")
        except RadiographError: continue
        assert image.dtype == np.float32 and 0 <= image.min() <= image.max() <= 1


# ------------------------------------------------------------------ writing and finding

def test_round_trips(tmp_path, radiograph):
    eight = as_bits(radiograph, 8)
    np.testing.assert_array_equal(read_radiograph(write_radiograph(tmp_path/"sub/hand.png", eight)), eight/np.float32(255))
    np.testing.assert_array_equal(read_radiograph(write_radiograph(tmp_path/"hand.png", radiograph.astype(np.float32))), eight/np.float32(255))
    np.testing.assert_array_equal(read_mask(write_mask(tmp_path/"mask.png", radiograph > .5)), radiograph > .5)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_atomic_write_keeps_the_old_file_on_failure(tmp_path):
    (tmp_path/"a.csv").write_text("old")
    with pytest.raises(RuntimeError), publish(tmp_path/"a.csv") as temporary:
        assert temporary.parent == tmp_path and temporary.suffix == ".csv"
        temporary.write_text("new")
        raise RuntimeError
    assert (tmp_path/"a.csv").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(FileNotFoundError), publish(tmp_path/"b.csv"): pass


def test_published_files_have_ordinary_rights(tmp_path):
    "Not the private rights of temporary files: others on the cluster read them"
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
    assert find_radiographs([tmp_path, tmp_path/"b.png", f"{tmp_path}/*.png", f"{tmp_path}/**/*.jpg"]) == find_radiographs(str(tmp_path))
    assert find_radiographs(tmp_path/"[1].png") == [tmp_path/"[1].png"]
    (tmp_path/"link.png").symlink_to(tmp_path/"b.png")
    assert len(find_radiographs(tmp_path)) == 5
    with pytest.raises(RadiographError, match="names no file or folder"): find_radiographs([tmp_path/"absent.png"])
    (tmp_path/"none").mkdir()
    with pytest.raises(RadiographError, match="holds no radiograph"): find_radiographs(tmp_path/"none")
