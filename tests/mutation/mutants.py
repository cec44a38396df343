"""Small changes of a module's source, one at a time."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        name: The same in every run on the same source: ``line:column`` and how many were made there before.
        write: Makes the whole changed module's source.
        message: Only the words of a message differ: not counted.
    """

    name: str
    write: Callable[[], str]
    message: bool = False


def of_constants(source: str) -> Iterator[Mutant]:
    """Each number of an upper-case constant of the module × 100, ÷ 100, one more, one less.

    Arithmetic on numbers (``16 * 2**20``) is one number.
    """
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if not any(name.isupper() for name in names):
            continue
        for node, value in _numbers(statement.value):
            smaller = value // 100 if isinstance(value, int) else value / 100
            for number, new in enumerate((value * 100, smaller, value + 1, value - 1)):
                if new != value:
                    name = f"{names[0]}@{node.lineno}:{node.col_offset}#{number}"
                    yield Mutant(name, partial(_replaced, source, node, repr(new)))


def of_functions(source: str) -> Iterator[Mutant]:
    """What mutmut changes inside functions, decorated ones included, each change alone."""
    import libcst as cst
    from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
    from mutmut.mutation.file_mutation import NEVER_MUTATE_FUNCTION_NAMES, MutationVisitor
    from mutmut.mutation.mutators import mutation_operators
    from mutmut.mutation.pragma_handling import IgnoredCode

    class Visitor(MutationVisitor):
        """mutmut leaves decorated functions out because it copies them; here nothing is copied."""

        METADATA_DEPENDENCIES = (*MutationVisitor.METADATA_DEPENDENCIES, ParentNodeProvider)

        def __init__(self) -> None:
            nothing: set[int] = set()
            ignored = IgnoredCode(nothing, nothing, nothing)
            super().__init__(mutation_operators, ignored)
            self.where: list[tuple[int, int]] = []
            self.messages: list[bool] = []

        def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
            if isinstance(node, cst.FunctionDef):
                return node.name.value in NEVER_MUTATE_FUNCTION_NAMES
            return bool(super()._skip_node_and_children(node))

        def _create_mutations(self, node: cst.CSTNode) -> None:
            before = len(self.mutations)
            super()._create_mutations(node)
            start = self.get_metadata(PositionProvider, node).start
            made = len(self.mutations) - before
            self.where += [(start.line, start.column)] * made
            self.messages += [self._is_message(node)] * made

        def _is_message(self, node: cst.CSTNode) -> bool:
            if not isinstance(node, cst.BaseString):
                return False
            if isinstance(node, cst.SimpleString) and node.value.count(" ") >= 2:
                return True  # a sentence
            above = node
            while not isinstance(above, cst.BaseStatement | cst.Module):
                if isinstance(above, cst.Raise) or _says_something(above):
                    return True
                above = self.get_metadata(ParentNodeProvider, above)
            return False

    def _says_something(node: cst.CSTNode) -> bool:
        if not isinstance(node, cst.Call):
            return False
        callee = node.func.value if isinstance(node.func, cst.Attribute) else node.func
        return isinstance(callee, cst.Name) and callee.value in {"FieldProblem", "LOG"}

    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = Visitor()
    module = wrapper.visit(visitor)
    seen: dict[tuple[int, int], int] = {}
    for mutation, where, message in zip(visitor.mutations, visitor.where, visitor.messages, strict=True):
        seen[where] = seen.get(where, -1) + 1
        if isinstance(mutation.contained_by_top_level_function, cst.FunctionDef):
            name = f"{where[0]}:{where[1]}#{seen[where]}"
            yield Mutant(name, partial(_changed, module, mutation), message)


def _changed(module: Any, mutation: Any) -> str:
    return str(module.deep_replace(mutation.original_node, mutation.mutated_node).code)


def _numbers(node: ast.expr) -> Iterator[tuple[ast.expr, int | float]]:
    value = _value(node)
    if value is not None:
        yield node, value
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from _numbers(child)


def _value(node: ast.expr) -> int | float | None:
    """The number that an expression of nothing but numbers stands for."""
    if not isinstance(node, ast.Constant | ast.UnaryOp | ast.BinOp):
        return None
    if any(isinstance(part, ast.Name | ast.Call | ast.Attribute) for part in ast.walk(node)):
        return None
    value = eval(compile(ast.Expression(node), "", "eval"))
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _replaced(source: str, node: ast.expr, text: str) -> str:
    """``source`` with ``text`` where ``node`` was; columns of ``ast`` count bytes."""
    lines = source.encode().splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    head = b"".join(lines[: node.lineno - 1]) + lines[node.lineno - 1][: node.col_offset]
    tail = lines[node.end_lineno - 1][node.end_col_offset :] + b"".join(lines[node.end_lineno :])
    return (head + text.encode() + tail).decode()


def diff(before: str, after: str) -> str:
    """The lines that were and the lines that are."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(line for line in list(lines)[2:] if not line.startswith("@@"))
