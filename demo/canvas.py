"""A face's factors and traits, and the canvas to draw it on: soft shapes on coordinate fields.

A shape is a field of signed distances, negative inside; its mask is that distance with a soft edge.
portrait.py composes the pictures.
"""

from dataclasses import dataclass, replace

import numpy as np

Field = np.ndarray  # [H, W] float32, or [3, H, W] for colours
Colour = tuple[float, float, float]

CROP = 0.86  # share of the scene that the picture shows, close around the head as in ID photos
TOP = -0.90  # height in the scene at which the picture begins
EYE_LINE = -0.05  # height of the eyes in the scene, whose sides are at -1 and 1
HEAD_SCALE = 1.07  # the head, from skull to chin, takes 73 % of the picture's height
EYE_X, BROW_Y, NOSE_Y, MOUTH_Y, CHIN_Y = 0.18, -0.125, 0.235, 0.365, 0.58  # in the head's frame
TURN_RADIUS = 0.62  # features lie on an upright cylinder of this radius, turned by the yaw
SKIN_TONES = ("#5d3a28", "#8a573a", "#b98058", "#e0b08d", "#f7dccb")  # skin = 0 ... 1


@dataclass(frozen=True)
class Traits:
    """What faces.csv does not list: proportions, clothes, light."""

    feminine: float = 0.5
    width: float = 0.44
    jaw: float = 0.3
    eye: float = 1.0
    nose: float = 1.0
    lips: float = 1.0
    brow: float = 1.0
    beard: float = 0.0
    iris: Colour = (0.25, 0.15, 0.1)
    roll: float = 0.0
    pitch: float = 0.0
    light: float = -0.5
    clothes: Colour = (0.2, 0.25, 0.35)
    collar: str = "round"
    backdrop: str = "plain"
    hat_colour: Colour = (0.35, 0.3, 0.28)
    hat_kind: str = "beanie"
    glasses_kind: str = "round"
    earrings: bool = False
    texture: int = 0


@dataclass(frozen=True)
class Face:
    """The factors of one picture, as in faces.csv, and its traits."""

    age: int
    skin: float
    hair: str
    hair_style: str
    pose: float
    glasses: int
    hat: int
    smile: float
    background: str
    traits: Traits


