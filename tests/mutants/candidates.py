"""The mutants of a module: what cosmic-ray makes of it, and calls that are left out, less what can change nothing.

What is left out by rule changes no behaviour of a program that type checks: annotations, docstrings, `__all__`, code
for type checkers alone, examples of the documentation, options of dataclasses that only forbid, `is` for `==` and the
other way round, the text of a log.
"""

import ast
import random
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

import parso  # noqa: F401  # before cosmic_ray, whose first import of it would be a circular one
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.operators.provider import OperatorProvider
from parso.python.tree import Name

EQUIVALENT = Path(__file__).parent / "equivalent.toml"

SAME = ("Eq_Is", "Is_Eq", "NotEq_IsNot", "IsNot_NotEq")
LOGS = {"debug", "info", "warning", "error", "exception"}


class RemoveCall(Operator):
    """Leave out a statement that calls something, awaited or not, for what it does."""

    def mutation_positions(self, node: Any) -> Any:
        # A call that stands alone: its parent is the line, and a docstring is no call.
        if node.type in ("atom_expr", "power") and node.parent and node.parent.type == "simple_stmt":
            last = node.children[-1]
            if last.type == "trailer" and last.children[0].value == "(":
                yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return Name("pass", node.start_pos, prefix=node.get_first_leaf().prefix)

    @classmethod
    def examples(cls) -> Any:
        return (Example("f()", "pass"), Example("await f()", "pass"))


def operators() -> dict[str, Any]:
    """Give every operator that takes no arguments, by name."""
    provider: Any = OperatorProvider()
    made: dict[str, Any] = {name: provider[name]() for name in provider if not provider[name].arguments()}
    return {**made, "RemoveCall": RemoveCall()}


OPERATORS = operators()


@dataclass(frozen=True)
class Mutant:
    """One change to one module."""

    module: str
    """As in `engines/mysql/reset.py`."""
    operator: str
    occurrence: int
    line: int
    column: int

    def code(self, source: str) -> str:
        """Give the module with the change."""
        changed = mutate_code(source, OPERATORS[self.operator], self.occurrence)
        assert changed is not None
        return changed

    def diff(self, source: str) -> str:
        lines = unified_diff(source.splitlines(), self.code(source).splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Give every change to a module that may be a mutant: see `is_python`, which takes time."""
    nodes = list(ast_nodes(get_ast(source)))
    left_out = lines_left_out(source)
    found: list[Mutant] = []
    for name, operator in OPERATORS.items():
        if name.endswith(SAME):
            continue
        positions = [place for node in nodes for place in operator.mutation_positions(node)]
        for occurrence, ((line, column), _) in enumerate(positions):
            if not any(begin <= (line, column) < end for begin, end in left_out):
                found.append(Mutant(module, name, occurrence, line, column))
    return found


def sample(mutants: list[Mutant], number: int, dice: random.Random, sources: dict[str, str]) -> list[Mutant]:
    """Choose places, and at each one change: that a `/` can become twelve other things makes it no likelier."""
    places: dict[tuple[str, int, int], list[Mutant]] = {}
    for each in mutants:
        places.setdefault((each.module, each.line, each.column), []).append(each)
    chosen: list[Mutant] = []
    for place in dice.sample(sorted(places), len(places)):
        if len(chosen) == number:
            break
        there = places[place]
        chosen += [each for each in dice.sample(there, len(there)) if is_python(each, sources[each.module])][:1]
    return chosen


def is_python(mutant: Mutant, source: str) -> bool:
    """Tell whether a change makes something else, and a program."""
    try:
        return ast.dump(ast.parse(mutant.code(source))) != ast.dump(ast.parse(source))
    except (SyntaxError, AttributeError):
        # cosmic-ray's ExceptionReplacer cannot change the name of an exception with a dot in it.
        return False


def statement_at(source: str, line: int) -> range:
    """Give the lines of the innermost statement that a line is of; of one with a body, those before the body."""
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and node.lineno <= line:
            body: list[ast.stmt] = getattr(node, "body", [])
            last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
            if line <= last:
                # The walk goes from the outside to the inside.
                found = range(node.lineno, max(last, node.lineno) + 1)
    return found


Place = tuple[int, int]


def lines_left_out(source: str) -> list[tuple[Place, Place]]:
    """Give the places of a module, as line and column, at which a change is none of its behaviour."""
    # ast counts columns in bytes, parso in characters.
    lines = source.splitlines()

    def place(line: int, column: int) -> Place:
        return line, len(lines[line - 1].encode()[:column].decode())

    def span(node: ast.expr | ast.stmt) -> tuple[Place, Place]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)

    return [span(node) for each in ast.walk(ast.parse(source)) for node in _without_behaviour(each)]


def _without_behaviour(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    match node:
        case ast.AnnAssign():
            yield node.annotation
        case ast.arg(annotation=ast.expr() as annotation):
            yield annotation
        case ast.FunctionDef() | ast.AsyncFunctionDef() if node.returns is not None:
            yield node.returns
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            yield node
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if _is_of_types(name, value):
            yield node
        case ast.Call(func=ast.Name(id="cast"), args=[kind, *_]):
            yield kind
        case ast.Call(func=ast.Name(id="action")):
            yield from (each.value for each in node.keywords if each.arg in ("example_params", "example_result"))
        case ast.Call(func=ast.Name(id="dataclass")):
            yield from (each.value for each in node.keywords if each.arg in ("frozen", "kw_only", "slots", "repr"))
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=attr, value=ast.Name(id="log" | "logger" | "LOG")))):
            if attr in LOGS:
                yield node
        case ast.FunctionDef(decorator_list=decorators) | ast.AsyncFunctionDef(decorator_list=decorators):
            yield from (
                each for each in decorators if isinstance(each, ast.Name) and each.id in ("overload", "override")
            )
        case _:
            return


def _is_of_types(name: str, value: ast.expr) -> bool:
    """Tell whether an assignment only names a type: `Rows = dict[str, int] | None`."""
    is_type = isinstance(value, ast.Subscript | ast.BinOp) and name[:1].isupper() and not name.isupper()
    return name == "__all__" or is_type


def equivalent() -> dict[tuple[str, str], str]:
    """Give the mutants that were looked at and are no different, by module and diff, each with the reason."""
    tables = tomllib.loads(EQUIVALENT.read_text())["mutant"]
    return {(each["module"], each["diff"].strip("\n")): each["reason"] for each in tables}
