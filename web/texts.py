"""The texts of the page in English and Spanish; the labels of the sliders are in sliders.py."""

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
    "upload": ("Your own", "Subir archivo"),
    "unlike_a": ("differs from A", "difiere de A"),
    "unlike_b": ("differs from B", "difiere de B"),
    "gives": ("Who gives what", "Quién aporta qué"),
    "shares": ("left: all of A · right: all of B", "izquierda: todo de A · derecha: todo de B"),
    "more": ("Variety and noise", "Variedad y ruido"),
    "directions": ("Directions: what this generator varies", "Direcciones: qué varía el generador"),
    "keep": ("Keep the third face", "Guardar el tercer rostro"),
    "picture": ("Picture", "Imagen"),
    "sheet": ("Sheet of layers", "Lámina por capas"),
    "film": ("Film", "Animación"),
    "styles": ("Styles (w)", "Estilos (w)"),
    "time": ("The run through time", "El entrenamiento a lo largo del tiempo"),
    "snapshot": ("Snapshot", "Instantánea"),
    "earlier": ("Earlier", "Anterior"),
    "later": ("Later", "Siguiente"),
    "at": ("after {} iterations, {} px", "tras {} iteraciones, {} px"),
    "stand_ins": (
        "An uploaded face fits one generator only; here seed 0 (A) or 1 (B) replaces it.",
        "Un rostro subido solo sirve para un generador; aquí lo reemplaza la semilla 0 (A) "
        "o 1 (B).",
    ),
    "note": (
        "All of this happens on the machine where the page was started. What is uploaded is "
        "erased when it ends.",
        "Todo se procesa en la máquina donde se inició la página. Lo que suba se borrará cuando "
        "el programa termine.",
    ),
    "projecting": ("looking for this face in the generator", "buscando el rostro en el generador"),
    "filming": ("making the film", "creando la animación"),
    "drawing": ("drawing the sheet", "dibujando la lámina"),
    "no_seed": (
        "A seed is a whole number from 0 to {}.",
        "La semilla debe ser un número entero de 0 a {}.",
    ),
    "no_styles": (
        "These styles cannot be used: they are from another generator, or the file is damaged.",
        "Estos estilos no se pueden usar: son de otro generador o el archivo está dañado.",
    ),
    "broken": (
        "This generator cannot make this picture; choose another checkpoint.",
        "Este generador no puede crear esta imagen; elija otro punto de control.",
    ),
    "no_photo": (
        "This photo cannot be used: {}. Expected a JPEG, PNG or similar.",
        "Esta foto no se puede usar: {}. Se espera un JPEG, PNG o similar.",
    ),
}

PHOTO_PROBLEMS = {  # as data.photos names them
    "not an image": "no es una imagen",
    "too small": "es demasiado pequeña",
    "too many pixels": "tiene demasiados píxeles",
    "damaged": "está dañada",
    "pixels of unknown range": "sus píxeles no son de 8 ni de 16 bits",
    "cannot be read": "no se puede leer",
    "not a regular file": "no es un archivo normal",
}


def translate(text: str | Text, language: str, *values: object) -> str:
    """Return a text, or that of a key of TEXTS, in a language, with `values` filled in."""
    versions = TEXTS[text] if isinstance(text, str) else text
    return versions[LANGUAGES.index(language)].format(*values)


def photo_problem(error: str, language: str) -> str:
    """Return what is wrong with a photo, from the message of a PhotoError; details are dropped."""
    problem = next((known for known in PHOTO_PROBLEMS if known in error), "damaged")
    return problem if language == ENGLISH else PHOTO_PROBLEMS[problem]


def format_count(number: int, language: str) -> str:
    """Return a whole number with separated thousands."""
    return f"{number:,}".replace(",", "." if language == SPANISH else ",")


def preferred_language(accept_language: str) -> str:
    """Return the language that a browser's Accept-Language header asks for first."""
    return SPANISH if accept_language.strip().lower().startswith("es") else ENGLISH
