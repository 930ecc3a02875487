//! The status of a provider, and the one form of it that is signed.
//!
//! Provider and verifier write the same JSON text from the same values, so every choice that JSON
//! leaves open is fixed here: members sorted by their UTF-8 bytes at every level (Foundation's
//! `sortedKeys` compares otherwise), no white space, absent or empty members left out, and an
//! explicit `false` kept, because "not said" must not look like "off".

use std::collections::BTreeMap;

use super::members::{Malformed, Members};

/// What a provider says of itself in answer to a challenge. An empty text and an absent one are the
/// same, and so are an empty and an absent object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The challenge's nonce, as text.
    pub nonce: String,
    /// The challenge's timestamp, as text.
    pub timestamp: String,
    pub hypervisor_active: Option<bool>,
    pub rdma_disabled: Option<bool>,
    pub secure_boot_enabled: Option<bool>,
    pub sip_enabled: Option<bool>,
    /// Hashes are what the provider wrote; who judges them reads them.
    pub active_model_hash: Option<String>,
    pub binary_hash: Option<String>,
    pub grpc_binary_hash: Option<String>,
    pub image_bridge_hash: Option<String>,
    pub python_hash: Option<String>,
    pub runtime_hash: Option<String>,
    /// By the model's id.
    pub model_hashes: BTreeMap<String, String>,
    /// By the template's name.
    pub template_hashes: BTreeMap<String, String>,
}

/// The members of a status besides nonce and timestamp.
pub(super) const MEMBERS: [&str; 12] = [
    "active_model_hash",
    "binary_hash",
    "grpc_binary_hash",
    "hypervisor_active",
    "image_bridge_hash",
    "model_hashes",
    "python_hash",
    "rdma_disabled",
    "runtime_hash",
    "secure_boot_enabled",
    "sip_enabled",
    "template_hashes",
];

const KNOWN: &[&str] = &{
    let mut known = ["nonce"; 14];
    let mut at = 0;
    while at < MEMBERS.len() {
        known[at] = MEMBERS[at];
        at += 1;
    }
    known[13] = "timestamp";
    known
};

impl Status {
    /// Reads a status by itself: an object with `nonce`, `timestamp`, and whatever else is said.
    /// Members nobody knows are no part of a status.
    pub fn read(bytes: &[u8], most: usize) -> Result<Self, Malformed> {
        let mut members = Members::read(bytes, most, KNOWN)?;
        let nonce = members.text("nonce")?;
        let timestamp = members.text("timestamp")?;
        Self::take(&mut members, nonce, timestamp)
    }

    /// What `members` say, in answer to this nonce and timestamp.
    pub(super) fn take(
        members: &mut Members,
        nonce: String,
        timestamp: String,
    ) -> Result<Self, Malformed> {
        let mut hash = |name| -> Result<_, Malformed> {
            Ok(members.optional_text(name)?.filter(|text| !text.is_empty()))
        };
        Ok(Self {
            nonce,
            timestamp,
            active_model_hash: hash("active_model_hash")?,
            binary_hash: hash("binary_hash")?,
            grpc_binary_hash: hash("grpc_binary_hash")?,
            image_bridge_hash: hash("image_bridge_hash")?,
            python_hash: hash("python_hash")?,
            runtime_hash: hash("runtime_hash")?,
            hypervisor_active: members.optional_flag("hypervisor_active")?,
            rdma_disabled: members.optional_flag("rdma_disabled")?,
            secure_boot_enabled: members.optional_flag("secure_boot_enabled")?,
            sip_enabled: members.optional_flag("sip_enabled")?,
            model_hashes: members.texts("model_hashes")?,
            template_hashes: members.texts("template_hashes")?,
        })
    }

    /// The text that is signed, as UTF-8.
    pub fn canonical(&self) -> String {
        let mut object = Object::default();
        // In the order of their bytes.
        object.text("active_model_hash", self.active_model_hash.as_deref());
        object.text("binary_hash", self.binary_hash.as_deref());
        object.text("grpc_binary_hash", self.grpc_binary_hash.as_deref());
        object.flag("hypervisor_active", self.hypervisor_active);
        object.text("image_bridge_hash", self.image_bridge_hash.as_deref());
        object.texts("model_hashes", &self.model_hashes);
        object.always("nonce", &self.nonce);
        object.text("python_hash", self.python_hash.as_deref());
        object.flag("rdma_disabled", self.rdma_disabled);
        object.text("runtime_hash", self.runtime_hash.as_deref());
        object.flag("secure_boot_enabled", self.secure_boot_enabled);
        object.flag("sip_enabled", self.sip_enabled);
        object.texts("template_hashes", &self.template_hashes);
        object.always("timestamp", &self.timestamp);
        object.finish()
    }
}

/// An object that is being written, member after member.
#[derive(Default)]
struct Object(String);

impl Object {
    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        quote(&mut self.0, name);
        self.0.push(':');
    }

    fn always(&mut self, name: &str, text: &str) {
        self.name(name);
        quote(&mut self.0, text);
    }

    fn text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.always(name, text);
        }
    }

    fn flag(&mut self, name: &str, flag: Option<bool>) {
        if let Some(flag) = flag {
            self.name(name);
            self.0.push_str(if flag { "true" } else { "false" });
        }
    }

    /// A map of `String` is in the order of their UTF-8 bytes.
    fn texts(&mut self, name: &str, texts: &BTreeMap<String, String>) {
        if texts.is_empty() {
            return;
        }
        let mut inner = Self::default();
        for (key, text) in texts {
            inner.always(key, text);
        }
        self.name(name);
        self.0.push_str(&inner.finish());
    }

    fn finish(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        self.0
    }
}

