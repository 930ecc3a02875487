//! Why a token lets nobody in.

/// Why a token lets nobody in. The words are counted and logged; the token never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    #[error("the token is larger than is read")]
    TooLong,
    #[error("the token is not three parts of base64url, the first two one JSON object each")]
    Malformed,
    #[error("the token is of another type than at+jwt or JWT")]
    Type,
    #[error("the token is signed by an algorithm that is not taken")]
    Algorithm,
    #[error("the token has an extension that is critical, or names its own key")]
    Extension,
    #[error("no key of the issuer has the token's kid")]
    UnknownKey,
    #[error("the token does not say by which of several keys it is signed")]
    NoKeyId,
    #[error("the key of the token's kid is of another kind than its algorithm")]
    KeyMismatch,
    #[error("the signature does not verify")]
    Signature,
    #[error("a claim is missing, or not of its form")]
    Claims,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is for somebody else")]
    Audience,
    #[error("the token says no end")]
    NoEnd,
    #[error("the token is over")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is an ID token, or another that is not for access")]
    NotForAccess,
    #[error("the token is bound to a key, which a bearer does not prove to have")]
    Bound,
}

impl Refused {
    /// Every one.
    pub const ALL: [Self; 17] = [
        Self::TooLong,
        Self::Malformed,
        Self::Type,
        Self::Algorithm,
        Self::Extension,
        Self::UnknownKey,
        Self::NoKeyId,
        Self::KeyMismatch,
        Self::Signature,
        Self::Claims,
        Self::Issuer,
        Self::Audience,
        Self::NoEnd,
        Self::Expired,
        Self::NotYet,
        Self::NotForAccess,
        Self::Bound,
    ];

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Type => "type",
            Self::Algorithm => "algorithm",
            Self::Extension => "extension",
            Self::UnknownKey => "unknown_key",
            Self::NoKeyId => "no_key_id",
            Self::KeyMismatch => "key_mismatch",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::NoEnd => "no_end",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::NotForAccess => "not_for_access",
            Self::Bound => "bound",
        }
    }
}
