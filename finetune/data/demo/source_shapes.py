"""The outlines of the demo's source task, on which its network is pretrained: none of them is a target class."""

import numpy as np

from finetune.data.demo.shapes import BODY, CUT, DETAIL, Part, Shape, oval, poly, sided, smooth, stroke, turned


def anchor(rng: np.random.Generator) -> list[Part]:
    wide = rng.uniform(0.65, 0.85)
    return [
        (BODY, stroke(oval(0, 0.2, wide, 0.65, 0, 180), 0.2)),
        (BODY, poly((wide - 0.25, 0.25), (wide + 0.2, 0.25), (wide, -0.1))),
        (BODY, poly((-wide - 0.2, 0.25), (-wide + 0.25, 0.25), (-wide, -0.1))),
        (BODY, poly((-0.1, -0.6), (0.1, -0.6), (0.1, 0.9), (-0.1, 0.9))),
        (DETAIL, poly((-0.45, -0.45), (0.45, -0.45), (0.45, -0.27), (-0.45, -0.27))),
        (BODY, oval(0, -0.75, 0.23, 0.23)),
        (CUT, oval(0, -0.75, 0.1, 0.1)),
    ]


def bell(rng: np.random.Generator) -> list[Part]:
    waist = rng.uniform(0.38, 0.5)
    return [
        (BODY, oval(0, 0.72, 0.2, 0.22)),
        (BODY, oval(0, -0.82, 0.14, 0.14)),
        (BODY, sided((0.2, -0.8), (waist, -0.5), (waist + 0.08, 0.2), (0.85, 0.65))),
        (DETAIL, sided((waist + 0.08, 0.2), (waist + 0.2, 0.38))),
    ]


def bird(rng: np.random.Generator) -> list[Part]:
    wing = rng.uniform(0.2, 0.45)
    return [
        (BODY, poly((0.3, 0.05), (0.98, -0.3), (0.95, 0.1), (0.4, 0.4))),
        (BODY, oval(0.02, 0.12, 0.6, 0.42)),
        (BODY, oval(-0.5, -0.32, 0.3, 0.3)),
        (DETAIL, poly((-0.75, -0.42), (-1.0, -0.25), (-0.72, -0.2))),
        (DETAIL, smooth(poly((-0.25, 0.0), (0.3, -0.2), (0.65, 0.15), (0.1, wing)))),
        (BODY, poly((-0.08, 0.45), (0.02, 0.45), (0.02, 0.95), (-0.08, 0.95))),
        (BODY, poly((0.16, 0.45), (0.26, 0.45), (0.26, 0.95), (0.16, 0.95))),
        (DETAIL, oval(-0.55, -0.38, 0.07, 0.07)),
    ]


def boot(rng: np.random.Generator) -> list[Part]:
    top = rng.uniform(0.0, 0.14)
    return [
        (BODY, smooth(poly((-0.5, -0.95), (top, -0.95), (top, 0.1), (0.85, 0.35), (0.9, 0.8), (-0.55, 0.8)))),
        (DETAIL, poly((-0.56, 0.72), (0.88, 0.72), (0.88, 0.92), (-0.56, 0.92))),
        (DETAIL, poly((-0.5, -0.9), (top, -0.9), (top, -0.65), (-0.5, -0.65))),
    ]


def bottle(rng: np.random.Generator) -> list[Part]:
    fat, shoulder = rng.uniform(0.32, 0.45), rng.uniform(-0.4, -0.1)
    return [
        (BODY, sided((0.13, -0.95), (0.13, shoulder - 0.2), (fat, shoulder + 0.15), (fat, 0.95))),
        (DETAIL, poly((-fat, 0.15), (fat, 0.15), (fat, 0.6), (-fat, 0.6))),
        (DETAIL, poly((-0.17, -0.98), (0.17, -0.98), (0.17, -0.82), (-0.17, -0.82))),
    ]


def bulb(rng: np.random.Generator) -> list[Part]:
    round_ = rng.uniform(0.55, 0.68)
    return [
        (BODY, oval(0, -0.35, round_, 0.6)),
        (BODY, sided((0.45, -0.1), (0.26, 0.45))),
        (DETAIL, sided((0.26, 0.4), (0.22, 0.82), (0.08, 0.95))),
        (DETAIL, stroke([(-0.2, 0.3), (-0.14, -0.3), (0, -0.05), (0.14, -0.3), (0.2, 0.3)], 0.08)),
    ]


def car(rng: np.random.Generator) -> list[Part]:
    front, roof = rng.uniform(0.3, 0.5), rng.uniform(-0.6, -0.45)
    return [
        (BODY, poly((-0.55, 0), (-0.35, roof), (0.25, roof), (front + 0.15, 0))),
        (BODY, smooth(poly((-1, -0.1), (0.9, -0.1), (1, 0.1), (1, 0.4), (-1, 0.4)))),
        (DETAIL, poly((-0.4, -0.08), (-0.27, roof + 0.12), (-0.06, roof + 0.12), (-0.06, -0.08))),
        (DETAIL, poly((0.04, -0.08), (0.04, roof + 0.12), (0.2, roof + 0.12), (front, -0.08))),
        *((DETAIL, oval(x, 0.42, 0.24, 0.24)) for x in (-0.52, 0.54)),
        *((BODY, oval(x, 0.42, 0.1, 0.1)) for x in (-0.52, 0.54)),
    ]


