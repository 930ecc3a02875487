use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::pki::Signer as _;
use crate::pki::test_key::TestKey;

const BODY: &[u8] =
    br#"{"id":"chatcmpl-1","choices":[{"message":{"role":"assistant","content":"Hello."}}]}"#;

struct Provider(TestKey);

impl Provider {
    fn new() -> Self {
        Self(TestKey::p256())
    }

    fn key(&self) -> SePublicKey {
        SePublicKey::from_spki(self.0.public_key_spki()).expect("a key")
    }

    fn proof(&self, covered: &[u8]) -> Proof {
        let signature = STANDARD.encode(self.0.sign(covered).expect("signed"));
        Proof::new(Signature::parse(&signature).expect("a signature"), covered)
    }

    fn reply(&self, body: &[u8]) -> TrustHeaders {
        TrustHeaders {
            attested: true,
            level: Level::Hardware,
            key: Some(self.key()),
            proof: Some(self.proof(body)),
            ..TrustHeaders::of_nobody()
        }
    }
}

fn file(headers: &TrustHeaders) -> String {
    let pairs = headers.pairs();
    let lines = pairs
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{}\r\n",
        lines.collect::<String>()
    )
}

fn read(text: &str) -> Result<TrustHeaders, HeadersRefusal> {
    TrustHeaders::read(text.as_bytes())
}

#[test]
fn the_headers_are_those_of_the_public_page() {
    let provider = Provider::new();
    let pairs = provider.reply(BODY).pairs();
    let value = |name: &str| {
        let found = pairs.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    };
    assert_eq!(value("x-provider-attested"), "true");
    assert_eq!(value("x-provider-trust-level"), "hardware");
    assert!(value("x-se-signature").starts_with("ME"));
    let hash = value("x-response-hash")
        .strip_prefix("sha256:")
        .expect("a hash");
    assert_eq!(hash, hex::encode(sha256(BODY)));
    assert!(value("x-se-public-key").starts_with("MFkwEwYHKoZIzj0C"));
    assert_eq!(value("x-attestation-se-public-key"), provider.key().text());
    // What is not so is not said.
    assert_eq!(pairs.len(), 6, "{pairs:?}");
    let nobody = TrustHeaders::of_nobody().pairs();
    assert_eq!(nobody, [("x-provider-attested", "false".to_owned())]);
}

#[test]
fn everything_that_is_written_reads_back() {
    let provider = Provider::new();
    let headers = TrustHeaders {
        level: Level::SelfSigned,
        encrypted: true,
        provider_id: Some("6f0c0f5e-2b5e-8a41-9f1a-000000000001".to_owned()),
        chip: Some("Apple M4 Max".to_owned()),
        model: Some("Mac16,5".to_owned()),
        secure_enclave: Some(false),
        mda_verified: true,
        serial: Some("FXSYNTH0001".to_owned()),
        verification: Some(r#"{"legacy":{"state":"verified"}}"#.to_owned()),
        authorization: Some(Authorization::Legacy),
        ..provider.reply(BODY)
    };
    let pairs = headers.pairs();
    assert_eq!(pairs.len(), name::ALL.len());
    for read in [
        read(&file(&headers)).expect("headers"),
        TrustHeaders::from_pairs(pairs.iter().map(|(name, value)| (*name, value.as_str())))
            .expect("headers"),
    ] {
        assert_eq!(read.pairs(), pairs);
        assert!(read.verify(BODY).is_ok());
    }
    for method in Authorization::ALL {
        let pairs = [
            ("X-Provider-Attested", "false"),
            ("X-Provider-Authorization-Method", method.as_str()),
        ];
        let read = TrustHeaders::from_pairs(pairs).expect("headers");
        assert_eq!(
            (read.authorization, read.level),
            (Some(method), Level::None)
        );
    }
}

#[test]
fn openssl_verifies_the_saved_body() {
    let provider = Provider::new();
    let headers = read(&file(&provider.reply(BODY))).expect("headers");
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    };
    let key = headers.key.as_ref().expect("a key");
    let signature = &headers.proof.as_ref().expect("a proof").signature;
    let key = write("key.der", &key.to_spki());
    let signature = write("body.sig", signature.as_der());
    for (body, verifies) in [(BODY, true), (&BODY[1..], false)] {
        let body = write("body", body);
        let checked = Command::new("openssl")
            .args(["dgst", "-sha256", "-keyform", "DER", "-verify"])
            .args([&key, std::path::Path::new("-signature"), &signature, &body])
            .output()
            .expect("openssl runs");
        assert_eq!(checked.status.success(), verifies, "{checked:?}");
    }
}

