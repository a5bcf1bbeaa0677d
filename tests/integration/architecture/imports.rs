//! Reads what each module imports: the paths in `use` trees, and those anywhere that begin with `crate`, `super` or `self`.
//!
//! What a module hands on of its own parts (`pub use part::Name`) is no import; tests, fuzzing and the executables are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module's name, a part for each level: `pg`, `wire`, `frame`.
pub(super) type Module = Vec<String>;
/// What each module imports.
pub(super) type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// Reads the modules of this crate.
pub(super) fn of_the_crate() -> Imports {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut texts = BTreeMap::new();
    read(&src, &mut Vec::new(), &mut texts);
    let mut sources: BTreeMap<&Module, Vec<&str>> = texts.iter().map(|(name, text)| (name, tokens(text))).collect();
    // The crate's root declares all of them; `bin` and `main` are other crates.
    let root = sources.remove(&vec!["lib".to_owned()]).expect("src/lib.rs");
    let mut left_out: Vec<Module> =
        [tested(&root), vec!["bin", "main"]].concat().iter().map(|name| part(&[], name)).collect();
    for (module, tokens) in &sources {
        left_out.extend(tested(tokens).into_iter().map(|name| part(module, name)));
    }
    sources.retain(|module, _| !left_out.iter().any(|prefix| module.starts_with(prefix)));
    let modules: BTreeSet<Module> = sources.keys().map(|module| module.to_vec()).collect();
    assert!(modules.len() > 50, "hardly any module in {}", src.display());
    sources.iter().map(|(module, tokens)| (module.to_vec(), imported(module, tokens, &modules))).collect()
}

/// A part of a module.
fn part(module: &[String], name: &str) -> Module {
    [module, &[name.to_owned()]].concat()
}

/// Reads the sources in a directory, which stands for the module `name`, and in those below.
fn read(dir: &Path, name: &mut Module, texts: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(dir).expect("read a directory").map(|entry| entry.expect("an entry").path()) {
        let stem = entry.file_stem().and_then(|stem| stem.to_str()).expect("a UTF-8 name").to_owned();
        let is_module = stem == "mod";
        name.push(stem);
        if entry.is_dir() {
            read(&entry, name, texts);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).expect("read a source");
            texts.insert(name[..name.len() - usize::from(is_module)].to_vec(), text);
        }
        name.pop();
    }
}

/// Takes a source apart into words and marks (`::` is one), without comments, and without what stands in quotes.
fn tokens(source: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while let Some(c) = rest.chars().next() {
        let raw = rest.trim_start_matches(['b', 'c']).strip_prefix('r').map(|raw| (raw, raw.trim_start_matches('#')));
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some((raw, text)) = raw.filter(|(_, text)| text.starts_with('"')) {
            let end = format!("\"{}", &raw[..raw.len() - text.len()]);
            let begin = rest.len() - text.len() + 1;
            text[1..].find(&end).map_or(rest.len(), |at| begin + at + end.len())
        } else if c == '"' || c == '\'' && (rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'')) {
            quoted(rest)
        } else {
            let length = match rest.find(|c| !is_word(c)).unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => c.len_utf8(),
                word => word,
            };
            tokens.push(&rest[..length]);
            length
        };
        rest = rest[length..].trim_start();
    }
    tokens
}

/// How long a literal is that this text begins with, its quotes included.
fn quoted(text: &str) -> usize {
    let (mut escaped, quote) = (false, text.chars().next());
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if Some(c) == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Finds the items that are only compiled for tests: where each begins, its attribute included, and ends.
fn test_items(tokens: &[&str]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut end = at + 1;
        if tokens[at..].starts_with(&["#", "[", "cfg", "("]) {
            end = at + tokens[at..].iter().take_while(|token| **token != "]").count() + 1;
            let is = |word: &str| tokens[at..].iter().take(end - at).any(|token| *token == word);
            if is("test") && !is("not") {
                let mut depth = 0;
                for token in tokens.iter().skip(end) {
                    end += 1;
                    match *token {
                        "{" | "(" | "[" => depth += 1,
                        "}" | ")" | "]" => depth -= 1,
                        _ => {}
                    }
                    if depth < 0 || depth == 0 && matches!(*token, "}" | ";") {
                        break;
                    }
                }
                found.push((at, end));
            }
        }
        at = end;
    }
    found
}

/// Finds the modules, in files of their own, that are only compiled for tests.
fn tested<'s>(tokens: &[&'s str]) -> Vec<&'s str> {
    let items = test_items(tokens).into_iter().map(|(from, to)| &tokens[from..to]);
    let name = |item: &[&'s str]| {
        let at = item.iter().position(|token| *token == "mod")?;
        (*item.get(at + 2)? == ";").then(|| item[at + 1])
    };
    items.filter_map(name).collect()
}

