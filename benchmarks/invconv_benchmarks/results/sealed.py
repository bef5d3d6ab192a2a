"""Files of strict JSON with a named schema and a checksum over all of it.

A file that was cut off, edited or made by another version is refused.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from invconv.arrays.errors import CommandError
from invconv.files.container import write_text

Document = dict[str, Any]


def checksum(document: Document) -> str:
    """Return the SHA-256 of the document without its checksum, as canonical JSON."""
    rest = {k: v for k, v in document.items() if k != "checksum"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write(path: Path, document: Document) -> None:
    """Write a document with its checksum, at once or not at all."""
    document = json.loads(json.dumps(document, allow_nan=False))
    document["checksum"] = checksum(document)
    text = json.dumps(document, indent=1, allow_nan=False)
    # the samples of a pass stand in one line
    text = re.sub(r"\[[-+.\de,\s]+\]", lambda m: " ".join(m[0].split()), text)
    write_text(path, text + "\n")


def read(path: Path, name: str, schema: Document | None = None) -> Document:
    """Return the document of a file that `write` wrote, checked against its checksum and schema."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        document = document if isinstance(document, dict) else {}
        intact = document.get("checksum") == checksum(document)  # which refuses NaN
    except FileNotFoundError:
        raise CommandError(f"{path}: there is no such file") from None
    except ValueError:
        raise CommandError(f"{path}: expected JSON; the file is cut off or damaged") from None
    if (named := document.get("schema")) != name:
        raise CommandError(f"{path}: expected a result of schema {name}, got {named!r}")
    if not intact:
        changed = "the checksum does not match, so the file was changed after it was written"
        raise CommandError(f"{path}: {changed}; measure again, or restore it")
    import jsonschema  # the demo, which reads no result, does without

    try:
        jsonschema.validate(document, schema or {})
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise CommandError(f"{path}: not of schema {name} at {place}: {error.message}") from None
    return dict(document)
