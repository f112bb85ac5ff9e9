"""Which runs a sweep asks for: lists on the command line, rows of a file.

    from_options(known, ["lam=0.1,0.2", "seed=0:3"])     # 2 x 3 = 6 rows
    from_file(known, Path("runs.csv"))                   # one row a line

A row holds values of the declared types by name, and leaves out what keeps its default.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import yaml

from labkit.headless import parameters
from labkit.headless.parameters import Parameter
from labkit.headless.usage import UsageError

Row = dict[str, Any]

MOST = 100_000  # runs of one sweep: a slip such as seed=0:1000000000 must not fill the memory
_RANGE = re.compile(r"(-?\d{1,99}):(-?\d{1,99})(?::(-?\d{1,99}))?")
_OTHER_RANGE = re.compile(r"-?\d+ *(?:-|–|\.\.+) *-?\d+")
_OPENING = {"'": "'", '"': '"', "[": "]", "(": ")", "{": "}"}


def from_options(known: Iterable[Parameter], pairs: Iterable[str]) -> list[Row]:
    """All combinations of the listed values; the last parameter varies fastest.

    ``K=V1,V2`` lists values; a value with a comma stands in quotes, a list in its brackets;
    ``a:b`` and ``a:b:step`` are ranges of whole numbers that stop before b, as in Python.

    Raises
    ------
    UsageError
        for a malformed pair, an unknown or repeated name, an empty list or range, a value of
        another type, more than `MOST` combinations.
    """
    by_name = {parameter.name: parameter for parameter in known}
    split = parameters.split_pairs(
        by_name,
        pairs,
        form="-p NAME=V1,V2,... or -p NAME=0:10",
        once="list all its values after one -p",
    )
    axes = {parameter.name: _values(parameter, text) for parameter, text in split}
    _refuse_too_many(prod(map(len, axes.values())))
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def from_file(known: Iterable[Parameter], path: Path) -> list[Row]:
    """The rows of a CSV file with a header, or of a YAML list of mappings.

    An empty field of a CSV file leaves the default.

    Raises
    ------
    UsageError
        for a file that cannot be read or holds no rows; a row with an unknown name or a value of
        another type, with its number.
    """
    readers = {".csv": _csv_rows, ".yaml": _yaml_rows, ".yml": _yaml_rows}
    if path.suffix.lower() not in readers:
        raise UsageError(f"--params {path}: expected a .csv, .yaml or .yml file")
    try:
        rows = readers[path.suffix.lower()](path)
    except (OSError, ValueError, csv.Error, yaml.YAMLError) as error:
        raise UsageError(
            f"--params {path} cannot be read: {' '.join(str(error).split())}"
        ) from None
    if not rows:
        raise UsageError(f"--params {path} holds no rows")
    _refuse_too_many(len(rows))
    by_name = {parameter.name: parameter for parameter in known}
    return [_row(by_name, row, f"--params {path}, row {n}") for n, row in enumerate(rows, 1)]


def combine(rows: Sequence[Row], grid: Sequence[Row]) -> list[Row]:
    """Every row of a file with every row of a grid.

    Raises
    ------
    UsageError
        if both set the same parameter, or there are more than `MOST` combinations.
    """
    twice = {name for row in rows for name in row}.intersection(*grid)
    if twice:
        raise UsageError(f"{', '.join(sorted(twice))}: given by -p and by --params; keep one")
    _refuse_too_many(len(rows) * len(grid))
    return [row | more for row in rows for more in grid]


def _refuse_too_many(count: int) -> None:
    if count > MOST:
        raise UsageError(f"{count} runs are too many for one sweep; at most {MOST} are accepted")


# ------------------------------------------------------------------ options


def _values(parameter: Parameter, text: str) -> Sequence[Any]:
    if not text.strip():
        raise parameters.refusal(parameter, repr(text), "the list is empty")
    numeric = parameters.takes_numbers(parameter)
    values: list[Any] = []
    for item, quoted in _items(parameter, text):
        is_range = numeric and not quoted and ":" in item
        texts = map(str, _range(parameter, item)) if is_range else [item]
        values += [_read(parameter, each) for each in texts]
    return values


def _read(parameter: Parameter, text: str) -> Any:
    """Read a text; where it is a range as others write it, the refusal says how to."""
    try:
        return parameters.read(parameter, text)
    except UsageError:
        if parameters.takes_numbers(parameter) and _OTHER_RANGE.fullmatch(text):
            reason = "a range is 0:10, which stops before 10"
            raise parameters.refusal(parameter, text, reason) from None
        raise


def _range(parameter: Parameter, item: str) -> range:
    span = _RANGE.fullmatch(item.strip())
    if span is None:
        raise parameters.refusal(
            parameter, item, "a range is a:b or a:b:step in whole numbers; list other values"
        )
    first, end, step = int(span[1]), int(span[2]), int(span[3] or 1)
    if step == 0:
        raise parameters.refusal(parameter, item, "its step is 0")
    found = range(first, end, step)
    count = max(0, -((first - end) // step))  # what len() tells, which fails on huge ranges
    if not count:
        way = "up" if step > 0 else "down"
        raise parameters.refusal(
            parameter, item, f"the range is empty: it counts {way} from {first} to before {end}"
        )
    _refuse_too_many(count)
    return found


def _items(parameter: Parameter, text: str) -> list[tuple[str, bool]]:
    """Split at commas outside of quotes and brackets; say which items stood in quotes."""
    items: list[str] = []
    awaited: list[str] = []  # closing characters, the innermost last
    start = 0
    for position, character in enumerate(text):
        if awaited and awaited[-1] in "'\"":
            if character == awaited[-1]:
                awaited.pop()
        elif character in _OPENING and (awaited or not text[start:position].strip()):
            awaited.append(_OPENING[character])  # an apostrophe within a word opens nothing
        elif awaited and character == awaited[-1]:
            awaited.pop()
        elif character == "," and not awaited:
            items.append(text[start:position])
            start = position + 1
    if awaited:
        raise parameters.refusal(parameter, text, f"{awaited[-1]} is missing")
    items.append(text[start:])
    if not all(item.strip() for item in items):
        raise parameters.refusal(
            parameter, text, "a value between commas is empty; '' in quotes is the empty text"
        )
    return [_unquoted(item) for item in items]


def _unquoted(item: str) -> tuple[str, bool]:
    bare = item.strip()
    if len(bare) >= 2 and bare[0] == bare[-1] and bare[0] in "'\"":
        return bare[1:-1], True
    return bare, False


# ------------------------------------------------------------------ files


def _csv_rows(path: Path) -> list[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:  # a BOM is what Excel writes
        table = csv.DictReader(file, strict=True, restkey="")
        header = list(table.fieldnames or ())
        lines = list(table)
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise csv.Error(f"its header names {', '.join(sorted(twice))} twice")
    for number, line in enumerate(lines, 1):
        if "" in line or None in line.values():
            raise csv.Error(f"row {number} has more or fewer fields than the header")
    return [
        {name.strip(): text.strip() for name, text in line.items() if text.strip()}
        for line in lines
    ]


def _yaml_rows(path: Path) -> list[Mapping[str, Any]]:
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    if rows is not None and not (
        isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    ):
        raise yaml.YAMLError("expected a list of mappings, such as `- {lam: 0.1, seed: 0}`")
    return rows or []


def _row(by_name: Mapping[str, Parameter], row: Mapping[str, Any], where: str) -> Row:
    try:
        return {str(name): _value(by_name, str(name), value) for name, value in row.items()}
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    except RecursionError:
        raise UsageError(f"{where}: a value contains itself") from None


def _value(by_name: Mapping[str, Parameter], name: str, value: Any) -> Any:
    # Text is read as on the command line: a CSV file knows nothing else, and YAML reads 1e-3 as it.
    if isinstance(value, str):
        return parameters.read(parameters.known_by(by_name, name), value)
    return parameters.check(by_name.values(), {name: value})[name]
