//! Every reason for which a token lets nobody in, and the few forms that do.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use serde_json::{Value, json};

use super::{AccessToken, Bearer, Expected, KeySet, LEEWAY, MAX_TOKEN, Refused, UnusableKeySet};
use crate::time::Timestamp;

const NOW: i64 = 1_790_848_800;

/// A provider with a key of each kind.
struct Provider {
    rsa: PKey<Private>,
    p256: PKey<Private>,
    p384: PKey<Private>,
    ed25519: PKey<Private>,
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn curve(nid: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(nid).expect("a curve");
    PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key")
}

fn ec_jwk(key: &PKey<Private>, crv: &str, kid: &str) -> Value {
    let spki = key.public_key_to_der().expect("DER");
    let half = if crv == "P-256" { 32 } else { 48 };
    let (x, y) = spki[spki.len() - 2 * half..].split_at(half);
    json!({ "kty": "EC", "crv": crv, "x": text(x), "y": text(y), "kid": kid })
}

impl Provider {
    fn new() -> Self {
        Self {
            rsa: PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key"),
            p256: curve(Nid::X9_62_PRIME256V1),
            p384: curve(Nid::SECP384R1),
            ed25519: PKey::generate_ed25519().expect("a key"),
        }
    }

    fn jwks(&self) -> Vec<Value> {
        let rsa = self.rsa.rsa().expect("RSA");
        let x = self.ed25519.raw_public_key().expect("a key");
        vec![
            json!({ "kty": "RSA", "n": text(&rsa.n().to_vec()), "e": text(&rsa.e().to_vec()), "kid": "rsa", "use": "sig" }),
            ec_jwk(&self.p256, "P-256", "p256"),
            ec_jwk(&self.p384, "P-384", "p384"),
            json!({ "kty": "OKP", "crv": "Ed25519", "x": text(&x), "kid": "ed25519", "alg": "EdDSA" }),
        ]
    }

    fn sign(&self, alg: &str, signed: &[u8]) -> Vec<u8> {
        let fixed = |key: &PKey<Private>, digest, half| {
            let mut signer = Signer::new(digest, key).expect("a signer");
            let der = signer.sign_oneshot_to_vec(signed).expect("signs");
            let both = EcdsaSig::from_der(&der).expect("a signature");
            let number = |n: &openssl::bn::BigNumRef| n.to_vec_padded(half).expect("it fits");
            [number(both.r()), number(both.s())].concat()
        };
        match alg {
            "RS256" | "PS256" => {
                let mut signer = Signer::new(MessageDigest::sha256(), &self.rsa).expect("a signer");
                if alg == "PS256" {
                    signer.set_rsa_padding(Padding::PKCS1_PSS).expect("PSS");
                    signer
                        .set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)
                        .expect("PSS");
                }
                signer.sign_oneshot_to_vec(signed).expect("signs")
            }
            "ES256" => fixed(&self.p256, MessageDigest::sha256(), 32),
            "ES384" => fixed(&self.p384, MessageDigest::sha384(), 48),
            "EdDSA" => {
                let mut signer = Signer::new_without_digest(&self.ed25519).expect("a signer");
                signer.sign_oneshot_to_vec(signed).expect("signs")
            }
            // RFC 8725 section 2.1: whoever takes HS256 takes the public key for the secret.
            "HS256" => {
                let public = self.rsa.public_key_to_pem().expect("PEM");
                let key = PKey::hmac(&public).expect("a key");
                let mut signer = Signer::new(MessageDigest::sha256(), &key).expect("a signer");
                signer.sign_oneshot_to_vec(signed).expect("signs")
            }
            _ => Vec::new(),
        }
    }

    fn token(&self, alg: &str, header: &Value, claims: &Value) -> String {
        let parts = [header, claims].map(|part| text(part.to_string().as_bytes()));
        let signed = parts.join(".");
        format!("{signed}.{}", text(&self.sign(alg, signed.as_bytes())))
    }
}

fn expected() -> Expected {
    Expected {
        issuer: "https://id.example.org/realms/fleet".to_owned(),
        audience: "attestd".to_owned(),
        role_claim: "groups".to_owned(),
    }
}

