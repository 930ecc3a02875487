//! The pages as people meet them: by a plain client, by the stream of events, in a real browser.

mod browser;
mod pages;
mod stream;
