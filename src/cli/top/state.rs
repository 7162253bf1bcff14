//! What the screen shows and what keys change; knows no terminal.
//!
//! Invariant: while it is paused nothing that is shown changes but by keys.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::asker::Sample;
use super::numbers::Numbers;
use super::tables::{self, Kind, Row, Sort};

/// Intervals that + and - go through.
const INTERVALS_MS: [u64; 9] = [100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];
/// Rows that Page Up and Page Down go.
const PAGE: usize = 10;
/// A daemon that has not answered for so long is said not to.
const SILENCE: Duration = Duration::from_secs(5);

/// How the daemon is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// It was not asked yet.
    Asking,
    /// It answers.
    Answers,
    /// None runs.
    Absent,
    /// It can't be asked: why.
    Failed(String),
}

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing beyond what is shown.
    Stay,
    /// Other questions are to be asked, or at other times.
    Ask,
    /// The end.
    Quit,
}

/// How one table is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) sort: Sort,
    pub(super) selected: usize,
}

/// All that the screen depends on.
#[derive(Debug)]
pub(super) struct State {
    pub(super) numbers: Numbers,
    pub(super) link: Link,
    pub(super) interval: Duration,
    /// Only this workspace.
    pub(super) only: Option<String>,
    pub(super) paused: bool,
    pub(super) helping: bool,
    pub(super) focus: usize,
    looks: [Look; Kind::ALL.len()],
    pub(super) colours: bool,
    heard: Instant,
}

impl State {
    pub(super) fn new(interval: Duration, only: Option<String>, colours: bool) -> Self {
        Self {
            numbers: Numbers::default(),
            link: Link::Asking,
            interval,
            only,
            paused: false,
            helping: false,
            focus: 0,
            looks: Kind::ALL.map(|_| Look { sort: Sort::default(), selected: 0 }),
            colours,
            heard: Instant::now(),
        }
    }

    /// Takes what the daemon said.
    pub(super) fn take(&mut self, sample: Sample) {
        self.heard = Instant::now();
        let link = match &sample {
            Sample::Report(_) => Link::Answers,
            Sample::Absent => Link::Absent,
            Sample::Failed(failure) => Link::Failed(failure.message.clone()),
        };
        let ended = self.link != link && link == Link::Absent;
        self.link = link;
        if self.paused {
            return;
        }
        match sample {
            Sample::Report(report) => self.numbers.take(*report, self.interval / 2),
            Sample::Absent if ended => self.numbers.end(),
            _ => {}
        }
    }

    /// How long the daemon has been silent, once that is unusual.
    pub(super) fn silence(&self) -> Option<Duration> {
        let silent = self.heard.elapsed();
        (silent > SILENCE.max(self.interval * 3)).then_some(silent)
    }

    pub(super) fn look(&self, kind: Kind) -> Look {
        self.looks[kind as usize]
    }

    pub(super) fn is_focused(&self, kind: Kind) -> bool {
        self.focused() == kind
    }

    pub(super) fn focused(&self) -> Kind {
        Kind::ALL[self.focus]
    }

    pub(super) fn rows(&self, kind: Kind) -> Vec<Row> {
        tables::rows(kind, &self.numbers, self.look(kind).sort)
    }

    /// Does what `key` means.
    pub(super) fn key(&mut self, key: KeyEvent) -> Act {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let kind = self.focused();
        let rows = self.rows(kind).len();
        let look = &mut self.looks[kind as usize];
        match key.code {
            KeyCode::Char('c' | 'd') if control => return Act::Quit,
            KeyCode::Esc if self.helping => self.helping = false,
            KeyCode::Char('q') | KeyCode::Esc => return Act::Quit,
            KeyCode::Char('?' | 'h') => self.helping = !self.helping,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('s') => {
                look.sort = Sort { column: (look.sort.column + 1) % kind.columns().len(), reversed: false };
            }
            KeyCode::Char('r') => look.sort.reversed = !look.sort.reversed,
            KeyCode::Tab => self.focus = (self.focus + 1) % Kind::ALL.len(),
            KeyCode::BackTab => self.focus = (self.focus + Kind::ALL.len() - 1) % Kind::ALL.len(),
            KeyCode::Up | KeyCode::Char('k') => look.selected = look.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => look.selected += 1,
            KeyCode::PageUp => look.selected = look.selected.saturating_sub(PAGE),
            KeyCode::PageDown => look.selected += PAGE,
            KeyCode::Home => look.selected = 0,
            KeyCode::End => look.selected = rows,
            KeyCode::Char('+') => return self.pace(|ms| INTERVALS_MS.into_iter().find(|other| *other > ms)),
            KeyCode::Char('-') => return self.pace(|ms| INTERVALS_MS.into_iter().rev().find(|other| *other < ms)),
            KeyCode::Char('w') => return self.only(),
            _ => {}
        }
        let look = &mut self.looks[kind as usize];
        look.selected = look.selected.min(rows.saturating_sub(1));
        Act::Stay
    }