fn header(alg: &str, kid: &str) -> Value {
    json!({ "alg": alg, "kid": kid, "typ": "at+jwt" })
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example.org/realms/fleet", "aud": ["other", "attestd"], "sub": "248289761001",
        "exp": NOW + 300, "iat": NOW - 10, "nbf": NOW - 10, "jti": "1", "client_id": "cli",
        "preferred_username": "ann", "groups": ["attestd-operators", "staff"],
    })
}

fn with(mut of: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(of.as_object_mut().expect("an object").remove(name)),
        value => of[name] = value,
    }
    of
}

fn judge(token: &str, keys: &KeySet, expected: &Expected) -> Result<Bearer, Refused> {
    AccessToken::parse(token)?.verify(keys, expected, Timestamp::from_seconds(NOW))
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).expect("keys")
}

#[test]
fn each_algorithm_of_the_list_lets_its_own_keys_token_in() {
    let provider = Provider::new();
    let keys = set(&provider.jwks());
    assert_eq!(keys.count(), 4);
    for (alg, kid) in [
        ("RS256", "rsa"),
        ("PS256", "rsa"),
        ("ES256", "p256"),
        ("ES384", "p384"),
        ("EdDSA", "ed25519"),
    ] {
        let token = provider.token(alg, &header(alg, kid), &claims());
        let bearer = judge(&token, &keys, &expected()).expect(alg);
        assert_eq!(
            (&*bearer.subject, bearer.name.as_deref()),
            ("248289761001", Some("ann"))
        );
        assert_eq!(bearer.roles, ["attestd-operators", "staff"]);
        assert_eq!(bearer.expires_at, Timestamp::from_seconds(NOW + 300));
        // Another word for the same, and no changed octet.
        for typ in [json!("JWT"), json!("application/AT+jwt"), Value::Null] {
            let header = with(header(alg, kid), "typ", typ);
            assert!(judge(&provider.token(alg, &header, &claims()), &keys, &expected()).is_ok());
        }
        for at in (0..token.len()).step_by(41) {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(judge(&changed, &keys, &expected()).is_err(), "{alg} {at}");
        }
    }
    // One key alone needs no name.
    let alone = set(&provider.jwks()[1..2]);
    let unnamed = with(header("ES256", "p256"), "kid", Value::Null);
    assert!(
        judge(
            &provider.token("ES256", &unnamed, &claims()),
            &alone,
            &expected()
        )
        .is_ok()
    );
}

