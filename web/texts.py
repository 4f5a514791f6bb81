"""What the page says, in English and in Spanish, and nothing else."""

from __future__ import annotations

ENGLISH, SPANISH = "English", "Español"
LANGUAGES = (ENGLISH, SPANISH)

Text = tuple[str, str]  # in the order of LANGUAGES

TEXTS: dict[str, Text] = {
    "title": (
        "What does each of two faces give to a third?",
        "¿Qué aporta cada uno de dos rostros a un tercero?",
    ),
    "a": ("Face A", "Rostro A"),
    "b": ("Face B", "Rostro B"),
    "third": ("The third face", "El tercer rostro"),
    "seed": ("Seed", "Semilla"),
    "draw": ("Another face", "Otro rostro"),
    "upload": ("Your own", "Uno propio"),
    "unlike_a": ("differs from A", "difiere de A"),
    "unlike_b": ("differs from B", "difiere de B"),
    "gives": ("Who gives what", "Quién aporta qué"),
    "shares": ("left: all of A · right: all of B", "izquierda: todo de A · derecha: todo de B"),
    "more": ("Variety and noise", "Variedad y ruido"),
    "directions": (
        "Directions: what this generator varies",
        "Direcciones: lo que este generador varía",
    ),
    "keep": ("Keep the third face", "Guardar el tercer rostro"),
    "picture": ("Picture", "Imagen"),
    "sheet": ("Sheet of layers", "Lámina de capas"),
    "film": ("Film", "Película"),
    "styles": ("Styles (w)", "Estilos (w)"),
    "time": ("The run through time", "El entrenamiento en el tiempo"),
    "stop": ("Snapshot", "Instantánea"),
    "earlier": ("Earlier", "Antes"),
    "later": ("Later", "Después"),
    "at": ("after {} iterations, {} px", "tras {} iteraciones, {} px"),
    "at_px": ("{} px", "{} px"),
    "stand_ins": (
        "Faces of your own belong to one generator; seeds 0 and 1 stand for them here.",
        "Los rostros propios son de un solo generador; aquí los reemplazan las semillas 0 y 1.",
    ),
    "note": (
        "All of this happens on the machine where the page was started. What is uploaded is "
        "erased when it ends.",
        "Todo ocurre en la máquina donde se inició la página. Lo que se sube se borra cuando "
        "termina.",
    ),
    "projecting": ("looking for this face in the generator", "buscando este rostro"),
    "filming": ("making the film", "haciendo la película"),
    "drawing": ("drawing the sheet", "dibujando la lámina"),
    "no_seed": (
        "A seed is a whole number from 0 to {}.",
        "Una semilla es un número entero de 0 a {}.",
    ),
    "too_large": (
        "This file has more than {} MB; expected a photo or an .npz file of styles.",
        "Este archivo pasa de {} MB; se espera una foto o un archivo .npz de estilos.",
    ),
    "no_styles": (
        "These styles do not suit: another generator made them, or the file is damaged.",
        "Estos estilos no sirven: son de otro generador, o el archivo está dañado.",
    ),
    "broken": (
        "This generator gives no picture here; choose another checkpoint.",
        "Este generador no da aquí ninguna imagen; elija otro punto de control.",
    ),
    "no_photo": (
        "This photo cannot be used: {}. Expected a JPEG, PNG or the like.",
        "Esta foto no se puede usar: {}. Se espera un JPEG, un PNG o similar.",
    ),
}

REASONS = {  # of photos.py, as they begin
    "not an image": "no es una imagen",
    "too small": "es demasiado pequeña",
    "too many pixels": "tiene demasiados píxeles",
    "damaged": "está dañada",
    "pixels of unknown range": "sus píxeles no son de 8 ni de 16 bits",
    "cannot be read": "no se puede leer",
    "not a regular file": "no es un archivo corriente",
}


def say(text: str | Text, language: str, *values: object) -> str:
    """Return a text, or the one of a key, in a language, `values` in its places."""
    known = TEXTS[text] if isinstance(text, str) else text
    return known[LANGUAGES.index(language)].format(*values)


def reason(error: str, language: str) -> str:
    """Return why a photo cannot be used: photos.py's reason, without a detail where translated."""
    found = next((known for known in REASONS if known in error), None)
    if found is None or language == ENGLISH:
        return found or "damaged"
    return REASONS[found]


def whole(number: int, language: str) -> str:
    """Return a whole number with its thousands apart."""
    return f"{number:,}".replace(",", "." if language == SPANISH else ",")


def preferred(accepted: str) -> str:
    """Return the language for a browser's Accept-Language header."""
    first = accepted.strip().lower()
    return SPANISH if first.startswith("es") else ENGLISH
