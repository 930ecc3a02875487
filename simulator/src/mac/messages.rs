//! The bodies of a Mac's messages, as property lists (apple-protocol 2, 3). Pure.

use plist::{Dictionary, Value};

use super::spec::MacSpec;
use crate::plist_xml::dictionary;

/// Access right bits (apple-protocol 1.2).
pub mod right {
    pub const INSPECT_PROFILES: i64 = 1;
    pub const DEVICE_INFORMATION: i64 = 16;
    pub const SECURITY: i64 = 1024;
}

/// Authenticate; OS, model and serial need the device information right (2.3).
pub fn authenticate(spec: &MacSpec, topic: &str, rights: i64) -> Dictionary {
    let mut body = dictionary([
        ("MessageType", "Authenticate".into()),
        ("Topic", topic.into()),
        ("UDID", spec.udid.as_str().into()),
        ("DeviceName", spec.device_name.as_str().into()),
        ("Model", spec.model.as_str().into()),
        ("ModelName", spec.model_name.as_str().into()),
        ("Challenge", Value::Data(b"apple".to_vec())),
    ]);
    if rights & right::DEVICE_INFORMATION != 0 {
        body.extend(dictionary([
            ("OSVersion", spec.os_version.as_str().into()),
            ("BuildVersion", spec.build_version.as_str().into()),
            ("ProductName", spec.model.as_str().into()),
            ("SerialNumber", spec.serial.as_str().into()),
        ]));
    }
    body
}

/// TokenUpdate of the device channel (2.4).
pub fn token_update(spec: &MacSpec, topic: &str, token: &[u8], magic: &str) -> Dictionary {
    dictionary([
        ("MessageType", "TokenUpdate".into()),
        ("Topic", topic.into()),
        ("UDID", spec.udid.as_str().into()),
        ("Token", Value::Data(token.to_vec())),
        ("PushMagic", magic.into()),
        ("AwaitingConfiguration", false.into()),
    ])
}

/// TokenUpdate of the installing user: same UDID, its own token and magic (2.4).
pub fn user_token_update(
    spec: &MacSpec,
    topic: &str,
    token: &[u8],
    magic: &str,
    user_id: &str,
) -> Dictionary {
    dictionary([
        ("MessageType", "TokenUpdate".into()),
        ("Topic", topic.into()),
        ("UDID", spec.udid.as_str().into()),
        ("UserID", user_id.into()),
        ("UserShortName", "sim".into()),
        ("UserLongName", "Sim User".into()),
        ("NotOnConsole", false.into()),
        ("Token", Value::Data(token.to_vec())),
        ("PushMagic", magic.into()),
    ])
}

/// SetBootstrapToken (2.6).
pub fn set_bootstrap_token(spec: &MacSpec, token: &[u8]) -> Dictionary {
    dictionary([
        ("MessageType", "SetBootstrapToken".into()),
        ("UDID", spec.udid.as_str().into()),
        ("AwaitingConfiguration", false.into()),
        ("BootstrapToken", Value::Data(token.to_vec())),
    ])
}

/// CheckOut (2.5).
pub fn check_out(spec: &MacSpec, topic: &str) -> Dictionary {
    dictionary([
        ("MessageType", "CheckOut".into()),
        ("Topic", topic.into()),
        ("UDID", spec.udid.as_str().into()),
    ])
}

/// The first message of a session (3.1).
pub fn idle(spec: &MacSpec) -> Dictionary {
    dictionary([
        ("Status", "Idle".into()),
        ("UDID", spec.udid.as_str().into()),
    ])
}

/// A reply to a command, without what the command brings (3.2).
pub fn status_reply(spec: &MacSpec, command_uuid: &str, status: &str) -> Dictionary {
    dictionary([
        ("CommandUUID", command_uuid.into()),
        ("Status", status.into()),
        ("UDID", spec.udid.as_str().into()),
    ])
}

/// The ErrorChain of one error; codes and texts are not a contract of Apple's (3.2).
pub fn error_chain(code: i64, text: &str) -> Value {
    Value::Array(vec![Value::Dictionary(dictionary([
        ("ErrorCode", code.into()),
        ("ErrorDomain", "MCMDMErrorDomain".into()),
        ("LocalizedDescription", text.into()),
        ("USEnglishDescription", text.into()),
    ]))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plist_xml::{PlistStyle, write};

    fn spec() -> MacSpec {
        MacSpec {
            udid: "5B0C1D2E-7F3A-5C41-9A6D-0E1F2A3B4C5D".into(),
            ..MacSpec::with_serial("SIMQ4T2W7P").unwrap()
        }
    }

    #[test]
    fn messages_are_the_fixtures_bytes() {
        let topic = "com.apple.mgmt.External.0f0e0d0c-0b0a-4908-8706-050403020100";
        for (made, expected) in [
            (
                authenticate(&spec(), topic, 1041),
                &include_bytes!("../../fixtures/checkin-authenticate.plist")[..],
            ),
            (
                idle(&spec()),
                &include_bytes!("../../fixtures/connect-idle.plist")[..],
            ),
            (
                status_reply(&spec(), "00000001-0000-4000-8000-000000000001", "NotNow"),
                &include_bytes!("../../fixtures/connect-notnow-securityinfo.plist")[..],
            ),
        ] {
            let written = write(&Value::Dictionary(made), PlistStyle::CoreFoundation).unwrap();
            assert_eq!(
                String::from_utf8_lossy(&written),
                String::from_utf8_lossy(expected)
            );
        }
    }

    #[test]
    fn without_the_right_the_serial_is_not_named() {
        let body = authenticate(&spec(), "t", right::INSPECT_PROFILES | right::SECURITY);
        assert!(
            !body.contains_key("SerialNumber")
                && !body.contains_key("OSVersion")
                && body.contains_key("Model")
        );
    }
}
