//! The samples: one row for each second, one named column for each figure.
//!
//! Owns the numbers and their CSV form. A figure without a sample in a row is NaN, and empty in the
//! CSV. Does not know what a column means.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// All samples.
#[derive(Debug, Default)]
pub struct Table {
    names: Vec<String>,
    places: BTreeMap<String, usize>,
    rows: Vec<(f64, Vec<f64>)>,
}

impl Table {
    /// Begins a row at `at` seconds.
    pub fn begin(&mut self, at: f64) {
        self.rows.push((at, vec![f64::NAN; self.names.len()]));
    }

    /// Sets a value in the last row.
    pub fn set(&mut self, name: &str, value: f64) {
        let next = self.names.len();
        let place = *self.places.entry(name.to_owned()).or_insert(next);
        if place == next {
            self.names.push(name.to_owned());
        }
        let Some((_, row)) = self.rows.last_mut() else { return };
        row.resize(self.names.len(), f64::NAN);
        if let Some(cell) = row.get_mut(place) {
            *cell = value;
        }
    }

    /// Seconds of the last row.
    pub fn end(&self) -> f64 {
        self.rows.last().map_or(0.0, |row| row.0)
    }

    /// The columns whose names begin with `prefix`.
    pub fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.names.iter().map(String::as_str).filter(move |name| name.starts_with(prefix))
    }

    /// A column as (seconds, value), without missing samples.
    pub fn column(&self, name: &str) -> Vec<(f64, f64)> {
        let Some(&place) = self.places.get(name) else { return Vec::new() };
        let cells = self.rows.iter().filter_map(|(at, row)| Some((*at, *row.get(place)?)));
        cells.filter(|(_, value)| value.is_finite()).collect()
    }

    /// The last value of a column.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.column(name).last().map(|cell| cell.1)
    }

    /// A counter's rate per second, at each of its samples but the first.
    pub fn rate(&self, name: &str) -> Vec<(f64, f64)> {
        let column = self.column(name);
        let pairs = column.windows(2).filter_map(|pair| match pair {
            [(before, from), (at, to)] if at > before => Some((*at, (to - from) / (at - before))),
            _ => None,
        });
        pairs.collect()
    }

    /// Comma-separated values.
    pub fn text(&self) -> String {
        let mut out = format!("second,{}\n", self.names.join(","));
        for (at, row) in &self.rows {
            let _ = write!(out, "{at:.1}");
            for place in 0..self.names.len() {
                match row.get(place) {
                    Some(value) if value.is_finite() => drop(write!(out, ",{value}")),
                    _ => out.push(','),
                }
            }
            out.push('\n');
        }
        out
    }
}
