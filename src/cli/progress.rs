//! How far long work is: a line on the terminal, and nothing where there is none.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line that is drawn on standard error, if that is a terminal, and gone once the work is done.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Work on things of this kind, named in the plural. How many there are is said as it goes on.
    pub(super) fn new(work: &str, things: &'static str) -> Self {
        // Where standard error is no terminal this draws nothing.
        let bar = ProgressBar::new(0);
        let template =
            format!("{{msg}} {{bar:30}} {{human_pos}} of {{human_len}} {things}, {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.set_message(work.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// So many are done, of all.
    pub(super) fn at(&self, done: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
