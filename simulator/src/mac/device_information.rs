//! DeviceInformation without its attestation (apple-protocol 5.1). Pure.

use plist::{Dictionary, Value};

use super::messages::right;
use super::spec::MacSpec;

/// The query whose answer is a certificate chain.
pub const ATTESTATION: &str = "DevicePropertiesAttestation";

/// QueryResponses: the UDID always, the rest as asked and permitted; what is unknown or not
/// permitted is silently left out.
pub fn query_responses<'a>(
    spec: &MacSpec,
    queries: impl IntoIterator<Item = &'a str>,
    rights: i64,
) -> Dictionary {
    let mut found = Dictionary::new();
    found.insert("UDID".into(), spec.udid.as_str().into());
    for query in queries {
        // ProvisioningUDID alone needs no right.
        let permitted = query == "ProvisioningUDID" || rights & right::DEVICE_INFORMATION != 0;
        if permitted && let Some(value) = answer(spec, query) {
            found.insert(query.to_owned(), value);
        }
    }
    found
}

fn answer(spec: &MacSpec, query: &str) -> Option<Value> {
    let host = spec.device_name.to_lowercase().replace(' ', "-");
    Some(match query {
        "UDID" => spec.udid.as_str().into(),
        "ProvisioningUDID" => spec.provisioning_udid.as_str().into(),
        "SerialNumber" => spec.serial.as_str().into(),
        "OSVersion" => spec.os_version.as_str().into(),
        "BuildVersion" | "SupplementalBuildVersion" => spec.build_version.as_str().into(),
        "SupplementalOSVersionExtra" => "".into(),
        "ProductName" | "Model" => spec.model.as_str().into(),
        "ModelName" => spec.model_name.as_str().into(),
        "ModelNumber" if spec.apple_silicon => spec.model_number.as_str().into(),
        "IsAppleSilicon" => spec.apple_silicon.into(),
        "DeviceName" => spec.device_name.as_str().into(),
        "HostName" => format!("{host}.local").into(),
        "LocalHostName" => host.into(),
        "SystemIntegrityProtectionEnabled" => spec.claimed_boot().sip_enabled.into(),
        "IsSupervised" | "PINRequiredForDeviceLock" | "IsActivationLockSupported" => true.into(),
        "PINRequiredForEraseDevice" | "SupportsLOMDevice" => false.into(),
        "SoftwareUpdateDeviceID" if !crate::apple::version_at_least(&spec.os_version, 27, 0) => {
            spec.software_update_device_id.as_str().into()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: [&str; 4] = [
        "SerialNumber",
        "ProvisioningUDID",
        "PushToken",
        "NoSuchQuery",
    ];

    fn keys(rights: i64) -> Vec<String> {
        let mut keys: Vec<_> = query_responses(&MacSpec::random().unwrap(), ASKED, rights)
            .keys()
            .cloned()
            .collect();
        keys.sort();
        keys
    }

    #[test]
    fn unknown_and_unpermitted_queries_are_left_out() {
        assert_eq!(keys(16), ["ProvisioningUDID", "SerialNumber", "UDID"]);
        assert_eq!(keys(1024), ["ProvisioningUDID", "UDID"]);
    }
}
