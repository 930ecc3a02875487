//! The rules of the house that no compiler holds: who may use whom, what is pure, how long a file
//! is, and that the documents say what is there.
//!
//! The source is read as text, without comments and strings ([`source`]). A macro that builds paths
//! could slip past; there is none.

mod audit;
mod documents;
mod logs;
mod source;

use std::collections::BTreeSet;

use source::{SourceFile, sources};

/// Open to all; they use only each other.
const WORDS: &[&str] = &[
    "ids", "json", "time", "network", "entropy", "secret", "reason",
];

/// No async, no I/O, no clock, no randomness. An edge leads on: who may use a noun may use what that
/// noun uses.
const NOUNS: &[(&str, &[&str])] = &[
    ("pki", &[]),
    ("mdm", &["pki"]),
    ("attestation", &["pki"]),
    ("acme", &["attestation", "pki"]),
    ("scep", &["pki"]),
    ("ca", &["pki"]),
    ("push", &["pki"]),
    ("provider", &["pki"]),
    ("enrollment", &["mdm", "pki"]),
    ("posture", &["attestation", "mdm", "provider"]),
    ("verification", &["posture", "mdm"]),
    ("transparency", &[]),
    ("audit", &["provider"]),
    ("backup", &[]),
    ("oidc", &[]),
    (
        "publication",
        &[
            "verification",
            "posture",
            "enrollment",
            "attestation",
            "transparency",
        ],
    ),
];

/// Stands for every noun.
const EVERY_NOUN: &str = "*";

/// Everything else: an edge is an edge, and nothing more.
const OTHERS: &[(&str, &[&str])] = &[
    ("store", &[EVERY_NOUN]),
    ("apns", &["push", "mdm", "pki"]),
    ("keys", &["pki"]),
    ("outbound", &["pki"]),
    (
        "flows",
        &[EVERY_NOUN, "store", "apns", "keys", "outbound", "telemetry"],
    ),
    ("http", &[EVERY_NOUN, "flows", "telemetry"]),
    ("web", &[EVERY_NOUN, "flows", "http"]),
    ("workers", &["flows"]),
    ("config", &[EVERY_NOUN]),
    ("telemetry", &[EVERY_NOUN, "config"]),
    (
        "app",
        &[
            EVERY_NOUN,
            "store",
            "apns",
            "keys",
            "outbound",
            "flows",
            "http",
            "web",
            "workers",
            "config",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            EVERY_NOUN,
            "app",
            "config",
            "flows",
            "http",
            "keys",
            "outbound",
            "store",
            "telemetry",
        ],
    ),
    ("main", &["cli"]),
];

/// Paths that make something which touches the world.
const CONSTRUCTORS: &[&str] = &[
    "Store::open",
    "Store::open_exclusive",
    "Apns::new",
    "Outbound::new",
    "FileKeeper::open",
    "SystemClock",
    "OsEntropy",
    "TcpListener",
];

/// Who may use them: the composition root, the commands that work without a server, and what makes
/// them. The command line's own listener, that of the server, is bound in `http`.
const COMPOSERS: &[&str] = &["app", "cli"];

const LONGEST_FILE: usize = 600;

/// The modules a module may name, besides itself.
fn allowed(module: &str) -> BTreeSet<&'static str> {
    let mut allowed: BTreeSet<&str> = WORDS.iter().copied().collect();
    if let Some((_, direct)) = OTHERS.iter().find(|(name, _)| *name == module) {
        for name in *direct {
            if *name == EVERY_NOUN {
                allowed.extend(NOUNS.iter().map(|(noun, _)| *noun));
            } else {
                allowed.insert(name);
            }
        }
    }
    let uses = |noun: &str| {
        NOUNS
            .iter()
            .find(|(name, _)| *name == noun)
            .map_or(&[][..], |(_, uses)| uses)
    };
    let mut next = uses(module).to_vec();
    while let Some(noun) = next.pop() {
        if allowed.insert(noun) {
            next.extend(uses(noun));
        }
    }
    allowed
}

fn is_pure(module: &str) -> bool {
    WORDS.contains(&module) || NOUNS.iter().any(|(noun, _)| *noun == module)
}