#[test]
fn each_broken_rule_has_its_refusal() {
    let provider = Provider::new();
    let keys = set(&provider.jwks());
    let es256 = || header("ES256", "p256");
    let leeway = i64::try_from(LEEWAY.as_secs()).expect("a minute");
    let of_header: [(&str, Value, Refused); 19] = [
        ("none", header("none", "p256"), Refused::Algorithm),
        ("NONE", header("NoNe", "p256"), Refused::Algorithm),
        ("HS256", header("HS256", "rsa"), Refused::Algorithm),
        ("RS1", header("RS1", "rsa"), Refused::Algorithm),
        (
            "ES256",
            with(es256(), "alg", Value::Null),
            Refused::Algorithm,
        ),
        ("ES256", header("ES256", "other"), Refused::UnknownKey),
        ("ES256", header("ES256", "rsa"), Refused::KeyMismatch),
        ("RS256", header("RS256", "p256"), Refused::KeyMismatch),
        ("ES256", header("ES384", "p256"), Refused::KeyMismatch),
        ("RS256", header("RS256", "ed25519"), Refused::KeyMismatch),
        ("RS256", header("PS256", "rsa"), Refused::Signature),
        ("none", es256(), Refused::Signature),
        (
            "ES256",
            with(es256(), "crit", json!(["exp"])),
            Refused::Extension,
        ),
        (
            "ES256",
            with(es256(), "jwk", provider.jwks()[1].clone()),
            Refused::Extension,
        ),
        (
            "ES256",
            with(es256(), "jku", json!("https://evil.example/")),
            Refused::Extension,
        ),
        ("ES256", with(es256(), "cty", json!("JWT")), Refused::Type),
        (
            "ES256",
            with(es256(), "typ", json!("logout+jwt")),
            Refused::Type,
        ),
        (
            "ES256",
            with(es256(), "typ", json!("secevent+jwt")),
            Refused::Type,
        ),
        ("ES256", with(es256(), "kid", json!(7)), Refused::Malformed),
    ];
    for (alg, header, refused) in of_header {
        let token = provider.token(alg, &header, &claims());
        assert_eq!(judge(&token, &keys, &expected()), Err(refused), "{header}");
    }
    for (name, value, refused) in [
        (
            "iss",
            json!("https://id.example.org/realms/fleet/"),
            Refused::Issuer,
        ),
        ("iss", Value::Null, Refused::Issuer),
        ("aud", json!("attestd2"), Refused::Audience),
        ("aud", json!(["a", "b"]), Refused::Audience),
        ("aud", Value::Null, Refused::Audience),
        ("aud", json!(["attestd", 7]), Refused::Claims),
        ("exp", Value::Null, Refused::NoEnd),
        ("exp", json!("2026-10-02T00:00:00Z"), Refused::Claims),
        ("exp", json!(-1), Refused::Claims),
        ("exp", json!(1e300), Refused::Claims),
        ("exp", json!(NOW), Refused::Expired),
        ("nbf", json!(NOW + leeway + 1), Refused::NotYet),
        ("iat", json!(NOW + leeway + 1), Refused::NotYet),
        ("iat", json!("now"), Refused::Claims),
        ("sub", Value::Null, Refused::Claims),
        ("sub", json!(""), Refused::Claims),
        ("sub", json!("a\nb"), Refused::Claims),
        ("sub", json!("x".repeat(256)), Refused::Claims),
        ("groups", json!([1]), Refused::Claims),
        (
            "groups",
            json!({ "attestd-operators": true }),
            Refused::Claims,
        ),
        ("nonce", json!("n"), Refused::NotForAccess),
        ("at_hash", json!("h"), Refused::NotForAccess),
        ("events", json!({}), Refused::NotForAccess),
        ("typ", json!("ID"), Refused::NotForAccess),
        ("typ", json!("Refresh"), Refused::NotForAccess),
        ("token_use", json!("id"), Refused::NotForAccess),
        ("cnf", json!({ "jkt": "x" }), Refused::Bound),
    ] {
        let changed = with(claims(), name, value);
        let token = provider.token("ES256", &es256(), &changed);
        assert_eq!(judge(&token, &keys, &expected()), Err(refused), "{changed}");
    }
    for (name, value) in [
        ("aud", json!("attestd")),
        ("exp", json!(NOW as f64 + 1.5)),
        ("nbf", json!(NOW + leeway)),
        ("iat", json!(NOW + leeway)),
        ("iat", Value::Null),
        ("nbf", Value::Null),
        ("typ", json!("Bearer")),
        ("token_use", json!("access")),
        ("preferred_username", json!("a\u{7}b")),
        ("groups", json!("attestd-operators")),
        ("groups", Value::Null),
    ] {
        let changed = with(claims(), name, value);
        let token = provider.token("ES256", &es256(), &changed);
        assert!(judge(&token, &keys, &expected()).is_ok(), "{changed}");
    }
    // Which of several it is, a token must say.
    let two = [
        provider.jwks(),
        vec![ec_jwk(&curve(Nid::X9_62_PRIME256V1), "P-256", "other")],
    ]
    .concat();
    let unnamed = with(es256(), "kid", Value::Null);
    let token = provider.token("ES256", &unnamed, &claims());
    assert_eq!(
        judge(&token, &set(&two), &expected()),
        Err(Refused::NoKeyId)
    );
}

