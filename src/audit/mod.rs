//! The audit log: who changed what, from what to what, and why. Its entries form a chain of hashes, so
//! that none can be changed, left out or put in without everything after it changing, too.
//!
//! What was refused stands elsewhere (`flows::refuse`): anybody can be refused as often as they like, while
//! entries here are made only by who may change something.
//!
//! | | |
//! | --- | --- |
//! | [`Entry`] | one change |
//! | [`Public`] | what may stand in one: no secret is |
//! | [`Link`] | an entry as it is kept: its text, and the hash over it and all before it |
//! | [`Chain`] | checks links, one after the other, against a [`Head`] that somebody remembered |

mod chain;
mod entry;
mod line;
mod public;
mod verb;
mod who;

pub use chain::{Chain, Fault, Head, Link};
pub use entry::{Entry, Facts, Unreadable};
pub use public::{Public, Words};
pub use verb::Verb;
pub use who::Who;
