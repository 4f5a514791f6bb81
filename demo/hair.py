"""Hair behind and in front of the head, hats, glasses and earrings."""

from dataclasses import dataclass, replace

import numpy as np
from canvas import EYE_X, Canvas, Face, Field, arc, ellipse, glow, head_outline, rgb, step


@dataclass(frozen=True)
class Style:
    """A hair style: how far it stands off the skull, where it ends, how much face it shows."""

    volume: float
    bottom: float
    opening: float
    hairline: float
    part: float = 0.0
    sweep: float = 0.0  # how far hair falls over the forehead away from the parting
    curl: float = 0.0
    back: float = 0.0  # half-width of the hair behind the neck; 0 for none
    back_end: float = 0.0


STYLES = {
    "bald": Style(0.014, 0.16, 0.375, -0.95),
    "receding": Style(0.022, 0.05, 0.405, -0.46),
    "short": Style(0.06, 0.07, 0.405, -0.41),
    "side": Style(0.075, 0.06, 0.405, -0.43, part=0.20, sweep=0.15),
    "curly": Style(0.125, 0.16, 0.385, -0.38, curl=1.0, back=0.50, back_end=0.24),
    "bun": Style(0.030, 0.02, 0.415, -0.39, part=0.01, sweep=0.04),
    "bob": Style(0.095, 0.47, 0.36, -0.40, part=0.16, sweep=0.20, back=0.52, back_end=0.50),
    "long": Style(0.075, 0.80, 0.365, -0.43, part=0.03, sweep=0.21, back=0.51, back_end=0.95),
}


def style_of(face: Face) -> Style:
    """Return the face's hair style with this person's parting, volume and hairline."""
    style, t = STYLES[face.hair_style], face.traits
    variation = (t.texture % 1009) / 504.5 - 1
    side = 1 if t.texture % 2 else -1
    return replace(
        style,
        part=style.part * side,
        hairline=style.hairline + 0.025 * variation,
        volume=style.volume * (1 + 0.25 * variation),
    )


def ears_over_hair(face: Face) -> bool:
    """Return whether the hair is short or combed behind the ears."""
    return face.hair_style in ("bald", "receding", "short", "side", "bun")


def strands(c: Canvas, face: Face, style: Style) -> Field:
    """Return streaks that fall from the parting, or curls, in -1..1."""
    phase = face.traits.texture % 97 * 0.37
    x, y = c.x - style.part, c.y + 0.78
    if style.curl:
        fold_x = x + 0.05 * np.sin(17 * c.y + phase) + 0.03 * np.sin(31 * x)
        fold_y = c.y + 0.05 * np.sin(19 * x - phase) + 0.03 * np.sin(29 * c.y)
        return 0.7 * np.sin(33 * fold_x + 12 * fold_y) * np.sin(30 * fold_y - 9 * fold_x) + 0.3
    angle = np.arctan2(x, y + 0.06)
    bent = angle + 0.05 * np.sin(7 * angle + 4 * y + phase)
    fine = 0.5 * np.sin(23 * bent + phase) + 0.3 * np.sin(57 * bent + 2 * phase)
    return fine + 0.2 * np.sin(101 * bent)


def hair_colours(c: Canvas, face: Face, style: Style, depth: float) -> Field:
    """Return shaded hair [3, H, W]: streaks, a soft ring of gloss, darker on the shadow side."""
    base = np.asarray(rgb(face.hair), np.float32).reshape(3, 1, 1)
    streak = strands(c, face, style)
    height = np.hypot(c.x / 0.50, (c.y + 0.1) / 0.58)
    gloss = np.exp(-(((height - 0.84) / 0.10) ** 2)) * (0.7 + 0.5 * streak) * (c.y < 0.1)
    side = np.clip(0.5 + 0.9 * face.traits.light * c.x, 0, 1)
    tone = depth * (0.66 + 0.40 * side + 0.13 * streak)
    tone = tone - 0.22 * step(c.y, -0.2, 0.5)
    return np.clip(base * tone + depth * gloss * side * (0.10 + 0.16 * base), 0, 1)


