//! Property lists from hostile hosts: bounded, strict, with no second opinion about what was said.
//!
//! XML and binary are both read (Apple documents XML; binary occurs). Duplicate keys, text outside
//! elements, unknown elements, undefined entities, internal DTD subsets and trailing content are
//! refused; nesting and the number of values are bounded before anything is built. The tree borrows
//! from the input where it can.

mod binary;
#[cfg(test)]
mod oracle_test;
mod write;
mod xml;

use std::borrow::Cow;
use std::collections::HashSet;

pub use self::write::to_xml;

/// Largest body that is looked at. The largest honest message, an attestation reply, is 13 KB.
pub const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Deepest nesting that is followed. Apple's messages nest four levels.
pub const MAX_DEPTH: usize = 32;
/// Most values in one document.
pub const MAX_VALUES: usize = 50_000;

/// One value. Dates stay text: nothing here computes with them.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    Dictionary(Dictionary<'a>),
    Array(Vec<Value<'a>>),
    String(Cow<'a, str>),
    Data(Vec<u8>),
    Boolean(bool),
    Integer(i128),
    Real(f64),
    Date(Cow<'a, str>),
}

/// Keys and values in document order; every key once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dictionary<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

/// Why a body is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("neither an XML nor a binary property list")]
    NotAPropertyList,
    /// Apple's devices write UTF-8 only.
    #[error("XML in another encoding than UTF-8")]
    Encoding,
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("more than {MAX_VALUES} values")]
    TooMany,
    #[error("a dictionary names the same key twice")]
    DuplicateKey,
    #[error("ends before it is complete, or goes on after its end")]
    Broken,
    #[error("a value does not have the form its type demands")]
    BadValue,
}

/// Reads one property list.
pub fn read(bytes: &[u8]) -> Result<Value<'_>, Malformed> {
    if bytes.len() > MAX_BYTES {
        Err(Malformed::TooLarge)
    } else if bytes.starts_with(b"bplist") {
        binary::read(bytes)
    } else {
        xml::read(bytes)
    }
}

/// Reads one property list whose top is a dictionary, as every MDM message's is.
pub fn read_dictionary(bytes: &[u8]) -> Result<Dictionary<'_>, Malformed> {
    match read(bytes)? {
        Value::Dictionary(dictionary) => Ok(dictionary),
        _ => Err(Malformed::BadValue),
    }
}

/// Whether the bytes claim to be a property list at all, whatever is wrong inside.
pub fn claims_to_be_one(bytes: &[u8]) -> bool {
    bytes.starts_with(b"bplist00") || xml::claims_to_be_one(bytes)
}

impl<'a> Dictionary<'a> {
    fn from_pairs(pairs: Vec<(Cow<'a, str>, Value<'a>)>) -> Result<Self, Malformed> {
        let repeats = if pairs.len() <= 16 {
            pairs
                .iter()
                .enumerate()
                .any(|(i, (key, _))| pairs[..i].iter().any(|(k, _)| k == key))
        } else {
            let mut seen = HashSet::with_capacity(pairs.len());
            !pairs.iter().all(|(key, _)| seen.insert(key.as_ref()))
        };
        if repeats {
            Err(Malformed::DuplicateKey)
        } else {
            Ok(Self(pairs))
        }
    }

    /// The value of `key`.
    pub fn value(&self, key: &str) -> Option<&Value<'a>> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// Whether `key` is present, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// The string at `key`; `None` when absent, an error when it is something else.
    pub fn string(&self, key: &str) -> Result<Option<&str>, Malformed> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Malformed::BadValue),
        }
    }

    /// The boolean at `key`; `None` when absent, an error when it is something else.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, Malformed> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(*value)),
            Some(_) => Err(Malformed::BadValue),
        }
    }

    /// The data at `key`; `None` when absent, an error when it is something else.
    pub fn data(&self, key: &str) -> Result<Option<&[u8]>, Malformed> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Data(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(Malformed::BadValue),
        }
    }

    /// The dictionary at `key`; `None` when absent, an error when it is something else.
    pub fn dictionary(&self, key: &str) -> Result<Option<&Dictionary<'a>>, Malformed> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Dictionary(inner)) => Ok(Some(inner)),
            Some(_) => Err(Malformed::BadValue),
        }
    }

    /// The array at `key`; `None` when absent, an error when it is something else.
    pub fn array(&self, key: &str) -> Result<Option<&[Value<'a>]>, Malformed> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(Malformed::BadValue),
        }
    }

    /// Keys and values in document order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// Sets `key`, replacing what it had.
    pub fn set(&mut self, key: &'a str, value: Value<'a>) {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((Cow::Borrowed(key), value)),
        }
    }

    /// The value of `key`, to change it in place.
    pub fn value_mut(&mut self, key: &str) -> Option<&mut Value<'a>> {
        self.0
            .iter_mut()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// Keeps the entries that `keep` accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value<'a>) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }
}

