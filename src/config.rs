//! Strict reading of TOML: every complaint names file, line, key, and what is allowed.
//!
//! A [`Section`] is asked for each key it may have. What was never asked for is an unknown key,
//! so the list of allowed keys cannot drift from the code that reads them.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};

use crate::limits::ISSUES_MAX;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One complaint about one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Where: `file:line`, or the name of a flag or variable.
    pub place: String,
    /// What: the key, the problem, the allowed values.
    pub what: String,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A text and the complaints about it.
pub struct Source<'a> {
    file: &'a str,
    text: &'a str,
    issues: RefCell<Vec<Issue>>,
}

impl<'a> Source<'a> {
    /// The text of `file`.
    pub fn new(file: &'a str, text: &'a str) -> Source<'a> {
        Source { file, text, issues: RefCell::default() }
    }

    /// Reads the text with `read`; its result, or every complaint there is.
    pub fn read<T>(self, read: impl FnOnce(&Section<'_>) -> T) -> Result<T, Vec<Issue>> {
        let table = match DeTable::parse(self.text) {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().unwrap_or(0..0);
                self.complain(at, error.message().lines().collect::<Vec<_>>().join("; "));
                return Err(self.issues.into_inner());
            }
        };
        let section = Section::new(&self, table.get_ref(), String::new(), 0..0);
        let result = read(&section);
        section.finish();
        let issues = self.issues.into_inner();
        if issues.is_empty() { Ok(result) } else { Err(issues) }
    }

    fn complain(&self, at: Range<usize>, what: String) {
        let count = self.issues.borrow().len();
        if count >= ISSUES_MAX {
            if count == ISSUES_MAX {
                let issue = Issue { place: self.file.to_owned(), what: "and more".to_owned() };
                self.issues.borrow_mut().push(issue);
            }
            return;
        }
        let before = self.text.get(..at.start).unwrap_or_default();
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        self.issues.borrow_mut().push(Issue { place: format!("{}:{line}", self.file), what });
    }
}