def rgb(text: str) -> Colour:
    """Return "#rrggbb" as three numbers in 0..1."""
    r, g, b = (int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return r, g, b


def mix(a: Colour, b: Colour, t: float) -> Colour:
    """Return the colour `t` of the way from `a` to `b`."""
    r, g, blue = (p + (q - p) * t for p, q in zip(a, b, strict=True))
    return r, g, blue


def shade(colour: Colour, k: float) -> Colour:
    """Return the colour k times as bright, clipped at white."""
    r, g, b = (min(1.0, p * k) for p in colour)
    return r, g, b


def skin_colour(skin: float) -> Colour:
    """Return the skin's colour for 0 (dark) to 1 (light)."""
    at = min(max(skin, 0.0), 1.0) * (len(SKIN_TONES) - 1)
    i = min(int(at), len(SKIN_TONES) - 2)
    return mix(rgb(SKIN_TONES[i]), rgb(SKIN_TONES[i + 1]), at - i)


def ellipse(x: Field, y: Field, rx: float, ry: float) -> Field:
    """Return approximately the signed distance to an ellipse around 0."""
    return (np.sqrt((x / rx) ** 2 + (y / ry) ** 2) - 1) * min(rx, ry)


def glow(x: Field, y: Field, rx: float, ry: float) -> Field:
    """Return a smooth spot, 1 at the centre."""
    return np.exp(-((x / rx) ** 2 + (y / ry) ** 2))


def arc(x: Field, y: Field, half: float, bend: float, thick: float) -> Field:
    """Return the distance to a tapered stroke from -half to half whose middle is lifted by bend."""
    t = 1 - (x / half) ** 2
    return np.abs(y + bend * t) - thick * t


def step(x: Field, low: float, high: float) -> Field:
    """Return a smooth 0..1 step between low and high."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Canvas:
    """Colours [3, H, W] and the coordinates of their pixels in three frames.

    px, py: the scene, -1..1, most of which is shown. x, y: the upright head, eyes at y = 0. u, v:
    the face seen from the front, so that a feature drawn there turns with the head.
    """

    colours: Field
    px: Field
    py: Field
    x: Field
    y: Field
    u: Field
    v: Field
    pixel: float

    def window(self, u: float, v: float, ru: float, rv: float) -> "Canvas":
        """Return a view around u, v, in which small features are quick to draw."""
        near = (np.abs(self.u - u) < ru) & (np.abs(self.v - v) < rv)
        rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
        r, c = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        fields = {k: getattr(self, k)[r, c] for k in ("px", "py", "x", "y", "u", "v")}
        return replace(self, colours=self.colours[:, r, c], **fields)

    def soft(self, distance: Field, blur: float = 0.0) -> Field:
        """Return the mask of a signed distance; its edge is one pixel or `blur` wide."""
        return np.clip(0.5 - distance / max(blur, 1.2 * self.pixel), 0, 1)

    def paint(self, mask: Field, colour: Colour | Field, opacity: float = 1.0) -> None:
        """Paint a colour over the picture where the mask is."""
        ink = np.asarray(colour, np.float32).reshape(3, *np.shape(colour)[1:] or (1, 1))
        self.colours[...] += (ink - self.colours) * (mask * opacity)

    def tint(self, mask: Field, colour: Colour) -> None:
        """Multiply the picture by a colour where the mask is: shadows and blushes."""
        self.colours[...] *= 1 + mask * (np.asarray(colour, np.float32).reshape(3, 1, 1) - 1)


def new_canvas(face: Face, resolution: int) -> Canvas:
    """Return a white canvas whose frames follow the face's pose."""
    t = face.traits
    line = (np.arange(resolution, dtype=np.float32) + 0.5) * (2 / resolution) - 1
    px, py = np.meshgrid(CROP * line, CROP * (line + 1) + TOP)
    cos, sin = float(np.cos(t.roll)), float(np.sin(t.roll))
    yaw = 0.31 * face.pose
    # Aligned photos keep the eyes in the middle, so a turned head moves to the other side.
    shift = 0.7 * TURN_RADIUS * float(np.sin(yaw))
    x = (cos * px + sin * (py - EYE_LINE)) / HEAD_SCALE + shift
    y = (cos * (py - EYE_LINE) - sin * px) / HEAD_SCALE
    s = np.clip(x / TURN_RADIUS, -1, 1)
    u = TURN_RADIUS * (s * float(np.cos(yaw)) - np.sqrt(1 - s * s) * float(np.sin(yaw)))
    u += x - TURN_RADIUS * s
    v = y + t.pitch * 0.07 * np.clip(1 - (y / 0.7) ** 2, 0, 1)
    colours = np.ones((3, resolution, resolution), np.float32)
    return Canvas(colours, px, py, x, y, u, v, 2 * CROP / resolution)


def head_outline(c: Canvas, face: Face, grow: float = 0.0, drop: float = 0.0) -> Field:
    """Return the signed distance to the head: a skull above the eyes, jaw and chin below."""
    t, y = face.traits, c.y - drop
    down = np.clip(y / CHIN_Y, 0, 1.3)
    x = c.x - 0.16 * face.pose * down * down  # the chin is far from the axis of the turn
    narrow = 1 - t.jaw * down * down
    height = np.where(y < 0, 0.58 + grow, CHIN_Y + grow + 0.02 * t.pitch)
    across, along = (x / (narrow * (t.width + grow))) ** 2, (y / height) ** 2
    square = np.where(y > 0, 0.42 - 0.30 * t.feminine, 0.22)  # men have square jaws
    return (np.sqrt(across + along - square * np.clip(across * along, 0, 1)) - 1) * t.width


def lit_skin(c: Canvas, face: Face) -> Field:
    """Return skin colours shaded like a ball: warm in the shadow, pale in the light."""
    nx, ny = c.x / 0.52, (c.y - 0.02) / 0.72
    nz = np.sqrt(np.clip(1 - nx * nx - ny * ny, 0.04, 1))
    side = 0.62 * face.traits.light
    lit = np.clip(nx * side - 0.34 * ny + 0.82 * nz, 0, 1.1)
    dark = 1 - step(lit, 0.05, 0.95)
    base = np.asarray(skin_colour(face.skin), np.float32).reshape(3, 1, 1)
    fall = np.asarray((0.36, 0.47, 0.50), np.float32).reshape(3, 1, 1)
    return base * (1.04 - fall * dark) + 0.07 * step(lit, 0.7, 1.08) * (1.1 - base)
