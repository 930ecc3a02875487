//! The server as a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A running `attestd serve`; killed when dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    pub public: SocketAddr,
    pub internal: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Served {
    /// Starts the server and waits until it serves.
    ///
    /// # Panics
    /// When it ends instead; with what it said.
    pub fn start(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_attestd"))
            .args(["serve", "--insecure-http", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("attestd runs");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut said = String::new();
        let serving = loop {
            let line = lines.next().and_then(Result::ok);
            assert!(line.is_some(), "attestd ended:\n{said}");
            let line = line.unwrap_or_default();
            said.push_str(&line);
            said.push('\n');
            if line.contains("serving") {
                break line;
            }
        };
        let log = Arc::new(Mutex::new(said));
        let rest = Arc::clone(&log);
        // Read on, or the server would wait for a reader.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = rest.lock().expect("no panic");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let nowhere = SocketAddr::from(([0; 4], 0));
        // From here on, whatever fails ends the process too.
        let mut served = Self {
            child,
            public: nowhere,
            internal: nowhere,
            log,
        };
        let address = |name: &str| {
            let from = serving.split(&format!("{name}=")).nth(1).expect(&serving);
            from.split_whitespace()
                .next()
                .expect(name)
                .parse()
                .expect(name)
        };
        (served.public, served.internal) = (address("public"), address("internal"));
        served
    }

    /// Ends it without warning, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("ends");
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a fault in it would; whether it left a core dump.
    pub fn abort(&mut self) -> bool {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-ABRT", &pid]).status();
        assert!(sent.expect("kill runs").success());
        self.child.wait().expect("ends").core_dumped()
    }

    /// Ends it as a service manager does, and gives back its exit status.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill runs");
        assert!(sent.success());
        self.child.wait().expect("ends").code()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
