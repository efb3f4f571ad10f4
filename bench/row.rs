//! A row of the result: what both sides took, and what is to be reached.

use fs_err as fs;
use serde_json::{Value, json};

use super::side::{Side, jobs};

/// What is to be reached, and says so when it is not. Nothing fails for it.
#[derive(Clone, Copy)]
pub enum Bar {
    /// Our median is at most so many times theirs.
    Ratio(f64),
    /// Our median is at most so much.
    Most(f64),
    /// A figure to know.
    None,
}

/// One row: milliseconds, or what its name says.
pub struct Row {
    name: String,
    /// Who the other side is; nobody for a figure that stands alone.
    beside: &'static str,
    bar: Bar,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Row {
    /// Makes one without figures.
    pub fn new(name: impl Into<String>, beside: &'static str, bar: Bar) -> Self {
        Self {
            name: name.into(),
            beside,
            bar,
            ours: Vec::new(),
            theirs: Vec::new(),
        }
    }

    /// The figures of a side.
    pub fn side(&mut self, side: Side) -> &mut Vec<f64> {
        match side {
            Side::Pontoon => &mut self.ours,
            Side::Other => &mut self.theirs,
        }
    }

    /// Our median over theirs.
    fn ratio(&self) -> Option<f64> {
        Some(spread(&self.ours)?[0] / spread(&self.theirs)?[0])
    }

    /// Whether the bar is reached, if there is one.
    fn reached(&self) -> Option<bool> {
        match self.bar {
            Bar::Ratio(most) => Some(self.ratio()? <= most),
            Bar::Most(most) => Some(spread(&self.ours)?[0] <= most),
            Bar::None => None,
        }
    }

    fn json(&self) -> Value {
        let (bar, most) = match self.bar {
            Bar::Ratio(most) => ("ratio", Some(most)),
            Bar::Most(most) => ("most", Some(most)),
            Bar::None => ("none", None),
        };
        json!({
            "name": self.name,
            "beside": self.beside,
            "pontoon": summary(&self.ours),
            "other": summary(&self.theirs),
            "ratio": self.ratio(),
            "bar": { "of": bar, "most": most, "reached": self.reached() },
        })
    }

    fn line(&self) -> String {
        let reached = match (self.bar, self.reached()) {
            (Bar::Ratio(most), Some(true)) => format!("{most:.2}"),
            (Bar::Ratio(most), _) => format!("{most:.2}, missed"),
            (Bar::Most(most), Some(true)) => format!("at most {most:.0}"),
            (Bar::Most(most), _) => format!("at most {most:.0}, missed"),
            (Bar::None, _) => String::new(),
        };
        let ratio = self.ratio().map(|ratio| format!("{ratio:.2}"));
        let (ours, theirs) = (shown(&self.ours), shown(&self.theirs));
        let ratio = ratio.unwrap_or_default();
        cells([&self.name, &ours, &theirs, self.beside, &ratio, &reached])
    }
}

/// A line of the table, which is one of Markdown's.
fn cells([name, ours, theirs, beside, ratio, reached]: [&str; 6]) -> String {
    format!(
        "| {name:<35} | {ours:>22} | {theirs:>22} | {beside:<19} | {ratio:>5} | {reached:<19} |"
    )
}

/// The lines above the rows.
pub fn head() -> String {
    let names = cells([
        "ms: median (least–most)",
        "pontoon",
        "other",
        "the other",
        "ratio",
        "to be reached",
    ]);
    let under = ["---", "---:", "---:", "---", "---:", "---"];
    format!("{names}\n{}", cells(under))
}

/// The rows as lines.
pub fn lines(rows: &[Row]) -> String {
    rows.iter().map(|row| row.line() + "\n").collect()
}

/// Writes all rows to `bench/results/`, and says where.
pub fn save(rows: &[Row]) -> std::path::PathBuf {
    let system = rustix::system::uname();
    let all = json!({
        "kernel": system.release().to_string_lossy(),
        "jobs": jobs(),
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/results");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("the clock is past 1970");
    let file = dir.join(format!("{}.json", now.as_secs()));
    fs::create_dir_all(&dir).expect("the checkout is writable");
    fs::write(&file, format!("{all:#}\n")).expect("the checkout is writable");
    file
}

/// The median, the least and the most, if there is anything.
fn spread(figures: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let most = *sorted.last()?;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    Some([median, sorted[0], most])
}

fn shown(figures: &[f64]) -> String {
    spread(figures).map_or_else(String::new, |[median, least, most]| {
        format!("{median:.0} ({least:.0}–{most:.0})")
    })
}

fn summary(figures: &[f64]) -> Value {
    spread(figures).map_or(Value::Null, |[median, least, most]| {
        json!({ "median": median, "least": least, "most": most, "rounds": figures.len() })
    })
}
