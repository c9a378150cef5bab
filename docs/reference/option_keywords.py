"""Show the keywords that `with_options` gives a function in the API reference, which reads code without running it."""

from __future__ import annotations

from typing import Any

import griffe


class OptionKeywords(griffe.Extension):
    """Replace the parameter `options` of a decorated function by the fields of its option class."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Walk all functions once the package is loaded, when names can be resolved."""
        for module in (pkg, *_modules(pkg)):
            for function in (each for each in module.functions.values() if not each.is_alias):
                for decorator in function.decorators:
                    call = decorator.value
                    if isinstance(call, griffe.ExprCall) and str(call.function) == "with_options":
                        _expand(function, module[str(call.arguments[0])])


def _modules(module: griffe.Module) -> list[griffe.Module]:
    found = [each for each in module.modules.values() if not each.is_alias]
    return [*found, *(inner for each in found for inner in _modules(each))]


def _expand(function: griffe.Function, cls: Any) -> None:
    cls = cls.final_target if cls.is_alias else cls
    fields: dict[str, griffe.Parameter] = {}
    for base in (*reversed(cls.mro()), cls):
        for name, attribute in base.attributes.items():
            if "property" not in attribute.labels:
                fields[name] = griffe.Parameter(
                    name, annotation=attribute.annotation, kind=_kind(attribute), default=_default(attribute)
                )
    first = function.parameters[0]
    first.kind = griffe.ParameterKind.positional_only
    ordered = sorted(fields.values(), key=lambda each: each.kind is griffe.ParameterKind.keyword_only)
    function.parameters = griffe.Parameters(first, *ordered)


def _call(attribute: griffe.Attribute) -> Any:
    value = attribute.value
    return value if isinstance(value, griffe.ExprCall) else None


def _kind(attribute: griffe.Attribute) -> griffe.ParameterKind:
    positional = (call := _call(attribute)) is not None and "positional=True" in str(call)
    kinds = griffe.ParameterKind
    return kinds.positional_or_keyword if positional else kinds.keyword_only


def _default(attribute: griffe.Attribute) -> Any:
    call = _call(attribute)
    if call is None:
        return attribute.value
    if str(call.function) == "option":
        return None if str(call.arguments[0]) == "REQUIRED" else call.arguments[0]
    return f"{str(call).partition('default_factory=')[2].rstrip(')')}()"
