"""Deforum's mathematical expressions, read from untrusted text and computed over many frames at once.

The text is parsed to a syntax tree and every node must be on the list below: names are t, s, max_f, pi; calls are
the functions of FUNCTIONS.  Nothing is ever executed.  All numbers are float64, so that a tower of powers
overflows at once instead of growing; the first frame where a result isn't finite is named in the error.

    + - * / // % **     < <= > >= == !=     & | ^ ~     and or not     where(condition, a, b)

`%` takes the dividend's sign, as numexpr has it; `& | ^` mean and, or, exclusive or between conditions and work
bit by bit between whole numbers.  where() computes each branch only for the frames that take it, so that
where(t < 1, 0, 1/t) is sound.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np

from ..errors import ScheduleError

LONGEST_EXPRESSION = 2000
_DEEPEST = 100
_LARGEST_WHOLE = 2.0**53  # whole numbers beyond this are not exact in float64
_ILLEGAL = re.compile(r"[^A-Za-z0-9_\s.+\-*/%<>=!&|^~(),]")
_LITERAL = re.compile(r"(?<![\w.])(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")

VARIABLES = {"t": "the frame", "s": "the seed", "max_f": "the last frame"}
_Values = Any  # float, bool or an array of either, one value per frame


@dataclass(frozen=True)
class Place:
    """Where a piece of text stands.  column: 1-based position of its first character in the field's text."""

    field: str
    keyframe: str = ""
    column: int = 1

    def error(self, what: str, offset: int = 0, **words: Any) -> ScheduleError:
        """A ScheduleError at `offset` characters into the text; words: got, allowed, next_step."""
        return ScheduleError(what, field=self.field, keyframe=self.keyframe, column=self.column + offset, **words)


@dataclass(frozen=True)
class Function:
    """One function of the grammar.  most: how many arguments at most, 0 = any number.  trouble: why it may fail."""

    compute: Callable[..., _Values]
    least: int = 1
    most: int = 1
    trouble: str = "has no finite result"


def _round(value: _Values, digits: _Values = 0.0) -> _Values:
    scale = np.power(10.0, np.clip(digits, -15.0, 15.0))
    return np.round(value * scale) / scale


def _smallest(*values: _Values) -> _Values:
    return reduce(np.minimum, values)


def _greatest(*values: _Values) -> _Values:
    return reduce(np.maximum, values)


_OUTSIDE = "is only defined from -1 to 1"
_LOG = "needs a value above 0"
_BIG = "is too large to compute"
_ZERO = "divides by zero"

FUNCTIONS: dict[str, Function] = {
    "sin": Function(np.sin), "cos": Function(np.cos), "tan": Function(np.tan),
    "arcsin": Function(np.arcsin, trouble=_OUTSIDE), "arccos": Function(np.arccos, trouble=_OUTSIDE),
    "arctan": Function(np.arctan), "arctan2": Function(np.arctan2, 2, 2),
    "sinh": Function(np.sinh, trouble=_BIG), "cosh": Function(np.cosh, trouble=_BIG), "tanh": Function(np.tanh),
    "arcsinh": Function(np.arcsinh), "arccosh": Function(np.arccosh, trouble="needs a value of at least 1"),
    "arctanh": Function(np.arctanh, trouble="is only defined between -1 and 1"),
    "sqrt": Function(np.sqrt, trouble="of a negative number"),
    "exp": Function(np.exp, trouble=_BIG), "expm1": Function(np.expm1, trouble=_BIG),
    "log": Function(np.log, trouble=_LOG), "log10": Function(np.log10, trouble=_LOG),
    "log1p": Function(np.log1p, trouble="needs a value above -1"),
    "abs": Function(np.abs), "sign": Function(np.sign),
    "floor": Function(np.floor), "ceil": Function(np.ceil), "trunc": Function(np.trunc),
    "round": Function(_round, 1, 2, trouble=_BIG),
    "fmod": Function(np.fmod, 2, 2, trouble=_ZERO), "pow": Function(np.power, 2, 2, trouble=_BIG),
    "min": Function(_smallest, 1, 0), "minimum": Function(_smallest, 2, 0),
    "max": Function(_greatest, 1, 0), "maximum": Function(_greatest, 2, 0),
}  # fmt: skip

