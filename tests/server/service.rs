//! The program under a service manager and in a shell: what systemd hears, the check of settings, completions and pages.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn prefixd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prefixd"));
    command.stdin(Stdio::null());
    command
}

/// Reads what systemd is told until it is `wanted`.
fn heard(socket: &UnixDatagram, wanted: &str) {
    let mut buffer = [0; 256];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("never heard {wanted}: {error}"));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.lines().any(|line| line == wanted) {
            return;
        }
        assert!(text.starts_with("WATCHDOG=1") || text.starts_with("READY=1"), "{text}, before {wanted}");
    }
}

#[test]
fn systemd_hears_that_it_is_ready_that_it_lives_and_that_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let mut child = prefixd()
        .args(["serve", "--port", "0", "--log-level", "warn", "--cache-dir"])
        .arg(dir.path().join("cache"))
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .env("WATCHDOG_USEC", "300000")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    heard(&socket, "READY=1");
    heard(&socket, "WATCHDOG=1");
    heard(&socket, "WATCHDOG=1");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    heard(&socket, "STOPPING=1");
    assert!(child.wait().unwrap().success());
}

fn check(dir: &Path, settings: &str) -> Output {
    let path = dir.join("prefixd.toml");
    std::fs::write(&path, settings).unwrap();
    prefixd().args(["serve", "--check-config", "--config"]).arg(path).output().unwrap()
}

#[test]
fn settings_are_checked_without_serving() {
    let dir = tempfile::tempdir().unwrap();
    let fine = check(dir.path(), "[server]\nport = 1\n");
    assert!(fine.status.success(), "{}", String::from_utf8_lossy(&fine.stderr));
    assert_eq!(String::from_utf8_lossy(&fine.stdout), "the configuration is valid\n");
    for (wrong, named) in [
        ("[server]\nprot = 1\n", "prot"),
        ("[cache]\nsession_ttl_m = 0\n", "cache.session_ttl_m"),
        ("[kv]\nbits = \"7\"\n", "kv.bits"),
        ("[log]\nlevel = \"prefixd=loud\"\n", "log.level"),
        ("[cache]\ncontexts = [\"/no/such/context.json\"]\n", "/no/such/context.json"),
    ] {
        let output = check(dir.path(), wrong);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(named), "{wrong}: {said}");
    }
}

#[test]
fn shells_and_man_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = prefixd().args(["completions", shell]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("check-config"), "{shell}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(prefixd().arg("manual").arg(dir.path()).status().unwrap().success());
    for file in [
        "man/man1/prefixd.1",
        "man/man1/prefixd-serve.1",
        "man/man1/prefixd-cache-gc.1",
        "bash-completion/completions/prefixd",
        "zsh/site-functions/_prefixd",
        "fish/vendor_completions.d/prefixd.fish",
    ] {
        assert!(dir.path().join(file).metadata().unwrap().len() > 100, "{file}");
    }
    let bash = dir.path().join("bash-completion/completions/prefixd");
    assert!(Command::new("bash").arg("-n").arg(bash).status().unwrap().success());
}
