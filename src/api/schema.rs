//! Values against the schemas of the published document (OpenAPI 3.0), each difference in plain words.
//!
//! The framework checks what is accepted; this only explains what it refused. It knows what the document uses, and takes
//! what it does not know for right.

use regex::Regex;
use serde_json::Value;
use time::{
    Date, OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description,
};
use uuid::Uuid;

use super::fields::FieldError;

/// The document's `components.schemas`.
#[derive(Debug, Clone, Copy)]
pub struct Schemas<'a>(pub &'a Value);

impl Schemas<'_> {
    /// What a parameter's text stands for: a number where the schema has one. Anything else stays text.
    pub fn value_of(&self, schema: &Value, text: &str) -> Value {
        match self.find(schema, "type").and_then(Value::as_str) {
            Some("integer" | "number" | "boolean") => {
                serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
            }
            Some("array") => Value::Array(vec![match self.find(schema, "items") {
                Some(items) => self.value_of(items, text),
                None => Value::from(text),
            }]),
            _ => Value::from(text),
        }
    }

    /// Adds what is wrong with `value`, which is at `field`, to `errors`.
    pub fn check(&self, schema: &Value, value: &Value, field: &str, errors: &mut Vec<FieldError>) {
        let mut wrong = |detail: String| errors.push(FieldError::new(field, detail));
        if value.is_null() {
            if self.find(schema, "nullable") != Some(&Value::Bool(true)) {
                wrong("must not be null".to_owned());
            }
            return;
        }
        if let Some(kind) = self.find(schema, "type").and_then(Value::as_str)
            && !is_of_type(value, kind)
        {
            let article = if kind.starts_with(['a', 'i', 'o']) {
                "an"
            } else {
                "a"
            };
            return wrong(match kind {
                "integer" => "must be a whole number".to_owned(),
                "boolean" => "must be true or false".to_owned(),
                "array" => "must be a list".to_owned(),
                kind => format!("must be {article} {kind}"),
            });
        }
        if let Some(known) = self.find(schema, "enum").and_then(Value::as_array)
            && !known.contains(value)
        {
            let known: Vec<String> = known.iter().map(Value::to_string).collect();
            return wrong(format!("must be one of {}", known.join(", ")));
        }
        match value {
            Value::String(text) => self.check_text(schema, text, &mut wrong),
            Value::Number(_) => self.check_number(schema, value, &mut wrong),
            Value::Array(list) => {
                let count = list.len() as u64;
                if let Some(least) = self.whole(schema, "minItems")
                    && count < least
                {
                    wrong(format!("must have at least {}", entries(least)));
                }
                if let Some(most) = self.whole(schema, "maxItems")
                    && count > most
                {
                    return wrong(format!("must have at most {}", entries(most)));
                }
                if let Some(items) = self.find(schema, "items") {
                    for (index, entry) in list.iter().enumerate() {
                        self.check(items, entry, &format!("{field}[{index}]"), errors);
                    }
                }
            }
            Value::Object(_) => self.check_object(schema, value, field, errors),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn check_text(&self, schema: &Value, text: &str, wrong: &mut impl FnMut(String)) {
        let count = text.chars().count() as u64;
        if let Some(least) = self.whole(schema, "minLength")
            && count < least
        {
            wrong(format!("must have at least {}", characters(least)));
        }
        if let Some(most) = self.whole(schema, "maxLength")
            && count > most
        {
            wrong(format!("must have at most {}", characters(most)));
        }
        if let Some(pattern) = self.find(schema, "pattern").and_then(Value::as_str)
            && Regex::new(pattern).is_ok_and(|pattern| !pattern.is_match(text))
        {
            wrong(format!("must match the pattern {pattern}"));
        }
        let format = self.find(schema, "format").and_then(Value::as_str);
        match format {
            Some("uuid") if Uuid::parse_str(text).is_err() => wrong("must be a UUID".to_owned()),
            Some("date-time") if OffsetDateTime::parse(text, &Rfc3339).is_err() => {
                wrong("must be a time such as 2026-01-31T12:00:00Z".to_owned());
            }
            Some("date") if Date::parse(text, DATE).is_err() => {
                wrong("must be a date such as 2026-01-31".to_owned());
            }
            _ => {}
        }
    }

    fn check_number(&self, schema: &Value, value: &Value, wrong: &mut impl FnMut(String)) {
        let Some(number) = value.as_f64() else { return };
        let format = self.find(schema, "format").and_then(Value::as_str);
        let (fits_least, fits_most) = format.and_then(range).unwrap_or((f64::MIN, f64::MAX));
        let bound = |key| self.find(schema, key).and_then(Value::as_f64);
        let least = bound("minimum").unwrap_or(fits_least);
        let most = bound("maximum").unwrap_or(fits_most);
        if number < least {
            wrong(format!("must be at least {least}"));
        }
        if number > most {
            wrong(format!("must be at most {most}"));
        }
    }

    fn check_object(
        &self,
        schema: &Value,
        value: &Value,
        field: &str,
        errors: &mut Vec<FieldError>,
    ) {
        let Some(fields) = value.as_object() else {
            return;
        };
        let inner = |name: &str| match field {
            "" => name.to_owned(),
            outer => format!("{outer}.{name}"),
        };
        let required = self.find(schema, "required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                errors.push(FieldError::new(inner(name), "is required"));
            }
        }
        let known = self.find(schema, "properties").and_then(Value::as_object);
        let forbids_others = self.find(schema, "additionalProperties") == Some(&Value::Bool(false));
        for (name, value) in fields {
            match known.and_then(|known| known.get(name)) {
                Some(schema) => self.check(schema, value, &inner(name), errors),
                None if forbids_others => {
                    errors.push(FieldError::new(inner(name), "is not a known field"));
                }
                None => {}
            }
        }
    }

    fn whole(&self, schema: &Value, key: &str) -> Option<u64> {
        self.find(schema, key).and_then(Value::as_u64)
    }

    /// What a schema says under `key`: itself, or what it refers to.
    fn find<'v>(&'v self, schema: &'v Value, key: &str) -> Option<&'v Value> {
        if let Some(found) = schema.get(key) {
            return Some(found);
        }
        let reference = schema["$ref"].as_str();
        let name = reference.and_then(|path| path.strip_prefix("#/components/schemas/"));
        if let Some(found) = name.and_then(|name| self.find(&self.0[name], key)) {
            return Some(found);
        }
        let parts = schema["allOf"].as_array().into_iter().flatten();
        parts.filter_map(|part| self.find(part, key)).next()
    }
}

