//! What a check found.

use std::fmt::Display;

use serde::Serialize;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// It could not be, or need not be, looked at.
    NotChecked,
    Ok,
    /// It works, and will not for ever.
    Warning,
    Fault,
}

/// What one check found, and what is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub check: &'static str,
    pub standing: Standing,
    pub found: String,
    /// Empty where nothing is.
    #[serde(rename = "do")]
    pub todo: String,
}

/// Everything that was found, in the order in which it was looked at.
#[derive(Debug, Default)]
pub(super) struct Findings(pub Vec<Finding>);

impl Standing {
    /// The word people read.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NotChecked => "not checked",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "FAULT",
        }
    }
}

impl Findings {
    pub(super) fn ok(&mut self, check: &'static str, found: impl Display) {
        self.add(check, Standing::Ok, found, "");
    }

    pub(super) fn warning(&mut self, check: &'static str, found: impl Display, todo: &str) {
        self.add(check, Standing::Warning, found, todo);
    }

    pub(super) fn fault(&mut self, check: &'static str, found: impl Display, todo: &str) {
        self.add(check, Standing::Fault, found, todo);
    }

    pub(super) fn not_checked(&mut self, check: &'static str, why: impl Display) {
        self.add(check, Standing::NotChecked, why, "");
    }

    /// The worst there is.
    pub(super) fn worst(&self) -> Standing {
        let all = self.0.iter().map(|finding| finding.standing);
        all.max().unwrap_or(Standing::NotChecked)
    }

    fn add(&mut self, check: &'static str, standing: Standing, found: impl Display, todo: &str) {
        self.0.push(Finding {
            check,
            standing,
            found: found.to_string(),
            todo: todo.to_owned(),
        });
    }
}
