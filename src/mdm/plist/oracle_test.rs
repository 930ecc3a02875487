//! The `plist` crate as a second reader: where no key is repeated, both say the same.

use attestd_sim::plist_xml::{self, PlistStyle};
use plist::Value as Theirs;
use proptest::prelude::*;

use super::{Value, read};

fn theirs(ours: &Value<'_>) -> Theirs {
    match ours {
        Value::Dictionary(dictionary) => Theirs::Dictionary(
            dictionary
                .iter()
                .map(|(key, value)| (key.to_owned(), theirs(value)))
                .collect(),
        ),
        Value::Array(items) => Theirs::Array(items.iter().map(theirs).collect()),
        Value::String(text) => Theirs::String(text.to_string()),
        Value::Data(bytes) => Theirs::Data(bytes.clone()),
        Value::Boolean(value) => Theirs::Boolean(*value),
        Value::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
            (Ok(signed), _) => Theirs::Integer(signed.into()),
            (_, Ok(unsigned)) => Theirs::Integer(unsigned.into()),
            _ => Theirs::String(format!("{value} has no place in a property list")),
        },
        Value::Real(value) => Theirs::Real(*value),
        Value::Date(text) => match plist::Date::from_xml_format(text) {
            Ok(date) => Theirs::Date(date),
            Err(error) => Theirs::String(error.to_string()),
        },
    }
}

fn any_value() -> impl Strategy<Value = Theirs> {
    // A text that begins or ends with white space, or has a line end, is where XML readers differ.
    let text = "[!-~\u{e9}\u{4e2d}\u{1f600}]([ -~\u{e9}\u{4e2d}\u{1f600}]{0,12}[!-~])?";
    let leaf = prop_oneof![
        text.prop_map(Theirs::String),
        any::<bool>().prop_map(Theirs::Boolean),
        any::<i64>().prop_map(|number| Theirs::Integer(number.into())),
        any::<u64>().prop_map(|number| Theirs::Integer(number.into())),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(Theirs::Data),
        (-1e9..1e9).prop_map(Theirs::Real),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Theirs::Array),
            proptest::collection::btree_map(text, inner, 0..6)
                .prop_map(|entries| Theirs::Dictionary(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn both_readers_agree_on_what_is_well_formed(tree in any_value()) {
        for style in [
            PlistStyle::CoreFoundation,
            PlistStyle::Minified,
            PlistStyle::OddWhitespace,
            PlistStyle::Binary,
        ] {
            let bytes = plist_xml::write(&tree, style).expect("written");
            let ours = read(&bytes);
            prop_assert_eq!(ours.as_ref().map(theirs), Ok(tree.clone()), "{:?}", style);
        }
    }
}

#[test]
fn both_readers_agree_on_what_macs_send() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mdm");
    let mut compared = 0;
    for entry in std::fs::read_dir(folder).expect("fixtures") {
        let path = entry.expect("a file").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "plist")
        {
            let bytes = std::fs::read(&path).expect("a file");
            let expected: Theirs = plist::from_bytes(&bytes).expect("well formed");
            assert_eq!(read(&bytes).as_ref().map(theirs), Ok(expected), "{path:?}");
            compared += 1;
        }
    }
    assert!(compared > 40, "{compared} files");
}
