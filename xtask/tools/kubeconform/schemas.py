"""Writes JSON schemas for kubeconform from a kube-apiserver's own OpenAPI document: no network, and exactly its version.

    kubectl get --raw /openapi/v2 | python3 schemas.py DIRECTORY
    kubeconform -strict -schema-location 'DIRECTORY/{{.ResourceKind}}{{.KindSuffix}}.json' …
"""
import json
import pathlib
import sys

# What the document says of these is less than what the API server takes.
WIDER = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["integer", "string"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}


def strict(schema):
    """Refuses unknown fields, as kubectl and Helm do."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            strict(value)
    elif isinstance(schema, list):
        for value in schema:
            strict(value)


def references(schema):
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix("#/definitions/")
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    definitions = json.load(sys.stdin)["definitions"] | WIDER
    strict(definitions)
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            needed, todo = {}, [name]
            while todo:
                at = todo.pop()
                if at not in needed:
                    needed[at] = definitions[at]
                    todo.extend(references(definitions[at]))
            group = kind["group"].split(".")[0].lower()
            suffix = "-".join(filter(None, [group, kind["version"].lower()]))
            file = directory / f"{kind['kind'].lower()}-{suffix}.json"
            file.write_text(json.dumps({"$ref": f"#/definitions/{name}", "definitions": needed}))


main()