fn none_of(what: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{what}:\n  {}", faults.join("\n  "));
}

#[test]
fn modules_use_only_what_the_picture_allows() {
    let mut faults = Vec::new();
    for file in sources("src") {
        let module = file.module();
        let is_known =
            is_pure(&module) || OTHERS.iter().any(|(name, _)| *name == module) || module == "lib";
        if !is_known {
            faults.push(format!(
                "{}: give `{module}` its row in this table",
                file.path
            ));
        }
        let allowed = allowed(&module);
        for (line, used) in file.modules_used() {
            if used != module && module != "lib" && !allowed.contains(used.as_str()) {
                faults.push(format!(
                    "{}:{line}: {module} must not use {used}",
                    file.path
                ));
            }
        }
    }
    none_of("edges that ARCHITECTURE.md does not have", &faults);
}

#[test]
fn the_picture_has_no_cycle() {
    for (noun, _) in NOUNS {
        assert!(
            !allowed(noun).contains(noun),
            "{noun} uses itself in the end"
        );
    }
    let rank = |name: &str| OTHERS.iter().position(|(other, _)| *other == name);
    for (name, direct) in OTHERS {
        for used in *direct {
            // Telemetry stands apart: it is used by those above it in the list.
            let is_before = rank(used) < rank(name) || ["telemetry", "config"].contains(used);
            assert!(is_before, "{name} uses {used}, which stands after it");
        }
    }
}

#[test]
fn nouns_are_pure() {
    const FORBIDDEN_CRATES: &[&str] = &[
        "tokio",
        "tokio_util",
        "futures_util",
        "sqlx",
        "sea_orm",
        "rusqlite",
        "axum",
        "tower",
        "hyper",
        "hyper_util",
        "h2",
        "reqwest",
        "rustls",
        "tokio_rustls",
        "tracing",
        "governor",
        "prometheus_client",
    ];
    const FORBIDDEN_STD: &[&str] = &["fs", "net", "env", "process", "thread", "io"];
    const FORBIDDEN_NAMES: &[&str] = &[
        "SystemTime",
        "Instant",
        "SystemRandom",
        "OsRng",
        "rand",
        "getrandom",
    ];
    /// The two places that ask.
    const ASKS: &[(&str, &str)] = &[
        ("src/time/mod.rs", "SystemTime"),
        ("src/time/mod.rs", "Instant"),
        ("src/entropy.rs", "SystemRandom"),
        ("src/entropy.rs", "rand"),
    ];

    let mut faults = Vec::new();
    for file in sources("src")
        .iter()
        .filter(|file| is_pure(&file.module()) && !file.is_test)
    {
        let mut fault = |line: usize, what: &str| {
            faults.push(format!("{}:{line}: {what} in a noun", file.path));
        };
        for (line, word) in file.without_tests().words() {
            if word == "async" || word == "await" {
                fault(line, &word);
            }
        }
        for (line, path) in file.without_tests().paths() {
            let first = path.first().map_or("", String::as_str);
            let second = path.get(1).map_or("", String::as_str);
            if (FORBIDDEN_CRATES.contains(&first) && path.len() > 1)
                || (first == "std" && FORBIDDEN_STD.contains(&second))
            {
                fault(line, &path.join("::"));
            }
            for name in FORBIDDEN_NAMES {
                let is_named = path.iter().any(|segment| segment == name);
                if is_named && !ASKS.contains(&(file.path.as_str(), name)) {
                    fault(line, &path.join("::"));
                }
            }
        }
    }
    none_of("nouns that touch the world", &faults);
}

#[test]
fn every_route_is_described_or_listed() {
    // Pages for people, and what `flows::describe` compares with its list.
    const MAY: &[&str] = &["src/web/mod.rs", "src/http/description/elsewhere.rs"];
    let mut faults = Vec::new();
    let files = sources("src");
    let of_http = |file: &&SourceFile| ["http", "web"].contains(&file.module().as_str());
    for file in files.iter().filter(of_http).filter(|file| !file.is_test) {
        let adds = |text: &str| {
            [
                "Router::new()",
                ".nest(",
                ".route_service(",
                ".nest_service(",
            ]
            .iter()
            .any(|word| text.replace("OpenApiRouter", "").contains(word))
        };
        for (line, text) in file.without_tests().lines() {
            if adds(text) && !MAY.contains(&file.path.as_str()) {
                faults.push(format!("{}:{line}: {}", file.path, text.trim()));
            }
        }
    }
    none_of("routes beside the description of the API", &faults);
}

