"""The OpenAPI description of calls, by the types that read and write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from kbopt import __version__
from kbopt.agents.problems import Problem

_REF = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: its method and path, the types of its query, body and answer, and what it does."""

    method: Literal["GET", "POST"]
    path: str
    query: type[BaseModel]
    body: type[BaseModel] | None
    answer: type[BaseModel]
    summary: str


def document(operations: Sequence[Operation], session_header: str) -> dict[str, Any]:
    """An OpenAPI 3.1 document of `operations`."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(Problem, "serialization")]
    for each in operations:
        models.append((each.answer, "serialization"))
        if each.body is not None:
            models.append((each.body, "validation"))
    refs, schemas = models_json_schema(list(dict.fromkeys(models)), ref_template=_REF)

    def content(model: type[BaseModel], mode: JsonSchemaMode) -> dict[str, Any]:
        return {"content": {"application/json": {"schema": refs[model, mode]}}}

    def described(each: Operation) -> dict[str, Any]:
        answers = {
            "200": {"description": "The answer", **content(each.answer, "serialization")},
            "default": {"description": "Why there is none", **content(Problem, "serialization")},
        }
        if each.answer.__name__ == "Job":
            answers["202"] = {"description": "It still runs", **content(each.answer, "serialization")}
        body = {"required": True, **content(each.body, "validation")} if each.body else None
        return {
            "operationId": f"{each.method.lower()}{each.path.removeprefix('/v1').replace('/', '_')}".replace(
                "{job}", "one"
            ),
            "summary": each.summary,
            "parameters": [*_parameters(each), _header(session_header)],
            **({"requestBody": body} if body else {}),
            "responses": answers,
        }

    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = described(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "kbopt serve", "version": __version__},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _parameters(each: Operation) -> list[dict[str, Any]]:
    properties = each.query.model_json_schema().get("properties", {})
    found = [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]
    if "{job}" in each.path:
        found.append({"name": "job", "in": "path", "required": True, "schema": {"type": "string"}})
    return found


def _header(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "schema": {"type": "string"},
        "description": "The session; each has its own budget and runs. Without it all share one.",
    }
