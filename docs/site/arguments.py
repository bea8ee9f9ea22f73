"""Prepares docstrings for the API pages.

Arguments that a class passes on (`base.arguments`) are shown as its own. Arguments that share one description
("first, second: …") share one entry, public names become links, and a default that is a constant shows its value.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

from hf_negmine.base.arguments import with_arguments_of, with_descriptions

NAME = re.compile(r"(?<!`)`(\w+)`(?!`)")


class SharedDescriptions(griffe.Extension):
    """Changes the docstrings of a package before the pages are made, and warns of arguments that do not exist."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Go through all of it, once it is loaded."""
        self._public = {str(name) for name in pkg.exports or ()}
        _show_passed_on(pkg)
        self._visit(pkg)

    def _visit(self, owner: griffe.Object) -> None:
        for member in owner.members.values():
            if not member.is_alias:
                self._visit(member)
        if isinstance(owner, griffe.Function):
            for parameter in owner.parameters:
                parameter.default = _constant(owner, parameter.default)
        if owner.docstring is not None:
            owner.docstring.value = NAME.sub(self._link, owner.docstring.value)
            if owner.is_class or owner.is_function:
                self._join(owner, owner.docstring)

    def _link(self, found: re.Match[str]) -> str:
        return f"[`{found[1]}`][hf_negmine.{found[1]}]" if found[1] in self._public else found[0]

    def _join(self, owner: griffe.Object, docstring: griffe.Docstring) -> None:
        known = _arguments(owner)
        sections = docstring.parse(warnings=False)
        for section in sections:
            if section.kind.value not in ("parameters", "attributes"):
                continue
            for entry in section.value:
                if entry.name.endswith(","):  # of attributes griffe takes the first name, and the others for its type
                    entry.name, entry.annotation = f"{entry.name} {str(entry.annotation).strip('()')}", None
                names = entry.name.split(", ")
                if unknown := [name for name in names if name not in known]:
                    griffe.docstring_warning(docstring, 0, f"{owner.path} has no {', '.join(unknown)}")
                for field in ("annotation", "value"):
                    values = [known.get(name, {}).get(field) for name in names]
                    if len(names) > 1 and len({str(value) for value in values}) == 1:
                        setattr(entry, field, values[0])
        docstring.__dict__["parsed"] = sections  # what the pages are made of


def _show_passed_on(owner: griffe.Object) -> None:
    for member in owner.members.values():
        if not member.is_alias:
            _show_passed_on(member)
    for decorator in owner.decorators if isinstance(owner, griffe.Class) else ():
        call, own = decorator.value, owner.parameters
        rest = next((one for one in own if one.kind is griffe.ParameterKind.var_keyword), None)
        if rest and isinstance(call, griffe.ExprCall) and call.function.name == with_arguments_of.__name__:
            source = owner.modules_collection[call.arguments[0].canonical_path]
            _show_passed_on(source)  # which may itself pass some on
            del own[rest.name]
            for one in source.parameters:
                if one.kind is griffe.ParameterKind.keyword_only and one.name not in own:
                    own.add(one)
            owner.docstring.value = with_descriptions(owner.docstring.value, source.docstring.value, rest.name)


def _arguments(owner: griffe.Object) -> dict[str, dict[str, Any]]:
    """Type and default of all that a docstring may describe: arguments, and a class's attributes, also of its bases."""
    found: dict[str, dict[str, Any]] = {}
    for one in reversed([owner, *(owner.mro() if owner.is_class else [])]):
        for name, member in one.members.items():
            found[name] = {"annotation": getattr(member, "annotation", None), "value": None}
    for parameter in owner.parameters:
        found[parameter.name.lstrip("*")] = {"annotation": parameter.annotation, "value": parameter.default}
    return found


def _constant(owner: griffe.Object, default: Any) -> Any:
    """The value of a constant that is a default."""
    if not isinstance(default, griffe.ExprName) or not default.name.isupper():
        return default
    constant = owner.modules_collection[default.canonical_path]
    return constant.value if getattr(constant, "value", None) is not None else default
