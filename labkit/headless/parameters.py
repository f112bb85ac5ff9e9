"""Parameters of a notebook: declared in its tagged cell, checked before any kernel starts.

The cell tagged ``parameters`` holds plain assignments, ``n_atoms: int = 256  # dictionary size``:
the annotation is the type, the comment the help. Types are int, float, bool, str, list, dict, with
elements (``list[int]``), ``X | None`` and ``Literal[...]``.
"""

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from labkit.headless.usage import UsageError, nearest

_ACCEPTED = {
    "None": "None",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a finite number",
    "list": "a list such as [1, 2]",
    "dict": "a dict such as {'a': 1}",
    "str": "text",
}


@dataclass(frozen=True)
class Parameter:
    """One declared parameter; `type` is its annotation as written."""

    name: str
    type: str
    default: Any
    help: str


# ------------------------------------------------------------------ reading the parameters cell


def declared(source: str) -> list[Parameter]:
    """Read the parameters that a cell's source declares.

    Raises
    ------
    UsageError
        if the cell holds anything but literal values of the types above (imports may stand there).
    """
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise UsageError(f"line {error.lineno} is not plain Python: {error.msg}") from None
    comments = _comments(source)
    found = {}
    for statement in body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            continue
        parameter = _parameter(statement, comments.get(statement.end_lineno or 0, ""))
        found[parameter.name] = parameter
    return list(found.values())


def _parameter(statement: ast.stmt, help_: str) -> Parameter:
    match statement:
        case ast.AnnAssign(
            target=ast.Name(id=name), annotation=annotation, value=ast.expr() as value
        ):
            type_ = ast.unparse(annotation)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            type_ = ""
        case _:
            raise UsageError(f"line {statement.lineno} is no assignment of a value to one name")
    try:
        default = ast.literal_eval(value)
    except (ValueError, TypeError):
        raise UsageError(
            f"{name} is computed: derive it in a later cell, for papermill injects after this one"
        ) from None
    type_ = type_ or type(default).__name__
    try:
        default = _fit(_type(type_), default)
    except ValueError as error:
        raise UsageError(f"{name}: its default {default!r} is no {type_}: {error}") from None
    return Parameter(name, type_, default, help_)


def _comments(source: str) -> dict[int, str]:
    """Comments by line number, without their hash."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


# ------------------------------------------------------------------ checking what a caller gives


def from_text(known: Iterable[Parameter], pairs: Iterable[str]) -> dict[str, Any]:
    """Convert ``K=V`` texts of the command line to values of the declared types.

    Raises
    ------
    UsageError
        for a malformed pair, an unknown or repeated name, a value of another type.
    """
    by_name = {parameter.name: parameter for parameter in known}
    form = f"-p NAME=VALUE; {_accepted(by_name)}"
    split = split_pairs(by_name, pairs, form=form, once="give it once")
    return {parameter.name: _read_one(parameter, text) for parameter, text in split}


def _read_one(parameter: Parameter, text: str) -> Any:
    """Read a text; where it looks like what a sweep takes, the refusal says so."""
    try:
        return read(parameter, text)
    except UsageError as error:
        if takes_numbers(parameter) and ("," in text or ":" in text):
            raise UsageError(f"{error}; several values: `labkit sweep`") from None
        raise


def split_pairs(
    by_name: Mapping[str, Parameter], pairs: Iterable[str], *, form: str, once: str
) -> Iterator[tuple[Parameter, str]]:
    """Each parameter of ``-p NAME=...`` with the text after the equals sign.

    Raises
    ------
    UsageError
        for a malformed pair (`form` says how to write it), a repeated name (`once`, what to do
        instead), an unknown one.
    """
    seen = set()
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"-p {pair!r} is no pair; write {form}")
        if name in seen:
            raise UsageError(f"parameter {name} is given twice; {once}")
        seen.add(name)
        yield known_by(by_name, name), text


def read(parameter: Parameter, text: str) -> Any:
    """Convert one text to a value of the declared type.

    Raises
    ------
    UsageError
        if it is none.
    """
    try:
        return _read(_type(parameter.type), text)
    except ValueError as error:
        raise refusal(parameter, text, str(error)) from None


def check(known: Iterable[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check Python values against the declared types; return them as plain Python values.

    Raises
    ------
    UsageError
        for an unknown name or a value of another type.
    """
    by_name = {parameter.name: parameter for parameter in known}
    values = {}
    for name, value in given.items():
        parameter = known_by(by_name, name)
        try:
            values[name] = _fit(_type(parameter.type), value)
        except ValueError as error:
            raise refusal(parameter, repr(value), str(error)) from None
    return values


def known_by(by_name: Mapping[str, Parameter], name: str) -> Parameter:
    """The parameter of that name, or a UsageError that names the nearest."""
    if name in by_name:
        return by_name[name]
    hint = nearest(name, by_name)
    raise UsageError(f"unknown parameter {name!r}: {hint}{' ' if hint else ''}{_accepted(by_name)}")