def cloud(rng: np.random.Generator) -> list[Part]:
    high = rng.uniform(0.4, 0.55)
    drops = [(-0.45, 0.7), (0.0, 0.8), (0.45, 0.7)]
    return [
        (BODY, oval(-0.5, 0.05, 0.42, 0.36)),
        (BODY, oval(0.0, -0.2, 0.5, high)),
        (BODY, oval(0.52, 0.08, 0.4, 0.32)),
        *((DETAIL, stroke([(x + 0.06, y - 0.2), (x - 0.06, y + 0.15)], 0.14)) for x, y in drops),
    ]


def crown(rng: np.random.Generator) -> list[Part]:
    dip, tip = rng.uniform(-0.1, 0.15), rng.uniform(-0.75, -0.6)
    return [
        (BODY, sided((0, tip - 0.1), (0.3, dip), (0.85, tip), (0.65, 0.7))),
        (DETAIL, poly((-0.68, 0.45), (0.68, 0.45), (0.66, 0.75), (-0.66, 0.75))),
        *((DETAIL, oval(x, y, 0.12, 0.12)) for x, y in ((-0.85, tip), (0.0, tip - 0.1), (0.85, tip))),
    ]


def fir(rng: np.random.Generator) -> list[Part]:
    spread = rng.uniform(0.6, 0.8)
    tiers = ((-0.98, -0.3, 0.6), (-0.6, 0.15, 0.8), (-0.15, 0.65, 1.0))
    return [
        (DETAIL, poly((-0.13, 0.6), (0.13, 0.6), (0.13, 0.98), (-0.13, 0.98))),
        *((BODY, sided((0.02, top), (spread * width, low))) for top, low, width in tiers),
    ]


def fork(rng: np.random.Generator) -> list[Part]:
    wide = rng.uniform(0.27, 0.36)
    return [
        (BODY, sided((wide, -0.95), (wide, -0.2), (0.09, 0.05), (0.14, 0.98))),
        *((CUT, stroke([(x * wide, -1.0), (x * wide, -0.4)], wide * 0.3)) for x in (-0.5, 0.0, 0.5)),
        (DETAIL, sided((0.11, 0.45), (0.15, 0.98))),
    ]


def gear(rng: np.random.Generator) -> list[Part]:
    teeth, hole = int(rng.integers(7, 10)), rng.uniform(0.2, 0.34)
    tooth = poly((-0.16, -0.95), (0.16, -0.95), (0.2, -0.5), (-0.2, -0.5))
    return [
        *((BODY, turned(tooth, 360 * index / teeth)) for index in range(teeth)),
        (BODY, oval(0, 0, 0.7, 0.7)),
        (DETAIL, oval(0, 0, hole + 0.15, hole + 0.15)),
        (CUT, oval(0, 0, hole, hole)),
    ]


def glasses(rng: np.random.Generator) -> list[Part]:
    tall = rng.uniform(0.3, 0.42)
    return [
        (BODY, stroke([(-0.2, -0.05), (0, -0.15), (0.2, -0.05)], 0.12)),
        (BODY, stroke([(-0.85, -0.1), (-0.98, -0.5), (-0.75, -0.65)], 0.12)),
        (BODY, stroke([(0.85, -0.1), (0.98, -0.5), (0.75, -0.65)], 0.12)),
        *((BODY, oval(x, 0.05, 0.42, tall)) for x in (-0.52, 0.52)),
        *((DETAIL, oval(x, 0.05, 0.29, tall - 0.12)) for x in (-0.52, 0.52)),
    ]


def guitar(rng: np.random.Generator) -> list[Part]:
    hip = rng.uniform(0.42, 0.55)
    return [
        (BODY, oval(0, 0.6, hip, 0.38)),
        (BODY, oval(0, 0.12, hip * 0.75, 0.3)),
        (DETAIL, poly((-0.08, -0.7), (0.08, -0.7), (0.08, 0.25), (-0.08, 0.25))),
        (BODY, poly((-0.15, -0.98), (0.15, -0.98), (0.11, -0.65), (-0.11, -0.65))),
        (DETAIL, oval(0, 0.3, 0.15, 0.15)),
    ]


def hammer(rng: np.random.Generator) -> list[Part]:
    face = rng.uniform(0.5, 0.66)
    return [
        (DETAIL, poly((-0.11, -0.5), (0.11, -0.5), (0.14, 0.98), (-0.14, 0.98))),
        (BODY, poly((-face, -0.9), (0.2, -0.9), (0.85, -0.6), (0.8, -0.45), (0.2, -0.42), (-face, -0.42))),
    ]


