//! Paints the screen, whatever its size.
//!
//! A wide one has three panels and four tables; a small one a summary and the
//! focused table. Invariant: depends on [`State`] alone, and never fails for
//! want of room.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Sparkline};

use super::super::output::{escape, grouped};
use super::numbers::{Numbers, Rates, Times, byte_rate, hit_share, rate, span};
use super::plain::progress;
use super::state::{Link, State};
use super::tables::{Column, Kind, Row, fitting};
use crate::config::quantity::human_bytes;
use crate::daemon::facts::top::{TopReport, WarmRow};

/// Below this there is only room for the focused table.
const WIDE: (u16, u16) = (60, 20);
/// From this width on there is room for the third panel.
const PANELS_WIDE: u16 = 78;
/// From this width on a panel has room for whole words.
const WORDS_FROM: u16 = 44;
/// Warms shown.
const WARMS: usize = 3;
/// Cells of a bar's label and number.
const BAR_LABEL: u16 = 9;
const BAR_NUMBER: u16 = 8;

const HELP: &[(&str, &str)] = &[
    ("q, Esc, Ctrl-C", "quit"),
    ("p, Space", "pause, and go on"),
    ("Tab, Shift-Tab", "the next table, the one before"),
    ("Up, Down, j, k", "select a row; Page Up, Page Down, Home, End"),
    ("s", "sort the table by its next column"),
    ("r", "sort it the other way round"),
    ("w", "only the workspace of the selected row, all again"),
    ("+, -", "look less often, more often"),
    ("?, h", "this help"),
];

/// Titles, keys, and what is most worth reading.
const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
/// Heads of columns, lines, and what rarely matters. No colour: some terminals paint grey as their background.
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
/// The selected row.
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// What colours mean. Without colours they are left out; nothing is told by colour alone.
#[derive(Clone, Copy)]
struct Theme {
    colours: bool,
}

impl Theme {
    fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn good(self) -> Style {
        self.colour(Color::Green)
    }

    fn busy(self) -> Style {
        self.colour(Color::Cyan)
    }

    fn slow(self) -> Style {
        self.colour(Color::Yellow)
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }
}

/// Paints `state`.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let area = frame.area();
    let theme = Theme { colours: state.colours };
    let footer = u16::from(area.height >= 8);
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(footer)]).areas(area);
    frame.render_widget(Paragraph::new(header(state, theme, head.width)), head);
    if area.width >= WIDE.0 && area.height >= WIDE.1 {
        wide(frame, body, state, theme);
    } else {
        narrow(frame, body, state, theme);
    }
    frame.render_widget(Paragraph::new(keys(state)), foot);
    if state.helping {
        help(frame, area, theme);
    }
}

/// The first line: what runs, for how long, and when this was.
fn header(state: &State, theme: Theme, width: u16) -> Line<'static> {
    let mut spans = vec![Span::styled("larder top", TITLE)];
    let mut add = |text: String, style| spans.push(Span::styled(format!("  {text}"), style));
    if state.paused {
        add("paused".to_owned(), theme.slow().add_modifier(Modifier::REVERSED));
    }
    match (&state.link, state.silence()) {
        (Link::Absent, _) => add("no daemon runs; waiting for one".to_owned(), theme.bad()),
        (Link::Failed(message), _) => add(escape(message), theme.bad()),
        (_, Some(silent)) => add(format!("the daemon has not answered for {}s", silent.as_secs()), theme.bad()),
        (Link::Asking, None) => add("asking the daemon".to_owned(), Style::new()),
        (Link::Answers, None) => {}
    }
    if let Some(only) = &state.only {
        add(format!("only {}", escape(only)), theme.slow());
    }
    if let Some(report) = state.numbers.report() {
        let clock = report.time.get(11..19).unwrap_or_default();
        add(format!("{clock}Z"), Style::new());
        add(format!("up {}", span(report.uptime_ms)), Style::new());
        if width >= WIDE.0 {
            add(format!("every {}", humantime::format_duration(state.interval)), FAINT);
            add(escape(&report.home), FAINT);
            add(format!("v{}", escape(&report.version)), FAINT);
        }
    }
    Line::from(spans)
}

