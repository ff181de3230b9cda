//! The JSON schema of the policy's document, generated from the types that parse it.

use std::borrow::Cow;

use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::{
    CallerEntry, Entries, Object, PolicyDocument, RouteDocument, RouteEntry, Routes, Settings, StringOrList,
    TokenCaller, WholeNumber, Written,
};

impl PolicyDocument {
    /// Returns the JSON schema of the policy, for editors and for checks before Envoy loads it. What a schema can't express
    /// (that a host implies its service, that two routes do not match the same requests) only compiling checks.
    pub fn json_schema() -> String {
        let mut schema = SchemaGenerator::default().into_root_schema_for::<Self>();
        tidy(&mut schema);
        format!("{:#}\n", schema.as_value())
    }
}

/// Returns a reference to the policy's own schema, for a Backstage section.
pub(super) fn policy_itself(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "$ref": "#" })
}

/// Returns the schema of a session's inline policy, which IAM defines.
pub(super) fn session_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "oneOf": [{ "type": "object", "required": ["Statement"] }, { "type": "string" }] })
}

/// Removes `null`, which is not a value of an optional member, and the line breaks of source text.
fn tidy(schema: &mut Schema) {
    transform_subschemas(&mut tidy, schema);
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                schema.insert(key, value);
            }
        }
    }
}

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

impl JsonSchema for CallerEntry {
    fn schema_name() -> Cow<'static, str> {
        "CallerEntry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let token = generator.subschema_for::<TokenCaller>();
        json_schema!({
            "oneOf": [{ "description": "A URI or DNS name of the client's certificate.", "type": "string" }, token],
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

impl<T: JsonSchema> JsonSchema for Written<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }
}

impl<T: JsonSchema> JsonSchema for Object<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