#[test]
fn no_changed_byte_of_a_reply_verifies() {
    let provider = Provider::new();
    let good = provider.reply(BODY);
    assert_eq!(good.verify(BODY).expect("verifies").covered, BODY);
    for at in 0..BODY.len() {
        let mut body = BODY.to_vec();
        body[at] ^= 1;
        assert_eq!(good.verify(&body).err(), Some(ReplyRefusal::Hash));
        // Nor with the hash of what it was changed to.
        let mut forged = good.clone();
        forged.proof.as_mut().expect("a proof").hash = sha256(&body);
        assert_eq!(forged.verify(&body).err(), Some(ReplyRefusal::Signature));
    }
    let other = TrustHeaders {
        key: Some(Provider::new().key()),
        ..good.clone()
    };
    assert_eq!(other.verify(BODY).err(), Some(ReplyRefusal::Signature));
    for (headers, missing) in [
        (
            TrustHeaders {
                key: None,
                ..good.clone()
            },
            name::KEY,
        ),
        (
            TrustHeaders {
                proof: None,
                ..good.clone()
            },
            name::SIGNATURE,
        ),
    ] {
        assert_eq!(
            headers.verify(BODY).err(),
            Some(ReplyRefusal::Missing(missing))
        );
        assert_eq!(
            ReplyRefusal::Missing(missing).reason(),
            Reason::FieldMissing
        );
    }
    for refusal in [
        ReplyRefusal::Hash,
        ReplyRefusal::Signature,
        ReplyRefusal::Contradiction,
    ] {
        assert_eq!(refusal.reason(), Reason::SignatureInvalid);
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let provider = Provider::new();
    let headers = TrustHeaders {
        serial: Some("FXSYNTH0001".to_owned()),
        secure_enclave: Some(true),
        ..provider.reply(BODY)
    };
    let good = file(&headers);
    for (name, value) in headers.pairs() {
        for name in [name.to_owned(), name.to_uppercase()] {
            let twice = good.replacen("\r\n\r\n", &format!("\r\n{name}: {value}\r\n\r\n"), 1);
            assert!(
                matches!(read(&twice), Err(HeadersRefusal::Twice(_))),
                "{name}"
            );
        }
        let trailer = format!("{good}{name}: {value}\r\n");
        assert!(
            matches!(read(&trailer), Err(HeadersRefusal::Twice(_))),
            "{name}"
        );
        let empty = good.replacen(&format!("{name}: {value}"), &format!("{name}: "), 1);
        assert!(
            matches!(read(&empty), Err(HeadersRefusal::Form(_))),
            "{name}"
        );
    }
    let others = STANDARD.encode(Provider::new().key().to_spki());
    let hash = hex::encode(sha256(BODY));
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        read(&good.replacen(from, to, 1)).expect_err(to)
    };
    use HeadersRefusal::{Contradiction, Form, Missing, NotAHeader};
    let spki = STANDARD.encode(provider.key().to_spki());
    for (refused, expected, code) in [
        (
            changed("attested: true", "attested: True"),
            Form(name::ATTESTED),
            Reason::AnswerMalformed,
        ),
        (
            changed("attested: true", "attested: 1"),
            Form(name::ATTESTED),
            Reason::AnswerMalformed,
        ),
        (
            changed("x-provider-attested: true\r\n", ""),
            Missing(name::ATTESTED),
            Reason::FieldMissing,
        ),
        (
            changed(": hardware", ": Hardware"),
            Form(name::LEVEL),
            Reason::AnswerMalformed,
        ),
        (
            changed(&hash, &hash.to_uppercase()),
            Form(name::HASH),
            Reason::AnswerMalformed,
        ),
        (
            changed("sha256:", "sha-256:"),
            Form(name::HASH),
            Reason::AnswerMalformed,
        ),
        (
            changed(&hash, &hash[2..]),
            Form(name::HASH),
            Reason::AnswerMalformed,
        ),
        (
            changed("x-se-signature: M", "x-se-signature: N"),
            Form(name::SIGNATURE),
            Reason::AnswerMalformed,
        ),
        (
            changed("x-se-signature:", "x-another:"),
            Missing(name::SIGNATURE),
            Reason::FieldMissing,
        ),
        (
            changed("x-response-hash:", "x-another:"),
            Missing(name::HASH),
            Reason::FieldMissing,
        ),
        (
            changed(&spki, &spki[4..]),
            Form(name::KEY),
            Reason::AnswerMalformed,
        ),
        (
            changed(&spki, &others),
            Contradiction(name::KEY, name::KEY_AS_GIVEN),
            Reason::KeyMismatch,
        ),
        (
            changed("x-provider-serial: FX", "x-provider-serial: FY"),
            Contradiction(name::SERIAL, name::DEVICE_SERIAL),
            Reason::EvidenceConflict,
        ),
        (
            changed("enclave: true", "enclave: yes"),
            Form(name::SECURE_ENCLAVE),
            Reason::AnswerMalformed,
        ),
        // An obsolete fold, and a name that is none.
        (
            changed(": hardware", ": \r\n hardware"),
            Form(name::LEVEL),
            Reason::AnswerMalformed,
        ),
        (
            changed("content-type: ", " content-type: "),
            NotAHeader(2),
            Reason::AnswerMalformed,
        ),
        (
            changed("content-type: ", "content-type "),
            NotAHeader(2),
            Reason::AnswerMalformed,
        ),
    ] {
        assert_eq!((refused, refused.reason()), (expected, code));
    }
    assert_eq!(TrustHeaders::read(b"x: \xff").err(), Some(NotAHeader(1)));
    let long = vec![b'\n'; MAX_HEADERS + 1];
    let refused = TrustHeaders::read(&long).expect_err("too long");
    assert_eq!(refused.reason(), Reason::RequestTooLarge);
}

