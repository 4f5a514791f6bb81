"""Draws one cartoon portrait from its factors, back to front, without any photo.

draw_faces.py samples the factors and writes the files.
"""

import numpy as np
from canvas import (
    BROW_Y,
    EYE_X,
    MOUTH_Y,
    NOSE_Y,
    Canvas,
    Colour,
    Face,
    arc,
    ellipse,
    glow,
    head_outline,
    lit_skin,
    mix,
    new_canvas,
    rgb,
    shade,
    skin_colour,
    step,
)
from hair import earrings, ears_over_hair, glasses, hair_back, hair_front, hat
from PIL import Image

SHADOW = (0.62, 0.50, 0.48)  # share of red, green and blue that a soft shadow on skin leaves


def draw(face: Face, size: int) -> Image.Image:
    """Return the picture of a face, size x size pixels."""
    c = new_canvas(face, size * 3 // 2)
    background(c, face)
    hair_back(c, face)
    neck(c, face)
    clothes(c, face)
    if not ears_over_hair(face):
        ears(c, face)
    head(c, face)
    wrinkles(c, face)
    beard(c, face)
    mouth(c, face)
    nose(c, face)
    for side in (-1, 1):
        eye(c, face, side)
        brow(c, face, side)
    hair_front(c, face)
    if ears_over_hair(face):
        ears(c, face)
    if face.traits.earrings and ears_over_hair(face):
        earrings(c, face)
    if face.glasses:
        glasses(c, face)
    if face.hat:
        hat(c, face)
    pixels = (np.clip(c.colours, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)


def wear(face: Face) -> float:
    """Return how much the skin shows its age: 0 until 45, 1 at 85."""
    return min(max((face.age - 45) / 40, 0.0), 1.0)


def background(c: Canvas, face: Face) -> None:
    """Fill the picture behind the head: white, gradient, lights, wall or garden."""
    t, main = face.traits, rgb(face.background)
    if t.backdrop == "white":
        return
    other = mix(shade(main, 0.6), (0.25, 0.3, 0.4), 0.2)
    slope = step(0.8 * c.py + 0.5 * t.light * c.px, -1.1, 1.2)
    c.paint(np.ones_like(c.px), main)
    c.paint(slope, other, 0.75 if t.backdrop == "gradient" else 0.35)
    if t.backdrop == "wall":
        bricks(c)
    elif t.backdrop == "lights":
        blobs(c, main, t.texture, blur=0.05)
    elif t.backdrop == "garden":
        blobs(c, main, t.texture, blur=0.3)


def bricks(c: Canvas) -> None:
    """Draw the joints of a brick wall."""
    row = np.floor(c.py / 0.22)
    x = np.abs((c.px + 0.25 * (row % 2)) % 0.5 - 0.25)
    joint = np.maximum(x - 0.238, np.abs(c.py - (row + 0.5) * 0.22) - 0.098)
    c.tint(step(joint, 0.0, 0.012) * 0.5, (0.72, 0.72, 0.72))


def blobs(c: Canvas, main: Colour, seed: int, blur: float) -> None:
    """Paint out-of-focus spots, lighter and darker than the background's colour."""
    low, high = (-1.1, -1.1, 0.1, 0.55), (1.1, 0.7, 0.3, 1.5)
    for x, y, r, k in np.random.default_rng(seed).uniform(low, high, (14, 4)).tolist():
        tone = mix(shade(main, k), (1.0, 0.95, 0.8) if k > 1 else (0.1, 0.2, 0.15), 0.25)
        c.paint(c.soft(ellipse(c.px - x, c.py - y, r, r), blur), tone, 0.45)


def neck(c: Canvas, face: Face) -> None:
    """Paint the neck, in the shadow of the chin."""
    x, t = c.px + 0.10 * face.pose, face.traits
    wide = 0.255 - 0.045 * t.feminine + 0.16 * step(c.py, 0.62, 0.98) ** 2
    c.paint(c.soft(np.maximum(np.abs(x) - wide, 0.2 - c.py)), lit_skin(c, face))
    side = step(-x * np.sign(t.light), -0.3, 0.3)
    inside = c.soft(np.maximum(np.abs(x) - wide, 0.2 - c.py))
    c.tint(inside * side * 0.25, SHADOW)
    under = c.soft(head_outline(c, face, 0.02, 0.07), 0.20)
    c.tint(inside * under * 0.60, SHADOW)
    for i in range(2 if face.age > 50 else 0):
        c.tint(c.soft(arc(x, c.py - 0.66 - 0.07 * i, 0.2, -0.02, 0.012), 0.03) * 0.4, SHADOW)


def clothes(c: Canvas, face: Face) -> None:
    """Paint shoulders with a neckline or a collar."""
    t = face.traits
    x = c.px + 0.10 * face.pose
    a = np.abs(x)
    shoulder = 0.67 + 0.36 * np.clip((a - 0.18) / 0.8, 0, 2) ** 1.7 + 0.05 * t.feminine
    neckline = {
        "round": ellipse(x, c.py - 0.66, 0.28, 0.20),
        "vee": a * 1.25 + c.py - 1.02,
        "shirt": a * 1.5 + c.py - 0.99,
    }[t.collar]
    cloth = np.asarray(t.clothes, np.float32).reshape(3, 1, 1)
    light = 0.92 + 0.22 * t.light * x - 0.30 * step(c.py, 0.75, 1.15)
    fold = 0.05 * np.sin(11 * x + 5 * c.py) * step(a, 0.3, 0.7)
    body = np.maximum(shoulder - c.py, -neckline)
    if t.backdrop != "white":  # a sheet of paper shows no shadow beside the shoulders
        c.tint(c.soft(body, 0.1) * 0.4, SHADOW)
    c.paint(c.soft(body), np.clip(cloth * (light + fold), 0, 1))
    rim = np.maximum(np.abs(neckline - 0.015) - 0.016, shoulder - c.py)
    c.paint(c.soft(rim), np.clip(cloth * light * 0.72, 0, 1))
    if t.collar == "shirt":
        flap = np.maximum(np.abs(neckline - 0.12) - 0.12, 0.57 + 0.45 * (a - 0.17) - c.py)
        flap = np.maximum(flap, c.py - 1.03 + 0.55 * a)
        c.tint(c.soft(flap, 0.06) * 0.3, (0.5, 0.5, 0.5))
        tone = np.clip(mix(t.clothes, (1.0, 1.0, 1.0), 0.55), 0, 1).astype(np.float32)
        c.paint(c.soft(flap), tone.reshape(3, 1, 1) * np.clip(light, 0, 1))


def ears(c: Canvas, face: Face) -> None:
    """Paint both ears; a turned head hides one and shows the other."""
    grown = 1 + 0.14 * wear(face)
    for side in (-1, 1):
        near, far = max(-side * face.pose, 0.0), max(side * face.pose, 0.0)
        at = side * (face.traits.width + 0.012 - 0.13 * near - 0.05 * far)
        x, y = c.x - at, c.y - 0.05
        lean = x - 0.16 * side * -y
        shape = ellipse(lean * (1 + 2 * np.clip(y, 0, 1)), y, 0.058, 0.125 * grown)
        # The face hides an ear's inner edge, unless the head shows that side.
        shape = np.maximum(shape, -head_outline(c, face, -0.035 - 0.25 * near))
        c.paint(c.soft(shape), lit_skin(c, face) * 0.97 + 0.02)
        c.tint(c.soft(shape) * glow(lean + 0.004 * side, y + 0.01, 0.03, 0.07) * 0.6, SHADOW)


def head(c: Canvas, face: Face) -> None:
    """Paint the head with its large lights: sockets, cheeks, forehead, chin."""
    t, age = face.traits, wear(face)
    mask = c.soft(head_outline(c, face))
    c.paint(mask, lit_skin(c, face))
    a = np.abs(c.u)
    c.tint(mask * glow(a - EYE_X, c.v + 0.01, 0.13, 0.085) * (0.22 + 0.2 * age), SHADOW)
    c.tint(mask * glow(a - 0.36, c.v - 0.28, 0.12, 0.22) * (0.12 + 0.28 * age), SHADOW)
    blush = 0.30 + 0.25 * t.feminine * (1 - 0.5 * age) + 0.1 * face.smile
    c.tint(mask * glow(a - 0.25, c.v - 0.20, 0.10, 0.085) * blush, (1.04, 0.74, 0.70))
    pale = mix(skin_colour(face.skin), (1.0, 0.95, 0.88), 0.55)
    c.paint(mask * glow(a - 0.24, c.v - 0.13, 0.07, 0.04), pale, 0.22)
    c.paint(mask * glow(c.u + 0.1 * -t.light, c.v + 0.34, 0.20, 0.10), pale, 0.22)
    c.paint(mask * glow(c.u, c.v - 0.51, 0.07, 0.035), pale, 0.16)
    c.tint(mask * glow(c.u, c.v - 0.462, 0.10, 0.022) * 0.35, SHADOW)


def wrinkles(c: Canvas, face: Face) -> None:
    """Draw the lines of age: forehead, crow's feet, bags, folds beside nose and mouth."""
    k = wear(face)
    if k == 0:
        return
    a = np.abs(c.u)
    mask = c.soft(head_outline(c, face))
    lines = [arc(c.u, c.v + y, 0.26, 0.012, 0.011) for y in (0.225, 0.285, 0.345)]
    for i, tilt in enumerate((-0.6, 0.0, 0.55)):
        lines.append(arc(a - 0.325, c.v - 0.01 * i - tilt * (a - 0.27), 0.042, 0.0, 0.009))
    lines.append(arc(a - EYE_X, c.v - 0.105, 0.10, -0.02, 0.012))
    lines.append(arc(a - EYE_X - 0.01, c.v - 0.15, 0.09, -0.018, 0.010))
    fold = a - 0.125 - 0.055 * step(c.v, 0.20, 0.40) - 0.02 * max(face.smile, 0.0)
    lines.append(arc(c.v - 0.315, fold, 0.105, 0.018, 0.013))
    lines.append(arc(c.v - 0.455, a - 0.155, 0.05, -0.008, 0.009))
    lines.append(arc(c.v + 0.13, np.abs(a - 0.028), 0.045, 0.0, 0.008))
    together = np.minimum.reduce(lines)
    c.tint(mask * c.soft(together, 0.024) * (0.1 + 0.85 * k), SHADOW)
    below = np.minimum.reduce([arc(c.u, c.v + y, 0.26, 0.012, 0.011) for y in (0.2, 0.26, 0.32)])
    pale = mix(skin_colour(face.skin), (1.0, 0.96, 0.9), 0.5)
    c.paint(mask * c.soft(below, 0.03), pale, 0.22 * k)


def beard(c: Canvas, face: Face) -> None:
    """Paint stubble, or a moustache and beard in the hair's colour."""
    k = face.traits.beard
    if k == 0:
        return
    a = np.abs(c.u)
    mask = c.soft(head_outline(c, face, 0.012))
    cheek = 0.32 - 0.42 * step(a, 0.20, 0.46)
    lips = ellipse(c.u, c.v - MOUTH_Y - 0.015, 0.14, 0.05)
    grown = np.maximum(np.maximum(cheek - c.v, -lips), -ellipse(c.u, c.v - 0.1, 0.30, 0.17))
    tache = np.maximum(np.abs(c.v - 0.31 - 0.5 * a**1.5) - 0.032, a - 0.17)
    shape = np.minimum(grown, tache) if k > 0.35 else tache
    grain = 1 + 0.07 * np.sin(60 * c.u * (1 - 0.4 * c.v)) - 0.25 * step(c.v, 0.40, 0.62)
    hair = np.asarray(shade(rgb(face.hair), 0.92), np.float32).reshape(3, 1, 1)
    c.paint(mask * c.soft(shape, 0.045), np.clip(hair * grain, 0, 1), min(1.0, 0.35 + 0.6 * k))


def nose(c: Canvas, face: Face) -> None:
    """Paint the nose by its shadows and lights; it stands out, so it turns further."""
    n = face.traits.nose * (1 + 0.10 * wear(face))
    c = c.window(0.06 * face.pose, 0.13, 0.24, 0.27)
    u = (c.u - 0.055 * face.pose * step(c.v, -0.1, NOSE_Y)) / n
    v, a = c.v, np.abs(u)
    away = -np.sign(face.traits.light)
    ridge = step(v, -0.12, 0.0) * (1 - step(v, 0.16, 0.27))
    c.tint(glow(u - 0.052 * away, v * 0, 0.030, 1) * ridge * 0.34, SHADOW)
    c.tint(glow(u + 0.055 * away, v * 0, 0.026, 1) * ridge * 0.14, SHADOW)
    c.tint(glow(u - 0.02 * away, v - NOSE_Y - 0.058, 0.10, 0.028) * 0.55, SHADOW)
    pale = mix(skin_colour(face.skin), (1.0, 0.96, 0.9), 0.6)
    c.paint(glow(u + 0.008 * away, v - 0.06, 0.020, 0.11), pale, 0.38)
    c.paint(glow(u + 0.012 * away, v - NOSE_Y + 0.025, 0.034, 0.028), pale, 0.60)
    wing = arc(v - NOSE_Y - 0.004, a - 0.082, 0.042, 0.022, 0.011)
    c.tint(c.soft(wing, 0.020) * 0.60, SHADOW)
    nostril = ellipse(a - 0.043, v - NOSE_Y - 0.032 - 0.15 * (a - 0.043), 0.024, 0.011)
    c.paint(c.soft(nostril, 0.018), shade(skin_colour(face.skin), 0.28), 0.8)


def mouth(c: Canvas, face: Face) -> None:
    """Paint the lips around their line; a broad smile opens it over the teeth."""
    t, age, s = face.traits, wear(face), face.smile
    half = 0.125 + 0.035 * max(s, 0.0) - 0.01 * max(-s, 0.0)
    c = c.window(0.0, MOUTH_Y + 0.02, 0.30, 0.15)
    u = c.u - 0.02 * face.pose
    bow = np.clip(1 - (u / half) ** 2, 0, 1)
    bend = 0.075 * max(s, 0.0) - 0.042 * max(-s, 0.0) + 0.012
    line = c.v - MOUTH_Y - bend * (bow - 0.55) - 0.008 * glow(u, c.v * 0, 0.03, 1)
    gap = 0.085 * max(s - 0.25, 0.0) * bow
    full = t.lips * (1 - 0.45 * age)
    upper = 0.040 * full * bow**0.75 * (1 - 0.28 * glow(u, c.v * 0, 0.026, 1))
    lower = 0.052 * full * bow**0.6
    base = skin_colour(face.skin)
    red = mix(shade(base, 0.85), (0.72, 0.20, 0.23), 0.34 + 0.36 * t.feminine)
    inside = np.abs(u) - half
    top = np.maximum(np.maximum(-upper - line, line), inside)
    low = np.maximum(np.maximum(gap - line, line - gap - lower), inside)
    c.tint(glow(u, line - gap - lower - 0.028, half * 0.75, 0.026) * 0.45, SHADOW)
    c.paint(c.soft(np.maximum(-line, np.maximum(line - gap, inside))), (0.27, 0.08, 0.08))
    teeth = np.maximum(np.maximum(-line, line - 0.72 * gap), np.abs(u) - half * 0.86)
    c.paint(c.soft(teeth), (0.96, 0.94, 0.89) if age < 0.3 else (0.93, 0.89, 0.80))
    c.paint(c.soft(top), shade(red, 0.80))
    c.paint(c.soft(low), red)
    c.paint(
        c.soft(low) * glow(u + 0.02, line - gap - 0.45 * lower, 0.045, 0.010), (1, 0.9, 0.88), 0.40
    )
    seam = np.minimum(arc(u, line, half * 1.04, 0.0, 0.008), arc(u, line - gap, half, 0.0, 0.004))
    c.paint(c.soft(seam, 0.014), shade(mix(base, (0.3, 0.05, 0.05), 0.6), 0.5), 0.75)
    corner = glow(np.abs(u) - half - 0.012, line, 0.022, 0.022)
    c.tint(corner * (0.35 + 0.25 * abs(s)), SHADOW)


def eye(c: Canvas, face: Face, side: int) -> None:
    """Paint an eye: white, iris with pupil and highlight, lids and lashes."""
    t, age = face.traits, wear(face)
    c = c.window(side * EYE_X, 0.0, 0.17, 0.13)
    e = side * c.u - EYE_X  # grows outwards
    v = c.v + 0.10 * e * (1.0 - 1.5 * age)  # outer corners sink with age
    half = 0.092 * t.eye * (1 + 0.014 * max(24 - face.age, 0))  # youth has large eyes
    bow = 1 - (e / half) ** 2
    up, low = (0.058 - 0.016 * age) * t.eye, 0.032 * t.eye
    almond = np.maximum(-v - up * bow, v - low * bow)
    mask = c.soft(almond)
    c.paint(mask, mix((0.97, 0.96, 0.95), (0.9, 0.83, 0.76), 0.6 * age))
    look = e + side * -0.012 * face.pose
    ball = np.hypot(look, v + 0.012)
    r = 0.047
    c.paint(mask * c.soft(ball - r), shade(t.iris, 0.45))
    c.paint(mask * c.soft(ball - r * 0.84), t.iris)
    c.paint(mask * c.soft(ball - r * 0.84) * step(v, -0.03, 0.04), shade(t.iris, 1.7), 0.6)
    c.paint(mask * c.soft(ball - r * 0.45), (0.03, 0.025, 0.03))
    c.tint(mask * step(-v - up * bow, -0.030, 0.0) * 0.55, (0.45, 0.42, 0.45))
    glint = np.hypot(c.u - side * EYE_X - 0.016 * np.sign(t.light), v + 0.030)
    c.paint(mask * c.soft(glint - 0.0125), (1.0, 1.0, 1.0), 0.95)
    lash = arc(e, v, half * 1.08, up, 0.009 + 0.009 * t.feminine)
    c.paint(c.soft(lash), (0.09, 0.06, 0.05), 0.95)
    c.tint(c.soft(arc(e, v, half, -low, 0.006), 0.015) * 0.5, SHADOW)
    crease = arc(e - 0.005, v + 0.026, half * 1.12, up * (1.05 - 0.35 * age), 0.009)
    c.tint(c.soft(crease, 0.016) * (0.55 + 0.3 * age), SHADOW)


def brow(c: Canvas, face: Face, side: int) -> None:
    """Paint an eyebrow: thick near the nose, thin outside, greying with the hair."""
    t = face.traits
    c = c.window(side * EYE_X, BROW_Y, 0.22, 0.11)
    e = side * c.u - EYE_X - 0.01
    thick = (0.027 - 0.009 * t.feminine) * t.brow
    v = c.v - BROW_Y + 0.01 * face.smile - 0.05 * e
    tapered = np.where(e < 0, 1.1, 1 - 0.9 * np.clip(e / 0.13, 0, 1) ** 1.3)
    shape = np.maximum(
        np.abs(v + 0.022 * (1 - (e / 0.12) ** 2)) - thick * tapered, np.abs(e) - 0.125
    )
    hair = np.asarray(shade(rgb(face.hair), 0.85), np.float32).reshape(3, 1, 1)
    colour = hair * (1 + 0.10 * np.sin(150 * e + 60 * v))
    mask = c.soft(shape, 0.022) * c.soft(head_outline(c, face))
    c.paint(mask, np.clip(colour, 0, 1), 0.88)
