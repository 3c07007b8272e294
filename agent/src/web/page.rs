//! The page of functions and of the last starts.

use std::fmt::Write as _;

use crate::export::Told;
use crate::observe::oom::sentence::size;
use crate::observe::pool::{Counter, PoolState};

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="5">
<title>hearth: the last starts</title>
<style>
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem; color-scheme: light dark }
pre { white-space: pre-wrap }
td, th { text-align: right; padding: 0 1em 0 0 }
td:first-child, th:first-child { text-align: left }
</style>
"#;

const FUNCTIONS: &str = r"<h1>Functions</h1>
<p>Their sandboxes now, and what became of requests since the agent began.</p>
<table>
<tr><th>function<th>target<th>ready<th>starting<th>busy<th>waiting<th>requests<th>cold<th>refused<th>idle memory<th>left alone
";

const STARTS: &str = r#"<h1>The last starts</h1>
<p>Newest first. Also as <a href="/starts.json">JSON</a>, and as
<a href="/metrics">metrics</a> for Prometheus.</p>
"#;

/// The page with `pools`, if there are any, and `starts`, newest first.
pub(super) fn html<'a>(pools: &[PoolState], starts: impl Iterator<Item = &'a Told>) -> String {
    let mut html = String::from(HEAD);
    if !pools.is_empty() {
        html.push_str(FUNCTIONS);
        for pool in pools {
            html.push_str(&row(pool));
        }
        html.push_str("</table>\n");
    }
    html.push_str(STARTS);
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

fn row(pool: &PoolState) -> String {
    let (mut misses, mut others, mut refused) = (0, 0, 0);
    for (counter, count) in &pool.counts.counts {
        match counter {
            Counter::Served("miss") => misses += count,
            Counter::Served(_) => others += count,
            Counter::Refused(_) => refused += count,
            _ => {}
        }
    }
    let served = misses + others;
    let cold = (misses * 100).checked_div(served);
    let cold = cold.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"));
    let left = if pool.back_off.is_zero() {
        "-".to_owned()
    } else {
        format!("{} s", pool.back_off.as_millis().div_ceil(1000))
    };
    let (name, idle) = (escape(&pool.function), size(pool.idle_bytes));
    let now = [
        pool.target,
        pool.ready,
        pool.starting,
        pool.busy,
        pool.waiting,
        served + refused,
    ];
    let now = now.map(|number| format!("<td>{number}")).concat();
    format!("<tr><td>{name}{now}<td>{cold}<td>{refused}<td>{idle}<td>{left}\n")
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
        let html = html(&[], [&told].into_iter());
        assert!(!html.contains("<table>"), "{html}");
        assert!(!html.contains("<script"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;"));
    }

    #[test]
    fn a_function_is_shown_with_what_became_of_its_requests() {
        let mut pool = PoolState {
            function: "shop".to_owned(),
            target: 3,
            ready: 1,
            busy: 2,
            idle_bytes: 64 << 20,
            back_off: std::time::Duration::from_millis(9_100),
            ..PoolState::default()
        };
        let served = [("hit", 6), ("queued", 1), ("miss", 1)];
        let served = served.map(|(how, count)| (Counter::Served(how), count));
        pool.counts.counts.extend(served);
        pool.counts.counts.insert(Counter::Refused("full"), 4);
        let row = "<tr><td>shop<td>3<td>1<td>0<td>2<td>0<td>12<td>12 %<td>4<td>64 MiB<td>10 s\n";
        let html = html(&[pool], [].into_iter());
        assert!(html.contains(row), "{html}");
    }
}
