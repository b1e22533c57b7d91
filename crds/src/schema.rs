//! Pieces of OpenAPI schema that the derive cannot express. Every string and list is bounded, because the API server
//! refuses a CEL rule over anything whose size it cannot estimate. Pure.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Conditions as a map by type, so that two writers can never add the same type twice.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": 64},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "reason": {"type": "string", "minLength": 1, "maxLength": 128},
                "message": {"type": "string", "maxLength": 32768}
            }
        }
    })
}

/// A label selector with bounds; the meaning is that of Kubernetes.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "description": "Selects core Node objects by their labels, with the meaning of a Kubernetes label selector. An empty selector matches every node.",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": {"type": "string", "maxLength": 63}
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 32,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "maxLength": 317},
                        "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                        "values": {"type": "array", "maxItems": 64, "items": {"type": "string", "maxLength": 63}}
                    }
                }
            }
        }
    })
}

/// `bandwidthLimit`: a quantity from 64Ki on. Whoever changes the bound changes the message with it.
pub(crate) fn bandwidth_limit(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 20,
        "nullable": true,
        "x-kubernetes-validations": [{
            "rule": "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('64Ki')) >= 0 && quantity(string(self)).compareTo(quantity('1Pi')) <= 0 && quantity(string(self)).isInteger()",
            "message": "must be a quantity of bytes per second from 64Ki to 1Pi, for example 100M"
        }]
    })
}

/// `chunkSize`: a quantity between 64Ki and 64Mi. Whoever changes the bounds changes the message with them.
pub(crate) fn chunk_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Size of one chunk, the unit that is moved, verified and sent again. A quantity of bytes from 64Ki to 64Mi, a multiple of 4Ki.",
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 20,
        "default": "1Mi",
        "x-kubernetes-validations": [{
            "rule": "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('64Ki')) >= 0 && quantity(string(self)).compareTo(quantity('64Mi')) <= 0 && quantity(string(self)).asInteger() % 4096 == 0",
            "message": "must be a quantity from 64Ki to 64Mi and a multiple of 4Ki, for example 1Mi"
        }]
    })
}

/// `size` of a region: a quantity from 1 to 16Ti. Whoever changes the bounds changes the message with them.
pub(crate) fn region_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Bytes of the memory, a quantity from 1 to 16Ti.",
        "x-kubernetes-int-or-string": true,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 20,
        "x-kubernetes-validations": [{
            "rule": "isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('1')) >= 0 && quantity(string(self)).compareTo(quantity('16Ti')) <= 0 && quantity(string(self)).isInteger()",
            "message": "must be a quantity of bytes from 1 to 16Ti, for example 8Gi"
        }]
    })
}
