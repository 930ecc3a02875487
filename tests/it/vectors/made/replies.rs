//! Replies of Macs: SecurityInfo and DeviceInformation.

use attestd_sim::apple::{AttestationAuthority, Chain};
use attestd_sim::keys::{self, KeyKind};
use attestd_sim::plist_xml::{self, PlistStyle, dictionary};
use openssl::error::ErrorStack;
use plist::Value;

use super::chains::{NONCE, state};
use super::{ISSUED_MS, Shelf};

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n";
const SIP: &str = "<key>SystemIntegrityProtectionEnabled</key>";
const LEVEL: &str = "<key>SecureBootLevel</key>";

pub(super) fn put(shelf: &Shelf<'_>) {
    put_security_info(shelf);
    put_malformed(shelf);
    put_device_information(shelf).expect("OpenSSL");
}

fn reply(inner: &str) -> String {
    format!(
        "{HEAD}<plist version=\"1.0\">\n<dict>\n\t<key>CommandUUID</key>\n\t<string>0001_SecurityInfo</string>\n\t{inner}\n\t<key>Status</key>\n\t<string>Acknowledged</string>\n\t<key>UDID</key>\n\t<string>5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D</string>\n</dict>\n</plist>\n"
    )
}

fn info(inner: &str) -> String {
    reply(&format!("<key>SecurityInfo</key>\n\t<dict>{inner}</dict>"))
}

fn boot(level: &str) -> String {
    format!("<key>SecureBoot</key><dict>{LEVEL}<string>{level}</string></dict>")
}

