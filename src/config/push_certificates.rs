//! Who decides which push certificate Macs are woken with.

use serde::{Deserialize, Serialize};

use super::Unusable;
use crate::push::approval::Approval;
use crate::time::Span;

/// How push certificates come into use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PushCertificates {
    /// `one_person`: whoever may take one into use, or back, does it. `two_persons`: another one confirms it. The
    /// first certificate of a topic is in use at once all the same: no Mac is woken with it yet.
    pub activation: Activation,
    /// How long the second person has.
    pub confirm_within: Span,
}

/// How many persons it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    #[default]
    OnePerson,
    TwoPersons,
}

impl Default for PushCertificates {
    fn default() -> Self {
        Self {
            activation: Activation::default(),
            confirm_within: Span(std::time::Duration::from_secs(24 * 60 * 60)),
        }
    }
}

impl PushCertificates {
    pub(super) fn check(&self) -> Result<(), Unusable> {
        if self.confirm_within.0.is_zero() {
            return Err(Unusable::Zero("push_certificates.confirm_within"));
        }
        Ok(())
    }

    /// As flows ask for it.
    pub fn approval(&self) -> Approval {
        match self.activation {
            Activation::OnePerson => Approval::OnePerson,
            Activation::TwoPersons => Approval::TwoPersons {
                within: self.confirm_within.0,
            },
        }
    }
}