def heart(rng: np.random.Generator) -> list[Part]:
    lobe, tip = rng.uniform(0.42, 0.5), rng.uniform(0.75, 0.95)
    return [
        (BODY, oval(-0.43, -0.3, lobe, 0.48)),
        (BODY, oval(0.43, -0.3, lobe, 0.48)),
        (BODY, poly((-0.86, -0.12), (0, -0.45), (0.86, -0.12), (0, tip))),
        (DETAIL, turned(oval(-0.2, -0.6, 0.1, 0.2), -35)),
    ]


def hourglass(rng: np.random.Generator) -> list[Part]:
    wide = rng.uniform(0.5, 0.65)
    return [
        (BODY, sided((wide, -0.85), (wide * 0.8, -0.35), (0.08, 0), (wide * 0.8, 0.35), (wide, 0.85))),
        (DETAIL, poly((-wide * 0.6, 0.8), (0, 0.3), (wide * 0.6, 0.8))),
        *((DETAIL, poly((-0.7, y), (0.7, y), (0.7, y + 0.17), (-0.7, y + 0.17))) for y in (-0.97, 0.8)),
    ]


def house(rng: np.random.Generator) -> list[Part]:
    eaves, door = rng.uniform(-0.25, 0.0), rng.uniform(-0.4, 0.1)
    return [
        (BODY, poly((0.35, -0.85), (0.58, -0.85), (0.58, -0.2), (0.35, -0.2))),
        (BODY, poly((-0.68, eaves), (0.68, eaves), (0.68, 0.88), (-0.68, 0.88))),
        (DETAIL, sided((0, -0.95), (0.95, eaves + 0.05))),
        (DETAIL, poly((door, 0.35), (door + 0.3, 0.35), (door + 0.3, 0.88), (door, 0.88))),
    ]


def ladder(rng: np.random.Generator) -> list[Part]:
    foot, rungs = rng.uniform(0.38, 0.55), int(rng.integers(4, 6))
    rails = [(BODY, stroke([(side * 0.3, -0.98), (side * foot, 0.98)], 0.16)) for side in (-1, 1)]
    steps = np.linspace(-0.7, 0.7, rungs)
    return [*((DETAIL, poly((-0.36, y), (0.36, y), (0.36, y + 0.14), (-0.36, y + 0.14))) for y in steps), *rails]


def lamp(rng: np.random.Generator) -> list[Part]:
    shade = rng.uniform(0.55, 0.75)
    return [
        (BODY, sided((0.07, -0.1), (0.07, 0.75), (0.48, 0.8), (0.48, 0.96))),
        (DETAIL, sided((0.3, -0.95), (shade, 0.0))),
    ]


def leaf(rng: np.random.Generator) -> list[Part]:
    wide = rng.uniform(0.6, 0.85)
    veins = [(side, y) for side in (-1, 1) for y in (-0.25, 0.15)]
    return [
        (BODY, smooth(sided((0.01, -1.2), (wide, -0.1), (wide * 0.7, 0.5), (0.02, 0.75)))),
        (DETAIL, stroke([(0, -0.75), (0, 0.98)], 0.1)),
        *((DETAIL, stroke([(0, y + 0.2), (side * wide * 0.6, y - 0.15)], 0.07)) for side, y in veins),
    ]


def pear(rng: np.random.Generator) -> list[Part]:
    hip = rng.uniform(0.55, 0.7)
    return [
        (BODY, oval(0, 0.4, hip, 0.55)),
        (BODY, oval(0, -0.2, hip * 0.58, 0.5)),
        (DETAIL, stroke([(0, -0.6), (0.06, -0.98)], 0.12)),
        (DETAIL, turned(oval(0.4, -0.72, 0.27, 0.12), -12)),
    ]


def snail(rng: np.random.Generator) -> list[Part]:
    shell = rng.uniform(0.5, 0.6)
    return [
        (DETAIL, smooth(poly((-0.98, 0.8), (0.98, 0.8), (0.75, 0.5), (-0.4, 0.5), (-0.6, -0.3), (-0.95, -0.2)))),
        (DETAIL, stroke([(-0.8, -0.2), (-0.9, -0.7)], 0.08)),
        (DETAIL, stroke([(-0.7, -0.2), (-0.6, -0.7)], 0.08)),
        (BODY, oval(0.2, 0.1, shell, shell)),
        (DETAIL, oval(0.22, 0.12, shell * 0.62, shell * 0.62)),
        (BODY, oval(0.25, 0.12, shell * 0.35, shell * 0.35)),
    ]


def star(rng: np.random.Generator) -> list[Part]:
    inner = rng.uniform(0.38, 0.52)
    angle = np.radians(36 * np.arange(10) - 90)
    radius = np.where(np.arange(10) % 2, inner, 1.0)
    corners = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return [(BODY, corners), (DETAIL, corners * 0.45)]


SOURCE_SHAPES: dict[str, Shape] = {
    shape.__name__: shape
    for shape in (
        *(anchor, bell, bird, boot, bottle, bulb, car, cloud, crown, fir, fork, gear),
        *(glasses, guitar, hammer, heart, hourglass, house, ladder, lamp, leaf, pear, snail, star),
    )
}
