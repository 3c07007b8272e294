//! The page of the last starts.

use std::fmt::Write as _;

use crate::export::Told;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="5">
<title>hearth: the last starts</title>
<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color-scheme: light dark }
pre { white-space: pre-wrap }
</style>
<h1>The last starts</h1>
<p>Newest first. Also as <a href="/starts.json">JSON</a>, and as
<a href="/metrics">metrics</a> for Prometheus.</p>
"#;

/// The page with `starts`, newest first.
pub(super) fn html<'a>(starts: impl Iterator<Item = &'a Told>) -> String {
    let mut html = String::from(HEAD);
    let mut starts = starts.peekable();
    if starts.peek().is_none() {
        html.push_str("<p>None yet: start a program.</p>\n");
        return html;
    }
    html.push_str("<pre>\n");
    for told in starts {
        // Writing to a string cannot fail.
        let _ = writeln!(
            html,
            "<span title=\"trace {:032x}\">{}</span>",
            told.trace_id,
            escape(&told.line)
        );
    }
    html.push_str("</pre>\n");
    html
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_is_called_is_text_and_no_markup() {
        let told = Told {
            end_unix_ns: 0,
            name: String::new(),
            trace_id: 7,
            line: "<script>alert('x')</script> & \"".to_owned(),
            json: Box::default(),
        };
        let html = html([&told].into_iter());
        assert!(!html.contains("<script"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;"));
    }
}
