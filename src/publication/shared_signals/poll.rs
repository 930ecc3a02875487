//! Polling for tokens (RFC 8936 section 2).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::member::{LONGEST, Malformed, object, texts};

/// Tokens in one answer; each has some 1,500 bytes.
pub const MOST: usize = 100;
/// Tokens that one request tells about.
const MOST_TOLD: usize = 2000;

const KNOWN: [&str; 4] = ["maxEvents", "returnImmediately", "ack", "setErrs"];

/// What a receiver asks for, and tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PollRequest {
    /// At most so many; 0 only tells.
    pub max_events: usize,
    pub return_immediately: bool,
    /// Names of tokens that arrived.
    pub ack: Vec<String>,
    /// Names of tokens that are not taken, and why not.
    pub refused: BTreeMap<String, String>,
}

impl PollRequest {
    /// Reads a request; an empty body asks for everything.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let members = object(body, &KNOWN)?;
        let max_events = match members.get("maxEvents") {
            None => MOST,
            Some(value) => {
                let most = value.as_u64().and_then(|most| usize::try_from(most).ok());
                most.ok_or_else(|| Malformed("maxEvents is a number from 0".to_owned()))?
            }
        };
        let return_immediately = match members.get("returnImmediately") {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => return Err(Malformed("returnImmediately is true or false".to_owned())),
        };
        Ok(Self {
            max_events: max_events.min(MOST),
            return_immediately,
            ack: texts(&members, "ack", MOST_TOLD)?.unwrap_or_default(),
            refused: refused(&members)?,
        })
    }
}

fn refused(members: &Map<String, Value>) -> Result<BTreeMap<String, String>, Malformed> {
    let wrong = || {
        let form = format!("setErrs is an object of at most {MOST_TOLD} objects with err");
        Malformed(form)
    };
    let Some(value) = members.get("setErrs") else {
        return Ok(BTreeMap::new());
    };
    let errors = value.as_object().filter(|errors| errors.len() <= MOST_TOLD);
    let errors = errors.ok_or_else(wrong)?.iter().map(|(jti, error)| {
        let why = error_code(error).ok_or_else(wrong)?;
        Ok((jti.clone(), why.to_owned()))
    });
    errors.collect()
}

/// The code of an error (RFC 8935 section 2.3, RFC 8936 section 2.6).
pub fn error_code(error: &Value) -> Option<&str> {
    let code = error.get("err")?.as_str()?;
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    let fits = (1..=LONGEST.min(64)).contains(&code.len());
    (fits && code.bytes().all(is_word)).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_of_the_standard_are_read() {
        // RFC 8936 section 2.4.
        let initial = PollRequest::read(br#"{"maxEvents":10,"returnImmediately":true}"#);
        let initial = initial.expect("read");
        assert_eq!((initial.max_events, initial.return_immediately), (10, true));
        let ack_only = br#"{"ack":["4d3559ec67504aaba65d40b0363faad8","3d0c3cf797584bd193bd0fb1bd4e7d30"],"maxEvents":0}"#;
        let ack_only = PollRequest::read(ack_only).expect("read");
        assert_eq!((ack_only.max_events, ack_only.ack.len()), (0, 2));
        let errors = br#"{"ack":["3d0c"],"setErrs":{"4d35":{"err":"authentication_failed","description":"The SET could not be authenticated"}},"returnImmediately":true}"#;
        let errors = PollRequest::read(errors).expect("read");
        assert_eq!(errors.refused["4d35"], "authentication_failed");
        let empty = PollRequest::read(b"{}").expect("read");
        assert_eq!((empty.max_events, empty.return_immediately), (MOST, false));
        let many = PollRequest::read(br#"{"maxEvents":1000000}"#).expect("read");
        assert_eq!(many.max_events, MOST);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bad in [
            "",
            "[]",
            "{",
            "{} {}",
            r#"{"maxEvents":-1}"#,
            r#"{"maxEvents":1.5}"#,
            r#"{"maxEvents":"1"}"#,
            r#"{"maxEvents":1,"maxEvents":2}"#,
            r#"{"maxevents":1}"#,
            r#"{"returnImmediately":1}"#,
            r#"{"ack":"a"}"#,
            r#"{"ack":[1]}"#,
            r#"{"setErrs":[]}"#,
            r#"{"setErrs":{"a":"b"}}"#,
            r#"{"setErrs":{"a":{"description":"b"}}}"#,
            r#"{"setErrs":{"a":{"err":"two\nlines"}}}"#,
        ] {
            assert!(PollRequest::read(bad.as_bytes()).is_err(), "{bad}");
        }
        let many: Vec<_> = (0..=MOST_TOLD).map(|number| number.to_string()).collect();
        let many = serde_json::json!({ "ack": many }).to_string();
        assert!(PollRequest::read(many.as_bytes()).is_err());
    }
}
