//! Whoever means harm to the service itself, and not to what is believed of a Mac: by sheer number, by
//! what is never finished, by messages that two readers read differently. The whole list, with the limit that
//! each meets, is in docs/threat-model.md.

mod floods;
mod framing;
