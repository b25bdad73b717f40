//! A plot as a small plain SVG: points and lines over a logarithmic axis to the base of two.

use std::fmt::Write;

/// What is drawn.
pub struct Plot {
    /// Its file's name.
    pub name: &'static str,
    pub title: &'static str,
    /// What the horizontal axis counts; bytes are written as such.
    pub x: &'static str,
    /// What the vertical axis counts, with its unit.
    pub y: &'static str,
    /// The vertical axis is logarithmic, to the base of ten.
    pub by_decades: bool,
    pub lines: Vec<Line>,
}

/// One line of it: its name, and its points from left to right.
pub struct Line(pub &'static str, pub Vec<(f64, f64)>);

impl Line {
    /// Its right end.
    pub fn last(&self) -> (f64, f64) {
        self.1[self.1.len() - 1]
    }
}

const SIZE: (f64, f64) = (440.0, 260.0);
const LEFT: f64 = 58.0;
const RIGHT: f64 = 424.0;
const TOP: f64 = 48.0;
/// Room left and right of the points.
const INSET: f64 = 10.0;
const BOTTOM: f64 = 216.0;
const COLOURS: [&str; 2] = ["#1660a8", "#b8450b"];

impl Plot {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.lines.iter().flat_map(|line| line.1.iter().copied())
    }

    /// The values that the vertical axis names, from its lower end to its upper.
    fn ticks(&self) -> Vec<f64> {
        let values = self.points().map(|(_, y)| y);
        let (least, most) = values.fold((f64::MAX, 0.0f64), |(a, b), y| (a.min(y), b.max(y)));
        if self.by_decades {
            let (mut at, mut ticks) = (10f64.powf(least.log10().floor()), Vec::new());
            while ticks.last().is_none_or(|last| *last < most) {
                ticks.push(at);
                at *= 10.0;
            }
            return ticks;
        }
        // From nothing in four or so steps of 1, 2 or 5.
        let power = 10f64.powf((most / 4.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = steps.into_iter().find(|step| step * 5.0 >= most).unwrap_or(most);
        let mut ticks = vec![0.0];
        while ticks[ticks.len() - 1] < most {
            ticks.push(ticks[ticks.len() - 1] + step);
        }
        ticks
    }

    /// How far to the right a value stands.
    fn across(&self, x: f64) -> f64 {
        let least = self.points().map(|(x, _)| x).fold(f64::MAX, f64::min).log2();
        let most = self.points().map(|(x, _)| x).fold(0.0, f64::max).log2();
        LEFT + INSET + (x.log2() - least) / (most - least) * (RIGHT - LEFT - 2.0 * INSET)
    }

    /// How far down.
    fn down(&self, y: f64) -> f64 {
        let ticks = self.ticks();
        let (bottom, top) = (ticks[0], ticks[ticks.len() - 1]);
        let part = match self.by_decades {
            true => (y / bottom).log10() / (top / bottom).log10(),
            false => (y - bottom) / (top - bottom),
        };
        BOTTOM - part * (BOTTOM - TOP)
    }

    pub fn svg(&self) -> String {
        let (width, height) = SIZE;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\" \
             fill=\"#222\">\n<title>{0}</title>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"{INSET}\" y=\"18\" font-size=\"13\" font-weight=\"bold\">{0}</text>\n",
            self.title
        );
        self.axes(&mut svg).expect("text takes all");
        for (n, (line, colour)) in self.lines.iter().zip(COLOURS).enumerate() {
            self.line(&mut svg, n, line, colour).expect("text takes all");
        }
        svg + "</svg>\n"
    }

    fn axes(&self, svg: &mut String) -> std::fmt::Result {
        let end = LEFT - 6.0;
        for tick in self.ticks() {
            let (y, base, label) = (self.down(tick), self.down(tick) + 4.0, number(tick));
            writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/>\
                 <text x=\"{end}\" y=\"{base:.1}\" text-anchor=\"end\">{label}</text>"
            )?;
        }
        let base = BOTTOM + 16.0;
        for (x, _) in &self.lines[0].1 {
            let label = if self.x == "bytes" { size(*x) } else { number(*x) };
            let x = self.across(*x);
            writeln!(
                svg,
                "<path d=\"M{x:.1} {BOTTOM}v4\" stroke=\"#444\"/>\
                 <text x=\"{x:.1}\" y=\"{base}\" text-anchor=\"middle\">{label}</text>"
            )?;
        }
        let (middle, above, below) = (f64::midpoint(LEFT, RIGHT), TOP - 10.0, BOTTOM + 34.0);
        let (x, y) = (self.x, self.y);
        writeln!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}\" fill=\"none\" stroke=\"#444\"/>\n\
             <text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{x}</text>\n\
             <text x=\"{end}\" y=\"{above}\" text-anchor=\"end\">{y}</text>"
        )
    }

    /// A line, its points, and its name if there are others, above the plot.
    fn line(&self, svg: &mut String, n: usize, line: &Line, colour: &str) -> std::fmt::Result {
        let Line(name, points) = line;
        let points: Vec<_> = points.iter().map(|(x, y)| (self.across(*x), self.down(*y))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let path = path.join(" ");
        writeln!(
            svg,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        )?;
        for (x, y) in points {
            writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>")?;
        }
        if self.lines.len() > 1 {
            let (x, above) = (LEFT + INSET + 190.0 * n as f64, TOP - 10.0);
            writeln!(svg, "<text x=\"{x}\" y=\"{above}\" fill=\"{colour}\">{name}</text>")?;
        }
        Ok(())
    }
}

/// As short as it goes.
fn number(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// `64 KiB`
fn size(bytes: f64) -> String {
    match bytes {
        ..1024.0 => format!("{bytes} B"),
        ..1_048_576.0 => format!("{} KiB", bytes / 1024.0),
        _ => format!("{} MiB", bytes / 1_048_576.0),
    }
}
