//! Words of an officer that are kept with a push certificate.

/// A reason, an Apple Account: short, and on one line. Space around it is no part of it.
///
/// # Errors
/// What it must be like.
pub fn note(text: &str) -> Result<String, String> {
    const MOST: usize = 200;
    let text = text.trim();
    let sensible =
        (1..=MOST).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    sensible
        .then(|| text.to_owned())
        .ok_or_else(|| format!("1 to {MOST} characters, none of them a control character"))
}

/// The name in a request. X.520 has 64 characters for a common name.
///
/// # Errors
/// What it must be like.
pub fn common_name(text: &str) -> Result<String, String> {
    let text = note(text)?;
    if text.chars().count() > 64 {
        return Err("at most 64 characters".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_short_and_on_one_line() {
        assert_eq!(
            note(" the old one was revoked\n"),
            Ok("the old one was revoked".to_owned())
        );
        for bad in ["", "  ", "a\nb", &"x".repeat(201)] {
            assert!(note(bad).is_err(), "{bad:?}");
        }
        assert!(common_name(&"x".repeat(64)).is_ok() && common_name(&"x".repeat(65)).is_err());
    }
}