    fn pace(&mut self, next: impl Fn(u64) -> Option<u64>) -> Act {
        let now = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        self.interval = next(now).map_or(self.interval, Duration::from_millis);
        Act::Ask
    }

    /// Only the workspace of the selected row, or of the first that has one; all again, where it was one.
    fn only(&mut self) -> Act {
        self.only = if self.only.is_some() {
            None
        } else {
            let of = |kind, at| self.rows(kind).into_iter().nth(at).map(|row| row.workspace);
            let kind = self.focused();
            let selected = of(kind, self.look(kind).selected).filter(|name| !name.is_empty());
            selected.or_else(|| of(Kind::Workspaces, self.look(Kind::Workspaces).selected))
        };
        Act::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::screen::tests::report;

    fn state() -> State {
        let mut state = State::new(Duration::from_secs(1), None, false);
        state.take(Sample::Report(Box::new(report(1_000))));
        state
    }

    fn press(state: &mut State, keys: &str) -> Act {
        let mut act = Act::Stay;
        for key in keys.chars() {
            let code = match key {
                '\t' => KeyCode::Tab,
                '\x1b' => KeyCode::Esc,
                '\n' => KeyCode::Down,
                other => KeyCode::Char(other),
            };
            act = state.key(code.into());
        }
        act
    }

    #[test]
    fn a_pause_keeps_the_numbers() {
        let mut state = state();
        press(&mut state, "p");
        state.take(Sample::Report(Box::new(report(2_000))));
        assert_eq!(state.numbers.report().map(|report| report.uptime_ms), Some(1_000));
        press(&mut state, " ");
        state.take(Sample::Report(Box::new(report(3_000))));
        assert_eq!(state.numbers.rates().map(|rates| rates.interval_ms), Some(2_000));
        state.take(Sample::Absent);
        assert!(state.numbers.report().is_none() && state.link == Link::Absent);
    }

    #[test]
    fn keys_sort_the_focused_table() {
        let mut state = state();
        let first = |state: &State| state.rows(Kind::Processes)[0].cells[3].text.clone();
        press(&mut state, "\t\t");
        assert_eq!((state.focused(), first(&state).as_str()), (Kind::Processes, "indexer"));
        press(&mut state, "r");
        assert_ne!(first(&state), "indexer");
        press(&mut state, "sss");
        assert_eq!((first(&state).as_str(), state.look(Kind::Processes).sort.column), ("cat", 3));
        assert_eq!(state.look(Kind::Waiters).sort, Sort::default());
        state.key(KeyCode::BackTab.into());
        assert_eq!(state.focused(), Kind::Workspaces);
    }

    #[test]
    fn one_workspace_is_that_of_the_selected_row() {
        let mut state = state();
        assert_eq!(press(&mut state, "\t\nw"), Act::Ask);
        assert_eq!(state.only.as_deref(), Some("second"));
        press(&mut state, "w");
        assert_eq!(state.only, None);
        press(&mut state, "\n\n\n\n\n");
        assert_eq!(state.look(Kind::Workspaces).selected, 1, "not below the last");
    }

    #[test]
    fn escape_leaves_the_help_first() {
        let mut state = state();
        press(&mut state, "?");
        assert_eq!((state.helping, press(&mut state, "\x1b"), state.helping), (true, Act::Stay, false));
        assert_eq!(press(&mut state, "\x1b"), Act::Quit);
        assert_eq!(press(&mut state, "q"), Act::Quit);
        assert_eq!(state.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Act::Quit);
    }

    #[test]
    fn intervals_have_ends() {
        let mut state = state();
        press(&mut state, &"+".repeat(20));
        assert_eq!(state.interval, Duration::from_mins(1));
        press(&mut state, &"-".repeat(20));
        assert_eq!(state.interval, Duration::from_millis(100));
    }
}
