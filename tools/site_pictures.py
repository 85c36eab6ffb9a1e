"Pictures of the front page that a reader steps through: the way of a radiograph, and a growing hand"
import html
import re
from base64 import b64decode
from pathlib import Path

import cv2
import numpy as np

from boneage.contrast import measure_contrast
from boneage.geometry import scaling
from boneage.paper.figures import MASK_COLOUR, POINT_COLOURS, REGION_COLOURS
from boneage.registration import FRAME_SHAPE, RegisteredRadiograph, masked_crop, region_image
from boneage.synthetic.maturity import CARPALS, FOREARM, TUBULAR, sample_maturity
from boneage.synthetic.phantoms import make_phantom, random_streams

AGES = range(1, 19)          # years
FIRST_AGE = 7                # that the slider shows
PRINTED = 2, 6, 10, 14, 18   # on paper, and without scripts
SEXES = {"F": "girl", "M": "boy"}
CHILD = 2018, 17             # seed and index of the phantom that grows
BAR = 50                     # mm
QUALITY = 70                 # of WebP, in per cent
ABOUT = """## A growing hand

One phantom of each sex at each year of bone age. [Maturity](library/synthetic/maturity.ipynb) has the ages at
which bones appear and growth plates close. The white bar is 5 cm long.

"""
ROW = re.compile(r"^\| (\w+) \| (.+?) \| \[(.+?)\]\((.+?)\.ipynb\) \|$", re.M)
ALTERNATIVES = dict(
    read="A synthetic radiograph of a hand on a tilted, partly exposed film",
    segment="The radiograph with the outline of the hand's mask",
    normalise="The hand alone on black, with bright bones",
    detect="The hand with circles at the middle finger's tip, the capitate and the thumb's tip",
    register="The hand turned upright and enlarged until it fills the frame",
    predict="The whole hand, the carpals above the metacarpals: each in a frame of its own colour",
    average="The phantom with mask, key points and regions; each region; the distribution with interval")


def write_picture(folder: Path, address: str, image: np.ndarray) -> str:
    "Write a grey or BGR image as WebP; returns its address"
    path = folder/f"{address}.webp"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1].tobytes())
    return f"{address}.webp"


def panel(address: str, alternative: str, text: str, printed: bool = True) -> str:
    "A picture with its text, as an entry of a list"
    picture = f'<img src="{address}" alt="{html.escape(alternative)}">'
    return f'<li{" class=printed"*printed}>{picture}<div>{text}</div></li>'


def raw(lines: list[str]) -> str:
    "HTML as a block of Markdown, for Quarto and smalldocs"
    return "\n".join(["```{=html}", *lines, "```"])


# ------------------------------------------------------------------ the way of a radiograph

def bgr(colour: str) -> tuple[int, ...]:
    "A colour of a figure, such as `#E69F00`, for OpenCV"
    return tuple(int(colour[n:n + 2], 16) for n in (5, 3, 1))


def regions_side_by_side(radiograph: RegisteredRadiograph) -> np.ndarray:
    "Region A beside B and C, each in a frame of its colour"
    scales = dict(hand=.199, carpals=.26, metacarpals=.26/1.1)  # A is as high as B and C
    greys = {name: region_image(radiograph, name, scale) for name, scale in scales.items()}
    hand, *parts = (cv2.copyMakeBorder(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), 4, 4, 4, 4,
                                       cv2.BORDER_CONSTANT, value=bgr(REGION_COLOURS[name]))
                    for name, grey in greys.items())
    return np.hstack([hand, np.vstack(parts)])