fn put_security_info(shelf: &Shelf<'_>) {
    let good = format!("{SIP}<true/>{}<key>FDE_Enabled</key><true/>", boot("full"));
    let off = format!("{SIP}<false/>{}", boot("off"));
    shelf.put("si-good.plist", info(&good));
    shelf.put("si-crlf.plist", info(&good).replace('\n', "\r\n"));
    shelf.put(
        "si-selfclosing-space.plist",
        info(&good).replace("/>", " />"),
    );
    shelf.put(
        "si-open-and-close.plist",
        info(&good).replace("<true/>", "<true></true>"),
    );
    shelf.put("si-no-doctype.plist", info(&good).replace(HEAD, ""));
    shelf.put("si-bom.plist", format!("\u{feff}{}", info(&good)));
    shelf.put(
        "si-latin-1-declared.plist",
        info(&good).replace("UTF-8", "ISO-8859-1"),
    );
    shelf.put(
        "si-long-comment.plist",
        info(&good).replacen(
            "<plist",
            &format!("<!-- {} -->\n<plist", "x".repeat(9000)),
            1,
        ),
    );
    shelf.put(
        "si-escaped-key.plist",
        info(&good).replace("SystemIntegrity", "System&#73;ntegrity"),
    );
    shelf.put(
        "si-cdata-key.plist",
        info(&good).replace("FDE_Enabled", "<![CDATA[FDE_Enabled]]>"),
    );
    let decoy = format!(
        "<key>Note</key><string><![CDATA[{SIP}<true/>{LEVEL}<string>full</string>]]></string>"
    );
    shelf.put("si-decoy-cdata.plist", info(&format!("{decoy}{off}")));
    let comment = format!("<!-- {SIP}<true/> {LEVEL}<string>full</string> -->");
    shelf.put(
        "si-decoy-comment.plist",
        info(&format!("{comment}{off}{comment}")),
    );
    let nested = format!("<key>Another</key><dict>{SIP}<true/>{LEVEL}<string>full</string></dict>");
    shelf.put("si-decoy-nested.plist", info(&format!("{nested}{off}")));
    shelf.put(
        "si-decoy-nested-before.plist",
        reply(&format!(
            "<key>Inner</key><dict>{nested}</dict><key>SecurityInfo</key><dict>{off}</dict>"
        )),
    );
    let escaped = "<key>Note</key><string>&lt;key&gt;SystemIntegrityProtectionEnabled&lt;/key&gt;&lt;true/&gt;</string>";
    shelf.put("si-decoy-escaped.plist", info(&format!("{escaped}{off}")));
    shelf.put(
        "si-sip-only-outside.plist",
        reply(&format!("{SIP}<true/><key>SecurityInfo</key><dict/>")),
    );
    shelf.put("si-empty.plist", info(""));
    shelf.put("si-none.plist", reply(""));
    shelf.put(
        "si-missing-keys.plist",
        info("<key>FDE_Enabled</key><false/>"),
    );
    shelf.put("si-unknown-members.plist", info(&format!("{good}<key>Later</key><array><integer>1</integer><real>2.5</real><date>2026-10-01T09:30:07Z</date><data>AA==</data></array>")));
    for (name, level) in [
        ("medium", "medium"),
        ("not-supported", "not supported"),
        ("unknown", "permissive"),
        ("upper-case", "Full"),
        ("spaced", " full "),
    ] {
        shelf.put(&format!("si-boot-{name}.plist"), info(&boot(level)));
    }
    let names = "<key>ReducedSecurity</key><array><string>AllowsAnyAppleSignedOS</string></array>";
    let medium = boot("medium").replace("</dict>", &format!("{names}</dict>"));
    shelf.put("si-reduced-array.plist", info(&medium));
    let external = |word: &str| {
        boot("full").replace(
            "</dict>",
            &format!("<key>ExternalBootLevel</key><string>{word}</string></dict>"),
        )
    };
    shelf.put(
        "si-external-disallowed.plist",
        info(&external("disallowed")),
    );
    shelf.put(
        "si-external-not-supported.plist",
        info(&external("not supported")),
    );
    for (name, value) in [
        ("string", "<string>true</string>"),
        ("integer", "<integer>1</integer>"),
        ("dictionary", "<dict/>"),
        ("data", "<data>AQ==</data>"),
    ] {
        shelf.put(
            &format!("si-sip-{name}.plist"),
            info(&format!("{SIP}{value}")),
        );
    }
    shelf.put(
        "si-boot-string.plist",
        info("<key>SecureBoot</key><string>full</string>"),
    );
    shelf.put(
        "si-level-boolean.plist",
        info(&format!("<key>SecureBoot</key><dict>{LEVEL}<true/></dict>")),
    );
    shelf.put(
        "si-array.plist",
        reply(&format!(
            "<key>SecurityInfo</key><array><dict>{good}</dict></array>"
        )),
    );
    shelf.put(
        "si-string.plist",
        reply("<key>SecurityInfo</key><string>full</string>"),
    );

    let status = |word: &str| info(&good).replace("Acknowledged", word);
    for word in [
        "Error",
        "NotNow",
        "CommandFormatError",
        "Idle",
        "acknowledged",
        "Later",
    ] {
        shelf.put(&format!("si-status-{word}.plist"), status(word));
    }
    shelf.put(
        "si-no-status.plist",
        info(&good).replace("<key>Status</key>", "<key>State</key>"),
    );
    shelf.put(
        "si-status-integer.plist",
        info(&good).replace("<string>Acknowledged</string>", "<integer>1</integer>"),
    );

    let tree: Value = plist::from_bytes(info(&good).as_bytes()).expect("well formed");
    let style = |style| plist_xml::write(&tree, style).expect("written");
    shelf.put("si-binary.plist", style(PlistStyle::Binary));
    shelf.put("si-minified.plist", style(PlistStyle::Minified));
    shelf.put("si-odd.plist", style(PlistStyle::OddWhitespace));
}

