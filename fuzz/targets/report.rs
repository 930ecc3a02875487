//! Reports, and the answers they may carry. What is kept of a SecurityInfo is a property list.

#![no_main]

use attestd::mdm::Report;
use attestd::mdm::device_information::DeviceInformation;
use attestd::mdm::plist::read_dictionary;
use attestd::mdm::security_info::{SecurityInfo, without_personal_members};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(report) = Report::decode(body) {
        let _ = DeviceInformation::read(&report.body);
        if SecurityInfo::read(&report.body).is_ok() {
            assert!(read_dictionary(&without_personal_members(&report.body)).is_ok());
        }
    }
});
