"""The evaluator: what it computes, and how fast and where it refuses what it shouldn't."""

import ast
import math
import time

import numpy as np
import pytest
from deforum_helpers.errors import ScheduleError
from deforum_helpers.planning.expressions import FUNCTIONS, Place, parse_expression
from hypothesis import given, settings
from hypothesis import strategies as st

PLACE = Place("strength", "30", 5)


def value(text, t=0, seed=7, max_f=99):
    return parse_expression(text, PLACE).value(t, seed, max_f)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7), ("2 ** 3 ** 2", 512), ("-2 ** 2", -4), ("7 / 2", 3.5), ("7 // 2", 3), ("7 % 4", 3),
        ("-7 % 4", -3), ("t", 12), ("s", 7), ("max_f", 99), ("pi", math.pi), ("1e3 + .5 + 2.", 1002.5),
        ("sin(t)", math.sin(12)), ("arctan2(1, 2)", math.atan2(1, 2)), ("log(exp(2))", 2), ("log10(1000)", 3),
        ("log1p(expm1(2))", 2), ("sqrt(16)", 4), ("abs(-3)", 3), ("floor(-1.5)", -2), ("ceil(1.2)", 2),
        ("round(2.567, 2)", 2.57), ("fmod(-7, 4)", -3), ("min(3, 1, 2)", 1), ("maximum(3, 1, 2)", 3),
        ("where(t < 5, 1, 2)", 2), ("where(t > 5 and t < 20, 1, 2)", 1), ("where(not t, 1, 2)", 2),
        ("where((t > 5) & (t < 20) | (t == 50), 1, 2)", 1), ("where(~(t > 5), 1, 2)", 2), ("5 & 3", 1), ("5 | 3", 7),
        ("5 ^ 3", 6), ("~5", -6), ("(t > 5) * 10", 10), ("0 < t < 20", 1), ("0 < t < 10", 0), ("t != 12 or t == 12", 1),
        ("tanh(0) + cosh(0) + sinh(0)", 1), ("arcsin(1) + arccos(1) + arctan(0)", math.pi / 2), ("tan(0)", 0),
        ("1 +\n 2", 3),
    ],
)  # fmt: skip
def test_values(text, expected):
    assert value(text, t=12) == pytest.approx(expected)


def test_every_function_has_a_value():
    arguments = {name: ["1.25"] * max(function.least, 1) for name, function in FUNCTIONS.items()}
    for name in ("arcsin", "arccos", "arctanh"):
        arguments[name] = ["0.5"]
    for name, given_ in arguments.items():
        assert math.isfinite(value(f"{name}({', '.join(given_)})")), name


def test_one_call_computes_all_frames():
    frames = np.arange(1_000_000)
    started = time.process_time()
    result = parse_expression("where(t % 2 == 0, sin(t / 30), 5)", PLACE).values(frames, 0, 999_999)
    assert time.process_time() - started < 2
    assert result.shape == (1_000_000,) and result.dtype == np.float64
    assert result[3] == 5 and result[60] == pytest.approx(math.sin(2))


def test_where_computes_a_branch_only_where_it_is_taken():
    result = parse_expression("where(t < 1, 0, 1 / t)", PLACE).values(np.arange(3), 0, 2)
    assert result.tolist() == [0, 1, 0.5]
    with pytest.raises(ScheduleError, match="divides by zero at frame 2"):
        parse_expression("where(t > 1, 1 / (t - 2), 4)", PLACE).values(np.arange(5), 0, 4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / (t - 3)", r"'/' divides by zero at frame 3"), ("t // 0", "divides by zero at frame 0"),
        ("t % 0", "divides by zero at frame 0"), ("log(t - 2)", "log needs a value above 0 at frame 0"),
        ("sqrt(1 - t)", "sqrt of a negative number at frame 2"), ("exp(t * 300)", "exp is too large.* at frame 3"),
        ("9**9**9**9", r"'\*\*' is too large"), ("(0 - 8) ** 0.5", "no real value"), ("arcsin(t)", "at frame 2"),
        ("arctan(1 / t)", "divides by zero at frame 0"),
    ],
)  # fmt: skip
def test_a_result_that_is_not_finite_names_frame_and_keyframe(text, reason):
    with pytest.raises(ScheduleError, match=reason) as caught:
        parse_expression(text, PLACE).values(np.arange(5), 0, 4)
    assert (caught.value.field, caught.value.keyframe) == ("strength", "30")
    assert caught.value.column >= 5


