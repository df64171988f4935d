//! What differs between two definitions, field by field, for people who want to see it before they apply it.

use serde::Serialize;
use serde_json::Value;

/// Each field that differs with both values: `task.cpus: 0.1 → 0.2`.
pub(super) fn differences<T: Serialize>(before: &T, after: &T) -> Vec<String> {
    let value = |of: &T| serde_json::to_value(of).unwrap_or(Value::Null);
    let mut found = Vec::new();
    compare("", &value(before), &value(after), &mut found);
    found
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let side =
                    |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                compare(&inner, &side(old), &side(new), found);
            }
        }
        _ if before != after => found.push(format!("{path}: {} → {}", show(before), show(after))),
        _ => {}
    }
}

fn show(value: &Value) -> String {
    if value.is_null() { "none".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_each_field_with_both_values() {
        let before = json!({"task": {"cpus": 0.1, "env": {"A": "1"}}, "instances": 3});
        let after = json!({"task": {"cpus": 0.2, "env": {"A": "1", "B": "2"}}, "instances": 3});
        let expected = vec!["task.cpus: 0.1 → 0.2".to_owned(), "task.env.B: none → \"2\"".to_owned()];
        assert_eq!(differences(&before, &after), expected);
    }
}
