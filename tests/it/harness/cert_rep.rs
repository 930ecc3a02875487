//! A CertRep taken apart by hands of the tests alone (RFC 8894 section 3.2): what it says beside
//! what it carries.

use std::collections::BTreeMap;

use attestd_sim::der::{Element, oid, read};

/// The attributes of RFC 8894 section 3.2.1, by their last number.
pub mod attribute {
    pub const MESSAGE_TYPE: u8 = 2;
    pub const PKI_STATUS: u8 = 3;
    pub const FAIL_INFO: u8 = 4;
    pub const SENDER_NONCE: u8 = 5;
    pub const RECIPIENT_NONCE: u8 = 6;
    pub const TRANSACTION_ID: u8 = 7;
}

/// What a CertRep shows to anybody.
#[derive(Debug)]
pub struct Shape {
    /// Type and octets of each signed attribute of SCEP's own.
    pub attributes: BTreeMap<u8, (u8, Vec<u8>)>,
    /// Whether the text for people of section 3.2.1.4 is there.
    pub has_fail_info_text: bool,
    /// The envelope.
    pub content: Option<Vec<u8>>,
    /// The certificates beside it.
    pub certificates: usize,
}

impl Shape {
    /// # Panics
    /// When it is no SignedData with one signer and signed attributes.
    pub fn read(reply: &[u8]) -> Self {
        let members = signed_data(reply);
        let content = members[2].children().expect("encapContentInfo");
        let content = content.get(1).map(|wrapper| {
            let octets = wrapper.children().expect("content").remove(0);
            octets.contents.to_vec()
        });
        let certificates = members.iter().find(|member| member.tag == 0xa0);
        let certificates = certificates.and_then(Element::children).unwrap_or_default();
        let infos = members
            .last()
            .and_then(Element::children)
            .expect("signerInfos");
        assert_eq!(infos.len(), 1);
        let info = infos[0].children().expect("a signerInfo");
        let signed = info.iter().find(|member| member.tag == 0xa0);
        let signed = signed.and_then(Element::children).expect("attributes");
        let prefix = oid("2.16.840.1.113733.1.9").expect("an OID");
        let text = oid("1.3.6.1.5.5.7.24.1").expect("an OID");
        let mut shape = Self {
            attributes: BTreeMap::new(),
            has_fail_info_text: false,
            content,
            certificates: certificates.len(),
        };
        for attribute in signed {
            let parts = attribute.children().expect("an attribute");
            let value = parts[1].children().expect("a value").remove(0);
            shape.has_fail_info_text |= parts[0].whole == text;
            if let Some([number]) = parts[0].contents.strip_prefix(&prefix[2..]) {
                let value = (value.tag, value.contents.to_vec());
                let again = shape.attributes.insert(*number, value);
                assert!(again.is_none(), "attribute {number} twice");
            }
        }
        shape
    }

    /// An attribute as text.
    pub fn text(&self, number: u8) -> Option<String> {
        let (_, octets) = self.attributes.get(&number)?;
        Some(String::from_utf8(octets.clone()).expect("text"))
    }

    /// An attribute as octets.
    pub fn octets(&self, number: u8) -> Option<&[u8]> {
        Some(&self.attributes.get(&number)?.1)
    }
}

/// The members of a SignedData in a ContentInfo.
fn signed_data(message: &[u8]) -> Vec<Element<'_>> {
    let (info, rest) = read(message).expect("DER");
    assert!(rest.is_empty());
    let wrapper = info.children().expect("a ContentInfo").remove(1);
    let signed = wrapper.children().expect("content").remove(0);
    signed.children().expect("SignedData")
}

/// The same in BER: every constructed element of indefinite length, every octet string in pieces.
/// What is inside an octet string stays as it is: that is what is hashed.
pub fn to_ber(der: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = der;
    while !rest.is_empty() {
        let (element, after) = read(rest).expect("DER");
        rest = after;
        if element.tag & 0x20 != 0 {
            out.extend([element.tag, 0x80]);
            out.extend(to_ber(element.contents));
            out.extend([0, 0]);
        } else if element.tag == 0x04 && element.contents.len() > 200 {
            out.extend([0x24, 0x80]);
            for piece in element.contents.chunks(100) {
                out.extend([0x04, u8::try_from(piece.len()).expect("short")]);
                out.extend(piece);
            }
            out.extend([0, 0]);
        } else {
            out.extend(element.whole);
        }
    }
    out
}