_POWER = Function(np.power, trouble="is too large or has no real value")
_OPERATORS: dict[type, Function] = {
    ast.Add: Function(np.add, trouble=_BIG), ast.Sub: Function(np.subtract, trouble=_BIG),
    ast.Mult: Function(np.multiply, trouble=_BIG), ast.Div: Function(np.divide, trouble=_ZERO),
    ast.FloorDiv: Function(lambda a, b: np.floor(np.divide(a, b)), trouble=_ZERO),
    ast.Mod: Function(np.fmod, trouble=_ZERO), ast.Pow: _POWER,
}  # fmt: skip
_BITS: dict[type, Callable[..., _Values]] = {
    ast.BitAnd: np.bitwise_and, ast.BitOr: np.bitwise_or, ast.BitXor: np.bitwise_xor,
}  # fmt: skip
_COMPARISONS: dict[type, Callable[..., _Values]] = {
    ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater, ast.GtE: np.greater_equal,
    ast.Eq: np.equal, ast.NotEq: np.not_equal,
}  # fmt: skip
_SIGNS: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
}  # fmt: skip


@dataclass(frozen=True)
class Expression:
    """A checked expression.  text: without surrounding space; place: where it stands."""

    text: str
    place: Place
    tree: ast.expr

    @cached_property
    def number(self) -> float | None:
        """The value if this is just a number, perhaps with a sign; else None."""
        node, sign = self.tree, 1.0
        while isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign, node = (-sign if isinstance(node.op, ast.USub) else sign), node.operand
        if isinstance(node, ast.Constant) and not isinstance(node.value, bool):
            return sign * float(node.value)
        return None

    def values(self, frames: np.ndarray, seed: int, max_f: int) -> np.ndarray:
        """Compute for every frame.  frames: [n], any order.  Returns float64 [n].  Raises ScheduleError."""
        run = _Run(self.place, np.asarray(frames, dtype=np.float64), {"s": float(seed), "max_f": float(max_f)})
        with np.errstate(all="ignore"):  # every result is checked, with a better message
            result = run.value(self.tree)
        return np.array(np.broadcast_to(np.asarray(result, dtype=np.float64), run.frames.shape))

    def value(self, frame: int, seed: int, max_f: int) -> float:
        """Compute for one frame.  Raises ScheduleError."""
        return float(self.values(np.array([frame]), seed, max_f)[0])


def parse_expression(text: str, place: Place, names: frozenset[str] = frozenset(VARIABLES)) -> Expression:
    """Read an expression and check every node of it.  names: the variables that mean something here.

    Raises ScheduleError at the column of the fault.  Takes time linear in the text, whatever is in it.
    """
    if len(text) > LONGEST_EXPRESSION:
        raise place.error(
            "the expression is too long", got=f"{len(text)} characters", allowed=f"up to {LONGEST_EXPRESSION}"
        )
    start = len(text) - len(text.lstrip())
    place, text = Place(place.field, place.keyframe, place.column + start), text.strip()
    if not text.strip("() \t\r\n"):
        raise place.error("the value is missing", next_step="write a number or an expression between the parentheses")
    if illegal := _ILLEGAL.search(text):
        raise place.error("this character has no meaning in an expression", illegal.start(), got=illegal.group())
    for literal in _LITERAL.finditer(text):  # Python would read some of these, such as 0x1f, 1_000 and 2j
        if text[literal.end() : literal.end() + 1].isidentifier():
            raise place.error("a number runs into a name", literal.end(), got=text[literal.start() :])
    tree = _parse(text, place)
    _check(tree, place, names)
    return Expression(text, place, tree)


