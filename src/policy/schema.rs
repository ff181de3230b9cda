//! The JSON schema of the policy's document, made from the very types that read it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::document::{
    Entries, PolicyDocument, RouteDocument, RouteEntry, Routes, Settings, StringOrList, WholeNumber,
};

impl JsonSchema for PolicyDocument {
    fn schema_name() -> Cow<'static, str> {
        "Policy".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Settings::json_schema(generator);
        let route = generator.subschema_for::<RouteEntry>();
        schema.insert("patternProperties".to_owned(), serde_json::json!({ "^/": route }));
        schema
    }
}

impl JsonSchema for Routes {
    fn schema_name() -> Cow<'static, str> {
        "Routes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keyed = generator.subschema_for::<RouteEntry>();
        let listed = generator.subschema_for::<RouteDocument>();
        json_schema!({
            "oneOf": [
                {
                    "description": "Routes keyed by path prefix.",
                    "type": "object",
                    "propertyNames": { "pattern": "^/" },
                    "additionalProperties": keyed,
                },
                { "description": "Routes that each name their prefix.", "type": "array", "items": listed },
            ],
        })
    }
}

impl JsonSchema for RouteEntry {
    fn schema_name() -> Cow<'static, str> {
        "RouteEntry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let expanded = generator.subschema_for::<RouteDocument>();
        json_schema!({
            "oneOf": [
                { "description": "The target alone.", "type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://" },
                expanded,
            ],
        })
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("EntriesOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "type": "object", "additionalProperties": value })
    }

    fn inline_schema() -> bool {
        true
    }
}

impl JsonSchema for WholeNumber {
    fn schema_name() -> Cow<'static, str> {
        "WholeNumber".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0 })
    }

    fn inline_schema() -> bool {
        true
    }
}

impl JsonSchema for StringOrList {
    fn schema_name() -> Cow<'static, str> {
        "StringOrList".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }

    fn inline_schema() -> bool {
        true
    }
}