const DATE: &[time::format_description::BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]");

fn is_of_type(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

/// What the framework's integer formats hold.
fn range(format: &str) -> Option<(f64, f64)> {
    Some(match format {
        "int8" => (i8::MIN.into(), i8::MAX.into()),
        "int16" => (i16::MIN.into(), i16::MAX.into()),
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        "uint8" => (0.0, u8::MAX.into()),
        "uint16" => (0.0, u16::MAX.into()),
        "uint32" => (0.0, u32::MAX.into()),
        "uint64" => (0.0, f64::MAX),
        _ => return None,
    })
}

fn characters(count: u64) -> String {
    match count {
        1 => "1 character".to_owned(),
        count => format!("{count} characters"),
    }
}

fn entries(count: u64) -> String {
    match count {
        1 => "1 entry".to_owned(),
        count => format!("{count} entries"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_difference_is_named_with_its_place() {
        let schemas = json!({
            "Person": {
                "type": "object",
                "required": ["name", "born"],
                "properties": {
                    "name": {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^[a-z]*$"},
                    "born": {"type": "string", "format": "date"},
                    "role": {"allOf": [{"$ref": "#/components/schemas/Role"}, {"nullable": true}]},
                    "skills": {"type": "array", "maxItems": 4, "items": {"type": "string", "format": "uuid"}},
                    "age": {"type": "integer", "format": "uint8", "minimum": 18.0},
                    "home": {"type": "object", "required": ["city"]},
                },
                "additionalProperties": false,
            },
            "Role": {"type": "string", "enum": ["student", "admin"]},
        });
        let wrong = |body: Value| {
            let mut errors = Vec::new();
            let schema = json!({"$ref": "#/components/schemas/Person"});
            Schemas(&schemas).check(&schema, &body, "", &mut errors);
            let texts = errors.into_iter();
            texts
                .map(|error| format!("{} {}", error.field, error.detail))
                .collect::<Vec<_>>()
        };
        let right =
            json!({"name": "abc", "born": "2001-02-03", "role": null, "age": 18, "skills": []});
        assert_eq!(wrong(right), [""; 0]);
        assert_eq!(wrong(json!([])), [" must be an object"]);
        assert_eq!(wrong(json!({"name": "a"})), ["born is required"]);
        let all_wrong = json!({
            "name": "Abcd", "born": "2001-02-30", "role": "root", "skills": [Uuid::nil(), "x", 5],
            "age": 300, "home": {}, "extra": 1,
        });
        assert_eq!(
            wrong(all_wrong),
            [
                "name must have at most 3 characters",
                "name must match the pattern ^[a-z]*$",
                "born must be a date such as 2026-01-31",
                "role must be one of \"student\", \"admin\"",
                "skills[1] must be a UUID",
                "skills[2] must be a string",
                "age must be at most 255",
                "home.city is required",
                "extra is not a known field",
            ]
        );
        let other = json!({"name": null, "born": true, "age": 1.5, "skills": 7});
        assert_eq!(
            wrong(other),
            [
                "name must not be null",
                "born must be a string",
                "age must be a whole number",
                "skills must be a list",
            ]
        );
    }
}
