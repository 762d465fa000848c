//! What the terminal shows, and what keys do to it. Knows no terminal and no agent: a key changes the state and may ask
//! for something, an answer changes the state, and `draw` shows it.

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table as Grid, TableState, Tabs, Wrap};
use serde_json::{Value, json};

use crate::agent::Greeting;
use crate::rows::{self, Table, list};

/// The pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    /// The hubs, and what holds them up.
    Hubs,
    /// Threads that do the same.
    Groups,
    /// The threads.
    Threads,
    /// The stacks, the same ones together.
    Stacks,
    /// The counters.
    Metrics,
    /// A trace.
    Trace,
}

/// The pages in their order.
const TABS: [Tab; 6] = [Tab::Hubs, Tab::Groups, Tab::Threads, Tab::Stacks, Tab::Metrics, Tab::Trace];

impl Tab {
    /// Returns the name of what is asked for, which is also that of its rows.
    fn name(self) -> &'static str {
        match self {
            Tab::Hubs => "hubs",
            Tab::Groups => "groups",
            Tab::Threads => "threads",
            Tab::Stacks => "stacks",
            Tab::Metrics => "metrics",
            Tab::Trace => "trace",
        }
    }

    /// Returns the orders of the rows, the first of which is there at the begin.
    fn sorts(self) -> &'static [&'static str] {
        match self {
            Tab::Groups => &["count", "waited", "place"],
            Tab::Threads => &["waited", "id", "name", "state", "stack", "place"],
            _ => &[],
        }
    }

    /// Reports whether the page is asked for again and again: stacks and traces cost the program more.
    fn refreshes(self) -> bool {
        !matches!(self, Tab::Stacks | Tab::Trace)
    }
}

/// What a page keeps.
#[derive(Debug, Default)]
struct Page {
    /// The latest answer.
    answer: Value,
    /// The number of the order.
    sort: usize,
    /// Whether the order is turned round.
    reverse: bool,
    /// What the rows must have in their text.
    filter: String,
    /// The number of the first row of the answer.
    offset: usize,
    /// The row that is chosen, among those of the answer.
    chosen: usize,
}

/// A text over the page: a stack.
#[derive(Debug)]
struct Sheet {
    /// The title.
    title: String,
    /// The text.
    text: String,
    /// The number of lines above the first one that is shown.
    scroll: u16,
}

/// What is to be done after a key.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Nothing more.
    Nothing,
    /// The page is to be asked for.
    Ask,
    /// This is to be asked, for a sheet with this title.
    AskSheet(String, Value),
    /// A trace is to be taken, and saved as a page.
    SaveTrace(Value),
    /// The program ends.
    Quit,
}

/// The state.
#[derive(Debug)]
pub struct App {
    /// What the agent has said of itself.
    greeting: Greeting,
    /// The page that is shown.
    tab: Tab,
    /// What each page keeps.
    pages: [Page; TABS.len()],
    /// The group of which the threads are shown: key and text.
    group: Option<(String, String)>,
    /// The text over the page.
    sheet: Option<Sheet>,
    /// The filter while it is typed.
    typing: Option<String>,
    /// Whether nothing is asked for by itself.
    pub paused: bool,
    /// What was wrong last, or what was done.
    note: Option<(String, bool)>,
    /// What is waited for, in words.
    busy: Option<&'static str>,
    /// The rows that the page has room for.
    room: usize,
    /// The number of threads, as far as known.
    threads: Option<u64>,
}

impl App {
    /// Makes the state at the begin.
    pub fn new(greeting: Greeting) -> App {
        App {
            greeting,
            tab: Tab::Groups,
            pages: Default::default(),
            group: None,
            sheet: None,
            typing: None,
            paused: false,
            note: None,
            busy: None,
            room: 20,
            threads: None,
        }
    }

    /// Returns the page that is shown.
    pub fn tab(&self) -> Tab {
        self.tab
    }

    /// Returns what the page that is shown keeps.
    fn page(&self) -> &Page {
        &self.pages[self.tab as usize]
    }

    /// As [`App::page`], to change it.
    fn page_mut(&mut self) -> &mut Page {
        &mut self.pages[self.tab as usize]
    }

