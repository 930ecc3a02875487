//! Writing the XML form as CoreFoundation does: tabs, LF, base64 in lines. Old readers of these
//! bytes search them by indentation (peers' parsers), so the layout is part of the contract.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Dictionary, Value};

const HEADER: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
<plist version=\"1.0\">\n";

/// One document whose top is `dictionary`, keys in the order given.
pub fn to_xml(dictionary: &Dictionary<'_>) -> Vec<u8> {
    let mut out = String::with_capacity(512);
    out.push_str(HEADER);
    write_dictionary(dictionary, 0, &mut out);
    out.push_str("</plist>\n");
    out.into_bytes()
}

fn write_value(value: &Value<'_>, depth: usize, out: &mut String) {
    match value {
        Value::Dictionary(dictionary) => write_dictionary(dictionary, depth, out),
        Value::Array(items) if items.is_empty() => line(depth, "<array/>", out),
        Value::Array(items) => {
            line(depth, "<array>", out);
            for item in items {
                write_value(item, depth + 1, out);
            }
            line(depth, "</array>", out);
        }
        Value::String(text) => element(depth, "string", text, out),
        Value::Data(bytes) => write_data(bytes, depth, out),
        Value::Boolean(true) => line(depth, "<true/>", out),
        Value::Boolean(false) => line(depth, "<false/>", out),
        Value::Integer(value) => element(depth, "integer", &value.to_string(), out),
        Value::Real(value) => element(depth, "real", &value.to_string(), out),
        Value::Date(text) => element(depth, "date", text, out),
    }
}

fn write_dictionary(dictionary: &Dictionary<'_>, depth: usize, out: &mut String) {
    if dictionary.0.is_empty() {
        return line(depth, "<dict/>", out);
    }
    line(depth, "<dict>", out);
    for (key, value) in &dictionary.0 {
        element(depth + 1, "key", key, out);
        write_value(value, depth + 1, out);
    }
    line(depth, "</dict>", out);
}

fn write_data(bytes: &[u8], depth: usize, out: &mut String) {
    line(depth, "<data>", out);
    // CoreFoundation fills 76 columns, a tab counting as eight.
    let width = 76_usize.saturating_sub(depth * 8).max(4) / 4 * 4;
    let text = STANDARD.encode(bytes);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(rest.len().min(width));
        line(depth, head, out);
        rest = tail;
    }
    line(depth, "</data>", out);
}

fn line(depth: usize, text: &str, out: &mut String) {
    out.extend(std::iter::repeat_n('\t', depth));
    out.push_str(text);
    out.push('\n');
}

fn element(depth: usize, name: &str, text: &str, out: &mut String) {
    out.extend(std::iter::repeat_n('\t', depth));
    out.push('<');
    out.push_str(name);
    out.push('>');
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // XML 1.0 section 2.11: as it is, a reader would take it for an end of line.
            '\r' => out.push_str("&#13;"),
            other => out.push(other),
        }
    }
    out.push_str("</");
    out.push_str(name);
    out.push_str(">\n");
}
