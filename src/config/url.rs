//! Addresses that settings name.

use std::net::IpAddr;

use super::Unusable;
use crate::network::is_public;

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

/// Whether messages may be sent to this address, which stands in this table; says why not. What a name leads to
/// is judged whenever it is looked up.
pub(super) fn check_target(url: &str, allow_private: bool, table: &str) -> Result<(), String> {
    const FORM: &str = "it must be https://host[:port]/path, without user or fragment";
    let (scheme, rest) = url.split_once("://").ok_or(FORM)?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') || url.contains('#') {
        return Err(FORM.to_owned());
    }
    if scheme != "https" && (scheme != "http" || !allow_private) {
        return Err(format!(
            "plain http is for targets that may be private: {table}.allow_private"
        ));
    }
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    let address = host.parse::<IpAddr>();
    if !allow_private && address.is_ok_and(|address| !is_public(address)) {
        return Err(format!(
            "its address is not of the public Internet: {table}.allow_private"
        ));
    }
    Ok(())
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
