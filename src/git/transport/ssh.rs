//! `ssh`: the user's own client, with its configuration, keys and agent.
//!
//! Honours `GIT_SSH_COMMAND`, `core.sshCommand`, `GIT_SSH` and the variant
//! settings as Git does. It never prompts (there is no terminal to ask at),
//! and neither host nor path can become an option: `RepoUrl` refuses a
//! leading `-`, and the path travels quoted.

use std::process::Command;

use super::Dial;
use super::socket::SocketTransport;
use crate::hydrate::remote::RemoteError;

/// Which options a client takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Variant {
    OpenSsh,
    Plink,
    TortoisePlink,
    /// No options at all.
    Simple,
}

/// Starts ssh and has it run upload-pack at the other end.
pub(super) fn open(dial: &Dial) -> Result<SocketTransport, RemoteError> {
    SocketTransport::child(command(dial), dial)
}

fn command(dial: &Dial) -> Command {
    let environment = &dial.environment;
    let shell = environment.get("GIT_SSH_COMMAND").or_else(|| environment.config("core.sshCommand"));
    let program = environment.get("GIT_SSH").unwrap_or_else(|| "ssh".to_owned());
    let variant = variant(dial, shell.as_deref().unwrap_or(&program));
    let mut command = match &shell {
        Some(line) => {
            let mut command = environment.command("sh");
            command.arg("-c").arg(format!("{line} \"$@\"")).arg(line);
            command
        }
        None => environment.command(&program),
    };
    command.env("GIT_PROTOCOL", "version=2");
    match variant {
        Variant::OpenSsh => drop(command.args(["-o", "BatchMode=yes", "-o", "SendEnv=GIT_PROTOCOL"])),
        Variant::Plink => drop(command.arg("-batch")),
        Variant::TortoisePlink => drop(command.arg("-batch").env_remove("SSH_ASKPASS")),
        Variant::Simple => {}
    }
    if let (Some(port), false) = (dial.url.port(), variant == Variant::Simple) {
        command.arg(if variant == Variant::OpenSsh { "-p" } else { "-P" }).arg(port.to_string());
    }
    let host = dial.url.host();
    command.arg(match dial.url.user() {
        Some(user) => format!("{user}@{host}"),
        None => host.to_owned(),
    });
    command.arg(remote_command(dial.url.path()));
    command
}

fn variant(dial: &Dial, line: &str) -> Variant {
    let named = dial.environment.get("GIT_SSH_VARIANT").or_else(|| dial.environment.config("ssh.variant"));
    match named.as_deref() {
        Some("plink" | "putty") => return Variant::Plink,
        Some("tortoiseplink") => return Variant::TortoisePlink,
        Some("simple") => return Variant::Simple,
        Some("ssh") => return Variant::OpenSsh,
        _ => {}
    }
    let program = line.split_whitespace().next().unwrap_or(line);
    let name = program.rsplit(['/', '\\']).next().unwrap_or(program).to_ascii_lowercase();
    match name.strip_suffix(".exe").unwrap_or(&name) {
        "plink" => Variant::Plink,
        "tortoiseplink" => Variant::TortoisePlink,
        _ => Variant::OpenSsh,
    }
}

/// `git-upload-pack 'path'`, quoted for the shell at the other end.
fn remote_command(path: &[u8]) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt as _;
    let mut line = b"git-upload-pack '".to_vec();
    for &byte in path {
        match byte {
            // `!` too, as Git does: csh expands it even between quotes.
            b'\'' | b'!' => line.extend_from_slice(&[b'\'', b'\\', byte, b'\'']),
            _ => line.push(byte),
        }
    }
    line.push(b'\'');
    std::ffi::OsString::from_vec(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_the_other_end() {
        assert_eq!(remote_command(b"/a b'c!$(d)"), "git-upload-pack '/a b'\\''c'\\!'$(d)'");
    }
}