/// Collects nested values without recursion, so that no depth can exhaust the stack.
#[derive(Default)]
struct Builder<'a> {
    open: Vec<Container<'a>>,
    root: Option<Value<'a>>,
    values: usize,
}

enum Container<'a> {
    Dictionary {
        pairs: Vec<(Cow<'a, str>, Value<'a>)>,
        key: Option<Cow<'a, str>>,
    },
    Array(Vec<Value<'a>>),
}

impl<'a> Builder<'a> {
    fn count(&mut self) -> Result<(), Malformed> {
        self.values += 1;
        if self.values > MAX_VALUES {
            Err(Malformed::TooMany)
        } else {
            Ok(())
        }
    }

    fn open(&mut self, container: Container<'a>) -> Result<(), Malformed> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Malformed::TooDeep);
        }
        self.count()?;
        self.open.push(container);
        Ok(())
    }

    fn open_dictionary(&mut self) -> Result<(), Malformed> {
        self.open(Container::Dictionary {
            pairs: Vec::new(),
            key: None,
        })
    }

    fn open_array(&mut self) -> Result<(), Malformed> {
        self.open(Container::Array(Vec::new()))
    }

    fn close_dictionary(&mut self) -> Result<(), Malformed> {
        match self.open.pop() {
            Some(Container::Dictionary { pairs, key: None }) => {
                let dictionary = Dictionary::from_pairs(pairs)?;
                self.place(Value::Dictionary(dictionary))
            }
            _ => Err(Malformed::Broken),
        }
    }

    fn close_array(&mut self) -> Result<(), Malformed> {
        match self.open.pop() {
            Some(Container::Array(items)) => self.place(Value::Array(items)),
            _ => Err(Malformed::Broken),
        }
    }

    fn key(&mut self, name: Cow<'a, str>) -> Result<(), Malformed> {
        self.count()?;
        match self.open.last_mut() {
            Some(Container::Dictionary {
                key: key @ None, ..
            }) => {
                *key = Some(name);
                Ok(())
            }
            _ => Err(Malformed::Broken),
        }
    }

    fn scalar(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        self.count()?;
        self.place(value)
    }

    fn place(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        match self.open.last_mut() {
            Some(Container::Array(items)) => items.push(value),
            Some(Container::Dictionary { pairs, key }) => {
                let name = key.take().ok_or(Malformed::Broken)?;
                pairs.push((name, value));
            }
            None if self.root.is_none() => self.root = Some(value),
            None => return Err(Malformed::Broken),
        }
        Ok(())
    }

    fn finish(self) -> Result<Value<'a>, Malformed> {
        if self.open.is_empty() {
            self.root.ok_or(Malformed::Broken)
        } else {
            Err(Malformed::Broken)
        }
    }
}