def _accepted(by_name: Mapping[str, Parameter]) -> str:
    if not by_name:
        return "this notebook declares no parameters"
    listed = (f"{p.name}: {p.type} = {p.default!r}" for p in by_name.values())
    return f"accepted are {', '.join(listed)}"


def refusal(parameter: Parameter, shown: str, reason: str) -> UsageError:
    """What to raise for a value that a parameter does not take."""
    return UsageError(
        f"parameter {parameter.name}={shown} is refused: {reason}; it is declared as "
        f"{parameter.name}: {parameter.type} = {parameter.default!r}"
    )


def takes_numbers(parameter: Parameter) -> bool:
    """Whether numbers are among the values of a parameter."""
    return any(name in ("int", "float") for name, _ in _type(parameter.type))


# ------------------------------------------------------------------ types

# A type is a list of alternatives, each a name with its arguments: `list[int] | None` is
# [("list", [[("int", [])]]), ("None", [])], and Literal["a"] is [("Literal", ["a"])].
_Type = list[tuple[str, list]]


def _type(annotation: str) -> _Type:
    return _alternatives(ast.parse(annotation, mode="eval").body)


def _alternatives(node: ast.expr) -> _Type:
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _alternatives(left) + _alternatives(right)
        case ast.Constant(value=None):
            return [("None", [])]
        case ast.Name(id="bool" | "int" | "float" | "str" | "list" | "dict" as name):
            return [(name, [])]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=options):
            value = ast.literal_eval(options)
            return [("Literal", list(value) if isinstance(value, tuple) else [value])]
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return [*_alternatives(inner), ("None", [])]
        case ast.Subscript(value=ast.Name(id="list"), slice=element):
            return [("list", [_alternatives(element)])]
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[key, value])):
            return [("dict", [_alternatives(key), _alternatives(value)])]
    raise UsageError(
        f"the type {ast.unparse(node)} is not supported; use int, float, bool, str, list[...], "
        "dict[...], X | None or Literal[...]"
    )


def _expected(type_: _Type) -> str:
    return "expected " + " or ".join(
        f"one of {', '.join(map(repr, arguments))}" if name == "Literal" else _ACCEPTED[name]
        for name, arguments in type_
    )


def _read(type_: _Type, text: str) -> Any:
    """Read a text as the first alternative that takes it; text itself comes last."""
    for alternative in sorted(type_, key=lambda a: a[0] == "str"):
        try:
            return _fit([alternative], _decode(alternative, text))
        except ValueError as error:
            reason = error
    raise reason if len(type_) == 1 else ValueError(_expected(type_))


def _decode(alternative: tuple[str, list], text: str) -> Any:
    name, arguments = alternative
    try:
        match name:
            case "None":
                return {"none": None}[text.lower()]
            case "bool":
                return {"true": True, "false": False}[text.lower()]
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "list" | "dict":
                return ast.literal_eval(text.strip())
            case "Literal":
                return {str(option): option for option in arguments}[text]
    except (KeyError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(_expected([alternative])) from None
    return text


def _fit(type_: _Type, value: Any) -> Any:
    """The value as a plain Python value of that type; raises ValueError with the reason."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # papermill would turn a NumPy scalar into text
    for alternative in type_:
        try:
            return _fit_one(alternative, value)
        except ValueError as error:
            reason = error
    raise reason if len(type_) == 1 else ValueError(_expected(type_))


def _fit_one(alternative: tuple[str, list], value: Any) -> Any:
    match alternative, value:
        case ("None", _), None:
            return None
        case ("bool", _), bool():
            return value
        case ("str", _), str():
            return str(value)
        case ("int", _), int() if not isinstance(value, bool):
            return int(value)
        case ("float", _), int() | float() if not isinstance(value, bool):
            return _finite(value)
        case ("list", []), list():
            return [_plain(v) for v in value]
        case ("list", [element]), list():
            return [_element(f"element {i + 1}", element, v) for i, v in enumerate(value)]
        case ("dict", []), dict():
            return {_plain(k): _plain(v) for k, v in value.items()}
        case ("dict", [key, element]), dict():
            return {
                _element("a key", key, k): _element(f"the value of {k!r}", element, v)
                for k, v in value.items()
            }
        case ("Literal", options), _:
            for option in options:
                if option == value and type(option) is type(value):
                    return option
    raise ValueError(_expected([alternative]))


def _finite(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not isfinite(number):
        raise ValueError(f"{value} is not a finite number")
    return number


def _element(which: str, type_: _Type, value: Any) -> Any:
    try:
        return _fit(type_, value)
    except ValueError as error:
        raise ValueError(f"{which}: {error}") from None


_ANY: _Type = [(name, []) for name in ("None", "bool", "int", "float", "list", "dict", "str")]


def _plain(value: Any) -> Any:
    """An element of a bare ``list`` or ``dict``: any value of the types above."""
    return _fit(_ANY, value)
