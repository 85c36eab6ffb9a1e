"A data loader and a network from the public code of others, for comparison; not part of the library"
import cv2
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

# The co-author's frame and whole-hand crop (height, width), and its scale
FRAME, CROP, SCALE = (2080, 1600), (2000, 1500), 0.25


class PlainDataset(Dataset):
    "Registered radiographs as PNG files; each is read, augmented at full size by OpenCV, cropped and scaled"

    def __init__(self, paths, months): self.paths, self.months = paths, months

    def __len__(self): return len(self.paths)

    def __getitem__(self, row):
        random = np.random.default_rng()
        image = cv2.imread(str(self.paths[row]), cv2.IMREAD_GRAYSCALE)
        height, width = image.shape
        matrix = cv2.getRotationMatrix2D((width/2, height/2), random.uniform(-5, 5),
                                         random.uniform(0.95, 1.05))
        matrix[:, 2] += random.uniform(-0.05, 0.05, 2) * (width, height)
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
        gamma = 255 * (np.arange(256)/255)**random.uniform(0.8, 1.2)
        image = cv2.LUT(image, gamma.astype(np.uint8))
        top, left = 1040 - CROP[0]//2, 800 - CROP[1]//2
        image = image[top:top + CROP[0], left:left + CROP[1]]
        image = cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA)
        return torch.from_numpy(image[None].astype(np.float32)/255), np.float32((self.months[row] - 120)/120)


def use_one_thread(_):
    "Start a loader's worker with one thread"
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def recipe_network() -> nn.Module:
    "The co-author's later network for 500×375: six blocks, two hidden layers of 2048 after flattening"
    blocks, inputs = [], 1
    for width in (32, 64, 128, 128, 256, 384):
        blocks += [nn.Conv2d(inputs, width, 3, padding=1), nn.ELU(), nn.BatchNorm2d(width),
                   nn.Conv2d(width, width, 1), nn.ELU(), nn.BatchNorm2d(width), nn.MaxPool2d(3, 2)]
        inputs = width
    body = nn.Sequential(*blocks, nn.Flatten())
    with torch.no_grad(): size = body(torch.zeros(1, 1, 500, 375)).shape[1]
    return nn.Sequential(body, nn.Dropout(0.3), nn.Linear(size, 2048), nn.ELU(), nn.Dropout(0.3),
                         nn.Linear(2048, 2048), nn.ELU(), nn.Linear(2048, 1), nn.Flatten(0))
