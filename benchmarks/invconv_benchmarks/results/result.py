"""The result of a benchmark, and files of results.

They are strict JSON with a named schema and a checksum over all of it: a file that was cut off,
edited or made by another version is refused.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from invconv.arrays.errors import CommandError
from invconv.files.container import write_text
from invconv_benchmarks.measure import environment
from invconv_benchmarks.measure.spread import Interval
from invconv_benchmarks.results.limits import Verdict
from invconv_benchmarks.results.row import Row

Document = dict[str, Any]
SCHEMA = "invconv-benchmark/2"


@dataclass(frozen=True)
class Result:
    """The result of a run: with which command and machine, and what was found."""

    invconv: str
    date: str
    command: str
    seconds: float
    complete: bool  # else it was interrupted, and some rows are missing
    quick: bool
    passes: int
    environment: dict[str, Any]
    load: dict[str, float | None]  # the processes that wanted to run at the start and at the end
    not_run: list[str]  # what is absent, and why
    rows: list[Row]
    limits: list[Verdict]

    @property
    def busy(self) -> bool:
        """Whether other processes wanted to run too."""
        return environment.busy(self.load, self.environment["cores"])


def write(path: Path, result: Result) -> None:
    """Write a result with its checksum, at once or not at all."""
    write_document(path, {"schema": SCHEMA} | asdict(result))


def read(path: Path) -> Result:
    """Return a file's result; a file that is none, was changed or is cut off is refused."""
    schema = files(__package__).joinpath("benchmark.schema.json").read_text("utf-8")
    document = read_document(path, SCHEMA, json.loads(schema))
    rows = [Row(**row | {"shape": tuple(row["shape"])}) for row in document["rows"]]
    for row in rows:
        for name in ("ratio", "yardstick"):
            if (interval := getattr(row, name)) is not None:
                setattr(row, name, Interval(**interval))
    fields = {n: v for n, v in document.items() if n not in ("schema", "checksum")}
    limits = [Verdict(**limit) for limit in document["limits"]]
    return Result(**fields | {"rows": rows, "limits": limits})


def checksum(document: Document) -> str:
    """Return the SHA-256 of the document without its checksum, as canonical JSON."""
    rest = {k: v for k, v in document.items() if k != "checksum"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_document(path: Path, document: Document) -> None:
    """Write a document with its checksum, at once or not at all."""
    document = json.loads(json.dumps(document, allow_nan=False))
    document["checksum"] = checksum(document)
    text = json.dumps(document, indent=1, allow_nan=False)
    # the samples of a pass stand in one line
    text = re.sub(r"\[[-+.\de,\s]+\]", lambda m: " ".join(m[0].split()), text)
    write_text(path, text + "\n")


def read_document(path: Path, name: str, schema: Document | None = None) -> Document:
    """Return what `write_document` wrote, checked against its checksum and schema."""
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
