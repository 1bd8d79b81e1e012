"""Says what is wrong with an OpenAPI document: `validate.py DOCUMENT`.

The document against the specification, then every reference in it, and every example against its schema, by a
validator that has nothing of the framework that made the document. Prints how many examples there were.
"""

import json
import sys

from openapi_schema_validator import OAS30Validator, oas30_format_checker
from openapi_spec_validator import OpenAPIV30SpecValidator

document = json.load(open(sys.argv[1], encoding="utf-8"))
wrong = []
examples = 0


def check(place, schema, example):
    """One example; references resolve as they do in the document."""
    global examples
    examples += 1
    whole = {"allOf": [schema], "components": document["components"]}
    validator = OAS30Validator(whole, format_checker=oas30_format_checker)
    for error in validator.iter_errors(example):
        inside = "".join(f"/{part}" for part in error.path)
        wrong.append(f"{place}{inside}: the example is not valid: {error.message}")


def refer(place, reference):
    found = document
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    if found is None:
        wrong.append(f"{place}: there is no {reference}")


def walk(place, value):
    if isinstance(value, list):
        for index, element in enumerate(value):
            walk(f"{place}/{index}", element)
    elif isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            refer(place, value["$ref"])
        # Where a schema stands beside it, the example is of that; else this is the schema.
        if "example" in value:
            check(place, value.get("schema", value), value["example"])
        for key, element in value.items():
            # What is inside an example only looks like one.
            if key not in ("example", "default", "enum"):
                walk(f"{place}/{key}", element)


for error in OpenAPIV30SpecValidator(document).iter_errors():
    wrong.append(f"{'/'.join(map(str, error.path))}: {error.message.splitlines()[0]}")
if not wrong:
    walk("", document)
for line in wrong:
    print(line)
print(f"{examples} examples")
sys.exit(1 if wrong else 0)