fn keys(state: &State) -> Line<'static> {
    let keys = [
        ("q", "quit"),
        ("p", if state.paused { "go on" } else { "pause" }),
        ("Tab", "table"),
        ("s", "sort"),
        ("r", "reverse"),
        ("w", if state.only.is_some() { "all" } else { "workspace" }),
        ("+-", "interval"),
        ("?", "help"),
    ];
    let spans =
        keys.into_iter().flat_map(|(key, what)| [Span::styled(key, TITLE), Span::styled(format!(" {what}  "), FAINT)]);
    Line::from(spans.collect::<Vec<_>>())
}

/// Panels over tables.
fn wide(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let tall = area.height >= 32;
    let warms = state.numbers.report().map_or(0, |report| report.warms.len().min(WARMS));
    let warm_lines = u16::try_from(if warms == 0 { 0 } else { warms + 1 }).unwrap_or(0);
    let panels = if tall { 10 } else { 8 };
    let left = area.height.saturating_sub(panels + warm_lines);
    let workspaces = state.rows(Kind::Workspaces).len().saturating_add(2);
    let most = if tall { left / 3 } else { 4 };
    let workspaces = u16::try_from(workspaces).unwrap_or(u16::MAX).clamp(3, most.max(3));
    let busy = (left.saturating_sub(workspaces) / 2).max(3);
    let [top, warm, waiters, places, busy] = Layout::vertical([
        Constraint::Length(panels),
        Constraint::Length(warm_lines),
        Constraint::Min(3),
        Constraint::Length(workspaces),
        Constraint::Length(busy),
    ])
    .areas(area);
    if let Some(report) = state.numbers.report() {
        overview(frame, top, state, report, theme);
        warming(frame, warm, &report.warms, theme);
    }
    table(frame, waiters, state, Kind::Waiters, theme);
    table(frame, places, state, Kind::Workspaces, theme);
    let [left, _, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(1), Constraint::Fill(1)]).areas(busy);
    table(frame, left, state, Kind::Processes, theme);
    table(frame, right, state, Kind::Directories, theme);
}

/// A summary over the focused table.
fn narrow(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let lines = u16::from(area.height >= 4);
    let [top, rest] = Layout::vertical([Constraint::Length(lines), Constraint::Min(0)]).areas(area);
    if let (Some(report), Some(rates)) = (state.numbers.report(), state.numbers.rates()) {
        let line = Line::from(vec![
            Span::styled(byte_rate(rates.bytes), theme.busy()),
            Span::styled(format!(" {}miss", rate(rates.misses)), theme.slow()),
            Span::raw(format!(" {}wait", grouped(report.waiters))),
            Span::styled(format!(" {}hit", rate(rates.hits)), theme.good()),
        ]);
        frame.render_widget(Paragraph::new(line), top);
    }
    table(frame, rest, state, state.focused(), theme);
}

/// The three panels.
fn overview(frame: &mut Frame<'_>, area: Rect, state: &State, report: &TopReport, theme: Theme) {
    let gap = Constraint::Length(1);
    let rates = state.numbers.rates().copied().unwrap_or_default();
    if area.width < PANELS_WIDE {
        let [left, _, right] = Layout::horizontal([Constraint::Fill(1), gap, Constraint::Length(31)]).areas(area);
        fetched(frame, left, &state.numbers, &rates, report, theme);
        latency(frame, right, &rates, report, theme);
        return;
    }
    let queued = Constraint::Length((area.width / 4).clamp(20, 36));
    let [left, _, middle, _, right] =
        Layout::horizontal([Constraint::Fill(1), gap, Constraint::Length(31), gap, queued]).areas(area);
    fetched(frame, left, &state.numbers, &rates, report, theme);
    latency(frame, middle, &rates, report, theme);
    queue(frame, right, report, theme);
}