/// Writes a text as every writer of this form does: quotation mark, reverse solidus and control
/// characters escaped in their short forms where there are any, U+2028 and U+2029 escaped too (as
/// Go does), and nothing else.
fn quote(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                json.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::super::test_provider::{CHALLENGE, STATUS_VECTORS};
    use super::*;
    use crate::ids::sha256;

    fn read(input: &Value) -> Status {
        Status::read(input.to_string().as_bytes(), 100_000).expect("a status")
    }

    #[test]
    fn every_vector_is_written_byte_for_byte() {
        let file: Value = serde_json::from_str(STATUS_VECTORS).expect("JSON");
        let vectors = file["vectors"].as_array().expect("vectors");
        assert_eq!(vectors.len(), 7);
        for vector in vectors {
            let canonical = read(&vector["input"]).canonical();
            assert_eq!(canonical, vector["canonical"], "{}", vector["name"]);
            let hash = hex::encode(sha256(canonical.as_bytes()));
            assert_eq!(hash, vector["sha256"], "{}", vector["name"]);
        }
    }

    #[test]
    fn the_status_of_a_real_shaped_answer_is_written_byte_for_byte() {
        let exchange: Value = serde_json::from_str(CHALLENGE).expect("JSON");
        let mut status = exchange["response"].clone();
        status["timestamp"] = exchange["request"]["timestamp"].clone();
        assert_eq!(read(&status).canonical(), exchange["status_canonical"]);
    }

    #[test]
    fn empty_is_absent_and_false_is_not() {
        let said = read(&json!({
            "nonce": "n", "timestamp": "t", "binary_hash": "", "model_hashes": {},
            "python_hash": null, "sip_enabled": false, "template_hashes": {"a": ""},
            "something_newer": 7,
        }));
        assert_eq!(
            said.canonical(),
            r#"{"nonce":"n","sip_enabled":false,"template_hashes":{"a":""},"timestamp":"t"}"#
        );
        let empty = Status {
            binary_hash: Some(String::new()),
            ..said.clone()
        };
        assert_eq!(empty.canonical(), said.canonical());
    }

    #[test]
    fn a_status_without_nonce_or_timestamp_is_none() {
        for (input, missing) in [
            (json!({"timestamp": "t"}), "nonce"),
            (json!({"nonce": "", "timestamp": "t"}), "nonce"),
            (json!({"nonce": "n"}), "timestamp"),
        ] {
            let refused = Status::read(input.to_string().as_bytes(), 1000).err();
            assert_eq!(refused, Some(Malformed::Missing(missing)));
        }
        let respelled = br#"{"nonce": "n", "timestamp": "t", "SIP_enabled": true}"#;
        assert_eq!(
            Status::read(respelled, 1000).err(),
            Some(Malformed::Respelled("sip_enabled"))
        );
    }

    fn any_text() -> impl Strategy<Value = String> {
        let special = "\"\\/<>&\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}\u{2028}\u{2029}é漢😀azAZ";
        let special: Vec<char> = special.chars().collect();
        proptest::collection::vec(
            prop_oneof![proptest::sample::select(special), any::<char>()],
            0..6,
        )
        .prop_map(String::from_iter)
    }

    fn any_status() -> impl Strategy<Value = Status> {
        let flag = || proptest::option::of(any::<bool>());
        let hash = || proptest::option::of(any_text().prop_filter("absent", |t| !t.is_empty()));
        let map = || proptest::collection::btree_map(any_text(), any_text(), 0..4);
        (
            (any_text(), any_text()),
            (flag(), flag(), flag(), flag()),
            (hash(), hash(), hash(), hash(), hash(), hash()),
            (map(), map()),
        )
            .prop_map(|((nonce, timestamp), flags, hashes, maps)| Status {
                nonce,
                timestamp,
                hypervisor_active: flags.0,
                rdma_disabled: flags.1,
                secure_boot_enabled: flags.2,
                sip_enabled: flags.3,
                active_model_hash: hashes.0,
                binary_hash: hashes.1,
                grpc_binary_hash: hashes.2,
                image_bridge_hash: hashes.3,
                python_hash: hashes.4,
                runtime_hash: hashes.5,
                model_hashes: maps.0,
                template_hashes: maps.1,
            })
    }

    proptest! {
        /// Whoever signs a text has said exactly one thing.
        #[test]
        fn what_is_written_reads_back_as_what_was_said(status in any_status()) {
            let canonical = status.canonical();
            let mut members =
                Members::read(canonical.as_bytes(), 100_000, KNOWN).expect("strict JSON");
            // Either may be empty in a value, although no challenge has it so.
            let nonce = members.optional_text("nonce").expect("text").expect("always there");
            let timestamp = members.optional_text("timestamp").expect("text").expect("there");
            let back = Status::take(&mut members, nonce, timestamp).expect("a status");
            prop_assert_eq!(&back, &status);
            prop_assert_eq!(back.canonical(), canonical);
        }

        #[test]
        fn it_is_sorted_at_every_level_and_has_no_spare_byte(status in any_status()) {
            let canonical = status.canonical();
            let object: Map<String, Value> = serde_json::from_str(&canonical).expect("JSON");
            let mut objects = vec![object.clone()];
            objects.extend(object.values().filter_map(|value| value.as_object().cloned()));
            for object in objects {
                prop_assert!(object.keys().is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
            }
            let written = serde_json::to_string(&object).expect("JSON");
            let written = written.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
            prop_assert_eq!(canonical, written);
        }
    }
}