#[test]
fn only_the_store_speaks_sql() {
    let mut faults = Vec::new();
    for file in sources("src")
        .iter()
        .filter(|file| file.module() != "store")
    {
        for (line, path) in file.paths() {
            let first = path.first().map_or("", String::as_str);
            if [
                "sea_orm",
                "sea_orm_migration",
                "sqlx",
                "rusqlite",
                "migrations",
            ]
            .contains(&first)
            {
                faults.push(format!("{}:{line}: {}", file.path, path.join("::")));
            }
        }
    }
    none_of("databases named outside the store", &faults);
}

#[test]
fn requests_reach_the_store_through_flows() {
    let mut faults = Vec::new();
    for file in sources("src")
        .iter()
        .filter(|file| ["http", "web"].contains(&file.module().as_str()))
    {
        for (line, text) in file.lines() {
            if text.contains(".store.") {
                faults.push(format!("{}:{line}", file.path));
            }
        }
    }
    none_of("http or web uses the store by itself", &faults);
}

#[test]
fn only_the_composition_root_makes_shells() {
    let mut faults = Vec::new();
    for file in sources("src").iter().filter(|file| !file.is_test) {
        let module = file.module();
        let makes_them = ["store", "apns", "keys", "outbound", "time", "entropy"]
            .contains(&module.as_str())
            || (module == "http" && file.path.ends_with("listener.rs"));
        if makes_them || COMPOSERS.contains(&module.as_str()) {
            continue;
        }
        for (line, path) in file.without_tests().paths() {
            let path = path.join("::");
            if CONSTRUCTORS
                .iter()
                .any(|name| path == *name || path.ends_with(&format!("::{name}")))
            {
                faults.push(format!("{}:{line}: {path}", file.path));
            }
        }
    }
    none_of("shells made outside `app`", &faults);
}

#[test]
fn the_simulator_shares_nothing_with_the_server() {
    let mut faults = Vec::new();
    for file in sources("simulator/src") {
        for (line, path) in file.paths() {
            if path.len() > 1 && path.first().is_some_and(|first| first == "attestd") {
                faults.push(format!("{}:{line}", file.path));
            }
        }
    }
    none_of("a shared fault would cancel out", &faults);
    let manifest = source::read("simulator/Cargo.toml");
    let names_it = |line: &str| {
        line.split(['=', '.'])
            .next()
            .is_some_and(|key| key.trim() == "attestd")
    };
    assert!(
        !manifest.lines().any(names_it),
        "the simulator depends on attestd"
    );
}

#[test]
fn files_are_short_enough_to_be_read() {
    let folders = [
        "src",
        "tests",
        "simulator",
        "soak",
        "migrations",
        "benches",
        "fuzz/targets",
    ];
    let faults: Vec<_> = folders
        .iter()
        .flat_map(|folder| sources(folder))
        .filter(|file| file.length > LONGEST_FILE)
        .map(|file| format!("{}: {} lines", file.path, file.length))
        .collect();
    none_of("files over 600 lines", &faults);
}

#[test]
fn nothing_is_left_out_or_waved_through() {
    let mut faults = Vec::new();
    for file in ["src", "tests", "simulator", "soak", "migrations"]
        .iter()
        .flat_map(|folder| sources(folder))
    {
        for (line, text) in file.lines() {
            for mark in [
                "#[ignore",
                "#[allow(",
                "#![allow(",
                "todo!(",
                "unimplemented!(",
                "extern crate",
            ] {
                if text.contains(mark) {
                    faults.push(format!("{}:{line}: {mark}", file.path));
                }
            }
        }
    }
    none_of(
        "tests left out, lints waved through, work left undone",
        &faults,
    );
}

/// The files whose tests are named in documents.
fn tested() -> Vec<SourceFile> {
    ["src", "tests", "simulator", "soak", "migrations"]
        .iter()
        .flat_map(|folder| sources(folder))
        .collect()
}
