//! Credentials from a netrc file, which Git over HTTP reads through curl.

/// Login and password for `host` in the text of a netrc file; the first entry that fits.
pub(super) fn find(text: &str, host: &str) -> Option<(String, String)> {
    let mut words = text.split_whitespace();
    let mut applies = false;
    let (mut login, mut password): (Option<String>, Option<String>) = (None, None);
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                if applies && login.is_some() && password.is_some() {
                    break;
                }
                (login, password) = (None, None);
                applies = word == "default" || words.next().is_some_and(|name| name.eq_ignore_ascii_case(host));
            }
            "login" => login = words.next().map(str::to_owned),
            "password" => password = words.next().map(str::to_owned),
            "account" => drop(words.next()),
            // A macro ends at the first empty line; words cannot tell, so nothing after it counts.
            "macdef" => break,
            _ => {}
        }
    }
    applies.then_some(login.zip(password)).flatten()
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn the_entry_of_the_host_or_the_default() {
        let text = "machine a login x password 1\nmachine B\n login y\n password 2\ndefault login z password 3";
        let found = |host| find(text, host).map(|(login, password)| login + ":" + &password);
        assert_eq!(found("a").as_deref(), Some("x:1"));
        assert_eq!(found("b").as_deref(), Some("y:2"));
        assert_eq!(found("c").as_deref(), Some("z:3"));
        assert_eq!(find("machine a login x", "a"), None);
    }
}