/// What breaks the rules of property lists, or is none.
fn put_malformed(shelf: &Shelf<'_>) {
    let good = info(&format!("{SIP}<true/>"));
    shelf.put(
        "si-duplicate.plist",
        info(&format!("{SIP}<true/>{SIP}<false/>")),
    );
    shelf.put(
        "si-duplicate-equal.plist",
        info(&format!("{SIP}<true/>{SIP}<true/>")),
    );
    shelf.put(
        "si-duplicate-info.plist",
        reply(&format!(
            "<key>SecurityInfo</key><dict>{SIP}<true/></dict><key>SecurityInfo</key><dict/>"
        )),
    );
    shelf.put("si-duplicate-elsewhere.plist", reply("<key>Other</key><dict><key>a</key><true/><key>a</key><true/></dict><key>SecurityInfo</key><dict/>"));
    shelf.put(
        "si-duplicate-status.plist",
        good.replacen("<dict>", "<dict><key>Status</key><string>Error</string>", 1),
    );
    shelf.put(
        "si-duplicate-escaped.plist",
        info(&format!(
            "{SIP}<true/>{}<false/>",
            SIP.replace("SystemI", "System&#x49;")
        )),
    );
    let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(bytes)
            .collect()
    };
    shelf.put(
        "si-utf-16-le.plist",
        utf16(&good.replace("UTF-8", "UTF-16"), u16::to_le_bytes),
    );
    shelf.put(
        "si-utf-16-be.plist",
        utf16(&good.replace("UTF-8", "UTF-16"), u16::to_be_bytes),
    );
    for levels in [40, 10_000] {
        let deep = format!(
            "<key>Deep</key>{}{}",
            "<array>".repeat(levels),
            "</array>".repeat(levels)
        );
        shelf.put(&format!("si-deep-{levels}.plist"), info(&deep));
    }
    shelf.put(
        "si-deep-open.plist",
        format!("{HEAD}<plist>{}", "<dict><key>a</key>".repeat(10_000)),
    );
    let large = |bytes: usize| {
        info(&format!(
            "{SIP}<true/><key>Pad</key><string>{}</string>",
            "x".repeat(bytes)
        ))
    };
    shelf.put("si-1-mb.plist", large(1 << 20));
    shelf.put("si-3-mb.plist", large(3 << 20));
    shelf.put("si-5-mb.plist", large(5 << 20));
    shelf.put("si-cut.plist", &good[..good.len() - 30]);
    shelf.put("si-cut-in-tag.plist", &good[..good.len() - 3]);
    shelf.put(
        "si-trailing.plist",
        format!("{good}<plist version=\"1.0\"><dict/></plist>"),
    );
    shelf.put("si-trailing-text.plist", format!("{good}more"));
    shelf.put(
        "si-two-roots.plist",
        good.replace("</dict>\n</plist>", "</dict>\n<dict/></plist>"),
    );
    shelf.put(
        "si-root-array.plist",
        format!("{HEAD}<plist><array/></plist>"),
    );
    shelf.put("si-no-root.plist", format!("{HEAD}<plist></plist>"));
    shelf.put("si-entity.plist", good.replace("5B0C1D2E", "&serial;"));
    let subset = "<!DOCTYPE plist [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]>\n";
    shelf.put(
        "si-internal-subset.plist",
        format!("{subset}{}", good.replace(HEAD, "")),
    );
    shelf.put("si-unknown-element.plist", info("<key>a</key><uid>1</uid>"));
    shelf.put(
        "si-true-with-text.plist",
        good.replace("<true/>", "<true>no</true>"),
    );
    shelf.put(
        "si-mismatched.plist",
        good.replacen("</string>", "</strong>", 1),
    );
    shelf.put(
        "si-bad-utf-8.plist",
        [
            &good.as_bytes()[..good.len() - 30],
            b"\xff\xfe",
            &good.as_bytes()[good.len() - 30..],
        ]
        .concat(),
    );
    shelf.put(
        "si-json.json",
        "{\"SecurityInfo\": {\"SystemIntegrityProtectionEnabled\": true}}",
    );
    shelf.put(
        "si-html.html",
        "<!DOCTYPE html><html><body>502</body></html>",
    );
    shelf.put("si-binary-header-only.plist", "bplist00");

    let mut inner = plist::Dictionary::new();
    inner.insert("SystemIntegrityProtectionEnabled".into(), true.into());
    inner.insert("SystemIntegrityProtectionEnableX".into(), false.into());
    let top = dictionary([
        ("SecurityInfo", Value::Dictionary(inner)),
        ("Status", "Acknowledged".into()),
    ]);
    let mut binary =
        plist_xml::write(&Value::Dictionary(top), PlistStyle::Binary).expect("written");
    shelf.put("si-binary-cut.plist", &binary[..binary.len() - 9]);
    let at = binary
        .windows(8)
        .position(|part| part == b"EnabledX" || part == b"EnableX\x08")
        .unwrap_or_else(|| {
            binary
                .windows(7)
                .position(|part| part == b"EnableX")
                .expect("the key")
        });
    binary[at + 6] = b'd';
    shelf.put("si-binary-duplicate.plist", &binary);
}