    /// Returns what to ask for the page that is shown.
    pub fn request(&self) -> Value {
        let page = self.page();
        let mut request = json!({"get": self.tab.name()});
        if let Some(sort) = self.tab.sorts().get(page.sort) {
            request["sort"] = json!(sort);
            request["reverse"] = json!(page.reverse);
            request["filter"] = json!(page.filter);
        }
        if matches!(self.tab, Tab::Groups | Tab::Threads | Tab::Stacks) {
            request["offset"] = json!(page.offset);
            request["limit"] = json!(self.room);
        }
        if let (Tab::Threads, Some((key, _))) = (self.tab, &self.group) {
            request["group"] = json!(key);
        }
        if self.tab == Tab::Trace {
            request["limit"] = json!(1000);
        }
        request
    }

    /// Reports whether the page is to be asked for by itself.
    pub fn refreshes(&self) -> bool {
        !self.paused && self.tab.refreshes() && self.sheet.is_none()
    }

    /// Says what is waited for.
    pub fn waits_for(&mut self, what: Option<&'static str>) {
        self.busy = what;
    }

    /// Takes the answer for a page.
    pub fn take(&mut self, tab: Tab, answer: Result<Value, String>) {
        match answer {
            Ok(answer) => {
                self.note = self.note.take().filter(|(_, is_error)| !is_error);
                if let Some(threads) = answer["threads"].as_u64() {
                    self.threads = Some(threads);
                }
                let page = &mut self.pages[tab as usize];
                page.answer = answer;
                // The rows may have become fewer.
                let rows = list(&page.answer, row_name(tab)).len();
                page.chosen = page.chosen.min(rows.saturating_sub(1));
                let total = page.answer["total"].as_u64().unwrap_or(0) as usize;
                if page.offset >= total && page.offset > 0 {
                    page.offset = total.saturating_sub(1) / self.room.max(1) * self.room.max(1);
                }
            }
            Err(error) => self.note = Some((error, true)),
        }
    }

    /// Takes the answer for a sheet.
    pub fn take_sheet(&mut self, title: String, answer: Result<Value, String>) {
        match answer {
            Ok(answer) => self.sheet = Some(Sheet { title, text: rows::stack(&answer), scroll: 0 }),
            Err(error) => self.note = Some((error, true)),
        }
    }

    /// Says that something was done.
    pub fn note(&mut self, text: String, is_error: bool) {
        self.note = Some((text, is_error));
    }