def _parse(text: str, place: Place) -> ast.expr:
    flat = re.sub(r"\s", " ", text)  # a line break would end the expression
    try:
        return ast.parse(flat, mode="eval").body
    except SyntaxError as error:
        at_end = not error.offset or error.offset > len(text)  # Python gives 0 or one past the end
        what = "the expression ends too early" if at_end else "can't be read from here on"
        offset = len(text) - 1 if at_end else error.offset - 1
        raise place.error(what, offset, got=text, next_step="check operators and parentheses") from None
    except (ValueError, MemoryError, RecursionError):
        raise place.error("the expression is nested too deeply or holds too long a number", got=text) from None


def _check(tree: ast.expr, place: Place, names: frozenset[str]) -> None:
    """Walk the tree with a stack of its own: a deep one must not overflow Python's."""
    waiting: list[tuple[ast.expr, int]] = [(tree, 1)]
    while waiting:
        node, depth = waiting.pop()
        if depth > _DEEPEST:
            raise place.error("the expression is nested too deeply", node.col_offset, allowed=f"{_DEEPEST} levels")
        waiting += [(child, depth + 1) for child in _children(node, place, names)]


def _children(node: ast.expr, place: Place, names: frozenset[str]) -> list[ast.expr]:
    """The operands of an allowed node.  Raises ScheduleError for any other."""
    match node:
        case ast.Constant(value=bool()):
            return []
        case ast.Constant(value=int() | float() as number):
            if not _is_finite(number):
                raise place.error("the number is too large", node.col_offset, got=str(number)[:20])
            return []
        case ast.Name(id=name):
            if name not in names and name != "pi":
                raise _unknown_name(name, node, place, names)
            return []
        case ast.UnaryOp(operand=operand):
            return [operand]
        case ast.BinOp(left=left, right=right, op=op) if type(op) in _SIGNS:
            return [left, right]
        case ast.BoolOp(values=values):
            return values
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARISONS for op in ops):
            _check_chain(node, place)
            return [left, *others]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            _check_call(name, len(arguments), node, place)
            return arguments
    raise place.error(
        "this is not allowed in an expression", node.col_offset, allowed="numbers, t, s, max_f, operators and functions"
    )


def _is_finite(number: float) -> bool:
    try:
        return bool(np.isfinite(float(number)))
    except OverflowError:
        return False


def _unknown_name(name: str, node: ast.expr, place: Place, names: frozenset[str]) -> ScheduleError:
    if name in FUNCTIONS or name == "where":
        what, hint = f"the function {name} needs its arguments in parentheses", ""
    elif name in VARIABLES:
        what, hint = f"{name} ({VARIABLES[name]}) has no meaning here", ""
    else:
        what, hint = "unknown name", ", ".join([*sorted(names), "pi"]) + " and functions such as sin(t)"
    return place.error(what, node.col_offset, got=name, allowed=hint)


def _check_call(name: str, count: int, node: ast.expr, place: Place) -> None:
    function = Function(np.where, 3, 3) if name == "where" else FUNCTIONS.get(name)
    if function is None:
        known = ", ".join(sorted([*FUNCTIONS, "where"]))
        raise place.error("unknown function", node.col_offset, got=name, allowed=known)
    if count < function.least or (function.most and count > function.most):
        least, most = function.least, function.most
        allowed = f"{least}" if least == most else f"{least} to {most}" if most else f"{least} or more"
        raise place.error(f"{name} has the wrong number of arguments", node.col_offset, got=count, allowed=allowed)


def _check_chain(node: ast.Compare, place: Place) -> None:
    """`t < 5 & t > 2` reads as t < (5 & t) > 2: surely not what is meant."""
    if len(node.ops) > 1 and any(
        isinstance(part, ast.BinOp) and type(part.op) in _BITS for part in (node.left, *node.comparators)
    ):
        raise place.error(
            "& and | bind tighter than comparisons", node.col_offset, next_step="write (t > 2) & (t < 5), or use and/or"
        )


