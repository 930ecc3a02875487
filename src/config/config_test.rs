use super::*;

const MINIMAL: &str = "base_url = \"https://mdm.example.org\"\n\
    [public]\nlisten = \"0.0.0.0:8443\"\nbehind_proxy = true\n\
    [internal]\nlisten = \"127.0.0.1:8444\"\n";

const SPIFFE: &str = "spiffe_id = \"spiffe://example.org/x\"\n";

fn check(text: &str, insecure_http: bool) -> Result<(), String> {
    let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
    config
        .check(insecure_http)
        .map_err(|error| error.to_string())
}

#[test]
fn the_smallest_file_is_enough() {
    assert_eq!(check(MINIMAL, false), Ok(()));
    let config: Config = toml::from_str(MINIMAL).expect("well formed");
    assert_eq!(config.payload_identifier(), "org.example.mdm.attestd");
}

#[test]
fn every_unsafe_or_senseless_setting_is_refused_with_what_to_do() {
    let with = |from: &str, to: &str| MINIMAL.replace(from, to);
    let public = |line: &str| with("[internal]", &format!("{line}\n[internal]"));
    let client = |one: &str, more: &str| {
        let listener = "tls_certificate = \"c\"\ntls_key = \"k\"\nclient_roots = [\"r\"]\n";
        let client = "[[internal.clients]]\nname = \"a\"\nrole = \"viewer\"\n";
        format!("{MINIMAL}{listener}{client}{one}{more}")
    };
    let again = |name: &str| {
        format!("[[internal.clients]]\nname = \"{name}\"\nrole = \"viewer\"\n{SPIFFE}")
    };
    let micromdm =
        |webhook: &str| format!("{MINIMAL}[micromdm]\nkey_file = \"k\"\nwebhook = \"{webhook}\"\n");
    let proxied = |name: &str| {
        let proxies = "trusted_proxies = [\"10.0.0.0/8\"]";
        public(&format!(
            "{proxies}\nclient_certificate_header = \"{name}\""
        ))
    };
    let cases = [
        (with("base_url", "base_ulr"), "base_ulr"),
        (format!("{MINIMAL}[log]\nlevle = \"info\"\n"), "levle"),
        (
            with("https://mdm.example.org", "http://mdm.example.org"),
            "--insecure-http",
        ),
        (
            with("https://mdm.example.org", "https://mdm.example.org/path"),
            "without path",
        ),
        (
            with("https://mdm.example.org", "https://user@mdm.example.org"),
            "without path",
        ),
        (with("https://mdm.example.org", "https://"), "without path"),
        (with("behind_proxy = true", ""), "behind_proxy"),
        (
            with("behind_proxy = true", "tls_key = \"k\""),
            "belong together",
        ),
        (public("client_certificates = true"), "tls_certificate"),
        (
            client("", SPIFFE).replace("tls_", "#tls_"),
            "tls_certificate",
        ),
        (
            client("", SPIFFE).replace("client_roots", "#client_roots"),
            "client_roots",
        ),
        (
            client("", "")
                .split("[[internal")
                .next()
                .unwrap_or_default()
                .to_owned(),
            "lets nobody in",
        ),
        (client("", ""), "give spiffe_id or public_key_sha256"),
        (
            client(SPIFFE, "public_key_sha256 = \"00\"\n"),
            "give spiffe_id or",
        ),
        (
            client("", "public_key_sha256 = \"00\"\n"),
            "64 hexadecimal digits",
        ),
        (
            client("", "spiffe_id = \"https://example.org/x\"\n"),
            "spiffe://trust-domain",
        ),
        (client(SPIFFE, &again("b")), "known by the same"),
        (client(SPIFFE, &again("a")), "two have this name"),
        (
            client(SPIFFE, "").replace("\"a\"", "\"\""),
            "1 to 100 characters",
        ),
        (
            public("client_certificate_header = \"Client-Cert\""),
            "trusted_proxies",
        ),
        (proxied("Mdm-Signature"), "header of its own"),
        (proxied("Client Cert"), "header of its own"),
        (proxied(""), "header of its own"),
        (public("trusted_proxies = [\"0.0.0.0/0\"]"), "everybody"),
        (
            public("trusted_proxies = [\"10.0.0.1/8\"]"),
            "beyond the prefix",
        ),
        (
            public("trusted_proxies = [\"10.0.0.0/33\"]"),
            "length of its prefix",
        ),
        (
            public("trusted_proxies = [\"::/129\"]"),
            "length of its prefix",
        ),
        (
            public("trusted_proxies = [\"proxy.example.org\"]"),
            "10.0.0.0/8",
        ),
        (with("127.0.0.1:8444", "0.0.0.0:8444"), "listen on loopback"),
        (with("0.0.0.0:8443", "127.0.0.1:8444"), "two listeners"),
        (
            format!("{MINIMAL}[verification]\npatience = \"0s\"\n"),
            "longer than nothing",
        ),
        (
            format!("{MINIMAL}[push_certificates]\nconfirm_within = \"0s\"\n"),
            "longer than nothing",
        ),
        (
            format!("{MINIMAL}[retention]\nanswers = \"29d\"\n"),
            "at least 30d",
        ),
        (
            format!("{MINIMAL}[push_certificates]\nactivation = \"three_persons\"\n"),
            "three_persons",
        ),
        (
            format!("{MINIMAL}[verification]\npushes_per_hour = 61\n"),
            "at most 60",
        ),
        (
            format!("{MINIMAL}[verification]\npushes_per_hour = 0\n"),
            "nonzero",
        ),
        (format!("{MINIMAL}[verification]\nqueue = 0\n"), "nonzero"),
        (
            format!("{MINIMAL}[apns]\npushes_per_second = 20001\n"),
            "at most 20000",
        ),
        (
            format!("{MINIMAL}[database]\nurl = \"postgres://a:b@h/d\"\n"),
            "url_file",
        ),
        (
            format!("{MINIMAL}[policy]\nname = \"lenient\"\n"),
            "darkbloom-2026",
        ),
        (
            format!("{MINIMAL}[policy]\nname = \"strict\"\nfile = \"p.toml\"\n"),
            "not both",
        ),
        (
            format!("{MINIMAL}[database]\nurl = \"a\"\nurl_file = \"b\"\n"),
            "not both",
        ),
        (
            micromdm("http://hooks.example.org/v1/mdm/webhook"),
            "http is for targets",
        ),
        (micromdm("https://user@hooks.example.org/"), "without user"),
        (micromdm("https://10.0.0.7/v1/mdm/webhook"), "allow_private"),
        (
            micromdm("https://[::1]:8443/v1/mdm/webhook"),
            "allow_private",
        ),
        (
            format!("{MINIMAL}[micromdm]\nkey_file = \"k\"\n"),
            "webhook",
        ),
    ];
    for (text, expected) in cases {
        let refusal = check(&text, false).expect_err(&text);
        assert!(refusal.contains(expected), "{refusal} / {expected}");
    }
}

#[test]
fn plain_http_needs_the_flag_and_loopback() {
    let local = "base_url = \"http://127.0.0.1:8080\"\n[public]\nlisten = \"127.0.0.1:8080\"\n\
        [internal]\nlisten = \"127.0.0.1:8081\"\n";
    assert_eq!(check(local, true), Ok(()));
    assert!(check(local, false).is_err());
    assert!(check(&local.replace("http://127.0.0.1", "http://10.0.0.1"), true).is_err());
}