#[test]
fn what_has_not_the_form_is_refused_before_any_key_is_asked() {
    let provider = Provider::new();
    let good = provider.token("ES256", &header("ES256", "p256"), &claims());
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let (head, payload) = signed.split_once('.').expect("three parts");
    let twice = text(br#"{"alg":"none","alg":"ES256"}"#);
    let claims_twice = text(br#"{"iss":"a","iss":"b"}"#);
    for (token, refused) in [
        (String::new(), Refused::Malformed),
        ("..".to_owned(), Refused::Malformed),
        (signed.to_owned(), Refused::Malformed),
        (format!("{good}."), Refused::Malformed),
        (format!("{good}.a"), Refused::Malformed),
        (format!("{good}="), Refused::Malformed),
        (format!("{head}.{payload}. {signature}"), Refused::Malformed),
        (format!("{twice}.{payload}.{signature}"), Refused::Malformed),
        (
            format!("{head}.{claims_twice}.{signature}"),
            Refused::Malformed,
        ),
        (
            format!("{}.{payload}.{signature}", text(b"[]")),
            Refused::Malformed,
        ),
        (format!("{good}{}", "A".repeat(MAX_TOKEN)), Refused::TooLong),
        (
            format!("{}.{payload}.{signature}", "A".repeat(4000)),
            Refused::TooLong,
        ),
    ] {
        let parsed = AccessToken::parse(&token).map(drop);
        assert_eq!(parsed, Err(refused), "{}", &token[..token.len().min(80)]);
    }
    let shown = format!("{:?}", AccessToken::parse(&good).expect("the form"));
    assert!(
        !shown.contains(payload) && !shown.contains(signature),
        "{shown}"
    );
}

#[test]
fn the_role_claim_may_lie_within_another_or_be_the_scope() {
    let provider = Provider::new();
    let keys = set(&provider.jwks());
    for (claim, name, value, roles) in [
        (
            "/realm_access/roles",
            "realm_access",
            json!({ "roles": ["a", "b"] }),
            &["a", "b"][..],
        ),
        ("/realm_access/roles", "realm_access", json!("a"), &[]),
        (
            "https://example.org/roles",
            "https://example.org/roles",
            json!("a"),
            &["a"],
        ),
        (
            "/https:~1~1example.org~1roles",
            "https://example.org/roles",
            json!(["a"]),
            &["a"],
        ),
        ("scope", "scope", json!("openid a b"), &["openid", "a", "b"]),
        ("role", "role", json!("a b"), &["a b"]),
    ] {
        let expected = Expected {
            role_claim: claim.to_owned(),
            ..expected()
        };
        let token = provider.token(
            "ES256",
            &header("ES256", "p256"),
            &with(claims(), name, value),
        );
        let bearer = judge(&token, &keys, &expected).expect(claim);
        assert_eq!(bearer.roles, roles, "{claim}");
    }
}

#[test]
fn only_public_keys_that_verify_count() {
    let provider = Provider::new();
    let keys = provider.jwks();
    let (rsa, ec) = (&keys[0], &keys[1]);
    let small = PKey::from_rsa(Rsa::generate(1024).expect("a key")).expect("a key");
    let small = small.rsa().expect("RSA").n().to_vec();
    for useless in [
        json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "a" }),
        with(ec.clone(), "d", json!("AAAA")),
        with(ec.clone(), "use", json!("enc")),
        with(ec.clone(), "key_ops", json!(["sign"])),
        with(ec.clone(), "alg", json!("ES512")),
        with(ec.clone(), "alg", json!("RS256")),
        with(ec.clone(), "crv", json!("P-521")),
        with(ec.clone(), "crv", json!("P-384")),
        with(ec.clone(), "x", ec["y"].clone()),
        with(ec.clone(), "kid", json!(1)),
        with(rsa.clone(), "n", json!(text(&small))),
        with(rsa.clone(), "e", json!("AQ")),
        with(rsa.clone(), "e", json!("AAAC")),
        json!("key"),
    ] {
        let text = json!({ "keys": [useless] }).to_string();
        assert_eq!(
            KeySet::parse(text.as_bytes()),
            Err(UnusableKeySet::NoKey),
            "{text}"
        );
        // Beside a good one it is passed over.
        let text = json!({ "keys": [useless, keys[3]] }).to_string();
        assert_eq!(
            KeySet::parse(text.as_bytes()).map(|keys| keys.count()),
            Ok(1)
        );
    }
    let many = json!({ "keys": vec![ec.clone(); 65] }).to_string();
    for (text, expected) in [
        (many.as_str(), UnusableKeySet::TooMany),
        (r#"{"keys":[]}"#, UnusableKeySet::NoKey),
        (r#"{"keys":{}}"#, UnusableKeySet::Malformed),
        (r#"{"keys":[],"keys":[]}"#, UnusableKeySet::Malformed),
        ("[]", UnusableKeySet::Malformed),
    ] {
        assert_eq!(KeySet::parse(text.as_bytes()), Err(expected), "{text}");
    }
}
