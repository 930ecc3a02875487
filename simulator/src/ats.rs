//! Which URLs a Mac goes to: App Transport Security wants TLS (apple-protocol 11).

use reqwest::Url;

/// Whether `text` is an absolute `https` URL, or, where that is allowed, `http` to this machine.
pub fn permits(text: &str, allow_http_loopback: bool) -> bool {
    let Ok(url) = Url::parse(text) else {
        return false;
    };
    let loopback = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => true,
        "http" => allow_http_loopback && loopback,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_leads_to_this_machine_at_most() {
        for (url, strictly, loosely) in [
            ("https://mdm.example.test/a", true, true),
            ("http://127.0.0.1:8080/a", false, true),
            ("http://localhost/a", false, true),
            ("http://mdm.example.test/a", false, false),
            ("ftp://localhost/a", false, false),
            ("/relative", false, false),
        ] {
            assert_eq!(
                (permits(url, false), permits(url, true)),
                (strictly, loosely),
                "{url}"
            );
        }
    }
}