@dataclass(frozen=True)
class _Run:
    """One computation: the frames it is for and the constants of the render."""

    place: Place
    frames: np.ndarray
    constants: dict[str, float]

    def value(self, node: ast.expr) -> _Values:
        match node:
            case ast.Constant(value=value):
                return value if isinstance(value, bool) else float(value)
            case ast.Name(id="t"):
                return self.frames
            case ast.Name(id="pi"):
                return np.pi
            case ast.Name(id=name):
                return self.constants[name]
            case ast.UnaryOp(op=op, operand=operand):
                return self._unary(op, self.value(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BITS:
                return self._bits(node, op, self.value(left), self.value(right))
            case ast.BinOp(left=left, op=op, right=right):
                result = _OPERATORS[type(op)].compute(_number(self.value(left)), _number(self.value(right)))
                return self._finite(node, result, f"'{_SIGNS[type(op)]}'", _OPERATORS[type(op)].trouble)
            case ast.BoolOp(op=op, values=parts):
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return reduce(join, [_truth(self.value(part)) for part in parts])
            case ast.Compare(left=left, ops=ops, comparators=others):
                sides = [_number(self.value(side)) for side in (left, *others)]
                pairs = [_COMPARISONS[type(op)](a, b) for op, a, b in zip(ops, sides, sides[1:], strict=False)]
                return reduce(np.logical_and, pairs)
            case ast.Call(func=ast.Name(id="where"), args=[condition, chosen, other]):
                return self._where(_truth(self.value(condition)), chosen, other)
            case ast.Call(func=ast.Name(id=name), args=arguments):
                result = FUNCTIONS[name].compute(*[_number(self.value(argument)) for argument in arguments])
                return self._finite(node, result, name, FUNCTIONS[name].trouble)
        raise AssertionError(f"unchecked node {type(node).__name__}")

    def _unary(self, op: ast.unaryop, value: _Values) -> _Values:
        if isinstance(op, ast.Not) or (isinstance(op, ast.Invert) and _is_truth(value)):
            return np.logical_not(_truth(value))
        number = _number(value)
        if isinstance(op, ast.Invert):
            return -number - 1.0  # what ~ does to a whole number
        return -number if isinstance(op, ast.USub) else number

    def _bits(self, node: ast.expr, op: ast.operator, left: _Values, right: _Values) -> _Values:
        if _is_truth(left) and _is_truth(right):
            return _BITS[type(op)](left, right)
        left, right = _number(left), _number(right)
        for side in (left, right):
            if np.any(np.floor(side) != side) or np.any(np.abs(side) > _LARGEST_WHOLE):
                raise self.place.error(
                    f"'{_SIGNS[type(op)]}' joins conditions or whole numbers only", node.col_offset,
                    next_step="put comparisons in parentheses",
                )  # fmt: skip
        whole = _BITS[type(op)](np.asarray(left).astype(np.int64), np.asarray(right).astype(np.int64))
        return whole.astype(np.float64)

    def _where(self, condition: _Values, chosen: ast.expr, other: ast.expr) -> _Values:
        if np.ndim(condition) == 0:
            return self.value(chosen if condition else other)
        result = np.empty(self.frames.shape)
        for branch, mask in ((chosen, condition), (other, ~condition)):
            if mask.any():
                result[mask] = _Run(self.place, self.frames[mask], self.constants).value(branch)
        return result

    def _finite(self, node: ast.expr, result: _Values, what: str, trouble: str) -> _Values:
        good = np.isfinite(result)
        if np.all(good):
            return result
        first = int(self.frames[0] if np.ndim(good) == 0 else self.frames[np.argmin(good)])
        raise self.place.error(f"{what} {trouble} at frame {first}", node.col_offset)


def _is_truth(value: _Values) -> bool:
    return np.asarray(value).dtype == np.bool_


def _truth(value: _Values) -> _Values:
    return value if _is_truth(value) else np.not_equal(value, 0.0)


def _number(value: _Values) -> _Values:
    return np.asarray(value, dtype=np.float64) if _is_truth(value) else value