/// One table of the text.
pub struct Section<'a> {
    source: &'a Source<'a>,
    table: &'a DeTable<'a>,
    /// `""`, or `"async."` and the like.
    prefix: String,
    /// Where the table stands.
    span: Range<usize>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    fn new(
        source: &'a Source<'a>,
        table: &'a DeTable<'a>,
        prefix: String,
        span: Range<usize>,
    ) -> Section<'a> {
        Section { source, table, prefix, span, asked: RefCell::default() }
    }

    fn value(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// True if the key is there.
    pub fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    /// Complains about the value of `key`, or about the table if the key is not there.
    pub fn refuse(&self, key: &'static str, problem: impl fmt::Display) {
        let span = self.value(key).map_or(self.span.clone(), Spanned::span);
        self.source.complain(span, format!("{}{key}: {problem}", self.prefix));
    }

    fn wrong_type(&self, key: &'static str, value: &DeValue<'_>, allowed: &str) {
        self.refuse(key, format_args!("is {}, allowed: {allowed}", kind(value)));
    }

    /// A whole number in `range`.
    pub fn integer<T: TryFrom<i64>>(
        &self,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> Option<T> {
        let allowed = format!("{}..{}", range.start(), range.end());
        let value = self.value(key)?.get_ref();
        let DeValue::Integer(digits) = value else {
            self.wrong_type(key, value, &format!("a whole number, {allowed}"));
            return None;
        };
        let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok();
        match number.filter(|number| range.contains(number)).and_then(|n| T::try_from(n).ok()) {
            Some(number) => Some(number),
            None => {
                self.refuse(
                    key,
                    format_args!("{} is out of range, allowed: {allowed}", digits.as_str()),
                );
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &'static str) -> Option<bool> {
        let value = self.value(key)?.get_ref();
        if let DeValue::Boolean(yes) = value {
            return Some(*yes);
        }
        self.wrong_type(key, value, "true, false");
        None
    }

    /// Text that passes `check`; `allowed` says in words what passes.
    pub fn text(
        &self,
        key: &'static str,
        allowed: &str,
        check: impl Fn(&str) -> bool,
    ) -> Option<&'a str> {
        let value = self.value(key)?.get_ref();
        let DeValue::String(text) = value else {
            self.wrong_type(key, value, allowed);
            return None;
        };
        if check(text) {
            return Some(text);
        }
        self.refuse(key, format_args!("{text:?} is not valid, allowed: {allowed}"));
        None
    }

    /// One of a few words: its place in `allowed`.
    pub fn choice(&self, key: &'static str, allowed: &[&str]) -> Option<usize> {
        let text = self.text(key, &allowed.join(", "), |text| allowed.contains(&text))?;
        allowed.iter().position(|word| *word == text)
    }

    /// A list of texts that all pass `check`.
    pub fn texts(
        &self,
        key: &'static str,
        allowed: &str,
        check: impl Fn(&str) -> bool,
    ) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(key, value.get_ref(), &format!("a list of {allowed}"));
            return None;
        };
        let mut texts = Vec::new();
        for item in array.iter() {
            let value = item.get_ref();
            if let Some(text) = value.as_str().filter(|text| check(text)) {
                texts.push(text.to_owned());
                continue;
            }
            let what = value.as_str().map_or(kind(value).into(), |text| format!("{text:?}"));
            let prefix = &self.prefix;
            self.source.complain(
                item.span(),
                format!("{prefix}{key}: {what} is not valid, allowed: a list of {allowed}"),
            );
        }
        Some(texts)
    }

    /// A list of whole numbers in `range`.
    pub fn integers(&self, key: &'static str, range: RangeInclusive<i64>) -> Option<Vec<u32>> {
        let allowed = format!("a list of whole numbers, {}..{}", range.start(), range.end());
        let value = self.value(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(key, value.get_ref(), &allowed);
            return None;
        };
        let numbers = array.iter().map(|item| {
            let digits = item.get_ref().as_integer()?;
            let number = i64::from_str_radix(digits.as_str(), digits.radix()).ok()?;
            u32::try_from(number).ok().filter(|_| range.contains(&number))
        });
        let numbers: Option<Vec<u32>> = numbers.collect();
        if numbers.is_none() {
            self.refuse(key, format_args!("is not valid, allowed: {allowed}"));
        }
        numbers
    }

    /// A table of texts, in the order of their names.
    pub fn pairs(&self, key: &'static str) -> Option<Vec<(String, String)>> {
        let value = self.value(key)?;
        let allowed = "a table of texts, { NAME = \"value\" }";
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(key, value.get_ref(), allowed);
            return None;
        };
        let pairs = table.iter().map(|(name, value)| {
            Some((name.get_ref().to_string(), value.get_ref().as_str()?.to_owned()))
        });
        let pairs: Option<Vec<_>> = pairs.collect();
        if pairs.is_none() {
            self.refuse(key, format_args!("is not valid, allowed: {allowed}"));
        }
        pairs
    }

    /// Reads a table with `read`.
    pub fn table<T>(&self, key: &'static str, read: impl FnOnce(&Section<'_>) -> T) -> Option<T> {
        let value = self.value(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(key, value.get_ref(), &format!("a table, [{}{key}]", self.prefix));
            return None;
        };
        let prefix = format!("{}{key}.", self.prefix);
        let section = Section::new(self.source, table, prefix, value.span());
        let result = read(&section);
        section.finish();
        Some(result)
    }

    /// Reads each table of a list with `read`.
    pub fn tables<T>(&self, key: &'static str, read: impl Fn(&Section<'_>) -> T) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let allowed = format!("a list of tables, [[{}{key}]]", self.prefix);
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(key, value.get_ref(), &allowed);
            return None;
        };
        let mut results = Vec::new();
        for item in array.iter() {
            let Some(table) = item.get_ref().as_table() else {
                self.wrong_type(key, item.get_ref(), &allowed);
                return None;
            };
            let prefix = format!("{}{key}.", self.prefix);
            let section = Section::new(self.source, table, prefix, item.span());
            results.push(read(&section));
            section.finish();
        }
        Some(results)
    }

    /// Complains about every key that nobody asked for.
    fn finish(&self) {
        let mut asked = self.asked.borrow().clone();
        asked.sort_unstable();
        asked.dedup();
        let allowed = asked.join(", ");
        for (name, _) in self.table {
            if self.source.issues.borrow().len() > ISSUES_MAX {
                return;
            }
            if !asked.contains(&name.get_ref().as_ref()) {
                let (prefix, key) = (&self.prefix, name.get_ref());
                self.source.complain(
                    name.span(),
                    format!("{prefix}{key}: unknown key, allowed: {allowed}"),
                );
            }
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issues(text: &str) -> Vec<String> {
        let read = |section: &Section<'_>| {
            let _: Option<u32> = section.integer("timeout_s", 1..=900);
            section.choice("zygote", &["auto", "on", "off"]);
            section.boolean("shared");
            section.texts("read", "absolute paths", |path| path.starts_with('/'));
            section.integers("delays", 0..=9);
            section.pairs("environment");
            section.table("async", |inner| inner.integer::<u8>("retries", 0..=2));
            section.tables("trigger", |inner| inner.boolean("shared"));
        };
        match Source::new("f.toml", text).read(read) {
            Ok(()) => Vec::new(),
            Err(issues) => issues.iter().map(Issue::to_string).collect(),
        }
    }

    #[test]
    fn every_complaint_names_file_line_key_and_what_is_allowed() {
        for (text, complaint) in [
            ("\ntimeout_s = 1000", "f.toml:2: timeout_s: 1000 is out of range, allowed: 1..900"),
            ("timeout_s = \"3\"", "f.toml:1: timeout_s: is text, allowed: a whole number, 1..900"),
            ("zygote = \"yes\"", "f.toml:1: zygote: \"yes\" is not valid, allowed: auto, on, off"),
            ("shared = 1", "f.toml:1: shared: is a whole number, allowed: true, false"),
            (
                "read = [\n\"/a\",\n\"b\"]",
                "f.toml:3: read: \"b\" is not valid, allowed: a list of absolute paths",
            ),
            (
                "delays = [1, 10]",
                "f.toml:1: delays: is not valid, allowed: a list of whole numbers, 0..9",
            ),
            (
                "environment = { A = 1 }",
                "f.toml:1: environment: is not valid, allowed: a table of texts, { NAME = \"value\" }",
            ),
            ("[async]\nretries = 3", "f.toml:2: async.retries: 3 is out of range, allowed: 0..2"),
            ("[async]\n\nx = 3", "f.toml:3: async.x: unknown key, allowed: retries"),
            (
                "[[trigger]]\n[[trigger]]\ny = 1",
                "f.toml:3: trigger.y: unknown key, allowed: shared",
            ),
            (
                "trigger = 1",
                "f.toml:1: trigger: is a whole number, allowed: a list of tables, [[trigger]]",
            ),
        ] {
            assert_eq!(issues(text), [complaint], "{text}");
        }
    }

    #[test]
    fn all_complaints_come_at_once_and_bad_toml_is_one() {
        assert_eq!(issues("timeout_s = 0\nzygote = 1\nfoo = 1").len(), 3);
        let bad = issues("timeout_s = 3\nzygote = = 1\n");
        assert_eq!(bad.len(), 1);
        assert!(bad[0].starts_with("f.toml:2: "), "{bad:?}");
        assert!(issues("timeout_s = 0x10").is_empty(), "16 is fine in any base");
    }
}
