//! The shipped JSON schema against the code.

use std::path::Path;

use crate::policy::PolicyDocument;

const SHIPPED: &str = "docs/policy.schema.json";

#[test]
fn the_shipped_schema_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(SHIPPED);
    let schema = PolicyDocument::json_schema();
    if std::env::var_os("WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == schema,
        "{SHIPPED} is stale; regenerate it: WRITE_SCHEMA=1 cargo test --package sigv4-core --features schema schema"
    );
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn check(place: &str, value: &serde_json::Value, undescribed: &mut Vec<String>) {
        let Some(members) = value.as_object() else { return };
        for (key, member) in
            members.get("properties").and_then(|properties| properties.as_object()).into_iter().flatten()
        {
            if member.get("description").is_none() {
                undescribed.push(format!("{place}.{key}"));
            }
        }
        for (key, member) in members {
            check(&format!("{place}.{key}"), member, undescribed);
        }
    }
    let schema = serde_json::from_str(&PolicyDocument::json_schema()).unwrap();
    let mut undescribed = Vec::new();
    check("", &schema, &mut undescribed);
    assert!(undescribed.is_empty(), "{undescribed:?}");
}