def skull(c: Canvas, face: Face, style: Style) -> Field:
    """Return the signed distance to the outside of the hair."""
    t, grow = face.traits, style.volume
    wave: Field = np.zeros_like(c.x)
    if style.curl:
        angle = np.arctan2(c.x, -c.y)
        wave = 0.016 * np.sin(11 * angle + t.texture) + 0.011 * np.sin(23 * angle + 2)
    close = step(c.y, -0.4, 0.0) * ears_over_hair(face)  # short hair lies flat above the ears
    wide = t.width + grow * (1 - close) + 0.012
    top = 0.60 + grow * 0.9
    y = np.where(c.y < -0.08, (c.y + 0.08) / (top - 0.08), (c.y + 0.08) / 1.6)
    outside = (np.sqrt((c.x / wide) ** 2 + y * y) - 1) * wide + wave
    return np.maximum(outside, -0.33 - c.y) if face.hat else outside


def hair_back(c: Canvas, face: Face) -> None:
    """Paint the hair that hangs behind the neck, or a bun above the head."""
    style = style_of(face)
    if face.hair_style != "bald":
        cap = np.maximum(skull(c, face, style), c.y - min(style.bottom, 0.3))
        c.paint(c.soft(cap), hair_colours(c, face, style, 0.78))
    if face.hair_style == "bun" and not face.hat:
        bun = ellipse(c.x + 0.06 * face.pose, c.y + 0.70, 0.17, 0.13)
        c.paint(c.soft(bun), hair_colours(c, face, style, 0.85))
    if style.back == 0:
        return
    end = style.back_end + 0.03 * np.sin(9 * c.x + face.traits.texture)
    widen = style.back - 0.06 + 0.11 * step(c.y, -0.1, 0.45)
    sides = np.abs(c.x) - widen
    shape = np.maximum(np.maximum(sides, c.y - end), -0.1 - c.y)
    corner = np.hypot(np.clip(sides + 0.12, 0, 1), np.clip(c.y - end + 0.12, 0, 1)) - 0.12
    shape = np.maximum(shape, corner)
    if style.curl:
        shape = shape + 0.012 * np.sin(31 * c.y + 17 * c.x)
    c.paint(c.soft(shape), hair_colours(c, face, style, 0.62))


def opening(c: Canvas, face: Face, style: Style) -> Field:
    """Return the signed distance to the area where the hair in front leaves the face open."""
    a = np.abs(c.u)
    if face.hair_style == "bald":
        return np.minimum(a - style.opening, c.v + 0.24 + 0.6 * (a - 0.40))
    lift = 0.05 * (c.u / 0.4) ** 2
    if style.sweep:
        lift = style.sweep * np.clip(np.abs(c.u - style.part) / 0.5, 0, 1) ** 1.3
    if face.hair_style == "receding":
        lift = lift - 0.13 * glow(a - 0.24, c.u * 0, 0.09, 1.0) + 0.05
    top = style.hairline + lift - c.v
    top = top + 0.006 * np.sin(37 * c.u + face.traits.texture) + 0.005 * np.sin(61 * c.u)
    sides = a - style.opening - 0.03 * step(c.v, 0.0, 0.3)
    round_off = 0.20
    corner = np.hypot(np.clip(sides + round_off, 0, 2), np.clip(top + round_off, 0, 2)) - round_off
    return np.maximum(np.maximum(sides, top), corner)


def hair_front(c: Canvas, face: Face) -> None:
    """Paint the hair over the skull and beside the face, with its shadow on the forehead."""
    style = style_of(face)
    hole = opening(c, face, style)
    outside = skull(c, face, style)
    end = style.bottom + 0.02 * np.sin(13 * c.x + face.traits.texture)
    blur = {"bald": 0.07, "receding": 0.07, "short": 0.035, "bun": 0.03}.get(face.hair_style, 0.014)
    on_skin = c.soft(head_outline(c, face)) * step(hole, -0.10, 0.0) * (c.y < end + 0.1)
    if face.hair_style != "bald":
        c.tint(on_skin * 0.4, (0.62, 0.52, 0.50))
    mask = c.soft(-hole, blur) * c.soft(np.maximum(outside, c.y - end), 0.014)
    thin = {"bald": 0.85, "receding": 0.9}.get(face.hair_style, 1.0)
    c.paint(mask * thin, hair_colours(c, face, style, 1.0))