@pytest.mark.parametrize(
    ("text", "reason", "column"),
    [
        ("1 + foo", "unknown name", 9), ("  1 + foo", "unknown name", 11),
        ("foo(1)", "unknown function", 5), ("1 + $", "no meaning", 9),
        ("sin", "needs its arguments", 5), ("sin(1, 2)", "wrong number of arguments", 5),
        ("where(t)", "wrong number", 5),
        ("1 +", "ends too early", 7), ("(1 + 2", "can't be read|ends too early", 0), ("", "missing", 5),
        ("1e999", "too large", 5), ("0x1f", "runs into a name", 6), ("1_000", "runs into a name", 6),
        ("2j", "runs into a name", 6), ("1, 2", "not allowed", 5), ("t if t else 1", "not allowed", 5),
        ("(t > 1) & 0.5", "conditions or whole numbers", 5), ("0 < t & 3 < 5", "bind tighter", 5),
        ("max_f.real", "not allowed", 5), ("sin(x=1)", "not allowed", 5), ("min(*t)", "not allowed", 9),
    ],
)  # fmt: skip
def test_a_fault_names_its_column(text, reason, column):
    with pytest.raises(ScheduleError, match=reason) as caught:
        parse_expression(text, PLACE).values(np.arange(5), 0, 4)
    if column:
        assert caught.value.column == column


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "__import__(t)", "().__class__", "lambda: 1", "[t for t in s]",
        "(t for t in s)", "{1: 2}", "open(t)", "exec(t)", "t.__class__", "print(1)", "f'{t}'", "t := 5", "t; s",
        "yield t", "await t", "globals()", "9" * 1500, "(" * 600 + "1" + ")" * 600, "-" * 1500 + "1",
        "not " * 400 + "1", "sin(" * 300 + "1" + ")" * 300, "1" + "+1" * 900, "1**" * 600 + "1", "~" * 1900 + "t",
        "9**" * 50 + "9", "1+" * 500_000 + "1", "a" * 1_000_000, "t" + " " * 1_000_000 + "t", "\0", "1 # 2", "１",
        "t\\", "`t`", "t[0]", "1 <" * 900,
    ],
)  # fmt: skip
def test_hostile_text_fails_fast(text):
    started = time.process_time()
    with pytest.raises(ScheduleError):
        parse_expression(text, PLACE).values(np.arange(100), 0, 99)
    assert time.process_time() - started < 0.5


def test_the_longest_flat_expression_is_quick_on_many_frames():
    text = "t<" * 900 + "1"
    started = time.process_time()
    parse_expression(text, PLACE).values(np.arange(1000), 0, 99)
    assert time.process_time() - started < 2


def test_variables_without_a_meaning_are_refused():
    with pytest.raises(ScheduleError, match="has no meaning here"):
        parse_expression("t + 1", PLACE, frozenset({"max_f"}))


def test_numbers_are_recognised():
    assert parse_expression(" -(+3.5) ", PLACE).number == -3.5
    assert parse_expression("(7)", PLACE).number == 7
    assert parse_expression("3 + 4", PLACE).number is None
    assert parse_expression("s", PLACE).number is None


_atoms = st.sampled_from(["t", "s", "max_f", "pi", "0", "1", "2.5", "17"])
_grown = st.recursive(
    _atoms,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "<", ">=", "=="]), inner).map(
            lambda p: f"({p[0]} {p[1]} {p[2]})"
        ),
        st.tuples(st.sampled_from(["sin", "floor", "abs", "sqrt"]), inner).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(inner, inner, inner).map(lambda p: f"where({p[0]}, {p[1]}, {p[2]})"),
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(_grown)
def test_all_frames_at_once_equal_frame_by_frame(text):
    expression = parse_expression(text, PLACE)
    try:
        together = expression.values(np.arange(6), 3, 5)
    except ScheduleError:
        with pytest.raises(ScheduleError):
            for frame in range(6):
                expression.value(frame, 3, 5)
        return
    assert together.tolist() == [expression.value(frame, 3, 5) for frame in range(6)]


@settings(max_examples=300)
@given(st.text(alphabet=st.sampled_from("ts0159.+-*/%<>=&|~^(), sincowhermax_f"), max_size=40))
def test_any_text_gives_finite_numbers_or_a_schedule_error(text):
    try:
        result = parse_expression(text, PLACE).values(np.arange(4), 3, 3)
    except ScheduleError:
        return
    assert result.shape == (4,) and np.isfinite(result).all()


def test_nothing_is_ever_compiled(monkeypatch):
    real = ast.parse
    monkeypatch.setattr("builtins.eval", None)
    monkeypatch.setattr("builtins.exec", None)
    monkeypatch.setattr(ast, "parse", lambda source, mode: real(source, mode=mode))
    assert value("sin(t) + 1", t=0) == 1
