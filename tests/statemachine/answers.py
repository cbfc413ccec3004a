"""What the handlers can answer, and which keys of ``$`` they read: seen in their source."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

# What a handler hands on as (a part of) its own answer, and where that is written.
HANDED_ON = {
    "after_answer": ("bluegreen.hooks",),
    "child_input": ("bluegreen.release",),
    "run_task": ("bluegreen.migration",),
    "shift": ("bluegreen.routers.listener", "bluegreen.routers.hosts"),
    "waiting": ("bluegreen.look",),
}
# A dict with one of these is what RunHooks has answered earlier, or a function of the user's.
_OF_HOOKS = {"function", "point"}


def module_of(function: str) -> ModuleType:
    """The module of a function, by its logical id."""
    name = function.removesuffix("Function")
    return importlib.import_module(re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower())


def tree(module: ModuleType) -> ast.AST:
    return ast.parse(inspect.getsource(module))


def answers(function: str, field: str) -> set[str]:
    """What a handler can answer under a key: read from the source, or from the type it answers."""
    module = module_of(function)
    found = {
        answer
        for one in _answering(module)
        for scope, key, value in _displays(one)
        if key == field
        for answer in _values(one, scope, value)
    }
    if not found or _answers_a_model(module):
        found |= _literals(module, field)
    return found


def keys(function: str) -> set[str]:
    """Every key that is written somewhere in the answer of a handler."""
    return {key for one in _answering(module_of(function)) for key in _keys(one)}


def _keys(module: ModuleType) -> Iterator[str]:
    for _, key, _ in _displays(module):
        yield key
    for node in ast.walk(tree(module)):
        match node:
            case ast.Assign(
                targets=[ast.Subscript(value=ast.Name("answer"), slice=ast.Constant(str(key)))]
            ):
                yield key


def keys_read(module: ModuleType) -> Iterator[str]:
    """Keys of ``$`` that a module reads."""
    for node in ast.walk(tree(module)):
        match node:
            case ast.Subscript(value=value, slice=ast.Constant(value=str(key))) if _is_data(value):
                yield key
            case ast.Call(
                func=ast.Attribute(value=value, attr="get"),
                args=[key, *_],
            ) if _is_data(value):
                yield from _texts(key)
            case ast.Compare(
                left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()], comparators=[value]
            ) if _is_data(value):
                yield key


def keys_added(module: ModuleType) -> Iterator[str]:
    """Keys written beside ``**invocation.data``: of a new ``$``."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Dict) and any(
            key is None and _is_data(value)
            for key, value in zip(node.keys, node.values, strict=True)
        ):
            for key in node.keys:
                if isinstance(key, ast.Constant):
                    yield str(key.value)


def _texts(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body)
            yield from _texts(orelse)


def _is_data(node: ast.expr) -> bool:
    """``data``, ``invocation.data`` or ``event["data"]``: what a handler knows as ``$``."""
    match node:
        case ast.Name(id="data") | ast.Attribute(attr="data"):
            return True
        case ast.Subscript(slice=ast.Constant(value="data")):
            return True
    return False


def _displays(module: ModuleType) -> Iterator[tuple[str, str, ast.expr]]:
    """(function around it, key, value) of every ``"key": value`` written in a dict display."""
    for scope in ast.iter_child_nodes(tree(module)):
        name = scope.name if isinstance(scope, ast.FunctionDef) else ""
        for node in ast.walk(scope):
            if not isinstance(node, ast.Dict):
                continue
            written = [
                (key.value, value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            ]
            if not _OF_HOOKS & {key for key, _ in written}:
                for key, value in written:
                    yield name, key, value


def _values(module: ModuleType, scope: str, value: ast.expr) -> set[str]:
    match value:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=body, orelse=orelse):
            return _values(module, scope, body) | _values(module, scope, orelse)
        case ast.Attribute(attr=field):
            return _literals(module, field)
        case ast.Name(id=name):
            # A parameter, which says what it can be.
            annotation = get_type_hints(getattr(module, scope)).get(name)
            if get_origin(annotation) is Literal:
                return {str(one) for one in get_args(annotation)}
    raise AssertionError(f"{module.__name__}.{scope}: what can {ast.unparse(value)} be?")


def _literals(module: ModuleType, field: str) -> set[str]:
    """The values of a Literal field, of the classes that a handler's module uses."""
    used: list[Any] = [module, *(one for one in vars(module).values() if inspect.ismodule(one))]
    classes = {one for scope in used for one in vars(scope).values() if inspect.isclass(one)}
    found = {
        annotation
        for one in classes
        if one.__module__.startswith("bluegreen.")
        and any(field in vars(base).get("__annotations__", {}) for base in one.__mro__)
        and (annotation := get_type_hints(one).get(field)) is not None
        and get_origin(annotation) is Literal
    }
    return {str(value) for annotation in found for value in get_args(annotation)}


def _answers_a_model(module: ModuleType) -> bool:
    """Whether a handler answers ``Deployment.document()``."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "document"
        and not node.args
        for node in ast.walk(tree(module))
    )


def _calls(module: ModuleType) -> set[str]:
    """The functions and methods that a module calls, by their last name."""
    called = (node.func for node in ast.walk(tree(module)) if isinstance(node, ast.Call))
    return {
        one.attr if isinstance(one, ast.Attribute) else one.id
        for one in called
        if isinstance(one, ast.Attribute | ast.Name)
    }


def _answering(module: ModuleType) -> list[ModuleType]:
    """The modules in which a handler's answers are written, its own first."""
    others = [name for call in HANDED_ON if call in _calls(module) for name in HANDED_ON[call]]
    return [module, *(importlib.import_module(name) for name in others)]


def field_at(model: Any, path: str) -> Any:
    """The annotation of a field of a model in a model, by ``configuration.approval.on_timeout``.

    Raises KeyError when there is none.
    """
    annotation: Any = model
    for name in path.split("."):
        (parts,) = [
            one
            for one in (annotation, *get_args(annotation))
            if isinstance(getattr(one, "model_fields", None), Mapping)
        ]
        annotation = parts.model_fields[name].annotation
    return annotation