#[test]
fn what_curl_saves_is_read_from_its_last_reply_on() {
    let provider = Provider::new();
    let reply = file(&provider.reply(BODY));
    let before = "HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
                  HTTP/2 307\r\nx-provider-attested: false\r\nx-response-hash: none\r\n\r\n";
    let saved = format!("{before}{reply}");
    for text in [
        saved.clone(),
        saved.replace("\r\n", "\n"),
        saved.to_uppercase(),
    ] {
        let is_shouted = text.contains("HARDWARE");
        match read(&text) {
            // Names have no case, values do.
            Err(refusal) => assert!(is_shouted && matches!(refusal, HeadersRefusal::Form(_))),
            Ok(headers) => assert!(!is_shouted && headers.verify(BODY).is_ok()),
        }
    }
    // Other headers may stand twice, and a former coordinator's level is read.
    let cookies = reply.replace(
        "content-type",
        "set-cookie: a=b\r\nset-cookie: a=b\r\ncontent-type",
    );
    let none = cookies.replace(": hardware", ": none");
    assert_eq!(read(&none).expect("headers").level, Level::None);
    // Of a streamed reply the proof comes as trailers.
    let proof = provider.proof(BODY);
    let early = TrustHeaders {
        proof: None,
        ..provider.reply(BODY)
    };
    let trailers = format!(
        "{}x-se-signature: {}\r\nx-response-hash: {}\r\n\r\n",
        file(&early),
        proof.signature_text(),
        proof.hash_text()
    );
    assert!(read(&trailers).expect("headers").verify(BODY).is_ok());
}

#[test]
fn a_streamed_reply_is_covered_up_to_the_event_with_its_signature() {
    let provider = Provider::new();
    let covered = b"data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\n";
    let stream = |proof: &Proof, further: &str| {
        let seal = format!(
            "data: {{\"choices\":[]{further},\"se_signature\":\"{}\",\"response_hash\":\"{}\"}}\n\ndata: [DONE]\n\n",
            proof.signature_text(),
            proof.hash_text()
        );
        [&covered[..], seal.as_bytes()].concat()
    };
    let proof = provider.proof(covered);
    let body = stream(&proof, "");
    let early = TrustHeaders {
        proof: None,
        ..provider.reply(covered)
    };
    assert_eq!(early.verify(&body).expect("verifies").covered, covered);
    // With trailers that say the same, and with such that do not.
    let both = TrustHeaders {
        proof: Some(proof.clone()),
        ..early.clone()
    };
    assert!(both.verify(&body).is_ok());
    let other = provider.reply(BODY);
    assert_eq!(other.verify(&body).err(), Some(ReplyRefusal::Contradiction));
    // Nothing may stand where nobody signs it.
    let missing = Some(ReplyRefusal::Missing(name::SIGNATURE));
    assert_eq!(
        early.verify(&stream(&proof, ",\"usage\":{}")).err(),
        missing
    );
    let text = String::from_utf8(body.clone()).expect("text");
    for changed in [
        text.replace("[DONE]\n\n", "[DONE]\n\ndata: more\n\n"),
        text.replace("\"choices\":[],", "\"choices\":[{}],"),
        text.replace("data: {\"choices\":[],", "event: x\ndata: {\"choices\":[],"),
        text.replace("sha256:", ""),
        String::from_utf8(covered.to_vec()).expect("text"),
    ] {
        assert_ne!(changed, text);
        assert_eq!(early.verify(changed.as_bytes()).err(), missing, "{changed}");
    }
    for at in 0..covered.len() {
        let mut changed = body.clone();
        changed[at] ^= 1;
        assert!(early.verify(&changed).is_err());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_headers_of_a_reply_or_refused(
        file in prop::collection::vec(any::<u8>(), 0..300),
        name in prop::sample::select(&name::ALL[..]),
        value in "\\PC{0,80}",
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let text = format!("x-provider-attested: true\n{name}: {value}\n");
        for file in [&file[..], text.as_bytes()] {
            if let Ok(headers) = TrustHeaders::read(file) {
                prop_assert!(headers.verify(&body).is_err());
            }
        }
    }
}

#[test]
fn what_a_provider_says_of_itself_makes_no_header_of_its_own() {
    let headers = TrustHeaders {
        chip: Some("Apple\r\nx-provider-attested: true".to_owned()),
        model: Some("Mac\u{0}".to_owned()),
        provider_id: Some(" ".to_owned()),
        ..TrustHeaders::of_nobody()
    };
    assert_eq!(
        headers.pairs(),
        [("x-provider-attested", "false".to_owned())]
    );
}
