//! Rust source as text: without comments and strings, and the paths in it.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of Rust source.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// From the root of the repository, with `/`.
    pub path: String,
    /// How many lines it has.
    pub length: usize,
    /// Whether it is compiled for tests only.
    pub is_test: bool,
    /// The text, with blanks in place of comments and strings.
    pub code: String,
}

/// Every Rust file in a folder of the repository, except build products; none if there is no such
/// folder.
pub fn sources(folder: &str) -> Vec<SourceFile> {
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths);
    paths.sort();
    let mut files: Vec<_> = paths.iter().map(|path| SourceFile::read(path)).collect();
    let test_modules: Vec<String> = files.iter().flat_map(SourceFile::test_modules).collect();
    for file in &mut files {
        file.is_test = test_modules
            .iter()
            .any(|module| file.path.starts_with(module.as_str()));
    }
    files
}

/// A file of the repository.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect(path)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a folder that can be read").path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

impl SourceFile {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("UTF-8");
        let relative = path.strip_prefix(root()).expect("inside the repository");
        Self {
            path: relative.to_string_lossy().replace('\\', "/"),
            length: text.lines().count(),
            is_test: false,
            code: code_of(&text),
        }
    }

    /// The top-level module it belongs to.
    pub fn module(&self) -> String {
        let inside = self.path.trim_start_matches("src/");
        let first = inside.split('/').next().unwrap_or(inside);
        first.trim_end_matches(".rs").to_owned()
    }

    /// Its lines of code, numbered from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// The same file without what is compiled for tests only.
    pub fn without_tests(&self) -> Self {
        let mut code = self.code.clone();
        while let Some(start) = code.find("#[cfg(test)]") {
            let end = start + item_length(&code[start..]);
            let blank: String = code[start..end]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' })
                .collect();
            code.replace_range(start..end, &blank);
        }
        Self {
            code,
            ..self.clone()
        }
    }

    /// Files of modules that are declared here for tests only, as beginnings of their paths.
    fn test_modules(&self) -> Vec<String> {
        let folder = match self
            .path
            .strip_suffix("/mod.rs")
            .or(self.path.strip_suffix("/lib.rs"))
        {
            Some(folder) => folder,
            None => self.path.trim_end_matches(".rs"),
        };
        let declarations = self.code.split("#[cfg(test)]").skip(1).filter_map(|rest| {
            let (declaration, _) = rest.trim_start().split_once(';')?;
            declaration.strip_prefix("mod ")
        });
        let modules = declarations.filter(|name| name.chars().all(is_word));
        modules
            .flat_map(|name| [format!("{folder}/{name}.rs"), format!("{folder}/{name}/")])
            .collect()
    }

    /// Every word, with its line.
    pub fn words(&self) -> Vec<(usize, String)> {
        tokens(&self.code)
            .into_iter()
            .filter(|(_, token)| token.starts_with(is_word))
            .collect()
    }

    /// Every path (`a::b::c`), groups resolved, with its line. A word alone is a path too.
    pub fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let tokens = tokens(&self.code);
        let mut paths = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            if tokens[at].1.starts_with(is_word) {
                at = path(&tokens, at, &[], &mut paths);
            } else {
                at += 1;
            }
        }
        paths
    }

    /// The top-level modules of this crate that are named here, with their lines.
    pub fn modules_used(&self) -> Vec<(usize, String)> {
        let inside = self
            .path
            .trim_start_matches("src/")
            .trim_end_matches("/mod.rs");
        let depth = inside.split('/').count();
        let mut used = Vec::new();
        for (line, path) in self.paths() {
            let ups = path
                .iter()
                .take_while(|segment| *segment == "super")
                .count();
            let reached = match path.first().map(String::as_str) {
                Some("crate") => path.get(1),
                Some("attestd") if self.path == "src/main.rs" => path.get(1),
                // Inside a module of its own file (`mod tests`), one more leads up.
                Some("super") if ups >= depth => path.get(ups).filter(|name| is_module(name)),
                _ => None,
            };
            used.extend(reached.map(|module| (line, module.clone())));
        }
        used
    }

    /// The names of the tests in this file.
    pub fn tests(&self) -> Vec<String> {
        let tokens = tokens(&self.code);
        let mut names = Vec::new();
        let mut is_test = false;
        for (at, (_, token)) in tokens.iter().enumerate() {
            let before = |back: usize| at.checked_sub(back).map_or("", |at| tokens[at].1.as_str());
            match token.as_str() {
                "test" if before(1) == "[" || before(1) == "::" => is_test = true,
                // Runs the same test on both databases.
                "on_both" | "journey" => is_test = true,
                "fn" if is_test => {
                    names.extend(tokens.get(at + 1).map(|(_, name)| name.clone()));
                    is_test = false;
                }
                _ => {}
            }
        }
        names
    }
}

