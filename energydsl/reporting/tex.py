"""The text of an energy, which is Python, as TeX."""

from __future__ import annotations

import ast
import re

NAMED = {"exp", "log", "sin", "cos", "tanh", "min", "max"}
"""Functions that TeX has a command for."""

COMPARED = {
    ast.Eq: "=", ast.NotEq: r"\neq", ast.Lt: "<", ast.LtE: r"\leq", ast.Gt: ">", ast.GtE: r"\geq",
}  # fmt: skip

GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega"
)
"""The names of letters that TeX writes as letters."""

ADD, MULTIPLY, NEGATE, POWER, ATOM = range(5)

Part = tuple[str, int]
"""The TeX of a part of a formula, and how tightly its last operation binds."""


def energy_tex(text: str) -> list[str]:
    """The terms of an energy as TeX, each with its sign; together they are the formula.

    Sums over elements are written with the sign of summation, without indices: the sum of
    ``s[1:] * s[:-1]`` is the sum over all elements of these arrays.

    Args:
        text: an energy as it is printed.

    Returns:
        One string per term; none if the text is cut and so is no formula.
    """
    try:
        root = ast.parse(text, mode="eval").body
    except SyntaxError:
        return []
    terms = _terms(root)
    signs = ["" if sign > 0 else "-" for sign, _ in terms[:1]]
    signs += ["+" if sign > 0 else "-" for sign, _ in terms[1:]]
    return [
        f"{sign} {_bracket(_tex(node), MULTIPLY)}"
        for sign, (_, node) in zip(signs, terms, strict=True)
    ]


def _terms(node: ast.expr, sign: int = 1) -> list[tuple[int, ast.expr]]:
    """The terms of a sum with their signs."""
    match node:
        case ast.BinOp(left, ast.Add() | ast.Sub() as op, right):
            other = sign if isinstance(op, ast.Add) else -sign
            return _terms(left, sign) + _terms(right, other)
        case ast.UnaryOp(ast.USub(), operand):
            return _terms(operand, -sign)
        case ast.BinOp(ast.UnaryOp(ast.USub(), first), ast.Mult() | ast.Div() | ast.MatMult(), _):
            return [(-sign, ast.BinOp(first, node.op, node.right))]
    return [(sign, node)]


def _tex(node: ast.expr) -> Part:
    match node:
        case ast.BinOp(left, op, right):
            return _operation(left, op, right)
        case ast.UnaryOp(_, operand):
            return f"-{_bracket(_tex(operand), NEGATE)}", NEGATE
        case ast.Compare(left, [op], [right]):
            return rf"\left[{_tex(left)[0]} {COMPARED[type(op)]} {_tex(right)[0]}\right]", ATOM
        case ast.Call(ast.Attribute(of, "sum"), _):
            return rf"\sum {_bracket(_tex(of), MULTIPLY)}", MULTIPLY
        case ast.Call(function, arguments, keywords):
            given = [*arguments, *(k.value for k in keywords)]
            return _call(function, [_tex(a)[0] for a in given]), ATOM
        case ast.Subscript(of, index):
            return _indexed(of, ast.unparse(index)), ATOM
        case ast.Attribute(of, "T"):
            return rf"{_bracket(_tex(of), ATOM)}^\top", POWER
        case ast.Name(name):
            return _name(name), ATOM
        case ast.Constant(value) if isinstance(value, int | float):
            return _number(value), ATOM
    return rf"\mathrm{{{_escaped(ast.unparse(node))}}}", ATOM


def _operation(left: ast.expr, op: ast.operator, right: ast.expr) -> Part:
    a, b = _tex(left), _tex(right)
    match op:
        case ast.Add():
            return f"{a[0]} + {_bracket(b, MULTIPLY)}", ADD
        case ast.Sub():
            return f"{a[0]} - {_bracket(b, MULTIPLY)}", ADD
        case ast.Div() if isinstance(right, ast.Constant):
            return rf"\frac{{1}}{{{b[0]}}} \, {_bracket(a, MULTIPLY)}", MULTIPLY
        case ast.Div():
            return rf"\frac{{{a[0]}}}{{{b[0]}}}", MULTIPLY
        case ast.Pow():
            return f"{_bracket(a, ATOM)}^{{{b[0]}}}", POWER
        case ast.Mult() | ast.MatMult():
            # Without brackets the first sum would take the second factor in.
            first = rf"\left({a[0]}\right)" if r"\sum" in a[0] else _bracket(a, MULTIPLY)
            return rf"{first} \, {_bracket(b, MULTIPLY)}", MULTIPLY
    return rf"\mathrm{{{_escaped(ast.unparse(op))}}}", ATOM


def _call(function: ast.expr, arguments: list[str]) -> str:
    inside = ", ".join(arguments)
    match function:
        case ast.Name("sqrt"):
            return rf"\sqrt{{{inside}}}"
        case ast.Name(name) if name in NAMED:
            return rf"\{name}\left({inside}\right)"
        case ast.Attribute(of, method):
            return rf"\mathrm{{{_escaped(method)}}}\left({_tex(of)[0]}, {inside}\right)"
    name = _escaped(ast.unparse(function))
    return rf"\mathrm{{{name}}}\left({inside}\right)"


def _indexed(of: ast.expr, index: str) -> str:
    """An indexed view, such as ``s[1:]``, or an array of data, such as ``f32[3,4]``."""
    if isinstance(of, ast.Name) and re.fullmatch(r"(bool|int|uint|f|i|u|bf)\d*", of.id):
        sizes = index.strip("()").replace(" ", "").strip(",").replace(",", r"\times ")
        return rf"\mathrm{{data}}_{{{sizes}}}"
    inside = _escaped(index.strip("()").replace(" ", ""))
    return rf"{_bracket(_tex(of), ATOM)}_{{{inside}}}"


def _name(name: str) -> str:
    if name in GREEK.split():
        return rf"\{name}"
    return name if len(name) == 1 else rf"\mathrm{{{_escaped(name)}}}"


def _number(value: float) -> str:
    mantissa, e, exponent = f"{value:.6g}".partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if e else mantissa


def _escaped(text: str) -> str:
    return re.sub(r"([_%$#&{}])", r"\\\1", text)


def _bracket(part: Part, level: int) -> str:
    text, binds = part
    return text if binds >= level else rf"\left({text}\right)"