def hat(c: Canvas, face: Face) -> None:
    """Paint a beanie, or a hat with a wide or a narrow brim, over the hair."""
    t = face.traits
    band_y = -0.34 - 0.05 * (c.x / 0.5) ** 2 + 0.02 * t.pitch
    wide, tall = t.width + 0.075, 0.42
    dome = ellipse(c.x, c.y + 0.30, wide, tall + (0.05 if t.hat_kind == "brim" else 0.0))
    dome = np.maximum(dome, c.y - band_y)
    side = np.clip(0.75 + 0.55 * t.light * c.x / 0.5 - 0.25 * (c.y + 0.5), 0.4, 1.15)
    cloth = np.asarray(t.hat_colour, np.float32).reshape(3, 1, 1)
    knit = 1 + (0.05 * np.sin(95 * c.u) if t.hat_kind == "beanie" else 0 * c.u)
    c.tint(c.soft(head_outline(c, face)) * step(-c.v, 0.13, 0.36) * 0.55, (0.5, 0.42, 0.4))
    c.paint(c.soft(dome), np.clip(cloth * side * knit, 0, 1))
    if t.hat_kind == "beanie":
        cuff = np.maximum(np.abs(c.y - band_y + 0.02) - 0.075, np.abs(c.x) - wide - 0.012)
        c.paint(c.soft(cuff, 0.02), np.clip(cloth * side * (0.86 + 3 * (knit - 1)), 0, 1))
        return
    ribbon = np.maximum(np.abs(c.y - band_y + 0.06) - 0.045, dome)
    c.paint(c.soft(ribbon), np.clip(cloth * side * 0.45, 0, 1))
    reach = 0.74 if t.hat_kind == "brim" else 0.56
    brim = ellipse(c.x - 0.06 * face.pose, c.y + 0.335 + 0.10 * (c.x / 0.7) ** 2, reach, 0.075)
    c.paint(c.soft(brim), np.clip(cloth * side * (1.0 - 2.2 * (c.y + 0.36)), 0, 1))


def glasses(c: Canvas, face: Face) -> None:
    """Paint rims, bridge, temples and a faint glare."""
    kind = face.traits.glasses_kind
    rx, ry, power = {"round": (0.135, 0.125, 2.0), "square": (0.145, 0.105, 4.0)}.get(
        kind, (0.14, 0.115, 2.8)
    )
    rim_colour = {"round": rgb("#3a2a20"), "square": rgb("#17181c")}.get(kind, rgb("#7d1f26"))
    thick = 0.011 if kind == "round" else 0.015
    c = c.window(0, 0.02, 0.52, 0.22)
    v = c.v - 0.025
    x, y = np.abs((np.abs(c.u) - EYE_X) / rx), np.abs(v / ry)
    lens = ((x**power + y**power) ** (1 / power) - 1) * ry
    bridge = arc(c.u, v + 0.02, 0.06, 0.03, 0.016)
    temple = np.maximum(np.abs(v + 0.03) - 0.012, np.abs(np.abs(c.u) - 0.385) - 0.07)
    frame = np.minimum(np.minimum(np.abs(lens) - thick, bridge), temple)
    c.tint(c.soft(frame, 0.05) * 0.35, (0.6, 0.5, 0.5))
    inside = c.soft(lens)
    c.paint(inside, (0.93, 0.97, 1.0), 0.10)
    glare = step(np.sin(9 * (c.u - 1.2 * v)), 0.75, 0.98)
    c.paint(inside * glare * (v < 0.02), (1.0, 1.0, 1.0), 0.22)
    c.paint(c.soft(frame), rim_colour)


def earrings(c: Canvas, face: Face) -> None:
    """Paint a pearl or a gold drop under each ear."""
    gold = face.traits.texture % 2 == 0
    for side in (-1, 1):
        x, y = c.x - side * (face.traits.width + 0.012), c.y - 0.235
        c.paint(c.soft(ellipse(x, y, 0.026, 0.032)), rgb("#c79a3a" if gold else "#efe9df"))
        c.paint(glow(x + 0.008, y + 0.01, 0.01, 0.01), (1.0, 1.0, 0.95), 0.9)