fn is_module(name: &str) -> bool {
    let src = root().join("src");
    src.join(name).is_dir() || src.join(format!("{name}.rs")).is_file()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words, `::`, and every other sign by itself, each with its line.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (token, after) = rest.split_at(length);
            tokens.push((index + 1, token.to_owned()));
            rest = after.trim_start();
        }
    }
    tokens
}

/// Reads the path that begins at a word, adds it or the paths of its group, and returns where it ends.
fn path(
    tokens: &[(usize, String)],
    start: usize,
    prefix: &[String],
    paths: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let is = |at: usize, sign: &str| tokens.get(at).is_some_and(|(_, token)| token == sign);
    let mut segments = prefix.to_vec();
    let mut at = start;
    while tokens
        .get(at)
        .is_some_and(|(_, token)| token.starts_with(is_word))
    {
        segments.push(tokens[at].1.clone());
        at += 1;
        if !is(at, "::") {
            break;
        }
        at += 1;
        if is(at, "{") {
            at += 1;
            while at < tokens.len() && !is(at, "}") {
                if tokens[at].1.starts_with(is_word) {
                    at = path(tokens, at, &segments, paths);
                } else {
                    at += 1;
                }
            }
            return at + 1;
        }
    }
    paths.push((tokens[start].0, segments));
    // The new name in `as name` is none of ours.
    if is(at, "as") { at + 2 } else { at }
}

/// How long an item with its attributes is: to its `;`, or to the end of its braces.
fn item_length(code: &str) -> usize {
    let mut depth = 0usize;
    let mut brackets = 0usize;
    for (at, c) in code.char_indices() {
        match c {
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets = brackets.saturating_sub(1),
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth = depth.saturating_sub(1),
            ';' | ',' if depth == 0 && brackets == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// The text with blanks in place of comments, strings and characters; lines stay lines.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let follows_word = code.ends_with(is_word);
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            string(rest, 0)
        } else if let Some(length) = raw_string(rest).filter(|_| !follows_word) {
            length
        } else if let Some(length) = character(rest) {
            length
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let (gone, after) = rest.split_at(length);
        code.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = after;
    }
    code
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a string whose quote stands at `start`.
fn string(text: &str, start: usize) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip_while(|(at, _)| *at <= start) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#`, and those of bytes.
fn raw_string(text: &str) -> Option<usize> {
    let inside = text.strip_prefix("br").or(text.strip_prefix('r'))?;
    let hashes = inside.len() - inside.trim_start_matches('#').len();
    let body = inside[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let before = text.len() - body.len();
    Some(
        body.find(&end)
            .map_or(text.len(), |at| before + at + end.len()),
    )
}

/// A character, and no lifetime.
fn character(text: &str) -> Option<usize> {
    let body = text.strip_prefix('\'')?;
    if body.starts_with('\\') {
        let end = body[2..].find('\'')?;
        return Some(1 + 2 + end + 1);
    }
    let first = body.chars().next()?;
    body[first.len_utf8()..]
        .starts_with('\'')
        .then(|| first.len_utf8() + 2)
}

#[test]
fn comments_strings_and_characters_are_no_code() {
    let text =
        "a /* b /* c */ d */ e // f\n\"g \\\" h\" r#\"i\"j\"# 'k' '\\'' '\\u{41}' &'l m b\"n\"";
    let code = code_of(text);
    let words: Vec<_> = tokens(&code)
        .into_iter()
        .map(|(line, token)| format!("{line}{token}"))
        .collect();
    assert_eq!(words, ["1a", "1e", "2&", "2'", "2l", "2m", "2b"]);
}

#[test]
fn groups_are_resolved() {
    let code = "use crate::{a::b, c::{self, d as e}};\nf::<g::h>::i(super::super::pki)".to_owned();
    let file = SourceFile {
        path: "src/x/y.rs".to_owned(),
        length: 2,
        is_test: false,
        code,
    };
    let used: Vec<_> = file
        .modules_used()
        .into_iter()
        .map(|(line, name)| format!("{line}{name}"))
        .collect();
    assert_eq!(used, ["1a", "1c", "1c", "2pki"]);
}

#[test]
fn what_is_for_tests_is_told_apart() {
    let code =
        "#[cfg(test)]\nmod one_test;\nuse a;\n#[cfg(test)]\nmod tests { use b; { } }\nuse c;"
            .to_owned();
    let file = SourceFile {
        path: "src/x/mod.rs".to_owned(),
        length: 6,
        is_test: false,
        code,
    };
    assert_eq!(
        file.test_modules(),
        ["src/x/one_test.rs", "src/x/one_test/"]
    );
    let words: Vec<_> = file
        .without_tests()
        .words()
        .into_iter()
        .map(|(line, word)| format!("{line}{word}"))
        .collect();
    assert_eq!(words, ["3use", "3a", "6use", "6c"]);
}
