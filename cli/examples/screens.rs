//! Pictures of the dashboard for the documentation: runs the real program in a terminal, and writes its screens as text
//! into `docs/tui.md`, each where a line `<!-- screen NAME -->` stands before a block, and as SVG. `scripts/screens` calls it.
#![expect(clippy::unwrap_used, reason = "where no picture can be made, it ends")]

#[path = "../tests/screen/mod.rs"]
mod screen;
#[path = "../tests/terminal/mod.rs"]
mod terminal;

use screen::Screen;
use std::{env, fmt::Write as _, fs, path::Path, process::Command, thread::sleep, time::Duration};
use vt100::Color;

const SIZE: (u16, u16) = (120, 36);
/// Name, keys, and what must be on the screen then.
const STEPS: [(&str, &str, &str); 8] = [
    ("flows", "/--verdict DROPPED --verdict AUDIT\r", "DROP"),
    ("drops", "\\2", "[server stats]"),
    ("map", "3", "[server stats]"),
    ("matrix", "mb", "rows call columns"),
    ("policy", "4", "[server stats]"),
    ("talkers", "5b", "[server stats]"),
    ("golden", "6", "[6 Golden]"),
    ("nodes", "7", "Capture on"),
];
/// Views of which the documentation has pictures in colours.
const PICTURES: [&str; 2] = ["flows", "drops"];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [observe, docs] = &arguments[..] else {
        panic!("usage: screens OBSERVE DOCS, with OBSERVE_SERVER set")
    };
    let mut command = Command::new(observe);
    command.arg("tui").env("HOME", "/nonexistent").env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
    let mut screen = Screen::start(command, SIZE);
    screen.shows("LIVE");
    let page = Path::new(docs).join("tui.md");
    let mut text = fs::read_to_string(&page).unwrap();
    for (name, keys, wanted) in STEPS {
        screen.types(keys);
        screen.shows(wanted);
        // Several answers of counts, one a second.
        sleep(Duration::from_secs(3));
        let shown = screen.read(vt100::Screen::contents);
        text = replaced(&text, name, &shown);
        if PICTURES.contains(&name) {
            fs::write(Path::new(docs).join(format!("tui-{name}.svg")), screen.read(svg)).unwrap();
        }
    }
    fs::write(page, text).unwrap();
    screen.types("q");
}

/// Puts a screen into the block behind its line.
fn replaced(page: &str, name: &str, screen: &str) -> String {
    let mark = format!("<!-- screen {name} -->\n```text\n");
    let Some((before, rest)) = page.split_once(&mark) else { return page.to_owned() };
    let after = rest.split_once("```\n").map_or("", |(_, after)| after);
    let lines: Vec<&str> = screen.lines().map(str::trim_end).collect();
    format!("{before}{mark}{}\n```\n{after}", lines.join("\n"))
}

const CELL: (f64, f64) = (8.4, 18.0);
const PAPER: &str = "#16181d";
const INK: &str = "#d5d8de";

/// A picture of the cells, a piece of text for each run of one look.
fn svg(screen: &vt100::Screen) -> String {
    let (down, across) = screen.size();
    let (width, height) = (f64::from(across) * CELL.0, f64::from(down) * CELL.1);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"ui-monospace, \
         Menlo, Consolas, monospace\" font-size=\"14\" xml:space=\"preserve\">\n<rect width=\"100%\" height=\"100%\" \
         rx=\"6\" fill=\"{PAPER}\"/>\n"
    );
    for row in 0..down {
        let mut at = 0;
        while at < across {
            let look = look(screen, row, at);
            let mut text = String::new();
            let start = at;
            while at < across && self::look(screen, row, at) == look {
                let cell = screen.cell(row, at).unwrap();
                text.push_str(if cell.has_contents() { cell.contents() } else { " " });
                at += 1;
            }
            piece(&mut out, (row, start, at), &look, &text);
        }
    }
    out + "</svg>\n"
}

/// Colour, and whether it is bold, dim, reversed.
type Look = (String, bool, bool, bool);

fn look(screen: &vt100::Screen, row: u16, at: u16) -> Look {
    let cell = screen.cell(row, at).unwrap();
    (color(cell.fgcolor()), cell.bold(), cell.dim(), cell.inverse())
}

fn piece(out: &mut String, (row, start, end): (u16, u16, u16), look: &Look, text: &str) {
    let (color, is_bold, is_dim, is_reversed) = look;
    let (x, y) = (f64::from(start) * CELL.0, f64::from(row) * CELL.1);
    let width = f64::from(end - start) * CELL.0;
    let color = if *is_reversed {
        writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{}\" fill=\"{color}\"/>",
            CELL.1
        )
        .unwrap();
        PAPER
    } else {
        color
    };
    if text.trim().is_empty() {
        return;
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let bold = if *is_bold { " font-weight=\"bold\"" } else { "" };
    let dim = if *is_dim { " opacity=\"0.6\"" } else { "" };
    let base = y + CELL.1 - 5.0;
    writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{base:.1}\" textLength=\"{width:.1}\" lengthAdjust=\"spacing\" fill=\"{color}\"{bold}{dim}>{text}</text>"
    )
    .unwrap();
}

fn color(color: Color) -> String {
    const ANSI: [&str; 8] =
        ["#3b4048", "#f07178", "#8fc973", "#f0c674", "#6ca8f0", "#c792ea", "#62c8d0", "#d5d8de"];
    match color {
        Color::Default => INK.to_owned(),
        Color::Idx(index) => ANSI.get(usize::from(index % 8)).copied().unwrap_or(INK).to_owned(),
        Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
    }
}
