//! Addresses that settings name.

use super::Unusable;

/// Whether Macs may be told this URL: https, or with `insecure_http` plain http on loopback.
pub(crate) fn check_base_url(url: &str, insecure_http: bool) -> Result<(), Unusable> {
    let (scheme, authority) = url
        .split_once("://")
        .ok_or_else(|| Unusable::BaseUrl(url.to_owned()))?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    if host.is_empty() || !authority.bytes().all(plain) {
        return Err(Unusable::BaseUrl(url.to_owned()));
    }
    let loopback = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match scheme {
        "https" => Ok(()),
        "http" if insecure_http && loopback => Ok(()),
        "http" => Err(Unusable::InsecureBaseUrl(url.to_owned())),
        _ => Err(Unusable::BaseUrl(url.to_owned())),
    }
}

pub(super) fn has_password(url: &str) -> bool {
    let authority = url
        .split("://")
        .nth(1)
        .and_then(|rest| rest.split('/').next());
    let user = authority
        .and_then(|authority| authority.rsplit_once('@'))
        .map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':')) || url.contains("password=")
}
