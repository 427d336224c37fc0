"""Paints one thing as one image: textured, lit from the side, among clutter, in part hidden, as a camera saw it.

A scene is painted back to front twice: once in colours, once as heights; light and shadow come from the heights.
Nothing but the outline tells a class: colours, textures, clutter, pose and light are drawn alike for all.
"""

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from finetune.data.demo.shapes import BODY, DETAIL, Part, Points, oval, stroke

PixelArray = NDArray[np.float32]

FINER = 2  # outlines are drawn on a grid so much finer than the image's and then averaged, for smooth edges
MAX_TURN_DEGREES = 30
SIZE = (0.30, 0.42)  # half the thing's box as a share of the image's side
CLUTTER_BEHIND, CLUTTER_BEFORE = (4, 9), (1, 3)  # pieces behind and before the thing: at least, at most
CLUTTER_COLOURS = (0.1, 0.1, 0.1, 0.35, 0.35)  # how often a piece has which colour of the palette
NOISE = (2.0, 12.0)  # standard deviation of the camera's noise, in grey levels of 255


def paint(parts: Sequence[Part], px: int, rng: np.random.Generator, mess: float = 1.0) -> NDArray[np.uint8]:
    """Return an image (px, px, 3) of the thing with these parts.

    Args:
        parts: what to paint, from `demo_shapes`.
        px: side of the image.
        rng: of everything that chance decides.
        mess: how much clutter, texture and noise there is, from 0 (none) to 1.
    """
    scene = _Scene(px, rng)
    for _ in range(round(mess * rng.integers(*CLUTTER_BEHIND, endpoint=True))):
        scene.add_piece(_piece(px, rng))
    scene.add_thing(_pose(parts, px, rng))
    for _ in range(round(mess * rng.integers(*CLUTTER_BEFORE, endpoint=True))):
        scene.add_piece(_piece(px, rng, near_edge=True))
    return _photograph(scene, rng, mess)


