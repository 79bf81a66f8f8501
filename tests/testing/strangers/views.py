"""Views: a crop of a random size, and faulty ones."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

from ssl_dc import Views


class Resized(Views):
    def __init__(self, options, image_size, mean, std):
        self.options = options
        self.image_size = image_size
        self.mean, self.std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    def draw(self):
        return torch.rand(1).item()

    def view(self, image, number):
        width, height = image.size
        left = int(self.draw() * width / 2)
        resized = image.resize((self.image_size,) * 2, Image.Resampling.BILINEAR, (left, 0, width, height))
        return (torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255 - self.mean) / self.std


class NumpyDraws(Resized):
    def draw(self):
        return np.random.rand()


class NotNormalised(Resized):
    def view(self, image, number):
        return super().view(image, number) * self.std + self.mean


class CannotBePickled(Resized):
    def __init__(self, options, image_size, mean, std):
        super().__init__(options, image_size, mean, std)
        self.draw = lambda: torch.rand(1).item()


class InDouble(Resized):
    def view(self, image, number):
        return super().view(image, number).double()


class DrawsOnTheImage(Resized):
    def view(self, image, number):
        ImageDraw.Draw(image).point((0, 0), fill=(1, 2, 3))
        return super().view(image, number)
