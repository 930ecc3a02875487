//! The table of figures.

/// One figure and the goal it is held against.
#[derive(Debug)]
struct Line {
    work: String,
    microseconds: f64,
    ratio: String,
    goal: String,
}

#[derive(Debug, Default)]
pub struct Report(Vec<Line>);

impl Report {
    /// A figure without a goal.
    pub fn figure(&mut self, work: &str, microseconds: f64) {
        self.0.push(Line {
            work: work.to_owned(),
            microseconds,
            ratio: String::new(),
            goal: String::new(),
        });
    }

    /// A figure held against `goal` times `unit` microseconds.
    pub fn held(&mut self, work: &str, microseconds: f64, unit: f64, name: &str, goal: f64) {
        self.0.push(Line {
            work: work.to_owned(),
            microseconds,
            ratio: format!("{:.2} {name}", microseconds / unit),
            goal: format!("{goal} {name}"),
        });
    }

    pub fn print(&self) {
        println!("\n| work | CPU, µs | ratio | goal |\n| --- | --- | --- | --- |");
        for Line {
            work,
            microseconds,
            ratio,
            goal,
        } in &self.0
        {
            println!("| {work} | {microseconds:.1} | {ratio} | {goal} |");
        }
    }
}