    /// Does what a key says.
    pub fn key(&mut self, key: KeyEvent) -> Action {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Action::Quit;
        }
        if self.typing.is_some() {
            return self.type_key(key.code);
        }
        if self.sheet.is_some() {
            return self.sheet_key(key.code);
        }
        let rows = list(&self.page().answer, row_name(self.tab)).len();
        match key.code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Tab | KeyCode::Right => return self.turn_to((self.tab as usize + 1) % TABS.len()),
            KeyCode::BackTab | KeyCode::Left => return self.turn_to((self.tab as usize + TABS.len() - 1) % TABS.len()),
            KeyCode::Char(digit @ '1'..='6') => return self.turn_to(digit as usize - '1' as usize),
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('s') if !self.tab.sorts().is_empty() => {
                let sorts = self.tab.sorts().len();
                let page = self.page_mut();
                (page.sort, page.offset, page.chosen) = ((page.sort + 1) % sorts, 0, 0);
                return Action::Ask;
            }
            KeyCode::Char('r') if !self.tab.sorts().is_empty() => {
                let page = self.page_mut();
                (page.reverse, page.offset, page.chosen) = (!page.reverse, 0, 0);
                return Action::Ask;
            }
            KeyCode::Char('/') if !self.tab.sorts().is_empty() => self.typing = Some(self.page().filter.clone()),
            KeyCode::Up | KeyCode::Char('k') => return self.go(-1, rows),
            KeyCode::Down | KeyCode::Char('j') => return self.go(1, rows),
            KeyCode::PageUp => return self.go(-(self.room as isize), rows),
            KeyCode::PageDown => return self.go(self.room as isize, rows),
            KeyCode::Home => return self.go(isize::MIN / 2, rows),
            KeyCode::Esc => return self.back(),
            KeyCode::Enter => return self.enter(),
            KeyCode::Char('t') if matches!(self.tab, Tab::Trace | Tab::Stacks) => return Action::Ask,
            KeyCode::Char('w') if self.tab == Tab::Trace => {
                return Action::SaveTrace(json!({"get": "trace", "form": "page"}));
            }
            _ => {}
        }
        Action::Nothing
    }

    /// Does what a key says while the filter is typed.
    fn type_key(&mut self, code: KeyCode) -> Action {
        let Some(text) = &mut self.typing else { return Action::Nothing };
        match code {
            KeyCode::Char(c) => text.push(c),
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Esc => self.typing = None,
            KeyCode::Enter => {
                let filter = self.typing.take().unwrap_or_default();
                let page = self.page_mut();
                (page.filter, page.offset, page.chosen) = (filter, 0, 0);
                return Action::Ask;
            }
            _ => {}
        }
        Action::Nothing
    }

    /// Does what a key says while a sheet is over the page.
    fn sheet_key(&mut self, code: KeyCode) -> Action {
        let Some(sheet) = &mut self.sheet else { return Action::Nothing };
        let last = sheet.text.lines().count().saturating_sub(1).min(usize::from(u16::MAX)) as u16;
        match code {
            KeyCode::Up | KeyCode::Char('k') => sheet.scroll = sheet.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => sheet.scroll = (sheet.scroll + 1).min(last),
            KeyCode::PageUp => sheet.scroll = sheet.scroll.saturating_sub(20),
            KeyCode::PageDown => sheet.scroll = (sheet.scroll + 20).min(last),
            KeyCode::Char('q') | KeyCode::Esc | KeyCode::Enter => self.sheet = None,
            _ => {}
        }
        Action::Nothing
    }

    /// Turns to a page, which is asked for unless that costs the program more.
    fn turn_to(&mut self, number: usize) -> Action {
        self.tab = TABS[number];
        self.note = None;
        let first_stacks = self.tab == Tab::Stacks && self.page().answer.is_null();
        if self.tab.refreshes() || first_stacks { Action::Ask } else { Action::Nothing }
    }

    /// Moves the choice, also to another part of the rows.
    fn go(&mut self, by: isize, rows: usize) -> Action {
        let room = self.room.max(1);
        let pages = matches!(self.tab, Tab::Groups | Tab::Threads | Tab::Stacks);
        let page = self.page_mut();
        let total = if pages { page.answer["total"].as_u64().unwrap_or(0) as usize } else { rows };
        let at = (page.offset + page.chosen).saturating_add_signed(by).min(total.saturating_sub(1));
        if !pages {
            page.chosen = at;
            return Action::Nothing;
        }
        let before = page.offset;
        (page.offset, page.chosen) = (at / room * room, at % room);
        if page.offset == before { Action::Nothing } else { Action::Ask }
    }

    /// Goes back: from a group to the groups, from a filter to all.
    fn back(&mut self) -> Action {
        if self.tab == Tab::Threads && self.group.take().is_some() {
            return self.turn_to(Tab::Groups as usize);
        }
        let page = self.page_mut();
        if page.filter.is_empty() {
            return Action::Nothing;
        }
        page.filter.clear();
        Action::Ask
    }

    /// Goes into the row that is chosen: from a group to its threads, from a thread to its stack.
    fn enter(&mut self) -> Action {
        let page = self.page();
        let row = list(&page.answer, row_name(self.tab)).get(page.chosen).cloned();
        match (self.tab, row) {
            (Tab::Groups, Some(row)) => {
                let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                self.group = Some((text("key"), text("text")));
                let threads = &mut self.pages[Tab::Threads as usize];
                (threads.offset, threads.chosen, threads.filter) = (0, 0, String::new());
                threads.answer = Value::Null;
                self.turn_to(Tab::Threads as usize)
            }
            (Tab::Threads, Some(row)) => {
                let title = format!("the stack of #{} of hub {}", row["id"], row["hub"]);
                Action::AskSheet(title, json!({"get": "stack", "hub": row["hub"], "id": row["id"]}))
            }
            (Tab::Stacks, Some(row)) => {
                let title = format!("the stack of {} threads of hub {}", row["count"], row["hub"]);
                self.sheet = Some(Sheet { title, text: rows::stack(&row), scroll: 0 });
                Action::Nothing
            }
            (Tab::Stacks | Tab::Trace, None) => Action::Ask,
            _ => Action::Nothing,
        }
    }

    /// Draws everything.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let parts = [Constraint::Length(1), Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)];
        let [head, tabs, body, foot] = Layout::vertical(parts).areas(frame.area());
        self.draw_head(frame, head);
        let names = TABS.iter().zip(1..).map(|(tab, number)| format!("{number} {}", tab.name()));
        let tabs_widget = Tabs::new(names).select(self.tab as usize).padding(" ", " ").divider("");
        frame.render_widget(tabs_widget.highlight_style(Style::new().reversed().bold()), tabs);
        self.draw_body(frame, body);
        self.draw_foot(frame, foot);
    }

    /// Draws the first line: the program, and how fresh the page is.
    fn draw_head(&self, frame: &mut Frame<'_>, area: Rect) {
        let mut spans = vec![Span::from(format!(" {}", self.greeting.program)).bold()];
        spans.push(Span::from(format!("  process {}, greenling {}", self.greeting.pid, self.greeting.version)));
        if let Some(threads) = self.threads {
            spans.push(Span::from(format!(", {threads} threads")));
        }
        if self.paused {
            spans.push(Span::from("  PAUSED").bold().fg(Color::Yellow));
        }
        if let Some(busy) = self.busy {
            spans.push(Span::from(format!("  {busy} ...")).dim());
        }
        let silent: Vec<String> = list(&self.page().answer, "silent").iter().map(Value::to_string).collect();
        if !silent.is_empty() {
            let text = format!("  busy, and not in here: hub {}", silent.join(", "));
            spans.push(Span::from(text).fg(Color::Red));
        }
        frame.render_widget(Line::from(spans), area);
    }

    /// Draws the page.
    fn draw_body(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let title = self.title();
        let block = Block::new().borders(Borders::TOP).title(title).border_style(Style::new().dim());
        let inner = block.inner(area);
        frame.render_widget(block, area);
        self.room = usize::from(inner.height.saturating_sub(1)).clamp(1, 1000);
        if let Some(sheet) = &self.sheet {
            // The colours of std's backtraces have no place here, so places are dim.
            let lines = sheet.text.lines().map(|line| {
                let is_place = line.trim_start().starts_with("at ");
                if is_place { Line::from(line).dim() } else { Line::from(line) }
            });
            frame.render_widget(Paragraph::new(Text::from_iter(lines)).scroll((sheet.scroll, 0)), inner);
            return;
        }
        let answer = &self.page().answer;
        if answer.is_null() {
            frame.render_widget(Paragraph::new(self.invitation()).dim().wrap(Wrap { trim: true }), inner);
            return;
        }
        match self.tab {
            Tab::Hubs => {
                let details: String = list(answer, "hubs").iter().map(rows::hub_details).collect();
                let high = (list(answer, "hubs").len() as u16 + 2).min(inner.height);
                let [grid, below] = Layout::vertical([Constraint::Length(high), Constraint::Min(0)]).areas(inner);
                let widths = [4, 24, 6, 9, 9, 9, 13, 9].map(Constraint::Length);
                self.draw_grid(frame, grid, &rows::hubs(answer), &widths);
                frame.render_widget(Paragraph::new(details).wrap(Wrap { trim: false }), below);
            }
            Tab::Groups => {
                let widths = [Constraint::Length(8), Constraint::Length(9), Constraint::Fill(1)];
                self.draw_grid(frame, inner, &rows::groups(answer), &widths);
            }
            Tab::Threads => {
                let widths = [
                    Constraint::Length(8),
                    Constraint::Max(20),
                    Constraint::Length(9),
                    Constraint::Length(10),
                    Constraint::Fill(3),
                    Constraint::Fill(2),
                ];
                self.draw_grid(frame, inner, &rows::threads(answer), &widths);
            }
            Tab::Stacks => {
                let widths = [Constraint::Length(8), Constraint::Length(4), Constraint::Fill(1)];
                self.draw_grid(frame, inner, &rows::stacks(answer), &widths);
            }
            Tab::Metrics => {
                let widths = [Constraint::Length(16), Constraint::Length(16), Constraint::Fill(1)];
                self.draw_grid(frame, inner, &rows::metrics(answer), &widths);
            }
            Tab::Trace => {
                let [summary, grid] = Layout::vertical([Constraint::Length(2), Constraint::Min(0)]).areas(inner);
                let text = answer["summary"].as_str().unwrap_or_default();
                frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), summary);
                let widths = [Constraint::Length(14), Constraint::Length(4), Constraint::Max(20), Constraint::Fill(1)];
                self.draw_grid(frame, grid, &rows::events(answer), &widths);
            }
        }
    }

    /// Returns the title of the page: what is shown of how much, and how.
    fn title(&self) -> String {
        let page = self.page();
        if let Some(sheet) = &self.sheet {
            return format!(" {} ", sheet.title);
        }
        let mut title = String::new();
        if let Some(total) = page.answer["total"].as_u64() {
            let rows = list(&page.answer, row_name(self.tab)).len();
            title += &match rows {
                0 => format!(" none of {total} "),
                rows => format!(" {} to {} of {total} ", page.offset + 1, page.offset + rows),
            };
        }
        if let (Tab::Threads, Some((_, text))) = (self.tab, &self.group) {
            title += &format!("in: {text} ");
        }
        if let Some(sort) = self.tab.sorts().get(page.sort) {
            title += &format!("· by {sort}{} ", if page.reverse { ", reversed" } else { "" });
        }
        if !page.filter.is_empty() {
            title += &format!("· with \"{}\" ", page.filter);
        }
        title
    }

    /// Returns what is on a page that has not been asked for.
    fn invitation(&self) -> &'static str {
        match self.tab {
            Tab::Trace => {
                "Enter or t: trace all hubs for a second and show the latest events.  w: the same, saved as a page for a browser."
            }
            _ if self.busy.is_some() => "",
            _ => "no answer so far",
        }
    }

    /// Draws a table.
    fn draw_grid(&self, frame: &mut Frame<'_>, area: Rect, table: &Table, widths: &[Constraint]) {
        let cell = |text: &str, right: bool| {
            let line = Line::from(text.to_owned());
            Cell::from(if right { line.right_aligned() } else { line })
        };
        let row =
            |cells: Vec<&str>| Row::new(cells.into_iter().zip(table.right).map(|(text, right)| cell(text, *right)));
        let rows = table.rows.iter().map(|cells| {
            let is_busy = self.tab == Tab::Hubs && cells[2] == "busy";
            let style = if is_busy { Style::new().fg(Color::Red) } else { Style::new() };
            row(cells.iter().map(String::as_str).collect()).style(style)
        });
        let head = row(table.head.to_vec()).style(Style::new().add_modifier(Modifier::BOLD | Modifier::DIM));
        let chosen = (self.tab != Tab::Metrics && !table.rows.is_empty()).then_some(self.page().chosen);
        let grid = Grid::new(rows, widths.to_vec()).header(head).column_spacing(2);
        let grid = grid.row_highlight_style(Style::new().reversed());
        frame.render_stateful_widget(grid, area, &mut TableState::new().with_selected(chosen));
    }

    /// Draws the last line: what is typed, what is wrong, or the keys.
    fn draw_foot(&self, frame: &mut Frame<'_>, area: Rect) {
        if let Some(text) = &self.typing {
            frame.render_widget(Line::from(format!(" show those with: {text}_")), area);
            return;
        }
        if let Some((text, is_error)) = &self.note {
            let line = Line::from(format!(" {text}")).bold();
            frame.render_widget(if *is_error { line.fg(Color::Red) } else { line.fg(Color::Green) }, area);
            return;
        }
        let keys = match (self.sheet.is_some(), self.tab) {
            (true, _) => " ↑↓ scroll  Esc back",
            (_, Tab::Groups) => " q quit  ←→ page  ↑↓ row  Enter its threads  / filter  s sort  r reverse  space pause",
            (_, Tab::Threads) => {
                " q quit  ←→ page  ↑↓ row  Enter its stack  / filter  s sort  r reverse  Esc all  space pause"
            }
            (_, Tab::Stacks) => " q quit  ←→ page  ↑↓ row  Enter the whole stack  t look again",
            (_, Tab::Trace) => " q quit  ←→ page  ↑↓ row  t trace for a second  w save as a page",
            _ => " q quit  ←→ page  space pause",
        };
        frame.render_widget(Line::from(keys).dim(), area);
    }
}

/// Returns the name of the rows of a page's answer.
fn row_name(tab: Tab) -> &'static str {
    if tab == Tab::Trace { "latest" } else { tab.name() }
}
