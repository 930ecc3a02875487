//! Where everything is: the transmitter's metadata (SSF 1.0 section 7), and that of the tokens
//! (RFC 8414).

use serde::Serialize;

use super::{POLL, PUSH, Transmitter};

/// `/.well-known/ssf-configuration`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SsfConfiguration {
    spec_version: &'static str,
    issuer: String,
    jwks_uri: String,
    delivery_methods_supported: [&'static str; 2],
    configuration_endpoint: String,
    status_endpoint: String,
    add_subject_endpoint: String,
    remove_subject_endpoint: String,
    verification_endpoint: String,
    authorization_schemes: [AuthorizationScheme; 1],
    default_subjects: &'static str,
    /// Only where the fleet has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    critical_subject_members: Option<[&'static str; 1]>,
}

/// How receivers are known.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct AuthorizationScheme {
    spec_urn: &'static str,
}

/// `/.well-known/oauth-authorization-server`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct OauthConfiguration {
    issuer: String,
    token_endpoint: String,
    token_endpoint_auth_methods_supported: [&'static str; 2],
    grant_types_supported: [&'static str; 1],
    response_types_supported: [&'static str; 0],
    scopes_supported: [&'static str; 2],
}

/// The transmitter's metadata.
pub fn ssf_configuration(transmitter: &Transmitter) -> SsfConfiguration {
    let at = |path| transmitter.endpoint(path);
    SsfConfiguration {
        spec_version: "1_0",
        issuer: transmitter.issuer.clone(),
        jwks_uri: format!("{}/.well-known/jwks.json", transmitter.issuer),
        delivery_methods_supported: [PUSH, POLL],
        configuration_endpoint: at("/ssf/stream"),
        status_endpoint: at("/ssf/status"),
        add_subject_endpoint: at("/ssf/subjects:add"),
        remove_subject_endpoint: at("/ssf/subjects:remove"),
        verification_endpoint: at("/ssf/verify"),
        authorization_schemes: [AuthorizationScheme {
            spec_urn: "urn:ietf:rfc:6749",
        }],
        default_subjects: "ALL",
        critical_subject_members: transmitter.tenant.is_some().then_some(["tenant"]),
    }
}

/// Where receivers get their tokens.
pub fn oauth_configuration(transmitter: &Transmitter) -> OauthConfiguration {
    OauthConfiguration {
        issuer: transmitter.issuer.clone(),
        token_endpoint: transmitter.endpoint("/ssf/token"),
        token_endpoint_auth_methods_supported: ["client_secret_basic", "client_secret_post"],
        grant_types_supported: ["client_credentials"],
        response_types_supported: [],
        scopes_supported: ["ssf.read", "ssf.manage"],
    }
}