def step_images() -> dict[str, np.ndarray]:
    "The images of the steps, by name, from a phantom's exact mask, key points and registration"
    phantom = make_phantom(2018, 2)  # that of the front page's assessment
    image = phantom.image.astype(np.float32)/255
    contrast = measure_contrast(image, phantom.mask)
    normalised = masked_crop(image, np.eye(3), image.shape, phantom.mask, contrast)
    outlined, pointed = (cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) for grey in (phantom.image, normalised))
    outlines, _ = cv2.findContours(phantom.mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(outlined, outlines, -1, bgr(MASK_COLOUR), 2, cv2.LINE_AA)
    for point, colour in zip(np.rint(phantom.key_points).astype(int).tolist(), POINT_COLOURS.values()):
        cv2.circle(pointed, point, 8, bgr(colour), 2, cv2.LINE_AA)
    quarter = scaling(.25) @ phantom.frame_from_image, tuple(side//4 for side in FRAME_SHAPE)
    regions = RegisteredRadiograph(image, phantom.mask, contrast, phantom.frame_from_image)
    return dict(read=phantom.image, segment=outlined, normalise=normalised, detect=pointed,
                register=masked_crop(image, *quarter, phantom.mask, contrast),
                predict=regions_side_by_side(regions))


def way(folder: Path, table: str, assessment: str) -> str:
    "The steps of the front page's table, a picture each; the last is the assessment's (PNG in base64)"
    figure = cv2.imdecode(np.frombuffer(b64decode(assessment), np.uint8), cv2.IMREAD_COLOR)
    images, panels = step_images() | dict(average=figure), []
    for step, method, chapter, address in ROW.findall(table):
        if step not in images: continue
        picture = write_picture(folder, f"way/{step}", images[step])
        text = f'{method[0].upper()}{method[1:]}. <a href="{address}.html">{chapter}</a>'
        heading = f"<h2>{len(panels) + 1}. {step.capitalize()}</h2>"
        panels.append(panel(picture, ALTERNATIVES[step], f"{heading}<p>{text}</p>"))
    controls = ('<p class="controls"><button type="button">Back</button> '
                '<button type="button">Next</button> <output></output></p>')
    return raw(['<section class="panels" id="way" aria-label="The way of a radiograph">', controls, "<ol>",
                *panels, "</ol>", "</section>"])


# ------------------------------------------------------------------ a growing hand

def grown(folder: Path, sex: str, age: int) -> str:
    "The entry of one sex and age, with a bar of 5 cm and the counts of bones"
    phantom = make_phantom(*CHILD, (340, 260), 12*age, sex, {})
    image, length = phantom.image.copy(), round(BAR/phantom.millimetres_per_pixel)
    image[-6 - length:-6, -8:-5] = 230
    maturity = sample_maturity(sex, 12*age, random_streams(*CHILD)[1])  # as in `make_phantom`
    carpals = len(set(CARPALS) & set(maturity.visible))
    name = f"{SEXES[sex]}, {age} year{'s'*(age > 1)}"
    text = (f"<p><strong>{name}</strong></p><p>{carpals} of {len(CARPALS)} carpals visible</p>"
            f"<p>{len(maturity.fused)} of {len(TUBULAR + FOREARM)} growth plates closed</p>")
    picture = write_picture(folder, f"growing/{sex}-{age:02d}", image)
    return panel(picture, f"Synthetic radiograph: {name}", text, age in PRINTED)


def growing_hand(folder: Path) -> str:
    "A hand of each sex at every year of bone age, with a slider; and the script of this page's pictures"
    panels = [grown(folder, sex, age) for sex in SEXES for age in AGES]
    sexes = " ".join(f'<label><input type="radio" name="sex"{" checked"*(sex == "F")}> {name}</label>'
                     for sex, name in SEXES.items())
    controls = (f'<p class="controls">{sexes} <label for="age">bone age</label> <input type="range" id="age" '
                f'min="{AGES[0]}" max="{AGES[-1]}" value="{FIRST_AGE}"> <output for="age"></output></p>')
    script = (folder/"pictures.html").read_text()
    return ABOUT + raw(['<section class="panels" id="growing" aria-label="Bone ages">', controls, "<ol>",
                        *panels, "</ol>", "</section>", script])
