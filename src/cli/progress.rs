//! Progress bars: drawn once there is something to count, one at a time, and only for people.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a bar moves without news.
const TICK: Duration = Duration::from_millis(100);

/// A bar on standard error. Nothing where that, or standard output, is no terminal: then nobody sees it, or another
/// program has started this one and shows a bar of its own.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    hidden: bool,
}

impl Progress {
    /// Counts things.
    pub fn of_things(what: &'static str) -> Self {
        Self::new(what, "{msg} {wide_bar} {pos}/{len} {eta}")
    }

    /// Counts parts of something, whatever they are.
    pub fn of_parts() -> Self {
        Self::new("", "{msg} {wide_bar} {percent} %")
    }

    /// Says what is being done.
    pub fn of_steps() -> Self {
        let progress = Self::new("", "{spinner} {msg}");
        progress.draw();
        progress
    }

    fn new(what: &'static str, template: &str) -> Self {
        let hidden = !(std::io::stderr().is_terminal() && std::io::stdout().is_terminal());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_message(what);
        // The templates are ours; a wrong one is the usual bar.
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { bar, hidden }
    }

    fn draw(&self) {
        if !self.hidden && self.bar.is_hidden() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(TICK);
        }
    }

    /// What is being done now.
    pub fn say(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }

    /// How far it is. A total of nothing is not shown.
    pub fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if total > 0 {
            self.draw();
        }
    }

    /// One more.
    pub fn add_one(&self) {
        self.bar.inc(1);
    }

    /// How many there were.
    #[cfg(test)]
    pub fn position(&self) -> u64 {
        self.bar.position()
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_drawn_before_there_is_something_to_count() {
        let progress = Progress { hidden: false, ..Progress::of_things("blocks") };
        progress.set(0, 0);
        assert!(progress.bar.is_hidden());
        progress.end();
    }
}
