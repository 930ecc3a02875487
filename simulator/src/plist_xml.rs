//! Property lists written the way macOS writes them: CoreFoundation's XML with tabs, sorted keys,
//! `<array/>`, and base64 wrapped at 76 columns less eight for each tab (apple-protocol 12.1).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plist::{Dictionary, Value};

const HEADER: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n";

/// How a Mac writes its messages; servers must read all of them alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlistStyle {
    /// What macOS sends.
    #[default]
    CoreFoundation,
    /// No white space between elements.
    Minified,
    /// Four spaces instead of tabs, CRLF line ends, and `<true />`.
    OddWhitespace,
    /// The binary format (`bplist00`).
    Binary,
}

/// Why a property list could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PlistWriteError {
    /// The value has no XML form, such as a UID or a date CoreFoundation cannot write.
    #[error("this kind of value has no place in a message")]
    Unwritable,
    #[error("the binary form could not be written")]
    Binary(#[from] plist::Error),
}

/// Writes `value` in the given style.
pub fn write(value: &Value, style: PlistStyle) -> Result<Vec<u8>, PlistWriteError> {
    match style {
        PlistStyle::Binary => {
            let mut out = Vec::new();
            value.to_writer_binary(&mut out)?;
            Ok(out)
        }
        PlistStyle::CoreFoundation => Writer::new("\t", "\n", false).document(value),
        PlistStyle::Minified => Writer::new("", "", false).document(value),
        PlistStyle::OddWhitespace => Writer::new("    ", "\r\n", true).document(value),
    }
}

/// Builds a dictionary from pairs; the order does not matter, writing sorts.
pub fn dictionary<const N: usize>(pairs: [(&str, Value); N]) -> Dictionary {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

struct Writer {
    indent: &'static str,
    newline: &'static str,
    spaced: bool,
    out: String,
}

impl Writer {
    fn new(indent: &'static str, newline: &'static str, spaced: bool) -> Self {
        Self {
            indent,
            newline,
            spaced,
            out: String::new(),
        }
    }

    fn document(mut self, value: &Value) -> Result<Vec<u8>, PlistWriteError> {
        self.out.push_str(&HEADER.replace('\n', self.newline));
        self.line(0, "<plist version=\"1.0\">");
        self.value(value, 0)?;
        self.line(0, "</plist>");
        Ok(self.out.into_bytes())
    }

    fn line(&mut self, depth: usize, text: &str) {
        self.out.push_str(&self.indent.repeat(depth));
        self.out.push_str(text);
        self.out.push_str(self.newline);
    }

    fn empty(&mut self, depth: usize, name: &str) {
        let slash = if self.spaced { " />" } else { "/>" };
        self.line(depth, &format!("<{name}{slash}"));
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), PlistWriteError> {
        match value {
            Value::Array(items) if items.is_empty() => self.empty(depth, "array"),
            Value::Array(items) => {
                self.line(depth, "<array>");
                for item in items {
                    self.value(item, depth + 1)?;
                }
                self.line(depth, "</array>");
            }
            Value::Dictionary(entries) if entries.is_empty() => self.empty(depth, "dict"),
            Value::Dictionary(entries) => {
                self.line(depth, "<dict>");
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by(|one, other| one.0.cmp(other.0));
                for (key, item) in sorted {
                    self.line(depth + 1, &format!("<key>{}</key>", escaped(key)));
                    self.value(item, depth + 1)?;
                }
                self.line(depth, "</dict>");
            }
            Value::Boolean(true) => self.empty(depth, "true"),
            Value::Boolean(false) => self.empty(depth, "false"),
            Value::String(text) => self.line(depth, &format!("<string>{}</string>", escaped(text))),
            Value::Integer(number) => self.line(depth, &format!("<integer>{number}</integer>")),
            Value::Real(number) => self.line(depth, &format!("<real>{number}</real>")),
            Value::Date(date) => {
                self.line(depth, &format!("<date>{}</date>", date.to_xml_format()))
            }
            Value::Data(bytes) => self.data(bytes, depth),
            _ => return Err(PlistWriteError::Unwritable),
        }
        Ok(())
    }

    /// CoreFoundation puts the base64 on lines of its own, as deep as the `<data>` tag.
    fn data(&mut self, bytes: &[u8], depth: usize) {
        let text = STANDARD.encode(bytes);
        self.line(depth, "<data>");
        let width = 76usize.saturating_sub(8 * depth).max(16);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(width.min(rest.len()));
            self.line(depth, line);
            rest = after;
        }
        self.line(depth, "</data>");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap() -> Value {
        Value::Dictionary(dictionary([
            ("MessageType", "Set <&> Token".into()),
            ("BootstrapToken", Value::Data(vec![7; 60])),
            ("AwaitingConfiguration", false.into()),
            ("Empty", Value::Array(vec![])),
        ]))
    }

    #[test]
    fn the_default_form_is_core_foundations() {
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
            <plist version=\"1.0\">\n<dict>\n\
            \t<key>AwaitingConfiguration</key>\n\t<false/>\n\
            \t<key>BootstrapToken</key>\n\t<data>\n\
            \tBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH\n\
            \tBwcHBwcHBwcH\n\t</data>\n\
            \t<key>Empty</key>\n\t<array/>\n\
            \t<key>MessageType</key>\n\t<string>Set &lt;&amp;&gt; Token</string>\n\
            </dict>\n</plist>\n";
        let written = write(&bootstrap(), PlistStyle::CoreFoundation).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn every_style_reads_back_as_the_same_value() {
        for style in [
            PlistStyle::CoreFoundation,
            PlistStyle::Minified,
            PlistStyle::OddWhitespace,
            PlistStyle::Binary,
        ] {
            let written = write(&bootstrap(), style).unwrap();
            let read: Value = plist::from_bytes(&written).unwrap();
            assert_eq!(read, bootstrap(), "{style:?}");
        }
    }
}