/// A title on a line of its own; returns what is below it.
fn titled(frame: &mut Frame<'_>, area: Rect, title: impl Into<Line<'static>>) -> Rect {
    let block = Block::new().borders(Borders::TOP).border_style(FAINT).title(title.into().style(TITLE));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    inner
}

/// What comes from remotes, and what reads find: now and in the past.
fn fetched(frame: &mut Frame<'_>, area: Rect, numbers: &Numbers, rates: &Rates, report: &TopReport, theme: Theme) {
    let inner = titled(frame, area, " Fetched and read ");
    let misses = (inner.height.saturating_sub(3)) / 3;
    let [now, bytes, reading, lacking, last] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(misses.max(1)),
        Constraint::Length(1),
    ])
    .areas(inner);
    let (objects, requests) = if inner.width < WORDS_FROM { ("obj", "req") } else { ("objects", "requests") };
    let spans = vec![
        Span::styled(byte_rate(rates.bytes), theme.busy().add_modifier(Modifier::BOLD)),
        Span::raw(format!("  {} {objects}/s  {} {requests}/s", rate(rates.objects), rate(rates.requests))),
    ];
    frame.render_widget(Paragraph::new(Line::from(spans)), now);
    sparkline(frame, bytes, numbers, |rates| rates.bytes, theme.busy());
    let share = hit_share(rates.hits, rates.misses).map_or_else(String::new, |share| format!("  {share}"));
    let spans = vec![
        Span::styled(format!("{} misses/s", rate(rates.misses)), theme.slow()),
        Span::styled(format!("  {} hits/s{share}", rate(rates.hits)), theme.good()),
    ];
    frame.render_widget(Paragraph::new(Line::from(spans)), reading);
    sparkline(frame, lacking, numbers, |rates| rates.misses, theme.slow());
    let counters = &report.counters;
    let total = format!("{} in {} objects", human_bytes(counters.remote_bytes), grouped(counters.remote_objects));
    frame.render_widget(Paragraph::new(Line::styled(total, FAINT)), last);
}

fn sparkline(frame: &mut Frame<'_>, area: Rect, numbers: &Numbers, what: impl Fn(&Rates) -> f64, style: Style) {
    let past = numbers.past(area.width.into(), what);
    frame.render_widget(Sparkline::default().data(&past).style(style), area);
}

/// How long reads took, and what else is under way.
fn latency(frame: &mut Frame<'_>, area: Rect, rates: &Rates, report: &TopReport, theme: Theme) {
    let inner = titled(frame, area, " Latency ");
    let line = |name: &'static str, times: &Times| {
        let bounds = [times.p50_below_us, times.p95_below_us, times.p99_below_us, times.max_below_us];
        let mut spans = vec![Span::raw(format!("{name:<7}"))];
        spans.extend(bounds.map(|bound| Span::raw(short(times, bound))));
        Line::from(spans)
    };
    let (counters, queue) = (&report.counters, &report.queue);
    let troubles = counters.remote_failures + counters.damaged;
    let style = if troubles > 0 { theme.bad() } else { FAINT };
    let lines = vec![
        Line::styled(format!("{:<7}{:>6}{:>6}{:>6}{:>6}", "below", "p50", "p95", "p99", "max"), FAINT),
        line("read", &rates.reads),
        line("fetch", &rates.hydrations),
        Line::raw(format!("{} reads, {} waited", grouped(rates.reads.count), grouped(rates.hydrations.count))),
        Line::raw(format!("{} arrived, not stored", human_bytes(queue.unsaved_bytes))),
        Line::styled(format!("{} evicted", grouped(counters.evicted_objects)), FAINT),
        Line::styled(
            format!("{} failed, {} damaged", grouped(counters.remote_failures), grouped(counters.damaged)),
            style,
        ),
    ];
    frame.render_widget(Paragraph::new(lines), inner);
}

