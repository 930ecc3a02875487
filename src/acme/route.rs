//! The resources of one directory, and their one spelling.

use std::fmt;

/// A resource below `…/acme/<secret>/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    Directory,
    NewNonce,
    NewAccount,
    NewOrder,
    Account(u32),
    /// The orders of an account.
    Orders(u32),
    Order(u32),
    /// The one authorization of the order with this number.
    Authorization(u32),
    /// Its one challenge.
    Challenge(u32),
    Finalize(u32),
    Certificate(u32),
}

impl Route {
    /// Reads what follows the secret and a slash. Only the spelling that [`fmt::Display`] gives is
    /// known: RFC 8555 section 6.4 compares URLs as strings.
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').collect();
        match *parts.as_slice() {
            ["directory"] => Some(Self::Directory),
            ["new-nonce"] => Some(Self::NewNonce),
            ["new-account"] => Some(Self::NewAccount),
            ["new-order"] => Some(Self::NewOrder),
            ["acct", n] => number(n).map(Self::Account),
            ["acct", n, "orders"] => number(n).map(Self::Orders),
            ["order", n] => number(n).map(Self::Order),
            ["order", n, "finalize"] => number(n).map(Self::Finalize),
            ["authz", n] => number(n).map(Self::Authorization),
            ["chall", n] => number(n).map(Self::Challenge),
            ["cert", n] => number(n).map(Self::Certificate),
            _ => None,
        }
    }

    /// The URL of this resource in the directory at `base` (no slash at its end).
    pub fn url(self, base: &str) -> String {
        format!("{base}/{self}")
    }

    /// The resource of the directory at `base` that has this URL.
    pub(super) fn of_url(url: &str, base: &str) -> Option<Self> {
        Self::parse(url.strip_prefix(base)?.strip_prefix('/')?)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory => f.write_str("directory"),
            Self::NewNonce => f.write_str("new-nonce"),
            Self::NewAccount => f.write_str("new-account"),
            Self::NewOrder => f.write_str("new-order"),
            Self::Account(n) => write!(f, "acct/{n}"),
            Self::Orders(n) => write!(f, "acct/{n}/orders"),
            Self::Order(n) => write!(f, "order/{n}"),
            Self::Finalize(n) => write!(f, "order/{n}/finalize"),
            Self::Authorization(n) => write!(f, "authz/{n}"),
            Self::Challenge(n) => write!(f, "chall/{n}"),
            Self::Certificate(n) => write!(f, "cert/{n}"),
        }
    }
}

/// Decimal without sign or leading zero; numbering begins at 1.
fn number(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok()?;
    (number > 0 && number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_has_one_spelling() {
        for route in [
            Route::Directory,
            Route::NewNonce,
            Route::NewAccount,
            Route::NewOrder,
            Route::Account(1),
            Route::Orders(8),
            Route::Order(1),
            Route::Authorization(2),
            Route::Challenge(3),
            Route::Finalize(4),
            Route::Certificate(u32::MAX),
        ] {
            assert_eq!(Route::parse(&route.to_string()), Some(route));
            let url = route.url("https://mdm.example/acme/s");
            assert_eq!(
                Route::of_url(&url, "https://mdm.example/acme/s"),
                Some(route)
            );
            assert_eq!(Route::of_url(&url, "https://mdm.example/acme/S"), None);
        }
        for other in [
            "",
            "/directory",
            "directory/",
            "Directory",
            "new_nonce",
            "acct/0",
            "acct/01",
            "acct/+1",
            "acct/1/",
            "acct/4294967296",
            "order/1/Finalize",
            "order/%31",
            "order//1",
            "revoke-cert",
        ] {
            assert_eq!(Route::parse(other), None, "{other}");
        }
    }
}
