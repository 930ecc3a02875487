//! Where everything is: the transmitter's metadata (SSF 1.0 section 7), and that of the tokens
//! (RFC 8414).

use serde_json::{Value, json};

use super::{POLL, PUSH, Transmitter};

/// `/.well-known/ssf-configuration`.
pub fn ssf_configuration(transmitter: &Transmitter) -> Value {
    let at = |path| transmitter.endpoint(path);
    let mut document = json!({
        "spec_version": "1_0",
        "issuer": transmitter.issuer,
        "jwks_uri": format!("{}/.well-known/jwks.json", transmitter.issuer),
        "delivery_methods_supported": [PUSH, POLL],
        "configuration_endpoint": at("/ssf/stream"),
        "status_endpoint": at("/ssf/status"),
        "add_subject_endpoint": at("/ssf/subjects:add"),
        "remove_subject_endpoint": at("/ssf/subjects:remove"),
        "verification_endpoint": at("/ssf/verify"),
        "authorization_schemes": [{ "spec_urn": "urn:ietf:rfc:6749" }],
        "default_subjects": "ALL",
    });
    if let (Some(_), Some(members)) = (&transmitter.tenant, document.as_object_mut()) {
        members.insert("critical_subject_members".to_owned(), json!(["tenant"]));
    }
    document
}

/// `/.well-known/oauth-authorization-server`.
pub fn oauth_configuration(transmitter: &Transmitter) -> Value {
    json!({
        "issuer": transmitter.issuer,
        "token_endpoint": transmitter.endpoint("/ssf/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "scopes_supported": ["ssf.read", "ssf.manage"],
    })
}
