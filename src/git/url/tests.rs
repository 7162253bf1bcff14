use super::*;

fn parse(text: &str) -> RepoUrl {
    RepoUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_form_git_clone_takes() {
    for (text, scheme, shown) in [
        ("/nonexistent/x", Scheme::Local, "/nonexistent/x"),
        ("file:///nonexistent/a%20b", Scheme::Local, "/nonexistent/a b"),
        ("git://Host.Example:9418/x.git", Scheme::Git, "git://host.example/x.git"),
        ("ssh://me@host:2222/srv/x", Scheme::Ssh, "ssh://me@host:2222/srv/x"),
        ("ssh://host/~me/x", Scheme::Ssh, "ssh://host/~me/x"),
        ("me@host:x/y.git", Scheme::Ssh, "me@host:x/y.git"),
        ("[::1]:x", Scheme::Ssh, "[::1]:x"),
        ("git://[::1]:7000/x", Scheme::Git, "git://[::1]:7000/x"),
        ("https://u:secret@host/x?y=1", Scheme::Https, "https://host/x?y=1"),
        ("HTTP://host:8080/x", Scheme::Http, "http://host:8080/x"),
    ] {
        let url = parse(text);
        assert_eq!((url.scheme(), url.display().as_str()), (scheme, shown), "{text}");
    }
    assert_eq!(parse("ssh://host/~me/x").path(), b"~me/x");
    assert!(parse("some/relative").local_path().is_some_and(|path| path.is_absolute()));
}

#[test]
fn credentials_are_kept_apart_and_never_shown() {
    let url = parse("https://me:p%40ss@host/x");
    assert_eq!((url.user(), url.password()), (Some("me"), Some("p@ss")));
    for shown in [url.display(), url.key(), format!("{url:?}"), url.to_git().to_string_lossy().into_owned()] {
        assert!(!shown.contains("p@ss") && !shown.contains("p%40ss") && !shown.contains("me"), "{shown}");
    }
    let error = RepoUrl::parse("https://me:secret@host:99999/x").expect_err("no such port");
    assert!(!error.to_string().contains("secret"), "{error}");
    let error = RepoUrl::parse("ftp://me:secret@host/x").expect_err("no such scheme");
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn one_repository_has_one_key() {
    let same = |a: &str, b: &str| assert_eq!(parse(a).key(), parse(b).key());
    same("https://Host/x.git", "https://me:pw@host:443/x/");
    same("ssh://me@host/srv/x", "me@host:/srv/x/");
    same("git@host:me/x", "git@host:me/x.git");
    same("git://host:9418/x", "git://HOST/x");
    same("/nonexistent/x", "file:///nonexistent/x");
    same("/nonexistent/x/.git", "/nonexistent/x");
    let differ = |a: &str, b: &str| assert_ne!(parse(a).key(), parse(b).key());
    differ("ssh://me@host/x", "me@host:x");
    differ("ssh://me@host/x", "ssh://you@host/x");
    differ("me@host:x", "me@host:x.git");
    differ("/nonexistent/x.git", "/nonexistent/x");
    differ("https://host/x", "https://host:8443/x");
    differ("https://host/x", "https://host/X");
}

#[test]
fn what_could_be_an_option_or_a_helper_is_refused() {
    for text in [
        "",
        "ext::sh -c whoami",
        "ssh://-oProxyCommand=x/y",
        "-oProxyCommand=x:y",
        "ssh://-l@host/y",
        "host:-x",
        "git://host",
        "git:///x",
        "ssh://host:0/x",
        "host:",
        "svn://host/x",
        "git://ho st/x",
        "git://host/a%0Ab",
        "git://host/a%00b",
    ] {
        assert!(RepoUrl::parse(text).is_err(), "{text:?} was taken");
    }
}