/// What CoreFoundation's numbers hold: signed and unsigned 64-bit values. A list that says more
/// would be read differently by every reader.
fn in_range(value: i128) -> Result<i128, Malformed> {
    (i128::from(i64::MIN)..=i128::from(u64::MAX))
        .contains(&value)
        .then_some(value)
        .ok_or(Malformed::BadValue)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn xml(inner: &str) -> Vec<u8> {
        format!("<?xml version=\"1.0\"?>\n<plist version=\"1.0\">{inner}</plist>\n").into_bytes()
    }

    fn refusal(inner: &str) -> Malformed {
        read(&xml(inner)).expect_err(inner)
    }

    #[test]
    fn reads_every_type_in_xml() {
        let bytes = xml(
            "<dict><key>s</key><string>a&amp;b &#x41;<![CDATA[<x>]]></string><key>d</key>\n<data>\n\tYXBw\n\tbGU=\n</data>\
             <key>t</key><true /><key>f</key><false></false><key>i</key><integer>-7</integer>\
             <key>h</key><integer>0x1F</integer><key>a</key><array/><key>e</key><string/></dict>",
        );
        let top = read_dictionary(&bytes).expect("well formed");
        assert_eq!(top.string("s"), Ok(Some("a&b A<x>")));
        assert_eq!(top.data("d"), Ok(Some(&b"apple"[..])));
        assert_eq!(top.boolean("t"), Ok(Some(true)));
        assert_eq!(top.boolean("f"), Ok(Some(false)));
        assert_eq!(top.value("i"), Some(&Value::Integer(-7)));
        assert_eq!(top.value("h"), Some(&Value::Integer(31)));
        assert_eq!(top.array("a"), Ok(Some(&[][..])));
        assert_eq!(top.string("e"), Ok(Some("")));
        assert_eq!(top.string("absent"), Ok(None));
        assert_eq!(top.string("t"), Err(Malformed::BadValue));
    }

    #[test]
    fn a_key_in_a_comment_or_a_string_is_no_key() {
        let bytes = xml(
            "<dict><!-- <key>k</key><true/> --><key>n</key><string>&lt;key&gt;k</string></dict>",
        );
        assert!(!read_dictionary(&bytes).expect("well formed").has("k"));
    }

    #[test]
    fn refuses_what_two_readers_could_read_differently() {
        let cases = [
            (
                "<dict><key>k</key><true/><key>k</key><false/></dict>",
                Malformed::DuplicateKey,
            ),
            ("<dict><key>k</key></dict>", Malformed::Broken),
            ("<dict><true/></dict>", Malformed::Broken),
            (
                "<dict><key>a</key><key>b</key><true/></dict>",
                Malformed::Broken,
            ),
            ("<dict>stray</dict>", Malformed::Broken),
            ("<dict/><dict/>", Malformed::Broken),
            ("", Malformed::Broken),
            (
                "<dict><key>k</key><string>&unknown;</string></dict>",
                Malformed::BadValue,
            ),
            (
                "<dict><key>k</key><integer>--1</integer></dict>",
                Malformed::BadValue,
            ),
            (
                "<dict><key>k</key><integer>-+1</integer></dict>",
                Malformed::BadValue,
            ),
            (
                "<dict><key>k</key><data>!!</data></dict>",
                Malformed::BadValue,
            ),
            (
                "<dict><key>k</key><true>x</true></dict>",
                Malformed::BadValue,
            ),
            ("<dict><key>k</key><uid>1</uid></dict>", Malformed::Broken),
            (
                "<dict><key>k</key><string><b/></string></dict>",
                Malformed::Broken,
            ),
            ("</plist><dict/><plist>", Malformed::Broken),
        ];
        for (inner, expected) in cases {
            assert_eq!(refusal(inner), expected, "{inner}");
        }
        let many: String = (0..40)
            .map(|i| format!("<key>k{}</key><true/>", i % 39))
            .collect();
        assert_eq!(
            refusal(&format!("<dict>{many}</dict>")),
            Malformed::DuplicateKey
        );
    }

    #[test]
    fn an_internal_subset_is_refused() {
        let bytes =
            b"<?xml version=\"1.0\"?><!DOCTYPE plist [<!ENTITY a \"b\">]><plist><dict/></plist>";
        assert_eq!(read(bytes), Err(Malformed::Broken));
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep = |n: usize| "<array>".repeat(n) + &"</array>".repeat(n);
        assert!(read(&xml(&deep(MAX_DEPTH))).is_ok());
        assert_eq!(refusal(&deep(MAX_DEPTH + 1)), Malformed::TooDeep);
        assert_eq!(refusal(&deep(100_000)), Malformed::TooDeep);
        let many = format!("<array>{}</array>", "<true/>".repeat(MAX_VALUES + 1));
        assert_eq!(refusal(&many), Malformed::TooMany);
        assert_eq!(read(&vec![b' '; MAX_BYTES + 1]), Err(Malformed::TooLarge));
    }

    #[test]
    fn what_is_no_property_list_says_so() {
        for bytes in [&b""[..], b"{}", b"<html/>", b"\xff\xfe<", b"plain"] {
            assert_eq!(read(bytes), Err(Malformed::NotAPropertyList));
            assert!(!claims_to_be_one(bytes));
        }
        assert!(claims_to_be_one(&xml("<dict>")));
    }

    #[test]
    fn another_encoding_is_told_from_another_format() {
        let text = "\u{feff}<?xml version=\"1.0\"?><plist><dict/></plist>";
        for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
            let bytes: Vec<u8> = text.encode_utf16().flat_map(bytes).collect();
            assert!(claims_to_be_one(&bytes));
            assert_eq!(read(&bytes), Err(Malformed::Encoding));
        }
        let mut latin = xml("<string>\u{e9}</string>");
        latin.retain(|octet| *octet != 0xc3);
        assert_eq!(read(&latin), Err(Malformed::Encoding));
        assert!(read(text.as_bytes()).is_ok());
        let comment = format!("<!--{}--><plist><dict/></plist>", "x".repeat(9_000));
        assert!(read(comment.as_bytes()).is_ok());
    }

    #[test]
    fn binary_says_the_same_as_xml() {
        let mut inner = plist::Dictionary::new();
        inner.insert("SIP".into(), true.into());
        let mut top = plist::Dictionary::new();
        top.insert("Status".into(), "Idle".into());
        top.insert("SecurityInfo".into(), plist::Value::Dictionary(inner));
        top.insert("Token".into(), plist::Value::Data(vec![1, 2]));
        top.insert(
            "List".into(),
            plist::Value::Array(vec![1.into(), "a".into()]),
        );
        let mut bytes = Vec::new();
        plist::Value::Dictionary(top)
            .to_writer_binary(&mut bytes)
            .expect("written");
        let read = read_dictionary(&bytes).expect("well formed");
        assert_eq!(read.string("Status"), Ok(Some("Idle")));
        assert_eq!(read.data("Token"), Ok(Some(&[1, 2][..])));
        let inner = read
            .dictionary("SecurityInfo")
            .expect("typed")
            .expect("present");
        assert_eq!(inner.boolean("SIP"), Ok(Some(true)));
        assert!(claims_to_be_one(&bytes));
    }

    #[test]
    fn a_duplicate_key_in_binary_is_refused() {
        // bplist00, dictionary of two pairs whose keys are the same object "k", value true.
        let mut bytes = b"bplist00".to_vec();
        bytes.extend([0xd2, 1, 1, 2, 2, 0x51, b'k', 0x09]);
        bytes.extend([8, 13, 15]);
        bytes.extend([0, 0, 0, 0, 0, 0, 1, 1]);
        bytes.extend(3_u64.to_be_bytes());
        bytes.extend(0_u64.to_be_bytes());
        bytes.extend(16_u64.to_be_bytes());
        assert_eq!(read(&bytes), Err(Malformed::DuplicateKey));
    }

    /// A binary list with one pair: "n", and this object.
    fn binary_with(object: &[u8]) -> Vec<u8> {
        let mut bytes = b"bplist00".to_vec();
        bytes.extend([0xd1, 1, 2, 0x51, b'n']);
        bytes.extend(object);
        let table = u64::try_from(bytes.len()).expect("short");
        bytes.extend([8, 11, 13]);
        bytes.extend([0, 0, 0, 0, 0, 0, 1, 1]);
        bytes.extend(3_u64.to_be_bytes());
        bytes.extend(0_u64.to_be_bytes());
        bytes.extend(table.to_be_bytes());
        bytes
    }

    #[test]
    fn both_forms_hold_the_same_integers() {
        let sixteen = |value: i128| binary_with(&[&[0x14][..], &value.to_be_bytes()].concat());
        let (least, most) = (i128::from(i64::MIN), i128::from(u64::MAX));
        for value in [least, -1, 0, most] {
            assert_eq!(read(&sixteen(value)).err(), None, "{value}");
            let written = xml(&format!(
                "<dict><key>n</key><integer>{value}</integer></dict>"
            ));
            let (one, other) = (sixteen(value), written);
            let of = |bytes: &[u8]| read_dictionary(bytes).map(|top| format!("{top:?}"));
            assert_eq!(of(&one), of(&other), "{value}");
        }
        for value in [least - 1, most + 1, i128::MAX, i128::MIN] {
            assert_eq!(read(&sixteen(value)), Err(Malformed::BadValue), "{value}");
            let written = xml(&format!(
                "<dict><key>n</key><integer>{value}</integer></dict>"
            ));
            assert_eq!(read(&written), Err(Malformed::BadValue), "{value}");
        }
    }

    #[test]
    fn text_is_written_so_that_every_character_reads_back() {
        let mut text = vec![0x5f, 0x10, 7];
        text.extend(b"a\x0b\r\n\t<b");
        let bytes = binary_with(&text);
        let top = read_dictionary(&bytes).expect("well formed");
        let written = to_xml(&top);
        assert_eq!(read_dictionary(&written), Ok(top));
        assert!(String::from_utf8_lossy(&written).contains("&#13;\n"));
    }

    #[test]
    fn writes_what_it_reads() {
        let bytes = xml(
            "<dict><key>a&lt;</key><array><string>x</string><data>AAEC</data></array><key>n</key><integer>5</integer></dict>",
        );
        let top = read_dictionary(&bytes).expect("well formed");
        let written = to_xml(&top);
        assert_eq!(read_dictionary(&written), Ok(top));
        let text = String::from_utf8(written).expect("text");
        assert!(text.contains("\n\t<key>a&lt;</key>\n\t<array>\n\t\t<string>x</string>\n"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
            let mut framed = b"bplist00".to_vec();
            framed.extend(&bytes);
            let _ = read(&framed);
            let _ = read(&xml(&String::from_utf8_lossy(&bytes)));
        }
    }
}