/// A bound in six cells; the head says what it is.
fn short(times: &Times, bound: Option<u64>) -> String {
    let text = match (times.count, bound) {
        (0, _) => "-".to_owned(),
        (_, None) => ">1m".to_owned(),
        (_, Some(_)) => times.text(bound).trim_start_matches('<').to_owned(),
    };
    format!("{text:>6}")
}

/// Bars, as long as their share of the longest.
fn queue(frame: &mut Frame<'_>, area: Rect, report: &TopReport, theme: Theme) {
    let inner = titled(frame, area, " Queue ");
    let queue = &report.queue;
    let sent = [("in flight", queue.inflight), ("of bulk", queue.bulk_inflight)];
    let lengths: Vec<_> = queue.queued().into_iter().chain(sent).collect();
    let most = lengths.iter().map(|(_, length)| *length).max().unwrap_or(0).max(1);
    let room = inner.width.saturating_sub(BAR_LABEL + BAR_NUMBER + 2);
    let lines = lengths.into_iter().map(|(class, length)| {
        // Whatever is there shows.
        let full = u128::from(length) * u128::from(room);
        let cells = usize::try_from(full.div_ceil(u128::from(most))).unwrap_or(0);
        let style = if class == "read" { theme.slow() } else { theme.busy() };
        Line::from(vec![
            Span::raw(format!("{class:<9} ")),
            Span::styled(format!("{:>8} ", grouped(length)), if length > 0 { Style::new() } else { FAINT }),
            Span::styled("█".repeat(cells), style),
        ])
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), inner);
}

/// How far warms are.
fn warming(frame: &mut Frame<'_>, area: Rect, warms: &[WarmRow], theme: Theme) {
    if warms.is_empty() || area.height == 0 {
        return;
    }
    let title = format!(" Warms ({}) ", warms.len());
    let inner = titled(frame, area, title);
    let bar = usize::from(inner.width / 5);
    let lines = warms.iter().map(|warm| {
        let share = warm.total_objects.filter(|total| *total > 0).map(|total| {
            let here = u128::from(warm.objects.min(total));
            (here * 100 / u128::from(total), here * bar as u128 / u128::from(total))
        });
        let (percent, cells) = share.map_or_else(
            || ("    ".to_owned(), 0),
            |(percent, cells)| (format!("{percent:>3}%"), usize::try_from(cells).unwrap_or(0)),
        );
        Line::from(vec![
            Span::styled("█".repeat(cells), theme.good()),
            Span::styled("░".repeat(bar.saturating_sub(cells)), FAINT),
            Span::styled(format!(" {percent}  "), TITLE),
            Span::raw(format!("{}  ", progress(warm))),
            Span::styled(escape(&warm.path), FAINT),
        ])
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), inner);
}

/// One of the tables, scrolled to the selected row.
fn table(frame: &mut Frame<'_>, area: Rect, state: &State, kind: Kind, theme: Theme) {
    if area.is_empty() {
        return;
    }
    let (rows, look) = (state.rows(kind), state.look(kind));
    let focused = state.is_focused(kind);
    let inner = titled(frame, area, title(state, kind, rows.len()));
    let columns = kind.columns();
    let widths = fitting(columns, inner.width);
    let head = widths.iter().map(|(at, width)| {
        let column = &columns[*at];
        let mark = match (*at == look.sort.column, column.is_number != look.sort.reversed) {
            (false, _) => "",
            (true, true) => "▼",
            (true, false) => "▲",
        };
        (format!("{}{mark}", column.head), column, *width)
    });
    let mut lines = vec![Line::styled(joined(head), FAINT)];
    let room = usize::from(inner.height.saturating_sub(1));
    let selected = look.selected.min(rows.len().saturating_sub(1));
    let first = (selected + 1).saturating_sub(room);
    for (number, row) in rows.iter().enumerate().skip(first).take(room) {
        let cells = widths.iter().map(|(at, width)| (row.cells[*at].text.clone(), &columns[*at], *width));
        let style = if focused && number == selected { SELECTED } else { style(kind, row, theme) };
        lines.push(Line::styled(joined(cells), style));
    }
    if rows.is_empty() {
        lines = vec![Line::styled(nothing(state, kind), FAINT)];
    }
    frame.render_widget(Paragraph::new(lines), inner);
}

