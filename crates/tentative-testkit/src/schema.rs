//! Checks a JSON document against a JSON Schema, as far as the schemas in docs/reference go.
//!
//! A keyword that is not known here is an error, never silently satisfied: the schemas may grow only together with this.

use serde_json::{Map, Value};

/// Says where the document does not fit the schema; empty when it fits.
///
/// # Panics
///
/// When the schema has a keyword that is not known here, or a reference that leads nowhere.
#[must_use]
pub fn violations(schema: &Value, document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    Checker { root: schema }.check(schema, document, "$", &mut found);
    found
}

struct Checker<'a> {
    root: &'a Value,
}

impl Checker<'_> {
    fn check(&self, schema: &Value, document: &Value, place: &str, found: &mut Vec<String>) {
        let schema = schema.as_object().expect("a schema is an object");
        for (keyword, value) in schema {
            let fits = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "properties" => true,
                "$ref" => {
                    self.check(self.definition(value), document, place, found);
                    true
                }
                "type" => one_or_many(value).iter().any(|name| is_of_type(document, name)),
                "enum" => many(value).contains(document),
                "const" => value == document,
                "minimum" => document.as_f64().is_none_or(|number| Some(number) >= value.as_f64()),
                "maximum" => document.as_f64().is_none_or(|number| Some(number) <= value.as_f64()),
                "pattern" => document.as_str().is_none_or(|text| is_eight_digits(text, value)),
                "required" => missing(document, value).is_none(),
                "additionalProperties" => surplus(document, schema, value).is_none(),
                "items" => {
                    for (index, item) in document.as_array().into_iter().flatten().enumerate() {
                        self.check(value, item, &format!("{place}[{index}]"), found);
                    }
                    true
                }
                "oneOf" => {
                    let fitting = many(value).iter().filter(|choice| self.fits(choice, document)).count();
                    fitting == 1
                }
                other => panic!("the schema keyword {other:?} is not known here"),
            };
            if !fits {
                found.push(format!("{place}: {document} does not fit {keyword}: {value}"));
            }
        }
        if let (Some(Value::Object(properties)), Value::Object(object)) = (schema.get("properties"), document)
        {
            for (name, value) in object {
                if let Some(property) = properties.get(name) {
                    self.check(property, value, &format!("{place}.{name}"), found);
                }
            }
        }
    }

    fn fits(&self, schema: &Value, document: &Value) -> bool {
        let mut found = Vec::new();
        self.check(schema, document, "$", &mut found);
        found.is_empty()
    }

    fn definition(&self, reference: &Value) -> &Value {
        let pointer =
            reference.as_str().and_then(|text| text.strip_prefix('#')).expect("references are local");
        self.root.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere"))
    }
}

fn many(value: &Value) -> &[Value] {
    value.as_array().expect("the keyword takes a list")
}

fn one_or_many(value: &Value) -> Vec<&str> {
    match value {
        Value::String(name) => vec![name],
        other => many(other).iter().filter_map(Value::as_str).collect(),
    }
}

fn is_of_type(document: &Value, name: &str) -> bool {
    match name {
        "object" => document.is_object(),
        "array" => document.is_array(),
        "string" => document.is_string(),
        "integer" => document.is_i64() || document.is_u64(),
        "boolean" => document.is_boolean(),
        "null" => document.is_null(),
        other => panic!("the schema type {other:?} is not known here"),
    }
}

/// The one pattern of the schemas: an id.
fn is_eight_digits(text: &str, pattern: &Value) -> bool {
    assert_eq!(pattern, "^[0-9a-f]{8}$", "the only pattern that is known here");
    text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn missing<'a>(document: &Value, required: &'a Value) -> Option<&'a Value> {
    let object = document.as_object()?;
    many(required).iter().find(|name| !name.as_str().is_some_and(|name| object.contains_key(name)))
}

fn surplus<'a>(document: &'a Value, schema: &Map<String, Value>, allowed: &Value) -> Option<&'a String> {
    assert_eq!(allowed, false, "the only value that is known here");
    let object = document.as_object()?;
    object
        .keys()
        .find(|name| schema.get("properties").is_none_or(|properties| properties.get(name).is_none()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let schema = json!({
            "type": "object",
            "properties": { "id": { "$ref": "#/$defs/id" }, "list": { "type": "array", "items": { "type": "integer" } } },
            "required": ["id"],
            "additionalProperties": false,
            "$defs": { "id": { "type": "string", "pattern": "^[0-9a-f]{8}$" } },
        });
        assert!(violations(&schema, &json!({ "id": "0123abcd", "list": [1, 2] })).is_empty());
        for bad in [
            json!({}),
            json!({ "id": "xyz" }),
            json!({ "id": 1 }),
            json!({ "id": "0123abcd", "list": ["1"] }),
            json!({ "id": "0123abcd", "other": 1 }),
            json!([]),
        ] {
            assert!(!violations(&schema, &bad).is_empty(), "{bad}");
        }
    }
}
