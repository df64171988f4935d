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
        (Value::String(old), Value::String(new)) if old != new => {
            let same = old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count();
            found.push(format!("{path}: {} → {}", around(old, same), around(new, same)));
        }
        _ if before != after => found.push(format!("{path}: {} → {}", show(before), show(after))),
        _ => {}
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => around(text, 0),
        other => other.to_string(),
    }
}

/// Text that is too long to show is cut to what stands around the first difference.
fn around(text: &str, difference: usize) -> String {
    const BEFORE: usize = 20;
    const SHOWN: usize = 60;
    let length = text.chars().count();
    if length <= SHOWN {
        return format!("{text:?}");
    }
    let start = difference.saturating_sub(BEFORE).min(length - SHOWN);
    let part: String = text.chars().skip(start).take(SHOWN).collect();
    let (head, tail) = (if start > 0 { "…" } else { "" }, if start + SHOWN < length { "…" } else { "" });
    format!("{head}{part:?}{tail}")
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

    #[test]
    fn cuts_long_text_to_where_it_differs() {
        let (before, after) = (format!("{}x{}", "a".repeat(100), "b".repeat(100)), "a".repeat(201));
        let shown = format!("text: …\"{}x{}\"… → …\"{}\"…", "a".repeat(20), "b".repeat(39), "a".repeat(60));
        assert_eq!(differences(&json!({"text": before}), &json!({"text": after})), vec![shown]);
    }
}