fn put_device_information(shelf: &Shelf<'_>) -> Result<(), ErrorStack> {
    let apple = AttestationAuthority::new()?;
    let other = AttestationAuthority::new()?;
    let key = keys::generate(KeyKind::P384)?;
    let Chain { leaf, intermediate } = apple.attest(&state(), &key, Some(&NONCE), ISSUED_MS)?;
    shelf.put("di-root.pem", apple.root_pem()?);
    let root = apple.parts().0.certificate.to_der()?;
    let other_root = other.parts().0.certificate.to_der()?;
    let mut trailing = leaf.clone();
    trailing.push(0);

    let array = |parts: &[&[u8]]| {
        Some(Value::Array(
            parts
                .iter()
                .map(|part| Value::Data(part.to_vec()))
                .collect(),
        ))
    };
    let put = |name: &str, attestation: Option<Value>, change: &[(&str, Option<Value>)]| {
        let mut responses = dictionary([
            ("UDID", "5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D".into()),
            ("SerialNumber", "SIMQ4T2W7P".into()),
            ("ProvisioningUDID", "00006040-001A2B3C4D5E801C".into()),
            ("OSVersion", "26.6.2".into()),
        ]);
        if let Some(attestation) = attestation {
            responses.insert("DevicePropertiesAttestation".into(), attestation);
        }
        for (key, value) in change {
            match value {
                Some(value) => responses.insert((*key).into(), value.clone()),
                None => responses.remove(key),
            };
        }
        let tree = Value::Dictionary(dictionary([
            ("CommandUUID", "0002_DeviceInformation".into()),
            ("QueryResponses", Value::Dictionary(responses)),
            ("Status", "Acknowledged".into()),
            ("UDID", "5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D".into()),
        ]));
        for (style, suffix) in [
            (PlistStyle::CoreFoundation, "plist"),
            (PlistStyle::Binary, "bplist"),
            (PlistStyle::OddWhitespace, "odd.plist"),
            (PlistStyle::Minified, "min.plist"),
        ] {
            shelf.put(
                &format!("{name}.{suffix}"),
                plist_xml::write(&tree, style).expect("written"),
            );
        }
    };
    let good = array(&[&leaf, &intermediate]);
    put("di-good", good.clone(), &[]);
    put("di-absent", None, &[]);
    put("di-empty-array", array(&[]), &[]);
    put("di-leaf-only", array(&[&leaf]), &[]);
    put("di-reversed", array(&[&intermediate, &leaf]), &[]);
    put("di-garbage", array(&[&leaf, b"garbage"]), &[]);
    put("di-garbage-leaf", array(&[b"garbage", &intermediate]), &[]);
    put("di-empty-entry", array(&[&leaf, b""]), &[]);
    put("di-leaf-trailing", array(&[&trailing, &intermediate]), &[]);
    put("di-leaf-twice", array(&[&leaf, &leaf]), &[]);
    put(
        "di-root-appended",
        array(&[&leaf, &intermediate, &root]),
        &[],
    );
    put(
        "di-other-root-appended",
        array(&[&leaf, &intermediate, &other_root]),
        &[],
    );
    put("di-four", array(&[&leaf, &intermediate, &root, &root]), &[]);
    put(
        "di-five",
        array(&[&leaf, &intermediate, &root, &root, &root]),
        &[],
    );
    let text = Value::String("MIIC".into());
    put(
        "di-entry-is-text",
        Some(Value::Array(vec![Value::Data(leaf.clone()), text.clone()])),
        &[],
    );
    put("di-is-data", Some(Value::Data(leaf.clone())), &[]);
    put("di-is-text", Some(text), &[]);
    put(
        "di-other-serial",
        good.clone(),
        &[("SerialNumber", Some("SIMOTHER01".into()))],
    );
    put(
        "di-serial-other-case",
        good.clone(),
        &[("SerialNumber", Some("simq4t2w7p".into()))],
    );
    put(
        "di-serial-and-line",
        good.clone(),
        &[("SerialNumber", Some("SIMQ4T2W7P\n".into()))],
    );
    put(
        "di-serial-blank",
        good.clone(),
        &[("SerialNumber", Some("".into()))],
    );
    put("di-serial-absent", good.clone(), &[("SerialNumber", None)]);
    put(
        "di-serial-integer",
        good.clone(),
        &[("SerialNumber", Some(1.into()))],
    );
    let udid = |text: &str| [("ProvisioningUDID", Some(Value::from(text)))];
    put(
        "di-other-udid",
        good.clone(),
        &udid("00006040-00FFEEDDCCBBAA1C"),
    );
    put(
        "di-udid-lower-case",
        good.clone(),
        &udid("00006040-001a2b3c4d5e801c"),
    );
    put(
        "di-only-udid",
        None,
        &[
            ("SerialNumber", None),
            ("ProvisioningUDID", None),
            ("OSVersion", None),
        ],
    );
    put(
        "di-personal",
        good.clone(),
        &[("DeviceName", Some("Somebody's Mac".into()))],
    );
    let foreign = other.attest(&state(), &key, Some(&NONCE), ISSUED_MS)?;
    put(
        "di-untrusted",
        array(&[&foreign.leaf, &foreign.intermediate]),
        &[],
    );
    let mut properties = state().properties(Some(&NONCE));
    properties.retain(|(oid, _)| !oid.contains(".8.9."));
    let anonymous = apple.issue(&key, &properties, ISSUED_MS)?;
    put(
        "di-anonymous",
        array(&[&anonymous.leaf, &anonymous.intermediate]),
        &[],
    );

    let read = |name: &str| std::fs::read_to_string(shelf.0.join(name)).expect("was made");
    let file = read("di-good.plist");
    shelf.put("di-error.plist", file.replace("Acknowledged", "Error"));
    shelf.put("di-not-now.plist", file.replace("Acknowledged", "NotNow"));
    shelf.put(
        "di-no-responses.plist",
        file.replace("<key>QueryResponses", "<key>Responses"),
    );
    shelf.put("di-bad-base64.plist", file.replacen("MII", "M!I", 1));
    shelf.put("di-cut.plist", &file[..file.len() / 2]);
    let second = "<key>DevicePropertiesAttestation</key><array/><key>OSVersion</key>";
    shelf.put(
        "di-duplicate.plist",
        file.replace("<key>OSVersion</key>", second),
    );
    // A parser that takes the first array after the key would read these.
    let decoy = "<key>DevicePropertiesAttestation</key><array/><key>Later</key><array>";
    shelf.put(
        "di-empty-then-array.plist",
        file.replacen("<key>DevicePropertiesAttestation</key>", "", 1)
            .replacen("<array>", decoy, 1),
    );
    Ok(())
}
