//! What a shell and `man` know of the commands.

use std::process::Command;

use crate::harness::scene::attestd;

/// What bash offers after these words.
fn offered(words: &[&str]) -> Vec<String> {
    let said = attestd(&["completions", "bash"]);
    assert!(said.status.success());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("completions");
    std::fs::write(&file, said.stdout).expect("written");
    let asked = format!(
        ". {}; COMP_WORDS=({}); COMP_CWORD={}; _attestd attestd {} ''; echo ${{COMPREPLY[@]}}",
        file.display(),
        words.join(" "),
        words.len() - 1,
        words.last().expect("a word"),
    );
    let bash = Command::new("bash").args(["-c", &asked]).output();
    let bash = bash.expect("bash");
    assert_eq!(String::from_utf8_lossy(&bash.stderr), "");
    let offered = String::from_utf8(bash.stdout).expect("text");
    offered.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_commands_their_options_and_what_these_may_be() {
    assert_eq!(offered(&["attestd", "check"]), ["check-config"]);
    assert_eq!(offered(&["attestd", "serve", "--conf"]), ["--config"]);
    let scheme = offered(&["attestd", "openapi", "int"]);
    assert_eq!(scheme, ["internal"]);
}

#[test]
fn every_command_has_a_page_that_says_what_help_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pages = folder.path().join("man1");
    let said = attestd(&["man", pages.to_str().expect("text")]);
    assert!(said.status.success(), "{said:?}");
    let help = attestd(&["--help"]);
    let help = String::from_utf8(help.stdout).expect("text");
    let (_, commands) = help.split_once("Commands:\n").expect("commands");
    let (commands, _) = commands.split_once("\n\n").expect("an end");
    let mut count = 0;
    for line in commands.lines() {
        let (name, about) = line.trim().split_once("  ").expect("what it does");
        if name == "help" {
            continue;
        }
        let page = std::fs::read_to_string(pages.join(format!("attestd-{name}.1")));
        let page = page.expect(name);
        let first = about.split_whitespace().next().expect("a word");
        assert!(page.starts_with(".ie") && page.contains(first), "{name}");
        count += 1;
    }
    assert!(count > 10, "{help}");
    assert!(pages.join("attestd.1").exists());
}

#[test]
fn pages_that_cannot_be_written_are_refused_with_the_folder() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("text");
    let said = attestd(&["man", path]);
    assert_eq!(said.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&said.stderr).contains(path),
        "{said:?}"
    );
}
