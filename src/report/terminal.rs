//! The report on a terminal: lines that stay, and below them a block that is drawn anew.
//!
//! One painter thread redraws the block ten times a second so that times go on while nothing
//! happens; events draw at once unless they come faster than anyone can read. A change of the
//! terminal's width is taken into account when the old block is erased.

use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::narrate::Narrator;
use super::status::Status;
use super::text::columns;
use crate::event::{Event, Sink};

/// How often the block is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// Events that come faster than this leave drawing the block to the next tick.
const FAST: Duration = Duration::from_millis(30);

/// The block never takes more lines than this.
const ROWS: usize = 12;

/// Asks for the terminal's size: columns and rows.
pub type Size = Box<dyn Fn() -> (usize, usize) + Send>;

/// Writes to a terminal; the block disappears when this is dropped.
#[derive(Debug)]
pub struct Terminal<W: Write + Send + 'static> {
    narrator: Narrator,
    screen: Arc<Mutex<Screen<W>>>,
    painter: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl<W: Write + Send + 'static> Terminal<W> {
    /// Writes what `narrator` tells, and the block, to `out`.
    pub fn new(narrator: Narrator, out: W, size: Size) -> Self {
        let screen = Arc::new(Mutex::new(Screen::new(out, size)));
        let (stop, stopped) = mpsc::channel();
        let canvas = Arc::clone(&screen);
        let painter = std::thread::spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                canvas
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .write(&[], Block::Shown);
            }
        });
        Self {
            narrator,
            screen,
            painter: Some((stop, painter)),
        }
    }
}

impl<W: Write + Send + 'static> Sink for Terminal<W> {
    fn event(&mut self, event: &Event) {
        let lines = self.narrator.tell(event);
        let mut screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let at = screen.began.elapsed();
        screen.status.apply(event, at);
        if lines.is_empty() {
            return;
        }
        let fast = screen.drawn_at.is_some_and(|drawn| drawn.elapsed() < FAST);
        screen.write(&lines, if fast { Block::Later } else { Block::Shown });
    }
}

impl<W: Write + Send + 'static> Drop for Terminal<W> {
    fn drop(&mut self) {
        if let Some((stop, painter)) = self.painter.take() {
            drop(stop);
            // A painter that panicked has left nothing to wait for.
            painter.join().ok();
        }
        self.screen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(&[], Block::Gone);
    }
}

/// What becomes of the block in a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Drawn below the lines.
    Shown,
    /// Erased now, drawn at the next tick.
    Later,
    /// Erased for good.
    Gone,
}

struct Screen<W> {
    out: Option<W>,
    size: Size,
    status: Status,
    began: Instant,
    /// The block's lines as they stand on the terminal.
    drawn: Vec<String>,
    drawn_at: Option<Instant>,
}

impl<W> std::fmt::Debug for Screen<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen")
            .field("drawn", &self.drawn)
            .finish_non_exhaustive()
    }
}

impl<W: Write> Screen<W> {
    fn new(out: W, size: Size) -> Self {
        let (status, began) = (Status::default(), Instant::now());
        Self {
            out: Some(out),
            size,
            status,
            began,
            drawn: vec![],
            drawn_at: None,
        }
    }

    /// Erases the block, writes lines, draws the block, in one write so that nothing flickers.
    fn write(&mut self, lines: &[String], block: Block) {
        let (width, height) = (self.size)();
        let next = match block {
            Block::Shown => {
                // One column stays free: some terminals wrap when the last one is filled.
                let rows = ROWS.min(height / 2);
                self.status
                    .render(self.began.elapsed(), width.saturating_sub(1), rows)
            }
            Block::Later | Block::Gone => vec![],
        };
        if lines.is_empty() && next == self.drawn {
            return;
        }
        let mut text = erase(&self.drawn, width);
        for line in lines.iter().chain(&next) {
            text.push_str(line);
            text.push_str("\r\n");
        }
        if block == Block::Shown {
            self.drawn_at = Some(Instant::now());
        }
        self.drawn = next;
        // A terminal that has gone must not stop a build: the rest stays unsaid.
        if let Some(out) = &mut self.out
            && out
                .write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .is_err()
        {
            self.out = None;
        }
    }
}

/// Goes to the block's first line and clears from there on. A line drawn on a wider terminal has
/// been wrapped by now.
fn erase(drawn: &[String], width: usize) -> String {
    let rows: usize = drawn
        .iter()
        .map(|line| columns(line).div_ceil(width.max(1)).max(1))
        .sum();
    if rows == 0 {
        String::new()
    } else {
        format!("\u{1b}[{rows}A\r\u{1b}[J")
    }
}

#[cfg(test)]
mod tests {
    use super::super::narrate::Progress;
    use super::super::style::Colour;
    use super::super::{Advice, Detail, Logs, samples};
    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn leaves_only_lines_behind() {
        let out = Shared::default();
        let advice = Advice {
            store: None,
            pipeline: vec![],
            logs: Logs::Here,
        };
        let narrator = Narrator::new(Detail::Normal, Progress::Block, Colour::Never, advice);
        let size: Size = Box::new(|| (40, 24));
        let mut terminal = Terminal::new(narrator, out.clone(), size);
        for event in samples::everything() {
            terminal.event(&event);
            // As slow as to be drawn.
            std::thread::sleep(FAST + Duration::from_millis(5));
        }
        drop(terminal);
        let out = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert!(out.contains("[0/8]"), "the block is drawn: {out}");
        assert!(
            out.ends_with("1 min 15 s\r\n"),
            "the summary is the end: {out:?}"
        );
        assert_eq!(
            left_on_screen(&out).last().unwrap(),
            "time               1 min 15 s"
        );
        assert!(
            !left_on_screen(&out)
                .iter()
                .any(|line| line.starts_with('['))
        );
    }

    /// Plays the two sequences we write.
    fn left_on_screen(out: &str) -> Vec<String> {
        let mut lines: Vec<String> = vec![];
        let mut rest = out;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("\u{1b}[") {
                let (rows, after) = after.split_once('A').unwrap();
                lines.truncate(lines.len() - rows.parse::<usize>().unwrap());
                rest = after.strip_prefix("\r\u{1b}[J").unwrap();
            } else {
                let (line, after) = rest.split_once("\r\n").unwrap();
                lines.push(line.to_owned());
                rest = after;
            }
        }
        lines
    }

    #[test]
    fn erases_what_a_narrower_terminal_has_wrapped() {
        let drawn = ["x".repeat(50), "y".to_owned(), String::new()];
        assert_eq!(erase(&drawn, 20), "\u{1b}[5A\r\u{1b}[J");
        assert_eq!(erase(&[], 20), "");
    }
}
