//! Property lists of both forms: what is read is written, and reads back as the same.

#![no_main]

use attestd::mdm::plist::{read_dictionary, to_xml};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    if let Ok(dictionary) = read_dictionary(body) {
        let written = to_xml(&dictionary);
        assert_eq!(read_dictionary(&written).as_ref(), Ok(&dictionary));
    }
});