def _palette(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Return five colours: a dull ground, the thing's vivid body, its detail, and two for clutter."""

    def colour(saturation: tuple[float, float], value: tuple[float, float]) -> tuple[int, int, int]:
        red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
        return int(255 * red), int(255 * green), int(255 * blue)

    ground, body = colour((0.1, 0.6), (0.15, 0.5)), colour((0.2, 0.85), (0.65, 1.0))
    detail = colour((0.2, 0.9), (0.2, 0.55)) if rng.random() < 0.5 else colour((0.0, 0.3), (0.85, 1.0))
    return [ground, body, detail, colour((0.1, 0.6), (0.15, 0.6)), colour((0.1, 0.7), (0.15, 0.6))]


class _Scene:
    """What is painted so far, on the finer grid: colours, heights, and where the thing is."""

    def __init__(self, px: int, rng: np.random.Generator) -> None:
        self.px, self.rng, self.palette = px, rng, _palette(rng)
        side = px * FINER
        self.colours = Image.new("RGB", (side, side), self.palette[0])
        self.heights = Image.new("L", (side, side), 60)
        self.thing = Image.new("L", (side, side), 0)
        self.draw_colours = ImageDraw.Draw(self.colours)
        self.draw_heights = ImageDraw.Draw(self.heights)

    def add_piece(self, outline: Points) -> None:
        """Paint one piece of clutter in any colour of the image, the thing's among them."""
        corners = _corners(outline)
        self.draw_colours.polygon(corners, fill=self.palette[self.rng.choice(5, p=CLUTTER_COLOURS)])
        self.draw_heights.polygon(corners, fill=int(self.rng.integers(40, 150)))
        ImageDraw.Draw(self.thing).polygon(corners, fill=0)

    def add_thing(self, parts: Sequence[Part]) -> None:
        """Paint the thing; what is behind it shows through its holes."""
        body, detail = (Image.new("L", self.colours.size, 0) for _ in range(2))
        draw_body, draw_detail = ImageDraw.Draw(body), ImageDraw.Draw(detail)
        for level, outline in parts:
            corners = _corners(outline)
            draw_body.polygon(corners, fill=255 * (level == BODY))
            draw_detail.polygon(corners, fill=255 * (level == DETAIL))
        for mask, colour, height in ((body, self.palette[1], 150), (detail, self.palette[2], 185)):
            self.colours.paste(colour, mask=mask)
            self.heights.paste(height, mask=mask)
            self.thing.paste(255, mask=mask)


def _corners(outline: Points) -> list[float]:
    """Return the outline, in pixels of the image, as Pillow wants it, in pixels of the finer grid."""
    return (outline * FINER).ravel().tolist()


def _pose(parts: Sequence[Part], px: int, rng: np.random.Generator) -> list[Part]:
    """Return the parts in pixels: turned, perhaps flipped, stretched, slanted, bent, and put somewhere."""
    turn = np.radians(rng.uniform(-MAX_TURN_DEGREES, MAX_TURN_DEGREES))
    turning = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    stretch = np.exp(rng.uniform(-0.18, 0.18, 2)) * [rng.choice([-1, 1]), 1]
    slant = np.array([[1, rng.uniform(-0.2, 0.2)], [rng.uniform(-0.2, 0.2), 1]])
    bend, phase = rng.uniform(0, 0.13), rng.uniform(0, 2 * np.pi, 2)
    size = rng.uniform(*SIZE) * px
    place = px / 2 + rng.uniform(-1, 1, 2) * max(0.46 * px - size, 0.03 * px)

    def posed(outline: Points) -> Points:
        # Long edges get corners in between, so that they bend too.
        following = np.roll(outline, -1, axis=0)
        dense = np.stack([outline + (following - outline) * step for step in (0, 0.25, 0.5, 0.75)], axis=1)
        points = dense.reshape(-1, 2)
        points = points + bend * np.sin(2.5 * points[:, ::-1] + phase)
        placed: Points = points @ (stretch[:, None] * slant) @ turning * size + place
        return placed

    return [(level, posed(outline)) for level, outline in parts]


def _piece(px: int, rng: np.random.Generator, near_edge: bool = False) -> Points:
    """Return the outline of a piece of clutter, in pixels: an angular or round scrap, or a stick."""
    size = px * (rng.uniform(0.06, 0.14) if near_edge else rng.uniform(0.06, 0.3))
    place = rng.uniform(0, px, 2)
    if near_edge:  # so that it hides a part of the thing, rarely its middle
        place = px / 2 + px * rng.uniform(0.17, 0.45) * _direction(rng)
    kind = rng.integers(3)
    if kind == 0:
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
        return place + size * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if kind == 1:
        start = rng.uniform(0, 360)
        return oval(place[0], place[1], size, size * rng.uniform(0.4, 1), start, start + rng.choice([180, 270, 360]))
    reach = size * 1.6 * _direction(rng)
    bow = rng.normal(0, size * 0.3, 2)
    return stroke([place - reach, place + bow, place + reach], size * rng.uniform(0.2, 0.6))


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a unit vector (2,) of any direction."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _photograph(scene: _Scene, rng: np.random.Generator, mess: float) -> NDArray[np.uint8]:
    """Return the scene (px, px, 3) with textures, light, shadow and the camera's faults."""
    px = scene.px
    colours = np.asarray(scene.colours.reduce(FINER), dtype=np.float32) / 255
    thing = np.asarray(scene.thing.reduce(FINER), dtype=np.float32)[..., None] / 255
    # The blur rounds the edges: light then falls on a slope, and things look solid.
    rounded = scene.heights.reduce(FINER).filter(ImageFilter.GaussianBlur(px * rng.uniform(0.012, 0.022)))
    heights = np.asarray(rounded, dtype=np.float32) / 255

    pattern = _texture(px, rng) * (1 - thing) + _texture(px, rng) * thing
    image = colours * (1 + mess * pattern)

    light = _direction(rng)
    down, right = np.gradient(heights)
    slope = (right * light[0] + down * light[1]) * px / 16
    image *= 1 + 0.9 * np.clip(slope, -0.6, 0.7)[..., None]

    # What lies between a point and the light, and is higher, casts a shadow on it.
    shift = np.round(-light * px * 0.05).astype(int)
    higher = np.roll(heights, (int(shift[1]), int(shift[0])), axis=(0, 1)) - heights
    image *= 1 - 0.5 * np.clip(3 * higher, 0, 1)[..., None]

    brightness = rng.uniform(0.7, 1.15) * (1 + 0.35 * _ramp(px, rng)[..., None])
    tint = rng.uniform(0.88, 1.08, 3).astype(np.float32)
    noise = rng.normal(0, mess * rng.uniform(*NOISE) / 255, image.shape)
    return (np.clip(image * brightness * tint + noise, 0, 1) * 255).astype(np.uint8)


def _ramp(px: int, rng: np.random.Generator) -> PixelArray:
    """Return values (px, px) in [-0.7, 0.7] that rise evenly in some direction."""
    line = np.linspace(-0.5, 0.5, px, dtype=np.float32)
    towards = _direction(rng).astype(np.float32)
    ramp: PixelArray = line[:, None] * towards[0] + line[None, :] * towards[1]
    return ramp


def _texture(px: int, rng: np.random.Generator) -> PixelArray:
    """Return a texture (px, px, 1) around 0: patches, stripes, checks, dots or grain, of any strength."""
    kind, strength = rng.integers(5), rng.uniform(0.05, 0.3)
    if kind == 0:
        cells = int(rng.integers(3, 9))
        small = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
        pattern = np.asarray(small.resize((px, px), Image.Resampling.BICUBIC))
    elif kind == 1:
        pattern = rng.normal(0, 0.6, (px, px))
    else:
        waves = rng.uniform(20, 55)
        along, across = (np.sin(waves * _ramp(px, rng)) for _ in range(2))
        if kind == 2:
            pattern = along
        elif kind == 3:
            pattern = np.sign(along * across)
        else:
            pattern = np.clip(3 * (along + across) - 2, -1, 1)
    return (strength * pattern[..., None]).astype(np.float32)