/// Finds what a module imports, itself not included.
fn imported(module: &[String], tokens: &[&str], modules: &BTreeSet<Module>) -> BTreeSet<Module> {
    let mut skipped = test_items(tokens).into_iter().peekable();
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        if let Some((_, end)) = skipped.next_if(|(from, _)| *from <= at) {
            at = end.max(at);
            continue;
        }
        let before = at.checked_sub(1).map_or("", |before| tokens[before]);
        let mut paths = Vec::new();
        match tokens[at] {
            "use" => {
                let handed_on = matches!(before, "pub" | ")");
                at = tree(tokens, at + 1, &[], &mut paths);
                let is_own = |path: &Vec<&str>| {
                    path.iter()
                        .find(|first| **first != "self")
                        .is_some_and(|first| modules.contains(&part(module, first)))
                };
                paths.retain(|path| !(handed_on && is_own(path)));
            }
            "crate" | "super" | "self" if before != "::" && tokens.get(at + 1) == Some(&"::") => {
                at = tree(tokens, at, &[], &mut paths);
            }
            _ => at += 1,
        }
        found.extend(paths.iter().filter_map(|path| target(module, path, modules)).filter(|other| other != module));
    }
    found
}

/// Reads a `use` tree, or a path, behind this prefix; gives where it ends.
fn tree<'s>(tokens: &[&'s str], mut at: usize, prefix: &[&'s str], paths: &mut Vec<Vec<&'s str>>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        at += 1;
        match *token {
            "{" => {
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at = tree(tokens, at, &path, paths);
                    // What it is called here, and the comma.
                    at += tokens[at..].iter().take_while(|token| !matches!(**token, "," | "}")).count();
                    at += usize::from(tokens.get(at) == Some(&","));
                }
                return at + 1;
            }
            "self" if !path.is_empty() => {}
            "*" => {}
            name => path.push(name),
        }
        if tokens.get(at) != Some(&"::") {
            break;
        }
        at += 1;
    }
    paths.push(path);
    at
}

/// Finds the module that a path of this one leads to; none if it leaves the crate.
fn target(module: &[String], path: &[&str], modules: &BTreeSet<Module>) -> Option<Module> {
    let mut base = module.to_vec();
    match *path.first()? {
        "crate" => base.clear(),
        "self" | "super" => {}
        first if modules.contains(&part(module, first)) => {}
        _ => return None,
    }
    let mut rest = path.iter().skip_while(|name| matches!(**name, "crate" | "self")).peekable();
    while rest.next_if(|name| **name == "super").is_some() {
        base.pop();
    }
    base.extend(rest.map(|name| (*name).to_owned()));
    (1..=base.len()).rev().map(|length| base[..length].to_vec()).find(|prefix| modules.contains(prefix))
}

#[test]
fn nested_use_trees_are_read() {
    let read = |text: &str| {
        let mut paths = Vec::new();
        tree(&tokens(text), 0, &[], &mut paths);
        paths.iter().map(|path| path.join("::")).collect::<Vec<_>>()
    };
    assert_eq!(
        read("crate::a::{self, b as c, d::{e, f::*}, g};"),
        ["crate::a", "crate::a::b", "crate::a::d::e", "crate::a::d::f", "crate::a::g"]
    );
    assert_eq!(read("super::super::x;"), ["super::super::x"]);
    assert_eq!(read("{a, b::{c}};"), ["a", "b::c"]);
}

/// What `a/b` imports, which has the part `own`, of a crate with a few other modules.
fn imported_by(text: &str) -> Vec<String> {
    let name = |text: &str| text.split('/').map(str::to_owned).collect::<Module>();
    let modules = ["a", "a/b", "a/b/own", "a/c", "d", "d/e"].map(name).into();
    imported(&name("a/b"), &tokens(text), &modules).iter().map(|module| module.join("/")).collect()
}

#[test]
fn paths_lead_to_modules() {
    assert_eq!(imported_by("use super::c::{X, y}; use crate::d::e::Z; use std::d::e;"), ["a/c", "d/e"]);
    assert_eq!(
        imported_by("fn f() -> crate::d::Y { super::x(); self::own::z(); <super::c::T>::new() }"),
        ["a", "a/b/own", "a/c", "d"]
    );
    assert_eq!(imported_by("use crate::{a::c, d::{self, e}}; use super::*; use self::b::X;"), ["a", "a/c", "d", "d/e"]);
}

#[test]
fn what_is_handed_on_of_a_modules_own_parts_is_no_import() {
    assert_eq!(imported_by("mod own; pub use own::X; pub(crate) use self::own::{Y, Z};"), [""; 0]);
    assert_eq!(imported_by("use own::X; pub use super::c::Y;"), ["a/b/own", "a/c"]);
}

#[test]
fn tests_comments_and_texts_are_left_out() {
    let text = r##"
        //! [`crate::d`] /* super::c */
        /* use crate::d; */
        const A: &str = "use crate::d; \" super::c::x"; const B: &str = r#"crate::d::" "#;
        const C: [char; 2] = ['"', '\'']; fn f<'a>(a: &'a str) {}
        #[cfg(test)] #[allow(dead_code)] mod tests { use crate::d::e; fn g() { if true {} } }
        #[cfg(any(test, fuzzing))] mod other;
        #[cfg(all(test, unix))] use super::c;
        struct S { #[cfg(test)] seen: Vec<[u8; 2]> }
        #[cfg(test)] fn h(a: [u8; 2]) { crate::d::e::f() }
        #[cfg(not(test))] use crate::d;
    "##;
    assert_eq!(imported_by(text), ["d"]);
    assert_eq!(tested(&tokens(text)), ["other"]);
}