fn title(state: &State, kind: Kind, rows: usize) -> String {
    let report = state.numbers.report();
    let window = report.map_or_else(String::new, |report| format!(", last {}", span(report.window_ms)));
    let text = match kind {
        Kind::Waiters => format!("Waiters ({})", grouped(report.map_or(0, |report| report.waiters))),
        Kind::Workspaces => format!("Workspaces ({rows})"),
        Kind::Processes => format!("Processes{window}"),
        Kind::Directories => format!("Directories{window}"),
    };
    let mark = if state.is_focused(kind) { " ▶ " } else { " " };
    format!("{mark}{text} ")
}

fn style(kind: Kind, row: &Row, theme: Theme) -> Style {
    match kind {
        Kind::Workspaces if row.cells[1].text != "ready" => theme.slow(),
        _ => Style::new(),
    }
}

fn nothing(state: &State, kind: Kind) -> &'static str {
    match (kind, state.numbers.report()) {
        (_, None) => "",
        (Kind::Waiters, _) => "nobody waits",
        (Kind::Workspaces, _) => "nothing is mounted",
        (_, Some(report)) if !report.recording => "not recorded, since why.records is 0",
        // Its batches may take minutes.
        (_, Some(report)) if !report.warms.is_empty() => "a warm is counted when a batch ends",
        _ => "nothing was fetched",
    }
}

/// Cells in their columns' widths.
fn joined<'a>(cells: impl Iterator<Item = (String, &'a Column, u16)>) -> String {
    let cells: Vec<String> =
        cells.map(|(text, column, width)| fit(&text, width.into(), column.is_number, column.head)).collect();
    cells.join(" ")
}

/// `text` in exactly `width` cells: numbers at the right, paths without their beginning where there is no room.
fn fit(text: &str, width: usize, is_number: bool, head: &str) -> String {
    let has = Span::raw(text).width();
    let cells = |c: char| Span::raw(c.encode_utf8(&mut [0; 4]).to_owned()).width();
    if has <= width {
        let space = " ".repeat(width - has);
        return if is_number { format!("{space}{text}") } else { format!("{text}{space}") };
    }
    let from_end = matches!(head, "PATH" | "DIRECTORY" | "MOSTLY IN") && !text.starts_with(head);
    let room = width.saturating_sub(1);
    let mut used = 0;
    let mut fits = |c: &char| {
        used += cells(*c);
        used <= room
    };
    let mut kept: String = if from_end {
        let kept: Vec<char> = text.chars().rev().take_while(&mut fits).collect();
        std::iter::once('…').chain(kept.into_iter().rev()).collect()
    } else {
        text.chars().take_while(&mut fits).chain(std::iter::once('…')).collect()
    };
    if width == 0 {
        kept.clear();
    }
    // A wide character may leave one cell over.
    let over = width.saturating_sub(Span::raw(&kept).width());
    kept.push_str(&" ".repeat(over));
    kept
}

/// The keys, in the middle.
fn help(frame: &mut Frame<'_>, area: Rect, theme: Theme) {
    let lines: Vec<Line<'_>> = HELP
        .iter()
        .map(|(keys, what)| Line::from(vec![Span::styled(format!(" {keys:<15}"), TITLE), Span::raw(*what)]))
        .collect();
    let width = lines.iter().map(Line::width).max().unwrap_or(0).saturating_add(3);
    let (width, height) =
        (u16::try_from(width).unwrap_or(u16::MAX), u16::try_from(lines.len() + 2).unwrap_or(u16::MAX));
    let area = area.centered(Constraint::Length(width), Constraint::Length(height));
    let block = Block::bordered().title(" Keys ").border_style(theme.busy());
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
pub(super) mod tests;
