//! What a person sees: lines of progress, and the live log.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::Result;
use local_cloud::Event;

use crate::embedded::{Kind, Step};

/// Writes a line to standard output. A reader that went away is no reason to fail: the work goes on.
pub(crate) fn say(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stdout(), "{}", line.as_ref());
}

#[derive(Clone, Copy)]
pub(crate) enum Style {
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

/// The text in a style, where the terminal shows styles.
pub(crate) fn styled(style: Style, text: &str) -> String {
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return text.to_owned();
    }
    let code = match style {
        Style::Bold => "1",
        Style::Dim => "2",
        Style::Green => "32",
        Style::Yellow => "33",
        Style::Red => "31",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// One line for a step; `done`: it was carried out, otherwise foreseen.
pub(crate) fn show_step(step: &Step, done: bool) {
    let (style, word) = match (step.kind, done) {
        (Kind::Created, true) => (Style::Green, "created"),
        (Kind::Created, false) => (Style::Green, "create"),
        (Kind::Updated, true) => (Style::Yellow, "changed"),
        (Kind::Updated, false) => (Style::Yellow, "change"),
        (Kind::Replaced, true) => (Style::Yellow, "replaced"),
        (Kind::Replaced, false) => (Style::Yellow, "replace"),
        (Kind::Deleted, true) => (Style::Red, "deleted"),
        (Kind::Deleted, false) => (Style::Red, "delete"),
        (Kind::Unchanged, _) => (Style::Dim, "unchanged"),
    };
    // `aws:lambda/function:Function` says its name twice.
    let short = step.type_token.split(['/', ':']).collect::<Vec<_>>();
    let kind = format!("{} {}", short.get(1).unwrap_or(&""), short.last().unwrap_or(&""));
    let mut line = format!("  {} {kind:<46} {:<20}", styled(style, &format!("{word:<9}")), step.name);
    if done && step.kind != Kind::Unchanged {
        line.push_str(&format!(" {:>7.1} ms", step.took.as_secs_f64() * 1000.0));
    }
    if !step.properties.is_empty() {
        line.push_str(&format!("  {}", styled(Style::Dim, &step.properties.join(", "))));
    }
    say(line.trim_end());
}

/// Follows the events file of a stage from where it ends now.
pub(crate) struct LiveLog {
    file: Option<File>,
    rest: Vec<u8>,
}

impl LiveLog {
    pub(crate) fn open(path: &Path) -> Self {
        let mut file = File::open(path).ok();
        if let Some(file) = &mut file {
            let _ = file.seek(SeekFrom::End(0));
        }
        Self { file, rest: Vec::new() }
    }

    /// Shows what was added since the last time.
    pub(crate) fn show_new(&mut self, path: &Path) -> Result<()> {
        let Some(file) = &mut self.file else {
            self.file = File::open(path).ok();
            return Ok(());
        };
        file.read_to_end(&mut self.rest)?;
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            if let Ok(event) = serde_json::from_slice::<Event>(&line) {
                show_event(&event);
            }
        }
        // The file was begun anew: go on with the new one.
        if std::fs::metadata(path).is_ok_and(|now| file.stream_position().is_ok_and(|here| now.len() < here)) {
            self.file = File::open(path).ok();
        }
        Ok(())
    }
}

fn show_event(event: &Event) {
    let clock = |time: &str| styled(Style::Dim, time.get(11..19).unwrap_or(time));
    match event {
        Event::Invocation {
            time, function, duration_ms, init_ms, memory_size_mb, max_memory_used_mb, error, ..
        } => {
            let mut line = format!(
                "{}  {:<7} {function:<40} {duration_ms:>8.1} ms  {max_memory_used_mb:>4} of {memory_size_mb} MB",
                clock(time),
                "call"
            );
            if let Some(init) = init_ms {
                line.push_str(&format!("  started in {init:.1} ms"));
            }
            if let Some(error) = error {
                line.push_str(&format!("  {}", styled(Style::Red, error)));
            }
            say(line);
        }
        Event::Mail { time, to, subject } => {
            say(format!("{}  {:<7} {subject}  to {}", clock(time), styled(Style::Green, "mail   "), to.join(", ")));
        }
        Event::Decision { time, principal, action, resource, allowed: false, why, .. } => {
            let word = styled(Style::Red, "denied ");
            say(format!("{}  {word} {action} on {resource} to {principal}: {why}", clock(time)));
        }
        Event::Decision { .. } => {}
    }
}
