//! Text, tables and the template: the only way that anything gets into the page.
//!
//! Invariant: what is not written here as HTML is escaped, and what steers a display is shown as what it is.

use std::fmt::Write as _;

use crate::cli::output::escape;
use crate::daemon::facts::PathText;

/// `text` as HTML.
pub(super) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escape(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A path as HTML; bytes that are no text as `\xff`.
pub(super) fn path(path: &PathText) -> String {
    match &path.path_bytes {
        None => format!("<bdi>{}</bdi>", text(&path.path)),
        Some(bytes) => name(bytes),
    }
}

/// A name as HTML.
pub(super) fn name(bytes: &[u8]) -> String {
    let mut out = String::from("<bdi>");
    for chunk in bytes.utf8_chunks() {
        out.push_str(&text(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push_str("</bdi>");
    out
}

/// RFC 3339 as people read it: to the second, in UTC.
pub(super) fn time(rfc3339: &str) -> String {
    let short = rfc3339.get(..19).unwrap_or(rfc3339).replace('T', " ");
    format!("<time datetime=\"{}\">{}</time>", text(rfc3339), text(&short))
}

/// A column: its head and its classes (`n`: a number, `t`: a time, `wide`: left out where there is no room).
pub(super) type Column = (&'static str, &'static str);

/// A table of cells that are HTML; `empty` is said where there are no rows.
pub(super) fn table(columns: &[Column], rows: &[Vec<String>], empty: &str) -> String {
    if rows.is_empty() {
        return format!("<p class=\"hint\">{}</p>", text(empty));
    }
    // A number that begins a row stands apart from the text after it.
    let kind = if columns.first().is_some_and(|(_, class)| *class == "n") { " class=\"first-n\"" } else { "" };
    let mut out = format!("<div class=\"scroll\"><table{kind}><thead><tr>");
    for (head, class) in columns {
        let _ = write!(out, "<th scope=\"col\" class=\"{class}\">{head}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows {
        out.push_str("<tr>");
        for (cell, (_, class)) in row.iter().zip(columns) {
            let _ = write!(out, "<td class=\"{class}\">{cell}</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

/// A bar as long as `part` is of `most`, beneath `cell`.
pub(super) fn metered(cell: &str, part: u64, most: u64) -> String {
    format!("{cell}<span class=\"meter\" aria-hidden=\"true\"><i style=\"width:{}%\"></i></span>", percent(part, most))
}

/// Hundredths with one decimal, for lengths.
pub(super) fn percent(part: u64, most: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(most.max(1));
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// `template` with each `{{key}}` replaced by its value. Values are not looked at again, whatever is in them.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len() + values.iter().map(|(_, value)| value.len()).sum::<usize>());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (key, after) = after.split_once("}}").unwrap_or((after, ""));
        out.push_str(values.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| *value));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// JSON that can stand in a `<script>`: nothing in it ends the element, or a line of a script.
pub(super) fn embed(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_whatever_is_in_them() {
        assert_eq!(text("<b a=\"1\">'&\n\u{202e}"), "&lt;b a=&quot;1&quot;&gt;&#39;&amp;\\n\\u{202e}");
        assert_eq!(name(b"a\xff<\xe2\x82"), "<bdi>a\\xff&lt;\\xe2\\x82</bdi>");
        let json = embed("\"</script><!--\u{2028}\"");
        assert_eq!(json, "\"\\u003c/script>\\u003c!--\\u2028\"");
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), "</script><!--\u{2028}");
    }

    #[test]
    fn what_is_filled_in_is_not_filled_again() {
        assert_eq!(fill("<{{a}}|{{b}}|{{none}}>", &[("a", "{{b}}"), ("b", "2")]), "<{{b}}|2|>");
    }

    #[test]
    fn every_place_of_the_page_is_known() {
        let template = include_str!("page.html");
        for key in template.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(key, _)| key) {
            assert!(super::super::page::KEYS.contains(&key), "{key}");
        }
    }

    #[test]
    fn shares_and_times_are_short() {
        assert_eq!((percent(1, 3), percent(0, 0), percent(7, 7)), ("33.3".into(), "0.0".into(), "100.0".into()));
        assert!(time("2026-11-21T17:22:05.123Z").contains(">2026-11-21 17:22:05<"));
    }
}
